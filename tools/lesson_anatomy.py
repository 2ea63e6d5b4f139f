"""Measure the lessons by the rules of their anatomy.

    python tools/lesson_anatomy.py [NAME ...]

Read are the committed notebooks, with the outputs that they hold. For each lesson one line of a table, and below it
each rule that it breaks, in words; the exit status is 1 where a lesson breaks one. NAME is how a lesson's name begins
("02"); without one, all lessons are measured.

The core path is what stands before the heading `## Summary`; cells with the tag `figure` only draw, and their code is
folded, so it does not count. Whether code above an exercise solves it is tried out; see shown_answers.py and
shown_code.py, which say what they leave out.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import notebook_reading as reading
from notebook_rules import short_cells
from shown_answers import answers_above, asked

from kdlib.lesson import exercises
from kdlib.lesson.predictions import UNDECIDED

ROOT = Path(__file__).resolve().parents[1]
WORDS, LINES, SECTIONS, MINUTES = 2000, 250, 6, 75  # at most, in the core path
_WORDS_A_MINUTE, _LINES_A_MINUTE, _MINUTES_AN_EXERCISE, _MINUTES_A_FIGURE = 200, 15, 6, 2
_STATED = re.compile(r"\*\*Time\.\*\*\s+About\s+(\d+)\s+minutes")
_NOT_WORDS = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$"  # code and formulas
    r"|^\|[\s:|-]+\|$|\]\([^)]*\)|https?://\S+|<[^>]+>",  # rulers of tables, addresses
    re.DOTALL | re.MULTILINE,
)
_ADDRESS = re.compile(r"\]\([^)]*\)|https?://\S+|arXiv\S*\s*[\d.]*\d|\bdoi:\S*", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_NEAR = 120  # characters from the name of an author to the year, where a text cites

Notebook = dict
Rule = Callable[[Notebook], list[str]]


@dataclass(frozen=True)
class Measures:
    """The size of a lesson's core path."""

    words: int
    lines: int
    sections: int
    exercises: int
    figures: int
    stated: int | None

    @property
    def minutes(self) -> float:
        """How long it takes by the rule."""
        reading_time = self.words / _WORDS_A_MINUTE + self.lines / _LINES_A_MINUTE
        return reading_time + _MINUTES_AN_EXERCISE * self.exercises + _MINUTES_A_FIGURE * self.figures


def measure(notebook: Notebook) -> Measures:
    """Count what stands in the core path."""
    core = _core(notebook)
    prose = "\n".join(reading.source(cell) for _, cell in reading.markdown(core))
    stated = _STATED.search(prose)
    return Measures(
        words=_count_words(prose),
        lines=sum(map(_visible_lines, (cell for _, cell in reading.code(core)))),
        sections=len(re.findall(r"^## \d+\. ", prose, re.MULTILINE)),
        exercises=len(list(asked(core))),
        figures=_count_figures([cell for _, cell in reading.code(core)]),
        stated=int(stated[1]) if stated else None,
    )


def _core(notebook: Notebook) -> Notebook:
    """The notebook up to its heading `## Summary`."""
    return _until(notebook, "## Summary")


def _until(notebook: Notebook, heading: str) -> Notebook:
    cells = []
    for cell in notebook["cells"]:
        before, found, _ = f"\n{reading.source(cell)}\n".partition(f"\n{heading}\n")
        if cell["cell_type"] == "markdown" and found:
            return {**notebook, "cells": [*cells, {**cell, "source": before}]}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _count_words(text: str) -> int:
    plain = _NOT_WORDS.sub(" ", text).replace("|", " ")
    return sum(any(letter.isalnum() for letter in word) for word in plain.split())


def _visible_lines(cell: dict) -> int:
    return (
        0
        if "figure" in reading.tags(cell)
        else sum(map(bool, map(str.strip, reading.source(cell).splitlines())))
    )


def _count_figures(cells: list[dict]) -> int:
    """Cells that show a picture or an interactive figure; with its twin in a neighbouring cell that is one figure."""
    pictures = {i for i, cell in enumerate(cells) if reading.shows_picture(cell)}
    interactive = [i for i, cell in enumerate(cells) if reading.shows_interactive(cell)]
    alone = pictures - set(interactive)
    for i in interactive:
        if i not in pictures:
            alone -= {next((twin for twin in (i - 1, i + 1) if twin in alone), None)}
    return len(interactive) + len(alone)


# ------------------------------------------------------------------ the rules


def short_enough(notebook: Notebook) -> list[str]:
    """Words, lines and sections of the core path."""
    found = measure(notebook)
    parts = [
        ("words", found.words, WORDS),
        ("visible lines of code", found.lines, LINES),
        ("sections", found.sections, SECTIONS),
    ]
    return [
        f"{count:,} {what} in the core path; {most:,} at most" for what, count, most in parts if count > most
    ]


def honest_time(notebook: Notebook) -> list[str]:
    """The time that the lesson states is that of the rule, to a fifth, and no longer than a lesson may be."""
    found = measure(notebook)
    if found.stated is None:
        return ["no line `**Time.** About N minutes`"]
    breaches = []
    if abs(found.stated - found.minutes) > found.minutes / 5:
        breaches.append(
            f"it states {found.stated} minutes, and the rule gives {found.minutes:.0f}: over a fifth apart"
        )
    if found.stated > MINUTES:
        breaches.append(f"it states {found.stated} minutes; {MINUTES} at most")
    return breaches


def exercises_of_every_kind(notebook: Notebook) -> list[str]:
    """At least four: two to write, one to repair or to interpret, one open experiment."""
    kinds = [_kind(exercises.get(name)) for _, name in asked(_core(notebook))]
    wanted = {"write": 2, "repair or interpret": 1, "open experiment": 1}
    few = [(kind, kinds.count(kind), least) for kind, least in wanted.items() if kinds.count(kind) < least]
    missing = [f"{count} exercise(s) of the kind {kind!r}; at least {least}" for kind, count, least in few]
    return missing + ([f"{len(kinds)} exercise(s); at least four"] if len(kinds) < 4 else [])


def _kind(exercise: exercises.Exercise) -> str:
    if exercise.is_open:
        return "open experiment"
    return "repair or interpret" if exercise.start or exercise.asks_for_a_value else "write"


def references_cited(notebook: Notebook) -> list[str]:
    """Each entry's first author stands in the text above the references, with the year after it."""
    above = " ".join(reading.source(cell) for _, cell in reading.markdown(_until(notebook, "## References")))
    text = re.sub(r"\s+", " ", _ADDRESS.sub(" ", above))
    breaches = []
    for entry in _entries(notebook):
        plain = re.sub(r"\s+", " ", _ADDRESS.sub(" ", entry))
        years = _YEAR.findall(plain)
        author = re.split(r",| et al| and |:", plain)[0].split()[-1]
        near = [f"{re.escape(author)}\\b.{{0,{_NEAR}}}?\\b{year}\\b" for year in years]
        if not any(re.search(pattern, text) for pattern in near):
            when = years[-1] if years else "its year, which the entry lacks"
            breaches.append(f"the reference {plain[:60]!r} is not cited: {author} with {when} after it")
    return breaches


def _entries(notebook: Notebook) -> list[str]:
    """The items of the list under the heading `## References`."""
    prose = "\n".join(reading.source(cell) for _, cell in reading.markdown(notebook))
    part = f"\n{prose}".partition("\n## References\n")[2].partition("\n#")[0]
    return re.findall(r"^[-*] (.+(?:\n[ \t]+\S.*)*)", part, re.MULTILINE)


def predictions_decided(notebook: Notebook) -> list[str]:
    """Each prediction is compared, and the outputs that are committed say which option it is."""
    breaches = []
    for place, name in _predictions(notebook):
        said = [text for cell in _comparing(notebook, name) for text in _comparisons(cell)]
        if not said:
            breaches.append(f"{place}: no output of {name}.compare(...) says what came of the prediction")
        elif any(UNDECIDED in text for text in said):
            breaches.append(f"{place}: what is measured does not decide {name}: choose other options")
    return breaches


def _predictions(notebook: Notebook) -> Iterator[tuple[str, str]]:
    """The place and the name of each prediction that is asked for."""
    for place, cell in reading.code(notebook):
        for node in ast.walk(ast.parse(reading.source(cell))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "predict":
                assigned = re.search(r"(\w+) = predict\(", reading.source(cell))
                yield place, assigned[1] if assigned else "a prediction without a name"


def _comparing(notebook: Notebook, name: str) -> list[dict]:
    return [
        cell for _, cell in reading.code(notebook) if re.search(rf"\b{name}\.compare\(", reading.source(cell))
    ]


def _comparisons(cell: dict) -> list[str]:
    said = [text for output in cell["outputs"] for text in reading.texts(output)]
    return [text for text in said if re.search(r"^Answer: ", text, re.MULTILINE)]


RULES: list[Rule] = [
    short_enough,
    honest_time,
    short_cells,
    exercises_of_every_kind,
    references_cited,
    predictions_decided,
    answers_above,
]


def breaches_of(notebook: Notebook) -> list[str]:
    """Whatever breaks a rule, in words."""
    found = []
    for rule in RULES:
        try:
            found += rule(notebook)
        except (
            ValueError,
            SyntaxError,
        ) as error:  # an exercise that does not exist, a cell that is no Python
            found.append(f"{rule.__name__} cannot be judged: {error}")
    return found


# ------------------------------------------------------------------ the command

_COLUMNS = ("lesson", "words", "lines", "sections", "exercises", "figures", "minutes", "stated")


def _row(name: str, found: Measures) -> str:
    minutes, stated = f"{found.minutes:.0f}", "none" if found.stated is None else found.stated
    counts = (found.words, found.lines, found.sections, found.exercises, found.figures, minutes, stated)
    return f"{name:26}" + "".join(f"{count:>10}" for count in counts)


def main(arguments: list[str] | None = None, *, notebooks: Path = ROOT / "notebooks") -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="how a lesson's name begins; default: all")
    names = tuple(parser.parse_args(arguments).names)
    paths = [path for path in sorted(notebooks.glob("*.ipynb")) if not names or path.stem.startswith(names)]
    if not paths:
        print(f"no lesson begins with {', '.join(names) or 'anything'} in {notebooks.name}", file=sys.stderr)
        return 2
    print(f"{_COLUMNS[0]:26}" + "".join(f"{column:>10}" for column in _COLUMNS[1:]))
    broken = False
    for path in paths:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        breaches = breaches_of(notebook)
        print(_row(path.stem, measure(notebook)))
        print("".join(f"    {breach}\n" for breach in breaches), end="", flush=True)
        broken = broken or bool(breaches)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
