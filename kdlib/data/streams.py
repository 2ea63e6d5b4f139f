"""Images that are decoded when they are needed, as a split like any other.

A `StreamSplit` is an `ImageSplit` whose `.images` can only be asked for rows. What a training sees of it, bit for bit,
is what it would see of the same images in memory. Batch after batch is decoded by the worker processes of torch's
`DataLoader`, the next one while a step runs; a few images are decoded on the spot.
"""

import hashlib
import multiprocessing
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import PIL
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from kdlib._checks import checked
from kdlib.data import _checks, pixels
from kdlib.data._checks import Positions
from kdlib.data.splits import ImageSplit

# Below so many images it takes longer to start processes than to decode them here.
_FEW = 256
_MOST_WORKERS = 8


class StreamedImages:
    """uint8 (n, channels, height, width) of which any rows can be had, and which stand nowhere as a whole.

    A kind of images says by `decode` what a row is, and by `fingerprint` what tells one set from another.
    """

    shape: tuple[int, int, int, int]

    def decode(self, rows: Sequence[int]) -> UInt8[Tensor, "k channels height width"]:
        """The images of these rows, decoded here and now."""
        raise NotImplementedError

    def part(self, rows: Int64[Tensor, " k"]) -> "StreamedImages":
        """The images of these rows, still not decoded."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """The same text for the same images."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, positions: Any) -> UInt8[Tensor, "... channels height width"]:
        rows = torch.arange(len(self))[positions]
        flat = rows.flatten().tolist()
        decoded = self.decode(flat) if flat else torch.empty(0, *self.shape[1:], dtype=torch.uint8)
        return decoded.view(*rows.shape, *self.shape[1:])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"images of a stream are decoded when they are needed and have no {name!r}: ask for rows by images[rows], "
            "or take a part of the split into memory by split.take(n).in_memory()"
        )

    def batches(self, batches: Sequence[Tensor]) -> Iterator[UInt8[Tensor, "... channels height width"]]:
        """The images of each batch of rows, in this order, decoded ahead by other processes where there are many."""
        workers = workers_for(sum(rows.numel() for rows in batches), self)
        # A generator of its own: the loader would otherwise draw from the global one, and change what follows.
        generator = torch.Generator()
        yield from DataLoader(
            self, sampler=batches, batch_size=None, num_workers=workers, generator=generator
        )


def workers_for(images: int, source: Any) -> int:
    """How many processes decode so many images of a source: one a core, or none where a process may have no children,
    there is little to do, or the source cannot be sent to another process."""
    if images < _FEW or multiprocessing.current_process().daemon or not _can_be_sent(source):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


def _can_be_sent(source: Any) -> bool:
    """Whether a new process can have it: a forked one has everything, another only what pickle takes, which a lambda
    of an augmentation is not, and finds no class that stands in a notebook."""
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if method == "fork":
        return True
    try:
        sent = pickle.dumps(source)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return hasattr(sys.modules["__main__"], "__file__") or b"__main__" not in sent


class StreamedFiles(StreamedImages):
    """Images in files.

    Args:
        paths: one for each image.
        shape: (channels, height, width), the same for all.
        image_size: as in `kdlib.data.pixels.read`.
    """

    def __init__(self, paths: Sequence[str], shape: tuple[int, int, int], image_size: int | None):
        self.paths, self.image_size = list(paths), image_size
        self.shape = (len(self.paths), *shape)

    def decode(self, rows: Sequence[int]) -> UInt8[Tensor, "k channels height width"]:
        """As `StreamedImages.decode`.

        Raises:
            ValueError: a file is not what it was when the set was looked through; the message names it.
        """
        channels, height, width = self.shape[1:]
        images = torch.empty(len(rows), channels, height, width, dtype=torch.uint8)
        for image, row in zip(images.numpy(), rows, strict=True):
            values = pixels.read(self.paths[row], self.image_size).values
            if values.shape[:2] != (height, width) or values.ndim > 2 and channels == 1:
                raise ValueError(
                    f"the image {self.paths[row]} was replaced by one of another kind: load the set anew"
                )
            image[:] = values if values.ndim == 2 else values.transpose(2, 0, 1)
        return images

    def part(self, rows: Int64[Tensor, " k"]) -> "StreamedFiles":
        return StreamedFiles([self.paths[row] for row in rows.tolist()], self.shape[1:], self.image_size)

    def fingerprint(self) -> str:
        return fingerprint(self.paths, self.image_size)


def fingerprint(paths: Sequence[str], image_size: int | None) -> str:
    """A digest of where files lie, their sizes and times, the size at which they are read, and what reads them."""
    sha256 = hashlib.sha256(f"{image_size} {pixels.VERSION} {PIL.__version__}".encode())
    for path in paths:
        try:
            found = os.stat(path)
            state = f"{found.st_size}\0{found.st_mtime_ns}"
        except OSError:  # such as a link that leads nowhere: what reads the file says so
            state = "absent"
        sha256.update(f"{os.path.abspath(path)}\0{state}\n".encode("utf-8", "surrogateescape"))
    return sha256.hexdigest()


class StreamSplit(ImageSplit):
    """Images with labels, decoded when they are needed; see `kdlib.data.stream`.

    Args:
        images: what decodes them.
        labels, indices, mean, std: as in `ImageSplit`, all of them given.
    """

    images: StreamedImages

    def __init__(
        self,
        images: StreamedImages,
        labels: Int64[Tensor, " n"] | Float32[Tensor, "n classes"],
        indices: Int64[Tensor, " n"],
        mean: Float32[Tensor, " channels"],
        std: Float32[Tensor, " channels"],
    ) -> None:
        if len(mean) != images.shape[1] or len(std) != images.shape[1]:
            raise ValueError(
                f"mean and std must hold one number for each of the {images.shape[1]} channels, got {mean.tolist()} "
                f"and {std.tolist()}"
            )
        self.images, self.labels, self.indices, self.mean, self.std = images, labels, indices, mean, std
        self._digest: str | None = None

    @checked(_checks.some_rows_of_the_split)
    def subset(self, positions: Positions) -> "StreamSplit":
        """As `ImageSplit.subset`; its images are not decoded either."""
        rows = torch.arange(len(self))[positions]
        return StreamSplit(self.images.part(rows), self.labels[rows], self.indices[rows], self.mean, self.std)

    def pixel_batches(
        self, batches: Sequence[Int64[Tensor, "..."]]
    ) -> Iterator[UInt8[Tensor, "... channels height width"]]:
        """As `ImageSplit.pixel_batches`, decoded ahead."""
        return self.images.batches(batches)

    def in_memory(self) -> ImageSplit:
        """The same split with its images decoded."""
        images = torch.empty(self.images.shape, dtype=torch.uint8)
        rows = torch.arange(len(self)).split(64)
        for some, decoded in zip(rows, self.pixel_batches(rows), strict=True):
            images[some] = decoded
        return ImageSplit(images, self.labels, self.indices, self.mean, self.std)

    def digest(self) -> str:
        """The sha256 (hex) of what tells these images from others, not of their pixels: those would have to be
        decoded."""
        if self._digest is None:
            sha256 = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.fingerprint()}".encode())
            for tensor in (self.mean, self.std):
                sha256.update(tensor.numpy())
            self._digest = sha256.hexdigest()
        return self._digest
