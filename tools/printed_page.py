"""Write the page that a practitioner prints, docs/what_to_try_first.md, from the recorded results.

    python tools/printed_page.py [--check]

With --check nothing is written; the exit status is 1 where the file is not what the results give.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kdlib import _files  # noqa: E402
from kdlib.experiments import lesson07_page  # noqa: E402

PAGE = ROOT / "docs" / "what_to_try_first.md"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where the page is not up to date"
    )
    check = parser.parse_args(arguments).check
    try:
        content = lesson07_page.markdown()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if not check:
        _files.write(PAGE, content.encode())
        print(f"written: {PAGE.name}, {len(content.split())} words")
        return 0
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != content:
        print(
            f"{PAGE.name} is not what the results give; write it anew: {lesson07_page.COMMAND}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
