"""Images held in memory as uint8, with labels of one kind or another and what normalises them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from kdlib._checks import checked, natural_number
from kdlib.data import _checks
from kdlib.data._checks import Array, Positions

# Soft labels that were averaged or stored in half precision do not sum to 1 exactly.
_SUM_TOLERANCE = 1e-3


class ImageSplit:
    """Images with labels, in memory, and the statistics that normalise them.

    Tensors and numpy arrays are shared where they can be, so do not write to them afterwards: `digest` is
    computed once.

    Args:
        images: uint8 (n, channels, height, width).
        labels: the class of each image, whole numbers (n,) of at least 0, kept as int64; or numbers in [0, 1]
            of the shape (n, classes), kept as float32: which of several labels an image has (0 and 1, or bool),
            or soft labels (probabilities).
        indices: whole numbers (n,), the rows in the original set; 0..n-1 where not given.
        mean: one number in [0, 1] per channel, for pixels in [0, 1]; that of these images where not given.
        std: one number per channel, above 0 and at most 1, for pixels in [0, 1]; where not given, the
            population standard deviation over all pixels, with 1 in place of the 0 of a constant channel.

    Raises:
        ValueError: a wrong dtype, a shape that does not fit, a number that is not in its range.
    """

    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"] | Float32[Tensor, "n classes"]
    indices: Int64[Tensor, " n"]
    mean: Float32[Tensor, " channels"]
    std: Float32[Tensor, " channels"]

    @checked(
        _checks.belong_together,
        images=_checks.images,
        labels=_checks.labels,
        indices=_checks.indices,
        mean=_checks.mean,
        std=_checks.std,
    )
    def __init__(
        self,
        images: Array,
        labels: Array | Sequence,
        indices: Array | Sequence | None = None,
        mean: Array | Sequence | None = None,
        std: Array | Sequence | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.indices = torch.arange(len(images)) if indices is None else indices
        if mean is None or std is None:
            own_mean, own_std = _statistics(images)
            mean = own_mean if mean is None else mean
            std = own_std if std is None else std
        self.mean = mean
        self.std = std
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        channels, height, width = self.images.shape[1:]
        classes = (
            f"{len(self.labels.unique())} classes"
            if self.has_classes
            else f"labels in [0, 1] for {self.labels.shape[1]} classes"
        )
        return f"ImageSplit({len(self)} images of {channels}x{height}x{width}, {classes})"

    @property
    def has_classes(self) -> bool:
        """Whether each image has one class (labels int64 (n,)), and not a number in [0, 1] for each class."""
        return self.labels.ndim == 1

    @checked(_checks.size_of_a_part, seed=natural_number)
    def take(self, n: int, *, seed: int = 0) -> "ImageSplit":
        """A stratified random choice of n images: each class has n * (its share), rounded up or down.

        The images keep their order, their indices, and this split's mean and std. Where the labels are numbers
        for each class, an image counts for the class of its largest one if every row sums to 1 (soft labels);
        otherwise (several labels an image) the choice is random without strata.

        Args:
            n: how many, from 1 to the size of the split.
            seed: chooses the images.

        Raises:
            ValueError: n is out of its range.
        """
        return self.subset(stratified(strata(self.labels.numpy()), n, seed))

    @checked(_checks.some_rows_of_the_split)
    def subset(self, positions: Positions) -> "ImageSplit":
        """The images at these positions, with the same mean and std.

        Args:
            positions: row numbers (negative ones count from the end), a mask, or a slice; at least one image.

        Raises:
            ValueError: a position that is no row of the split, or none at all.
        """
        parts = (self.images, self.labels, self.indices)
        return ImageSplit(*(part[positions] for part in parts), self.mean, self.std)

    @checked(_checks.rows_of_the_split)
    def normalized(self, positions: Positions | None = None) -> Float32[Tensor, "k channels height width"]:
        """The images as the networks see them: (images / 255 - mean) / std.

        Args:
            positions: as in `subset`, or none; all images where not given.

        Raises:
            ValueError: a position that is no row of the split.
        """
        images = self.images if positions is None else self.images[positions]
        pixels = images.to(torch.float32)
        return pixels.div_(255).sub_(self.mean[:, None, None]).div_(self.std[:, None, None])

    def pixel_batches(
        self, batches: Sequence[Int64[Tensor, "..."]]
    ) -> Iterator[UInt8[Tensor, "... channels height width"]]:
        """The images at the positions of each batch, one batch after another.

        Args:
            batches: row numbers; those of several students side by side have a column for each.
        """
        return (self.images[rows] for rows in batches)

    def in_memory(self) -> "ImageSplit":
        """The split with all its images in memory, as this one is already."""
        return self

    def digest(self) -> str:
        """The sha256 (hex) of what a network sees: images, their shape, mean and std, but not the labels."""
        if self._digest is None:
            sha256 = hashlib.sha256(repr(tuple(self.images.shape)).encode())
            for tensor in (self.images, self.mean, self.std):
                sha256.update(tensor.numpy())
            self._digest = sha256.hexdigest()
        return self._digest


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Three disjoint splits of one data set, all normalised by the statistics of `train`.

    Fit on `train`, choose settings on `validation`, and use `test` for the last line of a table.

    Args:
        skipped: broken image files that were left out, and what is wrong with each.
        notes: what must be known of how the splits came about.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    classes: list[str]
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> Float32[Tensor, " channels"]:
        return self.train.mean

    @property
    def std(self) -> Float32[Tensor, " channels"]:
        return self.train.std


def is_split(name: str, value: Any) -> ImageSplit:
    """A rule for `kdlib._checks.checked`: images with labels, and not the data set that holds three of them."""
    if isinstance(value, ImageDataset):
        raise TypeError(
            f"{name} must be one split, got an ImageDataset: give its .train, .validation or .test"
        )
    if not isinstance(value, ImageSplit):
        raise TypeError(f"{name} must be a kdlib.data.ImageSplit, got {_checks.named(value)}")
    return value


def is_dataset(name: str, value: Any) -> ImageDataset:
    """A rule for `kdlib._checks.checked`: a data set, and not one of its splits."""
    if not isinstance(value, ImageDataset):
        raise TypeError(f"{name} must be a kdlib.data.ImageDataset, got {type(value).__name__}")
    return value


def strata(labels: np.ndarray) -> np.ndarray:
    """The class that each image counts for in a stratified choice; one for all where they have several."""
    if labels.ndim == 1:
        return labels
    are_soft = np.abs(labels.sum(axis=1) - 1).max() < _SUM_TOLERANCE
    return labels.argmax(axis=1) if are_soft else np.zeros(len(labels), dtype=np.int64)


def stratified(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Sorted positions of n random rows; shares by the largest remainder, ties between classes by chance."""
    random = np.random.default_rng(seed)
    _, class_of_row, class_sizes = np.unique(labels, return_inverse=True, return_counts=True)
    counts, remainders = np.divmod(n * class_sizes, len(labels))
    classes = random.permutation(len(class_sizes))
    largest_first = classes[np.argsort(-remainders[classes], kind="stable")]
    counts[largest_first[: n - counts.sum()]] += 1
    members = (np.flatnonzero(class_of_row == label) for label in range(len(class_sizes)))
    chosen = [random.permutation(rows)[:count] for rows, count in zip(members, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


def in_groups(groups: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Sorted positions of about n random rows that part no group; at least one group is among them."""
    names, group_of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    chosen, missing = np.zeros(len(names), dtype=bool), n
    for group in np.random.default_rng(seed).permutation(len(names)):
        if abs(missing - sizes[group]) < missing:  # with it the number is nearer to n
            chosen[group] = True
            missing -= sizes[group]
    if not chosen.any():
        chosen[sizes.argmin()] = True
    return np.flatnonzero(chosen[group_of_row])


def _statistics(images: UInt8[Tensor, "n channels height width"]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, exact: from the histogram of its 256 values."""
    histograms = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chunk in images.split(1_000):  # bincount works on an int64 copy of its input
        histograms += torch.stack(
            [torch.bincount(pixels.flatten(), minlength=256) for pixels in chunk.unbind(1)]
        )
    weights = histograms.double() / histograms.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = weights @ values
    std = (weights * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()
