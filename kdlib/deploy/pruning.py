"""Weights taken out of a network: one by one, which saves bytes, or whole channels, which saves time as well."""

from collections.abc import Sequence
from typing import Any

import torch
import torch_pruning
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from kdlib._checks import boolean, checked, fraction
from kdlib.deploy import arguments, networks
from kdlib.deploy.channels import check_channels_can_be_followed, following_channels
from kdlib.deploy.networks import example_image, logit_count, trainable_copy, weighted_layers


def _share(name: str, value: Any) -> float:
    """A rule for arguments: how much is taken away, which must leave something."""
    if fraction(name, value) == 1:
        raise ValueError(f"{name} must be below 1, got {value}: nothing would be left of the network")
    return float(value)


class Mask(nn.Module):
    """A parametrisation that keeps some weights at 0: weight = trained * kept."""

    def __init__(self, kept: Bool[Tensor, "..."]):
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, trained: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return trained * self.kept


@checked(model=networks.with_weights, share=_share, layerwise=boolean)
def sparsify(model: nn.Module, share: float | int, *, layerwise: bool = False) -> nn.Module:
    """A copy of `model` in which the smallest weights are 0, and stay 0 while it is trained.

    Of all weights of convolutions and linear layers together, round(share * weights) are set to 0: those with the
    smallest |weight|. With `layerwise`, this share of each layer. Biases and batch norm are left alone.

        sparse = sparsify(network, 0.8)
        distill(sparse, teacher_logits, split, epochs=10)    # the zeros get no gradient and stay
        network = finish(sparse)                             # plain layers again

    To go on in steps, call it again on what was trained. The copy is on the CPU, in eval mode.

    The zeros make a file smaller once it is compressed (zip), not before, and nothing faster: processors multiply
    by 0 as fast as by any number. For speed take `prune_channels`.

    Args:
        model: any network; it is left as it is.
        share: of the weights, in [0, 1).
        layerwise: take the share of each layer, in place of all together.

    Returns:
        A network in which each such layer has a `Mask`.

    Raises:
        ValueError: `share` outside [0, 1), no convolution and no linear layer, or one that is quantised or
            TorchScript.
        TypeError: `model` is no network.

    Common implementations differ: those that set weights to 0 only once train them back to life; torch's
    `prune.global_unstructured` fails on weights in channels_last, and what it leaves behind cannot be copied
    after a training step.

    Source: Han et al. 2015, arXiv 1506.02626; of all layers together or of each: Blalock et al. 2020, arXiv 2003.03033.
    """
    network = trainable_copy(model)
    layers = weighted_layers(network)
    if layerwise:
        masks = [_largest(layer.weight, share) for layer in layers]
    else:
        together = _largest(torch.cat([layer.weight.flatten() for layer in layers]), share)
        parts = together.split([layer.weight.numel() for layer in layers])
        masks = [part.view_as(layer.weight) for part, layer in zip(parts, layers, strict=True)]
    for layer, mask in zip(layers, masks, strict=True):
        parametrize.register_parametrization(layer, "weight", Mask(mask))
    return network


@checked(model=networks.with_weights)
def finish(model: nn.Module) -> nn.Module:
    """A copy of a network from `sparsify` with plain layers again; the zeros are now ordinary weights.

    Args:
        model: any network; it is left as it is.

    Returns:
        A network on the CPU, in eval mode.

    Raises:
        ValueError: it is quantised or TorchScript.
        TypeError: it is no network.
    """
    return trainable_copy(model)


@checked(model=networks.with_weights)
def zero_share(model: nn.Module) -> float:
    """The share of zeros among the weights of convolutions and linear layers, in [0, 1].

    Args:
        model: a network.

    Raises:
        ValueError: there is no such layer.
        TypeError: `model` is no network.
    """
    weights = [layer.weight for layer in weighted_layers(model)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@checked(model=networks.with_weights, share=_share, image_shape=arguments.image_shape)
def prune_channels(model: nn.Module, share: float | int, image_shape: Sequence[int]) -> nn.Module:
    """A smaller copy of `model`: in each layer the least important `share` of the channels is taken out.

    The importance of a channel is the sum of squares of all weights that go with it: its filter, the scale of its
    batch norm, and its slice of the layers that read it. Where layers are joined by a sum, as in a residual
    network, they lose the same channels, and the sum is over all of them. A layer keeps at least one channel, and
    the logits are never cut. As a layer loses inputs and outputs, parameters and multiply-adds shrink to about
    (1 - share)^2. What is left needs to be trained: `kdlib.training.distill`, with the whole network for a teacher.

    Args:
        model: a network of convolutions, with linear layers behind them, whatever is added, multiplied or joined
            between them (torchvision's but for its transformers and ShuffleNet); it is left as it is.
        share: of the channels, in [0, 1).
        image_shape: (channels, height, width) of its images.

    Returns:
        A plain network on the CPU, in eval mode. Its code still names the old widths where it wrote them down,
        but its layers are the smaller ones: save it whole, or export it.

    Raises:
        ValueError: `share` outside [0, 1), a network that cannot process such images, has no convolution and no
            linear layer, is quantised or TorchScript, or moves its channels about in ways that torch-pruning cannot
            follow (attention, shuffled channels).
        TypeError: `model` is no network.

    Common implementations differ: many rank single filters by their L1 norm (Li et al. 2016), layer by layer,
    and leave out channels that are joined by a sum.

    Source: Fang et al. 2023 (DepGraph), arXiv 2301.12900; Li et al. 2016, arXiv 1608.08710.
    """
    network = trainable_copy(model)
    weighted_layers(network)
    classes = logit_count(network, image_shape)
    check_channels_can_be_followed("model", network, image_shape)
    with following_channels("model", network):
        torch_pruning.pruner.BasePruner(
            network, example_image(image_shape), torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio_dict=_ratios(network, share), ignored_layers=[_head(network, image_shape)],
            in_channel_groups={}, out_channel_groups={}, num_heads={},  # its defaults are shared by all pruners
        ).step()  # fmt: skip
    if logit_count(network, image_shape) != classes:
        raise ValueError(f"torch-pruning cut the logits of model, a {type(network).__name__}")
    return network.eval()


def _largest(weight: Tensor, share: float) -> Bool[Tensor, "..."]:
    """Where the weights are that stay."""
    weight = weight.detach()
    return prune.L1Unstructured(share).compute_mask(weight, torch.ones_like(weight)).bool()


def _ratios(network: nn.Module, share: float) -> dict[nn.Module, float]:
    """The share of each layer that makes torch-pruning keep the number of channels that is meant.

    It keeps int(channels * (1 - ratio)), in which rounding errors may cost a channel, and leaves a layer whole
    that would lose them all. Half a channel more is cut off by int() and is out of reach of rounding.
    """
    widths = {layer: len(layer.weight) for layer in weighted_layers(network)}
    return {layer: 1 - (max(1, round(width * (1 - share))) + 0.5) / width for layer, width in widths.items()}


def _head(network: nn.Module, image_shape: Sequence[int]) -> nn.Module:
    """The layer that gives the logits: the last convolution or linear layer to run."""
    ran = []
    hooks = [
        layer.register_forward_hook(lambda layer, *_: ran.append(layer)) for layer in weighted_layers(network)
    ]
    try:
        logit_count(network, image_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1]
