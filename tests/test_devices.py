"""Devices: two processes against one, parts of a batch and clipped gradients against a plain loop, Fabric's door."""

import copy
import importlib.util
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from two_processes import ALIKE, IMAGES, Small, found

from kdlib import models, training
from kdlib.features import FeatureTerm

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[dict, dict]:
    """What each of two processes found; Fabric starts them, and the system chooses the port."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, two_processes.__file__, str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert process.returncode == 0, process.stderr
    return tuple(torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))


def same(one: dict, other: dict, **tolerance: float) -> None:
    """Records, weights and last gradients agree; without a tolerance to the last bit."""
    tolerance = tolerance or {"rtol": 0.0, "atol": 0.0}
    torch.testing.assert_close(one, other, equal_nan=True, **tolerance)


# --- two processes


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_train_as_one_with_the_same_batches(both, name):
    same(both[0][name], ALIKE[name](), rtol=0.0, atol=1e-5)
    same(both[0][name], both[1][name])


def test_an_average_over_unequal_shares_would_be_seen():
    """The commonest fault: the mean of the means of 2 images and of 1 is not the mean of 3."""
    model, split = Small(1).eval(), IMAGES.take(3)
    losses = F.cross_entropy(model(split.normalized()), split.labels, reduction="none")
    means = [share.mean() for share in losses.tensor_split(2)]
    assert abs(sum(means) / 2 - losses.mean()).item() > 1e-3


def test_a_stopped_training_of_two_processes_is_resumed(both):
    for found_here in both:
        same(found_here["resumed"], found_here["train"])


def test_the_failure_of_one_process_ends_the_others_too(both):
    first, second = (results["failing"] for results in both)
    assert second == "ValueError: the second has had enough"
    assert first == "RuntimeError: another process of this training failed; its own message says why"
    same(both[0]["after the failure"], both[0]["train"])


def test_a_checkpoint_of_another_training_is_refused_in_all_processes(both):
    first, second = (results["another training"] for results in both)
    assert first.startswith("ValueError: checkpoint=") and "seed=0, this call has seed=5" in first
    assert second == f"RuntimeError: the first process of this training failed: {first}"


def test_kdlib_imports_no_fabric(both):
    assert both[0]["imported by kdlib"] == []


def test_processes_that_were_not_started_are_asked_for(both):
    assert both[0]["unlaunched"] == (
        "ValueError: fabric has 2 processes to start: call fabric.launch() before training"
    )


def test_every_process_needs_an_image_for_each_part(both):
    for results in both:
        assert results["too many parts"].startswith("ValueError: accumulate=2 on 2 devices must be at most 1")


def test_batch_norm_in_several_processes_is_warned_of_once_and_ends_alike(both):
    first, second = (dict(results["norm"]) for results in both)
    (warning,) = first.pop("warned")
    assert "2 processes" in warning and "SyncBatchNorm" in warning and second.pop("warned") == []
    first.pop("gradients"), second.pop("gradients")
    same(first, second)
    assert not torch.equal(first["weights"]["norm.running_mean"], torch.zeros(6))


def test_processes_draw_other_views_and_the_first_one_reports(both):
    first, second = (results["drawn"] for results in both)
    assert len({*first["draws"], *second["draws"]}) == 8
    assert first["reports"] > 0 and second["reports"] == 0


# --- one device by Fabric


def tiny(seed: int = 1) -> nn.Module:
    return models.build("tiny-cnn", seed=seed, image_size=8)


def by_train(**arguments):
    model = tiny()
    return found(model, training.train(model, IMAGES.take(70), epochs=2, progress=False, **arguments))


def by_distill(**arguments):
    model, term = tiny(), FeatureTerm(F.mse_loss, "stages.0", "stages.0", weight=0.1, regressor=True)
    history = training.distill(
        model, tiny(2).eval(), IMAGES.take(70), epochs=2, features=[term], validation=IMAGES.take(30),
        progress=False, **arguments,
    )  # fmt: skip
    return found(model, history)


@pytest.mark.parametrize("run", [by_train, by_distill])
def test_fabric_on_one_device_trains_as_the_plain_loop_to_the_bit(fabric, run):
    same(run(fabric=fabric), run(device="cpu", bfloat16=False))


def test_fabric_in_bfloat16_is_the_plain_loop_in_bfloat16(fabric):
    mixed = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    same(by_train(fabric=mixed), by_train(device="cpu", bfloat16=True))
    assert by_train(fabric=fabric)["records"] != by_train(fabric=mixed)["records"]


def half() -> Fabric:
    """Float16 on a CPU, where it is slow but there."""
    return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", device="cpu")])


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_in_half_precision_the_loss_is_scaled_and_the_gradient_clipped_unscaled(clip_norm):
    scaled, plain = (two_processes.distil(on, clip_norm=clip_norm, batch_size=43) for on in (half(), None))
    same(scaled["weights"], plain["weights"], rtol=0.0, atol=2e-3)
    assert scaled["records"] != plain["records"]
    if clip_norm is not None:
        norm = torch.cat([gradient.flatten() for gradient in scaled["gradients"].values()]).norm()
        torch.testing.assert_close(norm.item(), clip_norm, rtol=1e-3, atol=0.0)


def test_a_checkpoint_keeps_the_scale_of_half_precision(tmp_path):
    whole = two_processes.resumed(half(), tmp_path / "stopped.pt")
    saved = torch.load(tmp_path / "stopped.pt", weights_only=True)
    assert saved["settings"]["precision"] == "16-mixed" and saved["devices"]["scale"] > 0
    same(whole, two_processes.train_seven(half()))
    with pytest.raises(ValueError, match="precision='16-mixed', this call has precision=None"):
        two_processes.resumed(None, tmp_path / "stopped.pt")


# --- parts of a batch, and clipped gradients, against a loop by hand


def by_hand(model, split, *, epochs, batch_size, learning_rate, clip_norm=None) -> list[float]:
    """Whole batches; the gradient is scaled by hand. Returns its norms, before that."""
    steps = -(-len(split) // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps + 1)
    norms = []
    for epoch in range(epochs):
        torch.manual_seed(epoch)
        for rows in torch.randperm(len(split)).tensor_split(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(split.normalized(rows)), split.labels[rows]).backward()
            norms.append(math.sqrt(sum(w.grad.double().square().sum().item() for w in model.parameters())))
            if clip_norm is not None and norms[-1] > clip_norm:
                for weight in model.parameters():
                    weight.grad *= clip_norm / norms[-1]
            optimizer.step()
            scheduler.step()
    return norms


@pytest.mark.parametrize("through", [None, "fabric"])
@pytest.mark.parametrize("accumulate, clip_norm", [(3, None), (1, 2.0), (2, 2.0)])
def test_parts_and_clipping_do_what_a_plain_loop_does(fabric, through, accumulate, clip_norm):
    ours, reference, split = Small(3), Small(3), IMAGES.take(33)
    sizes = []
    ours.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    training.train(
        ours, split, epochs=2, batch_size=8, learning_rate=1e-2, accumulate=accumulate, clip_norm=clip_norm,
        progress=False, fabric=fabric if through else None,
    )  # fmt: skip
    norms = by_hand(reference, split, epochs=2, batch_size=8, learning_rate=1e-2, clip_norm=clip_norm)
    assert min(norms) < 2.0 < max(norms)  # some gradients are clipped, and some are not
    for mine, other in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
    batches = [len(rows) for rows in torch.arange(33).tensor_split(5)] * 2
    parts = [[len(part) for part in torch.arange(size).tensor_split(accumulate)] for size in batches]
    assert sizes[-len(batches) * accumulate :] == list(itertools.chain(*parts))


def test_losses_in_parts_are_those_of_the_batch():
    whole, parts = two_processes.distil(), two_processes.distil(accumulate=3)
    same(whole, parts, rtol=0.0, atol=1e-5)


def test_parts_see_the_views_that_the_batch_drew():
    def augment(image):
        return (image.float() * torch.rand(())).to(torch.uint8)

    whole, parts = (two_processes.distil(augment=augment, accumulate=number) for number in (1, 2))
    same(whole, parts, rtol=0.0, atol=1e-5)
    assert two_processes.distil()["records"] != whole["records"]


def test_a_checkpoint_knows_the_parts_and_the_norm(tmp_path):
    two_processes.train_seven(checkpoint=tmp_path / "plain.pt")
    for name, value in (("accumulate", 2), ("clip_norm", 1.0)):
        with pytest.raises(ValueError, match=rf"{name}=None, this call has {name}={value}"):
            two_processes.train_seven(checkpoint=tmp_path / "plain.pt", **{name: value})


def test_a_checkpoint_from_before_there_were_parts_is_resumed(tmp_path):
    path = tmp_path / "old.pt"
    expected = two_processes.train_seven(checkpoint=path)
    state = torch.load(path, weights_only=True)
    for name in ("accumulate", "clip_norm", "precision"):
        del state["settings"][name]
    del state["devices"]
    torch.save(state, path)
    assert two_processes.train_seven(checkpoint=path)["records"] == expected["records"]


# --- bad input


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        ({"accumulate": 0}, ValueError, "accumulate must be at least 1, got 0"),
        ({"accumulate": 1.5}, TypeError, "accumulate must be an integer"),
        ({"clip_norm": -1}, ValueError, "clip_norm must be above 0, got -1"),
        ({"clip_norm": 0}, ValueError, "clip_norm must be above 0, got 0"),
        ({"accumulate": 4}, ValueError, "accumulate=4 on 1 device must be at most 3: .* smallest has 3 images"),
        ({"fabric": "cuda"}, TypeError, r"fabric must be a .*Fabric .*kdlib\[devices\].* got str 'cuda'"),
        ({"fabric": nn.Identity()}, TypeError, "fabric must be a lightning_fabric.Fabric"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        two_processes.train_seven(**arguments)


@pytest.mark.parametrize("arguments, message", [
    ({"bfloat16": True}, "bfloat16=True and fabric, whose precision is '32-true'"),
    ({"bfloat16": False}, "bfloat16=False and fabric, whose precision is '32-true'"),
    ({"device": "cpu"}, "device='cpu' and fabric, which computes on cpu"),
])  # fmt: skip
def test_fabric_and_another_answer_to_the_same_question_are_refused(fabric, arguments, message):
    with pytest.raises(ValueError, match=message):
        two_processes.train_seven(fabric, **arguments)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_precision_that_changes_the_weights_is_refused(precision):
    chosen = Fabric(accelerator="cpu", devices=1, precision=precision)
    with pytest.raises(ValueError, match=f"32-true, bf16-mixed, 16-mixed, got '{precision}'"):
        two_processes.train_seven(chosen)


def test_weights_in_pieces_are_refused(fabric):
    class ModelParallelStrategy:
        precision = fabric.strategy.precision

    sharding = copy.copy(fabric)
    sharding._strategy = ModelParallelStrategy()
    sharding._strategy.root_device = torch.device("cpu")
    with pytest.raises(
        ValueError, match="fabric must keep all weights on each device.* got ModelParallelStrategy"
    ):
        two_processes.train_seven(sharding)


# --- the benchmark


def test_the_benchmark_prints_a_complete_table(capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "fabric.py"
    spec = importlib.util.spec_from_file_location("fabric_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.main(["--steps", "2", "--rounds", "2", "--batch-size", "4", "--no-import"])
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("tiny-cnn, batches of 4") and len(rows) == len(benchmark.LOOPS)
    for row, loop in zip(rows, benchmark.LOOPS, strict=True):
        found = re.fullmatch(r"  (.+?) +\d+\.\d\d ms  (\d+\.\d\d) \((\d+\.\d\d) to (\d+\.\d\d)\)  (.+)", row)
        assert found[1] == loop and float(found[3]) <= float(found[2]) <= float(found[4])
        assert loop == "wrapped by Fabric" or found[5] == "the same weights"
