"""The model card of a distilled student."""

import platform
import shlex
from importlib import metadata
from typing import TYPE_CHECKING

import kdlib
from kdlib.deploy.distillation import folder, summary
from kdlib.deploy.distillation.settings import NO_LICENCE, command_of
from kdlib.deploy.model_card import Measure, model_card

if TYPE_CHECKING:
    from kdlib.deploy.distillation.stages import Job

PROGRAMS = ("torch", "torchvision", "onnx", "onnxruntime")
LICENCES = {"fashion-mnist": "MIT, Zalando SE"}  # of the images inside kdlib
TEACHERS = {
    "trained": "trained on the labels of the same training images",
    "pretrained": "pretrained on other images, then fine-tuned on the same training images",
    "given": "from a file of weights that was handed over",
    "shipped": "as it ships with kdlib",
}


def text(job: "Job") -> str:
    """The card, as Markdown: of the exported file, with what was measured on it."""
    measured, settings = job.folder.read("measure"), job.settings
    counts, classes = job.pictures.describe()["images"], job.pictures.dataset.classes
    return model_card(
        job.out / folder.STUDENT,
        _measures(job, measured),
        summary=(
            f"Tells {len(classes)} classes of images apart: {', '.join(classes)}. A {settings.student} that learned "
            f"from the answers of a larger network, on the images of {settings.shown()['data']}."
        ),
        intended_use=[
            "Images of the kind that it was trained on, from the same source, taken in the same way.",
            "Trying out and teaching; before it decides anything about people, it has to be tested for that.",
        ],
        limits=[
            "It answers with one of its classes whatever the image shows, and often confidently.",
            "Its accuracy holds for images like the test images. Other cameras, places or times were not measured.",
            f"A class that is rare among the {counts['train']:,} training images may be recognised less well than the "
            "accuracy over all says; the report shows every class.",
            *summary.sentences(measured),
        ],
        training_data=(
            f"{counts['train']:,} images of {settings.shown()['data']}, with their labels; {counts['validation']:,} "
            "more were looked at after each epoch, and nothing was chosen by them."
        ),
        data_licence=LICENCES.get(settings.data, settings.licence)
        if settings.licence == NO_LICENCE
        else settings.licence,
        evaluation_data=f"{counts['test']:,} test images, looked at once, at the end; nothing was chosen by them.",
        teacher=f"{settings.teacher_name}, {TEACHERS[settings.teacher_kind]}"
        if settings.teacher_kind != "shipped"
        else f"the teacher of {settings.data}, {TEACHERS['shipped']}",
        command=shlex.join(command_of(settings, "DIR")),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of what made the model."""
    own = {"python": platform.python_version(), "kdlib": kdlib.__version__}
    return own | {name: metadata.version(name) for name in PROGRAMS}


def _measures(job: "Job", measured: dict) -> list[Measure]:
    on = f"{measured['models']['student']['test_images']:,} test images"
    names = {
        "student": "accuracy",
        "student-int8": f"accuracy in 8 bits ({folder.INT8})",
        "labels-only": "accuracy of the same network without the teacher",
        "teacher": "accuracy of the teacher",
    }
    rows = [
        Measure(
            name, 100 * row["accuracy"], "%", 100 * row["low"], 100 * row["high"],
            "95 % over test images, one training", on,
        )
        for kind, name in names.items()
        if (row := measured["models"].get(kind))
    ]  # fmt: skip
    student = measured["models"]["student"]
    return [
        *rows,
        Measure("parameters", student["parameters"]),
        Measure("file", student["bytes"], "bytes"),
        Measure("file in 8 bits", measured["models"]["student-int8"]["bytes"], "bytes"),
        Measure("time of one image", student["milliseconds"], "ms", how=measured["timing"]),
    ]
