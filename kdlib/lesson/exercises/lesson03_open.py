"""The open experiment of lesson 03: alpha under another teacher, with other data, beside the temperature."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval

TEACHERS = ("the course's", "weaker")  # the laboratory of the lesson has them under the same names


@open_experiment(
    teachers=TEACHERS,
    hints=[
        "Two arms that differ in alpha alone. Teacher, number of images and temperature are the same in both.",
        """To find the best alpha, compare means on "validation" over a few seeds; then train the winner and its rival
        with fresh seeds, at least five, and ask "test" of these two alone.""",
        """`setting = {"method": "distillation", "teacher": "weaker"}`; for each seed
        `lab.student(seed, alpha=0.25, **setting).accuracy("test")` and the same with alpha=0.9; `paired_interval`.""",
    ],
)
def alpha_on_trial(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice:

    - Under the teacher called "weaker", is alpha = 0.25 better than alpha = 0.9?
    - With 100 images, is the teacher alone (alpha = 1) better than alpha = 0.5?
    - At alpha = 0.25, what does T = 8 gain over T = 2?

    lab.student(seed, method="distillation", teacher="weaker", alpha=0.9, temperature=4) is a student; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    shared = {"method": "distillation", "teacher": "weaker"}
    little, much = [], []
    for seed in range(5):
        little.append(lab.student(seed, alpha=0.25, **shared).accuracy("test"))
        much.append(lab.student(seed, alpha=0.9, **shared).accuracy("test"))
    return paired_interval(little, much)
    # --- end
