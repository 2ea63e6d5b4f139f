"""What was done, for a person: one page that needs no network and no server; and for a program: results.json."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdlib.deploy.distillation import charts, disputes, folder, plan, summary
from kdlib.deploy.distillation.card import versions
from kdlib.deploy.distillation.progress import duration

if TYPE_CHECKING:
    from kdlib.deploy.distillation.stages import Job

MOST_CLASSES = 25  # that a matrix shows; above it the most frequent confusions are listed
CONFUSIONS = 30
FILES = {
    folder.STUDENT: "the student, for onnxruntime and kdlib serve",
    folder.INT8: "the same in 8 bits",
    folder.STUDENT_WEIGHTS: "its weights, for torch",
    folder.TEACHER_WEIGHTS: "the teacher's weights; --teacher-weights takes them",
    folder.CARD: "the model card",
    folder.REPORT: "this report",
    folder.RESULTS: "its numbers, for programs",
    folder.SETTINGS: "what was chosen",
}


def html(job: "Job") -> str:
    """The report. Texts from file names, classes and messages are shown as they are, never as markup."""
    from jinja2 import Environment, StrictUndefined

    measured = job.folder.read("measure")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": summary.in_percent, "picture": lambda entry: _picture(job, entry)}
    page = (Path(__file__).parent / "report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(page).render(
        settings=job.settings.shown(),
        student=job.settings.student,
        teacher=job.settings.teacher_said,
        data=job.settings.shown()["data"],
        classes=job.pictures.dataset.classes,
        counts=job.pictures.describe()["images"],
        shape="x".join(map(str, job.pictures.shape)),
        rows=_rows(job, measured),
        measured=measured,
        sentences=list(summary.sentences(measured)),
        figures=_figures(job),
        matrix=_matrix(measured["confusion"]) if len(measured["confusion"]) <= MOST_CLASSES else None,
        confusions=_confusions(measured["confusion"], job.pictures.dataset.classes),
        recalls=_recalls(measured["confusion"], job.pictures.dataset.classes),
        notes=job.pictures.notes,
        skipped=job.pictures.skipped,
        plan=job.plan,
        stages=_stages(job),
        versions=versions(),
        files=FILES,
    )


def results(job: "Job") -> str:
    """The numbers, as JSON. `accuracy` is that of student.onnx on the test images."""
    measured = job.folder.read("measure")
    content = {
        "accuracy": measured["models"]["student"]["accuracy"],
        **{name: value for name, value in measured.items() if name != "confusion"},
        "confusion": {
            "classes": list(job.pictures.dataset.classes),
            "label_by_answer": measured["confusion"],
        },
        "images": job.pictures.describe()["images"],
        "skipped": job.pictures.skipped,
        "notes": job.pictures.notes,
        "settings": job.settings.shown(),
        "plan": job.plan.record(),
        "curves": _records(job),
        "versions": versions(),
    }
    return json.dumps(content, indent=1) + "\n"


def _rows(job: "Job", measured: dict[str, Any]) -> list[dict[str, Any]]:
    runs = {
        "teacher": "torch",
        "labels-only": "torch",
        "student": "onnxruntime",
        "student-int8": "onnxruntime",
    }
    return [
        {"name": summary.NAMES[name], "runs": runs[name], **row} for name, row in measured["models"].items()
    ]


def _records(job: "Job") -> dict[str, list[dict[str, Any]]]:
    """The epochs of every training."""
    trainings = [
        stage for stage in job.plan.minutes if stage.partition("-")[0] in ("teacher", "distilled", "labels")
    ]
    return {stage: job.folder.read(stage)["records"] for stage in trainings}


def _figures(job: "Job") -> list[Any]:
    records, first = _records(job), job.settings.seed
    stages = {"teacher": "teacher", f"distilled-{first}": "student", f"labels-{first}": "labels-only"}
    shown = {stage: summary.NAMES[name] for stage, name in stages.items() if stage in records}

    def lines(name: str) -> dict[str, list[float]]:
        return {
            # Of fine-tuning the second stage: in the first one only the last layer moves.
            title: [
                record[name] for record in records[stage] if name in record and record.get("stage", 2) == 2
            ]
            for stage, title in shown.items()
        }

    return [
        charts.curves(lines("validation_accuracy"), what="accuracy on the validation images", percent=True),
        charts.curves(lines("loss"), what="loss on the training images: each its own, so compare no heights"),
    ]


def _matrix(confusion: list[list[int]]) -> list[list[tuple[int, float]]]:
    """Each number with its share of the row, for the shading."""
    return [[(count, count / max(1, sum(row))) for count in row] for row in confusion]


def _confusions(confusion: list[list[int]], classes: list[str]) -> list[tuple[str, str, int]]:
    pairs = [
        (label, answer, count)
        for label, row in zip(classes, confusion, strict=True)
        for answer, count in zip(classes, row, strict=True)
        if label != answer and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:CONFUSIONS]


def _recalls(confusion: list[list[int]], classes: list[str]) -> list[tuple[str, int, float]]:
    """(class, test images, share of them that is recognised), the worst first."""
    found = [
        (name, sum(row), row[number] / sum(row))
        for number, (name, row) in enumerate(zip(classes, confusion, strict=True))
        if sum(row)
    ]
    return sorted(found, key=lambda entry: entry[2])


def _stages(job: "Job") -> list[tuple[str, str]]:
    said = plan.titles(job.plan, job.settings)
    return [(said[stage], duration(minutes)) for stage, minutes in job.plan.minutes.items()]


def _picture(job: "Job", entry: dict[str, Any]) -> str:
    return disputes.picture(getattr(job.pictures.dataset, entry["split"]), entry["row"])
