"""Answers to the search of lesson 10: what is made of runs that differ by luck."""

import random as pythons
import statistics

import numpy as np

from answers import Answers

# ------------------------------------------------------------------ right


def by_permutation(chosen_by, judged_by, size, random):
    order = random.permutation(len(chosen_by))[:size]
    winner = max(order, key=lambda run: chosen_by[run])
    return float(judged_by[winner]) - statistics.fmean(judged_by.tolist())


def by_sorting_numbers(chosen_by, judged_by, size, random):
    """The runs with the smallest random numbers; the others cannot win."""
    drawn = np.zeros(len(chosen_by), dtype=bool)
    drawn[np.argsort(random.random(len(chosen_by)))[:size]] = True
    return np.subtract(judged_by, judged_by.mean())[np.where(drawn, chosen_by, -np.inf).argmax()]


def until_there_are_enough(chosen_by, judged_by, size, random):
    drawn = set()
    while len(drawn) < size:
        drawn.add(int(random.integers(len(chosen_by))))
    pairs = [(chosen_by[run], judged_by[run]) for run in sorted(drawn)]
    return max(pairs)[1] - np.average(judged_by)


def with_pythons_sample(chosen_by, judged_by, size, random):
    drawn = pythons.Random(int(random.integers(2**62))).sample(range(len(chosen_by)), k=size)
    chosen, judged = chosen_by[drawn], judged_by[drawn]
    return judged[np.argmax(chosen)] - judged_by.sum() / len(judged_by)


def both_scores_are_drawn(chosen_by, judged_by, size, random):
    pairs = random.choice(np.stack([chosen_by, judged_by], axis=1), size, replace=False, shuffle=False)
    return np.array(pairs[pairs[:, 0].argmax(), 1] - judged_by.mean())


# ------------------------------------------------------------------ wrong


def drawn_by(random, chosen_by, size):
    return random.permutation(len(chosen_by))[:size]


def returns(gain):
    """gain(the winner, the drawn, chosen_by, judged_by)"""

    def search(chosen_by, judged_by, size, random):
        drawn = drawn_by(random, chosen_by, size)
        return gain(max(drawn, key=chosen_by.__getitem__), drawn, chosen_by, judged_by)

    return search


def draws(draw):
    """draw(runs, size, random)"""

    def search(chosen_by, judged_by, size, random):
        winner = max(draw(len(chosen_by), size, random), key=chosen_by.__getitem__)
        return judged_by[winner] - judged_by.mean()

    return search


def highest_by_the_judge(chosen_by, judged_by, size, random):
    return judged_by[drawn_by(random, chosen_by, size)].max() - judged_by.mean()


def highest_by_the_choice(chosen_by, judged_by, size, random):
    return chosen_by[drawn_by(random, chosen_by, size)].max() - judged_by.mean()


def lowest_wins(chosen_by, judged_by, size, random):
    drawn = drawn_by(random, chosen_by, size)
    return judged_by[drawn[np.argsort(chosen_by[drawn])[0]]] - judged_by.mean()


def place_among_the_drawn(chosen_by, judged_by, size, random):
    chosen = random.permutation(chosen_by)[:size]
    return judged_by[chosen.argmax()] - judged_by.mean()


def drawn_apart(chosen_by, judged_by, size, random):
    """Both scores are drawn, but not of the same runs."""
    chosen = random.choice(chosen_by, size, replace=False)
    return random.choice(judged_by, size, replace=False)[chosen.argmax()] - judged_by.mean()


def shuffled_in_place(chosen_by, judged_by, size, random):
    random.shuffle(chosen_by)
    return judged_by[chosen_by[:size].argmax()] - judged_by.mean()


def of_numpys_own(chosen_by, judged_by, size, random):
    drawn = np.random.permutation(len(chosen_by))[:size]  # noqa: NPY002 - that is the mistake
    return judged_by[drawn[chosen_by[drawn].argmax()]] - judged_by.mean()


def begun_anew(chosen_by, judged_by, size, random):
    return by_permutation(chosen_by, judged_by, size, np.random.default_rng(7))


def besides_random(chosen_by, judged_by, size, random):
    random.random()
    return of_numpys_own(chosen_by, judged_by, size, random)


def neighbours(runs, size, random):
    first = int(random.integers(runs - size + 1))
    return range(first, first + size)


GAIN_OF_SEARCH = Answers(
    wrong={
        "the winner is chosen by judged_by": highest_by_the_judge,
        "the winner is judged by the score that it was chosen by": highest_by_the_choice,
        "both scores are exchanged": lambda chosen, judged, size, random: by_permutation(judged, chosen, size, random),
        "the mean of chosen_by is taken off": returns(
            lambda winner, drawn, chosen, judged: judged[winner] - chosen.mean()),
        "the mean of the drawn runs is taken off": returns(
            lambda winner, drawn, chosen, judged: judged[winner] - judged[drawn].mean()),
        "the median is taken off": returns(lambda winner, drawn, chosen, judged: (
            judged[winner] - statistics.median(judged))),
        "the winner's score comes back as it is": returns(lambda winner, drawn, chosen, judged: judged[winner]),
        "the sign is wrong": returns(lambda winner, drawn, chosen, judged: judged.mean() - judged[winner]),
        "the lowest chosen_by wins": lowest_wins,
        "a run is drawn more than once": draws(lambda runs, size, random: random.integers(runs, size=size)),
        "it is always the first runs that are searched": draws(lambda runs, size, random: range(size)),
        "the draw does not come from random": begun_anew,
        "the same state of it gives the same runs": of_numpys_own,
        "and it moves on": besides_random,
        "the best of all runs wins every time": draws(lambda runs, size, random: random.permutation(runs)),
        "the winner's place among the drawn runs": place_among_the_drawn,
        "some runs win too often": draws(neighbours),
        "all runs win equally often": drawn_apart,
        "the runs win as if 2 of them were drawn": draws(
            lambda runs, size, random: random.permutation(runs)[: max(size - 1, 1)]),
        "the runs win as if 4 of them were drawn": draws(
            lambda runs, size, random: random.permutation(runs)[: size + 1]),
        "It changes its inputs in place": shuffled_in_place,
        "one number is asked for": returns(lambda winner, drawn, chosen, judged: (winner, judged[winner])),
        "is no run's judged_by less the mean": returns(
            lambda winner, drawn, chosen, judged: 100 * (judged[winner] - judged.mean())),
        "It stops with": lambda chosen, judged, size, random: judged[random.permutation(judged)[:size].argmax() + 0.5],
    },
    right=[
        by_permutation, by_sorting_numbers, until_there_are_enough, with_pythons_sample, both_scores_are_drawn,
    ],
)  # fmt: skip
