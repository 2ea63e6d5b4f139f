"""Answers to the exercises of lesson 00."""

import numpy as np
import pandas as pd
import torch

from answers import Answers

# ------------------------------------------------------------------ share_correct


def one_image_after_the_other(logits, labels):
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right += row.index(max(row)) == label
    return right / len(labels)


def with_numpy(logits, labels):
    return np.mean(np.argmax(logits.numpy(), axis=-1) == labels.numpy())


def by_sorting(logits, labels):
    best = logits.sort(dim=1, descending=True).indices[:, 0]
    return 1 - (best - labels).count_nonzero() / len(labels)


def mean_over_classes(logits, labels):
    hits = logits.argmax(1) == labels
    return torch.stack([hits[labels == label].float().mean() for label in labels.unique()]).mean()


SHARE_CORRECT = Answers(
    wrong={
        "these are percent": lambda logits, labels: (logits.argmax(1) == labels).sum() * 100 / len(labels),
        "divide it by the number of images": lambda logits, labels: sum(logits.argmax(1) == labels),
        "the share of right ones is asked for": lambda logits, labels: np.mean(
            logits.argmax(1).numpy() != labels.numpy()
        ),
        "along dim=0 are the images": lambda logits, labels: (
            (logits.max(dim=0).indices == labels).double().mean()
        ),
        "with that logit's class (argmax)": lambda logits, labels: (
            torch.eq(logits.amax(1), labels).float().mean()
        ),
        "take their mean": lambda logits, labels: logits.max(1).indices == labels,
        "contains 0.9 where 0.8 should be": lambda logits, labels: (
            (logits[range(len(labels)), labels] > 0).float().mean()
        ),
        "contains 0.7 where 0.8": lambda logits, labels: (
            (logits.softmax(1)[range(len(labels)), labels] > 0.5).float().mean()
        ),
        "contains 1 where": lambda logits, labels: (
            (logits.topk(2).indices == labels[:, None]).any(1).float().mean()
        ),
        "contains 0.8125 where": mean_over_classes,
        "could not infer output dtype": lambda logits, labels: (logits.argmax(1) == labels).mean(),
    },
    right=[one_image_after_the_other, with_numpy, by_sorting],
)

# ------------------------------------------------------------------ repair_report


def over_the_list_of_settings(validation, test):
    settings = list(validation)
    accuracies = np.array([validation[setting] for setting in settings])
    chosen = settings[accuracies.argmax()]
    return chosen, test[chosen]


def by_comparing_one_after_the_other(validation, test):
    chosen = None
    for setting, accuracy in validation.items():
        if chosen is None or accuracy > validation[chosen]:
            chosen = setting
    return [chosen, test[chosen]]


def by_a_series(validation, test):
    chosen = pd.Series(validation).idxmax()
    return chosen, pd.Series(test)[chosen]


def at_the_same_place_in_the_other_dictionary(validation, test):
    place = np.argmax(list(validation.values()))
    return list(validation)[place], list(test.values())[place]


def best_of_both_together(validation, test):
    chosen = max(validation, key=lambda setting: validation[setting] + test[setting])
    return chosen, test[chosen]


REPAIR_REPORT = Answers(
    wrong={
        "still does what it did": lambda validation, test: max(test.items(), key=lambda item: item[1]),
        "its validation accuracy is reported": lambda validation, test: max(
            validation.items(), key=lambda item: item[1]
        ),
        "it is the other way round": lambda validation, test: (
            sorted(test, key=test.get)[-1],
            validation[sorted(test, key=test.get)[-1]],
        ),
        "still the highest of all test accuracies": lambda validation, test: (
            sorted(validation, key=validation.get)[-1],
            sorted(test.values())[-1],
        ),
        "lowest validation accuracy": lambda validation, test: (
            sorted(validation, key=validation.get)[0],
            test[sorted(validation, key=validation.get)[0]],
        ),
        "return the chosen setting before it": lambda validation, test: test[
            sorted(validation, key=validation.get)[-1]
        ],
        "the chosen setting comes first": lambda validation, test: over_the_list_of_settings(
            validation, test
        )[::-1],
        "contains 0.57 where 0.56": at_the_same_place_in_the_other_dictionary,
        "contains 8 where 2": best_of_both_together,
        "KeyError": lambda validation, test: (
            max(validation, key=validation.get),
            test[max(validation.values())],
        ),
    },
    right=[over_the_list_of_settings, by_comparing_one_after_the_other, by_a_series],
)

# ------------------------------------------------------------------ gains_by_seed


def one_seed_after_the_other(control, treatment):
    gains = {}
    for seed, accuracy in control.items():
        if seed in treatment:
            gains[seed] = treatment[seed] - accuracy
    return gains


def over_sorted_common_seeds(control, treatment):
    seeds = sorted(set(control) & set(treatment))
    after, before = (np.array([arm[seed] for seed in seeds]) for arm in (treatment, control))
    return dict(zip(seeds, after - before, strict=True))


def by_series_that_align(control, treatment):
    return (pd.Series(treatment) - pd.Series(control)).dropna().to_dict()


def sorted_by_accuracy(control, treatment):
    pairs = zip(sorted(control.values()), sorted(treatment.values()), strict=True)
    return {seed: after - before for seed, (before, after) in zip(sorted(control), pairs, strict=True)}


def without_those_that_lose(control, treatment):
    return {seed: gain for seed, gain in over_sorted_common_seeds(control, treatment).items() if gain > 0}


def only_one_kept(control, treatment):
    return {seed: gain for seed, gain in [*over_sorted_common_seeds(control, treatment).items()][:1]}


GAINS_BY_SEED = Answers(
    wrong={
        "partners share a seed": lambda control, treatment: {
            seed: b - a for seed, a, b in zip(control, control.values(), treatment.values(), strict=True)
        },
        "the sign is turned round": lambda control, treatment: {
            seed: control[seed] - treatment[seed] for seed in treatment if seed in control
        },
        "hides who did better": lambda control, treatment: {
            seed: abs(gain) for seed, gain in over_sorted_common_seeds(control, treatment).items()
        },
        "these are percentage points": lambda control, treatment: {
            seed: 100 * gain for seed, gain in over_sorted_common_seeds(control, treatment).items()
        },
        "a seed without a partner counts": lambda control, treatment: {
            seed: treatment.get(seed, 0) - control.get(seed, 0) for seed in {**control, **treatment}
        },
        "makes no pair; leave it out": lambda control, treatment: {
            seed: treatment[seed] - accuracy for seed, accuracy in control.items()
        },
        "a dictionary from each seed to its gain is asked for": lambda control, treatment: np.mean(
            [*over_sorted_common_seeds(control, treatment).values()]
        ),
        "The list of gains contains": sorted_by_accuracy,
        "The list of seeds is of shape": without_those_that_lose,
        "it should be of shape (3,)": only_one_kept,
    },
    right=[one_seed_after_the_other, over_sorted_common_seeds, by_series_that_align],
)

ANSWERS = {
    "share_correct": SHARE_CORRECT,
    "repair_report": REPAIR_REPORT,
    "gains_by_seed": GAINS_BY_SEED,
}
