"""The HTML page of an executed notebook is whole in itself, and what moves without a kernel moves in it."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import nbformat
import numpy as np
import pytest
from ipywidgets.embed import embed_data
from PIL import Image

from kdlib.lesson import browser, hero, page, page_pictures, page_views, predictions, strip, widgets

CLASSES = ["ant", "bee", "cat"]
IMAGES = np.random.default_rng(0).integers(0, 255, (2, 8, 8), dtype=np.uint8)
LOGITS = np.random.default_rng(0).normal(scale=4, size=(2, 3))
VIEW = "application/vnd.jupyter.widget-view+json"


class Elements(HTMLParser):
    """Collects the elements of a page, and what a browser would fetch for them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.addresses = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.attributes.append(values)
        address = values.get("src") or (values.get("href") if tag == "link" else None)
        if address and not address.startswith("data:"):
            self.addresses.append(address)

    def all(self, name):
        return [values[name] for values in self.attributes if name in values]


def draw(figure):
    axes = figure.subplots()
    axes.set(xlim=(0, 9), ylim=(0, 1))
    (marker,) = axes.plot([], [], "o", markersize=20)

    def update(*, place):
        marker.set_data([min(place, 8)], [0.5])
        return [marker]

    return update


def executed(*shown):
    """A notebook that displays these widgets, with their state, as it is after it was executed."""
    bundles = [widget._repr_mimebundle_() for widget in shown]
    data = [bundle[0] if isinstance(bundle, tuple) else bundle for bundle in bundles]
    outputs = [nbformat.v4.new_output("display_data", data=one) for one in data]
    cells = [nbformat.v4.new_code_cell("show()", outputs=[output]) for output in outputs]
    state = embed_data(views=shown, drop_defaults=False)["manager_state"]
    return nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {page_views._STATE: state}})


@pytest.fixture(scope="module")
def heroes():
    common = {"caption": "Drag T. <b>&"}
    one = widgets.temperature_hero(IMAGES, LOGITS, [0, 1], CLASSES, **common)
    two = widgets.temperature_hero(
        IMAGES, LOGITS, [0, 1], CLASSES, student_logits=LOGITS[::-1], alpha=0.5, **common
    )
    return one, two, widgets.gradient_hero(IMAGES, LOGITS[::-1], LOGITS, [0, 1], CLASSES, **common)


@pytest.fixture(scope="module")
def frames():
    return widgets.strip(draw, caption="A marker.", size=(3, 2), place=[0, 4, 8, 9])


def states(notebook):
    """The states that the page of a notebook hands to its widgets, as a browser reads them."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page.render(notebook, "page"))
    return [json.loads(text) for text in found]


def live_views(notebook):
    """What of each cell moves in the page, as HTML."""
    models = page_views.widget_models(notebook)
    return [page_views.live_view(output, models) for cell in notebook.cells for output in cell.outputs]


def test_page_draws_formulas_keeps_figures_and_captions_and_fetches_nothing():
    view = {VIEW: {"model_id": "1"}, "text/plain": "IntSlider(value=3)"}
    png = base64.b64encode(page_pictures._webp(Image.new("RGB", (2, 2)))).decode()
    outputs = [
        nbformat.v4.new_output("display_data", data=view),
        nbformat.v4.new_output(
            "display_data",
            data={"image/png": png, "text/plain": "<Figure>"},
            metadata={"image/png": {"alt": 'What "it" shows', "width": 40}},
        ),
        nbformat.v4.new_output("display_data", data={"text/markdown": "*The caption says what to see.*"}),
        nbformat.v4.new_output("display_data", data={"text/html": "<details><summary>data<table><tr><td>1"}),
    ]
    text = "## Why $T^2$?\n\nSoft targets $p_i^T$ and\n\n$$\\sum_i \\frac{p_i}{q_i}$$\n\n"
    text += "\\begin{align}a &= b\\end{align}\n"
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("plot()", outputs=outputs)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {"state": {}}})
    html = page.render(notebook, "01_principle")
    found = Elements(html)
    assert found.addresses == [] and 'type="module"' not in html
    assert (
        found.tags.count("math") == 4 + 1 and found.tags.count("mfrac") == 1
    )  # the heading is in the contents too
    assert found.all("alt") == ['What "it" shows'] and found.all("width") == ["40"]
    assert "<em>The caption says what to see.</em>" in html and "<details><summary>data<table>" in html
    assert "IntSlider" not in html and "<title>01_principle</title>" in html and '<html lang="en">' in html
    assert len(notebook.cells[1].outputs) == 4 and "widgets" in notebook.metadata


def test_code_that_the_notebook_folds_is_folded_on_the_page_and_no_other():
    folded = nbformat.v4.new_code_cell("draw_it()", metadata={"jupyter": {"source_hidden": True}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("train_it()"), folded])
    before, details, inside = page.render(notebook, "01_principle").partition("<details>")
    assert details and "train_it" in before and "draw_it" not in before
    inside, closed, after = inside.partition("</details>")
    assert closed and "<summary>The code of this figure</summary>" in inside and "draw_it" in inside
    assert "<details" not in after and "draw_it" not in after


def test_contents_name_every_heading_once_and_lead_to_it():
    texts = ["# Title", "## Same `words`\n\n### Exercise: $T$", "## Same `words`\n\n#### too small", "## ?"]
    html = page.render(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text) for text in texts]), "page"
    )
    found = Elements(html)
    names = found.all("id")
    assert len(names) == len({*names})
    links = [address for address in found.all("href") if address != "#main"]
    assert links == ["#same-words", "#exercise-t", "#same-words-2", "#section"]
    assert {link[1:] for link in links} | {"main"} <= {*names}


def test_each_hero_gets_its_state_and_its_script_once(heroes):
    notebook = executed(*heroes, heroes[0])
    views = live_views(notebook)
    assert len(views) == 4 and all(views)
    html = page.render(notebook, "page")
    found = Elements(html)
    kinds = ["TemperatureHero", "LossHero", "GradientHero", "TemperatureHero"]
    assert found.all("data-kd-widget") == kinds
    for kind, state, widget in zip(kinds, states(notebook), (*heroes, heroes[0]), strict=True):
        assert type(widget).__name__ == kind and state["caption"] == "Drag T. <b>&"
        assert all(state[name] == getattr(widget, name) for name in ("temperature", "labels", "images"))
    assert html.count("function softmax(") == html.count("function entropyCurve(") == 1
    assert all(view in html for view in views) and page.runtime() in html


def test_the_page_runs_the_same_scripts_as_the_notebook():
    for kind in (hero.TemperatureHero, hero.LossHero, hero.GradientHero, strip.FrameStrip):
        own = browser.script(page_views.SCRIPTS[kind.__name__])
        shared = browser.script(*page_views._SHARED)
        assert all(line in own + shared for line in kind._esm.splitlines()) and own in kind._esm
    assert not re.search(r"^(import|export)\b", page.runtime(), re.MULTILINE)


def test_a_strip_shows_in_the_page_the_pixels_of_its_frames(frames):
    [state] = states(executed(frames))

    def picture(base64_text):
        return Image.open(io.BytesIO(base64.b64decode(base64_text))).convert("RGBA")

    ground = picture(state["ground"])
    for number, frame in zip(state["frames"], frames.frames, strict=True):
        shown = Image.alpha_composite(ground, picture(state["pictures"][number])).convert("RGB")
        assert np.array_equal(shown, Image.open(io.BytesIO(frame)))
    assert state["frames"] == [0, 1, 2, 2] and len(state["pictures"]) == 3
    assert sum(len(base64.b64decode(text)) for text in state["pictures"]) < len(frames.frames[0])


def test_where_a_browser_scales_a_strip_no_trace_is_left_of_where_the_ground_differs(frames):
    ground, patches = page_pictures.frames_on_ground(frames.frames)
    for png, patch in zip(frames.frames, patches, strict=True):
        whole, over = (Image.open(io.BytesIO(one)) for one in (png, patch))
        size = (int(whole.width * 0.43), int(whole.height * 0.43))
        below = Image.open(io.BytesIO(ground)).resize(size, Image.Resampling.BILINEAR).convert("RGBA")
        # A browser scales colours that are multiplied by their opacity, as Pillow does in the mode RGBa.
        scaled = over.convert("RGBa").resize(size, Image.Resampling.BILINEAR).convert("RGBA")
        shown = np.asarray(Image.alpha_composite(below, scaled).convert("RGB"), dtype=int)
        expected = np.asarray(whole.resize(size, Image.Resampling.BILINEAR), dtype=int)
        assert np.abs(shown - expected).max() < 10  # of 255; without a margin it is 36


def test_pictures_lose_bytes_and_no_pixels(frames):
    png = frames.frames[0]
    small = page_pictures.smaller(png)
    assert len(small) < len(png) and page_pictures.address(small).startswith("data:image/webp;base64,")
    assert np.array_equal(Image.open(io.BytesIO(small)), Image.open(io.BytesIO(png)))


def test_a_question_can_be_answered_and_an_explorer_says_where_it_moves():
    question = predictions.predict('Is "x" < 1?', {"below 1": (None, 1), "more": (1, None)}, unit="")
    explorer = widgets.explorer(draw, caption="A marker.", size=(3, 2), place=widgets.slider(0, 9, value=3))
    notebook = executed(question, question, explorer)
    assert live_views(notebook) == [None] * 3
    html = page.render(notebook, "page")
    found = Elements(html)
    groups = [values["name"] for values in found.attributes if values.get("type") == "radio"]
    assert len(groups) == 4 and len({*groups}) == 2 and found.tags.count("fieldset") == 2
    assert "Is &quot;x&quot; &lt; 1?" in html and found.all("checked") == []
    assert html.count("Interactive figure: open the notebook in JupyterLab to move place.") == 1
    assert "kd-live" not in html.partition("</style>")[2] and "drawn" not in html


def test_a_notebook_without_state_says_where_its_heroes_move(heroes):
    notebook = executed(*heroes)
    del notebook.metadata["widgets"]
    assert live_views(notebook) == [None] * 3
    assert (
        page.render(notebook, "page").count('<p class="kd-note">Interactive figure: open the notebook') == 3
    )


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_and_code_stand_out_from_what_is_behind_them(theme):
    static = files("kdlib.lesson") / "static"
    style = "".join((static / name).read_text() for name in ("page_shell.css", "page_code.css"))
    pairs = re.findall(r"(--[\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    colours = {name: luminance((light, dark)[theme]) for name, light, dark in pairs}
    written = ["--ink", "--quiet", "--link", *(name for name in colours if name.startswith("--code-"))]
    assert len(written) == 8
    for name in written:
        for behind in ("--page", "--panel"):
            low, high = sorted((colours[name], colours[behind]))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, behind)  # WCAG 2.2, 1.4.3
