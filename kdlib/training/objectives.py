"""What a training minimises: labels, or a teacher's logits that are known beforehand or asked for at every step."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.inference import logits_of
from kdlib.losses import LossTerms, distillation_loss
from kdlib.teachers import freeze
from kdlib.training.loop import Batch
from kdlib.training.schedules import Schedule


class LabelObjective:
    """Cross-entropy with the labels, smoothed or not."""

    def __init__(self, label_smoothing: float | int):
        self.label_smoothing = label_smoothing

    def __call__(self, student_logits: Tensor, batch: Batch) -> LossTerms:
        loss = F.cross_entropy(student_logits, batch.labels, label_smoothing=float(self.label_smoothing))
        return LossTerms(total=loss, task=loss, distill=torch.zeros_like(loss))

    def describe(self) -> dict[str, Any]:
        return {"objective": "labels", "label_smoothing": self.label_smoothing}

    def soft_targets(self, progress: float) -> None:
        return None


class CachedTeacher:
    """A teacher's logits, looked up by the row of the image."""

    def __init__(self, logits: Tensor, device: torch.device):
        self.logits = logits.detach().float().to(device)
        self.classes = logits.shape[1]

    def __call__(self, batch: Batch) -> Tensor:
        return self.logits[batch.positions.to(self.logits.device)]

    def sample(self) -> Tensor:
        return self.logits

    def describe(self) -> str:
        return "cached " + hashlib.sha256(self.logits.cpu().numpy().tobytes()).hexdigest()


class LiveTeacher:
    """A teacher that is asked about each augmented view."""

    def __init__(self, module: nn.Module, classes: int, digest: str, bfloat16: bool):
        self.module, self.classes, self.digest, self.bfloat16 = freeze(module), classes, digest, bfloat16
        self.last: Tensor | None = None

    def __call__(self, batch: Batch) -> Tensor:
        with torch.no_grad(), torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.bfloat16):
            self.last = logits_of(self.module(batch.images)).float()
        return self.last

    def sample(self) -> Tensor | None:
        return self.last

    def describe(self) -> str:
        return "live " + self.digest


class DistillationObjective:
    """`kdlib.losses.distillation_loss` with scheduled temperature and alpha."""

    def __init__(self, teacher: CachedTeacher | LiveTeacher, temperature: Schedule, alpha: Schedule):
        self.teacher, self.temperature, self.alpha = teacher, temperature, alpha

    def __call__(self, student_logits: Tensor, batch: Batch) -> LossTerms:
        return distillation_loss(
            student_logits,
            self.teacher(batch),
            batch.labels,
            temperature=self.temperature(batch.progress),
            alpha=self.alpha(batch.progress),
        )

    def describe(self) -> dict[str, Any]:
        # A schedule is a function; its values at a few points are what a checkpoint can compare.
        points = [0.0, 0.25, 0.5, 0.75, 1.0]
        return {
            "objective": "distillation",
            "teacher": self.teacher.describe(),
            "temperature": [float(self.temperature(point)) for point in points],
            "alpha": [float(self.alpha(point)) for point in points],
        }

    def soft_targets(self, progress: float) -> Tensor | None:
        logits = self.teacher.sample()
        return None if logits is None else (logits / self.temperature(progress)).softmax(dim=1)
