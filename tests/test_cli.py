"""The commands: what they run, what they refuse, what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from traitlets.utils.importstring import import_item

from kdlib import cli
from kdlib.lesson import course, runner
from kdlib.training import teacher_recipe

CHECKOUT = Path(__file__).parents[1]
PYTHON3 = {"name": "python3", "display_name": "Python 3", "language": "python"}


def write_notebook(path: Path, *sources: str, parameters: bool = True) -> Path:
    """A notebook with a parameters cell and one code cell for each source."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": PYTHON3, "language_info": {"name": "python"}})
    if parameters:
        notebook.cells.append(nbformat.v4.new_code_cell("profile = None", metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def printed(path: Path) -> str:
    """Everything that an executed notebook printed."""
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.get("text", "") for output in outputs)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """One `kdlib run` over notebooks that pass, raise, die, cannot be read; a hostile kernel is installed."""
    folder = tmp_path_factory.mktemp("run")
    hostile = folder / "jupyter" / "kernels" / "python3"
    hostile.mkdir(parents=True)
    (hostile / "kernel.json").write_text(json.dumps({**PYTHON3, "argv": ["false"]}))
    says = """
import os, sys, kdlib
print(profile, os.environ["KDLIB_PROFILE"], os.environ["OMP_NUM_THREADS"])
print(sys.executable, kdlib.__file__, os.getcwd(), sep="\\n")
"""
    (folder / "unreadable.ipynb").write_text("{ not a notebook")
    notebooks = [
        write_notebook(folder / "lessons" / "same.ipynb", says),
        write_notebook(folder / "solutions" / "same.ipynb", "profile = 3\nraise RuntimeError('on purpose')"),
        write_notebook(folder / "dies.ipynb", "print('alive')", "import os; os._exit(1)"),
        folder / "unreadable.ipynb",
        write_notebook(folder / "plain.ipynb", "print('no parameters')", parameters=False),
    ]
    command = [sys.executable, "-m", "kdlib.cli", "run", "--profile", "ci", "--jobs", "2"]
    command += ["--out", str(folder / "out"), *map(str, notebooks)]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"JUPYTER_PATH": str(folder / "jupyter"), "KDLIB_PROFILE": "full"}
    process = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    summary = json.loads((folder / "out" / "summary.json").read_text())
    return process, summary, folder / "out"


def test_one_failing_notebook_stops_no_other_and_fails_the_command(executed):
    process, summary, _ = executed
    assert [entry["status"] for entry in summary] == ["passed", "failed", "failed", "failed", "passed"]
    assert process.returncode == 1, process.stderr


def test_summary_carries_the_exception_of_each_failure(executed):
    _, summary, _ = executed
    assert all(set(entry) == {"notebook", "status", "seconds", "error"} for entry in summary)
    passed, raised, died, unreadable, plain = (entry["error"] for entry in summary)
    assert passed is None and plain is None
    assert raised == "In [3]: RuntimeError: on purpose"
    assert "Kernel died" in died
    assert "does not appear to be JSON" in unreadable


def test_what_a_notebook_printed_before_its_kernel_died_is_kept(executed):
    _, _, out = executed
    assert printed(out / "dies.ipynb") == "alive\n" and "alive" in (out / "dies.html").read_text(
        encoding="utf-8"
    )


def test_notebooks_of_one_name_keep_their_folders(executed):
    _, summary, out = executed
    assert [Path(entry["notebook"]).parent.name for entry in summary[:2]] == ["lessons", "solutions"]
    assert "ci" in printed(out / "lessons" / "same.ipynb")
    assert (out / "lessons" / "same.html").is_file() and (out / "solutions" / "same.html").is_file()


def test_kernel_gets_profile_threads_interpreter_package_and_folder(executed):
    _, summary, out = executed
    settings, interpreter, package, folder = printed(out / "lessons" / "same.ipynb").splitlines()
    assert settings == "ci ci 1"
    assert interpreter == sys.executable
    assert Path(package) == CHECKOUT / "kdlib" / "__init__.py"
    assert Path(folder) == Path(summary[0]["notebook"]).parent.resolve()


def test_time_table_names_every_notebook_and_nothing_half_written_stays(executed):
    process, summary, out = executed
    closing = process.stdout.split("status ")[-1]
    assert all(entry["notebook"] in closing for entry in summary)
    assert not list(out.glob(".running-*")) and not list(out.rglob("*.partial"))


def test_results_of_an_earlier_run_do_not_survive_a_failure(tmp_path):
    source, out = write_notebook(tmp_path / "one.ipynb", "1 + 1"), tmp_path / "out"
    assert [result.status for result in runner.run([source], out=out, report=lambda line: None)] == ["passed"]
    source.write_text("{ not a notebook")
    assert [result.status for result in runner.run([source], out=out, report=lambda line: None)] == ["failed"]
    assert sorted(path.name for path in out.iterdir()) == ["summary.json"]


@pytest.mark.parametrize(
    ("number", "shell"),
    [
        (signal.SIGINT, []),
        (signal.SIGTERM, []),
        (signal.SIGTERM, ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]),
    ],
    ids=["ctrl-c", "told to end", "told to end, in a job that ignores ctrl-c"],
)
def test_interrupted_run_leaves_a_summary_and_no_kernel(tmp_path, number, shell):
    marker = tmp_path / "pid"
    source = f"""
import os, pathlib, time
pathlib.Path({str(marker)!r}).write_text(str(os.getpid()))
time.sleep(600)
"""
    notebooks = [write_notebook(tmp_path / name, source) for name in ("first.ipynb", "second.ipynb")]
    command = [*shell, sys.executable, "-m", "kdlib.cli", "run", *map(str, notebooks), "--jobs", "1"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], cwd=CHECKOUT, stderr=subprocess.PIPE
    )
    wait_until(lambda: marker.is_file() and marker.read_text(), process)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130 and b"interrupted" in complaint
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["status"] for entry in summary] == ["interrupted", "interrupted"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


def wait_until(condition, process: subprocess.Popen) -> None:
    """Poll until `condition()` holds; fail as soon as the process has ended without it."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_command_that_cannot_begin_says_why_and_exits_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = write_notebook(tmp_path / "here.ipynb", "print('ran')").read_bytes()
    for arguments, complaint in (
        (["run", "here.ipynb", "absent.ipynb"], "absent.ipynb"),
        (["run", "here.ipynb", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["run", "here.ipynb", "--out", "."], "would replace here.ipynb"),
        (["run"], "no notebooks folder"),
        (["lab"], "no notebooks folder"),
    ):
        assert cli.main(arguments) == 2, arguments
        assert complaint in capsys.readouterr().err, arguments
        assert [path.name for path in tmp_path.iterdir()] == ["here.ipynb"], arguments
        assert (tmp_path / "here.ipynb").read_bytes() == before, arguments


def test_run_takes_lessons_by_number_and_title_beside_files(tmp_path, monkeypatch, capsys):
    repository = fake_repository(tmp_path, "00_start_here.ipynb", "01_principle.ipynb")
    monkeypatch.chdir(repository)
    asked = []
    monkeypatch.setattr(runner, "run", lambda notebooks, **options: asked.append(notebooks) or [])
    Path("2").write_text("a file of the learner's")
    assert cli.main(["run", "mine.ipynb", "1", "start_here", "2"]) == 0
    lessons = [os.path.join("notebooks", name) for name in ("01_principle.ipynb", "00_start_here.ipynb")]
    assert asked == [["mine.ipynb", *lessons, "2"]]
    assert cli.main(["run", "7"]) == 2 and len(asked) == 1
    assert "no lesson '7'; there are: 00_start_here, 01_principle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "part"),
    [("nbformat", "lab"), ("flask.views", "deploy"), ("torch_pruning", "deploy"), ("gone", "all")],
)
def test_a_missing_module_names_the_part_that_brings_it(monkeypatch, capsys, module, part):
    monkeypatch.setattr(cli, "_doctor", lambda options: import_absent(module))
    assert cli.main(["doctor"]) == 2
    error = f"No module named {module!r}; install what is missing: pip install 'kdlib[{part}]'"
    assert capsys.readouterr().err == f"kdlib: error: {error}\n"


def import_absent(module: str):
    raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def test_without_the_lab_nothing_is_copied_and_what_to_install_is_said(tmp_path, monkeypatch, capsys):
    repository = fake_repository(tmp_path, "00_start_here.ipynb")
    monkeypatch.chdir(repository)
    monkeypatch.setitem(sys.modules, "jupyterlab", None)
    assert cli.main(["lab"]) == 2
    assert "JupyterLab is not installed" in (said := capsys.readouterr().err) and "'kdlib[lab]'" in said
    assert not (repository / "my_notebooks").exists()


def test_an_unknown_profile_in_the_environment_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDLIB_PROFILE", "quick")
    notebook = write_notebook(tmp_path / "here.ipynb", "1")
    assert cli.main(["run", str(notebook), "--out", str(tmp_path / "out")]) == 2
    assert "'quick'" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_run_takes_the_lessons_of_the_repository_above(tmp_path, monkeypatch, capsys):
    repository = fake_repository(
        tmp_path, "00_start_here.ipynb", "01_principle.ipynb", "solutions/01_principle.ipynb"
    )
    monkeypatch.chdir(repository / "notebooks")
    asked = {}
    monkeypatch.setattr(
        runner, "run", lambda notebooks, **options: asked.update(options, notebooks=notebooks) or []
    )
    assert cli.main(["run", "--profile", "ci"]) == 0
    assert asked["notebooks"] == ["00_start_here.ipynb", "01_principle.ipynb"]
    assert asked["out"] == repository / "runs" / "ci" and asked["profile"] == "ci" and asked["jobs"] is None


def fake_repository(folder: Path, *notebooks: str) -> Path:
    for name in notebooks:
        write_notebook(folder / "notebooks" / name, "1")
    (folder / "kdlib").mkdir()
    (folder / "kdlib" / "__init__.py").touch()
    return folder


def test_lab_passes_every_message_of_a_kernel_on_at_once(monkeypatch):
    done = []
    monkeypatch.setattr(ZMQChannelsWebsocketConnection, "connect", lambda self: done.append("connected"))
    handler = mock.create_autospec(KernelWebsocketHandler, instance=True)
    handler.set_nodelay.side_effect = lambda value: done.append(f"no delay: {value}")
    connection = import_item(course.CONNECTION)(parent=KernelManager(), websocket_handler=handler)
    connection.connect()
    assert done == ["no delay: True", "connected"]


def test_lab_names_a_missing_first_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(fake_repository(tmp_path, "01_principle.ipynb"))
    assert cli.main(["lab"]) == 2
    assert "00_start_here.ipynb does not exist" in capsys.readouterr().err


def test_help_names_every_command_and_imports_nothing_heavy():
    code = """
import sys, kdlib.cli
try:
    kdlib.cli.main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {"torch", "torchvision", "numpy", "pandas", "matplotlib", "IPython", "papermill"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert all(command in process.stdout for command in ("lab", "run", "train-teacher", "doctor"))


def test_train_teacher_hands_its_arguments_on(monkeypatch):
    asked = []
    monkeypatch.setattr(
        teacher_recipe, "train_teacher", lambda *names, **options: asked.append((names, options)) or "here"
    )
    assert cli.main(["train-teacher", "digits", "--epochs", "3", "--out", "here", "--seed", "5"]) == 0
    assert asked == [(("digits",), {"root": None, "out": "here", "epochs": 3, "seed": 5})]


def test_course_of_an_installed_package_is_found_from_any_folder_of_the_repository(tmp_path):
    repository = fake_repository(tmp_path, "00_start_here.ipynb")
    assert course.repository(repository / "notebooks") == repository
    assert course.repository(tmp_path.parent) is None
