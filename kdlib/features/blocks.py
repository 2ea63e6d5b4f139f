"""The whole blocks of a network: modules whose output stands for all that the network has done by then.

A convolution inside a residual block, a query projection, one branch of an Inception module do not: something
goes round them.  Autograd draws the graph from the image to the logits, and in it the features through which
everything passes are those that no edge goes round.  What lies inside a block is no whole block either, even
where everything passes through it (the norm in the middle of a transformer's layer).
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlib.features.capturing import uncompiled
from kdlib.features.layouts import Witness, first_tensor, layout_of
from kdlib.inference import evaluating, logits_of

# A module with a larger share of the weighted layers before the head is a row of blocks (an encoder).
_SHARE_OF_A_ROW = 0.5


class Call(NamedTuple):
    """A module that finished, for the last time.

    `shape` is that of its features as `kdlib.features.capture` returns them, None where it does not; `node`
    is where they are in the graph; `depth` counts the layers with weights that have run by then.
    """

    name: str
    shape: tuple[int, ...] | None
    node: Any
    depth: int
    is_logits: bool


class Run(NamedTuple):
    """A forward pass.

    `calls` are the modules in the order in which they finished; `weighted` those of them that have weights
    and work on maps (in a network of vectors all that have weights); `logits` is the logits' shape; `graph`
    the nodes that lead from the logits to the image, with their places in an order in which every edge leads
    on.
    """

    calls: list[Call]
    weighted: set[str]
    logits: tuple[int, ...]
    graph: dict[Any, int]


def run(role: str, model: nn.Module, image_shape: tuple[int, ...]) -> Run:
    """The network on blank images, in eval mode, with gradients.

    Raises:
        ValueError: it does not run on such images, or returns no logits; the message calls it `role`.
    """
    # As many tokens as images would leave open which is which.
    for images in (2, 3):
        try:
            recorder = _Recorder(model, (images, *image_shape))
        except Exception as error:
            raise ValueError(
                f"{role} does not run on an image of shape {image_shape} ({type(error).__name__}: {error})"
            ) from error
        if not recorder.uncertain:
            break
    return recorder.summary()


class _Recorder:
    """Runs a network once and notes what its modules return."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]):
        self.shape, self.witness, self.uncertain = shape, Witness(), False
        self.returned: dict[str, tuple[Any, tuple[int, ...] | None, Any, int]] = {}
        self.weighted: set[str] = set()
        self.depth = 0
        parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        leaf = torch.zeros(shape, device=parameter.device, dtype=parameter.dtype, requires_grad=True)
        with ExitStack() as stack:
            stack.enter_context(evaluating(model))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(self.witness.watching(model))
            for name, module in model.named_modules():
                if name and not isinstance(module, torch.jit.ScriptModule):
                    stack.enter_context(module.register_forward_hook(self._note(name, _has_weights(module))))
            stack.enter_context(uncompiled(model))
            images = leaf.clone()  # the network may work in place, which a leaf does not allow
            self.source = images.grad_fn
            self.output = model(images)

    def summary(self) -> Run:
        logits = logits_of(self.output)
        end = logits.grad_fn
        calls = [
            Call(name, features, node, depth, output is logits or (node is not None and node is end))
            for name, (output, features, node, depth) in self.returned.items()
        ]
        body = {name for name in self.weighted if not _is_vector(self.returned[name][1])}
        return Run(calls, body or self.weighted, tuple(logits.shape), _graph(end, self.source))

    def _note(self, name: str, has_weights: bool) -> Callable:
        def note(module: nn.Module, arguments: Any, output: Any) -> None:
            if has_weights:
                self.depth += 1
                self.weighted.add(name)
            output = first_tensor(output)
            self.returned.pop(name, None)  # of several runs the last counts, in its place
            node = output.grad_fn if isinstance(output, Tensor) else None
            self.returned[name] = (output, self._features_shape(output), node, self.depth)

        return note

    def _features_shape(self, output: Any) -> tuple[int, ...] | None:
        if not isinstance(output, Tensor) or not (output.is_floating_point() or output.is_quantized):
            return None
        try:
            layout = layout_of(tuple(output.shape), self.shape, self.witness.testimony)
        except ValueError:
            return None
        self.uncertain |= not layout.certain
        return tuple(layout.read(output.detach()).shape)


def _has_weights(module: nn.Module) -> bool:
    """A matrix or a kernel of its own (quantised modules have a method `weight`)."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        return weight.dim() > 1
    quantised = callable(weight) and not isinstance(weight, nn.Module)
    return quantised or any(_is_matrix(parameter) for parameter in module.parameters(recurse=False))


def _is_vector(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and math.prod(shape[2:]) == 1


def _is_matrix(tensor: Tensor) -> bool:
    """More than a number for each channel, of which a class token or a layer scale consists."""
    return sum(length > 1 for length in tensor.shape) > 1


def _graph(output: Any, source: Any) -> dict[Any, int]:
    """The nodes on the ways from `output` to `source`, in an order in which every edge leads on.

    None where there is no way (a network that switches gradients off).
    """
    finished: dict[Any, bool] = {}
    pending = [(output, False)] if output is not None else []
    while pending:
        node, done = pending.pop()
        if node in finished:
            continue
        nexts = [following for following, _ in node.next_functions if following is not None]
        if done:
            finished[node] = node is source or any(finished[following] for following in nexts)
        else:
            pending += [
                (node, True),
                *((following, False) for following in nexts if following not in finished),
            ]
    order = [node for node, leads in reversed(finished.items()) if leads]
    return {node: place for place, node in enumerate(order)}


def _passed_by_everything(graph: dict[Any, int]) -> set[Any]:
    """The nodes that no edge goes round."""
    found, farthest = set(), 0
    for node, place in graph.items():
        if farthest <= place:
            found.add(node)
        farthest = max(
            [farthest, *(graph[following] for following, _ in node.next_functions if following in graph)]
        )
    return found


def whole_blocks(found: Run) -> list[Call]:
    """The calls that are whole blocks and can be captured, in the order in which they finished.

    Modules of the outermost row that come after the last of them count too: the blocks whose residual sums
    are outside of any module, the stages of which a head reads several.
    """
    calls = {call.name: call for call in found.calls}
    children = _children(list(calls))
    everything = _passed_by_everything(found.graph)
    row = [calls[name] for name in _row("", children, calls, found, everything)]
    usable = [call for call in row if call.shape is not None and call.depth and not call.is_logits]
    if found.graph:
        last = min(
            (found.graph[call.node] for call in usable if call.node in everything), default=len(found.graph)
        )
        beyond = [
            call for call in usable if found.graph.get(call.node, last) < last and call.name in children
        ]
        usable = [call for call in usable if call.node in everything or call in beyond]
    # A norm, a ReLU or a permutation that stands alone after a block adds nothing to it.
    composite = {(call.depth, call.shape[2:]) for call in usable if call.name in children}
    blocks = [
        call for call in usable if call.name in children or (call.depth, call.shape[2:]) not in composite
    ]
    # A head that is a convolution gives a map of logits, which are no features.
    total = max((call.depth for call in found.calls), default=0)
    features = [
        call
        for call in blocks
        if call.depth < total or call.name in children or found.logits[1:2] != call.shape[1:2]
    ]
    return features or blocks


def _children(names: list[str]) -> dict[str, list[str]]:
    """By module: the modules that run directly inside, past containers that do not run (nn.ModuleList)."""
    children: dict[str, list[str]] = {}
    ran = set(names)
    for name in names:
        parent = name.rpartition(".")[0]
        while parent and parent not in ran:
            parent = parent.rpartition(".")[0]
        children.setdefault(parent, []).append(name)
    return children


def _row(
    parent: str, children: dict[str, list[str]], calls: dict[str, Call], found: Run, everything: set[Any]
) -> list[str]:
    """The outermost row of blocks: rows that hold most of the network are opened."""
    row = []
    for name in children.get(parent, ()):
        inside = [call for other, call in calls.items() if other.startswith(f"{name}.")]
        weights = sum(call.name in found.weighted for call in inside)
        divides = not found.graph or any(
            call.node in everything and call.node is not calls[name].node for call in inside
        )
        if divides and weights > _SHARE_OF_A_ROW * len(found.weighted):
            row += _row(name, children, calls, found, everything)
        row.append(name)
    return row
