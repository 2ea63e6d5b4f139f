"""Claims on how large networks are. Nothing here needs a training: one counts."""

from kdlib.audit._core import FAILS, HOLDS, IN_PART, SIZE, Finding, claim, near, of_count, recorded
from kdlib.audit._counts import BYTES, efficientnet_l2, millions, parameters, small
from kdlib.audit._gains import advice, gains, on_the_shelf
from kdlib.deploy import shelf
from kdlib.lesson import plots

COUNT = "a count of the network that the text describes"


@claim("A1", topic=SIZE, says="TeacherNet has 1.2 M parameters.", needs=COUNT)
def teacher_net() -> Finding:
    count = parameters("teacher-net")
    return Finding(of_count(count, 1.2e6), f"{count:,} parameters, {count / 1.2e6:.1f} times the claim.")


@claim("A2", topic=SIZE, says="StudentNet has 0.4 M parameters.", needs=COUNT)
def student_net() -> Finding:
    count = parameters("student-net")
    return Finding(of_count(count, 0.4e6), f"{count:,} parameters, {count / 0.4e6:.2f} times the claim.")


@claim(
    "A3", topic=SIZE, says="The student has 67 % fewer parameters than its teacher.",
    needs="both counts to be right",
)  # fmt: skip
def fewer() -> Finding:
    fewer, own = 1 - parameters("student-net") / parameters("teacher-net"), 1 - 0.4 / 1.2
    words = (
        f"{fewer:.1%} fewer, by the true counts; {own:.0%} follows from its own two counts, which are wrong."
    )
    return Finding(of_count(fewer, 0.67), words)


def _billions(count: int) -> Finding:
    return Finding(HOLDS if count >= 1e9 else FAILS, f"{count:,} parameters: {count / 1e9:.2f} billion.")


@claim(
    "B1", topic=SIZE, says="A ResNet-152 has billions of parameters.", needs="at least 1,000,000,000 of them"
)
def resnet152() -> Finding:
    return _billions(parameters("resnet152"))


@claim(
    "B2",
    topic=SIZE,
    says="An EfficientNet-L2 has billions of parameters.",
    needs="at least 1,000,000,000 of them",
)
def largest_efficientnet() -> Finding:
    return _billions(efficientnet_l2())


@claim(
    "B3", topic=SIZE, says="From DenseNet-121 to EfficientNet-B0, a network for X-rays gets 12 times smaller.",
    needs="one of the two to be another network: a factor is a quotient of two counts",
)  # fmt: skip
def x_ray_networks() -> Finding:
    large, little = parameters("densenet121"), parameters("efficientnet_b0")
    words = f"{large:,} over {little:,} parameters: {large / little:.2f} times."
    return Finding(of_count(large / little, 12), words)


@claim(
    "B4", topic=SIZE, says="Distillation makes a network more than 90 % smaller at the same accuracy.",
    needs="a pair, a data set, and what still counts as the same",
    by="kdlib build-model distilled pruned carved searched low-rank (lesson 06, section 6)",
)  # fmt: skip
def shrinks() -> Finding:
    """Students of the shelf that were taught by the teacher, each beside it on the same test images."""
    teacher, small_ones = shelf.manifest("teacher"), []
    for name in ("distilled", "pruned", "carved", "searched", "low-rank"):
        fewer = 1 - shelf.manifest(name)["parameters"] / teacher["parameters"]
        lost = on_the_shelf(name, "teacher")
        small_ones.append((fewer, name, lost))
    as_good = [fewer for fewer, _, lost in small_ones if lost.high >= 0]
    verdict = HOLDS if max(as_good, default=0) > 0.9 else IN_PART if as_good else FAILS
    words = [f"{name} {fewer:.0%} smaller, {plots.points(lost)}" for fewer, name, lost in sorted(small_ones)]
    same = (
        f"Of an accuracy that cannot be told apart: {max(as_good):.0%} smaller"
        if as_good
        else "None is as accurate"
    )
    return Finding(verdict, f"Taught by our teacher, and beside it: {'; '.join(words)}. {same}.")


@claim(
    "B23", topic=SIZE, says="A student needs at least a tenth of its teacher's parameters.",
    needs=(
        "a gain that ends below a tenth, over labels that had as many passes, and over labels that had more"
    ),
    by=recorded("lesson07-capacity", "lesson 07, section 5"),
)  # fmt: skip
def at_least_a_tenth() -> Finding:
    words, below = [], []
    for times in ("277", "75"):
        over = [gains(advice(f"a teacher {times} times as large, 1,000 images", over)) for over in CONTROLS]
        below.append(all(gain.low > 0 for each in over for gain in each))
        words.append(f"a {times}th: {plots.points(over[0][0])} and {plots.points(over[1][0])}")
    of_many = [gains(advice("a teacher 75 times as large, 9,000 images", over))[0] for over in CONTROLS]
    everywhere = all(below) and all(gain.low > 0 for gain in of_many)
    verdict = FAILS if everywhere else IN_PART if any(below) else HOLDS
    many = [plots.points(gain) for gain in of_many]
    said = f"What a teacher adds to labels, and to labels for longer: of 1,000 images {'; '.join(words)}"
    return Finding(verdict, f"{said}; of 9,000 a 75th: {many[0]} and {many[1]}.")


CONTROLS = ("labels", "labels for four times as long")


@claim("D1", topic=SIZE, says="ResNet-18 has 44 M parameters.", needs=COUNT)
def resnet18() -> Finding:
    count = parameters("resnet18")
    words = (
        f"{count:,} parameters. Its weights take {count * BYTES / 2**20:.1f} MiB: a size was taken for a "
        "count."
    )
    return Finding(of_count(count, 44e6), words)


@claim(
    "D2", topic=SIZE, says="ResNet-18 takes 44 MB.", needs="four bytes a parameter, and the unit to be named"
)
def resnet18_bytes() -> Finding:
    size = parameters("resnet18") * BYTES
    verdict = HOLDS if near(size / 1e6, 44) or near(size / 2**20, 44) else FAILS
    return Finding(verdict, f"{size / 2**20:.1f} MiB of weights in float32, which is {size / 1e6:.1f} MB.")


@claim(
    "D3",
    topic=SIZE,
    says="MobileNetV2 x0.35 has at most 1 M parameters.",
    needs="1,000 classes, as in its text",
)
def small_mobilenet() -> Finding:
    count, ten = small(), parameters("mobilenet_v2", width_mult=0.35, num_classes=10)
    words = f"{count:,} parameters with the 1,000 classes of its text; {ten:,} with ten classes."
    return Finding(HOLDS if count <= 1e6 else FAILS, words)


@claim("D4", topic=SIZE, says="MobileNetV2 x0.35 takes 4.2 MB.", needs="1.05 M parameters of four bytes")
def small_mobilenet_bytes() -> Finding:
    size = small() * BYTES
    verdict = HOLDS if near(size / 1e6, 4.2) or near(size / 2**20, 4.2) else FAILS
    return Finding(verdict, f"{size / 1e6:.1f} MB ({size / 2**20:.1f} MiB) of weights in float32.")


@claim(
    "D5", topic=SIZE, says="A student should have a tenth to a thirtieth of its teacher's parameters.",
    needs="its own pair to be that far apart, and no gain beyond",
)  # fmt: skip
def its_own_pair() -> Finding:
    full = parameters("resnet18") / small()
    ten = parameters("resnet18", num_classes=10) / parameters("mobilenet_v2", width_mult=0.35, num_classes=10)
    beyond = gains(advice("a teacher 277 times as large, 1,000 images", "labels"))[0]
    right = [10 <= full <= 30, beyond.low <= 0]
    words = (
        f"Its own teacher has {full:.1f} times the parameters of its student, {ten:.0f} times with ten classes. What a "
        f"teacher 277 times as large adds to labels of 1,000 images: {plots.points(beyond)}."
    )
    return Finding(HOLDS if all(right) else IN_PART if any(right) else FAILS, words)


@claim(
    "D12", topic=SIZE, says="In 8 bits the network takes 11 MB.",
    needs="to say which network: one byte a parameter, and some for the scales",
)  # fmt: skip
def eight_bits() -> Finding:
    teacher, student = parameters("resnet18"), small()
    matches = [near(count / unit, 11, 0.07) for count in (student, teacher) for unit in (1e6, 2**20)]
    verdict = HOLDS if any(matches[:2]) else IN_PART if any(matches[2:]) else FAILS
    words = f"One byte each: {student / 1e6:.1f} MB for the student, {teacher / 1e6:.1f} MB for ResNet-18."
    return Finding(verdict, words)


@claim(
    "D14", topic=SIZE, says="Eight bits make 11 MB of 44 MB, a quarter.",
    needs="nearly all bytes to be weights",
    by="kdlib build-model teacher-int8 distilled-int8 labels-only-int8 (lesson 05, section 3)",
)  # fmt: skip
def a_quarter() -> Finding:
    names = ("teacher", "distilled", "labels-only")
    shares = [shelf.manifest(f"{name}-int8")["bytes"] / shelf.manifest(name)["bytes"] for name in names]
    verdict = HOLDS if max(shares) <= 1 / 3 else IN_PART if max(shares) < 1 else FAILS
    said = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
    counts = ", ".join(millions(shelf.manifest(name)["parameters"]) for name in names)
    words = (
        f"Files in 8 bits over those in float32: {said} (parameters: {counts}). The smaller, the more is not "
        "weights."
    )
    return Finding(verdict, words)
