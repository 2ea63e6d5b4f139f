"""The open experiment of lesson 07: an augmentation of one's own, an annealed temperature, a stage of labels alone."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval

# The laboratory of the lesson has these augmentations, and as many epochs where nothing is said.
NAMES = ("my own", "crop and flip")
EPOCHS = 24


@open_experiment(
    augmentations=NAMES,
    schedules=True,
    epochs=EPOCHS,
    hints=[
        """Two arms that differ in the advice alone: students of the same teacher that follow it, and students of the
        same seeds that do not. What does the control look like?""",
        """The control of an augmentation is "none". That of an annealed temperature is the constant with the same mean,
        or the mean alone may make the difference. That of a second stage is one stage of as many epochs.""",
        """`teacher = {"method": "distillation"}`; for each seed
        `lab.student(seed, temperature=10, temperature_end=1, **teacher).accuracy("test")` and the same with
        temperature=5.5 alone; `paired_interval`.""",
    ],
)
def my_strategy_experiment(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice:

    - Does your augmentation, augment="my own", help a student that has the teacher? The control is augment="none".
    - Does a temperature that falls from 10 (temperature) to 1 (temperature_end) beat the constant 5.5, its mean?
    - Do labels alone in the last quarter help, second_stage=0.25? The control is one stage.

    lab.student(seed, method="distillation", augment="my own") is a student; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    taught = {"method": "distillation"}
    annealed, constant = [], []
    for seed in range(5):
        annealed.append(lab.student(seed, temperature=10, temperature_end=1, **taught).accuracy("test"))
        constant.append(lab.student(seed, temperature=5.5, **taught).accuracy("test"))
    return paired_interval(annealed, constant)
    # --- end
