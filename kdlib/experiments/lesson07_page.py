"""Lesson 07: the page a practitioner prints, as Markdown. Every number on it comes from a recorded table.

`python tools/printed_page.py` writes it to docs/what_to_try_first.md; a notebook shows `markdown()`.
"""

import inspect

import pandas

from kdlib import metrics
from kdlib.experiments import lesson02, lesson03, lesson07_advice, lesson07_capacity
from kdlib.experiments.lesson07_steps import TABLES as OF_STEPS
from kdlib.experiments.lesson07_steps import Step, earlier, require, steps
from kdlib.lesson import results
from kdlib.training import diagnosis

__all__ = ["Step", "TABLES", "markdown", "steps"]

COMMAND = "python tools/printed_page.py"
OF_ADVICE = (
    "lesson07-schedules", "lesson07-schedules-tuned", "lesson07-stages-tuning", "lesson07-stages-edge-tuning",
    "lesson07-stages", "lesson07-augmentation", "lesson07-targets", "lesson07-capacity", "lesson07-norms",
)  # fmt: skip
TABLES = tuple(dict.fromkeys((*OF_STEPS, *OF_ADVICE)))
SAVINGS = "stored targets"  # the topic whose controls are the dearer way: there, no difference is what one hopes for
QUESTIONS = {  # in the order in which to ask them, with what to do where the answer is no
    diagnosis.does_the_teacher_see_what_it_knows: "`kdlib.teachers.freeze(teacher, mean=..., std=...)`",
    diagnosis.is_the_teacher_ahead: "a better teacher, or several by `kdlib.teachers.combine`",
    diagnosis.do_the_targets_belong_to_the_images: "store them anew: order of classes, rows, views, logits",
    diagnosis.does_the_term_reach_the_student: "sum the KL over the classes, times T^2; raise alpha",
    diagnosis.does_the_student_follow: "train longer or at a higher rate; more images; a larger student",
    diagnosis.is_it_more_than_noise: "more seeds, as many as the answer says, before any other change",
}


def markdown() -> str:
    """The whole page.

    Raises:
        ValueError: tables that are not recorded yet, all by name; what `steps` refuses.
    """
    require(TABLES)
    advice = pandas.concat([earlier(), lesson07_advice.rows()], ignore_index=True)
    parts = [
        "# What to try first",
        _regime(),
        _table(steps()),
        "## What was not worth it here",
        _reading(advice),
        _topics(advice[advice["topic"] != SAVINGS], "not told apart"),
        "## What may be saved",
        _topics(advice[advice["topic"] == SAVINGS], "no cost that shows"),
        "## My student is no better than its baseline: why?",
        _tree(),
        "---",
        _footer(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _regime() -> str:
    teachers = results.read("lesson03-teachers").groupby("teacher")["teacher_test"].mean()
    parameters = lesson07_capacity.size(lesson07_capacity.ASSISTANT)["parameters"]
    return (
        f"Measured in one regime: {lesson03.IMAGES:,} images of Fashion-MNIST, a tiny-cnn of {parameters / 1000:.0f} "
        f"thousand parameters, {lesson03.EPOCHS} passes, T = {lesson02.TEMPERATURE:g}, alpha = {lesson02.ALPHA:g} (the "
        f"weight of the teacher), a teacher that is right about {100 * teachers.max():.0f} % of the test images; a row "
        "says where it differs. Try from top to bottom. Gains are points of test accuracy over what stands beside, "
        "mean and 95 % interval over seeds that both share."
    )


def _table(rows: list[Step]) -> str:
    lines = ["| | Try | Over | Gain | Seeds | Lesson |", "|---:|---|---|---|---:|---:|"]
    for number, step in enumerate(rows, start=1):
        found = lesson07_advice.verdict(step.gain)
        words = _points(step.gain) + ("" if found == "helps" else f", {found}")
        lines.append(
            f"| {number} | **{step.words}.** {step.why}. | {step.over} | {words} | {step.seeds} | {step.lesson} |"
        )
    return "\n".join(lines)


def _points(gain: metrics.Interval) -> str:
    """In points, as "+1.2 [+0.4, +2.0]"."""
    mean, low, high = (_signed(value) for value in gain)
    return f"{mean} [{low}, {high}]"


def _signed(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}"  # + 0.0: no "-0.0"


def _reading(advice: pandas.DataFrame) -> str:
    found = advice["gain"].map(lesson07_advice.verdict).value_counts()
    counts = [found.get(name, 0) for name in ("helps", "not told apart", "hurts")]
    return (
        f"Of {len(advice)} pieces of advice {counts[0]} help, {counts[1]} are not told apart from their control, and "
        f"{counts[2]} hurt. Those that do not help are listed, in points: what hurts with its gain, what is not told "
        "apart with the range in which all intervals of its group lie. An asterisk: other seeds gave another verdict."
    )


def _topics(advice: pandas.DataFrame, no_difference: str) -> str:
    """A line for each topic; `no_difference` says what "not told apart" means here."""
    lines = []
    for topic, rows in advice.groupby("topic", sort=False):
        verdicts = rows["gain"].map(lesson07_advice.verdict)
        none, hurts = (rows[verdicts == found] for found in ("not told apart", "hurts"))
        parts = [f"*{no_difference}*: {_alike(none)}."] if len(none) else []
        parts += [f"*hurts*: {_each(hurts)}."] if len(hurts) else []
        if parts:
            lines.append(f"- **{topic}**, {len(rows)} measured. {' '.join(parts)}")
    return "\n".join(lines)


def _alike(rows: pandas.DataFrame) -> str:
    """What has one control together, with the range in which all its intervals lie."""
    groups = []
    for over, group in rows.groupby("over", sort=False):
        low, high = min(gain.low for gain in group["gain"]), max(gain.high for gain in group["gain"])
        words = "; ".join(f"{row['advice']}{_doubt(row)}" for _, row in group.iterrows())
        groups.append(f"over {over} [{_signed(low)}, {_signed(high)}]: {words}")
    return " / ".join(groups)


def _each(rows: pandas.DataFrame) -> str:
    return " / ".join(
        f"over {row['over']} {_points(row['gain'])}: {row['advice']}{_doubt(row)}" for _, row in rows.iterrows()
    )


def _doubt(row: pandas.Series) -> str:
    """An asterisk where other seeds gave another verdict."""
    other = row.get("verdict of other seeds")
    return r"\*" if isinstance(other, str) and other != row["verdict"] else ""


def _tree() -> str:
    lines = [
        "Ask in this order; the first *no* is where to begin. `from kdlib.training import diagnosis`; all six at once: "
        f"`{_call(diagnosis.examine)}`.",
        "",
    ]
    for number, (function, otherwise) in enumerate(QUESTIONS.items(), start=1):
        question = f"{function.__name__.replace('_', ' ').capitalize()}?"
        lines.append(f"{number}. **{question}** `{_call(function)}`. If not: {otherwise}.")
    return "\n".join(lines)


def _call(function) -> str:
    """A call with all that the function cannot do without."""
    needed = [
        name if one.kind is one.POSITIONAL_OR_KEYWORD else f"{name}=..."
        for name, one in inspect.signature(function).parameters.items()
        if one.default is one.empty
    ]
    return f"diagnosis.{function.__name__}({', '.join(needed)})"


def _footer() -> str:
    """The command that made the page, and those that recorded its tables, by their days."""
    again = [f"{name}-again" for name in OF_ADVICE if f"{name}-again" in results.recorded()]
    days: dict[str, list[str]] = {}
    for name in (*TABLES, *again):
        days.setdefault(results.manifest(name)["date"], []).append(name)
    recorded = "; ".join(f"on {day} by `kdlib record {' '.join(days[day])}`" for day in sorted(days))
    return f"<sub>Made by `{COMMAND}` from tables that were recorded {recorded}.</sub>"
