"""The benchmarks run and print a complete table; their figures are for a person to read, not for a test."""

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdlib import data
from kdlib.losses import distillation_loss

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kd_epoch.py"
RATIO = r"(\d+\.\d\d) \((\d+\.\d\d) to (\d+\.\d\d)\)"


@pytest.fixture(scope="module")
def kd_epoch():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("kd_epoch", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_networks_have_the_published_sizes(kd_epoch):
    kd_epoch.check_sizes()
    images = torch.zeros(2, 3, 32, 32)
    assert kd_epoch.deep_network()(images).shape == kd_epoch.light_network()(images).shape == (2, 10)


def test_both_sides_minimise_the_same_loss(kd_epoch):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(16, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, 10, (16,), generator=generator)
    ours = distillation_loss(
        student, teacher, labels, temperature=kd_epoch.TEMPERATURE, alpha=kd_epoch.ALPHA
    ).total
    torch.testing.assert_close(kd_epoch.tutorial_loss(student, teacher, labels), ours)


def test_both_sides_see_the_same_images(kd_epoch):
    split = kd_epoch.as_colour_images(data.load("digits").train.take(20))
    assert split.images.shape == (20, 3, 32, 32)
    pictures = kd_epoch.PictureDataset(split, augmented=False)
    images = torch.stack([pictures[index][0] for index in range(len(pictures))])
    torch.testing.assert_close(images, split.normalized())
    assert [pictures[index][1] for index in range(len(pictures))] == split.labels.tolist()


def test_test_images_are_normalised_as_training_images(kd_epoch):
    digits = data.load("digits")
    train = kd_epoch.as_colour_images(digits.train)
    test = kd_epoch.as_colour_images(digits.test, like=train)
    assert torch.equal(test.mean, train.mean) and torch.equal(test.std, train.std)


def test_prints_a_complete_table():
    command = [sys.executable, SCRIPT, "--data", "digits", "--images", "40", "--test-images", "20"]
    command += ["--repeats", "1", "--epochs", "1", "--seeds", "2", "--teacher-epochs", "1"]
    command += ["--view-seeds", "2", "--view-images", "40", "--view-epochs", "2"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()

    def line(start):
        (found,) = (line for line in lines if line.startswith(start))
        return found

    assert line("digits: 40 training and 20 test images")
    for row in ("images as they are  ", "random crop and flip  "):
        speeds = r"\s+([\d,]+)\s+([\d,]+)\s+"
        assert re.search(speeds + RATIO + r"\s+" + RATIO, line(row)), line(row)
    for row in ("images as they are, cached logits", "random crop and flip, live teacher"):
        assert re.search(RATIO + r"\s+" + RATIO, line(row)), line(row)
    for row in (
        "teacher:",
        "the teacher's logits, computed once:",
        "10 epochs and these logits, tutorial / kdlib:",
        "tutorial / kdlib with views:",
        "drawn anew in every step:",
        "8 stored views:",
    ):
        assert float(re.search(r": (\d+\.\d\d)", line(row))[1]) >= 0
    for row in ("tutorial  ", "kdlib  "):
        accuracies = [float(value) for value in re.findall(r"\d+\.\d\d", line(row))]
        mean, _, *each = accuracies
        assert len(each) == 2 and math.isclose(mean, sum(each) / 2, abs_tol=0.011)
    assert "95 % interval" in line("kdlib - tutorial, paired:") and "95 % interval" in line("stored - drawn anew")
