"""Exercises of lesson 05: time models honestly, check an exported one, and choose which one to ship.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings. No exercise looks at a real clock, so a busy machine changes no verdict.
"""

import statistics

import numpy as np

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._machine import Model, around_the_round, harness, timed

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


# ------------------------------------------------------------------------------------ which one to ship


def _models_to_choose_from():
    """Seven models, all but the smallest linked by pairs that are not told apart; and budgets for them.

    How near two accuracies are decides nothing: 0 and 5 are told apart, 1 and 3 are not.
    """
    accuracies = [0.92, 0.89, 0.86, 0.91, 0.80, 0.915, 0.90]
    sizes = [470, 120, 30, 300, 12, 150, 90]
    milliseconds = [0.68, 0.6, 0.62, 0.7, 2.5, 2.2, 0.65]
    pairs = {(0, 3), (3, 5), (3, 6), (1, 3), (1, 6), (1, 2)}
    places = range(len(sizes))
    alike = [[i == j or (i, j) in pairs or (j, i) in pairs for j in places] for i in places]
    budgets = [(1000, 9.0), (400, 2.0), (120, 0.6), (400, 9.0), (35, 3.0), (12, 2.5), (120, 0.65)]
    return [(accuracies, sizes, milliseconds, alike, *most) for most in budgets]


def _fitting(sizes, milliseconds, most_bytes, most_milliseconds):
    return [i for i in range(len(sizes)) if sizes[i] <= most_bytes and milliseconds[i] <= most_milliseconds]


def _pick(accuracies, sizes, milliseconds, alike, *most, searched=None, allowed=None, cost=None):
    """The solution, which can be told to make mistakes.

    searched: where the best is looked for; allowed: which may be chosen; cost: of which the least is chosen.
    """
    fits = _fitting(sizes, milliseconds, *most)
    best = max(searched or fits, key=accuracies.__getitem__)
    return min((i for i in allowed or fits if alike[best][i]), key=(cost or sizes).__getitem__)


def _best(accuracies, sizes, milliseconds, alike, *most):
    return max(_fitting(sizes, milliseconds, *most), key=accuracies.__getitem__)


def _smallest(accuracies, sizes, milliseconds, alike, *most):
    return min(_fitting(sizes, milliseconds, *most), key=sizes.__getitem__)


def _below(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
    fits = [i for i in range(len(sizes)) if sizes[i] < most_bytes and milliseconds[i] < most_milliseconds]
    best = max(fits, key=accuracies.__getitem__)
    return min((i for i in fits if alike[best][i]), key=sizes.__getitem__)


def _like_the_smallest(accuracies, sizes, milliseconds, alike, *most):
    smallest = _smallest(accuracies, sizes, milliseconds, alike, *most)
    like_it = [i for i in _fitting(sizes, milliseconds, *most) if alike[smallest][i]]
    return max(like_it, key=accuracies.__getitem__)


def _by_a_chain(accuracies, sizes, milliseconds, alike, *most):
    fits = _fitting(sizes, milliseconds, *most)
    chain = {_best(accuracies, sizes, milliseconds, alike, *most)}
    for _ in fits:
        chain |= {i for i in fits for link in chain if alike[link][i]}
    return min(chain, key=sizes.__getitem__)


def _by_steps(accuracies, sizes, milliseconds, alike, *most):
    fits, here = _fitting(sizes, milliseconds, *most), _best(accuracies, sizes, milliseconds, alike, *most)
    while (there := min((i for i in fits if alike[here][i]), key=sizes.__getitem__)) != here:
        here = there
    return here


def _without_the_best(accuracies, sizes, milliseconds, alike, *most):
    best = _best(accuracies, sizes, milliseconds, alike, *most)
    others = [i for i in _fitting(sizes, milliseconds, *most) if alike[best][i] and i != best]
    return min(others, key=sizes.__getitem__, default=best)


@exercise(
    cases=_models_to_choose_from,
    hints=[
        "Three steps, each of which chooses among places: what fits? which of these is the best? what may replace it?",
        "alike[best] has an entry for every model, those that do not fit too; the best is alike itself.",
        """max(fitting, key=lambda place: accuracies[place]), where fitting is a list of places; then the places in
        fitting for which alike[best][place] is True, and min over these in the same way.""",
    ],
    mistakes={
        "compared with the most accurate model of all, which need not fit; the best that fits is meant":
            lambda a, s, t, same, *most: _pick(a, s, t, same, *most, searched=range(len(a))),
        "this one is not told apart from the best, but does not fit; choose among those that do":
            lambda a, s, t, same, *most: _pick(a, s, t, same, *most, allowed=range(len(a))),
        "the most accurate that fits; a smaller one that is not told apart from it does as well":
            _best,
        "the smallest that fits, however much worse it is; it must not be told apart from the best that fits":
            _smallest,
        "compared with the smallest; compare each model with the most accurate one that fits":
            _like_the_smallest,
        "a chain: this one is not told apart from one that is not told apart from the best, but from the best it is":
            _by_a_chain,
        "step by step to a smaller one, each of which is compared with the last; compare all of them with the best":
            _by_steps,
        "the best that fits is left out; where it is the smallest of those alike, it is the one to ship":
            _without_the_best,
        "the time is not looked at; both budgets have to be kept":
            lambda a, s, t, same, most_bytes, most_time: _pick(a, s, t, same, most_bytes, float("inf")),
        "the size is not looked at; both budgets have to be kept":
            lambda a, s, t, same, most_bytes, most_time: _pick(a, s, t, same, float("inf"), most_time),
        "the fastest of those that are not told apart from the best; the one with the fewest bytes is asked for":
            lambda a, s, t, same, *most: _pick(a, s, t, same, *most, cost=t),
        "the least accurate of those that are not told apart from the best; it need not have the fewest bytes":
            lambda a, s, t, same, *most: _pick(a, s, t, same, *most, cost=a),
        "a model that just meets its budget fits: <=, not <":
            _below,
        "this is its place among those that fit; its place among all models is asked for":
            lambda a, s, t, same, *most: _fitting(s, t, *most).index(_pick(a, s, t, same, *most)),
        "the places are counted from 1; the first has the place 0":
            lambda a, s, t, same, *most: 1 + _pick(a, s, t, same, *most),
        "these are its bytes; its place is asked for":
            lambda a, s, t, same, *most: s[_pick(a, s, t, same, *most)],
    },
)  # fmt: skip
def pick_model(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
    """Which model to ship: the place (0 for the first) of the smallest one that is not told apart from the best. Both
    are among the models that fit, those with at most most_bytes and at most most_milliseconds; the best is the most
    accurate of them, and may itself be the one to ship.

    accuracies, sizes (in bytes), milliseconds: lists with an entry for each model, no two accuracies or sizes equal.
    alike[i][j] is True where i and j are not told apart (always where i is j). At least one model fits.
    """
    # --- your code
    fitting = [
        place
        for place in range(len(accuracies))
        if sizes[place] <= most_bytes and milliseconds[place] <= most_milliseconds
    ]
    best = max(fitting, key=lambda place: accuracies[place])
    like_the_best = [place for place in fitting if alike[best][place]]
    return min(like_the_best, key=lambda place: sizes[place])
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
    """Repair a published speed-up: for an image, how many times as fast is the fast model, in a typical round?

    slow_batches, fast_batches: milliseconds of one batch, round by round; times at the same place were taken one right
    after the other, and what slows a round meets both. The first warm_up rounds are cold. The two models were given
    batches of different sizes.
    """
    # --- your code
    slow = np.array(slow_batches)[warm_up:] / slow_batch_size
    fast = np.array(fast_batches)[warm_up:] / fast_batch_size
    return np.median(slow / fast)
    # --- end
