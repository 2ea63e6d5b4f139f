"""Feature losses as terms of a training: which layers, which loss, which weight."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import non_negative_number
from kdlib.data import ImageSplit
from kdlib.features.capturing import capture
from kdlib.inference import channels_last, evaluating, pick_device, seen_by

__all__ = ["FeatureTerm", "teacher_features"]

Layers = str | tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FeatureTerm:
    """weight * loss(student features, teacher features), for `features=` of `kdlib.training.distill`.

    A loss may also name, and is then passed: `labels` (batch,), `student_logits` and `teacher_logits`
    (batch, classes), `student_gradients` and `teacher_gradients`, the gradient of each image's logit of its label
    with respect to the features (`kdlib.features.class_gradients`).

    Args:
        loss: a function of (student_features, teacher_features), student first, that returns a scalar
            (`kdlib.features.hint_loss`; `functools.partial` sets its options); or a module, whose parameters
            are trained with the student (`kdlib.features.VariationalInformationLoss`).
        student_layer: a name that `kdlib.features.capture` knows; or two such names, for a loss of two maps
            (`kdlib.features.flow_loss`).
        teacher_layer: likewise of the teacher; or the teacher's features themselves, a row for each image of
            the training images (`kdlib.features.teacher_features`).
        weight: of this term, at least 0. The weights of the task and distill terms are alpha's.
        regressor: True for a `Regressor` that carries the student's features to the teacher's shape, or a
            module of your own. It is trained with the student, and not part of it.

    Raises:
        ValueError: a negative weight; two layers on one side and one on the other; a regressor for two layers.
    """

    loss: Callable[..., Tensor]
    student_layer: Layers
    teacher_layer: Layers | Tensor
    weight: float | int = 1.0
    regressor: bool | nn.Module = False

    def __post_init__(self) -> None:
        non_negative_number("weight", self.weight)
        for name in ("student_layer", "teacher_layer"):
            if isinstance(layers := getattr(self, name), tuple | list) and len(layers) < 2:
                raise ValueError(f"{name} must be the name of a layer, or two names, got {layers!r}")
        if not isinstance(self.regressor, bool | nn.Module):
            raise TypeError(f"regressor must be True, False or a module, got {self.regressor!r:.80}")
        if not isinstance(self.student_layer, str):
            object.__setattr__(self, "student_layer", tuple(self.student_layer))
            if isinstance(self.teacher_layer, str | Tensor) or len(self.teacher_layer) != len(
                self.student_layer
            ):
                raise ValueError(
                    f"teacher_layer must name as many layers as student_layer={self.student_layer}, "
                    f"got {self.teacher_layer!r:.80}"
                )
            if self.regressor:
                raise ValueError(f"regressor is for one layer, got student_layer={self.student_layer}")
        if not isinstance(self.teacher_layer, str | Tensor):
            object.__setattr__(self, "teacher_layer", tuple(self.teacher_layer))
            if isinstance(self.student_layer, str):
                raise ValueError(
                    f"student_layer must name as many layers as teacher_layer={self.teacher_layer}"
                )

    @property
    def student_layers(self) -> tuple[str, ...]:
        """The names of the student's layers."""
        return _names(self.student_layer)

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """The names of the teacher's layers; none where the features are given."""
        return () if isinstance(self.teacher_layer, Tensor) else _names(self.teacher_layer)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        teacher = self.teacher_layer
        known = _digest(teacher) if isinstance(teacher, Tensor) else teacher
        return {
            "loss": written(self.loss),
            "layers": [
                layer if isinstance(layer, str) else list(layer) for layer in (self.student_layer, known)
            ],
            "weight": float(self.weight),
            "regressor": str(self.regressor),
        }


def teacher_features(
    teacher: nn.Module,
    split: ImageSplit,
    layers: Sequence[str],
    *,
    batch_size: int = 100,
    device: str | torch.device | None = None,
) -> dict[str, Float[Tensor, "n *shape"]]:
    """The teacher's features of every image of `split`, float32 on the CPU, row i for image i.

    They hold for the images as they are, in eval mode; an augmented view has other features. Mind the size:
    n * channels * height * width * 4 bytes a layer.

    Args:
        teacher: any network; one that carries a preprocessing of its own gets it.
        split: the images.
        layers: names that `kdlib.features.capture` knows.
        batch_size: images at a time.
        device: where to compute; by default CUDA, MPS or the CPU, in this order.

    Raises:
        ValueError: as `kdlib.features.capture`.
    """
    device = pick_device(device)
    captured = capture(teacher, layers).to(device)
    parts: dict[str, list[Tensor]] = {layer: [] for layer in captured.layers}
    with evaluating(captured), channels_last(captured), torch.no_grad():
        for rows in torch.arange(len(split)).split(batch_size):
            _, features = captured(seen_by(teacher, split, rows).to(device))
            for layer, values in features.items():
                parts[layer].append(values.float().cpu().contiguous())
    return {layer: torch.cat(values) for layer, values in parts.items()}


def check_terms(name: str, value: Any) -> list[FeatureTerm]:
    """A rule for `kdlib._checks.checked`: a sequence of terms."""
    if isinstance(value, FeatureTerm) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of FeatureTerm, got {type(value).__name__}")
    terms = list(value)
    for number, term in enumerate(terms):
        if not isinstance(term, FeatureTerm):
            raise ValueError(f"{name}[{number}] must be a FeatureTerm, got {type(term).__name__}")
    return terms


def _names(layers: Layers) -> tuple[str, ...]:
    return (layers,) if isinstance(layers, str) else layers


def written(loss: Callable) -> str:
    """A loss by name and settings, the same in another process: what a checkpoint can compare."""
    if isinstance(loss, functools.partial):
        return f"{written(loss.func)}{loss.args}{loss.keywords}"
    if isinstance(loss, nn.Module):
        return str(loss)
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
