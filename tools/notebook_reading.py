"""Reading a notebook as a dict: its cells by kind, their tags, what their outputs show and say."""

from collections.abc import Iterator

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
_LIVE = "LiveSurface("  # leaves its last picture in a committed notebook, and no trace of its buttons


def joined(text: str | list[str]) -> str:
    """A source or a text as one string; a file may hold it as a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def source(cell: dict) -> str:
    """What is written in a cell."""
    return joined(cell["source"])


def tags(cell: dict) -> set[str]:
    """The tags of a cell."""
    return set(cell["metadata"].get("tags", []))


def code(notebook: dict) -> Iterator[tuple[str, dict]]:
    """The code cells, each with the words for where it stands: "cell 3"."""
    return _cells(notebook, "code")


def markdown(notebook: dict) -> Iterator[tuple[str, dict]]:
    """The cells of prose, each with the words for where it stands."""
    return _cells(notebook, "markdown")


def outputs(notebook: dict) -> Iterator[tuple[str, dict]]:
    """Each output of each code cell, with the words for where it stands."""
    for place, cell in code(notebook):
        for output in cell["outputs"]:
            yield place, output


def data(output: dict) -> dict:
    """What an output shows, by its MIME type; nothing for a stream."""
    return output.get("data", {})


def texts(output: dict) -> list[str]:
    """All that is text in an output: streams, and what is shown, but for encoded pictures."""
    if "text" in output:
        return [joined(output["text"])]
    readable = [kind for kind in data(output) if kind.startswith("text/") or kind == "image/svg+xml"]
    return [joined(data(output)[kind]) for kind in readable]


def shows_picture(cell: dict) -> bool:
    """Whether a picture is among a code cell's outputs."""
    return any(kind in data(output) for output in cell["outputs"] for kind in PICTURES)


def shows_interactive(cell: dict) -> bool:
    """Whether a code cell shows an interactive figure where a kernel runs."""
    said = [text for output in cell["outputs"] for text in texts(output)]
    return _LIVE in source(cell) or any(text.startswith("Interactive figure") for text in said)


def _cells(notebook: dict, kind: str) -> Iterator[tuple[str, dict]]:
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == kind:
            yield f"cell {number}", cell
