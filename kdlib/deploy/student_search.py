"""Which student to train: the best one that fits the device, found by training small ones for a short time."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pandas
import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib import _checks, metrics
from kdlib._checks import checked, positive_integer, positive_number
from kdlib.data import ImageSplit
from kdlib.deploy import arguments, benchmark, footprint, networks
from kdlib.deploy.export import export_onnx
from kdlib.deploy.networks import logit_count
from kdlib.models import PocketCNN
from kdlib.teachers import cached_logits
from kdlib.training import LEARNING_RATE, distill

PROPOSALS = 50  # plans looked at for each student that is trained, at most
SAMPLERS = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}

Plan = tuple[tuple[int, int, int], ...]


class StudentSearch(NamedTuple):
    """What `search_student` found.

    Args:
        plan: (channels, kernel size, stride) of each convolution of the best student, for
            `models.PocketCNN(num_classes, in_channels, plan)`.
        trials: a row for each plan that was proposed, in this order, each plan once: `plan`, `multiply_adds`,
            `parameters`, `latency` (NaN where it was not measured), `status` ("trained", or which budget it
            exceeds), `accuracy` on the validation split (NaN where it was not trained).
    """

    plan: Plan
    trials: pandas.DataFrame


def _teacher(name: str, value: Any) -> nn.Module | Tensor:
    return (
        _checks.several_logits(name, value)
        if isinstance(value, Tensor)
        else networks.with_weights(name, value)
    )


def _split(name: str, value: Any) -> ImageSplit:
    if not isinstance(value, ImageSplit):
        raise TypeError(
            f"{name} must be an ImageSplit, got {type(value).__name__}; of a data set give one split"
        )
    return value


def _choice(name: str, value: Any) -> tuple[int, ...]:
    """A rule for arguments: the whole numbers that there are to choose from."""
    found = arguments.listed(name, value, "a list of whole numbers")
    if not found:
        raise ValueError(f"{name} must offer at least one whole number, got none")
    return tuple(arguments.whole_number(f"each of {name}", number) for number in found)


def _latency(name: str, value: Any) -> Callable | None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function of a network, such as onnx_latency(...), got {value!r}")
    return value


def _seed(name: str, value: Any) -> int:
    if _checks.natural_number(name, value) >= 2**32:
        raise ValueError(
            f"{name} must be below 2**32, which optuna's sampler takes, got {arguments.short(value)}"
        )
    return int(value)


def _sampler(name: str, value: Any) -> str:
    if value not in SAMPLERS:
        raise ValueError(f"{name} must be one of {', '.join(SAMPLERS)}; got {value!r}")
    return value


def _budget(name: str, value: Any) -> float | None:
    return None if value is None else positive_number(name, value)


@checked(
    teacher=_teacher,
    split=_split,
    validation=_split,
    students=positive_integer,
    multiply_adds=positive_integer,
    epochs=positive_integer,
    depths=_choice,
    channels=_choice,
    kernels=_choice,
    strides=_choice,
    temperature=positive_number,
    alpha=_checks.fraction,
    learning_rate=positive_number,
    seed=_seed,
    sampler=_sampler,
    latency=_latency,
    latency_budget=_budget,
)
def search_student(
    teacher: nn.Module | Float[Tensor, "_n _classes"],
    split: ImageSplit,
    validation: ImageSplit,
    *,
    multiply_adds: int,
    latency: Callable[[nn.Module], float] | None = None,
    latency_budget: float | int | None = None,
    students: int = 10,
    epochs: int = 5,
    depths: Sequence[int] = (2, 3, 4),
    channels: Sequence[int] = (8, 16, 24, 32, 48, 64),
    kernels: Sequence[int] = (3, 5),
    strides: Sequence[int] = (1, 2),
    temperature: float | int = 4.0,
    alpha: float | int = 0.9,
    learning_rate: float | int = LEARNING_RATE,
    seed: int = 0,
    sampler: str = "tpe",
) -> StudentSearch:
    """Search the plans of `models.PocketCNN` for the most accurate student within a budget.

    A sampler of optuna proposes a plan: how many convolutions, and the channels, the kernel and the stride of
    each. A plan above a budget is told so and costs next to nothing; one within is trained by
    `kdlib.training.distill` on `split` and judged by its accuracy on `validation`. Do not give the test split:
    the best of many is better on what it was chosen by than elsewhere.

    For one seed and number of threads the result is the same each time, unless `latency` is given: measured times
    are never quite the same, and a plan near the budget may pass once and fail once.

    Args:
        teacher: a network, or its logits, a row for each image of `split`.
        split: the images to train on; some hundred are enough to compare plans.
        validation: the images to judge by.
        multiply_adds: the budget for one image, convolutions and linear layers counted (one multiply-add is two
            floating-point operations).
        latency: a function from a network to the time that it takes, such as `onnx_latency(image_shape)`; asked
            for plans within `multiply_adds`.
        latency_budget: the largest time that is allowed, in the unit of `latency`.
        students: how many to train; fewer where 50 times as many proposals hold no more plans within the budget.
        epochs, temperature, alpha, learning_rate: as in `distill`.
        depths, channels, kernels, strides: what there is to choose from; kernels are odd.
        seed: of the proposals, the initial weights and the training.
        sampler: "tpe", which proposes plans like those that did well; or "random", every plan with the same
            chance, the control that says what the other one is worth.

    Returns:
        The best plan and the table of all that were looked at. Of equal ones the first.

    Raises:
        TypeError: a teacher, split or number of another kind.
        ValueError: an unknown sampler, nothing to choose from, an even kernel, a budget without its function or the
            reverse, or no plan within the budget; and as `distill`.

    Common implementations differ: many search by accuracy alone and check the budget once at the end, or put
    it into the score, so that a plan above the budget can win.

    Source: Tan et al. 2018 (MnasNet, measured latency in the search), arXiv 1807.11626; the sampler: Bergstra et
    al. 2011; Akiba et al. 2019 (Optuna), arXiv 1907.10902.
    """
    choices = {"depths": depths, "channels": channels, "kernels": kernels, "strides": strides}
    if any(kernel % 2 == 0 for kernel in kernels):
        raise ValueError(f"kernels must be odd, got {list(kernels)}")
    if (latency is None) != (latency_budget is None):
        raise ValueError("latency and latency_budget are given together or not at all")
    logits = teacher if isinstance(teacher, Tensor) else cached_logits(teacher, split)
    if len(logits) != len(split):
        raise ValueError(
            f"teacher must have a row for each of the {len(split)} images of split, got {len(logits)}"
        )
    rows: dict[Plan, dict] = {}

    def judge(trial: optuna.Trial) -> float:
        plan = _proposed(trial, choices)
        if plan not in rows:
            student = _student(plan, logits.shape[1], split.images.shape[1], seed)
            rows[plan] = row = _measured(plan, student, split, multiply_adds, latency, latency_budget)
            if row["status"] == "trained":
                history = distill(
                    student, logits, split, epochs=epochs, temperature=temperature, alpha=alpha,
                    learning_rate=learning_rate, seed=seed, progress=False,
                )  # fmt: skip
                if history.interrupted:  # somebody pressed stop, and means the whole search
                    raise KeyboardInterrupt
                row["accuracy"] = _judged(plan, student, validation, learning_rate)
        if rows[plan]["status"] != "trained":
            raise optuna.TrialPruned(rows[plan]["status"])
        return rows[plan]["accuracy"]

    def stop_when_done(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
        if sum(row["status"] == "trained" for row in rows.values()) == students:
            study.stop()

    with _quiet_optuna():
        study = optuna.create_study(direction="maximize", sampler=SAMPLERS[sampler](seed=seed))
        study.optimize(judge, n_trials=PROPOSALS * students, callbacks=[stop_when_done])
    trials = pandas.DataFrame(rows.values())
    if trials["accuracy"].isna().all():
        cheapest = trials.loc[trials["multiply_adds"].idxmin()]
        raise ValueError(
            f"no plan within the budget among {len(trials)}: the smallest, {cheapest['plan']}, has "
            f"{cheapest['multiply_adds']} multiply-adds ({cheapest['status']}); allow more or offer smaller choices"
        )
    return StudentSearch(trials.loc[trials["accuracy"].idxmax(), "plan"], trials)


@checked(image_shape=arguments.image_shape, repeats=positive_integer)
def onnx_latency(image_shape: Sequence[int], *, repeats: int = 50) -> Callable[[nn.Module], float]:
    """A measure for `search_student`: the milliseconds that a network takes for one image in onnxruntime.

    The function that comes back exports a network, which takes a second or two, runs the file on one thread, and
    returns the median of `repeats` calls (`kdlib.deploy.benchmark.latency`). An untrained network is as fast as a
    trained one.

    Args:
        image_shape: (channels, height, width), with 1 or 3 channels.
        repeats: calls that the median is of.

    Raises:
        TypeError, ValueError: no shape, no number; and as `export_onnx` and `latency`, when the function is called.
    """

    def milliseconds(network: nn.Module) -> float:
        classes = [f"class {number}" for number in range(logit_count(network, image_shape))]
        centred = {"mean": [0.0] * image_shape[0], "std": [1.0] * image_shape[0]}
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(
                network, Path(folder, "student.onnx"), image_shape=image_shape, classes=classes, **centred
            )
            measured = benchmark.latency({"student": path}, image_shape, repeats=repeats)
        return measured.table()["median"].item()

    return milliseconds


def _judged(plan: Plan, student: nn.Module, validation: ImageSplit, learning_rate: float) -> float:
    try:
        return metrics.accuracy(student, validation)
    except ValueError as error:
        raise ValueError(
            f"the student {plan} cannot be judged by validation: {error}. Where its logits are not finite, "
            f"learning_rate={learning_rate:g} is too high"
        ) from error


def _proposed(trial: optuna.Trial, choices: dict[str, Sequence[int]]) -> Plan:
    def choose(name: str, kind: str) -> int:
        return trial.suggest_categorical(name, tuple(choices[kind]))

    return tuple(
        tuple(choose(f"{kind} {number}", kind) for kind in ("channels", "kernels", "strides"))
        for number in range(choose("depths", "depths"))
    )


def _student(plan: Plan, num_classes: int, in_channels: int, seed: int) -> PocketCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PocketCNN(num_classes, in_channels, plan)


def _measured(
    plan: Plan,
    student: PocketCNN,
    split: ImageSplit,
    multiply_adds: int,
    latency: Callable[[nn.Module], float] | None,
    latency_budget: float | int | None,
) -> dict:
    """The row of a plan before it is trained, with "trained" for its status where it is about to be."""
    row = {
        "plan": plan,
        "multiply_adds": footprint.multiply_adds(student, split.images.shape[1:]),
        "parameters": footprint.parameters(student),
        "latency": float("nan"),
        "status": "trained",
        "accuracy": float("nan"),
    }
    if row["multiply_adds"] > multiply_adds:
        return row | {"status": f"above {multiply_adds} multiply-adds"}
    if latency is not None:
        row["latency"] = float(latency(student.eval()))
        if row["latency"] > latency_budget:
            row["status"] = f"above {latency_budget:g} latency"
    return row


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Without a line on stderr for every trial; what fails is raised."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
