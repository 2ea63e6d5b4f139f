"""Move a slider as a hand does, and see whether its picture follows.

Nothing here waits a fixed time: it waits for what it needs, or gives up after `PATIENCE`.
"""

import hashlib

from lab import PATIENCE
from playwright.sync_api import Locator

# A slider of ours or of ipywidgets: what a keyboard or a screen reader takes for one.
SLIDER = "input[type=range], .widget-slider [role=slider]"


def drag(slider: Locator, start: float, end: float, *, moves: int = 20, paced: bool = False) -> None:
    """Drag a slider's handle with the mouse between two places, as shares of its track, in so many moves.

    Paced, it makes one move a frame, as a hand does; otherwise it moves as fast as the browser takes it.
    """
    slider.scroll_into_view_if_needed()
    mouse = slider.page.mouse
    handle, track = slider.bounding_box(), track_of(slider).bounding_box()
    across = handle["y"] + handle["height"] / 2
    shares = [start + (end - start) * move / moves for move in range(moves + 1)]
    places = [track["x"] + track["width"] * share for share in shares]
    # The handle of an ipywidgets slider must be taken where it is; a range input follows a press on it.
    grip = places[0] if handle == track else handle["x"] + handle["width"] / 2
    mouse.move(grip, across)
    mouse.down()
    for place in places:
        mouse.move(place, across)
        if paced:
            slider.page.evaluate("() => new Promise(requestAnimationFrame)")
    mouse.up()


def track_of(slider: Locator) -> Locator:
    """What a slider's handle runs on: for a range input, the input itself."""
    outer = slider.locator("xpath=ancestor::*[contains(@class, 'noUi-base')][1]")
    return outer if outer.count() else slider


def press(slider: Locator, *keys: str) -> None:
    """Press keys on a slider that has the focus."""
    slider.scroll_into_view_if_needed()
    slider.focus()
    for key in keys:
        slider.page.keyboard.press(key)


def value_of(slider: Locator) -> str:
    """Where the slider stands."""
    return slider.evaluate("(slider) => slider.value ?? slider.getAttribute('aria-valuetext')")


def _stands_right(slider: Locator) -> bool:
    """Whether the slider stands in the right half of its track."""
    return slider.evaluate(
        "(slider) => (slider.value ?? slider.getAttribute('aria-valuenow')) >"
        " (Number(slider.max ?? slider.getAttribute('aria-valuemax'))"
        " + Number(slider.min ?? slider.getAttribute('aria-valuemin'))) / 2"
    )


def far_end(slider: Locator) -> tuple[float, float]:
    """From where to where to drag, so that the slider surely ends elsewhere."""
    return (0.9, 0.1) if _stands_right(slider) else (0.1, 0.9)


def key_to_far_end(slider: Locator) -> str:
    """The key that takes the slider to its farther end."""
    return "Home" if _stands_right(slider) else "End"


def label_of(slider: Locator) -> str:
    """The words beside the slider."""
    own = slider.get_attribute("aria-label")
    box = slider.locator("xpath=ancestor::*[contains(@class, 'widget-slider')][1]")
    return own or box.locator(".widget-label").inner_text()


def signature(picture: Locator) -> str:
    """A digest of what is painted."""
    return hashlib.sha256(picture.screenshot(animations="disabled")).hexdigest()


def wait_for_change(picture: Locator, before: str) -> bool:
    """Whether the picture comes to differ from what it was, before patience ends."""
    for _ in range(PATIENCE * 10):
        if signature(picture) != before:
            return True
        picture.page.wait_for_timeout(100)
    return False
