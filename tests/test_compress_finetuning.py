"""What every compressed network must bear: training by a teacher, and export as the smaller network that it is."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from kdlib import data, metrics, models
from kdlib.deploy import compress, footprint
from kdlib.deploy.export import export_onnx
from kdlib.inference import predict_logits
from kdlib.teachers import cached_logits
from kdlib.training import distill, train

DIGITS = data.load("digits")
SPLIT, TEST = DIGITS.train.take(200), DIGITS.test.take(100)
SHAPE = (1, 8, 8)
PLAN = ((16, 3, 1), (16, 3, 2))
described = {"classes": DIGITS.classes, "mean": DIGITS.mean, "std": DIGITS.std}


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    """A network that knows its 200 images."""
    torch.manual_seed(0)
    network = models.PocketCNN(10, 1, PLAN)
    train(network, SPLIT, epochs=25, progress=False)
    assert metrics.accuracy(network, SPLIT) > 0.9
    return network


def layer_sizes(network: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in network.parameters()]


def zeros(network: nn.Module) -> list[list[bool]]:
    return [
        (network.get_submodule(path).weight == 0).flatten().tolist() for path in ("stages.0.0", "stages.1.0")
    ]


WAYS: dict[str, tuple[Callable[[nn.Module], nn.Module], Callable[[nn.Module], list]]] = {
    "sparsify": (lambda network: compress.sparsify(network, 0.8), zeros),
    "prune_channels": (lambda network: compress.prune_channels(network, 0.6, SHAPE), layer_sizes),
    "factorize": (lambda network: compress.factorize(network, 0.6), layer_sizes),
    "carve": (
        lambda network: compress.carve(network, models.PocketCNN(10, 1, ((6, 3, 1), (7, 3, 2))), SHAPE),
        layer_sizes,
    ),
}


def test_a_compressed_network_learns_from_its_teacher_stays_compressed_and_is_exported(teacher, tmp_path):
    logits = cached_logits(teacher, SPLIT)
    for way, (make_smaller, what_stays) in WAYS.items():
        smaller = make_smaller(teacher)
        before, kept = metrics.accuracy(smaller, SPLIT), what_stays(smaller)
        distill(smaller, logits, SPLIT, epochs=15, progress=False)
        assert what_stays(smaller) == kept != what_stays(teacher), way
        # The teacher does not lose by it, and the smaller network gains what it had lost.
        assert torch.equal(predict_logits(teacher, SPLIT), logits), way
        assert metrics.accuracy(smaller, SPLIT) > before + 0.1, way
        finished = compress.finish(smaller)
        assert what_stays(finished) == kept, way
        path = export_onnx(finished, tmp_path / f"{way}.onnx", image_shape=SHAPE, **described)
        expected = predict_logits(smaller, TEST)
        torch.testing.assert_close(compress.onnx_logits(path, TEST), expected, atol=1e-3, rtol=1e-4)
        quantised = compress.quantize(path, tmp_path / "b.onnx", SPLIT)
        assert metrics.agreement(compress.onnx_logits(quantised, TEST), expected, TEST) >= 0.9, way


def test_compressed_networks_take_fewer_operations_but_not_sparse_ones(teacher):
    whole = footprint.multiply_adds(teacher, SHAPE)
    counts = {
        way: footprint.multiply_adds(make_smaller(teacher), SHAPE) for way, (make_smaller, _) in WAYS.items()
    }
    assert counts.pop("sparsify") == whole and all(count < 0.8 * whole for count in counts.values())


def test_a_carved_student_is_ahead_of_a_fresh_one_after_the_same_training(teacher):
    torch.manual_seed(1)
    fresh = models.PocketCNN(10, 1, ((6, 3, 1), (7, 3, 2)))
    carved = compress.carve(teacher, fresh, SHAPE)
    for student in (fresh, carved):
        distill(student, cached_logits(teacher, SPLIT), SPLIT, epochs=15, progress=False)
    assert metrics.accuracy(carved, TEST) > metrics.accuracy(fresh, TEST) + 0.05


def test_a_student_that_was_found_learns_and_is_exported(teacher, tmp_path):
    found = compress.search_student(
        teacher,
        SPLIT,
        DIGITS.validation.take(50),
        multiply_adds=20_000,
        students=2,
        epochs=1,
        channels=(4, 8),
    )
    student = models.PocketCNN(10, 1, found.plan)
    distill(student, cached_logits(teacher, SPLIT), SPLIT, epochs=2, progress=False)
    assert footprint.multiply_adds(student, SHAPE) <= 20_000
    path = export_onnx(student, tmp_path / "a.onnx", image_shape=SHAPE, **described)
    torch.testing.assert_close(
        compress.onnx_logits(path, TEST), predict_logits(student, TEST), atol=1e-3, rtol=1e-4
    )
