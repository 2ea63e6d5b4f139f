"""Models in files, opened and fed the same way wherever they are measured.

torch is imported for the files of torch alone: the memory of a model in onnxruntime is measured without it.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from kdlib.deploy import arguments, runtime

Images = Float32[np.ndarray, "batch channels height width"]
Call = Callable[[], Any]  # runs a model once, on images that it was given beforehand
KINDS = "an ONNX file (.onnx), a torch.export program (.pt2) or a TorchScript file (.pt, .ts, .torchscript)"


def noise_images(image_shape: Sequence[int], batch_size: int = 1) -> Images:
    """float32 images of standard normal noise, as normalised pixels are; always the same.

    How long a network takes hardly depends on what its images show.

    Args:
        image_shape: (channels, height, width).
        batch_size: how many.

    Raises:
        TypeError, ValueError: `image_shape` is not (channels, height, width), all above 0; `batch_size` is below 1.
    """
    count = arguments.whole_number("batch_size", batch_size)
    shape = arguments.image_shape("image_shape", image_shape)
    arguments.check_batch(count, shape)
    return np.random.default_rng(0).standard_normal((count, *shape), dtype=np.float32)


def open_file(path: str | PathLike, *, threads: int = 1) -> Callable[[Images], Call]:
    """Load a model; what comes back makes a batch of images into a call that runs the model on it.

    Args:
        path: of the file.
        threads: for onnxruntime. torch has one number for the whole process (`torch.set_num_threads`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its name ends in none of .onnx, .pt2, .pt, .ts, .torchscript, or it holds no such model.
    """
    path = arguments.path("path", path)
    openers = {".onnx": _open_onnx, ".pt2": _open_program} | dict.fromkeys(
        (".pt", ".ts", ".torchscript"), _open_torchscript
    )
    if path.suffix not in openers:
        raise ValueError(f"path={path.name!r} must be {KINDS}")
    arguments.file_to_read("path", path)
    threads = arguments.threads("threads", threads)
    try:
        return openers[path.suffix](path, threads)
    except Exception as error:  # each library has classes of its own for what can be wrong with a file
        raise ValueError(f"path={path.name!r} cannot be loaded; it must be {KINDS}: {error}") from error


def torch_call(network: Callable, images: Any) -> Call:
    """A call of a network of torch as a server would make it: without a record for gradients.

    Args:
        network: or any other function.
        images: what it is called with.
    """
    import torch

    def call() -> Any:
        with torch.inference_mode():
            return network(images)

    return call


def _open_onnx(path: Path, threads: int) -> Callable[[Images], Call]:
    session = runtime.session(path.read_bytes(), threads=threads)
    name = session.get_inputs()[0].name

    def prepare(images: Images) -> Call:
        feed = {name: images}
        return lambda: session.run(None, feed)

    return prepare


def _open_program(path: Path, threads: int) -> Callable[[Images], Call]:
    import torch

    network = torch.export.load(path).module()
    return lambda images: torch_call(network, torch.from_numpy(images))


def _open_torchscript(path: Path, threads: int) -> Callable[[Images], Call]:
    import torch

    network = torch.jit.load(path, map_location="cpu").eval()
    return lambda images: torch_call(network, torch.from_numpy(images))
