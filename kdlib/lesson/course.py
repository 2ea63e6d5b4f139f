"""Where the course lies, and the environment in which its notebooks find this interpreter and this kdlib."""

import os
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


def find(name: str, notebooks: Sequence[Path]) -> Path:
    """The notebook that is meant by 02, 2, temperature, 02_temperature, or by how one of the names begins.

    Raises:
        ValueError: none of them is, or several are.
    """
    for path in notebooks:
        number, _, title = path.stem.partition("_")
        by_number = name.isdecimal() and number.isdecimal() and int(name) == int(number)
        if by_number or name in (path.name, path.stem, title):
            return path
    begun = [path for path in notebooks if name and not name.isdecimal() and _begins(path.stem, name)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise ValueError(f"{name!r} begins several lessons: {', '.join(path.stem for path in begun)}")
    there_are = ", ".join(path.stem for path in notebooks) or "none"
    raise ValueError(f"there is no lesson {name!r}; there are: {there_are}")


def _begins(stem: str, name: str) -> bool:
    return any(start.startswith(name) for start in (stem, stem.partition("_")[2]))


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
