"""Losses that compare the relations between the images of a batch.

Relations need no regressor: the features of student and teacher may have any two shapes, as long as the batch
is the same.  Features of an image are flattened to one vector.  They are usually pooled vectors, the
penultimate layer's.  A batch of one has no relations and gives zero.

Conventions of all feature losses are in `kdlib.features`.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kdlib._checks import checked, non_negative_number, positive_integer, positive_number
from kdlib.features._checks import feature_pair, rescaled, unit_rows

__all__ = [
    "correlation_congruence_loss",
    "probabilistic_transfer_loss",
    "relational_loss",
    "similarity_loss",
]


@feature_pair()
def similarity_loss(
    student_features: Float[Tensor, "batch *student_shape"],
    teacher_features: Float[Tensor, "batch *teacher_shape"],
) -> Float[Tensor, ""]:
    """Similarity-preserving loss.

        L = sum over images i, j of (G_s - G_t)_ij^2 / batch^2,  G = A A^T with L2-normalised rows

    A holds the flattened features, one image a row.  Zero for equal features, and for any rotation or
    multiple of them. It does not depend on channels or map size, but since rows have length 1 it falls as 1 /
    batch: let the weight grow with the batch.  A zero row counts as the zero vector.

    Common implementations differ: the paper and the literature's code (weight 3000 at batch 64) equal this
    value. `normalize(G, 1)` in one public library sets the norm to L1 in place of the axis to 1, and makes
    the loss about 27 times smaller.

    Source: Tung and Mori 2019, arXiv 1907.09682, of one pair of layers (their gamma is the weight).

    Args:
        student_features: of any shape.
        teacher_features: of any shape.
    """
    student, teacher = (_similarity_rows(features) for features in (student_features, teacher_features))
    return (student - teacher).square().sum() / len(student) ** 2


def _similarity_rows(features: Tensor) -> Tensor:
    rows = rescaled(features.flatten(1))
    return unit_rows(rows @ rows.T)


@checked(distance_weight=non_negative_number, angle_weight=non_negative_number)
@feature_pair()
def relational_loss(
    student_features: Float[Tensor, "batch *student_shape"],
    teacher_features: Float[Tensor, "batch *teacher_shape"],
    *,
    distance_weight: float | int = 25,
    angle_weight: float | int = 50,
) -> Float[Tensor, ""]:
    """Relational knowledge distillation: distances and angles between images.

        L = distance_weight * D + angle_weight * A
        D = sum over i, j of huber(psi_s - psi_t) / batch^2,  psi_ij = ||x_i - x_j|| / mu
        A = sum over i, j, k of huber(cos_s - cos_t) / batch^3

    mu is the mean distance of different images, cos_ijk the cosine of the angle at x_j between x_i - x_j and
    x_k - x_j. The Huber loss has delta 1; terms with repeated images are zero.  Zero for equal features, and
    for any rotation, shift or multiple of them.  Independent of the number of features; because of the zero
    terms a small batch gives less: by (batch - 1) / batch for D, by (batch - 1)(batch - 2) / batch^2 for A.

    Common implementations differ: the paper sums over tuples, batch^2 D and batch^3 A; the authors' code and
    the literature's (25 D + 50 A) equal this value.

    Source: Park et al. 2019, arXiv 1904.05068.

    Args:
        student_features: of any shape.
        teacher_features: of any shape.
        distance_weight: at least 0.
        angle_weight: at least 0.
    """
    loss = student_features.new_zeros(())
    student, teacher = (_differences(features) for features in (student_features, teacher_features))
    if distance_weight:
        loss = loss + distance_weight * F.smooth_l1_loss(_distances(student), _distances(teacher))
    if angle_weight:
        loss = loss + angle_weight * F.smooth_l1_loss(_angles(student), _angles(teacher))
    return loss


def _differences(features: Tensor) -> Tensor:
    """x_i - x_j at [j, i], up to a common factor, of which distances and angles do not depend."""
    rows = rescaled(features.flatten(1))
    return rows[None, :, :] - rows[:, None, :]


def _distances(differences: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(differences, dim=2)
    batch = len(lengths)
    mean = lengths.sum() / max(batch * (batch - 1), 1)
    return lengths / torch.where(mean > 0, mean, 1)


def _angles(differences: Tensor) -> Tensor:
    directions = unit_rows(differences)
    return directions @ directions.transpose(1, 2)


# Below this a similarity counts as this: a student exactly opposite to another image would cost infinity.
_LEAST_SIMILARITY = 1e-7


@feature_pair()
def probabilistic_transfer_loss(
    student_features: Float[Tensor, "batch *student_shape"],
    teacher_features: Float[Tensor, "batch *teacher_shape"],
    *,
    include_self: bool = False,
) -> Float[Tensor, ""]:
    """Probabilistic knowledge transfer: how probable each image makes the others its neighbours.

        L = mean over images i of sum over j of p_j|i * log(p_j|i / q_j|i)
        p (teacher), q (student) = K_ij / sum over j of K_ij,  K_ij = (cosine of x_i and x_j + 1) / 2

    j runs over the other images of the batch.  Zero for equal features, and for any rotation of them or
    multiple of an image's.  A mean of divergences, it is comparable across batch and feature sizes.  A zero
    row has cosine 0 to everything.  K is bounded below by 1e-7.

    Common implementations differ: the paper sums over images, batch times this value; the authors' code and
    the literature's (weight 30000) also count each image as its own neighbour, which is `include_self=True`,
    and divide by batch once more.

    Source: Passalis and Tefas 2018, arXiv 1803.10837, with the cosine kernel.

    Args:
        student_features: of any shape.
        teacher_features: of any shape.
        include_self: let j run over all images.
    """
    log_student, log_teacher = (
        _log_neighbours(features, include_self) for features in (student_features, teacher_features)
    )
    return (log_teacher.exp() * (log_teacher - log_student)).sum() / len(log_student)


def _log_neighbours(features: Tensor, include_self: bool) -> Tensor:
    rows = unit_rows(features.flatten(1))
    similarity = ((rows @ rows.T + 1) / 2).clamp_min(_LEAST_SIMILARITY)
    if not include_self:
        similarity = _without_diagonal(similarity)
    return (similarity / similarity.sum(dim=1, keepdim=True)).log()


def _without_diagonal(matrix: Tensor) -> Tensor:
    """(n, n) -> (n, n - 1).  In reading order a diagonal entry comes first, then one after every n others."""
    n = len(matrix)
    return matrix.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


@checked(gamma=positive_number, order=positive_integer)
@feature_pair()
def correlation_congruence_loss(
    student_features: Float[Tensor, "batch *student_shape"],
    teacher_features: Float[Tensor, "batch *teacher_shape"],
    *,
    gamma: float | int = 0.4,
    order: int = 2,
) -> Float[Tensor, ""]:
    """Correlation congruence: a kernel between the images of the batch.

        L = sum over images i, j of (K_s - K_t)_ij^2 / batch^2
        K_ij = exp(-2 gamma) * sum over n = 0..order of (2 gamma c_ij)^n / n!,  c_ij the cosine of x_i and x_j

    This is the Taylor series of the Gaussian kernel exp(-gamma ||x_i - x_j||^2) of L2-normalised rows.  Zero
    for equal features, and for any rotation of them or multiple of an image's; comparable across batch and
    feature sizes.  A zero row has cosine 0.

    Common implementations differ: the paper equals this value.  RepDistiller's "CC" is another quantity,
    products of neighbouring differences of two embeddings, both trained: they collapse to a constant.  Here
    there is nothing to train on the teacher's side.

    Source: Peng et al. 2019, arXiv 1904.01802, with the kernel of their best results (gamma 0.4, order 2).

    Args:
        student_features: of any shape.
        teacher_features: of any shape.
        gamma: above 0.
        order: at least 1.
    """
    student, teacher = (_taylor_kernel(f, gamma, order) for f in (student_features, teacher_features))
    return F.mse_loss(student, teacher)


def _taylor_kernel(features: Tensor, gamma: float, order: int) -> Tensor:
    rows = unit_rows(features.flatten(1))
    cosine = rows @ rows.T
    terms = [(2 * gamma * cosine) ** n / math.factorial(n) for n in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(dim=0)
