"""The audit as a reader sees it: a table in HTML, and the same behind two choices."""

from collections.abc import Collection
from html import escape
from typing import TYPE_CHECKING

import pandas

from kdlib.audit import _core
from kdlib.audit._core import find
from kdlib.audit._table import table

if TYPE_CHECKING:
    import ipywidgets

# A verdict is a word; the mark beside it differs in form, and the line at the left in pattern, not in colour alone.
_MARKS = {_core.HOLDS: "✔", _core.IN_PART: "◐", _core.FAILS: "✘", _core.UNTESTED: "?"}
_LINES = {_core.HOLDS: "solid", _core.IN_PART: "dashed", _core.FAILS: "double", _core.UNTESTED: "dotted"}
_COLOURS = {
    _core.HOLDS: "#0072B2",
    _core.IN_PART: "#56B4E9",
    _core.FAILS: "#D55E00",
    _core.UNTESTED: "#999999",
}
_CELL = "text-align:left;vertical-align:top;padding:6px 10px;border-top:1px solid #bbb;white-space:normal"
_HEADS = ("", "the tutorial says", "it needs", "measured here", "verdict", "by")
_SHARES = (5, 19, 19, 32, 12, 13)  # of the width, in percent
_ALL = "all"


def as_html(rows: pandas.DataFrame) -> str:
    """The rows of `kdlib.audit.table()` as an HTML table to be read from afar; every text is escaped.

    Args:
        rows: the columns claim, needs, measured, verdict and by; the index is the number.

    Raises:
        ValueError: a column is missing.
    """
    missing = [name for name in ("claim", "needs", "measured", "verdict", "by") if name not in rows]
    if missing:
        raise ValueError(f"rows must be those of kdlib.audit.table(), and lack {', '.join(missing)}")
    columns = "".join(f'<col style="width:{share}%">' for share in _SHARES)
    heads = "".join(f'<th scope="col" style="{_CELL}">{head}</th>' for head in _HEADS)
    body = "".join(_row(number, row) for number, row in rows.iterrows())
    return (
        '<table style="font-size:15px;line-height:1.4;border-collapse:collapse;width:100%;table-layout:fixed;'
        'overflow-wrap:anywhere">'  # long names of code would make it scroll, out of reach of the keyboard
        f"<colgroup>{columns}</colgroup>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    )


def _row(number: str, row: pandas.Series) -> str:
    verdict = row["verdict"]
    line = f"border-left:6px {_LINES.get(verdict, 'solid')} {_COLOURS.get(verdict, '#999999')}"
    told = f"<strong>{_MARKS.get(verdict, '')}&nbsp;{escape(verdict)}</strong>"
    cells = [escape(str(row[name])) for name in ("claim", "needs", "measured")]
    cells += [told, f"<code>{escape(str(row['by']))}</code>"]
    head = f'<th scope="row" style="{_CELL};{line}">{escape(str(number))}</th>'
    return "<tr>" + head + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"


def board(without: Collection[str] = ()) -> "ipywidgets.Widget":
    """The audit behind two choices, verdict and topic, which the keyboard moves too.

    Its `children` are the choices, the line that counts, and the table, in this order.

    Args:
        without: numbers of claims that are kept back.

    Raises:
        ValueError: an unknown number among them.
    """
    import ipywidgets

    whole = table().drop(index=[find(number).number for number in without])
    style, wide = {"description_width": "initial"}, {"width": "22em"}
    chosen = {
        name: ipywidgets.Dropdown(
            options=[_ALL, *known],
            value=_ALL,
            description=name,
            style=style,
            layout=ipywidgets.Layout(**wide),
        )
        for name, known in (("verdict", _core.VERDICTS), ("topic", _core.TOPICS))
    }
    count, shown = ipywidgets.HTML(), ipywidgets.HTML()

    def show(_=None) -> None:
        rows = whole
        for name, widget in chosen.items():
            rows = rows if widget.value == _ALL else rows[rows[name] == widget.value]
        count.value = f'<p style="font-size:15px" aria-live="polite">{len(rows)} of {len(whole)} claims</p>'
        shown.value = as_html(rows)

    for widget in chosen.values():
        widget.observe(show, names="value")
    show()

    class Board(ipywidgets.VBox):
        def __repr__(self) -> str:  # what stands in its place where there is no kernel
            return f"{len(whole)} claims behind two choices: open the notebook in JupyterLab to choose."

    return Board([ipywidgets.HBox(list(chosen.values())), count, shown])
