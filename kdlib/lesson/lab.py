"""JupyterLab with the learner's copies of the lessons (`kdlib lab`).

It runs in this very process: what ends the one ends the other, and no server can be left behind.
"""

import importlib.util
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from kdlib.lesson import copies, course

START = "00_start_here.ipynb"
# What is set otherwise in the course than by default: JupyterLab asks for no news and no updates. It stands below the
# user's own settings, which remain as they are, and come first.
_SETTINGS = Path(__file__).parent / "static" / "jupyter"


def open_lab(options: Sequence[str] = ()) -> None:
    """Open JupyterLab at the learner's copy of the first lesson and stay until it ends.

    Copies that are missing are made. What happened to the copies is said in a line each.

    Args:
        options: handed on to JupyterLab.

    Raises:
        SystemExit: JupyterLab did not start, or was only asked for its version, say; with its exit status.
        FileNotFoundError: the current folder is not inside a copy of the repository, or that has no first lesson; and
            kdlib came without notebooks of its own.
        ModuleNotFoundError: JupyterLab is not installed; no copy was made.
        OSError: there are no copies, and none can be made.
    """
    repository = course.require_repository()
    first = repository / "notebooks" / START
    if not first.is_file():
        raise FileNotFoundError(f"{first} does not exist: is this a whole copy of the repository?")
    if importlib.util.find_spec("jupyterlab") is None:
        raise ModuleNotFoundError("JupyterLab is not installed", name="jupyterlab")
    for line in _prepare(repository):
        print(line, flush=True)
    # Without this a kernel that the user once installed elsewhere as `python3` would be taken.
    environment = course.environment(JUPYTER_PREFER_ENV_PATH="1")
    course.prepend(environment, "JUPYTER_CONFIG_PATH", _SETTINGS)
    os.environ.update(environment)
    _end_on_signals()
    from jupyterlab.labapp import LabApp

    LabApp.launch_instance(
        [
            str(copies.folder(repository) / START),
            f"--ServerApp.root_dir={course.workplace(repository)}",  # so that links lead from a copy to the solutions
            f"--ServerApp.kernel_websocket_connection_class={course.CONNECTION}",
            *options,
        ]
    )


def reset(names: Sequence[str]) -> None:
    """Put fresh copies of lessons in the place of the learner's, which are kept, and say so.

    Args:
        names: of lessons, in any form that `course.find` knows.

    Raises:
        FileNotFoundError: the current folder is not inside a copy of the repository, and kdlib came without notebooks.
        ValueError, OSError: as `copies.reset`.
    """
    for copy, kept in copies.reset(course.require_repository(), names):
        was = f"yours is kept as {kept.name}" if kept else "there was none"
        print(f"{_title(copy)}: a fresh copy is in {copy.parent}; {was}")
    print("If it is open in JupyterLab: File > Reload Notebook from Disk.")


def _prepare(repository: Path) -> list[str]:
    """Make the copies that are missing; return what is to be said about all of them."""
    place, lines = copies.folder(repository), []
    try:
        made = copies.make_missing(repository)
    except OSError as error:
        if not (place / START).is_file():
            remedy = "Put the course" if place.parent == repository else "Change into a folder"
            raise OSError(f"no copies of the lessons: {error}. {remedy} where you may write") from error
        lines.append(f"{error}: what you do there may not be saved")
    else:
        count = sum(copy.parent == place for copy in made)
        lines.append(f"You work on your own copies of the lessons, in {place} ({count} made now)")
    if outdated := copies.outdated(repository):
        stems = ", ".join(map(_title, outdated))
        numbers = " ".join(dict.fromkeys(copy.stem.partition("_")[0] for copy in outdated))
        lines.append(
            f"Changed since your copy was made: {stems}. `kdlib lab --reset {numbers}` puts a fresh copy there "
            "and keeps yours under another name."
        )
    return lines


def _title(copy: Path) -> str:
    """A copy's name as a learner is told it: 02_temperature, or solutions/02_temperature."""
    return f"{copies.SOLUTIONS}/{copy.stem}" if copy.parent.name == copies.SOLUTIONS else copy.stem


def _end_on_signals() -> None:
    """Let Ctrl-C and a closed terminal do what SIGTERM does: JupyterLab ends its kernels, then itself.

    In a terminal JupyterLab asks on Ctrl-C whether to end, and ends on a second one.
    """
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            continue  # under `nohup` a closed terminal is to end nothing
        signal.signal(number, lambda number, frame: signal.raise_signal(signal.SIGTERM))
