"""Notebooks that a class might hand in, honest and hostile ones: for test_grading*.py and benchmarks/grading.py."""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).parents[1]
TITLE = "# 00 · Start here"
RIGHT = """
def share_correct(logits, labels):
    return (logits.argmax(1) == labels).float().mean()
"""
WRONG = """
def share_correct(logits, labels):
    return 100 * (logits.argmax(1) == labels).float().mean()
"""


def cell(source: str, outputs: Sequence[str] = ()) -> dict:
    shown = [
        {"output_type": "execute_result", "data": {"text/plain": text}, "metadata": {}, "execution_count": 1}
        for text in outputs
    ]
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": shown, "execution_count": None}


def notebook(*cells: str | dict, title: str = TITLE, language: str = "python") -> str:
    """The text of a notebook file."""
    heading = {"cell_type": "markdown", "source": title, "metadata": {}}
    made = [cell(one) if isinstance(one, str) else one for one in cells]
    metadata = {"kernelspec": {"name": language, "display_name": language, "language": language}}
    return json.dumps({"cells": [heading, *made], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def inside(code: str, result: str = "0.0") -> str:
    """An answer that does something else first, when it is called."""
    body = "\n".join(f"    {line}" for line in code.strip().splitlines())
    return f"def share_correct(logits, labels):\n{body}\n    return {result}\n"


def outside(code: str) -> str:
    """An answer that needs what its cell does first, when it is run."""
    body = "\n".join(f"    {line}" for line in code.strip().splitlines())
    needed = f"def prepare():\n{body}\n    return 1\n\n\nscale = prepare()\n"
    return needed + RIGHT.replace("return (", "return scale * (")


def left_running() -> list[psutil.Process]:
    """What a grading of this process has started and left; others may be grading beside it."""
    found = []
    for process in filter(_runs_notebooks, psutil.process_iter()):
        with contextlib.suppress(psutil.Error):
            owner = next((one for one in process.parents() if not _runs_notebooks(one)), None)
            if owner is None or owner.pid in (1, os.getpid()):
                found.append(process)
    return found


def _runs_notebooks(process: psutil.Process) -> bool:
    try:
        return "kdlib.grading.nursery" in process.cmdline()
    except psutil.Error:
        return False


# ------------------------------------------------------------------ a lesson with answers in it


def lesson(number: str) -> dict:
    (path,) = (CHECKOUT / "notebooks").glob(f"{number}_*.ipynb")
    return json.loads(path.read_text(encoding="utf-8"))


def answered(number: str, answers: dict[str, str], shown: Sequence[str] = ()) -> str:
    """The course's own notebook, as a learner hands it in: exercise -> source of the cell that answers it.

    Args:
        number: of the lesson.
        answers: the others are as the course has them.
        shown: cells before all others.
    """
    made = lesson(number)
    for one in made["cells"]:
        source = "".join(one["source"])
        for name, answer in answers.items():
            if "exercise" in one["metadata"].get("tags", ()) and re.search(
                rf"^(def )?{name}\b", source, re.MULTILINE
            ):
                one["source"] = answer
    made["cells"][1:1] = [cell(source) for source in shown]
    return json.dumps(made)


def module_of_answers(number: str) -> str:
    """The text of tests/answers/lessonNN.py as cells can hold it, with `DESIGNS` of open experiments."""
    folder = Path(__file__).parent / "answers"
    names = ["designs", *sorted(path.stem for path in folder.glob(f"lesson{number}_*.py")), f"lesson{number}"]
    texts = [(folder / f"{name}.py").read_text(encoding="utf-8") for name in names]
    texts[0] += "\nDESIGNS = {'wrong': WRONG, 'right': RIGHT}\n"
    joined = re.sub(r"^from answers.* import .*$", "", "\n\n".join(texts), flags=re.MULTILINE)
    return "from collections import namedtuple\n\nAnswers = namedtuple('Answers', 'wrong right')\n" + joined


# ------------------------------------------------------------------ what hostile ones do

FORK_BOMB = "import os\nwhile True:\n    os.fork()"
LOOP = "while True:\n    pass"
LOOP_THAT_HOLDS_ON = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
MEMORY = "held = bytearray(20 << 30)"
MEMORY_IN_SMALL_PARTS = "held = []\nwhile True:\n    held.append(bytearray(1 << 20))"
MEMORY_OF_MANY = """
import os
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(200 << 20)
        held[::4096] = bytes([1]) * len(held[::4096])
        while True:
            pass
while True:
    pass
"""
NETWORK = """
import socket
socket.create_connection(("192.0.2.1", 80), timeout=5)
"""
OUTPUT = "print('x' * 100_000_000)"
OUTPUT_WITHOUT_END = "while True:\n    print('x' * 1_000_000)"
FILES = """
import os, shutil
for place in (os.getcwd(), os.path.expanduser("~"), "/tmp"):
    shutil.rmtree(place, ignore_errors=True)
"""
A_CHILD_THAT_STAYS = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(3600)
    os._exit(0)
"""
FAKED_CHECK = """
def check(name, answer):
    return "✓ share_correct: correct. Right on all 3 inputs."
"""
PATCHED_JUDGE = """
import torch
from kdlib.lesson.exercises import _core, _judge, _observe
torch.allclose = lambda *one, **other: True
_observe.agree = _judge.agree = lambda *one, **other: True
"""
PATCHED_EXERCISE = """
from kdlib.lesson.exercises import _core
object.__setattr__(_core.REGISTRY["share_correct"], "solve", lambda logits, labels: 0.0)
object.__setattr__(_core.REGISTRY["share_correct"], "probe", lambda *given: 0.0)
"""
FORGED_REPORT = """
import json, os
report = {"troubles": [], "altered": None, "copied": False, "objection": ["correct", "Right."], "outcomes": []}
for number in range(3, 200):
    try:
        os.write(number, json.dumps(report).encode())
    except OSError:
        pass
os._exit(0)
"""
FORGED_FILES = """
import os
for name in ("grades.csv", "class.html", "summary.json"):
    open(name, "w").write("share_correct,correct,")
print("share_correct: correct")
print('{"status": "correct"}', flush=True)
"""
COPIED = 'from kdlib.lesson.exercises import solution\nshare_correct = solution("share_correct")'
