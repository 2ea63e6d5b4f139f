"""Sizes and counts against hand-written formulas and published numbers, memory against processes of known size."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from kdlib import models
from kdlib.deploy import footprint, fresh_process
from kdlib.deploy.export import export_program

CHECKOUT = Path(__file__).parents[1]
SHAPE = (1, 28, 28)


def test_parameters_count_shared_tensors_once_and_buffers_not_at_all():
    shared = nn.Linear(5, 5)
    network = nn.Sequential(shared, nn.BatchNorm1d(5), shared)
    assert footprint.parameters(network) == 5 * 5 + 5 + 2 * 5


def test_file_size_is_in_bytes_and_a_missing_file_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(bytes(1234))
    assert footprint.file_size(tmp_path / "a.onnx") == 1234
    with pytest.raises(FileNotFoundError, match="path names no file: .*absent.onnx"):
        footprint.file_size(tmp_path / "absent.onnx")


def test_multiply_adds_agree_with_the_formula_for_strided_grouped_and_dense_layers():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 6, 1, bias=False), nn.Flatten(), nn.Linear(6 * 6 * 2, 10),
    )  # fmt: skip
    network[1].eval()
    by_hand = 10 * 6 * 8 * 3 * 9 + 6 * 2 * 8 * 25 + 6 * 2 * 6 * 8 + 6 * 6 * 2 * 10
    assert footprint.multiply_adds(network, (3, 20, 12)) == by_hand
    assert network.training and not network[1].training


def test_counts_are_those_that_torchvision_publishes_compiled_or_not():
    for name in ("mobilenet_v2", "shufflenet_v2_x0_5"):
        published = torchvision.models.get_model_weights(name).DEFAULT.meta
        for network in (
            torchvision.models.get_model(name),
            torch.compile(torchvision.models.get_model(name)),
        ):
            assert footprint.parameters(network) == published["num_params"], name
            counted = footprint.multiply_adds(network, (3, 224, 224)) / 1e9
            assert counted == pytest.approx(published["_ops"], abs=6e-4), name


def test_multiply_adds_see_attention_in_spite_of_its_fast_path():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images):
            rows = images.flatten(1, 2)
            return self.attention(rows, rows, rows, need_weights=False)[0]

    length, width = 15, 8
    expected = 4 * length * width**2 + 2 * length**2 * width
    assert torch.backends.mha.get_fastpath_enabled()
    assert footprint.multiply_adds(Attention(), (3, 5, 8)) == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_network_that_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="no convolution, matrix product or attention"):
        footprint.multiply_adds(nn.Flatten(), SHAPE)
    with pytest.raises(ValueError, match=r"cannot process images of image_shape=\(3, 4, 4\)"):
        footprint.multiply_adds(nn.Conv2d(1, 2, 3), (3, 4, 4))


# ------------------------------------------------------------------------------------ memory


def test_peak_memory_is_that_of_the_fresh_process_and_not_of_this_one(exported):
    ballast = np.ones(50_000_000)  # 400 MB, which getrusage of a child would start from
    peak = footprint.peak_memory(exported[0], SHAPE)
    assert exported[0].stat().st_size < peak < ballast.nbytes


def test_peak_memory_grows_with_the_activations_of_a_batch(exported):
    one, many = (footprint.peak_memory(exported[0], (1, 28, 28), batch_size=size) for size in (1, 4000))
    assert many - one > 4000 * 28 * 28 * 4  # the images alone


def test_peak_memory_of_a_program_of_torch_contains_torch(exported, tmp_path):
    program = export_program(models.build("tiny-cnn", seed=0), tmp_path / "a.pt2", image_shape=SHAPE)
    assert footprint.peak_memory(program, SHAPE) > 1.3 * footprint.peak_memory(exported[0], SHAPE)


def test_an_onnx_file_is_answered_in_a_process_without_torch(exported):
    code = "import sys; from kdlib.deploy import fresh_process; fresh_process.main(sys.argv[1:]); print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code, str(exported[0]), "1", "28", "28", "1", "1"],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    peak, loaded = process.stdout.splitlines()
    assert int(peak) > 0 and "onnxruntime" in loaded.split() and "torch" not in loaded.split()


def test_a_process_that_fails_and_a_system_that_cannot_be_measured_are_refused(
    exported, tmp_path, monkeypatch
):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(
        ValueError, match=r"text.onnx could not be measured .*ValueError: path='text.onnx' cannot be"
    ):
        footprint.peak_memory(tmp_path / "text.onnx", SHAPE)
    with pytest.raises(FileNotFoundError, match="path names no file: .*absent.onnx"):
        footprint.peak_memory(tmp_path / "absent.onnx", SHAPE)
    with pytest.raises(ValueError, match="image_shape must be"):
        footprint.peak_memory(exported[0], (28, 28))
    monkeypatch.setattr(fresh_process.sys, "platform", "win32")
    with pytest.raises(NotImplementedError, match="on Linux and macOS, not on win32"):
        footprint.peak_memory(exported[0], SHAPE)


def test_a_training_is_three_forward_passes_of_every_image_that_it_sees():
    assert footprint.training_multiply_adds(10, images=7, passes=2) == 10 * 7 * 2 + 2 * (10 * 7 * 2)
    assert footprint.training_multiply_adds(10, images=7, passes=0) == 0
    for name, value in (("multiply_adds", 0), ("images", -1), ("passes", -1)):
        arguments = {"multiply_adds": 10, "images": 7, "passes": 2, name: value}
        with pytest.raises(ValueError, match=name):
            footprint.training_multiply_adds(**arguments)
