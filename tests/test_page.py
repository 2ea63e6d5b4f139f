"""The HTML page of an executed notebook is whole in itself."""

from html.parser import HTMLParser

import nbformat

from kdlib.lesson import page


class Fetched(HTMLParser):
    """Collects what a browser would fetch for a page."""

    def __init__(self):
        super().__init__()
        self.addresses, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        address = values.get("src") or (values.get("href") if tag == "link" else None)
        if address and not address.startswith("data:"):
            self.addresses.append(address)


def test_page_draws_formulas_keeps_figures_and_captions_and_fetches_nothing():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider(value=3)"}
    outputs = [
        nbformat.v4.new_output("display_data", data=view),
        nbformat.v4.new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}),
        nbformat.v4.new_output("display_data", data={"text/markdown": "*The caption says what to see.*"}),
    ]
    text = "## Why $T^2$?\n\nSoft targets $p_i^T$ and\n\n$$\\sum_i \\frac{p_i}{q_i}$$\n\n"
    text += "\\begin{align}a &= b\\end{align}\n"
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("plot()", outputs=outputs)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {"state": {}}})
    html = page.render(notebook, "01_principle")
    fetched = Fetched()
    fetched.feed(html)
    assert fetched.addresses == [] and "script" not in fetched.tags
    assert fetched.tags.count("math") == 4 and fetched.tags.count("mfrac") == 1
    assert "data:image/png;base64,iVBORw0KGgo=" in html and "<em>The caption says what to see.</em>" in html
    assert "IntSlider" not in html and "<title>01_principle</title>" in html
    assert len(notebook.cells[1].outputs) == 3 and "widgets" in notebook.metadata


def test_code_that_the_notebook_folds_is_folded_on_the_page_and_no_other():
    folded = nbformat.v4.new_code_cell("draw_it()", metadata={"jupyter": {"source_hidden": True}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("train_it()"), folded])
    before, details, inside = page.render(notebook, "01_principle").partition("<details>")
    assert details and "train_it" in before and "draw_it" not in before
    inside, closed, after = inside.partition("</details>")
    assert closed and "<summary>The code of this figure</summary>" in inside and "draw_it" in inside
    assert "<details" not in after and "draw_it" not in after
