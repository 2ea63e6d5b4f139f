"""Which networks can lose channels: those whose channels can be followed from layer to layer.

torch-pruning follows channels through a graph of gradients, in which it takes every operation that it does not know
for one that leaves channels where they are. Where one moves them (the heads and windows of attention, the shuffle of
ShuffleNet), its lists of channels go round in circles and grow: a Swin filled 24 GB before it failed, and a
transformer may be cut in the wrong places without a word. So the operations are looked at first, in one forward pass
without gradients, and a network that does anything else than a network of convolutions is refused.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdlib.deploy.networks import example_image

CONVOLUTIONS = nn.modules.conv._ConvNd
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
LAYERS = (CONVOLUTIONS, *NORMS, nn.Linear, nn.LayerNorm, nn.PReLU)  # in which torch-pruning cuts by itself
# Operations by parts of their names: those that treat each channel by itself and do not say so by a tag, those that
# may join axes or add some, and those that may take the mean, the sum, ... over the channels.
ON_EACH_CHANNEL = ("max_pool", "avg_pool", "upsample", "reflection_pad", "replication_pad", "hardswish", "_to_copy",
                   "detach", "alias", "lift_fresh")  # fmt: skip
SHAPES = ("view", "_unsafe_view", "as_strided_", "squeeze", "unsqueeze", "expand")
REDUCTIONS = ("mean", "sum", "amax", "amin", "var")


def check_channels_can_be_followed(name: str, network: nn.Module, image_shape: Sequence[int]) -> None:
    """Refuse a network in which an operation moves channels to where torch-pruning does not find them.

    Args:
        name: of the argument, for the message.
        network: in eval mode; run once on one image, and left as it is.
        image_shape: (channels, height, width).

    Raises:
        ValueError: the first such operation, and the module that does it.
    """
    watch, image = _Watch(f"{name}, a {type(network).__name__},"), example_image(image_shape)
    with ExitStack() as stack:
        for path, module in network.named_modules():
            enter = module.register_forward_pre_hook(partial(watch.enter, path))
            leave = module.register_forward_hook(watch.leave)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(following_channels(name, network))
        stack.enter_context(torch.no_grad())
        stack.enter_context(watch)
        network(image)


@contextmanager
def following_channels(name: str, network: nn.Module) -> Iterator[None]:
    """Turn torch-pruning's failures into a ValueError that says what failed.

    Args:
        name: of the argument, for the message.
        network: what it holds.

    Raises:
        ValueError: whatever failed in the block.
    """
    try:
        yield
    except ChannelsMoved:
        raise
    except Exception as error:  # it raises whatever its calculations lead to, such as ZeroDivisionError
        raise ValueError(
            f"torch-pruning cannot follow the channels of {name}, a {type(network).__name__}: {error!r}"
        ) from error


class ChannelsMoved(ValueError):
    """A network does what no channel can be followed through."""


class _Watch(TorchDispatchMode):
    """Looks at every operation outside of a layer, in the order in which they run."""

    def __init__(self, network: str):
        super().__init__()
        self.network = network
        self.running: list[tuple[str, nn.Module]] = []
        self.axis = 1  # where the channels are: 1, or -1 after a permutation

    def enter(self, path: str, module: nn.Module, inputs: tuple) -> None:
        self.running.append((path, module))
        if isinstance(module, LAYERS) and inputs and isinstance(inputs[0], Tensor):
            if not self._layer_is_on_channels(module, inputs[0].ndim):
                self._refuse(f"works along another axis than the channels of {tuple(inputs[0].shape)}")

    def leave(self, *_: Any) -> None:
        self.running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(isinstance(module, LAYERS) for _, module in self.running):
            if not self._keeps_channels(func, args, result):
                self._refuse(f"computes {func.overloadpacket.__name__!r}")
        return result

    def _layer_is_on_channels(self, layer: nn.Module, dimensions: int) -> bool:
        if isinstance(layer, nn.Linear):
            return dimensions == 2 or self.axis == -1
        if isinstance(layer, nn.LayerNorm):
            itself = type(layer) is nn.LayerNorm  # torchvision derives one that permutes inside
            return len(layer.normalized_shape) == 1 and (not itself or dimensions == 2 or self.axis == -1)
        return dimensions == 2 or self.axis == 1

    def _keeps_channels(self, func: Any, args: tuple, result: Any) -> bool:
        """Whether all that this operation reads and writes has its channels where they were."""
        name = func.overloadpacket.__name__
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        if name == "permute":
            goes, self.axis = ((0, 2, 3, 1), -1) if self.axis == 1 else ((0, 3, 1, 2), 1)
            return tuple(args[1]) == goes
        if torch.Tag.pointwise in func.tags:
            return len({shape[self.axis] for shape in shapes if len(shape) == 4}) < 2
        if name in REDUCTIONS:
            axes = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else range(len(shapes[0]))
            return self.axis % len(shapes[0]) not in {axis % len(shapes[0]) for axis in axes}
        if self.axis != 1:
            return not shapes
        if name in SHAPES:
            return result.shape[:2] == shapes[0][:2] or result.ndim == 2 and len(result) == shapes[0][0]
        if name == "cat":
            return args[1:] in ((1,), (-3,)) and result.ndim == 4
        if name == "constant_pad_nd":
            return len(args[1]) <= 2 * (len(shapes[0]) - 2)
        if name == "slice":
            return args[1] in (2, 3)
        if name in ("_softmax", "_log_softmax"):
            return result.ndim == 2
        return not shapes or any(part in name for part in ON_EACH_CHANNEL)

    def _refuse(self, reason: str) -> None:
        where = next((path for path, _ in reversed(self.running) if path), "its forward")
        raise ChannelsMoved(
            f"the channels of {self.network} cannot be followed: {where} {reason}, which moves them. Channels are "
            "taken out of networks of convolutions, with linear layers behind them; attention, windows and shuffled "
            "channels are none. Such networks take `sparsify`, `factorize`, and `quantize` once they are exported"
        )
