"""The data of a figure as HTML: tables below a line that opens them, with no script."""

from html import escape

import pandas
from matplotlib.figure import Figure

from kdlib.lesson.figure_tables import Tables, everything, thinned

MOST_BYTES = 20_000
_ROWS = (200, 100, 50, 25, 12, 6, 3)
# JupyterLab would take the keys that open the line and scroll the tables. A group, not a region: a page with sixty
# figures would have sixty landmarks.
_TABLES = (
    '<div class="kd-tables" role="group" aria-label="The data of this figure" tabindex="0"'
    ' data-lm-suppress-shortcuts="true" style="max-height: 24em; overflow: auto">{}</div>'
)
_TABLE = "min-width: min(24em, 100%); margin: 0 0 1em"
_LINE = "<summary>The data of this figure</summary>"
_FOLDED = f'<details class="kd-data" data-lm-suppress-shortcuts="true">{_LINE}{{}}</details>'


def of(figure: Figure, *, most_bytes: int = MOST_BYTES, opened: bool = False) -> tuple[str, str]:
    """The HTML and a line of words for a figure that has been drawn; two empty texts if it shows no data.

    Args:
        figure: finished.
        most_bytes: the tables are thinned until the HTML is no larger, or they have three rows.
        opened: leave out the line that opens the tables.
    """
    return of_tables(everything(figure), most_bytes=most_bytes, opened=opened)


def of_tables(found: Tables, *, most_bytes: int = MOST_BYTES, opened: bool = False) -> tuple[str, str]:
    """As `of`, for tables that were read from elsewhere."""
    for rows in _ROWS:
        shown = _TABLES.format("".join(_table(title, table) for title, table in thinned(found, rows)))
        html = shown if opened else _FOLDED.format(shown)
        if len(html.encode()) <= most_bytes:
            break
    count = f"{len(found)} table{'s' * (len(found) > 1)}"
    return (html, f"The data of this figure: {count}") if found else ("", "")


def _table(title: str, table: pandas.DataFrame) -> str:
    """Closing tags that HTML lets one leave out are left out: a notebook keeps all this."""
    caption = f'<caption style="text-align: left">{escape(title)}</caption>' if title else ""
    heads = "".join(f'<th scope="col">{_cell(name)}' for name in table.columns)
    rows = "".join(_row(values) for values in table.itertuples(index=False, name=None))
    return f'<table style="{_TABLE}">{caption}<thead><tr>{heads}<tbody>{rows}</table>'


def _row(values: tuple) -> str:
    first, *others = map(_cell, values)
    return f'<tr><th scope="row">{first}' + "".join(f"<td>{value}" for value in others)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if pandas.isna(value) else format(value, ".9g")
    return escape(str(value), quote=False)
