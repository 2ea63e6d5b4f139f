"""Images that lie about on every machine: they are not those of the task, and cost nothing."""

import functools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from kdlib import _checks, data
from kdlib._checks import checked, positive_integer
from kdlib.data import ImageSplit
from kdlib.tasks._checks import grey

Images = UInt8[Tensor, "n 1 size size"]

SIZE = 28
FONT_SIZES = (16, 34)  # of glyphs, in pixels: from, to
# Unicode ranges that the DejaVu fonts cover: ASCII signs, Latin, Greek, Cyrillic, filled and outlined shapes.
RANGES = ((0x21, 0x7F), (0xC0, 0x180), (0x391, 0x3A2), (0x3B1, 0x3CA), (0x410, 0x450), (0x25A0, 0x2600))
GLYPHS = "".join(chr(code) for first, last in RANGES for code in range(first, last))
PATCHES = (28, 224)  # sides of photographs' patches in pixels: from, to
_SHIFT = 3


@checked(n=positive_integer, seed=_checks.seed)
def noise(n: int, *, seed: int = 0) -> Images:
    """Every pixel drawn by itself, 0 to 255, all equally likely."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, SIZE, SIZE), generator=random, dtype=torch.uint8)


@checked(split=grey, seed=_checks.seed)
def shuffled_pixels(split: ImageSplit, *, seed: int = 0) -> Images:
    """The pixels of each image in an order of its own. This needs the images: it is a control for what they hold
    besides their grey values."""
    random = torch.Generator().manual_seed(seed)
    flat = split.images.flatten(1)
    order = torch.rand(flat.shape, generator=random).argsort(dim=1)
    return flat.gather(1, order).view_as(split.images)


@checked(n=positive_integer, seed=_checks.seed)
def digits(n: int, *, seed: int = 0) -> Images:
    """Handwritten digits of scikit-learn, 8x8 enlarged to 28x28, shifted by up to three pixels."""
    known = _digits()
    return _shifted(known[_choice(len(known), n, seed)], seed)


@checked(n=positive_integer, seed=_checks.seed)
def glyphs(n: int, *, seed: int = 0) -> Images:
    """Letters, digits and signs in the DejaVu fonts that Matplotlib ships, white on black, of many sizes.

    Raises:
        FileNotFoundError: there are no such fonts here.
    """
    random = np.random.default_rng(seed)
    return _stacked([_glyph(random) for _ in range(n)])


@checked(n=positive_integer, seed=_checks.seed)
def photographs(n: int, *, seed: int = 0) -> Images:
    """Square patches of the two photographs that scikit-learn ships, in grey, scaled to 28x28, mirrored or not."""
    random = np.random.default_rng(seed)
    return _stacked([_patch(random) for _ in range(n)])


def _choice(known: int, n: int, seed: int) -> Tensor:
    """Rows of what is known: each once before any is used twice."""
    random = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(known, generator=random) for _ in range(-(-n // known))]
    return torch.cat(rounds)[:n]


def _shifted(images: Images, seed: int) -> Images:
    # Another stream than that which chose the images.
    random = torch.Generator().manual_seed(seed + 1_000_003)
    padded = F.pad(images, [_SHIFT] * 4)
    down, right = torch.randint(0, 2 * _SHIFT + 1, (2, len(images)), generator=random)
    rows = down[:, None, None] + torch.arange(SIZE)[None, :, None]
    columns = right[:, None, None] + torch.arange(SIZE)[None, None, :]
    return padded[torch.arange(len(images))[:, None, None], 0, rows, columns][:, None]


@functools.cache
def _digits() -> Images:
    small = torch.cat([split.images for split in _splits()]).float()
    large = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return large.round().clamp(0, 255).to(torch.uint8)


def _splits() -> Sequence[ImageSplit]:
    dataset = data.load("digits")
    return dataset.train, dataset.validation, dataset.test


@functools.cache
def _fonts() -> tuple[Path, ...]:
    # Found, not imported: only its files are wanted.
    found = find_spec("matplotlib")
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" if found else None
    fonts = sorted(folder.glob("DejaVu*.ttf")) if folder else []
    if not fonts:
        raise FileNotFoundError("glyphs need the DejaVu fonts that Matplotlib ships: python -m pip install matplotlib")
    return tuple(font for font in fonts if "Display" not in font.name)  # these have a few signs only


@functools.cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _glyph(random: np.random.Generator) -> Image.Image:
    fonts = _fonts()
    font = _font(fonts[random.integers(len(fonts))], int(random.integers(*FONT_SIZES)))
    centre = SIZE / 2 + random.uniform(-_SHIFT, _SHIFT, 2)
    image = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).text(tuple(centre), GLYPHS[random.integers(len(GLYPHS))], fill=255, font=font, anchor="mm")
    return image


@functools.cache
def _photographs() -> tuple[Image.Image, ...]:
    from sklearn.datasets import load_sample_images

    return tuple(Image.fromarray(image).convert("L") for image in load_sample_images().images)


def _patch(random: np.random.Generator) -> Image.Image:
    photographs = _photographs()
    whole = photographs[random.integers(len(photographs))]
    side = int(random.integers(*PATCHES))
    left, upper = random.integers(0, whole.width - side + 1), random.integers(0, whole.height - side + 1)
    patch = whole.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, upper, left + side, upper + side))
    return patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else patch


def _stacked(images: Sequence[Image.Image]) -> Images:
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))[:, None]
