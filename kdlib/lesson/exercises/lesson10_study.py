"""The capstone of lesson 10: the faults of a study, and the conclusion that its repaired table allows.

The functions carry no annotations, because their text is the stub that a learner reads: what things are stands in the
docstring.
"""

import functools
import itertools
import math
import operator
import re
from collections.abc import Iterable
from numbers import Integral, Real

import numpy as np
import pandas as pd
from scipy import stats

from kdlib.clinic import study
from kdlib.lesson.exercises import _intervals
from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import Complaint, is_unfinished
from kdlib.metrics import paired_interval

FEWEST_FAULTS, MOST_INNOCENT = 5, 1

# ------------------------------------------------------------------ flawed_study

LAST = len(study.LINES)
TEXT = "this is a text; asked for is a set of line numbers, such as {1, 2}"
DICTIONARY = "this is a dictionary; its keys alone are asked for, a set of line numbers such as {1, 2}"
NO_SET = "this is no set of line numbers, such as {1, 2}"
NONE_NAMED = "no line is named: at least five are at fault"
ALL_NAMED = "every line is named: who suspects all of them has found nothing"
BOOLEANS = "these are True and False; asked for are the numbers of the lines at fault"
WORDS = "there is a text among the numbers; asked for are the numbers of lines alone"
FRACTIONS = "line numbers are whole numbers, such as 2 rather than 2.0"
NO_NUMBERS = "there is something else than numbers in it; asked for are line numbers"
OUTSIDE = f"a number is that of no line: they are numbered from 1 to {LAST}"


def _named_lines(function):
    """The lines that are named, where the answer is a set of some of them.

    Raises:
        Complaint: it is something else.
    """
    answer = function()
    if answer is None or answer is ...:
        return None
    for kind, complaint in ((str, TEXT), (bytes, TEXT), (dict, DICTIONARY)):
        if isinstance(answer, kind):
            raise Complaint(complaint)
    values = answer.tolist() if hasattr(answer, "tolist") else answer
    if not isinstance(values, Iterable):
        raise Complaint(NO_SET)
    values = list(itertools.islice(values, 1000))  # some collections have no end
    if is_unfinished(values):
        return None
    for kind, complaint in ((bool, BOOLEANS), (str, WORDS)):
        if any(isinstance(value, kind) for value in values):
            raise Complaint(complaint)
    if not all(isinstance(value, Integral) for value in values):
        raise Complaint(FRACTIONS if all(isinstance(value, Real) for value in values) else NO_NUMBERS)
    if not all(1 <= value <= LAST for value in values):
        raise Complaint(OUTSIDE)
    return {int(value) for value in values}


def _found(function):
    """Probe: 1 where enough faults are found and hardly an innocent line is suspected; else it complains."""
    named = _named_lines(function)
    if named is None:
        return None
    if len(named) in (0, LAST):
        raise Complaint(ALL_NAMED if named else NONE_NAMED)
    at_fault = len(named & set(study.FAULTS))
    innocent = len(named) - at_fault
    if at_fault < FEWEST_FAULTS or innocent > MOST_INNOCENT:
        raise Complaint(_counted(named, at_fault, innocent))
    return 1


def _counted(named, at_fault, innocent):
    """How many are right, and why those are innocent that look guilty; nothing of the faults not yet found."""
    count = f"of the {len(named)} lines that you name" if len(named) > 1 else "of the one line that you name"
    verbs = ("is" if number == 1 else "are" for number in (at_fault, innocent))
    sentences = [f"{count} {at_fault} {next(verbs)} at fault and {innocent} {next(verbs)} innocent"]
    sentences += [f"Line {line} is right: {why}" for line, why in study.ALARMS.items() if line in named]
    sentences.append(f"Asked for are {FEWEST_FAULTS} faults at least, and {MOST_INNOCENT} innocent line at most")
    return ". ".join(sentences)


@exercise(
    cases=lambda: [()],
    probe=_found,
    hints=[
        """Read it three times: once for what each arm gets, once for what the judges are used for, and once for what
        happens to the numbers on their way into the report. A line that looks odd may be right: ask what it does.""",
        """Which lines make the control another training than that of our students, apart from the teacher? Which look
        at the judges before there is anything to report? From what is the interval, and what would it have to be from?
        And in `fit`: in which mode does the teacher answer, and over what does the mean of the KL go?""",
        """In `fit` three lines are at fault: where the teacher is made ready, where the KL becomes one number, and
        where a score is kept. In `study` five: how T is chosen, the control's seeds, its epochs, what is reported for
        the distilled, and the interval.""",
    ],
    mistakes={
        TEXT: lambda: "4, 15",
        DICTIONARY: lambda: {4: "the mode", 15: "the mean"},
        NO_SET: lambda: 4,
        NONE_NAMED: lambda: set(),
        ALL_NAMED: lambda: set(range(1, LAST + 1)),
        BOOLEANS: lambda: [line in study.FAULTS for line in range(1, LAST + 1)],
        WORDS: lambda: {"4", "15"},
        FRACTIONS: lambda: {4.0, 15.0},
        NO_NUMBERS: lambda: [(4, 15)],
        OUTSIDE: lambda: {0, 4, 15},
    },
)
def flawed_study():
    """Which lines of the study are at fault? Eight are: find five of them at least, and suspect one innocent
    line at most. A set of line numbers, as study.listing() counts them, such as {1, 2}.
    """
    # --- your code
    return {4, 15, 20, 25, 27, 28, 30, 31}
    # --- end


# ------------------------------------------------------------------ study_conclusion


def _table(seeds, gains, scatter, start, *, mixed=True, **more):
    """Students of both arms: seeds matter by `scatter`, and `gains` are the points between the students of a pair."""
    random = np.random.default_rng(start)
    labels = 0.7 + scatter * random.standard_normal(len(seeds))
    arms = {"labels": labels, "distilled": labels + np.divide(gains, 100)}
    rows = [
        {"arm": arm, "seed": seed, "accuracy": round(float(accuracy), 4), **more}
        for arm, accuracies in arms.items()
        for seed, accuracy in zip(seeds, accuracies, strict=True)
    ]
    table = pd.DataFrame(rows)
    return table.sample(frac=1, random_state=start, ignore_index=True) if mixed else table


def _one_missing_in_each_arm():
    table = _table(range(6), [2.1, 3.4, 2.6, 1.9, 2.2, 3.0], 0.02, 6)
    alone = [pair in (("labels", 1), ("distilled", 4)) for pair in zip(table["arm"], table["seed"], strict=True)]
    return table[np.logical_not(alone)].reset_index(drop=True)


def _tables():
    """Ahead in order; ahead and behind in disorder, with much that a pair shares; undecided in two; seeds alone."""
    return [
        (_table(range(5), [1.4, 3.1, 2.2, 4.0, 0.9], 0.03, 1, mixed=False),),
        (_table([12, 3, 45, 7, 30, 21], [1.2, 2.9, 0.6, 2.3, 1.7, 2.5], 0.05, 2, split="test", kind="repaired"),),
        (_table(range(10, 15), [-3.4, -1.2, -2.6, -4.5, -1.9], 0.04, 3),),
        (_table(range(4), [0.4, 2.6, 1.0, 3.1], 0.02, 4),),
        (_table(range(8), [-1.9, 1.3, -2.7, 0.6, -3.2, 1.1, -0.8, 0.3], 0.03, 5),),
        (_one_missing_in_each_arm(),),
    ]


_LEADS = re.compile(r"(ahead|behind) by (-?\d+\.\d) points \[(-?\d+\.\d), (-?\d+\.\d)\]")
_UNDECIDED = re.compile(r"(not told apart): ([+-]\d+\.\d) points \[([+-]\d+\.\d), ([+-]\d+\.\d)\]")
_CHOICES = {"ahead": 1, "not told apart": 0, "behind": -1}
NO_TEXT = "a text is asked for, such as an f-string makes it; not numbers"


def _said(function, table):
    """Probe: which of the three sentences it is, and its numbers; of another text it complains."""
    text = function(table)
    if is_unfinished(text):
        return text
    if not isinstance(text, str):
        raise Complaint(NO_TEXT)
    found = _LEADS.fullmatch(text) or _UNDECIDED.fullmatch(text)
    if found is None:
        raise Complaint(f"it says {text[:90]!r}, which is in none of the three forms of the docstring, to the letter")
    choice, *numbers = found.groups()
    names = ("choice (1 ahead, 0 not told apart, -1 behind)", "mean", "first end", "second end")
    return dict(zip(names, (_CHOICES[choice], *map(float, numbers)), strict=True))


def _students(table):
    """(seed, accuracy) of the students of each arm, in the order of their rows, distilled first."""
    rows = [*zip(*(table[name].tolist() for name in ("arm", "seed", "accuracy")), strict=True)]
    return [[(seed, accuracy) for own, seed, accuracy in rows if own == arm] for arm in ("distilled", "labels")]


def _arms(table, choose=None):
    """Both arms by seed, distilled first; choose: which seeds, given those of either arm, where they may differ."""
    distilled, labels = map(dict, _students(table))
    if choose is None and distilled.keys() != labels.keys():
        raise ValueError("a seed that only one arm has")
    seeds = sorted(distilled if choose is None else choose(distilled.keys(), labels.keys()))
    return tuple(np.array([arm.get(seed, 0.0) for seed in seeds]) for arm in (distilled, labels))


def _by_place(table):
    return [np.array([accuracy for _, accuracy in arm]) for arm in _students(table)]


def _leads(word, mean, low, high):
    return f"{word} by {mean:.1f} points [{low:.1f}, {high:.1f}]"


def _undecided(mean, low, high):
    return f"not told apart: {mean:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _by_sign(mean, low, high):
    return _leads("ahead", mean, low, high) if mean > 0 else _leads("behind", -mean, -high, -low)


def _written(*three, leads=_by_sign):
    return _undecided(*three) if three[1] <= 0 <= three[2] else leads(*three)


def _behind(*places):
    """As `_written`, but behind by the numbers of these places with these signs."""

    def leads(*three):
        behind = [sign * three[place] for sign, place in places]
        return _leads("behind", *behind) if three[0] < 0 else _by_sign(*three)

    return functools.partial(_written, leads=leads)


def _mistaken(three=None, *, arms=_arms, text=_written, scale=100):
    """The solution, but for how it gets (mean, low, high) from the two arms, the arms from the table, or the text."""

    def conclude(table):
        distilled, labels = arms(table)
        numbers = _intervals.paired([distilled, -labels]) if three is None else three(distilled, labels)
        return text(*(scale * number for number in numbers))

    return conclude


def _paired(**wrong):
    return _mistaken(lambda distilled, labels: _intervals.paired([distilled, -labels], **wrong))


def _unpaired(quantile):
    return _mistaken(lambda distilled, labels: _intervals.unpaired([distilled, -labels], quantile))


def _around(times, centre=None):
    """The centre, by default the mean gain, -+ times(n) standard deviations of the gains."""

    def three(distilled, labels):
        gains = distilled - labels
        middle = gains.mean() if centre is None else centre(distilled, labels)
        half = times(len(gains)) * gains.std(ddof=1)
        return middle, middle - half, middle + half

    return _mistaken(three)


def _of_mean(n):
    """What a standard deviation is multiplied by for half a paired interval."""
    return stats.t.ppf(0.975, n - 1) / math.sqrt(n)


@exercise(
    cases=_tables,
    probe=_said,
    hints=[
        """The rows come in any order, so their place says nothing. What tells which two students are a pair, and what
        is to be done where one of them is missing?""",
        """`table.pivot(index="seed", columns="arm", values="accuracy")` has a row a seed, and NaN where a student is
        missing. `paired_interval(a, b)` is that of a minus b; of fractions, so multiply by 100.""",
        """With (mean, low, high) in points: where low > 0 it is "ahead by ...", where high < 0 it is "behind by ..."
        with -mean, and [-high, -low], and else it is "not told apart"; `{mean:.1f}` writes one decimal, `{mean:+.1f}`
        a sign as well.""",
    ],
    mistakes={
        "the interval treats the arms as unrelated; the luck that a pair shares cancels in its difference":
            _unpaired(_intervals.pooled),
        "the arms are treated as unrelated, with Welch's degrees of freedom; take the differences seed by seed":
            _unpaired(_intervals.welch),
        "the arms are treated as unrelated, and the interval is by 1.96; take the differences seed by seed":
            _unpaired(lambda _: stats.norm.ppf(0.975)),
        "students are paired by the place of their rows; partners share a seed":
            _mistaken(arms=_by_place),
        "a seed that only one arm has is left out in silence; it must raise ValueError":
            _mistaken(arms=lambda table: _arms(table, operator.and_)),
        "a student that is missing counts as one that gets nothing right; it must raise ValueError":
            _mistaken(arms=lambda table: _arms(table, operator.or_)),
        "the best of the distilled is compared with the mean of the labels; take the mean over the seeds of both":
            _around(_of_mean, lambda distilled, labels: distilled.max() - labels.mean()),
        "the best seed of each arm is compared; take the mean over the seeds":
            _around(_of_mean, lambda distilled, labels: distilled.max() - labels.max()),
        "mean and standard deviation of the gains; how sure the mean is, the interval says: t * s / sqrt(n)":
            _around(lambda n: 1),
        "the standard deviation is not divided by the root of the number of seeds":
            _paired(root=False),
        "mean and standard error; an interval of 95 % is t times as wide":
            _around(lambda n: 1 / math.sqrt(n)),
        "the interval is by the normal distribution, 1.96; of so few seeds Student's t is to be taken":
            _paired(degrees=_intervals.MANY),
        "the standard deviation divides by n; that of a sample by n - 1 (ddof=1)":
            _paired(ddof=0),
        "the quantile is that of 0.95, one-sided; of 95 % two-sided it is 0.975":
            _paired(quantile=0.95),
        "this is an interval of 99 %; of 95 % the quantile is 0.975":
            _paired(quantile=0.995),
        "these are fractions; 0.01 is one point":
            _mistaken(scale=1),
        "it says ahead or behind although the interval holds 0":
            _mistaken(text=_by_sign),
        "it says \"not told apart\" although the interval does not hold 0":
            _mistaken(text=_undecided),
        "it says ahead where the distilled are behind":
            _mistaken(text=functools.partial(_written, leads=functools.partial(_leads, "ahead"))),
        "the arms are exchanged: a gain is distilled less labels":
            _mistaken(lambda distilled, labels: _intervals.paired([labels, -distilled])),
        "\"behind by\" says it already: the numbers after it have no signs, and the smaller end comes first":
            _mistaken(text=_behind((1, 0), (1, 1), (1, 2))),
        "after \"behind by\" the ends are exchanged: the smaller one comes first":
            _mistaken(text=_behind((-1, 0), (-1, 1), (-1, 2))),
        NO_TEXT:
            lambda table: paired_interval(*_arms(table)),
    },
)  # fmt: skip
def study_conclusion(table):
    """The new conclusion, from the repaired table: how far the distilled are ahead of the labels, in points.

    table: pandas, a row for each student, in any order: its arm ("labels" or "distilled"), its seed, and its accuracy,
    a fraction; other columns do not matter. Returns a text, from the paired 95 % interval over the seeds. Where it
    lies above 0, f"ahead by {mean:.1f} points [{low:.1f}, {high:.1f}]"; where it lies below, the same with "behind by",
    its numbers without signs and the smaller end first; where it holds 0, with all signs,
    f"not told apart: {mean:+.1f} points [{low:+.1f}, {high:+.1f}]". A seed that only one arm has raises ValueError.
    """
    # --- your code
    arms = table.pivot(index="seed", columns="arm", values="accuracy")
    if arms.isna().any(axis=None):
        raise ValueError("a seed that only one arm has makes no pair")
    mean, low, high = (100 * x for x in paired_interval(arms["distilled"], arms["labels"]))
    if low > 0:
        return f"ahead by {mean:.1f} points [{low:.1f}, {high:.1f}]"
    if high < 0:
        return f"behind by {-mean:.1f} points [{-high:.1f}, {-low:.1f}]"
    return f"not told apart: {mean:+.1f} points [{low:+.1f}, {high:+.1f}]"
    # --- end
