"""Where the course lies, and the environment in which its notebooks find this interpreter and this kdlib."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

START = "00_start_here.ipynb"
# What the Jupyter servers of the course use between kernel and browser: see that module.
CONNECTION = "kdlib.lesson.undelayed.UndelayedConnection"


def repository(start: Path | None = None) -> Path | None:
    """The folder, from `start` (default: the current folder) upward, that holds the course's notebooks."""
    start = (start or Path.cwd()).resolve()
    return next((folder for folder in (start, *start.parents) if _is_repository(folder)), None)


def _is_repository(folder: Path) -> bool:
    return (folder / "notebooks").is_dir() and (folder / "kdlib" / "__init__.py").is_file()


def checkout() -> Path | None:
    """The copy of the repository whose kdlib this is; None where kdlib was installed without the notebooks."""
    folder = Path(__file__).resolve().parents[2]
    return folder if _is_repository(folder) else None


def require_repository() -> Path:
    """As `repository`, for what cannot do without one.

    Raises:
        FileNotFoundError: the current folder is not inside a copy of the repository.
    """
    folder = repository()
    if folder is None:
        raise FileNotFoundError(
            f"no notebooks folder of the course in {Path.cwd()} or above it: "
            "change into a copy of the repository, or name notebooks"
        )
    return folder


def lessons(folder: Path) -> list[Path]:
    """The course's notebooks in order, without the solutions."""
    return sorted((folder / "notebooks").glob("*.ipynb"))


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with `variables`, in which a notebook imports the kdlib that runs now.

    A copy of the repository need not be installed: it is put on PYTHONPATH. An installed one is found anyway.
    """
    result = dict(os.environ, **variables)
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        prepend(result, "PYTHONPATH", checkout)
    return result


def prepend(environment: dict[str, str], variable: str, folder: Path) -> None:
    """Put `folder` first in a search path such as PYTHONPATH."""
    environment[variable] = os.pathsep.join(filter(None, [str(folder), environment.get(variable)]))


def open_lab(options: Sequence[str] = ()) -> int:
    """Open JupyterLab at the first notebook and stay until it ends.

    Args:
        options: handed on to JupyterLab.

    Returns:
        Its exit status.

    Raises:
        FileNotFoundError: the current folder is not inside a copy of the repository, or that has no first notebook.
    """
    start = require_repository() / "notebooks" / START
    if not start.is_file():
        raise FileNotFoundError(f"{start} does not exist: is this a whole copy of the repository?")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyterlab",
            str(start),
            f"--ServerApp.kernel_websocket_connection_class={CONNECTION}",
            *options,
        ],
        # Without this a kernel that the user once installed elsewhere as `python3` would be taken.
        env=environment(JUPYTER_PREFER_ENV_PATH="1"),
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # JupyterLab received it too, and asks whether to stop
