"""The images most disputed: by teacher and label, which may be an error of the label, and by student and teacher."""

import base64
import io
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from kdlib import teachers
from kdlib.data import ImageSplit
from kdlib.deploy.distillation.pictures import SPLITS

if TYPE_CHECKING:
    from kdlib.deploy.distillation.stages import Job

SHOWN = 24  # of each kind
SMALLEST = 96  # pixels a side of what is shown; smaller images are magnified


def find(job: "Job", teacher: nn.Module, logits: dict[str, Tensor]) -> dict[str, list[dict[str, Any]]]:
    """Two lists, the most confident dispute first.

    Args:
        job: whose images.
        teacher: asked about the images of all splits; what it was trained on it may have learned by heart, so that
            errors show in the other splits first.
        logits: on the test images, of "teacher" and "student".
    """
    by_label, totals = [], {}
    for name in SPLITS:
        split = getattr(job.pictures.dataset, name)
        known = (
            logits["teacher"]
            if name == "test"
            else teachers.cached_logits(teacher, split, device=job.plan.device)
        )
        entries, totals[name] = against_labels(job, name, split, known)
        by_label += entries
    return {
        "label_disputes": sorted(by_label, key=lambda entry: -entry["confidence"])[:SHOWN],
        "label_dispute_counts": totals,
        "student_disputes": against_teacher(job, logits["student"], logits["teacher"]),
    }


def against_labels(
    job: "Job", name: str, split: ImageSplit, logits: Tensor
) -> tuple[list[dict[str, Any]], int]:
    """Where the teacher contradicts a label most confidently, and how often it contradicts one."""
    confidence, answers = logits.float().softmax(dim=1).max(dim=1)
    other = (answers != split.labels).nonzero().flatten()
    rows = other[confidence[other].argsort(descending=True, stable=True)][:SHOWN]
    return [
        _entry(job, name, split, row, {"label": split.labels[row], "teacher": answers[row]}, confidence[row])
        for row in rows
    ], len(other)


def against_teacher(job: "Job", student: Tensor, teacher: Tensor) -> list[dict[str, Any]]:
    """Test images of which student and teacher say different things, both confidently."""
    split = job.pictures.dataset.test
    (mine, said), (its, taught) = (values.float().softmax(dim=1).max(dim=1) for values in (student, teacher))
    confidence = torch.minimum(mine, its)
    other = (said != taught).nonzero().flatten()
    rows = other[confidence[other].argsort(descending=True, stable=True)][:SHOWN]
    return [
        _entry(
            job, "test", split, row,
            {"label": split.labels[row], "teacher": taught[row], "student": said[row]}, confidence[row],
        )
        for row in rows
    ]  # fmt: skip


def _entry(
    job: "Job", name: str, split: ImageSplit, row: Tensor, said: dict[str, Tensor], confidence: Tensor
) -> dict[str, Any]:
    classes = job.pictures.dataset.classes
    return {
        "split": name,
        "image": job.pictures.name(name, int(row)),
        **{who: classes[int(label)] for who, label in said.items()},
        "confidence": round(confidence.item(), 6),
        "row": int(row),
    }


def picture(split: ImageSplit, row: int) -> str:
    """An image as a data: address, small ones magnified pixel by pixel."""
    pixels = split.images[torch.tensor([row])][0].permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    factor = -(-SMALLEST // min(image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    else:
        image.thumbnail((2 * SMALLEST, 2 * SMALLEST))
    file = io.BytesIO()
    image.save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
