"""The search over all lessons: an index as a script, because a page that is opened as a file can fetch nothing."""

import json
from collections.abc import Iterable
from html.parser import HTMLParser
from importlib.resources import files

from kdlib.lesson import page

FILE = "search-index.js"
_HEADINGS = ("h1", "h2", "h3", "h4")
_BLOCKS = (*_HEADINGS, "p", "li", "td", "th", "div")
_WITHOUT = ("script", "style", "pre", "details")
_OUTPUTS = "jp-Cell-outputWrapper"  # what a cell shows is the reader's to see, not to find


class _Sections(HTMLParser):
    """The words below each heading, without code and what it shows."""

    def __init__(self):
        super().__init__()
        self.found: list[dict[str, str]] = [{"anchor": "", "title": "", "text": ""}]
        self._left_out = 0  # how many elements that are left out are open
        self._divisions = 0  # how many <div> are open in the outputs of a cell
        self._in_heading = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self._left_out += tag in _WITHOUT
        self._divisions += tag == "div" and (self._divisions > 0 or _OUTPUTS in (values.get("class") or ""))
        if tag in _HEADINGS and self._counts():
            self._in_heading = True
            self.found.append({"anchor": values.get("id") or "", "title": "", "text": ""})

    def handle_endtag(self, tag: str) -> None:
        self._left_out -= tag in _WITHOUT
        self._divisions -= tag == "div" and self._divisions > 0
        if tag in _HEADINGS:
            self._in_heading = False
        if tag in _BLOCKS:
            self.found[-1]["text"] += " "

    def handle_data(self, data: str) -> None:
        if self._counts():
            self.found[-1]["title" if self._in_heading else "text"] += data

    def _counts(self) -> bool:
        return not self._left_out and not self._divisions


def sections(body: page.Body) -> list[tuple[str, str, str]]:
    """The sections of a page: the name of each heading, its words, and what stands below it."""
    reader = _Sections()
    reader.feed(body.html)
    cleaned = [tuple(" ".join(part.split()) for part in one.values()) for one in reader.found]
    return [(anchor, title, text) for anchor, title, text in cleaned if title or text]


def index(lessons: Iterable) -> str:
    """A script that holds the words of all lessons: [page, title of the lesson, [[anchor, heading, text], ...]]."""
    entries = [[f"{one.name}.html", one.title, sections(one.body)] for one in lessons]
    return f"window.kdIndex = {json.dumps(entries, ensure_ascii=False, separators=(',', ':'))};\n"


def field(root: str) -> str:
    """The field in which a reader asks, for a page from which the site lies at `root`."""
    return (
        f'<div class="kd-search" role="search" data-root="{root}" hidden>'
        '<label for="kd-query">Search all lessons</label>'
        '<input id="kd-query" type="search" autocomplete="off" spellcheck="false">'
        '<div class="kd-found" hidden><p role="status"></p><ol></ol></div></div>'
    )


def script() -> str:
    """What makes the field work."""
    return files("kdlib.site").joinpath("static", "search.js").read_text(encoding="utf-8")
