"""Where a network says its classes: its last layer, whatever the network calls it."""

from typing import Any

from torch import nn

LAST_LAYERS = (nn.Linear, nn.Conv2d)


def last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that has an output for each class: `fc`, `classifier.6`, `heads.head`, or whatever it is called.

    It is the linear layer or convolution that the network defines last. That holds for every classification model of
    torchvision that `kdlib.models.build` makes; a network of timm says itself which it is.

    Args:
        network: any network with such a layer.

    Returns:
        Its path, as `network.get_submodule` takes it, and the layer.

    Raises:
        ValueError: there is no such layer.
    """
    layers = [(path, module) for path, module in network.named_modules() if isinstance(module, LAST_LAYERS)]
    own = _said_by_itself(network)
    layers = [(path, module) for path, module in layers if own is None or module is own]
    if not layers:
        raise ValueError(
            f"network, a {type(network).__name__}, has no linear layer and no convolution that could give the classes"
        )
    return layers[-1]


def _said_by_itself(network: nn.Module) -> Any:
    """What timm's networks call their classifier; None where nothing is said, or no layer of the kinds above."""
    say = getattr(network, "get_classifier", None)
    own = say() if callable(say) else None
    return own if isinstance(own, LAST_LAYERS) else None
