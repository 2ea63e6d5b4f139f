"""Pictures of a page, in as few bytes as show the same pixels."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter

# How far around what changes a frame is kept: a browser that scales a frame mixes neighbouring pixels.
_MARGIN = 6
# Of how many frames the ground is the median: enough to leave out what moves.
_ASKED = 9


def smaller(png: bytes) -> bytes:
    """The picture as lossless WebP, or as it is where that is no larger.

    Raises:
        PIL.UnidentifiedImageError: it is no picture.
    """
    picture = Image.open(io.BytesIO(png))
    webp = _webp(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))
    return min(png, webp, key=len)


def address(picture: bytes) -> str:
    """A picture as the address that an <img> of a page holds."""
    kind = "webp" if picture[8:12] == b"WEBP" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def frames_on_ground(pngs: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Frames of one size as a picture of what most of them show, and what of each frame is to be laid over it.

    Equal frames stay equal. Laid over the ground, also where both are scaled, a frame has the pixels that it had.
    """
    stack = np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in pngs])
    few = np.linspace(0, len(stack) - 1, min(len(stack), _ASKED)).astype(int)
    ground = np.median(stack[few], axis=0).astype(np.uint8)
    patches = {}
    for png, frame in zip(pngs, stack, strict=True):
        if png not in patches:
            patches[png] = _webp(_patch(frame, ground))
    return _webp(Image.fromarray(ground)), [patches[png] for png in pngs]


def _patch(frame: np.ndarray, ground: np.ndarray) -> Image.Image:
    """The frame, transparent where the ground is the same."""
    changed = (frame != ground).any(axis=2).astype(np.uint8)
    kept = maximum_filter(changed, size=2 * _MARGIN + 1)
    return Image.fromarray(np.dstack([frame * kept[..., None], 255 * kept]))


def _webp(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="webp", lossless=True, method=4)
    return file.getvalue()
