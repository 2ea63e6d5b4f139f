"""A made-up machine on which models are timed: the same in every run, with the traps of a real one."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdlib.lesson.exercises._observe import is_unfinished

Run = Callable[[], None]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Model:
    milliseconds: float

    def __repr__(self) -> str:
        return f"a model of {self.milliseconds:g} ms"


class Machine:
    """Time passes only while a model runs. A model's first `warm_up` calls are slow; when three fifths of the
    rounds are over, everything is."""

    def __init__(self, models: Sequence[Model], warm_up: int, rounds: int):
        self.now, self.calls = 0.0, [0] * len(models)
        # Whole rounds, so that it does not matter in which order a round takes the models.
        self.busy_from = len(models) * (warm_up + 3 * rounds // 5)
        self.runs = [self._run(number, model.milliseconds, warm_up) for number, model in enumerate(models)]

    def clock(self) -> float:
        return self.now

    def _run(self, number: int, milliseconds: float, warm_up: int) -> Run:
        def run() -> None:
            past = self.calls[number]
            cold = 20 if past < warm_up else 1
            busy = 3 if sum(self.calls) >= self.busy_from else 1
            self.now += milliseconds * cold * busy * (1 + 0.02 * (past * 3 % 7))
            self.calls[number] += 1

        return run


def timed(function: Callable, models: list[Model], clock: str, warm_up: int, rounds: int) -> Any:
    """Probe: the medians that the function finds on a made-up machine, and how often it calls each model."""
    machine = Machine(models, warm_up, rounds)
    result = function(machine.runs, machine.clock, warm_up, rounds)
    if is_unfinished(result):
        return result
    medians = torch.tensor([float(one) for one in result])
    return {"list of medians": medians, "number of calls of the models": torch.tensor(machine.calls)}


def harness(
    models: Sequence[Run],
    clock: Clock,
    warm_up: int,
    rounds: int,
    *,
    statistic: Callable = statistics.median,
    timed_warm_up: int = 0,
    in_turn: bool = True,
) -> list[float]:
    """A harness that can be told to make mistakes.

    Args:
        models: functions of no arguments.
        clock: gives the milliseconds since some moment.
        warm_up: how many calls of each model are not timed.
        rounds: how many calls of each model are timed.
        statistic: puts the times of a model together.
        timed_warm_up: how many of the warm-up calls count as rounds.
        in_turn: whether the models take turns in each round.

    Returns:
        The statistic of each model's times, in ms.
    """
    for model in models:
        for _ in range(warm_up - timed_warm_up):
            model()
    times: list[list[float]] = [[] for _ in models]
    pairs = [*zip(models, times, strict=True)]
    rounds += timed_warm_up
    for model, mine in pairs * rounds if in_turn else [pair for pair in pairs for _ in range(rounds)]:
        start = clock()
        model()
        mine.append(clock() - start)
    return [statistic(mine) for mine in times]


def around_the_round(models: Sequence[Run], clock: Clock, warm_up: int, rounds: int) -> list[float]:
    """Mistake: the clock is read before the first and after the last model of a round."""

    def everything() -> None:
        for model in models:
            model()

    return harness([everything], clock, warm_up, rounds) * len(models)
