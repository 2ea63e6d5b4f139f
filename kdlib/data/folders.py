"""A data set from a folder of image files: PATH/train/CLASS/* and PATH/test/CLASS/*.

Classes are the sorted folder names; images are taken in the sorted order of their paths, subfolders included.
Hidden files, and files that are no images by their suffix, are left out. Grey images stay one channel, unless
some of the others are coloured: then all become three. Transparent pixels become white, the rotation noted in
EXIF is applied, and of 16 bits a pixel the upper eight are kept.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from kdlib.data.sources import Images, Source

PREFIX = "folder:"
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
LAYOUT = "the layout is PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg"


def read(path: Path) -> Source:
    """Read every image below `path`.

    Raises FileNotFoundError for a missing folder; ValueError, naming the file or the class, for classes that
    differ between train and test, a class with no images, a file that cannot be read, or images of two sizes.
    """
    train_files, test_files = (_list_images(path, split) for split in ("train", "test"))
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
    images = _read_images(
        [file for split in (train_files, test_files) for files in split.values() for file in files]
    )
    boundary = sum(map(len, train_files.values()))
    train, test = _labelled(images[:boundary], train_files), _labelled(images[boundary:], test_files)
    return Source(train, test, list(train_files))


def _list_images(path: Path, split: str) -> dict[str, list[Path]]:
    folder = path / split
    if not folder.is_dir():
        missing = path if not path.is_dir() else folder
        raise FileNotFoundError(f"there is no folder {missing}: {LAYOUT}")
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise ValueError(f"there are no class folders in {folder}: {LAYOUT}")
    files = {name: sorted(_image_files(folder / name)) for name in names}
    empty = [name for name in names if not files[name]]
    if empty:
        raise ValueError(
            f"the classes {empty} in {folder} have no images: add some ({', '.join(sorted(SUFFIXES))}), "
            "or delete these folders from train and test"
        )
    return files


def _image_files(folder: Path) -> list[Path]:
    found = []
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        images = (name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES)
        found += [Path(parent, name) for name in images if not name.startswith(".")]
    return found


def _labelled(images: UInt8[np.ndarray, "n channels height width"], files: dict[str, list[Path]]) -> Images:
    labels = np.repeat(np.arange(len(files)), [len(members) for members in files.values()])
    return Images(images, labels, np.arange(len(labels)))


def _read_images(paths: Sequence[Path]) -> UInt8[np.ndarray, "n channels height width"]:
    height, width = _read_image(paths[0]).shape[:2]
    images = np.empty((len(paths), 3, height, width), dtype=np.uint8)

    def fill(row: int) -> bool:
        pixels = _read_image(paths[row])
        if pixels.shape[:2] != (height, width):
            raise ValueError(
                f"all images must have one size (width x height): {paths[0]} has {width}x{height}, "
                f"{paths[row]} has {pixels.shape[1]}x{pixels.shape[0]}. Resize or crop them to one size first"
            )
        is_grey = pixels.ndim == 2
        images[row] = pixels if is_grey else pixels.transpose(2, 0, 1)
        return is_grey

    with ThreadPoolExecutor() as pool:
        are_grey = list(pool.map(fill, range(len(paths))))
    return images[:, :1].copy() if all(are_grey) else images


def _read_image(path: Path) -> UInt8[np.ndarray, "height width"] | UInt8[np.ndarray, "height width 3"]:
    try:
        with Image.open(path) as image:
            return _to_uint8(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path} ({error}): replace or delete it") from error


def _to_uint8(image: Image.Image) -> np.ndarray:
    """Grey images as (height, width), all others as (height, width, 3)."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        return (values >> 8).astype(np.uint8)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    channels = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert(channels))
