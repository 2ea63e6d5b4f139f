"""Networks of all origins through every exporter: each is written as it computes, or refused and leaves nothing."""

import itertools
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from kdlib.deploy import runtime
from kdlib.deploy.export import export_onnx, export_program, export_torchscript
from kdlib.teachers import freeze

SHAPE = (1, 6, 6)
EXPORTERS = {"onnx": export_onnx, "program": export_program, "torchscript": export_torchscript}
DESCRIBED = {"classes": list("abc"), "mean": [0.3], "std": [0.35]}


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        ).eval()


class Around(nn.Module):
    """A network whose forward does something to the images or the logits of another one."""

    def __init__(self, forward: Callable, inner: nn.Module | None = None):
        super().__init__()
        self.inner, self.function = inner or network(), forward

    def forward(self, images):
        return self.function(self.inner, images)


def answers(forward: Callable) -> Callable[[], nn.Module]:
    return lambda: Around(forward)


def inside(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Around(lambda inner, images: inner(images), wrap(network()))


def with_attribute(make: Callable[[nn.Module], object]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = network()
        model.extra = make(model)
        return model

    return build


def compiled_in_place() -> nn.Module:
    model = network()
    model.compile()
    return model


def exported(**options) -> nn.Module:
    return torch.export.export(network(), (torch.zeros(2, *SHAPE),), **options).module()


def traced() -> torch.jit.ScriptModule:
    return torch.jit.trace(network(), torch.zeros(2, *SHAPE))


def quantised(model: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def with_weight_norm() -> nn.Module:
    model = network()
    nn.utils.weight_norm(model[4])
    return model


def pruned_and_trained() -> nn.Module:
    model = network()
    nn.utils.prune.l1_unstructured(model[4], "weight", 0.5)
    model(torch.zeros(2, *SHAPE)).sum().backward()
    return model


def parametrised() -> nn.Module:
    model = network()
    nn.utils.parametrizations.weight_norm(model[4])
    return model


def program() -> torch.export.ExportedProgram:
    return torch.export.export(network(), (torch.zeros(2, *SHAPE),))


def one_by_one(inner: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([inner(image[None]) for image in images])


WORKS = {
    "frozen": lambda: freeze(network()),
    "frozen inside": inside(freeze),
    "compiled": lambda: torch.compile(network()),
    "compiled inside": inside(torch.compile),
    "compiled in place": compiled_in_place,
    "data-parallel": lambda: nn.DataParallel(network()),
    "data-parallel, compiled and frozen": lambda: freeze(nn.DataParallel(torch.compile(network()))),
    "exported": lambda: exported(dynamic_shapes=({0: torch.export.Dim("batch")},)),
    "half precision": lambda: network().half(),
    "double precision, training": lambda: network().double().train(),
    "channels last": lambda: network().to(memory_format=torch.channels_last),
    "parametrised": parametrised,
    "that changes its images": answers(lambda inner, images: inner(images.sub_(0.5))),
    "with a lambda": with_attribute(lambda model: lambda: 1),
}  # fmt: skip
FIXED = "batches of any size"
REFUSED = {
    "a function": (lambda: lambda images: images, "model must be a network .* got function"),
    "a path": (lambda: "model.pt", "model must be a network .* got str"),
    "weights": (lambda: network().state_dict(), "model must be a network .* got OrderedDict"),
    "a torch.export program": (program, "got a torch.export program; give the network"),
    "views a batch of 2": (answers(lambda inner, images: inner(images).view(2, -1)), FIXED),
    "views a batch of 32": (answers(lambda inner, images: inner(images).view(32, -1)), FIXED),
    "adds a batch of 2": (answers(lambda inner, images: inner(images) + torch.zeros(2, 3)), FIXED),
    "unflattens the batch": (lambda: nn.Sequential(nn.Unflatten(0, (2, -1)), nn.Flatten(0, 1), network()), FIXED),
    "exported with a fixed batch": (exported, FIXED),
    "returns a tuple": (answers(lambda inner, images: (inner(images), images)), "got tuple; wrap it in a module"),
    "returns a dictionary": (answers(lambda inner, images: {"logits": inner(images)}), "got dict; wrap it"),
    "returns an object": (answers(lambda inner, images: re.compile("x")), "got Pattern; wrap it"),
    "returns nothing": (answers(lambda inner, images: None), "got NoneType; wrap it"),
    "returns class numbers": (answers(lambda inner, images: inner(images).argmax(1)), r"shape \(1, classes\)"),
    "returns whole numbers": (answers(lambda inner, images: inner(images).long()), "floating-point numbers"),
    "returns maps": (lambda: nn.Conv2d(1, 3, 3), r"shape \(1, classes\).*got \(1, 3, 4, 4\)"),
    "fails": (answers(lambda inner, images: {}["key"]), "model cannot process images .*KeyError: 'key'"),
    "answers NaN": (answers(lambda inner, images: inner(images) / 0 * 0), "logits that are not finite"),
    "wants colours": (lambda: nn.Sequential(nn.Conv2d(3, 3, 6), nn.Flatten()), r"images of shape \(1, 1, 6, 6\)"),
    "holds a lock": (with_attribute(lambda model: threading.Lock()), "cannot be copied: TypeError: cannot pickle"),
    "holds a generator": (with_attribute(lambda model: (i for i in range(3))), "cannot be copied"),
    "holds an open file": (with_attribute(lambda model: open(os.devnull)), "cannot be copied"),
    "holds a result": (with_attribute(lambda model: model[4].weight * 2), "results of earlier batches"),
    "normalises weights the old way": (with_weight_norm, "torch.nn.utils.remove_weight_norm"),
    "pruned by torch and trained": (pruned_and_trained, "torch.nn.utils.prune.remove"),
    "on the meta device": (lambda: network().to("meta"), r"no numbers in '0.weight' \(device 'meta'\); load"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "size of '1.weight' yet; run it once"),
}  # fmt: skip
# What one exporter writes and another cannot.
DIFFERS = {
    "loops over images": (
        answers(one_by_one),
        {"onnx": "no loop over the images", "program": "no loop that", "torchscript": "no loop over the images"},
    ),
    "decides by values": (
        answers(lambda inner, images: inner(images) if images.sum() > 0 else -inner(images)),
        {"onnx": "no decision", "program": "no decision", "torchscript": "differs from the network"},
    ),
    "traced": (traced, {"onnx": "is TorchScript; give the network", "program": "is TorchScript", "torchscript": None}),
    "traced inside": (
        inside(lambda model: traced()),
        {"onnx": "inner is TorchScript", "program": "inner is TorchScript", "torchscript": None},
    ),
    "quantised": (
        lambda: quantised(network()),
        {"onnx": "4 is quantised; give the network", "program": "4 is quantised", "torchscript": None},
    ),
}  # fmt: skip


def export(kind: str, model: object, path: Path) -> Path:
    return EXPORTERS[kind](model, path, image_shape=SHAPE, **(DESCRIBED if kind == "onnx" else {}))


def assert_computes(kind: str, path: Path, expected: Callable, case: str) -> None:
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    if kind == "onnx":
        (found,) = runtime.session(path.read_bytes()).run(None, {"images": images.numpy()})
        found = torch.from_numpy(found)
    else:
        loaded = torch.jit.load(path) if kind == "torchscript" else torch.export.load(path).module()
        found = loaded(images.clone())
    torch.testing.assert_close(
        found, expected(images).float(), atol=2e-3, rtol=0, msg=lambda text: f"{case}: {text}"
    )


def assert_refused(kind: str, model: object, message: str, folder: Path, case: str) -> None:
    older = folder / "older"
    older.write_bytes(b"an older file")
    for path in (older, folder / "new" / "folder" / "file"):
        try:
            export(kind, model, path)
        except (ValueError, TypeError) as error:
            assert re.search(message, str(error)), f"{case}, {kind}: {error}"
            assert "model" in str(error), f"{case}, {kind} does not name the argument: {error}"
        else:
            raise AssertionError(f"{case}, {kind}: not refused")
    assert [file.name for file in folder.iterdir()] == ["older"], f"{case}, {kind} has left something"
    assert older.read_bytes() == b"an older file", f"{case}, {kind} has lost the older file"


@pytest.mark.filterwarnings("ignore")
def test_wrapped_and_converted_networks_are_written_as_the_network_inside(tmp_path):
    for kind, (case, build) in itertools.product(EXPORTERS, WORKS.items()):
        path = export(kind, build(), tmp_path / "made" / case)
        expected = network()
        changes = case == "that changes its images"
        assert_computes(kind, path, lambda x: expected(x - 0.5 if changes else x), case)  # noqa: B023


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_classifier_of_any_batch_is_refused_before_anything_is_left_behind(tmp_path):
    for kind, (case, (build, message)) in itertools.product(EXPORTERS, REFUSED.items()):
        assert_refused(kind, build(), message, tmp_path, case)


@pytest.mark.filterwarnings("ignore")
def test_what_only_one_exporter_takes_is_written_by_it_and_refused_by_the_others(tmp_path):
    for kind, (case, (build, messages)) in itertools.product(EXPORTERS, DIFFERS.items()):
        if messages[kind] is None:
            model = build()
            assert_computes(kind, export(kind, model, tmp_path / "taken" / case), model, case)
        else:
            (tmp_path / f"{case} {kind}").mkdir()
            assert_refused(kind, build(), messages[kind], tmp_path / f"{case} {kind}", case)


def test_paths_where_nothing_can_be_written_are_refused_and_nothing_is_made_on_the_way(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "closed").mkdir(mode=0o555)
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    refused = {
        tmp_path: "is a folder; add the name of a file",
        f"{tmp_path}/": "is a folder",
        tmp_path / "file" / "a.onnx": "is no folder",
        tmp_path / "file" / "deeper" / "a.onnx": "is no folder",
        tmp_path / "pipe": "neither a file nor free for one",
        os.devnull: "neither a file nor free for one",
        tmp_path / ("a" * 300): "cannot be written: File name too long",
        "": "is no path",
        "a\0b": "is no path",
        3: "path must be a path",
        None: "path must be a path",
        b"a.onnx": "path must be a path",
    }
    if os.geteuid() != 0:  # the superuser may write there
        refused[tmp_path / "closed" / "a.onnx"] = "may not be written; choose another path"
        refused[tmp_path / "closed" / "new" / "a.onnx"] = "may not be written"
    for kind in EXPORTERS:
        for path, message in refused.items():
            with pytest.raises((ValueError, TypeError), match=message) as error:
                export(kind, network(), path)
            assert "path" in str(error.value), (kind, path)
    assert sorted(tmp_path.rglob("*")) == before and Path(os.devnull).is_char_device()


def test_a_folder_that_may_not_be_written_is_refused_for_the_superuser_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder) != tmp_path)  # as on a read-only disk
    for kind in EXPORTERS:
        for path in (tmp_path / "a", tmp_path / "new" / "a"):
            with pytest.raises(ValueError, match="path=.*may not be written; choose another path"):
                export(kind, network(), path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_while_it_is_written_is_a_sentence_and_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"an older file")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="path=.*a.pt' cannot be written: No space left on device"):
        export("program", network(), path)
    assert path.read_bytes() == b"an older file" and [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_teacher_that_prepares_its_images_itself_is_described_as_it_wants_them(tmp_path):
    teacher = freeze(network(), mean=[0.4], std=[0.2], size=6)
    for changes, works in (
        ({"mean": [0.4], "std": [0.2]}, True),
        ({"mean": [102], "std": [51], "value_range": (0, 255)}, True),
        ({"mean": [0.3], "std": [0.2]}, False),
        ({"mean": [0.4], "std": [0.2], "image_shape": (1, 7, 7)}, False),
        ({"mean": [0.4], "std": [0.2], "value_range": (-1, 1)}, False),
    ):
        options = {"image_shape": SHAPE, "classes": list("abc")} | changes
        for model in (teacher, nn.DataParallel(teacher)):
            if works:
                assert export_onnx(model, tmp_path / "a.onnx", **options).exists(), changes
                continue
            with pytest.raises(ValueError, match=r"says itself how it wants its images: mean=\["):
                export_onnx(model, tmp_path / "b.onnx", **options)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
