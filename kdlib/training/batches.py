"""What a step of training sees: the order of the images, their views, and their normalisation.

The order depends on the seed and the epoch alone, so that a resumed training continues exactly as an
uninterrupted one, and so that students of one seed see the same images in the same order, trained alone or
several together.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdlib.data import ImageSplit, StreamSplit
from kdlib.inference import Preprocessing
from kdlib.training.augmentation import Augment, Mix, mixed, views_of


class Batch(NamedTuple):
    """One step's images. For several students side by side, `rows` and `labels` have a column for each."""

    rows: Tensor  # of the stored images, on the CPU
    images: Tensor  # normalised, on the device
    labels: Tensor  # on the device
    progress: float  # share of the training that is done, in [0, 1)
    pixels: (
        Tensor  # the images before they were normalised, in [0, 255], for a teacher that wants them otherwise
    )
    accuracies: tuple[float, ...] = ()  # on the validation split, after each epoch so far


class Batches:
    """The batches of a training.

    Args:
        split: the images.
        device: where the batches are wanted.
        seeds: one for each student; several students side by side get their images along the channels.
        batch_size: images a step, at most; an epoch is cut into batches of nearly equal size.
        epochs: of the whole training, for the share of it that is done.
        augment: draws a view of each image of a batch (`kdlib.training.augmentation.checked_augment`).
        mix: makes new images and soft labels out of a batch.
        views: so many fixed views an image, drawn once, in place of new ones in every step.
        preprocessing: of a student that carries its own, in place of the statistics of the split.
    """

    def __init__(
        self,
        split: ImageSplit,
        device: torch.device,
        *,
        seeds: Sequence[int],
        batch_size: int,
        epochs: int,
        augment: Augment | None = None,
        mix: Mix | None = None,
        views: int | None = None,
        preprocessing: Preprocessing | None = None,
    ):
        self.images_per_epoch, self.seeds, self.epochs, self.views = (
            len(split),
            list(seeds),
            epochs,
            views or 1,
        )
        self.split = split
        self.stored = split if views is None else views_of(split, augment, views, seeds[0])
        self.augment, self.mix = augment if views is None else None, mix
        self.steps = steps_per_epoch(len(split), batch_size)
        self.part = (0, 1)  # which process this is, of how many that share each batch
        self.device = device
        # Images that are decoded when they are needed do not lie anywhere to be moved.
        self.pixels = None if isinstance(self.stored, StreamSplit) else self.stored.images.to(device)
        self.labels = self.stored.labels.to(device)
        members = len(self.seeds)
        own = preprocessing or Preprocessing(split.mean.repeat(members), split.std.repeat(members))
        self.normalize = Preprocessing(own.mean.to(device), own.std.to(device), own.size)
        # A teacher without a preprocessing of its own wants what the split says, whatever the student wants.
        self.of_split = (
            None if preprocessing is None else Preprocessing(split.mean.to(device), split.std.to(device))
        )

    @property
    def live(self) -> bool:
        """Whether steps see other images than the stored ones."""
        return self.augment is not None or self.mix is not None

    @property
    def changed_by(self) -> str | None:
        """The argument that makes steps see other images than those of the split; None where they do not."""
        if self.mix is not None:
            return "mix"
        return None if self.augment is None and self.stored is self.split else "augment"

    def epoch(self, epoch: int, accuracies: tuple[float, ...] = ()) -> Iterator[Batch]:
        """One pass over the split, in the order of `seeds` and `epoch`. Seeds the global generator, from which
        augmentation and dropout draw."""
        parts = self._of_this_process(self._order(epoch).tensor_split(self.steps), epoch)
        decoded = self.stored.pixel_batches(parts) if self.pixels is None else [None] * self.steps
        for index, (rows, pixels) in enumerate(zip(parts, decoded, strict=True)):
            step = epoch * self.steps + index
            yield self.batch(rows, step / (self.steps * self.epochs), accuracies, pixels)

    def _of_this_process(self, parts: Sequence[Tensor], epoch: int) -> Sequence[Tensor]:
        """Its share of the rows of each batch. Other processes draw other views and other dropout."""
        rank, world = self.part
        if rank:
            seed_epoch(self.seeds[0] + rank * 7_368_787, epoch)
        return parts if world == 1 else [rows.tensor_split(world)[rank] for rows in parts]

    def batch(
        self, rows: Tensor, progress: float, accuracies: tuple[float, ...] = (), pixels: Tensor | None = None
    ) -> Batch:
        """These rows of the stored images, (batch,) or (batch, members); their pixels, where they are known."""
        on_device = rows.to(self.device)
        if pixels is None:
            pixels = self.stored.images[rows] if self.pixels is None else self.pixels[on_device]
        pixels, labels = pixels.to(self.device), self.labels[on_device]
        if rows.ndim == 2:
            pixels = pixels.flatten(1, 2)
        if self.augment is not None:
            pixels = self.augment(pixels)
        if self.mix is not None:
            pixels, labels = mixed(self.mix, pixels, labels)
        images = self.normalize(pixels).contiguous(memory_format=torch.channels_last)
        return Batch(rows, images, labels, progress, pixels, accuracies)

    def _order(self, epoch: int) -> Tensor:
        orders = []
        for seed in self.seeds:
            seed_epoch(seed, epoch)
            order = torch.randperm(self.images_per_epoch)
            orders.append(order if self.views == 1 else self._with_views(order, seed, epoch))
        return orders[0] if len(orders) == 1 else torch.stack(orders, dim=1)

    def _with_views(self, order: Tensor, seed: int, epoch: int) -> Tensor:
        """Rows of views. Each image begins with a view of its own and goes round: all are used equally often."""
        first = torch.Generator().manual_seed(seed % 2**63)
        start = torch.randint(self.views, (self.images_per_epoch,), generator=first)
        return order * self.views + (start[order] + epoch) % self.views


def seed_epoch(seed: int, epoch: int) -> None:
    """Everything that an epoch draws follows from this."""
    torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Batches of nearly equal size, at most `batch_size`: a leftover batch of one image would break batch norm.

    Where equal sizes leave a single image all the same (three images in batches of two), one batch gets it in
    addition.
    """
    steps = -(-images // batch_size)
    return steps if batch_size == 1 else max(1, min(steps, images // 2))
