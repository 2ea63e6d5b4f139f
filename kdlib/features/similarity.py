"""How alike two representations of the same images are: for looking, not for training."""

from collections.abc import Mapping
from typing import Any

import pandas
from jaxtyping import Float
from torch import Tensor

from kdlib._checks import checked
from kdlib.features._checks import check_features, check_match

__all__ = ["alignment_map", "centered_kernel_alignment"]


def _same_images(arguments: dict) -> None:
    features, others = arguments["features"], arguments["others"]
    check_match("features", features, "others", others, same=("batch",))
    if len(features) < 4:
        raise ValueError(f"features must hold at least 4 images, got {len(features)}")


@checked(_same_images, features=check_features, others=check_features)
def centered_kernel_alignment(
    features: Float[Tensor, "n *shape"], others: Float[Tensor, "n *other_shape"], *, debiased: bool = True
) -> float:
    """Linear CKA: how alike two sets of features of the same n images are.

        CKA = HSIC(K, L) / sqrt(HSIC(K, K) * HSIC(L, L)),  K and L the Gram matrices of the flattened features

    1 for equal features, for any rotation of them and any multiple.  Computed in float64.

    Common implementations differ: Kornblith et al. have the biased HSIC, trace(K H L H), which nears 1 for
    any two networks where n is not far above the number of features.  By default HSIC is the unbiased
    estimate of Song et al., as Nguyen et al. use it: unrelated features then give about 0, and may give a
    little less.

    Source: Kornblith et al. 2019, arXiv 1905.00414; Song et al. 2012 (J. Mach. Learn. Res. 13), equation 5;
    Nguyen, Raghu and Kornblith 2021, arXiv 2010.15327.

    Args:
        features: of any shape; axis 0 are the images.
        others: of any shape, of the same images.
        debiased: take the unbiased estimate.

    Returns:
        A number of at most 1; NaN where features do not vary between the images.

    Raises:
        ValueError: different numbers of images, or fewer than 4.
    """
    kernels = [_gram(values, debiased) for values in (features, others)]
    (first, second), hsic = kernels, _unbiased_hsic if debiased else _biased_hsic
    variances = hsic(first, first) * hsic(second, second)
    return (hsic(first, second) / variances.clamp_min(0).sqrt()).item()


def _by_layer(name: str, value: Any) -> Mapping[str, Tensor]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping from layers to features, got {type(value).__name__}")
    return value


@checked(features=_by_layer, others=_by_layer)
def alignment_map(
    features: Mapping[str, Tensor], others: Mapping[str, Tensor], *, debiased: bool = True
) -> pandas.DataFrame:
    """`centered_kernel_alignment` of every layer of one network with every layer of another.

    Args:
        features: by layer, as the features of `kdlib.features.capture` and `teacher_features` come.
        others: likewise, of the same images.
        debiased: as of `centered_kernel_alignment`.

    Returns:
        A row for each layer of `features`, a column for each of `others`.
    """
    rows = {
        layer: {other: centered_kernel_alignment(x, y, debiased=debiased) for other, y in others.items()}
        for layer, x in features.items()
    }
    return pandas.DataFrame.from_dict(rows, orient="index", columns=list(others))


def _gram(features: Tensor, debiased: bool) -> Tensor:
    rows = features.detach().double().flatten(1)
    rows = rows - rows.mean(dim=0)  # changes no HSIC, and keeps large means from cancelling
    kernel = rows @ rows.T
    return kernel.fill_diagonal_(0) if debiased else kernel


def _biased_hsic(kernel: Tensor, other: Tensor) -> Tensor:
    return (kernel * other).sum()  # of centred kernels: trace(K L)


def _unbiased_hsic(kernel: Tensor, other: Tensor) -> Tensor:
    """Song et al. 2012, equation 5, without its common factor 1 / (n (n - 3)); diagonals are zero."""
    n = len(kernel)
    sums = kernel.sum() * other.sum() / ((n - 1) * (n - 2))
    return (kernel * other).sum() + sums - 2 / (n - 2) * (kernel.sum(dim=0) @ other.sum(dim=0))
