"""Accuracy, calibration, agreement and paired intervals."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from kdlib.data import ImageSplit
from kdlib.metrics import Interval, accuracy, agreement, calibration_error, paired_interval

torch.set_num_threads(1)


def split_of(labels):
    images = torch.arange(len(labels) * 16).remainder(251).to(torch.uint8).reshape(-1, 1, 4, 4)
    return ImageSplit(images, torch.as_tensor(labels))


def certain_of(classes, total=3, gap=5.0):
    """Logits whose largest is that of the given class."""
    return gap * nn.functional.one_hot(torch.tensor(classes), total).float()


def logits_of_probabilities(rows):
    return torch.tensor(rows, dtype=torch.float64).log()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3)).train()


# ---- accuracy and agreement


def test_accuracy_is_the_share_of_right_images():
    assert accuracy(certain_of([0, 1, 2, 1]), split_of([0, 1, 2, 2])) == 0.75
    assert accuracy(certain_of([0, 1]), split_of([0, 1])) == 1
    assert accuracy(certain_of([1, 0]), split_of([0, 1])) == 0


def test_agreement_does_not_look_at_labels():
    student, teacher = certain_of([0, 1, 2, 2]), certain_of([0, 1, 1, 2], gap=0.1)
    assert agreement(student, teacher, split_of([0, 1, 2, 2])) == 0.75
    assert agreement(student, teacher, split_of([1, 0, 0, 0])) == 0.75
    assert agreement(student, student, split_of([0, 0, 0, 0])) == 1


def test_a_network_and_its_logits_give_the_same_figures(network):
    split = split_of([0, 1, 2, 2, 1])
    with torch.no_grad():
        logits = network.eval()(split.normalized())
    network.train()
    teacher = certain_of([0, 1, 2, 0, 0])
    assert accuracy(network, split) == accuracy(logits, split)
    assert calibration_error(network, split) == pytest.approx(calibration_error(logits, split), abs=1e-6)
    assert agreement(network, teacher, split) == agreement(logits, teacher, split)
    assert agreement(teacher, network, split) == agreement(logits, teacher, split)
    assert all(module.training for module in network.modules())


# ---- calibration


def test_calibration_error_by_hand():
    """Two bins: confidence .95 with accuracy 1/2 (twice), confidence .6 with accuracy 1 (once)."""
    logits = logits_of_probabilities([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6]])
    expected = 2 / 3 * abs(0.5 - 0.95) + 1 / 3 * abs(1 - 0.6)
    assert calibration_error(logits, split_of([0, 1, 1])) == pytest.approx(expected)


def test_calibration_error_by_its_definition_on_random_logits():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2000, 5, generator=generator)
    labels = torch.randint(0, 5, (2000,), generator=generator)
    confidence, predicted = (x.numpy() for x in logits.double().softmax(1).max(1))
    hit = predicted == labels.numpy()
    for bins in (1, 10, 15):
        expected = 0.0
        for low in np.arange(bins) / bins:
            inside = (confidence > low) & (confidence <= low + 1 / bins)
            if inside.any():
                expected += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
        assert calibration_error(logits, split_of(labels), bins=bins) == pytest.approx(expected, abs=1e-6)


def test_a_network_as_accurate_as_it_is_confident_is_calibrated():
    logits = logits_of_probabilities([[0.8, 0.2]] * 5)
    assert calibration_error(logits, split_of([0, 0, 0, 0, 1])) == pytest.approx(0, abs=1e-12)
    assert calibration_error(certain_of([0] * 4, total=2, gap=1e4), split_of([1] * 4)) == pytest.approx(1)


def test_a_confidence_of_exactly_one_shares_the_last_bin():
    """A bin of its own, as torchmetrics makes, lets errors no longer cancel: .2575 instead of .2425."""
    probabilities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.99, 0.01], [0.98, 0.02]], dtype=torch.float64)
    split = split_of([1, 0, 0, 0])
    faulty = multiclass_calibration_error(probabilities, split.labels, num_classes=2, n_bins=15).item()
    assert faulty == pytest.approx(0.2575)
    logits = probabilities.clamp(min=1e-300).log()
    assert calibration_error(logits, split) == pytest.approx(1 / 4 * (1 + 1 + 0.99 + 0.98) - 3 / 4)


def test_logits_that_look_like_probabilities_are_still_logits():
    """torchmetrics applies a softmax only where a value lies outside [0, 1]."""
    logits, split = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), split_of([0, 1])
    faulty = multiclass_calibration_error(logits, split.labels, num_classes=2, n_bins=15).item()
    assert faulty == pytest.approx(0.15)
    confidences = [1 / (1 + np.exp(-0.8)), 1 / (1 + np.exp(-0.6))]
    assert calibration_error(logits, split) == pytest.approx(1 - np.mean(confidences))


# ---- bad input to the three


METRICS = {
    "accuracy": accuracy,
    "calibration_error": calibration_error,
    "agreement": lambda model, split: agreement(certain_of([0, 1, 2, 2]), model, split),
}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
SPLIT = split_of([0, 1, 2, 2])


@every_metric
def test_logits_of_other_images_are_refused(metric):
    with pytest.raises(ValueError, match=r"each of the 4 images, got \(5, 3\)"):
        metric(torch.zeros(5, 3), SPLIT)


@every_metric
def test_what_is_no_logits_is_refused(metric):
    with pytest.raises(ValueError, match=r"must have shape \(batch, classes\).* got \(4,\)"):
        metric(torch.zeros(4), SPLIT)
    with pytest.raises(ValueError, match="floating-point logits, got torch.int64"):
        metric(torch.zeros(4, 3, dtype=torch.int64), SPLIT)
    with pytest.raises(TypeError, match="must be a torch.Tensor, got ndarray"):
        metric(np.zeros((4, 3)), SPLIT)


@every_metric
def test_nan_is_refused_rather_than_counted_as_a_class(metric):
    logits = torch.zeros(4, 3)
    logits[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"must be finite, got nan at position \(1, 2\)"):
        metric(logits, SPLIT)


def test_a_network_that_gives_nan_is_refused(network):
    nn.init.constant_(network[-1].bias, torch.nan)
    with pytest.raises(ValueError, match="logits of model must be finite"):
        accuracy(network, SPLIT)


@pytest.mark.parametrize("metric", [accuracy, calibration_error])
def test_labels_beyond_the_networks_classes_are_refused(metric):
    with pytest.raises(ValueError, match=r"labels must be in \[0, 1\] for 2 classes, got 2"):
        metric(torch.zeros(4, 2), SPLIT)


def test_networks_with_different_classes_cannot_agree():
    with pytest.raises(ValueError, match=r"number of classes.* \(4, 3\) and \(4, 5\)"):
        agreement(torch.zeros(4, 3), torch.zeros(4, 5), SPLIT)


@pytest.mark.parametrize(
    "bins, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("15", TypeError)]
)
def test_bins_must_be_a_positive_integer(bins, error):
    with pytest.raises(error, match="bins must be"):
        calibration_error(torch.zeros(4, 3), SPLIT, bins=bins)


# ---- paired intervals


@pytest.mark.parametrize("n", [2, 3, 10])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_paired_interval_is_that_of_the_paired_t_test(n, confidence):
    generator = np.random.default_rng(n)
    a, b = generator.normal(size=(2, n))
    reference = stats.ttest_rel(a, b)
    low, high = reference.confidence_interval(confidence)
    assert paired_interval(a, b, confidence) == pytest.approx((np.mean(a - b), low, high))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(2000, 5))  # what a pair has in common drops out
    a, b = shared + 0.3 + 0.1 * generator.normal(size=(2, 2000, 5))
    b = b - 0.3
    covered = np.mean([low <= 0.3 <= high for _, low, high in map(paired_interval, a, b)])
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, torch.tensor], ids=["list", "tuple", "numpy", "torch"]
)
def test_paired_interval_takes_any_sequence(kind):
    interval = paired_interval(kind([0.75, 1.0, 0.5]), kind([0.25, 0.5, 0.5]))
    assert isinstance(interval, Interval)
    assert interval.mean == pytest.approx(1 / 3)
    assert all(type(value) is float for value in interval)


def test_equal_differences_give_no_width():
    assert paired_interval([1.5, 2.5, 3.5], [1, 2, 3]) == (0.5, 0.5, 0.5)


def test_paired_interval_says_what_is_wrong():
    with pytest.raises(ValueError, match="same length, got 3 and 2"):
        paired_interval([1, 2, 3], [1, 2])
    for one in ([], [1.0]):
        with pytest.raises(ValueError, match=f"at least 2 pairs .* got {len(one)}"):
            paired_interval(one, one)
    with pytest.raises(ValueError, match="b must be finite, got nan"):
        paired_interval([1, 2], [1, float("nan")])
    with pytest.raises(ValueError, match=r"a must be a list of numbers, got shape \(1, 2\)"):
        paired_interval([[1, 2]], [[1, 2]])
    for confidence in (0, 1, 95, float("nan")):
        with pytest.raises(ValueError, match=f"confidence must be .* got {confidence}"):
            paired_interval([1, 2], [2, 1], confidence)
