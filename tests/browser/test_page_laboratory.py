"""The laboratory in the page, opened from a folder without a network: what it computes, and what it can be used by."""

import base64
import functools
import gzip
import hashlib
import importlib.util
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lab import PATIENCE, ROOT
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from uploads import file_of, gradient, noise

from kdlib import data, losses
from kdlib.deploy import runtime, shelf
from kdlib.deploy.description import Description
from kdlib.deploy.webapp import images as web_images
from kdlib.site import laboratory

SAMPLES = ROOT / "kdlib" / "deploy" / "webapp" / "samples"
CLASSES = data.load("fashion-mnist").classes
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True}
# Width of the window, and its colours; 1280 pixels at 200 % are 640.
VIEWS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light"), "200 %": (640, "dark")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    written = tmp_path_factory.mktemp("laboratory")
    laboratory.write(written)
    return written


@dataclass
class Watched:
    """What pages did beyond being looked at."""

    complaints: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def open(self, browser: Browser, folder: Path, *, script: str = "", without: str = "", **options) -> Page:
        """Open the laboratory without a network, and without one of its files."""
        page = browser.new_page(offline=True, **options)
        page.set_default_timeout(PATIENCE * 1000)
        page.add_init_script(script)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))
        if without:
            page.route(f"**/{without}", lambda route: route.abort())
        page.goto((folder / "index.html").as_uri())
        return page

    def check(self, folder: Path, expected: str = "") -> None:
        """They complained of nothing but what was expected, and asked for nothing but the files of the folder."""
        assert [text for text in self.complaints if not (expected and expected in text)] == []
        assert [
            url for url in self.addresses if not url.startswith((folder.as_uri(), "data:", "blob:null/"))
        ] == []


@pytest.fixture(autouse=True)
def patience() -> None:
    expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture
def open_page(folder, browser):
    """Open a page of a test's own."""
    watched, pages, expected = Watched(), [], []

    def open_one(*, complaint: str = "", **options) -> Page:
        expected.append(complaint)
        pages.append(watched.open(browser, folder, **options))
        return pages[-1]

    yield open_one
    for page in pages:
        page.close()
    watched.check(folder, *expected)


@pytest.fixture(scope="module")
def shared_page(folder, browser) -> Iterator[Page]:
    """One page for most tests: to load the networks again takes seconds."""
    watched = Watched()
    page = watched.open(browser, folder, **DESKTOP)
    yield page
    page.close()
    watched.check(folder)


@pytest.fixture
def page(shared_page) -> Page:
    """That page, set to what it may stand at when it opens."""
    shared_page.get_by_role("button", name="Clear").click()
    shared_page.get_by_role("button", name="Shirt", exact=True).click()
    shared_page.wait_for_function("() => laboratory.grey().some(Boolean)")
    choice(shared_page, "teacher").select_option("teacher")
    choice(shared_page, "student").select_option("distilled")
    move(shared_page, "temperature T", 0.565)
    move(shared_page, "alpha", 0.5)
    return answered(shared_page)


def answered(page: Page) -> Page:
    """Once both networks have answered; with all digits on show."""
    expect(page.locator("#results")).to_be_visible()
    settled(page)
    if page.locator("#more").get_attribute("open") is None:
        page.get_by_text("All digits as a table").click()
    expect(page.locator(".lab-digits-of-losses")).to_contain_text("loss")
    return page


def settled(page: Page) -> None:
    """Once nothing is being computed."""
    page.wait_for_function("() => !document.getElementById('results').hasAttribute('aria-busy')")


def choice(page: Page, name: str) -> Locator:
    """The menu of this name."""
    return page.get_by_role("combobox", name=name, exact=True)


def move(page: Page, label: str, position: float) -> float:
    """Move a slider to a position in [0, 1]; returns where it came to stand."""
    slider = page.get_by_label(label)
    slider.fill(str(position))
    return float(slider.input_value())


@functools.cache
def session(name: str):
    return runtime.session(shelf.path(name).read_bytes())


def described(name: str) -> Description:
    return Description.from_metadata(session(name).get_modelmeta().custom_metadata_map, name)


def expected_logits(name: str, grey: np.ndarray) -> np.ndarray:
    """What onnxruntime says in Python of uint8 (n, 28, 28)."""
    inputs = [web_images.model_input(Image.fromarray(image), described(name))[1] for image in grey]
    return session(name).run(None, {session(name).get_inputs()[0].name: np.concatenate(inputs)})[0]


def grey_on(page: Page) -> np.ndarray:
    """The picture on the easel, as the networks get it."""
    return np.array(page.evaluate("Array.from(laboratory.grey())"), np.uint8).reshape(28, 28)


def digits_on(page: Page) -> tuple[np.ndarray, list[float]]:
    """(classes, 5) of the table of all digits, and the three losses."""
    settled(page)
    table = page.evaluate(
        "[...document.querySelectorAll('.lab-digits tbody tr')]"
        ".map((row) => [...row.querySelectorAll('td')].map((cell) => Number(cell.textContent)))"
    )
    text = page.locator(".lab-digits-of-losses").inner_text()
    return np.array(table), [float(number) for number in re.findall(r"\d+\.\d{6}", text)]


def assert_right(page: Page) -> list[float]:
    """All digits on show are what onnxruntime and kdlib.losses say of what is set; returns the three losses."""
    shown, shown_losses = digits_on(page)
    names = [choice(page, role).input_value() for role in ("teacher", "student")]
    z_teacher, z_student = (
        torch.tensor(expected_logits(name, grey_on(page)[None])).double() for name in names
    )
    np.testing.assert_allclose(shown[:, :2], torch.cat([z_teacher, z_student]).T, atol=1e-4, rtol=0)
    z_teacher, z_student = torch.tensor(shown[:, :2].T.copy()).split(
        1
    )  # the same, as this processor's 8 bits are not
    temperature = 0.5 * 40 ** float(page.get_by_label("temperature T").input_value())
    p, q = (F.softmax(z / temperature, dim=1) for z in (z_teacher, z_student))
    np.testing.assert_allclose(shown[:, 2:4], torch.cat([p, q]).T, atol=1e-5, rtol=0)
    label = torch.tensor([CLASSES.index(choice(page, "label").input_value())])
    alpha = float(page.get_by_label("alpha").input_value())
    terms = losses.distillation_loss(z_student, z_teacher, label, temperature=temperature, alpha=alpha)
    np.testing.assert_allclose(shown_losses, [terms.task, terms.distill, terms.total], atol=1e-5, rtol=1e-6)
    np.testing.assert_allclose(shown[:, 4].sum(), terms.distill, atol=1e-5, rtol=1e-6)
    return shown_losses


def test_every_network_answers_100_images_as_onnxruntime_does_in_python(page):
    test = data.load("fashion-mnist").test
    grey = test.images[:: len(test) // 100][:100, 0].numpy()
    packed = base64.b64encode(grey.tobytes()).decode()
    ask = "([name, text]) => laboratory.ask(name, Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)))"
    differences = {}
    for name in shelf.names():
        got = np.array(page.evaluate(ask, [name, packed])).reshape(100, 10)
        want = expected_logits(name, grey)
        differences[name] = np.abs(got - want).max()
        # Processors sum 8-bit products differently (tools/without_vnni.py), which moves a logit by whole steps.
        assert (got.argmax(axis=1) == want.argmax(axis=1)).mean() >= (0.97 if "int8" in name else 1), name
    print({name: f"{difference:.1e}" for name, difference in differences.items()})
    assert all(difference <= 1e-4 for name, difference in differences.items() if "int8" not in name), (
        differences
    )
    assert all(difference <= 1.0 for difference in differences.values()), differences


def test_the_samples_reach_the_networks_pixel_by_pixel(page):
    labelled = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))["pictures"]
    for button in page.locator("#samples button").all():
        name = button.inner_text().strip()
        button.click()
        expect(page.locator("#shown")).to_contain_text(name)
        assert choice(page, "label").input_value() == name
        (file,) = [
            path for path in SAMPLES.glob("*.png") if (np.asarray(Image.open(path)) == grey_on(page)).all()
        ]
        assert {"file": file.name, "label": name} in labelled
        assert_right(page)


def test_temperature_alpha_label_and_networks_change_what_is_shown(page):
    choice(page, "teacher").select_option("teacher-int8")
    choice(page, "student").select_option("labels-only")
    choice(page, "label").select_option("Coat")
    settled(page)
    seen = []
    for position, alpha in ((0, 0), (0.3, 0.25), (1, 1)):
        move(page, "temperature T", position)
        move(page, "alpha", alpha)
        seen.append(assert_right(page))
    tasks, distills, totals = zip(*seen, strict=True)
    assert len(set(tasks)) == 1 and len(set(distills)) == 3  # the label's term stands at T = 1
    assert (totals[0], totals[2]) == (tasks[0], distills[2])


# Of both tables the number and the width of the bar in percent, row by row and network by network.
BARS = """
() => [...document.querySelectorAll(".lab-bars")].map((table) =>
  [...table.querySelectorAll("tbody tr")].map((row) => {
    const widths = [...row.querySelectorAll(".lab-bar")].map((bar) => parseFloat(bar.style.width));
    return [...row.querySelectorAll(".lab-number")].map((cell, index) => [parseFloat(cell.textContent), widths[index]]);
  }))
"""


def test_bars_are_as_long_as_their_numbers(page):
    rows = page.evaluate(BARS)
    logits, softened = np.array(rows).reshape(2, -1, 2)
    np.testing.assert_allclose(softened[:, 0], softened[:, 1], atol=0.06)
    span = max(1, logits[:, 0].max()) - min(0, logits[:, 0].min())
    np.testing.assert_allclose(np.abs(logits[:, 0]) / span * 100, logits[:, 1], atol=0.1)


def upload(page: Page, content: bytes, name: str = "picture.png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def seen_by_serve(content: bytes) -> np.ndarray:
    """The picture in a file as `kdlib serve` shows it to a network."""
    decoded = web_images.decode(content, [described("teacher")])
    return np.asarray(web_images.model_input(decoded, described("teacher"))[0])


def turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(picture, "jpeg", exif=exif, quality=95)


def transparent() -> Image.Image:
    picture = noise(90, 70, "RGBA")
    picture.putalpha(gradient(90, 70).convert("L"))
    return picture


# A file, and how far from Pillow's a pixel may be: 0 where nothing is lost, 1 where roundings are done in another
# order, 3 between decoders of JPEG.
PICTURES = {
    "of a network's size": (file_of(noise(28, 28, "L")), 0),
    "smaller": (file_of(noise(9, 13)), 0),
    "larger": (file_of(noise(300, 201)), 0),
    "wide": (file_of(noise(1001, 37)), 0),
    "tall, shrunk first": (file_of(noise(240, 700)), 1),
    "smooth": (file_of(gradient(457, 391)), 0),
    "grey": (file_of(noise(150, 133, "L")), 0),
    "two colours": (file_of(noise(64, 64, "L").convert("1")), 0),
    "a palette": (file_of(noise(120, 80).quantize(16)), 0),
    "a bitmap": (file_of(noise(75, 61), "bmp"), 0),
    "WebP without loss": (file_of(noise(75, 61), "webp", lossless=True), 0),
    "GIF": (file_of(noise(75, 61).quantize(64), "gif"), 0),
    "transparent": (file_of(transparent()), 1),
    "a photograph": (file_of(gradient(640, 480), "jpeg", quality=95), 3),
    "a photograph on its side": (turned(gradient(640, 480)), 3),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_uploads_become_what_serve_makes_of_them(page, kind):
    content, tolerance = PICTURES[kind]
    upload(page, content, f"{kind}.png")
    expect(page.locator("#shown")).to_have_text(f"{kind}.png")
    expect(page.locator("#complaint")).to_have_text("")
    difference = np.abs(grey_on(page).astype(int) - seen_by_serve(content))
    print(kind, difference.max())
    assert difference.max() <= tolerance


def animated_gif() -> bytes:
    frames = [noise(40, 40, "L"), Image.new("L", (40, 40))]
    return file_of(frames[0], "gif", save_all=True, append_images=frames[1:], duration=100)


def test_of_an_animation_the_first_picture_is_taken(page):
    upload(page, animated_gif(), "moving.gif")
    expect(page.locator("#shown")).to_have_text(
        "moving.gif: an animation, of which this is the first picture"
    )
    np.testing.assert_array_equal(grey_on(page), seen_by_serve(animated_gif()))


REFUSED = {
    "a text": (b"no picture", "no picture of a known format"),
    "nothing": (b"", "empty"),
    "a TIFF": (file_of(noise(9, 9), "tiff"), "known are PNG, JPEG, WEBP, BMP, GIF"),
    "half a picture": (file_of(noise(50, 50))[:60], "damaged"),
    "too many bytes": (b"\x89PNG\r\n\x1a\n" + bytes(8 * 2**20), "too large: 8.0 MiB; at most 8 are taken"),
    "too many pixels": (
        file_of(Image.new("1", (5000, 4000))),
        "5000 × 4000 pixels; at most 16 million are taken",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_in_a_sentence(page, kind, tmp_path):
    content, words = REFUSED[kind]
    before = grey_on(page)
    (tmp_path / "file.png").write_bytes(content)
    page.set_input_files("#file", tmp_path / "file.png")
    complaint = page.get_by_role("alert").filter(has_text="file.png: ")
    expect(complaint).to_contain_text(words)
    np.testing.assert_array_equal(grey_on(page), before)
    upload(page, file_of(noise(28, 28, "L")))
    expect(page.locator("#complaint")).to_be_hidden()


def test_drawing_by_mouse(page):
    page.get_by_role("button", name="Clear").click()
    assert grey_on(page).max() == 0
    choice(page, "brush").select_option("1 pixel")
    choice(page, "paint").select_option("light grey")
    page.locator("#easel").scroll_into_view_if_needed()
    box = page.locator("#easel").bounding_box()
    at = [
        (box["x"] + (column + 0.5) * box["width"] / 28, box["y"] + 10.5 * box["height"] / 28)
        for column in (5, 20)
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1])
    page.mouse.up()
    drawn = np.zeros((28, 28), np.uint8)
    drawn[10, 5:21] = 170
    np.testing.assert_array_equal(grey_on(page), drawn)
    page.mouse.move(*at[0])  # no longer pressed
    assert_right(page)
    expect(page.locator("#shown")).to_have_text("your drawing")
    page.get_by_role("button", name="Swap bright and dark").click()
    np.testing.assert_array_equal(grey_on(page), 255 - drawn)
    expect(page.locator("#bright")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    np.testing.assert_array_equal(grey_on(page), drawn)
    expect(page.locator("#bright")).to_be_hidden()


def test_undo_brings_back_what_was_said_of_the_picture(page):
    def said_of_it():
        settled(page)
        return page.locator("#shown").inner_text(), choice(page, "label").input_value()

    boot = ("Ankle boot, a test image of Fashion-MNIST", "Ankle boot")
    undo = page.get_by_role("button", name="Undo")
    page.get_by_role("button", name="Ankle boot").click()
    expect(page.locator("#shown")).to_have_text(boot[0])
    pixels = grey_on(page)
    page.get_by_role("button", name="Bag", exact=True).click()
    expect(page.locator("#shown")).to_contain_text("Bag")
    undo.click()
    np.testing.assert_array_equal(grey_on(page), pixels)
    assert said_of_it() == boot
    assert_right(page)  # the cross-entropy, too
    page.get_by_role("button", name="Clear").click()
    assert said_of_it() == ("your drawing", "Ankle boot")
    undo.click()
    assert said_of_it() == boot
    page.locator("#easel").click()
    choice(page, "label").select_option("Coat")
    undo.click()
    assert said_of_it() == (boot[0], "Coat")  # the label was chosen after the stroke that is undone


def test_drawing_by_finger(open_page):
    page = answered(open_page(**PHONE))
    page.get_by_role("button", name="Clear").tap()
    page.locator("#easel").tap()
    assert (grey_on(page) == 255).sum() == 4  # the brush has two pixels


def test_everything_by_keyboard(open_page):
    page = open_page(**DESKTOP)
    expect(page.locator("#results")).to_be_visible()
    for _ in range(4):  # past the links and the switch at the top of every page
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "easel"
    expect(page.locator("#cursor")).to_have_css("visibility", "visible")
    before = grey_on(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    np.testing.assert_array_equal(grey_on(page), before)
    expect(page.locator("#said")).to_have_text(f"Row 16, column 14, brightness {before[15, 13]} of 255.")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")  # the brush: one pixel
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    changed = before.copy()
    changed[15, 13:16] = 255
    np.testing.assert_array_equal(grey_on(page), changed)
    expect(page.locator("#shown")).to_have_text("Shirt, a test image of Fashion-MNIST, changed by you")
    reached = []
    while "sliders" not in reached:
        page.keyboard.press("Tab")
        focus = "document.activeElement"
        reached.append(page.evaluate(f"{focus}.id || {focus}.closest('[id]').id"))
        assert page.evaluate(f"getComputedStyle({focus}).outlineStyle") in ("solid", "auto")
        if reached[-1] == "student":
            page.keyboard.press("l")
    assert {"width", "tone", "undo", "clear", "invert", "file", "samples", "teacher", "label"} <= set(reached)
    assert choice(page, "student").input_value().startswith("l")
    old = page.locator("#summary").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#summary").inner_text() != old
    assert page.get_by_label("temperature T").get_attribute("aria-valuetext") == "4.09"


def test_a_screen_reader_is_told_once_the_slider_rests(page):
    settled(page)
    page.evaluate(
        "() => { window.told = 0; new MutationObserver(() => window.told++)"
        ".observe(document.getElementById('said'), { childList: true, characterData: true, subtree: true }); }"
    )
    slider = page.get_by_label("temperature T")
    slider.focus()
    for _ in range(20):
        slider.press("ArrowRight")
    expect(page.locator("#said")).to_contain_text(
        re.compile(r"At T = 5\.81 the teacher: .*Cross-entropy .* loss ")
    )
    assert page.evaluate("window.told") < 5  # a busy machine may rest between two keys
    speaking = page.evaluate(
        "[...document.querySelectorAll('output, [role=status], [aria-live]')]"
        ".filter((node) => node.getAttribute('aria-live') !== 'off').map((node) => node.id)"
    )
    assert sorted(speaking) == ["said", "state"]


LACKING = {
    "WebAssembly": "this browser has no WebAssembly with SIMD",
    "DecompressionStream": "this browser has no DecompressionStream",
}


@pytest.mark.parametrize("name", LACKING)
def test_an_old_browser_is_told_what_it_lacks(open_page, name):
    page = open_page(script=f"delete globalThis.{name};")
    expect(page.locator("#failed")).to_contain_text(LACKING[name])
    assert page.locator("#state").is_hidden() and page.locator("#results").is_hidden()
    assert grey_on(page).max() > 0  # one may still draw


def test_a_missing_file_is_named_and_the_other_networks_go_on(open_page):
    page = open_page(without="distilled.js", complaint="ERR_FAILED")
    expect(page.locator("#failed")).to_have_text(
        "The file networks/distilled.js is missing or cannot be read."
    )
    choice(page, "student").select_option("carved")
    expect(page.locator("#results")).to_be_visible()
    expect(page.locator("#failed")).to_be_hidden()


@pytest.mark.parametrize("view", VIEWS)
def test_everybody_can_use_it(page, view):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    width, colours = VIEWS[view]
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=colours)
    upload(page, b"no picture", "a-file-with-a-very-long-name-" * 5)
    expect(page.locator("#complaint")).to_be_visible()
    wide, inside = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= inside, f"the page is {wide} pixels wide in a window of {inside}"
    found = axe.run(page, options={"preload": False}).response[
        "violations"
    ]  # what it would load first are files
    assert [(one["id"], one["impact"]) for one in found] == []
    page.set_viewport_size(DESKTOP["viewport"])
    page.emulate_media(color_scheme="light")


def test_what_is_vendored_is_what_was_published():
    spec = importlib.util.spec_from_file_location(
        "vendor_onnxruntime", ROOT / "tools" / "vendor_onnxruntime.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert f"onnxruntime-web {tool.VERSION}" in (ROOT / "kdlib/site/laboratory/static/main.html").read_text()
    contents = {path.name: path.read_bytes() for path in tool.FOLDER.iterdir()}
    script = contents.pop(tool.SCRIPT)
    assert f"ONNX Runtime Web v{tool.VERSION}".encode() in script[:100]
    wasm = gzip.GzipFile(fileobj=io.BytesIO(contents.pop(f"{tool.WASM}.gz"))).read()
    for name, content in {tool.WASM: wasm, **contents}.items():
        assert hashlib.sha256(content).hexdigest() == tool.DIGESTS[name]
