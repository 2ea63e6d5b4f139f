"""What is measured once everything is trained: accuracy, size and time of each network, and what the teacher bought."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kdlib import metrics, teachers
from kdlib.data import ImageSplit
from kdlib.deploy import benchmark, footprint
from kdlib.deploy.distillation import disputes, folder, pictures
from kdlib.deploy.quantization import onnx_logits
from kdlib.deploy.shelf import accuracy_interval, paired_difference
from kdlib.inference import predict_logits, preprocessing_of

if TYPE_CHECKING:
    from kdlib.deploy.distillation.stages import Job

CHUNK = 500  # images of a stream that are decoded at a time
ROUNDS = 15  # of the timing


def take(job: "Job") -> dict[str, Any]:
    """All that the card, the report and the results say in numbers."""
    test = job.pictures.dataset.test
    teacher, onnx, int8 = job.teacher(), job.out / folder.STUDENT, job.out / folder.INT8
    first = job.settings.seed
    student = job.student(f"distilled-{first}")
    logits = {
        "teacher": predict_logits(teacher, test, device=job.plan.device),
        "student": logits_of_file(onnx, test),
        "student-int8": logits_of_file(int8, test),
    }
    distilled = [_right(job, f"distilled-{seed}") for seed in job.seeds]
    alone = [_right(job, f"labels-{seed}") for seed in job.seeds] if job.plan.control else []
    right = {name: values.argmax(dim=1) == test.labels for name, values in logits.items()}
    weights = job.folder.weights(f"labels-{first}")
    table = {
        "teacher": _row(right["teacher"], teacher, job.out / folder.TEACHER_WEIGHTS),
        **({"labels-only": _row(alone[0], student, weights)} if alone else {}),
        "student": _row(right["student"], student, onnx),
        "student-int8": _row(right["student-int8"], student, int8),
    }
    times, conditions = _milliseconds(job, teacher, student)
    for name, row in table.items():
        row["milliseconds"] = times.get(name)
    return {
        "models": table,
        "timing": conditions,
        "gain": gain(distilled, alone) if alone else None,
        "seeds": job.seeds,
        "agreement": {
            "student with teacher": _same(logits["student"], logits["teacher"]),
            "8 bits with student": _same(logits["student-int8"], logits["student"]),
        },
        "confusion": confusion(
            logits["student"].argmax(dim=1), test.labels, len(job.pictures.dataset.classes)
        ),
        **disputes.find(job, teacher, logits),
    }


def logits_of_file(path: Path, split: ImageSplit) -> Float[Tensor, "n classes"]:
    """What an exported model says of a split, also of one whose images are decoded when they are needed."""
    parts = torch.arange(len(split)).split(CHUNK)
    return torch.cat([onnx_logits(path, pictures.in_memory(split, rows)) for rows in parts])


def gain(distilled: list[Bool[Tensor, " n"]], alone: list[Bool[Tensor, " n"]]) -> dict[str, Any]:
    """Accuracy with the teacher minus accuracy without, over pairs of one seed each.

    With two pairs or more the interval is that of the pairs (Student's t). With one there is none that covers another
    training; what is given then covers the choice of test images alone.

    Args:
        distilled: of each seed which test images its distilled student recognised.
        alone: the same of the students of labels alone.
    """
    by_seed = [[with_it.double().mean().item() for with_it in kind] for kind in (distilled, alone)]
    told = {"distilled": by_seed[0], "labels_only": by_seed[1]}
    if len(distilled) > 1:
        mean, low, high = metrics.paired_interval(*by_seed)
        return told | {"mean": mean, "low": low, "high": high, "over": f"{len(distilled)} paired seeds"}
    mean, low, high = paired_difference(distilled[0], alone[0])
    over_images = {"low_over_test_images": low, "high_over_test_images": high}
    return told | {"mean": mean, "low": None, "high": None, "over": "one seed: no interval", **over_images}


def confusion(answers: Tensor, labels: Tensor, classes: int) -> list[list[int]]:
    """Row: the label; column: the answer; how many images."""
    return torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes).tolist()


def _right(job: "Job", stage: str) -> Bool[Tensor, " n"]:
    test = job.pictures.dataset.test
    return predict_logits(job.student(stage), test, device=job.plan.device).argmax(dim=1) == test.labels


def _row(right: Tensor, network: nn.Module, file: Path) -> dict[str, Any]:
    share, low, high = accuracy_interval(right)
    return {
        "accuracy": share,
        "low": low,
        "high": high,
        "test_images": len(right),
        "parameters": footprint.parameters(network),
        "bytes": footprint.file_size(file),
    }


def _milliseconds(job: "Job", teacher: nn.Module, student: nn.Module) -> tuple[dict[str, float], str]:
    """Of one image, models in turn; the teacher and the student of labels run in torch, the files in onnxruntime."""
    models = {
        "teacher": _with_preprocessing(teacher.cpu()),
        "labels-only": student.cpu(),
        "student": job.out / folder.STUDENT,
        "student-int8": job.out / folder.INT8,
    }
    if not job.plan.control:
        del models["labels-only"]
    found = benchmark.latency(models, job.pictures.shape, repeats=ROUNDS)
    return found.table()["median"].to_dict(), found.conditions()


def _with_preprocessing(teacher: nn.Module) -> Any:
    """What the teacher costs for an image of the student's size: its own preprocessing, then itself."""
    own = preprocessing_of(teacher)
    inner = teacher.network if isinstance(teacher, teachers.FrozenTeacher) else teacher
    return inner if own is None else lambda images: inner(own(images))


def _same(logits: Tensor, others: Tensor) -> float:
    return (logits.argmax(dim=1) == others.argmax(dim=1)).double().mean().item()
