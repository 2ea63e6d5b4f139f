"""One image file as pixels of 8 bits, or a refusal that says what is wrong with it.

Transparent pixels become white, the rotation noted in EXIF is applied, and of 16 bits a pixel the upper eight
are kept. Where an `image_size` is asked for, the shorter side is scaled to it and the centre cut out. Files may come
from anybody: what is opened is one of a few formats whatever a name says (others would start programs), images of
more pixels than a camera has are refused before they are unpacked, and large ones are unpacked one at a time.
"""

import contextlib
import os
import stat
import threading
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

VERSION = 1  # of how a file becomes pixels: a change of it makes what was kept of files be looked at anew
_FORMATS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "HEIF"]
# Of the pixels that are unpacked; each takes up to four bytes, and some steps hold two or three copies. Pillow itself
# refuses files that announce more than 179 million, also where a JPEG file would be unpacked at a fraction.
_MOST_PIXELS = 100_000_000
_MANY_PIXELS = 2**24
# Photographs of two lenses, or with a map of brightness behind them: the first is the photograph.
_SEVERAL_BUT_ONE_MEANT = {"MPO"}
# Of a strip longer than this many times its width the middle is scaled: a picture of 1 x 4000 pixels would otherwise
# become one of a gigabyte on its way.
_LONGEST = 8
# JPEG files are decoded at a half, a quarter or an eighth where that leaves this many times the pixels wanted.
_SPARE = 3
# By the number that EXIF has for how the camera was held.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


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


def read(path: str | Path, image_size: int | None = None) -> Pixels:
    """Read an image file.

    Args:
        path: the file.
        image_size: height and width wanted: the shorter side is scaled to it (bilinear with antialiasing) and the
            centre cut out, with the roundings of torchvision's `Resize` and `CenterCrop`. Large JPEG files are
            decoded at a fraction of their size first, which changes a pixel by a grey level or two (along an edge
            between strong colours by more). None leaves the size as it is.

    Raises:
        ValueError: it cannot be read, has several pages or frames, or pixels without a clear scale.
    """
    _refuse_what_is_no_file(path)
    Image.init()  # HEIF is known where its package was made known to Pillow, AVIF to newer versions
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with _READERS, Image.open(path, formats=formats) as image:
            return _pixels(image, image_size)
    except PermissionError as error:
        raise ValueError(_not_allowed(path, error)) from error
    except Exception as error:  # a damaged file may make a decoder stumble over anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"cannot read the image {path} ({reason}): replace or delete it") from error


def _refuse_what_is_no_file(path: str | Path) -> None:
    """To open a named pipe would wait forever."""
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError as error:
        raise ValueError(_not_allowed(path, error)) from error
    except OSError as error:
        if os.path.islink(path):
            raise ValueError(f"the link {path} leads nowhere: mend or delete it") from error
        raise ValueError(f"cannot read the image {path} ({error.strerror}): replace or delete it") from error
    if not is_file:
        raise ValueError(f"{path} has the name of an image but is no file: delete it")


def _not_allowed(path: str | Path, error: OSError) -> str:
    return f"cannot read the image {path} ({error.strerror}): allow this user to read it"


class _Readers:
    """The threads that read images at this moment. While there are any, Pillow warns of nothing.

    A file is read, or refused with a reason; odd metadata would otherwise be no matter where warnings are shown, and
    refuse the image where they are errors.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """There are none: in a process that was just forked only the thread that forked it goes on."""
        self._lock, self._number, self._caught = threading.Lock(), 0, warnings.catch_warnings()
        self.one_with_a_large_image = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if not self._number:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")
            self._number += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._number -= 1
            if not self._number:
                self._caught.__exit__(*error)


_READERS = _Readers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_READERS.forget)


class _Scaling(NamedTuple):
    """What becomes of the size of an image.

    Args:
        size: as `image_size` of `read`.
        width, height: in the file.
        fraction: of them that a JPEG file is decoded at. The last row and column then stand for less than a whole one.
    """

    size: int | None
    width: int
    height: int
    fraction: float

    def apply(self, image: Image.Image) -> Image.Image:
        """The shorter side is scaled to the size; of a long strip the middle is scaled."""
        if self.size is None or (self.width, self.height) == (self.size, self.size):
            return image
        shorter = min(self.width, self.height)
        width, height = (min(length, _LONGEST * shorter) for length in (self.width, self.height))
        left, top = (self.width - width) // 2, (self.height - height) // 2
        box = tuple(self.fraction * edge for edge in (left, top, left + width, top + height))
        wanted = (
            self.size * width // shorter,
            self.size * height // shorter,
        )  # rounded down, as torchvision does
        return image.resize(wanted, Image.Resampling.BILINEAR, box)

    def cut(self, image: Image.Image) -> Image.Image:
        """The centre of what was scaled; its margins are rounded to the nearest, as torchvision's are."""
        if self.size is None:
            return image
        left, top = round((image.width - self.size) / 2), round((image.height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))


def _pixels(image: Image.Image, image_size: int | None) -> Pixels:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _SEVERAL_BUT_ONE_MEANT:
        raise ValueError(f"it holds {frames} pages or frames, save the one that is meant, or each as a file")
    scaling = _Scaling(image_size, *image.size, 1.0)
    if image_size is not None:  # JPEG alone knows what to do with it
        drafted = image.draft(None, (_SPARE * image_size, _SPARE * image_size))
        if drafted is not None:
            scaling = scaling._replace(fraction=drafted[1][2] / scaling.width)
    number = image.width * image.height
    if not 0 < number <= _MOST_PIXELS:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, which must be from 1 to {_MOST_PIXELS:,}"
        )
    with _READERS.one_with_a_large_image if number > _MANY_PIXELS else contextlib.nullcontext():
        eight, brightest = _of_eight_bits(image)
        scaled = scaling.apply(eight)
    turn = _turn(image)  # a small image is turned faster than a large one
    turned = scaled if turn is None else scaled.transpose(turn)
    return Pixels(np.asarray(scaling.cut(turned)), brightest)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the image must be turned, by its EXIF; where that is damaged it stays as it lies."""
    with contextlib.suppress(Exception):
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return None


def _of_eight_bits(image: Image.Image) -> tuple[Image.Image, int | None]:
    """A grey or coloured image, and the brightest number of one of 16 bits."""
    # Pillow reads coloured images of 16 bits as their upper eight, and says so here only, before they are unpacked.
    raw_mode = str(image.tile[0].args) if image.tile else ""
    is_deep, is_grey = ";16" in raw_mode, image.mode in ("1", "L", "LA") or "LA;16" in raw_mode
    image.load()
    if image.mode.startswith("I"):
        return _upper_eight_bits(np.asarray(image))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, save them as whole numbers from 0 to 255")
    brightest = _brightest(image) * 257 if is_deep else None
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), _in_mode("RGBA", image))
    return _in_mode("L" if is_grey else "RGB", image), brightest


def _in_mode(mode: str, image: Image.Image) -> Image.Image:
    """Converted, and not copied where there is nothing to convert."""
    return image if image.mode == mode else image.convert(mode)


def _upper_eight_bits(numbers: np.ndarray) -> tuple[Image.Image, int]:
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(
            f"its pixels go from {lowest} to {highest}, but of 16 bits they go from 0 to 65535 "
            "and of 8 bits from 0 to 255"
        )
    if 0 < highest < 256:
        raise ValueError(f"its pixels have 16 bits but reach only {highest} of 65535, save them with 8 bits")
    return Image.fromarray((numbers >> 8).astype(np.uint8)), highest


def _brightest(image: Image.Image) -> int:
    """The largest number in the bands of colour, alpha left out."""
    return max(highest for _, highest in image.convert("RGB").getextrema())
