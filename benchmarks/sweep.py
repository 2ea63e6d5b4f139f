"""75 students, 5 temperatures x 5 alphas x 3 seeds, by the defaults of a sweep, against PyTorch's tutorial loop.

    python benchmarks/sweep.py [--epochs 20] [--images 1000] [--workers N]
    python benchmarks/sweep.py --groups [NAME ...]
    python benchmarks/sweep.py --vmap

The tutorial's loop is that of benchmarks/tutorial.py: a PIL image made whenever one is asked for, transforms in
a DataLoader with two workers, the teacher's forward pass in every step, loss.item(). It distils the same
student from the same teacher, in its own batches of 128 and in the sweep's batches of 32, before and after
the sweep, so that whatever else the machine does falls on both. The sweep's time counts everything from a cold
start: starting the workers, the teacher's logits, the choice of the precision, and measuring every student.

Beside it stands what these cores do at most: matrices of 1,024 multiplied on every core at once, in the sweep's
precision.

--groups compares students of each name alone and several together, on one core: what `kdlib.sweeps.trainer` decides
by. NAME is one of `kdlib.models.names()`. --vmap compares eight students in one network of grouped convolutions with
`torch.func.vmap` over their stacked weights.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import pandas
import torch
from loky import get_reusable_executor
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from tutorial import PictureDataset, tutorial_loss

from kdlib import data, models, sweeps, teachers
from kdlib.data import ImageSplit
from kdlib.sweeps.grouped import GroupedNetwork, distill_together
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


def matrix_gflops(core: int, precision: str) -> dict:
    """What one core multiplies in a second, in GFLOP/s, while the others do the same."""
    matrix = torch.randn(1024, 1024).to(getattr(torch, precision))
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < 2:
        begun = time.perf_counter()
        matrix @ matrix
        best = max(best, 2 * 1024**3 / (time.perf_counter() - begun) / 1e9)
    return {"gflops": best}


def flops_of_a_step() -> float:
    """Floating-point operations of a forward and a backward pass on one image."""
    student = models.build(STUDENT)
    with FlopCounterMode(display=False) as counter:
        student(torch.zeros(2, 1, 28, 28)).sum().backward()
    return counter.get_total_flops() / 2


def compare(options: argparse.Namespace) -> None:
    dataset = data.load()
    split = dataset.train.take(options.images)
    teacher = teachers.load()
    students = len(SEEDS) * len(TEMPERATURES) * len(ALPHAS)
    print(
        f"{students} students ({STUDENT}) of {options.epochs} epochs on {len(split):,} images, measured on "
        f"{len(dataset.validation):,}\ntorch {torch.__version__}, {os.cpu_count()} cores"
    )

    def sweep() -> pandas.DataFrame:
        table = sweeps.run(
            STUDENT, teacher, split, dataset.validation, temperatures=TEMPERATURES, alphas=ALPHAS, seeds=SEEDS,
            epochs=options.epochs, workers=options.workers, progress=False,
        )  # fmt: skip
        get_reusable_executor().shutdown()  # so that the workers' time can be read
        return table

    clock = Clock()

    def tutorial() -> None:
        for size in (128, 32):
            name, images = f"tutorial, batches of {size}", TUTORIAL_EPOCHS * len(split)
            clock.run(name, images, distill_as_tutorial, split, teacher, size)

    distill_as_tutorial(split, teacher, 128)  # the first run of a process is slow
    images = students * options.epochs * len(split)
    tutorial()
    table = clock.run("sweep by the defaults", images, sweep)
    tutorial()
    clock.print_ratios()
    report_speed(table, images, clock)
    print(f"validation accuracy, mean of all students: {100 * table.accuracy.mean():.2f} %")


def report_speed(table: pandas.DataFrame, images: int, clock: Clock) -> None:
    """The precision that was chosen, and the share of these cores' peak."""
    precision = table.attrs["precision"]
    cores = [{"core": core, "precision": precision} for core in range(os.cpu_count())]
    peak = sweeps.map_cells(matrix_gflops, cores, progress=False)["gflops"].sum()
    done = clock.median("sweep by the defaults")[0] * flops_of_a_step() / 1e9
    print(
        f"\nprecision, chosen by measurement: {precision}\n"
        f"the sweep: {done:.0f} GFLOP/s; matrices on all cores: {peak:.0f}; "
        f"share of the peak: {100 * done / peak:.0f} %"
    )


def seconds_by_vmap(members: int, split: ImageSplit, steps: int) -> float:
    """Seconds of processor time a step for students whose weights are stacked, by torch.func.vmap."""
    students = [models.build(STUDENT, seed=seed).train() for seed in range(members)]
    weights, buffers = torch.func.stack_module_state(students)
    skeleton = models.build(STUDENT).train()
    views, labels = split.normalized(slice(32)), split.labels[:32]
    optimizer = torch.optim.AdamW([*weights.values()], fused=True)

    def losses(weights: dict, buffers: dict) -> torch.Tensor:
        logits = torch.func.functional_call(skeleton, (weights, buffers), (views,))
        return torch.nn.functional.cross_entropy(logits, labels)

    best = float("inf")
    for _ in range(steps):
        started = time.thread_time()
        # Batch norm would update its statistics in place, which vmap does not do for buffers: they are copied.
        each = torch.func.vmap(losses, randomness="different")(
            weights, {n: b.clone() for n, b in buffers.items()}
        )
        optimizer.zero_grad()
        each.sum().backward()
        optimizer.step()
        best = min(best, time.thread_time() - started)
    return best


def seconds_grouped(members: int, split: ImageSplit, steps: int) -> float:
    """The same for one network of grouped convolutions."""
    students = [models.build(STUDENT, seed=seed) for seed in range(members)]
    network = (
        GroupedNetwork(students, split.normalized(slice(8))).to(memory_format=torch.channels_last).train()
    )
    views = split.normalized(slice(32)).repeat(1, members, 1, 1).contiguous(memory_format=torch.channels_last)
    labels = split.labels[:32, None].expand(-1, members)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    best = float("inf")
    for _ in range(steps):
        started = time.thread_time()
        loss = torch.nn.functional.cross_entropy(network(views).transpose(1, 2), labels, reduction="none")
        optimizer.zero_grad()
        loss.mean(dim=0).sum().backward()
        optimizer.step()
        best = min(best, time.thread_time() - started)
    return best


def compare_with_vmap() -> None:
    torch.set_num_threads(1)
    split = data.load().train.take(64)
    print("milliseconds of one core a step, float32, batches of 32, the shortest of 30 steps")
    for members in (2, 4, 8):
        grouped, mapped = (1e3 * way(members, split, 30) for way in (seconds_grouped, seconds_by_vmap))
        print(
            f"{members} students: grouped {grouped:.1f}, vmap {mapped:.1f}, vmap / grouped {mapped / grouped:.2f}"
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
    parser.add_argument("--vmap", action="store_true", help="compare with torch.func.vmap instead")
    options = parser.parse_args()
    if options.vmap:
        compare_with_vmap()
    elif options.groups is None:
        compare(options)
    else:
        compare_groups(options.groups or ["tiny-cnn", "resnet8", "student-net"])


if __name__ == "__main__":
    main()
