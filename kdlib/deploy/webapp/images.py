"""Pictures from strangers: decoded within limits of time and memory, and brought into the form a model takes.

A picture is judged by its header before anything is decoded: its format, its width times its height. One that is
larger than its model needs is shrunk as early as its format allows. Cutting to the aspect of the input comes before
resizing: scaling the shorter side of a 1x4000 picture to 256 first would make a million rows of it.
"""

import io
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float32

# Pillow knows a format once its plugin is imported; asking it to find the plugin would import all forty.
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from kdlib.deploy.description import Description

_PLUGINS = (PngImagePlugin, JpegImagePlugin, WebPImagePlugin, BmpImagePlugin, GifImagePlugin)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 16_000_000
SMALL_PIXELS = 1_000_000  # up to here pictures are decoded side by side, larger ones one after the other
MAX_SCANS = 100  # a progressive JPEG has about ten; each one more costs a pass over the whole picture
QUEUE = 4  # how many large pictures may wait or be decoded at a time
STRIP_PIXELS = 500_000  # made plain at a time

# How to turn a picture upright, by the orientation that EXIF gives it.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_one_large_picture = threading.Lock()
_queue_of_large_pictures = threading.BoundedSemaphore(QUEUE)


class Refused(Exception):
    """A picture that is not classified: the HTTP status that says so, and the reason in one sentence."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def decode(content: bytes, models: Sequence[Description]) -> Image.Image:
    """The picture in a PNG, JPEG, WebP, BMP or GIF file: upright, 8 bits a channel, mode "L" or "RGB".

    Of an animation it is the first frame; what is transparent becomes white. It may be smaller than the picture in
    the file, but is at least twice as large as each model's input where that picture is.

    Args:
        content: the file.
        models: what is going to see the picture; they say how small it may become.

    Raises:
        Refused: 415 another format; 413 too many pixels; 422 damaged; 429 too many large pictures at this moment.
    """
    needed = 2 * max(max(model.height, model.width) for model in models)
    aspect = max(max(model.height, model.width) / min(model.height, model.width) for model in models)
    with _pillow_errors():
        picture = _opened(content)
        pixels = picture.width * picture.height
        if pixels > MAX_PIXELS:
            size = f"{picture.width} x {picture.height} pixels"
            raise Refused(413, f"the picture has {size}; at most {MAX_PIXELS / 1e6:.0f} million are taken")
        if picture.format in ("JPEG", "MPO"):
            if content.count(b"\xff\xda") > MAX_SCANS:
                raise Refused(422, f"this JPEG is drawn in more than {MAX_SCANS} passes")
            picture.draft(None, (needed, needed))  # its decoder can leave out detail, in steps of two
        with _turn(pixels):
            picture.load()
            turn = _TURNS.get(_orientation(picture))
            picture = _shrunk(_cut(picture, aspect), needed)
            return picture if turn is None else picture.transpose(turn)


def model_input(
    picture: Image.Image, description: Description, *, invert: bool = False
) -> tuple[Image.Image, Float32[np.ndarray, "1 channels height width"]]:
    """The picture as the model sees it, and the numbers that enter the network.

    The middle of the picture, cut to the aspect of the input and resized with an antialiasing bilinear filter;
    a picture that has the size of the input already is left as it is.

    Args:
        picture: as `decode` returns it.
        description: of the model.
        invert: make bright dark first, and dark bright.
    """
    size = (description.width, description.height)
    seen = ImageOps.fit(picture, size, Image.Resampling.BILINEAR).convert(
        "L" if description.channels == 1 else "RGB"
    )
    if invert:
        seen = ImageOps.invert(seen)
    low, high = description.value_range
    pixels = np.asarray(seen, np.float32).reshape(*reversed(size), description.channels).transpose(2, 0, 1)
    mean, std = (
        np.array(values, np.float32)[:, None, None] for values in (description.mean, description.std)
    )
    return seen, ((low + (high - low) * (pixels / 255) - mean) / std)[None].astype(np.float32)


@contextmanager
def _pillow_errors() -> Iterator[None]:
    try:
        yield
    except Refused:
        raise
    except Image.DecompressionBombError as error:
        raise Refused(
            413, f"the picture has too many pixels; at most {MAX_PIXELS / 1e6:.0f} million are taken"
        ) from error
    except Exception as error:
        # On a damaged file its decoders raise whatever the damage leads to: OSError, SyntaxError, struct.error,
        # IndexError, MemoryError, ... None of them is the server's fault.
        raise Refused(
            422, f"the picture is damaged or incomplete ({type(error).__name__}: {error})"
        ) from error


def _opened(content: bytes) -> Image.Image:
    """The file, of which only the header has been read."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise Refused(
            415, f"this is no picture of a known format, or its header is damaged; known are {known}"
        ) from error


@contextmanager
def _turn(pixels: int) -> Iterator[None]:
    """Let small pictures pass, and large ones one at a time, so that they leave a core and threads to the rest."""
    if pixels <= SMALL_PIXELS:
        yield
        return
    if not _queue_of_large_pictures.acquire(blocking=False):
        raise Refused(
            429, "too many large pictures at this moment; try again in a second, or send a smaller one"
        )
    try:
        with _one_large_picture:
            yield
    finally:
        _queue_of_large_pictures.release()


def _orientation(picture: Image.Image) -> int:
    """The camera's note in the file (EXIF) on how it was held."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged note raises whatever the damage leads to, and the picture may be sound
        return 1


def _cut(picture: Image.Image, aspect: float) -> Image.Image:
    """Without most of what no model sees of a very long picture; `model_input` cuts the rest."""
    longest = math.ceil(2 * aspect * min(picture.size))
    width, height = (min(side, longest) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _shrunk(picture: Image.Image, needed: int) -> Image.Image:
    """Made plain, and blocks of pixels averaged while they are more than needed.

    Strip by strip: made plain as a whole, a picture of 16 million pixels would take a quarter of a gigabyte.
    """
    factor = max(1, min(picture.size) // needed)
    rows = factor * max(1, STRIP_PIXELS // (factor * picture.width))
    strips = []
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        strips.append(_plain(strip).reduce(factor))
    whole = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
    for number, strip in enumerate(strips):
        whole.paste(strip, (0, number * rows // factor))
    return whole


def _plain(picture: Image.Image) -> Image.Image:
    """8 bits a channel, no palette, nothing transparent: mode "L" or "RGB"."""
    if picture.mode.startswith(
        "I"
    ):  # 16 bits a pixel, of which convert("L") would clip all but the darkest to white
        return Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if picture.mode == "1":
        return picture.convert("L")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
