"""One step of a training, and the recipe that it follows."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from kdlib._checks import non_negative_number, positive_integer, positive_number
from kdlib.data import ImageSplit
from kdlib.inference import Preprocessing, logits_of
from kdlib.training.batches import Batch, Batches
from kdlib.training.devices import Devices


@dataclass(frozen=True)
class Recipe:
    """How a network is optimised: AdamW (arXiv 1711.05101) under a one-cycle learning rate (1708.07120).

    `rates` makes the optimiser's groups of the network's parameters, each with its own peak `lr`; without it all learn
    at `learning_rate`. By its repr a checkpoint tells one from another.
    """

    epochs: int
    batch_size: int
    learning_rate: float | int
    weight_decay: float | int
    seed: int
    bfloat16: bool
    augment: Callable[[Tensor], Tensor] | None = None
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    views: int | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    rates: Callable[[nn.Module], list[dict[str, Any]]] | None = None

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
        settings = {name: bool(value) if callable(value) else value for name, value in vars(self).items()}
        # None is what checkpoints say that were written before there was such an argument.
        settings["accumulate"] = None if self.accumulate == 1 else self.accumulate
        return settings | {"rates": None if self.rates is None else repr(self.rates)}

    def batches(
        self,
        split: ImageSplit,
        device: torch.device,
        seeds: list[int] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> Batches:
        """The batches of a training by this recipe, for one student, or for one of each of the seeds."""
        return Batches(
            split, device, seeds=[self.seed] if seeds is None else seeds, batch_size=int(self.batch_size),
            epochs=int(self.epochs), augment=self.augment, mix=self.mix, views=self.views,
            preprocessing=preprocessing,
        )  # fmt: skip


class Step:
    """One step of training, the same for a lone student and for several in one network, on one device or several.

    After each, `logits` are those of its last forward pass, and `images` is the number of images that it was computed
    from, in all processes together.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Callable[[Tensor, Batch], tuple[Tensor, ...]],
        recipe: Recipe,
        device: torch.device,
        steps: int,
        devices: Devices | None = None,
    ):
        self.model, self.objective, self.recipe = model, objective, recipe
        self.devices = devices or Devices(device)
        self.logits: Tensor | None = None
        self.images = 0
        self.tried = False
        groups = [{"params": [*model.parameters()]}] if recipe.rates is None else recipe.rates(model)
        if isinstance(objective, nn.Module):
            groups[0]["params"] += [p for p in objective.parameters() if p.requires_grad]
        # Fused: one call for all weights, where a call each would take a sixth of a small network's step. It divides
        # by the scale of 16-mixed itself, which comes too late for clipping.
        fused = not (self.devices.scaled and recipe.clip_norm is not None)
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
        )
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, [group["lr"] for group in self.optimizer.param_groups], total_steps=steps + 1
        )
        self._stepped = self.devices.prepared(self.optimizer)

    def __call__(self, batch: Batch) -> tuple[Tensor, ...]:
        """Forward, loss, backward, update; returns the loss and its terms."""
        self.optimizer.zero_grad(set_to_none=True)
        terms, self.images = self.devices.joined(
            lambda: self._in_parts(batch), self.optimizer, len(batch.rows)
        )
        if not self.tried:
            self._refuse_without_gradient()
        if self.recipe.clip_norm is not None:
            self.devices.clip(self._stepped, self.recipe.clip_norm)
        self._stepped.step()
        self.scheduler.step()
        return terms

    def _in_parts(self, batch: Batch) -> tuple[Tensor, ...]:
        """The terms of a batch, whose gradient is added part by part."""
        if self.recipe.accumulate == 1:
            return self._add_gradient(batch, 1.0)
        means = 0.0
        for part in cut(batch, self.recipe.accumulate):
            share = len(part.rows) / len(batch.rows)
            terms = self._add_gradient(part, share)
            means = means + torch.stack(terms).detach() * share
        return terms._make(means.unbind())

    def _add_gradient(self, batch: Batch, share: float) -> tuple[Tensor, ...]:
        """Forward, loss and backward; the gradient counts as much as this share."""
        with self.devices.autocast(self.recipe.bfloat16):
            logits = logits_of(self.model(batch.images))
        self.logits = logits.detach()
        terms = self.objective(logits.float(), batch)
        total = terms.total.sum() if share == 1 else terms.total.sum() * share
        if total.requires_grad:
            self.devices.backward(total)
        return terms

    def _refuse_without_gradient(self) -> None:
        """In the first step: nothing that is trained may hang on the images by a thread that carries no gradient."""
        if all(parameter.grad is None for parameter in self.model.parameters()):
            raise ValueError(
                "no gradient reaches the model's weights, so nothing would be trained: its forward is quantised, "
                "detaches what it computes, or runs under torch.no_grad()"
            )
        self.tried = True


def cut(batch: Batch, parts: int) -> list[Batch]:
    """A batch as so many of nearly equal size."""
    split = {
        name: value.tensor_split(parts)
        for name, value in batch._asdict().items()
        if isinstance(value, Tensor)
    }
    return [
        batch._replace(**{name: pieces[number] for name, pieces in split.items()}) for number in range(parts)
    ]
