"""The live surface of lesson 03: 5 temperatures x 5 alphas x 3 seeds, against PyTorch's tutorial loop.

    python benchmarks/sweep.py [--epochs 20] [--images 1000] [--workers N]
    python benchmarks/sweep.py --groups [NAME ...]

The tutorial's loop is that of benchmarks/kd_epoch.py: a PIL image made whenever one is asked for, transforms in
a DataLoader with two workers, the teacher's forward pass in every step, loss.item(). It distils the same
student from the same teacher, in its own batches of 128 and in the sweep's batches of 32, before and after
each sweep, so that whatever else the machine does falls on both. A sweep's time counts everything from a cold
start: starting the workers, the teacher's logits, the controls, and measuring every student.

--groups compares students of each name alone and several together, on one core: what `kdlib.sweeps.trainer` decides
by. NAME is one of `kdlib.models.names()`.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import pandas
import torch
from kd_epoch import PictureDataset, tutorial_loss
from loky import get_reusable_executor
from torch import nn
from torch.utils.data import DataLoader

from kdlib import data, metrics, models, sweeps, teachers
from kdlib.data import ImageSplit
from kdlib.sweeps.grouped import distill_together
from kdlib.training import distill
from kdlib.training.loop import Recipe

TEMPERATURES = [1.0, 2.0, 4.0, 8.0, 16.0]
ALPHAS = [0.25, 0.5, 0.75, 0.9, 1.0]
SEEDS = [0, 1, 2]
TUTORIAL_EPOCHS = 3
STUDENT = "tiny-cnn"


class GreyPictures(PictureDataset):
    """PIL wants grey images without an axis for the channel."""

    def __init__(self, split: ImageSplit):
        super().__init__(split, augmented=False)
        self.arrays = self.arrays.squeeze(-1)


def distill_as_tutorial(split: ImageSplit, teacher: nn.Module, batch_size: int) -> None:
    student = models.build(STUDENT)
    loader = DataLoader(GreyPictures(split), batch_size=batch_size, shuffle=True, num_workers=2)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    teacher.eval()
    student.train()
    for _ in range(TUTORIAL_EPOCHS):
        running_loss = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            with torch.no_grad():
                teacher_logits = teacher(images)
            loss = tutorial_loss(student(images), teacher_logits, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()


class Clock:
    """Runs things, and keeps their student-images a second by the clock and by CPU time."""

    def __init__(self) -> None:
        self.rates: dict[str, list[tuple[float, float]]] = {}

    def run(self, name: str, images: int, function: Callable, *arguments: object) -> object:
        wall, cpu = time.perf_counter(), sum(os.times()[:4])  # those of ended child processes included
        result = function(*arguments)
        wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
        self.rates.setdefault(name, []).append((images / wall, images / cpu))
        print(f"{name:<28}{wall:8.1f} s{cpu:8.1f} CPU s{images / wall:12,.0f} student-images/s", flush=True)
        return result

    def median(self, name: str) -> list[float]:
        return [statistics.median(rates) for rates in zip(*self.rates[name], strict=True)]

    def print_ratios(self) -> None:
        print(f"\n{'sweep / tutorial, medians':<48}{'by the clock':>14}{'by CPU time':>14}")
        for ours in [name for name in self.rates if name.startswith("sweep")]:
            for theirs in [name for name in self.rates if name.startswith("tutorial")]:
                ratios = [a / b for a, b in zip(self.median(ours), self.median(theirs), strict=True)]
                print(f"{f'{ours} / {theirs}':<48}{ratios[0]:>14.1f}{ratios[1]:>14.1f}")


def compare(options: argparse.Namespace) -> None:
    dataset = data.load()
    split = dataset.train.take(options.images)
    teacher = teachers.load()
    students = len(SEEDS) * (1 + len(TEMPERATURES) * len(ALPHAS))
    print(
        f"{students} students ({STUDENT}) of {options.epochs} epochs on {len(split):,} images, measured on "
        f"{len(dataset.validation):,}\ntorch {torch.__version__}, {os.cpu_count()} cores"
    )

    def sweep(bfloat16: bool) -> pandas.DataFrame:
        table = sweeps.run(
            STUDENT, teacher, split, dataset.validation, temperatures=TEMPERATURES, alphas=[0.0, *ALPHAS],
            seeds=SEEDS, epochs=options.epochs, workers=options.workers, bfloat16=bfloat16, progress=False,
        )  # fmt: skip
        get_reusable_executor().shutdown()  # the next sweep starts cold, and the workers' time can be read
        return table

    clock = Clock()

    def tutorial() -> None:
        for size in (128, 32):
            name, images = f"tutorial, batches of {size}", TUTORIAL_EPOCHS * len(split)
            clock.run(name, images, distill_as_tutorial, split, teacher, size)

    distill_as_tutorial(split, teacher, 128)  # the first run of a process is slow
    images = students * options.epochs * len(split)
    tutorial()
    exact = clock.run("sweep in float32", images, sweep, False)
    tutorial()
    fast = clock.run("sweep in bfloat16", images, sweep, True)
    tutorial()
    clock.print_ratios()
    report_accuracy(exact, fast)


def report_accuracy(exact: pandas.DataFrame, fast: pandas.DataFrame) -> None:
    """What the surface says, and whether bfloat16 says the same."""
    trained = (exact.alpha > 0) | (exact.temperature == TEMPERATURES[0])  # controls count once
    exact, fast = exact[trained], fast[trained]
    control, distilled = (exact.accuracy[rows].mean() for rows in (exact.alpha == 0, exact.alpha > 0))
    mean, low, high = metrics.paired_interval(fast.accuracy, exact.accuracy)
    print(
        f"\nvalidation accuracy: controls {control:.3f}, distilled {distilled:.3f}\n"
        f"bfloat16 - float32, {len(exact)} pairs: {mean:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
    )


def images_per_second(name: str, members: int, bfloat16: bool, *, split: ImageSplit) -> dict:
    """Student-images a second of one core, for students alone (members = 1) or together; the best epoch of
    three after one that warms up."""
    logits = torch.randn(len(split), 10)
    recipe = Recipe(1, 32, 6e-3, 1e-2, seed=0, bfloat16=bfloat16, augment=None)
    students = [models.build(name, seed=seed) for seed in range(members)]
    seconds = []
    for _ in range(4):
        started = time.thread_time()
        if members == 1:
            distill(students[0], logits, split, progress=False, device="cpu", **vars(recipe))
        else:
            distill_together(
                students, logits, split, temperatures=[4.0] * members, alphas=[0.9] * members,
                seeds=range(members), recipe=recipe,
            )  # fmt: skip
        seconds.append(time.thread_time() - started)
    return {"rate": members * len(split) / min(seconds[1:])}


def compare_groups(names: list[str]) -> None:
    cells = [
        {"name": name, "bfloat16": bfloat16, "members": members}
        for name in names
        for bfloat16 in (False, True)
        for members in (1, 2, 4, 8, 16)
    ]
    shared = {"split": data.load().train.take(640)}
    table = sweeps.map_cells(images_per_second, cells, shared=shared, workers=1)
    print("\nstudent-images a second of one core, by the number of students that are trained together")
    print(table.pivot(index=["name", "bfloat16"], columns="members", values="rate").round(-1).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, help="default: one for each core")
    parser.add_argument("--groups", nargs="*", metavar="NAME", help="compare sizes of groups instead")
    options = parser.parse_args()
    if options.groups is None:
        compare(options)
    else:
        compare_groups(options.groups or ["tiny-cnn", "resnet8", "student-net"])


if __name__ == "__main__":
    main()
