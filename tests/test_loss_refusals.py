"""What is no loss is refused with a sentence at every door, before anything is trained."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib import data, features, losses, models, sweeps, training
from kdlib.data import ImageSplit
from kdlib.features import FeatureTerm

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small() -> ImageSplit:
    return data.load().train.take(60)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def student(seed: int = 0) -> nn.Module:
    return models.build("tiny-cnn", seed=seed)


def refused(train, pupil, error, message, case):
    before = weights(pupil)
    with pytest.raises((ValueError, TypeError)) as caught:
        train()
    assert caught.type is error and message in str(caught.value), f"{case}: {caught.value!r}"
    assert torch.equal(weights(pupil), before), case


def unusable() -> dict[str, tuple[object, type[Exception], str]]:
    """Losses of two tensors that are none, and what the message says."""
    return {
        "a number": (3.0, TypeError, "must be a function"),
        "nothing": (None, TypeError, "must be a function"),
        "a name": ("soft_target_loss", TypeError, "must be a function"),
        "a value for each image": (lambda z, y: z.mean(dim=1), ValueError, "must return a scalar tensor"),
        "one value in a list": (lambda z, y: z.mean()[None], ValueError, "must return a scalar tensor"),
        "a float": (lambda z, y: z.mean().item(), ValueError, "must return a scalar tensor"),
        "no value": (lambda z, y: None, ValueError, "must return a scalar tensor"),
        "a tuple": (lambda z, y: (z.mean(), z.mean()), ValueError, "must return a scalar tensor"),
        "no gradient": (lambda z, y: z.detach().mean(), ValueError, "no gradient"),
        "a count": (lambda z, y: (z.argmax(dim=1) == 0).float().mean(), ValueError, "no gradient"),
        "whole numbers": (lambda z, y: z.argmax(), ValueError, "no gradient"),
        "not a number": (lambda z, y: z.mean() * math.nan, ValueError, "must return a finite number"),
        "infinite": (lambda z, y: z.exp().mean() * math.inf, ValueError, "must return a finite number"),
        "complex": (lambda z, y: z.mean() * 1j, ValueError, "must return a"),
        "one argument": (lambda z: z.mean(), ValueError, "must take two arguments"),
        "no argument": (lambda: 0.0, ValueError, "must take two arguments"),
        "an unknown argument": (lambda z, y, margin: z.mean(), ValueError, "margin"),
        "an unknown keyword": (_with_margin, ValueError, "margin"),
        "a class in place of a module": (nn.MSELoss, TypeError, "got the class MSELoss"),
    }


def _with_margin(z, y, *, margin):
    return z.mean()


def test_a_loss_that_cannot_train_is_refused_at_every_door(small):
    logits = torch.randn(len(small), 10, generator=torch.Generator().manual_seed(0))
    for case, (loss, error, message) in unusable().items():
        pupil = student()
        options = {"epochs": 1, "progress": False}
        doors = {
            "loss": functools.partial(training.distill, pupil, logits, small, loss=loss, **options),
            "task_loss": functools.partial(
                training.distill, pupil, logits, small, alpha=0.5, task_loss=loss, **options
            ),
            "task_loss of train": functools.partial(training.train, pupil, small, task_loss=loss, **options),
            "loss, swept": functools.partial(
                sweeps.run, lambda: student(), logits, small, small, temperatures=[1.0], alphas=[0.5], seeds=[0],
                loss=loss, workers=0, **options,
            ),
            "task_loss, swept": functools.partial(
                sweeps.run, lambda: student(), logits, small, small, temperatures=[1.0], alphas=[0.5], seeds=[0],
                task_loss=loss, workers=0, **options,
            ),
        }  # fmt: skip
        for door, train in doors.items():
            # A sweep's annotations say it first where tests run, and `distill` where they do not.
            if "swept" in door and not callable(loss):
                continue
            refused(train, pupil, error, message, f"{door}, {case}")


def test_a_feature_loss_that_cannot_train_is_refused_too(small):
    for case, (loss, error, message) in unusable().items():
        if not callable(loss):
            continue  # the annotations of FeatureTerm
        pupil = student()

        def train(loss=loss, pupil=pupil):
            terms = [FeatureTerm(loss, "head", "head")]
            training.match_features(pupil, student(1), small, features=terms, epochs=1, progress=False)

        refused(train, pupil, error, message, case)


def test_the_message_names_the_argument_and_what_may_be_asked_for(small):
    logits = torch.zeros(len(small), 10)
    for options, words in (
        ({"loss": _with_margin}, ["loss demands margin", "temperature, labels", "functools.partial"]),
        ({"loss": lambda z: z.mean()}, ["loss must take two arguments", "student's and the teacher's"]),
        ({"task_loss": _with_margin}, ["task_loss demands margin", "functools.partial"]),
        ({"task_loss": lambda z: z.mean()}, ["task_loss must take two arguments", "labels"]),
    ):
        with pytest.raises(ValueError) as caught:
            training.distill(student(), logits, small, epochs=1, progress=False, **options)
        assert all(word in str(caught.value) for word in words), caught.value


def test_a_third_argument_without_a_name_to_call_it_by_is_refused(small):
    def loss(z, v, temperature, /):
        return F.mse_loss(z, v) * temperature

    with pytest.raises(ValueError, match="temperature.*keyword"):
        training.distill(student(), torch.zeros(len(small), 10), small, epochs=1, loss=loss, progress=False)


def test_a_feature_loss_is_refused_what_its_layers_do_not_have(small):
    """Gradients belong to one named layer; features that are given as a tensor, or two layers, have none."""

    def ours(s, t, student_gradients):
        return s.mean() if isinstance(s, torch.Tensor) else s[0].mean()

    def theirs(s, t, teacher_gradients):
        return s.mean() if isinstance(s, torch.Tensor) else s[0].mean()

    known = torch.zeros(len(small), 10)
    pair = ("stages.0", "stages.1")
    for loss, layers in ((theirs, ("head", known)), (ours, (pair, pair)), (theirs, (pair, pair))):
        with pytest.raises(ValueError, match=r"features\[0\].loss .*gradients"):
            training.match_features(
                student(), student(1), small, features=[FeatureTerm(loss, *layers)], epochs=1, progress=False
            )


def test_losses_of_class_labels_refuse_labels_of_another_kind(small):
    several = ImageSplit(small.images, F.one_hot(small.labels, 10).float())
    with pytest.raises(ValueError, match="labels must be class numbers"):
        training.distill(
            student(), torch.zeros(len(small), 10), several, epochs=1, alpha=1, loss=losses.decoupled_loss,
            progress=False,
        )  # fmt: skip
    for name, layer in (("gradcam_transfer_loss", "stages.1"), ("contrastive_loss", "head")):
        with pytest.raises(ValueError, match="labels|classes"):
            training.match_features(
                student(), student(1), several, epochs=1, progress=False,
                features=[FeatureTerm(getattr(features, name), layer, layer)],
            )  # fmt: skip
