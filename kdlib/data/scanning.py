"""A first look at every file of a stream: which are broken, and what normalises the others.

A broken file is found here and not in the middle of a training. Sums of pixels and of their squares are whole
numbers, so that mean and standard deviation of any part of the set are exact.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader

from kdlib import _files
from kdlib.data import image_files, pixels
from kdlib.data.streams import fingerprint, workers_for

_AT_A_TIME = 64


@dataclass(frozen=True, eq=False)
class Scan:
    """What was found, the broken files left out.

    Args:
        shape: (channels, height, width) of every image.
        sums, squares: of the pixels of each image and channel, and of their squares.
        skipped: the broken files, and what is wrong with each.
    """

    shape: tuple[int, int, int]
    sums: Int64[np.ndarray, "n channels"]
    squares: Int64[np.ndarray, "n channels"]
    skipped: dict[str, str]

    def statistics(
        self, rows: Int64[np.ndarray, " k"]
    ) -> tuple[Float32[Tensor, " c"], Float32[Tensor, " c"]]:
        """Mean and population standard deviation of each channel over these images, for pixels in [0, 1]."""
        n = len(rows) * self.shape[1] * self.shape[2]
        mean, std = [], []
        for sums, squares in zip(self.sums.T, self.squares.T, strict=True):
            total, square = int(sums[rows].sum()), int(squares[rows].sum())
            variance = (n * square - total**2) / (n * 255) ** 2  # of whole numbers, so nothing cancels
            mean.append(total / (n * 255))
            std.append(variance**0.5 if variance > 0 else 1.0)
        return torch.tensor(mean), torch.tensor(std)


@dataclass(frozen=True, eq=False)
class _Looks:
    """What each file says; of a broken one the reason, and zeros."""

    sums: Int64[np.ndarray, "n 3"]
    squares: Int64[np.ndarray, "n 3"]
    sizes: Int64[np.ndarray, "n 2"]
    grey: Bool[np.ndarray, " n"]
    brightest: Int64[np.ndarray, " n"]  # -1 of an image of 8 bits
    reasons: np.ndarray


def scan(paths: Sequence[str], *, image_size: int | None, skip_broken: bool) -> Scan:
    """Look at every file, or remember what was found where none has changed.

    Raises:
        ValueError: as `kdlib.data.image_files.decode`.
    """
    looks = _looked_at(paths, image_size)
    broken = looks.reasons != ""
    if broken.all() or broken.any() and not skip_broken:
        raise ValueError(looks.reasons[broken][0])
    kept = ~broken
    files = [path for path, keep in zip(paths, kept, strict=True) if keep]
    sizes = looks.sizes[kept]
    for path, (height, width) in zip(files, sizes.tolist(), strict=True):
        image_files.refuse_another_size(files[0], tuple(sizes[0].tolist()), path, (height, width))
    deep = [None if number < 0 else number for number in looks.brightest[kept].tolist()]
    image_files.refuse_unused_bits(zip(files, deep, strict=True))
    channels = 1 if looks.grey[kept].all() else 3
    skipped = {path: str(why) for path, why in zip(paths, looks.reasons, strict=True) if why}
    shape = (channels, *sizes[0].tolist())
    return Scan(shape, looks.sums[kept, :channels], looks.squares[kept, :channels], skipped)


def _looked_at(paths: Sequence[str], image_size: int | None) -> _Looks:
    folder = _files.cache_folder()
    kept = None if folder is None else folder / "scans" / f"{fingerprint(paths, image_size)}.npz"
    remembered = None if kept is None else _read(kept)
    if remembered is not None:
        return remembered
    looks = _look(paths, image_size)
    # What was wrong may be mended without a trace in the file, such as a permission: broken sets are looked at anew.
    if kept is not None and not looks.reasons.astype(bool).any():
        _write(kept, looks)
    return looks


def _read(path: Path) -> _Looks | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _Looks(**archive)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile):
        return None  # absent or unreadable: looking again is the remedy for both


def _write(path: Path, looks: _Looks) -> None:
    content = io.BytesIO()
    np.savez(content, **vars(looks))
    try:
        _files.write(path, content.getvalue())
    except OSError:
        return  # a cache that cannot be written costs the next look, and nothing else


def _look(paths: Sequence[str], image_size: int | None) -> _Looks:
    groups = torch.arange(len(paths)).split(_AT_A_TIME)
    loader = DataLoader(
        _Looker(paths, image_size), sampler=groups, batch_size=None, num_workers=workers_for(len(paths), paths),
        collate_fn=_as_it_is, generator=torch.Generator(),
    )  # fmt: skip
    found = [look for looks in loader for look in looks]
    columns = zip(*found, strict=True)
    return _Looks(*(np.array(column) for column in columns))


class _Looker:
    """What each of some files says, for a `DataLoader`."""

    def __init__(self, paths: Sequence[str], image_size: int | None):
        self.paths, self.image_size = list(paths), image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> list[tuple]:
        return [_look_at(self.paths[row], self.image_size) for row in rows.tolist()]


def _look_at(path: str, image_size: int | None) -> tuple:
    """The fields of `_Looks` for one file."""
    try:
        image = pixels.read(path, image_size)
    except ValueError as error:
        return [0, 0, 0], [0, 0, 0], [0, 0], False, -1, str(error)
    values = image.values.reshape(-1, 1 if image.is_grey else 3).astype(np.int64)
    sums, squares = values.sum(axis=0), (values * values).sum(axis=0)
    several = [np.broadcast_to(numbers, 3).tolist() for numbers in (sums, squares)]
    brightest = -1 if image.brightest is None else image.brightest
    return *several, list(image.values.shape[:2]), image.is_grey, brightest, ""


def _as_it_is(looks: list[tuple]) -> list[tuple]:
    return looks
