"""The audit as a table."""

import pandas

from kdlib.audit import accuracy, code, settings, size, speed, tasks, training  # noqa: F401 - they register claims
from kdlib.audit._core import TOPICS, VERDICTS, claims, measure


def table(*, verdict: str | None = None, topic: str | None = None) -> pandas.DataFrame:
    """The claims with what was measured, each measured once.

    Args:
        verdict: only those of this verdict.
        topic: only those of this topic.

    Returns:
        Columns tutorial, topic, claim, needs, measured, verdict, by; the index is the number of the claim.

    Raises:
        ValueError: an unknown verdict or topic.
    """
    for name, value, known in (("verdict", verdict, VERDICTS), ("topic", topic, TOPICS)):
        if value is not None and value not in known:
            raise ValueError(f"{name} must be None or one of {', '.join(known)}, got {value!r}")
    rows = []
    for one in claims():
        if topic not in (None, one.topic):
            continue
        finding = measure(one.number)
        if verdict in (None, finding.verdict):
            rows.append(
                {
                    "number": one.number, "tutorial": one.number[0], "topic": one.topic, "claim": one.says,
                    "needs": one.needs, "measured": finding.measured, "verdict": finding.verdict, "by": one.by,
                }
            )  # fmt: skip
    columns = ["number", "tutorial", "topic", "claim", "needs", "measured", "verdict", "by"]
    return pandas.DataFrame(rows, columns=columns).set_index("number")


def counts() -> pandas.DataFrame:
    """How many claims of each topic (rows, and a last row for all) have each verdict (columns)."""
    found = table()
    tally = pandas.crosstab(found["topic"], found["verdict"])
    tally = tally.reindex(index=list(TOPICS), columns=list(VERDICTS), fill_value=0)
    tally.loc["all"] = tally.sum()
    return tally
