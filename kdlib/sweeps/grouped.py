"""Many students in one network: grouped convolutions, a group of channels for each student.

A small network on one core spends more time between its operations than in them. Several networks of one
architecture, laid side by side along the channels, share that time and stay independent: grouped convolutions
and batch norm mix no channels of different groups, the losses are summed, and AdamW works weight by weight. So
each member gets the weights that it would have got alone, up to rounding.

The other way to do so, `torch.func.vmap` over stacked weights, takes 1.4 to 1.6 times as long a step: 8 students 18.6
against 13.4 ms, 2 students 4.9 against 3.1 (one core of an AMD EPYC, float32; `python benchmarks/sweep.py --vmap`).
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.data import ImageSplit
from kdlib.inference import logits_of
from kdlib.losses import soft_target_by_image
from kdlib.training.batches import Batch, Batches
from kdlib.training.loop import Recipe, Step
from kdlib.training.teacher import Teacher

MemberLosses = Callable[[Tensor, Tensor, Tensor], Tensor]


class GroupedNetwork(nn.Module):
    """Networks of one architecture as one: images (batch, members * channels, height, width) to logits
    (batch, members, classes).

    Every convolution, batch norm and linear layer of the architecture is replaced by one that serves all
    members; its own `forward` then works on wide tensors. The weights are those of `members`, which are left
    alone; `hand_back` gives them the trained ones.

    Raises:
        ValueError: the members cannot be laid side by side: they have other weights than those of such layers,
            shared or frozen ones, or their outputs on `images` (batch, channels, height, width) are not the
            same together as alone, because `forward` mixes channels or draws random numbers.
    """

    def __init__(self, members: Sequence[nn.Module], images: Float[Tensor, "batch channels height width"]):
        super().__init__()
        _refuse_other_weights(members[0])
        self.size = len(members)
        self.network = _widened(copy.deepcopy(members[0]), self.size).to(next(members[0].parameters()).dtype)
        self._take(members)
        self._refuse_mixing(members, images)

    def forward(
        self, images: Float[Tensor, "batch wide height width"]
    ) -> Float[Tensor, "batch members classes"]:
        logits = logits_of(self.network(images))
        return logits.view(len(logits), self.size, -1)

    def hand_back(self, members: Sequence[nn.Module]) -> None:
        """Write each member's weights and statistics into it."""
        state = self.network.state_dict()
        for number, member in enumerate(members):
            own = {name: wide.chunk(self.size)[number] if wide.ndim else wide for name, wide in state.items()}
            member.load_state_dict(own)

    def _take(self, members: Sequence[nn.Module]) -> None:
        states = [member.state_dict() for member in members]
        # Without a dimension there is only batch norm's counter of batches, which is the same in all.
        self.network.load_state_dict(
            {
                name: torch.cat([state[name] for state in states]) if tensor.ndim else tensor
                for name, tensor in states[0].items()
            }
        )

    def _refuse_mixing(self, members: Sequence[nn.Module], images: Tensor) -> None:
        """Compare with the members alone, in training mode, each on images of its own."""
        views = [images.roll(number, dims=0) * (1 + number) for number in range(self.size)]
        wide, alone = copy.deepcopy(self).train(), [copy.deepcopy(member).train() for member in members]
        with torch.no_grad():
            expected = torch.stack([logits_of(m(view)) for m, view in zip(alone, views, strict=True)], dim=1)
            try:
                found = wide(torch.cat(views, dim=1))
            except Exception as error:  # whatever a forward of the user's own raises on wide tensors
                raise ValueError(f"{type(members[0]).__name__} cannot be grouped: {error}") from error
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
            raise ValueError(f"{type(members[0]).__name__} cannot be grouped: its members would mix")


class GroupedLinear(nn.Module):
    """A linear layer for each group of features.

    The bias is a row of the matrix, because the sum that is its gradient would otherwise be rounded in another
    order for another number of members.
    """

    def __init__(self, layer: nn.Linear, members: int):
        super().__init__()
        self.members = members
        self.weight = nn.Parameter(torch.empty(members * layer.out_features, layer.in_features))
        self.bias = None if layer.bias is None else nn.Parameter(torch.empty(members * layer.out_features))

    def forward(self, features: Float[Tensor, "batch wide_in"]) -> Float[Tensor, "batch wide_out"]:
        batch = len(features)
        features = features.reshape(batch, self.members, -1).transpose(0, 1)
        weight = self.weight.view(self.members, -1, features.shape[2]).transpose(1, 2)
        if self.bias is not None:
            features = torch.cat([features, features.new_ones(self.members, batch, 1)], dim=2)
            weight = torch.cat([weight, self.bias.view(self.members, 1, -1)], dim=1)
        return torch.bmm(features, weight).transpose(0, 1).reshape(batch, -1)


def _grouped_convolution(layer: nn.Conv2d, members: int) -> nn.Module:
    return nn.Conv2d(
        layer.in_channels * members, layer.out_channels * members, layer.kernel_size, layer.stride,
        layer.padding, layer.dilation, layer.groups * members, layer.bias is not None, layer.padding_mode,
    )  # fmt: skip


def _grouped_norm(layer: nn.BatchNorm2d, members: int) -> nn.Module:
    return nn.BatchNorm2d(
        layer.num_features * members, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )


_GROUPED_FORMS: dict[type, Callable[..., nn.Module]] = {
    nn.Conv2d: _grouped_convolution,
    nn.BatchNorm2d: _grouped_norm,
    nn.Linear: GroupedLinear,
}


def _widened(network: nn.Module, members: int) -> nn.Module:
    """The network with every layer that has weights replaced by its grouped form."""
    if type(network) in _GROUPED_FORMS:
        return _GROUPED_FORMS[type(network)](network, members)
    for name, child in network.named_children():
        setattr(network, name, _widened(child, members))
    return network


def _refuse_other_weights(network: nn.Module) -> None:
    layers = [module for module in network.modules() if type(module) in _GROUPED_FORMS]
    own = sum(len(layer.state_dict()) for layer in layers)
    name = type(network).__name__
    if own != len(network.state_dict()) or len([*network.buffers()]) + len([*network.parameters()]) != own:
        raise ValueError(f"{name} cannot be grouped: it has weights outside plain layers, or shared ones")
    if not all(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"{name} cannot be grouped: some of its weights are frozen")


def distill_together(
    students: Sequence[nn.Module],
    teacher_logits: Float[Tensor, "n classes"],
    split: ImageSplit,
    *,
    temperatures: Sequence[float | int],
    alphas: Sequence[float | int],
    seeds: Sequence[int],
    recipe: Recipe,
) -> list[float]:
    """Train students in place as `kdlib.training.distill` would one by one, each with its own temperature,
    alpha and seed; a seed fixes the order in which its student sees the images.

    Returns each student's mean loss over the last epoch: one that is not finite belongs to a student that
    diverged, which leaves the others as they are.

    Raises:
        ValueError: the students cannot be laid side by side (`GroupedNetwork`); they are as they were then.
    """
    losses = _Losses(temperatures, alphas)
    return fit_together(students, teacher_logits, split, losses=losses, seeds=seeds, recipe=recipe)


def fit_together(
    students: Sequence[nn.Module],
    teacher_logits: Float[Tensor, "n classes"],
    split: ImageSplit,
    *,
    losses: MemberLosses,
    seeds: Sequence[int],
    recipe: Recipe,
) -> list[float]:
    """As `distill_together`, with any losses: called with student logits (batch, members, classes), labels
    (batch, members) and teacher logits (batch, members, classes), they give one loss for each member."""
    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        network = GroupedNetwork(students, split.normalized(slice(8)))
        batches = recipe.batches(split, device, list(seeds))
        objective = _MemberObjective(losses, Teacher(teacher_logits, batches))
        means = _fit(network, batches, objective, recipe)
    network.to(memory_format=torch.contiguous_format)
    network.hand_back(students)
    for student in students:
        student.eval()
    return means.tolist()


def _fit(network: GroupedNetwork, batches: Batches, objective: "_MemberObjective", recipe: Recipe) -> Tensor:
    """The epochs of `kdlib.training.loop` for a group; returns each member's mean loss over the last one."""
    step = Step(network, objective, recipe, batches.device, batches.steps * recipe.epochs)
    network.to(memory_format=torch.channels_last).train()
    for epoch in range(recipe.epochs):
        total = torch.zeros(network.size)
        for batch in batches.epoch(epoch):
            total += step(batch).total.detach() * len(batch.rows)
    return total / batches.images_per_epoch


class _Total(NamedTuple):
    total: Float[Tensor, " members"]


class _MemberObjective:
    """The losses of all members on a batch, their teacher's logits looked up."""

    def __init__(self, losses: MemberLosses, teacher: Teacher):
        self.losses, self.teacher = losses, teacher

    def __call__(self, student_logits: Float[Tensor, "batch members classes"], batch: Batch) -> _Total:
        return _Total(self.losses(student_logits, batch.labels, self.teacher.logits(batch)))


class _Losses:
    """`kdlib.losses.distillation_loss` of every member, with its own temperature and alpha."""

    def __init__(self, temperatures: Sequence[float | int], alphas: Sequence[float | int]):
        self.temperature = torch.tensor(temperatures, dtype=torch.float32)
        self.alpha = torch.tensor(alphas, dtype=torch.float32)

    def __call__(
        self,
        student_logits: Float[Tensor, "batch members classes"],
        labels: Int[Tensor, "batch members"],
        teacher_logits: Float[Tensor, "batch members classes"],
    ) -> Float[Tensor, " members"]:
        task = F.cross_entropy(student_logits.transpose(1, 2), labels, reduction="none").mean(dim=0)
        distill = soft_target_by_image(student_logits, teacher_logits, self.temperature).mean(dim=0)
        return self.alpha * distill + (1 - self.alpha) * task
