"""Exercises of lesson 11: photographs that are nearly the same, and a square out of the middle.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import itertools

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import Complaint, is_unfinished

# ------------------------------------------------------------------ near_duplicates: what is compared

NO_PAIRS = "a list of pairs of whole numbers is asked for, such as [(0, 3), (2, 5)]"
OUTSIDE = "a pair names an image that is not there"
ITSELF = "a pair names one image twice"
DOUBLE = "a pair stands there twice, or both ways round"
LATER_FIRST = "in each pair the smaller number comes first"


def _shuffled_greys(seed):
    """(8, 9) greys, no two of them alike, so that a comparison has one answer whichever way it is written."""
    random = torch.Generator().manual_seed(seed)
    return (3 * torch.randperm(72, generator=random) + 10).view(8, 9)


def _saved_again(image, swaps, seed):
    """The image with some neighbours exchanged, which turns a bit each and sometimes those beside it."""
    image, random = image.clone(), torch.Generator().manual_seed(seed)
    for _ in range(swaps):
        row, column = (int(torch.randint(most, (), generator=random)) for most in (8, 8))
        image[row, [column, column + 1]] = image[row, [column + 1, column]]
    return image


def _some_images(seed, number):
    others = [_shuffled_greys(seed + place) for place in range(number)]
    again = [_saved_again(others[place % number], swaps, seed) for place, swaps in enumerate((0, 1, 2, 4))]
    again[0] += 2  # a little brighter, with the same bits
    images = torch.stack(
        [image for pair in itertools.zip_longest(others, again) for image in pair if image is not None]
    )
    return images.to(torch.uint8)


def _bits(images):
    return (images[:, :, 1:] > images[:, :, :-1]).flatten(1)


def _collections():
    """Some bits that may differ: exactly as many as two images differ in, so that the border counts."""
    images = _some_images(3, 5)
    bits = _bits(images)
    border = int((bits[2] != bits[3]).sum())
    return [(images, border), (images, border - 1), (_some_images(40, 3), 0), (_some_images(80, 4), 64)]


def _pairs(function, small, most):
    """Probe: the pairs in order; it complains of what is none."""
    found = function(small, most)
    if found is None or found is ...:
        return None
    pairs = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(pairs, list | tuple | set):
        raise Complaint(NO_PAIRS)
    pairs = [_pair(pair) for pair in pairs]
    if not all(0 <= number < len(small) for pair in pairs for number in pair):
        raise Complaint(OUTSIDE)
    if any(one == other for one, other in pairs):
        raise Complaint(ITSELF)
    if len({frozenset(pair) for pair in pairs}) < len(pairs):
        raise Complaint(DOUBLE)
    if any(one > other for one, other in pairs):
        raise Complaint(LATER_FIRST)
    return {"number of pairs": len(pairs), "list of pairs": torch.tensor(sorted(pairs), dtype=torch.int64)}


def _pair(pair):
    try:
        one, other = pair
        numbers = int(one), int(other)
        whole = numbers == (one, other)
    except (TypeError, ValueError):
        raise Complaint(NO_PAIRS) from None
    if not whole:
        raise Complaint(NO_PAIRS)
    return numbers


# ------------------------------------------------------------------ near_duplicates: mistakes


def _finder(*, bits=_bits, near=lambda differ, most: differ <= most, pairs=itertools.combinations):
    """The solution, but for the bits, for what is near, or for which pairs are looked at."""

    def find(small, most):
        hashes = bits(small)
        numbers = range(len(small))
        every = pairs(numbers, 2)
        return [(i, j) for i, j in every if near(int((hashes[i] != hashes[j]).sum()), most)]

    return find


def _by_difference(small, most):
    greys = small.flatten(1).int()
    return [
        (i, j)
        for i, j in itertools.combinations(range(len(small)), 2)
        if (greys[i] - greys[j]).abs().max() <= most
    ]


@exercise(
    cases=_collections,
    probe=_pairs,
    hints=[
        """A photograph that is saved again keeps its light and its shade: what is brighter than its left neighbour
        mostly stays so. So 72 greys become 64 answers to one question, and two images are compared by these.""",
        """`bits = small[:, :, 1:] > small[:, :, :-1]` compares every grey with the one to its left, in all images at
        once. How many bits of two images differ is a sum over `bits[i] != bits[j]`.""",
        """`itertools.combinations(range(len(small)), 2)` gives every pair once, the smaller number first. Keep those
        with `(bits[i] != bits[j]).sum() <= most`.""",
    ],
    mistakes={
        "only images that differ in fewer bits than `most` are found; `most` of them are allowed":
            _finder(near=lambda differ, most: differ < most),
        "only images with the same bits are found; `most` of them may differ":
            _finder(near=lambda differ, most: differ == 0),
        "images are found that differ in more bits than `most`":
            _finder(near=lambda differ, most: differ >= most),
        "every grey is compared with the one above it; asked for is the one to its left":
            _finder(bits=lambda small: (small[:, 1:] > small[:, :-1]).flatten(1)),
        "every grey is compared with the mean of its image, which is another hash; asked for is the one to its left":
            _finder(bits=lambda small: (small > small.float().mean((1, 2), keepdim=True)).flatten(1)),
        "the first grey of a row is compared with the last one of the row above":
            _finder(bits=lambda small: small.flatten(1)[:, 1:] > small.flatten(1)[:, :-1]),
        "differences of uint8 are never below 0, they begin again at 255: compare the greys, or make integers of them":
            _finder(bits=lambda small: (small[:, :, 1:] - small[:, :, :-1] > 0).flatten(1)),
        "only images that stand side by side are compared":
            _finder(pairs=lambda numbers, _: itertools.pairwise(numbers)),
        "the greys themselves are compared, which an image saved again, or a little brighter, does not keep":
            _by_difference,
        ITSELF: _finder(pairs=itertools.combinations_with_replacement),
        DOUBLE: _finder(pairs=itertools.permutations),
        LATER_FIRST: _finder(pairs=lambda numbers, _: [(j, i) for i, j in itertools.combinations(numbers, 2)]),
        OUTSIDE: lambda small, most: [(i + 1, j + 1) for i, j in _finder()(small, most)],
        NO_PAIRS: lambda small, most: sorted({i for pair in _finder()(small, most) for i in pair}),
    },
)  # fmt: skip
def near_duplicates(small, most):
    """Which images are nearly the same? A bit of an image says whether a grey is brighter than the one to its left; two
    images are near duplicates where at most `most` of their bits differ.

    small: uint8 (images, 8, 9), each image made grey and scaled to 8 rows of 9; so it has 8 x 8 bits.
    Returns a list of pairs (i, j) of numbers of images, i < j, each pair once, in any order.
    """
    # --- your code
    bits = (small[:, :, 1:] > small[:, :, :-1]).flatten(1)
    pairs = itertools.combinations(range(len(small)), 2)
    return [(i, j) for i, j in pairs if (bits[i] != bits[j]).sum() <= most]
    # --- end


# ------------------------------------------------------------------ centre_square: what is compared

NOT_SQUARE = "what comes back is not (channels, size, size)"
NOT_IMAGE = "a tensor is asked for"
FRACTIONS = "the numbers go from 0 to 1; asked for are those of the photograph, from 0 to 255"


def _photographs():
    """(what it is, image, size): wide, high, square, one that is to become larger, and one of a single channel."""
    sizes = [(60, 100, 32), (96, 48, 24), (40, 40, 24), (20, 33, 30)]
    return [(_ruled(height, width), size) for height, width, size in sizes] + [(_ruled(36, 80)[:1], 18)]


def _ruled(height, width):
    """Twice its column in the first channel, twice its row in the second, and one grey in the third."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (2 * torch.stack([columns, rows, torch.full_like(rows, 50)])).to(torch.uint8)


def _where_from(function, image, size):
    """Probe: from which columns and rows of the photograph the square comes, as the pixels themselves say it."""
    square = function(image, size)
    if is_unfinished(square):
        return square
    if not isinstance(square, torch.Tensor):
        raise Complaint(NOT_IMAGE)
    if square.shape != (len(image), size, size):
        raise Complaint(NOT_SQUARE)
    square = square.double()
    if square.max() <= 1:
        raise Complaint(FRACTIONS)
    inner = slice(1, -1)  # at the edges some ways to scale look beyond them
    across = square[0, inner, inner].mean(0) / 2
    seen = _line("column", across)
    if len(square) > 1:
        seen |= _line("row", square[1, inner, inner].mean(1) / 2)
        seen["grey of the third channel"] = square[2, inner, inner].mean()
    return seen


def _line(name, places):
    steps = torch.arange(len(places), dtype=torch.float64)
    steps -= steps.mean()
    slope = float((steps * (places - places.mean())).sum() / steps.square().sum())
    return {
        f"{name} of the photograph in the middle": 10 + float(places.mean()),
        f"step from {name} to {name}": slope,
    }


# ------------------------------------------------------------------ centre_square: mistakes


def _scaled(image, height, width):
    return F.interpolate(image[None].float(), (height, width), mode="bilinear", antialias=True)[0]


def _square(*, by=min, corner=False, top_only=False):
    """The solution, but for the side that decides the scale, or for where the square is cut out."""

    def cut(image, size):
        height, width = image.shape[1:]
        scale = size / by(height, width)
        pixels = _scaled(image, round(scale * height), round(scale * width))
        top, left = ((side - size) // 2 for side in pixels.shape[1:])
        top, left = (0 if corner else max(top, 0)), (0 if corner or top_only else max(left, 0))
        return pixels[:, top : top + size, left : left + size]

    return cut


def _padded(image, size):
    """The whole photograph in the middle of a black square."""
    height, width = image.shape[1:]
    scale = size / max(height, width)
    pixels = _scaled(image, max(1, round(scale * height)), max(1, round(scale * width)))
    square = torch.zeros(len(image), size, size)
    top, left = ((size - side) // 2 for side in pixels.shape[1:])
    square[:, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels
    return square


def _cut_alone(image, size):
    height, width = image.shape[1:]
    top, left = (max(0, (side - size) // 2) for side in (height, width))
    pixels = image[:, top : top + size, left : left + size]
    return F.pad(pixels, (0, size - pixels.shape[2], 0, size - pixels.shape[1])).float()


@exercise(
    cases=_photographs,
    probe=_where_from,
    tolerance=0.04,
    hints=[
        """Two steps: first all of the photograph becomes smaller (or larger), by one factor for both sides, so that
        nothing is squashed; then what is too much is cut away, as much on one side as on the other.""",
        """The factor is size / (the shorter side). `F.interpolate(image[None].float(), (height, width),
        mode="bilinear", antialias=True)[0]` scales; without antialias it would skip pixels.""",
        """With `height, width` as they are after scaling, `top = (height - size) // 2`, `left = (width - size) // 2`,
        and the square is `pixels[:, top : top + size, left : left + size]`.""",
    ],
    mistakes={
        "both sides are scaled to `size`, so that the photograph is squashed; one factor is for both":
            lambda image, size: _scaled(image, size, size),
        "the longer side is scaled to `size` and the rest is filled; the shorter side is to be `size`":
            _padded,
        "a square is cut out, and nothing is scaled":
            _cut_alone,
        "the square is cut out at the upper left corner; asked for is the middle":
            _square(corner=True),
        "the square is cut out in the middle of one side only":
            _square(top_only=True),
        "rows and columns are exchanged":
            lambda image, size: _square()(image, size).transpose(1, 2),
        NOT_SQUARE: lambda image, size: _square()(image, size)[None],
        NOT_IMAGE: lambda image, size: _square()(image, size).numpy(),
        FRACTIONS: lambda image, size: _square()(image, size) / 255,
    },
)  # fmt: skip
def centre_square(image, size):
    """A square out of a photograph of any size: scaled so that its shorter side is `size`, with the same factor for
    both sides, and then cut to the middle of the longer one.

    image: uint8 (channels, height, width). Returns numbers from 0 to 255, (channels, size, size), uint8 or float.
    """
    # --- your code
    shorter = min(image.shape[1:])
    height, width = (round(side * size / shorter) for side in image.shape[1:])
    pixels = F.interpolate(image[None].float(), (height, width), mode="bilinear", antialias=True)[0]
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[:, top : top + size, left : left + size]
    # --- end
