"""An epoch of knowledge distillation: PyTorch's tutorial against kdlib, on the same networks and images.

    python benchmarks/kd_epoch.py [--images N] [--repeats 3] [--view-seeds 10] [--seeds 0] [--data NAME]

The tutorial's loop is written again from its published description
(docs.pytorch.org/tutorials/beginner/knowledge_distillation_tutorial.html): a data set that makes a PIL image
of an array whenever it is asked, ToTensor and Normalize in a DataLoader with two workers that start anew in
every epoch, the teacher's forward pass in every step, Adam at 1e-3, loss.item() after each step. On both
sides: batches of 128, T = 2, a weight of .25 for the teacher and .75 for the labels, the same initial
weights, and as many threads as torch takes by itself.

The two take turns within one process, so that whatever else the machine does falls on both: the ratios hold
on a busy machine as well, images a second on a quiet one only.

With augmentation the tutorial draws a crop and a flip in every epoch and asks the teacher about each. kdlib does the
same ("live"), or draws VIEWS views of every image once and caches the teacher's answers by image and view; the caching
is counted in. Whether so few views cost accuracy is measured on the lessons' pair, whose forty epochs take seconds: the
shipped teacher and "tiny-cnn", paired seeds, on test images.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tutorial import (
    ALPHA,
    BATCH_SIZE,
    PADDING,
    TEMPERATURE,
    PictureDataset,
    as_colour_images,
    check_sizes,
    deep_network,
    light_network,
    tutorial_loss,
)  # fmt: skip

from kdlib import _logit_cache, data, metrics, models, sweeps, teachers
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.inference import pick_device, predict_logits
from kdlib.training import distill, train

VIEWS, VIEW_EPOCHS = 8, 40
TUTORIAL_LEARNING_RATE = 1e-3
LEARNING_RATE = 3e-3  # kdlib's peak, chosen on the validation split
TEACHER_LEARNING_RATE = 2e-3


@dataclass
class Material:
    """What both sides train with."""

    split: ImageSplit
    test: ImageSplit
    classes: int
    teacher: nn.Module
    logits: Tensor  # of the teacher, for every image of `split`


def distill_as_tutorial(
    student: nn.Module, material: Material, *, epochs: int, augmented: bool, seed: int
) -> None:
    """Distil into `student` as the tutorial does."""
    device = pick_device()
    torch.manual_seed(seed)
    pictures = PictureDataset(material.split, augmented)
    loader = DataLoader(pictures, batch_size=BATCH_SIZE, shuffle=True, num_workers=2)
    optimizer = torch.optim.Adam(student.parameters(), lr=TUTORIAL_LEARNING_RATE)
    teacher = material.teacher.to(device).eval()
    student.to(device).train()
    for _ in range(epochs):
        running_loss = 0.0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            with torch.no_grad():
                teacher_logits = teacher(images)
            loss = tutorial_loss(student(images), teacher_logits, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()


def distill_by_kdlib(
    student: nn.Module, material: Material, *, epochs: int, augmented: bool, seed: int
) -> None:
    """Distil into `student`; from cached logits where the images stay as they are."""
    distill(
        student, material.teacher if augmented else material.logits, material.split, epochs=epochs,
        temperature=TEMPERATURE, alpha=ALPHA, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, seed=seed,
        augment=random_crop_flip(PADDING) if augmented else None, progress=False,
    )  # fmt: skip


def distill_views_by_kdlib(student: nn.Module, material: Material, *, epochs: int, seed: int) -> None:
    """Distil into `student` from stored views, the teacher asked once about each; nothing is known beforehand."""
    with tempfile.TemporaryDirectory() as folder:
        with (
            mock.patch.object(_logit_cache, "_memory", {}),
            mock.patch.dict(os.environ, XDG_CACHE_HOME=folder),
        ):
            distill(
                student, material.teacher, material.split, epochs=epochs, temperature=TEMPERATURE, alpha=ALPHA,
                batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, seed=seed, augment=random_crop_flip(PADDING),
                views=VIEWS, progress=False,
            )  # fmt: skip


def train_by_kdlib(
    student: nn.Module, material: Material, *, epochs: int, augmented: bool, seed: int
) -> None:
    """Train `student` without a teacher."""
    train(
        student, material.split, epochs=epochs, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, seed=seed,
        augment=random_crop_flip(PADDING) if augmented else None, progress=False,
    )  # fmt: skip


class Run(NamedTuple):
    """One training: the student, and seconds by the clock and of all processors, workers included."""

    student: nn.Module
    wall: float
    cpu: float


def take_turns(
    trainers: list[Callable[..., None]],
    material: Material,
    turns: int,
    *,
    epochs: int = 1,
    augmented: bool = False,
) -> list[list[Run]]:
    """In every turn each trainer trains a fresh student; who begins alternates. A list of runs a trainer."""
    runs: list[list[Run]] = [[] for _ in trainers]
    for seed in range(turns):
        for number in sorted(range(len(trainers)), reverse=bool(seed % 2)):
            torch.manual_seed(seed)
            student = light_network(material.classes)
            wall, cpu = time.perf_counter(), sum(os.times()[:4])
            trainers[number](student, material, epochs=epochs, augmented=augmented, seed=seed)
            runs[number].append(Run(student, time.perf_counter() - wall, sum(os.times()[:4]) - cpu))
    return runs


def median_seconds(runs: list[Run]) -> float:
    return statistics.median(run.wall for run in runs)


def ratios(above: list[Run], below: list[Run]) -> str:
    """Two columns, wall and CPU time: the ratio of the medians, and the range of the ratios turn by turn."""
    columns = ""
    for clock in ("wall", "cpu"):
        one, other = ([getattr(run, clock) for run in runs] for runs in (above, below))
        by_turn = [a / b for a, b in zip(one, other, strict=True)]
        median = statistics.median(one) / statistics.median(other)
        columns += f"{f'{median:.2f} ({min(by_turn):.2f} to {max(by_turn):.2f})':>26}"
    return columns


def compare_speed(material: Material, repeats: int) -> None:
    """An epoch of the tutorial and of kdlib, with and without augmentation, and what the cache costs."""
    images = len(material.split)
    print(f"\n{'one epoch':<24}{'images a second':>18}{'tutorial / kdlib':>26}{'by CPU time':>26}")
    print(f"{'':<24}{'tutorial':>9}{'kdlib':>9}" + 2 * f"{'median (range)':>26}")
    epoch_seconds = {}
    for augmented in (True, False):
        runs = take_turns([distill_as_tutorial, distill_by_kdlib], material, repeats + 1, augmented=augmented)
        theirs, ours = (one[1:] for one in runs)  # the first turn warms up
        epoch_seconds = [median_seconds(theirs), median_seconds(ours)]
        speeds = "".join(f"{images / seconds:>9,.0f}" for seconds in epoch_seconds)
        name = "random crop and flip" if augmented else "images as they are"
        print(f"{name:<24}{speeds}{ratios(theirs, ours)}", flush=True)

    started = time.perf_counter()
    for _ in range(repeats):
        predict_logits(material.teacher, material.split)
    caching = (time.perf_counter() - started) / repeats
    theirs, ours = (10 * seconds for seconds in epoch_seconds)
    print(f"the teacher's logits, computed once: {caching:.2f} s, {10 * caching / ours:.1f} epochs of kdlib")
    print(f"10 epochs and these logits, tutorial / kdlib: {theirs / (ours + caching):.2f}")


def compare_views(material: Material, epochs: int) -> None:
    """A whole augmented training by kdlib from stored views, against as many epochs of the tutorial, of which one is
    timed before it and one after it."""
    torch.manual_seed(0)
    before = take_turns([distill_as_tutorial], material, 1, augmented=True)[0]
    student = light_network(material.classes)
    started = time.perf_counter()
    distill_views_by_kdlib(student, material, epochs=epochs, seed=0)
    ours = time.perf_counter() - started
    after = take_turns([distill_as_tutorial], material, 1, augmented=True)[0]
    theirs = epochs * statistics.mean(run.wall for run in before + after)
    print(
        f"{epochs} augmented epochs, {VIEWS} stored views an image, everything counted in: {ours:.1f} s\n"
        f"{epochs} times the mean of the tutorial's augmented epochs before and after: {theirs:.1f} s\n"
        f"tutorial / kdlib with views: {theirs / ours:.2f}"
    )


def accuracy_of_views(
    seed: int, views: int, *, split: ImageSplit, test: ImageSplit, teacher: nn.Module, epochs: int
) -> dict:
    """Test accuracy of a student of the lessons after augmented epochs; views=0 draws them anew in every step."""
    student = models.build("tiny-cnn", seed=seed)
    started = time.thread_time()
    distill(
        student, teacher, split, epochs=epochs, seed=seed, augment=random_crop_flip(2), views=views or None,
        progress=False, device="cpu",
    )  # fmt: skip
    return {"seconds": time.thread_time() - started, "accuracy": 100 * metrics.accuracy(student, test)}


def compare_accuracy_of_views(seeds: int, images: int, epochs: int) -> None:
    """Stored views against views drawn anew, paired by seed."""
    dataset = data.load()
    shared = {
        "split": dataset.train.take(images),
        "test": dataset.test,
        "teacher": teachers.load(),
        "epochs": epochs,
    }
    cells = [{"seed": seed, "views": views} for seed in range(seeds) for views in (0, VIEWS)]
    table = sweeps.map_cells(accuracy_of_views, cells, shared=shared, progress=False)
    accuracy, seconds = (
        table.pivot(index="seed", columns="views", values=name) for name in ("accuracy", "seconds")
    )
    gain = metrics.paired_interval(accuracy[VIEWS], accuracy[0])
    print(
        f"\nthe lessons' pair, {images:,} images, {epochs} augmented epochs, {seeds} seeds\n"
        f"drawn anew in every step: {accuracy[0].mean():.2f} % in {seconds[0].median():.1f} CPU s a student\n"
        f"{VIEWS} stored views: {accuracy[VIEWS].mean():.2f} % in {seconds[VIEWS].median():.1f} CPU s\n"
        f"stored - drawn anew, paired: {gain.mean:+.2f}, 95 % interval {gain.low:+.2f} to {gain.high:+.2f}"
    )


def compare_with_labels(material: Material, repeats: int) -> None:
    """What distillation costs beside labels, both by kdlib."""
    print(f"\n{'kdlib: KD epoch / label epoch':<42}{'by wall time':>26}{'by CPU time':>26}")
    for augmented in (True, False):
        runs = take_turns([distill_by_kdlib, train_by_kdlib], material, repeats + 1, augmented=augmented)
        name = "random crop and flip, live teacher" if augmented else "images as they are, cached logits"
        print(f"{name:<42}{ratios(runs[0][1:], runs[1][1:])}", flush=True)


def compare_accuracy(material: Material, epochs: int, seeds: int) -> None:
    """Both after as many epochs, from the same initial weights, images as they are."""
    print(f"\ntest accuracy in % after {epochs} epochs, mean +- sd of {seeds} seeds")
    runs = take_turns([distill_as_tutorial, distill_by_kdlib], material, seeds, epochs=epochs)
    accuracies = [[100 * metrics.accuracy(run.student, material.test) for run in one] for one in runs]
    for name, values in zip(("tutorial", "kdlib"), accuracies, strict=True):
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:<10}{statistics.mean(values):.2f} +- {statistics.stdev(values):.2f}  ({each})")
    gain = metrics.paired_interval(accuracies[1], accuracies[0])
    print(f"kdlib - tutorial, paired: {gain.mean:+.2f}, 95 % interval {gain.low:+.2f} to {gain.high:+.2f}")


def prepare(name: str, images: int, test_images: int, teacher_epochs: int) -> Material:
    dataset = data.load(name)
    split = as_colour_images(dataset.train)
    test = as_colour_images(dataset.test, like=split)
    split = split.take(min(images, len(split)))
    test = test.take(min(test_images, len(test)))
    torch.manual_seed(0)
    teacher = deep_network(len(dataset.classes))
    train(
        teacher, split, epochs=teacher_epochs, batch_size=BATCH_SIZE, learning_rate=TEACHER_LEARNING_RATE,
        progress=False,
    )  # fmt: skip
    return Material(split, test, len(dataset.classes), teacher, predict_logits(teacher, split))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", default="fashion-mnist", help="a name of kdlib.data.load, such as folder:PATH")
    add("--images", type=int, default=2000, help="train on so many (default: 2000)")
    add("--test-images", type=int, default=2000, help="test on so many (default: 2000)")
    add("--repeats", type=int, default=3, help="timed turns of each comparison (default: 3)")
    add("--epochs", type=int, default=10, help="epochs of the trainings for accuracy (default: 10)")
    add(
        "--seeds",
        type=int,
        default=0,
        help="trainings for the tutorial's accuracy, 2 or more (default: none)",
    )
    add("--view-seeds", type=int, default=10, help="paired trainings for the accuracy of views (default: 10)")
    add("--view-images", type=int, default=1000, help="images of those trainings (default: 1000)")
    add("--view-epochs", type=int, default=VIEW_EPOCHS, help=f"their epochs (default: {VIEW_EPOCHS})")
    add("--teacher-epochs", type=int, default=3, help="epochs of the teacher (default: 3)")
    options = parser.parse_args()

    started = time.perf_counter()
    check_sizes()
    material = prepare(options.data, options.images, options.test_images, options.teacher_epochs)
    print(
        f"{options.data}: {len(material.split):,} training and {len(material.test):,} test images of 3x32x32\n"
        f"torch {torch.__version__} on {pick_device()}, {torch.get_num_threads()} threads, "
        f"{options.repeats} turns"
    )
    print(f"teacher: {100 * metrics.accuracy(material.teacher, material.test):.2f} % of the test images")
    compare_speed(material, options.repeats)
    compare_views(material, options.view_epochs)
    compare_with_labels(material, options.repeats)
    compare_accuracy_of_views(options.view_seeds, options.view_images, options.view_epochs)
    if options.seeds:
        compare_accuracy(material, options.epochs, options.seeds)
    print(f"\n{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
