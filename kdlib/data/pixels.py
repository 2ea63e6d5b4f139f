"""One image file as pixels of 8 bits, or a refusal that says what is wrong with it.

Transparent pixels become white, the rotation noted in EXIF is applied, and of 16 bits a pixel the upper eight
are kept.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

# Photographs of two lenses, or with a map of brightness behind them: the first is the photograph.
_SEVERAL_BUT_ONE_MEANT = {"MPO"}


class Pixels(NamedTuple):
    """Grey or coloured pixels.

    Args:
        values: (height, width) where the image is grey, or else (height, width, 3).
        brightest: the largest number of an image of 16 bits a pixel; None for one of 8 bits.
    """

    values: UInt8[np.ndarray, "height width"] | UInt8[np.ndarray, "height width 3"]
    brightest: int | None

    @property
    def is_grey(self) -> bool:
        return self.values.ndim == 2


def read(path: Path) -> Pixels:
    """Read an image file.

    Raises:
        ValueError: it cannot be read, has several pages or frames, or pixels without a clear scale.
    """
    try:
        with Image.open(path) as image:
            return _pixels(image)
    except PermissionError as error:
        raise ValueError(
            f"cannot read the image {path} ({error.strerror}): allow this user to read it"
        ) from error
    except Exception as error:  # a damaged file may make a decoder stumble over anything
        raise ValueError(f"cannot read the image {path} ({error}): replace or delete it") from error


def _pixels(image: Image.Image) -> Pixels:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _SEVERAL_BUT_ONE_MEANT:
        raise ValueError(f"it holds {frames} pages or frames, save the one that is meant, or each as a file")
    # Pillow reads coloured images of 16 bits as their upper eight, and says so here only.
    raw_mode = str(image.tile[0].args) if image.tile else ""
    is_deep, is_grey = ";16" in raw_mode, image.mode in ("1", "L", "LA") or "LA;16" in raw_mode
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return _upper_eight_bits(np.asarray(image))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, save them as whole numbers from 0 to 255")
    brightest = _brightest(image) * 257 if is_deep else None
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return Pixels(np.asarray(image.convert("L" if is_grey else "RGB")), brightest)


def _upper_eight_bits(numbers: np.ndarray) -> Pixels:
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(
            f"its pixels go from {lowest} to {highest}, but of 16 bits they go from 0 to 65535 "
            "and of 8 bits from 0 to 255"
        )
    if 0 < highest < 256:
        raise ValueError(f"its pixels have 16 bits but reach only {highest} of 65535, save them with 8 bits")
    return Pixels((numbers >> 8).astype(np.uint8), highest)


def _brightest(image: Image.Image) -> int:
    """The largest number in the bands of colour, alpha left out."""
    return max(highest for _, highest in image.convert("RGB").getextrema())
