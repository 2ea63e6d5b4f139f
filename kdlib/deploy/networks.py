"""What every exporter and every way to make a network smaller starts from: a copy of it, out of its wrappers."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from kdlib.deploy.loading import noise_images
from kdlib.inference import Preprocessing, evaluating, logits_of, preprocessing_of
from kdlib.teachers import FrozenTeacher

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_BEFORE_QUANTISING = "give the network it was made from, and quantise the exported file (compress.quantize)"
# What hands its images on to a network inside, and the name of that.
WRAPPERS = {
    FrozenTeacher: "network",
    OptimizedModule: "_orig_mod",
    nn.DataParallel: "module",
    DistributedDataParallel: "module",
}


def network(name: str, value: Any) -> nn.Module:
    """A rule for arguments: a network of torch whose sizes are known.

    Raises:
        TypeError: it is no module.
        ValueError: it has lazy layers that have seen no image yet.
    """
    if isinstance(value, torch.export.ExportedProgram):
        raise TypeError(
            f"{name} must be a network, got a torch.export program; give the network it was made from"
        )
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a network (a torch.nn.Module), got {type(value).__name__}")
    for path, tensor in (*value.named_parameters(), *value.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{name} does not know the size of {path!r} yet; run it once on an image")
    return value


def with_weights(name: str, value: Any) -> nn.Module:
    """A rule for arguments: a network of torch that has its weights.

    Raises:
        TypeError: it is no module.
        ValueError: its weights are not there yet.
    """
    for path, tensor in (*network(name, value).named_parameters(), *value.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"{name} has no numbers in {path!r} (device 'meta'); load its weights first")
    return value


def copied(name: str, model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy on the CPU, in eval mode, contiguous, out of what torch.compile and others have wrapped it in.

    Args:
        name: of the argument, for the message.
        model: left as it is.
        dtype: of the copy's floating-point numbers, where they are to be others than the network's.

    Raises:
        ValueError: it holds what cannot be copied.
    """
    *_, model = unwrapped(model)
    try:
        holder = nn.ModuleList([copy.deepcopy(model)])
        for path, module in list(holder.named_modules(remove_duplicate=False)):
            if isinstance(module, OptimizedModule):
                holder.set_submodule(path, _inside(module))
        network = holder[0].to("cpu", dtype, memory_format=torch.contiguous_format)
    except Exception as error:  # a copy runs whatever the network's parts define for it
        raise ValueError(
            f"{name}, a {type(model).__name__}, cannot be copied: {in_one_line(error)}. Keep locks, open files and "
            "results of earlier batches out of it, and make weights permanent that a hook computes "
            "(torch.nn.utils.remove_weight_norm, torch.nn.utils.prune.remove)"
        ) from error
    try:
        return network.eval()
    except NotImplementedError:  # what torch.export gives back, in older versions of torch
        for module in network.modules():
            module.training = False
        return network


def trainable_copy(model: nn.Module, name: str = "model") -> nn.Module:
    """A copy as of `copied` whose parameters can be trained, of a network of plain layers.

    Its weights are contiguous (tools for pruning refuse others) and plain: masks and other parametrisations are
    made permanent.

    Raises:
        ValueError: it cannot be copied, is quantised or TorchScript, or has weights that are not finite.
    """
    network = copied(name, model)
    reason = why_not_plain(network)
    if reason is not None:
        raise ValueError(f"{name}, a {type(model).__name__}, cannot be made smaller: {reason}")
    for module in network.modules():
        if parametrize.is_parametrized(module):
            _make_plain(module)
    for path, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"{name} has weights that are not finite, in {path!r}; train it again")
        parameter.requires_grad_(parameter.is_floating_point())
    return network


def preprocessing(model: nn.Module) -> Preprocessing | None:
    """How a network wants its images, where it says so itself, as a frozen teacher may."""
    carried = [preprocessing_of(layer) for layer in unwrapped(model)]
    return next((own for own in carried if own is not None), None)


def weighted_layers(model: nn.Module) -> list[nn.Module]:
    """Its convolutions and linear layers.

    Raises:
        ValueError: there are none.
    """
    layers = [module for module in model.modules() if isinstance(module, WEIGHTED)]
    if not layers:
        raise ValueError(
            f"model, a {type(model).__name__}, has no convolution and no linear layer; of an exported network give "
            "the one that it was made from"
        )
    return layers


def why_not_plain(network: nn.Module) -> str | None:
    """What keeps a network from being changed or traced, and what helps; None for one of plain layers."""
    for path, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            return f"{path or 'it'} is TorchScript; give the network that was scripted or traced"
        if ".quantized." in type(module).__module__:
            return f"{path or 'it'} is quantised; {_BEFORE_QUANTISING}"
    for path, parameter in network.named_parameters():
        if type(parameter) is not nn.Parameter:
            return f"{path} is kept as {type(parameter).__name__}, as quantisation does; {_BEFORE_QUANTISING}"
    return None


def unwrapped(model: nn.Module) -> Iterator[nn.Module]:
    """The network, what it is a wrapper of, what that is a wrapper of, and so on; the last one is none."""
    yield model
    while isinstance(model, tuple(WRAPPERS)):
        model = _inside(model)
        yield model


def _inside(wrapper: nn.Module) -> nn.Module:
    return next(getattr(wrapper, name) for kind, name in WRAPPERS.items() if isinstance(wrapper, kind))


def logits_in(output: Any, name: str = "model") -> Tensor:
    """The logits in what a network returned.

    Raises:
        ValueError: there are none; the message calls the network by `name`.
    """
    try:
        return logits_of(output)
    except ValueError as error:
        raise ValueError(
            f"{name} must return a tensor of logits or an object with .logits, got {type(output).__name__}; wrap it "
            "in a module whose forward returns the logits alone"
        ) from error


def in_one_line(error: BaseException) -> str:
    """The message of what started it all, without line breaks, cut where it becomes a report."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= 300 else f"{line[:300]}..."


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
        TypeError, ValueError: `image_shape` is not (channels, height, width).
    """
    return torch.from_numpy(noise_images(image_shape))


def logit_count(model: nn.Module, image_shape: Sequence[int], name: str = "model") -> int:
    """The number of logits that `model` gives for an image of this shape.

    Raises:
        ValueError: `model`, which the message calls by `name`, cannot process such images.
    """
    images = example_image(image_shape)
    with evaluating(model), torch.inference_mode():
        try:
            output = model(images)
        except Exception as error:  # its forward is anybody's code
            raise ValueError(
                f"{name} cannot process images of image_shape={tuple(image_shape)}: {in_one_line(error)}"
            ) from error
    logits = logits_in(output, name)
    if logits.ndim != 2 or len(logits) != 1:
        raise ValueError(f"{name} must return logits of shape (batch, classes), got {tuple(logits.shape)}")
    return logits.shape[1]
