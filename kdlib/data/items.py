"""Any map-style `torch.utils.data.Dataset` of (image, label) as a split, its images made when they are needed."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from kdlib._checks import checked
from kdlib.data import _checks
from kdlib.data.scanning import Scan
from kdlib.data.splits import ImageSplit, is_split
from kdlib.data.streams import StreamedImages, StreamSplit, workers_for

_AT_A_TIME = 64


def split_or_items(name: str, value: Any) -> ImageSplit:
    """A rule for `kdlib._checks.checked`: a split, or a torch data set, which becomes one."""
    return as_split(value) if isinstance(value, Dataset) else is_split(name, value)


def _items(name: str, value: Any) -> Dataset:
    if not isinstance(value, Dataset) or isinstance(value, IterableDataset) or not hasattr(value, "__len__"):
        raise TypeError(
            f"{name} must be a map-style torch.utils.data.Dataset, with items (image, label) and a length, got "
            f"{type(value).__name__}"
        )
    if not len(value):
        raise ValueError(f"{name} must hold at least one item, got none")
    return value


@checked(dataset=_items, mean=_checks.mean, std=_checks.std)
def as_split(
    dataset: Dataset,
    *,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
) -> StreamSplit:
    """A torch data set as a split that `train`, `distill`, `cached_logits` and the metrics take.

    They take the data set itself as well, and call this. Every item is asked for once here, for its label and for the
    statistics of the images: whoever trains several times gives the split.

    Args:
        dataset: its items are pairs (image, label). An image is one of Pillow's, a NumPy array uint8 (height, width)
            or (height, width, channels), or a tensor (channels, height, width), uint8 or floating-point in [0, 1]:
            without augmentation, for which there is `augment=`, and without normalisation, which is done by mean and
            std. A label is a class or, for several labels, a number in [0, 1] for each class.
        mean, std: a number for each channel, in units of pixels in [0, 1]; those of the images where not given.

    Raises:
        TypeError: no such data set.
        ValueError: items that are none of these, images of two shapes, a data set that gives another image each time
            it is asked. The message says which item.
    """
    found = _looked_at(dataset)
    if mean is None and std is None:
        return found
    mean, std = found.mean if mean is None else mean, found.std if std is None else std
    return StreamSplit(found.images, found.labels, found.indices, mean, std)


def _looked_at(dataset: Dataset) -> StreamSplit:
    for row in torch.linspace(0, len(dataset) - 1, min(8, len(dataset))).long().tolist():
        first = _pixels_of(dataset, row)
        if not all(np.array_equal(first, _pixels_of(dataset, row)) for _ in range(3)):
            raise ValueError(
                f"item {row} of the data set is another image each time it is asked for: take the augmentation out of "
                "its transform, and give it as augment="
            )
    loader = DataLoader(
        _Looker(dataset), sampler=torch.arange(len(dataset)).split(_AT_A_TIME), batch_size=None,
        num_workers=workers_for(len(dataset), dataset), collate_fn=_as_it_is, generator=torch.Generator(),
    )  # fmt: skip
    found = [look for looks in loader for look in looks]
    shapes, labels, sums, squares, digests = map(list, zip(*found, strict=True))
    for row, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"all images must have one shape: item 0 has {shapes[0]}, item {row} has {shape}"
            )
    scan = Scan(shapes[0], np.array(sums), np.array(squares), {})
    rows = torch.arange(len(dataset))
    images = StreamedItems(dataset, rows, shapes[0], digests)
    return StreamSplit(
        images, _checks.labels("labels", _together(labels)), rows, *scan.statistics(rows.numpy())
    )


def _together(labels: list[Any]) -> np.ndarray:
    kinds = {np.shape(label) for label in labels}
    if len(kinds) > 1:
        raise ValueError(f"all items must have labels of one shape, got {sorted(kinds)}")
    return np.array(labels)


class StreamedItems(StreamedImages):
    """The images of a torch data set.

    Args:
        dataset: of (image, label).
        rows: which of its items.
        shape: (channels, height, width) of each.
        digests: of the pixels of each.
    """

    def __init__(
        self, dataset: Dataset, rows: Int64[Tensor, " n"], shape: tuple[int, int, int], digests: Sequence[str]
    ):
        self.dataset, self.rows, self.digests = dataset, rows, list(digests)
        self.shape = (len(rows), *shape)

    def decode(self, rows: Sequence[int]) -> UInt8[Tensor, "k channels height width"]:
        return torch.from_numpy(np.stack([_pixels_of(self.dataset, int(self.rows[row])) for row in rows]))

    def part(self, rows: Int64[Tensor, " k"]) -> "StreamedItems":
        digests = [self.digests[row] for row in rows.tolist()]
        return StreamedItems(self.dataset, self.rows[rows], self.shape[1:], digests)

    def fingerprint(self) -> str:
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()


class _Looker:
    """What some items say, for a `DataLoader`."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, rows: Tensor) -> list[tuple]:
        return [self._look_at(row) for row in rows.tolist()]

    def _look_at(self, row: int) -> tuple:
        item = _item(self.dataset, row)
        values = _pixels(item[0], row)
        numbers = values.reshape(len(values), -1).astype(np.int64)
        label = item[1].tolist() if isinstance(item[1], Tensor | np.ndarray | np.generic) else item[1]
        return values.shape, label, numbers.sum(axis=1), (numbers**2).sum(axis=1), _digest(values)


def _as_it_is(looks: list[tuple]) -> list[tuple]:
    return looks


def _digest(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=8).hexdigest()


def _item(dataset: Dataset, row: int) -> tuple[Any, Any]:
    item = dataset[row]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ValueError(f"items must be pairs (image, label), item {row} is {type(item).__name__}")
    return item[0], item[1]


def _pixels_of(dataset: Dataset, row: int) -> UInt8[np.ndarray, "channels height width"]:
    return _pixels(_item(dataset, row)[0], row)


def _pixels(image: Any, row: int) -> UInt8[np.ndarray, "channels height width"]:
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(
            np.ascontiguousarray(image[None] if image.ndim == 2 else image.transpose(2, 0, 1))
        )
    if not isinstance(image, Tensor) or image.ndim != 3 or 0 in image.shape:
        shape = f" of shape {tuple(image.shape)}" if isinstance(image, Tensor) else ""
        raise ValueError(
            f"images must be Pillow's, uint8 arrays, or tensors (channels, height, width); item {row} has "
            f"{type(image).__name__}{shape}"
        )
    if image.dtype == torch.uint8:
        return image.numpy()
    if not image.is_floating_point() or not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"images must be uint8, or floating-point numbers in [0, 1]; item {row} has {image.dtype} from "
            f"{image.min().item():.4g} to {image.max().item():.4g}: take a normalisation out of the transform of the "
            "data set, and give mean= and std= to kdlib.data.items.as_split"
        )
    return (image * 255).round().to(torch.uint8).numpy()
