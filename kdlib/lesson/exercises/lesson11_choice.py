"""Exercise of lesson 11: which of several files is shipped, and what is said of it."""

import pandas as pd

from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._observe import Complaint, is_unfinished

MOST_KB, MOST_MS = 1000, 10

# Nobody has trained these: the numbers are such that each way to choose leads to another row.
_ROWS = [
    ("A", "teacher", 91.2, "7.3 [4.9, 9.7]", 90.3, 8900, 41.0),
    ("B", "large student", 84.6, "0.7 [-0.8, 2.2]", 83.8, 960, 12.5),
    ("C", "distilled", 83.9, "best in the budget", 82.2, 310, 7.1),
    ("D", "distilled, 8 bits", 83.6, "-0.3 [-0.9, 0.3]", 81.9, 95, 4.2),
    ("E", "of labels", 82.8, "-1.1 [-2.6, 0.4]", 82.6, 305, 7.0),
    ("F", "small student, 8 bits", 80.1, "-3.8 [-5.6, -2.0]", 83.1, 60, 2.3),
]
COLUMNS = (
    "file",
    "what it is",
    "validation (%)",
    "against C on validation, paired 95 %",
    "test (%)",
    "kB",
    "ms",
)
RIGHT = ("D", 81.9)

NO_PAIR = 'two things are asked for: the letter of a file and a number, such as ("A", 90.3)'
NO_LETTER = f"the first one is a letter of the table, from A to {_ROWS[-1][0]}"
NO_NUMBER = "the second one is a number, in per cent as in the table"
BUDGET = f"that file does not keep within {MOST_KB:,} kB and {MOST_MS} ms"
BY_TEST = (
    "that file has the best accuracy on test of those within the budget; whoever chooses by test has no images left "
    "that say how good the chosen one is, and on validation this one is told apart from the best"
)
NOT_SMALLEST = "there is a smaller file that validation does not tell apart from the best within the budget"
ON_VALIDATION = (
    "the file is right, but the number is its accuracy on validation, by which it was chosen: likely too high"
)
OF_ANOTHER = "the file is right, but the number is another one's, or none of the table's"


def students_table():
    """The table of the question."""
    return pd.DataFrame(_ROWS, columns=COLUMNS).set_index("file")


def _shipped(function):
    """Probe: 1 where both are right; else it complains."""
    answer = function()
    if is_unfinished(answer):
        return None
    if isinstance(answer, str) or not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Complaint(NO_PAIR)
    letter, number = answer
    row = students_table().index.get_indexer([letter.strip().upper() if isinstance(letter, str) else letter])[
        0
    ]
    if row < 0:
        raise Complaint(NO_LETTER)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise Complaint(NO_NUMBER)
    _look_at_file(_ROWS[row][0], *_ROWS[row][5:])
    validation, test = _ROWS[row][2], _ROWS[row][4]
    accuracy = 100 * number if 0 < number <= 1 else number
    if abs(accuracy - test) > 0.051:
        raise Complaint(ON_VALIDATION if abs(accuracy - validation) <= 0.051 else OF_ANOTHER)
    return 1


def _look_at_file(letter, kilobytes, milliseconds):
    if kilobytes > MOST_KB or milliseconds > MOST_MS:
        raise Complaint(BUDGET)
    if letter == "F":
        raise Complaint(BY_TEST)
    if letter != RIGHT[0]:
        raise Complaint(NOT_SMALLEST)


@exercise(
    cases=lambda: [()],
    probe=_shipped,
    hints=[
        """Three columns choose, one reports, and they are not to be mixed. First strike out what the page cannot
        bear.""",
        """Of what is left, which is best on validation? Which others have an interval against it that holds 0? Of all
        these the smallest is shipped.""",
        """Struck out are A and B. C is the best of the rest; D and E are not told apart from it, F is. What is stated
        of the file comes from the images that had no say.""",
    ],
    mistakes={
        NO_PAIR: lambda: "D",
        NO_LETTER: lambda: ("distilled", 82.2),
        NO_NUMBER: lambda: ("D", "81.9 %"),
        BUDGET: lambda: ("B", 83.8),
        BY_TEST: lambda: ("F", 83.1),
        NOT_SMALLEST: lambda: ("C", 82.2),
        ON_VALIDATION: lambda: ("D", 83.6),
        OF_ANOTHER: lambda: ("D", 90.3),
    },
)
def what_to_ship():
    """Which file goes to the page, and which accuracy do you state for it? The page bears 1,000 kB and 10 ms an image.
    Ship the smallest file that validation does not tell apart from the best within this budget. A letter and a number
    in per cent, such as ("A", 90.3).
    """
    # --- your code
    return ("D", 81.9)
    # --- end
