"""The open experiment of lesson 10: a claim of a tutorial on trial."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval


@open_experiment(
    hints=[
        """A claim says that one way to train is better than another. Write both down as settings of the laboratory:
        what differs between them is what the claim speaks of, and nothing else.""",
        """The claim may be true and the difference small, so the interval counts: five seeds at least, the same in both
        arms, measured on "test". The control of "worth +3.2 points" is method="labels" with as many epochs.""",
        """`taught = {"method": "distillation"}`; for each seed
        `lab.student(seed, temperature=1, **taught).accuracy("test")` and the same with temperature=4; then
        `paired_interval`.""",
    ],
)
def my_audit(lab):
    """An experiment of your own: put one of these claims of the tutorials to the test, or another of your choice.

    - "Avoid temperatures below 2": is a student at temperature=1 worse than one at temperature=4?
    - "alpha belongs between 0.7 and 0.9": is a student with alpha=0.8 better than one with alpha=0.3?
    - "Distillation is worth 3.2 points": how far ahead of method="labels" is method="distillation", in as many epochs?

    lab.student(seed, method="distillation", temperature=4, alpha=0.8) is a student; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    taught = {"method": "distillation"}
    cold, warm = [], []
    for seed in range(5):
        cold.append(lab.student(seed, temperature=1, **taught).accuracy("test"))
        warm.append(lab.student(seed, temperature=4, **taught).accuracy("test"))
    return paired_interval(cold, warm)
    # --- end
