"""The pages of the site in a real browser, opened as files without a network: what moves, moves there.

A notebook with a hero of each kind and two strips is executed once.
"""

import dataclasses
import shutil
from pathlib import Path

import axe
import driver
import lab
import nbformat
import pytest
import sliders
from playwright.sync_api import Page
from test_lab import GRADIENTS, HERO, LOSS, PICTURE, STRIP

from kdlib import site
from kdlib.site import laboratory

CELLS = [
    PICTURE,
    HERO,
    LOSS,
    GRADIENTS,
    STRIP,
    'widgets.strip(draw, caption="Another marker.", place=[1, 8])',
    "from kdlib.lesson.predictions import predict\n"
    'predict("Where is it?", {"left": (None, 4), "right": (4, None)}, unit="steps")',
]
TEXT = "# 98 · Widgets\n\nA page.\n\n**Time.** About 7 minutes.\n\n## Markers and $T$\n\nOne marker wanders."
NAME = "98_widgets"
OWN = ("file:", "blob:", "data:")


@dataclasses.dataclass
class Opened:
    """A page, and what went wrong in it: complaints of the console, exceptions, requests to anything but files."""

    page: Page
    complaints: list[str]

    def picture_of(self, slider):
        """What a slider moves: the last picture of its widget."""
        widget = slider.locator("xpath=ancestor::*[contains(@class, 'kd-live')][1]")
        return widget.locator(driver.PICTURE).last


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A site of two lessons."""
    place = tmp_path_factory.mktemp("site")
    (place / "notebooks").mkdir()
    cells = [nbformat.v4.new_markdown_cell(TEXT), *map(nbformat.v4.new_code_cell, CELLS)]
    second = [
        nbformat.v4.new_markdown_cell("# 99 · Another\n\nNothing moves here.\n\n## A barn owl\n\nIt hoots.")
    ]
    sources = {NAME: cells, "99_another": second}
    for name, its in sources.items():
        nbformat.write(nbformat.v4.new_notebook(cells=its), place / "notebooks" / f"{name}.ipynb")
    paths = sorted((place / "notebooks").glob("*.ipynb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laboratory, "write", lambda folder: None)  # 9 MB that are tested elsewhere
        site.build(place / "out", notebooks=paths, profile="ci", jobs=2)
    return place / "out"


@pytest.fixture
def open_page(browser, folder):
    """Open a page of the site in a window without a network."""
    contexts = []

    def open_one(name=NAME, **options) -> Opened:
        context = browser.new_context(offline=True, **{"viewport": {"width": 1300, "height": 900}, **options})
        contexts.append(context)
        opened = Opened(context.new_page(), [])
        page, complain = opened.page, opened.complaints.append
        page.set_default_timeout(lab.PATIENCE * 1000)
        page.on("console", lambda message: message.type == "error" and complain(f"console: {message.text}"))
        page.on("pageerror", lambda error: complain(f"exception: {error}"))
        page.on("request", lambda asked: asked.url.startswith(OWN) or complain(f"request: {asked.url}"))
        page.goto((folder / f"{name}.html").as_uri())
        return opened

    yield open_one
    for context in contexts:
        context.close()


def test_every_hero_and_strip_moves_by_mouse_and_by_keyboard_without_a_network(open_page):
    opened = open_page()
    found = opened.page.locator(".kd-live input[type=range]").all()
    assert [sliders.label_of(slider) for slider in found] == [
        *("temperature T", "temperature T", "alpha α", "alpha α", "temperature T"),
        *("place", "height", "place"),
    ]
    for slider in found:
        picture, name = opened.picture_of(slider), sliders.label_of(slider)
        for way, move in {
            "mouse": lambda slider: sliders.drag(slider, *sliders.far_end(slider)),
            "keyboard": lambda slider: sliders.press(slider, sliders.key_to_far_end(slider)),
        }.items():
            value, before = sliders.value_of(slider), sliders.signature(picture)
            move(slider)
            assert sliders.value_of(slider) != value, f"the {way} does not move {name}"
            assert sliders.wait_for_change(picture, before), (
                f"the {way} changes nothing in the picture of {name}"
            )
    assert opened.complaints == []


def test_a_hero_shows_another_image_by_click_and_by_arrow_key(open_page):
    opened = open_page()
    for widget in opened.page.locator(".kd-live:has(.kd-picker)").all():
        picture = widget.locator(".kd-hero svg").first
        before = sliders.signature(picture)
        widget.locator(".kd-picker label").nth(1).click()
        assert sliders.wait_for_change(picture, before)
        assert widget.locator("figcaption").inner_text() == "label: bee"
        opened.page.keyboard.press("ArrowRight")
        assert widget.locator("figcaption").inner_text() == "label: cat"
    assert opened.complaints == []


def test_a_question_takes_an_answer_by_keyboard(open_page):
    page = open_page().page
    answers = page.get_by_role("group", name="Predict. Where is it?").get_by_role("radio")
    answers.first.focus()
    page.keyboard.press("ArrowDown")
    assert [answer.is_checked() for answer in answers.all()] == [False, True]


def test_what_is_found_is_reached_by_keyboard_from_any_page(open_page):
    opened = open_page()
    page = opened.page
    page.keyboard.press("/")
    page.keyboard.type("Barn hoots")
    page.get_by_role("link", name="99 · Another: A barn owl").wait_for()
    assert page.locator(".kd-found p").inner_text() == "1 found"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/99_another.html#a-barn-owl")
    page.get_by_role("link", name="Previous: 98 · Widgets").click()
    page.wait_for_url("**/98_widgets.html")
    page.get_by_role("searchbox").fill("no such words")
    page.get_by_text("nothing found").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_text("nothing found").is_hidden() and opened.complaints == []


def test_a_page_that_was_passed_on_alone_says_why_it_cannot_search(open_page, folder, tmp_path):
    opened = open_page()
    page = opened.page
    page.goto(Path(shutil.copy(folder / f"{NAME}.html", tmp_path)).as_uri())
    page.get_by_role("searchbox").fill("marker")
    page.get_by_text("without search-index.js nothing can be searched").wait_for()
    missing = "console: Failed to load resource"
    assert [complaint for complaint in opened.complaints if not complaint.startswith(missing)] == []


BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"


def test_dark_is_asked_of_the_system_and_chosen_on_the_page_and_never_printed(open_page):
    page = open_page(color_scheme="dark").page
    dark = page.evaluate(BACKGROUND)
    page.get_by_role("button", name="Light colours").click()
    light = page.evaluate(BACKGROUND)
    assert light == "rgb(255, 255, 255)" != dark
    page.get_by_role("link", name="All lessons").click()
    page.get_by_role("button", name="Dark colours").wait_for()  # remembered
    assert page.evaluate(BACKGROUND) == light
    page.get_by_role("button", name="Dark colours").click()
    page.emulate_media(media="print")
    assert page.evaluate(BACKGROUND) == light
    assert page.get_by_role("searchbox").is_hidden() and page.get_by_role("button").count() == 0


def test_the_first_key_leads_past_the_bar_and_nothing_is_wider_than_a_telephone(open_page):
    opened = open_page(viewport={"width": 390, "height": 800})
    page = opened.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    cut = page.evaluate(
        "() => [...document.querySelectorAll('main *')].filter((part) => part.scrollWidth > part.clientWidth + 1"
        " && getComputedStyle(part).overflowX === 'auto' && part.tabIndex < 0).map((part) => part.outerHTML)"
    )
    assert cut == []  # what scrolls can be scrolled by keyboard
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, scheme):
    for name in ("index", NAME):
        page = open_page(name, color_scheme=scheme).page
        page.evaluate(
            "() => document.querySelectorAll('details').forEach((details) => (details.open = true))"
        )
        page.keyboard.press("/")
        page.keyboard.type("marker")
        page.get_by_role("link", name="98 · Widgets: Markers and").wait_for()
        assert axe.serious(page) == []
