"""The exercises of lesson 00, small enough to learn how exercises work.

The functions carry no annotations, because their text is the stub that a learner reads.
"""

import torch

from kdlib.lesson.exercises import _inputs
from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import is_unfinished

# ------------------------------------------------------------------------------------ the share of right answers


def _share_correct_cases():
    eight_of_ten = _inputs.logits(0, 10, 4).argmax(dim=1)
    eight_of_ten[:2] = (eight_of_ten[:2] + 1) % 4
    square = 2.0 * torch.eye(4) + _inputs.logits(3, 4, 4, scale=0.1)
    return [
        (_inputs.logits(0, 10, 4), eight_of_ten),
        (_inputs.logits(1, 6, 3), torch.tensor([2, 0, 1, 1, 0, 2])),
        (_inputs.logits(2, 5, 5), torch.tensor([4, 1, 0, 3, 2])),
        (square, torch.tensor([0, 1, 3, 3])),
        (_inputs.logits(4, 7, 3, scale=0.1) - 2, torch.tensor([0, 0, 0, 0, 0, 1, 2])),
    ]


def _hits(logits, labels):
    return logits.argmax(dim=1) == labels


@exercise(
    cases=_share_correct_cases,
    hints=[
        "For each image, which class has the largest logit? Compare that class with the label.",
        "`logits.argmax(dim=1)` gives one class an image. `==` with the labels gives True or False an image.",
        "Turn True and False into 1 and 0 with `.float()`, and take the `.mean()`.",
    ],
    mistakes={
        "these are percent; a fraction between 0 and 1 is asked for":
            lambda logits, labels: 100 * _hits(logits, labels).float().mean(),
        "this is the number of right images; divide it by the number of images":
            lambda logits, labels: _hits(logits, labels).sum(),
        "this is the share of wrong images; the share of right ones is asked for":
            lambda logits, labels: 1 - _hits(logits, labels).float().mean(),
        "along dim=0 are the images; the largest logit is sought among the classes, dim=1":
            lambda logits, labels: (logits.argmax(dim=0) == labels).float().mean(),
        "the label is compared with the largest logit itself; compare it with that logit's class (argmax)":
            lambda logits, labels: (logits.max(dim=1).values == labels).float().mean(),
        "True or False an image is only half the way: take their mean":
            _hits,
    },
)  # fmt: skip
def share_correct(logits, labels):
    """The fraction of images whose largest logit is that of their label.

    logits: (images, classes); labels: (images,), whole numbers. Returns a number between 0 and 1.
    """
    # --- your code
    predicted = logits.argmax(dim=1)
    return (predicted == labels).float().mean()
    # --- end


# ------------------------------------------------------------------------------------ a number to report


def _cases_of_settings():
    return [
        ({0.001: 0.70, 0.01: 0.80, 0.1: 0.75}, {0.001: 0.72, 0.01: 0.77, 0.1: 0.79}),
        ({1: 0.55, 2: 0.61, 4: 0.58, 8: 0.60}, {8: 0.63, 4: 0.57, 2: 0.56, 1: 0.59}),
        ({16: 0.82, 32: 0.80, 64: 0.83}, {16: 0.84, 64: 0.80, 32: 0.79}),
    ]


def _chosen_on_test(validation, test):
    # --- your code
    chosen = max(test, key=test.get)
    return chosen, test[chosen]
    # --- end


def _best(accuracies):
    return max(accuracies, key=accuracies.get)


@exercise(
    cases=_cases_of_settings,
    start=_chosen_on_test,
    hints=[
        "Two things happen to a setting: it is chosen, and it is measured. Which images serve for which?",
        "The number may only come from images that had no say in the choice.",
        "`max(validation, key=validation.get)` is the setting with the highest validation accuracy.",
    ],
    mistakes={
        "the choice is right; but its validation accuracy is reported, with the luck for which it was chosen":
            lambda validation, test: (_best(validation), max(validation.values())),
        "now the setting is chosen on test and measured on validation; it is the other way round":
            lambda validation, test: (_best(test), validation[_best(test)]),
        "the number is still the highest of all test accuracies; report that of the setting that was chosen":
            lambda validation, test: (_best(validation), max(test.values())),
        "the setting with the lowest validation accuracy is chosen":
            lambda validation, test: (min(validation, key=validation.get), test[min(validation, key=validation.get)]),
        "the accuracy alone is reported; return the chosen setting before it":
            lambda validation, test: test[_best(validation)],
        "the chosen setting comes first, its accuracy second":
            lambda validation, test: (test[_best(validation)], _best(validation)),
    },
)  # fmt: skip
def repair_report(validation, test):
    """Repair: once in use, the networks turn out worse than this function reports.

    validation, test: dictionaries from each setting that was tried to the accuracy of its network on that split.
    Returns the setting that is chosen, and the accuracy that is reported for it.
    """
    # --- your code
    chosen = max(validation, key=validation.get)
    return chosen, test[chosen]
    # --- end


# ------------------------------------------------------------------------------------ differences within pairs


def _cases_of_seeds():
    return [
        ({0: 0.60, 1: 0.70, 2: 0.65}, {2: 0.72, 0: 0.61, 1: 0.79}),
        ({5: 0.50, 3: 0.40, 8: 0.45}, {8: 0.40, 5: 0.55, 3: 0.43}),
        ({1: 0.81, 2: 0.83, 4: 0.80, 7: 0.84}, {7: 0.85, 4: 0.84, 2: 0.82, 9: 0.90}),
    ]


def _seeds_and_gains(function, control, treatment):
    """A dictionary as its seeds and its gains, both in the order of the seeds, because its own does not matter."""
    gains = function(control, treatment)
    if is_unfinished(gains):
        return gains
    if not isinstance(gains, dict):
        return {"no dictionary": 0}
    seeds = sorted(gains)
    return {
        "list of seeds": torch.tensor(seeds),
        "list of gains": torch.tensor([float(gains[seed]) for seed in seeds], dtype=torch.float64),
    }


def _by_seed(control, treatment, *, factor=1, seeds=None):
    seeds = control.keys() & treatment.keys() if seeds is None else seeds
    return {seed: factor * (treatment.get(seed, 0) - control.get(seed, 0)) for seed in seeds}


@exercise(
    cases=_cases_of_seeds,
    probe=_seeds_and_gains,
    hints=[
        "The seeds of the two need not be in the same order. How do you find the partner of a student?",
        "Its partner has the same seed: `treatment[seed]` belongs to `control[seed]`.",
        "Write `{seed: ... for seed in control if seed in treatment}`.",
    ],
    mistakes={
        "the students are paired by their place in the dictionaries; partners share a seed":
            lambda control, treatment: {
                seed: after - before
                for (seed, before), after in zip(control.items(), treatment.values(), strict=True)
            },
        "the sign is turned round; a treatment that does better has a gain above zero":
            lambda control, treatment: _by_seed(control, treatment, factor=-1),
        "a gain may be negative; the absolute value hides who did better":
            lambda control, treatment: {s: abs(gain) for s, gain in _by_seed(control, treatment).items()},
        "these are percentage points; differences of the fractions are asked for":
            lambda control, treatment: _by_seed(control, treatment, factor=100),
        "a seed without a partner counts as if its partner had got everything wrong; leave it out":
            lambda control, treatment: _by_seed(control, treatment, seeds=[*control, *treatment]),
        "a seed that only one of the two has makes no pair; leave it out":
            lambda control, treatment: {seed: treatment[seed] - control[seed] for seed in control},
        "a dictionary from each seed to its gain is asked for":
            lambda control, treatment: [*_by_seed(control, treatment).values()],
    },
)  # fmt: skip
def gains_by_seed(control, treatment):
    """What the treatment gains in each pair of students: a dictionary from the seed to the difference.

    control, treatment: dictionaries from the seed of a student to its accuracy. A seed that only one of them has
    makes no pair.
    """
    # --- your code
    return {seed: treatment[seed] - control[seed] for seed in control if seed in treatment}
    # --- end
