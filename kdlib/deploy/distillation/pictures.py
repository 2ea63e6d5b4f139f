"""The images of a distillation: loaded or streamed, checked once, and found again by the names of their files."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdlib import data
from kdlib.data import ImageDataset, ImageSplit
from kdlib.deploy.distillation.settings import Settings

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Pictures:
    """A data set, and what was said of it while it was read.

    Args:
        dataset: its three splits and the names of its classes.
        notes: sentences, such as that a test split had to be cut.
        skipped: broken file -> what is wrong with it.
        names: (split, row in the original set) -> the name of the file; empty where images do not come as files.
    """

    dataset: ImageDataset
    notes: list[str]
    skipped: dict[str, str]
    names: dict[tuple[str, int], str]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        return tuple(self.dataset.train.images.shape[1:])

    def name(self, split: str, row: int) -> str:
        """How a person finds this image again: its file, or else its number in the original set."""
        index = int(getattr(self.dataset, split).indices[row])
        # Validation images were cut from those of train, unless they have a folder of their own.
        known = [
            self.names.get((kind, index)) for kind in (split, "train" if split == "validation" else split)
        ]
        return next(filter(None, known), f"image {index}")

    def describe(self) -> dict[str, Any]:
        """What has to be the same when a distillation is resumed, and what the report says of the images."""
        splits = {name: getattr(self.dataset, name) for name in SPLITS}
        return {
            "images": {name: len(split) for name, split in splits.items()},
            "shape": list(self.shape),
            "classes": list(self.dataset.classes),
            "mean": self.dataset.mean.tolist(),
            "std": self.dataset.std.tolist(),
            "digests": {name: split.digest() for name, split in splits.items()},
            "notes": self.notes,
            "skipped": self.skipped,
        }


def read(settings: Settings) -> Pictures:
    """Load the images that the settings name.

    Raises:
        ValueError, OSError: as `kdlib.data.load` and `kdlib.data.stream`; several labels an image, one class.
    """
    read_by = data.stream if settings.stream else data.load
    options: dict[str, Any] = {"seed": settings.seed}
    if settings.image_size is not None:
        options["image_size"] = settings.image_size
    if settings.skip_broken:
        options["skip_broken"] = True
    with warnings.catch_warnings(record=True) as heard:  # they are said in the report, and once on the way
        warnings.simplefilter("always")
        dataset = read_by(settings.data, **options)
    if not dataset.train.has_classes:
        raise ValueError(
            f"--data={settings.data!r} has several labels an image, and this command is for one class an image: see "
            "kdlib.training.distill with task_loss=torch.nn.functional.binary_cross_entropy_with_logits"
        )
    if len(dataset.classes) < 2:
        raise ValueError(
            f"--data={settings.data!r} has one class, {dataset.classes[0]!r}: there is nothing to tell apart"
        )
    skipped = _short(dict(getattr(dataset, "skipped", {})), settings)
    said = [*getattr(dataset, "notes", ())]
    other = [str(warning.message) for warning in heard if not skipped or "broken" not in str(warning.message)]
    notes = list(dict.fromkeys([*said, *other]))
    return Pictures(dataset, notes, skipped, _names(settings))


def in_memory(split: ImageSplit, rows: torch.Tensor) -> ImageSplit:
    """These rows of a split with their pixels, also of one whose images are decoded when they are needed."""
    return ImageSplit(split.images[rows], split.labels[rows], split.indices[rows], split.mean, split.std)


def _names(settings: Settings) -> dict[tuple[str, int], str]:
    if not settings.data.startswith("folder:"):
        return {}
    from kdlib.data import folders, tables

    folder = Path(settings.data.removeprefix("folder:"))
    files = tables.find(folder) if tables.stands_in(folder) else folders.find(folder)
    keys = zip(files.splits.tolist(), files.indices.tolist(), strict=True)
    return {key: _below(path, folder) for key, path in zip(keys, files.paths, strict=True)}


def _short(skipped: dict[str, str], settings: Settings) -> dict[str, str]:
    folder = Path(settings.data.removeprefix("folder:"))
    return {_below(path, folder): reason.replace(f"{folder}/", "") for path, reason in skipped.items()}


def _below(path: str, folder: Path) -> str:
    path = Path(path)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
