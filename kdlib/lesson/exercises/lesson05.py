"""Exercises of lesson 05: time models honestly, check an exported one, and choose which one to ship.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings. No exercise looks at a real clock, so a busy machine changes no verdict.
"""

import statistics

import numpy as np
import torch

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits
from kdlib.lesson.exercises._machine import Model, around_the_round, harness, timed
from kdlib.lesson.exercises._observe import is_unfinished

# ------------------------------------------------------------------------------------ an honest clock


@exercise(
    cases=lambda: [([Model(4.0), Model(3.0)], "made up", 3, 10),
                   ([Model(0.2), Model(0.5), Model(0.3)], "made up", 1, 15)],
    probe=timed,
    hints=[
        "Two loops: one whose times nobody sees, one over the rounds, with a loop over the models inside.",
        "Read the clock before and after each call; keep a list of times for every model.",
        "times[i].append(clock() - start), and at the end [statistics.median(mine) for mine in times].",
    ],
    mistakes={
        "the warm-up is timed with the rest: the first calls, which are slow, count":
            lambda m, c, w, r: harness(m, c, w, r, timed_warm_up=w),
        "there is no warm-up":
            lambda m, c, w, r: harness(m, c, 0, r),
        "one model after the other: the machine grew busy in the meantime, and the last model pays for it":
            lambda m, c, w, r: harness(m, c, w, r, in_turn=False),
        "the mean instead of the median: a few slow rounds move it":
            lambda m, c, w, r: harness(m, c, w, r, statistic=statistics.fmean),
        "the fastest round instead of the median: it flatters, and no user sees it":
            lambda m, c, w, r: harness(m, c, w, r, statistic=min),
        "the clock is read around the whole round: every model gets the time of all":
            around_the_round,
    },
)  # fmt: skip
def fair_latencies(models, clock, warm_up, rounds):
    """Time models fairly: call each of them warm_up times without timing it; then, in each of the rounds, time
    one call of every model in turn.

    models: functions of no arguments; clock: a function that gives the milliseconds since some moment.
    Returns a list: the median of each model's times, in ms.
    """
    # --- your code
    for model in models:
        for _ in range(warm_up):
            model()
    times = [[] for _ in models]
    for _ in range(rounds):
        for model, mine in zip(models, times, strict=True):
            start = clock()
            model()
            mine.append(clock() - start)
    return [statistics.median(mine) for mine in times]
    # --- end


# ------------------------------------------------------------------------------------ is it the same model?


def _parity_cases():
    small, large = torch.tensor([[0.5, -0.25], [0.1, 0.4]]), logits(0, 40, 10, scale=100.0)
    one_off, missing, both = large.clone(), small.clone(), small + 1.0
    one_off[3, 4] += 0.002 * large.abs().max()
    missing[1, 0] = both[1, 0] = float("nan")
    mixed = torch.tensor([[5.0, 0.001]])
    return [
        (small + 8e-5, small, 1e-4),
        (large + 0.01, large, 1e-4),
        (one_off, large, 1e-3),
        (one_off, large, 1e-2),
        (small - torch.tensor([0.0, 0.01]), small, 1e-4),
        (missing, small, 1e-4),
        (both, small, 1e-4),
        (mixed + torch.tensor([0.0, 4e-5]), mixed, 1e-4),
    ]


def _yes_or_no(function, *arguments):
    """Probe: the answer as 1 or 0, whatever kind of truth value it is."""
    answer = function(*arguments)
    return answer if is_unfinished(answer) else {"answer to whether they agree": float(bool(answer))}


def _relative(values, expected):
    return (values - expected).abs() / expected.abs().max().clamp(min=1)


@exercise(
    cases=_parity_cases,
    probe=_yes_or_no,
    hints=[
        "Which single logit differs most? Seven digits of float32 say how much that may be, for large ones too.",
        "Divide the largest absolute difference by the largest |expected|, or by 1 where that is smaller.",
        "NaN > tolerance is False, and so is NaN <= tolerance: which of the two do you return?",
    ],
    mistakes={
        "NaN passes: NaN > tolerance is False, so `not difference > tolerance` is True":
            lambda z, e, tolerance: not _relative(z, e).max() > tolerance,
        "NaN is left out of the maximum; a logit that is not a number is no agreement":
            lambda z, e, tolerance: _relative(z, e).nan_to_num(0).max() <= tolerance,
        "an absolute tolerance: logits in the hundreds cannot agree to 1e-4, float32 has seven digits":
            lambda z, e, tolerance: (z - e).abs().max() <= tolerance,
        "relative to logits below 1 too: there the difference itself counts, max(1, ...)":
            lambda z, e, tolerance: (z - e).abs().max() / e.abs().max() <= tolerance,
        "each logit relative to itself: one that is nearly 0 need not agree to seven digits":
            lambda z, e, tolerance: ((z - e).abs() / e.abs()).max() <= tolerance,
        "the mean difference: one wrong logit hides among hundreds of right ones":
            lambda z, e, tolerance: _relative(z, e).mean() <= tolerance,
        "without the absolute value, logits may be too small by any amount":
            lambda z, e, tolerance: (z - e).max() / e.abs().max().clamp(min=1) <= tolerance,
        "the predicted classes are compared: two models can agree on those and differ in every logit":
            lambda z, e, tolerance: (z.argmax(1) == e.argmax(1)).all(),
    },
)  # fmt: skip
def logits_agree(logits, expected, tolerance):
    """Does an exported model compute what the network computes? True where the largest absolute difference,
    divided by max(1, largest |expected|), is at most the tolerance. NaN is no agreement.

    logits, expected: (batch, classes). Returns True or False.
    """
    # --- your code
    scale = max(1.0, expected.abs().max().item())
    difference = (logits - expected).abs().max().item() / scale
    return difference <= tolerance
    # --- end


# ------------------------------------------------------------------------------------ which one to ship


def _models_to_choose_from():
    accuracies = [0.92, 0.89, 0.86, 0.89, 0.91, 0.80, 0.86]
    sizes = [470, 120, 30, 90, 300, 12, 40]
    milliseconds = [2.1, 0.6, 0.3, 0.9, 0.7, 0.4, 0.2]
    budgets = [(400, 2.0), (500, 0.65), (200, 3.0), (120, 0.6), (60, 0.5), (12, 0.4), (1000, 9.0)]
    return [(accuracies, sizes, milliseconds, *most) for most in budgets]


def _fitting(sizes, milliseconds, most_bytes, most_milliseconds):
    return [i for i in range(len(sizes)) if sizes[i] <= most_bytes and milliseconds[i] <= most_milliseconds]


def _pick(accuracies, sizes, milliseconds, most_bytes, most_milliseconds, *, key=None):
    fits = _fitting(sizes, milliseconds, most_bytes, most_milliseconds)
    return max(fits, key=key or (lambda i: (accuracies[i], -sizes[i])))


def _below(accuracies, sizes, milliseconds, most_bytes, most_milliseconds):
    fits = [i for i in range(len(sizes)) if sizes[i] < most_bytes and milliseconds[i] < most_milliseconds]
    return max(fits, key=lambda i: (accuracies[i], -sizes[i]), default=-1)


def _place_among_the_fitting(accuracies, sizes, milliseconds, *most):
    fits = _fitting(sizes, milliseconds, *most)
    return fits.index(_pick(accuracies, sizes, milliseconds, *most))


@exercise(
    cases=_models_to_choose_from,
    hints=[
        "First list the places of the models that fit both budgets; then choose among these places.",
        "Two models may be equally accurate. max(..., key=...) with a pair as the key settles such a tie.",
        "max(fitting, key=lambda i: (accuracies[i], -sizes[i])), where fitting holds places.",
    ],
    mistakes={
        "the time is not looked at; both budgets have to be kept":
            lambda a, s, t, most_bytes, most_time: _pick(a, s, t, most_bytes, float("inf")),
        "the size is not looked at; both budgets have to be kept":
            lambda a, s, t, most_bytes, most_time: _pick(a, s, t, float("inf"), most_time),
        "the smallest that fits; the most accurate one is asked for":
            lambda a, s, t, *most: _pick(a, s, t, *most, key=lambda i: -s[i]),
        "the fastest that fits; the most accurate one is asked for":
            lambda a, s, t, *most: _pick(a, s, t, *most, key=lambda i: -t[i]),
        "of two equally accurate ones the first is taken, not the smaller":
            lambda a, s, t, *most: _pick(a, s, t, *most, key=lambda i: a[i]),
        "of two equally accurate ones the faster is taken, not the smaller":
            lambda a, s, t, *most: _pick(a, s, t, *most, key=lambda i: (a[i], -t[i])),
        "a model that just meets its budget fits: <=, not <":
            _below,
        "this is its place among those that fit; its place among all models is asked for":
            _place_among_the_fitting,
    },
)  # fmt: skip
def pick_model(accuracies, sizes, milliseconds, most_bytes, most_milliseconds):
    """Which model to ship: the place (0 for the first) of the most accurate one with at most most_bytes and at
    most most_milliseconds; of several equally accurate ones, the one with the fewest bytes.

    accuracies, sizes (in bytes), milliseconds: lists with an entry for each model. At least one model fits.
    """
    # --- your code
    fitting = [
        place
        for place in range(len(accuracies))
        if sizes[place] <= most_bytes and milliseconds[place] <= most_milliseconds
    ]
    return max(fitting, key=lambda place: (accuracies[place], -sizes[place]))
    # --- end


# ------------------------------------------------------------------------------------ the front


def _fronts():
    return [
        ([0.92, 0.89, 0.86, 0.88, 0.91, 0.80], [2.1, 0.6, 0.3, 0.9, 2.1, 0.3]),
        ([0.90, 0.90, 0.90, 0.85], [1.0, 1.0, 2.0, 0.5]),
        ([0.7, 0.8, 0.9], [3.0, 2.0, 1.0]),
        ([0.7, 0.8, 0.9, 0.85], [0.5, 1.0, 2.0, 1.5]),
    ]


def _marks(function, accuracies, milliseconds):
    """Probe: the answer as 1 and 0, whether it is a list, an array or a tensor."""
    answer = function(accuracies, milliseconds)
    return answer if is_unfinished(answer) else torch.tensor([float(bool(mark)) for mark in answer])


def _front(accuracies, milliseconds, beats):
    models = [*zip(accuracies, milliseconds, strict=True)]
    return [
        not any(beats(*other, *mine) for place, other in enumerate(models) if place != number)
        for number, mine in enumerate(models)
    ]


def _beats(accuracy, time, my_accuracy, my_time):
    return accuracy >= my_accuracy and time <= my_time and (accuracy, time) != (my_accuracy, my_time)


@exercise(
    cases=_fronts,
    probe=_marks,
    hints=[
        "When would nobody choose a model? When another one is no worse in anything and better in something.",
        "For each model ask any(...) over all models; the front is where the answer is no.",
        "b beats a: b's accuracy >= a's and b's time <= a's and the two pairs are not equal.",
    ],
    mistakes={
        "beaten only by what is better in both: one that is equal in one and better in the other beats it too":
            lambda a, t: _front(a, t, lambda b, u, mine, my_time: b > mine and u < my_time),
        "two equal models beat each other and are both gone; to beat takes being better in something":
            lambda a, t: _front(a, t, lambda b, u, mine, my_time: b >= mine and u <= my_time),
        "the other way round: these are the models that are beaten":
            lambda a, t: [not stays for stays in _front(a, t, _beats)],
        "more milliseconds count as better; they are worse":
            lambda a, t: _front(a, [-one for one in t], _beats),
        "only the most accurate and the fastest; the front has the compromises between them too":
            lambda a, t: [x == max(a) or y == min(t) for x, y in zip(a, t, strict=True)],
        "the ratio of accuracy to time picks one compromise; the front leaves the choice to you":
            lambda a, t: [x / y == max(b / u for b, u in zip(a, t, strict=True))
                          for x, y in zip(a, t, strict=True)],
    },
)  # fmt: skip
def on_the_front(accuracies, milliseconds):
    """The Pareto front: which models no other model beats? One beats another if it is at least as accurate and
    at least as fast, and better in one of the two. Of two equal models neither beats the other.

    accuracies, milliseconds: lists with an entry for each model. Returns a list of True and False.
    """
    # --- your code
    models = list(zip(accuracies, milliseconds, strict=True))
    front = []
    for accuracy, time in models:
        beaten = any(a >= accuracy and t <= time and (a, t) != (accuracy, time) for a, t in models)
        front.append(not beaten)
    return front
    # --- end


# ------------------------------------------------------------------------------------ a published speed-up


def _published_cases():
    moment = np.array(
        [9.0, 4.0, 1.0, 1.1, 0.9, 1.0, 2.5, 2.7, 1.2, 1.0, 0.95]
    )  # what a round's timings share
    wobble = np.array([1.3, 1.1, 1.0, 0.98, 1.05, 1.02, 0.97, 1.01, 1.0, 1.04, 0.99])
    return [
        ((32.0 * moment).tolist(), (10.0 * moment * wobble).tolist(), 1, 4, 2),
        ((50.0 * moment[::-1] * wobble).tolist(), (8.0 * moment[::-1]).tolist(), 32, 1, 3),
        ((6.0 * moment[1:]).tolist(), (4.0 * moment[1:] * wobble[1:]).tolist(), 8, 8, 1),
    ]


def _published(slow_batches, fast_batches, slow_batch_size, fast_batch_size, warm_up):
    # --- your code
    slow = np.array(slow_batches)
    fast = np.array(fast_batches)
    return slow.mean() / fast.mean()
    # --- end


def _speedup(slow, fast, slow_size, fast_size, warm_up, *, average=np.median, paired=True):
    slow, fast = np.array(slow)[warm_up:] / slow_size, np.array(fast)[warm_up:] / fast_size
    return average(slow / fast) if paired else average(slow) / average(fast)


@exercise(
    cases=_published_cases,
    start=_published,
    hints=[
        "Three things are wrong: which rounds count, what one number stands for, and how rounds are put together.",
        "Drop the first warm_up rounds; divide each time by its batch size, to get milliseconds an image.",
        "np.median(slow / fast): the ratio of each round first, its median over the rounds last.",
    ],
    mistakes={
        "the cold rounds at the beginning still count":
            lambda s, f, n, m, w: _speedup(s, f, n, m, 0),
        "still milliseconds a batch; the two batches need not hold as many images":
            lambda s, f, n, m, w: _speedup(s, f, 1, 1, w),
        "the times are multiplied by the batch size; an image takes a share of its batch's time":
            lambda s, f, n, m, w: _speedup(s, f, 1 / n, 1 / m, w),
        "the ratio of the medians: pair by round first, so that what slows a round meets both":
            lambda s, f, n, m, w: _speedup(s, f, n, m, w, paired=False),
        "the ratio of the means: pair by round first, so that what slows a round meets both":
            lambda s, f, n, m, w: _speedup(s, f, n, m, w, paired=False, average=np.mean),
        "the mean of the ratios: one bad round moves it; take their median":
            lambda s, f, n, m, w: _speedup(s, f, n, m, w, average=np.mean),
        "the quotient is turned round: a model that is twice as fast has a speed-up of 2":
            lambda s, f, n, m, w: 1 / _speedup(s, f, n, m, w),
    },
)  # fmt: skip
def repair_speedup(slow_batches, fast_batches, slow_batch_size, fast_batch_size, warm_up):
    """Repair a published speed-up. How many times as fast as the slow model is the fast one, per image: the
    median, over the rounds after the first warm_up ones, of the ratio of the two times of a round.

    slow_batches, fast_batches: milliseconds of one batch, round by round; times at the same place were taken
    one right after the other. The two models were given batches of different sizes.
    """
    # --- your code
    slow = np.array(slow_batches)[warm_up:] / slow_batch_size
    fast = np.array(fast_batches)[warm_up:] / fast_batch_size
    return np.median(slow / fast)
    # --- end
