"""Exercise of lesson 05: round the weights of a layer to a few bits, with a scale for each output channel.

The function carries no annotations, because its text is the stub that a learner reads: shapes stand in the docstring.
"""

import torch

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import is_unfinished


def _weights():
    """Of convolutions and linear layers, one of them square, with channels of different sizes; a convolution has one of
    zeros. The largest weight of a channel is positive and negative in turn.

    With this seed no channel has one sign only, and no weight stands so near the middle between two levels that another
    order of the operations decides.
    """
    generator = torch.Generator().manual_seed(16)
    cases = []
    for shape, bits in [((4, 3, 3, 3), 8), ((6, 7), 4), ((7, 7), 3), ((3, 1, 5, 5), 5), ((7, 4, 2, 2), 2)]:
        weight = torch.randn(shape, generator=generator)
        for number, channel in enumerate(weight):
            sign = channel.flatten()[channel.abs().argmax()].sign()
            channel *= sign * (-1) ** number * 2.0 ** (number % 3)
        if len(shape) == 4:
            weight[-2] = 0
        cases.append((weight, bits))
    return cases


def _read_back(function, weight, bits):
    """Probe: the weights, and whether they are of a kind that the layer takes."""
    result = function(weight, bits)
    if is_unfinished(result):
        return result
    return {"result": result, "dtype": float(getattr(result, "dtype", None) == weight.dtype)}


def _most(bits):
    return 2 ** (bits - 1) - 1


def _not_zero(scale):
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _quantise(weight, bits, *, dim=None, size=torch.abs, steps=0, least=None, most=0, whole=torch.round):
    """The solution, which can be told to make mistakes.

    dim: the axes that share a scale; size: the largest one of these stands at level `steps`; least, most: the levels
    that there are; whole: makes integers.
    """
    most = most or _most(bits)
    dim = tuple(range(1, weight.ndim)) if dim is None else dim
    scale = _not_zero(size(weight).amax(dim=dim, keepdim=True) / (steps or most))
    return whole(weight / scale).clamp(-most if least is None else least, most) * scale


def _levels(weight, bits):
    scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / _most(bits)
    return (weight / _not_zero(scale)).round()


def _with_scales(shape):
    """The solution, but its scales are of another shape than (outputs, 1, ...)."""

    def quantise(weight, bits):
        scale = _not_zero(weight.flatten(1).abs().amax(dim=1) / _most(bits)).reshape(shape)
        return (weight / scale).round().clamp(-_most(bits), _most(bits)) * scale

    return quantise


def _without_care_for_zeros(weight, bits):
    scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / _most(bits)
    return (weight / scale).round() * scale


def _above_the_smallest(weight):
    return weight - weight.amin(dim=tuple(range(1, weight.ndim)), keepdim=True)


def _with_zero_point(weight, bits):
    dim, steps = tuple(range(1, weight.ndim)), 2**bits - 1
    smallest = weight.amin(dim=dim, keepdim=True)
    scale = _not_zero((weight.amax(dim=dim, keepdim=True) - smallest) / steps)
    zero_point = (-smallest / scale).round()
    return (((weight / scale).round() + zero_point).clamp(0, steps) - zero_point) * scale


@exercise(
    cases=_weights,
    probe=_read_back,
    hints=[
        "Which weights share a scale? In weight.flatten(1) each output channel is a row, whatever the layer is.",
        """Which real number shall the largest level stand for? Take care of a row of zeros, and keep the axis when you
        reduce it (keepdim=True), so that every scale stays beside its row.""",
        """scale = rows.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1), and 1 where that is 0. Divide, round,
        clamp, multiply by the scale again; then back to the weight's shape.""",
    ],
    mistakes={
        "one scale for the whole tensor: a channel of small weights gets few of the levels, or none":
            lambda w, b: _quantise(w, b, dim=tuple(range(w.ndim))),
        "a scale for each input channel: outputs are the first axis, axis 0, so reduce all axes but that":
            lambda w, b: _quantise(w, b, dim=(0, *range(2, w.ndim))),
        "a scale for each row of a kernel: reduce all axes but the first, not only the last one":
            lambda w, b: _quantise(w, b, dim=-1),
        "a scale for each position of a kernel: reduce all axes but the first, not only the second one":
            lambda w, b: _quantise(w, b, dim=1),
        "a scale for each kernel: an output channel has a kernel for each input, and all of them share its scale":
            lambda w, b: _quantise(w, b, dim=tuple(range(2, w.ndim)) or 1),
        "scales of shape (outputs,) are laid along the last axis of the weight: give each the shape (outputs, 1, ...)":
            _with_scales((-1,)),
        "scales of shape (outputs, 1, 1, 1) fit convolutions only: the weight of a linear layer has two axes":
            _with_scales((-1, 1, 1, 1)),
        "a channel of zeros becomes NaN: its scale is 0, and 0 / 0 is not a number":
            _without_care_for_zeros,
        "the largest weight instead of the largest absolute one: where that is negative it is clipped":
            lambda w, b: _quantise(w, b, size=torch.clone),
        "the largest weight instead of the largest absolute one: negative ones get levels that do not exist":
            lambda w, b: _quantise(w, b, size=torch.clone, least=-10**6),
        "rounded down, not to the nearest level: that moves every weight towards minus infinity":
            lambda w, b: _quantise(w, b, whole=torch.floor),
        "the decimals are cut off, as by .int() or .to(torch.int8): round to the nearest level first":
            lambda w, b: _quantise(w, b, whole=torch.trunc),
        "these are the levels; multiply them by their scale again to read the weights back":
            _levels,
        "these are the levels, as integers; multiply them by their scale again to read the weights back":
            lambda w, b: _levels(w, b).int(),
        "the scale is that of 2**bits - 1 levels above zero; half of the levels are negative":
            lambda w, b: _quantise(w, b, steps=2**b - 1),
        "there are 2**bits - 1 levels above zero; half of the levels are negative":
            lambda w, b: _quantise(w, b, most=2**b - 1),
        "the largest weight stands at level 2**(bits - 1), which is one too high: it is clipped":
            lambda w, b: _quantise(w, b, steps=2 ** (b - 1)),
        "the largest weight stands at level 2**(bits - 1), which levels from -2**(bits - 1) to 2**(bits - 1) - 1 have "
        "on the negative side only":
            lambda w, b: _quantise(w, b, steps=2 ** (b - 1), least=-(2 ** (b - 1))),
        "the levels reach to 2**(bits - 1), one too high: with zero in the middle, 2**(bits - 1) - 1 are on each side":
            lambda w, b: _quantise(w, b, most=2 ** (b - 1)),
        "the scale is 2 max / (2**bits - 1): then the largest level is half a step below the largest weight":
            lambda w, b: _quantise(w, b, steps=(2**b - 1) / 2),
        "the scale is (max - min) / (2**bits - 1): without a zero point it is the largest absolute weight that counts":
            lambda w, b: _quantise(w, b, size=_above_the_smallest, steps=2**b - 1),
        "the levels lie between the smallest and the largest weight, with a zero point; none is asked for":
            _with_zero_point,
        "the negative weights are gone: the levels of a signed quantiser begin at -(2**(bits - 1) - 1)":
            lambda w, b: _quantise(w, b, least=0),
        "this is what rounding takes away or adds; the weights as they are read back are asked for":
            lambda w, b: _quantise(w, b) - w,
        "this is what rounding takes away or adds, turned round; the weights as they are read back are asked for":
            lambda w, b: w - _quantise(w, b),
        "the numbers are right, but no tensor of the weight's dtype, which its layer needs":
            lambda w, b: _quantise(w, b).double(),
    },
)  # fmt: skip
def quantise_per_channel(weight, bits):
    """Round the weights of a layer to signed integers of so many bits, and read them back. Each output channel has a
    scale, max|its weights| / (2**(bits - 1) - 1), and no zero point; the weights divided by the scale are rounded to
    the nearest integers and clipped to -(2**(bits - 1) - 1) ... 2**(bits - 1) - 1. A channel of zeros stays zeros.

    weight: (outputs, inputs, height, width) of a convolution or (outputs, inputs) of a linear layer; bits: 2 to 8.
    Returns integer * scale, of the weight's shape and dtype.
    """
    # --- your code
    most = 2 ** (bits - 1) - 1
    rows = weight.flatten(1)
    scale = rows.abs().amax(dim=1, keepdim=True) / most
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    integers = (rows / scale).round().clamp(-most, most)
    return (integers * scale).reshape(weight.shape)
    # --- end
