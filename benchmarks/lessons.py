"""How long the lessons take, in the profiles `ci` and `lesson`, one after another: the times in the README.

    python benchmarks/lessons.py [NAME ...]
    python benchmarks/lessons.py --write

NAME is of a lesson, as `kdlib lab --reset` takes it; without one, all lessons. --write measures all of them and puts
the seconds into the README's table, and below it the day and the number of cores. Each notebook is run whole, as
`kdlib run` does it, with a kernel of its own and all cores.
"""

import argparse
import datetime
import re
import tempfile
from pathlib import Path

from kdlib import _files
from kdlib.lesson import course, runner

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PROFILES = ("ci", "lesson")
_MEASURED = re.compile(r"measured on \d{4}-\d\d-\d\d on \d+ cores")


def measure(lessons: list[Path], profile: str) -> dict[str, float]:
    """Seconds of each lesson, by its name.

    Raises:
        RuntimeError: a lesson did not run to its end; its time would be none.
    """
    with tempfile.TemporaryDirectory() as out:
        results = runner.run(lessons, out=out, profile=profile, jobs=1)
    failed = [f"{result.notebook}: {result.error}" for result in results if result.status != "passed"]
    if failed:
        raise RuntimeError("\n".join([f"no times: in the profile {profile} there failed", *failed]))
    return {Path(result.notebook).stem: result.seconds for result in results}


def with_times(readme: str, times: dict[str, list[float]], *, day: datetime.date, cores: int) -> str:
    """The README with the seconds of each lesson in `times` in the last columns of its row.

    Raises:
        ValueError: a lesson has no row, or nothing says when and on how many cores the times were measured.
    """
    for name, seconds in times.items():
        row = re.compile(rf"^(\| \[[^]]*\]\(notebooks/{name}\.ipynb\) \|[^|]*\|).*$", re.MULTILINE)
        cells = " ".join(f"{second:.0f} |" for second in seconds)
        readme, rows = row.subn(rf"\1 {cells}", readme)
        if rows != 1:
            raise ValueError(f"the README has {rows} rows for notebooks/{name}.ipynb; one is needed")
    readme, notes = _MEASURED.subn(f"measured on {day} on {cores} cores", readme)
    if notes != 1:
        raise ValueError(f"the README says {notes} times `measured on YYYY-MM-DD on N cores`; once is needed")
    return readme


def main(arguments: list[str] | None = None) -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a lesson: 02, temperature; default: all")
    parser.add_argument("--write", action="store_true", help="measure all, and put the times into the README")
    options = parser.parse_args(arguments)
    if options.write and options.names:
        parser.error("--write dates the whole table: it measures all lessons, and takes no names")
    lessons = course.lessons(ROOT)
    if options.names:
        lessons = [course.find(name, lessons) for name in options.names]
    seconds = {profile: measure(lessons, profile) for profile in PROFILES}
    times = {lesson.stem: [seconds[profile][lesson.stem] for profile in PROFILES] for lesson in lessons}
    print(f"{'seconds':<28}" + "".join(f"{profile:>8}" for profile in PROFILES))
    for name, measured in times.items():
        print(f"{name:<28}" + "".join(f"{second:8.1f}" for second in measured))
    if options.write:
        readme = README.read_text(encoding="utf-8")
        written = with_times(readme, times, day=datetime.date.today(), cores=runner.cores())
        _files.write(README, written.encode())


if __name__ == "__main__":
    main()
