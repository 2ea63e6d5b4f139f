"""Where the images of each named data set come from, as plain numpy arrays."""

import gzip
import hashlib
import io
import json
import math
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from kdlib import _files

EMBEDDED_FOLDER = Path(__file__).parents[1] / "assets" / "data"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
FASHION_CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
IDX_NAMES = [
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
]  # fmt: skip
DIGIT_CLASSES = [str(digit) for digit in range(10)]
DIGITS_TEST_IMAGES = 360


class Images(NamedTuple):
    """Images with their labels and their row numbers in the original set."""

    images: UInt8[np.ndarray, "n channels height width"]
    labels: Integer[np.ndarray, " n"] | Float32[np.ndarray, "n classes"]
    indices: Integer[np.ndarray, " n"]


class Source(NamedTuple):
    """A data set before a validation split is cut from its training images."""

    train: Images
    test: Images
    classes: list[str]


def fashion_mnist(root: Path | None, full: bool) -> Source:
    """Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747): the embedded subset or all of it."""
    if not full:
        _refuse_root("fashion-mnist", root, remedy="pass full=True to read all 60,000 images from your files")
        arrays = embedded_fashion_mnist()
        train, test = (
            Images(*(arrays[f"{split}_{part}"] for part in Images._fields)) for split in ("train", "test")
        )
        return Source(train, test, FASHION_CLASSES)
    if root is None and _find_idx_files("FashionMNIST", DEBIAN_FASHION_MNIST):
        root = DEBIAN_FASHION_MNIST
    source = _idx_source("FashionMNIST", root, FASHION_CLASSES)
    if len(source.test.labels) == 10_000 and not _has_fashion_labels(source):
        raise ValueError(
            f"root={str(root)!r} holds other images than Fashion-MNIST (MNIST uses the same file names): "
            "point root at the Fashion-MNIST files"
        )
    return source


def mnist(root: Path | None, full: bool) -> Source:
    """MNIST handwritten digits (LeCun, Bottou, Bengio & Haffner 1998), 60,000 and 10,000 images."""
    source = _idx_source("MNIST", root, DIGIT_CLASSES)
    if _has_fashion_labels(source):
        raise ValueError(
            f"root={str(root)!r} holds Fashion-MNIST (it uses the file names of MNIST): "
            "point root at the MNIST files"
        )
    return source


def cifar10(root: Path | None, full: bool) -> Source:
    """CIFAR-10 (Krizhevsky 2009), 50,000 and 10,000 colour images of 32x32."""
    return _cifar_source("CIFAR10", "cifar-10-batches-py", root)


def cifar100(root: Path | None, full: bool) -> Source:
    """CIFAR-100 (Krizhevsky 2009), 50,000 and 10,000 colour images of 32x32."""
    return _cifar_source("CIFAR100", "cifar-100-python", root)


def digits(root: Path | None, full: bool) -> Source:
    """The 1,797 8x8 digits inside scikit-learn (Alpaydin & Kaynak 1998), 360 of them kept for the test.

    The sixteen grey levels 0..16 are stretched to 0..255. The test split does not depend on any seed.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    _refuse_root("digits", root, remedy="leave root out, these images come with scikit-learn")
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    parts = train_test_split(
        np.arange(len(images)), test_size=DIGITS_TEST_IMAGES, stratify=bunch.target, random_state=0
    )
    train, test = (Images(images[rows], bunch.target[rows], rows) for rows in map(np.sort, parts))
    return Source(train, test, DIGIT_CLASSES)


def svhn(root: Path | None, full: bool) -> Source:
    """Street View House Numbers, cropped digits (Netzer et al. 2011), 73,257 and 26,032 colour images of 32x32."""
    train, test = _read_arrays(
        "SVHN", "train_32x32.mat and test_32x32.mat", root, {"split": "train"}, {"split": "test"}
    )
    return Source(*(_images(part.data, part.labels) for part in (train, test)), DIGIT_CLASSES)


def stl10(root: Path | None, full: bool) -> Source:
    """STL-10 (Coates, Ng & Lee 2011), 5,000 and 8,000 colour images of 96x96; those without labels are left out."""
    train, test = _read_arrays(
        "STL10", "the unpacked folder stl10_binary", root, {"split": "train"}, {"split": "test"}
    )
    classes = getattr(train, "classes", DIGIT_CLASSES)  # from a file that torchvision does not ask for
    return Source(*(_images(part.data, part.labels) for part in (train, test)), list(classes))


SOURCES: dict[str, Callable[[Path | None, bool], Source]] = {
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
    "svhn": svhn,
    "stl10": stl10,
}


def embedded_fashion_mnist() -> dict[str, np.ndarray]:
    """The arrays of the embedded file, by name; a file that is not the recorded one is a ValueError."""
    path = EMBEDDED_FOLDER / "fashion-mnist.npz"
    recorded = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != recorded:
        raise ValueError(
            f"the embedded data file {path} is damaged (sha256 {found}, recorded {recorded}): "
            "reinstall kdlib, or make the file again with tools/make_fashion_mnist.py"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Read one IDX file of unsigned bytes (the format of MNIST), plain or compressed (.gz).

    Layout: two zero bytes, the type code 8, the number of dimensions, one big-endian 32-bit size per
    dimension, then the values.

    Raises:
        ValueError: the file is not one, is cut short, or cannot be read.
    """
    remedy = "delete it and put a fresh copy there"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except PermissionError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): allow this user to read it") from error
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
    header = 4 + 4 * int.from_bytes(content[3:4], "big")
    if content[:3] != b"\0\0\x08" or len(content) < header:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: {remedy}")
    shape = tuple(np.frombuffer(content[4:header], dtype=">u4").tolist())
    values = np.frombuffer(content[header:], dtype=np.uint8)
    if values.size != math.prod(shape):
        raise ValueError(f"{path} announces the shape {shape} but holds {values.size} values: {remedy}")
    return values.reshape(shape)


def downloads_folder() -> Path | None:
    """Where downloaded data sets are kept; None for a user without a home folder."""
    folder = _files.cache_folder()
    return None if folder is None else folder / "datasets"


def _refuse_root(name: str, root: Path | None, *, remedy: str) -> None:
    if root is not None:
        raise ValueError(f"root={str(root)!r} is not used by load({name!r}): {remedy}")


def _has_fashion_labels(source: Source) -> bool:
    return np.array_equal(source.test.labels, embedded_fashion_mnist()["test_labels"])


def _idx_source(name: str, root: Path | None, classes: list[str]) -> Source:
    """The IDX files of torchvision's data set `name`, downloaded when no root is given and none are there."""
    if root is None:
        wanted = f"{', '.join(IDX_NAMES)} (plain or .gz)"
        root = cache_for(name, wanted)
        if not _find_idx_files(name, root):
            download(name, root, wanted, lambda: _torchvision(name)(root, download=True))
    return read_idx_folder(name, root, classes)


def read_idx_folder(name: str, root: Path, classes: list[str]) -> Source:
    """Read the four IDX files, plain or .gz, from `root` or root/NAME/raw, torchvision's place for them."""
    paths = _find_idx_files(name, root)
    if not paths:
        raise FileNotFoundError(
            f"no {name} files in root={str(root)!r}: put {', '.join(IDX_NAMES)} (plain or .gz) there "
            f"or in {Path(name, 'raw')} below it, or leave root out to have them downloaded"
        )
    train_images, train_labels, test_images, test_labels = map(read_idx, paths)
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"{paths[0]} and {paths[2]} must hold images of one size, "
            f"got the shapes {train_images.shape} and {test_images.shape}"
        )
    return Source(
        _images_from_idx(train_images, train_labels, paths[:2], classes),
        _images_from_idx(test_images, test_labels, paths[2:], classes),
        classes,
    )


def _find_idx_files(name: str, root: Path) -> list[Path]:
    for folder in (root, root / name / "raw"):
        paths = [_plain_or_compressed(folder / stem) for stem in IDX_NAMES]
        if all(os.path.isfile(path) for path in paths):  # also in a folder that this user cannot read
            return paths
    return []


def _plain_or_compressed(path: Path) -> Path:
    return path if os.path.isfile(path) else path.with_name(f"{path.name}.gz")


def _images_from_idx(
    images: np.ndarray, labels: np.ndarray, paths: Sequence[Path], classes: list[str]
) -> Images:
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{paths[0]} and its labels do not belong together: images of shape {images.shape}, "
            f"labels of shape {labels.shape}"
        )
    if len(images) < 2:
        raise ValueError(
            f"{paths[0]} must hold at least 2 images, got {len(images)}: put the whole file there"
        )
    if labels.max() >= len(classes):
        raise ValueError(f"{paths[1]} must hold labels from 0 to {len(classes) - 1}, got {labels.max()}")
    return Images(images[:, None], labels, np.arange(len(labels)))


def _cifar_source(name: str, batches: str, root: Path | None) -> Source:
    train, test = _read_arrays(
        name, f"the unpacked folder {batches}", root, {"train": True}, {"train": False}
    )
    return Source(
        *(_images(part.data.transpose(0, 3, 1, 2), part.targets) for part in (train, test)),
        list(train.classes),
    )


def _images(images: np.ndarray, labels: Sequence[int] | np.ndarray) -> Images:
    return Images(images, np.array(labels, dtype=np.int64), np.arange(len(labels)))


def _read_arrays(name: str, wanted: str, root: Path | None, *parts: dict[str, Any]) -> list[Any]:
    """torchvision's readers for the parts of a set of arrays, downloaded when no root is given and none are there."""
    folder = cache_for(name, wanted) if root is None else root

    def read(**options: bool) -> list[Any]:
        return [_torchvision(name)(folder, **part, **options) for part in parts]

    try:
        return read()
    except RuntimeError as error:  # a file is missing, or its checksum is not the one torchvision knows
        if root is None:
            download(name, folder, wanted, lambda: read(download=True))
            return read()
        raise FileNotFoundError(
            f"no complete {name} files in {folder}: put {wanted} there, or leave root out to have it downloaded"
        ) from error


def _torchvision(name: str) -> Callable[..., Any]:
    from torchvision import datasets

    return getattr(datasets, name)


def cache_for(name: str, wanted: str) -> Path:
    """Where a downloaded set is kept.

    Args:
        name: the set, for the message.
        wanted: its files, for the message.

    Raises:
        FileNotFoundError: there is no such place.
    """
    folder = downloads_folder()
    if folder is None:
        raise FileNotFoundError(
            f"{name} cannot be downloaded: this user has no home folder to keep it in. Put {wanted} into a folder "
            "you name by root=..., or set the variable XDG_CACHE_HOME (LOCALAPPDATA on Windows)"
        )
    return folder


def download(name: str, folder: Path, wanted: str, fetch: Callable[[], Any]) -> None:
    """Have a set fetched into a folder, which is made where it is missing.

    Args:
        name, wanted: as in `cache_for`.
        folder: where it is put.
        fetch: does so.

    Raises:
        FileNotFoundError: the folder cannot be written.
        ConnectionError: fetching failed, by the network or because what came is no whole archive.
    """
    by_hand = f"put {wanted} there by hand, or into a folder you name by root=..."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise FileNotFoundError(
            f"{name} is not in {folder}, which cannot be written ({reason}): allow this user to, or {by_hand}"
        )
    try:
        fetch()
    except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ConnectionError(
            f"{name} is not in {folder} and could not be downloaded ({' '.join(str(error).split())}): "
            f"connect to the network, or {by_hand}"
        ) from error
