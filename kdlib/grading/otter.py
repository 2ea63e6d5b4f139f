"""A lesson as an assignment for otter-grader, whose tests call the workbook's own checks."""

from pathlib import Path

import nbformat

import kdlib
from kdlib import _files
from kdlib.lesson import course, exercises

_TEST = """OK_FORMAT = True

test = {{
    "name": {name!r},
    "points": 1,
    "suites": [
        {{
            "cases": [
                {{
                    "code": r'''
{code}
''',
                    "hidden": False,
                    "locked": False,
                }}
            ],
            "scored": True,
            "setup": "",
            "teardown": "",
            "type": "doctest",
        }}
    ],
}}
"""
# What it prints where an answer is not correct becomes the message that otter shows.
_CODE = """>>> from kdlib.lesson import exercises
>>> verdict = exercises.check({name!r}, {name})
>>> print("correct" if verdict.passed else verdict)
correct"""


def write(folder: Path, lesson: str) -> list[Path]:
    """Write the assignment: the learner's notebook, tests/ in otter's OK format, and what has to be installed.

    Args:
        folder: is made where it is missing.
        lesson: its number or name, as `kdlib lab` takes it.

    Returns:
        The files.

    Raises:
        ValueError: there is no such lesson, or the folder holds somebody's own notebook of it.
        FileNotFoundError: the course's notebooks are not here.
        OSError: the folder cannot be written.
    """
    source = course.find(lesson, course.lessons(course.checkout() or course.require_repository()))
    if (folder / source.name).exists() and not (folder / "tests").is_dir():
        raise ValueError(f"{folder / source.name} is there, and not from an assignment: name an empty folder")
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    names = [name for name in exercises.names() if exercises.get(name).lesson == source.name[:2]]
    contents = {
        source.name: nbformat.writes(notebook) + "\n",
        "requirements.txt": f"kdlib[lab,deploy]=={kdlib.__version__}\n",
        **{f"tests/{name}.py": _TEST.format(name=name, code=_CODE.format(name=name)) for name in names},
    }
    return [_files.write(folder / name, text.encode()) for name, text in contents.items()]
