"""A data set from a folder of image files: PATH/train/CLASS/* and PATH/test/CLASS/*.

Classes are the sorted folder names; images are taken in the sorted order of their paths, subfolders included.
Hidden files, and files that are no images by their suffix, are left out. Links are followed; a file to which
several lead counts once. Grey images stay one channel, unless some of the others are coloured: then all become
three. How a file becomes pixels of 8 bits stands in `kdlib.data.pixels`.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from kdlib.data import pixels
from kdlib.data.sources import Images, Source

PREFIX = "folder:"
SUFFIXES = {
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
LAYOUT = (
    "the layout is PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, or images with a table of labels "
    "PATH/labels.csv (see kdlib.data.tables)"
)
# Numbers that leave two or more of 16 bits unused in all images are numbers of 14, 12 or 10 bits.
_BRIGHT = 2**14

# Class -> place (where all links lead) -> path of each image.
Files = dict[str, dict[str, Path]]


def read(path: Path) -> Source:
    """Read every image below `path`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: classes that differ between train and test, a class with no images, a file that cannot be
            read or stands in two places, images of two sizes, pixels of fewer bits than their files have. The
            message names the file or the class.
    """
    train_files, test_files = (_list_images(path / split, path) for split in ("train", "test"))
    if train_files.keys() != test_files.keys():
        raise ValueError(
            f"train and test in {path} must have the same class folders: only train has "
            f"{sorted(train_files.keys() - test_files.keys())}, only test has "
            f"{sorted(test_files.keys() - train_files.keys())}"
        )
    lonely = [name for name, files in train_files.items() if len(files) < 2]
    if lonely:
        raise ValueError(
            f"the classes {lonely} in {path / 'train'} have one image each: add another, "
            "because validation images are cut from the training images"
        )
    _refuse_files_in_two_places(train_files, test_files)
    images = read_images(
        [file for split in (train_files, test_files) for files in split.values() for file in files.values()]
    )
    boundary = sum(map(len, train_files.values()))
    train, test = _labelled(images[:boundary], train_files), _labelled(images[boundary:], test_files)
    return Source(train, test, list(train_files))


def _list_images(folder: Path, path: Path) -> Files:
    """The image files of a split by class, each file once."""
    if not os.path.isdir(folder):
        missing = path if not os.path.isdir(path) else folder
        raise FileNotFoundError(f"there is no folder {missing}: {LAYOUT}")
    class_folders = [entry for entry in entries(folder) if entry.is_dir()]
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
        ValueError: it cannot be read, or a link in it leads nowhere.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"cannot read the folder {folder} ({error.strerror}): allow this user to read it"
        ) from error
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise ValueError(f"the link {entry.path} leads nowhere: mend or delete it")
    return [entry for entry in entries if not entry.name.startswith(".")]


def _each_once(folder: str) -> dict[str, Path]:
    by_place: dict[str, Path] = {}
    top = os.path.realpath(folder)
    for path, place in sorted(_image_files(folder, top, {top})):
        by_place.setdefault(place, path)
    return by_place


def _image_files(folder: str, place: str, visited: set[str]) -> Iterator[tuple[Path, str]]:
    """The image files below a folder, with their places; where a link leads back into a loop is read once."""
    for entry in entries(folder):
        is_folder = entry.is_dir()
        plain = not is_folder and not entry.is_symlink()  # on Windows a folder may be a link of another kind
        leads_to = os.path.join(place, entry.name) if plain else os.path.realpath(entry.path)
        if is_folder:
            encloses = place.startswith(os.path.join(leads_to, ""))
            if leads_to not in visited and not encloses:
                visited.add(leads_to)
                yield from _image_files(entry.path, leads_to, visited)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            if not entry.is_file():  # to open a named pipe would wait forever
                raise ValueError(f"{entry.path} has the name of an image but is no file: delete it")
            yield Path(entry.path), leads_to


def _refuse_files_in_two_places(*splits: Files) -> None:
    paths: dict[str, Path] = {}
    for place, path in (item for files in splits for members in files.values() for item in members.items()):
        other = paths.setdefault(place, path)
        if other != path:
            raise ValueError(
                f"{other} and {path} are links to one file: a file belongs to one class, and to train or to test"
            )


def _labelled(images: UInt8[np.ndarray, "n channels height width"], files: Files) -> Images:
    labels = np.repeat(np.arange(len(files)), [len(members) for members in files.values()])
    return Images(images, labels, np.arange(len(labels)))


def read_images(paths: Sequence[Path]) -> UInt8[np.ndarray, "n channels height width"]:
    """Images of one size, in this order; grey ones have one channel if all are grey.

    Raises:
        ValueError: a file that cannot be read, images of two sizes, or pixels of fewer bits than their files have.
    """
    height, width = pixels.read(paths[0]).values.shape[:2]
    images = np.empty((len(paths), 3, height, width), dtype=np.uint8)

    def fill(row: int) -> tuple[bool, int | None]:
        image = pixels.read(paths[row])
        if image.values.shape[:2] != (height, width):
            found_height, found_width = image.values.shape[:2]
            raise ValueError(
                f"all images must have one size (width x height): {paths[0]} has {width}x{height}, "
                f"{paths[row]} has {found_width}x{found_height}. Resize or crop them to one size first"
            )
        images[row] = image.values if image.is_grey else image.values.transpose(2, 0, 1)
        return image.is_grey, image.brightest

    with ThreadPoolExecutor() as pool:
        are_grey, brightest = zip(*pool.map(fill, range(len(paths))), strict=True)
    _refuse_unused_bits(paths, brightest)
    return images[:, :1].copy() if all(are_grey) else images


def _refuse_unused_bits(paths: Sequence[Path], brightest: Sequence[int | None]) -> None:
    deep = [(number, path) for number, path in zip(brightest, paths, strict=True) if number is not None]
    if not deep:
        return
    highest, path = max(deep)
    if highest < _BRIGHT:
        bits = max(8, highest.bit_length())
        raise ValueError(
            f"the images of 16 bits a pixel reach only {highest} of 65535 ({path} does), as numbers of {bits} bits "
            "do: of 16 bits the upper eight are kept, and these images would be nearly black. "
            f"Multiply their pixels by {2 ** (16 - bits)}, or save them with 8 bits, scaled to 0..255"
        )
