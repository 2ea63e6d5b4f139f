"""`kdlib grade`: what it finds in a notebook, how it judges from afar, and what a teacher gets."""

import csv
import doctest
import io
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import handed_in as made
import nbformat
import pytest
import torch
from answers import designs, lesson00, lesson01, lesson10

from kdlib import cli
from kdlib.grading import grader, handed_in, judging, otter, report, statements, wire
from kdlib.lesson import exercises
from kdlib.lesson.exercises import _judge
from kdlib.lesson.predictions import predict

needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="notebooks are graded where processes can be forked"
)
LESSONS: dict[str, list[str]] = {}
for _name in exercises.names():
    LESSONS.setdefault(exercises.get(_name).lesson, []).append(_name)


def examine(*cells, name="handed.ipynb", **about) -> dict:
    return handed_in.examine(made.notebook(*cells, **about).encode(), name, LESSONS)


def code_of(*cells, exercise="share_correct") -> str:
    return "\n".join(code for _, _, code in examine(*cells)["answers"][exercise]["pieces"])


# ------------------------------------------------------------------ what an answer needs


def test_only_what_an_answer_needs_is_run():
    code = code_of(
        "import torch\nfrom torch import nn\nhalf = 0.5",
        "student = nn.Linear(3, 2)\nfor step in range(10**9):\n    student(torch.zeros(3))",
        "def helper(logits):\n    return below(logits) * half",
        "def below(logits):\n    return logits.argmax(1)\nprint(below)",
        "def share_correct(logits, labels):\n    step = helper(logits)\n    return (step == labels).float().mean()",
        "half = 7",
    )
    assert "def helper" in code and "def below" in code and "half = 0.5" in code
    assert "half = 7" not in code and "student" not in code and "print" not in code and "import" not in code


@pytest.mark.parametrize(
    "change",
    ["weights.append(2)", "weights[0] = 2", "weights += [2]", "add(2)", "del weights[0]", "weights = weights * 2",
     "for one in range(3):\n    weights.append(one)", "if True:\n    weights = []", "%time weights.append(3)"],
)  # fmt: skip
def test_what_changes_something_that_is_needed_is_needed(change):
    code = code_of(
        "weights = [1]\ndef add(one):\n    weights.append(one)",
        change,
        "def share_correct(logits, labels):\n    return weights[0]",
    )
    assert code.index("weights = [1]") < code.index("def share_correct")
    assert change.splitlines()[-1].strip().removeprefix("%time ") in code


def test_magics_and_stars_are_understood():
    assert "def share_correct" in code_of("%%time\n" + made.RIGHT)
    assert "share_correct" not in str(examine("%%bash\nrm -rf /", made.RIGHT)["answers"]["repair_report"])
    assert "from math import *" in code_of("from math import *", "!pip install x", made.RIGHT)
    assert statements.read(1, "a = 1; b = a\nc = 2")[0].code == "a = 1; b = a"


def test_a_function_reads_what_is_bound_when_it_is_called():
    code = code_of(
        "scale = 1\ndef scaled(x):\n    return scale * x",
        "one = scaled(1)\nscale = 2",
        "scale = 3\nlarge = [n for n in range(10**9)]",
        "def share_correct(logits, labels):\n    return scaled(one)\nlarge = 1",
        "check('share_correct', share_correct)\nscale = 4",
    )
    assert [n for n in (1, 2, 3, 4) if f"scale = {n}" in code] == [1, 3] and "large" not in code


# ------------------------------------------------------------------ what is in a notebook


@pytest.mark.parametrize(
    "cells, expression, last",
    [
        ([made.RIGHT, 'check("share_correct", share_correct)'], "share_correct", "mean"),
        (["def mine(a, b):\n    return 1", 'v = check("share_correct", mine)'], "mine", "return 1"),
        (['check("share_correct", mine)', "def mine(a, b):\n    return 1"], "mine", "return 1"),
        (['check("share_correct", share_correct)', made.WRONG], "share_correct", "100"),
        ([made.WRONG, 'check("share_correct", lambda a, b: 1)'], "lambda a, b: 1", ""),
        (
            [made.RIGHT, 'exercises.check(name="share_correct", answer=share_correct)'],
            "share_correct",
            "mean",
        ),
        ([made.RIGHT, '# check("share_correct", share_correct)'], "share_correct", "mean"),
        ([made.RIGHT, 'check("share_correct", gone)'], "share_correct", "mean"),
        (["share_correct = lambda a, b: 1"], "share_correct", "lambda"),
    ],
)
def test_the_answer_is_what_check_is_given_last_or_what_bears_the_name(cells, expression, last):
    found = examine(*cells)["answers"]["share_correct"]
    assert found["expression"] == expression
    assert last in "".join(code for _, _, code in found["pieces"][-1:])


def test_each_notebook_of_the_course_is_of_its_lesson_and_holds_its_answers():
    for number in LESSONS:
        found = handed_in.examine(json.dumps(made.lesson(number)).encode(), "x.ipynb", LESSONS)
        assert (
            found["lesson"] == number
            and found["answers"].keys() == set(LESSONS[number])
            and not found["remarks"]
        )
        assert all("pieces" in answer for answer in found["answers"].values())
        assert len(found["predictions"]) >= 3 and all(one["answer"] for one in found["predictions"])


@pytest.mark.parametrize(
    "cells, about, lesson",
    [
        (["x = 1"], {"title": "# 07 · Training strategies"}, "07"),
        (["x = 1"], {"title": "none", "name": "Anna 03_loss_balancing (2).ipynb"}, "03"),
        (["def soften(a, b):\n    pass"], {"title": "# Mine", "name": "a.ipynb"}, "01"),
        (["def soften(a, b:\n    pass"], {"title": "# Mine", "name": "a.ipynb"}, "01"),
    ],
)
def test_a_lesson_is_known_by_its_exercises_its_title_or_its_name(cells, about, lesson):
    found = examine(*cells, **about)
    assert found["lesson"] == lesson and found["answers"].keys() == set(LESSONS[lesson])


def test_an_answer_that_is_lost_or_broken_says_so():
    answers = examine("def share_correct(a, b):\n    return (", made.RIGHT.replace("share_", "other_"))[
        "answers"
    ]
    assert answers["share_correct"]["missing"] == "did not run"
    assert (
        answers["share_correct"]["mistake"] == "Code cell 1 is not Python: SyntaxError: '(' was never closed."
    )
    assert answers["repair_report"]["missing"] == "not done yet"
    assert answers["repair_report"]["mistake"] == "There is no repair_report in this notebook."


def test_predictions_are_read_from_what_was_printed_under_them():
    options = {"nothing": (0, 2), "some": (2, 10), "much": (10, 50)}
    asked = (
        "guess = predict(\n    'How much?', {'nothing': (0, 2), 'some': (2, 10), 'much': (10, 50)}, unit='%')"
    )
    for chosen in (None, "nothing", "much"):
        question = predict("How much?", options, unit="%")
        question.choice = chosen
        (found,) = examine(
            asked, made.cell("guess.compare(0.05)", [repr(question.compare(0.05))]), made.RIGHT
        )["predictions"]
        assert (found["question"], found["options"], found["chosen"]) == ("How much?", list(options), chosen)
        assert found["measured"] == "5.0 %" and [
            report.is_right(one, found["answer"]) for one in options
        ] == [0, 1, 0]
    undecided = repr(question.compare((0.10, 0.09, 0.11))).splitlines()[2].removeprefix("Answer:").strip()
    assert [report.is_right(option, undecided) for option in options] == [False, True, True]


def test_who_replaces_check_is_remarked():
    assert examine("from kdlib.lesson.exercises import check, hint", made.RIGHT)["remarks"] == []
    assert examine(made.RIGHT, made.FAKED_CHECK)["remarks"] == ["code cell 2 replaces the course's check"]


# ------------------------------------------------------------------ judged from afar


def from_afar(exercise: str, answer) -> tuple[str, str]:
    """As `kdlib grade` does it, but in this process: run, pack, send, unpack, judge."""
    asked = exercises.get(exercise)
    cases = asked.cases()
    seen = _judge.watch(asked, answer, cases)
    sent = {
        "troubles": [],
        "objection": seen.objection,
        "outcomes": [wire.pack(one) for one in seen.outcomes],
    }
    if asked.is_open:
        sent["looks"] = [[one.seed, list(one.settings), one.split, one.accuracy] for one in cases[0][0].looks]
    return judging.judge(exercise, {"content": json.dumps(sent)})


@pytest.mark.usefixtures("one_thread")
def test_the_verdict_from_afar_is_that_of_check():
    known = {**lesson00.ANSWERS, "soften": lesson01.SOFTEN, "flawed_study": lesson10.FLAWED_STUDY}
    for name, answers in known.items():
        for answer in [*answers.wrong.values(), *answers.right, 3, ..., lambda: None, "text"]:
            verdict = exercises.check(name, answer)
            expected = verdict.status, "" if verdict.passed else wire.shortened(verdict.message)
            assert from_afar(name, answer) == expected, (name, verdict)


def test_designs_are_judged_from_afar_as_by_check():
    for words, design in designs.WRONG.items():
        status, mistake = from_afar("teacher_or_more", design)
        assert status == "not yet right" and words.lower() in mistake.lower(), mistake
    assert {from_afar("my_task_experiment", design) for design in designs.RIGHT} == {("correct", "")}


def forged(**changed) -> dict:
    packed = wire.pack(_judge.Outcome({"result": torch.tensor(0.8, dtype=torch.float64)}))
    sent = {
        "troubles": [],
        "objection": None,
        "outcomes": [packed] * len(exercises.get("share_correct").cases()),
    }
    return {"content": json.dumps({**sent, **changed})}


def of_numbers(numbers: list, **more) -> dict:
    outcome = {"unfinished": False, "changed_input": False, "numbers": numbers, **more}
    return forged(outcomes=[outcome] * len(exercises.get("share_correct").cases()))


@pytest.mark.parametrize(
    "reply",
    [
        {"content": "no JSON"}, {"content": "[]"}, {"content": "{}"}, {"content": "[" * 100_000},
        {"forged": "something else reported a result"}, forged(altered="torch.allclose"),
        forged(objection=["correct", "Right."]), forged(outcomes=[]), forged(outcomes=[None] * 3), forged(),
        of_numbers([["a", [10**9], "AAAA"]]), of_numbers([["a", [-1], ""]]), of_numbers([["a", [1], "!"]]),
        of_numbers([]), of_numbers([], error=["os", "system", "ls", ""]),
        of_numbers([], error=["builtins", "KeyError", "a", "KeyError"]),
    ],
)  # fmt: skip
def test_a_forged_report_is_never_correct(reply):
    status, mistake = judging.judge("share_correct", reply)
    assert status == "not yet right" and mistake


def test_accuracies_of_a_laboratory_of_ones_own_are_not_believed():
    def design(lab):
        return designs.RIGHT[0](lab)

    asked = exercises.get("teacher_or_more")
    cases = asked.cases()
    seen = _judge.watch(asked, design, cases)
    looks = [[one.seed, list(one.settings), one.split, 0.9] for one in cases[0][0].looks]
    sent = {"troubles": [], "objection": None, "outcomes": [wire.pack(*seen.outcomes)], "looks": looks}
    status, mistake = judging.judge("teacher_or_more", {"content": json.dumps(sent)})
    assert status == "not yet right" and mistake.startswith("The checks were altered")


# ------------------------------------------------------------------ what a teacher gets


def a_class(tmp_path: Path) -> grader.Class:
    asked = {
        "question": "How <much>?",
        "options": ["little", "much"],
        "measured": "5 %",
        "answer": "much (2 or more)",
    }
    rows = [
        ("anna", "correct", ""),
        ("böris", "not yet right", 'These are "percent",\nsaid `check`.'),
        ("çem", "not yet right", 'These are "percent",\nsaid `check`.'),
        ("<b>", "did not run", "=1+1"),
    ]
    graded = []
    for number, (learner, status, mistake) in enumerate(rows):
        chosen = [None, "much", "much", "little"][number]
        one = grader.Graded(
            f"{learner}/00.ipynb", tmp_path / learner / "00.ipynb", "00", [], [{**asked, "chosen": chosen}]
        )
        one.add("share_correct", status, mistake)
        graded.append(one)
    apart = grader.Graded("=nothing.ipynb", tmp_path / "=nothing.ipynb")
    apart.add("", "did not run", "The file is empty.")
    return grader.Class([*graded, apart], {"00": [asked]})


def test_the_table_can_be_read_again_and_computes_nothing(tmp_path):
    rows = list(csv.reader(io.StringIO(report.table(a_class(tmp_path).rows).decode())))
    assert rows[0] == ["notebook", "exercise", "status", "mistake"]
    assert rows[2] == [
        "böris/00.ipynb",
        "share_correct",
        "not yet right",
        'These are "percent",\nsaid `check`.',
    ]
    assert rows[4][3] == "'=1+1" and rows[5][0] == "'=nothing.ipynb"


def test_the_summary_counts(tmp_path):
    words = report.summary(a_class(tmp_path))
    (line,) = [line.split() for line in words.splitlines() if line.startswith("  share_correct ")]
    assert line[1:] == ["1", "2", "0", "1"]
    assert (
        'share_correct, 2 times: These are "percent"' in words
        and "'=nothing.ipynb': The file is empty." in words
    )
    assert (
        "much   ## 2   <- measured: 5 %" in words
        and "little # 1\n" in words
        and "1 without an answer" in words
    )


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name == "href"]

    def handle_data(self, data):
        self.text += data


def test_pages_show_verdicts_hints_and_histograms_and_never_the_solution(tmp_path):
    graded = a_class(tmp_path / "in")
    page = Page(report.write_pages(graded, tmp_path / "out"))
    assert len(page.links) == len(graded.graded) and "b" not in page.tags and "script" not in page.tags
    assert "How <much>?" in page.text and "much (measured: 5 %)" in page.text
    feedback = Page(tmp_path / "out" / "learners" / "böris" / "00.html")
    assert (
        feedback.text.count("Hint")
        == len(exercises.get("share_correct").hints)
        == feedback.tags.count("details")
    )
    assert 'These are "percent"' in feedback.text and "code" in feedback.tags
    assert "labels).float().mean()" not in feedback.text
    assert "Hint" not in Page(tmp_path / "out" / "learners" / "anna" / "00.html").text


def test_notebooks_of_one_name_have_pages_of_their_own(tmp_path):
    paths = [tmp_path / name for name in ("a/x.ipynb", "b/x.ipynb", "a/x", "a/x.html")]
    pages = report._addresses([grader.Graded(str(path), path) for path in paths])
    assert len({*pages}) == len(pages) and all(page.suffix == ".html" for page in pages)


@pytest.mark.parametrize(
    "paths",
    [
        ["M\udcfcller.ipynb"],
        [f"{'a' * 240}.ipynb", f"{'a' * 239}b.ipynb"],
        ["a.ipynb", "a.html/b.ipynb"],
        ["../../other/a.ipynb", "b.ipynb"],
        ["../class.ipynb", "b.ipynb"],
    ],
)
def test_whatever_a_notebook_is_called_it_has_a_page_among_those_of_the_learners(tmp_path, paths):
    graded = [grader.Graded(path, tmp_path / "deep" / "handed" / path, lesson="00") for path in paths]
    for one in graded:
        one.add("share_correct", judging.CORRECT, "")
    summary = report.write_pages(grader.Class(graded, {"00": []}), tmp_path / "out")
    pages = [path for path in (tmp_path / "out").rglob("*.html") if path != summary]
    assert len(pages) == len(paths) and all(tmp_path / "out" / "learners" in page.parents for page in pages)
    assert not [*tmp_path.rglob("*.partial")] and not (tmp_path / "other").exists()


# ------------------------------------------------------------------ the process that runs notebooks

STAND_IN = """
import sys
from kdlib.grading import nursery
nursery.send(sys.stdout.buffer, {"walls": [False, False]})
while (request := nursery.receive(sys.stdin.buffer)) and not request["fatal"]:
    nursery.send(sys.stdout.buffer, {"ticket": request["ticket"], "used": 0, "filling": request["filling"]})
"""


def graded_by_a_stand_in(
    monkeypatch, requests: dict[str, list[dict]]
) -> tuple[list[str], dict[str, list[dict]]]:
    """Grade with made-up requests: what was reported, and by notebook the replies."""
    replies: dict[str, list[dict]] = {}

    def start(module):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, "-c", STAND_IN], cwd=made.CHECKOUT, start_new_session=True, **pipes
        )

    def steps(grading, one):
        for request in requests[one.notebook]:
            replies.setdefault(one.notebook, []).append((yield {"fatal": False, "filling": "", **request}))

    monkeypatch.setattr(grader.processes, "start", start)
    monkeypatch.setattr(grader._Grading, "_steps", steps)
    said: list[str] = []
    with grader._Grading(1, 500, said.append) as grading:
        grading.run({name: Path(name) for name in requests}, jobs=2)
    return said, replies


@needs_fork
def test_an_answer_that_ends_the_process_of_all_loses_nobody_elses_request(monkeypatch):
    requests = {"a": [{}, {}, {}], "b": [{"fatal": True}, {}], "c": [{}, {"fatal": True}]}
    said, replies = graded_by_a_stand_in(monkeypatch, requests)
    ended = {name: ["ended" in reply for reply in found] for name, found in replies.items()}
    assert ended == {"a": [False, False, False], "b": [True, False], "c": [False, True]}
    assert sorted(line[:2] for line in said[-3:]) == ["a:", "b:", "c:"]


@needs_fork
def test_large_requests_and_large_replies_do_not_wait_for_each_other(monkeypatch):
    filling = "x" * 2_000_000  # far beyond what a pipe holds
    _, replies = graded_by_a_stand_in(monkeypatch, {name: [{"filling": filling}] * 3 for name in "abc"})
    assert [[len(reply["filling"]) for reply in found] for found in replies.values()] == [[2_000_000] * 3] * 3


@needs_fork
def test_an_adapted_course_and_an_interrupt_leave_the_table_whole(monkeypatch, tmp_path):
    course_notebook = made.lesson("00")
    course_notebook["cells"] = course_notebook["cells"][:4]  # the teacher's has no exercises
    made.write(tmp_path / "course" / "notebooks" / "00_start_here.ipynb", json.dumps(course_notebook))
    monkeypatch.setattr(grader.course, "checkout", lambda: tmp_path / "course")
    for name in ("anna.ipynb", "bert.IPYNB"):
        made.write(tmp_path / "class" / name, made.notebook(made.RIGHT))

    def interrupted_after_the_first(words):
        if "anna.ipynb:" in words:
            raise KeyboardInterrupt

    found = grader.grade([tmp_path / "class"], jobs=1, report=interrupted_after_the_first)
    anna, bert = found.graded
    assert (
        found.interrupted
        and {row.exercise: row.status for row in anna.rows}["share_correct"] == judging.CORRECT
    )
    assert [(row.status, "interrupted" in row.mistake) for row in bert.rows] == [(judging.DID_NOT_RUN, True)]


# ------------------------------------------------------------------ the command


@needs_fork
def test_the_command_grades_a_folder(tmp_path, capsys):
    names = {
        "soften": 'soften = ANSWERS["soften"].right[1]',
        "kd_loss": 'kd_loss = ANSWERS["kd_loss"].wrong["you forgot T^2"]',
        "paired_gain": "1 / 0\nraise SystemExit\n\ndef paired_gain(a, b):\n    return gone",
    }
    module = made.module_of_answers("01")
    answers = {name: f"{module}\n{text}" if "ANSWERS" in text else text for name, text in names.items()}
    made.write(
        tmp_path / "class" / "anna" / "01_principle.ipynb", made.answered("01", answers, shown=["1 / 0"])
    )
    solved = {name: exercises.get(name).solution_source() for name in LESSONS["00"]}
    made.write(tmp_path / "class" / "00_start_here.ipynb", made.answered("00", solved))
    made.write(tmp_path / "class" / ".ipynb_checkpoints" / "00_start_here.ipynb", "")
    table, pages = tmp_path / "grades.csv", tmp_path / "pages"
    assert (
        cli.main(["grade", str(tmp_path / "class"), "--csv", str(table), "--html", str(pages), "--jobs", "2"])
        == 0
    )
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    of_anna = {row["exercise"]: row for row in rows if "anna" in row["notebook"]}
    assert list(of_anna) == [
        "soften",
        "kd_loss",
        "train_by_hand",
        "aligned_logits",
        "paired_gain",
        "teacher_or_more",
    ]
    assert [row["status"] for row in rows if "00_start" in row["notebook"]] == ["correct"] * 4
    assert of_anna["soften"]["status"] == "correct" and "T^2" in of_anna["kd_loss"]["mistake"]
    assert of_anna["train_by_hand"]["status"] == "not done yet"
    assert "NameError" in of_anna["paired_gain"]["mistake"]
    assert (pages / "learners" / "anna" / "01_principle.html").exists() and (pages / "class.html").exists()
    printed = capsys.readouterr().out
    assert "in force: limits of time" in printed and "00_start_here, handed in 1 times" in printed


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["absent.ipynb", "--csv", "g.csv"], "there is no 'absent.ipynb'"),
        (["empty", "--csv", "g.csv"], "no notebook was found"),
        (["a.ipynb"], "--csv FILE"),
        (["--csv", "g.csv"], "name notebooks"),
        (["a.ipynb", "--csv", "g.csv", "--jobs", "0"], "jobs must be at least 1 and finite, got 0"),
        (["a.ipynb", "--csv", "g.csv", "--seconds", "0"], "seconds must be at least 1"),
        (["a.ipynb", "--csv", "g.csv", "--seconds", "nan"], "and finite, got nan"),
        (["a.ipynb", "--csv", "g.csv", "--seconds", "inf"], "and finite, got inf"),
        (["a.ipynb", "--csv", "."], "--csv . is a folder"),
        (["a.ipynb", "--csv", "g.csv", "--memory", "5"], "memory must be at least 300 and finite, got 5"),
        (["a.ipynb", "--otter", "out", "00"], "grades nothing"),
        (["--otter", "out", "99"], "there is no lesson '99'"),
        (["--otter", ".", "00"], "00_start_here.ipynb is there, and not from an assignment"),
    ],
)
@needs_fork
def test_bad_options_are_told_in_a_sentence(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    if "a.ipynb" in arguments:
        made.write(tmp_path / "a.ipynb", made.notebook())
    made.write(tmp_path / "00_start_here.ipynb", "{}")
    (tmp_path / "empty").mkdir()
    assert cli.main(["grade", *arguments]) == 2
    assert words in capsys.readouterr().err


@needs_fork
def test_without_namespaces_there_are_still_limits_and_an_end():
    """As on macOS, or in a container that allows no namespaces."""
    code = """
import os, sys, tempfile
from pathlib import Path
from kdlib.grading import nursery, processes, protection

def work():
    try:
        Path("large").write_bytes(bytes(20 << 20))
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        os.write(away, str(error.strerror).encode())
    if os.fork() == 0:
        os.fork()
    while True:
        pass

near, away = os.pipe()
protection.adopt_orphans()
with tempfile.TemporaryDirectory() as folder:
    pid = os.fork()
    if pid == 0:
        protection.enter(
            protection.Walls(False, False), work, Path(folder), seconds=5, memory=500, keep=(away,)
        )
    print(os.read(near, 100).decode())
    while len(list(processes.tree(pid))) < 3:
        pass
    processes.end(pid)
    os.waitpid(pid, 0)
    nursery._collect_orphans(but=set())
    print(len(processes.psutil.Process().children(recursive=True)))
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=made.CHECKOUT, capture_output=True, text=True, timeout=100)
    assert process.stdout.split("\n")[:2] == ["File too large", "0"], process.stderr


# ------------------------------------------------------------------ otter


def test_an_assignment_for_otter_calls_the_same_checks(tmp_path):
    files = otter.write(tmp_path, "start_here")
    tests = {path.stem: path for path in files if path.parent.name == "tests"}
    assert set(tests) == set(LESSONS["00"]) and (tmp_path / "requirements.txt").read_text().startswith(
        "kdlib"
    )
    notebook = nbformat.read(tmp_path / "00_start_here.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for name, path in tests.items():
        found: dict = {}
        exec(path.read_text(), found)
        assert found["OK_FORMAT"] is True and (found["test"]["name"], found["test"]["points"]) == (name, 1)
        (suite,) = found["test"]["suites"]
        (case,) = suite["cases"]
        assert suite["type"] == "doctest" and suite["scored"] and case.keys() == {"code", "hidden", "locked"}
        assert attempts_that_fail(case["code"], {name: exercises.get(name).solve}) == 0
        assert attempts_that_fail(case["code"], {name: lambda *given: 3.0}) == 1


def attempts_that_fail(code: str, names: dict) -> int:
    """What otter does with a case."""
    test = doctest.DocTestParser().get_doctest(code, dict(names), "case", None, None)
    return doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed
