"""Lesson 10, the classic pair: TeacherNet and StudentNet by the recipe of tutorial A.

    KDLIB_CLASSIC_DATA=folder:PATH kdlib record lesson10-classic    CIFAR-10 as JPEG files, train/CLASS and test/CLASS
    kdlib record lesson10-classic                                   the original CIFAR-10, which is downloaded

Adam at a constant 0.001, 50 epochs, no augmentation; the student copies the teacher at T = 4 by T^2 KL alone. Batches
hold 128 images. All 50,000 training images are used, since nothing is chosen. On one GPU it takes eight minutes, on two
cores a day.
"""

import functools
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from typing import Any

import pandas
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import data, losses, models
from kdlib.deploy.benchmark import latency
from kdlib.inference import pick_device
from kdlib.lesson.results import experiment

DATA = "KDLIB_CLASSIC_DATA"
EPOCHS, BATCH_SIZE, RATE, TEMPERATURE = 50, 128, 0.001, 4.0
SEEDS, TEACHERS = range(10), range(3)
TEACHER, STUDENT = "teacher-net", "student-net"
LABELS, SHORTER, DISTILLED = "labels", "labels, a third as long", "distilled"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PROCESSES = 5  # on one GPU; each holds the images


@functools.lru_cache(maxsize=1)
def _material(source: str, every: int) -> "Material":
    return Material(source, pick_device(None), every)


def _checked(source: str) -> str:
    """The data's name, once it has been loaded, and downloaded, here, and is CIFAR-10 or a folder of it."""
    dataset = data.load(source)
    shape, classes = tuple(dataset.train.images.shape[1:]), sorted(dataset.classes)
    if shape != (3, 32, 32) or classes != CLASSES:
        raise ValueError(
            f"{DATA} must be cifar10, or folder:PATH of CIFAR-10 as files, train/CLASS and test/CLASS: images of "
            f"(3, 32, 32) of {', '.join(CLASSES)}; got {source!r} with images of {shape} of {', '.join(classes)}"
        )
    return source


def _named(source: str) -> str:
    return "CIFAR-10" if source == "cifar10" else "CIFAR-10 as JPEG"


class Material:
    """All images on the device, or one of each `every`, normalised when they are used."""

    def __init__(self, source: str, device: torch.device, every: int = 1):
        dataset = data.load(source)
        train = [dataset.train, dataset.validation]
        self.mean, self.std = (one.to(device)[:, None, None] for one in (dataset.mean, dataset.std))
        self.images = torch.cat([split.images for split in train])[::every].to(device)
        self.labels = torch.cat([split.labels for split in train])[::every].to(device)
        self.test_images = dataset.test.images[::every].to(device)
        self.test_labels = dataset.test.labels[::every].to(device)
        self.device = device

    def seen(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return (images.float() / 255 - self.mean) / self.std

    @torch.no_grad()
    def answers(self, network: nn.Module, images: Tensor) -> Float[Tensor, "n classes"]:
        network.eval()
        return torch.cat([network(self.seen(part)) for part in images.split(1000)])

    def accuracy(self, network: nn.Module) -> float:
        right = self.answers(network, self.test_images).argmax(dim=1) == self.test_labels
        return right.float().mean().item()


def learn(
    network: nn.Module,
    material: Material,
    epochs: int,
    seed: int,
    teacher_logits: Float[Tensor, "n classes"] | None = None,
) -> None:
    """The recipe: labels, or the teacher's answers alone."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(material.images), generator=random).to(material.device)
        for positions in order.split(BATCH_SIZE):
            logits = network(material.seen(material.images[positions]))
            optimizer.zero_grad(set_to_none=True)
            _loss(logits, material.labels[positions], teacher_logits, positions).backward()
            optimizer.step()


def _loss(
    logits: Tensor, labels: Int[Tensor, " batch"], teacher_logits: Tensor | None, positions: Tensor
) -> Tensor:
    if teacher_logits is None:
        return F.cross_entropy(logits, labels)
    return losses.soft_target_loss(logits, teacher_logits[positions], TEMPERATURE)


def _built(name: str, seed: int, material: Material) -> nn.Module:
    size = material.images.shape[-1]
    return models.build(name, in_channels=3, image_size=size, seed=seed).to(material.device)


def _teacher(seed: int, source: str, epochs: int, every: int) -> tuple[dict[str, Any], Tensor]:
    material = _material(source, every)
    network = _built(TEACHER, seed, material)
    learn(network, material, epochs, seed)
    row = {
        "network": TEACHER,
        "arm": LABELS,
        "seed": seed,
        "epochs": epochs,
        "accuracy": material.accuracy(network),
    }
    return row, material.answers(network, material.images).cpu()


def _students(seed: int, source: str, epochs: int, every: int, answers: Tensor) -> list[dict[str, Any]]:
    material, rows = _material(source, every), []
    for arm in (LABELS, SHORTER, DISTILLED):
        student = _built(STUDENT, seed, material)
        passes = max(1, epochs // 3) if arm == SHORTER else epochs
        learn(student, material, passes, seed, answers.to(material.device) if arm == DISTILLED else None)
        accuracy = material.accuracy(student)
        rows.append({"network": STUDENT, "arm": arm, "seed": seed, "epochs": passes, "accuracy": accuracy})
    return rows


@experiment("lesson10-classic")
def classic(
    seeds: Sequence[int] = SEEDS, teachers: Sequence[int] = TEACHERS, epochs: int = EPOCHS, every: int = 1
) -> pandas.DataFrame:
    """Tutorial A's pair by its own recipe; students learn from the first teacher. See the file's head for the data."""
    source = _checked(os.environ.get(DATA) or "cifar10")
    count, context = (PROCESSES if torch.cuda.is_available() else 1), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        taught = list(pool.map(_teacher, teachers, repeat(source), repeat(epochs), repeat(every)))
        answers = taught[0][1]
        students = list(
            pool.map(_students, seeds, repeat(source), repeat(epochs), repeat(every), repeat(answers))
        )
    rows = [row for row, _ in taught] + [row for of_seed in students for row in of_seed]
    table = pandas.DataFrame(rows).round({"accuracy": 6})
    table.insert(0, "data", _named(source))
    return table


@experiment("lesson10-cost")
def cost(repeats: int = 20) -> pandas.DataFrame:
    """Parameters, bytes in float32 and milliseconds for one image of both networks, in turn, on one thread."""
    built = {
        name: models.build(name, in_channels=3, image_size=32, seed=0).eval() for name in (TEACHER, STUDENT)
    }
    measured = latency(built, image_shape=(3, 32, 32), repeats=repeats, threads=1).milliseconds
    rows = []
    for name, network in built.items():
        parameters = sum(one.numel() for one in network.parameters())
        row = {"network": name, "parameters": parameters, "bytes": 4 * parameters}
        rows += [
            row | {"repeat": number, "milliseconds": value} for number, value in enumerate(measured[name])
        ]
    return pandas.DataFrame(rows).round(5)
