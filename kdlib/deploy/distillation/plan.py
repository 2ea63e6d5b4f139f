"""How long a distillation will take, from a few real steps, and what is left out where that is too long."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from kdlib import training
from kdlib.deploy.distillation import networks
from kdlib.deploy.distillation.folder import Folder
from kdlib.deploy.distillation.pictures import Pictures, in_memory
from kdlib.deploy.distillation.progress import duration
from kdlib.deploy.distillation.settings import Settings
from kdlib.inference import pick_device, predict_logits

FORWARD_SHARE = 1 / 3  # of a step: about twice as much goes backwards
REST = {
    "export": 0.2,
    "int8": 0.1,
    "measure": 0.3,
    "card": 0.05,
    "report": 0.05,
}  # minutes, whatever the networks


@dataclass(frozen=True)
class Speed:
    """What was measured, in seconds.

    Args:
        teacher_step, student_step: of one step of training.
        teacher_image: of the teacher's answer to one image.
        decoding: of one image, where images are decoded when they are needed.
    """

    teacher_step: float
    student_step: float
    teacher_image: float
    decoding: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What will be done: settled in the first start, and the same in every later one.

    Args:
        epochs, teacher_epochs: passes over the images.
        seeds: pairs of students.
        control: whether students without a teacher are trained for comparison.
        device, threads: where, and by how many threads; other numbers of threads round differently.
        speed: what was measured.
        minutes: what each stage takes.
        cuts: what was left out, in words.
    """

    epochs: int
    teacher_epochs: int
    seeds: int
    control: bool
    device: str
    threads: int
    speed: Speed
    minutes: dict[str, float] = field(default_factory=dict)
    cuts: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Plan":
        """What `record` wrote."""
        return cls(**{**record, "speed": Speed(**record["speed"])})

    def record(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def measure(settings: Settings, pictures: Pictures, device: torch.device) -> Speed:
    """Take a few real steps with networks of their own, which are thrown away."""
    train = pictures.dataset.train
    rows = torch.linspace(0, len(train) - 1, min(len(train), max(2, settings.batch_size))).long()
    started = time.perf_counter()
    few = in_memory(train, rows)
    decoding = (time.perf_counter() - started) / len(rows) / (os.cpu_count() or 1) if settings.stream else 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        teacher = networks.teacher(settings, pictures)
        teacher_step = 0.0
        if networks.teacher_epochs(settings):
            augment = networks.augmentation(settings, pictures)
            teacher_step = _step(teacher, few, settings.batch_size, augment, device)
        student = networks.student(settings, pictures, settings.seed)
        student_step = _step(student, few, settings.batch_size, None, device)
        answers = [_timed(lambda: predict_logits(teacher, few, device=device)) for _ in range(2)]
    return Speed(teacher_step, student_step, min(answers) / len(few), decoding)


def _step(network: nn.Module, few: Any, batch_size: int, augment: Any, device: torch.device) -> float:
    """Seconds of a step, of four that are taken: the first one warms up, and others may wait for other programs."""
    history = training.train(
        network, few, epochs=4, batch_size=max(batch_size, 2), augment=augment, progress=False, device=device
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return min(record["seconds"] for record in history.records[1:])


def _timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def make(settings: Settings, pictures: Pictures) -> Plan:
    """Measure, estimate, and cut what does not fit into the minutes that there are.

    Raises:
        ValueError: not even one epoch of each fits; networks that cannot take such images.
    """
    device = pick_device(settings.device)
    whole = Plan(
        epochs=settings.epochs, teacher_epochs=networks.teacher_epochs(settings), seeds=settings.seeds, control=True,
        device=str(device), threads=torch.get_num_threads(), speed=measure(settings, pictures, device),
    )  # fmt: skip
    return fitted(whole, settings, pictures.describe()["images"])


def fitted(plan: Plan, settings: Settings, images: Mapping[str, int]) -> Plan:
    """The plan with its minutes, cut to `--minutes`: fewer seeds first, then epochs, then no control.

    Raises:
        ValueError: one epoch of each takes longer.
    """

    change = partial(_changed, settings=settings, images=images)
    asked = plan = change(plan)
    budget = settings.minutes
    if budget is None or _total(plan) <= budget:
        return plan
    while plan.seeds > 1 and _total(plan) > budget:
        plan = change(plan, seeds=plan.seeds - 1)
    plan = _fewer_epochs(plan, change, budget, least=-(-asked.epochs // 3))
    if _total(plan) > budget:
        alone = change(asked, seeds=1, control=False)
        plan = _fewer_epochs(alone, change, budget, least=1)
    if _total(plan) > budget:
        raise ValueError(
            f"--minutes={budget:g} is too short: with one epoch of each network it takes about "
            f"{duration(_total(plan))}. Give more minutes, smaller networks, a smaller --image-size or fewer images"
        )
    return replace(plan, cuts=_cuts(asked, plan))


def _changed(plan: Plan, *, settings: Settings, images: Mapping[str, int], **what: Any) -> Plan:
    """The plan with other numbers, and the minutes that follow from them."""
    plan = replace(plan, **what)
    return replace(plan, minutes=_minutes(plan, settings, images))


def _fewer_epochs(plan: Plan, change: Callable[..., Plan], budget: float, *, least: int) -> Plan:
    """The largest share of all epochs that fits, but no fewer than `least` of the student's."""
    whole = plan
    for epochs in range(whole.epochs - 1, least - 1, -1):
        if _total(plan) <= budget:
            break
        plan = change(plan, epochs=epochs, teacher_epochs=-(-whole.teacher_epochs * epochs // whole.epochs))
    return plan


def _cuts(asked: Plan, plan: Plan) -> list[str]:
    cuts = []
    if plan.seeds < asked.seeds:
        cuts.append(f"{plan.seeds} of {asked.seeds} seeds")
    for name, whose in (("teacher_epochs", "the teacher"), ("epochs", "the student")):
        if getattr(plan, name) < getattr(asked, name):
            cuts.append(f"{getattr(plan, name)} of {getattr(asked, name)} epochs of {whose}")
    if not plan.control:
        cuts.append("no student without a teacher, so that nothing says what the teacher was good for")
    return cuts


def _total(plan: Plan) -> float:
    return sum(plan.minutes.values())


def _minutes(plan: Plan, settings: Settings, images: Mapping[str, int]) -> dict[str, float]:
    """Of every stage, in their order."""
    speed, train = plan.speed, images["train"]
    steps = -(-train // settings.batch_size)
    epoch = {
        whose: steps * step + images["validation"] * step * FORWARD_SHARE / settings.batch_size
        for whose, step in (("teacher", speed.teacher_step), ("student", speed.student_step))
    }
    decoding = train * speed.decoding
    minutes = {"teacher": plan.teacher_epochs * (epoch["teacher"] + decoding)}
    if settings.teacher_kind == "pretrained":  # the last layer first: what enters it is computed once
        minutes["teacher"] += train * (speed.teacher_image + speed.decoding)
    for seed in range(settings.seed, settings.seed + plan.seeds):
        minutes[f"answers-{seed}"] = train * max(1, settings.views) * (speed.teacher_image + speed.decoding)
        for kind in ("distilled", "labels")[: 2 if plan.control else 1]:
            minutes[f"{kind}-{seed}"] = plan.epochs * (epoch["student"] + decoding)
    everything = sum(images.values()) * (speed.teacher_image + speed.decoding)
    student = images["test"] * speed.student_step * FORWARD_SHARE / settings.batch_size
    rest = {stage: 60 * least for stage, least in REST.items()}
    rest["measure"] += everything + student * (2 + 2 * plan.seeds)
    return {stage: seconds / 60 for stage, seconds in (minutes | rest).items()}


def titles(plan: Plan, settings: Settings) -> dict[str, str]:
    """What happens in each stage, in words."""
    made = {
        "trained": f"{settings.teacher_name}, {plan.teacher_epochs} epochs from the labels",
        "pretrained": f"{settings.teacher_name}, pretrained, fine-tuned in {plan.teacher_epochs} epochs",
        "given": f"{settings.teacher_name}, from the given file",
        "shipped": "the one that ships with kdlib",
    }
    of_views = f"{settings.views} views of each image" if settings.views else "each image"
    said = {"teacher": f"teacher: {made[settings.teacher_kind]}"}
    for stage in plan.minutes:
        kind, _, seed = stage.partition("-")
        students = {
            "answers": f"the teacher's answers to {of_views}",
            "distilled": f"student: {settings.student}, {plan.epochs} epochs from the teacher",
            "labels": f"for comparison: {settings.student}, {plan.epochs} epochs from the labels alone",
        }
        if kind in students:
            said[stage] = students[kind] + (f" (seed {seed})" if plan.seeds > 1 else "")
    rest = {
        "export": "the student as ONNX",
        "int8": "the student in 8 bits",
        "measure": "accuracy, size, time and the disputed images",
        "card": "the model card",
        "report": "the report",
    }
    return said | rest


def text(plan: Plan, settings: Settings, pictures: Pictures, folder: Folder) -> str:
    """The plan as it is printed before anything long begins."""
    counts = pictures.describe()["images"]
    images = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    speed, threads = plan.speed, f"{plan.threads} thread{'s' if plan.threads > 1 else ''}"
    shape = "x".join(map(str, pictures.shape))
    lines = [
        f"{settings.student} learns from {settings.teacher_said} on {settings.shown()['data']}",
        f"  images: {images}; {shape}, {len(pictures.dataset.classes)} classes",
        f"  measured on {plan.device}, {threads}: a student's step of {settings.batch_size} images takes "
        f"{1000 * speed.student_step:.3g} ms"
        + (f", a teacher's {1000 * speed.teacher_step:.3g} ms" if speed.teacher_step else "")
        + f"; the teacher answers {1 / max(speed.teacher_image, 1e-9):,.0f} images a second",
        "",
        "Plan",
    ]
    said, left = titles(plan, settings), 0.0
    width = max(map(len, said.values()))
    for number, (stage, minutes) in enumerate(plan.minutes.items(), start=1):
        is_done = folder.has(stage)
        left += 0 if is_done else minutes
        lines.append(
            f"  {number:2} {said[stage]:{width}}  {'done' if is_done else f'about {duration(minutes)}'}"
        )
    lines.append(f"  about {duration(left)} in all on this machine, if it does nothing else")
    if plan.cuts:
        lines.append(f"  cut to fit --minutes={settings.minutes:g}: {'; '.join(plan.cuts)}")
    if plan.control and plan.seeds == 1:
        lines.append(
            "  one seed: the difference that the teacher makes will have no interval over seeds; --seeds 3 or more "
            "gives one"
        )
    return "\n".join(lines)
