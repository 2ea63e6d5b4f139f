"""The verdict on an answer, from what was observed of it elsewhere: nothing of the learner's runs here."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kdlib.grading import wire
from kdlib.lesson import exercises
from kdlib.lesson.exercises._judge import Behaviour, conclude
from kdlib.lesson.exercises._verdict import CORRECT, UNFINISHED, WRONG

DID_NOT_RUN = "did not run"
STATUSES = (CORRECT, WRONG, UNFINISHED, DID_NOT_RUN)
_ALTERED = "The checks were altered"


def judge(exercise: str, reply: dict[str, Any]) -> tuple[str, str]:
    """The status of an answer, and the mistake in words.

    Args:
        exercise: its name.
        reply: what came back from the process in which it ran.
    """
    if "ended" in reply:
        return DID_NOT_RUN, reply["ended"]
    try:
        if "forged" in reply:
            raise wire.Forged(reply["forged"])
        return _judge(exercises.get(exercise), wire.parse(reply["content"].encode()))
    except wire.Forged as error:
        return WRONG, f"{_ALTERED}: {error}."
    except Exception as error:  # noqa: BLE001 - whatever numbers were sent, the others get their rows
        return WRONG, f"Its result cannot be judged: {wire.shortened(error)}."


def _judge(exercise: exercises.Exercise, report: dict[str, Any]) -> tuple[str, str]:
    troubles = [f"Code cell {cell} stops with {wire.shortened(said)}." for cell, said in report["troubles"]]
    if report.get("altered"):
        return WRONG, f"{_ALTERED}: it changes {wire.shortened(report['altered'])}."
    if report.get("copied"):
        return WRONG, "This is the workbook's own solution, handed back."
    if "failed" in report:
        return DID_NOT_RUN, troubles[
            -1
        ] if troubles else f"The answer stops with {wire.shortened(report['failed'])}."
    cases = exercise.cases()
    behaviour = _behaviour(exercise, cases, report)
    with ThreadPoolExecutor(1) as pool:  # in another thread than the main one the solution is not cut off
        verdict = pool.submit(conclude, exercise, cases, behaviour).result()
    if verdict.passed:
        return CORRECT, ""
    return verdict.status, " ".join([wire.shortened(verdict.message), *troubles[:1]])


def _behaviour(exercise: exercises.Exercise, cases: list[tuple], report: dict[str, Any]) -> Behaviour:
    """What was seen, as the judge takes it.

    Raises:
        Forged: the judge's own code would not have sent this.
    """
    if report.get("objection"):
        status, message = report["objection"]
        if status not in (UNFINISHED, WRONG):
            raise wire.Forged("it sent a verdict of its own")
        return Behaviour(objection=(status, wire.shortened(message)))
    outcomes = [wire.unpack(outcome) for outcome in report["outcomes"]]
    if len(outcomes) != len(cases):
        raise wire.Forged("another number of cases was tried")
    if exercise.is_open:
        _look_again(cases[0][0], report["looks"])
    return Behaviour(outcomes)


def _look_again(laboratory: Any, looks: list) -> None:
    """Ask the judge's own laboratory for what the learner's was asked for: its accuracies are always the same.

    Raises:
        Forged: others were reported.
    """
    for seed, settings, split, accuracy in looks:
        student = laboratory.student(seed, **_as_asked(laboratory, dict(map(tuple, settings))))
        if [list(one) for one in student.settings] != settings or student.accuracy(split) != accuracy:
            raise wire.Forged("its laboratory gave other accuracies than this exercise's")


def _as_asked(laboratory: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Only what the laboratory offers can be asked for; the rest are defaults, which it adds itself."""
    return {name: value for name, value in settings.items() if name in laboratory.settings}
