"""Write the lessons for Colab, and the badges that open them there.

    python tools/colab.py --out DIR [--repository OWNER/NAME] [--branch colab] [--wheel URL | --source BRANCH]
                          [--write README.md]

DIR gets a copy of each lesson, without outputs, with a first cell that fetches the course where it is not: the wheel
at URL, else the repository itself, as it is at BRANCH. Colab opens notebooks of a public repository on GitHub: DIR is
to be pushed there, as a branch of its own, so that no copy of a lesson lies beside the lessons. docs/starts.md has the
commands.

The badges are printed in Markdown; with --write they are put behind the lessons' names in a table of such links.
Without --repository it is that of the remote `origin`, if that is on GitHub.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kdlib import _files  # noqa: E402
from kdlib.lesson import course  # noqa: E402

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ON_GITHUB = re.compile(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$")
_LINK = re.compile(r"\]\((\d\d_\w+\.ipynb)")
_BADGE = r"(?: \[!\[Open in Colab\]\([^)]*\)\]\([^)]*\))?"
_CELL = """\
# Fetches the course where it is not installed, and lets Colab show its figures. Elsewhere it does nothing.
import importlib.util, subprocess, sys

if importlib.util.find_spec("kdlib") is None:
    wanted = {requirement!r}
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", wanted], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError("the course could not be installed:\\n" + done.stderr[-2000:])
    importlib.invalidate_caches()
if "google.colab" in sys.modules:
    from google.colab import output

    output.enable_custom_widget_manager()
"""


def first_cell(address: str) -> str:
    """The source of the first cell, which installs the course from an address that pip understands.

    Colab has its own Jupyter, and PyTorch: `colab` names what it lacks, and nothing that would replace a part of it.
    """
    return _CELL.format(requirement=f"kdlib[colab,deploy] @ {address}")


def place(repository: str, branch: str) -> str:
    """Where Colab shows the notebooks of a branch."""
    return f"https://colab.research.google.com/github/{repository}/blob/{branch}"


def badge(address: str) -> str:
    """The badge, in Markdown, that opens a notebook."""
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"


def write(lesson: Path, out: Path, *, address: str, there: str) -> Path:
    """Write a lesson for Colab: without outputs, with the first cell, its links to other lessons leading there."""
    notebook = nbformat.read(lesson, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = _LINK.sub(rf"]({there}/\1", cell.source)
    first = nbformat.v4.new_code_cell(first_cell(address).rstrip(), id="colab")
    notebook.cells.insert(0, first)
    return _files.write(out / lesson.name, (nbformat.writes(notebook) + "\n").encode())


def with_badges(text: str, badges: dict[str, str]) -> str:
    """A Markdown text with a badge behind each link to a lesson that begins a row, in the place of an older one.

    Raises:
        ValueError: a lesson has no such row.
    """
    for name, shown in badges.items():
        row = re.compile(rf"^(\| \[[^\]]*\]\(notebooks/{re.escape(name)}\)){_BADGE}", re.MULTILINE)
        text, count = row.subn(lambda found, shown=shown: f"{found[1]} {shown}", text)
        if count != 1:
            raise ValueError(f"{count} rows begin with a link to notebooks/{name}, there must be one")
    return text


def _origin() -> str | None:
    """OWNER/NAME of the remote `origin`, if that is on GitHub."""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    found = _ON_GITHUB.search(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return found[1] if found else None


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the copies are written")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="on GitHub; default: that of `origin`")
    parser.add_argument("--branch", default="colab", help="to which DIR will be pushed; default: colab")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wheel", metavar="URL", help="of a wheel to install")
    source.add_argument("--source", default="main", metavar="BRANCH", help="to install; default: main")
    parser.add_argument("--write", type=Path, metavar="README.md", help="put the badges into its table")
    options = parser.parse_args(arguments)
    options.repository = options.repository or _origin()
    if options.repository is None:
        parser.error("the remote `origin` is not on GitHub: name the repository with --repository OWNER/NAME")
    if not _NAME.fullmatch(options.repository):
        parser.error(f"--repository must be OWNER/NAME, as GitHub spells it, got {options.repository!r}")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Write the notebooks and print the badges."""
    options = _options(arguments)
    address = options.wheel or f"git+https://github.com/{options.repository}@{options.source}"
    there = place(options.repository, options.branch)
    written = [write(path, options.out, address=address, there=there) for path in course.lessons(ROOT)]
    badges = {path.name: badge(f"{there}/{path.name}") for path in written}
    if options.write:
        text = with_badges(options.write.read_text(encoding="utf-8"), badges)
        _files.write(options.write, text.encode())
    for name, shown in badges.items():
        print(f"{name}: {shown}")


if __name__ == "__main__":
    main()
