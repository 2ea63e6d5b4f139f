"""The table of lessons tells the truth: about what is here, about each lesson's question, and in its links."""

import json
import re
from pathlib import Path

from kdlib.lesson import plan

CHECKOUT = Path(__file__).parents[1]


def rows(table):
    return dict(re.findall(r"^\| \[?([0-9]\w+)\]?.* \| ([^|]+) \|$", table, flags=re.MULTILINE))


def test_every_lesson_asks_the_question_that_the_table_says():
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (CHECKOUT / "lessons").glob("*.py")}
    asked = {name: re.search(r"^# \*\*(.+)\*\*$", text, re.MULTILINE)[1] for name, text in sources.items()}
    assert asked == {name: plan.QUESTIONS[name] for name in asked} != {}


def test_the_readme_asks_the_same_questions():
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    row = r"^\| \[[^]]*\]\(notebooks/(\w+)\.ipynb\) \| ([^|]+) \|"
    asked = dict(re.findall(row, readme, flags=re.MULTILINE))
    assert asked == {name: plan.QUESTIONS[name] for name in asked} != {}


def test_a_lesson_is_here_where_its_notebook_is_and_not_yet_where_it_is_not():
    there = {path.stem for path in (CHECKOUT / "notebooks").glob("*.ipynb")}
    assert rows(plan.table(CHECKOUT)) == {
        name: "yes" if name in there else "not yet" for name in plan.QUESTIONS
    }


def test_nothing_is_said_of_a_folder_that_was_not_found():
    assert set(rows(plan.table(None)).values()) == {"?"}


def test_links_lead_to_notebooks_beside_the_one_that_asks_as_from_a_learners_copy(tmp_path, monkeypatch):
    for file in ("notebooks/00_start_here.ipynb", "notebooks/01_principle.ipynb", "mine/01_principle.ipynb"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path / "mine")
    table = plan.table(tmp_path)
    assert re.findall(r"\]\(([^)]+)\)", table) == ["01_principle.ipynb"]
    assert [name for name, here in rows(table).items() if here == "yes"] == ["00_start_here", "01_principle"]


def test_the_committed_first_lesson_shows_what_is_here_now():
    lesson = json.loads((CHECKOUT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in lesson["cells"] for output in cell.get("outputs", ())]
    shown = "\n".join("".join(output.get("data", {}).get("text/markdown", ())) for output in outputs)
    now = rows(plan.table(CHECKOUT))
    assert {name: here for name, here in rows(shown).items() if name in now} == now
