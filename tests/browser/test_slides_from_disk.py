"""The slides of a lesson, opened from a disk without a network: do they fit, and do the keys do what they should?

It takes more than five seconds, because a browser must start.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import axe
import lab
import pytest
import slide_decks
import sliders
from playwright.sync_api import Browser, Page

from kdlib.site import slides

LESSON = "01_principle"
SLIDER = "section.present .kd-slider input"
# What of the slide that is shown lies outside of it, and what a figure that moves cuts off.
OUTSIDE = """() => {
  const slide = Reveal.getCurrentSlide();
  const shown = [...slide.querySelectorAll(".slide *")].filter((node) => node.getClientRects().length);
  const out = shown.filter((node) => {
    const { left, right, top, bottom } = node.getBoundingClientRect();
    return left < -1 || top < -1 || right > innerWidth + 1 || bottom > innerHeight + 1;
  });
  const cut = [...slide.querySelectorAll(".part")].filter((part) => part.scrollHeight > part.clientHeight + 1);
  return [...out, ...cut].map((node) => `${node.tagName} ${node.textContent.slice(0, 40)}`);
}"""


@pytest.fixture(scope="module")
def deck(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("slides") / f"{LESSON}.html"
    notebook = slide_decks.lively(lab.ROOT / "notebooks" / f"{LESSON}.ipynb")
    path.write_text(slides.render(notebook, LESSON), encoding="utf-8")
    return path


@contextlib.contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a window of its own, of 1280 by 720 pixels and without a network; it may complain of nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, offline=True)
    page, complaints = context.new_page(), []
    page.set_default_timeout(lab.PATIENCE * 1000)
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url[:5] == "http:" else None)
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.goto(address)
    page.wait_for_function("() => window.Reveal?.isReady()")
    yield page
    assert complaints == []
    context.close()


def number(page: Page) -> int:
    return page.evaluate("() => Reveal.getIndices().h")


def test_every_slide_fits_and_the_keys_turn_the_page_or_move_the_slider(browser, deck):
    with opened(browser, deck.as_uri()) as page:
        total = page.evaluate("() => Reveal.getTotalSlides()")
        for place in range(total):
            assert number(page) == place
            assert page.evaluate(OUTSIDE) == [], place + 1
            page.keyboard.press("ArrowRight")

        figure = page.locator(".kd-hero").evaluate("(node) => Reveal.getIndices(node.closest('section')).h")
        page.evaluate("(place) => Reveal.slide(place)", figure)
        assert axe.serious(page) == []
        temperature, chart = page.locator(SLIDER).first, page.locator("section.present .kd-hero svg").last
        value, drawn = sliders.value_of(temperature), sliders.signature(chart)
        sliders.drag(temperature, *sliders.far_end(temperature))
        assert sliders.value_of(temperature) != value and sliders.signature(chart) != drawn
        value, drawn = sliders.value_of(temperature), sliders.signature(chart)
        sliders.press(temperature, sliders.key_to_far_end(temperature))
        page.keyboard.press("ArrowLeft")
        assert sliders.value_of(temperature) != value and sliders.signature(chart) != drawn
        assert number(page) == figure  # the keys were the slider's
        page.keyboard.press("PageDown")
        page.keyboard.press("ArrowRight")
        assert number(page) == figure + 2  # and on the next slide they are not


def test_a_figures_data_are_opened_and_scrolled_by_keyboard_and_escape_gives_it_back(browser, deck):
    with opened(browser, deck.as_uri()) as page:
        figure = page.locator(".kd-strip").first.evaluate(
            "(node) => Reveal.getIndices(node.closest('section')).h"
        )
        page.evaluate("(place) => Reveal.slide(place)", figure)
        page.locator("section.present summary").focus()
        page.keyboard.press("Space")
        tables = page.locator("section.present .kd-tables")
        tables.wait_for()
        tables.evaluate("(node) => (node.style.maxHeight = '40px')")  # else there is nothing to scroll
        tables.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("(node) => node.scrollTop > 0", arg=tables.element_handle())
        assert number(page) == figure
        page.keyboard.press("Escape")
        assert not page.evaluate("() => Reveal.isOverview() || document.activeElement !== document.body")
        page.keyboard.press("ArrowRight")
        assert number(page) == figure + 1
        page.keyboard.press("ArrowLeft")
        tables.focus()
        page.keyboard.press("PageDown")
        assert number(page) == figure + 1


def test_a_speaker_has_notes_beside_slides_that_follow(browser, deck):
    with opened(browser, deck.as_uri()) as page:
        with page.expect_popup() as popup:
            page.keyboard.press("s")
        speaker = popup.value
        notes = speaker.locator(".speaker-controls-notes .value")
        first = slides.outline.read((Path(slides.__file__).parent / "01.md").read_text(encoding="utf-8"))
        for slide in first[:2]:
            words = " ".join(slide.notes.split()[:4])
            speaker.wait_for_function(
                "(words) => document.querySelector('.speaker-controls-notes .value')?.innerText.includes(words)",
                arg=words,
            )
            page.bring_to_front()
            page.keyboard.press("ArrowRight")
        assert notes.is_visible()


def test_printed_each_slide_is_a_page(browser, deck):
    with opened(browser, f"{deck.as_uri()}?print-pdf") as page:
        page.wait_for_selector(".pdf-page")
        total = page.evaluate("() => Reveal.getTotalSlides()")
        assert page.locator(".pdf-page").count() == total >= 12
        pdf = page.pdf(prefer_css_page_size=True, print_background=True)
        assert pdf.count(b"/Type /Page\n") == total or pdf.count(b"/Type /Page ") == total
