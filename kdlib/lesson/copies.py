"""The learner's own copies of the lessons: without outputs, in a folder beside the committed ones.

With an installed kdlib, whose notebooks lie where nobody looks, that folder is made in the current one, and the
solutions are copied into it too, with their outputs.

A copy is made where there is none. From then on it is the learner's: no update writes to it, and a reset gives it
another name. What it was made from stands in its metadata, so that it can be told when the lesson has changed since.
"""

import contextlib
import datetime
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat

from kdlib import _files
from kdlib.lesson import course

FOLDER = course.COPIES
SOLUTIONS = "solutions"
# Where a link leads from a lesson into `solutions`, in Markdown or in HTML. Other links lead to the same places from
# a copy: the two folders lie side by side, and every lesson has a copy.
_TO_SOLUTIONS = re.compile(r"""(\]\(<?|\]:\s+<?|(?:href|src)=["'])(?:\./)?(?=solutions/)""")


def folder(repository: Path) -> Path:
    """Where the copies lie."""
    return course.workplace(repository) / FOLDER


def _pairs(repository: Path) -> list[tuple[Path, Path]]:
    """Each notebook that is copied, and its copy: the lessons, and from an installed kdlib the solutions as well."""
    place = folder(repository)
    pairs = [(path, place / path.name) for path in course.lessons(repository)]
    if not _copies_solutions(repository):
        return pairs
    solutions = sorted((repository / "notebooks" / SOLUTIONS).glob("*.ipynb"))
    return pairs + [(path, place / SOLUTIONS / path.name) for path in solutions]


def _copies_solutions(repository: Path) -> bool:
    """Whether the solutions lie where a learner's browser cannot go, unlike those beside the copies."""
    return course.workplace(repository) != repository


def make_missing(repository: Path) -> list[Path]:
    """Copy everything of which there is no copy.

    Returns:
        The copies that were made: of lessons, after which may follow those of solutions.

    Raises:
        OSError: the folder of the copies cannot be made or written.
        ValueError: a lesson is no notebook.
    """
    with _scratch(repository) as scratch:  # even if nothing is missing: who cannot write there has to know it
        missing = [(path, copy) for path, copy in _pairs(repository) if not os.path.lexists(copy)]
        return [copy for path, copy in missing if _create(path, copy, scratch)]


def outdated(repository: Path) -> list[Path]:
    """The copies of what is not as it was when the copy was made.

    Raises:
        ValueError: a lesson is no notebook.
    """
    origins = [(path, copy, _origin(copy)) for path, copy in _pairs(repository)]
    return [copy for path, copy, origin in origins if origin and origin != _digest(_without_outputs(path))]


def reset(repository: Path, names: Sequence[str]) -> list[tuple[Path, Path | None]]:
    """Put fresh copies in the place of those that are there, which keep their content under another name.

    Args:
        repository: the course's folder.
        names: of lessons, in any form that `course.find` knows.

    Returns:
        For each lesson, and its solution where that is copied, the fresh copy, and where the old one is now; None
        where there was none.

    Raises:
        ValueError: a name is unknown, or a lesson is no notebook; no copy has changed.
        OSError: the folder of the copies cannot be written.
    """
    found = dict.fromkeys(course.find(name, course.lessons(repository)).name for name in names)
    pairs = [pair for name in found for pair in _pairs(repository) if pair[0].name == name]
    with _scratch(repository) as scratch:
        # All of them, before the first old one makes way.
        fresh = [(_fresh(path, scratch / str(number)), copy) for number, (path, copy) in enumerate(pairs)]
        return [(copy, _replace(copy, path)) for path, copy in fresh]


def _without_outputs(lesson: Path) -> nbformat.NotebookNode:
    try:
        notebook = nbformat.read(lesson, as_version=4)
    except ValueError as error:
        raise ValueError(f"{lesson} is no notebook ({error}): fetch it from the repository again") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _digest(notebook: nbformat.NotebookNode) -> str:
    return hashlib.sha256(json.dumps(notebook, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _scratch(repository: Path) -> Iterator[Path]:
    """A folder for what gets its name among the copies when it is whole."""
    place = folder(repository)
    try:
        for needed in (place, place / SOLUTIONS)[: 2 if _copies_solutions(repository) else 1]:
            needed.mkdir(exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".new-", dir=place)
    except OSError as error:
        raise OSError(f"{place} cannot be written ({error.strerror})") from error
    with scratch as name:
        yield Path(name)


def _fresh(lesson: Path, scratch: Path) -> Path:
    """A new copy of a lesson or a solution, not yet in its place. A solution shows its results, too."""
    notebook = _without_outputs(lesson)
    origin, solved = _digest(notebook), lesson.parent.name == SOLUTIONS
    if solved:
        notebook = nbformat.read(lesson, as_version=4)
    notebook.metadata["kdlib"] = {"made_from": origin}
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and not solved and not _copies_solutions(lesson.parents[1]):
            cell.source = _TO_SOLUTIONS.sub(rf"\1../{lesson.parent.name}/", cell.source)
    return _files.write(scratch / lesson.name, (nbformat.writes(notebook) + "\n").encode())


def _origin(copy: Path) -> str | None:
    """The digest of what a copy was made from; None where that is not known: it is absent, broken, or no copy."""
    try:
        return json.loads(copy.read_text(encoding="utf-8"))["metadata"]["kdlib"]["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _create(lesson: Path, copy: Path, scratch: Path) -> bool:
    """Make a copy, unless another process has made it by now: then False."""
    try:
        _name(_fresh(lesson, scratch), copy)
    except FileExistsError:
        return False
    return True


def _replace(copy: Path, fresh: Path) -> Path | None:
    """Put the fresh copy in the place of the old one, whose new name is returned."""
    kept = _keep(copy) if os.path.lexists(copy) else None
    os.replace(fresh, copy)
    return kept


def _keep(copy: Path) -> Path:
    """Give a copy a name that nothing else has: the day, and from the second one of a day a number."""
    day = datetime.date.today().isoformat()
    for number in itertools.count(1):
        kept = copy.with_name(f"{copy.stem}.kept-{day}{f'-{number}' if number > 1 else ''}.ipynb")
        try:
            _name(copy, kept)
        except FileExistsError:
            continue
        return kept


def _name(file: Path, name: Path) -> None:
    """Give a file another name, which no other process can take at the same moment.

    It loses its old name only where a file system knows no second names (that of many USB sticks).

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        os.link(file, name, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):
        raise
    except (OSError, NotImplementedError):
        if os.path.lexists(name):
            raise FileExistsError(f"{name} exists") from None
        os.rename(file, name)
