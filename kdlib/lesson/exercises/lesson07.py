"""Exercises of lesson 07: an annealing to repair, and a number that tells an augmentation's worth from the teacher.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import math
from numbers import Real

import numpy as np
import torch

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._observe import Complaint, is_unfinished

# ------------------------------------------------------------------------------------ an annealing to repair


def _annealings():
    # Down, up, by whole numbers, not at all, and a training of a single epoch.
    return [(10.0, 1.0, 5), (1.0, 8.0, 8), (9, 3, 4), (3.0, 3.0, 3), (4.0, 2.0, 1)]


def _temperatures(function, start, end, epochs):
    """Probe: the temperatures, whether they come in a list, a tuple, an array or a tensor."""
    result = function(start, end, epochs)
    if is_unfinished(result):
        return result
    if not hasattr(result, "__getitem__") and not isinstance(result, Real) or isinstance(result, str | dict):
        raise Complaint(f"{_with_article(type(result).__name__)} comes back; return a list of numbers")
    parts = result.tolist() if isinstance(result, torch.Tensor | np.ndarray) else result
    if np.iterable(parts) and (kinds := {type(part).__name__ for part in parts if not _is_number(part)}):
        raise Complaint(f"the list holds {_with_article(min(kinds))} where a number should be")
    return {"list of temperatures": np.array(parts, dtype=float)}


def _is_number(part):
    return isinstance(part, Real) or isinstance(part, torch.Tensor | np.ndarray) and part.ndim == 0


def _with_article(kind):
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _published(start, end, epochs):
    # --- your code
    class Annealing:
        def __init__(self, start, end, epochs):
            self.start, self.epochs = start, epochs

        def temperature(self, epoch):
            progress = epoch / self.epochs
            return self.start + (self.end - self.start) * progress

    annealing = Annealing(start, end, epochs)
    return [annealing.temperature(epoch) for epoch in range(epochs)]
    # --- end


def _progress(epochs):
    return [epoch / max(epochs - 1, 1) for epoch in range(epochs)]


def _line(start, end, epochs):
    return [start + (end - start) * p for p in _progress(epochs)]


def _short_line(start, end, epochs):
    return [start + (end - start) * epoch / epochs for epoch in range(epochs)]


@exercise(
    cases=_annealings,
    probe=_temperatures,
    start=_published,
    hints=[
        """Run it. Which attribute does the error name, and who should have set it? Once that is mended, look at the
        last temperature of the list.""",
        """Progress must be 0 in the first epoch and 1 in the last one. How many steps lead from the first of five
        epochs to the last? And how many are there in a training of a single epoch?""",
        """`self.end = end`, and `progress = epoch / max(self.epochs - 1, 1)`: one step less than there are epochs, and
        no division by 0.""",
    ],
    mistakes={
        "it runs now, but the last epoch does not reach `end`: from the first of 5 epochs to the last are 4 steps":
            _short_line,
        "the last epoch reaches `end` now, but the first one is a step away from `start`":
            lambda s, e, n: [s + (e - s) * (epoch + 1) / n for epoch in range(n)],
        "with a single epoch it divides by 0; that epoch gets `start`":
            lambda s, e, n: [s + (e - s) * epoch / (n - 1) for epoch in range(n)],
        "with a single epoch it gives `end`; that epoch gets `start`":
            lambda s, e, n: _line(s, e, n) if n > 1 else [e],
        "max(end, ...) holds a falling temperature, but a rising one is at `end` from the first epoch on":
            lambda s, e, n: [max(e, t) for t in _line(s, e, n)],
        "max(end, ...) puts a rising temperature at `end` from the start, and a falling one still does not reach it":
            lambda s, e, n: [max(e, t) for t in _short_line(s, e, n)],
        "min(end, ...) holds a rising temperature, but a falling one is at `end` from the first epoch on":
            lambda s, e, n: [min(e, t) for t in _line(s, e, n)],
        "these are epochs + 1 temperatures: with one for each epoch the last one is missing":
            lambda s, e, n: [s + (e - s) * epoch / n for epoch in range(n + 1)],
        "the last temperature is put in by hand: the step before it is twice as long as the others":
            lambda s, e, n: [*_short_line(s, e, n)[:-1], e],
        "progress is a whole number, 0 until the last epoch: divide with / and not with //":
            lambda s, e, n: [s + (e - s) * int(p) for p in _progress(n)],
        "it runs now, but the temperature stays at `start`: `end` comes in nowhere":
            lambda s, e, n: [s] * n,
        "it runs now, but it ends at 1 whatever `end` is":
            lambda s, e, n: _line(s, 1.0, n),
        "a temperature that is to rise falls: the difference has a sign, which abs takes away":
            lambda s, e, n: [s - abs(e - s) * p for p in _progress(n)],
        "start and end are exchanged":
            lambda s, e, n: _line(e, s, n) if n > 1 else [s],
        "each temperature is the one before times a factor; a straight line is asked for, with steps of equal length":
            lambda s, e, n: [s * (e / s) ** p for p in _progress(n)],
        "it goes along a cosine; a straight line is asked for, with steps of equal length":
            lambda s, e, n: [s + (e - s) * (1 - math.cos(math.pi * p)) / 2 for p in _progress(n)],
    },
)  # fmt: skip
def repair_annealing(start, end, epochs):
    """Repair: the temperature of each epoch of a training, in a list. It moves along a straight line, up or down, from
    `start`, which the first epoch has, to `end`, which the last one has. A single epoch has `start`.

    start, end: temperatures; epochs: how many, at least 1. Returns a list of as many temperatures.
    """
    # --- your code
    class Annealing:
        def __init__(self, start, end, epochs):
            self.start, self.end, self.epochs = start, end, epochs

        def temperature(self, epoch):
            progress = epoch / max(self.epochs - 1, 1)
            return self.start + (self.end - self.start) * progress

    annealing = Annealing(start, end, epochs)
    return [annealing.temperature(epoch) for epoch in range(epochs)]
    # --- end


# ------------------------------------------------------------------------------------ a number from the teacher alone


def _answers_on_views():
    # With and without rows that are left over; one has as many groups as classes.
    sizes = [(13, 5, 3), (16, 4, 4), (23, 6, 4), (11, 3, 2)]
    return [(torch.softmax(logits(seed, n, classes), -1), group) for seed, (n, classes, group) in enumerate(sizes)]


def _groups(rows, group):
    """(groups, rows of a group, classes)"""
    return rows[: len(rows) // group * group].unflatten(0, (-1, group))


def _means(rows, group):
    return _groups(rows, group).mean(1)


@exercise(
    cases=_answers_on_views,
    hints=[
        """Three steps, each along an axis of its own: a mean in each group, a standard deviation over the groups, a
        mean over the classes. Write down the shape after each.""",
        """`probabilities[: groups * group]` drops what is left over, where groups = len(probabilities) // group. Give
        it three axes, (groups, group, classes), with reshape.""",
        "`probabilities[: groups * group].reshape(groups, group, -1).mean(dim=1).std(dim=0).mean()`.",
    ],
    mistakes={
        "this is the standard deviation over single views; it is the means of groups whose spread is asked for":
            lambda p, group: p.std(0).mean(),
        "this is the standard deviation over the views of a group; the spread of the groups' means is asked for":
            lambda p, group: _groups(p, group).std(1).mean(),
        "this is the standard deviation over the classes: how sharp the mean answers are, not how they vary":
            lambda p, group: _means(p, group).std(1).mean(),
        "groups and classes are thrown together: the standard deviation is that over the groups, for each class":
            lambda p, group: _means(p, group).std(),
        "n is below, not n - 1: what numpy does unless told ddof=1":
            lambda p, group: _means(p, group).std(0, correction=0).mean(),
        "this is the variance; its root is the standard deviation":
            lambda p, group: _means(p, group).var(0).mean(),
        "the root is taken of the mean variance; take it for each class, and the mean last":
            lambda p, group: _means(p, group).var(0).mean().sqrt(),
        "a number for each class comes back; take their mean":
            lambda p, group: _means(p, group).std(0),
        "summed over the classes; take the mean":
            lambda p, group: _means(p, group).std(0).sum(),
        "this is the class with the largest standard deviation; take the mean over the classes":
            lambda p, group: _means(p, group).std(0).max(),
        "sums of groups instead of means":
            lambda p, group: (group * _means(p, group)).std(0).mean(),
        "the rows left over make a group of their own, a smaller one: drop them":
            lambda p, group: torch.stack([part.mean(0) for part in p.split(group)]).std(0).mean(),
        "it stops where rows are left over, which cannot be reshaped: drop them first":
            lambda p, group: p.reshape(-1, group, p.shape[1]).mean(1).std(0).mean(),
        "the rows that are dropped stand at the beginning; drop those at the end":
            lambda p, group: _means(p[len(p) % group :], group).std(0).mean(),
        "the groups are interleaved: rows of a group stand one after the other, so reshape to (groups, group, classes)":
            lambda p, group: p[: len(p) // group * group].unflatten(0, (group, -1)).mean(0).std(0).mean(),
        "`group` is taken for the number of groups; it is the number of rows in one":
            lambda p, group: _means(p, len(p) // group).std(0).mean(),
        "softmax is taken once more; these are probabilities already":
            lambda p, group: _means(p.softmax(1), group).std(0).mean(),
        "only the largest probability of each row counts; every class does":
            lambda p, group: _means(p.amax(1, keepdim=True), group).std(0).mean(),
    },
)  # fmt: skip
def teacher_spread(probabilities, group):
    """The standard deviation of the teacher's mean probability (Wang, Lohit, Jones & Fu 2022): how much the teacher's
    mean answer to a group of views depends on which views were drawn.

    probabilities: (n, classes), the teacher's softmax on n views in the order in which they were drawn. Rows 0 to
    group - 1 are the first group, the next `group` rows the second, and so on; rows that are left over are dropped.
    The mean over the rows of each group, the standard deviation of these means over the groups (with n - 1 below) for
    each class, and the mean over the classes. There are two groups at least. Returns one number.
    """
    # --- your code
    groups = len(probabilities) // group
    means = probabilities[: groups * group].reshape(groups, group, -1).mean(dim=1)
    return means.std(dim=0).mean()
    # --- end
