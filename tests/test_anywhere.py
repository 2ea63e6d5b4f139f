"""The course in odd surroundings: another folder, no home, no name, nothing writable, nothing installed."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from kdlib import _files, cli
from kdlib.lesson import course, doctor, home, results, runner, surface

CHECKOUT = Path(__file__).parents[1]
LESSONS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
KDLIB = ["-m", "kdlib.cli"]
VARIABLES = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
# Somebody without an entry in the password file, who may read everything and write nothing.
STRANGER = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
STRANGER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
SAYS = """
import matplotlib.pyplot
from kdlib import _files
from kdlib.lesson import figures, profiles
print(profiles.get(profile).name, _files.cache_folder())
"""


def code_cells(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def first_imports(path: Path) -> str:
    """The first code cell of a lesson that does anything."""
    parameters, imports = code_cells(path)[:2]
    assert parameters.startswith("profile = None")
    return imports


# -------------------------------------------------------------------- nothing installed


def test_where_the_course_is_not_installed_the_first_cell_says_how_to_install_it(tmp_path):
    for path in [*LESSONS, *LESSONS[0].parent.glob("solutions/*.ipynb")]:
        command = [sys.executable, "-I", "-S", "-c", first_imports(path)]  # -S: without what is installed
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        closing = process.stderr.strip().splitlines()[-1]
        assert closing == (
            "ModuleNotFoundError: No module named 'kdlib'. "
            'In the folder of the course: make lab, or pip install -e ".[all]"'
        ), path


def test_where_a_part_is_not_installed_the_first_cell_names_it():
    for part in ("anywidget", "matplotlib", "torch"):
        code = f"import sys; sys.modules[{part!r}] = None\n{first_imports(LESSONS[0])}"
        process = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
        closing = process.stderr.strip().splitlines()[-1]
        assert part in closing and "make lab" in closing, closing


# -------------------------------------------------------------------- another folder


def table_of_lessons(monkeypatch, folder: Path) -> str:
    """What the first lesson says of the others when it is run in `folder`."""
    (source,) = (source for source in code_cells(LESSONS[0]) if "plan.table(" in source)
    monkeypatch.chdir(folder)
    shell = InteractiveShell()
    shell.run_cell("from IPython.display import Markdown\nfrom kdlib.lesson import course, plan")
    return shell.run_cell(source).result.data


def test_a_lesson_that_is_run_in_another_folder_finds_the_others(monkeypatch, tmp_path):
    table = table_of_lessons(monkeypatch, tmp_path)
    for path in LESSONS:
        assert f"| {path.stem} |" in table  # no link: nothing of that name lies beside the notebook that asks
    assert table.count("| yes |") == len(LESSONS)


def test_a_lesson_that_cannot_find_the_others_does_not_say_that_they_are_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(course, "checkout", lambda: None)
    table = table_of_lessons(monkeypatch, tmp_path)
    assert "not yet" not in table and "yes" not in table and table.count("| ? |") >= len(LESSONS)


def test_the_checkout_is_the_copy_whose_package_runs(monkeypatch, tmp_path):
    assert course.checkout() == CHECKOUT
    monkeypatch.setattr(
        course, "__file__", str(tmp_path / "site-packages" / "kdlib" / "lesson" / "course.py")
    )
    assert course.checkout() is None


# -------------------------------------------------------------------- nothing writable


@pytest.fixture
def no_folder(tmp_path) -> Path:
    """A path at which no folder can be made, for root neither."""
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "folder"


def test_a_result_that_cannot_be_kept_is_not_computed(monkeypatch, no_folder, capsys):
    computed = []
    monkeypatch.setattr(results, "FOLDER", no_folder)
    monkeypatch.setattr(results, "registered", lambda: {"lesson99-slow": lambda: computed.append(1)})
    with pytest.raises(OSError, match=r"nothing was computed.*folder, which cannot be written \(Not a dir"):
        results.record("lesson99-slow")
    assert cli.main(["record", "lesson99-slow"]) == 2
    assert "nothing was computed" in capsys.readouterr().err
    assert computed == []
    assert cli.main(["record", "--list"]) == 0  # which writes nothing


def test_notebooks_do_not_run_where_they_cannot_be_kept(no_folder, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("open('ran', 'w')")])
    nbformat.write(notebook, tmp_path / "here.ipynb")
    with pytest.raises(OSError, match=r"nothing ran: out='.*folder' cannot be written.*choose another"):
        runner.run([tmp_path / "here.ipynb"], out=no_folder)
    assert not (tmp_path / "ran").exists()


def test_a_live_surface_does_without_its_file_where_there_is_no_cache(monkeypatch, no_folder):
    rows = functools.partial(list, temperatures=[1], alphas=[0, 1], seeds=[0])
    for folder in (None, no_folder):
        monkeypatch.setattr(_files, "cache_folder", lambda folder=folder: folder)
        live_surface = surface.LiveSurface(rows, caption="A surface.")
        assert live_surface.results is None
        live_surface._lay_out()
        assert "not kept" in live_surface.words.value
        assert live_surface.start_button.description == "Start" and live_surface.again_button.disabled
        live_surface._rows = lambda **settings: iter(made_up(**settings))
        for press in (live_surface.start, live_surface.start_over):
            press()
            live_surface._thread.join()
            assert live_surface.complete and len(live_surface.table()) == 2
            assert live_surface.trouble.value == ""


def made_up(*, results, stop, progress):
    assert results is None
    return [{"temperature": 1, "alpha": alpha, "seed": 0, "accuracy": 0.5} for alpha in (0, 1)]


def test_the_doctor_says_what_a_missing_or_closed_cache_means(monkeypatch, no_folder):
    for folder, said in ((None, "no home folder"), (no_folder, "cannot be written: Not a directory")):
        monkeypatch.setattr(_files, "cache_folder", lambda folder=folder: folder)
        finding = doctor._cache("cache")
        assert finding.state == doctor.OPTIONAL and said in finding.detail, finding
        assert "XDG_CACHE_HOME" in finding.remedy and "computed again" in finding.remedy


# -------------------------------------------------------------------- no home


def test_a_place_is_lent_where_no_home_can_be_written_and_only_there(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    for place, lent in ((tmp_path, False), (tmp_path / "absent", True), (tmp_path / "file" / "x", True)):
        monkeypatch.setattr(os, "environ", {"HOME": str(place), "MPLCONFIGDIR": "my own"})
        home.lend()
        named = {os.environ[variable] for variable in VARIABLES if variable in os.environ}
        assert len(named) == (len(VARIABLES) if lent else 1), place
        assert all(Path(folder).is_dir() for folder in named - {"my own"})
        assert os.environ["MPLCONFIGDIR"] == "my own"
        assert os.environ["HOME"] == str(place)


def test_the_lent_place_goes_with_the_process():
    code = "import os, kdlib.lesson\nprint(os.environ['IPYTHONDIR'])"
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        env=environment | {"HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    place = Path(process.stdout.strip())
    assert place.parent.name.startswith("kdlib-home-") and not place.parent.exists()


def run_as(prefix: list[str], variables: dict[str, str], folder: Path, *arguments: str):
    """`python ARGUMENTS` in an environment with nothing but these variables."""
    command = [*prefix, "env", "-i", "PATH=/usr/bin:/bin", f"PYTHONPATH={CHECKOUT}", "OMP_NUM_THREADS=1"]
    command += [f"{key}={value}" for key, value in variables.items()]
    command += [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def write_notebook(folder: Path) -> Path:
    cells = [nbformat.v4.new_code_cell("profile = None", metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell(SAYS))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "says.ipynb")
    return folder / "says.ipynb"


def outputs(path: Path) -> list:
    return [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", ())]


def test_notebooks_run_for_a_user_whose_home_folder_does_not_exist(tmp_path):
    arguments = ["run", str(write_notebook(tmp_path)), "--profile", "ci", "--out", str(tmp_path / "out")]
    process = run_as([], {"HOME": "/nonexistent"}, tmp_path, *KDLIB, *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    (output,) = outputs(tmp_path / "out" / "says.ipynb")
    assert (output["name"], output["text"]) == ("stdout", ["ci /nonexistent/.cache/kdlib\n"])
    assert (tmp_path / "out" / "says.html").is_file()


@pytest.fixture
def stranger():
    """What makes a command one of a user without home, name and write permission."""
    probe = [*STRANGER, sys.executable, "-c", "pass"]
    if shutil.which("setpriv") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("only root may become a user without a name, by setpriv")
    return STRANGER


def test_a_user_without_home_name_and_permission_runs_notebooks_and_is_told_what_cannot_be(stranger):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        notebook = write_notebook(Path(folder))
        os.chmod(folder, 0o555)
        os.chown(out, 54321, 54321)
        arguments = ["run", str(notebook), "--profile", "ci", "--out", out]
        process = run_as(stranger, {}, Path(folder), *KDLIB, *arguments)
        assert process.returncode == 0, process.stdout + process.stderr
        (output,) = outputs(Path(out) / "says.ipynb")
        assert (output["name"], output["text"]) == ("stdout", ["ci None\n"])
        for arguments, refusal in {
            ("record", "lesson01-gain"): "nothing was computed",
            ("run", str(notebook)): "nothing ran",
        }.items():
            process = run_as(stranger, {}, Path(folder), *KDLIB, *arguments)
            assert process.returncode == 2 and refusal in process.stderr, process.stderr
            assert "Permission denied" in process.stderr and "Traceback" not in process.stderr
        assert [path.name for path in Path(folder).iterdir()] == ["says.ipynb"]


def test_jupyter_begins_for_a_user_without_home_and_name(stranger, tmp_path):
    code = "from jupyter_core.application import JupyterApp\nJupyterApp().initialize([])"
    process = run_as(stranger, {}, tmp_path, "-c", f"import kdlib.lesson\n{code}")
    assert process.returncode == 0, process.stderr
