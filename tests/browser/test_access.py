"""Who cannot see, or not well, or gets dizzy: axe finds nothing serious, nothing is cut off at 200 %, nothing moves."""

import re

import axe
import nbformat
import pytest
from lab import PATIENCE
from playwright.sync_api import Page, expect
from serving import serving
from test_lab import EVERY_WIDGET, PICTURE
from uploads import file_of, noise

from kdlib import audit, site

TWIN = 'widgets.twin(draw, [{"place": 1}, {"place": 5}], caption="A marker moves.")'
CHOICES = """
def chosen(figure):
    update = draw(figure)
    return lambda *, place, kind, shown: update(place=place)

controls = {"kind": widgets.choice(["a", "b"], value="a"), "shown": widgets.toggle(value=True)}
widgets.explorer(chosen, caption="Another.", place=widgets.slider(0.0, 9.0, value=3.0), **controls)
"""
PREDICTION = """
from kdlib.lesson.predictions import predict
guess = predict("Where is it?", {"left": (None, 4), "right": (4, None)}, unit="steps")
guess
"""
TABLE = "import pandas\npandas.DataFrame({'temperature': [1, 4], 'accuracy': [0.8, 0.9]})"
SAID = "print('said')\nguess.compare(3)"
CELLS = [*EVERY_WIDGET, TWIN, CHOICES, TABLE, PREDICTION, SAID]
TEXT = "# 98 · Widgets\n\nA page of $T^2$.\n\n**Time.** About 7 minutes.\n\n## Markers\n\n`One` [wanders](#Markers)."
SCHEMES = ["light", "dark"]
ZOOMED = {
    "viewport": {"width": 640, "height": 450},
    "device_scale_factor": 2,
}  # a window of 1280 pixels at 200 %
IMAGE = {"name": "noise.png", "mimeType": "image/png", "buffer": file_of(noise(40, 30))}
TEXT_FILE = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
MOVING = """
() => [...document.querySelectorAll("*")].flatMap((element) => {
  const style = getComputedStyle(element);
  const seconds = [...style.transitionDuration.split(","), ...style.animationDuration.split(",")].map(parseFloat);
  const moves = Math.max(...seconds) > 0.001 || style.scrollBehavior === "smooth";
  return moves ? [element.outerHTML.slice(0, 99)] : [];
})
"""


def looked_at(page: Page, state: str) -> list[str]:
    """What axe finds serious in a state of a page."""
    return [f"{state}: {line}" for line in axe.serious(page)]


def test_axe_finds_what_is_wrong_and_only_where_it_is_asked(browser):
    page = browser.new_page()
    page.set_content("<main><img src='data:,'></main><div id='other'><input type='range'></div>")
    assert {line.split(":")[1].strip() for line in axe.serious(page)} >= {"image-alt", "label"}
    assert [line for line in axe.serious(page, within="#other") if "image-alt" in line] == []
    assert axe.counts(axe.findings(page, within="main"))["critical"] == 1
    with pytest.raises(ValueError, match="#nowhere"):
        axe.serious(page, within="#nowhere")
    page.close()


# ------------------------------------------------------------------ the web demo


@pytest.fixture(scope="module")
def demo(exported):
    with serving(exported) as running:
        yield running


@pytest.fixture
def open_demo(demo, browser):
    """Open the page of `kdlib serve`."""
    pages = []

    def open_one(**context) -> Page:
        page = browser.new_page(**context)
        pages.append(page)
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(demo.url)
        page.locator("#models li").nth(1).wait_for()
        return page

    expect.set_options(timeout=PATIENCE * 1000)
    yield open_one
    for page in pages:
        page.close()


def answered(page: Page) -> Page:
    page.set_input_files("#file", IMAGE)
    expect(page.locator("#summary")).to_have_text(re.compile("say"))
    return page


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_demo_has_no_serious_finding_in_any_state(open_demo, scheme):
    page = open_demo(color_scheme=scheme)
    found = looked_at(page, "start")
    found += looked_at(answered(page), "answer")
    page.get_by_role("button", name="Sandal").click()
    expect(page.locator("#file-name")).to_have_text("sample: Sandal")
    found += looked_at(page, "sample")
    page.set_input_files("#file", TEXT_FILE)
    expect(page.get_by_role("alert")).to_contain_text("no picture")
    found += looked_at(page, "error")
    assert found == []


def test_the_demo_says_that_it_answers_and_what_it_answered(open_demo):
    page = answered(open_demo())
    result = page.locator("#result")
    assert result.get_attribute("aria-live") == "polite"
    expect(result).not_to_have_attribute("aria-busy", "true")
    for name in ("The picture you chose", "The picture as small saw it", "The picture as other saw it"):
        assert page.get_by_role("img", name=name).count() == 1, name


def test_the_demo_fits_at_double_zoom(open_demo):
    page = open_demo(**ZOOMED)
    assert page.evaluate(TOO_WIDE) <= 0
    assert answered(page).evaluate(TOO_WIDE) <= 0


def test_the_demo_moves_nothing_where_that_is_asked(open_demo):
    assert open_demo().evaluate(MOVING) == []
    still = answered(open_demo(reduced_motion="reduce"))
    assert still.evaluate(MOVING) == []
    assert answered(open_demo(reduced_motion="no-preference")).evaluate(MOVING) != []  # the bars grow


# ------------------------------------------------------------------ the site


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a site of one lesson that has everything in it."""
    place = tmp_path_factory.mktemp("site")
    (place / "notebooks").mkdir()
    cells = [nbformat.v4.new_markdown_cell(TEXT), *map(nbformat.v4.new_code_cell, CELLS)]
    source = place / "notebooks" / "98_widgets.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    site.build(place / "out", notebooks=[source], profile="ci", jobs=1)
    return [*sorted(place.glob("out/*.html")), *place.glob("out/laboratory/index.html")]


@pytest.fixture
def open_page(browser):
    """Open a page of a folder, without a network, with all that is folded opened."""
    contexts = []

    def open_one(path, **options) -> Page:
        contexts.append(browser.new_context(offline=True, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(path.as_uri())
        page.evaluate(
            "() => document.querySelectorAll('details').forEach((details) => (details.open = true))"
        )
        return page

    yield open_one
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_page_has_a_serious_finding(open_page, pages, scheme):
    assert [path.name for path in pages] == ["98_widgets.html", "index.html", "index.html"]
    found = [looked_at(open_page(path, color_scheme=scheme), path.stem) for path in pages]
    assert found == [[]] * len(pages)


def test_every_page_fits_at_double_zoom(open_page, pages):
    assert [open_page(path, **ZOOMED).evaluate(TOO_WIDE) for path in pages] == [0] * len(pages)


def test_no_page_moves_anything_where_that_is_asked(open_page, pages):
    assert [open_page(path, reduced_motion="reduce").evaluate(MOVING) for path in pages] == [[]] * len(pages)


def test_a_picture_in_a_page_has_its_text_and_its_data(open_page, pages):
    page = open_page(pages[0])
    assert page.get_by_role("img", name="A marker moves.").count() == 1
    tables = page.locator("details.kd-data table caption")
    assert {"place = 1", "place = 5"} <= set(tables.all_inner_texts())


def test_nothing_in_the_audit_is_wider_than_its_place(browser):
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.set_content(f"<main>{audit.as_html(audit.table(topic='code'))}</main>")
    wider = "() => [...document.querySelectorAll('td')].filter((cell) => cell.scrollWidth > cell.clientWidth).length"
    assert page.evaluate(wider) == 0 < page.locator("td").count()
    page.close()


# ------------------------------------------------------------------ JupyterLab


def test_outputs_in_jupyterlab_have_no_serious_finding_in_light_and_dark(open_notebook):
    notebook = open_notebook(CELLS)
    notebook.run_all()
    assert notebook.cell_errors() == []
    notebook.collapsed_outputs()  # scrolls to every cell, which draws it
    for line in notebook.page.locator(".kd-data summary").all():
        line.click()
    for button in notebook.page.get_by_role("button", name="The data of this figure").all():
        button.click()
    notebook.settle()
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        notebook.page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme
        )
        light = str(theme.endswith("Light")).lower()
        notebook.page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")
        assert axe.serious(notebook.page, within=".jp-OutputArea") == [], theme
    assert notebook.complaints == []


def test_in_jupyterlab_controls_and_pictures_are_called_by_name(open_notebook):
    notebook = open_notebook([PICTURE, *EVERY_WIDGET[4:5], TWIN])
    notebook.run_all()
    page = notebook.page
    slider = page.get_by_role("slider", name="place", exact=True)
    assert slider.get_attribute("aria-valuetext") == "3"
    assert page.get_by_role("slider", name="height of the marker above the axis of places").count() == 1
    assert page.get_by_role("textbox", name="place, to be typed", exact=True).count() == 1
    assert page.get_by_role("img", name="A marker.", exact=True).count() == 1
    assert page.get_by_role("img", name="A marker moves.").count() == 1
    slider.focus()
    slider.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('[role=slider]').ariaValueText === '4'")


def test_in_jupyterlab_the_data_of_a_live_figure_follow_its_slider(open_notebook):
    notebook = open_notebook([PICTURE, *EVERY_WIDGET[4:5]])
    notebook.run_all()
    page = notebook.page
    page.get_by_role("button", name="The data of this figure").press("Enter")
    cells = page.locator(".kd-tables th[scope=row]")
    expect(cells).to_have_text(["3"])
    page.get_by_role("slider", name="place", exact=True).press("ArrowRight")
    expect(cells).to_have_text(["4"])
    page.get_by_role("button", name="The data of this figure").click()
    expect(cells).to_have_count(0)


def test_in_jupyterlab_the_data_of_a_figure_open_and_scroll_by_keyboard(open_notebook):
    long = "from kdlib.lesson import figures\nfigure = figures.Figure()\nfigure.subplots().plot(range(90))"
    notebook = open_notebook([PICTURE, f"{long}\nfigures.show(figure, 'A line.')"])
    notebook.run_all()
    line = notebook.page.locator(".kd-data summary")
    line.press("Enter")
    region = notebook.page.get_by_role("group", name="The data of this figure")
    expect(region.locator("tbody tr")).to_have_count(90)
    region.press("End")
    notebook.page.wait_for_function("() => document.querySelector('.kd-tables').scrollTop > 500")
    assert notebook.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.mode") == "command"


def test_in_jupyterlab_nothing_of_ours_moves_where_that_is_asked(open_notebook):
    notebook = open_notebook(EVERY_WIDGET, reduced_motion="reduce")
    notebook.run_all()
    moving = notebook.page.evaluate(MOVING)
    ours = [line for line in moving if re.search(r'class="[^"]*\bkd-', line)]
    assert ours == []
