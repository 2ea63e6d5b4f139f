"""The one training loop behind `kdlib.training`: labels, logits and features differ only in their objective."""

import hashlib
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdlib import metrics
from kdlib.data import ImageSplit
from kdlib.inference import channels_last, predict_logits, switch
from kdlib.training import checkpoints
from kdlib.training.batches import Batch, Batches
from kdlib.training.devices import Devices, moving_norms
from kdlib.training.objectives import Objective
from kdlib.training.progress import Reporter, make_reporter, silent
from kdlib.training.step import Recipe, Step
from kdlib.training.tensorboard import TensorBoardLog

REPORT_INTERVAL = 0.25  # seconds; more often costs kernel time and shows nothing more


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
    devices: Devices | None = None,
) -> History:
    """Train `model` in place; see `kdlib.training` for the arguments."""
    device, devices = batches.device, devices or Devices(batches.device)
    run = _Run(
        model, batches, objective, recipe, make_reporter(progress) if devices.first else silent, devices
    )
    path = Path(checkpoint) if checkpoint is not None else None
    # Described only where it is written down: a live teacher is asked for it.
    settings = run.settings() if path and devices.first else {}
    history = run.resume(path, settings) if path else History()
    run.start()
    log = TensorBoardLog(log_dir) if log_dir is not None and devices.first else None
    # Batches and dropout draw from the global generator; the caller gets it back untouched.
    own_random = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    try:
        with channels_last(model), own_random:
            for epoch in range(len(history.records), recipe.epochs):
                record = run.epoch(epoch, history.validation_scores())
                record = devices.from_first(partial(_scored, record, model, validation, device))
                history.records.append(record)
                if log:
                    log.write(record, objective.soft_targets(record["epoch"] / recipe.epochs))
                if path and devices.first:
                    checkpoints.save(path, run.state(settings, history))
        devices.wait()  # a process that goes on may look for the checkpoint
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
        self,
        model: nn.Module,
        batches: Batches,
        objective: Objective,
        recipe: Recipe,
        report: Reporter,
        devices: Devices,
    ):
        self.model, self.batches, self.objective, self.recipe = model, batches, objective, recipe
        self.devices, self.steps = devices, batches.steps * recipe.epochs
        self.step = Step(model, objective, recipe, batches.device, self.steps, devices)
        self.modules = [model, *([objective] if isinstance(objective, nn.Module) else [])]
        self.frozen_norms = _frozen_norms(model)
        self.report, self.next_report = report, 0.0

    def start(self) -> None:
        """Begin with the same weights in all processes."""
        self.devices.warn_of(moving_norms(self.modules, self.frozen_norms))
        self.devices.copy_from_first([tensor for module in self.modules for tensor in _numbers(module)])

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
            totals = totals + torch.stack(terms).detach() * self.step.images
            self._report(epoch, number, terms)
        means = _by_name(terms, totals / self.batches.images_per_epoch)
        if not math.isfinite(means["loss"]):
            raise diverged(means["loss"], self.recipe, epoch)
        # The statistics of batch norm, which each process has from its own images.
        self.devices.copy_from_first([buffer for module in self.modules for buffer in module.buffers()])
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

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        precision = {"precision": self.devices.precision}
        return self.recipe.describe() | precision | self.objective.describe() | _describe(self.batches.stored)

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
        return state | {"devices": self.devices.state()}

    def resume(self, path: Path, settings: dict[str, Any]) -> History:
        state = self.devices.from_first(partial(checkpoints.load, path, settings))
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
        self.devices.load_state(state.get("devices", {}))
        return History(records=state["records"])


def diverged(loss: float, recipe: Recipe, epoch: int) -> FloatingPointError:
    """What to raise where a training has no finite loss any more."""
    rate = recipe.learning_rate
    return FloatingPointError(
        f"the loss is {loss} in epoch {epoch + 1}; learning_rate={rate} may be too high"
    )


def _numbers(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


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


def _scored(
    record: dict[str, float | int], model: nn.Module, split: ImageSplit | None, device: torch.device
) -> dict[str, float | int]:
    return record if split is None else record | _validation_score(model, split, device)


def _validation_score(model: nn.Module, split: ImageSplit, device: torch.device) -> dict[str, float]:
    logits = predict_logits(model, split, device=device)
    if not split.has_classes:
        return {_SCORES[False]: metrics.mean_average_precision(logits, split)}
    return {_SCORES[True]: (logits.argmax(dim=1) == split.labels).float().mean().item()}
