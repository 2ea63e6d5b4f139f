"""Losses as they were found in public code, in our own lines, and mended: `..._as_found` stands beside `..._mended`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from kdlib.losses import soft_target_loss

Logits = Float[Tensor, "batch classes"]
Scalar = Float[Tensor, ""]


def reduction_as_found(student_logits: Logits, teacher_logits: Logits, temperature: float | int) -> Scalar:
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, p, reduction="none").mean()


def reduction_mended(student_logits: Logits, teacher_logits: Logits, temperature: float | int) -> Scalar:
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    p = F.softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, p, reduction="none").sum(dim=1).mean()


def weights_as_found(
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Int[Tensor, "batch"],
    temperature: float | int,
    alpha: float | int,
) -> Scalar:
    task = F.cross_entropy(student_logits, labels)
    distill = soft_target_loss(student_logits, teacher_logits, temperature)
    return alpha * task + (1 - alpha) * distill


def weights_mended(
    student_logits: Logits,
    teacher_logits: Logits,
    labels: Int[Tensor, "batch"],
    temperature: float | int,
    alpha: float | int,
) -> Scalar:
    task = F.cross_entropy(student_logits, labels)
    distill = soft_target_loss(student_logits, teacher_logits, temperature)
    return alpha * distill + (1 - alpha) * task


def sigmoids_as_found(student_logits: Logits, teacher_logits: Logits) -> Scalar:
    return F.kl_div(F.logsigmoid(student_logits), teacher_logits.detach().sigmoid(), reduction="batchmean")


def sigmoids_mended(student_logits: Logits, teacher_logits: Logits) -> Scalar:
    yes = F.kl_div(F.logsigmoid(student_logits), teacher_logits.detach().sigmoid(), reduction="batchmean")
    no = F.kl_div(F.logsigmoid(-student_logits), (-teacher_logits.detach()).sigmoid(), reduction="batchmean")
    return yes + no


def clamp_as_found(student_logits: Logits, teacher_logits: Logits) -> Scalar:
    p = teacher_logits.detach().sigmoid()
    q = student_logits.sigmoid().clamp(1e-8, 1 - 1e-8)
    return -(p * q.log() + (1 - p) * (1 - q).log()).sum(dim=1).mean()


def clamp_mended(student_logits: Logits, teacher_logits: Logits) -> Scalar:
    p = teacher_logits.detach().sigmoid()
    return -(p * F.logsigmoid(student_logits) + (1 - p) * F.logsigmoid(-student_logits)).sum(dim=1).mean()


def logarithm_as_found(student_logits: Logits, teacher_logits: Logits) -> Scalar:
    log_q = F.log_softmax(student_logits, dim=1)
    p = F.softmax(teacher_logits.detach().half(), dim=1).float()  # as stored, in 16 bits
    return (p * (p.log() - log_q)).sum(dim=1).mean()


def logarithm_mended(student_logits: Logits, teacher_logits: Logits) -> Scalar:
    log_q = F.log_softmax(student_logits, dim=1)
    p = F.softmax(teacher_logits.detach().half(), dim=1).float()  # as stored, in 16 bits
    return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean()
