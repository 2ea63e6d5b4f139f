"""A folder of photographs as one finds them, made on the spot from what is embedded: material to practise on.

Garments of Fashion-MNIST are coloured, turned and pasted, with their silhouettes as masks, on cut-outs of the two
photographs that scikit-learn ships. Of the files some are turned by a note in EXIF, some are of an odd kind, stand
there twice, lie in the folder of another class, or cannot be read. What was done to which file is returned, and
stands nowhere in the folder.
"""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, TiffImagePlugin

from kdlib._checks import boolean, checked, natural_number, positive_integer

CLASSES = ("Bag", "Shirt", "Ankle boot", "Dress", "Sneaker")
SHORTEST, LONGEST = 52, 180  # of the shorter sides
SHARES = {"turned": 0.12, "odd": 0.08, "copied": 0.05, "alike": 0.07, "wrong": 0.03, "broken": 0.01}
ODD_KINDS = ("grey", "palette", "alpha", "cmyk", "deep", "progressive")
BROKEN_KINDS = ("truncated", "empty", "text", "page")
RAREST = 0.35  # the images of the last class for one of the first
_ORIENTATION = TiffImagePlugin.TiffTags.TAGS_V2[274].value
_TURNED_BACK = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class MessyFolder:
    """Where the folder lies, and what was done to its files, by their paths in it ("bag/IMG_0001.jpg").

    Args:
        path: of the folder; `kdlib.data.load(f"folder:{path}", image_size=...)` takes it.
        wrong: file -> the class to which it belongs; it lies in another one's folder.
        broken: file -> what it is in truth.
        twins: pairs of files of one photograph: byte for byte the same, or saved again.
        turned: files that EXIF tells to turn.
        odd: file -> in which way it is stored.
    """

    path: Path
    wrong: dict[str, str]
    broken: dict[str, str]
    twins: list[tuple[str, str]]
    turned: list[str]
    odd: dict[str, str]

    def __repr__(self) -> str:
        facts = {
            "in the folder of another class": self.wrong, "broken": self.broken, "pairs of twins": self.twins,
            "turned by EXIF": self.turned, "of an odd kind": self.odd,
        }  # fmt: skip
        return f"MessyFolder({', '.join(f'{len(found)} {words}' for words, found in facts.items())})"


def _new_folder(name: str, value: Any) -> Path:
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{name} must be the path of a folder, got {type(value).__name__} {value!r}")
    folder = Path(value).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{name}={str(value)!r} is there already: give a folder that is empty or not there yet"
        )
    return folder


def _some_classes(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(set(value)) < 2:
        raise ValueError(f"{name} must name two classes of Fashion-MNIST or more, got {value!r}")
    if len(set(value)) < len(value):
        raise ValueError(f"{name}={value!r} names a class twice")
    return tuple(value)


@checked(
    path=_new_folder, images=positive_integer, classes=_some_classes, held_out=boolean, seed=natural_number
)
def messy_folder(
    path: str | PathLike,
    *,
    images: int = 700,
    classes: Sequence[str] = CLASSES,
    held_out: bool = False,
    seed: int = 0,
) -> MessyFolder:
    """Make a folder PATH/CLASS/* of photographs of garments, with all that is wrong in such folders.

    The same arguments give the same files, byte for byte, with the same version of Pillow.

    Args:
        path: a folder that is not there yet, or empty.
        images: how many files; at least 20 a class. `SHARES` says how many of them are what.
        classes: names of classes of Fashion-MNIST, the most frequent first. Their folders bear them in small letters,
            with a hyphen for what is no letter.
        held_out: whether the garments are of the test split, so that none is in a folder of the training images.
        seed: chooses garments, places, colours and faults.

    Raises:
        ValueError: a folder with something in it, an unknown class, too few images or more than there are garments.
    """
    garments = _garments(classes, held_out)
    counts = _counts(images, len(classes))
    if images < 20 * len(classes) or max(counts) > min(map(len, garments)):
        most = min(map(len, garments))
        raise ValueError(
            f"images={images} must be at least {20 * len(classes)} for {len(classes)} classes, and make at most "
            f"{most} of one class, got {max(counts)}"
        )
    random = np.random.default_rng(seed)
    own = np.repeat(np.arange(len(classes)), counts).tolist()
    shots = [
        int(number)
        for label in range(len(classes))
        for number in random.permutation(len(garments[label]))[: counts[label]]
    ]
    plan = _Plan(len(own), random)
    labels = _mislabelled(own, plan.wrong, len(classes), random)
    maker = _Maker(Path(path), [_folder_name(name) for name in classes], plan, random)
    for row in range(len(own)):
        maker.save(row, garments[own[row]][shots[row]], labels[row])
    names = maker.names
    return MessyFolder(
        Path(path),
        wrong={names[row]: maker.folders[own[row]] for row in plan.wrong},
        broken={names[row]: kind for row, kind in plan.broken.items()},
        twins=[tuple(sorted((names[row], names[original]))) for row, original in maker.original_of.items()],
        turned=sorted(names[row] for row in maker.turned),
        odd={names[row]: kind for row, kind in plan.odd.items()},
    )


def _garments(classes: Sequence[str], held_out: bool) -> list[np.ndarray]:
    """The images (n, 28, 28) of each class."""
    from kdlib.data import load

    dataset = load("fashion-mnist")
    unknown = [name for name in classes if name not in dataset.classes]
    if unknown:
        raise ValueError(
            f"classes={tuple(classes)!r}: {unknown[0]!r} is none; there are {', '.join(dataset.classes)}"
        )
    split = dataset.test if held_out else dataset.train
    labels, images = split.labels.numpy(), split.images[:, 0].numpy()
    return [images[labels == dataset.classes.index(name)] for name in classes]


@functools.cache
def _photographs() -> list[Image.Image]:
    """Those that scikit-learn ships, found without importing it, which takes a second or two."""
    folder = Path(find_spec("sklearn").origin).parent / "datasets" / "images"
    return [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]


def _counts(images: int, classes: int) -> list[int]:
    """So many images of each class, from the most frequent to the rarest, whose shares fall by the same factor."""
    shares = RAREST ** (np.arange(classes) / (classes - 1))
    ends = np.round(np.cumsum(shares) / shares.sum() * images).astype(int)
    return np.diff(ends, prepend=0).tolist()


def _folder_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


class _Plan:
    """Which files get which fault; nobody gets two, so that each can be told."""

    def __init__(self, n: int, random: np.random.Generator):
        order = random.permutation(n).tolist()
        chosen = {}
        for fault, share in SHARES.items():
            count = max(len(BROKEN_KINDS) if fault == "broken" else 2, round(share * n))
            chosen[fault], order = order[:count], order[count:]
        self.turned, self.copied, self.alike = (chosen[fault] for fault in ("turned", "copied", "alike"))
        self.wrong = sorted(chosen["wrong"])
        self.odd = {row: ODD_KINDS[place % len(ODD_KINDS)] for place, row in enumerate(chosen["odd"])}
        self.broken = {
            row: BROKEN_KINDS[place % len(BROKEN_KINDS)] for place, row in enumerate(chosen["broken"])
        }
        self.plain = order


def _mislabelled(
    own: list[int], wrong: Sequence[int], classes: int, random: np.random.Generator
) -> list[int]:
    labels = own.copy()
    for row in wrong:
        labels[row] = (own[row] + int(random.integers(1, classes))) % classes
    return labels


class _Maker:
    """Makes the photographs one by one and saves each in the way that the plan has for it."""

    def __init__(self, path: Path, folders: list[str], plan: _Plan, random: np.random.Generator):
        self.path, self.folders, self.plan, self.random = path, folders, plan, random
        self.names: dict[int, str] = {}
        self.original_of: dict[int, int] = {}
        self.turned: list[int] = []
        self._numbers = random.permutation(9000)
        self._saved: dict[int, tuple[Image.Image, bytes]] = {}
        self._twins = {*plan.copied, *plan.alike}
        for folder in folders:
            (path / folder).mkdir(parents=True)

    def save(self, row: int, garment: np.ndarray, label: int) -> None:
        """The photograph of this garment, or where a twin is due, that of an earlier one of its class."""
        original = self._earlier(row, label) if row in self._twins else None
        photograph = _photograph(garment, self.random)
        ending, content = self._encoded(row, photograph)
        if original is not None:
            self.original_of[row] = original
            ending, content = self._twin(row, original)
        elif row in self.plan.broken:
            ending, content = "jpg", _broken(self.plan.broken[row], content)
        elif row in self.plan.plain and ending == "jpg":
            self._saved[row] = photograph, content
        name = f"{self.folders[label]}/{self._name(row)}.{ending}"
        self.names[row] = name
        (self.path / name).write_bytes(content)

    def _name(self, row: int) -> str:
        number = self._numbers[row]
        return (f"IMG_{number:04}", f"photo {number}", f"DSC{number:05}")[int(number) % 3]

    def _earlier(self, row: int, label: int) -> int | None:
        """An earlier photograph of this class; in two cases of another one: somebody was of two minds."""
        elsewhere = row in (max(self.plan.copied), max(self.plan.alike))
        own = f"{self.folders[label]}/"
        found = [other for other in self._saved if self.names[other].startswith(own) != elsewhere]
        return int(self.random.choice(found)) if found else None

    def _twin(self, row: int, original: int) -> tuple[str, bytes]:
        """The very bytes, or the photograph saved again: a little smaller, a little brighter, with less quality."""
        photograph, content = self._saved[original]
        if row in self.plan.copied:
            return "jpg", content
        width, height = (round(side * self.random.uniform(0.8, 0.95)) for side in photograph.size)
        smaller = photograph.resize((width, height), Image.Resampling.BICUBIC)
        brighter = smaller.point(3 * _table(1.05, 3))
        return "jpg", _jpeg(brighter, quality=60)

    def _encoded(self, row: int, photograph: Image.Image) -> tuple[str, bytes]:
        if row in self.plan.odd:
            return _odd(self.plan.odd[row], photograph)
        if row in self.plan.turned:
            self.turned.append(row)
            orientation = int(self.random.choice([*_TURNED_BACK]))
            exif = Image.Exif()
            exif[274] = orientation
            return "jpg", _jpeg(photograph.transpose(_TURNED_BACK[orientation]), quality=88, exif=exif)
        if row % 5 == 4:
            return "png", _png(photograph)
        return "jpg", _jpeg(photograph, quality=88)


def _photograph(garment: np.ndarray, random: np.random.Generator) -> Image.Image:
    """A coloured garment before a piece of a photograph, of a random size and shape."""
    shorter = float(np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST))))
    longer = shorter * min(float(np.exp(abs(random.normal(0, 0.35)))), 3.0)
    width, height = (round(side) for side in random.permutation([shorter, longer]))
    scene = _cut_out(width, height, random).filter(ImageFilter.GaussianBlur(shorter / 40))
    size = round(shorter * random.uniform(0.7, 0.98))
    turned = float(random.normal(0, 8))
    grey = (
        Image.fromarray(garment)
        .resize((size, size), Image.Resampling.BICUBIC)
        .rotate(turned, Image.Resampling.BICUBIC)
    )
    mask = grey.filter(ImageFilter.MaxFilter(3)).point(_table(5, 0))
    tinted = Image.merge(
        "RGB", [grey.point(_table(0.84 * share, 40)) for share in random.uniform(0.25, 1.0, 3)]
    )
    places = ((side - size) / 2 + random.normal(0, 0.06) * side for side in (width, height))
    left, top = (
        round(min(max(place, 0), side - size)) for place, side in zip(places, (width, height), strict=True)
    )
    scene.paste(tinted, (left, top), mask)
    return scene


def _table(factor: float | int, shift: int) -> list[int]:
    """What becomes of each of the 256 values."""
    return np.clip(np.round(factor * np.arange(256) + shift), 0, 255).astype(int).tolist()


def _cut_out(width: int, height: int, random: np.random.Generator) -> Image.Image:
    photograph = _photographs()[int(random.integers(2))]
    scale = random.uniform(0.25, 0.9) * min(photograph.width / width, photograph.height / height)
    wide, high = int(width * scale), int(height * scale)
    left, top = (
        int(random.integers(most + 1)) for most in (photograph.width - wide, photograph.height - high)
    )
    return photograph.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + wide, top + high))


def _odd(kind: str, photograph: Image.Image) -> tuple[str, bytes]:
    if kind == "grey":
        return "jpg", _jpeg(photograph.convert("L"), quality=88)
    if kind == "palette":
        return "png", _png(photograph.quantize(64, dither=Image.Dither.NONE))
    if kind == "alpha":
        photograph.putalpha(255)
        return "png", _png(photograph)
    if kind == "cmyk":
        return "jpg", _jpeg(photograph.convert("CMYK"), quality=88)
    if kind == "deep":
        return "png", _png(Image.fromarray(np.asarray(photograph.convert("L")).astype(np.uint16) * 257))
    return "jpg", _jpeg(photograph, quality=88, progressive=True)


def _broken(kind: str, content: bytes) -> bytes:
    return {
        "truncated": content[: len(content) // 3],
        "empty": b"",
        "text": b"This photograph was moved to another folder.\n",
        "page": b"<!doctype html>\n<html><head><title>404 Not Found</title></head><body>Not found.</body></html>\n",
    }[kind]


def _jpeg(image: Image.Image, **settings: Any) -> bytes:
    return _bytes(image, "jpeg", **settings)


def _png(image: Image.Image) -> bytes:
    return _bytes(image, "png", compress_level=1)


def _bytes(image: Image.Image, form: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()
