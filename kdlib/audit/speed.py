"""Claims on time and memory. A time is true of a machine: what names none cannot be tested, only counted."""

import copy
import os
import time

import torch
from torch import nn

from kdlib import models
from kdlib.audit._core import (
    FAILS,
    HOLDS,
    IN_PART,
    SPEED,
    UNTESTED,
    Finding,
    claim,
    near,
    read,
    recorded,
)
from kdlib.audit._counts import BYTES, parameters, small, small_work, work

CLASSIC = recorded("lesson10-cost", "lesson 10, the audit")


@claim(
    "A7", topic=SPEED, says="The student takes a third of its teacher's time, 6.1 against 18.2 ms.",
    needs="a processor, threads and a batch that are named; a ratio within one run", by=CLASSIC,
)  # fmt: skip
def classic_time() -> Finding:
    times = read("lesson10-cost").groupby("network")["milliseconds"].median()
    share, claimed = float(times["student-net"] / times["teacher-net"]), 6.1 / 18.2
    verdict = HOLDS if near(share, claimed, 0.2) else FAILS
    words = (
        f"Medians here: {times['student-net']:.2f} against {times['teacher-net']:.2f} ms, a share of "
        f"{share:.2f} where "
        f"{claimed:.2f} is claimed. The milliseconds are those of a machine, and cannot be compared."
    )
    return Finding(verdict, words)


@claim(
    "A8", topic=SPEED, says="6.1 instead of 18.2 ms is 66 % faster.",
    needs="to say of what the percentage is: of the time, or of the speed",
)  # fmt: skip
def percent_of_what() -> Finding:
    less, faster = 1 - 6.1 / 18.2, 18.2 / 6.1 - 1
    holds = [near(100 * value, 66, 0.03) for value in (less, faster)]
    verdict = HOLDS if all(holds) else IN_PART if any(holds) else FAILS
    words = f"{less:.0%} less time, which is {faster:.0%} more speed: {1 + faster:.1f} times as fast."
    return Finding(verdict, words)


@claim(
    "B15", topic=SPEED, says="On a phone ResNet-50 takes 125 ms and MobileNetV2 23 ms, at 1.7 points less.",
    needs="the phone, its runtime and number format, and that phone in hand",
)  # fmt: skip
def on_a_phone() -> Finding:
    large, little = (work(f"{name}.IMAGENET1K_V1") for name in ("ResNet50_Weights", "MobileNet_V2_Weights"))
    words = (
        f"Not on that phone. Claimed is a factor of {125 / 23:.1f}; the multiply-adds, {large:.2f} and "
        f"{little:.2f} thousand "
        f"million an image, differ by {large / little:.1f}: a factor of counts is not one of times."
    )
    return Finding(UNTESTED, words)


@claim(
    "B18", topic=SPEED, says="A light SlowFast answers 30 times a second.",
    needs="the machine, the size and number of frames, and how many frames lie between two answers",
)  # fmt: skip
def video_speed() -> Finding:
    rates = [30 * work(f"{name}.KINETICS400_V1") / 1000 for name in ("S3D_Weights", "R3D_18_Weights")]
    words = (
        "Not on that machine, and torchvision has no SlowFast. Of those that it has, S3D and R3D-18 take "
        f"{rates[0]:.2f} and "
        f"{rates[1]:.2f} million million multiply-adds a second for 30 clips a second."
    )
    return Finding(UNTESTED, words)


@claim(
    "D9", topic=SPEED, says="From ResNet-18 to MobileNetV2 x0.35: 82 ms become 31 ms.",
    needs="the processor, the threads, the batch and the runtime",
    by="kdlib audit D9; your processor's ratio: lesson 05, Further, the tutorials' pair",
)  # fmt: skip
def the_pair_in_time() -> Finding:
    large, little = work("ResNet18_Weights.IMAGENET1K_V1"), small_work()
    words = (
        f"Milliseconds belong to their machine. Claimed is a factor of {82 / 31:.1f}; the multiply-adds, "
        f"{large:.2f} and {little:.3f} thousand "
        f"million an image of 224 pixels, differ by {large / little:.0f}. Lesson 05 times both on your "
        "machine."
    )
    return Finding(UNTESTED, words)


@claim(
    "D10", topic=SPEED, says="The memory falls from 290 to 98 MB.",
    needs="what was measured (weights, or a process with its runtime), and when",
    by="kdlib audit D10; the peak of fresh processes on your machine: lesson 05, section 5",
)  # fmt: skip
def memory() -> Finding:
    saved = (parameters("resnet18") - small()) * BYTES / 1e6
    words = (
        f"Memory belongs to a process and its runtime. The weights differ by {saved:.0f} MB, of {290 - 98} "
        "claimed; the rest is of intermediate results, or of another runtime."
    )
    return Finding(UNTESTED, words)


@claim(
    "D16", topic=SPEED, says="torch.jit.script makes the start 30 % faster.",
    needs="the network, and what a start is: loading the file, the first answer, or both",
)  # fmt: skip
def script_start() -> Finding:
    words = (
        f"Thirty percent are true of a network and a machine. {_layers()}; torch calls TorchScript "
        "deprecated."
    )
    return Finding(UNTESTED, words)


@claim(
    "D17", topic=SPEED, says="torch.jit.script makes inference 15 % faster.",
    needs=(
        "the network and the batch: it spares the Python between the layers, a share that differs with both"
    ),
    by="kdlib audit D17; your processor's ratios: lesson 05, Further, TorchScript",
)  # fmt: skip
def script_speed() -> Finding:
    words = (
        f"Fifteen percent are true of a network and a batch. {_layers()}. Lesson 05 times our teacher on "
        "your machine, at two batches."
    )
    return Finding(UNTESTED, words)


def _layers() -> str:
    """Over how many layers the work of two networks is spread."""
    with torch.device("meta"):
        networks = {"ResNet-18": models.build("resnet18", num_classes=1000, in_channels=3, image_size=224)}
        networks["our tiny-cnn"] = models.build("tiny-cnn")
    counts = {
        name: sum(not list(part.children()) for part in net.modules()) for name, net in networks.items()
    }
    return "Layers whose calls it can spare: " + ", ".join(
        f"{name} {count}" for name, count in counts.items()
    )


@claim(
    "D18", topic=SPEED, says="Four threads make a server faster.",
    needs="four cores, layers that are large enough to be shared, and one user at a time",
    by="kdlib audit D18; your processor's ratio of one and two threads: lesson 05, Further",
)  # fmt: skip
def threads() -> Finding:
    words = (
        f"This process may use {_cores()} cores. Four threads are four of them for one answer, or one each "
        "for four answers; "
        "which of the two is faster depends on the network and on how many users ask at once."
    )
    return Finding(UNTESTED, words)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@claim("D19", topic=SPEED, says="FP16 halves the memory.", needs="the memory to be that of the weights")
def half_bytes() -> Finding:
    sizes = [parameters("resnet18") * torch.finfo(kind).bits // 8 for kind in (torch.float16, torch.float32)]
    verdict = HOLDS if near(sizes[0] / sizes[1], 0.5) else FAILS
    words = (
        f"Weights of ResNet-18: {sizes[1] / 1e6:.1f} MB in float32, {sizes[0] / 1e6:.1f} MB in float16; the "
        "runtime stays."
    )
    return Finding(verdict, words)


@claim(
    "D20", topic=SPEED, says="FP16 is faster on a CPU.",
    needs="a processor with instructions for it: others convert each number, or compute one by one",
    by="kdlib audit D20 (on your processor; with our teacher: lesson 05, section 5)",
)  # fmt: skip
def half_speed() -> Finding:
    ratio = half_over_full()
    words = f"On this processor a convolution takes {ratio:.1f} times as long in float16 as in float32."
    return Finding(of_ratio(ratio), words)


def of_ratio(ratio: float) -> str:
    """A tenth less time is faster; up to a tenth more is about as fast."""
    return HOLDS if ratio < 0.9 else IN_PART if ratio < 1.1 else FAILS


def half_over_full(rounds: int = 12) -> float:
    """Time of one thread for a convolution in float16 over that in float32: the fastest of rounds that take turns, so
    that other work on the machine does not count."""
    full, images = nn.Conv2d(32, 32, 3, padding=1).eval(), torch.ones(1, 32, 28, 28)
    pairs = [(full, images), (copy.deepcopy(full).half(), images.half())]
    times, threads = [[], []], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(rounds + 1):
                for own, (layer, given) in zip(times, pairs, strict=True):
                    start = time.perf_counter()
                    layer(given)
                    own.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    fastest = [min(own[1:]) for own in times]
    return fastest[1] / fastest[0]


@claim(
    "D21", topic=SPEED, says="SiLU quantises better than ReLU.",
    needs="a larger ratio of signal to rounding noise at the same number of bits",
)  # fmt: skip
def silu() -> Finding:
    ratios = {
        name: noise_ratio(function) for name, function in (("ReLU", torch.relu), ("SiLU", nn.functional.silu))
    }
    verdict = HOLDS if ratios["SiLU"] > ratios["ReLU"] else FAILS
    words = (
        f"Signal over rounding noise of 8 bits, for normal inputs: {ratios['ReLU']:.1f} dB after ReLU, "
        f"{ratios['SiLU']:.1f} dB "
        "after SiLU. Half of the values after ReLU are zeros, which no rounding changes."
    )
    return Finding(verdict, words)


def noise_ratio(activation, numbers: int = 100_000) -> float:
    """Power of the activations over that of their rounding to 256 steps between their ends, in decibels."""
    inputs = torch.randn(numbers, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = activation(inputs)
    scale = (values.max() - values.min()) / 255
    low = torch.round(values.min() / scale)
    rounded = (torch.round(values / scale) - low).clamp(0, 255).add(low) * scale
    return 10 * torch.log10(values.square().mean() / (rounded - values).square().mean()).item()
