"""What teachers are given: the tables are up to date, the guide names what there is, a hub's files can be read."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml

from kdlib.lesson import exercises
from kdlib.site.slides import outline

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDE = (DOCS / "teaching.md").read_text(encoding="utf-8")
HUB = (DOCS / "jupyterhub.md").read_text(encoding="utf-8")


def test_the_table_of_mistakes_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import teaching_tables

    written = (DOCS / "mistakes.md").read_text(encoding="utf-8")
    assert written == teaching_tables.text(), "run python tools/teaching_tables.py"
    for name in exercises.names():
        section = written.partition(f"### `{name}`\n")[2].partition("\n#")[0]
        assert section.count("\n| ") == len(exercises.get(name).mistakes) + bool(
            exercises.get(name).mistakes
        ), name


@pytest.fixture(scope="module")
def lessons() -> dict[str, str]:
    """Of every lesson all texts and outputs, by its number."""
    texts = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        plain = [output.get("data", {}).get("text/plain", output.get("text", "")) for output in outputs]
        texts[path.stem[:2]] = "\n".join([*(cell.source for cell in cells), *plain])
    return texts


def test_the_guide_quotes_questions_sections_and_tables_that_are_there(lessons):
    everything = "\n".join(lessons.values())
    asked = [*re.findall(r'predict: "([^"]+?)"', GUIDE), *re.findall(r'" and "([^"]+?)"', GUIDE)]
    assert len(asked) >= 20
    for question in asked:
        assert f"Predict. {' '.join(question.split())}" in everything, question
    sections = re.findall(r"\| (\d\. [^|]+?) \|", GUIDE)
    assert len(sections) >= 12
    for section in sections:
        assert f"## {section}" in everything.replace("$T^2$", "T²"), section
    tables = set(re.findall(r"`(lesson\d\d-[\w-]+)`", GUIDE))
    recorded = {path.stem for path in (ROOT / "kdlib" / "assets" / "results").glob("*.csv")}
    assert tables and tables <= recorded


def test_the_guide_names_exercises_and_slides_that_are_there():
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", GUIDE)) - {"01_principle"}
    assert len(words) >= 15 and words <= set(exercises.names())
    for lesson, plan in ((1, "## One meeting"), (2, "**3: lesson 02"), (3, "**4: lesson 03")):
        text = GUIDE.partition(plan)[2].partition("\nCollect")[0]
        numbers = [
            int(n) for pair in re.findall(r"slides? (\d+)(?: (?:to|and) (\d+))?", text) for n in pair if n
        ]
        there = len(outline.read((ROOT / f"kdlib/site/slides/0{lesson}.md").read_text(encoding="utf-8")))
        assert len(numbers) > 10 and max(numbers) == 17 < there, plan


@pytest.mark.parametrize("text", [GUIDE, HUB], ids=["teaching", "jupyterhub"])
def test_links_lead_to_files(text):
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (DOCS / link).exists(), link


def test_the_guide_quotes_no_result():
    assert not re.search(r"\d (?:pp|%|points)|[+-]\d+\.\d", GUIDE)


def test_the_link_of_nbgitpuller_opens_a_copy():
    from urllib.parse import parse_qs, urlsplit

    (link,) = re.findall(r"^https://HUB/\S+$", HUB, re.MULTILINE)
    asked = parse_qs(urlsplit(link).query, strict_parsing=True)
    assert urlsplit(link).path == "/hub/user-redirect/git-pull"
    assert asked["repo"] == ["https://github.com/OWNER/NAME"] and asked["branch"] == ["main"]
    assert asked["urlpath"] == ["lab/tree/NAME/my_notebooks/00_start_here.ipynb?autodecode"]
    assert (ROOT / "notebooks" / "00_start_here.ipynb").is_file()


def test_a_hubs_files_can_be_read():
    config = yaml.safe_load((DOCS / "jupyterhub" / "config.yaml").read_text(encoding="utf-8"))
    user = config["singleuser"]
    assert user["memory"] == {"guarantee": "1G", "limit": "2G"} and user["image"]["tag"] != "latest"
    assert config["prePuller"]["hook"]["enabled"] and config["prePuller"]["continuous"]["enabled"]
    assert all(isinstance(value, str) for value in user["extraEnv"].values())  # Kubernetes takes nothing else
    script = ast.parse((DOCS / "jupyterhub" / "jupyterhub_config.py").read_text(encoding="utf-8"))
    given = {ast.unparse(node.targets[0]): node.value for node in script.body if isinstance(node, ast.Assign)}
    assert ast.literal_eval(given["c.Spawner.environment"]) == user["extraEnv"]
    assert ast.literal_eval(given["c.Spawner.default_url"]) == user["defaultUrl"]
    for path in (user["cmd"][0], ast.literal_eval(given["c.Spawner.cmd"])[0]):
        assert path.endswith("/start_course.sh")


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell")
def test_a_learners_server_starts_with_and_without_the_course(tmp_path):
    """With stand-ins for gitpuller and for Python: what is called, with which path, and what follows."""
    stand_in = '#!/bin/sh\necho "$(basename "$0") $*" >> "$HOME/called"\n'
    for name, end in (
        ("gitpuller", 'mkdir -p "$3"; exit $FAILS'),
        ("python", "exit 0"),
        ("server", "env > $HOME/env"),
    ):
        (tmp_path / name).write_text(f"{stand_in}{end}\n")
        (tmp_path / name).chmod(0o755)
    for fails in ("0", "1"):
        home = tmp_path / f"home{fails}"
        home.mkdir()
        environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "FAILS": fails, "COURSE_FOLDER": "course"}
        command = ["sh", str(DOCS / "jupyterhub" / "start_course.sh"), str(tmp_path / "server"), "--port=1"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        called = (home / "called").read_text().splitlines()
        assert called[0] == f"gitpuller https://github.com/OWNER/NAME main {home}/course"
        assert called[1] == "python -m kdlib.cli lab -- --version"
        assert called[-1].startswith(
            "server --port=1 --ServerApp.kernel_websocket_connection_class=kdlib.lesson."
        )
        assert f"PYTHONPATH={home}/course\n" in (home / "env").read_text()
        assert ("could not be updated" in run.stderr) == (fails == "1")
