"""The build: one source becomes a learner's notebook and its solved twin, or, if it does not run, nothing."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import build_notebooks
import notebook_rules

TINY = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Somebody's kernel
#     name: not-python3
# ---

# %% [markdown]
# # Tiny
# Does the build work?

# %% tags=["parameters"]
profile = None

# %%
from kdlib.lesson import profiles
from kdlib.lesson.exercises import check, hint

profile = profiles.get(profile)
print(profile.name)

# %% exercise="soften" tags=["projector"]

# %% tags=["projector", "figure"]
import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display


class Explorer(ipywidgets.VBox):
    def __repr__(self):
        return "Interactive figure: open the notebook to move it."


display(ipywidgets.IntSlider())
display(Explorer())
_ = plt.plot([1, 2])
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "01_tiny.py").write_text(TINY)
    return tmp_path


def write(root, cell):
    (root / "lessons" / "01_tiny.py").write_text(f"# %%\n{cell}\n")


def read(path):
    return json.loads(path.read_text())


def sources(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"]]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    (root / "lessons").mkdir()
    (root / "lessons" / "01_tiny.py").write_text(TINY)
    assert build_notebooks.main([], root=root) == 0
    return root


def test_a_hint_is_shown_above_the_verdict_once_its_mark_is_taken_away(built):
    learner = nbformat.read(built / "notebooks" / "01_tiny.ipynb", as_version=4)
    learner.cells = learner.cells[:5]
    learner.cells[4].source = learner.cells[4].source.removeprefix("# ")
    NotebookClient(learner, kernel_name="python3").execute()
    said = [output.get("data", {}).get("text/plain", "") for output in learner.cells[4].outputs]
    assert len(said) == 2 and "int 1 of" in said[0] and "soften" in said[1], said


def test_learner_gets_the_stub_and_the_twin_the_solution(built):
    learner = read(built / "notebooks" / "01_tiny.ipynb")
    solved = read(built / "notebooks" / "solutions" / "01_tiny.ipynb")
    stub, check = sources(learner)[3:5]
    assert "return ...  # your code here" in stub and "torch.softmax" not in stub
    assert check.startswith('# display(hint("soften"))') and check.endswith('check("soften", soften)')
    assert "return torch.softmax(logits / temperature, dim=-1)" in sources(solved)[3]
    assert sources(solved)[4] == 'check("soften", soften)'
    tags = [
        [cell["metadata"].get("tags") for cell in notebook["cells"][3:5]] for notebook in (learner, solved)
    ]
    assert tags == [[["exercise", "projector"], ["check"]], [["solution", "projector"], ["check"]]]
    verdicts = [notebook["cells"][4]["outputs"][0]["data"]["text/plain"] for notebook in (learner, solved)]
    assert "not done yet" in verdicts[0][0] and "correct" in verdicts[1][0]


def test_lessons_run_in_the_lesson_profile_whatever_the_surroundings_say(root, monkeypatch):
    monkeypatch.setenv("KDLIB_PROFILE", "ci")
    write(root, "from kdlib.lesson import profiles\nprint(profiles.get().name)")
    assert build_notebooks.main([], root=root) == 0
    assert read(root / "notebooks" / "01_tiny.ipynb")["cells"][0]["outputs"][0]["text"] == ["lesson\n"]


def test_built_notebook_holds_nothing_of_the_machine_or_the_moment(built):
    notebook = read(built / "notebooks" / "01_tiny.ipynb")
    assert [complaint for rule in notebook_rules.CLEAN for complaint in rule(notebook)] == []
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
    }
    assert all(set(cell["metadata"]) <= {"tags", "jupyter"} for cell in notebook["cells"])


def test_the_code_of_cells_that_only_draw_is_folded(built):
    for notebook in (built / "notebooks" / "01_tiny.ipynb", built / "notebooks" / "solutions" / "01_tiny.ipynb"):
        *others, drawing = [cell["metadata"] for cell in read(notebook)["cells"]]
        assert drawing == {"jupyter": {"source_hidden": True}, "tags": ["projector", "figure"]}
        assert not any("jupyter" in metadata for metadata in others)


def test_widget_views_go_and_what_they_say_in_words_stays(built):
    outputs = read(built / "notebooks" / "01_tiny.ipynb")["cells"][5]["outputs"]
    assert [sorted(output["data"]) for output in outputs] == [["text/plain"], ["image/png", "text/plain"]]
    assert outputs[0]["data"]["text/plain"] == ["Interactive figure: open the notebook to move it."]


def test_same_source_gives_the_same_cells_with_unique_ids(root):
    lesson = root / "lessons" / "01_tiny.py"
    first, second = (build_notebooks.generate(lesson, solved=False) for _ in range(2))
    assert first == second
    assert len({cell["id"] for cell in first.cells}) == len(first.cells)


def test_check_passes_what_was_built_and_names_what_is_out_of_date(built, capsys):
    assert build_notebooks.main(["--check"], root=built) == 0
    stale = built / "notebooks" / "solutions" / "01_tiny.ipynb"
    text = stale.read_text()
    stray = built / "notebooks" / "02_gone.ipynb"
    try:
        stale.write_text(text.replace("Tiny", "Tidy"))
        stray.write_text(text)
        assert build_notebooks.main(["--check"], root=built) == 1
        said = capsys.readouterr().out
        assert "solutions/01_tiny.ipynb: not what 01_tiny.py generates" in said
        assert "notebooks/02_gone.ipynb: no lesson generates it" in said
        assert "notebooks/01_tiny.ipynb:" not in said
        stale.unlink()
        assert build_notebooks.main(["--check", "01"], root=built) == 1
        assert "solutions/01_tiny.ipynb: missing" in capsys.readouterr().out
    finally:
        stale.write_text(text)
        stray.unlink()


def test_draft_has_the_cells_and_no_outputs(root):
    assert build_notebooks.main(["--no-execute", "01_tiny"], root=root) == 0
    cells = [
        cell for cell in read(root / "notebooks" / "01_tiny.ipynb")["cells"] if cell["cell_type"] == "code"
    ]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_notebook_that_does_not_run_cleanly_is_not_written(root, capsys):
    kept = root / "notebooks" / "01_tiny.ipynb"
    kept.parent.mkdir()
    kept.write_text("as it was")
    for cell, complaint in {
        "1 / 0": "ZeroDivisionError",
        "import warnings\nwarnings.warn('old')": "stderr says",
        "print('/home/ada/kd/data')": "'/home/ada/kd/data' in an output",
        "object()": "in an output",
        '# \n\n# %% exercise="soften"\nprint("already solved")': "has to be empty",
        '# \n\n# %% exercise="sotfen"': "unknown exercise 'sotfen'",
    }.items():
        write(root, cell)
        assert build_notebooks.main([], root=root) == 1, cell
        said = capsys.readouterr().err
        assert "nothing written" in said and complaint in said, cell
        assert kept.read_text() == "as it was", cell
        assert [path.name for path in root.rglob("*.ipynb")] == ["01_tiny.ipynb"], cell
        assert not list(root.rglob("*.partial")), cell


def test_a_folder_that_cannot_be_written_is_noticed_before_a_lesson_runs(root, capsys):
    write(root, f"open({str(root / 'ran')!r}, 'w')")
    (root / "notebooks").write_text("a file where the folder belongs")
    assert build_notebooks.main([], root=root) == 1
    assert "nothing written" in capsys.readouterr().err and not (root / "ran").exists()


def test_unknown_name_is_an_error_that_lists_the_lessons(root, capsys):
    assert build_notebooks.main(["07"], root=root) == 1
    assert "no lesson begins with '07'; there are: 01_tiny" in capsys.readouterr().err


def test_committed_notebooks_are_what_the_lessons_generate():
    assert build_notebooks.main(["--check"]) == 0
