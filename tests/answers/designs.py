"""Designs of experiments, for every open experiment: what is wrong with them, or that nothing is.

They use settings that every laboratory has: the number of images, the epochs and the label smoothing.
"""

import numpy as np
from scipy import stats

from kdlib.metrics import paired_interval


def on_test(lab, seeds=range(5), **settings):
    return [lab.student(seed, **settings).accuracy("test") for seed in seeds]


def on_validation(lab, seeds=range(5), **settings):
    return np.mean([lab.student(seed, **settings).accuracy("validation") for seed in seeds])


# ------------------------------------------------------------------ wrong: what was done


def nothing_trained(lab):
    return 0.02, 0.01, 0.03


def only_one_arm(lab):
    accuracies = on_test(lab, images=500)
    return stats.ttest_1samp(accuracies, 0).statistic, 0.0, 0.0


def against_a_number(lab):
    return paired_interval(on_test(lab, images=500), [0.77] * 5)


def three_seeds(lab):
    return paired_interval(on_test(lab, range(3), images=500), on_test(lab, range(3), images=1000))


def other_seeds(lab):
    return paired_interval(on_test(lab, range(5), images=500), on_test(lab, range(5, 10), images=1000))


def more_seeds_in_one_arm(lab):
    few, many = on_test(lab, range(5), images=500), on_test(lab, range(10), images=1000)
    test = stats.ttest_ind(few, many).confidence_interval()
    return np.mean(few) - np.mean(many), test.low, test.high


def two_changes(lab):
    return paired_interval(on_test(lab, images=500, epochs=40), on_test(lab, images=1000, epochs=20))


def best_on_test(lab):
    arms = {epochs: on_test(lab, epochs=epochs) for epochs in (10, 20, 40)}
    best = max(arms, key=lambda epochs: np.mean(arms[epochs]))
    return paired_interval(arms[best], arms[10 if best != 10 else 20])


def reported_on_validation(lab):
    arms = [[lab.student(s, images=n).accuracy("validation") for s in range(5)] for n in (500, 1000)]
    return paired_interval(*arms)


def tuned_on_one_side(lab):
    best = max((5, 10, 40), key=lambda epochs: on_validation(lab, range(100, 103), images=500, epochs=epochs))
    return paired_interval(on_test(lab, images=500, epochs=best), on_test(lab, images=1000, epochs=20))


def the_worst_on_validation(lab):
    worst = {
        n: min((10, 20, 40), key=lambda epochs: on_validation(lab, range(100, 103), images=n, epochs=epochs))
        for n in (500, 600, 700, 1000, 300)
    }
    other = next(n for n in worst if worst[n] != worst[500])
    return paired_interval(on_test(lab, images=500, epochs=worst[500]), on_test(lab, images=other, epochs=worst[other]))


# ------------------------------------------------------------------ wrong: what was returned


def _differences(lab):
    return np.subtract(on_test(lab, images=500), on_test(lab, images=1000))


def _interval(differences, quantile=None, ddof=1, root=True):
    n = len(differences)
    half = (quantile or stats.t.ppf(0.975, n - 1)) * differences.std(ddof=ddof) / (n**0.5 if root else 1)
    return differences.mean(), differences.mean() - half, differences.mean() + half


def the_mean_alone(lab):
    return _differences(lab).mean()


def two_ends(lab):
    return _interval(_differences(lab))[1:]


def a_dictionary(lab):
    return dict(zip(("mean", "low", "high"), _interval(_differences(lab)), strict=True))


def by_normal(lab):
    return _interval(_differences(lab), quantile=1.96)


def by_numpys_std(lab):
    return _interval(_differences(lab), ddof=0)


def of_a_single_run(lab):
    return _interval(_differences(lab), root=False)


def of_ninety_percent(lab):
    return _interval(_differences(lab), quantile=stats.t.ppf(0.95, 4))


def unpaired(lab):
    few, many = on_test(lab, images=500), on_test(lab, images=1000)
    test = stats.ttest_ind(few, many).confidence_interval()
    return np.mean(few) - np.mean(many), test.low, test.high


def unpaired_by_normal(lab):
    few, many = on_test(lab, images=500), on_test(lab, images=1000)
    half = 1.96 * (np.var(few, ddof=1) / 5 + np.var(many, ddof=1) / 5) ** 0.5
    mean = np.mean(few) - np.mean(many)
    return mean, mean - half, mean + half


def in_percent(lab):
    return tuple(100 * x for x in _interval(_differences(lab)))


def low_mean_high(lab):
    mean, low, high = _interval(_differences(lab))
    return low, mean, high


def by_bootstrap(lab):
    differences = _differences(lab)
    draws = np.random.default_rng(1).choice(differences, size=(2000, 5)).mean(axis=1)
    return differences.mean(), *np.quantile(draws, [0.025, 0.975])


def without_its_worst_seed(lab):
    return _interval(np.sort(_differences(lab))[1:])


def turned_round(lab):
    return paired_interval(on_test(lab, label_smoothing=0.0), on_test(lab, label_smoothing=0.1))


def made_up(lab):
    _differences(lab)
    return 0.03, 0.02, 0.04


WRONG = {
    "No student is asked for its accuracy": nothing_trained,
    "Only one arm is measured": only_one_arm,
    "train the control with the same seeds": against_a_number,
    "3 seeds are too few": three_seeds,
    "not measured with the same seeds": other_seeds,
    "only students of one seed can be compared": more_seeds_in_one_arm,
    "The arms differ in images and epochs": two_changes,
    "An arm is measured on test and not reported": best_on_test,
    "Nothing is measured on test": reported_on_validation,
    "epochs was chosen among other values for one arm": tuned_on_one_side,
    "On validation another setting than the reported one": the_worst_on_validation,
    "It returns one number": the_mean_alone,
    "It returns 2 numbers": two_ends,
    "It returns a dictionary": a_dictionary,
    "by the normal distribution (1.96)": by_normal,
    "ddof=1": by_numpys_std,
    "not divided by the root of n": of_a_single_run,
    "no 95 % interval": of_ninety_percent,
    "treats the arms as unrelated": unpaired,
    "that luck cancels in their difference": unpaired_by_normal,
    "in percent": in_percent,
    "in another order": low_mean_high,
    "yours is (": by_bootstrap,
    "in the rehearsal; yours": without_its_worst_seed,
    "The sign is turned round": turned_round,
    "yours is (0.0300, 0.0200, 0.0400)": made_up,
}


# ------------------------------------------------------------------ right


def with_a_loop_and_a_formula_of_its_own(lab):
    accuracies = {500: {}, 1000: {}}
    for images, by_seed in accuracies.items():
        for seed in (3, 1, 4, 15, 9, 2):
            student = lab.student(seed, images=images)
            by_seed[seed] = student.accuracy("test")
    gains = [accuracies[1000][seed] - accuracies[500][seed] for seed in sorted(accuracies[500])]
    n, mean = len(gains), sum(gains) / len(gains)
    spread = (sum((gain - mean) ** 2 for gain in gains) / (n - 1)) ** 0.5
    half = float(stats.t.interval(0.95, n - 1)[1]) * spread / n**0.5
    return [mean, mean - half, mean + half]


def by_scipys_paired_test(lab):
    smooth, sharp = (on_test(lab, label_smoothing=smoothing) for smoothing in (0.1, 0.0))
    interval = stats.ttest_rel(smooth, sharp).confidence_interval(0.95)
    return np.mean(smooth) - np.mean(sharp), interval.low, interval.high


def tuned_alike_with_fresh_seeds(lab):
    best = {}
    for images in (500, 1000):
        means = {epochs: on_validation(lab, range(50, 53), images=images, epochs=epochs) for epochs in (5, 20, 60)}
        best[images] = max(means, key=means.get)
    arms = [on_test(lab, range(6), images=images, epochs=epochs) for images, epochs in best.items()]
    return np.array(paired_interval(*arms))


def a_difference_of_differences(lab):
    def gain(images):
        long, short = (on_test(lab, range(7), images=images, epochs=epochs) for epochs in (40, 20))
        return np.array(long) - short

    return paired_interval(gain(500), gain(1000))


def rounded(lab):
    return tuple(round(x, 4) for x in paired_interval(on_test(lab, epochs=10), on_test(lab, epochs=20)))


RIGHT = [
    with_a_loop_and_a_formula_of_its_own,
    by_scipys_paired_test,
    tuned_alike_with_fresh_seeds,
    a_difference_of_differences,
    rounded,
]
