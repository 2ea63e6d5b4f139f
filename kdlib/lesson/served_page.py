"""A web page that this notebook serves, inside the notebook: seen, used, and stopped by a button."""

from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import pandas
from IPython.display import display

from kdlib.lesson import figures

PICTURE = Path(__file__).parents[1] / "assets" / "pictures" / "page.png"
ANSWER = PICTURE.with_name("page.csv")  # what the picture shows of it
MAKER = "python tools/picture_of_page.py"
WIDTH, HEIGHT = 900, 620  # in pixels


def show(server: Any) -> "ServedPage":
    """The page of a running server, its address as a link that opens a tab, and a button that stops it.

    Nothing is stopped by showing it: the server lives until the button is pressed, or as long as it would anyway.

    Args:
        server: has `address`, beginning with http, `status` (None while it runs, afterwards its exit status) and
            `stop()`, such as `kdlib.deploy.webapp.background.serve` returns.

    Raises:
        TypeError: it lacks one of them.
        ValueError: its address is none of a web page.
    """
    return ServedPage(server)


class ServedPage(ipywidgets.VBox):
    """See `show`. `words` says whether the server runs, `button` stops it, `page` holds the frame."""

    def __init__(self, server: Any):
        for name in ("address", "status", "stop"):
            if not hasattr(server, name):
                raise TypeError(
                    f"server must have .address, .status and .stop(), got {server!r} without .{name}"
                )
        if not str(server.address).startswith(("http://", "https://")):
            raise ValueError(f"server.address must begin with http:// or https://, got {server.address!r}")
        self._server = server
        address = escape(server.address, quote=True)
        self.words = ipywidgets.HTML(
            f'<a href="{address}" target="_blank" rel="noopener" style="text-decoration: underline">{address}</a>'
            " opens it in a tab of its own."
        )
        self.button = ipywidgets.Button(description="Stop the page", icon="stop")
        self.button.on_click(self._stop)
        self.page = ipywidgets.HTML(
            f'<iframe src="{address}" width="{WIDTH}" height="{HEIGHT}" title="The page at {address}" allow="camera"'
            ' style="max-width: 100%; border: 1px solid #767676; background: white"></iframe>'
        )
        row = ipywidgets.HBox([self.button, self.words], layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([row, self.page])
        self.add_class("kd-served")
        if server.status is not None:
            self._say_that_it_has_ended()

    def _stop(self, button: ipywidgets.Button) -> None:
        self._server.stop()
        self._say_that_it_has_ended()

    def _say_that_it_has_ended(self) -> None:
        self.button.disabled = True
        self.page.value = ""  # a frame would show the browser's words for an address where nobody answers
        self.words.value = (
            f'<span role="status">The page has ended with status {self._server.status}.'
            " Run the cell that starts it again to see it again.</span>"
        )

    def __repr__(self) -> str:
        return "The page itself: open the notebook in JupyterLab on your machine and run this cell."


def picture() -> None:
    """Display the recorded picture of the page, for readers without a kernel, the line below it, and its answer.

    Raises:
        FileNotFoundError: the picture has not been made.
    """
    if not PICTURE.is_file():
        raise FileNotFoundError(f"there is no picture at {PICTURE}; make it by: {MAKER}")
    caption = f"the page, asked about one of its own samples; taken by `{MAKER}`."
    data, metadata = figures.displayed(PICTURE.read_bytes(), WIDTH, caption)
    display(data, metadata=metadata, raw=True)
    figures.show_caption(caption)
    figures.show_tables([("What the page answers", pandas.read_csv(ANSWER))])
