"""A trained network as a file that runs without Python code of its own, checked against the network it came from."""

import copy
import io
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import _files
from kdlib._checks import checked, positive_number
from kdlib.deploy import files, runtime
from kdlib.deploy.description import Description
from kdlib.inference import logits_of
from kdlib.teachers import FrozenTeacher

BATCH_SIZES = (1, 2, 7)  # on which an exported file is compared; none but 2 is the size it was traced with
INPUT, OUTPUT = "images", "logits"
Numbers = Tensor | Sequence[float | int]
Run = Callable[[Tensor], Tensor]


@checked(tolerance=positive_number)
def export_onnx(
    model: nn.Module,
    path: str | PathLike,
    *,
    image_shape: Sequence[int],
    classes: Sequence[str],
    mean: Numbers,
    std: Numbers,
    name: str | None = None,
    value_range: tuple[float | int, float | int] = (0, 1),
    tolerance: float | int = 1e-4,
) -> Path:
    """Write `model` as one ONNX file for batches of any size, with what `kdlib serve` must know inside it.

    The file's input "images" is float32 (batch, channels, height, width), its output "logits" float32
    (batch, classes). Its metadata say how a picture becomes such an input (`kdlib.deploy.description`).
    Before it is written, onnxruntime runs it on batches of 1, 2 and 7 made-up pictures; its logits must be those
    of the network. The network itself is left as it is; the file holds it in eval mode, in float32.

    Args:
        model: maps images to logits, or to an object with `.logits`.
        path: the file to write; an older one is replaced in one step.
        image_shape: (channels, height, width), with 1 or 3 channels.
        classes: the names of the classes, in the order of the logits.
        mean, std: one number per channel, in units of `value_range`, as in `ImageDataset.mean`.
        name: how the model is called on the page; the name of the file where it is not given.
        value_range: what the pixel values 0 and 255 stand for.
        tolerance: the largest difference allowed, see `logit_difference`.

    Returns:
        The path.

    Raises:
        ValueError: an argument that describes no image classifier; a network that cannot process images of this
            shape or gives another number of logits than there are classes; a difference above the tolerance.
            No file is written then.
    """
    path = Path(path)
    description = _describe(path.stem if name is None else name, image_shape, classes, mean, std, value_range)
    network = _prepared(model)
    _check_output(network, description)
    program = torch.onnx.export(
        network,
        (torch.zeros(2, *description.image_shape),),
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    content = files.with_description(program.model_proto, description)
    _check_parity(
        _onnx_runner(content), network, description.image_shape, tolerance, _normalisation(description)
    )
    return _files.write(path, content)


@checked(tolerance=positive_number)
def export_program(
    model: nn.Module,
    path: str | PathLike,
    *,
    image_shape: Sequence[int],
    tolerance: float | int = 1e-4,
) -> Path:
    """Write `model` as a torch.export program (.pt2): torch runs it, without the Python code of the network.

    `torch.export.load(path).module()` maps float32 images of `image_shape`, in batches of any size, to logits.
    It carries no class names and no normalisation. Compared before it is written, and refused, as in
    `export_onnx`.

    Returns:
        The path.

    Raises:
        ValueError: the network cannot process such images, or a difference above the tolerance.
    """
    network, shape = _prepared(model), _checked_shape(image_shape)
    example = torch.zeros(2, *shape)  # of two images: torch.export would take a batch of one for a constant
    _logits(network, example)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    _check_parity(torch.export.load(buffer).module(), network, shape, tolerance, _centred)
    return _files.write(Path(path), buffer.getvalue())


@checked(tolerance=positive_number)
def export_torchscript(
    model: nn.Module,
    path: str | PathLike,
    *,
    image_shape: Sequence[int],
    tolerance: float | int = 1e-4,
) -> Path:
    """Write `model` as TorchScript, for programs that load nothing else, such as older C++ code with libtorch.

    TorchScript is deprecated, and recent versions of torch warn so at each call; the warnings are passed on.
    For anything new take `export_program` or `export_onnx`. `torch.jit.load(path)` maps float32 images to logits.
    The network is traced, so a decision that its forward takes by looking at values is frozen. Compared before
    it is written, and refused, as in `export_onnx`.

    Returns:
        The path.

    Raises:
        ValueError: the network cannot process such images, or a difference above the tolerance.
    """
    network, shape = _prepared(model), _checked_shape(image_shape)
    example = torch.zeros(2, *shape)
    _logits(network, example)
    with torch.no_grad():
        traced = torch.jit.trace(network, example)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    _check_parity(torch.jit.load(buffer), network, shape, tolerance, _centred)
    return _files.write(Path(path), buffer.getvalue())


def logit_difference(
    logits: Float[Tensor, "batch classes"], expected: Float[Tensor, "batch classes"]
) -> float:
    """max |logits - expected| / max(1, max |expected|): absolute, but relative to logits above 1.

    float32 keeps seven digits, so logits in the hundreds cannot agree to 1e-4 in absolute terms.
    """
    scale = expected.abs().max().clamp(min=1)
    return ((logits - expected).abs().max() / scale).item()


def pictures(count: int, shape: tuple[int, int, int]) -> Float32[Tensor, "count channels height width"]:
    """Made-up pictures with pixels in [0, 1]: smooth blobs of all brightnesses with some noise; always the same.

    Plain noise would leave most units of a network where no photograph puts them.
    """
    channels, height, width = shape
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    blobs = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    noise = torch.randn(count, channels, height, width, generator=generator)
    return (blobs + 0.05 * noise).clamp(0, 1)


class _Logits(nn.Module):
    """A network whose output is the tensor of logits and nothing else."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.network(images))


def _prepared(model: nn.Module) -> nn.Module:
    """A copy in eval mode, in float32, on the CPU, laid out as exporters expect it."""
    # A frozen teacher switches its network to eval mode in every forward, which an exporter cannot trace.
    network = model.network if isinstance(model, FrozenTeacher) else model
    network = copy.deepcopy(network).to("cpu", torch.float32, memory_format=torch.contiguous_format)
    return _Logits(network).eval()


def _describe(
    name: str,
    image_shape: Sequence[int],
    classes: Sequence[str],
    mean: Numbers,
    std: Numbers,
    value_range: tuple,
) -> Description:
    channels, height, width = _checked_shape(image_shape)
    mean, std, (low, high) = (tuple(map(float, numbers)) for numbers in (mean, std, value_range))
    return Description(name, tuple(classes), channels, height, width, mean, std, (low, high))


def _checked_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    shape = tuple(map(int, image_shape))
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (channels, height, width), none of them 0, got {image_shape}")
    return shape


def _logits(network: nn.Module, images: Tensor) -> Float[Tensor, "batch classes"]:
    try:
        with torch.inference_mode():
            logits = network(images)
    except RuntimeError as error:
        raise ValueError(
            f"the model cannot process images of shape {tuple(images.shape)}: {error}"
        ) from error
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(
            f"the model must return logits of shape ({len(images)}, classes) for images of shape "
            f"{tuple(images.shape)}, got {tuple(logits.shape)}"
        )
    return logits.float()


def _check_output(network: nn.Module, description: Description) -> None:
    found = _logits(network, torch.zeros(2, *description.image_shape)).shape[1]
    if found != len(description.classes):
        raise ValueError(f"classes must name every logit: {len(description.classes)} names, {found} logits")


def _onnx_runner(content: bytes) -> Run:
    session = runtime.session(content)
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _normalisation(description: Description) -> Run:
    low, high = description.value_range
    mean, std = (torch.tensor(values)[:, None, None] for values in (description.mean, description.std))
    return lambda pixels: (low + (high - low) * pixels - mean) / std


def _centred(pixels: Tensor) -> Tensor:
    """Pixels as most normalisations leave them, for a file that says nothing of its own."""
    return (pixels - 0.5) / 0.25


def _check_parity(run: Run, network: nn.Module, shape: tuple, tolerance: float, normalise: Run) -> None:
    for count in BATCH_SIZES:
        images = normalise(pictures(count, shape))
        with torch.inference_mode():
            difference = logit_difference(run(images), _logits(network, images))
        if not difference <= tolerance:  # a NaN is no agreement either
            raise ValueError(
                f"the exported model differs from the network by {difference:.2g} on a batch of {count}, more than "
                f"tolerance={tolerance:g}; nothing was written"
            )
