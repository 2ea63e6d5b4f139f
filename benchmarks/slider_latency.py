"""From the hand to the picture: how long each kind of slider takes, in a real JupyterLab in chromium.

    python benchmarks/slider_latency.py [--notebook NOTEBOOK] [--moves 60]

Every slider of the notebook (by default one written for this purpose: the same picture, ten bars and a curve
with a moving marker, as hero, explorer and strip) is moved step by step by the mouse and by the arrow keys.
A move is timed from the input event that the slider receives to the frame in which the new picture is
painted; "hand" counts from the moment at which the browser took the event from the mouse or the keyboard,
and so includes the wait for the next frame. Then the slider is dragged once to and fro without waiting, which
shows frames dropped, layout shifts and changes of the output's height.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, sync_playwright

sys.path.insert(
    0, str(Path(__file__).parents[1] / "tests" / "browser")
)  # the driver is shared with the tests
import lab
import sliders
from driver import Notebook

INSTRUMENTS = (Path(__file__).parent / "slider_latency.js").read_text(encoding="utf-8")
TARGETS = {"hero": 20, "explorer": 90, "strip": 90}  # p95 in ms

PICTURE = """
import numpy as np
from kdlib.lesson import figures, widgets

classes = "T-shirt Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Boot".split()
logits = np.random.default_rng(0).normal(scale=4, size=(6, 10))
images = np.random.default_rng(0).integers(0, 255, (6, 28, 28), dtype=np.uint8)
temperatures = np.geomspace(0.5, 20, 61)

def softened(temperature):
    powers = np.exp((logits[0] - logits[0].max()) / temperature)
    return powers / powers.sum()

def entropy(temperature):
    p = softened(temperature)
    return -(p * np.log(p)).sum()

def draw(figure):
    left, right = figure.subplots(1, 2)
    bars = left.barh(classes, np.zeros(10))
    left.set(xlim=(0, 1), xlabel="probability")
    right.plot(temperatures, [entropy(t) for t in temperatures])
    (marker,) = right.plot([], [], "o", color="black")
    right.set(xscale="log", xlabel="temperature T", ylabel="entropy (nats)")

    def update(*, temperature):
        for bar, p in zip(bars, softened(temperature)):
            bar.set_width(p)
        marker.set_data([temperature], [entropy(temperature)])
        return [bars, marker]

    return update
"""
CELLS = [
    PICTURE,
    'widgets.temperature_hero(images, logits, logits.argmax(1), classes, caption="hero")',
    "widgets.temperature_hero(images, logits, logits.argmax(1), classes, "
    'student_logits=logits[::-1], alpha=0.9, caption="hero")',
    'widgets.gradient_hero(images, logits[::-1], logits, logits.argmax(1), classes, caption="hero")',
    'widgets.explorer(draw, caption="explorer", temperature=widgets.slider(0.5, 20, value=4, log=True))',
    'widgets.strip(draw, caption="strip", temperature=temperatures)',
]


def write_notebook(path: Path) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def kind_of(slider: Locator) -> str:
    for kind in TARGETS:
        if slider.locator(f"xpath=ancestor::*[contains(@class, 'kd-{kind}')]").count():
            return kind
    return "other"


def triangle(move: int, period: int = 12) -> float:
    """To and fro between 0 and 1, so that even a slider with few stops changes at most moves."""
    phase = (move % (2 * period)) / period
    return 0.03 + 0.94 * (phase if phase <= 1 else 2 - phase)


def by_mouse(slider: Locator, moves: int) -> list[dict]:
    handle, track = slider.bounding_box(), sliders.track_of(slider).bounding_box()
    across = handle["y"] + handle["height"] / 2
    place = handle["x"] + handle["width"] / 2 if handle != track else track["x"] + track["width"] / 2
    mouse = slider.page.mouse
    mouse.move(place, across)
    mouse.down()
    slider.evaluate("() => kdLatency.picture()")
    timings = timed(
        slider, moves, lambda move: mouse.move(track["x"] + track["width"] * triangle(move), across)
    )
    mouse.up()
    return timings


def by_keyboard(slider: Locator, moves: int) -> list[dict]:
    slider.focus()
    slider.page.keyboard.press("Home")
    slider.evaluate("() => kdLatency.picture()")
    keys = ["ArrowRight"] * 12 + ["ArrowLeft"] * 12
    return timed(slider, moves, lambda move: slider.page.keyboard.press(keys[move % len(keys)]))


def timed(slider: Locator, moves: int, make_move: Callable[[int], None]) -> list[dict]:
    """Move, wait for the picture, and so on, until `moves` moves have changed the slider's value."""
    timings = []
    for move in range(5 * moves):
        make_move(move)
        timing = slider.evaluate("() => kdLatency.picture()")
        if timing:  # none at an end of the slider, or where a move was smaller than its step
            timings.append(timing)
        if len(timings) == moves:
            return timings
    raise RuntimeError(f"only {len(timings)} of {5 * moves} moves changed the slider")


def drag_and_watch(slider: Locator, moves: int) -> dict:
    """Drag to and fro at one move a frame; count what goes wrong meanwhile."""
    page = slider.page
    page.evaluate("() => kdLatency.watch()")
    sliders.drag(slider, 0.03, 0.97, moves=moves, paced=True)
    sliders.drag(slider, 0.97, 0.03, moves=moves, paced=True)
    report = page.evaluate("() => kdLatency.report()")
    page.evaluate("() => kdLatency.rest()")
    return report


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def measure(notebook: Notebook, moves: int) -> bool:
    """Print a line for each slider; return whether every target was met."""
    header = f"{'slider':34}{'by':>10}{'median':>8}{'p95':>8}{'hand p95':>10}{'target':>8}"
    print(header + f"{'frames':>8}{'dropped':>9}{'shifts':>8}{'heights':>9}")
    fine = True
    for slider in notebook.sliders():
        slider.scroll_into_view_if_needed()
        kind = kind_of(slider)
        slider.evaluate("(slider) => kdLatency.observe(slider)")
        watched = drag_and_watch(slider, moves)
        for name, move in (("mouse", by_mouse), ("keyboard", by_keyboard)):
            timings = move(slider, moves)
            event = [timing["event"] for timing in timings]
            p95, target = percentile(event, 0.95), TARGETS.get(kind, 90)
            hand = percentile([timing["hand"] for timing in timings], 0.95)
            label = f"{kind}: {sliders.label_of(slider)}"
            line = f"{label:34}{name:>10}{statistics.median(event):8.1f}{p95:8.1f}{hand:10.1f}{target:8}"
            line += (
                f"{watched['frames']:8}{watched['dropped']:9}{watched['shifts']:8.3f}{watched['heights']:9}"
            )
            print(line, flush=True)
            fine &= p95 <= target and watched["dropped"] <= 0.02 * watched["frames"]
            fine &= watched["shifts"] == 0 and watched["heights"] == 1
    print(f"console errors: {len(notebook.complaints)}", *notebook.complaints, sep="\n  ")
    return fine and not notebook.complaints


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--notebook", type=Path, help="measure the sliders of this notebook instead")
    parser.add_argument("--moves", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        served, private = Path(folder, "served"), Path(folder, "private")
        served.mkdir()
        private.mkdir()
        if arguments.notebook:
            shutil.copy(arguments.notebook, served / "sliders.ipynb")
        else:
            write_notebook(served / "sliders.ipynb")
        with lab.jupyter_lab(served, private) as server:
            browser = lab.launch(playwright)
            notebook = Notebook.open(browser, server, "sliders.ipynb", script=INSTRUMENTS)
            notebook.run_all()
            errors = notebook.cell_errors()
            if errors:
                raise SystemExit("\n".join(errors))
            fine = measure(notebook, arguments.moves)
            browser.close()
    print("every target met" if fine else "a target was missed")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
