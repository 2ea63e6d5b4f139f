"""The open experiment of lesson 09: a teacher that is no larger than its student, and labels that may be wrong."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval

# The laboratory of the lesson has these teachers, the second one being kdlib.lesson.laboratory.own_generation.
NAMES = ("the course's", "a network like the student")


@open_experiment(
    teachers=NAMES,
    wrong_labels=True,
    hints=[
        """Two arms that differ in one setting. Which one does your question name? The share of wrong labels is the same
        in both, unless it is what you ask about.""",
        """The control of a teacher is method="labels", with the same wrong_labels. That of the course's teacher, in the
        third question, is method="distillation" with the other teacher. Five seeds at least, measured on "test".""",
        """`taught = {"method": "distillation", "teacher": "a network like the student"}`; for each seed
        `lab.student(seed, wrong_labels=0.4, **taught).accuracy("test")` and `lab.student(seed, wrong_labels=0.4,
        method="labels").accuracy("test")`; then `paired_interval`.""",
    ],
)
def my_teacherless_experiment(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice. The laboratory has two
    teachers, "the course's" and "a network like the student", which learned from the student's own images and labels.
    wrong_labels is the share of these labels that are wrong, from 0 to 0.8.

    - Does a teacher that is no larger than its student help where wrong_labels=0.4? The control is method="labels".
    - Does it help where all labels are right, wrong_labels=0? The control is method="labels" again.
    - Is the course's teacher worth more? The control is the same student with teacher="a network like the student".

    lab.student(seed, method="distillation", teacher="a network like the student") is a student; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    taught = {"method": "distillation", "teacher": "a network like the student"}
    with_teacher, with_labels = [], []
    for seed in range(5):
        with_teacher.append(lab.student(seed, wrong_labels=0.4, **taught).accuracy("test"))
        with_labels.append(lab.student(seed, wrong_labels=0.4, method="labels").accuracy("test"))
    return paired_interval(with_teacher, with_labels)
    # --- end
