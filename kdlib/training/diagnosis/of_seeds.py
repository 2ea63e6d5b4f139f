"""A question about several trainings: is the gain more than what another seed changes?"""

import math
from statistics import NormalDist, stdev

from numpy.typing import ArrayLike

from kdlib._checks import checked
from kdlib.metrics import Interval, paired_interval
from kdlib.training.diagnosis.answers import Answer, points
from kdlib.training.diagnosis.inputs import ADVISED_SEEDS, accuracies

# How often the seeds that are advised tell a difference as large as the one seen from 0: the usual convention.
POWER = 0.8

_QUESTION = "Is the gain more than noise?"
_NOT_REPEATED = (
    "Pass each seed to models.build and to the training, and draw the images by it: nothing was repeated."
)
_WORSE = "Look for the fault by the other questions: the students are worse, and that is more than noise."
_ONE_SEED = (
    f"Train student and baseline with {ADVISED_SEEDS} seeds each, and give their accuracies as "
    "seeds=(students, baselines)."
)


@checked(students=accuracies, baselines=accuracies)
def is_it_more_than_noise(students: ArrayLike, baselines: ArrayLike) -> Answer:
    """Is the difference of the accuracies, seed by seed, told apart from 0?

    The mean of student - baseline with its 95 % interval over the seeds (`kdlib.metrics.paired_interval`). Where that
    holds 0, the advice says how many seeds would tell a difference as large as the one seen from 0, four times in five:

        n = ((z(.975) + z(.8)) * s / d)^2 + z(.975)^2 / 2

    with d the mean and s the standard deviation of the differences, z the quantiles of the normal distribution
    (Guenther 1981, The American Statistician 35, 243-244; the last summand makes up for Student's t). Few seeds know s
    only roughly, and the number with it.

    Args:
        students: accuracies in [0, 1] of at least 3 seeds; 5 and more are advised.
        baselines: as many, in the order of the same seeds, with the same initial weights and images.

    Raises:
        ValueError: fewer than 3 seeds, different lengths, numbers outside [0, 1].
    """
    if len(students) != len(baselines):
        raise ValueError(
            f"students and baselines must be accuracies of the same seeds, got {len(students)} and {len(baselines)}"
        )
    gain = paired_interval(students, baselines)
    finding = f"student less baseline over {len(students)} seeds: {points(gain)}."
    if len(set(students)) == 1 and len(set(baselines)) == 1:
        return Answer(_QUESTION, None, f"every seed has the same accuracies; {finding}", _NOT_REPEATED)
    if gain.low > 0:
        return Answer(_QUESTION, True, finding)
    if gain.high < 0:
        return Answer(_QUESTION, False, finding, _WORSE)
    differences = [one - other for one, other in zip(students, baselines, strict=True)]
    return Answer(_QUESTION, False, finding, _more_seeds(gain.mean, stdev(differences), len(students)))


def of_one_seed(gain: Interval) -> Answer:
    """The same question where there is one student and one baseline, with the interval over their images."""
    finding = f"one seed: {points(gain)} over the images, which says nothing of other seeds."
    return Answer(_QUESTION, None, finding, _ONE_SEED)


def _more_seeds(mean: float, spread: float, count: int) -> str:
    needed = seeds_needed(mean, spread)
    if needed is None:
        return (
            "Change the method, not the number of seeds: there is no difference that more of them could show."
        )
    wanted = max(needed, count + 1, ADVISED_SEEDS)
    return (
        f"Train about {wanted} seeds to tell a difference of {100 * mean:+.2g} points from 0 (four times in five, by "
        "((z(.975) + z(.8)) * s / d)^2 + z(.975)^2 / 2), or call it none."
    )


def seeds_needed(mean: float, spread: float) -> int | None:
    """n of `is_it_more_than_noise`, rounded up; None where no number of seeds is enough."""
    if abs(mean) < 1e-9:
        return None
    both_sides, power = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(POWER)
    return math.ceil(((both_sides + power) * spread / mean) ** 2 + both_sides**2 / 2)
