"""Data sets by name, or from a folder: as images in memory, or decoded when they are needed."""

import difflib
import os
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from kdlib._checks import boolean, checked, natural_number, positive_integer
from kdlib.data import _checks, folders, image_files, photographs, sources, tables
from kdlib.data.scanning import scan
from kdlib.data.splits import ImageDataset, ImageSplit, strata, stratified
from kdlib.data.streams import StreamedFiles, StreamSplit

__all__ = ["ImageDataset", "ImageSplit", "StreamSplit", "load", "stream"]

LARGEST_IMAGE = 4096


def _known_name(name: str, value: Any) -> str:
    names = f"the names are {', '.join([*sources.SOURCES, *photographs.NAMES, f'{folders.PREFIX}PATH'])}"
    if isinstance(value, PathLike):
        raise TypeError(
            f"{name} must be a string, got {value!r}: for a folder give '{folders.PREFIX}{value}'; {names}"
        )
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__} {value!r}: {names}")
    if value in (*sources.SOURCES, *photographs.NAMES) or value.startswith(folders.PREFIX):
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
    spelt_plainly = {plain(known): known for known in (*sources.SOURCES, *photographs.NAMES)}
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


def _image_size(name: str, value: Any) -> int | None:
    if value is not None and positive_integer(name, value) > LARGEST_IMAGE:
        raise ValueError(
            f"{name} must be from 1 to {LARGEST_IMAGE}, or None for the size of the files, got {value}"
        )
    return None if value is None else int(value)


@checked(
    name=_known_name,
    root=_folder,
    full=boolean,
    seed=natural_number,
    image_size=_image_size,
    skip_broken=boolean,
)
def load(
    name: str = "fashion-mnist",
    *,
    root: str | PathLike | None = None,
    full: bool = False,
    seed: int = 0,
    image_size: int | None = None,
    skip_broken: bool = False,
) -> ImageDataset:
    """Load a data set into memory and cut a validation split from its training images.

    Args:
        name: one of

            - "fashion-mnist": 10,000 training images (1,000 a class) and all 10,000 test images, inside
              kdlib; with full=True all 60,000 training images, from `root`, from Debian's package
              dataset-fashion-mnist, or downloaded
            - "mnist", "cifar10", "cifar100", "svhn", "stl10": from `root`, or downloaded
            - "digits": 1,797 8x8 images, inside scikit-learn; 360 of them are the test split
            - "flowers102", "oxford-iiit-pet", "eurosat", "imagenette" and other sets of photographs that torchvision
              knows (`kdlib.data.photographs`): from `root`, or downloaded
            - "folder:PATH": PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, or PATH/CLASS/*.jpg, see
              `kdlib.data.folders`; or images with a table of labels PATH/labels.csv, one or several labels an image,
              see `kdlib.data.tables`
        root: a folder that holds the files; it is only read. Without it, downloaded files go to and come from
            the user's cache folder, and the network is asked only when they are not there yet.
        full: only "fashion-mnist" comes in two sizes; every other set is always whole.
        seed: chooses the validation images, a tenth of each class (of all where an image has several labels; of
            whole patients where a table names them). A table or a folder may name them itself. The test split never
            depends on it.
        image_size: of photographs, which have many sizes: the shorter side is scaled to it and the centre cut out.
            None leaves files as they are; then all must have one size.
        skip_broken: leave out the files that cannot be read, with a warning, and list them in `.skipped`.

    Raises:
        ValueError: an unknown name, a `root` that is not used or no folder, damaged files, or images of two sizes
            where no `image_size` is given. The message names the file.
        FileNotFoundError: files are not where they were said to be, or there is no place to download them to.
        ConnectionError: a download failed.
    """
    files = _files(name, root, image_size=image_size, skip_broken=skip_broken)
    if files is None:
        return _in_three_splits(sources.SOURCES[name](root, full), seed)
    decoded = image_files.decode(files.paths, image_size=image_size, skip_broken=skip_broken)
    files = _without(files, decoded.skipped, seed)
    parts = {split: (decoded.images[rows], *_labels(files, rows)) for split, rows in _by_split(files)}
    train = ImageSplit(*parts["train"])
    validation, test = (ImageSplit(*parts[split], train.mean, train.std) for split in ("validation", "test"))
    return _noted(ImageDataset(train, validation, test, list(files.classes), decoded.skipped, files.notes))


@checked(
    name=_known_name, root=_folder, seed=natural_number, image_size=_image_size, skip_broken=boolean,
    mean=_checks.mean, std=_checks.std,
)  # fmt: skip
def stream(
    name: str,
    *,
    root: str | PathLike | None = None,
    seed: int = 0,
    image_size: int | None = None,
    skip_broken: bool = False,
    mean: Sequence[float] | Float32[Tensor, " channels"] | None = None,
    std: Sequence[float] | Float32[Tensor, " channels"] | None = None,
) -> ImageDataset:
    """The same data set as `load` gives, its images decoded when they are needed: for sets larger than the memory.

    Every file is read once in the beginning: broken ones are found then and not in the middle of a training, and the
    mean and standard deviation are those that `load` would give. What was found is kept in the user's cache folder
    for as long as no file changes. A training on a stream sees the same images in the same order as one in memory,
    and ends with the same weights, bit for bit, but for fixed `views=`, which are drawn otherwise. The images are
    decoded by processes of torch's `DataLoader`, the next batch while a step runs. A script that starts processes anew
    (Windows, macOS) needs the usual `if __name__ == "__main__":`.

    Args:
        name: "folder:PATH", or a set of photographs by name (`kdlib.data.photographs`).
        root, seed, image_size, skip_broken: as in `load`.
        mean, std: a number for each channel, in units of pixels in [0, 1], in place of those of the images.

    Returns:
        The three splits. Their `.images` can be asked for rows, `images[rows]`, and nothing else; `.in_memory()` of
        a split, or of a part of it, decodes all of it.

    Raises:
        As `load`; ValueError where a set is not one of files.
    """
    files = _files(name, root, image_size=image_size, skip_broken=skip_broken)
    if files is None:
        raise ValueError(f"name={name!r} is a set that is in memory whole: give it to kdlib.data.load")
    scanned = scan(files.paths, image_size=image_size, skip_broken=skip_broken)
    files = _without(files, scanned.skipped, seed)
    own_mean, own_std = scanned.statistics(files.rows("train"))
    mean, std = own_mean if mean is None else mean, own_std if std is None else std
    train, validation, test = (
        StreamSplit(
            StreamedFiles([files.paths[row] for row in rows], scanned.shape, image_size),
            *map(torch.as_tensor, _labels(files, rows)), mean, std,
        )
        for _, rows in _by_split(files)
    )  # fmt: skip
    return _noted(ImageDataset(train, validation, test, list(files.classes), scanned.skipped, files.notes))


def _files(
    name: str, root: Path | None, *, image_size: int | None, skip_broken: bool
) -> image_files.ImageFiles | None:
    """The files of a data set; None of one that comes as arrays."""
    if name in photographs.NAMES:
        return photographs.find(name, root)
    if not name.startswith(folders.PREFIX):
        for argument, given in (("image_size", image_size is not None), ("skip_broken", skip_broken)):
            if given:
                raise ValueError(
                    f"{argument} is for photographs in files; the images of {name!r} have one size"
                )
        return None
    if root is not None:
        raise ValueError(f"root={str(root)!r} is not used by load({name!r}): the path is part of the name")
    path = name.removeprefix(folders.PREFIX)
    if not path or "\0" in path:
        raise ValueError(f"name={name!r} has no path of a folder behind {folders.PREFIX!r}: {folders.LAYOUT}")
    folder = _expanded("name", path)
    return tables.find(folder) if tables.stands_in(folder) else folders.find(folder)


def _without(files: image_files.ImageFiles, skipped: dict[str, str], seed: int) -> image_files.ImageFiles:
    """The files that can be read, in three splits."""
    if not skipped:
        return files.with_validation(seed)
    kept = files.keep(np.array([path not in skipped for path in files.paths]))
    emptied = sorted(set(files.splits) - set(kept.splits) - {"train"})
    if emptied:
        raise ValueError(
            f"of {' and '.join(emptied)} no image is left, because {len(skipped)} files are broken, such as "
            f"{next(iter(skipped.values()))}"
        )
    image_files.refuse_lost_classes(kept, skipped)
    kept = kept.with_validation(seed)
    image_files.refuse_lost_classes(kept, skipped)
    return kept


def _by_split(files: image_files.ImageFiles) -> list[tuple[str, np.ndarray]]:
    return [(split, files.rows(split)) for split in ("train", "validation", "test")]


def _labels(files: image_files.ImageFiles, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return files.labels[rows], files.indices[rows]


def _noted(dataset: ImageDataset) -> ImageDataset:
    """Say aloud what somebody who only looks at an accuracy would not hear of."""
    said = list(dataset.notes)
    if dataset.skipped:
        said.append(
            f"{len(dataset.skipped)} broken files were left out (.skipped lists them), such as "
            f"{next(iter(dataset.skipped.values()))}"
        )
    for note in said:
        warnings.warn(note, stacklevel=4)
    return dataset


def _in_three_splits(source: sources.Source, seed: int) -> ImageDataset:
    train_images, validation_images = _cut_validation(source, seed)
    train = ImageSplit(*train_images)
    validation, test = (
        ImageSplit(*images, train.mean, train.std) for images in (validation_images, source.test)
    )
    return ImageDataset(train, validation, test, list(source.classes))


def _cut_validation(source: sources.Source, seed: int) -> tuple[sources.Images, sources.Images]:
    """What is left of the training images, and about a tenth of them."""
    labels = source.train.labels
    n = max(1, round(len(labels) * image_files.VALIDATION_FRACTION))
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[stratified(strata(labels), n, seed)] = True
    train, validation = (
        sources.Images(*(part[rows] for part in source.train)) for rows in (~held_out, held_out)
    )
    return train, validation
