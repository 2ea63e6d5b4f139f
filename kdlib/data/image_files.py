"""A data set as files: which there are, and how they become images in memory."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from kdlib.data import pixels
from kdlib.data.splits import in_groups, strata, stratified

VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2
# Numbers that leave two or more of 16 bits unused in all images are numbers of 14, 12 or 10 bits.
_BRIGHT = 2**14


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The files of a data set, before any of them is decoded.

    Args:
        paths: one for each image.
        labels: a class for each image, or a number for each class.
        splits: "train", "validation" or "test" for each image.
        indices: the number of each image where it comes from: in its split, or in the table.
        classes: the names.
        groups: a number for each image where some must not be parted, such as those of one patient.
        notes: what a reader must know of how the splits came about.
    """

    paths: list[str]
    labels: Int64[np.ndarray, " n"] | Float32[np.ndarray, "n classes"]
    splits: np.ndarray
    indices: Int64[np.ndarray, " n"]
    classes: list[str]
    groups: Int64[np.ndarray, " n"] | None = None
    notes: tuple[str, ...] = ()

    def rows(self, split: str) -> Int64[np.ndarray, " k"]:
        """Where the images of a split stand."""
        return np.flatnonzero(self.splits == split)

    def keep(self, kept: np.ndarray) -> "ImageFiles":
        """Those files alone that are marked in `kept`."""
        return replace(
            self, paths=[path for path, keep in zip(self.paths, kept, strict=True) if keep],
            labels=self.labels[kept], splits=self.splits[kept], indices=self.indices[kept],
            groups=None if self.groups is None else self.groups[kept],
        )  # fmt: skip

    def with_test(self) -> "ImageFiles":
        """A stratified fifth of the training images becomes the test split, where there is none.

        The choice is seeded by a constant, so that it stays the same whatever seed chooses the validation images.
        """
        if "test" in self.splits:
            return self
        rows = self.rows("train")
        cut = self._cut("test", TEST_FRACTION, seed=0)
        how = "the same share of each class" if self.groups is None else "whole groups"
        note = (
            f"there is no test split: {len(cut.rows('test'))} of {len(rows)} images, {how}, were cut for it at random "
            "(seed 0). Images that belong together, such as views of one object, may stand on both sides"
        )
        return replace(cut, notes=(*self.notes, note))

    def with_validation(self, seed: int) -> "ImageFiles":
        """About a tenth of the training images becomes the validation split, where there is none."""
        return self if "validation" in self.splits else self._cut("validation", VALIDATION_FRACTION, seed)

    def _cut(self, split: str, fraction: float, seed: int) -> "ImageFiles":
        """A share of the training images becomes this split: of each class, or whole groups."""
        rows = self.rows("train")
        n = max(1, round(len(rows) * fraction))
        if self.groups is None:
            chosen = stratified(strata(self.labels[rows]), n, seed)
        else:
            chosen = in_groups(self.groups[rows], n, seed)
        splits = self.splits.astype("<U10")
        splits[rows[chosen]] = split
        return replace(self, splits=splits)


class Decoded(NamedTuple):
    """The images of files, in their order, those that are broken left out.

    Args:
        images: of one size; grey ones have one channel if all are grey.
        skipped: the broken files, and what is wrong with each.
    """

    images: UInt8[np.ndarray, "n channels height width"]
    skipped: dict[str, str]


def decode(paths: Sequence[str], *, image_size: int | None, skip_broken: bool) -> Decoded:
    """Read the images into memory.

    Raises:
        ValueError: images of two sizes where no `image_size` is given, pixels of fewer bits than their files have,
            no image at all; a broken file, unless it is to be skipped. The message names the file.
    """
    first, height, width = _first_shape(paths, image_size, skip_broken)
    images = np.empty((len(paths), 3, height, width), dtype=np.uint8)

    def fill(row: int) -> tuple[bool, int | None] | str:
        """Whether it is grey, and its brightest number; or what is wrong with it."""
        try:
            image = pixels.read(paths[row], image_size)
        except ValueError as error:
            if not skip_broken:
                raise
            return str(error)
        refuse_another_size(first, (height, width), paths[row], image.values.shape[:2])
        images[row] = image.values if image.is_grey else image.values.transpose(2, 0, 1)
        return image.is_grey, image.brightest

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(fill, range(len(paths))))
    skipped = {path: reason for path, reason in zip(paths, found, strict=True) if isinstance(reason, str)}
    read = [(path, *said) for path, said in zip(paths, found, strict=True) if not isinstance(said, str)]
    refuse_unused_bits((path, brightest) for path, _, brightest in read)
    if skipped:
        images = images[[not isinstance(said, str) for said in found]]
    return Decoded(images[:, :1].copy() if all(grey for _, grey, _ in read) else images, skipped)


def _first_shape(paths: Sequence[str], image_size: int | None, skip_broken: bool) -> tuple[str, int, int]:
    """The first file that can be read, and the height and width that all must have."""
    for path in paths:
        try:
            height, width = pixels.read(path, image_size).values.shape[:2]
        except ValueError:
            if not skip_broken:
                raise
            continue
        return path, height, width
    raise ValueError(
        f"none of the {len(paths)} image files can be read, the first is {paths[0]}: look at one of them"
    )


def refuse_another_size(first: str, wanted: tuple[int, int], path: str, found: tuple[int, int]) -> None:
    """All images of a set have one height and width.

    Raises:
        ValueError: this one does not.
    """
    if found != wanted:
        raise ValueError(
            f"all images must have one size (width x height): {first} has {wanted[1]}x{wanted[0]}, {path} has "
            f"{found[1]}x{found[0]}. Give image_size=, to which they are scaled and cropped, or do so first"
        )


def refuse_unused_bits(brightest: Iterable[tuple[str, int | None]]) -> None:
    """Of 16 bits the upper eight are kept, so they must be used.

    Raises:
        ValueError: all images of 16 bits are nearly black.
    """
    deep = [(number, path) for path, number in brightest if number is not None]
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


def refuse_lost_classes(files: ImageFiles, skipped: dict[str, str]) -> None:
    """Every class needs an image to learn from after the broken ones are left out.

    Raises:
        ValueError: one has none.
    """
    labels = files.labels[files.rows("train")]
    seen = set(np.unique(labels)) if labels.ndim == 1 else set(np.flatnonzero(labels.any(axis=0)))
    lost = [name for number, name in enumerate(files.classes) if number not in seen]
    if lost:
        raise ValueError(
            f"of the classes {lost} no image for train is left, because {len(skipped)} files are broken, such as "
            f"{next(iter(skipped.values()))}"
        )
