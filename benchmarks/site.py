"""From the hand to the picture in the pages of a site, opened as files in a chromium that has no network.

    kdlib site --out SITE && python benchmarks/site.py SITE [--moves 60] [LESSON ...]

Every slider of every hero and strip is moved step by step by the mouse and by the arrow keys. A move is timed as in
slider_latency.py: from the input event to the frame in which the new picture is painted. Complaints of the console,
exceptions and requests to anything but files are counted, and so are the bytes of the pages and of the site.
"""

import argparse
import statistics
import sys
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))
import lab
import slider_latency
import sliders

TARGET = 20  # p95 in ms
LARGEST_PAGE, LARGEST_SITE = 1.5e6, 25e6  # bytes
OWN = ("file:", "blob:", "data:")


def open_page(browser: Browser, path: Path) -> tuple[Page, list[str]]:
    """A page without a network, and the list in which its errors and its requests to elsewhere are collected."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, offline=True)
    page, complaints = context.new_page(), []
    page.set_default_timeout(lab.PATIENCE * 1000)
    page.add_init_script(slider_latency.INSTRUMENTS)
    page.on(
        "console", lambda message: message.type == "error" and complaints.append(f"console: {message.text}")
    )
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
    page.on("request", lambda asked: asked.url.startswith(OWN) or complaints.append(f"request: {asked.url}"))
    page.goto(path.resolve().as_uri())
    page.wait_for_function("() => !document.querySelector('.kd-live > script')")
    return page, complaints


def by_mouse(slider: Locator, moves: int, stops: int) -> list[dict]:
    """Times of moves to and fro among so many stops of the slider, or to as many places of a finer one."""
    slider.scroll_into_view_if_needed()
    box, mouse = slider.bounding_box(), slider.page.mouse
    across = box["y"] + box["height"] / 2

    def place(move: int) -> float:
        return box["x"] + box["width"] * (0.03 + 0.94 * there_and_back(move, stops) / stops)

    mouse.move(place(0), across)
    mouse.down()
    slider.evaluate("() => kdLatency.picture()")
    timings = slider_latency.timed(slider, moves, lambda move: mouse.move(place(move + 1), across))
    mouse.up()
    return timings


def by_keyboard(slider: Locator, moves: int, stops: int) -> list[dict]:
    """Times of steps to and fro by the arrow keys."""
    sliders.press(slider, "Home")
    slider.evaluate("() => kdLatency.picture()")
    keys = ["ArrowRight"] * stops + ["ArrowLeft"] * stops
    return slider_latency.timed(
        slider, moves, lambda move: slider.page.keyboard.press(keys[move % len(keys)])
    )


def there_and_back(move: int, stops: int) -> int:
    """0, 1, ..., stops, ..., 1, 0, 1, ..."""
    return stops - abs(move % (2 * stops) - stops)


def measure(page: Page, name: str, moves: int) -> bool:
    """Print a line for each slider and each way to move it; return whether all were quick enough."""
    quick = True
    for slider in page.locator(".kd-live input[type=range]").all():
        slider.evaluate("(slider) => kdLatency.observe(slider)")
        page.evaluate("() => kdLatency.rest()")
        stops = min(12, round(1 / float(slider.get_attribute("step"))))
        label = f"{slider_latency.kind_of(slider)}: {sliders.label_of(slider)}"
        for way, move in (("mouse", by_mouse), ("keyboard", by_keyboard)):
            times = [timing["event"] for timing in move(slider, moves, stops)]
            p95 = slider_latency.percentile(times, 0.95)
            quick &= p95 <= TARGET
            print(
                f"{name:28}{label:40}{way:>10}{len(times):7}{statistics.median(times):9.1f}{p95:8.1f}",
                flush=True,
            )
    return quick


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path, metavar="SITE", help="the folder that `kdlib site` wrote")
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="such as 01_principle; default: all")
    parser.add_argument("--moves", type=int, default=60)
    options = parser.parse_args()
    paths = [options.site / f"{name}.html" for name in options.lessons] or sorted(
        options.site.glob("[0-9]*.html")
    )
    print(f"{'page':28}{'slider':40}{'by':>10}{'moves':>7}{'median':>9}{'p95':>8}")
    fine, complaints = bool(paths), []
    with sync_playwright() as playwright:
        browser = lab.launch(playwright)
        for path in paths:
            page, found = open_page(browser, path)
            fine &= measure(page, path.stem, options.moves)
            complaints += [f"{path.stem}: {complaint}" for complaint in found]
            page.context.close()
        browser.close()
    print(f"errors and requests to elsewhere: {len(complaints)}", *complaints, sep="\n  ")
    largest = max(options.site.glob("*.html"), key=lambda path: path.stat().st_size)
    whole = sum(path.stat().st_size for path in options.site.rglob("*") if path.is_file())
    print(
        f"largest page: {largest.name}, {largest.stat().st_size / 1e6:.2f} MB; the site: {whole / 1e6:.1f} MB"
    )
    fine &= not complaints and largest.stat().st_size <= LARGEST_PAGE and whole <= LARGEST_SITE
    print("every target met" if fine else "a target was missed")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
