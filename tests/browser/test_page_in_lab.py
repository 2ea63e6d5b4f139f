"""The web page inside a notebook in JupyterLab: asked, and stopped by its button."""

import io
import sys

from lab import PATIENCE, ROOT
from PIL import Image
from playwright.sync_api import expect

from kdlib.deploy.webapp import background

sys.path.insert(0, str(ROOT / "tools"))
import picture_of_page  # noqa: E402

SERVE = """
from kdlib.deploy.webapp import background
from kdlib.lesson import served_page

server = background.serve([{model!r}])
served_page.show(server)
"""


def test_the_page_answers_inside_a_notebook_until_its_button_stops_it(open_notebook, exported):
    expect.set_options(timeout=PATIENCE * 1000)
    notebook = open_notebook([SERVE.format(model=str(exported[0]))])
    for _ in range(2):  # a cell may run twice
        notebook.run_all()
        assert notebook.cell_errors() == []
    shown = notebook.page.locator(".kd-served")
    page = shown.frame_locator("iframe")
    page.get_by_role("button", name="Sandal").click()
    expect(page.locator("#summary")).to_contain_text("small says")
    address = notebook.ask("print(server.address)").strip()
    assert shown.get_by_role("link").get_attribute("href") == address
    shown.get_by_role("button", name="Stop the page").click()
    expect(shown.get_by_role("status")).to_contain_text("ended with status 0")
    assert shown.locator("iframe").count() == 0
    assert notebook.ask("print(server.status)").strip() == "0"
    assert notebook.collapsed_outputs() == [] and notebook.complaints == []


def test_the_tool_takes_a_small_picture_of_the_page_with_its_answer(browser, exported):
    server = background.Server(exported)
    screenshot, answer = picture_of_page.taken(browser, server.address)
    server.stop()
    packed = picture_of_page.packed(screenshot)
    before, after = (Image.open(io.BytesIO(content)).convert("RGB") for content in (screenshot, packed))
    assert before.size == after.size and before.width == picture_of_page.WIDTH
    assert len(packed) < 120_000
    blue = (0, 114, 178)  # the first model's bars, by the page's style
    assert blue in {colour for _, colour in before.getcolors(2**24)}
    assert list(answer.columns) == ["class", "probability"] and len(answer) == 2 * 3  # two models, three answers each
    shares = [float(share.removesuffix(" %")) for share in answer["probability"]]
    for three in (shares[:3], shares[3:]):
        assert 100 >= three[0] >= three[1] >= three[2] >= 0
