"""Answers to the exercise of lesson 05 that rounds weights."""

import math

import torch

from answers import Answers


def channel_by_channel(weight, bits):
    most = 2 ** (bits - 1) - 1
    read_back = torch.zeros_like(weight)
    for channel, weights in enumerate(weight):
        scale = weights.abs().max() / most
        if scale > 0:
            read_back[channel] = torch.clip(torch.round(weights / scale), -most, most) * scale
    return read_back


def by_keeping_the_axes(weight, bits):
    axes = tuple(range(1, weight.ndim))
    scale = torch.maximum(weight.amax(axes, keepdim=True), -weight.amin(axes, keepdim=True)) / (2 ** (bits - 1) - 1)
    return torch.round(weight / scale.clamp(min=1e-12)) * scale


def by_a_reshaped_scale(weight, bits):
    scale = torch.linalg.vector_norm(weight.flatten(1), ord=math.inf, dim=1) / (2 ** (bits - 1) - 1)
    scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return torch.nan_to_num((weight / scale).round() * scale)


def channels_last(weight, bits):
    columns = weight.movedim(0, -1).double()
    scale = columns.flatten(0, -2).abs().max(0).values / (2 ** (bits - 1) - 1)
    levels = torch.where(scale > 0, columns / scale, 0.0).round()
    return (levels * scale).movedim(-1, 0).to(weight.dtype)


def read_back(levels, scale, weight):
    return levels * scale


def symmetric(most):
    return -most, most


def rounded(scale_of, *, levels=symmetric, whole=torch.round, read=read_back):
    """An answer with another scale, other levels, or another way of making whole numbers or of reading them back.

    `scale_of` is a function of the weight, the axes of a channel and the largest level; a scale of 0 becomes 1.
    """

    def answer(weight, bits):
        most = 2 ** (bits - 1) - 1
        scale = scale_of(weight, tuple(range(1, weight.ndim)), most)
        scale = scale + (scale == 0)
        return read(whole(weight / scale).clamp(*levels(most)), scale, weight)

    return answer


def any_level(most):
    return -math.inf, math.inf


def largest_weight(weight, axes, most):
    return weight.abs().amax(axes, keepdim=True) / most


def too_many_levels(times, plus=0):
    return lambda weight, axes, most: weight.abs().amax(axes, keepdim=True) / (times * most + plus)


def signed_largest(weight, axes, most):
    return weight.amax(axes, keepdim=True) / most


def spread(weight, axes, most):
    return (weight.amax(axes, keepdim=True) - weight.amin(axes, keepdim=True)) / (2 * most + 1)


def forgets_zeros(weight, bits):
    rows, most = weight.flatten(1), 2 ** (bits - 1) - 1
    scale = rows.abs().max(dim=1, keepdim=True).values / most
    return ((rows / scale).round().clip(-most, most) * scale).view_as(weight)


def scales_in_a_row(weight, bits):
    most = 2 ** (bits - 1) - 1
    scale = weight.flatten(1).abs().amax(1) / most
    return (weight / scale).round().clamp(-most, most) * scale


def four_axes(weight, bits):
    most = 2 ** (bits - 1) - 1
    scale = weight.flatten(1).abs().amax(1)[:, None, None, None] / most
    scale[scale == 0] = 1
    return (weight / scale).round().clamp(-most, most) * scale


def affine(weight, bits):
    rows, top = weight.flatten(1), 2**bits - 1
    low, high = rows.min(dim=1, keepdim=True).values, rows.max(dim=1, keepdim=True).values
    scale = torch.where(high > low, (high - low) / top, torch.ones_like(low))
    zero_point = torch.round(-low / scale)
    levels = torch.clamp(torch.round(rows / scale) + zero_point, 0, top)
    return ((levels - zero_point) * scale).reshape(weight.shape)


def in_place(weight, bits):
    return weight.copy_(channel_by_channel(weight, bits))


QUANTISE_PER_CHANNEL = Answers(
    wrong={
        "one scale for the whole tensor": rounded(lambda w, axes, most: w.abs().max() / most),
        "a scale for each input channel": rounded(lambda w, axes, most: w.abs().amax((0, *axes[1:]), True) / most),
        "a scale for each row of a kernel": rounded(lambda w, axes, most: w.abs().max(-1, keepdim=True)[0] / most),
        "a scale for each position of a kernel": rounded(lambda w, axes, most: w.abs().max(1, True)[0] / most),
        "a scale for each kernel": rounded(lambda w, axes, most: w.abs().amax(axes[1:] or 1, keepdim=True) / most),
        "laid along the last axis": scales_in_a_row,
        "fit convolutions only": four_axes,
        "0 / 0 is not a number": forgets_zeros,
        "where that is negative it is clipped": rounded(signed_largest),
        "levels that do not exist": rounded(signed_largest, levels=any_level),
        "towards minus infinity": rounded(largest_weight, whole=torch.floor),
        "the decimals are cut off": rounded(largest_weight, whole=torch.Tensor.char),
        "these are the levels;": rounded(largest_weight, read=lambda levels, scale, weight: levels),
        "these are the levels, as integers": rounded(largest_weight, read=lambda levels, *_: levels.to(torch.int8)),
        "the scale is that of 2**bits - 1": rounded(too_many_levels(2, 1)),
        "there are 2**bits - 1 levels": rounded(too_many_levels(2, 1), levels=any_level),
        "one too high: it is clipped": rounded(too_many_levels(1, 1)),
        "have on the negative side only": rounded(too_many_levels(1, 1), levels=lambda most: (-most - 1, most)),
        "reach to 2**(bits - 1), one too high": rounded(too_many_levels(1, 1), levels=any_level),
        "2 max / (2**bits - 1)": rounded(too_many_levels(1, 0.5)),
        "(max - min) / (2**bits - 1)": rounded(spread),
        "with a zero point": affine,
        "the negative weights are gone": rounded(largest_weight, levels=lambda most: (0, most)),
        "rounding takes away or adds;": rounded(largest_weight, read=lambda levels, scale, w: levels * scale - w),
        "turned round": rounded(largest_weight, read=lambda levels, scale, weight: weight - levels * scale),
        "no tensor of the weight's dtype": lambda weight, bits: channel_by_channel(weight, bits).numpy(),
        "the result contains": lambda weight, bits: channel_by_channel(weight, 8),
        "is of shape": lambda weight, bits: channel_by_channel(weight, bits).flatten(1),
        "changes its inputs in place": in_place,
    },
    right=[channel_by_channel, by_keeping_the_axes, by_a_reshaped_scale, channels_last],
)  # fmt: skip
