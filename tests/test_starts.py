"""Every way to start the course does what docs/starts.md says of it, as far as that can be tried without a network.

Packages are not fetched: the environments see those that are installed here (tests/installing.py), less kdlib.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import containers
import installing
import nbformat
import open_lab
import pytest
from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import colab

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).parents[1]
LESSONS = sorted(path.name for path in (CHECKOUT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and sh are needed")


def jupyter(private: Path) -> dict[str, str]:
    """The variables of a Jupyter without any user's settings."""
    variables = open_lab.surroundings(private)
    return {name: value for name, value in variables.items() if name.startswith(("JUPYTER", "IPYTHON"))}


def checked(process: subprocess.CompletedProcess) -> str:
    """What a command printed, after it has ended well."""
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    return installing.make_shelf(tmp_path_factory.mktemp("packages") / "shelf")


# -------------------------------------------------------------------- the container


@pytest.fixture(scope="module")
def container(tmp_path_factory, shelf) -> containers.Container:
    """The steps of the Dockerfile, done in a clean folder."""
    folder = tmp_path_factory.mktemp("container")
    python = installing.make_environment(folder / "python", shelf)
    return containers.Container(folder / "disk", python).build(CHECKOUT / "Dockerfile")


@pytest.fixture(scope="module")
def started(container, tmp_path_factory) -> str:
    """What the container's command printed, in its empty folder, until its health check was satisfied."""
    private = tmp_path_factory.mktemp("private")
    port = str(open_lab.free_port())
    command = [word.replace("8888", port) for word in container.command("CMD")]
    check = [word.replace("8888", port) for word in container.command("HEALTHCHECK")]
    environment = container.environment(**jupyter(private))
    with (private / "log").open("wb") as stream:
        process = subprocess.Popen(
            [container.python.parent / command[0], *command[1:]],
            cwd=container.workdir,
            env=environment,
            stdout=stream,
            stderr=stream,
        )
    try:
        open_lab.wait_until(lambda: open_lab.answers(int(port)), process, private / "log")
        checked(installing.run(check, container.workdir, environment))
    finally:
        process.terminate()
        process.wait(timeout=open_lab.PATIENCE)
    assert installing.run(check, container.workdir, environment).returncode != 0, "healthy without a server"
    return (private / "log").read_text().replace(port, "8888")


def test_the_container_runs_the_course_as_nobody_special_on_the_port_that_it_names(container):
    assert container.said["USER"] == "learner" and container.said["EXPOSE"] == "8888"
    assert f"chown learner {container.workdir}" in container.pretended()
    assert container.workdir == container.inside("/course") and not list(container.inside("/home").glob("*"))
    assert "--ip=0.0.0.0" in container.command("CMD") and "--port=8888" in container.command("CMD")


def test_the_container_opens_the_learner_s_copies_in_its_empty_folder(container, started):
    place = container.workdir / "my_notebooks"
    assert f"your own copies of the lessons, in {place} ({len(LESSONS)} made now)" in started
    assert re.search(
        r"http://127\.0\.0\.1:8888/lab/tree/my_notebooks/00_start_here\.ipynb\?token=\w+", started
    )
    assert sorted(path.name for path in place.glob("*.ipynb")) == LESSONS
    assert sorted(path.name for path in place.glob("solutions/*.ipynb")) == LESSONS
    assert [path.name for path in container.workdir.iterdir()] == ["my_notebooks"]


def test_in_the_container_is_the_wheel_alone(container):
    (wheel,) = container.inside("/wheels").glob("*.whl")
    assert wheel.stat().st_size < 100e6, "PyPI takes no more"
    code = "import kdlib; print(kdlib.__file__)"
    (place,) = checked(
        installing.run(["python", "-c", code], container.workdir, container.environment())
    ).split()
    assert place.startswith(str(container.python.parents[1])), place


def test_to_the_builder_goes_what_is_copied_and_nothing_else():
    ignored, *kept = [
        line
        for line in (CHECKOUT / ".dockerignore").read_text().splitlines()
        if line[0] in "*!" and line[1:2] != "*"
    ]
    assert ignored == "*"
    steps = containers.instructions((CHECKOUT / "Dockerfile").read_text())
    copied = [source for name, rest in steps if name == "COPY" for source in rest.split()[:-1]]
    assert sorted(name.lstrip("!") for name in kept) == sorted(copied)


# -------------------------------------------------------------------- a wheel in an empty folder


def test_a_lesson_runs_by_its_number_from_the_wheel_and_finds_all_others(container, tmp_path):
    command = ["kdlib", "run", "0", "--profile", "ci", "--out", "out"]
    environment = container.environment(**jupyter(tmp_path / "private"), OMP_NUM_THREADS="1")
    said = checked(installing.run(command, tmp_path, environment))
    installed = next(container.python.parents[1].glob("lib/python*/site-packages/kdlib/notebooks"))
    assert "passed in" in said and str(installed / LESSONS[0]) in said
    executed = nbformat.read(tmp_path / "out" / LESSONS[0], as_version=4)
    outputs = json.dumps([cell.get("outputs") for cell in executed.cells])
    assert outputs.count("| yes |") == len(LESSONS)
    assert (tmp_path / "out" / "00_start_here.html").is_file()


# -------------------------------------------------------------------- a checkout elsewhere: devcontainer, Binder


@pytest.fixture
def repository(tmp_path) -> Path:
    """A copy of the repository, with all that the two need of it."""
    folder = tmp_path / "course"
    for name in ("kdlib", "notebooks", "binder", ".devcontainer"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile"):
        shutil.copy(CHECKOUT / name, folder)
    return folder


def as_before(repository: Path, python: Path, said: str) -> None:
    """The editable install works: kdlib is the copy's, its lessons are nowhere twice, the learner has copies."""
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    assert not (packages / "kdlib").exists()
    assert f"copies of the lessons, in {repository / 'my_notebooks'} ({len(LESSONS)} made now)" in said
    assert sorted(path.name for path in (repository / "my_notebooks").iterdir()) == LESSONS


def test_the_devcontainer_installs_the_checkout_and_makes_the_copies(repository, shelf, tmp_path):
    settings = json.loads((repository / ".devcontainer" / "devcontainer.json").read_text())
    assert settings["image"].startswith("mcr.microsoft.com/devcontainers/python:3.")
    assert settings["containerEnv"]["PIP_EXTRA_INDEX_URL"] == CPU_INDEX
    bin = tmp_path / "bin"
    bin.mkdir()
    makes = "import pathlib, sys, installing; installing.make_environment(*map(pathlib.Path, sys.argv[1:]))"
    (bin / "python3").write_text(  # `python3 -m venv .venv` makes one that sees the shelf
        f'#!/bin/sh\n[ "$2" = venv ] || exec {sys.executable} "$@"\n'
        f"PYTHONPATH={Path(__file__).parent} exec {sys.executable} -c '{makes}' \"$3\" {shelf}\n"
    )
    (bin / "python3").chmod(0o755)
    environment = installing.surroundings(bin / "python3", **jupyter(tmp_path / "private"), PIP_NO_DEPS="1")
    said = checked(installing.run(["sh", "-c", settings["postCreateCommand"]], repository, environment))
    as_before(repository, repository / ".venv" / "bin" / "python", said)
    interpreter = settings["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert Path(interpreter.replace("${containerWorkspaceFolder}", str(repository))).exists()
    for name in settings["customizations"]["codespaces"]["openFiles"]:
        assert (repository / name).is_file(), name


def test_binder_installs_the_checkout_and_makes_the_copies(repository, shelf, tmp_path):
    python = installing.make_environment(tmp_path / "python", shelf)
    environment = installing.surroundings(python, **jupyter(tmp_path / "private"), PIP_NO_DEPS="1")
    requirements = ["python", "-m", "pip", "install", "-r", "binder/requirements.txt"]
    checked(installing.run(requirements, repository, environment))
    said = checked(installing.run([str(repository / "binder" / "postBuild")], repository, environment))
    as_before(repository, python, said)


def test_binder_lets_one_process_train_at_a_time_and_starts_what_it_is_told_to():
    code = "import os, loky; print(loky.cpu_count(), os.environ['OMP_NUM_THREADS'])"
    process = subprocess.run(
        [CHECKOUT / "binder" / "start", sys.executable, "-c", code], capture_output=True, text=True
    )
    assert process.stdout.split() == ["1", "1"]
    assert re.fullmatch(r"python-3\.\d+\n", (CHECKOUT / "binder" / "runtime.txt").read_text())


def test_torch_comes_from_the_index_of_small_builds_in_the_ranges_of_the_project():
    ranges = {str(Requirement(line)) for line in PROJECT["dependencies"] if line.startswith("torch")}
    wanted = {line for line in ranges if Requirement(line).name in ("torch", "torchvision")}
    docker = (CHECKOUT / "Dockerfile").read_text()
    assert f"ARG TORCH_INDEX={CPU_INDEX}\n" in docker
    assert {str(Requirement(line)) for line in re.findall(r'"(torch[^"]*)"', docker)} == wanted
    lines = (CHECKOUT / "binder" / "requirements.txt").read_text().splitlines()
    index, *packages = [line for line in lines if not line.startswith("#")]
    assert index == f"--index-url {CPU_INDEX}" and {str(Requirement(line)) for line in packages} == wanted


# -------------------------------------------------------------------- what is written about it


def test_the_page_about_starts_leads_somewhere_and_names_what_is_there():
    page = (CHECKOUT / "docs" / "starts.md").read_text(encoding="utf-8")
    headings = [
        re.sub(r"[^\w -]", "", line).replace(" ", "-").lower() for line in re.findall(r"^## (.+)", page, re.M)
    ]
    anchors = re.findall(r"\]\(#([^)]+)\)", page)
    assert len(anchors) >= 6 and set(anchors) <= set(headings)
    files = ("binder/requirements.txt", "binder/start", ".devcontainer/devcontainer.json", "tools/colab.py")
    for name in (*files, "tests/test_starts.py"):
        assert name in page and (CHECKOUT / name).is_file(), name
    assert f"`{CPU_INDEX}`" in page and "distillation-workbook ." in page


# -------------------------------------------------------------------- Colab


def test_colab_gets_of_the_lab_what_lessons_import_and_nothing_of_its_own_jupyter():
    lab, part = (set(PROJECT["optional-dependencies"][name]) for name in ("lab", "colab"))
    assert part < lab
    of_its_own = ("jupyterlab", "ipykernel", "ipywidgets", "voila", "papermill")
    of_grading = ("psutil",)
    assert {Requirement(line).name for line in lab - part} == {*of_its_own, *of_grading}


def test_the_first_cell_fetches_the_course_once_and_has_colab_show_its_figures(container, shelf, tmp_path):
    (wheel,) = container.inside("/wheels").glob("*.whl")
    colab.main(["--repository", "owner/name", "--wheel", wheel.as_uri(), "--out", str(tmp_path / "out")])
    cell = nbformat.read(tmp_path / "out" / LESSONS[0], as_version=4).cells[0]
    (tmp_path / "google" / "colab").mkdir(parents=True)
    (tmp_path / "google" / "colab" / "output.py").write_text(
        "enable_custom_widget_manager = lambda: print('on')"
    )
    (tmp_path / "twice.py").write_text(
        f"import sys\nassert 'kdlib' not in sys.modules\n{cell.source}\nprint('none')\nimport google.colab.output\n"
        f"{cell.source}\nsubprocess.run = None\n{cell.source}\nimport kdlib.lesson.course\n"
        "print(kdlib.lesson.course.packaged())\n"
    )
    python = installing.make_environment(tmp_path / "python", shelf)
    environment = installing.surroundings(python, PIP_NO_DEPS="1")
    first, *on, place = checked(installing.run(["python", "twice.py"], tmp_path, environment)).split()
    assert (first, on) == ("none", ["on", "on"]) and Path(place).is_relative_to(tmp_path / "python")


def test_a_course_that_cannot_be_fetched_is_a_sentence_and_what_pip_said(shelf, tmp_path):
    python = installing.make_environment(tmp_path / "python", shelf)
    cell = colab.first_cell("file:///nowhere/kdlib-0.1.0-py3-none-any.whl")
    process = installing.run(["python", "-c", cell], tmp_path, installing.surroundings(python))
    closing = process.stderr.partition("RuntimeError: ")[2]
    assert closing.startswith("the course could not be installed:") and "/nowhere/" in closing


def test_copies_for_colab_lead_to_each_other_and_differ_by_their_first_cell_alone(tmp_path, capsys):
    colab.main(["--repository", "owner/name", "--branch", "there", "--out", str(tmp_path)])
    place = "https://colab.research.google.com/github/owner/name/blob/there"
    badges = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in badges] == LESSONS
    assert all(line.endswith(f"]({place}/{name})") for line, name in zip(badges, LESSONS, strict=True))
    for name in LESSONS:
        (first, *cells), before = (
            nbformat.read(path / name, as_version=4).cells for path in (tmp_path, CHECKOUT / "notebooks")
        )
        assert "git+https://github.com/owner/name@main" in first.source and first.cell_type == "code"
        assert not [cell for cell in cells if cell.get("outputs")]
        sources = [cell.source.replace(f"]({place}/", "](") for cell in cells]
        assert sources == [cell.source for cell in before]
        assert not re.findall(r"\]\(\d\d_", "".join(cell.source for cell in cells)), name


def test_badges_are_put_behind_the_names_of_the_lessons_and_replace_older_ones(tmp_path):
    readme = tmp_path / "README.md"
    shutil.copy(CHECKOUT / "README.md", readme)
    for branch in ("old", "new", "new"):
        options = ["--repository", "owner/name", "--branch", branch, "--write", str(readme)]
        colab.main([*options, "--out", str(tmp_path / "out")])
    text = readme.read_text(encoding="utf-8")
    assert "blob/old" not in text and text.count("/owner/name/blob/new/") == len(LESSONS)
    before = re.sub(r" \[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)", "", text)
    assert before == (CHECKOUT / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="0 rows begin with a link to notebooks/99.ipynb"):
        colab.with_badges(text, {"99.ipynb": "badge"})


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("https://github.com/owner/my.name.git", "owner/my.name"),
        ("git@github.com:owner/name.git", "owner/name"),
        ("https://github.com/owner/name/", "owner/name"),
        ("https://gitlab.com/owner/name", None),
        ("", None),
    ],
)
def test_the_repository_is_that_of_origin_where_it_is_on_github(monkeypatch, tmp_path, capsys, origin, name):
    monkeypatch.setattr(
        colab.subprocess, "run", lambda *a, **o: subprocess.CompletedProcess(a, 0, origin + "\n")
    )
    if name:
        assert colab._options(["--out", str(tmp_path)]).repository == name
        return
    with pytest.raises(SystemExit) as end:
        colab.main(["--out", str(tmp_path / "out")])
    assert end.value.code == 2 and "--repository OWNER/NAME" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_repository_that_is_no_name_is_refused(tmp_path, capsys):
    for name in ("name", "a/b/c", "https://github.com/a/b", "a/b c"):
        with pytest.raises(SystemExit):
            colab.main(["--repository", name, "--out", str(tmp_path / "out")])
        assert f"got {name!r}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
