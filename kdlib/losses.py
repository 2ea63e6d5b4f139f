"""Losses on logits.

Pure functions of a batch.  All of them
- take floating-point logits of shape (batch, classes), the student's first, and return a scalar;
- send gradients to the student only: the teacher's logits are detached;
- compute in float32 where the logits are bfloat16 or float16, and in float64 where they are float64;
- are finite, with finite gradients, for any logits up to 1e15 in size: log_softmax is used throughout, never
  the logarithm of a softmax;
- raise ValueError where shapes or devices differ, a number leaves its range, a label is not a class, or a
  logit is NaN or infinite, and TypeError for what is no tensor or no number.  These checks take about 20
  microseconds a call.  The values of labels and logits are read on the CPU only, since reading them from an
  accelerator would stall it at every step.

Words: z are the student's logits, v the teacher's, T the temperature, N the number of classes (at least two
where a softmax is taken, three where logits are standardised).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from kdlib import _checks
from kdlib._checks import checked, fraction, labels_match, same_shape
from kdlib._loss_parts import (
    SHORTEST,
    LossTerms,
    against_the_rest,
    divergence,
    pearson,
    soft_target_by_image,
    softened,
    standardised,
    weighted_terms,
)


def _loss(*relations, logits=_checks.logits, **rules) -> Callable:
    """Decorator of every loss here: two matching tensors of logits, then rules of the loss's own."""
    rules = {"student_logits": logits, "teacher_logits": logits} | rules
    return checked(same_shape("student_logits", "teacher_logits"), *relations, **rules)


@_loss(logits=_checks.several_logits, temperature=_checks.temperature)
def soft_target_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    temperature: float | int,
) -> Float[Tensor, ""]:
    """Cross-entropy with the teacher's softened probabilities, less their entropy (Hinton et al. 2015).

        L = T^2 * mean over batch of sum over classes of p * (log p - log q),
        p = softmax(v / T), q = softmax(z / T)

    T^2 keeps the gradient, T * (q - p) / batch, at the size of a label's as T grows.  As T -> infinity L
    tends to half the mean squared difference of logits that have been centred in each row, and its gradient
    to (z - v) / N per image: matching logits is the limit of distillation.  As T -> 0, L / T tends to
    max(z) - z[argmax v] per image: only the teacher's first choice is left.

    In float32 the value has an absolute error of up to 1e-7 * T^2, so read it in float64 above T = 100;
    the gradient's is up to 1e-7 * T.

    Common implementations differ: `nn.KLDivLoss()` by default also divides by the number of classes; some
    leave out T^2; `q * (q.log() - p_log)` is NaN where a probability underflows.

    Source: Hinton, Vinyals & Dean 2015, arXiv 1503.02531.

    Args:
        temperature: T, from 1e-6 to 1e9.
    """
    return soft_target_by_image(student_logits, teacher_logits, temperature).mean()


def _labels_or_alpha_one(arguments: dict) -> None:
    if arguments["labels"] is not None:
        labels_match(arguments)
    elif arguments["alpha"] != 1:
        raise ValueError(f"labels may be None only where alpha = 1, got alpha = {arguments['alpha']}")


@_loss(_labels_or_alpha_one, logits=_checks.several_logits, temperature=_checks.temperature, alpha=fraction)
def distillation_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, "batch"] | None,
    *,
    temperature: float | int,
    alpha: float | int,
) -> LossTerms:
    """Distillation with labels: alpha weighs the teacher, 1 - alpha the labels.

        total = alpha * distill + (1 - alpha) * task
        distill = soft_target_loss(z, v, T), task = cross_entropy(z, labels) at T = 1

    Common implementations differ: Keras and torchdistill weigh the labels by alpha; RepDistiller's weights
    do not add to 1; others swap the two, unseen while alpha = 0.5.

    Source: Hinton, Vinyals & Dean 2015, arXiv 1503.02531.

    Args:
        labels: int64 of shape (batch,), each in [0, classes); None, for images without labels, where alpha = 1.
        temperature: T, from 1e-6 to 1e9.
        alpha: the teacher's weight, in [0, 1].

    Returns:
        The total and its terms, which are not weighted.  At alpha = 0 `total` is `task` itself, whatever the
        teacher says; at alpha = 1 it is `distill` itself, and `task` is NaN (unknown) where labels is None.
    """
    distill = soft_target_by_image(student_logits, teacher_logits, temperature).mean()
    student, _ = softened(student_logits, teacher_logits)
    task = torch.full_like(distill, math.nan) if labels is None else F.cross_entropy(student, labels)
    return weighted_terms(distill, task, alpha)


@_loss()
def logit_mse_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
) -> Float[Tensor, ""]:
    """Mean squared difference of logits, (z - v)^2 averaged over batch and classes.

    Half of it is what soft_target_loss tends to as T -> infinity, where each row of z - v has mean zero.
    Unlike a softmax it sees a constant that is added to a row.

    Common implementations differ: Ba & Caruana halve it and sum over classes; Kim et al. sum over classes.

    Source: Ba & Caruana 2014, arXiv 1312.6184; Kim et al. 2021, arXiv 2105.08919.
    """
    student, teacher = softened(student_logits, teacher_logits)
    return F.mse_loss(student, teacher)


@_loss()
def cosine_logit_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
) -> Float[Tensor, ""]:
    """One minus the cosine of the angle between the two rows of logits, averaged over the batch.

        L = 1 - mean over batch of <z, v> / (|z| |v|)

    It ignores how long a row is, and so how confident the student is.  A length counts as 1e-6 where it is
    shorter, which bounds the gradient; a row of zeros has cosine 0.

    Common implementations differ: they compare flattened feature maps, whose layouts need not agree, where
    logits always do.

    Returns:
        A number in [0, 2].
    """
    student, teacher = softened(student_logits, teacher_logits)
    return 1 - F.cosine_similarity(student, teacher, dim=1, eps=SHORTEST).mean()


@_loss(
    labels_match,
    logits=_checks.several_logits,
    temperature=_checks.temperature,
    alpha=_checks.weight,
    beta=_checks.weight,
)
def decoupled_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, "batch"],
    *,
    temperature: float | int = 4.0,
    alpha: float | int = 1.0,
    beta: float | int = 8.0,
) -> Float[Tensor, ""]:
    """Decoupled distillation (DKD): the label's class against the rest, and the rest among themselves.

        L = T^2 * mean over batch of (alpha * TCKD + beta * NCKD)
        TCKD = KL of (p_label, 1 - p_label), teacher to student
        NCKD = KL of the softmax over the other classes, teacher to student

    soft_target_loss is the case alpha = 1, beta = 1 - the teacher's p_label, image by image.  The paper adds
    the labels' cross-entropy with weight 1 and warms L up over the first epochs
    (`kdlib.training.schedules.warmup`).

    With two classes nothing is left to compare among the rest: NCKD is 0 and L = alpha * soft_target_loss.

    Common implementations differ: the reference code takes the logarithm of a softmax, whose gradient is not
    finite from a logit gap of about 100, and is undefined for two classes.  Here 1 - p_label stays a
    logarithm: it is a softmax of the label's logit against the logsumexp of the rest.

    Source: Zhao et al. 2022, arXiv 2203.08679.

    Args:
        labels: int64 of shape (batch,), each in [0, classes).
        temperature: T, from 1e-6 to 1e9.
        alpha: the weight of TCKD, from 0 to 1e9; not the alpha of distillation_loss.
        beta: the weight of NCKD, from 0 to 1e9.
    """
    student, teacher = softened(student_logits, teacher_logits, temperature)
    rest = torch.arange(student.shape[1] - 1, device=labels.device).repeat(len(labels), 1)
    rest = rest + (rest >= labels[:, None])  # every class but the label's
    target = divergence(*(against_the_rest(logits, labels[:, None], rest) for logits in (student, teacher)))
    among_the_rest = divergence(student.gather(1, rest), teacher.gather(1, rest))
    return temperature**2 * (alpha * target + beta * among_the_rest)


@_loss(
    logits=_checks.several_logits,
    temperature=_checks.temperature,
    inter=_checks.weight,
    intra=_checks.weight,
)
def correlation_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    *,
    temperature: float | int = 1.0,
    inter: float | int = 1.0,
    intra: float | int = 1.0,
) -> Float[Tensor, ""]:
    """Correlation instead of equality (DIST): the student may rescale and shift the teacher's probabilities.

        L = inter * (1 - mean over images of rho(q_image, p_image))
          + intra * (1 - mean over classes of rho(q_class, p_class))
        p = softmax(v / T), q = softmax(z / T), rho = Pearson's correlation

    q_image is a row (one image, all classes), q_class a column (one class, all images of the batch).

    A row or column without spread has no correlation: rho is 0 there.  So it is in every column of a batch of
    one.  A spread below 1e-6 counts as 1e-6, which bounds the gradient.

    Common implementations differ: the reference code multiplies by T^2, which a correlation, free of scale,
    does not need; torchdistill's class term has the wrong sign, and so drives the columns apart.

    Source: Huang et al. 2022, arXiv 2205.10536.

    Args:
        temperature: T, from 1e-6 to 1e9.
        inter: the weight of the rows, from 0 to 1e9; the paper's beta.
        intra: the weight of the columns, from 0 to 1e9; the paper's gamma.

    Returns:
        A number from 0 to 2 * (inter + intra), but for rounding.
    """
    student, teacher = (
        logits.softmax(dim=1) for logits in softened(student_logits, teacher_logits, temperature)
    )
    return inter * (1 - pearson(student, teacher, dim=1)) + intra * (1 - pearson(student, teacher, dim=0))


@_loss(temperature=_checks.temperature)
def multilabel_distillation_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    temperature: float | int = 1.0,
) -> Float[Tensor, ""]:
    """Distillation where an image may carry any number of labels: one yes-or-no question per class.

        L = T^2 * mean over batch of sum over classes of KL((p, 1 - p) || (q, 1 - q)),
        p = sigmoid(v / T), q = sigmoid(z / T)

    A softmax would make the classes compete.  A sigmoid is a softmax against a second logit of 0, which is
    how it is computed, without overflow.

    Common implementations differ: binary cross-entropy with soft targets has the same gradient but is not 0
    where student and teacher agree; many average over classes.

    Source: Yang et al. 2023, arXiv 2308.06453, whose logit term this is, with the temperature of Hinton et
    al. 2015, arXiv 1503.02531.

    Args:
        temperature: T, from 1e-6 to 1e9.
    """
    student, teacher = (
        torch.stack([logits, torch.zeros_like(logits)], dim=-1)
        for logits in softened(student_logits, teacher_logits, temperature)
    )
    return temperature**2 * divergence(student, teacher)


@_loss(logits=_checks.many_logits, temperature=_checks.temperature)
def standardised_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    temperature: float | int = 2.0,
) -> Float[Tensor, ""]:
    """soft_target_loss of logits that are standardised in each row: their order and spacing, not their size.

        L = T^2 * mean over batch of sum over classes of p * (log p - log q)
        p = softmax(Z(v) / T), q = softmax(Z(z) / T), Z(x) = (x - mean(x)) / std(x), std with 1 / N

    It is 0 for every student whose row is an increasing affine map of the teacher's (z = a v + b, a > 0): how
    confident the student is, is left to the labels, and at alpha = 1 to nobody.  The gradient falls as
    1 / std(z).  Two classes are refused: they standardise to 1 and -1, whatever they were, without gradient.

    A standard deviation below 1e-3 counts as 1e-3, which bounds the gradient: a row of equal logits becomes
    zeros, and still learns.

    Common implementations differ: the reference code takes std with 1 / (N - 1), against the paper, as if T
    were larger in the softmax, not before the KL, by a factor sqrt(N / (N - 1)); it adds 1e-7 to it, which
    leaves the gradient at equal logits 1e4 times the one here.  It weighs L by 9, beside the labels by 1 at
    most, so that its weights set the learning rate, too.

    Source: Sun et al. 2024, arXiv 2403.01427.

    Args:
        temperature: T, from 1e-6 to 1e9.
    """
    student, teacher = (standardised(logits) for logits in softened(student_logits, teacher_logits))
    return soft_target_by_image(student, teacher, temperature).mean()


@_loss(logits=_checks.several_logits, temperature=_checks.temperature, k=_checks.positive_integer)
def tail_bucket_loss(
    student_logits: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    temperature: float | int = 4.0,
    k: int = 3,
) -> Float[Tensor, ""]:
    """Stored top-k targets: the teacher's k likeliest classes, and one bucket for all the others.

        L = T^2 * mean over batch of sum over the k + 1 outcomes of p * (log p - log q)
        p = the k largest of softmax(v / T), and 1 - their sum; q = softmax(z / T) of the same outcomes

    So k class numbers and k probabilities an image are all that need be stored.  The student learns how
    likely the bucket is, and nothing about what is in it.  L grows with k, up to soft_target_loss, which it
    is from k = N - 1.  Of equal teacher's logits those of lower classes are kept.

    Common implementations differ: some renormalise the k kept probabilities, which tells the student that the
    others are impossible; some fill up with logits of 0, which tells it that they are likely wherever their
    true logits are below 0, though to a softmax a logit of 0 means nothing by itself.  TRL takes the bucket
    as 1 less the kept, but at least 1e-7: one that is emptier gets no gradient.  Here it is the logsumexp of
    the other logits.

    Source: Anshumann et al. 2025, arXiv 2503.16870, on the bias of top-k targets; Hinton et al. 2015, arXiv
    1503.02531.

    Args:
        temperature: T, from 1e-6 to 1e9.
        k: how many classes are kept, at least 1.
    """
    student, teacher = softened(student_logits, teacher_logits, temperature)
    order = teacher.argsort(dim=1, descending=True, stable=True)
    k = min(k, order.shape[1] - 1)  # a bucket of one class is that class
    outcomes = (against_the_rest(logits, order[:, :k], order[:, k:]) for logits in (student, teacher))
    return temperature**2 * divergence(*outcomes)
