"""Answers to the capstone of lesson 10: lines that are at fault, and conclusions from a table."""

import numpy as np
import pandas as pd
import torch
from scipy import stats

from answers import Answers

# ------------------------------------------------------------------ flawed_study


def answer(value):
    """A value as an answer; `check` takes a function that returns it as well."""
    return lambda: value


FLAWED_STUDY = Answers(
    wrong={
        "of the 3 lines that you name 3 are at fault and 0 are innocent": answer({4, 15, 20}),
        "of the 4 lines that you name 4 are at fault": answer([20, 4, 15, 25, 4, 4]),
        "of the 7 lines that you name 5 are at fault and 2 are innocent": answer({4, 15, 20, 25, 27, 1, 2}),
        "of the 12 lines that you name 8 are at fault and 4": answer({4, 15, 20, 25, 27, 28, 30, 31, 6, 9, 10, 12}),
        "of the one line that you name 0 are at fault and 1 is innocent": answer([32]),
        "of the 2 lines that you name 1 is at fault and 1 is innocent": answer((16, 15)),
        "line 16 is right: the weights are 1 - alpha and alpha": answer({16, 4, 15}),
        "line 7 is right: optimizer, learning rate and weight decay": answer([4, 7]),
        "line 3 is right: each seed has images of its own": answer({3, 24, 20}),
        "line 24 is right: test images are there for reporting": answer({24, 25, 26}),
        "asked for are 5 faults at least, and 1 innocent line at most": answer(range(1, 17)),
        "no line is named": answer(set()),
        "every line is named": answer(range(1, 33)),
        "this is a text": answer("4, 15, 20, 25, 27"),
        "its keys alone are asked for": answer({4: "train mode", 15: "mean", 20: "max", 25: "test", 27: "seeds"}),
        "this is no set of line numbers": answer(4),
        "true and false": answer([False] * 32),
        "there is a text among the numbers": answer({4, "15", 20}),
        "whole numbers, such as 2 rather than 2.0": answer(torch.tensor([4.0, 15, 20, 25, 27])),
        "something else than numbers": answer([{4, 15}, {20, 25, 27}]),
        "numbered from 1 to 32": answer({4, 15, 20, 25, 27, 33}),
        "it stops with": lambda: {4, 15, 20}.lines,
    },
    right=[
        answer(frozenset({4, 15, 20, 25, 27, 28, 30, 31})),
        answer([31, 30, 28, 27, 25]),
        answer((4, 15, 20, 25, 27, 28, 16)),
        answer(np.array([4, 15, 20, 30, 31, 2])),
        answer(torch.tensor([4, 4, 15, 20, 30, 31])),
        answer({number: "" for number in (15, 20, 25, 27, 28)}.keys()),
    ],
)  # fmt: skip

# ------------------------------------------------------------------ study_conclusion


def sentence(mean, low, high):
    """From points."""
    if low <= 0 <= high:
        return never_a_winner(mean, low, high)
    word, numbers = ("ahead", (mean, low, high)) if mean > 0 else ("behind", (abs(mean), abs(high), abs(low)))
    return "{} by {:.1f} points [{:.1f}, {:.1f}]".format(word, *numbers)


def by_hand(table):
    """Loops, and the formula."""
    accuracies = {"labels": {}, "distilled": {}}
    for row in table.itertuples():
        accuracies[row.arm][row.seed] = 100 * row.accuracy
    if set(accuracies["labels"]) != set(accuracies["distilled"]):
        raise ValueError
    gains = [accuracies["distilled"][seed] - other for seed, other in accuracies["labels"].items()]
    n = len(gains)
    mean = sum(gains) / n
    spread = (sum((gain - mean) ** 2 for gain in gains) / (n - 1)) ** 0.5
    half = float(stats.t.isf(0.025, n - 1)) * spread / n**0.5
    return sentence(mean, mean - half, mean + half)


def merged(table):
    """Both arms as tables, joined by the seed, and scipy's paired test."""
    arms = [table.loc[table["arm"].eq(arm), ["seed", "accuracy"]] for arm in ("distilled", "labels")]
    pairs = arms[0].merge(arms[1], on="seed", how="outer", indicator=True)
    if (pairs["_merge"] != "both").any():
        raise ValueError("pairs")
    interval = stats.ttest_rel(pairs["accuracy_x"], pairs["accuracy_y"]).confidence_interval()
    mean = (pairs["accuracy_x"] - pairs["accuracy_y"]).mean()
    return sentence(100 * mean, 100 * interval.low, 100 * interval.high)


def sorted_by_seed(table):
    ordered = table.sort_values("seed")
    ours, theirs = (ordered[ordered["arm"] == arm].set_index("seed")["accuracy"] for arm in ("distilled", "labels"))
    if not ours.index.equals(theirs.index):
        raise ValueError("each seed needs both arms")
    gains = (ours - theirs).mul(100)
    return sentence(gains.mean(), *stats.t.interval(0.95, len(gains) - 1, gains.mean(), gains.sem()))


def of_gains(three, text=sentence):
    """An answer that pairs rightly, and goes on from the gains in points by `three`."""

    def answer(table):
        arms = table.pivot(index="seed", columns="arm", values="accuracy")
        if arms.isnull().values.any():
            raise ValueError
        return text(*three(100 * (arms["distilled"] - arms["labels"])))

    return answer


def of_arms(three, pair=None):
    """An answer from the two columns of accuracies in percent, with a row for each seed."""

    def answer(table):
        arms = 100 * table.pivot(index="seed", columns="arm", values="accuracy")
        if pair is None and arms.isna().sum().sum():
            raise ValueError
        arms = arms if pair is None else pair(arms)
        return sentence(*three(arms["distilled"], arms["labels"]))

    return answer


def around(mean, half):
    return mean, mean - half, mean + half


def t(gains, level=0.975, more=1):
    return stats.t.ppf(level, len(gains) - more)


def paired(gains):
    return around(gains.mean(), t(gains) * gains.sem())


def two_samples(equal_var):
    def three(ours, theirs):
        interval = stats.ttest_ind(ours, theirs, equal_var=equal_var).confidence_interval()
        return ours.mean() - theirs.mean(), interval.low, interval.high

    return three


def two_normal_samples(ours, theirs):
    return around(ours.mean() - theirs.mean(), stats.norm.isf(0.025) * (ours.sem() ** 2 + theirs.sem() ** 2) ** 0.5)


def by_rows(table):
    """The first of one arm with the first of the other."""
    ours, theirs = (table[table["arm"] == arm]["accuracy"].values for arm in ("distilled", "labels"))
    return sentence(*paired(pd.Series(100 * (ours - theirs))))


def with_best_seed(of_ours, of_theirs):
    return of_arms(lambda ours, theirs: around(of_ours(ours) - of_theirs(theirs), t(ours) * (ours - theirs).sem()))


def always_a_winner(mean, low, high):
    numbers = (mean, low, high) if mean > 0 else (-mean, -high, -low)
    return ("ahead" if mean > 0 else "behind") + " by {:.1f} points [{:.1f}, {:.1f}]".format(*numbers)


def never_behind(mean, low, high):
    return f"ahead by {mean:.1f} points [{low:.1f}, {high:.1f}]" if low * high > 0 else sentence(mean, low, high)


def never_a_winner(mean, low, high):
    return f"not told apart: {mean:+.1f} points [{low:+.1f}, {high:+.1f}]"


def behind_with_signs(mean, low, high):
    return f"behind by {mean:.1f} points [{low:.1f}, {high:.1f}]" if high < 0 else sentence(mean, low, high)


def behind_turned_round(mean, low, high):
    return f"behind by {-mean:.1f} points [{-low:.1f}, {-high:.1f}]" if high < 0 else sentence(mean, low, high)


def in_place(table):
    table.sort_values("seed", inplace=True, ignore_index=True)
    table["accuracy"] *= 100
    return sorted_by_seed(table.assign(accuracy=table["accuracy"] / 100))


STUDY_CONCLUSION = Answers(
    wrong={
        "the interval treats the arms as unrelated": of_arms(two_samples(True)),
        "with Welch's degrees of freedom": of_arms(two_samples(False)),
        "and the interval is by 1.96; take the differences": of_arms(two_normal_samples),
        "paired by the place of their rows": by_rows,
        "left out in silence": of_arms(lambda ours, theirs: paired(ours - theirs), pair=pd.DataFrame.dropna),
        "counts as one that gets nothing right": of_arms(
            lambda ours, theirs: paired(ours - theirs), pair=lambda arms: arms.fillna(0)),
        "the best of the distilled is compared with the mean": with_best_seed(max, np.mean),
        "the best seed of each arm is compared": with_best_seed(np.max, np.max),
        "mean and standard deviation of the gains": of_gains(lambda gains: around(gains.mean(), gains.std())),
        "not divided by the root": of_gains(lambda gains: around(gains.mean(), t(gains) * gains.std())),
        "mean and standard error": of_gains(lambda gains: around(gains.mean(), gains.sem())),
        "the normal distribution, 1.96": of_gains(lambda gains: around(gains.mean(), 1.96 * gains.sem())),
        "(ddof=1)": of_gains(lambda gains: around(
            gains.mean(), t(gains) * np.std(gains.values) / len(gains) ** 0.5)),
        "one-sided": of_gains(lambda gains: around(gains.mean(), t(gains, 0.95) * gains.sem())),
        "99 %": of_gains(lambda gains: around(gains.mean(), t(gains, 0.995) * gains.sem())),
        "these are fractions": of_gains(lambda gains: paired(gains / 100)),
        "although the interval holds 0": of_gains(paired, always_a_winner),
        "although the interval does not hold 0": of_gains(paired, never_a_winner),
        "it says ahead where the distilled are behind": of_gains(paired, never_behind),
        "the arms are exchanged": of_gains(lambda gains: paired(-gains)),
        "the numbers after it have no signs": of_gains(paired, behind_with_signs),
        "the ends are exchanged": of_gains(paired, behind_turned_round),
        "a text is asked for": of_gains(paired, lambda *three: three),
        "in none of the three forms": of_gains(paired, lambda *three: sentence(*three) + "."),
        "it says 'Ahead by": of_gains(paired, lambda *three: sentence(*three).capitalize()),
        "It changes its inputs in place": in_place,
        "contains": of_gains(lambda gains: around(gains.median(), t(gains) * gains.sem())),
    },
    right=[by_hand, merged, sorted_by_seed, of_gains(paired)],
)  # fmt: skip
