"""Losses that compare single images: feature maps (hints) and where they are large (attention).

Conventions of all feature losses are in `kdlib.features`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from kdlib._checks import checked, labels_fit, positive_number
from kdlib._checks import logits as check_logits
from kdlib.features._checks import (
    check_features,
    check_map,
    check_match,
    feature_pair,
    unit_rows,
)

__all__ = [
    "attention_map",
    "attention_transfer_loss",
    "class_gradients",
    "gradcam_map",
    "gradcam_transfer_loss",
    "hint_loss",
]

_USE_REGRESSOR = "bring the student's features to the teacher's shape with kdlib.features.Regressor"
_USE_POOLING = "pool the larger map, for example with torch.nn.functional.adaptive_avg_pool2d"


@feature_pair(same=None, remedy=_USE_REGRESSOR)
def hint_loss(
    student_features: Float[Tensor, "batch *shape"], teacher_features: Float[Tensor, "batch *shape"]
) -> Float[Tensor, ""]:
    """Mean squared error between features.

        L = mean over images, channels and positions of (s - t)^2

    Zero for equal features.  The mean makes it comparable across batch, channel and map sizes; it scales with
    the square of the teacher's activations, which differ between layers.

    Common implementations differ: the paper's half squared norm of one image is channels * height * width / 2
    times this value; the literature's code (weight 100) equals it.

    Source: Romero et al. 2015, FitNets, arXiv 1412.6550.

    Args:
        student_features: of any shape; where it is not the teacher's, a `Regressor` goes between.
        teacher_features: of the same shape.
    """
    return F.mse_loss(student_features, teacher_features)


@checked(features=check_map, power=positive_number)
def attention_map(
    features: Float[Tensor, "batch channels height width"], *, power: float | int = 2
) -> Float[Tensor, "batch height width"]:
    """Where a layer is active.

        Q = sum over channels of |feature|^power

    Not normalised; `attention_transfer_loss` divides each map by its L2 norm, after which a sum and a mean
    over channels are the same.

    Source: Zagoruyko and Komodakis 2017, arXiv 1612.03928, F_sum^p.

    Args:
        features: maps.
        power: p, above 0.
    """
    return _attention_map(features, power)


def _attention_map(maps: Tensor, power: float | int) -> Tensor:
    return maps.abs().pow(power).sum(dim=1)


def _map_distance(student_map: Tensor, teacher_map: Tensor, squared: bool) -> Tensor:
    """Mean over images of the L2 distance between unit-norm maps."""
    difference = unit_rows(student_map.flatten(1)) - unit_rows(teacher_map.flatten(1))
    if squared:
        return difference.square().sum(dim=1).mean()
    return torch.linalg.vector_norm(difference, dim=1).mean()


@checked(power=positive_number)
@feature_pair(maps=True, same=("height", "width"), remedy=_USE_POOLING)
def attention_transfer_loss(
    student_features: Float[Tensor, "batch student_channels height width"],
    teacher_features: Float[Tensor, "batch teacher_channels height width"],
    *,
    power: float | int = 2,
    squared: bool = False,
) -> Float[Tensor, ""]:
    """Distance between normalised attention maps.

        L = mean over images of || Q_s / ||Q_s|| - Q_t / ||Q_t|| ||,  Q = attention_map(features, power)

    All norms are L2, over positions.  Zero for equal features and for any positive multiple of them; at most
    sqrt(2), for any batch, channel and map size.  An image whose map is zero everywhere counts as the zero
    vector.

    Common implementations differ: the paper has the norm itself; the authors' code and most others average
    its square over images and positions, which is `squared=True` divided by height * width.  The two have no
    constant ratio: on 8x8 maps the coded value is of the order of a hundred times smaller, hence its weight
    of 1000.

    Source: Zagoruyko and Komodakis 2017, arXiv 1612.03928, equation 2, of one layer and without its beta / 2.

    Args:
        student_features: maps; the channels may be others than the teacher's, the size may not.
        teacher_features: maps.
        power: p of the attention map, above 0.
        squared: the mean of the squared norm in place of the norm.
    """
    student_map, teacher_map = (_attention_map(f, power) for f in (student_features, teacher_features))
    return _map_distance(student_map, teacher_map, squared)


def _one_forward_pass(arguments: dict) -> None:
    """Relation: logits and features carry a graph, and there is a class for each row of logits."""
    logits, classes = arguments["logits"], arguments["classes"]
    if not logits.requires_grad or not arguments["features"].requires_grad:
        raise ValueError("logits and features must be computed with gradients enabled, in one forward pass")
    labels_fit(classes, tuple(logits.shape), "classes")


@checked(_one_forward_pass, logits=check_logits, features=check_features)
def class_gradients(
    logits: Float[Tensor, "batch classes"],
    features: Float[Tensor, "batch *shape"],
    classes: Int64[Tensor, " batch"],
    *,
    create_graph: bool = False,
) -> Float[Tensor, "batch *shape"]:
    """Gradient of each image's logit of its class with respect to the features: what Grad-CAM averages.

        g_i = d z_i[class_i] / d features_i

    Args:
        logits: computed from `features` with gradients enabled, as `capture` returns both.
        features: of any shape.
        classes: int64, one for each image.
        create_graph: needed for the student's, so that a loss on the gradients reaches its weights.

    Returns:
        The gradients, of the shape of the features.

    Raises:
        ValueError: logits or features without a graph, or not of one; classes that are none.
    """
    chosen = logits.gather(1, classes[:, None]).sum()
    (gradients,) = torch.autograd.grad(
        chosen, features, create_graph=create_graph, retain_graph=True, allow_unused=True
    )
    if gradients is None:
        raise ValueError(
            "logits do not depend on features: take both from one forward pass (kdlib.features.capture)"
        )
    return gradients


def _gradcam_map(maps: Tensor, gradients: Tensor) -> Tensor:
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * maps).sum(dim=1))


def _gradients_match(arguments: dict) -> None:
    check_match("features", arguments["features"], "gradients", arguments["gradients"], same=None)


@checked(_gradients_match, features=check_map, gradients=check_map)
def gradcam_map(
    features: Float[Tensor, "batch channels height width"],
    gradients: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch height width"]:
    """Where a class is seen.

        M = relu(sum over channels of a_c * feature_c),  a_c = mean over positions of gradient_c

    Common implementations differ: the weights multiply the *activations*; multiplying the gradients instead,
    as one public implementation does, says nothing about the image.

    Source: Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2.

    Args:
        features: maps.
        gradients: of the same shape (`class_gradients`).
    """
    return _gradcam_map(features, gradients)


@feature_pair(
    maps=True,
    same=("height", "width"),
    like={"student_gradients": "student_features", "teacher_gradients": "teacher_features"},
    remedy=_USE_POOLING,
)
def gradcam_transfer_loss(
    student_features: Float[Tensor, "batch student_channels height width"],
    teacher_features: Float[Tensor, "batch teacher_channels height width"],
    student_gradients: Float[Tensor, "batch student_channels height width"],
    teacher_gradients: Float[Tensor, "batch teacher_channels height width"],
    *,
    squared: bool = False,
) -> Float[Tensor, ""]:
    """Distance between normalised Grad-CAM maps.

        L = mean over images of || M_s / ||M_s|| - M_t / ||M_t|| ||,  M = gradcam_map(features, gradients)

    The distance is that of `attention_transfer_loss`, with its range and conventions.  A map is zero where
    the rectifier removes all of it.

    Source: Selvaraju et al. 2017, arXiv 1610.02391, define the map and transfer nothing.

    Args:
        student_features: maps; the channels may be others than the teacher's, the size may not.
        teacher_features: maps.
        student_gradients: of `class_gradients` with create_graph, of the shape of the student's features.
        teacher_gradients: of the shape of the teacher's features.
        squared: as of `attention_transfer_loss`.
    """
    student_map = _gradcam_map(student_features, student_gradients)
    teacher_map = _gradcam_map(teacher_features, teacher_gradients)
    return _map_distance(student_map, teacher_map, squared)
