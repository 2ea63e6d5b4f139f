"""Labels of other kinds: several an image, or soft ones, through training, distillation and sweeps."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from kdlib import data, losses, metrics, models, sweeps, training
from kdlib.data import ImageSplit
from kdlib.features import FeatureTerm, hint_loss

pytestmark = pytest.mark.usefixtures("one_thread")

BCE = F.binary_cross_entropy_with_logits
# What a piece of clothing is, by its class in Fashion-MNIST: worn above, has long sleeves, is footwear, is a bag.
ATTRIBUTES = torch.tensor([
    [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0],
    [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0],
]).float()  # fmt: skip


def with_labels(split: ImageSplit, labels: torch.Tensor) -> ImageSplit:
    return ImageSplit(split.images, labels, mean=split.mean, std=split.std)


@pytest.fixture(scope="module")
def classes() -> ImageSplit:
    return data.load().train.take(100)


@pytest.fixture(scope="module")
def several(classes) -> ImageSplit:
    return with_labels(classes, ATTRIBUTES[classes.labels])


@pytest.fixture(scope="module")
def held_out() -> ImageSplit:
    return data.load().validation.take(200)


@pytest.fixture(scope="module")
def held_out_several(held_out) -> ImageSplit:
    return with_labels(held_out, ATTRIBUTES[held_out.labels])


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    """Trained on more images with several labels each."""
    images = data.load().train.take(600, seed=1)
    trained = student(7)
    training.train(
        trained, with_labels(images, ATTRIBUTES[images.labels]), epochs=3, task_loss=BCE, progress=False
    )
    return trained


def student(seed: int = 0, classes: int = 4) -> nn.Module:
    return models.build("tiny-cnn", num_classes=classes, seed=seed)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def chance(split: ImageSplit) -> float:
    """The mean average precision of a ranking that knows nothing: how frequent the labels are."""
    return split.labels.mean(dim=0).mean().item()


# --- several labels an image


def test_several_labels_are_learnt_from_the_labels(several, held_out_several):
    pupil = student()
    history = training.train(
        pupil, several, epochs=4, task_loss=BCE, validation=held_out_several, progress=False
    )
    found = metrics.mean_average_precision(pupil, held_out_several)
    assert found > chance(held_out_several) + 0.3
    for record in history.records:
        assert "validation_accuracy" not in record and 0 <= record["validation_mean_average_precision"] <= 1
    assert history.records[-1]["validation_mean_average_precision"] == pytest.approx(found)
    assert history.records[-1]["task"] < history.records[0]["task"]


def test_several_labels_are_learnt_from_a_teacher(several, held_out_several, teacher):
    for options in (
        {"loss": losses.multilabel_distillation_loss, "task_loss": BCE, "alpha": 0.5},
        {"loss": losses.multilabel_distillation_loss, "task_loss": BCE, "alpha": 1.0},
        {"loss": losses.multilabel_distillation_loss, "alpha": 1.0},
        {"loss": losses.logit_mse_loss, "task_loss": BCE},
    ):
        pupil = student()
        history = training.distill(
            pupil, teacher, several, epochs=4, temperature=2.0, validation=held_out_several, progress=False,
            **options,
        )  # fmt: skip
        found = metrics.mean_average_precision(pupil, held_out_several)
        assert found > chance(held_out_several) + 0.3, options
        assert history.records[-1]["validation_mean_average_precision"] == pytest.approx(found)
        assert history.validation_scores()[-1] == pytest.approx(found)


def test_alpha_one_needs_no_labels_term_and_says_that_it_is_unknown(several, teacher):
    loss = losses.multilabel_distillation_loss
    without, with_term = student(), student()
    history = training.distill(without, teacher, several, epochs=2, alpha=1, loss=loss, progress=False)
    training.distill(with_term, teacher, several, epochs=2, alpha=1, loss=loss, task_loss=BCE, progress=False)
    for record in history.records:
        assert (
            math.isnan(record["task"])
            and record["loss"] == record["distill"]
            and math.isfinite(record["loss"])
        )
    assert torch.equal(weights(without), weights(with_term))


def test_the_terms_are_those_of_the_formulas(several, teacher):
    """One step, whose loss is computed by hand in float64."""
    pupil = student()
    logits = [teacher.eval()(several.normalized(slice(None))).detach().double()]
    logits.append(pupil.train()(several.normalized(slice(None))).detach().double())
    target, output = logits
    history = training.distill(
        student(), teacher, several, epochs=1, batch_size=100, alpha=0.3, temperature=2.0,
        loss=losses.multilabel_distillation_loss, task_loss=BCE, progress=False,
    )  # fmt: skip
    labels = several.labels.double()
    task = -(labels * F.logsigmoid(output) + (1 - labels) * F.logsigmoid(-output)).mean()
    p = torch.sigmoid(target / 2)
    distill = p * (p.log() - F.logsigmoid(output / 2))
    distill += (1 - p) * ((1 - p).log() - F.logsigmoid(-output / 2))
    distill = 4 * distill.sum(dim=1).mean()
    record = history.records[0]
    assert record["task"] == pytest.approx(task.item(), rel=1e-4)
    assert record["distill"] == pytest.approx(distill.item(), rel=1e-4)
    assert record["loss"] == pytest.approx(0.3 * distill.item() + 0.7 * task.item(), rel=1e-4)


def test_several_labels_go_with_views_mixes_and_features(several, held_out_several, teacher):
    term = FeatureTerm(hint_loss, "stages.1", "stages.1")
    for options in (
        {"augment": v2.RandomHorizontalFlip()},
        {"augment": v2.RandomHorizontalFlip(), "views": 2},
        {"mix": v2.MixUp(num_classes=4)},
        {"mix": v2.CutMix(num_classes=4), "augment": v2.RandomHorizontalFlip(), "views": 2},
        {"features": [term]},
        {"features": [term], "alpha": 0},
    ):
        pupil = student()
        options = {"alpha": 0.5, "loss": losses.multilabel_distillation_loss, "task_loss": BCE} | options
        history = training.distill(pupil, teacher, several, epochs=4, progress=False, **options)
        assert all(math.isfinite(record["loss"]) for record in history.records), options
        found = metrics.mean_average_precision(pupil, held_out_several)
        assert found > chance(held_out_several) + 0.2, f"{options}: {found}"


def test_cross_entropy_refuses_several_labels_and_names_what_to_use(several, teacher):
    message = "cross_entropy needs labels that sum to 1.*binary_cross_entropy_with_logits"
    smoothed = functools.partial(F.cross_entropy, label_smoothing=0.1)
    pupil = student()
    before = weights(pupil)
    swept = functools.partial(
        sweeps.run, student, teacher, several, several, temperatures=[1.0], seeds=[0], workers=0,
        loss=losses.multilabel_distillation_loss,
    )  # fmt: skip
    for cross_entropy in (
        F.cross_entropy,
        smoothed,
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
    ):
        for function in (
            functools.partial(training.train, pupil, several),
            functools.partial(training.distill, pupil, teacher, several),
            functools.partial(training.distill, pupil, teacher, several, alpha=0.0),
            functools.partial(training.distill, pupil, teacher, several, alpha=lambda progress: 1.0),
            functools.partial(swept, alphas=[0.5]),
        ):
            with pytest.raises(ValueError, match=message):
                function(task_loss=cross_entropy, epochs=1, progress=False)
    with pytest.raises(ValueError, match=message):
        training.train(pupil, several, epochs=1, label_smoothing=0.1, progress=False)
    assert torch.equal(weights(pupil), before)


def test_images_without_any_label_are_allowed_where_there_may_be_several(classes, held_out_several):
    labels = ATTRIBUTES[classes.labels]
    assert (labels.sum(dim=1) == 0).any()
    history = training.train(student(), with_labels(classes, labels), epochs=1, task_loss=BCE, progress=False)
    assert math.isfinite(history.records[0]["loss"])
    as_bool = ImageSplit(classes.images, labels.bool(), mean=classes.mean, std=classes.std)
    ours, reference = student(), student()
    training.train(ours, as_bool, epochs=1, task_loss=BCE, progress=False)
    training.train(reference, with_labels(classes, labels), epochs=1, task_loss=BCE, progress=False)
    assert torch.equal(weights(ours), weights(reference))


def test_a_sweep_of_several_labels_ranks_instead_of_counting(several, held_out_several, teacher):
    loss = losses.multilabel_distillation_loss
    table = sweeps.run(
        student, teacher, several, held_out_several, temperatures=[1.0, 2.0], alphas=[0.0, 0.5], seeds=[0],
        epochs=4, loss=loss, task_loss=BCE, workers=0, bfloat16=False, progress=False,
    )  # fmt: skip
    assert list(table.columns) == [
        "temperature", "alpha", "seed", "mean_average_precision", "roc_auc", "seconds",
    ]  # fmt: skip
    for row in table.to_dict("records"):
        torch.manual_seed(0)
        alone = models.build("tiny-cnn", num_classes=4, seed=0)
        training.distill(
            alone, teacher, several, epochs=4, temperature=row["temperature"], alpha=row["alpha"], seed=0, loss=loss,
            task_loss=BCE, bfloat16=False, progress=False,
        )  # fmt: skip
        assert row["mean_average_precision"] == metrics.mean_average_precision(alone, held_out_several), row
        assert row["roc_auc"] == metrics.roc_auc(alone, held_out_several), row
    assert table["mean_average_precision"].min() > chance(held_out_several) + 0.3


# --- soft labels


def test_one_hot_labels_train_as_classes_do(classes):
    one_hot = with_labels(classes, F.one_hot(classes.labels, 10).float())
    for options in ({}, {"label_smoothing": 0.2}):
        by_class, by_share = student(classes=10), student(classes=10)
        training.train(by_class, classes, epochs=2, learning_rate=1e-3, progress=False, **options)
        training.train(by_share, one_hot, epochs=2, learning_rate=1e-3, progress=False, **options)
        torch.testing.assert_close(weights(by_class), weights(by_share), rtol=1e-3, atol=1e-4)
    by_class, by_share, taught = student(classes=10), student(classes=10), student(9, classes=10)
    for pupil, split in ((by_class, classes), (by_share, one_hot)):
        training.distill(pupil, taught, split, epochs=2, alpha=0.4, learning_rate=1e-3, progress=False)
    torch.testing.assert_close(weights(by_class), weights(by_share), rtol=1e-3, atol=1e-4)


def test_soft_labels_are_label_smoothing_where_they_are_smoothed_labels(classes):
    soft = with_labels(classes, 0.7 * F.one_hot(classes.labels, 10).float() + 0.03)
    ours, reference = student(classes=10), student(classes=10)
    training.train(ours, soft, epochs=2, learning_rate=1e-3, progress=False)
    training.train(reference, classes, epochs=2, label_smoothing=0.3, learning_rate=1e-3, progress=False)
    torch.testing.assert_close(weights(ours), weights(reference), rtol=1e-3, atol=1e-4)


def test_soft_labels_go_with_a_validation_of_classes_and_in_a_sweep(classes, held_out):
    soft = with_labels(classes, 0.7 * F.one_hot(classes.labels, 10).float() + 0.03)
    pupil, taught = student(classes=10), student(9, classes=10)
    history = training.train(pupil, soft, epochs=4, validation=held_out, progress=False)
    assert history.records[-1]["validation_accuracy"] == pytest.approx(metrics.accuracy(pupil, held_out))
    assert history.records[-1]["validation_accuracy"] > 0.2
    table = sweeps.run(
        "tiny-cnn", taught, soft, held_out, temperatures=[2.0], alphas=[0.0, 0.5], seeds=[0], epochs=2, workers=0,
        bfloat16=False, progress=False,
    )  # fmt: skip
    for row in table.to_dict("records"):
        alone = student(classes=10)
        training.distill(
            alone, taught, soft, epochs=2, alpha=row["alpha"], temperature=2.0, bfloat16=False, progress=False
        )
        assert row["accuracy"] == metrics.accuracy(alone, held_out), row
        assert row["ece"] == metrics.calibration_error(alone, held_out), row


# --- labels that do not fit


def test_labels_that_do_not_fit_are_refused_with_both_shapes(classes, several, teacher):
    seven = with_labels(classes, torch.zeros(100, 7))
    for function in (
        functools.partial(training.train, student(), seven),
        functools.partial(training.distill, student(), teacher, seven),
        functools.partial(training.distill, student(), teacher, seven, alpha=1.0),
    ):
        with pytest.raises(ValueError, match=r"\(batch, 4\).*\(100, 7\)"):
            function(epochs=1, task_loss=BCE, progress=False)
    with pytest.raises(ValueError, match=r"needs at least 10 classes"):
        training.train(student(), classes, epochs=1, progress=False)


def test_a_validation_that_cannot_be_scored_is_refused_before_anything_is_trained(
    classes, several, held_out, held_out_several
):
    soft = with_labels(held_out, 0.7 * F.one_hot(held_out.labels, 10).float() + 0.03)
    colour = ImageSplit(held_out.images.expand(-1, 3, -1, -1), held_out.labels)
    many = ImageSplit(held_out.images, held_out.labels + 5)
    blank = with_labels(held_out, torch.zeros(200, 10))
    for validation, message in (
        (soft, "validation.*labels must be 0 or 1"),
        (colour, r"validation.*images of shape \(2, 3, 28, 28\)"),
        (many, "validation.*got 14"),
        (held_out_several, r"validation.*\(\d+, 4\)"),
        (blank, "validation.*an image that has it"),
        (data.load(), "validation must be .*ImageDataset"),
        ("validation", "validation must be"),
    ):
        pupil = student(classes=10)
        before = weights(pupil)
        for function in (
            functools.partial(training.train, pupil, classes),
            functools.partial(training.distill, pupil, student(9, classes=10), classes),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                function(validation=validation, epochs=1, progress=False)
            assert torch.equal(weights(pupil), before), message
