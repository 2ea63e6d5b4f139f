"""Large layers as products of two small ones."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import checked, fraction
from kdlib.deploy import networks
from kdlib.deploy.networks import trainable_copy, weighted_layers


def _energy(name: str, value: Any) -> float:
    """A rule for arguments: a share of the squared singular values, above 0."""
    if fraction(name, value) == 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return float(value)


@checked(model=networks.with_weights, energy=_energy)
def factorize(model: nn.Module, energy: float | int) -> nn.Module:
    """A copy of `model` whose convolutions and linear layers are split in two where that makes them smaller.

    A layer's weights, as a matrix W (outputs, inputs * kernel height * kernel width) = U diag(s) V^T, become

        W_r = (U_r diag(s_r)^1/2) (diag(s_r)^1/2 V_r^T),    s_1 >= s_2 >= ...

    with the smallest rank r for which s_1^2 + ... + s_r^2 >= energy * (s_1^2 + s_2^2 + ...). No other matrix of
    rank r is nearer to W. A convolution becomes one of the same kernel with r outputs, then one of 1x1; a linear
    layer becomes two. A layer is split only where r * (inputs * kernel + outputs) < inputs * kernel * outputs:
    that is both its weights and its multiply-adds for a place. Where the rank is full, nothing is gained and the
    layer stays. With energy = 1 the network computes what it did, up to rounding.

    Grouped convolutions stay as they are, and so do layers of a derived class, whose code may use the weights.

    Args:
        model: any network; it is left as it is.
        energy: the share of the squared Frobenius norm that each layer keeps, in (0, 1].

    Returns:
        A network on the CPU, in eval mode, with an nn.Sequential of two layers in place of each layer that is
        split. To recover what is lost: `kdlib.training.distill`.

    Raises:
        ValueError: `energy` outside (0, 1], or a network that has no convolution and no linear layer, or is
            quantised or TorchScript.
        TypeError: `model` is no network.

    Common implementations differ: one share of the full rank for all layers; the singular values all in one of
    the factors; k x 1 and 1 x k kernels (Jaderberg et al. 2014, arXiv 1405.3866). Zhang et al. 2014
    (arXiv 1411.4229) split as here, but keep the energy of the layer's responses to images, not of its weights.

    Source: Denton et al. 2014, arXiv 1404.0736; the matrix: Eckart & Young 1936.
    """
    network = trainable_copy(model)
    weighted_layers(network)
    holder = nn.ModuleList([network])  # for a model that is a single layer
    for path, layer in list(holder.named_modules()):
        split = _factors(layer, energy)
        if split is not None:
            holder.set_submodule(path, split)
    return holder[0].eval()


def _factors(layer: nn.Module, energy: float) -> nn.Sequential | None:
    """The two layers that replace this one, or None where it stays."""
    if not (type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)):
        return None
    matrix = layer.weight.detach().flatten(1)
    outputs, inputs = matrix.shape
    left, right = _low_rank(matrix, energy)
    rank = len(right)
    if rank * (inputs + outputs) >= inputs * outputs:
        return None
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first, second = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=bias)
    else:
        first = nn.Conv2d(
            layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            bias=False, padding_mode=layer.padding_mode,
        )  # fmt: skip
        second = nn.Conv2d(rank, outputs, 1, bias=bias)
    first, second = first.to(matrix.dtype), second.to(matrix.dtype)
    with torch.no_grad():
        first.weight.copy_(right.view_as(first.weight))
        second.weight.copy_(left.view_as(second.weight))
        if bias:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def _low_rank(
    matrix: Float[Tensor, "outputs inputs"], energy: float
) -> tuple[Float[Tensor, "outputs rank"], Float[Tensor, "rank inputs"]]:
    """The two factors of the smallest rank that keeps this share of the squared singular values, at least 1."""
    # In double precision, or the rounding of the small values would count as rank.
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    kept = values.square().cumsum(0)
    rank = min(int((kept < energy * kept[-1]).sum()) + 1, len(values))
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]
