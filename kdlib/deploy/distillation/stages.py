"""What is done in a distillation, stage by stage: each one leaves its result as a whole, and is not done again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdlib import _files, training
from kdlib.data import ImageSplit
from kdlib.deploy.distillation import folder as files
from kdlib.deploy.distillation import networks, pictures, plan
from kdlib.deploy.distillation.folder import Folder
from kdlib.deploy.distillation.pictures import Pictures
from kdlib.deploy.distillation.plan import Plan
from kdlib.deploy.distillation.progress import Progress
from kdlib.deploy.distillation.settings import Settings
from kdlib.training.devices import Devices
from kdlib.training.loop import History
from kdlib.training.preparation import answering, placed, prepare

CALIBRATION_IMAGES = 512


@dataclass(frozen=True, eq=False)
class Job:
    """A distillation that is under way.

    Args:
        folder: where its results are kept.
        settings: what was chosen.
        pictures: the images.
        plan: what is done of what was chosen.
        progress: who is told how far it is.
    """

    folder: Folder
    settings: Settings
    pictures: Pictures
    plan: Plan
    progress: Progress

    @property
    def out(self) -> Path:
        return self.folder.path

    def run(self, stage: str) -> None:
        """Do a stage, unless it is done."""
        if self.folder.has(stage):
            return
        self.progress.begin(stage, plan.titles(self.plan, self.settings)[stage])
        kind, _, seed = stage.partition("-")
        record = STAGES[kind](self, int(seed)) if seed else STAGES[kind](self)
        self.folder.keep(stage, record)
        self.folder.checkpoint(stage).unlink(missing_ok=True)

    def trained_by(self, stage: str) -> dict[str, Any]:
        """What every training of this stage is given."""
        return {
            "progress": self.progress.of_training(),
            "checkpoint": self.folder.checkpoint(stage),
            "device": self.plan.device,
        }

    def teacher(self) -> nn.Module:
        """The trained teacher, frozen, from its file."""
        return networks.read(self.out / files.TEACHER_WEIGHTS, networks.teacher(self.settings, self.pictures))

    def student(self, stage: str) -> nn.Module:
        """A trained student, in eval mode, from its file."""
        seed = int(stage.partition("-")[2])
        untrained = networks.student(self.settings, self.pictures, seed)
        return networks.read(self.folder.weights(stage), untrained).network

    @property
    def seeds(self) -> list[int]:
        """One for each pair of students; the first one's distilled student is the one that is exported."""
        return [*range(self.settings.seed, self.settings.seed + self.plan.seeds)]


def distill(folder: Folder, settings: Settings) -> None:
    """Do what is not done yet.

    Raises:
        ValueError, OSError: images or networks that do not fit, or images that have changed since the first start.
        KeyboardInterrupt: somebody stopped it; the state is kept.
    """
    print("Reading the images ...", flush=True)
    found = pictures.read(settings)
    _refuse_other_images(folder, found)
    for line in [*found.notes, *_skipped(found)]:
        print(f"  note: {line}", flush=True)
    if folder.has("plan"):
        made = Plan.read(folder.read("plan"))
    else:
        print("Measuring a few steps ...", flush=True)
        made = plan.make(settings, found)
        folder.keep("data", found.describe())
        folder.keep("plan", made.record())
    print(plan.text(made, settings, found, folder) + "\n", flush=True)
    job = Job(folder, settings, found, made, Progress(made.minutes))
    with _reproducible(made):
        for stage in made.minutes:
            job.run(stage)


def _refuse_other_images(folder: Folder, found: Pictures) -> None:
    if not folder.has("plan"):
        return
    before, now = folder.read("data"), found.describe()
    for name in ("classes", "shape", "images", "mean", "std", "digests"):
        if before[name] != now[name]:
            raise ValueError(
                f"the images are not those that this distillation began with: their {name} were {before[name]} and are "
                f"{now[name]}. Give another --out, or delete {folder.path} to start afresh"
            )


def _skipped(found: Pictures) -> list[str]:
    if not found.skipped:
        return []
    first = next(iter(found.skipped))
    count = len(found.skipped)
    return [f"{count} broken file{'s' if count > 1 else ''} left out, such as {first}; the report lists them"]


@contextmanager
def _reproducible(made: Plan) -> Iterator[None]:
    """The same numbers in every start: as many threads as in the first one, and no faster, random kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(made.threads)
    on_cuda = made.device.startswith("cuda")
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    if on_cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if on_cuda:
            torch.use_deterministic_algorithms(was_deterministic)


def _teacher(job: Job) -> dict[str, Any]:
    network = networks.teacher(job.settings, job.pictures)
    history = History()
    if job.plan.teacher_epochs:
        history = networks.train_teacher(
            network, job.settings, job.pictures, epochs=job.plan.teacher_epochs, **job.trained_by("teacher")
        )
        _raise_if_interrupted(history)
    dataset = job.pictures.dataset  # as which it sees them, unless it carries a preprocessing of its own
    says = {"name": job.settings.teacher_name, "mean": dataset.mean.tolist(), "std": dataset.std.tolist()}
    networks.write(job.out / files.TEACHER_WEIGHTS, network, **says)
    return {"records": history.records}


def _answers(job: Job, seed: int) -> dict[str, Any]:
    """Ask the teacher beforehand, so that its answers are kept and a student's training only looks them up."""
    student = networks.student(job.settings, job.pictures, seed)
    recipe = {name: value for name, value in _recipe(job, seed).items() if name != "validation"}
    teacher, where = job.teacher(), Devices(torch.device(job.plan.device))
    _, batches, _ = prepare(
        student,
        job.pictures.dataset.train,
        where,
        bfloat16=None,
        weight_decay=training.WEIGHT_DECAY,
        **recipe,
    )
    with placed(teacher, batches.device):
        return {"answers": answering(teacher, batches, ()).describe()}


def _recipe(job: Job, seed: int) -> dict[str, Any]:
    """What both students of a pair are trained by."""
    return {
        "epochs": job.plan.epochs,
        "batch_size": job.settings.batch_size,
        "learning_rate": job.settings.learning_rate,
        "seed": seed,
        "augment": networks.augmentation(job.settings, job.pictures),
        "views": job.settings.views or None,
        "validation": job.pictures.dataset.validation,
    }


def _distilled(job: Job, seed: int) -> dict[str, Any]:
    student = networks.student(job.settings, job.pictures, seed)
    history = training.distill(
        student, job.teacher(), job.pictures.dataset.train, temperature=job.settings.temperature,
        alpha=job.settings.alpha, **_recipe(job, seed), **job.trained_by(f"distilled-{seed}"),
    )  # fmt: skip
    return _kept(job, f"distilled-{seed}", student, history)


def _labels(job: Job, seed: int) -> dict[str, Any]:
    student = networks.student(job.settings, job.pictures, seed)
    history = training.train(
        student, job.pictures.dataset.train, **_recipe(job, seed), **job.trained_by(f"labels-{seed}")
    )
    return _kept(job, f"labels-{seed}", student, history)


def _kept(job: Job, stage: str, student: nn.Module, history: History) -> dict[str, Any]:
    _raise_if_interrupted(history)
    dataset = job.pictures.dataset
    says = {"name": job.settings.student, "mean": dataset.mean.tolist(), "std": dataset.std.tolist()}
    networks.write(job.folder.weights(stage), student, **says)
    return {"records": history.records}


def _raise_if_interrupted(history: History) -> None:
    if history.interrupted:
        raise KeyboardInterrupt


def _export(job: Job) -> dict[str, Any]:
    from kdlib.deploy.export import export_onnx

    stage = f"distilled-{job.settings.seed}"
    dataset = job.pictures.dataset
    _files.write(job.out / files.STUDENT_WEIGHTS, job.folder.weights(stage).read_bytes())
    export_onnx(
        job.student(stage), job.out / files.STUDENT, image_shape=job.pictures.shape, classes=dataset.classes,
        mean=dataset.mean, std=dataset.std, name=f"{job.settings.student}, distilled",
    )  # fmt: skip
    return {"file": files.STUDENT}


def _int8(job: Job) -> dict[str, Any]:
    from kdlib.deploy.quantization import quantize

    images = calibration(job.pictures.dataset.train)
    name = f"{job.settings.student}, distilled, in 8 bits"
    quantize(job.out / files.STUDENT, job.out / files.INT8, images, name=name)
    return {"file": files.INT8, "calibration_images": len(images)}


def calibration(train: ImageSplit) -> ImageSplit:
    """Training images, of every class its share, from which the ranges of the numbers in 8 bits are read."""
    chosen = train.take(min(CALIBRATION_IMAGES, len(train)), seed=0)
    return pictures.in_memory(chosen, torch.arange(len(chosen)))


def _measure(job: Job) -> dict[str, Any]:
    from kdlib.deploy.distillation import measures

    return measures.take(job)


def _card(job: Job) -> dict[str, Any]:
    from kdlib.deploy.distillation import card

    _files.write(job.out / files.CARD, card.text(job).encode())
    return {"file": files.CARD}


def _report(job: Job) -> dict[str, Any]:
    """The report, and last of all the results: where they are, everything else is there too."""
    from kdlib.deploy.distillation import report

    _files.write(job.out / files.REPORT, report.html(job).encode())
    _files.write(job.out / files.RESULTS, report.results(job).encode())
    return {"file": files.REPORT}


STAGES = {
    "teacher": _teacher,
    "answers": _answers,
    "distilled": _distilled,
    "labels": _labels,
    "export": _export,
    "int8": _int8,
    "measure": _measure,
    "card": _card,
    "report": _report,
}
