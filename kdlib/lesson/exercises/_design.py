"""The judge of open experiments: it looks at the design, by what the function did in a rehearsal, not at the number.

An arm is a way to train, that is, settings; students of one arm differ in their seeds alone. Compared is an arm with an
arm, or a difference with a difference (four arms: "is the gain smaller with more images?"). A temperature that changes
during the training is one setting here, with its course for a value.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from kdlib.lesson.exercises import _intervals
from kdlib.lesson.exercises._intervals import Complaint
from kdlib.lesson.exercises._observe import Outcome, observe
from kdlib.lesson.exercises._verdict import CORRECT, UNFINISHED, WRONG, Verdict
from kdlib.lesson.laboratory import Rehearsal
from kdlib.lesson.laboratory_room import as_text
from kdlib.lesson.laboratory_settings import NO_AUGMENTATION, NO_FEATURES, RANDOM_START

FEWEST_SEEDS = 5
SIGNS = (1, -1, -1, 1)  # of the arms compared: a - b, or (a - b) - (c - d)
MANY_ARMS = 8  # with more of them no difference of differences is looked for: that would take long

Arm = tuple[tuple[str, Any], ...]
Record = dict[Arm, dict[int, float]]  # for each arm, by seed, the accuracy on one of the splits


class Course(NamedTuple):
    """The temperature of a training, from its first step to its last."""

    start: float
    end: float

    def __repr__(self) -> str:
        return f"{self.start} to {self.end}"


class Compared(NamedTuple):
    """The arms whose comparison is returned, and what is to be said of its interval."""

    arms: tuple[Arm, ...]
    about_interval: Complaint | None


def rehearse(answer: Callable, laboratory: Rehearsal) -> Outcome:
    """Run the answer in the rehearsal, which keeps a record of what it asks for."""
    return observe(lambda function: function(laboratory), answer, ())


def judge_design(name: str, outcome: Outcome, laboratory: Rehearsal) -> Verdict:
    """Judge what was returned, and what was asked for in the rehearsal."""
    if outcome.unfinished:
        message = "Nothing comes back yet: is there still a ... to fill in, or is the `return` missing?"
        return Verdict(name, UNFINISHED, message)
    if outcome.error is not None:
        return Verdict(name, WRONG, f"In a rehearsal it stops with {outcome.error_text!r}.")
    validated, tested = (_record(laboratory, split) for split in ("validation", "test"))
    complaint = _about_what_is_measured(validated, tested)
    if complaint is None:
        compared = _compared(outcome, tested)
        complaint = (
            _about_seeds(tested, compared)
            or _about_choosing(tested, compared)
            or _about_what_changes(validated, compared)
            or compared.about_interval
        )
    if complaint:
        return Verdict(name, WRONG, complaint.sentence, complaint.diagnosis)
    return Verdict(name, CORRECT, _praise(validated, tested, compared))


def _record(laboratory: Rehearsal, split: str) -> Record:
    record: Record = {}
    for look in laboratory.looks:
        if look.split == split:
            record.setdefault(_arm(look.settings), {})[look.seed] = look.accuracy
    return record


def _arm(settings: Iterable[tuple[str, Any]]) -> Arm:
    arm = dict(settings)
    if "temperature_end" in arm:
        arm["temperature"] = Course(arm["temperature"], arm.pop("temperature_end"))
    return tuple(arm.items())


# ------------------------------------------------------------------ what is compared


def _compared(outcome: Outcome, tested: Record) -> Compared | None:
    """The arms of which the returned interval is, be it computed wrongly; else the only two; else None."""
    returned = [x for part in outcome.numbers.values() for x in part.flatten().tolist()]
    if len(returned) == 3 and _is_a_sequence(outcome):
        readings = [(arms, _intervals.read(returned, _columns(arms, tested))) for arms in _comparisons(tested)]
        known = [(arms, reading) for arms, reading in readings if reading]
        if known:
            arms, reading = min(known, key=lambda one: one[1].rank)
            return Compared(arms, reading.complaint or _about_sign(arms))
    if len(tested) > 2:
        return None
    arms = min(_comparisons(tested), key=lambda arms: _about_sign(arms) is not None)
    if not _is_a_sequence(outcome):
        return Compared(arms, _NO_SEQUENCE)
    return Compared(arms, _about_unknown_numbers(returned, arms, tested))


def _is_a_sequence(outcome: Outcome) -> bool:
    """Whether it can be taken apart as mean, low, high = ..., which the lesson does with it."""
    return all(label.startswith(("value ", "result")) for label in outcome.numbers)


def _comparisons(tested: Record) -> list[tuple[Arm, ...]]:
    """Two arms in either order, and four that are two settings with two values each."""
    fours = itertools.permutations(tested, 4) if len(tested) <= MANY_ARMS else ()
    return [*itertools.permutations(tested, 2), *(arms for arms in fours if _is_rectangle(*arms))]


def _is_rectangle(a: Arm, b: Arm, c: Arm, d: Arm) -> bool:
    across, down = _differences(a, b), _differences(a, c)
    if across != _differences(c, d) or down != _differences(b, d):
        return False
    return len(across) == len(down) == 1 and across.keys() != down.keys()


def _differences(a: Arm, b: Arm) -> dict[str, tuple]:
    """The settings in which two arms differ, with both values.

    One that only one arm has, such as the temperature or the weight, comes with its method or its features.
    """
    first, second = dict(a), dict(b)
    return {n: (first[n], second[n]) for n in first if n in second and first[n] != second[n]}


def _columns(arms: tuple[Arm, ...], tested: Record) -> list[np.ndarray]:
    """The accuracies of each arm with its sign, seed by seed; as they were asked for where the seeds differ."""
    same = all(tested[arm].keys() == tested[arms[0]].keys() for arm in arms)
    seeds = [tested[arms[0]] if same else tested[arm] for arm in arms]
    return [
        sign * np.array([tested[arm][seed] for seed in mine])
        for sign, arm, mine in zip(SIGNS, arms, seeds, strict=False)
    ]


# ------------------------------------------------------------------ complaints, the first one that holds


def _about_what_is_measured(validated: Record, tested: Record) -> Complaint | None:
    if not validated and not tested:
        return Complaint(
            "nothing measured",
            'No student is asked for its accuracy: lab.student(seed, ...).accuracy("test") trains one and measures it.',
        )
    if not tested:
        return Complaint(
            "not on test",
            "Nothing is measured on test. Validation is for choosing, and what was chosen there looks better there "
            "than it is; test is for what you report.",
        )
    if len(tested) == 1:
        return Complaint(
            "no control",
            "Only one arm is measured on test. An accuracy says nothing until there is another to compare it with: "
            "train the control with the same seeds. (A setting without effect, such as the temperature where "
            'method="labels", makes no other arm.)',
        )
    return None


def _about_seeds(tested: Record, compared: Compared | None) -> Complaint | None:
    arms = list(tested) if compared is None else compared.arms
    seeds = [tested[arm].keys() for arm in arms]
    if any(mine != seeds[0] for mine in seeds):
        return Complaint(
            "other seeds",
            "The arms were not measured with the same seeds. A seed decides the images, the weights and the order, "
            "which matters more than most settings do: only students of one seed can be compared as a pair.",
        )
    if len(seeds[0]) < FEWEST_SEEDS:
        return Complaint(
            "few seeds",
            f"{len(seeds[0])} seeds are too few: of so few differences nobody knows how much they scatter. "
            f"Take at least {FEWEST_SEEDS}, the same in both arms.",
        )
    return None


def _about_choosing(tested: Record, compared: Compared | None) -> Complaint | None:
    if compared is None:
        return Complaint(
            "no comparison",
            f"{len(tested)} arms are measured on test, and what is returned is the paired 95 % interval of none of "
            "their differences. Return (mean, low, high) of one, and look at the other arms on validation only.",
        )
    others = tested.keys() - set(compared.arms)
    if others:
        number = "An arm is" if len(others) == 1 else f"{len(others)} arms are"
        return Complaint(
            "chosen on test",
            f"{number} measured on test and not reported. Whoever tries several on test and reports the best reports "
            "its luck on these images too: choose on validation, and ask on test for the reported arms alone.",
        )
    return None


def _about_what_changes(validated: Record, compared: Compared) -> Complaint | None:
    changed = _differences(*compared.arms) if len(compared.arms) == 2 else {}
    if len(changed) < 2:
        return None
    complaints = [_about_tuning(studied, changed.keys() - {studied}, validated, compared.arms) for studied in changed]
    if None in complaints:
        return None
    names = " and ".join(changed)
    mixed = Complaint(
        "several changes",
        f"The arms differ in {names}: nobody can tell which of them made the difference. Change one. Another may "
        "differ only where it was chosen on validation, for both arms among the same values.",
    )
    return next((complaint for complaint in complaints if complaint is not _UNTRIED), mixed)


_NO_SEQUENCE = Complaint(
    "no interval", "It returns a dictionary. Return the three numbers of the interval alone: (mean, low, high)."
)
_UNTRIED = Complaint("untried", "A setting differs that no arm was tried with on validation.")


def _about_tuning(studied: str, tuned: set[str], validated: Record, arms: tuple[Arm, ...]) -> Complaint | None:
    """Whether the settings `tuned` may differ beside the one that is studied, as both arms chose them fairly."""
    sides = [[v for v in validated if dict(v).get(studied) == dict(arm)[studied]] for arm in arms]
    for name in sorted(tuned):
        tried = [{dict(other).get(name) for other in side} - {None} for side in sides]
        if max(map(len, tried)) < 2:
            return _UNTRIED
        own_means = name == "label_smoothing" and studied == "method"  # as the temperature is the teacher's
        if tried[0] != tried[1] and not own_means:
            return Complaint(
                "tuned on one side",
                f"{name} was chosen among other values for one arm than for the other. A control that is not tuned "
                "as hard loses for that reason alone: try the same values for both.",
            )
    for arm, side in zip(arms, sides, strict=True):
        if len(side) > 1 and arm not in _best(side, validated):
            return Complaint(
                "not the best on validation",
                f"On validation another setting than the reported one ({as_text(_only(arm, tuned))}) was the best. "
                "What differs between the arms must be what validation chose, or it is an arbitrary second change.",
            )
    return None


def _best(side: list[Arm], validated: Record) -> list[Arm]:
    """The best mean on validation, among those tried with the most seeds: others may have been given up early."""
    most = max(len(validated[arm]) for arm in side)
    means = {arm: np.mean([*validated[arm].values()]) for arm in side if len(validated[arm]) == most}
    return [arm for arm, mean in means.items() if mean >= max(means.values())]


def _only(arm: Arm, names: Iterable[str]) -> Arm:
    return tuple((name, value) for name, value in arm if name in names)


def _about_sign(arms: tuple[Arm, ...]) -> Complaint | None:
    """Where one arm is plainly the control, it is subtracted; of two constant temperatures either may be."""
    changed = _differences(*arms[:2])
    with_teacher = changed.get("method", ("", ""))[1] == "distillation"
    with_features = changed.get("features", ("", ""))[0] == NO_FEATURES
    inherited = changed.get("network", ("", ""))[0] == RANDOM_START
    with_views = changed.get("augment", ("", ""))[0] == NO_AUGMENTATION
    moving = [isinstance(temperature, Course) for temperature in changed.get("temperature", ())]
    added = [*changed] in (["label_smoothing"], ["second_stage"]) and next(iter(changed.values()))[0] == 0
    treated = with_teacher or with_features or inherited or with_views or moving == [False, True] or added
    if len(arms) == 2 and treated:
        return Complaint(
            "sign",
            "The sign is turned round: a gain is the arm with the treatment minus its control, so that it is above "
            "zero where the treatment helps.",
        )
    return None


def _about_unknown_numbers(returned: list[float], arms: tuple[Arm, ...], tested: Record) -> Complaint | None:
    if len(returned) != 3:
        number = "one number" if len(returned) == 1 else f"{len(returned)} numbers"
        return Complaint(
            "no interval",
            f"It returns {number}. Return the paired 95 % interval of the difference, (mean, low, high): without its "
            "ends nobody can see whether the difference might be luck.",
        )
    columns = _columns(arms, tested)
    if len({len(column) for column in columns}) > 1:
        return None  # the seeds differ, which is said first
    mine, right = (", ".join(f"{x:.4f}" for x in numbers) for numbers in (returned, _intervals.paired(columns)))
    return Complaint(
        "another interval", f"The paired 95 % interval of these arms is ({right}) in the rehearsal; yours is ({mine})."
    )


def _praise(validated: Record, tested: Record, compared: Compared) -> str:
    changed = _differences(*compared.arms[:2])
    first, second = (as_text(_only(arm, changed)) for arm in compared.arms[:2])
    seeds = tested[compared.arms[0]].keys()
    text = f"A sound design: {first} against {second}, {len(seeds)} paired seeds, measured on test."
    if len(compared.arms) == 4:
        text += f" And that difference for two values of {', '.join(_differences(*compared.arms[::2]))}."
    text += _about_means(*(dict(arm).get("temperature") for arm in compared.arms[:2]))
    if len(validated) > 1 and any(seeds & validated[arm].keys() for arm in validated):
        text += (
            " A remark: some seeds served for choosing and for reporting; with fresh ones the report would owe nothing "
            "to the luck of the choice."
        )
    return text


def _about_means(*temperatures: Any) -> str:
    """A remark where a moving temperature is compared with a constant that it does not have on average."""
    courses = [t for t in temperatures if isinstance(t, Course)]
    constants = [t for t in temperatures if t is not None and not isinstance(t, Course)]
    if not courses or not constants or np.isclose(np.mean(courses[0]), constants[0]):
        return ""
    return (
        f" A remark: the temperature that changes is {np.mean(courses[0]):g} on average, and the constant one is "
        f"{constants[0]:g}; of the same mean only the course would differ."
    )
