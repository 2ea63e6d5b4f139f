"""What every way to make a network smaller starts from: a copy of it, and proof that it takes such images."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdlib.deploy.loading import noise_images
from kdlib.inference import evaluating, logits_of
from kdlib.teachers import FrozenTeacher


def trainable_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in eval mode, whose parameters can be trained: of a frozen teacher, the network inside.

    Its weights are contiguous (tools for pruning refuse others) and plain: masks and other parametrisations are
    made permanent.
    """
    network = copy.deepcopy(model.network if isinstance(model, FrozenTeacher) else model).cpu()
    for module in network.modules():
        if parametrize.is_parametrized(module):
            _make_plain(module)
    return network.to(memory_format=torch.contiguous_format).requires_grad_(True).eval()


def _make_plain(module: nn.Module) -> None:
    """What `parametrize.remove_parametrizations` does. That changes the module's class, which a copy shares with
    its original, and so breaks the original."""
    tensors = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, tensor in tensors.items():
        module.register_parameter(name, nn.Parameter(tensor))


def example_image(image_shape: Sequence[int]) -> Tensor:
    """One image, (1, channels, height, width).

    Raises:
        ValueError: `image_shape` is not (channels, height, width).
    """
    return torch.from_numpy(noise_images(image_shape))


def logit_count(model: nn.Module, image_shape: Sequence[int], name: str = "model") -> int:
    """The number of logits that `model` gives for an image of this shape.

    Raises:
        ValueError: `model`, which the message calls by `name`, cannot process such images.
    """
    images = example_image(image_shape)
    try:
        with evaluating(model), torch.inference_mode():
            logits = logits_of(model(images))
    except RuntimeError as error:
        raise ValueError(f"{name} cannot process images of shape {tuple(images.shape)}: {error}") from error
    if logits.ndim != 2 or len(logits) != 1:
        raise ValueError(f"{name} must return logits of shape (batch, classes), got {tuple(logits.shape)}")
    return logits.shape[1]
