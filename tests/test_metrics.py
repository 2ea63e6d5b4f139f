"""Accuracy, calibration, agreement and paired intervals."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_calibration_error,
    multilabel_auroc,
    multilabel_average_precision,
)

from kdlib.data import ImageDataset, ImageSplit
from kdlib.metrics import (
    Interval,
    accuracy,
    agreement,
    calibration_error,
    mean_average_precision,
    paired_interval,
    roc_auc,
)

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


# ---- ranking


RANKINGS = {mean_average_precision: average_precision_score, roc_auc: roc_auc_score}


def several_labels(n=200, classes=4, seed=0):
    """Logits with ties, and labels that follow them loosely."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, classes)).round(1) * 4
    labels = logits + 6 * generator.normal(size=(n, classes)) > 4
    return torch.from_numpy(logits).float(), labels


def test_ranking_of_several_labels_is_scikit_learns():
    for classes in (1, 2, 7):
        logits, labels = several_labels(classes=classes, seed=classes)
        for metric, reference in RANKINGS.items():
            expected = reference(labels, logits.numpy(), average="macro")
            for given in (labels, labels.astype(np.float32)):
                assert metric(logits, split_of(given)) == pytest.approx(expected, abs=1e-6), (metric, classes)


def test_ranking_of_classes_is_scikit_learns_of_each_class_against_the_rest():
    for classes in (2, 3, 7):
        logits = 4 * torch.randn(200, classes, generator=torch.Generator().manual_seed(classes))
        labels = np.random.default_rng(0).integers(0, classes, len(logits))
        probabilities = logits.double().softmax(dim=1).numpy()
        for metric, reference in RANKINGS.items():
            expected = reference(np.eye(classes)[labels], probabilities, average="macro")
            assert metric(logits, split_of(labels)) == pytest.approx(expected, abs=1e-6), (metric, classes)


def test_ranking_by_hand():
    """Labels at ranks 1 and 3: precision 1 and 2/3 there, and three of four pairs in order."""
    logits, labels = torch.tensor([[3.0], [2.0], [1.0], [0.0]]), [[1.0], [0.0], [1.0], [0.0]]
    assert mean_average_precision(logits, split_of(labels)) == pytest.approx((1 + 2 / 3) / 2)
    assert roc_auc(logits, split_of(labels)) == pytest.approx(3 / 4)
    assert roc_auc(torch.zeros(4, 1), split_of(labels)) == 0.5
    assert mean_average_precision(torch.zeros(4, 1), split_of(labels)) == 0.5


@pytest.mark.filterwarnings("ignore:No (positive|negative) samples")
def test_a_class_that_no_image_has_is_left_out_of_the_mean():
    """torchmetrics counts it as 0, and drags the mean down by its share."""
    logits, labels = several_labels()
    labels[:, 1] = False
    rest = [0, 2, 3]
    for metric, faulty in (
        (mean_average_precision, multilabel_average_precision),
        (roc_auc, multilabel_auroc),
    ):
        expected = metric(logits[:, rest], split_of(labels[:, rest]))
        assert metric(logits, split_of(labels)) == pytest.approx(expected)
        assert faulty(logits, torch.from_numpy(labels), 4).item() == pytest.approx(3 / 4 * expected)
    classes = np.array([0, 2, 3, 3] * 50)
    for metric, reference in RANKINGS.items():
        by_class = reference(np.eye(4)[classes][:, rest], logits.double().softmax(1).numpy()[:, rest])
        assert metric(logits, split_of(classes)) == pytest.approx(by_class)


def test_a_class_that_every_image_has_cannot_be_told_from_others_but_has_a_precision():
    logits, labels = several_labels()
    labels[:, 0] = True
    assert roc_auc(logits, split_of(labels)) == pytest.approx(roc_auc(logits[:, 1:], split_of(labels[:, 1:])))
    precision = mean_average_precision(logits[:, 1:], split_of(labels[:, 1:]))
    assert mean_average_precision(logits, split_of(labels)) == pytest.approx((1 + 3 * precision) / 4)


def test_large_logits_are_not_tied_by_a_sigmoid():
    logits, labels = torch.tensor([[20.0], [25.0], [30.0], [18.0]]), torch.tensor([[0.0], [0], [1], [0]])
    assert binary_auroc(logits[:, 0], labels[:, 0].long()).item() == 0.5
    assert roc_auc(logits, split_of(labels)) == mean_average_precision(logits, split_of(labels)) == 1


def test_ranking_says_which_labels_it_cannot_rank_by():
    logits = torch.zeros(4, 3)
    for metric, labels, message in (
        (roc_auc, [[0.5, 0, 0.5]] * 4, r"labels must be 0 or 1 .*got 0\.5 at position \(0, 0\).*argmax"),
        (mean_average_precision, [[0, 1, 0], [0.0, 0.1, 0.9]] * 2, r"0 or 1 .*at position \(1, 1\)"),
        (mean_average_precision, torch.zeros(4, 3), "a class with an image that has it, got none among 3"),
        (roc_auc, torch.zeros(4, 3), "a class with an image that has it and one that has not, got none"),
        (roc_auc, torch.ones(4, 3), "a class with an image that has it and one that has not, got none"),
        (roc_auc, [1, 1, 1, 1], "a class with an image that has it and one that has not, got none"),
        (roc_auc, torch.ones(4, 2), r"must have the same shape, got \(4, 2\) and \(4, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(logits, split_of(labels))
    assert mean_average_precision(logits, split_of(torch.ones(4, 3))) == 1


def test_what_needs_one_class_an_image_names_the_metrics_that_do_not():
    for metric in (accuracy, calibration_error):
        with pytest.raises(ValueError, match=rf"{metric.__name__} needs .*\(4, 3\).*mean_average_precision"):
            metric(torch.zeros(4, 3), split_of(torch.ones(4, 3)))
    assert agreement(certain_of([0, 1]), certain_of([0, 2]), split_of(torch.ones(2, 3))) == 0.5


# ---- bad input to all of them


METRICS = {
    "accuracy": accuracy,
    "calibration_error": calibration_error,
    "mean_average_precision": mean_average_precision,
    "roc_auc": roc_auc,
    "agreement": lambda model, split: agreement(certain_of([0, 1, 2, 2]), model, split),
}
SPLIT = split_of([0, 1, 2, 2])


def test_logits_of_other_images_are_refused():
    for metric in METRICS.values():
        with pytest.raises(ValueError, match=r"each of the 4 images, got \(5, 3\)"):
            metric(torch.zeros(5, 3), SPLIT)


def test_what_is_no_logits_is_refused():
    for metric in METRICS.values():
        with pytest.raises(ValueError, match=r"must have shape \(batch, classes\).* got \(4,\)"):
            metric(torch.zeros(4), SPLIT)
        with pytest.raises(ValueError, match="floating-point logits, got torch.int64"):
            metric(torch.zeros(4, 3, dtype=torch.int64), SPLIT)
        with pytest.raises(TypeError, match="must be a torch.Tensor, got ndarray"):
            metric(np.zeros((4, 3)), SPLIT)


def test_what_is_no_split_is_refused():
    for metric in METRICS.values():
        with pytest.raises(
            TypeError, match=r"split must be one split, got an ImageDataset: give its \.train"
        ):
            metric(torch.zeros(4, 3), ImageDataset(SPLIT, SPLIT, SPLIT, ["a", "b", "c"]))
        with pytest.raises(TypeError, match=r"split must be a kdlib\.data\.ImageSplit, got Tensor"):
            metric(torch.zeros(4, 3), SPLIT.images)


def test_nan_is_refused_rather_than_counted_as_a_class():
    logits = torch.zeros(4, 3)
    logits[1, 2] = torch.nan
    for metric in METRICS.values():
        with pytest.raises(ValueError, match=r"must be finite, got nan at position \(1, 2\)"):
            metric(logits, SPLIT)


class NanForOneImage(nn.Module):
    """Gives NaN for the image whose first pixel is the largest, in whatever batch it stands."""

    def forward(self, images):
        logits = torch.zeros(len(images), 3)
        logits[images[:, 0, 0, 0] > 0, 1] = torch.nan
        return logits


def test_a_network_that_gives_nan_is_refused_naming_the_image():
    images = torch.zeros(250, 1, 2, 2, dtype=torch.uint8)
    images[230, 0, 0, 0] = 255
    for metric in METRICS.values():
        if metric is not METRICS["agreement"]:
            with pytest.raises(ValueError, match=r"logits of model must be finite.*\(230, 1\)"):
                metric(NanForOneImage(), ImageSplit(images, [0] * 250))


def test_labels_beyond_the_networks_classes_are_refused():
    for metric in (accuracy, calibration_error, mean_average_precision, roc_auc):
        with pytest.raises(ValueError, match=r"labels must be in \[0, 1\] for 2 classes, got 2"):
            metric(torch.zeros(4, 2), SPLIT)


def test_networks_with_different_classes_cannot_agree():
    with pytest.raises(ValueError, match=r"number of classes.* \(4, 3\) and \(4, 5\)"):
        agreement(torch.zeros(4, 3), torch.zeros(4, 5), SPLIT)


def test_bins_must_be_a_positive_integer():
    for bins, error in (
        (0, ValueError),
        (-1, ValueError),
        (1.5, TypeError),
        ("15", TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error, match="bins must be"):
            calibration_error(torch.zeros(4, 3), SPLIT, bins=bins)


# ---- paired intervals


def test_paired_interval_is_that_of_the_paired_t_test():
    for n in (2, 3, 10):
        a, b = np.random.default_rng(n).normal(size=(2, n))
        reference = stats.ttest_rel(a, b)
        for confidence in (0.5, 0.95, 0.99):
            low, high = reference.confidence_interval(confidence)
            assert paired_interval(a, b, confidence) == pytest.approx((np.mean(a - b), low, high)), (
                n,
                confidence,
            )


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(2000, 5))  # what a pair has in common drops out
    a, b = shared + 0.3 + 0.1 * generator.normal(size=(2, 2000, 5))
    b = b - 0.3
    covered = np.mean([low <= 0.3 <= high for _, low, high in map(paired_interval, a, b)])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_paired_interval_takes_any_sequence():
    for kind in (
        list,
        tuple,
        np.array,
        torch.tensor,
        pd.Series,
        as_trained,
        lambda x: torch.tensor(x).bfloat16(),
    ):
        interval = paired_interval(kind([0.75, 1.0, 0.5]), kind([0.25, 0.5, 0.5]))
        assert isinstance(interval, Interval)
        assert interval.mean == pytest.approx(1 / 3)
        assert all(type(value) is float for value in interval)


def as_trained(numbers):
    return torch.tensor(numbers, requires_grad=True)


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
    for no_numbers in (["1", "2"], {1, 2}, "12", [1j, 2], [[1], [2, 3]], 3, [1, 10**400], [object(), 1]):
        with pytest.raises(ValueError, match="b must be a list of numbers"):
            paired_interval([1, 2], no_numbers)
    with pytest.raises(ValueError, match=r"a and b must be small enough.*1e\+308"):
        paired_interval([1e308, -1e308], [-1e308, 1e308])
    for confidence in (0, 1, 95, float("nan")):
        with pytest.raises(ValueError, match=f"confidence must be .* got {confidence}"):
            paired_interval([1, 2], [2, 1], confidence)
