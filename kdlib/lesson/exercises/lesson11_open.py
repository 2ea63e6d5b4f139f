"""The open experiment of lesson 11: what is worth most where a folder is small, and some of its labels are wrong."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval

# The laboratory of the lesson has this augmentation, kdlib.data.augment.random_crop_flip.
NAMES = ("crop and flip",)


@open_experiment(
    augmentations=NAMES,
    wrong_labels=True,
    hints=[
        """Write down both ways to train as settings of the laboratory. What differs is what your question names; the
        share of wrong labels, the number of images and the epochs are the same in both, unless you ask about them.""",
        """The control of a teacher is method="labels" with the same settings; the control of an augmentation is the
        same student without it. Five seeds at least, the same in both arms, measured on "test".""",
        """For each seed `lab.student(seed, method="distillation", images=300, wrong_labels=0.1).accuracy("test")` and
        `lab.student(seed, method="labels", images=300, wrong_labels=0.1).accuracy("test")`; then `paired_interval`.""",
    ],
)
def my_folder_experiment(lab):
    """An experiment of your own, with garments as they are embedded. Answer one of these questions, or another one.

    - Of a folder with images=300 and a tenth of the labels wrong (wrong_labels=0.1), does a teacher still help? The
      control is method="labels".
    - Is it worth while to correct these labels? The control of wrong_labels=0 is wrong_labels=0.1.
    - Does augment="crop and flip" help a student of labels? The control is the same student without it.

    lab.student(seed, method="distillation", images=300, wrong_labels=0.1) is a student; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    folder = {"images": 300, "wrong_labels": 0.1}
    with_teacher, with_labels = [], []
    for seed in range(5):
        with_teacher.append(lab.student(seed, method="distillation", **folder).accuracy("test"))
        with_labels.append(lab.student(seed, method="labels", **folder).accuracy("test"))
    return paired_interval(with_teacher, with_labels)
    # --- end
