"""The slice of a notebook for one figure: as small as expected, and the figure is the one of the whole notebook."""

import pytest

from kdlib.lesson import slicing

# Name: the cells, of which the last one is the figure's, and the positions that are needed.
NOTEBOOKS = {
    "only what the figure reads": (["a = 1", "b = 2", "print(a)", "shown = b + 1"], [1, 3]),
    "what is needed in turn": (["a = 1", "b = a + 1", "c = 5", "shown = b"], [0, 1, 3]),
    "imports": (["import math\nimport os.path as place", "import json", "shown = math.pi, place.sep"], [0, 2]),
    "the last of two assignments": (["a = 1", "a = 2", "shown = a"], [1, 2]),
    "an assignment that reads itself": (["a = 1", "a = a + 1", "shown = a"], [0, 1, 2]),
    "an augmented assignment": (["a = 1", "a += 1", "shown = a"], [0, 1, 2]),
    "an assignment under a condition": (["a = 1", "if a > 5:\n    a = 2", "shown = a"], [0, 1, 2]),
    "a part that is assigned": (["a = {}", "b = {}", "a['x'] = 1", "b['x'] = 2", "shown = a"], [0, 2, 4]),
    "a method that changes": (["a = []", "b = []", "a.append(1)", "b.append(a)", "shown = list(a)"], [0, 2, 4]),
    "a method in a loop": (["a = []", "for i in range(3):\n    a.append(i)", "shown = list(a)"], [0, 1, 2]),
    "a function of the notebook": (
        ["def fill(x):\n    x.append(1)\n    return 5", "a, b = [], []", "c = fill(a)", "d = len(b)", "shown = a"],
        [0, 1, 2, 4],
    ),
    "a global of a function": (["k = 2", "j = 3", "def f(x):\n    return k * x", "shown = f(5)"], [0, 2, 3]),
    "a global bound after its function": (
        ["def f():\n    return g()", "def g():\n    return k", "k = 1", "k = 2", "shown = f()"],
        [0, 1, 2, 3, 4],
    ),
    "names local to a function": (
        ["x, y, i = 1, 2, 3", "def f(x, *rest):\n    y = x\n    return [i for i in (y, *rest)]", "shown = f(4, 5)"],
        [1, 2],
    ),
    "names local to a comprehension": (["n = 1", "m = [1, 2]", "shown = {n: n for n in m}"], [1, 2]),
    "a comprehension's own global": (["k = 1", "m = [1, 2]", "shown = [n + k for n in m]"], [0, 1, 2]),
    "a default and a decorator": (
        ["import functools", "size = 3", "@functools.cache\ndef f(n=size):\n    return n", "shown = f()"],
        [0, 1, 2, 3],
    ),
    "a class": (
        ["base = 2", "class C:\n    a = base\n    def m(self):\n        return self.a", "shown = C().m()"],
        [0, 1, 2],
    ),
    "a lambda": (["k = 2", "f = lambda x: k * x", "shown = f(1)"], [0, 1, 2]),
    "a name declared global": (
        ["a = 1", "b = 2", "def f():\n    global a\n    a += 1\n    return a", "shown = f()"],
        [0, 2, 3],
    ),
    "names unpacked": (["(a, *b), c = (1, 2), 3", "d = 4", "shown = b"], [0, 2]),
    "a method of a module changes nothing": (["import math", "math.sqrt(4)", "shown = math.pi"], [0, 2]),
}  # fmt: skip


def run(cells: list[str]) -> object:
    names: dict = {}
    for cell in cells:
        exec(cell, names)
    return names["shown"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_figure_needs_these_cells_and_is_the_same_with_them(name):
    cells, expected = NOTEBOOKS[name]
    kept = slicing.needed(cells, len(cells) - 1)
    assert kept == expected
    assert run([cells[position] for position in kept]) == run(cells)


def test_a_training_changes_the_student_that_it_is_given():
    cells = [
        "from kdlib import training",
        "student, other, logits = build(), build(), [1]",
        "history = training.distill(student, logits)",
        "training.distill(model=other, teacher=student)",
        "shown = student",
    ]
    assert slicing.needed(cells, 4) == [0, 1, 2, 3, 4]
    assert slicing.needed([*cells[:4], "shown = history"], 4) == [0, 1, 2, 4]
    assert slicing.needed([*cells[:4], "shown = 1"], 4) == [4]


def test_cells_after_the_figure_do_not_matter():
    assert slicing.needed(["a = 1", "shown = a", "a.x = 2", "this is no Python"], 1) == [0, 1]


def test_a_cell_that_is_not_python_is_named():
    with pytest.raises(ValueError, match="code cell 1 is not plain Python"):
        slicing.needed(["a = 1", "%timeit a", "shown = a"], 2)
