"""From a file to the input of a model: every kind of picture, and the hostile ones."""

import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image
from uploads import assert_refused, file_of, gradient, noise, send

from kdlib.deploy.description import Description
from kdlib.deploy.webapp import app as webapp
from kdlib.deploy.webapp import images
from kdlib.deploy.webapp.classifier import load

COLOUR = Description("colour", ("a", "b"), 3, 32, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
GREY = Description("grey", ("a", "b"), 1, 28, 28, (0.25,), (0.5,))
WIDE = Description("wide", ("a", "b"), 3, 20, 60, (0.5,) * 3, (0.5,) * 3, (-1.0, 1.0))


@pytest.fixture(scope="module")
def client(exported):
    return webapp.create_app(load(exported[:1])).test_client()


def seen_by(description: Description, content: bytes) -> np.ndarray:
    seen, _ = images.model_input(images.decode(content, [description]), description)
    return np.asarray(seen).astype(float)


def test_numbers_follow_the_formula_of_the_description():
    for description in (COLOUR, GREY, WIDE):
        picture = noise(description.width, description.height, "L" if description.channels == 1 else "RGB")
        _, numbers = images.model_input(picture, description)
        shape = (description.height, description.width, description.channels)
        pixels, (low, high) = np.asarray(picture, float).reshape(shape), description.value_range
        expected = (low + (high - low) * pixels / 255 - np.array(description.mean)) / np.array(
            description.std
        )
        assert numbers.dtype == np.float32, description.name
        np.testing.assert_allclose(
            numbers, expected.transpose(2, 0, 1)[None], atol=1e-6, err_msg=description.name
        )


def test_every_format_and_size_shows_the_same_middle():
    for size in ((90, 60), (3000, 2000)):
        picture = gradient(*size)
        middle = picture.crop((size[0] // 6, 0, size[0] - size[0] // 6, size[1]))
        expected = np.asarray(middle.resize((32, 32)))
        for kind in ("png", "jpeg", "webp", "bmp", "gif"):
            found = seen_by(COLOUR, file_of(picture, kind))
            assert np.abs(found - expected).mean() < 6, (kind, size)


MODES = {
    "1": lambda picture: picture.convert("1"),
    "L": lambda picture: picture.convert("L"),
    "palette": lambda picture: picture.quantize(200),
    "LA": lambda picture: picture.convert("LA"),
    "RGBA": lambda picture: picture.convert("RGBA"),
}


def test_every_mode_of_png_shows_the_same_brightness():
    for size in ((64, 64), (1200, 1200)):
        picture = gradient(*size)
        expected = np.asarray(picture.convert("L").resize((28, 28)), float)
        for mode, convert in MODES.items():
            found = seen_by(GREY, file_of(convert(picture)))
            assert np.abs(found.mean() - expected.mean()) < 6, (mode, size)
            assert np.corrcoef(found.flat, expected.flat)[0, 1] > 0.95, (mode, size)


def test_sixteen_bits_keep_their_greys():
    for size in (28, 1200):
        deep = np.linspace(0, 65535, size * size).reshape(size, size).astype(np.uint16)
        shallow = Image.fromarray((deep >> 8).astype(np.uint8))
        expected = np.asarray(shallow.resize((28, 28), Image.Resampling.BOX), float)
        found = seen_by(GREY, file_of(Image.fromarray(deep)))
        assert np.abs(found - expected).max() <= 8 and found.max() - found.min() > 200, size


def test_print_colours_become_screen_colours():
    assert (
        np.abs(
            seen_by(COLOUR, file_of(gradient(64, 64).convert("CMYK"), "jpeg")).mean(axis=(0, 1))
            - [128, 128, 80]
        ).max()
        < 12
    )


def test_what_is_transparent_becomes_white():
    for size in (64, 1200):
        picture = gradient(size, size).convert("RGBA")
        picture.paste((0, 0, 0, 0), (0, 0, size, size // 2))
        top, bottom = np.split(seen_by(COLOUR, file_of(picture)), 2)
        assert top[:15].min() == 255 and bottom[1:, :, 2].max() < 90, size
        palette = noise(size, size, "L").quantize(8)
        assert seen_by(GREY, file_of(palette, transparency=bytes(8))).min() == 255, size


def test_a_picture_held_otherwise_is_turned_upright():
    upright, exif = gradient(80, 60), Image.Exif()
    expected = seen_by(WIDE, file_of(upright))
    # The transposition by which the camera's view differs, of each of the eight orientations.
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    for orientation, change in undo.items():
        stored = upright if change is None else upright.transpose(Image.Transpose(change))
        exif[0x0112] = orientation
        for kind in ("jpeg", "png", "webp"):
            found = seen_by(WIDE, file_of(stored, kind, exif=exif))
            assert np.abs(found - expected).mean() < 4, (orientation, kind)


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "lime")]
    for kind in ("gif", "webp", "png"):
        content = file_of(
            frames[0],
            kind,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if kind == "webp" else {}),
        )
        assert np.abs(seen_by(COLOUR, content) - [255, 0, 0]).max() <= 3, kind


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of that many pixels, and none of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_a_very_long_picture_is_cut_before_it_is_resized(client, monkeypatch):
    areas = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *more, **options: areas.append(size) or resize(self, size, *more, **options),
    )
    for size in ((1, 4000), (4000, 1), (1, 1), (1, 1_000_000), (65_000, 2)):
        areas.clear()
        assert send(client, file_of(Image.new("RGB", size))).status_code == 200, size
        assert areas and max(width * height for width, height in areas) <= 28 * 28, size


def test_too_many_pixels_are_refused_by_the_header_alone(client, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    for size in ((4001, 4000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)):
        assert_refused(send(client, png_header(*size)), 413, "pixels", "16 million")


def test_a_jpeg_in_a_thousand_passes_is_refused_undecoded(client, monkeypatch):
    content = file_of(noise(64, 64), "jpeg", progressive=True)
    start = content.rindex(b"\xff\xda")
    many = content[:start] + content[start:-2] * 1000 + content[-2:]
    assert_refused(send(client, many), 422, "passes")
    assert send(client, content).status_code == 200


DAMAGED = {
    "truncated png": (file_of(noise(64, 64))[:-4000], 422),
    "truncated jpeg": (file_of(noise(64, 64), "jpeg")[:-1500], 422),
    "truncated gif": (file_of(noise(64, 64), "gif")[:-3000], 422),
    "header of a png": (png_header(64, 64), 422),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect/></svg>", 415),
    "tiff": (file_of(noise(64, 64), "tiff"), 415),
    "ico": (file_of(noise(64, 64), "ico"), 415),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "text": (b"hello", 415),
    "zeros": (bytes(1000), 415),
    "pdf": (b"%PDF-1.7\n", 415),
}  # fmt: skip


def test_what_is_no_sound_picture_is_refused(client):
    for name, (content, status) in DAMAGED.items():
        refused = send(client, content)
        assert refused.status_code == status, name
        assert_refused(refused, status)


def test_of_many_large_pictures_at_once_some_are_told_to_come_again(client):
    large = file_of(Image.new("RGB", (1200, 1200)))
    with images._one_large_picture:  # as if one that takes for ever were being decoded
        answers = []
        waiting = [
            threading.Thread(target=lambda: answers.append(send(client.application.test_client(), large)))
            for _ in range(images.QUEUE)
        ]
        for thread in waiting:
            thread.start()
        while images._queue_of_large_pictures._value:
            assert any(thread.is_alive() for thread in waiting)
        refused = send(client, large)
        assert_refused(refused, 429, "try again")
        assert refused.headers["Retry-After"] == "1"
        assert send(client, file_of(noise(28, 28))).status_code == 200  # small ones pass
    for thread in waiting:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * images.QUEUE
