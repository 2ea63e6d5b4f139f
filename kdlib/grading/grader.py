"""Grades what a class has handed in: each answer of each notebook runs apart, and is judged here."""

import contextlib
import math
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from kdlib.grading import MEMORY, SECONDS, judging, nursery, processes, protection, wire
from kdlib.lesson import course, exercises

_READING_SECONDS = 30
_LEAST_SHARE = 10  # each answer gets at least this part of a notebook's time, whatever the others took

Steps = Generator[dict[str, Any], dict[str, Any], None]


class Row(NamedTuple):
    """One line of the table."""

    notebook: str
    exercise: str
    status: str
    mistake: str


@dataclass
class Graded:
    """One notebook, after it was graded."""

    notebook: str
    path: Path
    lesson: str | None = None
    rows: list[Row] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float | int = 0.0

    def add(self, exercise: str, status: str, mistake: str) -> None:
        self.rows.append(Row(self.notebook, exercise, status, mistake))


@dataclass
class Class:
    """All of them.

    Attributes:
        graded: in the order in which the notebooks were named.
        questions: for each lesson its questions of `predict`, with options, measured value and answer.
        interrupted: by Ctrl-C; what was not done then has a row that says so.
    """

    graded: list[Graded]
    questions: dict[str, list[dict[str, Any]]]
    interrupted: bool = False

    @property
    def rows(self) -> list[Row]:
        return [row for one in self.graded for row in one.rows]


def grade(
    notebooks: Sequence[str | Path], *, jobs: int | None = None, seconds: float | int = SECONDS, memory: int = MEMORY,
    report: Callable[[str], None] = print,
) -> Class:  # fmt: skip
    """Grade notebooks; whatever is in them, each gets its rows.

    Args:
        notebooks: files, and folders of which all notebooks are taken.
        jobs: how many at a time; by default one per core.
        seconds: of computing, for the answers of one notebook.
        memory: in MB, for one answer.
        report: is told which protections are in force, and of each notebook that is done.

    Raises:
        FileNotFoundError: one of them does not exist; nothing has run.
        ValueError: there are none, or a limit is too small or no number; nothing has run.
        OSError: the process that runs notebooks did not start.
    """
    paths = find(notebooks)
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    for name, value, least in (("jobs", jobs, 1), ("seconds", seconds, 1), ("memory", memory, 300)):
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least} and finite, got {value}")
    with _Grading(seconds, memory, report) as grading:
        return grading.run(paths, jobs)


def find(notebooks: Sequence[str | Path]) -> dict[str, Path]:
    """Name -> file: the files that are named, and the notebooks in the folders that are named.

    Raises:
        FileNotFoundError: one of them does not exist.
        ValueError: there are none.
    """
    found: dict[str, Path] = {}
    for given in map(Path, notebooks):
        if given.is_dir():
            inside = sorted(path for path in given.rglob("*") if path.suffix.lower() == ".ipynb")
            files = [
                path
                for path in inside
                if not any(part.startswith(".") for part in path.relative_to(given).parts)
            ]
        elif given.exists():
            given, files = given.resolve() if given.is_symlink() else given, [given]
        else:
            raise FileNotFoundError(f"there is no {str(given)!r}: name notebooks, or folders of them")
        found |= {str(path): path.absolute() for path in files}
    if not found:
        raise ValueError("no notebook was found: name notebooks, or folders that hold files ending in .ipynb")
    return found


class _Grading:
    """The grading of one class, with the process in which everything of the learners' is started."""

    def __init__(self, seconds: float | int, memory: int, report: Callable[[str], None]) -> None:
        self.seconds, self.memory, self.report = seconds, memory, report
        self.lessons: dict[str, list[str]] = {}
        for name in exercises.names():
            self.lessons.setdefault(exercises.get(name).lesson, []).append(name)
        self.questions: dict[str, list[dict[str, Any]]] = {}
        self.tickets = 0

    def __enter__(self) -> "_Grading":
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the others are for the learners' answers
        self._start()
        for words in self.walls.sentences(self.memory):
            self.report(words)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop()
        torch.set_num_threads(self.threads)

    def _start(self) -> None:
        self.process = processes.start("kdlib.grading.nursery")
        self.replies: queue.SimpleQueue = queue.SimpleQueue()
        # Where both sides wrote and neither read, two full pipes would stop them for ever.
        self.reader = threading.Thread(target=_read, args=(self.process.stdout, self.replies), daemon=True)
        self.reader.start()
        first = self.replies.get()
        if first is None:
            raise OSError(
                f"the process that runs notebooks did not start (exit status {self.process.wait()})"
            )
        self.walls = protection.Walls(*first["walls"])

    def _stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            processes.end(self.process.pid)
            self.process.wait()
        self.reader.join()
        self.process.stdout.close()

    def run(self, paths: dict[str, Path], jobs: int) -> Class:
        graded = [Graded(name, path) for name, path in paths.items()]
        waiting, active = deque(graded), {}
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    one = waiting.popleft()
                    one.seconds = -time.monotonic()
                    self._go_on(active, one, self._steps(one), None)
                if active:
                    self._take(active)
        except KeyboardInterrupt:
            unfinished = [one for one in graded if one.seconds < 0] + [*waiting]
            for one in unfinished:
                one.rows, one.seconds = [], 0.0
                one.add("", judging.DID_NOT_RUN, "The grading was interrupted before this notebook was done.")
            return Class(graded, self.questions, interrupted=True)
        return Class(graded, self.questions)

    # -------------------------------------------------------------- requests and replies

    def _go_on(self, active: dict, one: Graded | None, steps: Steps, reply: dict | None) -> None:
        """Give a notebook the reply that it waits for, and send its next request."""
        try:
            request = steps.send(reply)
        except StopIteration:
            if one is not None:
                one.seconds = round(one.seconds + time.monotonic(), 1)
                self._tell(one)
            return
        self.tickets += 1
        request = {**request, "ticket": self.tickets, "memory": self.memory}
        active[self.tickets] = one, steps, request
        self._send(request)

    def _send(self, request: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended: that is seen where its reply is read
            nursery.send(self.process.stdin, request)

    def _take(self, active: dict) -> None:
        reply = self.replies.get()
        if reply is None:
            self._start_again(active)
            return
        one, steps, _ = active.pop(reply["ticket"])
        self._go_on(active, one, steps, reply)

    def _start_again(self, active: dict) -> None:
        """Where there are no namespaces an answer can end the process that runs it: find out which one it was."""
        suspects = list(active.values())
        active.clear()
        ended = {"ended": "It ended the process that runs the notebooks.", "used": 0}
        replies = []
        for _, _, request in suspects:
            self._restart()
            self._send(request)
            replies.append(self.replies.get() or ended)
        self._restart()
        # Only now, when all were tried, may any of them go on: a request sent before would have been lost.
        for (one, steps, _), reply in zip(suspects, replies, strict=True):
            self._go_on(active, one, steps, reply)

    def _restart(self) -> None:
        self._stop()
        self._start()

    def _tell(self, one: Graded) -> None:
        counts = [f"{sum(row.status == status for row in one.rows)} {status}" for status in judging.STATUSES]
        said = ", ".join(text for text in counts if not text.startswith("0 "))
        self.report(f"{wire.shortened(one.notebook)}: {said} ({one.seconds:.1f} s)")

    # -------------------------------------------------------------- a notebook

    def _plan(self, path: Path) -> dict[str, Any]:
        return {"task": "plan", "path": str(path), "lessons": self.lessons, "seconds": _READING_SECONDS}

    def _held(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "content" not in reply:
            return {"problem": reply.get("ended") or reply["forged"]}
        try:
            return wire.parse(reply["content"].encode())
        except wire.Forged as error:
            return {"problem": str(error)}

    def _steps(self, one: Graded) -> Steps:
        """Find out what the notebook holds, then run and judge its answers, one after the other."""
        held = self._held((yield self._plan(one.path)))
        if "problem" in held:
            one.add("", judging.DID_NOT_RUN, _sentence(held["problem"]))
            return
        one.lesson, one.predictions, one.remarks = held["lesson"], held["predictions"], held["remarks"]
        if one.lesson not in self.questions:
            yield from self._read_lesson(one.lesson)
        share, left = self.seconds / _LEAST_SHARE, self.seconds
        asked = self.lessons[one.lesson]
        for later, exercise in zip(reversed(range(len(asked))), asked, strict=True):
            answer = held["answers"][exercise]
            if "missing" in answer:
                one.add(exercise, answer["missing"], wire.shortened(answer["mistake"]))
                continue
            seconds = max(left - later * share, share)
            reply = yield {"task": "answer", "exercise": exercise, **answer, "seconds": seconds}
            left -= reply["used"]
            one.add(exercise, *judging.judge(exercise, reply))

    def _read_lesson(self, lesson: str) -> Steps:
        """From the course's own notebook: the order of the exercises, and the answers to the questions."""
        folder = course.checkout() or course.packaged()
        path = next(folder.glob(f"notebooks/{lesson}_*.ipynb"), None) if folder else None
        held = self._held((yield self._plan(path))) if path else {"predictions": [], "answers": {}}
        # A teacher may have taken exercises out of it, or left it unreadable.
        self.questions[lesson] = held.get("predictions", [])
        answers = held.get("answers", {})
        cells = {name: found["pieces"][-1][0] for name, found in answers.items() if found.get("pieces")}
        self.lessons[lesson].sort(key=lambda name: cells.get(name, 0))


def _read(stream: BinaryIO, replies: queue.SimpleQueue) -> None:
    """Take replies as they come, and None at their end."""
    reply: dict[str, Any] | None = {}
    while reply is not None:
        reply = nursery.receive(stream)
        replies.put(reply)


def _sentence(text: str) -> str:
    text = wire.shortened(text)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
