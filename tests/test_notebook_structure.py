"""Every committed notebook keeps the anatomy of a lesson; and each rule of it catches what it should."""

import copy
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import lesson_anatomy
import notebook_reading as reading
import notebook_rules as rules

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
SOLUTIONS = sorted(NOTEBOOKS.glob("solutions/*.ipynb"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_committed_notebook_and_its_solutions_keep_every_rule(path):
    for written in (path, NOTEBOOKS / "solutions" / path.name):
        notebook = json.loads(written.read_text(encoding="utf-8"))
        found = {rule.__name__: rule(notebook) for rule in rules.CLEAN + rules.LESSON}
        assert {name: complaints for name, complaints in found.items() if complaints} == {}, written


def test_lessons_keep_to_their_size_their_time_and_their_word():
    notebooks = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in LESSONS}
    found = {name: lesson_anatomy.breaches_of(notebook) for name, notebook in notebooks.items()}
    assert found == {name: [] for name in notebooks} != {}


def test_every_lesson_has_its_solutions():
    assert [path.name for path in SOLUTIONS] == [path.name for path in LESSONS] != []


# -------------------------------------------------------------------- the rules themselves


def markdown(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, *outputs, count=None, tags=()):
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source, "outputs": list(outputs),
            "execution_count": count}  # fmt: skip


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data):
    return {
        "output_type": "display_data",
        "metadata": {},
        "data": {key.replace("_", "/"): value for key, value in data.items()},
    }


PICTURE = shown(image_png="iVBO/tmp/x0x12345678", text_plain="<Figure size 640x480 with 1 Axes>")
LIVE = shown(text_plain="Interactive figure: move T.")
CAPTION = shown(text_markdown="*Figure: a line that rises.*")


def good():
    return {
        "metadata": {},
        "nbformat": 4,
        "cells": [
            markdown("# Tiny\n\n**What does a teacher add?**\n"),
            markdown("**Objectives** see it. **Prerequisites** none. **Time** two minutes."),
            code("# for papermill\nprofile = None", count=1, tags=["parameters"]),
            code("draw()", LIVE, PICTURE, CAPTION, count=2, tags=["projector"]),
            code("def a():\n    ...", count=3, tags=["exercise"]),
            code("def b():\n    ...", count=4, tags=["exercise"]),
            code("def c():\n    ...", count=5, tags=["solution"]),
            markdown("A 95 % interval, T = 4, `40 %` wrong labels, 1,000 images, $10\\%$; ![a plot](a.png)"),
            code("# NBVAL_CHECK_OUTPUT\n6 * 7", shown(text_plain="42"), count=6),
            markdown("## Summary\n## Glossary\n## References\n[1]: https://x.org/99%25/81.6%"),
            code("gain = 1\nassert gain > 0", count=7),
        ],
    }


def test_good_notebook_breaks_no_rule():
    for rule in rules.CLEAN + rules.LESSON:
        assert rule(good()) == [], rule.__name__


def broken(change):
    notebook = copy.deepcopy(good())
    change(notebook, notebook["cells"])
    return notebook


def output(*outputs):
    return lambda notebook, cells: cells[3].update(outputs=list(outputs))


def source(number, text):
    return lambda notebook, cells: cells[number].update(source=text)


BREACHES = [
    (
        rules.no_widget_state,
        lambda notebook, cells: notebook["metadata"].update(widgets={}),
        "metadata.widgets",
    ),
    (
        rules.no_widget_state,
        output({"output_type": "display_data", "data": {reading.WIDGET_VIEW: {}}}),
        "widget view",
    ),
    (
        rules.no_errors,
        output({"output_type": "error", "ename": "KeyError", "evalue": "x"}),
        "cell 3: KeyError: x",
    ),
    (rules.no_stderr, output(stream("careful", name="stderr")), "'careful'"),
    (rules.no_machine_traces, output(stream("read /home/ada/data.npz")), "/home/ada/data.npz"),
    (rules.no_machine_traces, output(shown(text_html="<p>D:\\data</p>")), "D:"),
    (rules.no_machine_traces, output(shown(text_plain="<object at 0x7f1234567890>")), "0x7f1234567890"),
    (
        rules.executed_in_order,
        lambda notebook, cells: cells[3].update(execution_count=None),
        "execution counts",
    ),
    (rules.executed_in_order, lambda notebook, cells: cells[3].update(execution_count=9), "execution counts"),
    (
        rules.executed_in_order,
        lambda notebook, cells: [cell.update(outputs=[]) for cell in cells if "outputs" in cell],
        "no cell has an output",
    ),
    (rules.opens_with_a_question, source(0, "Tiny\n\nWhat?"), "# Title"),
    (rules.opens_with_a_question, source(0, "# Tiny\n\nIt works."), "question"),
    (rules.says_what_it_is, source(1, "**Objectives** see it. **Prerequisites** none."), "time"),
    (rules.says_what_it_is, source(1, "**Time** two minutes. **Objectives** see it."), "prerequisites"),
    (rules.says_what_it_is, source(1, "**Time** two minutes. **Prerequisites** none."), "objectives"),
    (rules.has_parameters, lambda notebook, cells: cells[2]["metadata"].clear(), "0 cells tagged"),
    (rules.has_parameters, source(2, "profile = None\nseeds = 3"), "seeds = 3"),
    (rules.short_cells, source(3, "x = 1\n" * 26), "26 lines"),
    (rules.captioned_figures, output(PICTURE), "1 picture"),
    (rules.captioned_figures, output(PICTURE, PICTURE, CAPTION), "1 picture"),
    (rules.captioned_figures, output(CAPTION, PICTURE), "1 picture"),
    (rules.twins_beside_interactive_figures, output(LIVE), "cell 3"),
    (
        rules.interactive_figures_for_the_projector,
        lambda notebook, cells: cells[3]["metadata"].clear(),
        "cell 3",
    ),
    (rules.interactive_figures_for_the_projector, source(8, "surface.LiveSurface(rows)"), "cell 8"),
    (rules.alternative_texts, source(1, "![](plot.png)"), "cell 1"),
    (rules.alternative_texts, output(shown(text_html="<img src='x'>")), "cell 3"),
    (rules.closes_with_references, source(9, "## Summary\n## Glossary\nReferences"), "references"),
    (rules.ends_with_assertions, source(10, "gain = 1"), "asserts nothing"),
    (rules.has_exercises, lambda notebook, cells: cells.pop(4), "2 exercise"),
    (rules.no_typed_results, source(7, "The student reaches 81.6 % here."), "81.6 %"),
    (rules.no_typed_results, source(7, "It reaches 82% here."), "82%"),
    (rules.no_typed_results, source(7, "A gain of +3.4 pp."), "+3.4 pp"),
    (rules.no_typed_results, source(7, "A gain of 4.7 ± .7 percentage points"), "percentage point"),
    (rules.no_typed_results, source(7, "and it is 13 times faster"), "13 times faster"),
    (rules.no_typed_results, source(7, "and 2.5x smaller"), "2.5x smaller"),
    (rules.has_checked_output, source(8, "6 * 7"), "NBVAL_CHECK_OUTPUT"),
]


def test_every_breach_is_caught():
    for rule, change, complaint in BREACHES:
        complaints = rule(broken(change))
        assert any(complaint in found for found in complaints), (rule.__name__, complaint, complaints)


def test_every_rule_has_a_breach_that_it_catches():
    assert {rule for rule, _, _ in BREACHES} == set(rules.CLEAN + rules.LESSON)
