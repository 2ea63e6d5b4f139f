"""Exercise of lesson 10: what a search makes of runs that differ by luck, judged by how often each run wins.

Which runs an answer draws is its own affair: from what it returns the judge reads which run won, and compares how often
each of them does with how often it would.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import itertools
import math

import numpy as np
import torch

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import ChangedInput, Complaint, is_unfinished

DRAWS, FEW_DRAWS = 600, 100  # the few where the draw is of all runs or of one, which shows soon
AT_FIRST = 20  # of these draws, some are looked at more closely
# For a right answer the surprise is of about as much as there are runs: beyond this it is so once in many millions.
SURPRISE = 50.0

OF_CHOSEN = "the winner is judged by the score that it was chosen by: its judged_by is asked for"
BY_JUDGED = "the winner is chosen by judged_by: the drawn run with the highest chosen_by wins"
EXCHANGED = "both scores are exchanged: chosen_by says which run wins, and judged_by how good it is"
MEAN_OF_CHOSEN = "the mean of chosen_by is taken off; the mean of judged_by is asked for"
MEAN_OF_DRAWN = "the mean of the drawn runs is taken off; the mean over all runs is asked for"
MEDIAN = "the median is taken off; the mean is asked for"
NOTHING_OFF = "the winner's score comes back as it is: take off the mean of judged_by over all runs"
NEGATIVE = "the sign is wrong: the winner's score less the mean, not the mean less the winner's score"
LOWEST = "the lowest chosen_by wins; the highest is the search's best"
WITH_REPLACEMENT = "a run is drawn more than once: size different runs are asked for"
FIRST_RUNS = "it is always the first runs that are searched: draw them, with random"
IGNORES_RANDOM = (
    "the draw does not come from random: the same state of it gives the same runs, and it moves on"
)
BEST_OF_ALL = "the best of all runs wins every time: only the drawn ones are searched"
PLACE = "the winner's place among the drawn runs is taken for its place among all: which run is it?"
ANY_WINS = "all runs win equally often, whatever their chosen_by: the drawn run with the highest one wins"
UNEQUAL = "some runs win too often: each set of different runs is to be drawn as often as any other"
NO_NUMBER = "one number is asked for"
NO_RUN = "what comes back is no run's judged_by less the mean of judged_by over all runs"


def _drawn_with(count):
    return f"the runs win as if {count} of them were drawn, which is not size"


def _searches():
    """(scores, scores, size): where some of the runs are drawn, all, and one."""
    cases = [_scores(seed, runs, size) for seed, runs, size in ((4, 7, 3), (1, 3, 3), (2, 6, 1))]
    return [(*case, "a numpy.random.Generator") for case in cases]


def _scores(seed, runs, size):
    """The best by chosen_by is the last run, and the best by judged_by has a middling chosen_by."""
    luck = np.random.default_rng(seed)
    chosen = 0.62 + 0.02 * luck.standard_normal(runs)
    _exchange(chosen, chosen.argmax(), runs - 1)
    judged = 0.58 + 0.02 * luck.standard_normal(runs)
    _exchange(judged, judged.argmax(), np.argsort(chosen)[runs // 2])
    return torch.from_numpy(chosen), torch.from_numpy(judged), size


def _exchange(scores, one, other):
    scores[[one, other]] = scores[[other, one]]


# ------------------------------------------------------------------ what the numbers say


def _who_wins(function, chosen_by, judged_by, size, _random):
    """Probe: complains of the first thing that the numbers of many searches say against it."""
    chosen, judged = chosen_by.numpy().copy(), judged_by.numpy().copy()
    random = np.random.default_rng(10 * len(chosen) + size)

    def search(generator):
        return function(chosen, judged, size, generator)

    gains, moves = [], True
    draws = DRAWS if 1 < size < len(chosen) else FEW_DRAWS
    for number in range(draws):
        before = random.bit_generator.state if number < AT_FIRST else None
        gain = search(random)
        if is_unfinished(gain):
            return gain
        gains.append(_as_number(gain))
        moves = moves and random.bit_generator.state != before
        if number + 1 == AT_FIRST:
            _look_at_given((chosen, chosen_by), (judged, judged_by))
            _look_at_draw(gains, moves or size == len(chosen), search, chosen, judged, size)
            _look_at_values(gains, chosen, judged, size)
    _look_at_given((chosen, chosen_by), (judged, judged_by))
    _look_at_winners(_runs_of(gains, judged - judged.mean()), chosen, judged, size)
    return {"number of searches that were looked at": draws}


def _look_at_given(*pairs):
    if not all(np.array_equal(given, scores.numpy()) for given, scores in pairs):
        raise ChangedInput


def _as_number(gain):
    if isinstance(gain, (float, int, np.number)) or (hasattr(gain, "shape") and gain.shape == ()):
        return float(gain)
    raise Complaint(NO_NUMBER)


def _runs_of(gains, of_runs):
    """The number of the run that each gain is of; None where not all are of one."""
    distances = np.abs(np.asarray(gains)[:, None] - of_runs)
    return distances.argmin(axis=1) if (distances.min(axis=1) < 1e-6).all() else None


def _look_at_draw(gains, moves, search, chosen, judged, size):
    twice = [[_as_number(search(np.random.default_rng(seed))) for seed in range(AT_FIRST)] for _ in range(2)]
    if moves and twice[0] == twice[1]:
        return
    if _runs_of(gains, judged[[chosen[:size].argmax()]] - judged.mean()) is not None:
        raise Complaint(FIRST_RUNS)
    raise Complaint(IGNORES_RANDOM)


def _look_at_values(gains, chosen, judged, size):
    """Complains where a gain is no run's judged_by less the mean, and says what it is."""
    if _runs_of(gains, judged - judged.mean()) is not None:
        return
    values = {
        NOTHING_OFF: judged,
        MEAN_OF_CHOSEN: judged - chosen.mean(),
        NEGATIVE: judged.mean() - judged,
        MEDIAN: judged - np.median(judged),
        OF_CHOSEN: np.concatenate([chosen - judged.mean(), chosen]),
        EXCHANGED: chosen - chosen.mean(),
        MEAN_OF_DRAWN: _less_the_mean_of_drawn(judged, size),
    }
    for fault, of_runs in values.items():
        if _runs_of(gains, of_runs) is not None:
            raise Complaint(fault)
    raise Complaint(NO_RUN)


def _less_the_mean_of_drawn(judged, size):
    """Of each set of so many runs, each run's score less the mean of the set."""
    sets = judged[np.array([*itertools.combinations(range(len(judged)), size)])]
    return (sets - sets.mean(axis=1, keepdims=True)).flatten()


def _look_at_winners(winners, chosen, judged, size):
    """Complains where the runs do not win as often as they would, and says how else they do."""
    if winners is None:
        raise Complaint(NO_RUN)
    runs = len(chosen)
    by_chosen, by_judged, by_lowest = (_wins(winners, score) for score in (chosen, judged, -chosen))
    expected = _law(runs, size)
    if _surprise(by_chosen, expected) < SURPRISE:
        return
    if size < runs and (winners == chosen.argmax()).all():
        raise Complaint(BEST_OF_ALL)
    if size < runs and (winners < size).all():  # the last run, which is the best, would have won before long
        raise Complaint(PLACE)
    ranks = np.arange(runs + 1) / runs
    others = [
        (BY_JUDGED, by_judged, expected),
        (LOWEST, by_lowest, expected),
        (WITH_REPLACEMENT, by_chosen, np.diff(ranks**size)),
        (ANY_WINS, by_chosen, _law(runs, 1)),
        *((_drawn_with(other), by_chosen, _law(runs, other)) for other in {*range(2, runs + 1)} - {size}),
    ]
    fault, wins, law = min(others, key=lambda other: _surprise(*other[1:]))
    raise Complaint(fault if _surprise(wins, law) < SURPRISE else UNEQUAL)


def _wins(winners, score):
    """How often the run of each rank has won, from the lowest score to the highest."""
    return np.bincount(winners, minlength=len(score))[np.argsort(score)]


def _law(runs, size):
    """The probability that the run of each rank wins: it is drawn, and all others of the draw rank below it."""
    return np.array([math.comb(rank, size - 1) for rank in range(runs)]) / math.comb(runs, size)


def _surprise(wins, law):
    """Twice the logarithm of how much likelier the wins are under the shares that were seen than under the law."""
    seen = wins > 0
    if (law[seen] == 0).any():
        return math.inf
    return 2 * float((wins[seen] * np.log(wins[seen] / wins.sum() / law[seen])).sum())


# ------------------------------------------------------------------ mistakes


def _search(
    *,
    draw=lambda random, runs, size: random.choice(runs, size, replace=False),
    win=lambda drawn, chosen, judged: drawn[chosen[drawn].argmax()],
    gain=lambda best, drawn, chosen, judged: judged[best] - judged.mean(),
):
    """The solution, but for what it is told."""

    def search(chosen_by, judged_by, size, random):
        drawn = draw(random, len(chosen_by), size)
        return gain(win(drawn, chosen_by, judged_by), drawn, chosen_by, judged_by)

    return search


def _returns(gain):
    return _search(gain=gain)


def _both_exchanged(chosen_by, judged_by, size, random):
    return gain_of_search(judged_by, chosen_by, size, random)


def _some_neighbours(random, runs, size):
    """Runs that stand side by side."""
    first = random.integers(runs - size + 1)
    return np.arange(first, first + size)


@exercise(
    cases=_searches,
    probe=_who_wins,
    hints=[
        """One score chooses, the other one judges. Which of the two says who wins, and which is read off the winner?
        And what would you expect of a run that nobody has chosen?""",
        """`random.choice(len(chosen_by), size, replace=False)` draws the numbers of different runs. `argmax` over their
        scores gives a place among the drawn ones: which run is that?""",
        """With `drawn` as above, `best = drawn[chosen_by[drawn].argmax()]` is the number of the winner; the gain is
        `judged_by[best] - judged_by.mean()`.""",
    ],
    mistakes={
        OF_CHOSEN: _returns(lambda best, drawn, chosen, judged: chosen[best] - judged.mean()),
        BY_JUDGED: _search(win=lambda drawn, chosen, judged: drawn[judged[drawn].argmax()]),
        EXCHANGED: _both_exchanged,
        MEAN_OF_CHOSEN: _returns(lambda best, drawn, chosen, judged: judged[best] - chosen.mean()),
        MEAN_OF_DRAWN: _returns(lambda best, drawn, chosen, judged: judged[best] - judged[drawn].mean()),
        MEDIAN: _returns(lambda best, drawn, chosen, judged: judged[best] - np.median(judged)),
        NOTHING_OFF: _returns(lambda best, drawn, chosen, judged: judged[best]),
        NEGATIVE: _returns(lambda best, drawn, chosen, judged: judged.mean() - judged[best]),
        LOWEST: _search(win=lambda drawn, chosen, judged: drawn[chosen[drawn].argmin()]),
        WITH_REPLACEMENT: _search(draw=lambda random, runs, size: random.choice(runs, size)),
        FIRST_RUNS: _search(draw=lambda random, runs, size: np.arange(size)),
        IGNORES_RANDOM: _search(draw=lambda random, runs, size: np.random.default_rng(0).permutation(runs)[:size]),
        BEST_OF_ALL: _search(win=lambda drawn, chosen, judged: chosen.argmax()),
        PLACE: _search(win=lambda drawn, chosen, judged: chosen[drawn].argmax()),
        ANY_WINS: _search(win=lambda drawn, chosen, judged: drawn[0]),
        UNEQUAL: _search(draw=_some_neighbours),
        NO_NUMBER: _returns(lambda best, drawn, chosen, judged: judged[[best]] - judged.mean()),
        NO_RUN: _returns(lambda best, drawn, chosen, judged: judged[best] / judged.mean() - 1),
    },
)  # fmt: skip
def gain_of_search(chosen_by, judged_by, size, random):
    """What a search makes of luck. Runs that differ by nothing but luck are finished and have been scored twice, say on
    validation and on test. A search of `size` of them takes the best by one score: how good is it by the other?

    chosen_by, judged_by: NumPy arrays of one score a run, the runs in the same order; random: a numpy.random.Generator.
    Draw `size` different runs with random, each set of runs being as likely as any other; the winner is the drawn run
    whose chosen_by is highest. Returns one number: the winner's judged_by less the mean of judged_by over ALL runs.
    """
    # --- your code
    drawn = random.choice(len(chosen_by), size, replace=False)
    best = drawn[chosen_by[drawn].argmax()]
    return judged_by[best] - judged_by.mean()
    # --- end
