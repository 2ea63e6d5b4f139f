"""Features of chosen layers beside a network's logits.

Layers are modules, read by a forward hook that is set for the time of one forward pass: the network runs as
it is, whatever Python does in its forward.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from kdlib._checks import checked
from kdlib.features._checks import check_network
from kdlib.features.layouts import Testimony, Witness, first_tensor, layout_of, with_first_tensor
from kdlib.inference import evaluating, logits_of

__all__ = ["CapturedModel", "capture"]


def _names(name: str, value: Any) -> tuple[str, ...]:
    layers = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else None
    if layers is None or not all(isinstance(layer, str) for layer in layers):
        raise ValueError(f"{name} must be a sequence of names, got {value!r}")
    return layers


@checked(model=check_network, layers=_names)
def capture(model: nn.Module, layers: Sequence[str]) -> "CapturedModel":
    """The model as a module that returns (logits, {layer: features}), the features with their gradients.

    Features are maps (batch, channels, height, width) or vectors (batch, channels), whatever the
    architecture:
    - channels-last maps (Swin's, ConvNeXt's inside a block) are turned;
    - tokens become the map of the image that they are, without the class, distillation and register tokens
      before it: the positions of the last convolution's map, or a grid in the proportion of the images.
      Sequences that are no grid (text, a recurrent network's rows of an image) become maps of width 1;
    - sequence-first tensors (`batch_first=False`) are turned;
    - of a layer that returns a tuple, as (features, attention weights), the first entry is taken;
    - of a layer that runs several times, the last output.
    So `to_map` is for tensors that come from elsewhere.  Maps with an axis of time, (batch, channels, time,
    height, width), stay so.

    Features are what the layer returned, even where the next one works in place, and lie on the way to the
    logits: `class_gradients` of them can be taken.  Parameters are shared: training the result trains the
    model. Of networks with auxiliary heads (Inception, GoogLeNet) the logits are the main head's.  What
    `torch.compile` made runs uncompiled here; compile what `capture` returns instead.

    Args:
        model: a network that takes a tensor whose first axis is the batch, and returns logits.
        layers: names of modules, as `model.named_modules()` gives them. Operations (a residual sum) have no
            name: take the module that contains them.

    Raises:
        ValueError: an unknown layer, with the nearest names; a layer inside a scripted, traced or exported
            model, which does not run its modules. When the result is called: a layer that does not run, or
            whose output cannot be read as above (windows of an attention that are folded into the batch).
    """
    return CapturedModel(model, layers)


class CapturedModel(nn.Module):
    """A model wrapped by `capture`; `model` is the original, and the state dict is the original's."""

    def __init__(self, model: nn.Module, layers: Sequence[str]):
        super().__init__()
        self.layers = tuple(layers)
        self._addresses = _addresses(model, self.layers)
        self.model = model
        self.training = model.training
        # What is found out once: what runs before a layer, by mode and shapes of the inputs; and the axis of
        # the batch, of layers where lengths leave it open.
        self._testimonies: dict[tuple, dict[str, Testimony]] = {}
        self._batch_axes: dict[str, int] = {}
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    @property
    def preprocessing(self) -> Any:
        """That of the model, where it carries its own."""
        return getattr(self.model, "preprocessing", None)

    def forward(self, *inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        output, reader = self._read(inputs)
        if reader.uncertain:
            self._batch_axes |= self._ask_for_the_batch(reader.uncertain, inputs)
            if any(self._batch_axes[layer] for layer in reader.uncertain):
                output, reader = self._read(inputs)
        return logits_of(output), {layer: self._features(layer, reader) for layer in self.layers}

    def _read(self, inputs: tuple) -> tuple[Any, "_Reader"]:
        key = (self.model.training, *(tuple(value.shape) for value in inputs if isinstance(value, Tensor)))
        reader = _Reader(_first_shape(inputs), self._batch_axes, self._testimonies.get(key))
        with ExitStack() as stack:
            if reader.witness is not None:
                # Before the layers' own hooks: what a captured norm says counts for itself.
                stack.enter_context(reader.witness.watching(self.model))
            for layer, address in self._addresses.items():
                module = self.model.get_submodule(address)
                stack.enter_context(module.register_forward_hook(reader.hook(layer)))
            stack.enter_context(uncompiled(self.model))
            output = self.model(*inputs)
        if len(reader.answers) == len(self._addresses):
            self._testimonies[key] = reader.testimonies
        return output, reader

    def _features(self, layer: str, reader: "_Reader") -> Tensor:
        answer = reader.answers.get(layer)
        if answer is None:
            mode = "training" if self.model.training else "eval"
            raise ValueError(f"layer {layer!r} does not run in the model's forward in {mode} mode")
        if isinstance(answer, ValueError):
            around = self._addresses[layer].rpartition(".")[0]
            raise ValueError(
                f"layer {layer!r} {answer}; take the block around it" + (f", {around!r}" if around else "")
            )
        return answer

    def _ask_for_the_batch(self, layers: set[str], inputs: tuple) -> dict[str, int]:
        """As many images as positions: which of the two axes grows shorter with one image less?"""
        images = _first_shape(inputs)[0]
        fewer = [
            value[:-1] if isinstance(value, Tensor) and value.shape[:1] == (images,) else value
            for value in inputs
        ]
        shapes: dict[str, tuple[int, ...]] = {}

        def note(layer: str) -> Callable:
            return lambda module, arguments, output: shapes.update({layer: tuple(first_tensor(output).shape)})

        with ExitStack() as stack:
            for layer in layers:
                module = self.model.get_submodule(self._addresses[layer])
                stack.enter_context(module.register_forward_hook(note(layer)))
            stack.enter_context(uncompiled(self.model))
            stack.enter_context(evaluating(self.model))
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(torch.no_grad())
            self.model(*fewer)
        return {layer: int(shapes.get(layer, ())[:2] == (images, images - 1)) for layer in layers}


class _Reader:
    """What the hooks of one forward pass find: by layer its features, or why it has none."""

    def __init__(
        self,
        images: tuple[int, ...],
        batch_axes: dict[str, int],
        testimonies: dict[str, Testimony] | None,
    ):
        self.images, self.batch_axes = images, batch_axes
        self.witness = Witness() if testimonies is None else None
        self.testimonies = testimonies or {}
        self.answers: dict[str, Tensor | ValueError] = {}
        self.uncertain: set[str] = set()

    def hook(self, layer: str) -> Callable:
        def read(module: nn.Module, arguments: Any, output: Any) -> Any:
            # A later run of the same module replaces an answer, also one that was none.
            self.uncertain.discard(layer)
            if self.witness is not None:
                self.testimonies[layer] = self.witness.testimony
            try:
                self.answers[layer], output = self._answer(layer, output)
            except ValueError as problem:
                self.answers[layer] = problem
            return output

        return read

    def _answer(self, layer: str, output: Any) -> tuple[Tensor, Any]:
        """The features, and the output with which the network goes on."""
        tensor = first_tensor(output)
        if not isinstance(tensor, Tensor):
            raise ValueError(
                f"must return a tensor, or a tuple that begins with one, to be captured, got {_kind(output)}"
            )
        tensor = tensor.dequantize() if tensor.is_quantized else tensor
        if not tensor.is_floating_point():
            raise ValueError(f"returned {tensor.dtype}, and features are floating-point numbers")
        try:
            layout = layout_of(
                tuple(tensor.shape), self.images, self.testimonies[layer], self.batch_axes.get(layer)
            )
        except ValueError as problem:
            raise ValueError(f"returned shape {tuple(tensor.shape)}, {problem}") from None
        if not layout.certain:
            self.uncertain.add(layer)
        features = layout.read(tensor).clone()
        if not features.requires_grad:
            return features, output
        # The network goes on with a copy of these features: so the logits depend on them, and what comes next
        # may work in place.
        copy = torch.empty_like(tensor).copy_(layout.write(features, tensor))
        return features, with_first_tensor(output, copy)


def _kind(output: Any) -> str:
    entries = f" of {type(output[0]).__name__}" if isinstance(output, tuple | list) and len(output) else ""
    return f"{type(output).__name__}{entries}"


def _first_shape(inputs: tuple) -> tuple[int, ...]:
    shapes = [tuple(value.shape) for value in inputs if isinstance(value, Tensor) and value.dim()]
    if not shapes:
        raise ValueError(
            "a captured model must be called with a tensor whose first axis is the batch, got "
            f"{', '.join(type(value).__name__ for value in inputs) or 'nothing'}"
        )
    return shapes[0]


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Compiled code runs no hooks."""
    compiled = any(
        "_orig_mod" in module._modules or module._compiled_call_impl is not None for module in model.modules()
    )
    if compiled and not torch.compiler.is_compiling():
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def _addresses(model: nn.Module, layers: Sequence[str]) -> dict[str, str]:
    """By layer: its name from `model` on, through the wrappers of torch.compile and nn.DataParallel."""
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    wrappers = _wrappers(model)
    found = {
        layer: next((name for name in (layer, wrappers + layer) if name in modules), "") for layer in layers
    }
    unknown = [layer for layer in layers if not found[layer]]
    if unknown:
        near = list(dict.fromkeys(name for layer in unknown for name in _nearest(layer, list(modules))))
        raise ValueError(
            f"layers {unknown} are not modules of the model, and only modules can be captured"
            + (f"; near names: {', '.join(near)}" if near else f"; it has {', '.join([*modules][:20])}")
        )
    for layer, address in found.items():
        _refuse_what_does_not_run(layer, [model, *(modules[part] for part in _paths(address))], address)
    return found


def _wrappers(model: nn.Module) -> str:
    if "_orig_mod" in model._modules:
        return f"_orig_mod.{_wrappers(model._orig_mod)}"
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return f"module.{_wrappers(model.module)}"
    return ""


def _paths(address: str) -> list[str]:
    """a.b.c: a, a.b, a.b.c"""
    parts = address.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _refuse_what_does_not_run(layer: str, around: Sequence[nn.Module], address: str) -> None:
    """Modules inside a graph are names for its parameters; a replica of a device sees a part of the batch."""
    for depth, module in enumerate(around):
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"layer {layer!r} is part of a TorchScript model, which runs no hooks: "
                "capture the module from which it was scripted or traced"
            )
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ValueError(
                f"layer {layer!r} runs on {len(module.device_ids)} devices, with a part of the batch on "
                "each: capture the network inside, nn.DataParallel(capture(model.module, layers))"
            )
        if isinstance(module, fx.GraphModule) and depth < len(around) - 1:
            inside = ".".join(address.split(".")[depth:])
            called = {node.target for node in module.graph.nodes if node.op == "call_module"}
            if not any(path in called for path in _paths(inside)):
                raise ValueError(
                    f"layer {layer!r} is part of a traced or exported graph, which does not run it as a "
                    "module: capture the module from which the graph was made"
                )


def _nearest(unknown: str, modules: Sequence[str]) -> list[str]:
    """The module in which an operation (`layer1.0.add`) would run, and modules of similar names."""
    around = unknown.rpartition(".")[0]
    while around and around not in modules:
        around = around.rpartition(".")[0]
    return [around] * bool(around) + difflib.get_close_matches(unknown, modules, n=5, cutoff=0.5)


def _drop_prefix(wrapper: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}model.")]:
        state[prefix + key.removeprefix(f"{prefix}model.")] = state.pop(key)


def _add_prefix(wrapper: nn.Module, state: dict, prefix: str, *unused: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}model.{key.removeprefix(prefix)}"] = state.pop(key)
