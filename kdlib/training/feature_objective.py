"""Feature losses in a training: the student with its features in view, and what is added to the loss."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlib.features import CapturedModel, FeatureTerm, Regressor, capture, class_gradients
from kdlib.inference import evaluating, preprocessing_of
from kdlib.training.batches import Batch
from kdlib.training.calls import chosen, partial_modules, wanted
from kdlib.training.checks import check_scalar
from kdlib.training.objectives import Objective
from kdlib.training.teacher import Teacher

OFFERED = ("labels", "student_logits", "teacher_logits", "student_gradients", "teacher_gradients")


class FeatureLossTerms(NamedTuple):
    """As `kdlib.losses.LossTerms`, with the weighted sum of the feature losses."""

    total: Tensor
    task: Tensor
    distill: Tensor
    features: Tensor


class WatchedStudent(nn.Module):
    """The student as the training loop sees it: returns logits, and keeps the features of its last batch."""

    def __init__(self, student: nn.Module, terms: Sequence[FeatureTerm]):
        super().__init__()
        layers = [layer for term in terms for layer in term.student_layers]
        self.captured: CapturedModel = capture(student, list(dict.fromkeys(layers)))
        self.features: dict[str, Tensor] = {}
        self.preprocessing = preprocessing_of(student)  # so that it is validated as it is trained

    def forward(self, images: Tensor) -> Tensor:
        logits, self.features = self.captured(images)
        return logits


def asked_arguments(terms: Sequence[FeatureTerm]) -> list[tuple[str, ...]]:
    """For each term what its loss wants to know beside the features.

    Raises:
        ValueError: what nothing offers, or gradients with respect to something else than one named layer.
    """
    asked = [wanted(term.loss, OFFERED, name=f"features[{number}].loss") for number, term in enumerate(terms)]
    for number, (term, names) in enumerate(zip(terms, asked, strict=True)):
        for side, layer in (("student", term.student_layer), ("teacher", term.teacher_layer)):
            if f"{side}_gradients" in names and not isinstance(layer, str):
                raise ValueError(
                    f"features[{number}].loss names {side}_gradients, which are those of one layer: {side}_layer "
                    f"must be its name, got {type(layer).__name__}"
                )
    return asked


def gradient_layers(terms: Sequence[FeatureTerm]) -> list[str]:
    """The teacher's layers whose class gradients some loss names."""
    asked = zip(terms, asked_arguments(terms), strict=True)
    return [layer for term, names in asked if "teacher_gradients" in names for layer in term.teacher_layers]


def given_features(terms: Sequence[FeatureTerm]) -> dict[str, Tensor]:
    """The features that come with the terms themselves, by the name under which the teacher answers them."""
    return {
        _given(number): term.teacher_layer.detach()
        for number, term in enumerate(terms)
        if isinstance(term.teacher_layer, Tensor)
    }


class FeatureObjective(nn.Module):
    """Another objective (or none) plus weighted feature losses; its own modules are the regressors.

    Args:
        base: what is minimised on logits, or None.
        terms: the feature losses.
        student: whose last features are compared.
        teacher: who answers for the batch.
        probe: a batch on which shapes that do not fit are found, before anything is trained.
        seed: fixes the initial weights of the regressors that are made here.
    """

    def __init__(
        self,
        base: Objective | None,
        terms: Sequence[FeatureTerm],
        student: WatchedStudent,
        teacher: Teacher,
        probe: Batch,
        seed: int,
    ):
        super().__init__()
        # The student is no submodule: the optimiser has its parameters from elsewhere.
        self._others = (base, student, teacher)
        self.terms, self._asked = list(terms), asked_arguments(terms)
        self.base = base if isinstance(base, nn.Module) else None
        self.losses = nn.ModuleList(term.loss for term in terms if isinstance(term.loss, nn.Module))
        self.inner = partial_modules([term.loss for term in terms])
        with torch.random.fork_rng(devices=[]), evaluating(student):
            torch.manual_seed(seed)
            logits = student(probe.images)
            known = teacher.features(probe)
            self.regressors = nn.ModuleList(
                self._regressor(term, number, known) for number, term in enumerate(terms)
            )
            self.to(probe.images.device)
            with evaluating(self):
                for number, loss in enumerate(self._features_losses(logits, probe)):
                    check_scalar(f"features[{number}].loss", loss)

    def forward(self, student_logits: Tensor, batch: Batch) -> FeatureLossTerms:
        base, _, _ = self._others
        zero = student_logits.new_zeros(())
        total, task, distill = (zero, zero, zero) if base is None else base(student_logits, batch)
        features = self._features_loss(student_logits, batch)
        return FeatureLossTerms(total + features, task, distill, features)

    def _features_loss(self, student_logits: Tensor, batch: Batch) -> Tensor:
        losses = self._features_losses(student_logits, batch)
        return torch.stack([term.weight * loss for term, loss in zip(self.terms, losses, strict=True)]).sum()

    def _features_losses(self, student_logits: Tensor, batch: Batch) -> list[Any]:
        """What the loss of each term returns, without its weight."""
        known = self._others[2].features(batch)
        return [
            self._loss(number, term, student_logits, known, batch) for number, term in enumerate(self.terms)
        ]

    def _loss(
        self, number: int, term: FeatureTerm, student_logits: Tensor, known: dict[str, Tensor], batch: Batch
    ) -> Any:
        _, student, teacher = self._others
        offered = {
            "labels": lambda: batch.labels,
            "student_logits": lambda: student_logits,
            "teacher_logits": lambda: teacher.logits(batch),
            "student_gradients": lambda: class_gradients(
                student_logits, student.features[term.student_layer], batch.labels, create_graph=True
            ),
            "teacher_gradients": lambda: teacher.gradients(batch)[term.teacher_layer],
        }
        if isinstance(term.student_layer, str):
            ours = self.regressors[number](student.features[term.student_layer])
            theirs = known[term.teacher_layer if isinstance(term.teacher_layer, str) else _given(number)]
        else:
            ours = tuple(student.features[layer] for layer in term.student_layer)
            theirs = tuple(known[layer] for layer in term.teacher_layer)
        return term.loss(ours, theirs, **chosen(self._asked[number], offered))

    def describe(self) -> dict[str, Any]:
        base, _, _ = self._others
        settings = {"objective": "features"} if base is None else base.describe()
        return settings | {"features": [term.describe() for term in self.terms]}

    def soft_targets(self, progress: float) -> Tensor | None:
        base, _, _ = self._others
        return None if base is None else base.soft_targets(progress)

    def _regressor(self, term: FeatureTerm, number: int, known: dict[str, Tensor]) -> nn.Module:
        if isinstance(term.regressor, nn.Module):
            return term.regressor
        if not term.regressor:
            return nn.Identity()
        name = term.teacher_layer if isinstance(term.teacher_layer, str) else _given(number)
        return Regressor.between(self._others[1].features[term.student_layer], known[name])


def _given(number: int) -> str:
    return f"features[{number}]"
