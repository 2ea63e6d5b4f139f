"""The classroom in a real Voila and a real browser: what is on the page, does it fit, do the keys work.

Each test takes more than five seconds, because a kernel, and once a server and a browser, must start.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import driver
import lab
import nbformat
import pytest
import sliders
from playwright.sync_api import Page
from test_lab import EVERY_WIDGET

INTERACTIVE = {"text/plain": "Interactive figure: open the notebook in JupyterLab to move something."}
FIGURE = ".kd-hero, .kd-strip, .kd-explorer"
# Where the parts of the figure in sight end, as shares of the window's width and height.
EXTENT = f"""(number) => {{
    const parts = document.querySelectorAll("{FIGURE}")[number].querySelectorAll("*");
    const boxes = [...parts].map((part) => part.getBoundingClientRect());
    const visible = boxes.filter((box) => box.width && box.height);
    return [
        Math.min(...visible.map((box) => box.left)) / innerWidth,
        Math.max(...visible.map((box) => box.right)) / innerWidth,
        Math.min(...visible.map((box) => box.top)) / innerHeight,
        Math.max(...visible.map((box) => box.bottom)) / innerHeight,
    ];
}}"""


@contextlib.contextmanager
def classroom(lesson: str, folder: Path) -> Iterator[str]:
    """`kdlib lab --demo LESSON` below `folder`; yields its address."""
    environment = dict(os.environ, BROWSER="true", KDLIB_PROFILE="ci", PYTHONPATH=str(lab.ROOT))
    command = [sys.executable, "-m", "kdlib.cli", "lab", "--demo", lesson]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def every_widget(tmp_path_factory) -> Iterator[str]:
    """The address of a lesson with figures of every kind, one in a section."""
    repository = tmp_path_factory.mktemp("repository")
    (repository / "kdlib").mkdir()
    (repository / "kdlib" / "__init__.py").touch()
    tags = {"tags": ["projector"]}
    cells = [nbformat.v4.new_code_cell(EVERY_WIDGET[0], metadata=tags)]
    for number, source in enumerate(EVERY_WIDGET[1:], start=1):
        cells.append(nbformat.v4.new_markdown_cell(f"## {number}. What happens as $T$ grows, and how fast?"))
        output = nbformat.v4.new_output("execute_result", data=INTERACTIVE, execution_count=1)
        cells.append(nbformat.v4.new_code_cell(source, metadata=tags, outputs=[output]))
    (repository / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), repository / "notebooks" / "02_widgets.ipynb")
    with classroom("02", repository / "notebooks") as url:
        yield url


@pytest.fixture
def open_page(browser):
    """Open an address in a window of its own; collects in `page.complaints` what went wrong in it."""
    opened = []

    def open_one(url: str, figures: int, **context) -> Page:
        page = browser.new_page(**context)
        opened.append(page)
        page.complaints = []
        page.set_default_timeout(lab.PATIENCE * 1000)
        page.add_init_script(driver.SCRIPT)
        page.on("console", lambda message: complain(page, message.type, message.text))
        page.on("pageerror", lambda error: complain(page, "error", str(error)))
        page.on("request", lambda request: complain(page, "request", request.url))
        page.goto(url)
        page.wait_for_function(f"document.querySelectorAll('{FIGURE}').length === {figures}")
        page.wait_for_function("[...document.images].every((image) => image.complete)")
        return page

    yield open_one
    for page in opened:
        page.close()


def complain(page: Page, kind: str, text: str) -> None:
    elsewhere = kind == "request" and not text.startswith(("http://127.0.0.1:", "data:", "blob:"))
    if elsewhere or (kind == "error" and not any(excused in text for excused in driver.EXCUSED)):
        page.complaints.append(f"{kind}: {text}")


def test_the_figures_of_a_lesson_stand_alone_and_obey_the_keyboard(open_page):
    with classroom("1", lab.ROOT / "notebooks") as url:
        page = open_page(url, 3, viewport={"width": 1280, "height": 800})
        headings = page.locator(".kd-slide h2").all_inner_texts()
        assert len(headings) == 3 and headings[0].startswith("2. How does a student learn")
        outputs = page.locator(".jp-OutputArea-output").all()
        assert len(outputs) == 3 and all(output.locator(FIGURE).count() for output in outputs)
        page.keyboard.press("PageDown")
        page.keyboard.press("PageUp")
        temperature, alpha = page.locator(".kd-hero input[type=range]").all()
        chart = page.locator(".kd-hero svg").last  # the entropy or the loss over T, in numbers too
        value, numbers = sliders.value_of(temperature), chart.text_content()
        page.keyboard.press("ArrowRight")  # PageUp has put the keyboard on the first slider of the figure
        assert sliders.value_of(temperature) > value and chart.text_content() != numbers
        page.keyboard.press("Tab")
        page.keyboard.press("Home")
        assert sliders.value_of(alpha) == "0"
        assert page.complaints == []


def test_every_kind_of_slider_moves_its_picture(open_page, every_widget):
    page = open_page(every_widget, 5, viewport={"width": 1920, "height": 1080})
    for slider in page.locator(sliders.SLIDER).all():
        name, value = sliders.label_of(slider), sliders.value_of(slider)
        picture = slider.locator("xpath=ancestor::*[contains(@class, 'jp-OutputArea-output')][1]")
        before = sliders.signature(picture.locator(driver.PICTURE).last)
        sliders.drag(slider, *sliders.far_end(slider))
        assert sliders.value_of(slider) != value, f"the mouse does not move {name!r}"
        assert sliders.wait_for_change(picture.locator(driver.PICTURE).last, before), name
        value = sliders.value_of(slider)
        sliders.press(slider, sliders.key_to_far_end(slider))
        assert sliders.value_of(slider) != value, f"the keyboard does not move {name!r}"
    assert page.complaints == []


def test_figures_fit_the_window_and_nothing_is_covered_at_any_size(open_page, every_widget):
    page = open_page(every_widget, 5)
    for width, height in ((1280, 720), (1280, 800), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        for number in range(5):
            go_to_figure(page, number)
            left, right, top, bottom = page.evaluate(EXTENT, number)
            assert 0 <= left < 0.05 and 0.7 < right <= 1, (width, number, left, right)
            assert 0.05 < top < 0.15 and 0.7 < bottom <= 1, (height, number, top, bottom)
        assert page.evaluate("() => kdDriver.overlaps()") == []
    page.set_viewport_size({"width": 640, "height": 400})  # 1280 by 800 pixels at double zoom
    assert page.evaluate("() => kdDriver.cutOff()") == []
    assert page.evaluate("() => kdDriver.overlaps()") == []


def go_to_figure(page: Page, number: int) -> None:
    for key in ["PageUp"] * 5 + ["PageDown"] * number:
        page.keyboard.press(key)
    page.wait_for_function(
        "(number) => Math.abs(document.querySelectorAll('.kd-slide')[number].getBoundingClientRect().top) < 2",
        arg=number,
    )
