"""Several teachers as one."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import checked
from kdlib._checks import logits as logits_rule
from kdlib.inference import Preprocessing, logits_of, preprocessing_of

COMBINATIONS = ("probabilities", "logits")


class CombinedTeacher(nn.Module):
    """Several teachers as one: `combine` makes it."""

    def __init__(self, members: Sequence[nn.Module], by: str):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.by = by
        own = [preprocessing_of(member) is not None for member in self.members]
        if any(own) and not all(own):
            raise ValueError(
                "teachers must all carry a preprocessing of their own, or none of them: give it to the others by "
                "kdlib.teachers.freeze(network, mean=..., std=...)"
            )
        # Members that want their images differently get plain pixels here, and each prepares its own.
        channels = min(len(preprocessing_of(member).mean) for member in self.members) if any(own) else 0
        self.preprocessing = Preprocessing(torch.zeros(channels), torch.ones(channels)) if any(own) else None

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return combined_logits(
            [logits_of(member(self._for(member, images))) for member in self.members], self.by
        )

    def extra_repr(self) -> str:
        """What is computed here besides the members' weights: caches of answers tell combinations apart by it."""
        own = [preprocessing_of(member) for member in self.members]
        return f"by={self.by!r}, preprocessing={[one and one.describe() for one in own]}"

    def _for(self, member: nn.Module, images: Tensor) -> Tensor:
        own = preprocessing_of(member)
        return images if own is None else own(images * 255)


def _listed(name: str, value: Any) -> list:
    if isinstance(value, nn.Module | Tensor | str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of networks or of logits, got {type(value).__name__}")
    listed = list(value)
    _refuse_others(listed, nn.Module | Tensor)
    return listed


def _refuse_others(teachers: Sequence[Any], kinds: Any) -> None:
    for number, teacher in enumerate(teachers):
        if not isinstance(teacher, kinds):
            raise ValueError(
                f"teachers must all be networks, or all be logits, got {type(teacher).__name__} at position {number}"
            )


def _combination(name: str, value: Any) -> str:
    if value not in COMBINATIONS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, COMBINATIONS))}, got {value!r}")
    return value


@checked(teachers=_listed, by=_combination)
def combine(
    teachers: Sequence[nn.Module | Tensor], *, by: str = "probabilities"
) -> nn.Module | Float[Tensor, "n classes"]:
    """Several teachers as one, which every function that takes a teacher takes.

        by="probabilities": log of the mean of softmax(v_k), at T = 1; the temperature then softens that mean
        by="logits":        the mean of v_k

    The mean of probabilities is the usual ensemble (Hinton, Vinyals & Dean 2015, arXiv 1503.02531, name both the
    arithmetic and the geometric mean; the latter is the mean of logits). The sum of several distillation losses has
    the gradient of the mean of the softened probabilities, where all weights are equal.

    Args:
        teachers: at least one network each, or the logits (n, classes) of each on the same images.
        by: "probabilities" or "logits".

    Returns:
        A network, or logits where logits were given. Its members are the networks themselves, in the mode in which
        they are; layers of the k-th are "members.k.LAYER".

    Raises:
        ValueError: no teachers, networks mixed with logits, other numbers of classes, an unknown `by`.
    """
    if not teachers:
        raise ValueError("teachers must hold at least one teacher")
    if all(isinstance(teacher, Tensor) for teacher in teachers):
        for number, values in enumerate(teachers):
            logits_rule(f"teachers[{number}]", values)
        return combined_logits(teachers, by)
    _refuse_others(teachers, nn.Module)
    return CombinedTeacher(teachers, by)


def combined_logits(logits: Sequence[Tensor], by: str) -> Float[Tensor, "n classes"]:
    """The logits of several teachers as one: see `combine`."""
    shapes = {tuple(values.shape) for values in logits}
    if len(shapes) > 1:
        raise ValueError(f"teachers must have logits of one shape, got {sorted(shapes)}")
    if any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"teachers must have logits of shape (n, classes), got {sorted(shapes)}")
    stacked = torch.stack([values.float() for values in logits])
    if by == "logits":
        return stacked.mean(dim=0)
    return stacked.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(stacked))
