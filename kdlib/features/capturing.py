"""Features of chosen layers beside a network's logits.

A layer that is a module is read by a forward hook, set for the time of one forward pass: the network runs as
it is, whatever Python does in its forward.  An operation that is not a module, such as a residual sum
(`layer1.0.add`), is found by torchvision's feature extraction, which traces the network; its graph is run on
the network's own modules, so parameters, buffers and devices stay those of the network.  Modules do not go
through the trace, because a trace keeps one answer to every decision Python takes at that moment.
"""

import difflib
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, fx, nn

from kdlib._checks import checked
from kdlib.features._checks import check_network


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(layer, str) for layer in value):
        raise ValueError(f"{name} must be a sequence of names, got {value!r}")
    return tuple(value)


@checked(model=check_network, layers=_names)
def capture(model: nn.Module, layers: Sequence[str]) -> "CapturedModel":
    """The model as a module that returns (logits, {layer: features}), the features with their gradients.

    layers: names of modules (`model.named_modules()`), or of operations as torchvision's
    `get_graph_node_names` lists them.  Parameters are shared: training the result trains the model.  A module
    that runs several times gives its last output; the features are what the layer returned, even where the
    next one works in place.  Of networks with auxiliary heads (Inception, GoogLeNet) the logits are the main
    head's.  Raises ValueError for an unknown layer, with the nearest names.
    """
    return CapturedModel(model, layers)


class CapturedModel(nn.Module):
    """A model wrapped by `capture`; `model` is the original, and the state dict is the original's."""

    def __init__(self, model: nn.Module, layers: Sequence[str]):
        super().__init__()
        self.layers = tuple(layers)
        self.model = model
        self.training = model.training
        modules = _module_names(model)
        operations = [layer for layer in self.layers if layer not in modules]
        self._graphs = _trace(model, self.layers) if operations else {}
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    def forward(self, *inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if self._graphs:
            recorder = _Recorder(self.model, *self._graphs[self.model.training])
            output, captured = recorder.run(*inputs), recorder.captured
        else:
            output, captured = self._run_with_hooks(*inputs)
        silent = [layer for layer in self.layers if layer not in captured]
        if silent:
            mode = "training" if self.model.training else "eval"
            raise ValueError(f"layers {silent} do not run in the model's forward in {mode} mode")
        return _logits(output), {layer: captured[layer] for layer in self.layers}

    def _run_with_hooks(self, *inputs: Any) -> tuple[Any, dict[str, Tensor]]:
        captured: dict[str, Tensor] = {}

        def keep(layer: str):
            return lambda module, arguments, output: captured.update({layer: _own_copy(layer, output)})

        with ExitStack() as hooks:
            for layer in self.layers:
                hooks.enter_context(self.model.get_submodule(layer).register_forward_hook(keep(layer)))
            return self.model(*inputs), captured


class _Recorder(fx.Interpreter):
    """Runs a traced graph on the live model and keeps the outputs of some of its nodes."""

    def __init__(self, model: nn.Module, graph: fx.Graph, layers_at: dict[str, list[str]]):
        super().__init__(model, graph=graph)
        self.captured: dict[str, Tensor] = {}
        self.layers_at = layers_at

    def run_node(self, node: fx.Node) -> Any:
        output = super().run_node(node)
        for layer in self.layers_at.get(node.name, ()):
            self.captured[layer] = _own_copy(layer, output)
        return output


def _own_copy(layer: str, output: Any) -> Tensor:
    """A copy, so that an in-place operation after the layer (ReLU, a residual sum) leaves it as it is."""
    if not isinstance(output, Tensor):
        raise ValueError(
            f"layer {layer!r} must return one tensor to be captured, got {type(output).__name__}"
        )
    return output.clone()


def _module_names(model: nn.Module) -> list[str]:
    """Names of all modules inside, with both names of a module that stands in two places."""
    return [name for name, _ in model.named_modules(remove_duplicate=False) if name]


def _trace(model: nn.Module, layers: Sequence[str]) -> dict[bool, tuple[fx.Graph, dict[str, list[str]]]]:
    """For training and for eval mode: the traced graph, and the layers to read at each of its nodes."""
    modules = _module_names(model)
    modes = {module: module.training for module in model.modules()}
    graphs = {}
    try:
        for training in (True, False):
            model.train(training)
            graphs[training] = _trace_mode(model, layers, modules)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return graphs


def _trace_mode(model: nn.Module, layers: Sequence[str], modules: list[str]):
    # Imported here: torchvision takes a second to import, and only operations need it.
    import torchvision.ops
    from torchvision.models.feature_extraction import NodePathTracer

    whole = tuple(
        kind
        for kind in vars(torchvision.ops).values()
        if isinstance(kind, type) and issubclass(kind, nn.Module)
    )
    tracer = NodePathTracer(autowrap_modules=(math, torchvision.ops), leaf_modules=whole)
    unknown = [layer for layer in layers if layer not in modules]
    try:
        graph = tracer.trace(model)
    except Exception as error:  # whatever the model's forward does with a value that is not there yet
        raise ValueError(
            f"layers {unknown} are not modules of the model{_nearest(unknown, modules)}; operations of that "
            f"name cannot be looked for, since the model cannot be traced ({type(error).__name__}: {error})"
        ) from error
    operations = {name: node for node, name in tracer.node_to_qualname.items()}
    unknown = [layer for layer in unknown if layer not in operations]
    if unknown:
        raise ValueError(
            f"layers {unknown} are neither modules nor operations of the model"
            f"{_nearest(unknown, [*modules, *operations])}"
        )
    layers_at: dict[str, list[str]] = {}
    for layer in layers:
        node = _last_node(layer, operations) if layer in modules else operations[layer]
        if node is not None:
            layers_at.setdefault(node.name, []).append(layer)
    return graph, layers_at


def _last_node(module: str, operations: dict[str, fx.Node]) -> fx.Node | None:
    """The node at which a module has finished for the last time; None if it does not run."""
    inside = [
        node
        for name, node in operations.items()
        if name.startswith(f"{module}.") or (node.op == "call_module" and node.target == module)
    ]
    return inside[-1] if inside else None


def _nearest(unknown: list[str], known: Sequence[str]) -> str:
    near = {
        name: None for layer in unknown for name in difflib.get_close_matches(layer, known, n=5, cutoff=0.5)
    }
    return f"; near names: {', '.join(near)}" if near else f"; it has {', '.join(known[:20])}"


def _logits(output: Any) -> Tensor:
    """The main logits of a model's output; auxiliary ones are left out."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model must return logits, or an output with .logits, got {type(output).__name__}"
        )
    return logits


def _drop_prefix(wrapper: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}model.")]:
        state[prefix + key.removeprefix(f"{prefix}model.")] = state.pop(key)


def _add_prefix(wrapper: nn.Module, state: dict, prefix: str, *unused: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}model.{key.removeprefix(prefix)}"] = state.pop(key)
