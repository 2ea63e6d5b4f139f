"""`kdlib lab` for real: what the server opens, what it is set to, and that nothing of it outlives a signal."""

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import open_lab
import pytest

CHECKOUT = Path(__file__).parents[1]
linux = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked up in /proc")


def gone(lab: open_lab.Running, processes: list[int], private: Path) -> None:
    """No process is left, the port is free, and Jupyter has put away its notes about them."""
    assert processes and not [pid for pid in processes if open_lab.runs(pid)]
    assert not open_lab.answers(lab.port)
    assert not [path.name for path in (private / "runtime").iterdir() if path.suffix == ".json"]


@linux
def test_a_signal_ends_the_server_and_its_kernels(tmp_path):
    folder = open_lab.write_course(tmp_path / "course") / "notebooks"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        private = tmp_path / number.name
        with open_lab.running(folder, private) as lab:
            processes = lab.start_kernel()
            lab.process.send_signal(number)
            assert lab.process.wait(open_lab.PATIENCE) == 0, number
            gone(lab, processes, private)


@linux
def test_under_nohup_a_closed_terminal_ends_nothing(tmp_path):
    folder = open_lab.write_course(tmp_path / "course") / "notebooks"
    with open_lab.running(folder, tmp_path / "private", ["nohup", *open_lab.LAB]) as lab:
        lab.process.send_signal(signal.SIGHUP)
        assert "version" in lab.ask("api")
        assert lab.process.poll() is None


@linux
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_signal_ends_make_lab_and_all_that_it_started(tmp_path):
    folder = installed_course(tmp_path / "my course")
    # As they arrive: the one from `kill`, at make alone; the others from a terminal, at all of its processes.
    for number, send in ((signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg), (signal.SIGHUP, os.killpg)):
        private = tmp_path / number.name
        with open_lab.running(folder, private, ["make", "lab"], start_new_session=True) as lab:
            lab.start_kernel()
            processes = open_lab.descendants(lab.process.pid)
            assert len(processes) >= 2
            send(lab.process.pid, number)
            lab.process.wait(open_lab.PATIENCE)
            gone(lab, processes, private)


def installed_course(folder: Path) -> Path:
    """A course that `make` takes for installed."""
    open_lab.write_course(folder)
    shutil.rmtree(folder / "kdlib")
    (folder / "kdlib").symlink_to(CHECKOUT / "kdlib")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, folder)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / "installed-from").write_text(f"{folder.resolve()}\n")
    return folder


def test_the_server_opens_the_copy_shows_the_solutions_and_asks_for_no_news(tmp_path):
    repository, private = open_lab.write_course(tmp_path / "course"), tmp_path / "private"
    open_lab.write_lesson(repository / "notebooks" / "solutions" / "01_principle.ipynb", "# Solved")
    with open_lab.running(repository / "notebooks", private) as lab:
        (page,) = (private / "runtime").glob("jpserver-file-to-run-*.html")  # which leads the browser there
        assert f"/lab/tree/my_notebooks/00_start_here.ipynb?token={lab.token}" in page.read_text()
        for path in ("my_notebooks/01_principle.ipynb", "notebooks/solutions/01_principle.ipynb"):
            assert lab.ask(f"api/contents/{path}?content=0")["type"] == "notebook"
        settings = lab.ask("lab/api/settings/@jupyterlab/apputils-extension:notification")
        defaults = {key: value["default"] for key, value in settings["schema"]["properties"].items()}
        assert (defaults["fetchNews"], defaults["checkForUpdates"]) == ("false", False)
        assert settings["settings"] == {}
    assert not list(private.rglob("*.jupyterlab-settings"))


def test_what_a_user_has_set_about_news_comes_first(tmp_path):
    folder, private = open_lab.write_course(tmp_path / "course") / "notebooks", tmp_path / "private"
    own = private / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    own.mkdir(parents=True)
    (own / "notification.jupyterlab-settings").write_text('{"fetchNews": "true"}')
    with open_lab.running(folder, private) as lab:
        settings = lab.ask("lab/api/settings/@jupyterlab/apputils-extension:notification")
        assert settings["settings"] == {"fetchNews": "true"}
    assert (own / "notification.jupyterlab-settings").read_text() == '{"fetchNews": "true"}'
