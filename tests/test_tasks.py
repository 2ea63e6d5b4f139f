"""Collages and clips: the images and the labels are what the docstrings say."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from task_items import noise_items, same

from kdlib.data import ImageDataset, ImageSplit
from kdlib.tasks import video
from kdlib.tasks.collages import collages
from kdlib.tasks.regression import turned
from kdlib.tasks.video import DIRECTIONS, FRAMES, SPEED, clips, frames_of, item_and_direction

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ every task


def test_a_seed_repeats_images_and_labels_and_another_one_makes_others():
    items = noise_items()
    for make in (collages, clips, turned):
        first, again, other = (make(items, 30, seed=seed) for seed in (3, 3, 4))
        assert same(first, again), make
        assert not torch.equal(first.images, other.images) and not torch.equal(first.labels, other.labels), make
        assert same(make(items, 30), make(items, 30, seed=0))


def test_made_images_are_normalised_by_themselves():
    for make in (collages, clips, turned):
        made = make(noise_items(), 50)
        pixels = made.images.double() / 255
        assert torch.allclose(made.mean.double(), pixels.mean(dim=(0, 2, 3)), atol=1e-6)
        assert torch.allclose(made.std.double(), pixels.std(dim=(0, 2, 3), correction=0), atol=1e-6)


def test_bad_items_numbers_and_seeds_are_named():
    items = noise_items()
    for make in (collages, clips, turned):
        for error, words, arguments in [
            (TypeError, "split must be a kdlib.data.ImageSplit, got list", ([], 3)),
            (TypeError, "split must be one split, got an ImageDataset", (ImageDataset(items, items, items, []), 3)),
            (ValueError, "split must hold grey images of one channel, got 3", (noise_items(channels=3), 3)),
            (ValueError, "n must be at least 1, got 0", (items, 0)),
            (TypeError, "n must be an integer, got float 3.0", (items, 3.0)),
        ]:
            with pytest.raises(error, match=words):
                make(*arguments)
        with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
            make(items, 3, seed=-1)
        with pytest.raises(ValueError, match=r"seed must be below 2\*\*63, got 18446744073709551616"):
            make(items, 3, seed=2**64)
    several = ImageSplit(items.images, torch.zeros(len(items), 4))
    for make in (collages, clips):
        with pytest.raises(ValueError, match=r"split must hold images of one class each, got labels \(40, 4\)"):
            make(several, 3)


# ------------------------------------------------------------------ collages


def quarters(image):
    """Upper left, upper right, lower left and lower right."""
    return [part for half in image[0].chunk(2, dim=0) for part in half.chunk(2, dim=1)]


def test_labels_are_the_classes_of_the_items_in_the_four_places():
    items = noise_items(n=25, classes=7)
    of_item = {image.numpy().tobytes(): int(label) for image, label in zip(items.images, items.labels, strict=True)}
    for empty in (0.0, 0.5, 0.9):
        made = collages(items, 60, seed=1, empty=empty, classes=8)
        assert made.images.shape == (60, 1, 12, 16) and made.images.dtype == torch.uint8
        assert made.labels.shape == (60, 8) and made.labels.dtype == torch.float32
        for image, label in zip(made.images, made.labels, strict=True):
            filled = [part.contiguous().numpy().tobytes() for part in quarters(image) if part.any()]
            expected = torch.zeros(8)
            expected[[of_item[part] for part in filled]] = 1  # fails where a quarter is no item
            assert torch.equal(label, expected)


def test_every_place_is_empty_as_often_as_asked_and_whatever_the_others_are():
    items = noise_items()
    for empty in (0.0, 0.2, 0.5, 1.0):
        made = collages(items, 2000, seed=2, empty=empty)
        there = torch.stack([torch.stack(quarters(image)).flatten(1).any(dim=1) for image in made.images])
        found = 1 - there.double().mean(dim=0)
        assert (found - empty).abs().max() <= 4 * math.sqrt(empty * (1 - empty) / 2000), empty
        filled = there.sum(dim=1).bincount(minlength=5) / 2000
        expected = torch.tensor([math.comb(4, k) * (1 - empty) ** k * empty ** (4 - k) for k in range(5)])
        assert (filled - expected).abs().max() < 0.04, empty


def test_every_item_is_drawn_about_as_often_as_any_other():
    made = collages(noise_items(n=10), 1000, seed=5, empty=0)
    share = 1 - 0.9**4  # of the collages that hold at least one of a class, of which there is one item
    assert (made.labels.mean(dim=0) - share).abs().max() < 4 * math.sqrt(share * (1 - share) / 1000)


def test_collages_without_any_item_have_no_label_and_can_be_normalised():
    made = collages(noise_items(), 4, empty=1)
    assert not made.images.any() and not made.labels.any() and made.normalized(slice(None)).isfinite().all()


def test_bad_arguments_of_collages_are_named():
    for options, words in [
        ({"classes": 9}, "classes must be above every label of the images, got 9 and the label 9"),
        ({"classes": 0}, "classes must be at least 1"),
        ({"empty": 1.5}, r"empty must be in \[0, 1\], got 1.5"),
        ({"empty": math.nan}, "empty must be a finite number"),
    ]:
        with pytest.raises(ValueError, match=words):
            collages(noise_items(), 3, **options)


# ------------------------------------------------------------------ video


@pytest.fixture
def silent(monkeypatch):
    """Clips without noise."""
    monkeypatch.setattr(video, "NOISE", 0.0)


MOVES = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # rows and columns


def test_every_frame_is_the_one_before_moved_by_two_pixels_round_the_joined_edges(silent):
    made = clips(noise_items(size=(12, 14)), 80, seed=0)
    assert made.images.shape == (80, FRAMES, 12, 14) and made.labels.dtype == torch.int64
    seen = set()
    for clip, label in zip(made.images, made.labels.tolist(), strict=True):
        direction = DIRECTIONS[label % 4]
        step = tuple(SPEED * side for side in MOVES[direction])
        for before, after in itertools.pairwise(clip):
            assert torch.equal(after, before.roll(step, dims=(0, 1))), direction
        seen.add(direction)
    assert seen == set(MOVES) and SPEED == 2


def test_the_label_names_the_item_that_is_seen_at_half_its_size(silent):
    items = noise_items(n=20, size=(8, 8))
    made = clips(items, 40, seed=1)
    halves = items.images[:, 0].double().unflatten(1, (4, 2)).unflatten(3, (4, 2)).mean(dim=(2, 4)).round()
    for clip, label in zip(made.images, made.labels.tolist(), strict=True):
        places = itertools.product(range(8), range(8))
        windows = [clip[0].roll((-row, -column), dims=(0, 1))[:4, :4].double() for row, column in places]
        # Means of four whole numbers end on .5 at times, which is rounded to the even one in both.
        found = [n for n, half in enumerate(halves) if any(torch.equal(half, window) for window in windows)]
        assert len(found) == 1 and int(items.labels[found[0]]) == label // 4
        assert (clip[0] > 0).sum() == 16, "something beside the item"


def test_noise_has_mean_0_and_is_drawn_anew_for_every_frame(monkeypatch):
    """Its mean and size are seen on the grey item, where nothing is cut off."""
    grey = ImageSplit(torch.full((1, 1, 28, 28), 128, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    noisy = clips(grey, 200, seed=3)
    monkeypatch.setattr(video, "NOISE", 0.0)
    without = clips(grey, 200, seed=3)
    there = without.images == 128
    assert torch.equal(noisy.labels, without.labels) and there.sum() == 200 * FRAMES * 14 * 14
    noise = noisy.images[there].double() - 128
    assert abs(noise.mean()) < 0.5 and noise.std() == pytest.approx(40, rel=0.02)
    frames = noisy.images.double() - without.images.double()
    ground = ~there.any(dim=1)
    first, second = frames[:, 0][ground], frames[:, 1][ground]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_a_single_frame_does_not_tell_the_direction(monkeypatch):
    """The place of the item in any frame is as often here as there, whatever the direction."""
    monkeypatch.setattr(video, "NOISE", 0.0)
    dot = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    dot[..., :2, :2] = 255
    made = clips(ImageSplit(dot, torch.zeros(1, dtype=torch.int64)), 8000, seed=7)
    for frame in (0, 3, 7):
        place = made.images[:, frame].flatten(1).float().argmax(dim=1)
        table = np.zeros((4, 64))
        np.add.at(table, (made.labels.numpy(), place.numpy()), 1)
        assert stats.chi2_contingency(table).pvalue > 0.001, frame
        assert stats.chisquare(table.sum(axis=0)).pvalue > 0.001, frame


def test_frames_keep_their_mean_and_std_and_their_order():
    made = clips(noise_items(), 20)
    given = ImageSplit(made.images, made.labels, 5 + made.indices, torch.arange(8) / 10, (1 + torch.arange(8)) / 10)
    for chosen in (range(8), (3, 4), [6, 1], (3,), np.arange(2, 5).tolist()):
        few = frames_of(given, chosen)
        rows = list(chosen)
        assert torch.equal(few.images, made.images[:, rows]) and few.images.is_contiguous()
        assert torch.equal(few.mean, given.mean[rows]) and torch.equal(few.std, given.std[rows])
        assert torch.equal(few.labels, made.labels) and torch.equal(few.indices, given.indices)
        whole = given.normalized(slice(None))
        assert torch.equal(few.normalized(slice(None)), whole[:, rows])


def test_frames_that_clips_do_not_have_are_refused():
    made = clips(noise_items(), 3)
    for bad in ((), (8,), (-1,), [0, 9], range(7, 9), 3, slice(0, 3), [True, False], "03"):
        with pytest.raises(ValueError, match="frames must be a list of some of 0 to 7, got"):
            frames_of(made, bad)
    assert same(frames_of(made, np.array([3, 0])), frames_of(made, [3, 0]))
    with pytest.raises(TypeError, match="split must be a kdlib.data.ImageSplit"):
        frames_of(made.images, (0,))


def test_answers_are_the_sums_of_probabilities_over_the_other_question():
    logits = 4 * torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    answers = item_and_direction(logits)
    p = np.exp(logits.double().numpy())
    p /= p.sum(axis=1, keepdims=True)
    for n, item, direction in itertools.product(range(7), range(3), range(4)):
        assert answers.item[n, item].item() == pytest.approx(sum(p[n, 4 * item + d] for d in range(4)), abs=1e-6)
        assert answers.direction[n, direction].item() == pytest.approx(
            sum(p[n, 4 * i + direction] for i in range(3)), abs=1e-6
        )
    for part in answers:
        assert torch.allclose(part.sum(dim=1), torch.ones(7))
    sure = item_and_direction(torch.tensor([[1e4, -1e4, 0, 0]]))
    assert sure.item.tolist() == [[1]] and sure.direction.tolist() == [[1, 0, 0, 0]]


def test_bad_arguments_of_clips_and_their_answers_are_named():
    with pytest.raises(ValueError, match="items must be above every label of the images, got 5 and the label 9"):
        clips(noise_items(), 3, items=5)
    with pytest.raises(ValueError, match=r"split must hold images of at least 2 x 2 pixels, got \(1, 8\)"):
        clips(noise_items(size=(1, 8)), 3)
    with pytest.raises(ValueError, match="logits must have a multiple of 4 classes, got 10"):
        item_and_direction(torch.zeros(2, 10))
    with pytest.raises(ValueError, match="logits must be finite"):
        item_and_direction(torch.full((2, 8), math.nan))
