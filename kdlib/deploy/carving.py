"""A small student that starts from the best channels of a large teacher."""

from collections.abc import Sequence

import torch
import torch_pruning
from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import checked
from kdlib.deploy import arguments, networks
from kdlib.deploy.channels import check_channels_can_be_followed, following_channels
from kdlib.deploy.networks import WEIGHTED, example_image, logit_count, trainable_copy

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
GEOMETRY = ("kernel_size", "stride", "padding", "dilation")


@checked(teacher=networks.with_weights, student=networks.with_weights, image_shape=arguments.image_shape)
def carve(teacher: nn.Module, student: nn.Module, image_shape: Sequence[int]) -> nn.Module:
    """A network of the student's form whose weights are the teacher's most useful channels.

    Both have the same layers under the same names, and the same code between them, which is not compared; the
    student's layers may have fewer channels. In each layer the
    channels c with the largest importance stay, in their order:

        importance(c) = |gamma_c| / sqrt(var_c + eps) * ||W_c||

    the norm of the filter W_c with its batch norm folded in, gamma and var being the scale and the running
    variance of that norm (1 where there is none). Layers whose outputs are added to each other keep the same
    channels: their importances, each in units of its layer's mean, are added. Every layer behind keeps the inputs
    that are left, and batch norm its statistics. With the teacher's own widths the student computes exactly what
    the teacher computes; with less it needs to be trained, and starts ahead: `kdlib.training.distill`.

    Args:
        teacher: the trained network; it is left as it is.
        student: says how wide each layer is to be, as `models.build("resnet8")` does for a "resnet8x2"; it is
            left as it is, and its weights play no part. A network from `prune_channels` will do as well.
        image_shape: (channels, height, width) of the images.

    Returns:
        A copy of `student` with the teacher's weights, on the CPU, in eval mode.

    Raises:
        ValueError: the two differ in more than widths (the message names the first layer), the student is wider
            somewhere, they have other classes, cannot process such images, move their channels about in ways that
            torch-pruning cannot follow (attention, shuffled channels), or are quantised or TorchScript.
        TypeError: one of them is no network.

    Common implementations differ: Xu et al. 2023 take channels at equal distances, whatever they do; others
    copy whole layers and leave the widths (DistilBERT, Sanh et al. 2019, arXiv 1910.01108).

    Source: Xu et al. 2023 (weight selection), arXiv 2311.18823; filter norms for importance: Li et al. 2016,
    arXiv 1608.08710; the scales of batch norm: Liu et al. 2017, arXiv 1708.06519.
    """
    source, carved = trainable_copy(teacher, "teacher"), trainable_copy(student, "student")
    _check_structure(source, carved)
    classes = logit_count(source, image_shape, "teacher"), logit_count(carved, image_shape, "student")
    if classes[0] != classes[1]:
        raise ValueError(f"teacher and student must have the same classes, got {classes[0]} and {classes[1]}")
    widths = {
        path: len(layer.weight) for path, layer in carved.named_modules() if isinstance(layer, WEIGHTED)
    }
    _check_widths(source, widths)
    check_channels_can_be_followed("teacher", source, image_shape)
    with following_channels("teacher", source):
        graph = torch_pruning.DependencyGraph().build_dependency(source, example_image(image_shape))
        # Of the whole teacher, before a layer loses inputs: the order of the layers must not matter.
        layers = {path: source.get_submodule(path) for path in widths}
        importance = {
            path: _importance(graph, layer)
            for path, layer in layers.items()
            if len(layer.weight) > widths[path]
        }
        for path, scores in importance.items():
            _narrow(graph, layers[path], scores, widths[path])
    _check_shapes(source, carved)
    carved.load_state_dict(source.state_dict())
    return carved


def _narrow(
    graph: torch_pruning.DependencyGraph, layer: nn.Module, importance: Float[Tensor, " outputs"], width: int
) -> None:
    """Leave the layer its `width` most important outputs, and so all layers that are joined to it."""
    outputs = len(layer.weight)
    if outputs > width:  # not so where it has lost them already, with a layer that it is joined to
        dropped = importance.argsort(stable=True)[: outputs - width].sort().values
        _group(graph, layer, dropped.tolist()).prune()


def _importance(graph: torch_pruning.DependencyGraph, layer: nn.Module) -> Float[Tensor, " outputs"]:
    """Of each output of the layer, over all layers whose outputs are joined to it."""
    outputs = len(layer.weight)
    importance = torch.zeros(outputs)
    for item in _group(graph, layer, list(range(outputs))):
        joined = item.dep.target.module
        if isinstance(joined, WEIGHTED) and graph.is_out_channel_pruning_fn(item.dep.handler):
            norms = _filter_norms(graph, joined)
            relative = norms / norms.mean().clamp(min=torch.finfo(norms.dtype).tiny)
            importance.index_add_(0, torch.tensor(item.root_idxs), relative[item.idxs])
    return importance


def _group(graph: torch_pruning.DependencyGraph, layer: nn.Module, outputs: list[int]) -> torch_pruning.Group:
    """These outputs of the layer, with all that goes when they go."""
    return graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, outputs)


def _filter_norms(graph: torch_pruning.DependencyGraph, layer: nn.Module) -> Float[Tensor, " outputs"]:
    """The norm of each filter, with the batch norm that follows folded in."""
    norms = layer.weight.detach().flatten(1).norm(dim=1)
    for node in graph.module2node[layer].outputs:
        if isinstance(node.module, NORMS) and node.module.affine and node.module.track_running_stats:
            norm = node.module
            norms = norms * norm.weight.detach().abs() / (norm.running_var + norm.eps).sqrt()
    return norms


def _check_structure(teacher: nn.Module, student: nn.Module) -> None:
    """The same kinds of layers under the same names, with the same kernels."""
    theirs, ours = (
        {path: _form(module) for path, module in network.named_modules() if not [*module.children()]}
        for network in (teacher, student)
    )
    for path in [*theirs, *ours]:
        if theirs.get(path) != ours.get(path):
            raise ValueError(
                f"teacher and student must have the same layers but for their widths; they differ at {path!r}: "
                f"{theirs.get(path, 'none')} in the teacher, {ours.get(path, 'none')} in the student"
            )


def _form(layer: nn.Module) -> str:
    """What must be equal: the kind of layer, its geometry, and the names of its parameters and buffers."""
    geometry = [f"{name}={getattr(layer, name)}" for name in GEOMETRY if hasattr(layer, name)]
    return f"{type(layer).__name__}({', '.join([*geometry, *layer.state_dict()])})"


def _check_widths(teacher: nn.Module, widths: dict[str, int]) -> None:
    for path, width in widths.items():
        outputs = len(teacher.get_submodule(path).weight)
        if outputs < width:
            raise ValueError(
                f"student must not be wider than teacher: {path} has {width} outputs, the teacher's {outputs}"
            )


def _check_shapes(source: nn.Module, carved: nn.Module) -> None:
    wanted = carved.state_dict()
    for path, tensor in source.state_dict().items():
        if tensor.shape != wanted[path].shape:
            raise ValueError(
                f"the student's widths do not fit this teacher: {path} has the shape {tuple(wanted[path].shape)}, "
                f"what is left of the teacher's has {tuple(tensor.shape)}"
            )
