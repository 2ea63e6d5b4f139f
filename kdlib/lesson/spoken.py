"""What a screen reader says about the controls and the picture of a live figure."""

import anywidget
import ipywidgets
import traitlets

from kdlib.lesson import browser, figure_html
from kdlib.lesson.canvas import BlittedFigure


class Names(anywidget.AnyWidget):
    """Invisible, within a box of the class "kd-explorer": says what ipywidgets leaves unsaid there.

    Sliders get the names and the values that stand beside them, the picture gets the caption.
    """

    _esm = browser.script("page.js", "spoken.js")
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(self, caption: str):
        super().__init__(caption=caption)

    def __repr__(self) -> str:
        return ""


class Data(ipywidgets.VBox):
    """A button that shows and hides the data of a live figure as tables; `refresh` when the figure has moved."""

    def __init__(self, figure: BlittedFigure):
        self._figure = figure
        self.button = ipywidgets.ToggleButton(description="The data of this figure", icon="table")
        self.button.layout.width = "auto"
        self.tables = ipywidgets.HTML()
        self.button.observe(lambda change: self.refresh(), names="value")
        super().__init__([self.button, self.tables])
        self.add_class("kd-data")

    def refresh(self) -> None:
        """Write the tables of the figure as it is now, or nothing while they are hidden."""
        opened = self.button.value
        html = figure_html.of(self._figure.figure, opened=True)[0] if opened else ""
        if self.tables.value != html:
            self.tables.value = html
