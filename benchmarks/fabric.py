"""What Lightning Fabric costs a small network on one CPU device: a step through it against a plain one.

    python benchmarks/fabric.py [--model tiny-cnn] [--batch-size 32] [--steps 50] [--rounds 15]

Three loops take the same steps from the same weights: the plain one of kdlib; the same one with `fabric=`, which asks
Fabric for precision, gradient and update; and one in which Fabric also wraps the network, as its guide shows. They take
turns within one process, and processor time is counted, so that whatever else the machine does falls on all of them:
the ratios hold on a busy machine as well. The weights at the end are compared bit by bit.

The import is measured in a process of its own, which has imported kdlib.training before, by processor time too.
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from kdlib import data, models
from kdlib.training.batches import Batches
from kdlib.training.devices import Devices, FabricDevice
from kdlib.training.objectives import LabelObjective
from kdlib.training.step import Recipe, Step

IMPORT = """
import time
began = time.process_time()
import {first}
between = time.process_time()
import {second}
print(between - began, time.process_time() - between)
"""


def plain_steps(model: nn.Module, recipe: Recipe, batches: Batches, steps: int) -> Callable:
    """A step of kdlib."""
    return Step(model, LabelObjective(), recipe, batches.device, steps, Devices(batches.device))


def door_steps(model: nn.Module, recipe: Recipe, batches: Batches, steps: int) -> Callable:
    """The same with `fabric=`."""
    return Step(model, LabelObjective(), recipe, batches.device, steps, FabricDevice(one_device()))


def guide_steps(model: nn.Module, recipe: Recipe, batches: Batches, steps: int) -> Callable:
    """As Fabric's guide shows a loop: it wraps the network as well."""
    fabric, objective = one_device(), LabelObjective()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps + 1)
    wrapped, stepped = fabric.setup(model, optimizer)

    def step(batch) -> None:
        stepped.zero_grad(set_to_none=True)
        fabric.backward(objective(wrapped(batch.images), batch).total)
        stepped.step()
        scheduler.step()

    return step


LOOPS = {"plain": plain_steps, "fabric=": door_steps, "wrapped by Fabric": guide_steps}


def one_device():
    """A Fabric that computes as the plain loop does."""
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1)


def measured(name: str, batch_size: int, steps: int, rounds: int) -> tuple[dict[str, list[float]], list[str]]:
    """Processor seconds a step, by loop and round; and the loops whose weights are not those of the plain one."""
    split = data.load("digits").train.take(8 * batch_size)
    recipe = Recipe(1, batch_size, 1e-2, 1e-2, 0, False)
    batches = recipe.batches(split, torch.device("cpu"))
    seen = [*batches.epoch(0)]
    network = models.build(name, image_size=8, seed=0).train().to(memory_format=torch.channels_last)
    networks = {loop: copy.deepcopy(network) for loop in LOOPS}
    loops = {
        loop: make(networks[loop], recipe, batches, steps * (rounds + 1)) for loop, make in LOOPS.items()
    }
    seconds: dict[str, list[float]] = {loop: [] for loop in LOOPS}
    for number in range(rounds + 1):
        for loop, step in loops.items():
            began = time.process_time()
            for count in range(steps):
                step(seen[count % len(seen)])
            if number:  # the first round prepares the kernels
                seconds[loop].append((time.process_time() - began) / steps)
    weights = {loop: [*net.state_dict().values()] for loop, net in networks.items()}
    other = [loop for loop, mine in weights.items() if not all(map(torch.equal, mine, weights["plain"]))]
    return seconds, other


def import_seconds(first: str, second: str) -> list[float]:
    """Processor time of two imports, one after the other in a fresh process."""
    command = [sys.executable, "-c", IMPORT.format(first=first, second=second)]
    return [
        float(word)
        for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-cnn")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50, help="of each loop in a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-import", action="store_true", help="leave out the time of the import")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seconds, other = measured(chosen.model, chosen.batch_size, chosen.steps, chosen.rounds)
    print(
        f"{chosen.model}, batches of {chosen.batch_size}, one thread; ratio to plain: median (lowest to highest)"
    )
    for loop, taken in seconds.items():
        ratios = [mine / plain for mine, plain in zip(taken, seconds["plain"], strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        same = "other weights" if loop in other else "the same weights"
        print(f"  {loop:18} {1e3 * min(taken):7.2f} ms  {ratio}  {same}")
    if not chosen.no_import:
        kdlib_seconds, fabric_seconds = import_seconds("kdlib.training", "lightning_fabric")
        print(f"import: kdlib.training {kdlib_seconds:.1f} s, then lightning_fabric {fabric_seconds:.1f} s")


if __name__ == "__main__":
    main()
