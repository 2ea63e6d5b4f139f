"""The teacher of a training: it sees its own pixels on every path, and several teachers are one."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from kdlib import data, features, metrics, models, sweeps, teachers, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.features import FeatureTerm

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

MEAN, STD, SIZE = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 20


@pytest.fixture(scope="module")
def split() -> ImageSplit:
    return data.load().train.take(60)


def network(channels: int = 1, classes: int = 10, seed: int = 9) -> nn.Module:
    """With batch norm, whose statistics are not those of a fresh layer."""
    made = models.build("tiny-cnn", num_classes=classes, in_channels=channels, image_size=28, seed=seed)
    random = torch.Generator().manual_seed(seed)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.rand(module.num_features, generator=random) / 5)
            module.running_var.copy_(torch.rand(module.num_features, generator=random) + 0.5)
    return made


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


# --- its own pixels, on every path


def prepared(pixels: torch.Tensor, mean, std, size: int | None = None) -> torch.Tensor:
    """Pixels in [0, 1] as torchvision's transforms for evaluation would hand them to a network."""
    colour = pixels.expand(-1, len(mean), -1, -1) if pixels.shape[1] == 1 else pixels
    scaled = [] if size is None else [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    return v2.Compose([*scaled, v2.Normalize(mean, std)])(colour.float())


def answer(member: nn.Module, pixels: torch.Tensor, mean=MEAN, std=STD, size=SIZE) -> torch.Tensor:
    """What the network says, in float64, of pixels that were prepared independently."""
    with torch.no_grad():
        return copy.deepcopy(member).double().eval()(prepared(pixels, mean, std, size).double())


class Watching(nn.Module):
    """A student that keeps the images of each step."""

    def __init__(self, split: ImageSplit):
        super().__init__()
        self.network, self.views = models.build("tiny-cnn", seed=0), []
        self.mean, self.std = split.mean[:, None, None], split.std[:, None, None]

    def forward(self, images):
        if self.training:
            self.views.append(images.detach() * self.std + self.mean)
        return self.network(images)


class Heard:
    """A loss that keeps what the teacher said in each step."""

    def __init__(self):
        self.answers, self.labels = [], []

    def __call__(self, student_logits, teacher_logits, temperature, labels):
        self.answers.append(teacher_logits.clone())
        self.labels.append(labels.clone())
        return F.mse_loss(student_logits, teacher_logits)


PATHS = {
    "cached": {},
    "live": {"augment": random_crop_flip()},
    "views": {"augment": random_crop_flip(), "views": 3},
    "mix": {"mix": v2.MixUp(num_classes=10)},
    "live, mixed": {"augment": v2.RandomHorizontalFlip(), "mix": v2.CutMix(num_classes=10)},
    "views, mixed": {"augment": random_crop_flip(), "views": 2, "mix": v2.MixUp(num_classes=10)},
}


def test_a_teacher_with_its_own_preprocessing_gets_it_on_every_path(split):
    inner = network(channels=3)
    teacher = teachers.freeze(copy.deepcopy(inner), mean=MEAN, std=STD, size=SIZE)
    for path, options in PATHS.items():
        student, heard = Watching(split), Heard()
        training.distill(student, teacher, split, epochs=2, loss=heard, progress=False, **options)
        assert len(student.views) == 4
        for view, said in zip(student.views, heard.answers[-4:], strict=True):
            expected = answer(inner, view).float()
            # Mixed pixels and views are rounded to float32 on the way.
            assert torch.allclose(said, expected, rtol=1e-3, atol=1e-3), f"{path}: {said - expected}"


def test_so_do_the_metrics_the_cache_and_the_features(split):
    inner = network(channels=3)
    teacher = teachers.freeze(copy.deepcopy(inner), mean=MEAN, std=STD, size=SIZE)
    expected = answer(inner, split.images / 255)
    logits = teachers.cached_logits(teacher, split)
    torch.testing.assert_close(logits, expected.float(), rtol=1e-4, atol=1e-4)
    right = (expected.argmax(dim=1) == split.labels).double().mean().item()
    assert metrics.accuracy(teacher, split) == pytest.approx(right, abs=1e-9)
    layer = next(name for name, module in inner.named_modules() if isinstance(module, nn.BatchNorm2d))
    outputs = []
    plain = copy.deepcopy(inner).double().eval()
    plain.get_submodule(layer).register_forward_hook(lambda *parts: outputs.append(parts[2].detach()))
    plain(prepared(split.images / 255, MEAN, STD, SIZE).double())
    found = features.teacher_features(teacher, split, [f"network.{layer}"])[f"network.{layer}"]
    torch.testing.assert_close(found, outputs[0].float(), rtol=1e-4, atol=1e-4)


def test_features_in_a_training_are_those_of_the_teachers_own_pixels(split):
    inner = network(channels=3)
    teacher = teachers.freeze(copy.deepcopy(inner), mean=MEAN, std=STD, size=SIZE)
    blocks = [name for name, module in inner.named_modules() if isinstance(module, nn.Conv2d)]
    layer, plain = blocks[-1], copy.deepcopy(inner).double().eval()
    outputs = []
    plain.get_submodule(layer).register_forward_hook(lambda *parts: outputs.append(parts[2].detach()))
    for path, options in PATHS.items():
        student, heard = Watching(split), []

        def loss(ours, theirs, heard=heard):
            heard.append(theirs.clone())
            return features.similarity_loss(ours, theirs)

        term = FeatureTerm(loss, f"network.{layer}", f"network.{layer}")
        training.match_features(student, teacher, split, features=[term], epochs=1, progress=False, **options)
        assert len(student.views) == 2
        for view, said in zip(student.views, heard[-2:], strict=True):
            outputs.clear()
            plain(prepared(view, MEAN, STD, SIZE).double())
            assert torch.allclose(said, outputs[0].float(), rtol=1e-3, atol=1e-3), path


def test_a_sweep_gives_the_teacher_its_own_pixels(split):
    inner = network(channels=3)
    teacher = teachers.freeze(copy.deepcopy(inner), mean=MEAN, std=STD, size=SIZE)
    test = data.load().validation.take(50)
    for path, options in PATHS.items():
        students, heard = [], Heard()

        def build(students=students):
            students.append(Watching(split))
            return students[-1]

        table = sweeps.run(
            build, teacher, split, test, temperatures=[2.0], alphas=[1.0], seeds=[0], epochs=1,
            loss=heard, workers=0, bfloat16=False, progress=False, **options,
        )  # fmt: skip
        trained = next(student for student in students if student.views)
        for view, said in zip(trained.views, heard.answers[-len(trained.views) :], strict=True):
            assert torch.allclose(said, answer(inner, view).float(), rtol=1e-3, atol=1e-3), path
        ours = metrics.agreement(trained.network, answer(inner, test.images / 255), test)
        assert table["agreement"][0] == pytest.approx(ours), path


def test_without_preprocessing_of_its_own_it_gets_what_the_student_gets(split):
    inner = network()
    for wrapped in (inner, teachers.freeze(copy.deepcopy(inner))):
        expected = answer(inner, split.images / 255, split.mean.tolist(), split.std.tolist(), size=None)
        torch.testing.assert_close(
            teachers.cached_logits(wrapped, split), expected.float(), rtol=1e-4, atol=1e-4
        )


def test_colour_images_larger_and_smaller_than_the_teacher_wants_are_scaled(split):
    random = torch.Generator().manual_seed(0)
    inner = network(channels=3)
    for height, width, size in ((32, 32, 32), (32, 32, 24), (24, 24, 40), (30, 45, 20)):
        pixels = torch.randint(0, 256, (6, 3, height, width), dtype=torch.uint8, generator=random)
        colour = ImageSplit(pixels, torch.arange(6))
        teacher = teachers.freeze(copy.deepcopy(inner), mean=MEAN, std=STD, size=size)
        expected = answer(inner, pixels / 255, size=size).float()
        found = teachers.cached_logits(teacher, colour)
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3), (height, width, size)


def test_another_preprocessing_of_the_same_weights_has_its_own_cached_logits(split):
    inner = network()
    for mean, std, size in (([0.1], [0.5], None), ([0.4], [0.5], None), ([0.4], [0.5], 20)):
        found = teachers.cached_logits(teachers.freeze(inner, mean=mean, std=std, size=size), split)
        expected = answer(inner, split.images / 255, mean, std, size).float()
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4), (mean, std, size)


def test_a_teacher_in_training_mode_answers_as_in_eval_mode(split):
    """Neither batch norm nor dropout may show in what it says."""
    inner = nn.Sequential(network(), nn.Dropout(0.5), nn.Linear(10, 10)).train()
    statistics = split.mean.tolist(), split.std.tolist(), None
    for path, options in PATHS.items():
        student, heard = Watching(split), Heard()
        training.distill(student, inner, split, epochs=1, loss=heard, progress=False, **options)
        for view, said in zip(student.views, heard.answers[-2:], strict=True):
            expected = answer(inner, view, *statistics).float()
            assert torch.allclose(said, expected, rtol=1e-3, atol=1e-3), path


# --- several teachers are one


def closed_form(logits: list[torch.Tensor], by: str) -> np.ndarray:
    values = np.stack([each.double().numpy() for each in logits])
    if by == "logits":
        return values.mean(axis=0)
    odds = np.exp(values - values.max(axis=2, keepdims=True))
    return np.log((odds / odds.sum(axis=2, keepdims=True)).mean(axis=0))


def test_logits_of_several_teachers_are_combined_as_the_formulas_say():
    random = torch.Generator().manual_seed(0)
    for scale in (0.1, 3, 60):
        for members in (1, 2, 5):
            logits = [scale * torch.randn(7, 4, generator=random) for _ in range(members)]
            for by in ("probabilities", "logits"):
                found = teachers.combine(logits, by=by)
                assert found.shape == (7, 4) and found.isfinite().all()
                expected = closed_form(logits, by)
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=f"{by} {scale}")
    # float32 must not underflow where a probability does
    far = teachers.combine([torch.tensor([[0.0, 1e4]]), torch.tensor([[0.0, 2e4]])])
    torch.testing.assert_close(far, torch.tensor([[-1e4 - math.log(2), 0.0]]))


def test_networks_of_different_preprocessing_are_combined_each_on_its_own_pixels(split):
    settings = [(MEAN, STD, SIZE), ([0.2] * 3, [0.4] * 3, None), (MEAN, STD, 32)]
    inner = [network(channels=3, seed=seed) for seed in (5, 6, 7)]
    for by in ("probabilities", "logits"):
        members = [
            teachers.freeze(copy.deepcopy(member), mean=mean, std=std, size=size)
            for member, (mean, std, size) in zip(inner, settings, strict=True)
        ]
        teacher = teachers.combine(members, by=by)

        def expected(pixels, by=by):
            said = [answer(member, pixels, *each) for member, each in zip(inner, settings, strict=True)]
            return torch.from_numpy(closed_form(said, by)).float()

        found = teachers.cached_logits(teacher, split)
        torch.testing.assert_close(found, expected(split.images / 255), rtol=1e-3, atol=1e-3)
        student, heard = Watching(split), Heard()
        options = {"loss": heard, "augment": random_crop_flip(), "progress": False}
        training.distill(student, teacher, split, epochs=1, **options)
        for view, said in zip(student.views, heard.answers[-2:], strict=True):
            assert torch.allclose(said, expected(view), rtol=1e-3, atol=1e-3), by


def test_networks_without_preprocessing_are_combined_on_the_students_pixels(split):
    inner = [network(seed=seed) for seed in (5, 6)]
    statistics = split.mean.tolist(), split.std.tolist(), None
    said = [answer(member, split.images / 255, *statistics) for member in inner]
    for by in ("probabilities", "logits"):
        found = teachers.cached_logits(teachers.combine(copy.deepcopy(inner), by=by), split)
        np.testing.assert_allclose(found, closed_form(said, by), rtol=1e-3, atol=1e-3, err_msg=by)


def test_a_combined_teacher_teaches_as_its_combined_logits_do(split):
    inner = [network(seed=seed) for seed in (5, 6)]
    logits = teachers.combine([teachers.cached_logits(member, split) for member in inner])
    students = [models.build("tiny-cnn", seed=0) for _ in range(2)]
    for student, teacher in zip(students, (teachers.combine(inner), logits), strict=True):
        training.distill(student, teacher, split, epochs=2, learning_rate=1e-3, progress=False)
    torch.testing.assert_close(weights(students[0]), weights(students[1]), rtol=1e-3, atol=1e-4)


def test_features_of_a_member_can_be_matched(split):
    teacher = teachers.combine([network(seed=5), network(seed=6)])
    layer = [name for name, module in teacher.named_modules() if isinstance(module, nn.Conv2d)][-1]
    assert layer.startswith("members.1.")
    term = FeatureTerm(features.hint_loss, layer.removeprefix("members.1."), layer)
    history = training.distill(
        models.build("tiny-cnn", seed=0), teacher, split, epochs=3, features=[term], progress=False
    )
    assert history.records[-1]["features"] < history.records[0]["features"]


def test_teachers_that_cannot_be_combined_are_refused_with_a_sentence(split):
    good, other = torch.zeros(60, 10), torch.zeros(60, 11)
    for members, by, message in (
        ([], "logits", "teachers must hold at least one"),
        ([good, other], "logits", r"one shape, got \[\(60, 10\), \(60, 11\)\]"),
        ([good, good[:5]], "probabilities", r"one shape"),
        ([network(), good], "logits", "all be networks, or all be logits, got Tensor at position 1"),
        ([good], "mean", "by must be one of 'probabilities', 'logits', got 'mean'"),
    ):
        with pytest.raises(ValueError, match=message):
            teachers.combine(members, by=by)
    with pytest.raises(ValueError, match="all carry a preprocessing of their own, or none"):
        teachers.combine([teachers.freeze(network(3), mean=MEAN, std=STD), network(3)])
    mixed = teachers.combine([network(), network(classes=11)])
    with pytest.raises(ValueError, match=r"one shape"):
        training.distill(models.build("tiny-cnn"), mixed, split, epochs=1, progress=False)
    with pytest.raises(TypeError, match=r"got list.*kdlib\.teachers\.combine"):
        training.distill(models.build("tiny-cnn"), [network(), network()], split, epochs=1)


def test_preprocessing_that_makes_no_sense_is_refused():
    for arguments, message in (
        ({"mean": MEAN}, "mean and std must both be given"),
        ({"std": STD}, "mean and std must both be given"),
        ({"size": 32}, "mean and std must both be given"),
        ({"mean": MEAN, "std": [0.2]}, "one number for each channel, got 3 and 1"),
        ({"mean": MEAN, "std": [0.2, 0.0, 0.2]}, "std must be above 0"),
        ({"mean": MEAN, "std": [0.2, -1.0, 0.2]}, "std must be above 0"),
        ({"mean": [123.7, 116.3, 103.5], "std": STD}, r"mean must hold .* in units of pixels in \[0, 1\]"),
        ({"mean": [math.nan] * 3, "std": STD}, "mean must hold a finite number"),
        ({"mean": MEAN, "std": [math.inf] * 3}, "std must hold a finite number"),
        ({"mean": [], "std": []}, "mean must hold a finite number"),
        ({"mean": torch.tensor([MEAN]), "std": torch.tensor([STD])}, "mean must hold a finite number"),
        ({"mean": MEAN, "std": STD, "size": 0}, "size must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            teachers.freeze(network(3), **arguments)
