"""The open experiment of lesson 06: what a cut network inherits, who mends it, and for how long that matters."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.lesson.laboratory_settings import RANDOM_START
from kdlib.metrics import paired_interval

# The laboratory of the lesson has these networks, and as many epochs where nothing is said.
NETWORKS = ("pruned", "carved", RANDOM_START)
EPOCHS = 5


@open_experiment(
    networks=NETWORKS,
    epochs=EPOCHS,
    hints=[
        "Two arms that differ in one setting: in where the weights come from, or in who teaches. What stays the same?",
        """The control of weights that were inherited is the same form without them, trained for as long, by the same
        teacher, on the same images. The control of a teacher is the labels, for the same network.""",
        """`setting = {"method": "distillation", "epochs": 5}`; for each seed
        `lab.student(seed, network="pruned", **setting).accuracy("test")` and the same with network="random start";
        `paired_interval`.""",
    ],
)
def my_compression_experiment(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice:

    - After 5 epochs, what are the pruned network's inherited weights worth? The control is a random start in its form.
    - Does a teacher mend the pruned network better than labels do, which are the control?
    - Does it still matter after 15 epochs where the weights came from? The control is as old.

    lab.student(seed, network="pruned", method="distillation", epochs=5) is a student; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    shared = {"method": "distillation", "epochs": 5}
    inherited, fresh = [], []
    for seed in range(5):
        inherited.append(lab.student(seed, network="pruned", **shared).accuracy("test"))
        fresh.append(lab.student(seed, network="random start", **shared).accuracy("test"))
    return paired_interval(inherited, fresh)
    # --- end
