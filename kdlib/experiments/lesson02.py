"""The experiments of lesson 02. The lesson runs them small; `kdlib record` runs them in full."""

from collections.abc import Sequence

import numpy as np
import pandas
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import inference, metrics, models, sweeps, teachers, training
from kdlib.data import ImageSplit
from kdlib.experiments.lesson01 import EPOCHS, fashion, known_logits
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

# Chosen beforehand: the setting of lesson 01. No temperature was tuned on the test images.
TEMPERATURE = 4.0
ALPHA = 0.9
TEMPERATURES = (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 100)


# ------------------------------------------------------------------ students over the temperature


@experiment("lesson02-temperatures")
def temperatures(
    temperatures: Sequence[float | int] = TEMPERATURES, seeds: Sequence[int] = range(10)
) -> pandas.DataFrame:
    """Accuracy, calibration error and agreement over the temperature; alpha = 0 is the control by labels only."""
    dataset, teacher = fashion()
    test_logits = teachers.cached_logits(teacher, dataset.test)
    tables = []
    for seed in seeds:  # each seed has images of its own, as everywhere in the course
        transfer_set = dataset.train.take(1000, seed=seed)
        rows = sweeps.run(
            "tiny-cnn", known_logits(teacher, transfer_set), transfer_set, dataset.test, test_logits=test_logits,
            temperatures=temperatures, alphas=(0.0, ALPHA), seeds=[seed], epochs=EPOCHS,
        )  # fmt: skip
        tables.append(rows.drop(columns="seconds"))
    return pandas.concat(tables, ignore_index=True)


# ------------------------------------------------------------------ without T^2


def alpha_without_square(temperature: float | int, alpha: float = ALPHA) -> float:
    """The alpha that a loss without T^2 has in truth: its two terms have the ratio of that alpha's, with T^2."""
    teacher_weight = alpha / temperature**2
    return teacher_weight / (teacher_weight + 1 - alpha)


def without_square(temperature: float, seed: int, epochs: int) -> dict[str, float]:
    """A student of the loss at alpha = 0.9 from which T^2 was left out."""
    dataset, teacher = fashion()
    transfer_set = dataset.train.take(1000, seed=seed)
    student = models.build("tiny-cnn", seed=seed)
    training.distill(
        student, known_logits(teacher, transfer_set), transfer_set, epochs=epochs, temperature=temperature,
        alpha=alpha_without_square(temperature), seed=seed, progress=False,
    )  # fmt: skip
    return {"accuracy": metrics.accuracy(student, dataset.test)}


@experiment("lesson02-without-square")
def no_square(
    temperatures: Sequence[float | int] = (2, 4, 8, 24), seeds: Sequence[int] = range(10)
) -> pandas.DataFrame:
    """Test accuracy without the factor T^2, to set beside "lesson02-temperatures", which has it."""
    cells = [
        {"temperature": float(t), "seed": seed, "epochs": EPOCHS} for t in temperatures for seed in seeds
    ]
    return map_cells(without_square, cells)


# ------------------------------------------------------------------ parts of the soft target

TARGETS = (
    "label smoothing",
    "same for all images",
    "class means",
    "non-targets averaged",
    "class pattern, own confidence",
    "non-targets shuffled",
    "full soft target",
)


def reshaped(kind: str, soft: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """Soft targets (images, classes) of which a part is kept; every row still sums to 1.

    "Confidence" is the teacher's probability for the label; it stays but for the kinds of a whole class or set.
    """
    is_label = F.one_hot(labels, soft.shape[1]).bool()
    confidence = soft[is_label][:, None]
    others = soft[~is_label].view(len(soft), -1)
    if kind == "class means":  # every image of a class gets the mean soft target of its class
        return class_means(soft, labels)
    if kind == "same for all images":  # one confidence, no difference between the other classes
        confidence = confidence.mean().expand_as(confidence)
    if kind in ("same for all images", "non-targets averaged"):
        others = (1 - confidence).expand_as(others) / others.shape[1]
    if kind == "class pattern, own confidence":  # the class says which others, the image how much of them
        pattern = class_means(soft, labels)[~is_label].view_as(others)
        others = (1 - confidence) * pattern / pattern.sum(dim=1, keepdim=True)
    if kind == "non-targets shuffled":  # the same numbers, in each image at other classes
        order = torch.rand(others.shape, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
        others = others.gather(1, order)
    targets = torch.empty_like(soft)
    targets[is_label], targets[~is_label] = confidence.flatten(), others.flatten()
    return targets


def class_means(soft: Tensor, labels: Tensor) -> Tensor:
    """For each image (images, classes) the mean soft target of the images of its class."""
    return class_table(soft, labels)[labels]


def class_table(soft: Tensor, labels: Tensor) -> Tensor:
    """Row by row (classes, classes) the mean soft target of the images of one class."""
    return torch.stack([soft[labels == label].mean(dim=0) for label in range(soft.shape[1])])


def class_tree(table: Tensor) -> np.ndarray:
    """The tree of the classes of a `class_table`, as scipy's linkage: near are those that give each other much.

    Two classes lie -log of the mean of what they give each other apart; clusters are joined by average linkage.
    """
    # Imported here, as other lessons import this file for its table, not for its tree.
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    table = table.double()
    distance = -((table + table.T) / 2).log().numpy()
    np.fill_diagonal(distance, 0)
    return hierarchy.linkage(squareform(distance, checks=False), "average", optimal_ordering=True)


def families(tree: np.ndarray) -> set[frozenset[int]]:
    """The sets of classes that a tree joins, from pairs up to all but the whole."""
    from scipy.cluster import hierarchy

    joined = {frozenset(node.pre_order()) for node in hierarchy.to_tree(tree, rd=True)[1]}
    return {family for family in joined if 1 < len(family) <= len(tree)}


def as_logits(targets: Tensor, temperature: float | int) -> Tensor:
    """Logits whose softmax at that temperature is `targets`: so any target can take the teacher's place."""
    return temperature * targets.clamp(min=1e-30).log()


def one_target(target: str, seed: int, epochs: int) -> dict[str, float]:
    """A student that learns from one kind of target alone: alpha = 1 at T = 4, or hard or smoothed labels."""
    dataset, teacher = fashion()
    transfer_set = dataset.train.take(1000, seed=seed)
    student = models.build("tiny-cnn", seed=seed)
    settings = {"epochs": epochs, "seed": seed, "progress": False}
    if target in ("hard labels", "label smoothing"):
        smoothing = 0.1 if target == "label smoothing" else 0.0
        training.train(student, transfer_set, label_smoothing=smoothing, **settings)
    else:
        soft = (known_logits(teacher, transfer_set) / TEMPERATURE).softmax(dim=1)
        stand_in = as_logits(reshaped(target, soft, transfer_set.labels, seed), TEMPERATURE)
        training.distill(student, stand_in, transfer_set, temperature=TEMPERATURE, alpha=1.0, **settings)
    return {"accuracy": metrics.accuracy(student, dataset.test)}


@experiment("lesson02-targets")
def targets(seeds: Sequence[int] = range(10)) -> pandas.DataFrame:
    """Test accuracy of students that learn from a part of the soft target only."""
    kinds = ("hard labels", *TARGETS)
    return map_cells(
        one_target, [{"target": k, "seed": seed, "epochs": EPOCHS} for k in kinds for seed in seeds]
    )


# ------------------------------------------------------------------ teachers trained with label smoothing

STUDENT_TEMPERATURES = (1.0, 2.0, 4.0, 8.0)


def smoothed_teacher(
    smoothing: float, seed: int, images: int, epochs: int
) -> tuple[torch.nn.Module, ImageSplit]:
    """A teacher, half as wide again as the students, trained with label smoothing; and its students' images."""
    train = fashion()[0].train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = models.TinyCNN(widths=(24, 48, 96))
    training.train(
        teacher, train.take(images, seed=seed), epochs=epochs, batch_size=64, label_smoothing=smoothing, seed=seed,
        progress=False,
    )  # fmt: skip
    return teacher, train.take(min(images, 1000), seed=seed)


def beyond_class(logits: Tensor, labels: Tensor, temperature: float | int) -> float:
    """What soft targets tell about an image beyond its class, in nats: mean KL from its class's mean target."""
    soft = (logits / temperature).softmax(dim=1)
    means = reshaped("class means", soft, labels)
    return (torch.special.entr(means) - torch.special.entr(soft)).sum(dim=1).mean().item()


def students_of_smoothed(smoothing: float, seed: int, images: int, epochs: int) -> dict[str, float]:
    """A teacher trained with label smoothing, and its students at several temperatures (alpha = 0.9)."""
    dataset, _ = fashion()
    teacher, transfer_set = smoothed_teacher(smoothing, seed, images, epochs)
    logits = inference.predict_logits(teacher, transfer_set)
    test_logits = inference.predict_logits(teacher, dataset.test)
    row = {
        "teacher": metrics.accuracy(test_logits, dataset.test),
        "teacher_calibration_error": metrics.calibration_error(test_logits, dataset.test),
    }
    for temperature in STUDENT_TEMPERATURES:
        student = models.build("tiny-cnn", seed=seed)
        training.distill(
            student, logits, transfer_set, epochs=EPOCHS, temperature=temperature, alpha=ALPHA, seed=seed,
            progress=False,
        )  # fmt: skip
        row[f"T = {temperature:g}"] = metrics.accuracy(student, dataset.test)
        row[f"beyond_class, T = {temperature:g}"] = beyond_class(logits, transfer_set.labels, temperature)
    return row


@experiment("lesson02-smoothed-teachers")
def smoothed_teachers(
    smoothings: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.4), seeds: Sequence[int] = range(10)
) -> pandas.DataFrame:
    """Accuracy of teachers over the label smoothing they were trained with, and of their students."""
    cells = [
        {"smoothing": s, "seed": seed, "images": 9000, "epochs": 6} for s in smoothings for seed in seeds
    ]
    return map_cells(students_of_smoothed, cells)
