"""The tool that measures lessons: every rule finds its breach, and a clean lesson breaks none."""

import copy
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import lesson_anatomy as anatomy
import shown_code

from kdlib.lesson import exercises
from kdlib.lesson.predictions import predict

HALVES = {"less": (None, 0), "more": (0, None)}
DECIDED, UNDECIDED = (
    repr(predict("?", HALVES).compare(measured)) for measured in ((0.01, 0.005, 0.015), (0, -0.01, 0.01))
)
PICTURE = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBO"}}


def names_of_kind(kind):
    return [name for name in exercises.names() if anatomy._kind(exercises.get(name)) == kind]


FOUR = [
    *names_of_kind("write")[:2],
    names_of_kind("repair or interpret")[0],
    names_of_kind("open experiment")[0],
]


def prose(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text, *outputs, tags=()):
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": text, "outputs": list(outputs),
            "execution_count": 1}  # fmt: skip


def said(text):
    return {"output_type": "execute_result", "metadata": {}, "data": {"text/plain": text}}


def asks(name):
    return [
        code(f"def {name}(*_):\n    ...", tags=["exercise"]),
        code(f'check("{name}", {name})', tags=["check"]),
    ]


def good():
    cells = [
        prose("# Tiny\n\nWhat is it?\n\n**Time.** About 26 minutes."),
        code("import torch"),
        prose("## 1. One\n\nAs Ada and others (2015) say, $x + y$ is `x + y`."),
        code('gain = predict("?", options)'),
        code("gain.compare(measured)", said(DECIDED)),
        code("draw()", PICTURE, tags=["figure"]),
        *(cell for name in FOUR for cell in asks(name)),
        prose("The end.\n\n## Summary\n\nIt is."),
        prose("## Further\n\n" + "more " * 3000),
        prose(
            "## References\n\n- A. Ada, B. Byron: *On Things*. 2015, [arXiv:2001.01234](https://x.org/2002).\n\nNext."
        ),
        code("assert True"),
    ]
    return {"metadata": {}, "cells": cells}


def with_cells(*cells, exercise):
    """A notebook whose only exercise stands below these cells."""
    return {
        "metadata": {},
        "cells": [code("import torch\nimport torch.nn.functional as F"), *cells, *asks(exercise)],
    }


# ------------------------------------------------------------------ the measures


def test_a_clean_lesson_breaks_no_rule_and_is_measured_up_to_its_summary():
    assert anatomy.breaches_of(good()) == []
    found = anatomy.measure(good())
    words = len("Tiny What is it Time About 26 minutes 1 One As Ada and others 2015 say is The end".split())
    assert (found.words, found.sections, found.exercises, found.figures, found.stated) == (words, 1, 4, 1, 26)
    assert found.lines == 3 + 4 * 3  # the picture's code is folded
    assert found.minutes == pytest.approx(words / 200 + 15 / 15 + 4 * 6 + 2)


def test_words_are_those_of_prose_and_of_tables():
    for text, count in {
        "one *two* **three**, [four](https://a.org/b/c) - 5": 5,
        "$$a + b$$ and $c$, `d e f`\n```python\nx = 1\n```": 1,
        "| one | two |\n|:--|--:|\n| three | $x$ |": 3,
        "# Title\n\n- item": 2,
    }.items():
        assert anatomy._count_words(text) == count, text


def test_a_static_twin_and_its_interactive_figure_are_one_figure():
    live, drawn = said("Interactive figure: move it."), PICTURE
    for cells, count in [
        ([[drawn], [live]], 1), ([[live], [drawn]], 1), ([[live, drawn]], 1), ([[drawn], [drawn]], 2),
        ([[drawn], [live], [drawn]], 2), ([[drawn], [live], [drawn], [live]], 2), ([[live], [], [drawn]], 2),
        ([[drawn, drawn]], 1), ([[]], 0),
    ]:  # fmt: skip
        assert anatomy._count_figures([code("show()", *outputs) for outputs in cells]) == count, cells


# ------------------------------------------------------------------ the rules


def changed(change):
    notebook = copy.deepcopy(good())
    change(notebook["cells"])
    return notebook


def source(number, text):
    return lambda cells: cells[number].update(source=text)


def without(*numbers):
    return lambda cells: cells.__setitem__(slice(None), [c for n, c in enumerate(cells) if n not in numbers])


def shows(number, *outputs):
    return lambda cells: cells[number].update(outputs=list(outputs))


BREACHES = [
    (anatomy.short_enough, source(2, "word " * 2001), "words in the core path; 2,000 at most"),
    (anatomy.short_enough, source(1, "x = 1\n" * 251), "visible lines of code in the core path; 250 at most"),
    (anatomy.short_enough, source(2, "".join(f"## {n}. Part\n" for n in range(1, 8))), "7 sections"),
    (anatomy.honest_time, source(0, "# Tiny"), "no line `**Time.** About N minutes`"),
    (
        anatomy.honest_time,
        source(0, "**Time.** About 20 minutes"),
        "it states 20 minutes, and the rule gives 27",
    ),
    (
        anatomy.honest_time,
        source(0, "**Time.** About 35 minutes"),
        "it states 35 minutes, and the rule gives 27",
    ),
    (anatomy.honest_time, source(0, "**Time.** About 80 minutes"), "it states 80 minutes; 75 at most"),
    (anatomy.short_cells, source(1, "x = 1\n" * 26), "cell 1: 26 lines"),
    (anatomy.exercises_of_every_kind, without(6, 7), "1 exercise(s) of the kind 'write'; at least 2"),
    (anatomy.exercises_of_every_kind, without(10, 11), "'repair or interpret'; at least 1"),
    (anatomy.exercises_of_every_kind, without(12, 13), "'open experiment'; at least 1"),
    (anatomy.exercises_of_every_kind, without(12, 13), "3 exercise(s); at least four"),
    (anatomy.references_cited, source(2, "As Ada says."), "not cited: Ada with 2015 after it"),
    (anatomy.references_cited, source(2, "As Byron (2015) says."), "not cited: Ada with 2015 after it"),
    (anatomy.references_cited, source(2, "As Ada (2001) says."), "not cited: Ada with 2015 after it"),
    (
        anatomy.references_cited,
        source(16, "## References\n\n- A. Ada: *On Things*."),
        "its year, which the entry",
    ),
    (anatomy.predictions_decided, source(4, "measured"), "cell 3: no output of gain.compare(...)"),
    (anatomy.predictions_decided, shows(4), "cell 3: no output of gain.compare(...)"),
    (anatomy.predictions_decided, shows(4, said(UNDECIDED)), "cell 3: what is measured does not decide gain"),
    (
        anatomy.answers_above,
        source(1, exercises.get(FOUR[0]).solution_source()),
        f"passes check({FOUR[0]!r})",
    ),
]


def test_every_breach_is_found():
    for rule, change, complaint in BREACHES:
        found = rule(changed(change))
        assert any(complaint in one for one in found), (complaint, found)


def test_every_rule_has_a_breach_that_it_finds():
    assert {rule for rule, _, _ in BREACHES} == set(anatomy.RULES)


def test_an_exercise_that_does_not_exist_and_a_cell_that_is_no_python_are_breaches():
    unknown = anatomy.breaches_of(changed(lambda cells: cells.extend(asks("no_such_exercise"))))
    assert any("unknown exercise 'no_such_exercise'" in breach for breach in unknown)
    assert any("cannot be judged" in breach for breach in anatomy.breaches_of(changed(source(1, "x = = 1"))))


# ------------------------------------------------------------------ no answer above its exercise

# Above the exercise `soften(logits, temperature)`: softmax(logits / temperature) over the last dimension.
ANSWERS = {
    "a function under other names": "def sharpen(z, T):\n    return (z / T).softmax(-1)",
    "a function inside of another": "def outer():\n    def f(z, T):\n        return (z / T).softmax(-1)\n    return f",
    "a function whose second name has a default": "def sharpen(z, T=4.0):\n    return (z / T).softmax(-1)",
    "a function of names from outside": "def sharpen(z):\n    return (z / T).softmax(-1)",
    "a function that calls another": "def half(z):\n    return z.softmax(-1)\n\n\ndef f(a, b):\n    return half(a / b)",
    "a lambda": "pick = lambda z, T: (z / T).softmax(-1)",
    "an expression": "print(torch.softmax(wanted / T, dim=-1))",
    "an expression inside of text": 'print(f"{F.softmax(wanted / T, dim=-1)}")',
    "an expression of what is read from names": "p = F.softmax(table['x'] / settings.temperature, dim=-1)",
    "an expression of what a network gives": "p = F.softmax(student(images) / T, dim=-1)",
    "a number that has a name": "T = 4\np = F.softmax(z / T, dim=-1)",
    "statements that follow one another": "a = wanted / T\nb = a - a.logsumexp(-1, keepdim=True)\np = b.exp()",
    "statements inside of a loop": "for T in (1, 2):\n    a = z / T\n    p = a.softmax(-1)\n    print(p)",
    "a loop at the end": "p = z / T\nfor once in (1,):\n    p = p.softmax(-1)",
}


def test_whatever_solves_an_exercise_under_any_names_is_found_above_it():
    for what, text in ANSWERS.items():
        found = anatomy.answers_above(with_cells(code(text), exercise="soften"))
        assert found and all(
            "passes check('soften')" in one and one.startswith("cell 1: ") for one in found
        ), what


def test_statements_of_neighbouring_cells_are_tried_together():
    cells = code("a = z / T"), prose("Then:"), code("p = a.softmax(-1)")
    assert "passes check('soften')" in anatomy.answers_above(with_cells(*cells, exercise="soften"))[0]


def test_code_in_the_prose_is_tried():
    for text in (
        "```python\ndef f(z, T):\n    return (z / T).softmax(-1)\n```",
        "So it is `(z / T).softmax(-1)`.",
    ):
        assert "cell 1" in anatomy.answers_above(with_cells(prose(text), exercise="soften"))[0], text


def test_a_function_of_the_library_is_tried_where_it_is_named():
    for text in (
        "import kdlib.metrics as m\nm.paired_interval",
        "from kdlib.metrics import paired_interval as p\np",
    ):
        found = anatomy.answers_above(with_cells(code(text), exercise="paired_gain"))
        assert found and "passes check('paired_gain')" in found[0], text


def test_a_printed_source_is_tried_in_the_names_of_its_own_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_up_lesson.py").write_text(
        "import torch as other_name\n\n\ndef _soft(z):\n    return other_name.softmax(z, -1)\n\n\n"
        "def shown(z, T):\n    return _soft(z / T)\n\n\ndef not_shown(z, T):\n    return (z / T).softmax(-1)\n"
    )
    printing = "import inspect\nimport made_up_lesson\nprint(inspect.getsource(made_up_lesson.{}))"
    found = anatomy.answers_above(with_cells(code(printing.format("shown")), exercise="soften"))
    passes = "`def shown(z, T): ... return _soft(z / T)` passes check('soften') with z, T for its parameters"
    assert found == [f"cell 1: {passes}"]
    assert anatomy.answers_above(with_cells(code(printing.format("_soft")), exercise="soften")) == []
    missing = anatomy.answers_above(with_cells(code(printing.format("gone")), exercise="soften"))
    assert missing == ["cell 1: the source of made_up_lesson.gone is not found; name what is printed"]


def test_what_is_no_answer_or_stands_below_is_no_breach():
    for text in (
        "p = F.softmax(z / 4, dim=-1)",  # no number may be replaced
        "p = F.softmax(z * T, dim=-1)",
        "def wrong(z, T):\n    return (z / T).log_softmax(-1)",
        "def percent(z, T):\n    return (100 * z / T).softmax(-1)",
        "def anything(*z, **T):\n    return 1",
    ):
        assert anatomy.answers_above(with_cells(code(text), exercise="soften")) == [], text
    below = with_cells(exercise="soften")
    below["cells"].append(code("def sharpen(z, T):\n    return (z / T).softmax(-1)"))
    assert anatomy.answers_above(below) == []


def test_an_experiment_shown_above_an_open_one_is_found():
    name = names_of_kind("open experiment")[0]
    shown = (
        exercises.get(name)
        .solution_source()
        .replace(f"def {name}(lab)", "def mine(room)")
        .replace("lab.", "room.")
    )
    found = anatomy.answers_above(with_cells(code(shown), exercise=name))
    assert found and f"passes check({name!r})" in found[0]


def test_the_function_of_an_earlier_exercise_may_be_used_but_not_shown():
    use = [*asks("softened_entropy"), code("h = softened_entropy(z, T)")]
    assert anatomy.answers_above(with_cells(*use, exercise="soften")) == []
    assert "softened_entropy" in anatomy.answers_above(with_cells(*use, exercise="softened_entropy"))[0]


def test_nothing_of_a_lesson_runs_that_trains_loads_or_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [
        code("from pathlib import Path\nfrom kdlib import training, data\nfrom os import system"),
        code('open("a", "w").write("x")\nPath("b").touch()\ntorch.save(z, "c")\nsystem("touch d")'),
        code("def save(z, T):\n    torch.save(z, 'e')\n    return z"),
        code("def indirect(z, T):\n    return save(z, T)"),
        code("student = training.train(z, T)\nraise SystemExit"),
        code("class Saver:\n    def __call__(self, z):\n        exec(z)"),
    ]
    assert anatomy.answers_above(with_cells(*cells, exercise="soften")) == []
    assert list(tmp_path.iterdir()) == []


def test_an_endless_loop_ends():
    endless = code("def f(z, T):\n    while True:\n        z = z + T")
    assert anatomy.answers_above(with_cells(endless, exercise="soften")) == []


def test_a_list_that_grows_without_end_is_no_answer():
    growing = code("order = seed * 1_000_003 + epoch")  # a list of accuracies for the seed: five million elements
    assert anatomy.answers_above(with_cells(growing, exercise="paired_gain")) == []


def test_every_candidate_of_the_lessons_is_a_function_that_can_be_made():
    for path in sorted(anatomy.ROOT.glob("notebooks/0[13]_*.ipynb")):
        found, _ = shown_code.shown(json.loads(path.read_text(encoding="utf-8")), {})
        assert len(found) > 100, path.name
        for candidate in found[::5]:
            assert callable(candidate.make()), (path.name, candidate.text)


# ------------------------------------------------------------------ the command


def write(folder, name, notebook):
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook))


def test_the_command_prints_measures_and_breaches_and_tells_by_its_status(tmp_path, capsys):
    write(tmp_path, "01_good", good())
    assert anatomy.main([], notebooks=tmp_path) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["lesson", "words", "lines"] and row.split()[0] == "01_good"
    broken = changed(source(0, "# Tiny"))
    write(tmp_path, "02_broken", broken)
    assert anatomy.main([], notebooks=tmp_path) == 1
    assert "    no line `**Time.** About N minutes`\n" in capsys.readouterr().out
    assert anatomy.main(["01"], notebooks=tmp_path) == 0


def test_a_name_that_no_lesson_has_is_an_error(tmp_path, capsys):
    assert anatomy.main(["99"], notebooks=tmp_path) == 2
    assert "no lesson begins with 99" in capsys.readouterr().err
