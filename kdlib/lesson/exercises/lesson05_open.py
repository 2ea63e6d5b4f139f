"""The open experiment of lesson 05: few bits under one network, with its control."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval


@open_experiment(
    quantised=True,
    hints=[
        "Two arms that differ in one setting. Which of them has everything but the thing you ask about?",
        """Students that differ in bits or scales alone are one trained network, rounded in two ways: the pair could not
        be closer. For the third question take the loss of each student, bits=32 minus bits=3, seed by seed; then pair
        the losses of the two kinds of students.""",
        """For each seed `lab.student(seed, bits=4).accuracy("test")` and `lab.student(seed, bits=32).accuracy("test")`,
        with at least five seeds; then `paired_interval`.""",
    ],
)
def my_deployment_experiment(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice:

    - What do 4 bits change? The control is the same student as it was trained (bits=32).
    - With 4 bits, what does a scale for each channel add? The control has one for each layer (scales="a layer").
    - Do students of a teacher lose less by 3 bits than students of labels, which are the control? A difference of two
      losses: four arms.

    lab.student(seed, method="distillation", bits=4, scales="a layer") is a student with rounded weights; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    rounded, trained = [], []
    for seed in range(5):
        rounded.append(lab.student(seed, bits=4).accuracy("test"))
        trained.append(lab.student(seed, bits=32).accuracy("test"))
    return paired_interval(rounded, trained)
    # --- end
