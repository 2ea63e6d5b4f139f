"""Data sets by name, or from a folder, as images in memory."""

import difflib
import os
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from kdlib._checks import boolean, checked, natural_number
from kdlib.data import folders, sources, tables
from kdlib.data.splits import ImageDataset, ImageSplit, in_groups, strata, stratified

__all__ = ["ImageDataset", "ImageSplit", "load"]

VALIDATION_FRACTION = 0.1


def _known_name(name: str, value: Any) -> str:
    names = f"the names are {', '.join([*sources.SOURCES, f'{folders.PREFIX}PATH'])}"
    if isinstance(value, PathLike):
        raise TypeError(
            f"{name} must be a string, got {value!r}: for a folder give '{folders.PREFIX}{value}'; {names}"
        )
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__} {value!r}: {names}")
    if value in sources.SOURCES or value.startswith(folders.PREFIX):
        return value
    near = _near(value)
    raise ValueError(
        f"unknown data set {name}={value!r}: {f'did you mean {near!r}? ' if near else ''}{names}"
    )


def _near(name: str) -> str | None:
    """What somebody who wrote this name probably meant."""

    def plain(text: str) -> str:
        return "".join(filter(str.isalnum, text.casefold()))

    if os.path.isdir(name):
        return f"{folders.PREFIX}{name}"
    if name.strip().casefold().startswith(folders.PREFIX):
        return f"{folders.PREFIX}{name.strip()[len(folders.PREFIX) :]}"
    spelt_plainly = {plain(known): known for known in sources.SOURCES}
    found = difflib.get_close_matches(plain(name), spelt_plainly, n=1)
    return spelt_plainly[found[0]] if found else None


def _folder(name: str, value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | PathLike) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{name} must be the path of a folder, got {type(value).__name__} {value!r}")
    folder = _expanded(name, value)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(
            f"{name} must be a folder, got the file {str(value)!r}: give the folder that holds it"
        )
    return folder


def _expanded(name: str, path: str | PathLike) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{name}={str(path)!r} begins with a home folder that is not known: {error}"
        ) from error


@checked(name=_known_name, root=_folder, full=boolean, seed=natural_number)
def load(
    name: str = "fashion-mnist", *, root: str | PathLike | None = None, full: bool = False, seed: int = 0
) -> ImageDataset:
    """Load a data set into memory and cut a validation split from its training images.

    Args:
        name: one of

            - "fashion-mnist": 10,000 training images (1,000 a class) and all 10,000 test images, inside
              kdlib; with full=True all 60,000 training images, from `root`, from Debian's package
              dataset-fashion-mnist, or downloaded
            - "mnist", "cifar10", "cifar100": from `root`, or downloaded
            - "digits": 1,797 8x8 images, inside scikit-learn; 360 of them are the test split
            - "folder:PATH": PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, see `kdlib.data.folders`; or images
              with a table of labels PATH/labels.csv, several labels an image, see `kdlib.data.tables`
        root: a folder that holds the files; it is only read. Without it, downloaded files go to and come from
            the user's cache folder, and the network is asked only when they are not there yet.
        full: only "fashion-mnist" comes in two sizes; every other set is always whole.
        seed: chooses the validation images, a tenth of each class (of all where an image has several labels; of
            whole patients where a table names them). A table may name them itself. The test split never depends
            on it.

    Raises:
        ValueError: an unknown name, a `root` that is not used or no folder, or damaged files.
        FileNotFoundError: files are not where they were said to be, or there is no place to download them to.
        ConnectionError: a download failed.
    """
    if not name.startswith(folders.PREFIX):
        return _in_three_splits(sources.SOURCES[name](root, full), seed)
    if root is not None:
        raise ValueError(f"root={str(root)!r} is not used by load({name!r}): the path is part of the name")
    path = name.removeprefix(folders.PREFIX)
    if not path or "\0" in path:
        raise ValueError(f"name={name!r} has no path of a folder behind {folders.PREFIX!r}: {folders.LAYOUT}")
    folder = _expanded("name", path)
    source = tables.read(folder) if tables.stands_in(folder) else folders.read(folder)
    return _in_three_splits(source, seed)


def _in_three_splits(source: sources.Source, seed: int) -> ImageDataset:
    if source.validation is None:
        train_images, validation_images = _cut_validation(source, seed)
    else:
        train_images, validation_images = source.train, source.validation
    train = ImageSplit(*train_images)
    validation, test = (
        ImageSplit(*images, train.mean, train.std) for images in (validation_images, source.test)
    )
    return ImageDataset(train, validation, test, list(source.classes))


def _cut_validation(source: sources.Source, seed: int) -> tuple[sources.Images, sources.Images]:
    """What is left of the training images, and about a tenth of them."""
    labels = source.train.labels
    n = max(1, round(len(labels) * VALIDATION_FRACTION))
    held_out = np.zeros(len(labels), dtype=bool)
    if source.groups is None:
        held_out[stratified(strata(labels), n, seed)] = True
    else:
        held_out[in_groups(source.groups, n, seed)] = True
    train, validation = (
        sources.Images(*(part[rows] for part in source.train)) for rows in (~held_out, held_out)
    )
    return train, validation
