"""The open experiment of lesson 08: a student that sees something else than its teacher."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval

# The laboratory of the lesson has these sensors.
NAMES = ("edges", "thumbnails", "silhouettes")


@open_experiment(
    sensors=NAMES,
    hints=[
        """Two arms that differ in one setting. Which one does your question name? Everything else, the sensor and the
        number of images too, is the same in both.""",
        """The control of pairs without labels is method="labels" with the same sensor. That of a temperature is another
        temperature. Whether a gain is larger asks for four arms: two sensors, each with the teacher and without.""",
        """`pairs = {"sensor": "edges", "method": "distillation", "alpha": 1}`; for each seed
        `lab.student(seed, **pairs).accuracy("test")` and `lab.student(seed, sensor="edges").accuracy("test")`;
        `paired_interval`.""",
    ],
)
def my_task_experiment(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice. The student sees what
    sensor="edges", "thumbnails" or "silhouettes" leaves of an image; its teacher sees the pixels of the same image.

    - Do pairs without any label, alpha=1, do as well as labels of the same images? The control is method="labels".
    - Does the temperature matter for silhouettes, temperature=4? The control is temperature=1.
    - Does a sensor that sees less gain more from the teacher? That is the gain of silhouettes minus that of edges.

    lab.student(seed, sensor="silhouettes", method="distillation") is a student; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    pairs = {"method": "distillation", "alpha": 1}
    with_teacher, with_labels = [], []
    for seed in range(5):
        with_teacher.append(lab.student(seed, sensor="edges", **pairs).accuracy("test"))
        with_labels.append(lab.student(seed, sensor="edges", method="labels").accuracy("test"))
    return paired_interval(with_teacher, with_labels)
    # --- end
