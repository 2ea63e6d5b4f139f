"""The anatomy of a lesson, as rules: each takes a notebook (a dict) and returns what breaks it, in words.

`CLEAN` holds for every notebook that is committed; the build refuses to write one that breaks it.
`LESSON` is the anatomy on top. A number in prose that is a setting, not a result, stands in backticks.
"""

import re
from collections.abc import Callable, Iterator

import notebook_reading as reading

Rule = Callable[[dict], list[str]]

# Places on one machine's disk, and addresses in one process's memory.
_PLACE = r"(?<![\w.])/(?:home|root|tmp|work|usr|opt|var|mnt|Users)/[^\s'\"<>]+|\b[A-Z]:\\\w"
_ADDRESS = r"\b0x[0-9a-f]{8,}"
_MACHINE = re.compile(f"{_PLACE}|{_ADDRESS}")

# "81.6 %", "+3.4 pp", "4x faster": what a run has to compute. 95 % is the confidence of every interval.
_RESULT = re.compile(
    r"(?!(?<![\d.])95\s?%)(?<![\d.])\d+(?:\.\d+)?\s?%"
    r"|[+\-−]?\d*\.?\d+\s?(?:±\s?[\d.]+\s?)?(?:pp\b|percentage points?\b|points? of accuracy)"
    r"|\d+(?:\.\d+)?\s?(?:x|×|times)\s(?:as|faster|slower|smaller|larger|bigger|fewer|more|less|better|worse)\b"
)
_CODE = r"```.*?```|`[^`]*`"
_MATHS = r"\$\$.*?\$\$|\$[^$]*\$"
_LINK = r"\]\([^)]*\)|<[^>]+>|https?://\S+"
_NOT_PROSE = re.compile(f"{_CODE}|{_MATHS}|{_LINK}", re.DOTALL)


# ------------------------------------------------------------------ clean


def no_widget_state(notebook: dict) -> list[str]:
    state = ["metadata.widgets is set"] if "widgets" in notebook["metadata"] else []
    views = [
        place for place, output in reading.outputs(notebook) if reading.WIDGET_VIEW in reading.data(output)
    ]
    return state + [f"{place}: a widget view" for place in views]


def no_errors(notebook: dict) -> list[str]:
    errors = [
        (place, output) for place, output in reading.outputs(notebook) if output["output_type"] == "error"
    ]
    return [f"{place}: {error['ename']}: {error['evalue']}" for place, error in errors]


def no_stderr(notebook: dict) -> list[str]:
    streams = [
        (place, output) for place, output in reading.outputs(notebook) if output.get("name") == "stderr"
    ]
    return [f"{place}: stderr says {reading.joined(stream['text']).strip()!r}" for place, stream in streams]


def no_machine_traces(notebook: dict) -> list[str]:
    texts = [(place, text) for place, output in reading.outputs(notebook) for text in reading.texts(output)]
    traces = [(place, trace.group()) for place, text in texts for trace in _MACHINE.finditer(text)]
    return [f"{place}: {trace!r} in an output" for place, trace in traces]


def executed_in_order(notebook: dict) -> list[str]:
    counts = [cell["execution_count"] for _, cell in reading.code(notebook) if reading.source(cell).strip()]
    if counts != list(range(1, len(counts) + 1)):
        return [f"execution counts are {counts}: run all cells once, from the top"]
    has_output = any(cell["outputs"] for _, cell in reading.code(notebook))
    return [] if has_output else ["no cell has an output: the notebook was not executed"]


# ------------------------------------------------------------------ anatomy


def opens_with_a_question(notebook: dict) -> list[str]:
    first = notebook["cells"][0]
    lines = [line for line in reading.source(first).splitlines() if line.strip()]
    if first["cell_type"] != "markdown" or not lines or not lines[0].startswith("# "):
        return ["cell 0: not a markdown cell that opens with `# Title`"]
    if not any(line.rstrip("*_ ").endswith("?") for line in lines):
        return ["cell 0: no line that ends in a question mark; a lesson asks one question"]
    return []


def says_what_it_is(notebook: dict) -> list[str]:
    opening = " ".join(_prose_before_parameters(notebook)).lower()
    wanted = {"objectives": "objective|able to", "prerequisites": "prerequisite", "time": r"\btime\b"}
    missing = [name for name, pattern in wanted.items() if not re.search(pattern, opening)]
    return [f"before the parameters cell: nothing on {name}" for name in missing]


def has_parameters(notebook: dict) -> list[str]:
    tagged = [cell for _, cell in reading.code(notebook) if "parameters" in reading.tags(cell)]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells tagged `parameters`; there has to be one"]
    code = [line for line in reading.source(tagged[0]).splitlines() if line.split("#")[0].strip()]
    if [line.split("#")[0].strip() for line in code] != ["profile = None"]:
        return [f"the parameters cell holds {code}; only `profile = None` may stand there"]
    return []


def short_cells(notebook: dict) -> list[str]:
    lengths = [
        (place, len(reading.source(cell).strip().splitlines())) for place, cell in reading.code(notebook)
    ]
    return [f"{place}: {n} lines of code; 25 at most" for place, n in lengths if n > 25]


def captioned_figures(notebook: dict) -> list[str]:
    """Each picture is followed, within its cell's outputs, by a line "Figure: what to see"."""
    missing = []
    for place, cell in reading.code(notebook):
        waiting = 0
        for output in cell["outputs"]:
            captions = sum(
                len(re.findall(r"^\W*Figure\b.*:", text, re.MULTILINE)) for text in reading.texts(output)
            )
            waiting += any(kind in reading.data(output) for kind in reading.PICTURES)
            waiting = max(0, waiting - captions)
        if waiting:
            missing.append(f"{place}: {waiting} picture(s) without a line `Figure: ...` after it")
    return missing


def twins_beside_interactive_figures(notebook: dict) -> list[str]:
    """What only a running kernel shows has a picture in its own cell or in a neighbouring code cell."""
    cells = list(reading.code(notebook))
    missing = []
    for i, (place, cell) in enumerate(cells):
        has_twin = any(reading.shows_picture(cell) for _, cell in cells[max(0, i - 1) : i + 2])
        if reading.shows_interactive(cell) and not has_twin:
            missing.append(f"{place}: an interactive figure without a static twin beside it")
    return missing


def interactive_figures_for_the_projector(notebook: dict) -> list[str]:
    """`kdlib lab --demo` shows the interactive figures of the cells with this tag, and of no others."""
    shown = [
        (place, reading.tags(cell))
        for place, cell in reading.code(notebook)
        if reading.shows_interactive(cell)
    ]
    return [f"{place}: not tagged `projector`" for place, tags in shown if "projector" not in tags]


def alternative_texts(notebook: dict) -> list[str]:
    """Images written in Markdown or HTML say what they show."""
    texts = [(place, reading.source(cell)) for place, cell in reading.markdown(notebook)]
    texts += [(place, text) for place, output in reading.outputs(notebook) for text in reading.texts(output)]
    silent = re.compile(r"!\[\s*\]\(|<img\b(?![^>]*\balt=[\"'][^\"'])[^>]*>")
    return [f"{place}: an image without alternative text" for place, text in texts if silent.search(text)]


def closes_with_references(notebook: dict) -> list[str]:
    lines = [line for _, cell in reading.markdown(notebook) for line in reading.source(cell).splitlines()]
    headings = " ".join(line.lower() for line in lines if line.startswith("#"))
    missing = [name for name in ("summary", "glossary", "references") if name not in headings]
    return [f"no heading with {name!r}" for name in missing]


def ends_with_assertions(notebook: dict) -> list[str]:
    cells = [reading.source(cell) for _, cell in reading.code(notebook)]
    ends_well = bool(cells) and re.search(r"^\s*assert\b", cells[-1], re.MULTILINE)
    return [] if ends_well else ["the last code cell asserts nothing"]


def has_exercises(notebook: dict) -> list[str]:
    count = sum(bool({"exercise", "solution"} & reading.tags(cell)) for _, cell in reading.code(notebook))
    return [] if count >= 3 else [f"{count} exercise(s); there have to be three"]


def no_typed_results(notebook: dict) -> list[str]:
    """A result in prose goes stale: it is computed and printed. A setting stands in backticks."""
    prose = [(place, _NOT_PROSE.sub(" ", reading.source(cell))) for place, cell in reading.markdown(notebook)]
    typed = [(place, result.group().strip()) for place, text in prose for result in _RESULT.finditer(text)]
    return [f"{place}: {result!r} typed in prose" for place, result in typed]


def has_checked_output(notebook: dict) -> list[str]:
    marked = any("NBVAL_CHECK_OUTPUT" in reading.source(cell) for _, cell in reading.code(notebook))
    return [] if marked else ["no cell marked `# NBVAL_CHECK_OUTPUT`"]


CLEAN: list[Rule] = [no_widget_state, no_errors, no_stderr, no_machine_traces, executed_in_order]
LESSON: list[Rule] = [
    opens_with_a_question, says_what_it_is, has_parameters, short_cells, captioned_figures,
    twins_beside_interactive_figures, interactive_figures_for_the_projector, alternative_texts,
    closes_with_references, ends_with_assertions, has_exercises, no_typed_results, has_checked_output,
]  # fmt: skip


def _prose_before_parameters(notebook: dict) -> Iterator[str]:
    for cell in notebook["cells"]:
        if "parameters" in reading.tags(cell):
            return
        if cell["cell_type"] == "markdown":
            yield reading.source(cell)
