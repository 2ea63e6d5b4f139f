"""What axe (Deque's checks of accessibility) finds wrong in an open page."""

from collections import Counter

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

GRAVE = ("critical", "serious")
_AXE = Axe()


def findings(page: Page, *, within: str | None = None) -> list[dict]:
    """Each kind of trouble with its impact and the elements that have it.

    Args:
        page: an open page, as it stands now.
        within: a selector; what is outside it is not looked at.

    Raises:
        ValueError: nothing in the page fits the selector.
    """
    if within is not None and page.locator(within).count() == 0:
        raise ValueError(f"within={within!r}: nothing in {page.url} fits it, so there is nothing to check")
    context = None if within is None else {"include": [[within]]}
    return _AXE.run(page, context=context, options={"resultTypes": ["violations"]}).response["violations"]


def serious(page: Page, *, within: str | None = None) -> list[str]:
    """A line for each element with a serious or critical trouble: impact, rule, place, what is wrong.

    Args:
        page, within: as for `findings`.
    """
    return grave(findings(page, within=within))


def grave(found: list[dict]) -> list[str]:
    """The lines of `serious` for findings."""
    return [_line(one, node) for one in found if one["impact"] in GRAVE for node in one["nodes"]]


def counts(found: list[dict]) -> Counter[str]:
    """How many elements have a trouble of each impact."""
    return Counter(one["impact"] for one in found for _ in one["nodes"])


def _line(found: dict, node: dict) -> str:
    place = " ".join(map(str, node["target"]))
    reason = " ".join(node.get("failureSummary", "").split())
    return f"{found['impact']}: {found['id']}: {place}: {reason} {node['html'][:160]}"
