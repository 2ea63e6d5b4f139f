"""What a laboratory does to networks besides training them: weights in a few bits, and fresh weights in an old form."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdlib.lesson.laboratory_settings import A_CHANNEL, A_LAYER

QUANTISED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)  # their weights have the output channels in front


def quantised(network: nn.Module, bits: int, scales: str) -> nn.Module:
    """A copy whose convolutions and linear layers have their weights rounded to a few bits and read back.

        w' = step * round(w / step),    step = max |w| / (2^(bits - 1) - 1)

    The largest |w| is that of an output channel or of the layer. Biases and batch norm keep their numbers, and batch
    norm is not folded into the weights.

    Args:
        network: it is left as it is.
        bits: at least 2.
        scales: "a channel" or "a layer": what has a step of its own.

    Raises:
        ValueError: another word for `scales`, or weights that are computed anew each time (a mask, weight norm).
    """
    if scales not in (A_CHANNEL, A_LAYER):
        raise ValueError(f"scales must be {A_CHANNEL!r} or {A_LAYER!r}, got {scales!r}")
    network = copy.deepcopy(network)
    for path, layer in network.named_modules():
        if isinstance(layer, QUANTISED) and parametrize.is_parametrized(layer, "weight"):
            raise ValueError(f"network: the weight of {path!r} is computed anew each time; make it plain before")
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, QUANTISED):
                layer.weight.copy_(_rounded(layer.weight, bits, scales))
    return network


def _rounded(weight: Tensor, bits: int, scales: str) -> Tensor:
    rows = weight.double().flatten(1 if scales == A_CHANNEL else 0)
    largest = rows.abs().amax(dim=-1, keepdim=True)
    step = (largest / (2 ** (bits - 1) - 1)).where(largest > 0, 1.0)  # zeros alone stay zeros
    return (step * (rows / step).round()).view_as(weight)


def with_fresh_weights(network: nn.Module, seed: int) -> nn.Module:
    """A copy in the same form that has learned nothing: the weights that its layers begin with, drawn for the seed.

    Args:
        network: of layers that can draw their weights again, as convolutions and norms can; it is left as it is, and
            so is the global random state.
        seed: a whole number of at least 0.

    Raises:
        ValueError: a layer cannot draw its weights again.
    """
    network = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for path, layer in network.named_modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
            elif list(layer.parameters(recurse=False)):
                raise ValueError(f"network: {path!r}, a {type(layer).__name__}, cannot draw its weights again")
    return network
