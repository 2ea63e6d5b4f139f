"""The open experiment of lesson 01: where does the teacher's gain end?"""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval


@open_experiment(
    hints=[
        "The question is about a gain: which two arms make it, and what must be the same in both of them?",
        """The arms are method="labels" and method="distillation". Whatever else you change, change it in both, and
        give them the same seeds, at least five.""",
        """`gain = paired_interval(with_teacher, labels_only)`, each a list over the seeds of
        `lab.student(seed, method=..., learning_rate=0.04).accuracy("test")`.""",
    ],
)
def teacher_or_more(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice:

    - Does the teacher still help when both arms learn at learning_rate=0.04?
    - Does it still help when both arms learn for 60 epochs instead of 20?
    - Does it still help when both arms learn from 4,000 images instead of 1,000?

    lab.student(seed, method="distillation", temperature=4, alpha=0.9) is a student, also with method="labels";
    its .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    arms = {"distillation": [], "labels": []}
    for seed in range(5):
        for method, accuracies in arms.items():
            student = lab.student(seed, method=method, learning_rate=0.04)
            accuracies.append(student.accuracy("test"))
    return paired_interval(arms["distillation"], arms["labels"])
    # --- end
