"""Fixed views: used equally often, answered once each, the same for a seed, and resumed bit by bit."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2
from watching import Watching, steps_of, student, weights

from kdlib import _logit_cache, data, metrics, sweeps, teachers, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.features import FeatureTerm, hint_loss

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture(scope="module")
def split() -> ImageSplit:
    return data.load().train.take(60)


CROP_FLIP_ERASE = v2.Compose([v2.RandomCrop(28, padding=4), v2.RandomHorizontalFlip(), v2.RandomErasing()])
AS_FLOAT = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.RandomErasing(p=0.8)])


class Heard:
    """A loss that keeps what the teacher said."""

    def __init__(self):
        self.answers = []

    def loss(self, student_logits, teacher_logits):
        self.answers.append(teacher_logits)
        return F.mse_loss(student_logits, teacher_logits)


def numbered(split: ImageSplit) -> ImageSplit:
    """Images that carry their number in the first pixel."""
    images = split.images.clone()
    images[:, 0, 0, 0] = torch.arange(len(split)).to(torch.uint8)
    return ImageSplit(images, split.labels, mean=split.mean, std=split.std)


def stamp(image):
    """A view that can be told from every other: two random pixels behind the image's number."""
    view = image.clone()
    view[0, 0, 1:3] = torch.randint(0, 256, (2,), dtype=torch.uint8)
    return view


def stamps(views: list[torch.Tensor]) -> list[tuple[int, ...]]:
    """(image, two random numbers) of every image of every step."""
    return [tuple(image[0, 0, :3].round().int().tolist()) for batch in views for image in batch]


def test_each_view_is_used_equally_often(split):
    images = numbered(split)
    for views, epochs in ((1, 3), (2, 6), (3, 7), (5, 2)):
        seen = stamps(steps_of(images, epochs=epochs, augment=stamp, views=views))
        assert len(seen) == epochs * len(images)
        for image in range(len(images)):
            drawn = [each for each in seen if each[0] == image]
            assert len(drawn) == epochs, "an image was not seen once in each epoch"
            counts = [drawn.count(each) for each in set(drawn)]
            assert len(counts) == min(views, epochs) and max(counts) - min(counts) <= 1, (
                views,
                epochs,
                counts,
            )
    # The views of an epoch are not all the first: images begin with views of their own.
    first_two = [set(stamps(steps_of(images, epochs=n, augment=stamp, views=2))) for n in (1, 2)]
    assert first_two[0] < first_two[1] and len(first_two[1]) == 2 * len(images)


class Counting(nn.Module):
    def __init__(self, seed: int = 9):
        super().__init__()
        self.network, self.asked = student(seed), 0

    def forward(self, images):
        self.asked += len(images)
        return self.network(images)


def test_the_teacher_is_asked_once_about_each_view_and_never_again(split):
    few = 20  # looked at before, to see whether everything fits
    term = FeatureTerm(hint_loss, "stages.1", "network.stages.1")
    cases = [({}, 1), ({"features": [term]}, 2), ({"features": [term], "alpha": 0}, 1)]
    for views in (1, 3):
        for options, times in cases:
            # Other weights each time, of which nothing is known.
            teacher, asked = Counting(seed=10 * views + cases.index((options, times))), []
            training.distill(
                student(), teacher, split, epochs=7, augment=random_crop_flip(), views=views,
                progress=lambda record, asked=asked, teacher=teacher: asked.append(teacher.asked), **options,
            )  # fmt: skip
            assert teacher.asked <= times * views * len(split) + few, (views, options)
            assert teacher.asked >= times * views * len(split), (views, options)
            assert asked[0] == teacher.asked, "it was asked in the middle of the training"


def test_its_answers_are_found_again_on_the_disk(split, monkeypatch):
    options = {"augment": random_crop_flip(), "views": 4, "progress": False}
    training.distill(student(), Counting(), split, epochs=2, seed=5, **options)
    monkeypatch.setattr(_logit_cache, "_memory", {})  # as in another process
    again, other = Counting(), Counting()
    training.distill(student(), again, split, epochs=3, seed=5, **options)
    assert again.asked <= 20, "a few images, to see whether it is the same teacher"
    training.distill(student(), other, split, epochs=1, seed=6, **options)
    assert other.asked >= 4 * len(split), "another seed has views of its own"


def test_the_answers_are_those_of_the_views_that_the_student_sees(split):
    for augment in (CROP_FLIP_ERASE, AS_FLOAT, random_crop_flip()):
        teacher, watching, heard = student(9).eval(), Watching(split), Heard()
        training.distill(
            watching, teacher, split, epochs=4, augment=augment, views=3, loss=heard.loss, progress=False
        )
        assert len(watching.views) == 8
        for pixels, said in zip(watching.views, heard.answers[-8:], strict=True):
            with torch.no_grad():
                expected = teacher((pixels / 255 - watching.mean) / watching.std)
            torch.testing.assert_close(said, expected, rtol=1e-3, atol=1e-3)


def test_views_follow_from_the_seed_and_from_nothing_else(split):
    found = {}
    for seed in (0, 1):
        for state in (5, 6):
            torch.manual_seed(state)
            found[seed, state] = torch.cat(
                steps_of(split, epochs=2, augment=random_crop_flip(), views=2, seed=seed)
            )
            assert torch.initial_seed() == state, "the caller's generator was touched"
    assert torch.equal(found[0, 5], found[0, 6]) and torch.equal(found[1, 5], found[1, 6])
    assert not torch.equal(found[0, 5], found[1, 5])


class Interrupted(nn.Module):
    """Raises KeyboardInterrupt, as the stop button does, at a given training step."""

    def __init__(self, network: nn.Module, at_step: int):
        super().__init__()
        self.network, self.at_step, self.step = network, at_step, 0

    def forward(self, images):
        if self.training:
            self.step += 1
            if self.step == self.at_step:
                raise KeyboardInterrupt
        return self.network(images)


def test_a_training_with_views_goes_on_bit_by_bit_where_it_was_stopped(split, tmp_path):
    term = FeatureTerm(hint_loss, "network.stages.1", "stages.1")
    kinds = {
        "views": {},
        "views, mixed": {"mix": v2.MixUp(num_classes=10)},
        "views, features, validation": {"features": [term], "validation": split},
    }
    for kind, options in kinds.items():
        arguments = {"epochs": 4, "augment": CROP_FLIP_ERASE, "views": 3, "seed": 2, "progress": False}
        arguments |= options
        whole = Interrupted(student(), at_step=-1)
        expected = training.distill(whole, student(9), split, **arguments)
        path = tmp_path / kind
        for completed in (1, 2):
            stopped = Interrupted(student(), at_step=4)
            history = training.distill(stopped, student(9), split, checkpoint=path, **arguments)
            assert history.interrupted and len(history.records) == completed, kind
        resumed = Interrupted(student(), at_step=-1)
        history = training.distill(resumed, student(9), split, checkpoint=path, **arguments)
        assert torch.equal(weights(resumed), weights(whole)), kind
        for name in ("loss", "validation_accuracy"):
            assert [r.get(name) for r in history.records] == [r.get(name) for r in expected.records], kind
        with pytest.raises(ValueError, match="views=3, this call has views=2"):
            other = Interrupted(student(), at_step=-1)
            training.distill(other, student(9), split, checkpoint=path, **(arguments | {"views": 2}))


def test_views_in_a_sweep_are_those_of_a_training_alone(split):
    test = data.load().validation.take(80)
    options = {"augment": random_crop_flip(), "views": 3, "epochs": 3, "bfloat16": False, "progress": False}
    table = sweeps.run(
        "tiny-cnn", student(9), split, test, temperatures=[2.0], alphas=[0.0, 0.7], seeds=[0, 3], workers=0,
        **options,
    )  # fmt: skip
    for row in table.to_dict("records"):
        alone = student(int(row["seed"]))
        training.distill(
            alone, student(9), split, temperature=2.0, alpha=row["alpha"], seed=int(row["seed"]), **options
        )
        assert row["ece"] == metrics.calibration_error(alone, test), row
        assert row["accuracy"] == metrics.accuracy(alone, test), row


def test_views_are_for_labels_alone_too(split):
    by_views, live = student(), student()
    history = training.train(by_views, split, epochs=4, augment=random_crop_flip(), views=2, progress=False)
    training.train(live, split, epochs=4, augment=random_crop_flip(), progress=False)
    assert history.records[-1]["loss"] < history.records[0]["loss"]
    assert not torch.equal(weights(by_views), weights(live))


def test_views_that_make_no_sense_are_refused(split):
    augment = random_crop_flip()
    known = teachers.cached_logits(student(9), split)
    for options, error, message in (
        ({"views": 2}, ValueError, "views=2 are views that augment draws: give augment as well"),
        ({"views": 2, "mix": v2.CutMix(num_classes=10)}, ValueError, "give augment as well"),
        ({"views": 0, "augment": augment}, ValueError, "views must be at least 1, got 0"),
        ({"views": -3, "augment": augment}, ValueError, "views must be at least 1, got -3"),
    ):
        for function in (
            functools.partial(training.train, student(), split),
            functools.partial(training.distill, student(), student(9), split),
            functools.partial(
                sweeps.run, "tiny-cnn", student(9), split, split, temperatures=[1.0], alphas=[0.5], seeds=[0]
            ),
        ):
            with pytest.raises(error, match=message):
                function(epochs=1, progress=False, **options)
    with pytest.raises(ValueError, match="augment needs the teacher module"):
        training.distill(student(), known, split, epochs=1, augment=augment, views=2, progress=False)
    term = FeatureTerm(hint_loss, "head", known)
    with pytest.raises(ValueError, match="augment needs the name of a teacher layer"):
        training.distill(
            student(), student(9), split, epochs=1, augment=augment, views=2, features=[term], progress=False
        )


def test_numbers_of_numpy_are_numbers(split):
    plain, numpy = student(), student()
    training.train(plain, split, epochs=2, augment=random_crop_flip(), views=2, seed=3, progress=False)
    training.train(
        numpy, split, epochs=np.int64(2), augment=random_crop_flip(), views=np.int64(2), seed=np.int64(3),
        progress=False,
    )  # fmt: skip
    assert torch.equal(weights(plain), weights(numpy))
