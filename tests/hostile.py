"""A folder of odd and hostile image files, made on the spot: for test_hostile_files.py."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

READ, REFUSED, EITHER = "read", "refused", "either"
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "LAB")
SUFFIXES = ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "tga", "jp2", "avif")
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
PIXELS[:2, :2] = 255  # of 16 bits, all are used


class Folder:
    """A folder, and what is to be said of each file in it."""

    def __init__(self, path: Path):
        self.path, self.expected = path, {}
        path.mkdir(parents=True)

    def add(self, name: str | bytes, content: bytes, expected: str) -> None:
        """A file, where the file system takes the name."""
        path = self.path / os.fsdecode(name)
        try:
            path.write_bytes(content)
        except (OSError, UnicodeError):
            return
        self.expected[str(path)] = expected

    def place(self, name: str, make: Callable[[Path], object]) -> None:
        """Something that is no file."""
        make(self.path / name)
        self.expected[str(self.path / name)] = REFUSED


def fill(path: Path) -> Folder:
    """More than 500 files."""
    folder = Folder(path)
    for part in (modes, compressions, exif, sizes, bombs, several, cut, no_images, names, flipped):
        part(folder)
    return folder


def photograph(mode: str = "RGB") -> Image.Image:
    image = Image.fromarray(PIXELS)
    if mode in ("I;16", "I"):
        return Image.fromarray(PIXELS[..., 0].astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    if mode == "F":
        return Image.fromarray(PIXELS[..., 0].astype(np.float32))
    if mode == "PA":
        return image.quantize(16).convert("PA")
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, PIXELS.tobytes())
    return image.convert(mode)


def encoded(image: Image.Image, suffix: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=Image.registered_extensions()[f".{suffix}"], **options)
    return file.getvalue()


def modes(folder: Folder) -> None:
    """Every mode in every format that can hold it."""
    for mode in MODES:
        for suffix in SUFFIXES:
            try:
                content = encoded(photograph(mode), suffix)
            except (OSError, KeyError, ValueError):
                continue  # Pillow cannot write it so
            expected = EITHER if mode in ("F", "LAB", "PA", "I") else READ
            folder.add(f"mode {mode} {suffix}.{suffix}".replace(";", "-"), content, expected)
    for kind, transparent in (("L", 7), ("RGB", (255, 255, 255)), ("P", 3), ("P", bytes(range(16)))):
        image = photograph(kind)
        name = f"transparency {kind} {type(transparent).__name__}.png"
        folder.add(name, encoded(image, "png", transparency=transparent), READ)
    folder.add("hsv.png", encoded(photograph("HSV").convert("RGB"), "png"), READ)
    folder.add("1e5.pgm", b"P2\n# grey\n2 2\n65535\n0 1 2\n65535\n", READ)
    folder.add("ascii.ppm", b"P3 2 1 255 1 2 3 255 254 253\n", READ)
    folder.add("floating.pfm.ppm", b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.5), REFUSED)
    folder.add("sixteen.ppm", b"P6 2 2 65535 " + b"\xff" * 24, READ)
    folder.add("negative.tif", encoded(Image.fromarray(np.full((3, 3), -5, np.int32)), "tif"), REFUSED)
    folder.add("tiled.tif", tiled(PIXELS[:16, :16, 0]), READ)


def tiled(pixels: np.ndarray) -> bytes:
    """A grey TIFF of one tile, which Pillow reads and does not write."""
    height, width = pixels.shape
    tags = {
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: 1,
        277: 1,
        322: width,
        323: height,
        324: 0,
        325: pixels.size,
    }
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels.tobytes()


def compressions(folder: Folder) -> None:
    colours = photograph()
    for number, options in enumerate(
        [
            {"progressive": True},
            {"subsampling": 2},
            {"quality": 1},
            {"optimize": True},
            {"restart_marker_blocks": 1},
        ]
    ):
        folder.add(f"jpeg {number}.jpeg", encoded(colours, "jpg", **options), READ)
    for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        folder.add(f"{kind}.tiff", encoded(colours, "tif", compression=kind), READ)
    folder.add("group4.tiff", encoded(photograph("1"), "tif", compression="group4"), READ)
    folder.add("lossless.webp", encoded(colours, "webp", lossless=True), READ)
    folder.add("interlaced.gif", encoded(photograph("P"), "gif", interlace=1), READ)
    folder.add("run lengths.tga", encoded(colours, "tga", compression="tga_rle"), READ)
    folder.add("irreversible.jp2", encoded(colours, "jp2", irreversible=True), READ)


def exif(folder: Folder) -> None:
    for orientation in range(10):
        noted = Image.Exif()
        noted[0x0112] = orientation
        for suffix in ("jpg", "png", "webp", "tif"):
            folder.add(
                f"turned {orientation} {suffix}.{suffix}", encoded(photograph(), suffix, exif=noted), READ
            )
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1)
    text = head + struct.pack("<HHI4sI", 0x0112, 2, 3, b"up", 0)  # a text where a number should be
    whole = head + struct.pack("<HHIII", 0x0112, 3, 1, 6, 0)
    folder.add("turned up.jpg", encoded(photograph(), "jpg", exif=text), READ)
    for number, damaged in enumerate(
        [
            whole[:9],
            b"Exif\0\0" + bytes(30),
            b"Exif\0\0II*\0\xff\xff\xff\xff",
            b"Exif\0\0MM" + b"\xff" * 50,
            whole[:-3],
        ]
    ):
        folder.add(f"damaged exif {number}.jpg", encoded(photograph(), "jpg", exif=damaged), READ)
        folder.add(f"damaged exif {number}.png", encoded(photograph(), "png", exif=damaged), READ)


def sizes(folder: Folder) -> None:
    for width, height in ((1, 1), (1, 4000), (4000, 1), (2, 3), (129, 1), (16383, 3)):
        for suffix in ("png", "jpg", "webp"):
            name = f"{width} x {height}.{suffix}"
            folder.add(name, encoded(Image.new("RGB", (width, height), (9, 99, 200)), suffix), READ)


def png(
    width: int, height: int, depth: int, colour: int, packed: bytes, *others: tuple[bytes, bytes]
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *others, (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def zeros(number: int) -> bytes:
    """So many zeros, packed."""
    packer = zlib.compressobj(6)
    block = bytes(2**20)
    return (
        b"".join(packer.compress(block[: number - start]) for start in range(0, number, len(block)))
        + packer.flush()
    )


def bombs(folder: Folder) -> None:
    """Small files that announce or hold many pixels, or much text."""
    little = zlib.compress(bytes(100))
    folder.add("announced.png", png(20_000, 20_000, 8, 2, little), REFUSED)
    folder.add("largest.png", png(2**31 - 1, 2**31 - 1, 16, 6, little), REFUSED)
    folder.add("no width.png", png(0, 5, 8, 2, little), REFUSED)
    folder.add("announced and not there.png", png(9_000, 9_000, 8, 2, little), REFUSED)
    folder.add("zeros.png", png(30_000, 30_000, 1, 0, zeros(30_000 * (30_000 // 8 + 1))), REFUSED)
    folder.add("just too many.png", png(10_001, 10_000, 8, 0, zeros(10_002 * 10_000)), REFUSED)
    folder.add("many zeros.png", png(9_000, 9_000, 1, 0, zeros(9_000 * (9_000 // 8 + 1))), READ)
    text, profile = b"Comment\0\0" + zeros(2**26), b"icc\0\0" + zeros(2**26)
    small = zlib.compress(bytes(4))
    folder.add("much text.png", png(1, 1, 8, 2, small, (b"zTXt", text)), EITHER)
    folder.add("large profile.png", png(1, 1, 8, 2, small, (b"iCCP", profile)), EITHER)
    folder.add("international.png", png(1, 1, 8, 2, small, (b"iTXt", b"a\0\1\0\0\0" + text[9:])), EITHER)
    for width, height in ((65_500, 65_500), (9_000, 9_000), (12_000, 12_000), (0, 16)):
        content = bytearray(encoded(photograph(), "jpg"))
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", height, width)
        # Where a JPEG file ends early but in order, the rest is grey.
        folder.add(
            f"announced {width} {height}.jpg", bytes(content), EITHER if 0 < width < 2**14 else REFUSED
        )
    gif = bytearray(encoded(photograph("P"), "gif"))
    gif[6:10] = b"\xff\xff\xff\xff"
    folder.add("announced.gif", bytes(gif), REFUSED)
    bmp = bytearray(encoded(photograph(), "bmp"))
    bmp[18:26] = struct.pack("<ii", 20_000, -20_000)
    folder.add("announced.bmp", bytes(bmp), REFUSED)
    tga = bytearray(encoded(photograph(), "tga"))
    tga[12:16] = b"\xff\xff\xff\xff"
    folder.add("announced.tga", bytes(tga), REFUSED)
    folder.add("announced.ppm", b"P6 20000 20000 255\n", REFUSED)
    folder.add("digits.ppm", b"P6 " + b"9" * 5_000 + b" 1 255\n", REFUSED)
    tif = encoded(photograph(), "tif", compression="raw").replace(
        struct.pack("<I", 24), struct.pack("<I", 2**30)
    )
    folder.add("announced.tif", tif, REFUSED)
    folder.add("loop of pages.tif", looping(), EITHER)


def looping() -> bytes:
    """A TIFF whose first page says that it is also the next."""
    content = bytearray(tiled(PIXELS[:16, :16, 0]))
    number = struct.unpack_from("<H", content, 8)[0]
    struct.pack_into("<I", content, 10 + 12 * number, 8)
    return bytes(content)


def several(folder: Folder) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, shift, axis=0)) for shift in range(3)]
    for suffix in ("gif", "webp", "png", "tif", "avif"):
        if f".{suffix}" in Image.registered_extensions():
            content = encoded(frames[0], suffix, save_all=True, append_images=frames[1:])
            folder.add(f"frames.{suffix}", content, REFUSED)
    many = [Image.new("L", (1, 1), number % 2 * 255) for number in range(500)]
    folder.add("many frames.gif", encoded(many[0], "gif", save_all=True, append_images=many[1:]), REFUSED)
    file = io.BytesIO()
    frames[0].save(file, format="MPO", save_all=True, append_images=frames[1:])
    folder.add("two lenses.jpg", file.getvalue(), READ)
    folder.add("two lenses cut.jpg", file.getvalue()[:-700], EITHER)


def cut(folder: Folder) -> None:
    """Every format, ended too early."""
    for suffix in SUFFIXES:
        if f".{suffix}" in Image.registered_extensions():
            content = encoded(photograph(), suffix)
            for tenth in range(10):
                name = f"cut {tenth}.{suffix}"
                folder.add(name, content[: len(content) * tenth // 10], EITHER if tenth == 9 else REFUSED)
    content = encoded(photograph().resize((200, 200)), "jpg", progressive=True)
    folder.add("cut progressive.jpg", content[: len(content) // 2], REFUSED)


def no_images(folder: Folder) -> None:
    page = b"<!DOCTYPE html><html><title>404 Not Found</title></html>"
    drawing = b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>"
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(a) (w) file pop\nshowpage\n"
    for name, content in {
        "empty.jpg": b"", "text.jpg": b"not an image\n", "page.jpg": page, "drawing.png": drawing,
        "zip.jpg": b"PK\3\4" + bytes(40), "document.jpg": b"%PDF-1.7\n1 0 obj<<>>endobj\n%%EOF", "script.jpg": script,
        "zeros.jpg": bytes(999), "ones.png": b"\xff" * 999, "marks.jpg": b"\xef\xbb\xbfP6", "newlines.ppm": b"\n" * 99,
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\n",
    }.items():  # fmt: skip
        folder.add(name, content, REFUSED)
    folder.add("a PNG.jpg", encoded(photograph(), "png"), READ)
    folder.add("a JPEG.png", encoded(photograph(), "jpg"), READ)
    folder.add("more behind.png", encoded(photograph(), "png") + page, READ)
    folder.place("leads nowhere.jpg", lambda path: path.symlink_to("gone.jpg"))
    folder.place("loop.jpg", lambda path: path.symlink_to("loop.jpg"))
    folder.place("ring a.jpg", lambda path: path.symlink_to("ring b.jpg"))
    folder.place("ring b.jpg", lambda path: path.symlink_to("ring a.jpg"))
    folder.place("nothing.jpg", lambda path: path.symlink_to(os.devnull))
    if hasattr(os, "mkfifo"):
        folder.place("pipe.jpg", os.mkfifo)


def names(folder: Folder) -> None:
    content = encoded(photograph(), "png")
    for name in (
        "a b.png", "new\nline.png", "\u732b \U0001f431.png", b"\xff\xfe.png", "tab\t.png", "quote'\".png", "%s {0}.png",
        "a" * 246 + ".png", "-rf.png", "*.png", "con.png", "UPPER.PNG", "two.jpg.png", "\u202egnp.png", " .png",
    ):  # fmt: skip
        folder.add(name, content, READ)
    folder.add(b"\xff broken.png", content[:50], REFUSED)
    folder.add("broken\nline.png", content[:50], REFUSED)


def left_out(folder: Path) -> None:
    """What no list of images may hold, because it is hidden or no image by its name."""
    for name in ("._x.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "labels.txt", "x.jpg.part", "x", ".jpg"):
        (folder / name).write_bytes(b"no image")


def flipped(folder: Folder) -> None:
    """Two hundred files in which a few bytes were changed."""
    random = np.random.default_rng(1)
    known = [suffix for suffix in SUFFIXES if f".{suffix}" in Image.registered_extensions()]
    for number in range(200):
        suffix = known[number % len(known)]
        content = bytearray(encoded(photograph("L" if number % 3 else "RGB"), suffix))
        # Half of them in the head, where a number that is wrong does most.
        reach = len(content) if number % 2 else min(len(content), 64)
        for place in random.integers(0, reach, random.integers(1, 6)):
            content[place] ^= 1 << random.integers(8)
        folder.add(f"flipped {number:03d}.{suffix}", bytes(content), EITHER)
