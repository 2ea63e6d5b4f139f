"""Answers to the exercises of lesson 05."""

import math

import numpy as np
import torch

from answers import Answers
from answers.lesson05_quantiser import QUANTISE_PER_CHANNEL

# ------------------------------------------------------------------ fair_latencies


def milliseconds(clock, model):
    start = clock()
    model()
    return clock() - start


def warmed(models, warm_up):
    for model in models:
        for _ in range(warm_up):
            model()


def in_turn(statistic, *, timed_warm_up=False, warm=True):
    """An answer that takes the models in turn; `statistic` of the times of each."""

    def answer(models, clock, warm_up, rounds):
        if warm and not timed_warm_up:
            warmed(models, warm_up)
        table = [[milliseconds(clock, model) for model in models] for _ in range(rounds + warm_up * timed_warm_up)]
        return [statistic(column) for column in zip(*table, strict=True)]

    return answer


def middle(times):
    ordered = sorted(times)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def the_models_backwards(models, clock, warm_up, rounds):
    for number in range(warm_up + rounds):
        times = {place: milliseconds(clock, model) for place, model in reversed([*enumerate(models)])}
        if number == 0:
            kept = {place: [] for place in times}
        if number >= warm_up:
            for place, time in times.items():
                kept[place].append(time)
    return torch.tensor([np.median(kept[place]) for place in range(len(models))])


def one_after_the_other(models, clock, warm_up, rounds):
    medians = []
    for model in models:
        warmed([model], warm_up)
        medians.append(middle([milliseconds(clock, model) for _ in range(rounds)]))
    return medians


def round_by_round(models, clock, warm_up, rounds):
    warmed(models, warm_up)
    times = []
    for _ in range(rounds):
        start = clock()
        for model in models:
            model()
        times.append(clock() - start)
    return [middle(times)] * len(models)


def clock_read_once(models, clock, warm_up, rounds):
    warmed(models, warm_up)
    start, times = clock(), [[] for _ in models]
    for _ in range(rounds):
        for place, model in enumerate(models):
            model()
            times[place].append(clock() - start)
    return [middle(mine) for mine in times]


FAIR_LATENCIES = Answers(
    wrong={
        "there is no warm-up": in_turn(middle, warm=False),
        "the warm-up is timed": in_turn(middle, timed_warm_up=True),
        "the mean instead of the median": in_turn(lambda times: sum(times) / len(times)),
        "it flatters": in_turn(min),
        "the last model pays for it": one_after_the_other,
        "the time of all": round_by_round,
        "list of medians contains": clock_read_once,
        "list of medians is of shape": lambda m, c, w, r: in_turn(middle)(m, c, w, r)[:1],
        "number of calls of the models contains": lambda m, c, w, r: [
            in_turn(middle)(m, c, w, r), [model() for model in m]][0],
        "is not callable": lambda m, c, w, r: in_turn(middle)([model() for model in m], c, w, r),
    },
    right=[in_turn(middle), in_turn(np.median), the_models_backwards],
)  # fmt: skip

# ------------------------------------------------------------------ pick_model


def by_a_loop(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
    best, chosen = None, None
    for place, accuracy in enumerate(accuracies):
        fits = sizes[place] <= most_bytes and milliseconds[place] <= most_milliseconds
        if fits and (best is None or accuracy > accuracies[best]):
            best = place
    for place, size in enumerate(sizes):
        fits = size <= most_bytes and milliseconds[place] <= most_milliseconds
        if fits and alike[place][best] and (chosen is None or size < sizes[chosen]):
            chosen = place
    return chosen


def by_masks(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
    fits = (np.array(sizes) <= most_bytes) & (np.array(milliseconds) <= most_milliseconds)
    best = np.argmax(np.where(fits, accuracies, -np.inf))
    return np.argmin(np.where(fits & np.array(alike)[best], sizes, np.inf))


def by_sorting(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
    models = [*zip(accuracies, sizes, milliseconds, range(len(sizes)), strict=True)]
    fitting = sorted(one for one in models if one[1] <= most_bytes and one[2] <= most_milliseconds)
    return sorted((size, place) for _, size, _, place in fitting if alike[fitting[-1][3]][place])[0][1]


def picked(cost, *, fitting=True, around=None):
    """The least costly place; of those that fit, and of those alike `around`, a function of places and arguments."""

    def answer(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
        arrays = dict(accuracy=np.array(accuracies), size=np.array(sizes), time=np.array(milliseconds))
        everything = range(len(sizes))
        fits = [i for i in everything if sizes[i] <= most_bytes and milliseconds[i] <= most_milliseconds]
        places = fits if fitting else [*everything]
        if around:
            middle = around(fits, arrays)
            places = [i for i in places if alike[middle][i]]
        return min(places, key=lambda i: cost(arrays, i))

    return answer


def best_of(fits, arrays):
    return max(fits, key=lambda i: arrays["accuracy"][i])


def size(arrays, place):
    return arrays["size"][place]


def step_by_step(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
    """Goes to a smaller model that is not told apart from the present one while there is any."""
    fits = [i for i in range(len(sizes)) if sizes[i] <= most_bytes and milliseconds[i] <= most_milliseconds]
    here = max(fits, key=lambda i: accuracies[i])
    while smaller := [i for i in fits if alike[here][i] and sizes[i] < sizes[here]]:
        here = min(smaller, key=lambda i: sizes[i])
    return here


def reachable(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
    fits = (np.array(sizes) <= most_bytes) & (np.array(milliseconds) <= most_milliseconds)
    steps = np.linalg.matrix_power((np.array(alike) & fits).astype(int), len(sizes))
    return by_masks(accuracies, sizes, milliseconds, steps > 0, most_bytes, most_milliseconds)


def only_below(accuracies, sizes, milliseconds, alike, most_bytes, most_milliseconds):
    fits = [i for i in range(len(sizes)) if sizes[i] < most_bytes and milliseconds[i] < most_milliseconds]
    best = sorted(fits, key=lambda i: -accuracies[i])
    return min([i for i in fits if alike[best[0]][i]], key=lambda i: sizes[i]) if fits else max(fits)


def the_best_only_where_it_is_alone(accuracies, sizes, milliseconds, alike, *most):
    nobody_is_alike_itself = np.array(alike) & ~np.eye(len(sizes), dtype=bool)
    found = by_a_loop(accuracies, sizes, milliseconds, nobody_is_alike_itself, *most)
    return by_a_loop(accuracies, sizes, milliseconds, np.eye(len(sizes)), *most) if found is None else found


def within_a_point(accuracies, sizes, milliseconds, alike, *most):
    near = [[abs(one - other) < 0.011 for other in accuracies] for one in accuracies]
    return by_a_loop(accuracies, sizes, milliseconds, near, *most)


PICK_MODEL = Answers(
    wrong={
        "the best that fits is meant": picked(size, around=lambda fits, arrays: arrays["accuracy"].argmax()),
        "but does not fit": picked(size, fitting=False, around=best_of),
        "a smaller one that is not told apart": picked(lambda arrays, i: -arrays["accuracy"][i]),
        "however much worse": picked(size),
        "compared with the smallest": picked(
            lambda arrays, i: -arrays["accuracy"][i],
            around=lambda fits, arrays: min(fits, key=lambda i: arrays["size"][i])),
        "a chain": reachable,
        "step by step": step_by_step,
        "the best that fits is left out": the_best_only_where_it_is_alone,
        "the time is not looked at": lambda a, s, t, alike, size, time: by_a_loop(a, s, t, alike, size, math.inf),
        "the size is not looked at": lambda a, s, t, alike, size, time: by_a_loop(a, s, t, alike, math.inf, time),
        "the fastest": picked(lambda arrays, i: arrays["time"][i], around=best_of),
        "the least accurate": picked(lambda arrays, i: arrays["accuracy"][i], around=best_of),
        "<=, not <": only_below,
        "its place among those that fit": lambda a, s, t, alike, size, time: [
            i for i in range(len(s)) if s[i] <= size and t[i] <= time].index(by_a_loop(a, s, t, alike, size, time)),
        "counted from 1": lambda *arguments: by_a_loop(*arguments) + 1,
        "these are its bytes": lambda a, s, *rest: s[by_a_loop(a, s, *rest)],
        "the result contains": within_a_point,
    },
    right=[by_a_loop, by_masks, by_sorting],
)  # fmt: skip

# ------------------------------------------------------------------ repair_speedup


def round_by_round_ratio(slow, fast, slow_size, fast_size, warm_up):
    ratios = sorted((a / slow_size) / (b / fast_size) for a, b in [*zip(slow, fast, strict=True)][warm_up:])
    return middle(ratios)


def by_quantile(slow, fast, slow_size, fast_size, warm_up):
    slow, fast = (torch.tensor(times)[warm_up:] for times in (slow, fast))
    return (slow / fast).quantile(0.5) * (fast_size / slow_size)


def speedup(together, *, skip=None, size=lambda times, count: times / count):
    """`together` of the times an image, of the slow and of the fast model."""

    def answer(slow, fast, slow_size, fast_size, warm_up):
        first = warm_up if skip is None else skip
        pair = (size(np.array(times[first:]), count) for times, count in ((slow, slow_size), (fast, fast_size)))
        return together(*pair)

    return answer


def ratio(slow, fast):
    return np.median(slow / fast)


REPAIR_SPEEDUP = Answers(
    wrong={
        "it still does what it did": speedup(lambda a, b: a.sum() / b.sum(), skip=0, size=lambda times, count: times),
        "cold rounds at the beginning": speedup(ratio, skip=0),
        "still milliseconds a batch": speedup(ratio, size=lambda times, count: times),
        "multiplied by the batch size": speedup(ratio, size=lambda times, count: times * count),
        "the ratio of the medians": speedup(lambda a, b: np.median(a) / np.median(b)),
        "the ratio of the means": speedup(lambda a, b: a.mean() / b.mean()),
        "the mean of the ratios": speedup(lambda a, b: (a / b).mean()),
        "turned round": speedup(lambda a, b: np.median(b / a)),
        "it should be a single number": speedup(lambda a, b: a / b),
        "ValueError": lambda slow, fast, n, m, w: round_by_round_ratio(slow[w:], fast, n, m, 0),
    },
    right=[round_by_round_ratio, by_quantile],
)

ANSWERS = {
    "fair_latencies": FAIR_LATENCIES,
    "pick_model": PICK_MODEL,
    "quantise_per_channel": QUANTISE_PER_CHANNEL,
    "repair_speedup": REPAIR_SPEEDUP,
}
