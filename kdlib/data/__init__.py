"""Data sets by name, or from a folder, as images in memory."""

from os import PathLike
from pathlib import Path

import numpy as np

from kdlib.data import folders, sources
from kdlib.data.splits import ImageDataset, ImageSplit, stratified

__all__ = ["ImageDataset", "ImageSplit", "load"]

VALIDATION_FRACTION = 0.1


def load(
    name: str = "fashion-mnist", *, root: str | PathLike | None = None, full: bool = False, seed: int = 0
) -> ImageDataset:
    """Load a data set into memory and cut a validation split from its training images.

    name: one of
      "fashion-mnist"   10,000 training images (1,000 a class) and all 10,000 test images, inside kdlib;
                        with full=True all 60,000 training images, from `root`, from Debian's package
                        dataset-fashion-mnist, or downloaded
      "mnist", "cifar10", "cifar100"   from `root`, or downloaded
      "digits"          1,797 8x8 images, inside scikit-learn; 360 of them are the test split
      "folder:PATH"     PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, see `kdlib.data.folders`
    root: a folder that holds the files; it is only read. Without it, downloaded files go to and come from the
      user's cache folder, and the network is asked only when they are not there yet.
    full: only "fashion-mnist" comes in two sizes; every other set is always whole.
    seed: chooses the validation images, a tenth of each class. The test split never depends on it.

    Raises ValueError for an unknown name, a `root` that is not used, or damaged files; FileNotFoundError for
    files that are not where they were said to be; ConnectionError when a download fails.
    """
    if isinstance(name, str) and name.startswith(folders.PREFIX):
        if root is not None:
            raise ValueError(
                f"root={str(root)!r} is not used by load({name!r}): the path is part of the name"
            )
        source = folders.read(Path(name.removeprefix(folders.PREFIX)).expanduser())
    elif name in sources.SOURCES:
        source = sources.SOURCES[name](None if root is None else Path(root).expanduser(), full)
    else:
        known = ", ".join([*sources.SOURCES, f"{folders.PREFIX}PATH"])
        raise ValueError(f"unknown data set {name!r}: the names are {known}")
    return _cut_validation(source, seed)


def _cut_validation(source: sources.Source, seed: int) -> ImageDataset:
    labels = source.train.labels
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[stratified(labels, max(1, round(len(labels) * VALIDATION_FRACTION)), seed)] = True
    train = ImageSplit(*(part[~held_out] for part in source.train))
    validation = ImageSplit(*(part[held_out] for part in source.train), train.mean, train.std)
    test = ImageSplit(*source.test, train.mean, train.std)
    return ImageDataset(train, validation, test, list(source.classes))
