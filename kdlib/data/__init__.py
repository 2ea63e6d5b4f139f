"""Images held in memory as uint8, by the name of a data set or from a folder."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from kdlib.data import folders, sources

VALIDATION_FRACTION = 0.1
Array = Tensor | np.ndarray
Positions = Tensor | np.ndarray | Sequence | slice


def load(
    name: str = "fashion-mnist", *, root: str | PathLike | None = None, full: bool = False, seed: int = 0
) -> "ImageDataset":
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


class ImageSplit:
    """Images with labels, in memory, and the statistics that normalise them.

    images:  uint8 (n, channels, height, width)
    labels:  int64 (n,), each >= 0
    indices: int64 (n,), row numbers in the original set; 0..n-1 where not given
    mean, std: float32 (channels,), in units of pixels in [0, 1]; from these images where not given
      (population standard deviation over all pixels; 1 stands in for the 0 of a constant channel)

    Tensors and numpy arrays are shared where they can be, so do not write to them afterwards: `digest` is
    computed once. Labels, indices, mean and std may also be plain sequences. Raises ValueError for a wrong
    dtype, a shape that does not fit, a negative label or index, or a std that is not positive.
    """

    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]
    indices: Int64[Tensor, " n"]
    mean: Float32[Tensor, " channels"]
    std: Float32[Tensor, " channels"]

    def __init__(
        self,
        images: Array,
        labels: Array | Sequence,
        indices: Array | Sequence | None = None,
        mean: Array | Sequence | None = None,
        std: Array | Sequence | None = None,
    ) -> None:
        self.images = _checked_images(images)
        self.labels = _checked_integers("labels", labels, self.images)
        rows = torch.arange(len(self.images)) if indices is None else indices
        self.indices = _checked_integers("indices", rows, self.images)
        if mean is None or std is None:
            own_mean, own_std = _statistics(self.images)
            mean = own_mean if mean is None else mean
            std = own_std if std is None else std
        self.mean = _checked_statistic("mean", mean, self.images)
        self.std = _checked_statistic("std", std, self.images)
        if not (self.std > 0).all():
            raise ValueError(f"std must be positive, got {self.std.tolist()}")
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        channels, height, width = self.images.shape[1:]
        classes = len(self.labels.unique())
        return f"ImageSplit({len(self)} images of {channels}x{height}x{width}, {classes} classes)"

    def take(self, n: int, *, seed: int = 0) -> "ImageSplit":
        """A stratified random choice of n images: each class has n * (its share), rounded up or down.

        The images keep their order, their indices, and this split's mean and std. Raises ValueError unless
        1 <= n <= len(self).
        """
        if not isinstance(n, int | np.integer) or not 1 <= n <= len(self):
            raise ValueError(
                f"n must be a whole number from 1 to {len(self)}, the size of the split; got {n!r}"
            )
        return self.subset(_stratified(self.labels.numpy(), int(n), seed))

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


def _cut_validation(source: sources.Source, seed: int) -> ImageDataset:
    labels = source.train.labels
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[_stratified(labels, max(1, round(len(labels) * VALIDATION_FRACTION)), seed)] = True
    train = ImageSplit(*(part[~held_out] for part in source.train))
    validation = ImageSplit(*(part[held_out] for part in source.train), train.mean, train.std)
    test = ImageSplit(*source.test, train.mean, train.std)
    return ImageDataset(train, validation, test, list(source.classes))


def _stratified(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
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


def _as_tensor(values: Array | Sequence) -> Tensor:
    if isinstance(values, Tensor):
        return values.cpu().contiguous()
    return torch.from_numpy(np.require(values, requirements="CW"))  # copies what torch could not write to


def _checked_images(images: Array) -> UInt8[Tensor, "n channels height width"]:
    tensor = _as_tensor(images)
    if tensor.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 in 0..255, got {tensor.dtype}")
    if tensor.ndim != 4 or tensor.numel() == 0:
        raise ValueError(
            "images must have the shape (n, channels, height, width), none of them 0, "
            f"got {tuple(tensor.shape)}"
        )
    return tensor


def _checked_integers(name: str, values: Array | Sequence, images: Tensor) -> Int64[Tensor, " n"]:
    tensor = _as_tensor(values)
    if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(f"{name} must be whole numbers, got {tensor.dtype}")
    if tensor.shape != images.shape[:1]:
        raise ValueError(
            f"{name} must hold one number per image: {name} have the shape {tuple(tensor.shape)}, "
            f"images {tuple(images.shape)}"
        )
    tensor = tensor.to(torch.int64)
    if tensor.min() < 0:
        raise ValueError(f"{name} must not be negative, got {tensor.min().item()}")
    return tensor


def _checked_statistic(name: str, values: Array | Sequence, images: Tensor) -> Float32[Tensor, " channels"]:
    tensor = _as_tensor(values).to(torch.float32)
    if tensor.shape != images.shape[1:2] or not tensor.isfinite().all():
        raise ValueError(
            f"{name} must hold one finite number per channel: got {tensor.tolist()} of the shape "
            f"{tuple(tensor.shape)}, images have {tuple(images.shape)}"
        )
    return tensor
