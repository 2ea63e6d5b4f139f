"""Feature losses as terms of a training: which layers, which loss, which weight.

Without augmentation the teacher's features are computed once and looked up by the row of the image; with it,
or where they would not fit into memory, the teacher is asked in every step, once for logits and features.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import non_negative_number
from kdlib.data import ImageSplit
from kdlib.features.capturing import CapturedModel, capture
from kdlib.features.maps import Regressor
from kdlib.inference import channels_last, evaluating, pick_device
from kdlib.teachers import freeze
from kdlib.training.loop import Batch, Objective

# Teacher features above this size are computed in every step rather than kept in memory.
LARGEST_CACHE = 2**30


@dataclass(frozen=True, eq=False)
class FeatureTerm:
    """weight * loss(student features, teacher features), for `features=` of `kdlib.training.distill`.

    Args:
        loss: a function of (student_features, teacher_features), student first, that returns a scalar
            (`kdlib.features.hint_loss`; `functools.partial` sets its options); or a module, whose parameters
            are trained with the student (`kdlib.features.VariationalInformationLoss`).
        student_layer: a name that `kdlib.features.capture` knows.
        teacher_layer: likewise of the teacher; or the teacher's features themselves, a row for each image of
            the training images (`kdlib.features.teacher_features`).
        weight: of this term, at least 0. The weights of the task and distill terms are alpha's.
        regressor: True for a `Regressor` that carries the student's features to the teacher's shape, or a
            module of your own. It is trained with the student, and not part of it.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    student_layer: str
    teacher_layer: str | Tensor
    weight: float | int = 1.0
    regressor: bool | nn.Module = False

    def __post_init__(self) -> None:
        non_negative_number("weight", self.weight)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        teacher = self.teacher_layer
        return {
            "loss": _written(self.loss),
            "layers": [self.student_layer, teacher if isinstance(teacher, str) else _digest(teacher)],
            "weight": float(self.weight),
            "regressor": str(self.regressor),
        }


class FeatureLossTerms(NamedTuple):
    """As `kdlib.losses.LossTerms`, with the weighted sum of the feature losses."""

    total: Tensor
    task: Tensor
    distill: Tensor
    features: Tensor


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

    Raises:
        ValueError: as `kdlib.features.capture`.
    """
    device = pick_device(device)
    captured = capture(teacher, layers).to(device)
    parts: dict[str, list[Tensor]] = {layer: [] for layer in captured.layers}
    with evaluating(captured), channels_last(captured), torch.no_grad():
        for rows in torch.arange(len(split)).split(batch_size):
            _, features = captured(split.normalized(rows).to(device))
            for layer, values in features.items():
                parts[layer].append(values.float().cpu().contiguous())
    return {layer: torch.cat(values) for layer, values in parts.items()}


class WatchedStudent(nn.Module):
    """The student as the training loop sees it: returns logits, and keeps the features of its last batch."""

    def __init__(self, student: nn.Module, layers: Sequence[str]):
        super().__init__()
        self.captured: CapturedModel = capture(student, list(dict.fromkeys(layers)))
        self.features: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        logits, self.features = self.captured(images)
        return logits


class AskedTeacher(nn.Module):
    """A teacher that is asked once a step for its logits and its features.

    It stands in for the module where the logits are wanted: `forward` returns them and keeps the features.
    """

    def __init__(self, teacher: nn.Module, layers: Sequence[str]):
        super().__init__()
        self.captured = freeze(capture(teacher, list(dict.fromkeys(layers))))
        self.asked: Tensor | None = None
        self.features: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            logits, self.features = self.captured(images)
        self.asked = images
        return logits

    def features_of(self, batch: Batch) -> dict[str, Tensor]:
        if self.asked is not batch.images:
            self(batch.images)
        return self.features


class FeatureObjective(nn.Module):
    """Another objective (or none) plus weighted feature losses; its own modules are the regressors."""

    def __init__(
        self,
        base: Objective | None,
        terms: Sequence[FeatureTerm],
        student: WatchedStudent,
        teacher: Callable[[Batch], dict[str, Tensor]],
        probe: Batch,
        seed: int,
    ):
        super().__init__()
        # Not registered as submodules: the optimiser has the student's parameters from elsewhere.
        self._others = (base, student, teacher)
        self.terms = list(terms)
        self.losses = nn.ModuleList(term.loss for term in terms if isinstance(term.loss, nn.Module))
        with torch.random.fork_rng(devices=[]), evaluating(student), torch.no_grad():
            torch.manual_seed(seed)
            student(probe.images)
            known = teacher(probe)
            self.regressors = nn.ModuleList(
                _regressor(term, student.features[term.student_layer], known[_key(term, number)])
                for number, term in enumerate(terms)
            )
            self.to(probe.images.device)
            with evaluating(self):
                self._features_loss(probe)  # shapes that do not fit are found before anything is trained

    def forward(self, student_logits: Tensor, batch: Batch) -> FeatureLossTerms:
        base, _, _ = self._others
        zero = student_logits.new_zeros(())
        total, task, distill = (zero, zero, zero) if base is None else base(student_logits, batch)
        features = self._features_loss(batch)
        return FeatureLossTerms(total + features, task, distill, features)

    def _features_loss(self, batch: Batch) -> Tensor:
        _, student, teacher = self._others
        known = teacher(batch)
        weighted = [
            term.weight
            * term.loss(regressor(student.features[term.student_layer]), known[_key(term, number)])
            for number, (term, regressor) in enumerate(zip(self.terms, self.regressors, strict=True))
        ]
        return torch.stack(weighted).sum()

    def describe(self) -> dict[str, Any]:
        base, _, _ = self._others
        settings = {"objective": "features"} if base is None else base.describe()
        return settings | {"features": [term.describe() for term in self.terms]}

    def soft_targets(self, progress: float) -> Tensor | None:
        base, _, _ = self._others
        return None if base is None else base.soft_targets(progress)


def check_terms(name: str, value: Any) -> list[FeatureTerm]:
    """A rule for `kdlib._checks.checked`: a sequence of terms."""
    terms = list(value)
    for number, term in enumerate(terms):
        if not isinstance(term, FeatureTerm):
            raise ValueError(f"{name}[{number}] must be a FeatureTerm, got {type(term).__name__}")
    return terms


def with_features(
    base: Objective | None,
    terms: Sequence[FeatureTerm],
    student: nn.Module,
    teacher: nn.Module | Tensor,
    split: ImageSplit,
    *,
    augmented: bool,
    device: torch.device,
    seed: int,
) -> tuple[WatchedStudent, FeatureObjective]:
    """What to train, and on what: the student with its features in view, and `base` plus the feature losses.

    Raises:
        ValueError: a layer that does not exist, features that do not fit each other, the split or augmentation.
    """
    source = _teacher_features(terms, teacher, split, augmented, device)
    watched = WatchedStudent(student, [term.student_layer for term in terms]).to(device)
    positions = torch.arange(2)
    probe = Batch(positions, split.normalized(positions).to(device), split.labels[:2].to(device), 0.0)
    return watched, FeatureObjective(base, terms, watched, source, probe, seed)


def _teacher_features(
    terms: Sequence[FeatureTerm],
    teacher: nn.Module | Tensor,
    split: ImageSplit,
    augmented: bool,
    device: torch.device,
) -> Callable[[Batch], dict[str, Tensor]]:
    known = _given_features(terms, split, augmented)
    layers = list(dict.fromkeys(term.teacher_layer for term in terms if isinstance(term.teacher_layer, str)))
    if layers and isinstance(teacher, Tensor):
        raise ValueError(
            f"teacher layers {layers} need the teacher module; with logits alone, give the features as "
            "teacher_layer as well (kdlib.features.teacher_features)"
        )
    asked = None
    if layers:
        asked = teacher if isinstance(teacher, AskedTeacher) else AskedTeacher(teacher, layers).to(device)
        if not augmented and _bytes(asked, split, device) <= LARGEST_CACHE:
            known |= teacher_features(teacher, split, layers, device=device)
            asked = None

    def features_of(batch: Batch) -> dict[str, Tensor]:
        found = {name: values[batch.positions].to(device) for name, values in known.items()}
        return found if asked is None else found | asked.features_of(batch)

    return features_of


def _given_features(terms: Sequence[FeatureTerm], split: ImageSplit, augmented: bool) -> dict[str, Tensor]:
    """The features that come with the terms themselves, by the key under which the objective looks them up."""
    given = {}
    for number, term in enumerate(terms):
        values = term.teacher_layer
        if not isinstance(values, Tensor):
            continue
        if augmented:
            raise ValueError(
                f"features[{number}]: augment needs the name of a teacher layer: features that are known "
                "beforehand belong to the images as they are"
            )
        if len(values) != len(split):
            raise ValueError(
                f"features[{number}]: teacher features need one row for each of the {len(split)} images of "
                f"split, got shape {tuple(values.shape)}"
            )
        given[_key(term, number)] = values.detach()
    return given


def _bytes(asked: AskedTeacher, split: ImageSplit, device: torch.device) -> int:
    """What the features of all images would take."""
    asked(split.normalized(torch.arange(1)).to(device))
    return 4 * len(split) * sum(values[0].numel() for values in asked.features.values())


def _key(term: FeatureTerm, number: int) -> str:
    return term.teacher_layer if isinstance(term.teacher_layer, str) else f"features[{number}]"


def _regressor(term: FeatureTerm, student_features: Tensor, teacher_features: Tensor) -> nn.Module:
    if isinstance(term.regressor, nn.Module):
        return term.regressor
    return Regressor.between(student_features, teacher_features) if term.regressor else nn.Identity()


def _written(loss: Callable) -> str:
    """A name that is the same in another process."""
    if isinstance(loss, functools.partial):
        return f"{_written(loss.func)}{loss.args}{loss.keywords}"
    return (
        str(loss) if isinstance(loss, nn.Module) else getattr(loss, "__qualname__", type(loss).__qualname__)
    )


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
