"""Claims on how accurate a student gets: those of data that is not here stay untested, and say what they would take."""

from kdlib.audit._core import (
    ACCURACY,
    FAILS,
    HOLDS,
    UNTESTED,
    Finding,
    claim,
    read,
    recorded,
)
from kdlib.audit._counts import days_a_pass, published, small_work, work
from kdlib.audit._gains import on_the_shelf, paired
from kdlib.lesson import plots

JPEG, ORIGINAL = "CIFAR-10 as JPEG", "CIFAR-10"
# Public ResNet-20 and ResNet-56, on original pixels and on these JPEG files (%): what the files cost a network.
OF_PUBLIC_NETWORKS = {"on original pixels": (91.6, 92.7), "on these files": (81.0, 83.2)}
CLASSIC = recorded("lesson10-classic", "lesson 10, the audit")
IMAGENET = "ImageNet-1K, 150 GB under a licence of its own, and a GPU"


def classic(network: str, arm: str) -> tuple[float, int, str]:
    """Mean accuracy, number of seeds, and on which data: on original pixels where they are recorded.

    Raises:
        ValueError: the table has no such rows.
    """
    table = read("lesson10-classic")
    data = ORIGINAL if (table["data"] == ORIGINAL).any() else JPEG
    rows = table[(table["data"] == data) & (table["network"] == network) & (table["arm"] == arm)]
    if rows.empty:
        raise ValueError(f"lesson10-classic has no rows of {network!r} and {arm!r} on {data}")
    return float(rows["accuracy"].mean()), len(rows), data


def _classic(network: str, arm: str, claimed: float) -> Finding:
    """Whether an accuracy is reached; JPEG images that fall short do not refute a claim on original pixels."""
    accuracy, seeds, data = classic(network, arm)
    if (
        data == JPEG and accuracy < claimed
    ):  # what falls short on these files may be reached on original pixels
        verdict = UNTESTED
    else:
        verdict = HOLDS if accuracy >= claimed - 0.01 else FAILS
    public = "; ".join(
        f"{where} {first} and {second} %" for where, (first, second) in OF_PUBLIC_NETWORKS.items()
    )
    limits = (
        f". Two public networks reach {public}; a network that learns on these files may lose less. The original "
        "pixels were not tried: kdlib record lesson10-classic downloads them"
    )
    words = (
        f"{accuracy:.1%} on {data} ({seeds} seed{'s' * (seeds != 1)}), {100 * (accuracy - claimed):+.1f} "
        "points"
    )
    return Finding(verdict, words + (limits if data == JPEG else "") + ".")


@claim(
    "A4", topic=ACCURACY, says="TeacherNet reaches 92.5 % on CIFAR-10 in 50 epochs.",
    needs=(
        "original pixels; we know no published run of two convolutions without normalisation and "
        "augmentation that does"
    ),
    by=CLASSIC,
)  # fmt: skip
def teacher_of_the_classic() -> Finding:
    return _classic("teacher-net", "labels", 0.925)


@claim(
    "A5", topic=ACCURACY, says="The distilled StudentNet reaches 87.3 % on CIFAR-10.",
    needs="original pixels, and a student of labels alone beside it", by=CLASSIC,
)  # fmt: skip
def student_of_the_classic() -> Finding:
    return _classic("student-net", "distilled", 0.873)


@claim(
    "B5", topic=ACCURACY, says="On ImageNet a ResNet-50 (76.5 %) lifts MobileNetV2 from 72.0 to 74.8 %.",
    needs=f"{IMAGENET}; a control of labels with as many passes and the same augmentation",
    )  # fmt: skip
def on_imagenet() -> Finding:
    base, better = (published(f"MobileNet_V2_Weights.IMAGENET1K_V{version}") for version in (1, 2))
    teacher = published("ResNet50_Weights.IMAGENET1K_V1")
    words = (
        f"Its starting points are those of published weights: MobileNetV2 {base:.1f} and, with a longer "
        "recipe, "
        f"{better:.1f} %; ResNet-50 {teacher:.1f} %. The {74.8 - 72.0:.1f} points are not tested: "
        f"{days_a_pass(work('ResNet50_Weights.IMAGENET1K_V1'), work('MobileNet_V2_Weights.IMAGENET1K_V1'))}."
    )
    return Finding(UNTESTED, words)


@claim(
    "B9", topic=ACCURACY, says="alpha = 0.8 gives 3.2 points on Tiny-ImageNet.",
    needs="Tiny-ImageNet (100,000 images, 240 MB), the pair, T, how many seeds, and a GPU",
    by=recorded("lesson03-surface", "lesson 03, section 4"),
)  # fmt: skip
def tiny_imagenet() -> Finding:
    table = read("lesson03-surface")
    labels = {"temperature": 1.0, "alpha": 0.0}
    said = [
        f"{plots.points(paired(table, {'temperature': 4.0, 'alpha': alpha}, labels, 'test'))} at alpha = "
        f"{alpha}"
        for alpha in (0.75, 0.9)
    ]
    words = (
        "Not that data set. The same comparison here, over labels alone, 1,000 images of Fashion-MNIST and T "
        "= 4: "
    )
    return Finding(
        UNTESTED, words + " and ".join(said) + ". A gain is one of its data set and number of images."
    )


@claim(
    "B12", topic=ACCURACY, says="Feature distillation lifts ShuffleNetV2 from 69.1 to 71.5 % under a ResNet-18.",
    needs=f"{IMAGENET}; the layers, the weight, and a student of soft targets alone beside it",
)  # fmt: skip
def shufflenet() -> Finding:
    teacher = published("ResNet18_Weights.IMAGENET1K_V1")
    student = published("ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1")
    words = (
        f"Published weights: ResNet-18 {teacher:.1f} %, ShuffleNetV2 {student:.1f} %. So the teacher is "
        f"{teacher - student:.1f} points ahead of its student, which would pass it by {71.5 - teacher:.1f}. "
        "To test it, "
        f"{days_a_pass(work('ResNet18_Weights.IMAGENET1K_V1'), work('ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1'))}."
    )
    return Finding(UNTESTED, words)


@claim(
    "D6", topic=ACCURACY, says="The teacher, ResNet-18, has 69.76 % on ImageNet.", needs="published weights"
)
def resnet18() -> Finding:
    accuracy = published("ResNet18_Weights.IMAGENET1K_V1")
    verdict = HOLDS if abs(accuracy - 69.76) < 0.05 else FAILS
    words = f"torchvision publishes {accuracy:.2f} % with these weights, on the validation split."
    return Finding(verdict, words)


@claim(
    "D7", topic=ACCURACY, says="Ten epochs make a MobileNetV2 x0.35 of 66.8 %.",
    needs=f"{IMAGENET}; training images that are not those of the report",
    by=recorded("lesson05-mobilenet", "lesson 05, Further")
    + "; python examples/distill_imagenet.py --data IMAGENET --out RUN",
)  # fmt: skip
def small_mobilenet() -> Finding:
    reported, unseen = on_its_own_images()
    words = (
        f"Not on ImageNet, where the published x0.35, trained on all of it, has 60.3 %: {66.8 - 60.3:.1f} "
        "points less. The "
        "claim was measured on the images that it trained on. The same pair on Fashion-MNIST, done so: "
        f"{reported:.1%} "
        f"reported, {unseen:.1%} on unseen images. On ImageNet "
        f"{days_a_pass(work('ResNet18_Weights.IMAGENET1K_V1'), small_work())}."
    )
    return Finding(UNTESTED, words)


def on_its_own_images() -> tuple[float, float]:
    """Accuracy of the small MobileNet on the images it was trained on, and on others."""
    table = read("lesson05-mobilenet")
    rows = table[table["method"] == "trained on what it is judged by"]
    return float(rows["accuracy"].mean()), float(rows["unseen"].mean())


@claim(
    "D13", topic=ACCURACY, says="In 8 bits the network keeps 68.5 %.",
    needs=(
        "to say of which network: that is more than its student's 66.8 % in float32; ImageNet to measure it"
    ),
    by="kdlib build-model teacher-int8 distilled-int8 labels-only-int8 (lesson 05, section 3)",
)  # fmt: skip
def eight_bits() -> Finding:
    eight, full = (published(f"ResNet18_{kind}.{name}") for kind, name in RESNET18)
    words = []
    for name in ("teacher", "distilled", "labels-only"):
        words.append(f"{name} {plots.points(on_the_shelf(f'{name}-int8', name))}")
    said = f"The published ResNet-18 has {eight:.1f} % in 8 bits and {full:.1f} % in float32"
    return Finding(UNTESTED, f"{said}. What 8 bits change in our files: {', '.join(words)}.")


RESNET18 = (("QuantizedWeights", "IMAGENET1K_FBGEMM_V1"), ("Weights", "IMAGENET1K_V1"))
