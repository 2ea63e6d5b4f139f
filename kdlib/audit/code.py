"""Claims on code: what runs, what an expression computes, what can be had. Each is tried, at a small size."""

import importlib.util
import io
import json
import tempfile
from collections.abc import Callable
from importlib import resources

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models as zoo

from kdlib import losses
from kdlib.audit._core import CODE, FAILS, HOLDS, IN_PART, UNTESTED, Finding, claim
from kdlib.audit._counts import millions
from kdlib.clinic.schedules import FallingAsFound
from kdlib.deploy import shelf

# ------------------------------------------------------------------ tutorial B


@claim(
    "B27",
    topic=CODE,
    says="Its class lets the temperature fall from 10 to 1.",
    needs="the class to keep its end",
)
def falling_temperature() -> Finding:
    schedule = FallingAsFound(10, 1, 100)
    return runs(lambda: schedule(0), "A class that keeps the same two of three arguments, at its first step")


def runs(action: Callable[[], object], words: str) -> Finding:
    """Whether something runs at all; else its error, whose first sentence says why."""
    try:
        action()
    except (RuntimeError, AttributeError) as error:
        said = str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".")
        return Finding(FAILS, f"{words}: {type(error).__name__}, {said}.")
    return Finding(HOLDS, f"{words}: it runs.")


@claim(
    "B29", topic=CODE, says="torch.distributions.kl_divergence computes the distillation loss.",
    needs="both divided by T, teacher first, then the mean over the images times T^2",
)  # fmt: skip
def distributions() -> Finding:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (size * torch.randn(64, 10, generator=draw, dtype=torch.float64) for size in (1, 8))
    temperature = 4.0
    one, other = (
        torch.distributions.Categorical(logits=logits / temperature) for logits in (teacher, student)
    )
    by_image = torch.distributions.kl_divergence(one, other)
    turned = torch.distributions.kl_divergence(other, one)
    loss = losses.soft_target_loss(student, teacher, temperature)
    ratio = (loss / by_image.mean()).item()
    verdict = HOLDS if by_image.shape == loss.shape else FAILS
    if verdict == FAILS and abs(ratio / temperature**2 - 1) < 1e-9:
        verdict = IN_PART
    words = (
        f"It gives {len(by_image)} numbers for {len(by_image)} images. The loss is {ratio:.2f} times their "
        "mean, T^2 at "
        f"T = {temperature:g}; with student and teacher exchanged the mean is "
        f"{(turned.mean() / by_image.mean()).item():.2f} "
        "times as large."
    )
    return Finding(verdict, words)


@claim(
    "B30",
    topic=CODE,
    says="TensorBoard shows the soft targets over training.",
    needs="the package tensorboard",
)
def tensorboard() -> Finding:
    """Writes the soft targets of two epochs, and reads them again."""
    if importlib.util.find_spec("tensorboard") is None:
        return Finding(UNTESTED, "The package is not installed: pip install 'kdlib[tensorboard]'.")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from kdlib.training.tensorboard import TensorBoardLog

    soft = torch.randn(100, 10, generator=torch.Generator().manual_seed(0)).softmax(1)
    with tempfile.TemporaryDirectory() as folder:
        log = TensorBoardLog(folder)
        for epoch in (1, 2):
            log.write({"epoch": epoch}, soft)
        log.close()
        read = EventAccumulator(folder, size_guidance={"histograms": 0}).Reload()  # 0: all of them
        found = read.Histograms("soft_targets") if "soft_targets" in read.Tags()["histograms"] else []
    numbers = [int(event.histogram_value.num) for event in found]
    words = (
        "Two epochs written by `training.distill(..., log_dir=)`'s own log, and read again: histograms of "
        f"{numbers} numbers."
    )
    return Finding(HOLDS if numbers == [soft.numel()] * 2 else FAILS, words)


def _had(names: dict[str, str]) -> Finding:
    """Which networks torchvision has, ready trained."""
    known = {name: path for name, path in names.items() if path in zoo.list_models(module=zoo)}
    trained = {name: list(zoo.get_model_weights(path))[0].meta["num_params"] for name, path in known.items()}
    missing = [name for name in names if name not in trained]
    verdict = HOLDS if not missing else IN_PART if trained else FAILS
    had = ", ".join(f"{name} ({millions(count)})" for name, count in trained.items()) or "none"
    return Finding(
        verdict,
        f"torchvision has, with weights: {had}"
        + (f". It has not: {', '.join(missing)}." if missing else "."),
    )


@claim(
    "B31", topic=CODE, says="Take EfficientNet-B7 or RegNetY-160 for a teacher.",
    needs="to be had with trained weights; RegNetY-160 is called RegNetY-16GF in torchvision",
)  # fmt: skip
def teachers_to_be_had() -> Finding:
    return _had({"EfficientNet-B7": "efficientnet_b7", "RegNetY-160": "regnet_y_16gf"})


@claim(
    "B32", topic=CODE, says="Take MobileNetV3, EfficientNet-Lite or CondConv for a student.",
    needs="to be had; torchvision is looked at, and other packages have the rest",
)  # fmt: skip
def students_to_be_had() -> Finding:
    return _had(
        {
            "MobileNetV3": "mobilenet_v3_small",
            "EfficientNet-Lite": "efficientnet_lite0",
            "CondConv": "condconv",
        }
    )


# ------------------------------------------------------------------ tutorial C, with tiny networks of the same shapes


@claim(
    "C1", topic=CODE, says="ResNet-18 with ImageNet's weights takes MNIST's images.",
    needs="a first layer for one channel, or the channel three times",
)  # fmt: skip
def one_channel() -> Finding:
    with torch.device("meta"):
        first = zoo.resnet18(weights=None).conv1
    layer = nn.Conv2d(first.in_channels, first.out_channels, first.kernel_size, first.stride, first.padding)
    return runs(lambda: layer(torch.ones(2, 1, 28, 28)), "Its first layer and images of one channel")


@claim(
    "C2", topic=CODE, says="Its loss subtracts the student's logits from the teacher's.",
    needs="as many classes on both sides: a new last layer for the teacher",
)  # fmt: skip
def thousand_and_ten() -> Finding:
    return runs(lambda: torch.ones(4, 10) - torch.ones(4, 1000), "Four images, 10 logits against 1,000")


def _pair() -> tuple[nn.Module, nn.Module, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 6, generator=draw), torch.arange(8) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), images, labels


def _squares(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (student - teacher).square().sum()


@claim(
    "C3", topic=CODE, says="In each step the teacher learns from its loss, then the student from its own.",
    needs=(
        "the teacher's logits detached: its backward pass has freed the graph that the student's loss "
        "reaches into"
    ),
)  # fmt: skip
def freed_graph() -> Finding:
    student, teacher, images, labels = _pair()
    answers = teacher(images)

    def step():
        F.cross_entropy(answers, labels).backward()
        (F.cross_entropy(student(images), labels) + 0.1 * _squares(student(images), answers)).backward()

    return runs(step, "One step of two tiny networks")


@claim(
    "C4", topic=CODE, says="The student's loss trains the student.",
    needs="no gradient into the teacher: else the teacher also comes to the student",
)  # fmt: skip
def gradient_into_the_teacher() -> Finding:
    student, teacher, images, _ = _pair()
    _squares(student(images), teacher(images)).backward()
    norms = [
        sum(float(p.grad.norm()) for p in net.parameters() if p.grad is not None)
        for net in (student, teacher)
    ]
    verdict = FAILS if norms[0] == 0 else HOLDS if norms[1] == 0 else IN_PART
    words = (
        f"As it stands, with the graph kept, gradients of size {norms[0]:.1f} reach the student, and "
        f"{norms[1]:.1f} its teacher."
    )
    return Finding(verdict, words)


@claim(
    "C5", topic=CODE, says="The sum of squared differences of the logits is an L2 regularisation.",
    needs="a pull of the weights towards 0; and a size that does not grow with the batch",
)  # fmt: skip
def regularisation() -> Finding:
    """Where each is smallest: the weights' own squares at 0; this one at the teacher's answers, however large."""
    half = 3 * torch.randn(32, 10, generator=torch.Generator().manual_seed(0))
    teacher = torch.cat([half, half])
    at_zero, at_teacher = (_squares(logits, teacher).item() for logits in (torch.zeros(64, 10), teacher))
    growth = at_zero / _squares(torch.zeros(32, 10), half).item()
    verdict = HOLDS if at_zero <= at_teacher else FAILS
    words = (
        f"For 64 images it is {at_zero:,.0f} where all logits are 0 and {at_teacher:.0f} where they are the "
        "teacher's: it is a "
        f"distillation loss. And it is {growth:.1f} times that of 32 such images."
    )
    return Finding(verdict, words)


# ------------------------------------------------------------------ tutorial D


@claim(
    "D24", topic=CODE, says="A web page answers with the three most probable classes.",
    needs="a model and a page that serves it: kdlib serve MODEL.onnx",
)  # fmt: skip
def page() -> Finding:
    """Asks the page for the sample pictures that it ships."""
    try:
        from kdlib.deploy.webapp.app import FIELD, create_app
        from kdlib.deploy.webapp.classifier import load
    except ModuleNotFoundError as missing:
        return Finding(UNTESTED, f"{missing.name} is not installed: pip install 'kdlib[deploy]'.")
    samples = resources.files("kdlib.deploy.webapp") / "samples"
    pictures = json.loads((samples / "samples.json").read_text(encoding="utf-8"))["pictures"]
    asked = create_app(load([shelf.path("distilled-int8")])).test_client()
    right = full = 0
    for picture in pictures:
        content = (samples / picture["file"]).read_bytes()
        answer = asked.post("/predict", data={FIELD: (io.BytesIO(content), "picture.png")}).get_json()
        first = [one["label"] for one in answer["models"][0]["predictions"]][:3]
        full, right = full + (len(first) == 3), right + (picture["label"] in first)
    words = (
        f"Asked for {len(pictures)} pictures, the page gives three classes for {full}; the right one is "
        f"among them for {right}."
    )
    return Finding(HOLDS if full == right == len(pictures) else IN_PART if full else FAILS, words)
