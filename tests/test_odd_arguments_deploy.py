"""Odd arguments of models, exporters and what makes networks smaller: a right answer, or an error that names them.

One argument of a call that works is replaced at a time. What comes back is compared with what plain arguments of the
same meaning give, or is a ValueError, a TypeError or a FileNotFoundError with the argument's name in it. The functions
are those that a user has: without the type checker that the tests put around kdlib.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd import (
    LISTS,
    NETWORKS,
    NUMBERS,
    SHAPE,
    SHAPES,
    SPLIT,
    TEXTS,
    THINGS,
    few,
    flag,
    itself,
    network,
    numbers,
    or_none,
    paths,
    place,
    positive,
    same_network,
    shape,
    share,
    text,
    texts,
    tried,
    unchecked,
    whole,
)  # fmt: skip

from kdlib import data, models
from kdlib.deploy import (
    carving,
    description,
    export,
    factorization,
    loading,
    pruning,
    quantization,
    student_search,
)
from kdlib.deploy.webapp import classifier

models, carving, description, export, factorization, pruning, quantization, student_search = map(
    unchecked, (models, carving, description, export, factorization, pruning, quantization, student_search)
)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "text.onnx").write_text("no model")
    exported(folder / "model.onnx")
    return folder


def exported(path: Path, **changes: Any) -> Path:
    described = {"image_shape": SHAPE, "classes": list("abc"), "mean": [0.3], "std": [0.25], "name": "odd"}
    return export.export_onnx(network(), path, **described | changes)


@settings(few, max_examples=80)
@given(draws=st.data())
def test_build(draws):
    def parameters(**options):
        return sum(parameter.numel() for parameter in models.build(**options).parameters())

    def size(value):
        one = isinstance(value, torch.Tensor | np.ndarray) and value.dtype != torch.bool
        return whole(value.item() if one else value)

    sizes = [torch.tensor(3), torch.tensor([3]), torch.tensor(True), np.array(3), (28, 28), [28], 10**9]
    names = [
        "TinyCNN",
        "tiny cnn",
        "resnet18",
        "resnet9",
        "resnet8x0",
        "fasterrcnn_resnet50_fpn",
        "quantized_resnet18",
    ]
    plain = {"name": "student-net", "num_classes": 3, "in_channels": 1, "image_size": 8, "seed": 0}
    odd = {name: (sizes, size) for name in ("num_classes", "in_channels", "image_size")}
    odd |= {"name": (names, text), "seed": ([2**64, -1], or_none(lambda value: whole(value + 1) - 1))}
    tried(draws.draw, parameters, plain, odd)


@settings(few, max_examples=80)
@given(draws=st.data())
def test_description(draws):
    plain = {
        "name": "a",
        "classes": ("a", "b", "c"),
        "channels": 1,
        "height": 6,
        "width": 6,
        "mean": (0.3,),
        "std": (1,),
    }
    ranges = [(0, 1), (1, 0), (0, math.inf), "01", (0, 1, 2)]
    odd = {name: (SHAPES[:3], whole) for name in ("channels", "height", "width")}
    odd |= {"mean": (LISTS, numbers), "std": (LISTS, numbers), "value_range": (ranges, numbers)}
    odd |= {"classes": (TEXTS, texts), "name": ([], text)}

    def written_and_read(**options):
        described = description.Description(**options)
        again = description.Description.from_json(described.to_json())
        return again.image_shape, again.name, again.classes, again.mean, again.std, again.value_range

    tried(draws.draw, written_and_read, plain | {"value_range": (0.0, 1.0)}, odd)


@settings(few, max_examples=80)
@given(draws=st.data())
def test_exporters(draws, folder):
    exporter = draws.draw(st.sampled_from([export.export_program, export.export_torchscript]))

    def answers(**options):
        opened = loading.open_file(exporter(**options))
        return opened(np.ones((2, *options["image_shape"]), np.float32))().detach()

    plain = {"model": network(), "path": folder / "exports" / "a.pt", "image_shape": SHAPE, "tolerance": 1e-3}
    if exporter is export.export_program:
        plain["path"] = folder / "exports" / "a.pt2"
    odd = {"model": (NETWORKS, same_network), "image_shape": (SHAPES, shape), "tolerance": ([], positive)}
    tried(draws.draw, answers, plain, odd)


@settings(few, max_examples=60)
@given(draws=st.data())
def test_paths_to_write(draws, folder):
    """A file is where it was to be, or nothing has changed."""
    value = draws.draw(
        st.sampled_from([*paths(folder, "b.pt"), *NUMBERS, *[thing for thing in THINGS if thing is not None]])
    )
    if isinstance(value, str | Path) and str(value) in ("4", "a", " "):
        return  # a good path, in the folder that the tests run in
    before = sorted(folder.rglob("*"))
    try:
        export.export_torchscript(network(), value, image_shape=SHAPE)
    except (ValueError, TypeError) as error:
        assert "path" in str(error) and sorted(folder.rglob("*")) == before
    else:
        assert place(value).is_file()
        place(value).unlink()
    (folder / "text.onnx").write_text("no model")


@settings(few, max_examples=15)
@given(draws=st.data())
def test_export_onnx(draws, folder):
    def described(**options):
        about = classifier.Classifier(exported(folder / "onnx" / "a.onnx", **options)).about()
        return [
            about[name]
            for name in ("classes", "channels", "height", "width", "name", "mean", "std", "value_range")
        ]

    ranges = [(0, 1), (0, 255), (1, 0), (0, math.inf), (0, 1, 2), "01", [0]]
    plain = {"image_shape": SHAPE, "classes": list("abc"), "mean": [0.3], "std": [0.25], "name": "odd"}
    odd = {
        "classes": (TEXTS, texts), "mean": (LISTS, numbers), "std": (LISTS, numbers), "name": ([], or_none(text)),
        "value_range": (ranges, numbers), "tolerance": ([], positive), "image_shape": (SHAPES, shape),
    }  # fmt: skip
    tried(draws.draw, described, plain | {"value_range": (0, 1), "tolerance": 1e-3}, odd)


@settings(few, max_examples=120)
@given(draws=st.data())
def test_what_makes_networks_smaller(draws):
    name, call, plain = draws.draw(
        st.sampled_from(
            [
                ("share", pruning.sparsify, {"share": 0.5, "layerwise": False}),
                ("share", pruning.prune_channels, {"share": 0.5, "image_shape": SHAPE}),
                ("energy", factorization.factorize, {"energy": 0.5}),
                ("", pruning.finish, {}),
                ("", pruning.zero_share, {}),
            ]
        )
    )
    odd = {"model": (NETWORKS, same_network), "layerwise": ([], flag), "image_shape": (SHAPES, shape)}
    tried(draws.draw, call, {"model": network()} | plain, odd | {name: ([], share)})


@few
@given(draws=st.data())
def test_carve(draws):
    plain = {"teacher": network(), "student": network(), "image_shape": SHAPE}
    odd = dict.fromkeys(("teacher", "student"), (NETWORKS, same_network)) | {"image_shape": (SHAPES, shape)}
    tried(draws.draw, carving.carve, plain, odd)


NORMAL = SPLIT.normalized()
IMAGES = [
    SPLIT, SPLIT.images, NORMAL, NORMAL.double(), NORMAL.half(), NORMAL.numpy(), SPLIT.labels, NORMAL[:, :, :3],
    NORMAL[:0], NORMAL * math.nan, NORMAL.to("meta"), data.ImageDataset(SPLIT, SPLIT, SPLIT, list("abc")), [SPLIT],
    NORMAL[0], NORMAL.to_sparse(), NORMAL.clone().requires_grad_(), NORMAL.to(memory_format=torch.channels_last),
]  # fmt: skip


def pixels(value: Any) -> Any:
    if isinstance(value, data.ImageSplit):
        return value
    assert isinstance(value, torch.Tensor) and value.is_floating_point() and value.shape[1:] == SHAPE, (
        "accepted"
    )
    return value.detach().float().contiguous()


@settings(few, max_examples=60)
@given(draws=st.data())
def test_quantize_and_what_reads_exported_files(draws, folder):
    model, out = folder / "model.onnx", folder / "quantised" / "a.onnx"

    def quantised_logits(**options):
        return quantization.onnx_logits(quantization.quantize(out=out, **options), NORMAL)

    call, plain = draws.draw(
        st.sampled_from(
            [
                (quantised_logits, {"path": model, "images": SPLIT, "name": "odd", "reduce_range": True}),
                (quantization.onnx_logits, {"path": model, "images": SPLIT}),
                (quantization.agreement, {"path_a": model, "path_b": model, "images": SPLIT}),
            ]
        )
    )
    odd = dict.fromkeys(("path", "path_a", "path_b"), (paths(folder, "model.onnx"), place))
    odd |= {"images": (IMAGES, pixels), "name": ([], or_none(text)), "reduce_range": ([], flag)}
    tried(draws.draw, call, plain, odd)


@settings(few, max_examples=60)
@given(draws=st.data())
def test_search_student(draws):
    plain = {
        "teacher": torch.eye(3)[SPLIT.labels], "split": SPLIT, "validation": SPLIT, "multiply_adds": 10**6,
        "students": 1, "epochs": 1, "depths": (1,), "channels": (2,), "kernels": (3,), "strides": (2,),
        "temperature": 4.0, "seed": 0, "alpha": 0.5, "learning_rate": 0.01, "latency": None, "latency_budget": None,
    }  # fmt: skip
    choices = [(1,), [2], np.array([1, 2]), [], [0], [1.5], ["1"], "1", [True], {1: 2}, [None]]
    splits = [SPLIT.images, NORMAL, data.ImageDataset(SPLIT, SPLIT, SPLIT, list("abc")), [SPLIT]]
    logits = [
        torch.eye(3),
        torch.eye(3)[SPLIT.labels] * math.nan,
        SPLIT.labels,
        torch.zeros(12, 1),
        network(),
    ]
    odd = dict.fromkeys(("depths", "channels", "kernels", "strides"), (choices, itself))
    odd |= {
        "split": (splits, itself),
        "validation": (splits, itself),
        "teacher": (logits, itself),
        "seed": ([], itself),
    }
    odd |= dict.fromkeys(("temperature", "learning_rate", "latency", "latency_budget"), ([], itself))
    tried(draws.draw, lambda **options: bool(student_search.search_student(**options).plan), plain, odd)
