"""The site is whole: every link leads somewhere, and it is written entirely or not at all."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_page import Elements

from kdlib import cli, site
from kdlib.lesson import runner
from kdlib.site import building, laboratory, search, slides

LESSONS = {
    "01_principle": [
        new_markdown_cell(
            "# 01 · The principle & more\n\n**Time.** About 72 minutes, half of them\n\n## Soft *targets*"
        ),
        new_markdown_cell(
            "They are $p^T$, [later](02_temperature.ipynb#what-heat-does).\n\n### Exercise: soften"
        ),
        new_code_cell("def soften(): ...", metadata={"tags": ["exercise"]}),
        new_code_cell(
            "check()", metadata={"tags": ["check"]}, outputs=[new_output("stream", text="printed words")]
        ),
    ],
    "02_temperature": [
        new_markdown_cell("# 02 · Temperature\n\n## What heat does\n\nSoft water, hard words."),
        new_markdown_cell("## What heat does\n\nAgain."),
    ],
}


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two lessons, executed already; without the laboratory, which is 9 MB."""

    def write_laboratory(folder):
        folder.mkdir()
        (folder / "index.html").write_text("laboratory")

    monkeypatch.setattr(laboratory, "write", write_laboratory)
    monkeypatch.setattr(slides, "write", lambda paths, folder: [])  # made of the real lessons
    for folder in (tmp_path / "notebooks", tmp_path / "run"):
        folder.mkdir()
        for name, cells in LESSONS.items():
            nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    solved = [*LESSONS["01_principle"]]
    solved[2] = new_code_cell("def soften(): return 'the solution'")
    (tmp_path / "notebooks" / "solutions").mkdir()
    nbformat.write(new_notebook(cells=solved), tmp_path / "notebooks" / "solutions" / "01_principle.ipynb")
    return tmp_path


def build(course, **arguments):
    sources = sorted((course / "notebooks").glob("*.ipynb"))
    arguments = {"executed": course / "run", **arguments}
    return site.build(course / "out", notebooks=sources, report=lambda line: None, **arguments)


def left_behind(course):
    return {path.name for path in course.iterdir()} - {"notebooks", "run", "out"}


def test_every_link_leads_somewhere_and_nothing_is_fetched(course):
    build(course)
    pages = {path: Elements(path.read_text()) for path in (course / "out").rglob("*.html")}
    assert len(pages) == 5
    checked = 0
    for path, found in pages.items():
        names = found.all("id")
        assert len(names) == len({*names}) and found.addresses == [], path
        for address in found.all("href"):
            file, _, anchor = address.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), (path.name, address)
            assert not anchor or anchor in pages[target].all("id"), (path.name, address)
            checked += 1
    assert checked > 20
    lesson = (course / "out" / "01_principle.html").read_text()
    assert 'href="02_temperature.html#what-heat-does"' in lesson
    assert "Next: 02 · Temperature" in lesson and "Previous: " not in lesson
    assert left_behind(course) == set()


def test_the_front_names_each_lesson_with_its_question_and_minutes(course):
    build(course)
    front = (course / "out" / "index.html").read_text()
    assert "01 · The principle &amp; more" in front and "What does a teacher add" in front
    assert front.count("72 minutes") == 1 and front.count("minutes") == 1
    assert "laboratory/index.html" in front and "slides" not in front.partition("<main")[2]


def test_solutions_stand_on_a_page_of_their_own(course):
    build(course)
    solved = (course / "out" / "solutions" / "01_principle.html").read_text()
    assert "the solution" in re.sub("<[^>]+>", "", solved) and "Exercise: soften" in solved
    for path in (course / "out").glob("*.html"):
        assert "the solution" not in path.read_text()
    assert not (course / "out" / "solutions" / "02_temperature.html").exists()
    assert "Solutions" not in (course / "out" / "02_temperature.html").read_text().partition("<body>")[2]


def test_the_search_finds_the_prose_of_every_section_and_no_code(course):
    build(course)
    text = (course / "out" / search.FILE).read_text()
    index = json.loads(text.removeprefix("window.kdIndex = ").removesuffix(";\n"))
    assert [(page, lesson) for page, lesson, _ in index] == [
        ("01_principle.html", "01 · The principle & more"),
        ("02_temperature.html", "02 · Temperature"),
    ]
    assert [anchor for anchor, *_ in index[0][2]] == [
        "01-the-principle-more",
        "soft-targets",
        "exercise-soften",
    ]
    assert index[0][2][1] == ["soft-targets", "Soft targets", "They are pT, later."]
    assert index[1][2][1:] == [
        ["what-heat-does", "What heat does", "Soft water, hard words."],
        ["what-heat-does-2", "What heat does", "Again."],
    ]
    assert "soften()" not in text and "printed words" not in text


def test_a_folder_with_something_else_is_refused_and_left_as_it_is(course, capsys):
    (course / "out").mkdir()
    (course / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="something else than an earlier site"):
        build(course)
    assert cli.main(["site", "--out", str(course / "out"), "--from", str(course / "run")]) == 2
    assert re.fullmatch(r"kdlib: error: out='.*out' holds something else.*\n", capsys.readouterr().err)
    assert [path.name for path in (course / "out").iterdir()] == ["thesis.txt"] and left_behind(
        course
    ) == set()


def test_an_earlier_site_is_replaced_whole_and_kept_where_the_new_one_fails(course, monkeypatch):
    (course / "out").mkdir()  # an empty folder is as good as none
    build(course)
    (course / "notebooks" / "02_temperature.ipynb").unlink()
    assert (course / "out" / "02_temperature.html").exists()
    build(course)
    assert not (course / "out" / "02_temperature.html").exists()
    before = {path: path.read_bytes() for path in (course / "out").rglob("*") if path.is_file()}

    def fail(folder):
        raise OSError("no space left on device")

    monkeypatch.setattr(laboratory, "write", fail)
    with pytest.raises(OSError, match="no space left"):
        build(course)
    assert {path: path.read_bytes() for path in (course / "out").rglob("*") if path.is_file()} == before
    assert left_behind(course) == set()


def test_an_earlier_site_to_which_something_was_added_is_refused_and_loses_nothing(course):
    build(course)
    out = course / "out"
    (out / ".git" / "objects").mkdir(parents=True)
    (out / ".git" / "HEAD").write_text("ref: refs/heads/gh-pages")
    (out / "CNAME").write_text("distillation.example")
    (out / "laboratory" / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError, match=r"out' is an .* also holds \.git, CNAME, laboratory/mine\.txt, which"
    ):
        build(course)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    for number in range(4):
        (out / f"z{number}").mkdir()
    with pytest.raises(
        ValueError, match=r"holds \.git, CNAME, laboratory/mine\.txt, z0, z1 and 2 more, which"
    ):
        build(course)


def test_the_earlier_site_is_back_where_ctrl_c_comes_between_the_two_renames(course, monkeypatch):
    build(course)
    before = {path: path.read_bytes() for path in (course / "out").rglob("*") if path.is_file()}
    rename = Path.rename

    def interrupted(path, target):
        if path.name == "site":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(course)
    assert {path: path.read_bytes() for path in (course / "out").rglob("*") if path.is_file()} == before
    assert left_behind(course) == set()


def test_lessons_that_were_not_run_or_failed_are_named(course):
    (course / "run" / "02_temperature.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 02_temperature.ipynb"):
        build(course)
    summary = [
        {"notebook": f"notebooks/{name}.ipynb", "status": "failed"} for name in ("02_temperature", "77_other")
    ]
    (course / "run" / "summary.json").write_text(json.dumps(summary))
    nbformat.write(new_notebook(), course / "run" / "02_temperature.ipynb")
    with pytest.raises(ValueError, match="run: notebooks/02_temperature.ipynb did not pass"):
        build(course)
    assert not (course / "out").exists() and left_behind(course) == set()


def test_no_site_is_written_where_a_lesson_fails_now(course, monkeypatch, capsys):
    def run(sources, *, out, profile, jobs, report):
        assert profile == "ci" and jobs == 1
        results = [runner.Result(str(path), "passed", 1.0) for path in sources]
        results[1] = runner.Result(str(sources[1]), "failed", 1.0, "In [3]: ValueError: on purpose")
        return results

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(building.course, "require_repository", lambda: course)
    assert cli.main(["site", "--out", str(course / "out"), "--profile", "ci", "--jobs", "1"]) == 1
    assert "ValueError: on purpose" in capsys.readouterr().out
    assert not (course / "out").exists() and left_behind(course) == set()


def test_the_workflow_builds_the_site_and_deploys_it():
    path = Path(__file__).parents[1] / ".github" / "workflows" / "pages.yml"
    workflow = yaml.safe_load(path.read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    [command] = [step["run"] for step in steps if "kdlib site" in step.get("run", "")]
    arguments = re.search(r"kdlib site (.*)", command)[1].split()
    options = cli._parser().parse_args(["site", *arguments])
    [upload] = [step["with"]["path"] for step in steps if "upload-pages-artifact" in step.get("uses", "")]
    assert options.out == upload
    assert any("deploy-pages" in step.get("uses", "") for step in steps)
