"""Exercises of lesson 04: what features carry, and how to compare them.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import value_and_gradient


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


# ------------------------------------------------------------------------------------ a regressor


def _through(function, student_channels, teacher_channels, teacher_size):
    """Probe: what becomes of a batch of student features, and how many weights that takes."""
    torch.manual_seed(0)
    regressor = function(student_channels, teacher_channels, teacher_size)
    if regressor is None or regressor is ...:
        return regressor
    output = regressor(_features(0, 3, student_channels, 8, 8))
    return {
        "output's shape": torch.tensor(output.shape),
        "number of weights": sum(parameter.numel() for parameter in regressor.parameters()),
        "answer to whether a tenth of the outputs is negative": float((output < 0).float().mean() > 0.1),
    }


def _regressor(students, teachers, size, *, kernel=1, pool=True, relu=False):
    layers = [torch.nn.Conv2d(students, teachers, kernel, padding=kernel // 2)]
    layers += [torch.nn.AdaptiveAvgPool2d(size)] if pool else []
    return torch.nn.Sequential(*layers, *([torch.nn.ReLU()] if relu else []))


@exercise(
    cases=lambda: [(4, 9, 4), (3, 5, 2), (6, 4, 8)],
    probe=_through,
    hints=[
        "Two things differ: the number of channels and the size of the map. Which layer changes which?",
        "A 1x1 convolution changes channels; torch.nn.AdaptiveAvgPool2d(teacher_size) changes the size.",
        "torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(...), torch.nn.Conv2d(..., kernel_size=1))",
    ],
    mistakes={
        "the channels fit, the size of the map does not":
            lambda s, t, size: _regressor(s, t, size, pool=False),
        "a 3x3 convolution fits too, with nine times the weights of the 1x1 that is asked for":
            lambda s, t, size: _regressor(s, t, size, kernel=3),
        "student and teacher are interchanged: the student's features go in":
            lambda s, t, size: _regressor(t, s, size),
        "a ReLU at the end: the regressor can then not reach a teacher's negative features":
            lambda s, t, size: _regressor(s, t, size, relu=True),
        "the size fits, the number of channels does not":
            lambda s, t, size: torch.nn.AdaptiveAvgPool2d(size),
    },
)  # fmt: skip
def fitting_regressor(student_channels, teacher_channels, teacher_size):
    """A module that carries student features to the teacher's shape: a 1x1 convolution with a bias for the
    channels, average pooling for the size, and nothing behind them.

    It is called with (batch, student_channels, height, width) and
    returns (batch, teacher_channels, teacher_size, teacher_size).
    """
    # --- your code
    return torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(teacher_size),
        torch.nn.Conv2d(student_channels, teacher_channels, kernel_size=1),
    )
    # --- end


# ------------------------------------------------------------------------------------ Gram matrices


def _pairs():
    return [(_features(3, 4, 6), _features(4, 4, 9)), (_features(5, 3, 2, 3, 3), _features(6, 3, 5, 2, 2))]


def _gram(features, *, normalize=True):
    rows = features.flatten(1)
    gram = rows @ rows.T
    return F.normalize(gram, dim=1) if normalize else gram


@exercise(
    cases=_pairs,
    probe=value_and_gradient,
    hints=[
        "Flatten each image's features to a row. Which product of the rows does not know how long they are?",
        "rows @ rows.T is (batch, batch) for any number of features: the similarity of each pair of images.",
        "Normalise each row of both matrices (F.normalize(gram, dim=1)), subtract, square, take the mean.",
    ],
    mistakes={
        "the Gram matrices are not normalised: the layer with the larger activations dominates":
            lambda s, t: (_gram(s, normalize=False) - _gram(t, normalize=False)).square().mean(),
        "the features are normalised, not the rows of the Gram matrix":
            lambda s, t: F.mse_loss(_gram(F.normalize(s.flatten(1), dim=1), normalize=False),
                                    _gram(F.normalize(t.flatten(1), dim=1), normalize=False)),
        "the sum over all pairs instead of their mean":
            lambda s, t: (_gram(s) - _gram(t)).square().sum(),
        "the absolute difference instead of the square":
            lambda s, t: (_gram(s) - _gram(t)).abs().mean(),
        "F.normalize(gram, 1) divides by the L1 norm: its second argument is p, not dim":
            lambda s, t: (F.normalize(_gram(s, normalize=False), 1)
                          - F.normalize(_gram(t, normalize=False), 1)).square().mean(),
    },
)  # fmt: skip
def gram_difference(student_features, teacher_features):
    """Compare two layers of different width without a regressor: the mean squared difference between their
    (batch, batch) Gram matrices, each row of a Gram matrix divided by its L2 norm.

    student_features, teacher_features: (batch, ...), sizes beyond the batch may differ. Returns a scalar.
    """
    # --- your code
    student, teacher = student_features.flatten(1), teacher_features.flatten(1)
    student_gram = F.normalize(student @ student.T, dim=1)
    teacher_gram = F.normalize(teacher @ teacher.T, dim=1)
    return (student_gram - teacher_gram).square().mean()
    # --- end


# ------------------------------------------------------------------------------------ which layers


def _networks():
    shallow = [14, 7, 4]
    return [(shallow, [28, 14, 7]), ([28, 14, 14, 7], [28, 28, 14, 7, 7]), ([16, 8], [32, 16, 16, 8, 4])]


def _paired(students, teachers, *, last=True, order=1):
    pairs = []
    for size in sorted(set(students) & set(teachers), reverse=True):
        rows = [[i for i, other in enumerate(sizes) if other == size] for sizes in (students, teachers)]
        pairs.append([found[-1 if last else 0] for found in rows][::order])
    return torch.tensor(pairs)


@exercise(
    cases=_networks,
    hints=[
        "Layers that see the image at the same resolution can be compared position by position.",
        "For each size that both networks have, take the last layer of that size in each of them.",
        "last = {size: position for position, size in enumerate(sizes)} keeps the last position of a size.",
    ],
    mistakes={
        "the first layer of each size: the last one has done all that the network does at that size":
            lambda s, t: _paired(s, t, last=False),
        "each pair is (teacher, student); the student comes first":
            lambda s, t: _paired(s, t, order=-1),
        "paired by their number: a student's second layer need not have the size of a teacher's second":
            lambda s, t: torch.tensor([[i, i] for i in range(min(len(s), len(t)))]),
        "from deep to shallow; from shallow to deep is asked for":
            lambda s, t: _paired(s, t).flip(0),
    },
)  # fmt: skip
def layer_pairs(student_sizes, teacher_sizes):
    """Which layers to compare: for each map size that both networks have, the last layer of that size in each.

    student_sizes, teacher_sizes: the map size after every layer, never growing. Returns a tensor (pairs, 2)
    of positions (student layer, teacher layer), from shallow to deep.
    """
    # --- your code
    student = {size: position for position, size in enumerate(student_sizes)}
    teacher = {size: position for position, size in enumerate(teacher_sizes)}
    return torch.tensor([[student[size], teacher[size]] for size in student if size in teacher])
    # --- end


# ------------------------------------------------------------------------------------ a real bug


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
        normalize(_gram(features, normalize=False)) for features in (student, teacher)
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
    """Repair: from a public library, where this similarity-preserving loss was many times too small for years.
    Each row of a Gram matrix is to have L2 norm 1.

    student_features, teacher_features: (batch, ...). Returns a scalar.
    """
    # --- your code
    student, teacher = student_features.flatten(1), teacher_features.flatten(1)
    student_gram = F.normalize(student @ student.T, dim=1)
    teacher_gram = F.normalize(teacher @ teacher.T, dim=1)
    return (student_gram - teacher_gram).square().sum() / len(student) ** 2
    # --- end
