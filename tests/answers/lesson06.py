"""Answers to the exercises of lesson 06."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from answers import Answers

# ------------------------------------------------------------------ low_rank_factors


def in_numpy_with_all_in_the_second(weight, rank):
    matrix = weight.numpy().reshape(len(weight), -1)
    u, s, vh = np.linalg.svd(matrix)
    first = vh[:rank].reshape(rank, *weight.shape[1:])
    second = (u[:, :rank] @ np.diag(s[:rank]))[:, :, None, None]
    return torch.from_numpy(first), torch.from_numpy(second)


def by_eigenvectors_of_the_inputs(weight, rank):
    """The right singular vectors are the eigenvectors of W^T W; W V is what stands at their left."""
    matrix = weight.flatten(1)
    _, vectors = torch.linalg.eigh(matrix.T @ matrix)
    kept = vectors[:, -rank:]
    return [kept.T.unflatten(1, weight.shape[1:]), (matrix @ kept)[..., None, None]]


def with_the_old_svd(weight, rank):
    left, values, right = torch.svd(weight.reshape(weight.shape[0], -1))  # this one returns V
    root = torch.diag(values[:rank] ** 0.5)
    first = (right[:, :rank] @ root).T
    return first.contiguous().view(rank, *weight.shape[1:]), (left[:, :rank] @ root).view(-1, rank, 1, 1)


def parts(weight, full_matrices=False):
    return torch.linalg.svd(weight.flatten(1), full_matrices=full_matrices)


def as_convolutions(weight, left, right):
    return right.reshape(-1, *weight.shape[1:]), left.reshape(len(weight), -1, 1, 1)


def with_powers(weight, rank, of_left, of_right):
    u, s, vh = parts(weight)
    s = s[:rank]
    return as_convolutions(weight, u[:, :rank] * s**of_left, (s**of_right)[:, None] * vh[:rank])


def of_the_smallest(weight, rank):
    u, s, vh = parts(weight)
    return as_convolutions(weight, u[:, -rank:] * s[-rank:], vh[-rank:])


def one_too_many(weight, rank):
    return with_powers(weight, rank + 1, 0.5, 0.5)


def of_each_channel_alone(weight, rank):
    u, s, vh = torch.linalg.svd(weight.flatten(2), full_matrices=False)
    return vh[:, :rank] * s[:, :rank, None], u[:, :, :rank]


def with_zeros(weight, rank):
    u, s, vh = parts(weight)
    s[rank:] = 0
    return as_convolutions(weight, u * s.sqrt(), s.sqrt()[:, None] * vh)


def with_v_transposed(weight, rank, full_matrices):
    u, s, v = parts(weight, full_matrices)
    return as_convolutions(weight, u[:, :rank] * s[:rank], v[:, :rank].T)


def reshaped_before_it_is_transposed(weight, rank):
    left, s, v = torch.svd(weight.flatten(1))
    return (v[:, :rank] * s[:rank]).reshape(rank, *weight.shape[1:]), left[:, :rank, None, None]


def kernels_read_before_channels(weight, rank):
    channels, *kernel = weight.shape[1:]
    first, second = with_powers(weight, rank, 0.5, 0.5)
    return first.reshape(rank, *kernel, channels).permute(0, 3, 1, 2), second


LOW_RANK_FACTORS = Answers(
    wrong={
        "It does not return two tensors": lambda w, rank: parts(w),
        "the two are exchanged": lambda w, rank: with_powers(w, rank, 0.5, 0.5)[::-1],
        "two matrices come back": lambda w, rank: (
            parts(w)[2][:rank], parts(w)[0][:, :rank] * parts(w)[1][:rank]),
        "the layers are as wide as before": with_zeros,
        "the smallest singular values are kept": of_the_smallest,
        "the singular values are left out": lambda w, rank: with_powers(w, rank, 0, 0),
        "the singular values count twice": lambda w, rank: with_powers(w, rank, 1, 1),
        "the root of the singular values only": lambda w, rank: with_powers(w, rank, 0.5, 0),
        "do not transpose it": lambda w, rank: with_v_transposed(w, rank, False),
        "do not transpose the square matrix": lambda w, rank: with_v_transposed(w, rank, True),
        "V is reshaped before it is transposed": reshaped_before_it_is_transposed,
        "The first weight is of shape (3, 3, 3, 3); it should be of shape (2, 3, 3, 3)": one_too_many,
        "The first weight is of shape (6, 2, 9)": of_each_channel_alone,
        "The product of the two contains": kernels_read_before_channels,
        "It is -1 times the right result": lambda w, rank: with_powers(-w, rank, 0.5, 0.5),
        "changes its inputs in place": lambda w, rank: with_powers(w.mul_(2), rank, 0.5, 0.5),
    },
    right=[in_numpy_with_all_in_the_second, by_eigenvectors_of_the_inputs, with_the_old_svd],
)  # fmt: skip

# ------------------------------------------------------------------ prune_channel_pair

TENSORS = ("weight", "bias", "running_mean", "running_var")


def of_new_layers(first, norm, second, keep, *, geometry=True, of_norm=TENSORS, eps=True, bias=True):
    """An answer that builds layers, and carries over what it is told to."""

    def settings(layer):
        return {"stride": layer.stride, "padding": layer.padding} if geometry else {}

    n = len(keep)
    new_first = nn.Conv2d(first.in_channels, n, first.kernel_size, bias=False, **settings(first))
    new_norm = nn.BatchNorm2d(n, eps=norm.eps if eps else 1e-5)
    with_bias = bias and second.bias is not None
    new_second = nn.Conv2d(n, second.out_channels, second.kernel_size, bias=with_bias, **settings(second))
    with torch.no_grad():
        new_first.weight.copy_(first.weight[keep])
        for name in of_norm:
            getattr(new_norm, name).copy_(getattr(norm, name)[keep])
        new_second.weight.copy_(second.weight[:, keep])
        if with_bias:
            new_second.bias.copy_(second.bias)
    return new_first, new_norm, new_second


def channel_by_channel_in_another_order(first, norm, second, keep):
    numbers = sorted(keep.tolist())
    layers = copy.deepcopy(nn.Sequential(first, norm, second))
    layers[0].weight = nn.Parameter(torch.stack([first.weight[number] for number in numbers]))
    for name in TENSORS:
        kept = torch.tensor([getattr(norm, name)[number].item() for number in numbers])
        setattr(layers[1], name, nn.Parameter(kept) if name in ("weight", "bias") else kept)
    layers[2].weight = nn.Parameter(torch.stack([second.weight[:, number] for number in numbers], dim=1))
    return layers


def by_a_mask(first, norm, second, keep):
    stays = torch.isin(torch.arange(first.out_channels), keep)
    new = [copy.deepcopy(layer) for layer in (first, norm, second)]
    new[0].weight.data = first.weight.data[stays]
    for name in TENSORS:
        getattr(new[1], name).data = getattr(norm, name).data[stays]
    new[2].weight.data = second.weight.data[:, stays]
    return new


def in_place(first, norm, second, keep):
    first.weight.data = first.weight.data[keep]
    for name in TENSORS:
        getattr(norm, name).data = getattr(norm, name).data[keep]
    second.weight.data = second.weight.data[:, keep]
    return first, norm, second


def set_to_zero(first, norm, second, keep):
    new = [copy.deepcopy(layer) for layer in (first, norm, second)]
    gone = [number for number in range(first.out_channels) if number not in keep]
    new[2].weight.data[:, gone] = 0
    return new


def with_the_second_as_it_was(first, norm, second, keep):
    return *of_new_layers(first, norm, second, keep)[:2], copy.deepcopy(second)


def with_the_norm_as_it_was(first, norm, second, keep):
    new_first, _, new_second = of_new_layers(first, norm, second, keep)
    return new_first, copy.deepcopy(norm), new_second


def with_outputs_cut(first, norm, second, keep):
    cut = copy.deepcopy(second)
    cut.weight.data = second.weight.data[keep]
    if second.bias is not None:
        cut.bias.data = second.bias.data[keep]
    return *of_new_layers(first, norm, second, keep)[:2], cut


def with_the_first_inputs(first, norm, second, keep):
    new = of_new_layers(first, norm, second, keep)
    new[2].weight.data = second.weight.data[:, : len(keep)].clone()
    return new


def with_a_shared_bias(first, norm, second, keep):
    new = of_new_layers(first, norm, second, keep)
    new[2].bias = second.bias
    return new


def with_a_bias_drawn_anew(first, norm, second, keep):
    new = of_new_layers(first, norm, second, keep)
    new[2].bias = nn.Parameter(torch.ones(second.out_channels))
    return new


def those_that_go(first, norm, second, keep):
    gone = torch.tensor([number for number in range(first.out_channels) if number not in keep])
    return of_new_layers(first, norm, second, gone)


PRUNE_CHANNEL_PAIR = Answers(
    wrong={
        "It does not return a convolution, a norm and a convolution": lambda *given: of_new_layers(*given)[::2],
        "the channels are only set to 0": set_to_zero,
        "it must lose the inputs that are gone": with_the_second_as_it_was,
        "the second convolution lost outputs": with_outputs_cut,
        "the norm still has all channels": with_the_norm_as_it_was,
        "the first len(keep) channels stay": lambda f, n, s, keep: of_new_layers(f, n, s, range(len(keep))),
        "keeps its first len(keep) inputs": with_the_first_inputs,
        "the norm's running mean and variance": lambda *given: of_new_layers(*given, of_norm=TENSORS[:2]),
        "the norm's weight and bias are forgotten": lambda *given: of_new_layers(*given, of_norm=TENSORS[2:]),
        "the norm is new altogether": lambda *given: of_new_layers(*given, of_norm=()),
        "the norm's eps is not carried over": lambda *given: of_new_layers(*given, eps=False),
        "stride and padding are lost": lambda *given: of_new_layers(*given, geometry=False),
        "the bias of the second convolution is lost": lambda *given: of_new_layers(*given, bias=False),
        "The number of tensors shared with the layers that were given contains 1": with_a_shared_bias,
        "The bias of the new second contains 1 where": with_a_bias_drawn_anew,
        "The weight of the new first is of shape (2, 3, 3, 3); it should be of shape (4, 3, 3, 3), for first = "
        "Conv2d(3, 6, 3, stride=2, padding=1, bias=False)": those_that_go,
        "changes its inputs in place": in_place,
    },
    right=[of_new_layers, channel_by_channel_in_another_order, by_a_mask],
)

# ------------------------------------------------------------------ repair_sparse_training


def by_the_optimizer(weight, mask, velocity, gradient, steps, learning_rate):
    parameter = nn.Parameter(weight * mask)
    optimizer = torch.optim.SGD([parameter], lr=learning_rate, momentum=0.9)
    optimizer.state[parameter]["momentum_buffer"] = velocity.clone()
    for _ in range(steps):
        parameter.grad = gradient(parameter.detach())
        optimizer.step()
        with torch.no_grad():
            parameter *= mask
    return parameter


def with_velocity_and_gradient_masked(weight, mask, velocity, gradient, steps, learning_rate):
    weight, velocity = mask * weight, mask * velocity
    for _ in range(steps):
        velocity = 0.9 * velocity + mask * gradient(weight)
        weight = weight - learning_rate * velocity
    return weight


def number_by_number(weight, mask, velocity, gradient, steps, learning_rate):
    weight, velocity = torch.where(mask == 1, weight, 0), velocity.clone()
    for _ in range(steps):
        slope = gradient(weight)
        for place in mask.nonzero().tolist():
            row, column = place
            velocity[row, column] = 0.9 * velocity[row, column] + slope[row, column]
            weight[row, column] -= learning_rate * velocity[row, column]
    return weight


def trained(start=True, gradient_mask=None, step_mask=None, end=False, momentum=0.9, fresh=False):
    """A loop that masks where it is told to: `gradient_mask` and `step_mask` are functions of weight and mask."""

    def answer(weight, mask, velocity, gradient, steps, learning_rate):
        w = weight * mask if start else weight.clone()
        v = torch.zeros_like(velocity) if fresh else velocity.clone()
        for _ in range(steps):
            slope = gradient(w)
            v = momentum * v + (slope if gradient_mask is None else slope * gradient_mask(w, mask))
            w = w - learning_rate * v
            w = w if step_mask is None else w * step_mask(w, mask)
        return w * mask if end else w

    return answer


def the_mask(weight, mask):
    return mask


def where_alive(weight, mask):
    return weight.ne(0)


def the_largest(weight, mask):
    places = weight.abs().flatten().topk(int(mask.sum())).indices
    return F.one_hot(places, weight.numel()).sum(0).view_as(weight)


def with_one_gradient(weight, mask, velocity, gradient, steps, learning_rate):
    weight = weight * mask
    slope = gradient(weight)
    for _ in range(steps):
        velocity = 0.9 * velocity + slope
        weight = mask * (weight - learning_rate * velocity)
    return weight


def with_the_callers_weight(weight, mask, velocity, gradient, steps, learning_rate):
    weight *= mask
    return trained(step_mask=the_mask)(weight, mask, velocity, gradient, steps, learning_rate)


def upside_down(weight, mask, *rest):
    return trained(step_mask=the_mask)(weight, 1 - mask, *rest)


REPAIR_SPARSE_TRAINING = Answers(
    wrong={
        "It still does what it did": trained(gradient_mask=where_alive),
        "their velocity is not": trained(gradient_mask=the_mask),
        "nothing holds the zeros any more": trained(),
        "the weights that are gone took part": trained(end=True),
        "a gradient still counts only where the weight is not 0": trained(gradient_mask=where_alive, end=True),
        "a masked gradient does not hold the zeros before it": trained(gradient_mask=the_mask, end=True),
        "a weight that stays and happens to be 0": trained(gradient_mask=where_alive, step_mask=the_mask),
        "the velocity begins at 0": trained(step_mask=the_mask, fresh=True),
        "the mask must hold before the first step": trained(start=False, step_mask=the_mask),
        "the largest weights are chosen anew": trained(step_mask=the_largest),
        "the weight at the beginning, in every step": with_one_gradient,
        "the result contains": trained(step_mask=the_mask, momentum=0.0),
        "for weight of shape (4, 6), mask of shape (4, 6)": upside_down,
        "changes its inputs in place": with_the_callers_weight,
    },
    right=[by_the_optimizer, with_velocity_and_gradient_masked, number_by_number],
)

ANSWERS = {
    "low_rank_factors": LOW_RANK_FACTORS,
    "prune_channel_pair": PRUNE_CHANNEL_PAIR,
    "repair_sparse_training": REPAIR_SPARSE_TRAINING,
}
