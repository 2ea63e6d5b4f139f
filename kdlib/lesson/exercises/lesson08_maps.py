"""Exercise of lesson 08: feature maps compared where the teacher sees something.

The function carries no annotations, because its text is the stub that a learner reads: shapes stand in the docstring.
"""

import torch

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import Complaint, is_unfinished, value_and_gradient

_GIVEN = ("teacher_features", "scores")


def _maps():
    """As many images as channels, rows and columns; other shapes; small scores; an image without any, and none."""
    shapes = [(4, 4, 4, 4), (3, 5, 2, 6), (2, 3, 4, 5), (3, 2, 3, 4), (2, 3, 3, 2)]
    cases = [_case(seed, *shape) for seed, shape in enumerate(shapes)]
    cases[2][2].mul_(0.01)
    cases[3][2][1] = 0
    cases[4][2].zero_()
    return cases


def _case(seed, batch, channels, height, width):
    random = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, batch, channels, height, width, generator=random)
    return student, teacher, torch.rand(batch, height, width, generator=random)


def _for_the_student_alone(function, student, *given):
    """Probe: value, and gradient in the student's features; complains where the teacher or the scores have one."""
    result = value_and_gradient(function, student, *given)
    if is_unfinished(result):
        return result
    reached = [name for number, name in enumerate(_GIVEN) if _reaches(function, student, given, number)]
    if reached:
        raise Complaint(_LEAK.format(" and ".join(reached)))
    return result


def _reaches(function, student, given, number):
    watched = [part.clone().requires_grad_().clone() if i == number else part for i, part in enumerate(given)]
    loss = function(student, *watched)
    return isinstance(loss, torch.Tensor) and loss.requires_grad


_LEAK = "the gradient reaches {}, which are given: .detach() keeps it from there"


# ------------------------------------------------------------------ mistakes


def _ratio(apart, weights, total, channels):
    """apart and weights: (batch, height, width); total: what the weights come to."""
    return (weights * apart).sum() / (channels * total).clamp(min=1e-30)


def _weighted(s, t, w, *, power=1, total=None, channels=None):
    """The solution, but for what it is told."""
    total = w.sum() if total is None else total(w)
    return _ratio((s - t).square().sum(1), w**power, total, channels or s.shape[1])


def _broadcast(s, t, weights, w):
    """The weights as they are broadcast, over the sum of the weights as they should be."""
    return (weights * (s - t).square()).sum() / (s.shape[1] * w.sum()).clamp(min=1e-30)


def _by_image(s, t, w, *, empty):
    apart, channels = (s - t).square().sum(1), s.shape[1]
    sums = channels * w.sum((1, 2))
    return ((w * apart).sum((1, 2)) / (sums.clamp(min=1e-30) if empty else sums)).mean()


def _detached(function):
    return lambda s, t, w: function(s, t.detach(), w.detach())


_MISTAKES = {
    "this is the plain mean over all positions: the scores come in nowhere":
        lambda s, t, w: (s - t).square().mean(),
    "it is divided by the number of positions; divide by the sum of the weights":
        lambda s, t, w: (w * (s - t).square().mean(1)).mean(),
    "the channels are forgotten: below stands channels * the sum of the weights":
        lambda s, t, w: _weighted(s, t, w, channels=1),
    "it is divided by channels * positions * the sum of the weights; a sum over the positions stands above, no mean":
        lambda s, t, w: _weighted(s, t, w) / w.numel(),
    "nothing is divided: below stands channels * the sum of the weights":
        lambda s, t, w: (w * (s - t).square().sum(1)).sum(),
    "the weights come in squared, as where they multiply the features before the difference: they multiply the square":
        lambda s, t, w: _weighted(s, t, w, power=2),
    "the weights come in squared, above and below; w itself is asked for":
        lambda s, t, w: _weighted(s, t, w**2),
    "shapes meet from the right, so that the weights of image 0 go to channel 0 of every image: in scores[:, None] the "
    "channels have an axis":
        lambda s, t, w: _broadcast(s, t, w, w),
    "scores[..., None] meets the rows with the columns: the axis that is missing is that of the channels, "
    "scores[:, None]":
        lambda s, t, w: _broadcast(s, t, w[..., None], w),
    "scores[:, :, None] meets the channels with the rows: the axis that is missing is that of the channels, "
    "scores[:, None]":
        lambda s, t, w: _broadcast(s, t, w[:, :, None], w),
    "rows and columns of the scores are exchanged":
        lambda s, t, w: _weighted(s, t, w.transpose(1, 2)),
    "each image is divided by the sum of its own weights; one sum over the whole batch is asked for":
        lambda s, t, w: _by_image(s, t, w, empty=True),
    "each image is divided by the sum of its own weights, by 0 where it has none; one sum over the whole batch does it":
        lambda s, t, w: _by_image(s, t, w, empty=False),
    "the scores are made to have a largest one of 1 in each image; they are weights as they stand":
        lambda s, t, w: _weighted(s, t, w / w.amax((1, 2), keepdim=True).clamp(min=1e-30)),
    "where all scores are 0 it divides 0 by 0: keep what stands below from 0 with clamp":
        lambda s, t, w: (w * (s - t).square().sum(1)).sum() / (s.shape[1] * w.sum()),
    "what stands below is kept at 1 or above, which makes the loss too small where the scores are: clamp it at a tiny "
    "number":
        lambda s, t, w: (w * (s - t).square().sum(1)).sum() / (s.shape[1] * w.sum()).clamp(min=1),
    "the absolute difference instead of its square":
        lambda s, t, w: _ratio((s - t).abs().sum(1), w, w.sum(), s.shape[1]),
    "the root of the squared distance is taken at each position; the square itself is asked for":
        lambda s, t, w: _ratio((s - t).norm(dim=1), w, w.sum(), s.shape[1]),
    "the loss has no gradient: .item(), .detach() or .numpy() cuts the student off":
        lambda s, t, w: _weighted(s, t, w).detach(),
}  # fmt: skip
_LEAKS = {
    _LEAK.format("teacher_features and scores"): _weighted,
    _LEAK.format("scores"): lambda s, t, w: _weighted(s, t.detach(), w),
    _LEAK.format("teacher_features"): lambda s, t, w: _weighted(s, t, w.detach()),
}


@exercise(
    cases=_maps,
    probe=_for_the_student_alone,
    hints=[
        """Three steps: the squared difference at each position, summed over the channels; its sum over batch and
        positions, weighed; what that is divided by. Write down the shape after each.""",
        """`(student - teacher).square().sum(dim=1)` has the shape of the scores, so that they multiply without any new
        axis. Below stand the channels, `student_features.shape[1]`, times the sum of the same weights.""",
        """`.detach()` for the teacher's features and for the scores; and `(channels * scores.sum()).clamp(min=1e-30)`,
        so that 0 is divided by a tiny number and not by 0.""",
    ],
    mistakes={sentence: _detached(mistaken) for sentence, mistaken in _MISTAKES.items()} | _LEAKS,
)
def weighted_map_loss(student_features, teacher_features, scores):
    """The squared difference of feature maps, weighed by how sure the teacher is that something is there, w = scores:

        sum over batch and positions of w * |s - t|^2 / (channels * sum over batch and positions of w)

    where |s - t|^2 at a position is the sum over the channels. 0, with a gradient of 0, where all scores are 0.

    student_features, teacher_features: (batch, channels, height, width); scores: (batch, height, width), at least 0.
    Returns one number, whose gradient leads to student_features alone.
    """
    # --- your code
    weights = scores.detach()
    apart = (student_features - teacher_features.detach()).square().sum(dim=1)
    total = student_features.shape[1] * weights.sum()
    return (weights * apart).sum() / total.clamp(min=1e-30)
    # --- end
