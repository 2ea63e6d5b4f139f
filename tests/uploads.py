"""Pictures to upload, and what to expect of an answer, for the tests of the web application."""

import io

import numpy as np
from PIL import Image


def file_of(picture: Image.Image, kind: str = "png", **options) -> bytes:
    """The picture as a file of this kind."""
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture of random pixels; always the same."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels if bands > 1 else pixels[..., 0])


def gradient(width: int, height: int) -> Image.Image:
    """Dark to bright from left to right in red, from top to bottom in green."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 80)], -1).astype(np.uint8))


def send(client, content: bytes, query: str = ""):
    """The answer to an upload."""
    return client.post(f"/predict{query}", data={"image": (io.BytesIO(content), "picture")})


def assert_refused(response, status: int, *words: str) -> None:
    """The answer is this status and a reason in JSON that holds these words."""
    assert response.status_code == status and response.mimetype == "application/json", response.data
    assert set(response.json) == {"error"}
    assert all(word in response.json["error"] for word in words), response.json
