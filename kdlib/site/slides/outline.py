"""The outline of a lecture: which pieces of a lesson's notebook stand on which slide, and what the speaker says.

It is a Markdown file. Each `## ` begins a slide and is its title; the list right below it names what the slide shows,
one `- kind: handle` a line; whatever follows is for the speaker alone. See `pieces.KINDS` for the kinds. After the
handle, parts to pick from the piece may follow, each behind a ` | `.
"""

import re
from dataclasses import dataclass

_PICK = re.compile(r"- (?P<kind>[a-z]+): +(?P<handle>.+)")
_BETWEEN = " | "


@dataclass(frozen=True)
class Pick:
    """A piece of the notebook: its kind, how it begins, and the parts of it that are shown; none means all."""

    kind: str
    handle: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Slide:
    """One slide; the notes are Markdown."""

    title: str
    picks: tuple[Pick, ...]
    notes: str


def read(text: str) -> list[Slide]:
    """The slides of an outline.

    Raises:
        ValueError: a slide shows nothing, or has no notes; it is named.
    """
    return [_slide(*part.split("\n", 1)) for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]]


def _slide(title: str, rest: str = "") -> Slide:
    picks, lines = [], rest.strip().splitlines()
    while lines and (found := _PICK.fullmatch(lines[0])):
        handle, *parts = found["handle"].split(_BETWEEN)
        picks.append(Pick(found["kind"], handle, tuple(parts)))
        lines.pop(0)
    notes = "\n".join(lines).strip()
    if not picks:
        raise ValueError(f"the slide {title!r} shows nothing: put `- kind: handle` right below its title")
    if not notes:
        raise ValueError(f"the slide {title!r} has no notes for the speaker")
    return Slide(title.strip(), tuple(picks), notes)
