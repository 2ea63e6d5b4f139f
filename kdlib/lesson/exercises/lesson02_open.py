"""The open experiment of lesson 02: a question about the temperature."""

from kdlib.lesson.exercises._core import open_experiment
from kdlib.metrics import paired_interval


@open_experiment(
    hints=[
        "Name the two arms, and the one thing in which they differ. Everything else has a value too: keep it.",
        """Both arms have the same seeds, at least five. If you want the best of several temperatures, find it by
        .accuracy("validation"), and ask .accuracy("test") of the arms that you report alone.""",
        """`[lab.student(seed, method="distillation", temperature=16, alpha=0.5).accuracy("test") for seed in range(5)]`
        is one arm; the other differs in the temperature; then `paired_interval`.""",
    ],
)
def temperature_on_trial(lab):
    """An experiment of your own. Answer one of these questions, or another of your choice:

    - Is T = 2 better than T = 4 with 4,000 images (images=4000)?
    - Does a teacher at T = 1 teach more than the labels do (method="labels")?
    - Is T = 16 as good as T = 4 when the labels count half (alpha=0.5)?

    lab.student(seed, method="distillation", temperature=4, alpha=0.9) is a student; its .accuracy("validation") and
    .accuracy("test") are fractions; lab.settings lists all that can be set.
    Returns the paired 95 % interval of the difference on test, (mean, low, high).
    """
    # --- your code
    def arm(temperature):
        setting = {"method": "distillation", "temperature": temperature, "alpha": 0.5}
        return [lab.student(seed, **setting).accuracy("test") for seed in range(5)]

    return paired_interval(arm(16), arm(4))
    # --- end
