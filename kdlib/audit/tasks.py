"""Claims on other tasks than one label an image: video, several labels, other sensors, no data."""

from torchvision import models as zoo

from kdlib.audit._core import (
    FAILS,
    HOLDS,
    TASKS,
    UNTESTED,
    Finding,
    both,
    claim,
    of_gains,
    read,
    recorded,
)
from kdlib.audit._gains import compared
from kdlib.experiments import lesson08_modalities as modalities
from kdlib.experiments import lesson08_video as video
from kdlib.experiments import lesson09_ladder as ladder


def _twice(name: str, lesson: str) -> str:
    return recorded(f"{name} {name}-again", lesson)


@claim(
    "B16", topic=TASKS, says='A video student has an "mAP" of 47.8 on Kinetics-400.',
    needs="a data set that is scored by mAP",
)  # fmt: skip
def metric_of_kinetics() -> Finding:
    """By what torchvision reports its own networks on the same data."""
    scores = set()
    for name in zoo.list_models(module=zoo.video):
        for weights in zoo.get_model_weights(name):
            scores |= set(weights.meta["_metrics"].get("Kinetics-400", ()))
    verdict = HOLDS if any("map" in score.lower() for score in scores) else FAILS
    words = (
        f"torchvision scores its networks on Kinetics-400 by {' and '.join(sorted(scores))}: one label a "
        "clip, no mAP."
    )
    return Finding(verdict, words)


@claim(
    "B17", topic=TASKS, says="A large video network teaches a light one, I3D a SlowFast.",
    needs="labels alone beside it, and frames that show what is asked",
    by=_twice("lesson08-video", "lesson 08, section 3"),
)  # fmt: skip
def video_student() -> Finding:
    found = {
        frames: compared("lesson08", "video", video.TEACHER, video.LABELS, "both", {"frames": frames})
        for frames in video.FRAMES
    }
    words = "; ".join(f"{frames} frame{'s' * (frames > 1)} {both(*each)}" for frames, each in found.items())
    return Finding(of_gains(*found.values()), f"Over labels alone, short clips of moving items: {words}.")


@claim(
    "B19", topic=TASKS, says="Chest X-rays: from DenseNet-121 to EfficientNet-B0 the AUC rises from .921 to .934.",
    needs=(
        "the X-rays (112,120 images, 42 GB) and to say which labels, and which of the two figures is a "
        "control"
    ),
    by=_twice("lesson08-collages", "lesson 08, section 1"),
)  # fmt: skip
def x_rays() -> Finding:
    over = {
        words: compared("lesson08", "collages", "two sides, T = 4", control, "auc")
        for words, control in (("labels alone", "labels"), ("labels for three times as long", LONGER))
    }
    said = "; ".join(f"over {words} {both(*each)}" for words, each in over.items())
    words = (
        f"No X-rays here. What several labels an image gain in AUC from a teacher, in our collages: {said}."
    )
    return Finding(UNTESTED, words)


LONGER = "labels, three times as long"


@claim(
    "B20", topic=TASKS, says="Thermal images: distillation adds 2.9 mAP.",
    needs="pairs of thermal and colour images with boxes, under a licence of their own, and a GPU",
    by=f"{_twice('lesson08-detection', 'lesson 08, section 2')}",
)  # fmt: skip
def thermal() -> Finding:
    found = compared("lesson08", "detection", "features, weighted by score", "labels", "ap")
    words = (
        f"No thermal images here. A detector of our collages gains {both(*found)} of AP from a teacher of "
        "the same sensor."
    )
    return Finding(UNTESTED, words)


@claim(
    "B21", topic=TASKS, says="Cross-modal: a teacher of one sensor teaches a student of another.",
    needs="pairs of what both sensors see, and labels alone beside it",
    by=_twice("lesson08-modalities", "lesson 08, section 4"),
)  # fmt: skip
def another_sensor() -> Finding:
    arms, found = (modalities.PAIRS, modalities.LABELS), {}
    for sensor in (name for name in modalities.SENSORS if name != "pixels"):
        where = {"sensor": sensor, "images": 1000}
        found[sensor] = compared("lesson08", "modalities", *arms, "accuracy", where)
    words = "; ".join(f"{sensor} {both(*each)}" for sensor, each in found.items())
    return Finding(of_gains(*found.values()), f"Over labels alone, 1,000 pairs: {words}.")


@claim(
    "B22", topic=TASKS, says="Without data a student reaches 89.7 % on CIFAR-10.",
    needs=(
        "images made from the teacher that are nearly as good as real ones; for that figure, original "
        "CIFAR-10, a generator and a GPU"
    ),
    by=recorded("lesson09-ladder", "lesson 09, section 4"),
)  # fmt: skip
def without_data() -> Finding:
    mean = read("lesson09-ladder").groupby(["images", "arm"])["accuracy"].mean()
    made = {key: value for key, value in mean.items() if key[1] in (ladder.INVERTED, ladder.GENERATED)}
    (images, arm), best = max(made.items(), key=lambda pair: pair[1])
    real = mean[images, ladder.REAL]
    words = (
        f"On Fashion-MNIST, not CIFAR-10, and with a small generator: the best of {len(made)} ways, "
        f"{images:,} images {arm}, gives "
        f"{best:.1%}; as many real images without labels give {real:.1%}, and chance 10 %."
    )
    return Finding(UNTESTED, words)
