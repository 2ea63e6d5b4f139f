"""Claims on how to train: what teaches, what is taught beside, what else makes a network small."""

from kdlib import metrics
from kdlib.audit._core import (
    FAILS,
    HOLDS,
    IN_PART,
    TRAINING,
    UNTESTED,
    Finding,
    both,
    claim,
    of_gains,
    read,
    recorded,
)
from kdlib.audit._gains import advice, by_seed, compared, gains, paired
from kdlib.audit.accuracy import CLASSIC, JPEG, ORIGINAL
from kdlib.deploy import shelf
from kdlib.experiments import gains as gains_of_two
from kdlib.experiments import lesson09_exits as exits
from kdlib.lesson import plots

SHORTER = "labels, a third as long"  # those of the classic pair that were stopped before they learn by heart
STAGES = recorded("lesson07-stages lesson07-stages-again", "lesson 07, section 2")
PAIR = recorded("lesson05-mobilenet", "lesson 05, Further")
CUT_SHARES = {"sparse": 0.7, "pruned": 0.625}  # the first strength of lesson 06 above 60 %


@claim(
    "A6", topic=TRAINING, says="KL times T^2 at T = 4 teaches the student, without the labels.",
    needs="a student of labels alone beside it, of the same start, with as many passes; several seeds",
    by=CLASSIC,
)  # fmt: skip
def without_labels() -> Finding:
    table = read("lesson10-classic")
    table = table[table["data"] == (ORIGINAL if (table["data"] == ORIGINAL).any() else JPEG)]
    arms = ({"network": "student-net", "arm": arm} for arm in ("distilled", "labels"))
    taught, alone = (by_seed(table, arm, "accuracy") for arm in arms)
    if len(taught) < 2 or list(taught.index) != list(alone.index):
        gain = 100 * (taught.mean() - alone.mean())
        return Finding(UNTESTED, f"{gain:+.1f} points over labels alone, of too few seeds to say more.")
    over = [("labels alone", metrics.paired_interval(taught, alone))]
    shorter = by_seed(table, {"network": "student-net", "arm": SHORTER}, "accuracy")
    if list(shorter.index) == list(taught.index):
        over.append((SHORTER, metrics.paired_interval(taught, shorter)))
    said = ", ".join(f"{plots.points(gain)} over {name}" for name, gain in over)
    words = f"{taught.mean():.1%} on {table['data'].iloc[0]} without a label, {said} ({len(taught)} seeds)."
    verdict = of_gains(*((gain,) for _, gain in over))
    # As good as all those labels, without one of them: that is something.
    return Finding(IN_PART if verdict == FAILS and over[0][1].high >= 0 else verdict, words)


@claim(
    "B13", topic=TRAINING, says="Matching features lifts a student beyond what the soft targets give.",
    needs="a student of the same soft targets beside it, and one that matches an untrained teacher",
    by=f"{recorded('lesson04-methods', 'lesson 04, section 4')}; {recorded('lesson04-larger', 'lesson 04, section 6')}",
)  # fmt: skip
def features() -> Finding:
    small, large = read("lesson04-methods"), read("lesson04-larger")
    large = large[large["split"] == "test"]
    trained_by = small[small["source"] == "trained"]
    alone = ("distillation", "labels only")
    methods = [
        name for name in trained_by["method"].unique() if name not in alone and "no logits" not in name
    ]
    each = {
        name: paired(small, {"method": name, "source": "trained"}, {"method": "distillation"}, "accuracy")
        for name in methods
    }
    helping = sum(gain.low > 0 for gain in each.values())
    over = [
        paired(small, {"method": "hint", "source": "trained"}, {"method": "distillation"}, "accuracy"),
        paired(large, {"method": "hint"}, {"method": "distillation"}, "accuracy"),
    ]
    trained = paired(
        small, {"method": "hint", "source": "trained"}, {"method": "hint", "source": "untrained"}, "accuracy"
    )
    over_untrained = paired(large, {"method": "hint"}, {"method": "hint, untrained"}, "accuracy")
    words = (
        f"A hint over soft targets alone: {plots.points(over[0])} for the small student, "
        f"{plots.points(over[1])} for a pair as "
        f"in the papers. Their teachers over untrained ones: {plots.points(trained)} and "
        f"{plots.points(over_untrained)}."
    )
    words += f" Of {len(methods)} ways to match features {helping} are ahead of soft targets for the small student."
    return Finding(HOLDS if helping == len(methods) else IN_PART if helping else FAILS, words)


@claim(
    "B14", topic=TRAINING, says="CutMix adds 1.8 points.",
    needs="a teacher that sees the mixed image; the same passes and a rate of its own",
    by=recorded("lesson07-augmentation lesson07-augmentation-again", "lesson 07, section 3"),
)  # fmt: skip
def cutmix() -> Finding:
    taught, alone = (
        gains(advice(f"CutMix, with {who}", "no augmentation")) for who in ("a teacher", "labels")
    )
    sees = gains(advice("CutMix: the teacher sees the view", "it sees the image"))
    there = all(gain.low <= 0.018 <= gain.high for gain in taught)
    verdict = (
        HOLDS if there and of_gains(taught) == HOLDS else IN_PART if of_gains(taught) == HOLDS else FAILS
    )
    words = (
        f"With a teacher {both(*taught)}; with labels {both(*alone)} (1,000 images of Fashion-MNIST). The "
        "teacher has to see "
        f"the mixed image: {plots.points(sees[0])} over one that sees the two that it was made of."
    )
    return Finding(verdict, words)


@claim(
    "B24", topic=TRAINING, says="Never share batch-norm statistics between teacher and student.",
    needs="harm from every way to share them",
    by=recorded("lesson07-norms lesson07-norms-again", "lesson 07, Further"),
)  # fmt: skip
def batch_norm() -> Finding:
    names = (
        "the teacher's norms, frozen",
        "the teacher's norms to begin with",
        "own norms, frozen before training",
    )
    frozen, first, own = (gains(advice(name, "own statistics")) for name in names)
    harm = [all(gain.high < 0 for gain in each) for each in (frozen, first)]
    verdict = HOLDS if all(harm) else IN_PART if any(harm) else FAILS
    words = (
        f"Over statistics of its own: the teacher's, frozen, {both(*frozen)}; the teacher's to begin with, "
        f"{both(*first)}. "
        f"Freezing does harm by itself: its own, frozen, {both(*own)}."
    )
    return Finding(verdict, words)


@claim(
    "B33", topic=TRAINING, says="Self-distillation between layers is a further kind (our reading: one that helps).",
    needs="more than labels at every exit give, which is the same network without the teaching",
    by=recorded("lesson09-exits lesson09-exits-again", "lesson 09, section 1"),
)  # fmt: skip
def between_layers() -> Finding:
    names = [f"exit {number}" for number in range(1, exits.EXITS + 1)]
    taught = {name: compared("lesson09", "exits", exits.TAUGHT, exits.DEEP, name) for name in names}
    longer = compared("lesson09", "exits", exits.TAUGHT_LONGER, exits.DEEP_LONGER, "mean")
    words = "; ".join(f"{name} {both(*each)}" for name, each in taught.items())
    words += f". All exits on average, trained three times as long: {both(*longer)}."
    return Finding(of_gains(*taught.values(), longer), f"Over labels at every exit: {words}")


@claim(
    "C6", topic=TRAINING, says="Cross-entropy and 0.1 times the squared difference of the logits teach a student.",
    needs="a finished teacher, a training that bears a sum over batch and classes, and labels alone beside it",
    by=f"{STAGES}; {recorded('lesson10-clinic', 'lesson 10, the clinic')}",
)  # fmt: skip
def squared_difference() -> Finding:
    found = gains(advice("CE + 0.1 x squared difference, the course's teacher", "labels alone"))
    clinic = read("lesson10-clinic").query("case == 'together'")
    short = paired(clinic, {"arm": "the finished teacher, same loss"}, {"arm": "labels"}, "accuracy")
    verdict = of_gains(found, (short,))
    words = (
        f"With the course's finished teacher, over labels alone: {both(*found)}, trained twenty times over at a rate "
        f"that falls; {plots.points(short)} after five passes at a constant rate."
    )
    return Finding(verdict, words)


@claim(
    "C7", topic=TRAINING, says="Teacher and student may learn in the same loop, from the first step on.",
    needs="a student that is no worse than one of the same teacher, finished first, and than one of labels alone",
    by=STAGES,
)  # fmt: skip
def beside() -> Finding:
    alone = gains(advice("teach the teacher beside the student", "labels alone"))
    later = gains(advice("teach the teacher beside the student", "that teacher, finished first"))
    words = (
        f"A teacher that learns from the student's own 1,000 images, over labels alone: {both(*alone)}. Over "
        "the same "
        f"teacher, finished first: {both(*later)}."
    )
    as_good = gains_of_two.verdict(*later) != gains_of_two.HURTS
    worth = gains_of_two.verdict(*alone) != gains_of_two.HURTS
    return Finding(HOLDS if as_good and worth else IN_PART if as_good else FAILS, words)


@claim(
    "C8", topic=TRAINING, says="In knowledge distillation teacher and student have one architecture.",
    needs="no gain between networks of different kinds", by=PAIR,
)  # fmt: skip
def one_architecture() -> Finding:
    table = read("lesson05-mobilenet")
    gain = paired(table, {"method": "distillation"}, {"method": "labels only"}, "accuracy")
    words = (
        f"A ResNet-18 teaches a MobileNetV2 x0.35: {plots.points(gain)} over labels alone with as many "
        "passes. Its own program "
        "has a ResNet-18 and a student of two convolutions."
    )
    return Finding(FAILS if gain.low > 0 else HOLDS, words)


@claim(
    "C9", topic=TRAINING, says="Pruning, quantising, carving, low rank and architecture search are the alternatives.",
    needs="each to make a network smaller, and to have no use for a teacher",
    by=recorded("lesson06-methods", "lesson 06, section 4")
    + "; kdlib build-model teacher pruned teacher-int8 carved low-rank searched",
)  # fmt: skip
def alternatives() -> Finding:
    whole = shelf.manifest("teacher")
    smaller = {name: shelf.manifest(name)["bytes"] / whole["bytes"] for name in ROUTES}
    table = read("lesson06-methods")
    taught = {}
    for method in ("pruned", "carved"):
        arms = ({"method": method, "passes": 10, "target": target} for target in ("teacher", "labels"))
        taught[method] = paired(table, *arms, "accuracy")
    separate = all(gain.low <= 0 for gain in taught.values())
    verdict = FAILS if max(smaller.values()) >= 1 else HOLDS if separate else IN_PART
    sizes = ", ".join(f"{name} {share:.0%}" for name, share in smaller.items())
    gained = ", ".join(f"{name} {plots.points(gain)}" for name, gain in taught.items())
    words = (
        f"All make it smaller (bytes of the teacher's: {sizes}), and go together with a teacher, over "
        f"labels: {gained}."
    )
    return Finding(verdict, words)


ROUTES = ("pruned", "teacher-int8", "carved", "low-rank", "searched")


@claim(
    "D8", topic=TRAINING, says="Training on the validation split, its accuracy says how good the student is.",
    needs="images that the student was not trained on",
    by=recorded("lesson10-clinic", "lesson 10, the clinic"),
)  # fmt: skip
def on_validation() -> Finding:
    table = read("lesson10-clinic")
    table = table[table["case"] == "training on validation"]
    found, mended = (table[table["arm"] == arm] for arm in ("found", "mended"))
    over = [float((rows["reported"] - rows["accuracy"]).mean()) for rows in (found, mended)]
    verdict = HOLDS if abs(over[0]) <= 0.01 else FAILS
    words = (
        f"Reported {found['reported'].mean():.1%}, on images that it never saw "
        f"{found['accuracy'].mean():.1%}: "
        f"{100 * over[0]:+.1f} points. Mended, reported {mended['reported'].mean():.1%}, "
        f"{100 * over[1]:+.1f} points."
    )
    return Finding(verdict, words)


@claim(
    "D15", topic=TRAINING, says="Train on the KL term alone first; then add the labels and tune the head.",
    needs="more than one stage of both terms gives, with as many passes", by=STAGES,
)  # fmt: skip
def stages() -> Finding:
    head = gains(advice("the teacher alone, then labels on the head", "one stage"))
    whole = gains(advice("distil, then labels", "one stage"))
    half = gains(advice("labels on the head, half of the passes", "one stage"))
    words = (
        f"Over one stage: labels on the head {both(*head)}, labels on all weights {both(*whole)}, and labels "
        "on the head for "
        f"half of the passes {both(*half)}."
    )
    return Finding(of_gains(head, whole), words)


@claim(
    "D23", topic=TRAINING, says="Distillation (T = 5, alpha = 0.7) makes this MobileNetV2 x0.35 better.",
    needs="labels alone with as many passes, and with as many as help them", by=PAIR,
)  # fmt: skip
def the_pair() -> Finding:
    table = read("lesson05-mobilenet")
    controls = ("labels only", "labels only, twice as long")
    over = [paired(table, {"method": "distillation"}, {"method": name}, "accuracy") for name in controls]
    verdict = FAILS if over[0].low <= 0 else HOLDS if over[1].low > 0 else IN_PART
    words = (
        f"On Fashion-MNIST at 64 pixels, over labels alone: {plots.points(over[0])} with as many passes, "
        f"{plots.points(over[1])} over twice as many."
    )
    return Finding(verdict, words)


@claim(
    "D11", topic=TRAINING, says="Pruned, its accuracy falls below 60 %.",
    needs="ImageNet, and to say what is pruned and how much: single weights, or whole channels",
    by=recorded("lesson06-strengths", "lesson 06, section 3"),
)  # fmt: skip
def pruning() -> Finding:
    table = read("lesson06-strengths")
    fell = {}
    for method, share in CUT_SHARES.items():
        arms = ({"method": method, "strength": strength} for strength in (share, 0.5))
        fell[method] = paired(table, *arms, "accuracy")
    words = (
        f"Not ImageNet. In ours, {CUT_SHARES['sparse']:.0%} instead of half of the single weights: "
        f"{plots.points(fell['sparse'])}; "
        f"{CUT_SHARES['pruned']:.1%} instead of half of the channels: {plots.points(fell['pruned'])}."
    )
    return Finding(UNTESTED, words)
