"""A task's images for learning, choosing and judging, from those of a data set."""

import functools
from collections.abc import Callable

from kdlib._checks import checked, function, natural_number, positive_integer
from kdlib.data import ImageDataset, ImageSplit
from kdlib.data.splits import is_dataset, is_split

Make = Callable[..., ImageSplit]  # (split, n, *, seed) -> images with labels

_OTHER_SEED = 10_000  # of the seeds of what a student learns from, none of which meets those of the judges


@checked(
    make=function, dataset=is_dataset, n=positive_integer, items=positive_integer, judges=positive_integer,
    seed=natural_number,
)  # fmt: skip
def material(
    make: Make, dataset: ImageDataset, n: int, *, items: int = 1000, judges: int = 2000, seed: int = 0
) -> ImageDataset:
    """`n` images to learn from, made of few labelled items, and the same `judges` for every seed.

    Args:
        make: such as `kdlib.tasks.collages.collages`.
        dataset: where the items come from; those to learn from are `items` of its training images.
        n: how many images to learn from.
        items: how many items they are made of, a stratified choice.
        judges: how many images to choose by (of validation items), and how many to be judged by (of test items).
        seed: chooses the items, and what is made of them.

    Returns:
        train, validation and test; all are normalised by the mean and std of train. Its `classes` are those of the
        items, whatever the labels of the task are.

    Raises:
        ValueError: more items than the data set has training images; what `make` refuses.
    """
    if items > len(dataset.train):
        raise ValueError(f"items must be at most the {len(dataset.train)} training images, got {items}")
    train = make(dataset.train.take(items, seed=seed), n, seed=_OTHER_SEED + seed)
    others = (normalised_like(_judges(make, split, judges), train) for split in (dataset.validation, dataset.test))
    return ImageDataset(train, *others, dataset.classes)


@functools.lru_cache(maxsize=16)
def _judges(make: Make, split: ImageSplit, n: int) -> ImageSplit:
    return make(split, n, seed=0)


@checked(split=is_split, other=is_split)
def normalised_like(split: ImageSplit, other: ImageSplit) -> ImageSplit:
    """The same images and labels with the mean and std of another split: of the one that a network learned from."""
    return ImageSplit(split.images, split.labels, split.indices, other.mean, other.std)


@checked(sensor=function, dataset=is_dataset)
def seen_by_sensor(sensor: Callable[[ImageSplit], ImageSplit], dataset: ImageDataset) -> ImageDataset:
    """The data set as a sensor of `kdlib.tasks.modalities` sees it; all is normalised by its training images."""
    train = sensor(dataset.train)
    others = (normalised_like(sensor(split), train) for split in (dataset.validation, dataset.test))
    return ImageDataset(train, *others, dataset.classes)
