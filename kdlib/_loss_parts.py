"""What the losses on logits are made of: softened logits, divergences, weighted terms."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# Below this length a row has no direction worth comparing; it bounds the gradient of cosine and Pearson.
SHORTEST = 1e-6
# Below this standard deviation a row is no more stretched to 1: the gradient would be too large for a step.
_FLATTEST = 1e-3


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


def standardised(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """Mean 0 and standard deviation 1 along the last axis; less where the standard deviation is below 1e-3."""
    # Two passes: equal logits of any size have the variance 0 exactly, and become zeros.
    variance, mean = torch.var_mean(logits, dim=-1, correction=0, keepdim=True)
    # Clamped before the root, whose slope at 0 is infinite.
    return (logits - mean) / variance.clamp(min=_FLATTEST**2).sqrt()


def against_the_rest(
    logits: Float[Tensor, "batch classes"], kept: Int[Tensor, "batch kept"], rest: Int[Tensor, "batch rest"]
) -> Float[Tensor, "batch outcomes"]:
    """Logits of the classes that are kept, and of one more outcome: any of the rest."""
    bucket = logits.gather(1, rest).logsumexp(dim=1, keepdim=True)
    return torch.cat([logits.gather(1, kept), bucket], dim=1)


def pearson(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along `dim`, averaged over the other axis."""
    first, second = (values - values.mean(dim=dim, keepdim=True) for values in (first, second))
    return F.cosine_similarity(first, second, dim=dim, eps=SHORTEST).mean()
