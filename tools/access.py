"""Count what axe finds wrong with the accessibility of everything that users open.

    python tools/access.py [--site FOLDER] [--demo MODEL.onnx ...] [--lessons NAME ...]

Of a site (what `kdlib site --out FOLDER` wrote) every page is opened, of the demo the page of `kdlib serve` before
and after an answer, of each lesson (all, or those whose names begin so) the outputs in JupyterLab after its cells ran
in the `ci` profile; each in light and in dark, with everything opened that is folded. A line for each, by impact, and
below it what is serious or critical; the exit status is 1 where anything is. It needs the extras of the tests, and
chromium.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "browser")]

import axe  # noqa: E402
import lab  # noqa: E402
from driver import Notebook  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402
from serving import serving  # noqa: E402

SCHEMES = ("light", "dark")
THEMES = ("JupyterLab Light", "JupyterLab Dark")
_OPEN = "() => document.querySelectorAll('details').forEach((details) => (details.open = true))"
_THEME = "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"
_IMPACTS = ("critical", "serious", "moderate", "minor")
_OUTPUTS = ".jp-OutputArea"

Checked = Iterator[tuple[str, Counter[str], list[str]]]


def _checked(page: Page, name: str, within: str | None = None) -> tuple[str, Counter[str], list[str]]:
    found = axe.findings(page, within=within)
    return name, axe.counts(found), axe.grave(found)


def site(browser: Browser, folder: Path) -> Checked:
    """Every page of a folder, from the disk and without a network."""
    for path in sorted(folder.rglob("*.html")):
        for scheme in SCHEMES:
            context = browser.new_context(offline=True, color_scheme=scheme)
            page = context.new_page()
            page.goto(path.as_uri())
            page.evaluate(_OPEN)
            yield _checked(page, f"{path.relative_to(folder)}, {scheme}")
            context.close()


def demo(browser: Browser, models: list[Path]) -> Checked:
    """The page of `kdlib serve`: at its start, and with the answer to one of its samples."""
    with serving(models) as served:
        for scheme in SCHEMES:
            page = browser.new_page(color_scheme=scheme)
            page.goto(served.url)
            page.locator("#models li").first.wait_for()
            yield _checked(page, f"demo at its start, {scheme}")
            page.locator("#sample-list button").first.click()
            page.locator("#summary:not(:empty)").wait_for()
            yield _checked(page, f"demo with an answer, {scheme}")
            page.close()


def lessons(browser: Browser, paths: list[Path]) -> Checked:
    """The outputs of lessons in JupyterLab, after all their cells ran."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, private = Path(scratch, "served"), Path(scratch, "private")
        folder.mkdir()
        private.mkdir()
        with lab.jupyter_lab(folder, private) as server:
            for path in paths:
                shutil.copy(path, folder)
                notebook = Notebook.open(browser, server, path.name)
                notebook.page.set_default_timeout(600_000)
                notebook.run_all()
                notebook.collapsed_outputs()  # scrolls to every cell, which draws it
                notebook.page.evaluate(_OPEN)
                for theme in THEMES:
                    notebook.page.evaluate(_THEME, theme)
                    yield _checked(notebook.page, f"{path.name}, {theme}", _OUTPUTS)
                notebook.close()


def main(arguments: list[str] | None = None) -> int:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--site", type=Path, metavar="FOLDER", help="a built site")
    parser.add_argument(
        "--demo", type=Path, nargs="+", metavar="MODEL", help="models for the page of `kdlib serve`"
    )
    parser.add_argument(
        "--lessons", nargs="*", metavar="NAME", help="how lessons' names begin; none: all lessons"
    )
    options = parser.parse_args(arguments)
    if options.site is not None and not list(options.site.rglob("*.html")):
        parser.error(f"--site {options.site}: there is no page in it")
    names = tuple(options.lessons or [""])
    paths = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.stem.startswith(names)]
    if options.lessons is not None and not paths:
        parser.error(f"--lessons {' '.join(options.lessons)}: no lesson's name begins so")
    parts = []
    with sync_playwright() as playwright:
        browser = lab.launch(playwright)
        if options.site is not None:
            parts.append(site(browser, options.site.resolve()))
        if options.demo:
            parts.append(demo(browser, options.demo))
        if options.lessons is not None:
            parts.append(lessons(browser, paths))
        total = _report(parts)
        browser.close()
    return 1 if total["critical"] + total["serious"] else 0


def _report(parts: list[Checked]) -> Counter[str]:
    print("".join(f"{impact:>10}" for impact in _IMPACTS))
    total, pages = Counter(), 0
    for name, counts, lines in (one for part in parts for one in part):
        print("".join(f"{counts[impact]:>10}" for impact in _IMPACTS) + f"  {name}", flush=True)
        print("".join(f"    {line}\n" for line in lines), end="")
        total += counts
        pages += 1
    print("".join(f"{total[impact]:>10}" for impact in _IMPACTS) + f"  all {pages}")
    return total


if __name__ == "__main__":
    sys.exit(main())
