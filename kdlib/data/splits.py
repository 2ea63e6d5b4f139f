"""Images held in memory as uint8, with labels of one kind or another and what normalises them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from kdlib._checks import checked, natural_number

Array = Tensor | np.ndarray
Positions = Tensor | np.ndarray | Sequence | slice

# Soft labels that were averaged or stored in half precision do not sum to 1 exactly.
_SUM_TOLERANCE = 1e-3


def _as_tensor(name: str, values: Any) -> Tensor:
    """Numbers in memory as a tensor on the CPU, shared where they can be."""
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_meta or values.is_quantized:
            raise ValueError(
                f"{name} must be a dense tensor of plain numbers, got {values.layout} {values.dtype}"
            )
        return values.detach().as_subclass(Tensor).cpu().contiguous()
    try:
        array = np.require(values, requirements="CW")  # copies what torch could not write to
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be a rectangular array of numbers ({error})") from error
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16:
        raise ValueError(f"{name} must be an array of numbers, got {_named(values)} of dtype {array.dtype}")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _named(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _images(name: str, values: Any) -> UInt8[Tensor, "n channels height width"]:
    tensor = _as_tensor(name, values)
    if tensor.dtype != torch.uint8:
        raise ValueError(f"{name} must be uint8 in 0..255, got {tensor.dtype}")
    if tensor.ndim != 4 or tensor.numel() == 0:
        raise ValueError(
            f"{name} must have the shape (n, channels, height, width), none of them 0, got {tuple(tensor.shape)}"
        )
    return tensor


def _labels(name: str, values: Any) -> Int64[Tensor, "..."] | Float32[Tensor, "n classes"]:
    tensor = _as_tensor(name, values)
    if tensor.ndim != 2:
        return _whole_numbers(name, tensor)
    if tensor.dtype != torch.bool and not tensor.is_floating_point():
        remedy = "[:, 0]" if tensor.shape[1] == 1 else ".argmax(axis=1)"
        raise ValueError(
            f"{name} of the shape (n, classes) must be float32 in [0, 1] or bool, got {tensor.dtype} of the shape "
            f"{tuple(tensor.shape)}: give {name}{remedy} where each image has one class, or the same numbers as "
            "float32 where it may have several"
        )
    outside = ~((tensor >= 0) & (tensor <= 1))  # so is NaN
    if outside.any():
        row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"{name} of the shape (n, classes) must be in [0, 1], "
            f"got {tensor[row, column].item()} at position {(row, column)}"
        )
    return tensor.to(torch.float32)


def _whole_numbers(name: str, values: Any) -> Int64[Tensor, "..."]:
    tensor = _as_tensor(name, values)
    if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(f"{name} must be whole numbers, got {tensor.dtype}")
    tensor = tensor.to(torch.int64)
    if tensor.numel() and tensor.min() < 0:
        raise ValueError(f"{name} must not be negative, got {tensor.min().item()}")
    return tensor


def _indices(name: str, values: Any) -> Int64[Tensor, "..."] | None:
    return None if values is None else _whole_numbers(name, values)


def _statistic(name: str, values: Any) -> Float32[Tensor, "..."] | None:
    if values is None:
        return None
    tensor = _as_tensor(name, values)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be real numbers, got {tensor.dtype}")
    return tensor.to(torch.float32)


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
        mean: one number per channel, for pixels in [0, 1]; the mean of these images where not given.
        std: likewise, above 0; the population standard deviation over all pixels where not given, with 1
            in place of the 0 of a constant channel.

    Raises:
        ValueError: a wrong dtype, a shape that does not fit, a number that is not in its range.
    """

    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"] | Float32[Tensor, "n classes"]
    indices: Int64[Tensor, " n"]
    mean: Float32[Tensor, " channels"]
    std: Float32[Tensor, " channels"]

    @checked(images=_images, labels=_labels, indices=_indices, mean=_statistic, std=_statistic)
    def __init__(
        self,
        images: Array,
        labels: Array | Sequence,
        indices: Array | Sequence | None = None,
        mean: Array | Sequence | None = None,
        std: Array | Sequence | None = None,
    ) -> None:
        self.images = images
        self.labels = _one_row_an_image("labels", labels, images)
        rows = torch.arange(len(images)) if indices is None else indices
        self.indices = _one_number_an_image("indices", rows, images)
        if mean is None or std is None:
            own_mean, own_std = _statistics(self.images)
            mean = own_mean if mean is None else mean
            std = own_std if std is None else std
        self.mean = _one_number_a_channel("mean", mean, images)
        self.std = _one_number_a_channel("std", std, images)
        if not (self.std > 0).all():
            raise ValueError(f"std must be positive, got {self.std.tolist()}")
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

    @checked(seed=natural_number)
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
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= len(self):
            raise ValueError(
                f"n must be a whole number from 1 to {len(self)}, the size of the split; got {n!r}"
            )
        return self.subset(stratified(self._strata(), int(n), seed))

    def subset(self, positions: Positions) -> "ImageSplit":
        """The images at these positions (row numbers, a mask or a slice), with the same mean and std."""
        rows = _as_index(positions)
        return ImageSplit(self.images[rows], self.labels[rows], self.indices[rows], self.mean, self.std)

    def normalized(self, positions: Positions | None = None) -> Float32[Tensor, "k channels height width"]:
        """The images, or those at these positions, as the networks see them: (images / 255 - mean) / std."""
        images = self.images if positions is None else self.images[_as_index(positions)]
        pixels = images.to(torch.float32)
        return pixels.div_(255).sub_(self.mean[:, None, None]).div_(self.std[:, None, None])

    def digest(self) -> str:
        """The sha256 (hex) of what a network sees: images, their shape, mean and std, but not the labels."""
        if self._digest is None:
            sha256 = hashlib.sha256(repr(tuple(self.images.shape)).encode())
            for tensor in (self.images, self.mean, self.std):
                sha256.update(tensor.numpy())
            self._digest = sha256.hexdigest()
        return self._digest

    def _strata(self) -> np.ndarray:
        """The class that each image counts for in a stratified choice; one for all where they have several."""
        if self.has_classes:
            return self.labels.numpy()
        are_soft = (self.labels.sum(dim=1) - 1).abs().max() < _SUM_TOLERANCE
        return self.labels.argmax(dim=1).numpy() if are_soft else np.zeros(len(self), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Three disjoint splits of one data set, all normalised by the statistics of `train`.

    Fit on `train`, choose settings on `validation`, and use `test` for the last line of a table.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    classes: list[str]

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
        raise TypeError(f"{name} must be a kdlib.data.ImageSplit, got {_named(value)}")
    return value


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


def _as_index(positions: Positions) -> Tensor | slice:
    # Torch would read a tuple of row numbers as one index per dimension.
    return positions if isinstance(positions, slice) else torch.as_tensor(positions)


def _one_row_an_image(name: str, values: Tensor, images: Tensor) -> Tensor:
    if len(values.shape) not in (1, 2) or len(values) != len(images) or 0 in values.shape:
        raise ValueError(
            f"{name} must hold one number per image, or one per image and class: {name} have the shape "
            f"{tuple(values.shape)}, images {tuple(images.shape)}"
        )
    return values


def _one_number_an_image(name: str, values: Tensor, images: Tensor) -> Tensor:
    if values.shape != images.shape[:1]:
        raise ValueError(
            f"{name} must hold one number per image: {name} have the shape {tuple(values.shape)}, "
            f"images {tuple(images.shape)}"
        )
    return values


def _one_number_a_channel(name: str, values: Tensor, images: Tensor) -> Tensor:
    if values.shape != images.shape[1:2] or not values.isfinite().all():
        raise ValueError(
            f"{name} must hold one finite number per channel: got {values.tolist()} of the shape "
            f"{tuple(values.shape)}, images have {tuple(images.shape)}"
        )
    return values
