"""What came of a distillation, in a few lines of text."""

import json
from collections.abc import Iterator
from typing import Any

from kdlib.deploy.distillation.folder import REPORT, RESULTS, Folder

NAMES = {
    "teacher": "teacher",
    "labels-only": "student, labels only",
    "student": "student, distilled",
    "student-int8": "the same in 8 bits",
}


def ending(done: Folder) -> str:
    """What is printed at the end."""
    found = json.loads((done.path / RESULTS).read_text(encoding="utf-8"))
    lines = [f"{'':22}{'accuracy':>9}{'parameters':>13}{'bytes':>13}{'ms':>9}"]
    for name, row in found["models"].items():
        lines.append(
            f"{NAMES[name]:22}{in_percent(row['accuracy']):>9}{row['parameters']:>13,}{row['bytes']:>13,}"
            f"{row['milliseconds']:>9.3g}"
        )
    lines += [*sentences(found), f"Everything is in {done.path}; look at {done.path / REPORT}"]
    return "\n".join([*lines, f"Try it: kdlib serve {done.path}"])


def in_percent(share: float) -> str:
    """0.9312 as "93.1 %"."""
    return f"{100 * share:.1f} %"


def sentences(measured: dict[str, Any]) -> Iterator[str]:
    """What the numbers say, and what they cannot."""
    models, gained = measured["models"], measured["gain"]
    if gained is None:
        yield "No student was trained without the teacher, so nothing here says what the teacher was good for."
    else:
        points = 100 * gained["mean"]
        better = "better" if points >= 0 else "worse"
        said = f"The student is {abs(points):.1f} points {better} with the teacher than without"
        if abs(points) < 0.05:
            said = "The student is as good with the teacher as without"
        if gained["low"] is None:
            low, high = (100 * gained[f"{end}_over_test_images"] for end in ("low", "high"))
            yield (
                f"{said}, from one seed: no interval. Another seed may give another difference, even another sign; "
                f"over the choice of test images alone it lies between {low:+.1f} and {high:+.1f} points (95 %)."
            )
        else:
            low, high = 100 * gained["low"], 100 * gained["high"]
            yield f"{said}: {low:+.1f} to {high:+.1f} points (95 %, {gained['over']})."
            if len(gained["distilled"]) < 5:
                yield "Fewer than five pairs are little evidence: before you rely on it, ask for --seeds 5."
            if low <= 0 <= high:
                yield "That interval contains 0: these seeds do not show that the teacher helped, nor that it harmed."
        if models["teacher"]["accuracy"] <= models["labels-only"]["accuracy"]:
            yield (
                "The teacher is no better than a student without one. Such a teacher has little to teach: train it for "
                "longer, or take a larger or a pretrained one."
            )
    lost = 100 * (models["student"]["accuracy"] - models["student-int8"]["accuracy"])
    same = in_percent(measured["agreement"]["8 bits with student"])
    yield (
        f"In 8 bits the student gives the same answer for {same} of the test images, and its accuracy is "
        f"{abs(lost):.1f} points {'lower' if lost >= 0 else 'higher'}."
    )
