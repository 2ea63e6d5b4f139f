"""From a pretrained network to a teacher: first its new last layer, then all of it, early layers more slowly.

`kdlib.teachers.pretrained` gives the network; what becomes of it teaches as any other does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import metrics
from kdlib._checks import checked, natural_number, positive_number
from kdlib.data import ImageSplit
from kdlib.inference import predict_logits, preprocessing_of, switch
from kdlib.teachers import cached_logits, last_layer
from kdlib.training import checks, devices
from kdlib.training.batches import Batch, Batches
from kdlib.training.loop import History, fit
from kdlib.training.objectives import LabelObjective, TaskLoss
from kdlib.training.preparation import prepare
from kdlib.training.progress import Reporter
from kdlib.training.step import Recipe

DECAY = 1 / 2.6  # of Howard & Ruder
PARTS = 3
WEIGHT_DECAY = 1e-2
LAST_LAYER, ALL = 1, 2  # the stages, in the records

_MOST = 2**30  # bytes of features that are kept


def decay_rule(name: str, value: Any) -> float:
    """A rule for arguments: a number above 0, and at most 1."""
    number = positive_number(name, value)
    if number > 1:
        raise ValueError(
            f"{name} must be at most 1, so that early layers learn no faster than late ones, got {value}"
        )
    return number


@dataclass(frozen=True)
class DiscriminativeRates:
    """Groups for an optimiser: the last layer learns at `learning_rate`, each earlier part at `decay` times the rate
    of the part behind it.

    The layers before the last one are cut into `PARTS` parts of nearly as many layers with weights, in the order in
    which the network defines them. Howard & Ruder divide by 2.6 from layer to layer, in a network of four; fifty
    layers would leave the first ones nothing.
    """

    learning_rate: float
    decay: float

    def __call__(self, network: nn.Module) -> list[dict[str, Any]]:
        """The groups, from the last layer to the first part."""
        _, last = last_layer(network)
        layers = [layer for layer in network.modules() if layer is not last and _own(layer)]
        parts = torch.arange(len(layers)).tensor_split(min(PARTS, len(layers)) or 1)
        grouped = [[last], *([layers[position] for position in part] for part in reversed(parts))]
        known: set[int] = set()
        groups = []
        for depth, members in enumerate(grouped):
            weights = [
                w for layer in members for w in _own(layer) if id(w) not in known
            ]  # some layers share them
            known |= {id(weight) for weight in weights}
            groups.append({"params": weights, "lr": self.learning_rate * self.decay**depth})
        return [group for group in groups if group["params"]]


def _own(layer: nn.Module) -> list[nn.Parameter]:
    """The parameters of a layer itself, without those of the layers inside it."""
    return [*layer.parameters(recurse=False)]


rules = checks.training_rules | {
    "head_epochs": natural_number, "epochs": natural_number, "head_learning_rate": positive_number, "decay": decay_rule,
}  # fmt: skip
rules = {name: rule for name, rule in rules.items() if name not in ("mix", "views", "log_dir")}


@checked(
    network=checks.network_rule, split=checks.split_rule, validation=checks.optional_split_rule,
    task_loss=checks.function_rule, **rules,
)  # fmt: skip
def fine_tune(
    network: nn.Module,
    split: ImageSplit,
    *,
    head_epochs: int = 20,
    epochs: int = 5,
    learning_rate: float | int = 1e-3,
    head_learning_rate: float | int = 1e-2,
    decay: float | int = DECAY,
    batch_size: int = 32,
    weight_decay: float | int = WEIGHT_DECAY,
    task_loss: TaskLoss = F.cross_entropy,
    seed: int = 0,
    augment: Callable[[Tensor], Tensor] | None = None,
    validation: ImageSplit | None = None,
    progress: bool | Reporter = True,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    bfloat16: bool | None = None,
) -> History:
    """Train a pretrained network in place on the labels of `split`, in two stages.

    1. The last layer alone, while all before it stays bit for bit as it is, the statistics of batch norm with it. A
       new last layer begins with random weights, and its first gradients would only disturb what comes before it.
       What enters the layer is computed once, so an epoch of this stage costs next to nothing.
    2. All layers, the last at `learning_rate`, each of three earlier parts at `decay` times the rate of the part
       behind it: early layers see edges and colours, which other photographs have as well.

    Rates by depth and the last layer first are of Howard & Ruder 2018 (ULMFiT, arXiv 1801.06146), for networks that
    read text; they thaw one layer an epoch, here all thaw at once. Common implementations freeze by `requires_grad`
    alone and call `train()`, by which the statistics of batch norm move and dropout acts in the "frozen" part; or
    give all layers one rate, which is `decay=1` here.

    Args:
        network: of `kdlib.teachers.pretrained`, or any other with a last layer (`kdlib.teachers.last_layer`). It gets
            its own preprocessing, and is left in eval mode.
        split: the training images.
        head_epochs: passes of the first stage; 0 leaves it out.
        epochs: passes of the second; 0 leaves it out, which is far cheaper and often good enough.
        learning_rate: peak of the second stage, of the last layer.
        head_learning_rate: peak of the first stage.
        decay: above 0, at most 1.
        augment: in the second stage, as in `train`; the first looks at the images as they are.
        validation: scored after the last epoch of the first stage, and after each of the second.
        checkpoint: of the second stage; the first is repeated on resuming, with the features of it kept on disk.
        task_loss, and all not named here: as `train`.

    Returns:
        The `History` of both stages, one behind the other; `stage` in its records is 1 and 2.

    Raises:
        ValueError: as `train`; a network without a last layer; no epochs in either stage.
    """
    if not head_epochs and not epochs:
        raise ValueError("head_epochs and epochs are both 0: nothing would be trained")
    on, bfloat16 = devices.choose(None, device, bfloat16)
    last_layer(network)
    checks.check_task_loss(task_loss, split)
    logits = checks.check_student(network, split, on.device)
    checks.check_validation(network, validation, on.device)
    shared = {"batch_size": batch_size, "weight_decay": weight_decay, "seed": seed}
    objective, history = LabelObjective(task_loss), History()
    if head_epochs:
        settings = shared | {"epochs": head_epochs, "learning_rate": head_learning_rate}
        history = _last_layer_alone(network, split, objective, settings, on, progress)
        if validation is not None and history.records:
            history.records[-1] |= _score(network, validation, on.device)
    _number(history, LAST_LAYER, 0)
    if history.interrupted or not epochs:
        switch(network, training=False)
        return history
    recipe, batches, logits = prepare(
        network, split, on, bfloat16=bfloat16, augment=augment, epochs=epochs, learning_rate=learning_rate,
        rates=DiscriminativeRates(learning_rate, decay), **shared,
    )  # fmt: skip
    checks.check_task(task_loss, batches, logits)
    whole = fit(
        network, batches, objective, recipe,
        validation=validation, progress=progress, checkpoint=checkpoint, log_dir=None, devices=on,
    )  # fmt: skip
    _number(whole, ALL, len(history.records))
    return History(history.records + whole.records, whole.interrupted)


def _number(history: History, stage: int, before: int) -> None:
    for record in history.records:
        record |= {"stage": stage, "epoch": record["epoch"] + before}


def _score(network: nn.Module, split: ImageSplit, device: torch.device) -> dict[str, float]:
    logits = predict_logits(network, split, device=device)
    if split.has_classes:
        return {"validation_accuracy": metrics.accuracy(logits, split)}
    return {"validation_mean_average_precision": metrics.mean_average_precision(logits, split)}


def _last_layer_alone(
    network: nn.Module,
    split: ImageSplit,
    objective: LabelObjective,
    settings: dict[str, Any],
    on: devices.Devices,
    progress: bool | Reporter,
) -> History:
    """The first stage, on what enters the last layer where that can be computed once."""
    _, last = last_layer(network)
    features = _features(network, split, on.device)
    quiet = {"validation": None, "progress": progress, "checkpoint": None, "log_dir": None, "devices": on}
    if features is not None:
        recipe = Recipe(bfloat16=False, **settings)
        return fit(last, _FeatureBatches(split, features, recipe, on.device), objective, recipe, **quiet)
    with _frozen_but(network, last):
        alone = _LastLayerAlone(network, last)
        recipe, batches, _ = prepare(alone, split, on, bfloat16=False, augment=None, **settings)
        return fit(alone, batches, objective, recipe, **quiet)


def _features(network: nn.Module, split: ImageSplit, device: torch.device) -> Tensor | None:
    """What enters the last layer, (n, features); None where its outputs are not yet the logits (SqueezeNet takes the
    mean of a map of them), or where there is too much of it."""
    path, last = last_layer(network)
    if not isinstance(last, nn.Linear) or len(split) * last.in_features * 4 > _MOST:
        return None
    two = split.subset(slice(2))
    logits = predict_logits(network, two, device=device)
    with _without(network, path):
        try:
            features = predict_logits(network, two, device=device)
        except ValueError:  # what follows the layer does not take what enters it
            return None
        if features.shape[1] != last.in_features or not _gives(last, features.to(device), logits):
            return None
        return cached_logits(network, split, device=device)


def _gives(last: nn.Linear, features: Tensor, logits: Tensor) -> bool:
    with torch.inference_mode():
        return torch.allclose(last(features).cpu(), logits, rtol=1e-3, atol=1e-4)


@contextmanager
def _without(network: nn.Module, path: str) -> Iterator[None]:
    """The network with nothing in place of its last layer."""
    parent, _, name = path.rpartition(".")
    holder, last = network.get_submodule(parent), network.get_submodule(path)
    setattr(holder, name, nn.Identity())
    try:
        yield
    finally:
        setattr(holder, name, last)


@contextmanager
def _frozen_but(network: nn.Module, last: nn.Module) -> Iterator[None]:
    """No weight but those of one layer takes a gradient."""
    taking = [weight for weight in network.parameters() if weight.requires_grad]
    network.requires_grad_(False)
    last.requires_grad_(True)
    try:
        yield
    finally:
        network.requires_grad_(False)
        for weight in taking:
            weight.requires_grad_(True)


class _LastLayerAlone(nn.Module):
    """A network of which `train()` reaches the last layer only: elsewhere batch norm and dropout stay in eval mode."""

    def __init__(self, network: nn.Module, last: nn.Module):
        super().__init__()
        self.network, self.last = network, last
        self.preprocessing = preprocessing_of(network)

    def train(self, mode: bool = True) -> "_LastLayerAlone":
        super().train(False)
        self.last.train(mode)
        return self

    def forward(self, images: Tensor) -> Any:
        return self.network(images)


class _FeatureBatches(Batches):
    """The batches of a training on features: in place of each image what a network has made of it."""

    def __init__(self, split: ImageSplit, features: Tensor, recipe: Recipe, device: torch.device):
        super().__init__(
            split, device, seeds=[recipe.seed], batch_size=recipe.batch_size, epochs=recipe.epochs
        )
        self.features = features.to(device)

    def epoch(self, epoch: int, accuracies: Sequence[float] = ()) -> Iterator[Batch]:
        """One pass, in the order in which the images themselves would come."""
        for index, rows in enumerate(self._order(epoch).tensor_split(self.steps)):
            seen = self.features[rows.to(self.device)]
            progress = (epoch * self.steps + index) / (self.steps * self.epochs)
            yield Batch(rows, seen, self.labels[rows.to(self.device)], progress, seen, tuple(accuracies))
