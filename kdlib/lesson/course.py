"""Where the course lies, and the environment in which its notebooks find this interpreter and this kdlib."""

import os
from collections.abc import Sequence
from pathlib import Path

START = "00_start_here.ipynb"
COPIES = "my_notebooks"  # the folder of the learner's own copies
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


def packaged() -> Path | None:
    """The folder of this kdlib, if the notebooks came with it: they lie inside of an installed one."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "notebooks" / START).is_file() else None


def require_repository() -> Path:
    """As `repository`, for what cannot do without the notebooks: outside of it, the folder of an installed kdlib.

    Raises:
        FileNotFoundError: the current folder is not inside a copy of the repository, and kdlib came without notebooks.
    """
    folder = repository() or packaged()
    if folder is None:
        raise FileNotFoundError(
            f"no notebooks folder of the course in {Path.cwd()} or above it: "
            "change into a copy of the repository, or name notebooks"
        )
    return folder


def workplace(folder: Path) -> Path:
    """Where the learner works: a copy of the repository itself, or, with the notebooks of an installed kdlib, here.

    Args:
        folder: what `require_repository` found.

    Returns:
        The folder in which `my_notebooks` lies. Who is inside `my_notebooks` gets no second one within it.
    """
    if folder != packaged():
        return folder
    here = Path.cwd()
    mine = (place for place in (here, *here.parents) if place.name == COPIES and (place / START).is_file())
    return next((place.parent for place in mine), here)


def lessons(folder: Path) -> list[Path]:
    """The course's notebooks in order, without the solutions."""
    return sorted((folder / "notebooks").glob("*.ipynb"))


def chosen(names: Sequence[str]) -> list[str]:
    """The notebooks that a command is to take: files by their paths, lessons in any form that `find` knows.

    Args:
        names: those that were named; none stands for every lesson.

    Returns:
        Their paths, within a copy of the repository as seen from the current folder.

    Raises:
        ValueError: there is neither such a file nor such a lesson.
        FileNotFoundError: a lesson is asked for, and there are no notebooks of the course.
    """
    if not names:
        return [_shown(path) for path in lessons(require_repository())]
    files = {name for name in names if name.endswith(".ipynb") or Path(name).exists()}
    return [name if name in files else _shown(find(name, lessons(require_repository()))) for name in names]


def _shown(path: Path) -> str:
    """A lesson's path: within a copy of the repository as seen from the current folder."""
    return os.path.relpath(path) if packaged() not in path.parents else str(path)


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
