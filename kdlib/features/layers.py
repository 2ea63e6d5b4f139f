"""Which layers of two networks go together."""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from kdlib._checks import checked
from kdlib.features._checks import check_network
from kdlib.features.blocks import run, whole_blocks

__all__ = ["suggest_layers"]

# A pair of stages costs the octaves between their resolutions plus the difference of their depths (0 to 1).
# A stage left out costs this: four stages at half the resolution each are paired by resolution, not by rank.
_COST_OF_LEAVING_OUT = 0.75
# A network of one resolution (a plain transformer, an MLP) is read at so many depths.
_DEPTHS = 4


# Maps whose sides differ by less than this factor belong to one stage (Inception's unpadded convolutions).
_SAME_RESOLUTION = 1.2


class _Layer(NamedTuple):
    """A candidate of a pair: the side of its map, and how many layers with weights have run by then.

    Of a stage `depth` is their share of those of the last stage.
    """

    name: str
    resolution: float
    depth: float


def _image_shape(name: str, value: Any) -> tuple[int, ...]:
    shape = tuple(value) if isinstance(value, Iterable) else ()
    if len(shape) != 3 or not all(_is_length(length) for length in shape):
        raise ValueError(f"{name} must be (channels, height, width), got {value!r}")
    return tuple(map(int, shape))


def _is_length(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


@checked(student=check_network, teacher=check_network, image_shape=_image_shape)
def suggest_layers(
    student: nn.Module, teacher: nn.Module, image_shape: Sequence[int]
) -> list[tuple[str, str]]:
    """Pairs (student layer, teacher layer), from shallow to deep, whose features may be compared.

    Layers are whole blocks: modules whose output everything passes on its way to the logits, and no parts of
    such a block (a projection of an attention, a norm, the ReLU before a block's pooling).  `capture` returns
    them as maps (batch, channels, height, width) or vectors (batch, channels), whatever the architecture.

    A network's stages are the last blocks of each resolution, without a stem of one convolution; a network of
    a single resolution (a plain transformer, an MLP) is cut into four by depth.  Vectors are paired where one
    of the networks has no maps.  The pairs are the cheapest alignment of the two sequences of stages: octaves
    between resolutions plus differences in depth, 0.75 for a stage left out.

    Args:
        student: is run on blank images, in eval mode, and left as it was.
        teacher: likewise.
        image_shape: (channels, height, width) of what both take.

    Returns:
        At least one pair, the last stages.

    Raises:
        ValueError: a network that does not run on such images, or that has no layers inside which run as
            modules (one that is scripted or exported).
    """
    student_blocks = _blocks("student", student, image_shape)
    teacher_blocks = _blocks("teacher", teacher, image_shape)
    wanted = "maps" if student_blocks["maps"] and teacher_blocks["maps"] else "vectors"
    student_stages, teacher_stages = (
        _stages(blocks[wanted] or blocks["maps"]) for blocks in (student_blocks, teacher_blocks)
    )
    pairs = _align(student_stages, teacher_stages) or [(student_stages[-1], teacher_stages[-1])]
    return [(student_stage.name, teacher_stage.name) for student_stage, teacher_stage in pairs]


def _blocks(role: str, model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, list[_Layer]]:
    """A network's whole blocks in the order in which they finish: those with maps, those with vectors."""
    if isinstance(model, torch.jit.ScriptModule) or _is_exported(model):
        raise ValueError(
            f"{role} is a scripted, traced or exported graph, which runs no modules whose features could be "
            "read: give the module from which it was made"
        )
    if any(nn.parameter.is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(
            f"{role} has layers without a size yet (nn.Lazy...): run it on a batch of images first"
        )
    found = run(role, model, image_shape)
    blocks = whole_blocks(found)
    if not blocks:
        raise ValueError(f"{role} has no layers inside whose features could be paired")
    layers = [_Layer(block.name, _resolution(block.shape), block.depth) for block in blocks]
    return {
        "maps": [layer for layer in layers if layer.resolution > 1],
        "vectors": [layer for layer in layers if layer.resolution == 1],
    }


def _is_exported(model: nn.Module) -> bool:
    return isinstance(model, fx.GraphModule) and not any(
        node.op == "call_module" and not str(node.target).startswith("_") for node in model.graph.nodes
    )


def _stages(blocks: list[_Layer]) -> list[_Layer]:
    """Of a network's blocks those that may be paired."""
    stages = _without_stem(_ends_of_resolutions(blocks))
    stages = stages if len(stages) > 1 else _cut_by_depth(blocks)
    # The classifier's share of the weighted layers differs; the last stages are equally deep all the same.
    return [stage._replace(depth=stage.depth / stages[-1].depth) for stage in stages]


def _resolution(shape: tuple[int, ...]) -> float:
    """Side length of a map; 1 for a vector."""
    return math.sqrt(math.prod(shape[2:]))


def _ends_of_resolutions(blocks: list[_Layer]) -> list[_Layer]:
    """For each resolution the last block, as long as resolution falls and weights are added."""
    ends = {block.resolution: block for block in blocks}
    stages: list[_Layer] = []
    for block in sorted(ends.values(), key=blocks.index):
        last = stages[-1] if stages else _Layer("", math.inf, 0)
        if block.resolution > last.resolution:
            continue
        if block.resolution * _SAME_RESOLUTION > last.resolution:
            stages[-1] = block
        elif block.depth > last.depth:
            stages.append(block)
    return stages


def _without_stem(stages: list[_Layer]) -> list[_Layer]:
    """Without a first stage of one weighted layer, where a later stage has more."""
    depths = [0, *(stage.depth for stage in stages)]
    gains = [after - before for before, after in zip(depths, depths[1:], strict=False)]
    return stages[1:] if gains[0] == 1 and max(gains) > 1 else stages


def _cut_by_depth(blocks: list[_Layer]) -> list[_Layer]:
    """A few evenly spaced ends of the longest row of sibling modules, such as the blocks of a transformer."""
    rows: dict[str, dict[float, _Layer]] = {}
    for block in blocks:
        rows.setdefault(block.name.rpartition(".")[0], {})[block.depth] = block
    name = max(rows, key=lambda parent: (len(rows[parent]), parent.count(".") + bool(parent)))
    row = list(rows[name].values())
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
