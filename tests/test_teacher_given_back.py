"""The caller's teacher: given back as it was whatever happens, and refused with a sentence where it is none."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from kdlib import _files, _logit_cache, data, features, models, teachers, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.features import FeatureTerm

pytestmark = pytest.mark.usefixtures("one_thread")

PATHS = {
    "cached": {},
    "live": {"augment": random_crop_flip()},
    "views": {"augment": random_crop_flip(), "views": 3},
    "mix": {"mix": v2.MixUp(num_classes=10)},
    "views, mixed": {"augment": random_crop_flip(), "views": 2, "mix": v2.CutMix(num_classes=10)},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No logits known from other tests or earlier runs."""
    monkeypatch.setattr(_files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(_logit_cache, "_memory", {})


@pytest.fixture(scope="module")
def split() -> ImageSplit:
    return data.load().train.take(60)


def network(channels: int = 1, classes: int = 10) -> nn.Module:
    return models.build("tiny-cnn", num_classes=classes, in_channels=channels, image_size=28, seed=9)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


# --- given back as it was

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def state(module: nn.Module) -> dict[str, object]:
    """All that a caller could notice of a network."""
    found = {}
    for name, part in module.named_modules():
        found[f"{name}: training"] = part.training
        found[f"{name}: hooks"] = [len(getattr(part, hooks)) for hooks in HOOKS]
        found[f"{name}: attributes"] = sorted(vars(part))
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        found[name] = (
            id(tensor), tensor.requires_grad, tensor.dtype, tensor.device, tensor.stride(),
            tensor.detach().double().flatten().tolist(), tensor.grad is None,
        )  # fmt: skip
    return found


def callers_teacher(*, channels_last: bool = False) -> nn.Module:
    """In training mode but for one layer, with one frozen weight."""
    teacher = network()
    teacher.train()
    layers = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    layers[0].eval()
    next(teacher.parameters()).requires_grad_(False)
    return teacher.to(memory_format=torch.channels_last) if channels_last else teacher


def feature_terms() -> dict[str, FeatureTerm]:
    layer = [name for name, module in network().named_modules() if isinstance(module, nn.Conv2d)][-1]
    return {
        "hint": FeatureTerm(features.hint_loss, layer, layer),
        "gradients": FeatureTerm(features.gradcam_transfer_loss, layer, layer),
    }


def trainings() -> dict[str, functools.partial]:
    """Every way in which a training asks a teacher."""
    found = {path: functools.partial(training.distill, **options) for path, options in PATHS.items()}
    for name, term in feature_terms().items():
        for path in ("cached", "live", "views"):
            found[f"{name}, {path}"] = functools.partial(training.distill, features=[term], **PATHS[path])
    hint = feature_terms()["hint"]
    return found | {"match_features": functools.partial(training.match_features, features=[hint])}


def test_the_teacher_is_given_back_as_it_was(split):
    for channels_last in (False, True):
        teacher = callers_teacher(channels_last=channels_last)
        before = state(teacher)
        for name, train in trainings().items():
            train(models.build("tiny-cnn", seed=0), teacher, split, epochs=1, progress=False)
            changed = {key for key, value in state(teacher).items() if value != before[key]}
            assert not changed, f"{name}, channels_last={channels_last}: {changed}"


class Failing(nn.Module):
    """A student that fails in its n-th step, as a user's code or the stop button does."""

    def __init__(self, error: type[BaseException], step: int):
        super().__init__()
        self.network, self.error, self.step = models.build("tiny-cnn", seed=0), error, step

    def forward(self, images):
        if self.training:
            self.step -= 1
            if self.step < 0:
                raise self.error("stop")
        return self.network(images)


def test_it_is_given_back_also_after_an_error_and_after_a_stop(split):
    teacher = callers_teacher()
    before = state(teacher)
    for path, options in PATHS.items():
        stopped = training.distill(
            Failing(KeyboardInterrupt, 3), teacher, split, epochs=4, progress=False, **options
        )
        assert stopped.interrupted and len(stopped.records) == 1
        with pytest.raises(RuntimeError, match="^stop$"):
            training.distill(Failing(RuntimeError, 3), teacher, split, epochs=4, progress=False, **options)
        assert state(teacher) == before, path


class Moody(nn.Module):
    """A teacher that fails once it was asked so often."""

    def __init__(self, error: type[BaseException], asked: int):
        super().__init__()
        self.network, self.error, self.asked = callers_teacher(), error, asked

    def forward(self, images):
        self.asked -= 1
        if self.asked < 0:
            raise self.error("enough")
        return self.network(images)


def test_it_is_given_back_also_where_it_fails_itself(split):
    for asked in (0, 1, 2, 4):
        for error in (KeyboardInterrupt, OSError):
            teacher = Moody(error, asked)
            before = state(teacher)
            try:
                training.distill(
                    models.build("tiny-cnn"), teacher, split, epochs=4, augment=random_crop_flip(),
                    progress=False,
                )  # fmt: skip
            except error:
                pass
            assert teacher.asked < 0, "it was not asked so often"
            after = state(teacher)
            assert after == before, f"{error.__name__} when asked for the {asked + 1}th time"


def test_a_teacher_can_be_trained_after_it_has_taught(split):
    for name, train in trainings().items():
        teacher = network()
        train(models.build("tiny-cnn", seed=0), teacher, split, epochs=1, progress=False)
        before = {key: value.detach().clone() for key, value in teacher.named_parameters()}
        history = training.train(teacher, split, epochs=1, progress=False)
        assert math.isfinite(history.records[-1]["loss"]), name
        assert all(not torch.equal(before[key], value) for key, value in teacher.named_parameters()), name


# --- logits of any origin, and logits that are none


def test_logits_may_come_from_numpy_in_any_layout(split):
    logits = teachers.cached_logits(network(), split)
    expected = models.build("tiny-cnn", seed=0)
    training.distill(expected, logits, split, epochs=2, progress=False)
    as_numpy = logits.numpy()
    frozen = as_numpy.copy()
    frozen.setflags(write=False)
    layouts = {
        "float32": as_numpy,
        "float64": as_numpy.astype(np.float64),
        "by columns": np.asfortranarray(as_numpy),
        "every second of a larger array": np.repeat(as_numpy, 2, axis=0)[::2],
        "backwards": as_numpy[::-1].copy()[::-1],
        "read-only": frozen,
        "float64 tensor": logits.double(),
        "tensor with a graph": logits.clone().requires_grad_(),
    }
    for layout, values in layouts.items():
        student = models.build("tiny-cnn", seed=0)
        training.distill(student, values, split, epochs=2, progress=False)
        assert torch.equal(weights(student), weights(expected)), layout


def refused(split, message, teacher, error=ValueError, **options):
    student = models.build("tiny-cnn", seed=0)
    before = weights(student)
    with pytest.raises(error, match=message):
        training.distill(student, teacher, split, epochs=1, progress=False, **options)
    assert torch.equal(weights(student), before)


def test_a_teacher_that_is_none_is_refused_with_a_sentence(split):
    for teacher, error, message in (
        (torch.zeros(60, 10, dtype=torch.int64), ValueError, "floating-point logits.*int64"),
        (np.zeros((60, 10), dtype=int), ValueError, "floating-point logits.*int64"),
        (np.array([["a"] * 10] * 60, dtype=object), (TypeError, ValueError), "teacher"),
        (torch.zeros(60), ValueError, r"floating-point logits \(n, classes\).*\(60,\)"),
        (torch.zeros(60, 10, 1), ValueError, r"\(60, 10, 1\)"),
        (torch.zeros(61, 10), ValueError, r"60 images.*\(61, 10\)"),
        (torch.zeros(60, 9), ValueError, r"\(batch, 10\).*\(batch, 9\)"),
        ("fashion-mnist", TypeError, "teacher must be a torch.nn.Module or its logits, got str"),
        (None, TypeError, "got NoneType"),
    ):
        refused(split, message, teacher, error)


def test_a_row_that_is_not_finite_is_named_by_its_place_among_the_images(split):
    for bad in (math.nan, math.inf, -math.inf):
        logits = torch.zeros(60, 10)
        logits[37, 4] = bad
        for teacher in (logits, logits.numpy()):
            refused(split, rf"teacher logits must be finite, got {bad} at position \(37, 4\)", teacher)


class Blind(nn.Module):
    """Says NaN of one image."""

    def __init__(self, image: torch.Tensor):
        super().__init__()
        self.network, self.image = network(), image

    def forward(self, images):
        logits = self.network(images)
        return torch.where(
            (images - self.image).abs().flatten(1).amax(dim=1).lt(1e-4)[:, None], torch.nan, logits
        )


def plain_error(student_logits, teacher_logits):
    return F.mse_loss(student_logits, teacher_logits)


def test_so_is_the_image_of_which_a_network_says_nan(split):
    teacher = Blind(split.normalized([37])[0])
    # A loss of the library, and one that does not look at its logits.
    for loss in (training.soft_target_loss, plain_error):
        refused(split, "teacher logits must be finite, got nan for image 37 of split", teacher, loss=loss)
        for options in ({}, {"views": 3}):  # views are answered before training, new ones when they are seen
            with pytest.raises(
                ValueError, match="teacher logits must be finite, got nan for image 37 of split"
            ):
                training.distill(
                    models.build("tiny-cnn"), teacher, split, epochs=1, loss=loss, progress=False,
                    augment=lambda image: image.clone(), **options,
                )  # fmt: skip


def test_a_live_teacher_that_does_not_fit_the_images_is_refused_with_the_shape(split):
    for options in ({}, {"augment": random_crop_flip()}, {"mix": v2.MixUp(num_classes=10)}):
        refused(
            split, r"cannot process images of shape \((2|60), 1, 28, 28\)", network(channels=3), **options
        )
        refused(split, r"must return logits of shape", nn.Conv2d(1, 10, 3), **options)


# --- weights that both have


class Headed(nn.Module):
    def __init__(self, body: nn.Module, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.head = body, nn.Linear(10, 10)

    def forward(self, images):
        return self.head(self.body(images))


def test_weights_that_both_have_are_refused_where_they_would_be_trained(split):
    body = network()
    for student, teacher in (
        (Headed(body, 0), Headed(body, 1)),
        (Headed(body, 0), body),
        (body, Headed(body, 1)),
        (body, teachers.combine([network(), Headed(body.requires_grad_(True), 1)])),
    ):
        body.requires_grad_(True)
        with pytest.raises(ValueError, match="share weights"):
            training.distill(student, teacher, split, epochs=1, progress=False)


def test_frozen_weights_may_be_shared_and_the_teacher_stays_the_same(split):
    body = network().requires_grad_(False).eval()
    for options in PATHS.values():
        student, teacher = Headed(body, 0), Headed(body, 1).requires_grad_(False)
        before = state(teacher)
        training.distill(student, teacher, split, epochs=1, progress=False, **options)
        values = {key: value for key, value in state(teacher).items() if not key.endswith("training")}
        assert all(value == before[key] for key, value in values.items())


def test_batch_norm_that_both_have_must_not_move_its_statistics(split):
    """Its weights are frozen, but in training mode it would take in the statistics of every batch."""
    body = network().requires_grad_(False).train()
    with pytest.raises(ValueError, match="share.*batch norm"):
        training.distill(Headed(body, 0), Headed(body, 1), split, epochs=1, progress=False)


def test_a_teacher_that_ends_in_a_softmax_is_warned_of(split):
    probabilities = nn.Sequential(models.build("tiny-cnn", seed=9), nn.Softmax(dim=1))
    with pytest.warns(UserWarning, match="look like probabilities"):
        training.distill(models.build("tiny-cnn", seed=0), probabilities, split, epochs=1, progress=False)
