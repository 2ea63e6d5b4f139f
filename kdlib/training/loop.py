"""The one training loop behind `kdlib.training`: labels, logits and features differ only in their objective."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdlib import metrics
from kdlib._checks import non_negative_number, positive_integer, positive_number
from kdlib.data import ImageSplit
from kdlib.inference import channels_last, logits_of, predict_logits, switch
from kdlib.training import checkpoints
from kdlib.training.batches import Batch, Batches
from kdlib.training.objectives import Objective
from kdlib.training.progress import Reporter, make_reporter
from kdlib.training.tensorboard import TensorBoardLog

REPORT_INTERVAL = 0.25  # seconds; more often costs kernel time and shows nothing more


@dataclass(frozen=True)
class Recipe:
    """How a network is optimised: AdamW (arXiv 1711.05101) under a one-cycle learning rate (1708.07120)."""

    epochs: int
    batch_size: int
    learning_rate: float | int
    weight_decay: float | int
    seed: int
    bfloat16: bool
    augment: Callable[[Tensor], Tensor] | None = None
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    views: int | None = None

    def __post_init__(self) -> None:
        positive_integer("epochs", self.epochs)
        positive_integer("batch_size", self.batch_size)
        positive_number("learning_rate", self.learning_rate)
        non_negative_number("weight_decay", self.weight_decay)
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral):
            raise TypeError(f"seed must be a whole number, got {type(self.seed).__name__} {self.seed!r}")
        if self.views is not None:
            positive_integer("views", self.views)
            if self.augment is None:
                raise ValueError(f"views={self.views} are views that augment draws: give augment as well")

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must agree with. Functions are no data: that they are there is all that is compared."""
        return {name: bool(value) if callable(value) else value for name, value in vars(self).items()}

    def batches(self, split: ImageSplit, device: torch.device, seeds: list[int] | None = None) -> Batches:
        """The batches of a training by this recipe, for one student, or for one of each of the seeds."""
        return Batches(
            split, device, seeds=[self.seed] if seeds is None else seeds, batch_size=int(self.batch_size),
            epochs=int(self.epochs), augment=self.augment, mix=self.mix, views=self.views,
        )  # fmt: skip


@dataclass
class History:
    """What happened in a training: one record an epoch.

    Each record holds `epoch`, the epoch's mean `loss`, `task` and `distill` terms (and `features`, where there
    are feature losses), `learning_rate`, `seconds` and, with a validation split, `validation_accuracy` (or
    `validation_mean_average_precision`, where images have several labels).
    `interrupted` tells that somebody pressed stop: the records are those of the complete epochs, and the model
    keeps the weights of its last step.
    """

    records: list[dict[str, float | int]] = field(default_factory=list)
    interrupted: bool = False

    def frame(self) -> pandas.DataFrame:
        """The records as a table."""
        return pandas.DataFrame(self.records)

    def validation_scores(self) -> tuple[float, ...]:
        """What the validation split said after each epoch."""
        return tuple(record[name] for record in self.records for name in _SCORES.values() if name in record)


class Step:
    """One step of training, the same for a lone student and for several in one network."""

    def __init__(
        self,
        model: nn.Module,
        objective: Callable[[Tensor, Batch], tuple[Tensor, ...]],
        recipe: Recipe,
        device: torch.device,
        steps: int,
    ):
        self.model, self.objective, self.recipe, self.device = model, objective, recipe, device
        self.logits: Tensor | None = None  # of the last batch
        self.tried = False
        parameters = [*model.parameters()]
        if isinstance(objective, nn.Module):
            parameters += [p for p in objective.parameters() if p.requires_grad]
        # Fused: one call for all weights, where a call each would take a sixth of a small network's step.
        self.optimizer = torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.learning_rate, total_steps=steps + 1
        )

    def __call__(self, batch: Batch) -> tuple[Tensor, ...]:
        """Forward, loss, backward, update; returns the loss and its terms."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            logits = logits_of(self.model(batch.images))
        self.logits = logits.detach()
        terms = self.objective(logits.float(), batch)
        self.optimizer.zero_grad(set_to_none=True)
        total = terms.total.sum()
        if total.requires_grad:
            total.backward()
        if not self.tried:
            self._refuse_without_gradient()
        self.optimizer.step()
        self.scheduler.step()
        return terms

    def _refuse_without_gradient(self) -> None:
        """In the first step: nothing that is trained may hang on the images by a thread that carries no gradient."""
        if all(parameter.grad is None for parameter in self.model.parameters()):
            raise ValueError(
                "no gradient reaches the model's weights, so nothing would be trained: its forward is quantised, "
                "detaches what it computes, or runs under torch.no_grad()"
            )
        self.tried = True


def fit(
    model: nn.Module,
    batches: Batches,
    objective: Objective,
    recipe: Recipe,
    *,
    validation: ImageSplit | None,
    progress: bool | Reporter,
    checkpoint: str | Path | None,
    log_dir: str | Path | None,
) -> History:
    """Train `model` in place; see `kdlib.training` for the arguments."""
    device = batches.device
    run = _Run(model, batches, objective, recipe, make_reporter(progress))
    path = Path(checkpoint) if checkpoint is not None else None
    # Described only where it is written down: a live teacher is asked for it.
    settings = recipe.describe() | objective.describe() | _describe(batches.stored) if path else {}
    history = run.resume(path, settings) if path else History()
    log = TensorBoardLog(log_dir) if log_dir is not None else None
    # Batches and dropout draw from the global generator; the caller gets it back untouched.
    own_random = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    try:
        with channels_last(model), own_random:
            for epoch in range(len(history.records), recipe.epochs):
                record = run.epoch(epoch, history.validation_scores())
                if validation is not None:
                    record |= _validation_score(model, validation, device)
                history.records.append(record)
                if log:
                    log.write(record, objective.soft_targets(record["epoch"] / recipe.epochs))
                if path:
                    checkpoints.save(path, run.state(settings, history))
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        switch(model, training=False)
        if log:
            log.close()
    return history


class _Run:
    """The moving parts of one training."""

    def __init__(
        self, model: nn.Module, batches: Batches, objective: Objective, recipe: Recipe, report: Reporter
    ):
        self.model, self.batches, self.objective, self.recipe = model, batches, objective, recipe
        self.steps = batches.steps * recipe.epochs
        self.step = Step(model, objective, recipe, batches.device, self.steps)
        self.frozen_norms = _frozen_norms(model)
        self.report, self.next_report = report, 0.0

    def epoch(self, epoch: int, scores: tuple[float, ...]) -> dict[str, float | int]:
        """One pass over the images."""
        started = time.perf_counter()
        switch(self.model, training=True)
        for norm in self.frozen_norms:
            norm.eval()
        totals = torch.zeros((), device=self.batches.device)
        for number, batch in enumerate(
            self.batches.epoch(epoch, scores), start=epoch * self.batches.steps + 1
        ):
            terms = self._step(batch, epoch)
            totals = totals + torch.stack(terms).detach() * len(batch.rows)
            self._report(epoch, number, terms)
        means = _by_name(terms, totals / self.batches.images_per_epoch)
        if not math.isfinite(means["loss"]):
            raise diverged(means["loss"], self.recipe, epoch)
        return {
            "epoch": epoch + 1,
            **means,
            "learning_rate": self.step.scheduler.get_last_lr()[0],
            "seconds": time.perf_counter() - started,
        }

    def _step(self, batch: Batch, epoch: int) -> tuple[Tensor, ...]:
        try:
            return self.step(batch)
        except ValueError as error:
            # A loss refuses logits that are not finite: in the middle of a training the student has diverged.
            if self.step.logits is not None and not self.step.logits.isfinite().all():
                raise diverged(math.nan, self.recipe, epoch) from error
            raise

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
            "optimizer": self.step.optimizer.state_dict(),
            "scheduler": self.step.scheduler.state_dict(),
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
        self.step.optimizer.load_state_dict(state["optimizer"])
        self.step.scheduler.load_state_dict(state["scheduler"])
        if isinstance(self.objective, nn.Module):
            self.objective.load_state_dict(state["objective"])
        return History(records=state["records"])


def diverged(loss: float, recipe: Recipe, epoch: int) -> FloatingPointError:
    """What to raise where a training has no finite loss any more."""
    rate = recipe.learning_rate
    return FloatingPointError(
        f"the loss is {loss} in epoch {epoch + 1}; learning_rate={rate} may be too high"
    )


def _describe(split: ImageSplit) -> dict[str, str]:
    """The images and labels of a training, for its checkpoint."""
    labels = hashlib.sha256(split.labels.numpy().tobytes()).hexdigest()
    return {"split": split.digest(), "labels": labels}


def _frozen_norms(model: nn.Module) -> list[nn.Module]:
    """Batch norm that somebody froze, by eval mode and weights without gradient: its statistics stay as they are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and not module.training]
    return [
        norm for norm in norms if [*norm.parameters()] and not any(p.requires_grad for p in norm.parameters())
    ]


def _by_name(terms: tuple[Tensor, ...], values: Tensor) -> dict[str, float]:
    """The terms' values by name, the total as "loss"."""
    return dict(zip(("loss", *terms._fields[1:]), values.tolist(), strict=True))


_SCORES = {True: "validation_accuracy", False: "validation_mean_average_precision"}


def _validation_score(model: nn.Module, split: ImageSplit, device: torch.device) -> dict[str, float]:
    logits = predict_logits(model, split, device=device)
    if not split.has_classes:
        return {_SCORES[False]: metrics.mean_average_precision(logits, split)}
    return {_SCORES[True]: (logits.argmax(dim=1) == split.labels).float().mean().item()}
