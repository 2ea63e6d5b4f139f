"""The page of `kdlib serve` in a real browser: by mouse, by keyboard, on a phone, with the wrong file."""

import base64
import re
from collections.abc import Iterator

import pytest
from lab import PATIENCE
from playwright.sync_api import Page, expect
from serving import Served, serving
from uploads import file_of, gradient, noise

PICTURE = {"name": "noise.png", "mimeType": "image/png", "buffer": file_of(noise(40, 30))}
TEXT = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "device_scale_factor": 2}
CAMERA = """
navigator.mediaDevices.getUserMedia = async () => {
  const canvas = document.createElement("canvas");
  canvas.getContext("2d").fillRect(0, 0, 9, 9);
  return canvas.captureStream();
};
"""
DROP = """
(content) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
  const target = document.getElementById("drop");
  for (const kind of ["dragover", "drop"])
    target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}
"""


@pytest.fixture(scope="module")
def site(exported) -> Iterator[Served]:
    with serving(exported) as running:
        yield running


@pytest.fixture
def open_page(site, browser):
    """Open the page; afterwards nothing in it may have complained, but for what a test expects."""
    pages, complaints, expected = [], [], []

    def open_one(*, address: str = site.url, script: str = "", complaint: str = "", **context) -> Page:
        page = browser.new_page(**context)
        pages.append(page)
        expected.append(complaint)
        page.set_default_timeout(PATIENCE * 1000)
        page.add_init_script(script)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.locator("#models li").nth(1).wait_for()
        return page

    expect.set_options(timeout=PATIENCE * 1000)
    yield open_one
    for page in pages:
        page.close()
    assert [text for text in complaints if not any(word and word in text for word in expected)] == []


def assert_answered(page: Page, name: str) -> None:
    """Both models have answered, each with three bars of the widths that their numbers say."""
    expect(page.locator("#file-name")).to_have_text(name)
    expect(page.locator("#summary")).to_have_text(re.compile("Both say: |They disagree: small says "))
    assert page.locator("article h2").all_inner_texts() == ["small", "other"]
    for article in page.locator("article").all():
        assert "ms in the network" in article.inner_text()
        rows = article.locator("li").all()
        assert len(rows) == 3
        for row in rows:
            width = row.locator(".bar").evaluate("(bar) => parseFloat(bar.style.width)")
            assert row.locator(".percent").inner_text() == f"{width:.1f} %"


def test_a_picture_from_the_file_picker(open_page):
    page = open_page()
    page.set_input_files("#file", PICTURE)
    assert_answered(page, "noise.png")
    page.get_by_label("Swap bright and dark").check()
    with page.expect_response(re.compile("invert=1")):
        page.get_by_label("Swap bright and dark").uncheck()
        page.get_by_label("Swap bright and dark").check()
    assert_answered(page, "noise.png")


def test_a_picture_dropped_on_the_page(open_page):
    page = open_page()
    page.evaluate(DROP, base64.b64encode(PICTURE["buffer"]).decode())
    assert_answered(page, "dropped.png")


def test_everything_by_keyboard(open_page):
    page = open_page()
    page.on("filechooser", lambda chooser: None)  # the driver catches it from now on, not a moment too late
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    outline = page.locator("#drop").evaluate("(label) => getComputedStyle(label).outlineStyle")
    assert outline == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([PICTURE])
    assert_answered(page, "noise.png")
    for _ in range(3):  # the camera's button may come first
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "T-shirt/top":
            break
    page.keyboard.press("Enter")
    assert_answered(page, "sample: T-shirt/top")


def test_a_file_that_is_no_picture_is_answered_with_a_reason(open_page):
    page = open_page(complaint="415 (UNSUPPORTED MEDIA TYPE)")
    page.set_input_files("#file", PICTURE)
    assert_answered(page, "noise.png")
    page.set_input_files("#file", TEXT)
    expect(page.get_by_role("alert")).to_contain_text("no picture of a known format")
    assert not page.locator("#answer").is_visible()
    page.set_input_files("#file", PICTURE)
    assert_answered(page, "noise.png")
    expect(page.locator("#error")).to_be_hidden()


def test_a_photograph_of_many_megabytes_is_shrunk_before_it_is_sent(open_page):
    page = open_page()
    photograph = file_of(noise(2400, 1800))
    assert len(photograph) > 8 * 2**20
    with page.expect_request("**/predict*") as request:
        page.set_input_files("#file", {**PICTURE, "buffer": photograph, "name": "large.png"})
    assert_answered(page, "large.png")
    assert int(request.value.all_headers()["content-length"]) < 4 * 2**20


def test_a_picture_from_the_camera(open_page):
    page = open_page(script=CAMERA)
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Take the picture").click()
    assert_answered(page, "from the camera")
    assert page.get_by_role("button", name="Use the camera").is_visible()


def test_it_works_below_the_prefix_of_a_proxy(open_page, browser, site):
    page = open_page()
    prefix = f"{site.url}user/proxy/8000/"

    def forward(route):
        assert route.request.url.startswith(prefix), f"{route.request.url} leaves the prefix"
        route.fulfill(response=route.fetch(url=route.request.url.replace(prefix, site.url)))

    page.route(lambda url: url.startswith("http"), forward)
    page.goto(prefix)
    page.get_by_role("button", name="Sandal").click()
    assert_answered(page, "sample: Sandal")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", ["phone", "desktop"])
def test_nothing_is_cut_off_or_hard_to_read(open_page, scheme, window, tmp_path):
    context = PHONE if window == "phone" else {"viewport": {"width": 1280, "height": 800}}
    page = open_page(color_scheme=scheme, **context)
    name = "a-photograph-with-a-very-long-name-" * 4
    page.set_input_files("#file", {**PICTURE, "buffer": file_of(gradient(300, 200)), "name": name})
    assert_answered(page, name)
    wide, inside = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= inside, f"the page is {wide} pixels wide in a window of {inside}"
    assert page.evaluate(CONTRASTS) == []
    expect(page.locator("#summary")).to_be_in_viewport()
    page.screenshot(path=tmp_path / f"{window}-{scheme}.png", full_page=True)


# Every text against the ground that it stands on, by the formula of the WCAG; 4.5 is what they ask for.
CONTRASTS = """
() => {
  const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb(colour).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((rgb(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.querySelectorAll("h1, h2, p, li, span, strong, figcaption, legend, label, button")) {
    if (!element.checkVisibility() || !element.textContent.trim()) continue;
    const pair = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) found.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}
"""
