"""Exercises of lesson 04 about the losses: a layer's attention, a hint and its regressor, a similarity to repair.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import torch
import torch.nn.functional as F
from torch import nn

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import ChangedInput, is_unfinished, value_and_gradient


def _features(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------ attention


def _maps():
    return [(_features(0, 3, 4, 5, 5),), (_features(1, 2, 1, 3, 6),), (10 * _features(2, 1, 7, 2, 2),)]


def _attention(f, *, power=2, norm=True, dim=1):
    rows = f.abs().pow(power).sum(dim).flatten(1)
    return rows / rows.norm(dim=1, keepdim=True) if norm else rows


@exercise(
    cases=_maps,
    hints=[
        "Where is the layer active? Square the features, then put the channels of each position together.",
        "After the sum over the channels, axis 1, flatten each image's map to a row.",
        "Divide each row by its L2 norm: F.normalize(rows, dim=1), with dim by name.",
    ],
    mistakes={
        "the maps are not normalised: a layer with large activations would count for more":
            lambda f: _attention(f, norm=False),
        "the absolute value instead of the square":
            lambda f: _attention(f, power=1),
        "the features are summed before they are squared: positive and negative ones cancel":
            lambda f: F.normalize(f.sum(1).square().flatten(1), dim=1),
        "divided by the sum of the map, as F.normalize(rows, 1) does too: its second argument is p, not dim":
            lambda f: (rows := _attention(f, norm=False)) / rows.sum(1, keepdim=True),
        "normalised over the whole batch: each image has a norm of its own":
            lambda f: (rows := _attention(f, norm=False)) / rows.norm(),
    },
)  # fmt: skip
def attention_rows(features):
    """Attention maps of a layer: the sum over the channels of the squared features, one row an image, each
    row divided by its L2 norm.

    features: (batch, channels, height, width). Returns (batch, height * width).
    """
    # --- your code
    rows = features.square().sum(dim=1).flatten(1)
    return F.normalize(rows, dim=1)
    # --- end


# ------------------------------------------------------------------------------------ a hint


class NoModule(Exception):
    """Raised by the probe for a hint that is no module."""


def _hint_in_use(build, student_channels, teacher_channels):
    """Probe: what an optimizer gets of the hint; its loss and gradients where all its weights are 0.1.

    So it does not matter how the weights were drawn, what they are called, or in what order they stand.
    """
    hint = build(student_channels, teacher_channels)
    if is_unfinished(hint):
        return hint
    if not isinstance(hint, nn.Module):
        raise NoModule(f"it returns a {type(hint).__name__}, where a module is asked for")
    weights = [parameter for parameter in hint.parameters() if parameter.requires_grad]
    for parameter in hint.parameters():
        nn.init.constant_(parameter, 0.1)
    maps = [_features(7, 3, student_channels, 5, 4), _features(8, 3, teacher_channels, 5, 4)]
    leaves = [part.requires_grad_() for part in maps]
    seen = [part.clone() for part in leaves]
    loss = hint(*seen)
    if is_unfinished(loss):
        return loss
    if not all(map(torch.equal, seen, leaves)):
        raise ChangedInput
    count = {"number of weights that are trained": sum(weight.numel() for weight in weights)}
    return {**count, **_loss_and_gradients(loss, leaves, weights)} if weights else count


def _loss_and_gradients(loss, maps, weights):
    leaves = [*maps, *weights]
    attached = isinstance(loss, torch.Tensor) and loss.requires_grad
    found = torch.autograd.grad(loss.sum(), leaves, allow_unused=True) if attached else [None] * len(leaves)
    pairs = zip(leaves, found, strict=True)
    student, teacher, *of_weights = (torch.zeros_like(leaf) if g is None else g for leaf, g in pairs)
    return {
        "loss": loss,
        "gradient in the student's maps": student,
        "gradient in the teacher's maps": teacher,
        "length of the gradient in the regressor's weights": torch.cat([g.flatten() for g in of_weights]).norm(),
    }


class _Hint(nn.Module):
    def __init__(self, regressor, loss, *, detached=True):
        super().__init__()
        self.regressor, self.loss, self.detached = regressor, loss, detached

    def forward(self, student_maps, teacher_maps):
        return self.loss(self.regressor, student_maps, teacher_maps.detach() if self.detached else teacher_maps)


class _NewInEveryCall(nn.Module):
    def forward(self, student_maps, teacher_maps):
        regressor = nn.Conv2d(student_maps.shape[1], teacher_maps.shape[1], 1)
        return F.mse_loss(regressor(student_maps), teacher_maps.detach())


def _hinted(compare=F.mse_loss, *, detached=True, behind=None, **convolution):
    """A right hint but for its comparison, the gradient in the teacher, what stands behind its convolution, or that."""

    def build(students, teachers):
        layers = [nn.Conv2d(students, teachers, **{"kernel_size": 1, **convolution})]
        regressor = nn.Sequential(*layers, *([behind] if behind else []))
        return _Hint(regressor, lambda regressor, s, t: compare(regressor(s), t), detached=detached)

    return build


@exercise(
    cases=lambda: [(4, 9), (6, 3)],
    probe=_hint_in_use,
    hints=[
        """What has weights is made once, in `__init__`, and kept as an attribute: only so does the optimizer find it in
        `hint.parameters()`. What happens to each batch stands in `forward`.""",
        """`nn.Conv2d(student_channels, teacher_channels, kernel_size=1)` carries the student's maps to the teacher's
        channels. The loss is a mean of squares; `teacher_maps.detach()` gets no gradient.""",
        """In `__init__`: `self.regressor = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)`. In `forward`:
        `F.mse_loss(self.regressor(student_maps), teacher_maps.detach())`.""",
    ],
    mistakes={
        "it returns no module: an object of a class made from nn.Module, whose weights an optimizer can be given":
            lambda s, t: lambda student, teacher: None,
        "it has no weights that are trained: a regressor made in forward is a new one in every call; make it once, "
        "in __init__, and keep it as an attribute":
            lambda s, t: _NewInEveryCall(),
        "the gradient reaches the teacher: its maps are the target, so detach() them":
            _hinted(detached=False),
        "no gradient reaches the student: its maps must not be detached":
            lambda s, t: _Hint(nn.Conv2d(s, t, 1), lambda r, a, b: F.mse_loss(r(a.detach()), b)),
        "the loss has no gradient: .item(), .detach() or torch.no_grad() cuts off the student and the regressor":
            _hinted(lambda a, b: F.mse_loss(a, b).detach()),
        "the teacher's maps go through the regressor; the student is to be carried to the teacher, not the other way":
            lambda s, t: _Hint(nn.Conv2d(t, s, 1), lambda r, a, b: F.mse_loss(r(b), a)),
        "a 3x3 convolution has nine times the weights of the 1x1 that is asked for":
            _hinted(kernel_size=3, padding=1),
        "the convolution has no bias: the teacher's maps may have another mean than the student's":
            _hinted(bias=False),
        "a ReLU behind the regressor: it can then not reach a teacher's negative features":
            _hinted(behind=nn.ReLU()),
        "the absolute error instead of the squared one":
            _hinted(F.l1_loss),
        "the sum of all squares; their mean is asked for":
            _hinted(lambda a, b: (a - b).square().sum()),
        "the sum for each image, averaged over the batch: divide by the channels and the positions too":
            _hinted(lambda a, b: (a - b).square().sum() / len(a)),
        "the sum over the channels, averaged over images and positions: divide by the channels too":
            _hinted(lambda a, b: (a - b).square().sum(1).mean()),
        "half of it: the mean is asked for without a factor 1/2":
            _hinted(lambda a, b: (a - b).square().mean() / 2),
        "the root of the mean: the mean of the squares itself is asked for":
            _hinted(lambda a, b: (a - b).square().mean().sqrt()),
        "the mean of all numbers is taken before the difference: each number has its own target":
            _hinted(lambda a, b: (a.mean() - b.mean()).square()),
    },
)  # fmt: skip
def hint_with_regressor(student_channels, teacher_channels):
    """A hint: a module with a regressor, a 1x1 convolution with a bias from the student's to the teacher's channels.

    Called with student_maps and teacher_maps, each (batch, its channels, height, width), it returns the mean of
    (regressor(student_maps) - teacher_maps)^2 over all numbers. No gradient goes to the teacher.
    """

    class Hint(nn.Module):
        def __init__(self):
            super().__init__()
            # --- your code
            self.regressor = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)
            # --- end

        def forward(self, student_maps, teacher_maps):
            # --- your code
            return F.mse_loss(self.regressor(student_maps), teacher_maps.detach())
            # --- end

    return Hint()


# ------------------------------------------------------------------------------------ a real bug


def _pairs():
    return [(_features(3, 4, 6), _features(4, 4, 9)), (_features(5, 3, 2, 3, 3), _features(6, 3, 5, 2, 2))]


def _gram(features):
    rows = features.flatten(1)
    return rows @ rows.T


def _by_position(student_features, teacher_features):
    # --- your code
    student, teacher = student_features.flatten(1), teacher_features.flatten(1)
    student_gram = F.normalize(student @ student.T, 1)
    teacher_gram = F.normalize(teacher @ teacher.T, 1)
    return (student_gram - teacher_gram).square().sum() / len(student) ** 2
    # --- end


def _unit_rows(gram):
    return F.normalize(gram, dim=1)


def _similarity(student, teacher, *, normalize=_unit_rows, divisor=None):
    student_gram, teacher_gram = (
        normalize(_gram(features)) for features in (student, teacher)
    )
    return (student_gram - teacher_gram).square().sum() / (divisor or len(student) ** 2)


@exercise(
    cases=_pairs,
    probe=value_and_gradient,
    start=_by_position,
    hints=[
        "What does the second argument of F.normalize mean? Print F.normalize(matrix, 1).norm(dim=1).",
        "It is p, the kind of norm. Rows shall have an L2 norm of one.",
        "F.normalize(student @ student.T, dim=1): name the argument.",
    ],
    mistakes={
        "no row is divided by anything now":
            lambda s, t: _similarity(s, t, normalize=torch.Tensor.clone),
        "the whole matrix is divided by its norm; each row has a norm of its own":
            lambda s, t: _similarity(s, t, normalize=lambda gram: gram / gram.norm()),
        "the norm is right; but the division by the squared batch got lost":
            lambda s, t: _similarity(s, t, divisor=1),
        "the norm is right; but the division is by the batch, not by its square":
            lambda s, t: _similarity(s, t, divisor=len(s)),
    },
)  # fmt: skip
def repair_similarity(student_features, teacher_features):
    """Repair: from a public library, where this similarity-preserving loss was many times too small for years. Meant
    is the mean squared difference of the two (batch, batch) Gram matrices, in each of which every row has length 1.

    student_features, teacher_features: (batch, ...). Returns a scalar.
    """
    # --- your code
    student, teacher = student_features.flatten(1), teacher_features.flatten(1)
    student_gram = F.normalize(student @ student.T, dim=1)
    teacher_gram = F.normalize(teacher @ teacher.T, dim=1)
    return (student_gram - teacher_gram).square().sum() / len(student) ** 2
    # --- end
