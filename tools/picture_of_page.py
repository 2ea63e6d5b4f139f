"""Make the picture of the web page that lesson 05 shows to those who read it without a kernel.

    python tools/picture_of_page.py

Starts `kdlib serve` with a model of the shelf, presses one of the page's samples in chromium and waits for the answer.
Writes kdlib/assets/pictures/page.png, and beside it page.csv with what stands in the answer. Needs chromium (Debian:
apt-get install chromium) and playwright.
"""

import io
import shutil
import sys
from pathlib import Path

import pandas
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from kdlib import _files  # noqa: E402
from kdlib.deploy import shelf  # noqa: E402
from kdlib.deploy.webapp import background  # noqa: E402
from kdlib.lesson.served_page import ANSWER, HEIGHT, PICTURE, WIDTH  # noqa: E402

MODEL, SAMPLE = "distilled-int8", "Shirt"  # a class that the model is not sure of
COLOURS = 64  # the page has few, and a picture of 24 bits a pixel would take three times the bytes


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no chromium here (Debian: apt-get install chromium)")
    server = background.Server([shelf.path(MODEL)])
    with sync_playwright() as playwright:
        local = ["--no-sandbox", "--no-proxy-server"]
        browser = playwright.chromium.launch(executable_path=chromium, args=local)
        screenshot, answer = taken(browser, server.address)
        browser.close()
    server.stop()
    _files.write(PICTURE, packed(screenshot))
    _files.write(ANSWER, answer.to_csv(index=False).encode())
    print(f"written: {PICTURE.relative_to(ROOT)}, {PICTURE.stat().st_size / 1000:.0f} kB")


def taken(browser: Browser, address: str) -> tuple[bytes, pandas.DataFrame]:
    """A PNG of the whole page at this address with its answer to the sample, and the words of the answer."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    page.goto(address)
    page.get_by_role("button", name=SAMPLE, exact=True).click()
    page.locator("#answers article").first.wait_for()
    page.mouse.move(0, 0)
    page.evaluate("() => document.activeElement.blur()")
    page.wait_for_function("() => [...document.images].every((image) => image.complete)")
    screenshot = page.screenshot(animations="disabled", full_page=True)
    columns = {name: page.locator(f"#answers .{name}").all_inner_texts() for name in ("label", "percent")}
    page.close()
    return screenshot, pandas.DataFrame(columns).rename(columns={"label": "class", "percent": "probability"})


def packed(screenshot: bytes) -> bytes:
    """The same picture in few colours."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
