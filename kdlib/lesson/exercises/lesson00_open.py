"""The open experiment of lesson 00: a first one, on students that learn from labels alone."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval


@open_experiment(
    settings=("images", "epochs", "label_smoothing"),
    hints=[
        "Write down the two arms before you code. What differs between them, and what do the students of a pair share?",
        """For each of at least five seeds, train a student of either arm and keep its accuracy on test: two lists, in
        the order of the seeds.""",
        """`a = [lab.student(seed, images=500).accuracy("test") for seed in range(5)]`, `b` likewise with images=1000,
        and `paired_interval(a, b)`.""",
    ],
)
def half_the_images(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice:

    - What does it cost to learn from 500 images instead of 1,000?
    - What is gained by learning for 40 epochs instead of 20?
    - What is gained by label_smoothing=0.1 instead of 0.0?

    lab.student(seed, images=500) is a student; its .accuracy("validation") and .accuracy("test") are fractions.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    half, whole = ([lab.student(seed, images=n).accuracy("test") for seed in range(5)] for n in (500, 1000))
    return paired_interval(half, whole)
    # --- end
