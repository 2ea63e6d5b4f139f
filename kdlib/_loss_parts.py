"""What the losses on logits are made of: softened logits, divergences, weighted terms."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class LossTerms(NamedTuple):
    """The loss to minimise and its two unweighted parts: total = alpha * distill + (1 - alpha) * task.

    Args:
        total: what to minimise.
        task: the term of the labels; NaN (unknown) where there are none.
        distill: the term of the teacher.
    """

    total: Float[Tensor, ""]
    task: Float[Tensor, ""]
    distill: Float[Tensor, ""]


def weighted_terms(distill: Tensor, task: Tensor, alpha: float | int) -> LossTerms:
    """total = alpha * distill + (1 - alpha) * task; exactly one of the two at alpha = 0 and alpha = 1."""
    if alpha == 0:  # 0 * distill would be NaN where distill overflows
        return LossTerms(task, task, distill)
    if alpha == 1:  # (1 - alpha) * task would be NaN without labels
        return LossTerms(distill, task, distill)
    return LossTerms(alpha * distill + (1 - alpha) * task, task, distill)


def softened(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """Both logits over T, in float32 or float64, the teacher's without its graph."""
    student, teacher = (
        logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        for logits in (student_logits, teacher_logits.detach())
    )
    return student, teacher


def divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) over the last axis, summed, then averaged over the first."""
    return F.kl_div(
        F.log_softmax(student_logits, dim=-1),
        F.log_softmax(teacher_logits, dim=-1),
        reduction="batchmean",  # "mean" divides by the number of classes too, a hidden alpha
        log_target=True,
    )


def soft_target_by_image(
    student_logits: Float[Tensor, "batch *members classes"],
    teacher_logits: Float[Tensor, "batch *members classes"],
    temperature: float | int | Float[Tensor, " members"],
) -> Float[Tensor, "batch *members"]:
    """`soft_target_loss` of every image by itself, also of several students side by side, each with a temperature of
    its own. The mean over the batch is the loss."""
    divided_by = temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature
    student, teacher = softened(student_logits, teacher_logits, divided_by)
    log_q, log_p = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    # Summed over the classes: reduction="mean" would divide by their number, a hidden alpha.
    return temperature**2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
