"""An epoch of knowledge distillation: PyTorch's tutorial against kdlib, on the same networks and images.

    python benchmarks/kd_epoch.py [--images N] [--repeats 7] [--epochs 10] [--seeds 3] [--data NAME]

The tutorial's loop is written again from its published description
(docs.pytorch.org/tutorials/beginner/knowledge_distillation_tutorial.html): a data set that makes a PIL image
of an array whenever it is asked, ToTensor and Normalize in a DataLoader with two workers that start anew in
every epoch, the teacher's forward pass in every step, Adam at 1e-3, loss.item() after each step. On both
sides: batches of 128, T = 2, a weight of .25 for the teacher and .75 for the labels, the same initial
weights, and as many threads as torch takes by itself.

The two take turns within one process, so that whatever else the machine does falls on both: the ratios hold
on a busy machine as well, images a second on a quiet one only.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdlib import data, metrics
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.inference import pick_device, predict_logits
from kdlib.training import distill, train

BATCH_SIZE = 128
TEMPERATURE = 2.0
ALPHA = 0.25
PADDING = 4  # of the random crop
TUTORIAL_LEARNING_RATE = 1e-3
LEARNING_RATE = 3e-3  # kdlib's peak, chosen on the validation split
TEACHER_LEARNING_RATE = 2e-3


def deep_network(classes: int = 10) -> nn.Module:
    """The tutorial's teacher, DeepNN, for images of 3x32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(),
        nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, classes),
    )  # fmt: skip


def light_network(classes: int = 10) -> nn.Module:
    """The tutorial's student, LightNN, for images of 3x32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, classes),
    )  # fmt: skip


def check_sizes() -> None:
    """The networks are the published ones, to the parameter."""
    for network, published in ((deep_network(), 1_186_986), (light_network(), 267_738)):
        parameters = sum(p.numel() for p in network.parameters())
        assert parameters == published, f"{parameters} parameters, the tutorial has {published}"


def as_colour_images(split: ImageSplit, like: ImageSplit | None = None) -> ImageSplit:
    """The images as 3x32x32, normalised by their own statistics or those of `like`."""
    images = transforms.functional.resize(split.images, [32, 32], antialias=True).expand(-1, 3, -1, -1)
    own = ImageSplit(images, split.labels, split.indices)
    return ImageSplit(images, split.labels, split.indices, like.mean, like.std) if like else own


@dataclass
class Material:
    """What both sides train with."""

    split: ImageSplit
    test: ImageSplit
    classes: int
    teacher: nn.Module
    logits: Tensor  # of the teacher, for every image of `split`


class PictureDataset(Dataset):
    """Arrays in memory, a PIL image and its transforms at every access: what torchvision's CIFAR10 does."""

    def __init__(self, split: ImageSplit, augmented: bool):
        self.arrays = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = split.labels.tolist()
        random = [transforms.RandomCrop(32, padding=PADDING), transforms.RandomHorizontalFlip()]
        fixed = [transforms.ToTensor(), transforms.Normalize(split.mean.tolist(), split.std.tolist())]
        self.transform = transforms.Compose(random + fixed if augmented else fixed)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def tutorial_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """The tutorial's way to the value of `kdlib.losses.distillation_loss`."""
    soft_targets = (teacher_logits / TEMPERATURE).softmax(dim=-1)
    log_student = (student_logits / TEMPERATURE).log_softmax(dim=-1)
    divergence = (soft_targets * (soft_targets.log() - log_student)).sum() / len(labels)
    return ALPHA * TEMPERATURE**2 * divergence + (1 - ALPHA) * F.cross_entropy(student_logits, labels)


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


def prepare(name: str, images: int | None, test_images: int | None, teacher_epochs: int) -> Material:
    dataset = data.load(name)
    split = as_colour_images(dataset.train)
    test = as_colour_images(dataset.test, like=split)
    split = split.take(images) if images else split
    test = test.take(test_images) if test_images else test
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
    add("--images", type=int, help="train on so many (default: all)")
    add("--test-images", type=int, help="test on so many (default: all)")
    add("--repeats", type=int, default=7, help="timed turns of each comparison (default: 7)")
    add("--epochs", type=int, default=10, help="epochs of the trainings for accuracy (default: 10)")
    add("--seeds", type=int, default=3, help="trainings for accuracy, at least 2 (default: 3)")
    add("--teacher-epochs", type=int, default=8, help="epochs of the teacher (default: 8)")
    options = parser.parse_args()

    check_sizes()
    material = prepare(options.data, options.images, options.test_images, options.teacher_epochs)
    print(
        f"{options.data}: {len(material.split):,} training and {len(material.test):,} test images of 3x32x32\n"
        f"torch {torch.__version__} on {pick_device()}, {torch.get_num_threads()} threads, "
        f"{options.repeats} turns"
    )
    print(f"teacher: {100 * metrics.accuracy(material.teacher, material.test):.2f} % of the test images")
    compare_speed(material, options.repeats)
    compare_with_labels(material, options.repeats)
    compare_accuracy(material, options.epochs, options.seeds)


if __name__ == "__main__":
    main()
