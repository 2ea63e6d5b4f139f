"""What a step sees: a view of each image of its own, and mixed images with soft labels."""

import functools
import math

import pytest
import torch
from torch.nn import functional as F
from torchvision import transforms as v1
from torchvision.transforms import v2
from watching import Watching, steps_of, student, weights

from kdlib import data, metrics, sweeps, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.features import FeatureTerm, hint_loss

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture(scope="module")
def split() -> ImageSplit:
    return data.load().train.take(60)


TRANSFORMS = {
    "crop": v2.RandomCrop(28, padding=4),
    "flip": v2.RandomHorizontalFlip(),
    "erase": v2.RandomErasing(p=0.8),
    "auto": v2.AutoAugment(),
    "rotate": v2.RandomRotation(20),
    "composed": v2.Compose([v2.RandomCrop(28, padding=4), v2.RandomHorizontalFlip(), v2.RandomErasing()]),
    "float": v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.RandomErasing(p=0.8)]),
    "older": v1.Compose([v1.RandomCrop(28, padding=4), v1.RandomHorizontalFlip()]),
    "own, of a batch": random_crop_flip(),
}  # fmt: skip


def test_every_image_of_a_batch_gets_a_draw_of_its_own(split):
    rows = torch.zeros(40, dtype=torch.int64)  # one image, forty times
    copies = ImageSplit(split.images[rows], torch.arange(40) % 10)
    for name, augment in TRANSFORMS.items():
        for pixels in steps_of(copies, epochs=2, augment=augment):
            different = len({image.round().to(torch.uint8).numpy().tobytes() for image in pixels})
            # Half of the images are flipped, so two kinds are all that a flip can give.
            assert different > (1 if name == "flip" else 8), f"{name}: {different}"


def test_views_are_those_that_the_transform_draws_image_by_image(split):
    """Against a loop by hand, in the documented order of images and random numbers."""
    for name, augment in TRANSFORMS.items():
        seen = steps_of(split, epochs=2, augment=augment, seed=3)
        expected = []
        with torch.random.fork_rng():
            for epoch in range(2):
                torch.manual_seed(3 * 1_000_003 + epoch)
                for rows in torch.randperm(len(split)).tensor_split(2):
                    images = split.images[rows]
                    whole = name.endswith("of a batch")
                    views = augment(images) if whole else torch.stack([augment(image) for image in images])
                    expected.append(views.float() * (255 if views.is_floating_point() else 1))
        for ours, reference in zip(seen, expected, strict=True):
            assert torch.allclose(ours, reference, atol=1e-2), name


def test_functions_that_change_nothing_change_nothing(split):
    reference = student()
    training.train(reference, split, epochs=1, progress=False)
    unchanged = {
        "uint8": lambda image: image,
        "of a batch": lambda images: images if images.ndim == 4 else images[:, :5],
        "float in [0, 1]": lambda image: image / 255,
        "double": lambda image: image.double() / 255,
        "v2": v2.ToDtype(torch.float32, scale=True),
        "in place": lambda image: image.add_(0),
    }
    before = split.images.clone()
    for name, augment in unchanged.items():
        for options in ({}, {"views": 2}):
            model = student()
            training.train(model, split, epochs=1, augment=augment, progress=False, **options)
            assert torch.allclose(weights(model), weights(reference), rtol=1e-3, atol=1e-4), name
    assert torch.equal(split.images, before)


def test_a_transform_that_writes_into_its_image_leaves_the_split_alone(split):
    def blacken(image):
        image.zero_()
        return image

    before = split.images.clone()
    for options in ({}, {"views": 2}):
        training.train(student(), split, epochs=1, augment=blacken, progress=False, **options)
        assert torch.equal(split.images, before)


def test_what_is_no_view_is_refused_before_anything_is_trained(split):
    normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.3], [0.35])])
    cases = {
        "normalised": (normalise, ValueError, r"numbers in \[0, 1\].*leave the normalisation to kdlib"),
        "floats to 255": (lambda image: image.float(), ValueError, r"numbers in \[0, 1\].*from 0 to 2\d\d"),
        "NaN": (lambda image: image / 255 * math.nan, ValueError, "numbers from nan to nan"),
        "infinite": (lambda image: image / 0.0, ValueError, r"numbers in \[0, 1\]"),
        "below 0": (lambda image: image / 255 - 0.01, ValueError, "from -0.01"),
        "smaller": (v2.Resize(20), ValueError, r"keep the shape.*\(1, 20, 20\) for \(1, 28, 28\)"),
        "colour": (v2.RGB(), ValueError, r"\(3, 28, 28\) for \(1, 28, 28\)"),
        "without channels": (lambda image: image[0], ValueError, "keep the shape"),
        "fewer images": (lambda images: images[:1] if images.ndim == 4 else None, ValueError, "keep the shape"),
        "int64": (lambda image: image.long(), ValueError, r"return uint8, or .*got torch.int64"),
        "bool": (lambda image: image > 0, ValueError, "got torch.bool"),
        "an array": (lambda image: image.numpy(), ValueError, "must return a tensor, got ndarray"),
        "nothing": (lambda image: None, ValueError, "must return a tensor, got NoneType"),
        "a pair": (lambda image: (image, 0), ValueError, "must return a tensor, got tuple"),
        "pictures only": (v1.ToTensor(), ValueError, "augment must take uint8 images.*pic should be PIL"),
        "an error of its own": (lambda image: 1 / 0, ValueError, "ZeroDivisionError"),
        "no function": ("flip", TypeError, "augment must be a function, got str 'flip'"),
    }  # fmt: skip
    for name, (augment, error, message) in cases.items():
        model = student()
        before = weights(model)
        calls = {
            "train": functools.partial(training.train, model, split),
            "train, views": functools.partial(training.train, model, split, views=2),
            "distill": functools.partial(training.distill, model, student(1), split),
            "sweep": functools.partial(
                sweeps.run, student, student(1), split, split, temperatures=[1.0], alphas=[0.5], seeds=[0],
                workers=0,
            ),
        }  # fmt: skip
        for call, function in calls.items():
            if name == "no function" and call == "sweep":
                continue  # the annotations of a sweep say it first
            with pytest.raises(error, match=message):
                function(augment=augment, epochs=1, progress=False)
            assert torch.equal(weights(model), before), (name, call)


def test_a_view_that_is_none_only_now_and_then_is_refused_when_it_comes(split):
    normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.3], [0.35])])
    augment = v2.RandomChoice([v2.RandomHorizontalFlip(), normalise], p=[0.9, 0.1])
    torch.manual_seed(0)
    for options in ({}, {"views": 4}):
        with pytest.raises(ValueError, match="leave the normalisation to kdlib|in the same shape"):
            training.train(student(), split, epochs=2, augment=augment, progress=False, **options)


# --- mixed images, with the labels to them


@pytest.fixture(scope="module")
def painted() -> ImageSplit:
    """Images of one grey each, 20 times their class: of a mix, the mean grey says what the labels must be."""
    labels = torch.arange(40) % 10
    images = (20 * labels).to(torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28).contiguous()
    return ImageSplit(images, labels, mean=[0.3], std=[0.3])


MIXES = {
    "MixUp": v2.MixUp(num_classes=10, alpha=1.0),
    "CutMix": v2.CutMix(num_classes=10, alpha=1.0),
    "either": v2.RandomChoice([v2.MixUp(num_classes=10), v2.CutMix(num_classes=10)]),
}


def own_mix(images, labels):
    """The upper half of an image with the lower half of its neighbour, three quarters of the label its own."""
    mixed = images.clone()
    mixed[:, :, 14:] = images.roll(1, dims=0)[:, :, 14:]
    hard = labels if labels.ndim == 2 else F.one_hot(labels, 10).float()
    return mixed, (hard + hard.roll(1, dims=0)) / 2


class Heard:
    """A loss and a task loss that keep what they were called with."""

    def __init__(self):
        self.labels, self.answers = [], []

    def task_loss(self, student_logits, labels):
        self.labels.append(labels)
        return F.cross_entropy(student_logits, labels)

    def loss(self, student_logits, teacher_logits):
        self.answers.append(teacher_logits)
        return F.mse_loss(student_logits, teacher_logits)


def test_the_labels_of_a_mix_are_the_shares_of_its_images(painted):
    grey = 20 * torch.arange(10.0)
    kinds = {"classes": painted, "soft": ImageSplit(painted.images, F.one_hot(painted.labels, 10).float(),
                                                    mean=[0.3], std=[0.3])}  # fmt: skip
    for kind, images in kinds.items():
        for name, mix in (MIXES | {"own": own_mix}).items():
            heard, watching = Heard(), Watching(images)
            training.train(
                watching, images, epochs=3, mix=mix, task_loss=heard.task_loss, progress=False, seed=1
            )
            mixed = 0
            for pixels, labels in zip(watching.views, heard.labels[-len(watching.views) :], strict=True):
                assert labels.dtype == torch.float32 and labels.shape == (len(pixels), 10)
                torch.testing.assert_close(labels.sum(dim=1), torch.ones(len(pixels)))
                assert torch.allclose(pixels.mean(dim=(1, 2, 3)), labels @ grey, atol=0.2), (kind, name)
                mixed += ((labels > 0.01).sum(dim=1) > 1).sum().item()
            assert mixed > 20, f"{kind}, {name}: {mixed}"


def test_the_teacher_looks_at_the_mixed_view(split):
    for name, mix in (MIXES | {"own": own_mix}).items():
        for augment in (None, v2.RandomHorizontalFlip()):
            teacher, watching, heard = student(9).eval(), Watching(split), Heard()
            training.distill(
                watching, teacher, split, epochs=2, mix=mix, augment=augment, loss=heard.loss, progress=False
            )
            for pixels, said in zip(watching.views, heard.answers[-4:], strict=True):
                with torch.no_grad():
                    expected = teacher((pixels / 255 - watching.mean) / watching.std)
                assert torch.allclose(said, expected, rtol=1e-3, atol=1e-3), name


def test_a_mix_trains_with_validation_features_and_in_a_sweep(split):
    for name, mix in (MIXES | {"own": own_mix}).items():
        term = FeatureTerm(hint_loss, "stages.1", "stages.1")
        history = training.distill(
            student(), student(9), split, epochs=2, mix=mix, features=[term], validation=split, progress=False
        )
        last = history.records[-1]
        assert math.isfinite(last["loss"]) and 0 <= last["validation_accuracy"] <= 1, name
        table = sweeps.run(
            "tiny-cnn", student(9), split, split, temperatures=[2.0], alphas=[0.5], seeds=[4], epochs=2, mix=mix,
            workers=0, bfloat16=False, progress=False,
        )  # fmt: skip
        alone = student(4)
        training.distill(
            alone, student(9), split, epochs=2, mix=mix, temperature=2.0, alpha=0.5, seed=4, bfloat16=False,
            progress=False,
        )  # fmt: skip
        assert table["ece"][0] == metrics.calibration_error(alone, split), name


def test_what_is_no_mix_is_refused_before_anything_is_trained(split):
    def soft(images, labels):
        return F.one_hot(labels, 10).float()

    cases = {
        "images only": (lambda x, y: x, ValueError, "mix must return a pair"),
        "three": (lambda x, y: (x, soft(x, y), 0.5), ValueError, "mix must return a pair"),
        "classes": (lambda x, y: (x, y), ValueError, r"soft labels of shape \(2, classes\)"),
        "one hot": (lambda x, y: (x, F.one_hot(y, 10)), ValueError, r"soft labels.*torch.int64"),
        "above 1": (lambda x, y: (x, 2 * soft(x, y)), ValueError, r"in \[0, 1\].*from 0 to 2"),
        "labels NaN": (lambda x, y: (x, soft(x, y) * math.nan), ValueError, r"in \[0, 1\]"),
        "fewer labels": (lambda x, y: (x, soft(x, y)[:1]), ValueError, r"got shape \(1, 10\)"),
        "fewer images": (lambda x, y: (x[:1], soft(x, y)), ValueError, r"images of shape \(2, 1, 28, 28\)"),
        "normalised": (lambda x, y: (x - 0.5, soft(x, y)), ValueError, r"pixels in \[0, 1\].*from -0.5"),
        "NaN": (lambda x, y: (x * math.nan, soft(x, y)), ValueError, r"pixels in \[0, 1\]"),
        "other classes": (v2.MixUp(num_classes=12), ValueError, r"mix.*\(batch, 12\)|\(2, 12\)"),
        "too few classes": (lambda x, y: (x, soft(x, y)[:, :4]), ValueError, r"\(2, 4\)|\(batch, 4\)"),
        "no function": ("MixUp", TypeError, "mix must be a function"),
    }  # fmt: skip
    for name, (mix, error, message) in cases.items():
        model = student()
        before = weights(model)
        for function in (
            functools.partial(training.train, model, split),
            functools.partial(training.distill, model, student(1), split),
            functools.partial(
                training.match_features, model, student(1), split,
                features=[FeatureTerm(hint_loss, "head", "head")],
            ),
        ):  # fmt: skip
            if "classes" in name and function.func is training.match_features:
                continue  # which asks for no label
            with pytest.raises(error, match=message):
                function(mix=mix, epochs=1, progress=False)
            assert torch.equal(weights(model), before), (name, function.func)


def test_mix_needs_the_teacher_itself(split):
    with pytest.raises(ValueError, match="mix needs the teacher module"):
        training.distill(student(), torch.zeros(60, 10), split, epochs=1, mix=MIXES["MixUp"], progress=False)
