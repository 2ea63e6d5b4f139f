"""How long a model takes on this machine, measured so that a comparison is one of models and not of moments.

Four habits of this module, each against a way in which published timings mislead:
- the first calls are thrown away: they allocate, optimise and fill caches;
- models take turns, so that a moment in which the machine is busy, or its clock slow, meets all of them;
- what is compared are the two timings of one round; how far these ratios scatter is part of the answer;
- medians and quartiles, since one interrupted call can move a mean anywhere.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from kdlib._checks import checked, non_negative_number, open_fraction, positive_integer, positive_number
from kdlib.deploy import arguments, measurable
from kdlib.deploy.loading import Call, Images, noise_images, open_file, torch_call
from kdlib.deploy.measurable import Clock, Model
from kdlib.inference import evaluating

# What the calling thread works, for models of one thread; on Windows it is too coarse to time a call.
PROCESSOR_CLOCK = time.thread_time_ns if os.name == "posix" else time.perf_counter_ns
MOST_CALLS = 1000  # a turn, where a call takes next to nothing or the clock does not notice it
CONDITIONS = {
    "image_shape": arguments.image_shape,
    "threads": arguments.threads,
    "repeats": positive_integer,
    "warm_up": positive_integer,
    "turn": non_negative_number,
    "clock": measurable.clock,
}


@dataclass(frozen=True, eq=False)
class Latencies:
    """What `latency` measured.

    Args:
        milliseconds: one row a round, one column a model; milliseconds of one call, that is of one batch.
        image_shape, batch_size, threads: of every call.
        clock: the name of the clock, "perf_counter_ns" for time that passed.
    """

    milliseconds: pd.DataFrame
    image_shape: tuple[int, int, int]
    batch_size: int
    threads: int
    clock: str

    def table(self) -> pd.DataFrame:
        """One row a model: median, lower_quartile, upper_quartile and fastest, in milliseconds a batch, and
        median_per_image."""
        quartiles = self.milliseconds.quantile([0.25, 0.5, 0.75]).T
        table = pd.DataFrame(
            {
                "median": quartiles[0.5],
                "lower_quartile": quartiles[0.25],
                "upper_quartile": quartiles[0.75],
                "fastest": self.milliseconds.min(),
                "median_per_image": quartiles[0.5] / self.batch_size,
            }
        )
        return table.rename_axis("model")

    def conditions(self) -> str:
        """What has to stand beside the numbers, in one line."""
        images = f"{self.batch_size} image{'s' if self.batch_size > 1 else ''} of " + "x".join(
            map(str, self.image_shape)
        )
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{images}, {threads}, {len(self.milliseconds)} rounds in turn, {self.clock}"


class Scattered(ValueError):
    """The rounds of a ratio lie too far apart for a number to be stated."""


class Ratio(NamedTuple):
    """How many times as long one model takes as another: the median of the rounds' ratios, the ends of its
    confidence interval, and the quartiles of the ratios."""

    median: float
    low: float
    high: float
    lower_quartile: float
    upper_quartile: float
    rounds: int


@checked(models=measurable.models, batch_size=positive_integer, **CONDITIONS)
def latency(
    models: Mapping[str, Model],
    image_shape: Sequence[int],
    *,
    batch_size: int = 1,
    threads: int = 1,
    repeats: int = 50,
    warm_up: int = 5,
    turn: float | int = 10,
    clock: Clock = time.perf_counter_ns,
) -> Latencies:
    """Time models side by side on the CPU: in each round every model has its turn.

    A turn is one call that is not timed, which brings the model's weights back into the caches, and then as
    many timed calls as fill `turn` milliseconds; their median is the model's milliseconds in that round. So a
    fast model is watched for as long as a slow one. Every second round runs backwards, so that a machine that
    gets steadily slower favours none.

    Args:
        models: name -> what to time. The path of a file: .onnx runs in onnxruntime, .pt2 and .pt in torch. A
            network runs in eval mode, in its own floating-point type, and is left in the mode that it was in.
            Any other function is called with a float32 tensor of images. All of torch runs in inference mode.
        image_shape: (channels, height, width).
        batch_size: images in a call.
        threads: of torch (the former number is restored) and of onnxruntime, whose threads do not spin.
        repeats: rounds.
        warm_up: calls of each model before the first round.
        turn: milliseconds; how many calls fill a turn is settled by the fastest call of the warm-up. With 0 it
            is always one, and the quartiles of the rounds are those of single calls.
        clock: nanoseconds since some moment. The default counts the time that passes, as a user would. On a
            machine that is busy with other things, `time.thread_time_ns` counts the processor time of this
            thread alone: right for one thread; on Windows its steps of 16 ms are too coarse.

    Returns:
        The milliseconds of every round, and a table of them.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: an argument of another kind.
        ValueError: no models; a file that holds none; a model that cannot process such images or does not lie
            on the CPU; a number below 1; the clock of one thread for several.
    """
    _check_clock(clock, threads)
    images = noise_images(image_shape, batch_size)
    with ExitStack() as stack:
        stack.enter_context(_torch_threads(threads))
        runs = {
            name: _prepared(f"models[{name!r}]", model, threads, stack)(images)
            for name, model in models.items()
        }
        milliseconds = _take_turns(runs, warm_up=warm_up, repeats=repeats, turn=turn, clock=clock)
    clock_name = getattr(clock, "__name__", type(clock).__name__)
    return Latencies(milliseconds, image_shape, batch_size, threads, clock_name)


@checked(slow=arguments.text, fast=arguments.text, widest=positive_number, confidence=open_fraction)
def ratio(
    result: Latencies,
    slow: str,
    fast: str,
    *,
    widest: float | int = 0.2,
    confidence: float = 0.95,
) -> Ratio:
    """How many times as fast `fast` is as `slow`: the median over the rounds of

        milliseconds of slow in the round / milliseconds of fast in the same round

    A ratio below 1 says that `fast` is the slower one. The interval is that of the sign test: from the k-th
    smallest to the k-th largest ratio, with the largest k for which 2 P(Binomial(rounds, 1/2) < k) is at most
    1 - confidence. It assumes no distribution, but takes the rounds for independent, which a busy machine's are
    not quite; it speaks of this machine in these minutes.

    Args:
        result: what `latency` returned.
        slow, fast: two of its models.
        widest: how far the quartiles of the ratios may lie apart, as a fraction of their median.
        confidence: of the interval, strictly between 0 and 1.

    Returns:
        The ratio, its interval and its quartiles.

    Raises:
        Scattered: the ratios scatter more than `widest` allows, and a number would mislead; the message says what to
            do. It is a ValueError.
        ValueError: Too few rounds for an interval. A name that was not measured.
    """
    if not isinstance(result, Latencies):
        raise TypeError(f"result must be what `latency` returned, got {type(result).__name__}")
    for argument, name in (("slow", slow), ("fast", fast)):
        if name not in list(result.milliseconds):
            raise ValueError(f"{argument}={name!r} was not measured; there are {list(result.milliseconds)}")
    measured = result.milliseconds[[slow, fast]].to_numpy()
    if measured.min() <= 0:
        raise ValueError(
            f"a call took 0 ms on {result.clock}: that clock is too coarse; time more `calls` a turn"
        )
    ratios = np.sort(measured[:, 0] / measured[:, 1])
    lower, median, upper = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    rank = _rank_below_the_median(len(ratios), (1 - confidence) / 2)
    if upper - lower > widest * median:
        raise Scattered(
            f"the ratio of {slow!r} to {fast!r} scatters too much to be stated: half of the rounds lie between "
            f"{lower:.3g} and {upper:.3g}, {(upper - lower) / median:.0%} of the median where widest={widest:.0%} "
            "is allowed. Measure again while the machine does nothing else; or these two models alone, so that the "
            "timings of a round lie closer together; or in processor time (clock=time.thread_time_ns), which leaves "
            "out the moments in which other programs ran. More rounds do not help"
        )
    return Ratio(median, ratios[rank - 1].item(), ratios[-rank].item(), lower, upper, len(ratios))


@checked(model=measurable.model, batch_sizes=measurable.batch_sizes, **CONDITIONS)
def throughput(
    model: Model,
    image_shape: Sequence[int],
    batch_sizes: Sequence[int] = (1, 8, 32, 128),
    *,
    threads: int = 1,
    repeats: int = 10,
    warm_up: int = 1,
    turn: float | int = 10,
    clock: Clock = time.perf_counter_ns,
) -> pd.DataFrame:
    """Images per second by batch size; the batch sizes take turns as the models of `latency` do.

        images_per_second = batch_size / seconds of one batch

    Args:
        model: as a model of `latency`.
        image_shape: (channels, height, width).
        batch_sizes: distinct numbers of images.
        threads, repeats, warm_up, turn, clock: as in `latency`.

    Returns:
        One row a batch size: the median of images_per_second over the rounds, its lower_quartile and
        upper_quartile, and `milliseconds`, the median time of one batch. A larger batch gives more images per
        second until the cores are full, and makes its first image wait for the last one.

    Raises:
        As `latency`; ValueError also for batch sizes that are none or twice the same.
    """
    _check_clock(clock, threads)
    with ExitStack() as stack:
        stack.enter_context(_torch_threads(threads))
        prepare = _prepared("model", model, threads, stack)
        runs = {size: prepare(noise_images(image_shape, size)) for size in batch_sizes}
        milliseconds = _take_turns(runs, warm_up=warm_up, repeats=repeats, turn=turn, clock=clock)
    rates = 1000 * np.array(batch_sizes) / milliseconds
    table = pd.DataFrame(
        {
            "images_per_second": rates.median(),
            "lower_quartile": rates.quantile(0.25),
            "upper_quartile": rates.quantile(0.75),
            "milliseconds": milliseconds.median(),
        }
    )
    return table.rename_axis("batch_size")


def _prepared(name: str, model: Model, threads: int, stack: ExitStack) -> Callable[[Images], Call]:
    """What makes a batch of images into a call of the model; a network is in eval mode until the stack closes."""
    if isinstance(model, PathLike):
        try:
            return open_file(model, threads=threads)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if not isinstance(model, nn.Module):
        return lambda images: torch_call(model, torch.from_numpy(images))
    tensors = [*model.parameters(), *model.buffers()]
    elsewhere = {str(tensor.device) for tensor in tensors} - {"cpu"}
    if elsewhere:
        raise ValueError(f"{name} lies on {', '.join(sorted(elsewhere))}; measured are models on the CPU")
    stack.enter_context(evaluating(model))
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
    return lambda images: torch_call(model, torch.from_numpy(images).to(dtype))


def _check_clock(clock: Clock, threads: int) -> None:
    if clock is time.thread_time_ns and threads > 1:
        raise ValueError(
            f"clock=time.thread_time_ns counts the work of one thread, and threads={threads} would do it"
        )


def _take_turns(
    runs: Mapping[Any, Call], *, warm_up: int, repeats: int, turn: float | int, clock: Clock
) -> pd.DataFrame:
    """Milliseconds of one call, a row for each round, a column for each run."""
    calls = {name: _warmed_up(name, run, warm_up, turn, clock) for name, run in runs.items()}
    rows, order = [], list(runs)
    for number in range(repeats):
        row = {}
        for name in order if number % 2 == 0 else reversed(order):
            runs[name]()
            row[name] = statistics.median(_milliseconds(runs[name], clock) for _ in range(calls[name]))
        rows.append(row)
    return pd.DataFrame(rows, columns=order, index=pd.RangeIndex(1, repeats + 1, name="round"))


def _warmed_up(name: Any, run: Call, warm_up: int, turn: float | int, clock: Clock) -> int:
    """Run it `warm_up` times; how many calls of it fill a turn."""
    try:
        fastest = _milliseconds(run, clock)
    except Exception as error:  # torch, onnxruntime and other people's functions fail in many ways
        what = f"models[{name!r}]" if isinstance(name, str) else f"model, with batch_sizes={name},"
        raise ValueError(f"{what} cannot process images of this image_shape and number: {error}") from error
    for _ in range(warm_up - 1):
        fastest = min(fastest, _milliseconds(run, clock))
    return max(1, min(MOST_CALLS, round(turn / fastest) if fastest > 0 else MOST_CALLS))


def _milliseconds(run: Call, clock: Clock) -> float:
    start = _now(clock)
    run()
    return (_now(clock) - start) / 1e6


def _now(clock: Clock) -> Real:
    try:
        now = clock()
    except TypeError as error:
        raise TypeError(f"clock must be a function without arguments: {error}") from error
    if not isinstance(now, Real):
        raise TypeError(f"clock must return nanoseconds, got {type(now).__name__}")
    return now


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rank_below_the_median(count: int, tail: float) -> int:
    """The largest k with P(Binomial(count, 1/2) < k) <= tail: the k-th smallest of `count` values lies above
    the median of their distribution no more often than that."""
    rank, probability = 0, 0.0
    while (probability := probability + math.comb(count, rank) / 2**count) <= tail:
        rank += 1
    if rank == 0:
        needed = math.ceil(-math.log2(tail))
        raise ValueError(
            f"{count} rounds are too few for this interval: measure with repeats={needed} or more"
        )
    return rank
