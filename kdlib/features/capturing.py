"""Features of chosen layers beside a network's logits.

Layers are modules, read by a forward hook that is set for the time of one forward pass: the network runs as it
is, whatever Python does in its forward.
"""

import difflib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from kdlib._checks import checked
from kdlib.features._checks import check_network
from kdlib.inference import logits_of


def _names(name: str, value: Any) -> tuple[str, ...]:
    layers = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else None
    if layers is None or not all(isinstance(layer, str) for layer in layers):
        raise ValueError(f"{name} must be a sequence of names, got {value!r}")
    return layers


@checked(model=check_network, layers=_names)
def capture(model: nn.Module, layers: Sequence[str]) -> "CapturedModel":
    """The model as a module that returns (logits, {layer: features}), the features with their gradients.

    Parameters are shared: training the result trains the model.  A module that runs several times gives its last
    output; the features are what the layer returned, even where the next one works in place.  Of networks with
    auxiliary heads (Inception, GoogLeNet) the logits are the main head's.

    Args:
        model: any network that returns logits.
        layers: names of modules, as `model.named_modules()` gives them. Operations (a residual sum) have no name:
            take the module that contains them.

    Raises:
        ValueError: an unknown layer, with the nearest names.
    """
    return CapturedModel(model, layers)


class CapturedModel(nn.Module):
    """A model wrapped by `capture`; `model` is the original, and the state dict is the original's."""

    def __init__(self, model: nn.Module, layers: Sequence[str]):
        super().__init__()
        _refuse_unknown(layers, [name for name, _ in model.named_modules(remove_duplicate=False) if name])
        self.layers = tuple(layers)
        self.model = model
        self.training = model.training
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    @property
    def preprocessing(self) -> Any:
        """That of the model, where it carries its own."""
        return getattr(self.model, "preprocessing", None)

    def forward(self, *inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        captured: dict[str, Tensor] = {}

        def keep(layer: str):
            return lambda module, arguments, output: captured.update({layer: _own_copy(layer, output)})

        with ExitStack() as hooks:
            for layer in self.layers:
                hooks.enter_context(self.model.get_submodule(layer).register_forward_hook(keep(layer)))
            output = self.model(*inputs)
        silent = [layer for layer in self.layers if layer not in captured]
        if silent:
            mode = "training" if self.model.training else "eval"
            raise ValueError(f"layers {silent} do not run in the model's forward in {mode} mode")
        return logits_of(output), {layer: captured[layer] for layer in self.layers}


def _own_copy(layer: str, output: Any) -> Tensor:
    """A copy, so that an in-place operation after the layer (ReLU, a residual sum) leaves it as it is."""
    if not isinstance(output, Tensor):
        raise ValueError(
            f"layer {layer!r} must return one tensor to be captured, got {type(output).__name__}"
        )
    return output.clone()


def _refuse_unknown(layers: Sequence[str], modules: Sequence[str]) -> None:
    unknown = [layer for layer in layers if layer not in modules]
    if unknown:
        near = list(dict.fromkeys(name for layer in unknown for name in _nearest(layer, modules)))
        raise ValueError(
            f"layers {unknown} are not modules of the model, and only modules can be captured"
            + (f"; near names: {', '.join(near)}" if near else f"; it has {', '.join(modules[:20])}")
        )


def _nearest(unknown: str, modules: Sequence[str]) -> list[str]:
    """The module in which an operation of that name (`layer1.0.add`) would run, and modules of similar names."""
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
