"""Images that lie about: each kind is what its docstring says, is repeated by its seed, and needs no network."""

import socket

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from task_items import noise_items

from kdlib.data import ImageSplit
from kdlib.datafree import substitutes
from kdlib.datafree.substitutes import digits, glyphs, noise, photographs, shuffled_pixels

pytestmark = pytest.mark.usefixtures("one_thread")

MAKERS = (noise, digits, glyphs, photographs)
CACHED = (substitutes._digits, substitutes._fonts, substitutes._photographs)


@pytest.fixture
def forgotten():
    """Nothing known from other tests, and nothing left for them."""
    for function in CACHED:
        function.cache_clear()
    yield
    for function in CACHED:
        function.cache_clear()


# ------------------------------------------------------------------ all kinds


def test_as_many_grey_images_as_are_asked_for_without_a_network(forgotten, monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for make in MAKERS:
        for n in (1, 25):
            images = make(n)
            assert images.shape == (n, 1, 28, 28) and images.dtype == torch.uint8, make
        assert len(images.flatten(1).unique(dim=0)) == 25, "two images are one"
        assert (images.flatten(1).float().std(dim=1) > 1).all(), "an image is empty"


def test_a_seed_repeats_images_and_another_one_makes_others():
    state = torch.random.get_rng_state()
    for make in MAKERS:
        first, again, other = (make(12, seed=seed) for seed in (3, 3, 4))
        assert torch.equal(first, again), make
        assert not (first == other).all(dim=3).all(dim=2).any(), make
        assert torch.equal(make(3), make(3, seed=0))
    assert torch.equal(torch.random.get_rng_state(), state), "the global random numbers were drawn from"


def test_bad_numbers_and_seeds_are_named():
    for make in MAKERS:
        for error, words, arguments, settings in [
            (ValueError, "n must be at least 1, got 0", (0,), {}),
            (TypeError, "n must be an integer, got float 3.0", (3.0,), {}),
            (ValueError, "seed must be at least 0, got -1", (3,), {"seed": -1}),
            (ValueError, r"seed must be below 2\*\*63, got", (3,), {"seed": 2**64}),
        ]:
            with pytest.raises(error, match=words):
                make(*arguments, **settings)
    for error, words, split in [
        (TypeError, "split must be a kdlib.data.ImageSplit, got Tensor", noise(2)),
        (ValueError, "split must hold grey images of one channel, got 3 channels", noise_items(channels=3)),
    ]:
        with pytest.raises(error, match=words):
            shuffled_pixels(split)


# ------------------------------------------------------------------ noise and shuffled pixels


def test_noise_takes_every_grey_value_equally_often():
    counts = noise(200).flatten().bincount(minlength=256).numpy()
    assert len(counts) == 256 and stats.chisquare(counts).pvalue > 1e-3


def test_shuffled_pixels_are_those_of_the_image_each_in_an_order_of_its_own():
    image = torch.arange(100, dtype=torch.uint8).view(1, 1, 10, 10)
    split = ImageSplit(image.repeat(400, 1, 1, 1), torch.zeros(400, dtype=torch.int64))
    moved = shuffled_pixels(split, seed=1)
    assert moved.shape == split.images.shape and moved.dtype == torch.uint8
    assert torch.equal(moved.flatten(1).sort(dim=1).values, split.images.flatten(1))
    assert len(moved.flatten(1).unique(dim=0)) == 400
    # Where the first pixel goes is chance: each of 100 places, 4 times in the mean.
    places = (moved.flatten(1) == 0).nonzero()[:, 1].bincount(minlength=100).numpy()
    assert stats.chisquare(places).pvalue > 1e-3
    assert torch.equal(moved, shuffled_pixels(split, seed=1))
    assert not torch.equal(moved, shuffled_pixels(split, seed=2))


# ------------------------------------------------------------------ digits


def test_digits_are_those_of_scikit_learn_enlarged():
    enlarged = substitutes._digits().flatten(1).double().numpy()
    small = load_digits().images  # values from 0 to 16
    assert len(enlarged) == len(small)
    # Bilinear: pixel i of 28 lies at (i + 1/2) * 8/28 - 1/2 of 8.
    at = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - abs(at[:, None] - np.arange(8)))
    for image in small[::100]:
        expected = (weights @ image @ weights.T).flatten() * 255 / 16
        # Rounded once before and once after it was enlarged.
        assert np.abs(enlarged - expected).max(axis=1).min() < 1.01


def test_each_digit_is_used_before_any_is_used_twice_and_shifted_by_up_to_three_pixels(monkeypatch):
    known = torch.arange(1, 6, dtype=torch.uint8).view(5, 1, 1, 1).repeat(1, 1, 28, 28)
    monkeypatch.setattr(substitutes, "_digits", lambda: known)
    for n in (3, 5, 12):
        often = digits(n, seed=n).amax(dim=(1, 2, 3)).bincount(minlength=6)[1:]
        assert often.sum() == n and often.max() - often.min() <= 1
    shifts = set()
    for image in digits(1500):
        rows, columns = (image[0].amax(dim=dim).nonzero().flatten() for dim in (1, 0))
        inside = image[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.unique().numel() == 1
        # An empty border above or below says how far the image was moved.
        shifts.add((int(rows[0]) - int(27 - rows[-1]), int(columns[0]) - int(27 - columns[-1])))
    assert shifts == {(down, right) for down in range(-3, 4) for right in range(-3, 4)}


# ------------------------------------------------------------------ glyphs


def test_glyphs_are_of_many_fonts_sizes_and_signs(monkeypatch):
    drawn = []

    class Noted:
        def __init__(self, image):
            self.image = image

        def text(self, place, sign, *, fill, font, anchor):
            drawn.append((place, sign, fill, font.path, font.size, anchor))

    monkeypatch.setattr(substitutes.ImageDraw, "Draw", Noted)
    glyphs(6000)
    places, signs, fills, fonts, sizes, anchors = zip(*drawn, strict=True)
    assert set(signs) == set(substitutes.GLYPHS) and len(set(signs)) > 400
    assert len(set(fonts)) == len(substitutes._fonts()) >= 8
    assert set(sizes) == set(range(*substitutes.FONT_SIZES)) and set(fills) == {255} and set(anchors) == {"mm"}
    assert np.ptp(places, axis=0).min() > 5 and np.abs(np.array(places) - 14).max() <= 3


def test_every_font_has_every_sign():
    """Otherwise the same empty box would stand for many of them."""
    from fontTools.ttLib import TTFont  # Matplotlib needs it

    for path in substitutes._fonts():
        known = TTFont(path).getBestCmap()
        assert not [sign for sign in substitutes.GLYPHS if ord(sign) not in known], path.name


def test_glyphs_are_white_on_black():
    images = glyphs(200)
    assert (images.amax(dim=(1, 2, 3)) > 100).all()
    assert (images == 0).float().mean() > 0.5
    assert (images.float().mean(dim=(1, 2, 3)) > 0).all()


def test_where_the_fonts_are_not_there_it_is_said_how_to_get_them(forgotten, monkeypatch, tmp_path):
    class Spec:
        origin = str(tmp_path / "__init__.py")

    for found in (None, Spec()):
        monkeypatch.setattr(substitutes, "find_spec", lambda name, found=found: found)
        with pytest.raises(FileNotFoundError, match="glyphs need the DejaVu fonts .* install matplotlib"):
            glyphs(3)


# ------------------------------------------------------------------ photographs


def test_patches_are_of_the_two_photographs_of_scikit_learn(forgotten):
    whole = substitutes._photographs()
    assert len(whole) == 2 and {image.mode for image in whole} == {"L"}
    assert len({image.tobytes() for image in whole}) == 2


def test_patches_have_many_sides_and_places_and_half_are_mirrored(monkeypatch):
    # Grey values that say where a patch was: from left to right, one step a pixel.
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (240, 1)))
    monkeypatch.setattr(substitutes, "_photographs", lambda: (ramp,))
    images = photographs(400, seed=2)[:, 0].int()
    assert (images == images[:, :1]).all(), "a patch is turned"
    across = images[:, 0].diff(dim=1)
    rising, falling = (across >= 0).all(dim=1), (across <= 0).all(dim=1)
    assert (rising ^ falling).all() and 150 < int(rising.sum()) < 250
    sides = (images[:, 0, -1] - images[:, 0, 0]).abs() * 28 / 27
    first, last = substitutes.PATCHES
    assert first - 3 < sides.min() < first + 15 and last - 15 < sides.max() < last + 3
    assert images[:, 0, 14].unique().numel() > 60
