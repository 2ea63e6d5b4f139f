"""A data set from a folder of image files: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* alone.

A folder PATH/validation (or val, or valid) is the validation split, where there is one; otherwise that is cut from
the training images. Where there is no PATH/test a stratified fifth of the training images becomes the test split,
and the data set says so. Classes are the sorted folder names; images are taken in the sorted order of their paths,
subfolders included. Hidden files, and files that are no images by their suffix, are left out. Links are followed; a
file to which several lead counts once. Grey images stay one channel, unless some of the others are coloured: then
all become three. How a file becomes pixels of 8 bits stands in `kdlib.data.pixels`.
"""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdlib.data.image_files import ImageFiles

PREFIX = "folder:"
SUFFIXES = {
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
LAYOUT = (
    "the layout is PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, or PATH/CLASS/*.jpg, or images with a table of "
    "labels PATH/labels.csv (see kdlib.data.tables)"
)
_NAMES = {
    "train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test", "testing"),
}  # fmt: skip

_NAMED = 3  # files or folders at most, in a message

# Class -> place (where all links lead) -> path of each image.
Files = dict[str, dict[str, Path]]


def find(path: Path) -> ImageFiles:
    """The image files below `path`, with their classes and splits; none is opened.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: classes that differ between train and test, a class with no images, a file that stands in two
            places, a folder that cannot be read. The message names the file or the class.
    """
    folders = _split_folders(path)
    by_split = {split: _list_images(folder, path) for split, folder in folders.items()}
    _refuse_other_classes(path, by_split)
    least = 2 if "test" in by_split else 3
    lonely = [name for name, files in by_split["train"].items() if len(files) < least]
    if lonely:
        had = "one image each: add another" if least == 2 else "fewer than three images each: add some"
        cut = "validation images are" if least == 2 else "validation and test images are"
        raise ValueError(
            f"the classes {lonely} in {folders['train']} have {had}, because {cut} cut from the training images"
        )
    _refuse_files_in_two_places(*by_split.values())
    classes = list(by_split["train"])
    files = [
        (str(file), classes.index(name), split, index)
        for split, by_class in by_split.items()
        for index, (name, file) in enumerate(
            (name, file) for name, members in by_class.items() for file in members.values()
        )
    ]
    paths, labels, splits, indices = zip(*files, strict=True)
    found = ImageFiles(list(paths), np.array(labels), np.array(splits), np.array(indices), classes)
    return replace(found, notes=_left_out(path, list(folders.values()), by_split)).with_test()


def _left_out(path: Path, folders: list[Path], by_split: dict[str, Files]) -> tuple[str, ...]:
    """Which images stand beside what was read: a folder by another name, or files outside of all classes."""
    taken = {place for files in by_split.values() for members in files.values() for place in members}
    beside = []
    for folder in dict.fromkeys([path, *folders]):
        for entry in entries(folder):
            is_read = is_folder(entry) and (folder in folders or Path(entry.path) in folders)
            if not is_read and any(place not in taken for place in _places(entry)):
                beside.append(entry.path)
    if not beside:
        return ()
    more = f" and {len(beside) - _NAMED} more" if len(beside) > _NAMED else ""
    named = ", ".join(beside[:_NAMED]) + more
    return (f"images outside the class folders of every split are left out: {named}",)


def _places(entry: os.DirEntry) -> Iterator[str]:
    """Where the images of a folder lie, if it may be read, or the one image that the entry itself is."""
    if is_folder(entry):
        if os.access(entry.path, os.R_OK | os.X_OK):
            yield from (place for _, place in _images_in(entry.path))
    elif _is_image(entry):
        yield os.path.realpath(entry.path)


def _split_folders(path: Path) -> dict[str, Path]:
    """Where the images of each split stand; those of train in `path` itself, where there are class folders alone."""
    inside = os.listdir(path) if os.path.isdir(path) else []
    found = {}
    for split, names in _NAMES.items():
        spelt = [one for name in names for one in inside if one.casefold() == name]
        there = [path / one for one in spelt if os.path.isdir(path / one)]
        if len(there) > 1:
            raise ValueError(f"{' and '.join(map(str, there))} mean the same split: leave one of them")
        if there:
            found[split] = there[0]
    if "train" not in found and "test" not in found and os.path.isdir(path):
        return {"train": path}
    return {"train": path / "train"} | found


def _refuse_other_classes(path: Path, by_split: dict[str, Files]) -> None:
    train = by_split["train"].keys()
    for split, files in by_split.items():
        if split == "test" and files.keys() != train or files.keys() - train:
            raise ValueError(
                f"train and {split} in {path} must have the same class folders: only train has "
                f"{sorted(train - files.keys())}, only {split} has {sorted(files.keys() - train)}"
            )


def _list_images(folder: Path, path: Path) -> Files:
    """The image files of a split by class, each file once."""
    if not os.path.isdir(folder):
        missing = path if not os.path.isdir(path) else folder
        raise FileNotFoundError(f"there is no folder {missing}: {LAYOUT}")
    class_folders = [entry for entry in entries(folder) if is_folder(entry)]
    if not class_folders:
        raise ValueError(f"there are no class folders in {folder}: {LAYOUT}")
    files: Files = {}
    # The same name may be spelt with composed or with combining characters, by where a folder was packed.
    for name, entry in sorted(
        (unicodedata.normalize("NFC", entry.name), entry.path) for entry in class_folders
    ):
        files.setdefault(name, {}).update(_each_once(entry))
    empty = [name for name, members in files.items() if not members]
    if empty:
        raise ValueError(
            f"the classes {empty} in {folder} have no images: add some ({', '.join(sorted(SUFFIXES))}), "
            "or delete these folders from train and test"
        )
    return files


def entries(folder: str | Path) -> list[os.DirEntry]:
    """What stands in a folder, sorted, without what is hidden.

    Raises:
        ValueError: it cannot be read, or a link in it leads nowhere and has not the name of an image (those are
            broken images, of which `kdlib.data.pixels.read` says so).
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"cannot read the folder {folder} ({error.strerror}): allow this user to read it"
        ) from error
    for entry in entries:
        if not _is_image(entry) and entry.is_symlink() and not os.path.exists(entry.path):
            raise ValueError(f"the link {entry.path} leads nowhere: mend or delete it")
    return [entry for entry in entries if not entry.name.startswith(".")]


def _each_once(folder: str) -> dict[str, Path]:
    by_place: dict[str, Path] = {}
    for path, place in sorted(_images_in(folder)):
        by_place.setdefault(place, path)
    return by_place


def _images_in(folder: str) -> Iterator[tuple[Path, str]]:
    top = os.path.realpath(folder)
    return _image_files(folder, top, {top})


def _image_files(folder: str, place: str, visited: set[str]) -> Iterator[tuple[Path, str]]:
    """The image files below a folder, with their places; where a link leads back into a loop is read once."""
    for entry in entries(folder):
        inner = is_folder(entry)
        plain = not inner and not entry.is_symlink()  # on Windows a folder may be a link of another kind
        leads_to = os.path.join(place, entry.name) if plain else os.path.realpath(entry.path)
        if inner:
            encloses = place.startswith(os.path.join(leads_to, ""))
            if leads_to not in visited and not encloses:
                visited.add(leads_to)
                yield from _image_files(entry.path, leads_to, visited)
        elif _is_image(entry):
            yield Path(entry.path), leads_to


def is_folder(entry: os.DirEntry) -> bool:
    """Or a link to one; of links in a ring `entry.is_dir` would raise an error."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_image(entry: os.DirEntry) -> bool:
    """By its name alone."""
    return os.path.splitext(entry.name)[1].lower() in SUFFIXES


def _refuse_files_in_two_places(*splits: Files) -> None:
    paths: dict[str, Path] = {}
    for place, path in (item for files in splits for members in files.values() for item in members.items()):
        other = paths.setdefault(place, path)
        if other != path:
            raise ValueError(
                f"{other} and {path} are links to one file: a file belongs to one class, and to train or to test"
            )
