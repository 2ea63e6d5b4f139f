"""Virtual environments that are made in a second and without a network: they see what is installed here, less kdlib."""

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
BIN = "Scripts" if sys.platform == "win32" else "bin"


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, built without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def make_shelf(folder: Path, *, without: Iterable[str] = ()) -> Path:
    """A folder of links to all packages that are installed here; of kdlib, and those `without`, there is nothing.

    Links, so that `pip` finds there what it has to find: a requirement that is met is not fetched.
    """
    left_out = {"kdlib", *(name.replace("-", "_").lower() for name in without)}
    folder.mkdir(parents=True)
    for entry in (path for packages in site.getsitepackages() for path in Path(packages).glob("*")):
        name = entry.name.partition("-")[0].partition(".")[0].lower()
        if name not in left_out and entry.suffix != ".pth" and not (folder / entry.name).exists():
            (folder / entry.name).symlink_to(entry)
    return folder


def make_environment(folder: Path, shelf: Path) -> Path:
    """A virtual environment with what is on the shelf; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / BIN / Path(sys.executable).name
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "shelf.pth").write_text(f"{shelf}\n")
    for name in ("share", "etc"):  # what packages put there: JupyterLab itself, templates, extensions
        if (Path(sys.prefix) / name).is_dir() and not (folder / name).exists():
            (folder / name).symlink_to(Path(sys.prefix) / name)
    return python


def surroundings(python: Path, **variables: str) -> dict[str, str]:
    """The variables of somebody who has activated the environment: nothing leads to this checkout or to a network."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "PIP", "MAKE", "JUPYTER", "KDLIB", "PYTEST"))
    }
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_BUILD_ISOLATION": "0"}
    return {**kept, **offline, "PATH": path, "VIRTUAL_ENV": str(python.parents[1]), **variables}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a command to its end in a folder, and hand back what it said."""
    program = shutil.which(command[0], path=environment["PATH"])
    return subprocess.run(
        [program or command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
    )
