"""The learner's own copies of the lessons: without outputs, in a folder beside the committed ones.

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

FOLDER = "my_notebooks"
# Where a link leads from a lesson into `solutions`, in Markdown or in HTML. Other links lead to the same places from
# a copy: the two folders lie side by side, and every lesson has a copy.
_TO_SOLUTIONS = re.compile(r"""(\]\(<?|\]:\s+<?|(?:href|src)=["'])(?:\./)?(?=solutions/)""")


def folder(repository: Path) -> Path:
    """Where the copies lie."""
    return repository / FOLDER


def make_missing(repository: Path) -> list[Path]:
    """Copy every lesson of which there is no copy.

    Returns:
        The copies that were made.

    Raises:
        OSError: the folder of the copies cannot be made or written.
        ValueError: a lesson is no notebook.
    """
    place = folder(repository)
    with _scratch(place) as scratch:  # even if nothing is missing: who cannot write there has to know it
        missing = [path for path in course.lessons(repository) if not os.path.lexists(place / path.name)]
        return [place / path.name for path in missing if _create(path, place / path.name, scratch)]


def outdated(repository: Path) -> list[Path]:
    """The copies of lessons that are not what they were when the copy was made.

    Raises:
        ValueError: a lesson is no notebook.
    """
    pairs = [(path, folder(repository) / path.name) for path in course.lessons(repository)]
    origins = [(path, copy, _origin(copy)) for path, copy in pairs]
    return [copy for path, copy, origin in origins if origin and origin != _digest(_without_outputs(path))]


def reset(repository: Path, names: Sequence[str]) -> list[tuple[Path, Path | None]]:
    """Put fresh copies in the place of those that are there, which keep their content under another name.

    Args:
        repository: the course's folder.
        names: of lessons, in any form that `course.find` knows.

    Returns:
        For each lesson the fresh copy, and where the old one is now; None where there was none.

    Raises:
        ValueError: a name is unknown, or a lesson is no notebook; no copy has changed.
        OSError: the folder of the copies cannot be written.
    """
    chosen = dict.fromkeys(course.find(name, course.lessons(repository)) for name in names)
    place = folder(repository)
    with _scratch(place) as scratch:
        fresh = [_fresh(path, scratch) for path in chosen]  # all of them, before the first old one makes way
        return [(place / path.name, _replace(place / path.name, path)) for path in fresh]


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
def _scratch(place: Path) -> Iterator[Path]:
    """A folder for what gets its name in `place` when it is whole."""
    try:
        place.mkdir(exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".new-", dir=place)
    except OSError as error:
        raise OSError(f"{place} cannot be written ({error.strerror})") from error
    with scratch as name:
        yield Path(name)


def _fresh(lesson: Path, scratch: Path) -> Path:
    """A new copy of a lesson, not yet in its place."""
    notebook = _without_outputs(lesson)
    notebook.metadata["kdlib"] = {"made_from": _digest(notebook)}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
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
