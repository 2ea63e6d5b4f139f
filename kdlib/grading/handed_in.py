"""What a notebook holds, found without running any of it: its lesson, the answers, what was predicted.

This too happens behind the walls: a file may be made so that reading it takes all the memory there is.
"""

import ast
import json
import re
from typing import Any

from kdlib.grading import statements
from kdlib.grading.statements import Statement

_COMPARISON = re.compile(r"You predicted: (.*)\nMeasured: +(.*)\nAnswer: +(.*)(\n(?:Right|Near|Wrong): )?")


class NotALesson(ValueError):
    """What was handed in has no answers that could be judged; the message says why."""


def examine(content: bytes, name: str, lessons: dict[str, list[str]]) -> dict[str, Any]:
    """Everything that has to be known of a notebook.

    Args:
        content: of the file.
        name: of the file.
        lessons: for the number of each lesson its exercises.

    Raises:
        NotALesson: it is not a notebook, not one for Python, or of no lesson.
    """
    notebook = _notebook(content)
    cells = [cell for cell in notebook["cells"] if isinstance(cell, dict)]
    code = [cell for cell in cells if cell.get("cell_type") == "code"]
    found, broken = _statements(code)
    lesson = _lesson(cells, found, broken, name, lessons)
    return {
        "lesson": lesson,
        "answers": {exercise: _answer(exercise, found, broken) for exercise in lessons[lesson]},
        "predictions": _predictions(code, found),
        "remarks": _remarks(found),
    }


def _notebook(content: bytes) -> dict:
    if not content.strip():
        raise NotALesson("the file is empty")
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotALesson("it is not a notebook: the file is not JSON") from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise NotALesson("it is not a notebook, or one of a format before version 4: it has no list of cells")
    language = _language(notebook.get("metadata"))
    if not language.lower().startswith("python"):
        raise NotALesson(f"it is a notebook for {language}, not for Python")
    return notebook


def _language(metadata: Any) -> str:
    """The language of its kernel."""
    for part, key in (("kernelspec", "language"), ("language_info", "name")):
        words = metadata.get(part) if isinstance(metadata, dict) else None
        if isinstance(words, dict) and isinstance(words.get(key), str) and words[key].strip():
            return words[key].strip()[:40]
    return "python"


def _text(value: Any) -> str:
    """What nbformat allows for a text: a string, or a list of its lines."""
    parts = value if isinstance(value, list) else [value]
    return "".join(part for part in parts if isinstance(part, str))


def _statements(code: list[dict]) -> tuple[list[Statement], dict[int, tuple[str, str]]]:
    """All statements; and of the cells that are not Python, by number, the text and what is wrong with it."""
    found, broken = [], {}
    for number, cell in enumerate(code, start=1):
        source = _text(cell.get("source"))
        try:
            found += statements.read(number, source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            broken[number] = source, f"{type(error).__name__}: {getattr(error, 'msg', None) or error}"
    return found, broken


def _lesson(
    cells: list, found: list[Statement], broken: dict, name: str, lessons: dict[str, list[str]]
) -> str:
    """The lesson whose exercises it holds; where it has lost them all, the one that its title or name says."""
    there = {one for statement in found for one in statement.binds}.union(*map(_checked, found))
    words = " ".join(text for text, _ in broken.values())
    counts = {
        lesson: sum(exercise in there or exercise in words for exercise in exercises)
        for lesson, exercises in lessons.items()
    }
    most = max(counts.values())
    likely = [lesson for lesson, count in counts.items() if count == most] if most else list(lessons)
    title = next((_text(cell.get("source")) for cell in cells if cell.get("cell_type") == "markdown"), "")
    for said in (re.match(r"# (\d\d) ·", title.lstrip()), re.search(r"(?<!\d)(\d\d)_[a-z]", name)):
        if said and said.group(1) in likely:
            return said.group(1)
    if not most:
        raise NotALesson("it is of no lesson of this course: it has neither the title nor an exercise of one")
    return likely[0]


# ------------------------------------------------------------------ the answers


def _checked(statement: Statement) -> dict[str, str]:
    """The expression that is handed to `check`, by exercise."""
    found = {}
    for node in _nodes(statement):
        if isinstance(node, ast.Call) and _called(node) == "check":
            given = [*node.args, *(one.value for one in node.keywords)]
            if len(given) == 2 and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str):
                found[given[0].value] = ast.unparse(given[1])
    return found


def _nodes(statement: Statement) -> list[ast.AST]:
    """All of the syntax tree, in the order of the text."""
    found = [node for part in statement.nodes for node in ast.walk(part) if hasattr(node, "lineno")]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _called(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _answer(exercise: str, found: list[Statement], broken: dict[int, tuple[str, str]]) -> dict[str, Any]:
    """The expression that is the answer, and the statements that it needs; or why there is none."""
    expression, stop = exercise, len(found)
    for place, statement in enumerate(found):
        if exercise in statement.binds:
            expression, stop = exercise, place + 1
        elif exercise in (handed := _checked(statement)):
            expression, stop = handed[exercise], place
    bound = {name for statement in found for name in statement.binds}
    if expression.isidentifier() and expression not in bound:
        expression, stop = exercise, len(found)
    if expression == exercise and exercise not in bound:
        for number, (text, problem) in broken.items():
            if re.search(rf"\b(def\s+{exercise}\b|{exercise}\s*=)", text):
                return {"missing": "did not run", "mistake": f"Code cell {number} is not Python: {problem}."}
        return {"missing": "not done yet", "mistake": f"There is no {exercise} in this notebook."}
    before = found[:stop]
    if expression.isidentifier() and not any(expression in statement.binds for statement in before):
        before = found  # it is defined below its check
    chosen = statements.needed(before, statements.names_in(expression))
    return {"expression": expression, "pieces": [[one.cell, one.line, one.code] for one in chosen]}


# ------------------------------------------------------------------ predictions and remarks


def _predictions(code: list[dict], found: list[Statement]) -> list[dict[str, Any]]:
    """For each question, what the saved output of its comparison says: a widget's state is not saved."""
    asked = {}
    for statement in found:
        for node in _nodes(statement):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Call)
                and _called(node.value) == "predict"
            ):
                question = _question(node.value)
                if question and isinstance(node.targets[0], ast.Name):
                    asked[node.targets[0].id] = {**question, "chosen": None, "measured": None, "answer": None}
    for number, cell in enumerate(code, start=1):
        calls = [name for one in found if one.cell == number for name in _compared(one) if name in asked]
        blocks = _COMPARISON.findall(_outputs(cell)) if calls else []
        if len(blocks) == len(calls):
            for name, (chosen, measured, answer, judged) in zip(calls, blocks, strict=True):
                chosen = (
                    chosen if judged and chosen in asked[name]["options"] else None
                )  # "nothing" may be one
                asked[name].update(chosen=chosen, measured=measured[:200], answer=answer[:200])
    return list(asked.values())


def _question(call: ast.Call) -> dict[str, Any] | None:
    try:
        question, options = (ast.literal_eval(argument) for argument in call.args[:2])
    except (ValueError, TypeError, RecursionError):
        return None
    if not isinstance(question, str) or not isinstance(options, dict):
        return None
    return {"question": question[:500], "options": [str(option)[:200] for option in options][:20]}


def _compared(statement: Statement) -> list[str]:
    calls = [one for one in _nodes(statement) if isinstance(one, ast.Call) and _called(one) == "compare"]
    return [one.func.value.id for one in calls if isinstance(getattr(one.func, "value", None), ast.Name)]


def _outputs(cell: dict) -> str:
    texts = []
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        if isinstance(output, dict):
            data = output.get("data")
            texts += [
                _text(output.get("text")),
                _text(data.get("text/plain")) if isinstance(data, dict) else "",
            ]
    return "\n".join(texts)


def _remarks(found: list[Statement]) -> list[str]:
    """What a teacher may want to look at: it changes no verdict."""
    remarks = []
    for statement in found:
        of_course = any(getattr(node, "module", None) == "kdlib.lesson.exercises" for node in statement.nodes)
        if statement.binds & {"check", "Verdict"} and not of_course:
            remarks.append(f"code cell {statement.cell} replaces the course's check")
    return remarks[:5]
