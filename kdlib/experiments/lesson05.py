"""The pair of lesson 05: ResNet-18 teaches MobileNetV2 x0.35, and a student is judged by the images it learned from.

Two cores take about a quarter of an hour. Nothing was tuned: both networks have the learning rate that is kdlib's
default, the students T = 5 and alpha = 0.7, as a tutorial on this pair recommends.
"""

import time
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

from kdlib import data, inference, metrics, models, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

TEACHER, STUDENT = "resnet18", "mobilenet_v2 x0.35"
PIXELS = 64
TEACHER_EPOCHS = 2
IMAGES, EPOCHS = 9000, 6
TEMPERATURE, ALPHA = 5.0, 0.7
LONGER = 2  # times
ALONE, LONG, DISTILLED = "labels only", "labels only, twice as long", "distillation"
LEAKED, LEAKED_IMAGES, LEAKED_EPOCHS = "trained on what it is judged by", 5000, 10  # as many passes as the tutorial
SEEDS = range(5)
A_PASS = 60000  # images


def enlarged(split: ImageSplit) -> ImageSplit:
    """28 pixels scaled to 64, between the nearest four linearly."""
    parts = [
        F.interpolate(part.float(), PIXELS, mode="bilinear").round().to(torch.uint8)
        for part in split.images.split(1000)
    ]
    return ImageSplit(torch.cat(parts), split.labels, split.indices, split.mean, split.std)


def images(*, full: bool = True) -> ImageDataset:
    """Fashion-MNIST at 64 pixels: 54,000 images to learn from, or the 9,000 that come with the course."""
    dataset = data.load("fashion-mnist", full=full)
    return ImageDataset(*map(enlarged, (dataset.train, dataset.validation, dataset.test)), dataset.classes)


def build(network: str, seed: int) -> nn.Module:
    """The torchvision network for one channel and ten classes."""
    if network == TEACHER:
        return models.build(TEACHER, in_channels=1, image_size=PIXELS, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = mobilenet_v2(width_mult=0.35, num_classes=10)
        first = student.features[0]  # a convolution for three channels, batch norm and ReLU6
        first[0] = nn.Conv2d(1, first[0].out_channels, kernel_size=3, stride=2, padding=1, bias=False)
    return student


def materials(*, full: bool = True, epochs: int = TEACHER_EPOCHS) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the students need, the images and the teacher's answers; and the row of the teacher itself."""
    dataset, teacher = images(full=full), build(TEACHER, 0)
    started = time.process_time()
    training.train(teacher, dataset.train, epochs=epochs, batch_size=128, seed=0, progress=False)
    seconds = time.process_time() - started
    answers = {name: answers_of(teacher, getattr(dataset, name)) for name in ("train", "test")}
    row = {
        "method": "teacher", "seed": 0, "images": len(dataset.train), "epochs": epochs, "judged_on": "test images",
        **judged(answers["test"], dataset.test, dataset.test), "processor_seconds": seconds,
    }  # fmt: skip
    return {"train": dataset.train, "test": dataset.test, "answers": answers}, row


def answers_of(network: nn.Module, split: ImageSplit) -> Tensor:
    """A network's logits, in bfloat16 where this machine is faster so."""
    faster = training.bfloat16_helps(network, inference.pick_device())
    return inference.predict_logits(network, split, bfloat16=faster)


def judged(network: nn.Module | Tensor, reported: ImageSplit, unseen: ImageSplit) -> dict[str, float]:
    """`accuracy` on the images by which a student is judged, `unseen` on images that it did not learn from."""
    accuracy = metrics.accuracy(network, reported)
    same = unseen is reported
    return {"accuracy": accuracy, "unseen": accuracy if same else metrics.accuracy(network, unseen)}


def one_student(
    method: str, seed: int, images: int, epochs: int, judged_on: str, *,
    train: ImageSplit, test: ImageSplit, answers: dict[str, Tensor],
) -> dict[str, float]:  # fmt: skip
    """A student of this many images, by its labels or with the teacher. Students of one seed begin with the same
    weights and see the same images in the same order.

    The one that is trained on what it is judged by learns from a part of the test images and is judged by them, as
    in tutorials that train on the validation split; `unseen` is its accuracy on the other test images.
    """
    split, known = (test, answers["test"]) if method == LEAKED else (train, answers["train"])
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    rows, others = order[:images], order[images:]
    student = build(STUDENT, seed)
    started = time.process_time()
    training.distill(
        student, known[rows], split.subset(rows), epochs=epochs, batch_size=64, seed=seed, progress=False,
        temperature=TEMPERATURE, alpha=0.0 if method in (ALONE, LONG) else ALPHA,
    )  # fmt: skip
    seconds = time.process_time() - started
    reported, unseen = (test.subset(rows), test.subset(others)) if method == LEAKED else (test, test)
    return judged(student, reported, unseen) | {"processor_seconds": seconds}


def students(seeds: Sequence[int], images: int, epochs: int, leaked: int, leaked_epochs: int) -> list[dict]:
    """The cells of `one_student`, those that take longest first."""
    settings = [
        (LONG, images, LONGER * epochs, "test images"),
        (ALONE, images, epochs, "test images"),
        (DISTILLED, images, epochs, "test images"),
        (LEAKED, leaked, leaked_epochs, "the images it was trained on"),
    ]
    return [
        {"method": method, "seed": seed, "images": count, "epochs": passes, "judged_on": judged_on}
        for method, count, passes, judged_on in settings
        for seed in seeds
    ]


def seconds_a_pass(network: str, split: ImageSplit) -> dict[str, float]:
    """Processor seconds for 60,000 images, forward, backward and update, from a pass over this split."""
    model = build(network, 0)
    settings = {"epochs": 1, "batch_size": 64, "progress": False}
    training.train(model, split.subset(slice(128)), **settings)  # the first steps are slower
    started = time.process_time()
    training.train(model, split, **settings)
    return {"seconds_a_pass": (time.process_time() - started) * A_PASS / len(split)}


def both_speeds(train: ImageSplit, images: int = 2048) -> pandas.DataFrame:
    """What a pass costs for teacher and student: in a process of one thread, with nothing beside it."""
    cells = [{"network": network} for network in (TEACHER, STUDENT)]
    shared = {"split": train.subset(slice(images))}
    return map_cells(seconds_a_pass, cells, shared=shared, workers=1)


@experiment("lesson05-mobilenet")
def mobilenet(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """The teacher, its students beside those of labels alone, and students judged by the images they learned from."""
    shared, teacher = materials()
    speeds = both_speeds(shared["train"])
    table = map_cells(one_student, students(seeds, IMAGES, EPOCHS, LEAKED_IMAGES, LEAKED_EPOCHS), shared=shared)
    table = pandas.concat([pandas.DataFrame([teacher]), table], ignore_index=True)
    table.insert(0, "network", [TEACHER] + [STUDENT] * (len(table) - 1))
    return table.merge(speeds, on="network")
