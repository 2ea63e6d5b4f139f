"""Which layers of two networks go together."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlib._checks import checked
from kdlib.features._checks import check_network

# A pair of stages costs the octaves between their resolutions plus the difference of their depths (0 to 1).
# A stage left out costs this: four stages at half the resolution each are paired by resolution, not by rank.
_COST_OF_LEAVING_OUT = 0.75
# A network of one resolution (a plain transformer, an MLP) is read at so many depths.
_DEPTHS = 4


# Maps whose sides differ by less than this factor belong to one stage (Inception's unpadded convolutions).
_SAME_RESOLUTION = 1.2


class _Call(NamedTuple):
    """A module that finished: the shape of its output, and the weighted layers that have run by then."""

    name: str
    shape: tuple[int, ...]
    weighted_layers: int


class _Layer(NamedTuple):
    """A candidate of a pair: the side of its map, and the share of the weighted layers that have run by then."""

    name: str
    resolution: float
    depth: float


def _image_shape(name: str, value: Any) -> tuple[int, ...]:
    shape = tuple(value)
    if len(shape) != 3 or not all(isinstance(length, int) and length > 0 for length in shape):
        raise ValueError(f"{name} must be (channels, height, width), got {value!r}")
    return shape


@checked(student=check_network, teacher=check_network, image_shape=_image_shape)
def suggest_layers(
    student: nn.Module, teacher: nn.Module, image_shape: Sequence[int]
) -> list[tuple[str, str]]:
    """Pairs (student layer, teacher layer), from shallow to deep, whose features may be compared.

    Each network runs once, in eval mode, on a blank image of `image_shape` = (channels, height, width).  Its
    stages are the outermost modules that end each resolution, without a stem of one convolution; a network of
    a single resolution is cut into four by depth.  The pairs are the cheapest alignment of the two sequences
    of stages: octaves between resolutions plus differences in depth, 0.75 for a stage left out.  At least one
    pair is returned, the last stages.
    Names suit `capture`; transformers' tokens and channels-last maps need `to_map`.
    """
    student_stages = _stages("student", student, image_shape)
    teacher_stages = _stages("teacher", teacher, image_shape)
    pairs = _align(student_stages, teacher_stages) or [(student_stages[-1], teacher_stages[-1])]
    return [(student_stage.name, teacher_stage.name) for student_stage, teacher_stage in pairs]


def _calls(role: str, model: nn.Module, image_shape: tuple[int, ...]) -> list[_Call]:
    """Every module's output shape in the order in which they finish, but the network's own."""
    calls: list[_Call] = []
    weighted_layers = 0

    def record(name: str, module: nn.Module):
        weight = getattr(module, "weight", None)
        weighted = isinstance(weight, Tensor) and weight.dim() > 1

        def hook(module, arguments, output) -> None:
            nonlocal weighted_layers
            weighted_layers += weighted
            if isinstance(output, Tensor):
                calls.append(_Call(name, tuple(output.shape), weighted_layers))

        return hook

    hooks = [
        module.register_forward_hook(record(name, module)) for name, module in model.named_modules() if name
    ]
    modes = {module: module.training for module in model.modules()}
    parameter = next(model.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
    except Exception as error:
        raise ValueError(
            f"{role} does not run on an image of shape {image_shape} ({type(error).__name__}: {error})"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return calls


def _stages(role: str, model: nn.Module, image_shape: tuple[int, ...]) -> list[_Layer]:
    """The layers of a network that may be paired, in the order in which they finish."""
    calls = _calls(role, model, image_shape)
    total = max((call.weighted_layers for call in calls), default=0)
    layers = [
        _Layer(call.name, resolution, call.weighted_layers / total)
        for call in calls
        if call.weighted_layers and (resolution := _resolution(call.shape, image_shape))
    ]
    maps = [layer for layer in layers if layer.resolution > 1]
    # Without maps (an MLP) vectors will do, but not the last layer's: those are the logits.
    candidates = maps or [layer for layer in layers if layer.depth < 1] or layers
    if not candidates:
        raise ValueError(f"{role} has no layers inside whose features could be paired")
    stages = _without_stem(_ends_of_resolutions(candidates), 1 / total)
    stages = stages if len(stages) > 1 else _cut_by_depth(candidates)
    # The classifier's share of the weighted layers differs; the last stages are equally deep all the same.
    return [stage._replace(depth=stage.depth / stages[-1].depth) for stage in stages]


def _resolution(shape: tuple[int, ...], image_shape: tuple[int, ...]) -> float | None:
    """Side length of a map in either layout, of tokens with or without a class token; 1 for a vector."""
    _, image_height, image_width = image_shape
    if len(shape) == 4:
        for height, width in (shape[2:], shape[1:3]):
            if abs(width - height * image_width / image_height) <= (height != image_height):
                return math.sqrt(height * width)
        return None
    if len(shape) == 3:
        tokens = shape[1]
        return (
            float(math.isqrt(tokens))
            if math.isqrt(tokens) ** 2 in (tokens, tokens - 1)
            else math.sqrt(tokens)
        )
    return 1.0 if len(shape) == 2 else None


def _ends_of_resolutions(layers: list[_Layer]) -> list[_Layer]:
    """For each resolution the last outermost module, as long as resolution falls and weights are added."""
    ends: dict[float, _Layer] = {}
    for layer in layers:
        best = ends.get(layer.resolution)
        if best is None or layer.name.count(".") <= best.name.count("."):
            ends[layer.resolution] = layer
    stages: list[_Layer] = []
    for layer in sorted(ends.values(), key=layers.index):
        last = stages[-1] if stages else _Layer("", math.inf, 0.0)
        if layer.resolution > last.resolution:
            continue
        if layer.resolution * _SAME_RESOLUTION > last.resolution:
            if layer.name.count(".") <= last.name.count("."):
                stages[-1] = layer
        elif layer.depth > last.depth:
            stages.append(layer)
    return stages


def _without_stem(stages: list[_Layer], one_layer: float) -> list[_Layer]:
    """Without a first stage of one weighted layer, where a later stage has more."""
    gains = [
        layer.depth - before
        for layer, before in zip(stages, [0.0, *(stage.depth for stage in stages[:-1])], strict=True)
    ]
    is_stem = math.isclose(gains[0], one_layer) and max(gains) > 1.5 * one_layer
    return stages[1:] if is_stem else stages


def _cut_by_depth(layers: list[_Layer]) -> list[_Layer]:
    """A few evenly spaced ends of the longest row of sibling modules, such as the blocks of a transformer."""
    rows: dict[str, dict[float, _Layer]] = {}
    for layer in layers:
        rows.setdefault(layer.name.rpartition(".")[0], {})[layer.depth] = layer
    row = list(max(rows.values(), key=len).values())
    ends = sorted({math.ceil(len(row) * (cut + 1) / _DEPTHS) - 1 for cut in range(_DEPTHS)})
    return [row[end] for end in ends]


def _align(students: list[_Layer], teachers: list[_Layer]) -> list[tuple[_Layer, _Layer]]:
    """The cheapest order-preserving one-to-one pairing, by dynamic programming over prefixes."""
    best: dict[tuple[int, int], tuple[float, list]] = {(0, 0): (0.0, [])}
    for i in range(len(students) + 1):
        for j in range(len(teachers) + 1):
            choices = []
            if i and j:
                student, teacher = students[i - 1], teachers[j - 1]
                cost, pairs = best[i - 1, j - 1]
                choices.append((cost + _cost(student, teacher), [*pairs, (student, teacher)]))
            for before in ((i - 1, j), (i, j - 1)):
                if before in best:
                    cost, pairs = best[before]
                    choices.append((cost + _COST_OF_LEAVING_OUT, pairs))
            if choices:
                best[i, j] = min(choices, key=lambda choice: choice[0])
    return best[len(students), len(teachers)][1]


def _cost(student: _Layer, teacher: _Layer) -> float:
    octaves = abs(math.log2(student.resolution / teacher.resolution))
    return octaves + abs(student.depth - teacher.depth)
