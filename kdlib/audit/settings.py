"""Claims on temperature and alpha: which to take, which to avoid, and whether they should change over training."""

import torch

from kdlib import losses, models, teachers
from kdlib.audit._core import (
    FAILS,
    HOLDS,
    IN_PART,
    SETTINGS,
    UNTESTED,
    Finding,
    both,
    claim,
    of_gains,
    read,
    recorded,
)
from kdlib.audit._gains import advice, gains, paired
from kdlib.experiments.lesson01 import fashion
from kdlib.inference import predict_logits
from kdlib.lesson import plots
from kdlib.metrics import Interval
from kdlib.training import LEARNING_RATE

TEMPERATURES = recorded("lesson02-temperatures", "lesson 02, section 6")
HALF_A_POINT = 0.005
IMAGES = 300  # of the test images, of which the teacher is asked here


@claim(
    "A9", topic=SETTINGS, says="The KL belongs multiplied by T^2 (our reading: so that its gradient keeps its size).",
    needs="a temperature that is not small: it is a statement on large T",
)  # fmt: skip
def square() -> Finding:
    """The gradient on the logits of a student at its start, over T."""
    teacher_logits, student = _teacher_logits(), models.build("tiny-cnn", seed=0).eval()
    start = predict_logits(student, fashion()[0].test.take(IMAGES, seed=0))
    sizes = {}
    for temperature in (1.0, 2.0, 4.0, 8.0, 16.0):
        logits = start.clone().requires_grad_()
        losses.soft_target_loss(logits, teacher_logits, temperature).backward()
        sizes[temperature] = logits.grad.norm(dim=1).mean().item() * len(logits)
    everywhere, large = (_spread([sizes[t] for t in sizes if t >= least]) for least in (1, 4))
    without = _spread([size / t**2 for t, size in sizes.items()])
    verdict = FAILS if large >= KEPT or without < 10 else HOLDS if everywhere < KEPT else IN_PART
    words = ", ".join(f"{size:.2f} at T = {temperature:g}" for temperature, size in sizes.items())
    return Finding(
        verdict,
        f"Mean norm of an image's gradient at the start: {words}. From T = 4 on it keeps within {large:.2f} "
        "times, from T = 1 "
        f"on within {everywhere:.2f}; without T^2 within {without:.0f}.",
    )


KEPT = 1.5  # times, between the largest and the smallest


def _spread(sizes: list[float]) -> float:
    return max(sizes) / min(sizes)


def _teacher_logits() -> torch.Tensor:
    dataset, teacher = fashion()
    return teachers.cached_logits(teacher, dataset.test.take(IMAGES, seed=0))


@claim(
    "B6", topic=SETTINGS, says="At T = 4 an image of a cat may read cat .4, dog .3.",
    needs="answers that are that soft; an accurate teacher has them for some images, not for the typical one",
)  # fmt: skip
def a_soft_answer() -> Finding:
    first, second = (_teacher_logits() / 4).softmax(1).topk(2).values.T
    like = ((first - 0.4).abs() < 0.05) & ((second - 0.3).abs() < 0.05)
    verdict = HOLDS if like.any() else FAILS
    words = (
        f"Of {len(first)} answers of our teacher at T = 4, {int(like.sum())} are like it (both within .05); "
        "the median "
        f"image reads {first.median():.2f} and {second.median():.2f}."
    )
    return Finding(verdict, words)


def _by_temperature(alpha: float = 0.9) -> dict[float, float]:
    table = read("lesson02-temperatures")
    return table[table["alpha"] == alpha].groupby("temperature")["accuracy"].mean().to_dict()


def _few_passes(temperature: int, over: int, passes: int) -> Interval:
    """Two temperatures over all images, each at its own best settings."""
    arms = ({"method": f"T = {t}, tuned", "passes": passes} for t in (temperature, over))
    return paired(read("lesson01-hurts"), *arms, "accuracy")


HURTS = recorded("lesson01-hurts", "lesson 01, section 6")


@claim(
    "B7", topic=SETTINGS, says="Take T between 3 and 10.",
    needs="enough passes for the soft answers to be learned", by=f"{TEMPERATURES}; {HURTS}",
)  # fmt: skip
def range_of_temperatures() -> Finding:
    mean = _by_temperature()
    best, low = max(mean, key=mean.get), _few_passes(2, 4, 1)
    inside, hurt = 3 <= best <= 10, low.low > 0
    verdict = HOLDS if inside and not hurt else IN_PART if inside else FAILS
    level = [f"{t:g}" for t in mean if mean[t] > mean[best] - HALF_A_POINT]
    words = (
        f"1,000 images, alpha = 0.9: best T = {best:g}, and T = {', '.join(level)} within half a point. One "
        "pass over "
        f"9,000, each tuned: T = 2 over T = 4 {plots.points(low)}."
    )
    return Finding(verdict, words)


@claim(
    "B8", topic=SETTINGS, says="Take alpha between 0.7 and 0.9.",
    needs="a teacher that is better than what the labels give",
    by=recorded("lesson03-teachers", "lesson 03, section 5"),
)  # fmt: skip
def range_of_alphas() -> Finding:
    mean = read("lesson03-teachers").groupby(["teacher", "alpha"])["test"].mean().unstack()
    good = (
        mean.loc[:, [alpha for alpha in mean if 0.7 <= alpha <= 0.9]].max(axis=1)
        > mean.max(axis=1) - HALF_A_POINT
    )
    best = ", ".join(f"{teacher}: {alpha:g}" for teacher, alpha in mean.idxmax(axis=1).items())
    verdict = HOLDS if good.all() else IN_PART if good.any() else FAILS
    words = (
        f"Within half a point of the best alpha under {good.sum()} of {len(good)} teachers. The best under "
        f"each: {best}."
    )
    return Finding(verdict, words)


@claim(
    "B10", topic=SETTINGS, says="Avoid a temperature below 2.",
    needs="enough passes: in few, the answers of a low temperature are learned sooner",
    by=f"{TEMPERATURES}; {HURTS}",
)  # fmt: skip
def too_cold() -> Finding:
    table = read("lesson02-temperatures")
    arms = ({"temperature": t, "alpha": alpha} for t, alpha in ((1.0, 0.9), (4.0, 0.9), (1.0, 0.0)))
    cold, usual, labels = arms
    over, helps = paired(table, cold, usual, "accuracy"), paired(table, cold, labels, "accuracy")
    few = _few_passes(1, 4, 1)
    verdict = FAILS if over.high >= 0 else IN_PART if few.low > 0 else HOLDS
    words = (
        f"T = 1 over T = 4, 1,000 images: {plots.points(over)}, and still {plots.points(helps)} over labels "
        "alone. In one "
        f"pass over 9,000, each tuned: {plots.points(few)}."
    )
    return Finding(verdict, words)


@claim(
    "B11", topic=SETTINGS, says="Avoid a temperature above 15.",
    needs="a loss at high temperatures that can be told apart from none, whatever alpha is",
    by=f"{TEMPERATURES}; {recorded('lesson03-surface', 'lesson 03, section 4')}",
)  # fmt: skip
def too_hot() -> Finding:
    table, surface = read("lesson02-temperatures"), read("lesson03-surface")
    found = {
        t: paired(table, {"temperature": t, "alpha": 0.9}, {"temperature": 4.0, "alpha": 0.9}, "accuracy")
        for t in (16.0, 24.0, 32.0, 64.0, 100.0)
    }
    small = paired(surface, {"temperature": 16.0, "alpha": 0.25}, {"temperature": 4.0, "alpha": 0.25}, "test")
    hurts = [gain.high < 0 for gain in (*found.values(), small)]
    over = ", ".join(f"T = {t:g} {plots.points(gain)}" for t, gain in found.items())
    return Finding(
        HOLDS if all(hurts) else IN_PART if any(hurts) else FAILS,
        f"Over T = 4 at alpha = 0.9: {over}. At alpha = 0.25: T = 16 {plots.points(small)}.",
    )


SCHEDULES = recorded("lesson07-schedules lesson07-schedules-again", "lesson 07, section 1")
TUNED = recorded("lesson07-schedules-tuned lesson07-schedules-tuned-again", "lesson 07, section 1")
STAGES = recorded("lesson07-stages lesson07-stages-again", "lesson 07, section 1")


@claim(
    "B25", topic=SETTINGS, says="Every ten epochs raise alpha where the validation accuracy stalls.",
    needs="more than a constant alpha of the same mean gives, and than the best constant", by=STAGES,
)  # fmt: skip
def on_a_plateau() -> Finding:
    as_told = gains(
        advice("raise alpha at every tenth epoch that stalls", "the constant nearest to its mean alpha")
    )
    tuned = gains(advice("raise alpha on a plateau, tuned", "the tuned constant"))
    table = read("lesson07-stages")
    as_told_rows = table[(table["start"] == 0.5) & (table["step"] == 0.1) & (table["rate"] == LEARNING_RATE)]
    mean = as_told_rows["mean alpha"].mean()
    words = (
        f"It begins at 0.5 and has a mean of {mean:.2f}, so seldom does it stall. Over a constant of its "
        "mean: "
        f"{both(*as_told)}. Tuned, over the tuned constant: {both(*tuned)}."
    )
    acted = (as_told_rows["mean alpha"] > as_told_rows["start"]).mean()
    words += f" Raised in {acted:.0%} of the seeds, so it is hardly tried: that needs a training that stalls."
    return Finding(UNTESTED if acted < 0.5 else of_gains(as_told, tuned), words)


@claim(
    "B26", topic=SETTINGS, says="Let T fall in a straight line from 10 to 1.",
    needs="more than the constant T of its mean gives, and than the best constant",
    by=f"{SCHEDULES}; {TUNED}",
)  # fmt: skip
def falling() -> Finding:
    as_told = gains(advice("anneal T from 10 to 1, linearly", "the constant of its mean T"))
    tuned = gains(advice("anneal T linearly, each tuned", "the tuned constant"))
    words = (
        f"Over the constant of its mean, T = 5.5: {both(*as_told)}. Tuned, over the tuned constant: "
        f"{both(*tuned)}."
    )
    return Finding(of_gains(as_told, tuned), words)


@claim(
    "B28", topic=SETTINGS, says="Train in phases of 50, 30 and 20 % of the epochs, T 8, 2, 1 and alpha .9, .7, .5.",
    needs="more than constants of the same means give, and than the best constants",
    by=f"{SCHEDULES}; {TUNED}",
)  # fmt: skip
def phases() -> Finding:
    told = "three phases, T 8, 2, 1 and alpha .9, .7, .5"
    as_told = gains(advice(told, "the constants of its means"))
    tuned = gains(advice("three phases, each tuned", "the tuned constant"))
    words = (
        f"Over the constants of its means: {both(*as_told)}. Tuned, over the tuned constant: {both(*tuned)}."
    )
    return Finding(of_gains(as_told, tuned), words)


@claim(
    "D22", topic=SETTINGS, says="T = 5 with alpha = 0.7 is a good setting.",
    needs="a good teacher; neighbours on a grid within half a point of its best",
    by=recorded("lesson03-surface", "lesson 03, section 4"),
)  # fmt: skip
def one_setting() -> Finding:
    table = read("lesson03-surface")
    mean = table[table["alpha"] > 0].groupby(["temperature", "alpha"])["test"].mean()
    around = {(t, 0.75): mean[t, 0.75] for t in (4.0, 8.0)}
    labels = {"temperature": 1.0, "alpha": 0.0}
    gain = paired(table, {"temperature": 4.0, "alpha": 0.75}, labels, "test")
    verdict = (
        FAILS if gain.low <= 0 else HOLDS if min(around.values()) > mean.max() - HALF_A_POINT else IN_PART
    )
    said = " and ".join(f"T = {t:g}, alpha = {alpha:g}: {value:.1%}" for (t, alpha), value in around.items())
    best_t, best_alpha = mean.idxmax()
    words = (
        f"Its neighbours on our grid: {said}; the best of all, T = {best_t:g} and alpha = {best_alpha:g}: "
        f"{mean.max():.1%}. "
        f"The first is {plots.points(gain)} over labels alone."
    )
    return Finding(verdict, words)
