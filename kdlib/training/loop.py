"""The one training loop behind `kdlib.training`: labels, logits and features differ only in their objective."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pandas
import torch
from torch import Tensor, nn

from kdlib.data import ImageSplit
from kdlib.inference import channels_last, logits_of, predict_logits
from kdlib.training import checkpoints
from kdlib.training.progress import Reporter, make_reporter
from kdlib.training.tensorboard import TensorBoardLog

REPORT_INTERVAL = 0.25  # seconds; more often costs kernel time and shows nothing more


class Batch(NamedTuple):
    positions: Tensor  # rows of the split, on the CPU
    images: Tensor  # normalised views, on the device
    labels: Tensor  # on the device
    progress: float  # share of the training that is done, in [0, 1)


@runtime_checkable
class Objective(Protocol):
    """What is minimised. Modules it owns (regressors) give their parameters to the optimiser."""

    def __call__(self, student_logits: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """A named tuple of scalars, such as `LossTerms`: first the total, then the terms to be recorded."""

    def describe(self) -> dict[str, Any]:
        """The settings that a checkpoint must agree with."""

    def soft_targets(self, progress: float) -> Tensor | None:
        """Soft targets to draw a histogram of, where there are any."""


@dataclass(frozen=True)
class Recipe:
    """How a network is optimised: AdamW (arXiv 1711.05101) under a one-cycle learning rate (1708.07120)."""

    epochs: int
    batch_size: int
    learning_rate: float | int
    weight_decay: float | int
    seed: int
    bfloat16: bool
    augment: Callable[[Tensor], Tensor] | None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be a finite number above 0, got {self.learning_rate}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be a finite number of at least 0, got {self.weight_decay}")

    def describe(self) -> dict[str, Any]:
        settings = asdict(self)
        settings["augment"] = self.augment is not None
        return settings


@dataclass
class History:
    """What happened in a training: one record an epoch.

    Each record holds `epoch`, the epoch's mean `loss`, `task` and `distill` terms (and `features`, where there
    are feature losses), `learning_rate`, `seconds` and, with a validation split, `validation_accuracy`.
    `interrupted` tells that somebody pressed stop: the records are those of the complete epochs, and the model
    keeps the weights of its last step.
    """

    records: list[dict[str, float | int]] = field(default_factory=list)
    interrupted: bool = False

    def frame(self) -> pandas.DataFrame:
        """The records as a table."""
        return pandas.DataFrame(self.records)


def fit(
    model: nn.Module,
    split: ImageSplit,
    objective: Objective,
    recipe: Recipe,
    *,
    device: torch.device,
    validation: ImageSplit | None,
    progress: bool | Reporter,
    checkpoint: str | Path | None,
    log_dir: str | Path | None,
) -> History:
    """Train `model` in place; see `kdlib.training` for the arguments."""
    run = _Run(model, split, objective, recipe, device, make_reporter(progress))
    path = Path(checkpoint) if checkpoint is not None else None
    settings = recipe.describe() | objective.describe() | {"split": split.digest()}
    history = run.resume(path, settings) if path else History()
    log = TensorBoardLog(log_dir) if log_dir is not None else None
    # Batches and dropout draw from the global generator; the caller gets it back untouched.
    own_random = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    try:
        with channels_last(model), own_random:
            for epoch in range(len(history.records), recipe.epochs):
                record = run.epoch(epoch)
                if validation is not None:
                    record["validation_accuracy"] = _accuracy(model, validation, device)
                history.records.append(record)
                if log:
                    log.write(record, objective.soft_targets(record["epoch"] / recipe.epochs))
                if path:
                    checkpoints.save(path, run.state(settings, history))
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        model.eval()
        if log:
            log.close()
    return history


class _Run:
    """The moving parts of one training."""

    def __init__(
        self,
        model: nn.Module,
        split: ImageSplit,
        objective: Objective,
        recipe: Recipe,
        device: torch.device,
        report: Reporter,
    ):
        self.model, self.objective, self.recipe, self.device, self.report = model, objective, recipe, device, report
        self.labels = split.labels.to(device)
        self.images = split.images.to(device)
        shape = (1, -1, 1, 1)
        self.scale = (1 / (255 * split.std)).view(shape).to(device)
        self.shift = (-split.mean / split.std).view(shape).to(device)
        self.steps_per_epoch = math.ceil(len(split) / recipe.batch_size)
        self.steps = self.steps_per_epoch * recipe.epochs
        parameters = [*model.parameters()]
        if isinstance(objective, nn.Module):
            parameters += [p for p in objective.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.learning_rate, total_steps=self.steps + 1
        )
        self.next_report = 0.0

    def epoch(self, epoch: int) -> dict[str, float | int]:
        """One pass over the split in an order that depends on the seed and the epoch alone, so that a resumed
        training continues exactly as an uninterrupted one."""
        started = time.perf_counter()
        torch.manual_seed((self.recipe.seed * 1_000_003 + epoch) % 2**63)
        self.model.train()
        order = torch.randperm(len(self.labels))
        totals = torch.zeros((), device=self.device)
        # Batches of nearly equal size: a leftover batch of one image would break batch norm.
        for index, positions in enumerate(order.tensor_split(self.steps_per_epoch)):
            step = epoch * self.steps_per_epoch + index
            terms = self.step(positions, step / self.steps)
            totals = totals + torch.stack(terms).detach() * len(positions)
            self._report(epoch, step + 1, terms)
        means = _by_name(terms, totals / len(order))
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"the loss is {means['loss']} in epoch {epoch + 1}; learning_rate={self.recipe.learning_rate} "
                "may be too high"
            )
        return {
            "epoch": epoch + 1,
            **means,
            "learning_rate": self.scheduler.get_last_lr()[0],
            "seconds": time.perf_counter() - started,
        }

    def step(self, positions: Tensor, progress: float) -> tuple[Tensor, ...]:
        batch = self._batch(positions, progress)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            logits = logits_of(self.model(batch.images))
        terms = self.objective(logits.float(), batch)
        self.optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        self.optimizer.step()
        self.scheduler.step()
        return terms

    def _batch(self, positions: Tensor, progress: float) -> Batch:
        on_device = positions.to(self.device)
        images = self.images[on_device]
        if self.recipe.augment is not None:
            images = self.recipe.augment(images)
        normalized = torch.addcmul(self.shift, images.float(), self.scale)
        normalized = normalized.contiguous(memory_format=torch.channels_last)
        return Batch(positions, normalized, self.labels[on_device], progress)

    def _report(self, epoch: int, step: int, terms: tuple[Tensor, ...]) -> None:
        now = time.monotonic()
        if now < self.next_report and step < self.steps:
            return
        self.next_report = now + REPORT_INTERVAL
        record = {"epoch": epoch + 1, "step": step, "steps": self.steps}
        self.report(record | _by_name(terms, torch.stack(terms)))

    def state(self, settings: dict[str, Any], history: History) -> dict[str, Any]:
        state = {
            "settings": settings,
            "records": history.records,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        if isinstance(self.objective, nn.Module):
            state["objective"] = self.objective.state_dict()
        return state

    def resume(self, path: Path, settings: dict[str, Any]) -> History:
        state = checkpoints.load(path, settings)
        if state is None:
            return History()
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ValueError(f"checkpoint={str(path)!r} belongs to another network: {error}") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if isinstance(self.objective, nn.Module):
            self.objective.load_state_dict(state["objective"])
        return History(records=state["records"])


def _by_name(terms: tuple[Tensor, ...], values: Tensor) -> dict[str, float]:
    """The terms' values by name, the total as "loss"."""
    return dict(zip(("loss", *terms._fields[1:]), values.tolist(), strict=True))


def _accuracy(model: nn.Module, split: ImageSplit, device: torch.device) -> float:
    predicted = predict_logits(model, split, device=device).argmax(dim=1)
    return (predicted == split.labels).float().mean().item()
