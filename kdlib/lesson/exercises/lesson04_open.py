"""The open experiment of lesson 04: losses between the layers, each beside a control, with labels or with logits."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval

# The laboratory of the lesson has them under the same names.
FEATURES = ("hint", "hint of an untrained teacher", "attention", "relational")


@open_experiment(
    features=FEATURES,
    hints=[
        """Two arms that differ in one setting. What is the dull explanation of a gain, and which arm has it without the
        teacher's knowledge?""",
        """To choose a weight, compare means on "validation" over a few seeds, among the same values for every arm that
        has one; then train the two arms with fresh seeds, at least five, and ask "test" of these two alone.""",
        """`setting = {"method": "labels", "images": 200, "weight": 1}`; for each seed
        `lab.student(seed, features="hint", **setting).accuracy("test")` and the same with
        features="hint of an untrained teacher"; `paired_interval`.""",
    ],
)
def feature_on_trial(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice:

    - With 200 images, does features="hint" at weight=1 add something to labels alone (features="none")?
    - Does it add more than features="hint of an untrained teacher", which has learned nothing?
    - Does features="relational" help method="distillation" with 100 images?

    lab.student(seed, method="labels", features="hint", weight=1, images=200) is a student; its
    .accuracy("validation") and .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    shared = {"method": "labels", "images": 200, "weight": 1}
    trained, untrained = [], []
    for seed in range(5):
        trained.append(lab.student(seed, features="hint", **shared).accuracy("test"))
        control = lab.student(seed, features="hint of an untrained teacher", **shared)
        untrained.append(control.accuracy("test"))
    return paired_interval(trained, untrained)
    # --- end
