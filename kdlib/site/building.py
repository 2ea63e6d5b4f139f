"""A folder of pages from the lessons: what `kdlib site` writes."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kdlib.lesson import course, runner
from kdlib.site import laboratory, pages, search, slides
from kdlib.site.pages import Lesson

MARK = "kdlib-site.json"  # by which a folder is known as an earlier site: it lists all that was written there
_NAMED = 5  # of the files that are in the way


def build(
    out: str | Path,
    *,
    notebooks: Sequence[str | Path] | None = None,
    executed: str | Path | None = None,
    profile: str | None = None,
    jobs: int | None = None,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Write the course as a folder of pages that any static host takes, and that opens from a disk as well.

    The folder gets its name when it is whole. An earlier site is replaced, and stays as it was where this one fails.

    Args:
        out: the folder; it may be missing, empty, or an earlier site to which nothing was added.
        notebooks: paths of lessons; by default all lessons of the course.
        executed: the folder that `kdlib run --out` wrote, with these lessons; by default they are executed now.
        profile: as for `runner.run`.
        jobs: as for `runner.run`.
        report: receives a line for each lesson that is ready.

    Returns:
        The files of the site.

    Raises:
        ValueError: `out` holds something else, or a lesson in `executed` had failed; nothing was written.
        FileNotFoundError: there are no lessons, or `executed` lacks one of them; nothing was written.
        RuntimeError: a lesson failed now; nothing was written.
    """
    out = Path(out).resolve()
    _require_own(out)
    sources = [Path(path) for path in notebooks or course.lessons(course.require_repository())]
    with _beside(out) as scratch:
        folder = Path(executed) if executed is not None else scratch / "run"
        if executed is None:
            _execute(sources, folder, profile, jobs, report)
        _require_passed(sources, folder)
        made = scratch / "site"
        made.mkdir()
        decks = {
            path.stem for path in slides.write([folder / path.name for path in sources], made / "slides")
        }
        lessons = []
        for path in sources:
            lessons.append(
                Lesson.read(folder / path.name, path.parent / "solutions" / path.name, path.stem in decks)
            )
            report(f"page of {path.stem}")
        _write(lessons, made)
        laboratory.write(made / "laboratory")
        _mark(made)
        _put_in_place(made, out, scratch / "earlier")
    return sorted(path for path in out.rglob("*") if path.is_file())


def _require_own(out: Path) -> None:
    """Nobody's files are in the way."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if (out / MARK).is_file():
        _require_nothing_added(out)
    elif out.exists() or out.is_symlink():
        raise ValueError(f"out={str(out)!r} holds something else than an earlier site: choose another folder")


def _require_nothing_added(out: Path) -> None:
    """An earlier site is deleted, and with it would go a clone's history, a CNAME, or what else was put into it."""
    known = {".", MARK, *json.loads((out / MARK).read_text(encoding="utf-8")).get("files", [])}
    found = {path.relative_to(out) for path in out.rglob("*")}
    added = sorted(
        path.as_posix() for path in found if path.as_posix() not in known and path.parent.as_posix() in known
    )
    if added:
        more = f" and {len(added) - _NAMED} more" if len(added) > _NAMED else ""
        raise ValueError(
            f"out={str(out)!r} is an earlier site that also holds {', '.join(added[:_NAMED])}{more}, which"
            f" {MARK} does not list: move that out of the folder, or choose another folder"
        )


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder on the same disk as `out`, for what is not ready."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        yield Path(folder)


def _execute(
    sources: list[Path], folder: Path, profile: str | None, jobs: int | None, report: Callable[[str], None]
) -> None:
    results = runner.run(sources, out=folder, profile=profile, jobs=jobs, report=report)
    if any(result.status != "passed" for result in results):
        raise RuntimeError(f"{runner.table(results)}\n\nno site was written, because a lesson failed")


def _require_passed(sources: list[Path], folder: Path) -> None:
    """Every lesson lies in the folder and ran to its end, as far as that is known."""
    lacking = [path.name for path in sources if not (folder / path.name).is_file()]
    if lacking:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(lacking)}: kdlib run --out {folder} writes them there"
        )
    summary = folder / "summary.json"
    results = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else []
    names = {path.name for path in sources}
    failed = [
        one["notebook"]
        for one in results
        if one["status"] != "passed" and Path(one["notebook"]).name in names
    ]
    if failed:
        raise ValueError(f"{folder}: {', '.join(failed)} did not pass when it was run; run it again")


def _write(lessons: list[Lesson], folder: Path) -> None:
    """The pages that are made of the lessons, and what they share."""
    texts = {"index.html": pages.front(lessons), search.FILE: search.index(lessons)}
    for number, lesson in enumerate(lessons):
        texts[f"{lesson.name}.html"] = pages.lesson(lessons, number)
        if lesson.solutions:
            texts[f"solutions/{lesson.name}.html"] = pages.solutions(lesson)
    texts[".nojekyll"] = ""  # GitHub would leave out files whose names begin with an underscore
    (folder / "solutions").mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _mark(folder: Path) -> None:
    """List what is in the folder, so that the next site knows what it may replace."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    (folder / MARK).write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")


def _put_in_place(made: Path, out: Path, earlier: Path) -> None:
    try:
        if out.exists():
            out.rename(earlier)
        made.rename(out)
    except BaseException:  # Ctrl-C, too: what is left in `earlier` is deleted
        if earlier.exists() and not out.exists():
            earlier.rename(out)
        raise
