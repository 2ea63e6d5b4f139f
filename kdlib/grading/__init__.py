"""Grading what learners hand in: `kdlib grade`.

In the order in which things happen: `grader` sends each notebook, and each of its answers, to the `nursery`, a process
that forks a child for it; the child goes behind the walls of `protection`; there `learner` finds out what is in the
notebook (`handed_in`, `statements`) and runs the answer; what was observed comes back over `wire`; `judging` compares
it with the solution, in a process that runs nothing of the learner's; `report` writes it all down.
"""

SECONDS = 60  # of computing, for the answers of a notebook
MEMORY = 2000  # MB, for an answer
