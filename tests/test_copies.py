"""The learner's copies: made once, never touched again, and kept when a fresh one takes their place."""

import errno
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import open_lab
import pytest
from IPython.core.interactiveshell import InteractiveShell

from kdlib import cli
from kdlib.lesson import copies, course
from kdlib.lesson import lab as lab_module

CHECKOUT = Path(__file__).parents[1]
LESSONS = ("00_start_here", "01_principle", "02_temperature")
STRANGER = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
STRANGER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A course of three lessons, which is the current folder."""
    folder = open_lab.write_course(tmp_path / "my course", LESSONS)
    monkeypatch.chdir(folder / "notebooks")
    return folder


def change(path: Path, old: str, new: str) -> bytes:
    """Replace a text in a file; return the file's new content."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path.read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -------------------------------------------------------------------- made


def test_a_copy_is_the_lesson_without_outputs(repository):
    made = copies.make_missing(repository)
    assert [copy.stem for copy in made] == list(LESSONS)
    for copy in made:
        assert copy.parent == repository / "my_notebooks"
        lesson, copied = (nbformat.read(path, 4) for path in (repository / "notebooks" / copy.name, copy))
        assert lesson.cells[-1].outputs and lesson.cells[-1].execution_count == 7
        assert copied.cells[-1].outputs == [] and copied.cells[-1].execution_count is None
        for cell, other in zip(lesson.cells, copied.cells, strict=True):
            assert (cell.cell_type, cell.source, cell.metadata) == (
                other.cell_type,
                other.source,
                other.metadata,
            )
        assert copied.metadata.kernelspec == lesson.metadata.kernelspec
    assert copies.make_missing(repository) == []


def test_making_copies_changes_neither_the_lessons_nor_what_is_run_by_default(repository):
    before, lessons = contents(repository / "notebooks"), course.lessons(repository)
    copies.make_missing(repository)
    assert contents(repository / "notebooks") == before and course.lessons(repository) == lessons


def test_a_copy_is_the_learner_s_whatever_becomes_of_the_lesson(repository):
    first, second, third = copies.make_missing(repository)
    mine = change(first, "print(1)", "print('my answer')")
    third.write_text("{ what a learner's program wrote")
    before = contents(first.parent)
    change(repository / "notebooks" / first.name, "print(1)", "print(2)")
    change(repository / "notebooks" / second.name, "print(1)", "print(2)")
    (repository / "notebooks" / third.name).unlink()
    open_lab.write_lesson(repository / "notebooks" / "03_new.ipynb", "# New")
    assert [copy.stem for copy in copies.make_missing(repository)] == ["03_new"]
    after = contents(first.parent)
    assert after.pop("03_new.ipynb") and after == before and after[first.name] == mine


def test_starts_at_the_same_time_make_each_copy_once(repository):
    with ThreadPoolExecutor(8) as pool:
        made = [copy for some in pool.map(copies.make_missing, [repository] * 8) for copy in some]
    assert sorted(copy.stem for copy in made) == list(LESSONS)
    assert sorted(contents(made[0].parent)) == [f"{name}.ipynb" for name in LESSONS]
    assert all(nbformat.read(copy, 4).cells for copy in made)


def test_a_copy_that_appears_while_it_is_being_made_stays(repository, monkeypatch):
    place, fresh = copies.folder(repository), copies._fresh

    def meanwhile(lesson, scratch):
        (place / lesson.name).write_text("my answer")
        return fresh(lesson, scratch)

    monkeypatch.setattr(copies, "_fresh", meanwhile)
    for link in (os.link, no_second_names):
        monkeypatch.setattr(os, "link", link)
        assert copies.make_missing(repository) == []
        assert set(contents(place).values()) == {b"my answer"}
        shutil.rmtree(place)


def no_second_names(*names, **options):
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_links_lead_from_a_copy_to_the_lessons_and_the_solutions(repository):
    lesson = repository / "notebooks" / "01_principle.ipynb"
    text = (
        "[next](02_temperature.ipynb#why) [the solution](solutions/01_principle.ipynb) "
        "[spaced](<./solutions/01_principle.ipynb>) <a href='solutions/01_principle.ipynb'>s</a> "
        "[named] [far](https://example.org/solutions/x) The folder `solutions/` has [them](../README.md).\n\n"
        "[named]: solutions/01_principle.ipynb"
    )
    open_lab.write_lesson(lesson, text)
    open_lab.write_lesson(lesson.parent / "solutions" / lesson.name, "# Solved")
    (repository / "README.md").touch()
    copies.make_missing(repository)
    source = nbformat.read(copies.folder(repository) / lesson.name, 4).cells[0].source
    assert "https://example.org/solutions/x" in source and "folder `solutions/` has" in source
    targets = re.findall(r"\]\(<?([^)>#]+)|\]: (\S+)|href='([^']+)", source)
    local = [target for target in map("".join, targets) if "://" not in target]
    assert len(local) == 6 and sum("solutions" in target for target in local) == 4
    assert all((copies.folder(repository) / target).is_file() for target in local), local


def test_the_lessons_of_this_course_link_to_what_is_there_and_find_each_other_from_a_copy(
    tmp_path, monkeypatch
):
    (tmp_path / "kdlib").mkdir()
    (tmp_path / "kdlib" / "__init__.py").touch()
    shutil.copytree(CHECKOUT / "notebooks", tmp_path / "notebooks")
    made = copies.make_missing(tmp_path)
    monkeypatch.chdir(made[0].parent)
    links = 0
    for copy in made:
        cells = nbformat.read(copy, 4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target and not target.startswith("attachment:"):
                links += 1
                assert Path(target).exists(), f"{copy.name}: {target}"
    assert links
    sources = [cell.source for cell in nbformat.read(made[0], 4).cells if cell.cell_type == "code"]
    (source,) = (source for source in sources if "plan.table(" in source)
    shell = InteractiveShell()
    shell.run_cell("from IPython.display import Markdown\nfrom kdlib.lesson import course, plan")
    table = shell.run_cell(source).result.data
    for copy in made:
        assert f"| [{copy.stem}]({copy.name}) |" in table
    assert table.count("| yes |") == len(made)


# -------------------------------------------------------------------- outdated


def test_a_copy_is_outdated_when_its_lesson_has_changed_but_not_when_it_ran_again(repository):
    first, second, third = copies.make_missing(repository)
    assert copies.outdated(repository) == []
    change(first, "print(1)", "print('my answer')")
    change(repository / "notebooks" / second.name, "an output of the course", "another one")
    change(repository / "notebooks" / second.name, '"execution_count": 7', '"execution_count": 8')
    assert copies.outdated(repository) == []
    change(repository / "notebooks" / first.name, "print(1)", "print(2)")
    change(repository / "notebooks" / third.name, '"check"', '"check", "figure"')
    assert copies.outdated(repository) == [first, third]
    copies.reset(repository, ["00"])
    assert copies.outdated(repository) == [third]


def test_of_a_file_that_is_no_copy_nothing_is_claimed(repository):
    place = copies.folder(repository)
    place.mkdir()
    for content in ("{ broken", "[]", "{}", '{"metadata": null}', '{"metadata": {"kdlib": {}}}'):
        (place / "01_principle.ipynb").write_text(content)
        assert copies.outdated(repository) == [], content


# -------------------------------------------------------------------- reset


def test_each_reset_keeps_what_was_there_under_a_name_of_its_own(repository, monkeypatch):
    for link in (os.link, no_second_names):
        monkeypatch.setattr(os, "link", link)
        (copy,) = (path for path in copies.make_missing(repository) if path.stem == "01_principle")
        fresh, seen = copy.read_bytes(), {}
        for number in range(3):
            mine = change(copy, "print(1)", f"print('answer {number}')")
            ((again, kept),) = copies.reset(repository, ["01"])
            assert again == copy and copy.read_bytes() == fresh
            assert re.fullmatch(r"01_principle\.kept-\d{4}-\d\d-\d\d(-\d+)?\.ipynb", kept.name)
            seen[kept.name] = mine
        everything = contents(copy.parent)
        assert len(seen) == 3 and seen.items() <= everything.items()
        assert len(everything) == len(LESSONS) + 3
        shutil.rmtree(copy.parent)


def test_resets_at_the_same_time_lose_nothing(repository):
    copy = copies.make_missing(repository)[1]
    fresh, mine = copy.read_bytes(), change(copy, "print(1)", "print('my answer')")
    with ThreadPoolExecutor(4) as pool:
        results = [kept for ((_, kept),) in pool.map(lambda _: copies.reset(repository, ["01"]), range(4))]
    assert len(set(results)) == 4 and copy.read_bytes() == fresh
    assert mine in [kept.read_bytes() for kept in results]


def test_reset_makes_a_copy_where_there_is_none_and_takes_several_names(repository):
    first, *_ = copies.make_missing(repository)
    mine = change(first, "print(1)", "print('my answer')")
    (first.parent / "02_temperature.ipynb").unlink()
    done = copies.reset(repository, ["0", "temp", "00_start", "02_temperature.ipynb"])
    assert [(copy.stem, kept is None) for copy, kept in done] == [
        ("00_start_here", False),
        ("02_temperature", True),
    ]
    assert done[0][1].read_bytes() == mine
    assert done[1][0].is_file()


def test_an_unknown_or_ambiguous_lesson_changes_nothing_and_is_refused(repository, capsys):
    copies.make_missing(repository)
    open_lab.write_lesson(repository / "notebooks" / "03_print.ipynb")
    before = contents(copies.folder(repository))
    for names, complaint in (
        (["01", "9"], "no lesson '9'; there are: 00_start_here, 01_principle, 02_temperature, 03_print"),
        (["01", ""], "no lesson ''"),
        (["01", "pri"], "'pri' begins several lessons: 01_principle, 03_print"),
        (["01", "--", "--port=1"], "--reset opens no JupyterLab that could take '--port=1'"),
    ):
        assert cli.main(["lab", "--reset", *names]) == 2
        assert complaint in capsys.readouterr().err
        assert contents(copies.folder(repository)) == before, names


def test_a_lesson_that_is_no_notebook_is_named_and_no_copy_changes(repository, capsys):
    copies.make_missing(repository)
    before = contents(copies.folder(repository))
    (repository / "notebooks" / "02_temperature.ipynb").write_text("<<<<<<< mine\n{}\n")
    assert cli.main(["lab", "--reset", "01", "02"]) == 2
    assert "02_temperature.ipynb is no notebook" in capsys.readouterr().err
    assert contents(copies.folder(repository)) == before


def test_reset_says_where_the_old_copy_is_and_opens_nothing(repository, capsys):
    copies.make_missing(repository)
    assert cli.main(["lab", "--reset", "2"]) == 0
    said = capsys.readouterr().out
    (kept,) = copies.folder(repository).glob("*.kept-*")
    assert said.startswith(
        f"02_temperature: a fresh copy is in {kept.parent}; yours is kept as {kept.name}\n"
    )


# -------------------------------------------------------------------- what `kdlib lab` says of them


def lab(folder: Path, *options: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """`kdlib lab` up to the point where JupyterLab would open: it is only asked for its version."""
    command = [*prefix, *open_lab.LAB, *(options or ("--", "--version"))]
    environment = open_lab.surroundings(folder.parent / "private")
    return subprocess.run(command, cwd=folder / "notebooks", env=environment, capture_output=True, text=True)


def test_lab_says_where_the_copies_are_and_in_one_line_which_lessons_have_changed(repository):
    process = lab(repository)
    place = copies.folder(repository)
    assert process.returncode == 0, process.stderr
    line, version = process.stdout.splitlines()
    assert line == f"You work on your own copies of the lessons, in {place} (3 made now)"
    import jupyterlab

    assert version == jupyterlab.__version__
    for name in ("00_start_here", "02_temperature"):
        change(repository / "notebooks" / f"{name}.ipynb", "print(1)", "print(2)")
    before = contents(place)
    line, hint, _ = lab(repository).stdout.splitlines()
    assert line.endswith("(0 made now)") and contents(place) == before
    assert "00_start_here, 02_temperature" in hint and "`kdlib lab --reset 00 02`" in hint


@pytest.fixture
def stranger() -> tuple[str, ...]:
    """What makes a command one of a user who may read everything and write nothing."""
    if os.geteuid():
        return ()
    probe = [*STRANGER, "true"]
    if shutil.which("setpriv") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and there is no setpriv to become somebody else")
    return tuple(STRANGER)


def test_without_write_permission_lab_says_so_and_opens_only_copies_that_are_there(repository, stranger):
    os.chmod(repository, 0o555)
    try:
        for options in ((), ("--reset", "01")):
            process = lab(repository, *options, prefix=stranger)
            assert process.returncode == 2 and "Traceback" not in process.stderr
            assert "my_notebooks cannot be written (Permission denied)" in process.stderr
            assert not copies.folder(repository).exists()
    finally:
        os.chmod(repository, 0o755)
    copies.make_missing(repository)
    before = contents(copies.folder(repository))
    os.chmod(copies.folder(repository), 0o555)
    try:
        process = lab(repository, prefix=stranger)
    finally:
        os.chmod(copies.folder(repository), 0o755)
    assert process.returncode == 0, process.stderr
    assert "cannot be written (Permission denied): what you do there may not be saved" in process.stdout
    assert contents(copies.folder(repository)) == before


def test_a_file_in_the_place_of_the_folder_is_left_alone(repository, capsys):
    copies.folder(repository).write_text("mine")
    for arguments in (["lab"], ["lab", "--reset", "01"]):
        assert cli.main(arguments) == 2
        assert "cannot be written (File exists)" in capsys.readouterr().err
        assert copies.folder(repository).read_text() == "mine"


def test_where_there_is_no_course_lab_and_reset_make_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (["lab"], ["lab", "--reset", "01"]):
        assert cli.main(arguments) == 2
        assert "no notebooks folder of the course" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------- of an installed kdlib


@pytest.fixture
def packaged(tmp_path, monkeypatch) -> Path:
    """The folder of an installed kdlib with lessons and their solutions; the current folder is empty and elsewhere."""
    folder = open_lab.write_course(tmp_path / "site-packages" / "kdlib", LESSONS)
    shutil.rmtree(folder / "kdlib")
    for name in LESSONS:
        solution = folder / "notebooks" / "solutions" / f"{name}.ipynb"
        open_lab.write_lesson(solution, "# Solved, see [the lesson](../01_principle.ipynb)")
    lesson = folder / "notebooks" / "01_principle.ipynb"
    open_lab.write_lesson(lesson, "[the solution](solutions/01_principle.ipynb)")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(course, "packaged", lambda: folder)
    return folder


def test_an_installed_course_is_copied_into_the_current_folder_with_its_solutions(packaged, tmp_path):
    assert course.require_repository() == packaged
    before = [path.read_bytes() for path in sorted(packaged.rglob("*.ipynb"))]
    made, place = copies.make_missing(packaged), tmp_path / "empty" / "my_notebooks"
    assert made == [place / f"{name}.ipynb" for name in LESSONS] + [
        place / "solutions" / f"{name}.ipynb" for name in LESSONS
    ]
    assert [path.read_bytes() for path in sorted(packaged.rglob("*.ipynb"))] == before
    lesson, solution = (nbformat.read(place / path, 4) for path in ("01_principle.ipynb", made[4]))
    assert lesson.cells[-1].outputs == [] and solution.cells[-1].outputs != []
    for notebook, folder in ((lesson, place), (solution, place / "solutions")):
        (target,) = re.findall(r"\]\(([^)]+)\)", notebook.cells[0].source)
        assert (folder / target).is_file(), target
    assert copies.make_missing(packaged) == [] == copies.outdated(packaged)


def test_who_is_inside_the_folder_of_copies_gets_no_second_one(packaged, tmp_path, monkeypatch):
    copies.make_missing(packaged)
    for inside in ("my_notebooks", "my_notebooks/solutions"):
        monkeypatch.chdir(tmp_path / "empty" / inside)
        assert copies.folder(packaged) == tmp_path / "empty" / "my_notebooks"
    (tmp_path / "my_notebooks").mkdir()  # of somebody else: the first lesson is not in it
    monkeypatch.chdir(tmp_path / "my_notebooks")
    assert copies.folder(packaged) == tmp_path / "my_notebooks" / "my_notebooks"


def test_copies_from_an_older_version_stay_and_are_told_and_reset(packaged, capsys, monkeypatch):
    copies.make_missing(packaged)
    place = copies.folder(packaged)
    mine = change(place / "02_temperature.ipynb", "print(1)", "print('my answer')")
    for name in ("02_temperature", "solutions/02_temperature"):  # a newer kdlib is installed
        change(packaged / "notebooks" / f"{name}.ipynb", "print(1)", "print(2)")
    before = contents(place / "solutions")
    lines = lab_module._prepare(packaged)
    assert lines[0].endswith("(0 made now)")
    assert "made: 02_temperature, solutions/02_temperature. `kdlib lab --reset 02` puts" in lines[1]
    assert (place / "02_temperature.ipynb").read_bytes() == mine and contents(place / "solutions") == before
    assert cli.main(["lab", "--reset", "02"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"02_temperature: a fresh copy is in {place};")
    assert said[1].startswith(f"solutions/02_temperature: a fresh copy is in {place / 'solutions'};")
    (kept,) = place.glob("02*.kept-*")
    assert kept.read_bytes() == mine and len(list(place.glob("solutions/*.kept-*"))) == 1
    assert copies.outdated(packaged) == []


def test_where_nothing_can_be_written_an_installed_course_asks_for_another_folder(packaged, tmp_path, capsys):
    copies.folder(packaged).write_text("mine")
    assert cli.main(["lab"]) == 2
    said = capsys.readouterr().err
    assert "cannot be written (File exists). Change into a folder where you may write" in said
    assert copies.folder(packaged).read_text() == "mine"


def test_a_copy_of_the_repository_comes_before_the_installed_lessons(packaged, tmp_path, monkeypatch):
    repository = open_lab.write_course(tmp_path / "my course", LESSONS)
    monkeypatch.chdir(repository / "notebooks")
    assert course.require_repository() == repository
    assert [copy.parent for copy in copies.make_missing(repository)] == [repository / "my_notebooks"] * 3


def test_git_ignores_the_folder_and_the_help_and_the_readme_name_it(capsys):
    assert f"{copies.FOLDER}/" in (CHECKOUT / ".gitignore").read_text().splitlines()
    assert f"`{copies.FOLDER}/`" in (CHECKOUT / "README.md").read_text()
    with pytest.raises(SystemExit):
        cli.main(["lab", "--help"])
    assert copies.FOLDER in capsys.readouterr().out
