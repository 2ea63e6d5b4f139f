"""A notebook open in JupyterLab in a browser: run it, ask what became of it."""

from dataclasses import dataclass, field
from pathlib import Path

from lab import PATIENCE, Lab
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page
from sliders import SLIDER

SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")

# Where a widget of ours shows its picture.
PICTURE = ".kd-explorer img, .kd-hero svg, .kd-frames"

# Complaints that are no defect of ours, each with the reason why it cannot hide one.
EXCUSED = {
    "[anywidget] Failed to initialize model.": (
        "anywidget gives a browser two seconds to load a widget's script, too few on a busy machine; "
        "a widget that did not come up is found as an output of no height or as a missing slider"
    ),
}


@dataclass
class Notebook:
    """An open notebook. `complaints` are the errors in the console and the exceptions of the page."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Browser, lab: Lab, name: str, *, script: str = "", **context) -> "Notebook":
        """Open the notebook in a new window, with a script of the caller's own, and wait for its kernel."""
        page = browser.new_page(**{"viewport": {"width": 1400, "height": 1000}, **context})
        page.set_default_timeout(PATIENCE * 1000)
        page.add_init_script(SCRIPT + script)
        notebook = cls(page)
        page.on("console", notebook._listen)
        page.on("pageerror", lambda error: notebook._complain(f"exception: {error}"))
        page.goto(lab.address(name))
        page.wait_for_function("() => kdDriver.kernelIsIdle()")
        page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        return notebook

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._complain(f"console: {message.text} ({message.location.get('url', '')})")

    def _complain(self, complaint: str) -> None:
        if not any(excused in complaint for excused in EXCUSED):
            self.complaints.append(complaint)

    def close(self) -> None:
        """Shut the kernel down and close the window."""
        self.page.evaluate("() => kdDriver.shutDown()")
        self.page.close()

    def run_all(self) -> None:
        """Run every cell and wait until the last one has finished."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.settle()

    def settle(self) -> None:
        """Wait until the kernel has answered the last move and the page has painted it."""
        self.page.wait_for_function("() => kdDriver.kernelIsIdle()")
        self.page.evaluate("() => new Promise(requestAnimationFrame)")

    def ask(self, code: str) -> str:
        """What the kernel prints when it runs this code."""
        return self.page.evaluate("(code) => kdDriver.ask(code)", code)

    def cell_errors(self) -> list[str]:
        """The errors among the outputs of the cells."""
        return self.page.evaluate("() => kdDriver.errors()")

    def outputs(self) -> list[list[list[str]]]:
        """For each code cell, for each of its outputs, the kinds of data in it (text for a stream)."""
        return self.page.evaluate("() => kdDriver.outputs()")

    def collapsed_outputs(self) -> list[str]:
        """Outputs that the page shows with no height, by the number of their cell."""
        return self.page.evaluate("() => kdDriver.collapsed()")

    def cut_off(self) -> list[str]:
        """What does not fit: parts of our widgets beyond the edge of their output, and shortened labels."""
        return self.page.evaluate("() => kdDriver.cutOff()")

    def overlaps(self) -> list[str]:
        """Parts of our widgets that cover each other."""
        return self.page.evaluate("() => kdDriver.overlaps()")

    def sliders(self) -> list[Locator]:
        """Every slider of the notebook, from top to bottom."""
        return self.page.locator(SLIDER).all()

    def picture_of(self, slider: Locator) -> Locator:
        """The picture that a slider moves: the last in the same output (every slider of a hero moves its last)."""
        output = slider.locator("xpath=ancestor::*[contains(@class, 'jp-OutputArea-output')][1]")
        return output.locator(PICTURE).last

    def watch_heights(self, slider: Locator) -> None:
        """Note every height that the slider's output takes from now on; see `heights`."""
        slider.evaluate("(slider) => kdDriver.watchHeights(slider)")

    def heights(self) -> list[int]:
        """The heights noted, in pixels: more than one if the output jumped or collapsed."""
        return self.page.evaluate("() => kdDriver.heights()")
