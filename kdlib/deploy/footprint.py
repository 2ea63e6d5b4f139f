"""What a model takes beside time: bytes on disk, parameters, multiply-adds, memory while it runs.

These numbers, peak memory apart, are exact and the same on every machine. None of them says how fast a model is:
that is measured (`kdlib.deploy.benchmark`).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdlib._checks import checked, natural_number, positive_integer
from kdlib.deploy import arguments, fresh_process, networks
from kdlib.deploy.loading import noise_images
from kdlib.inference import evaluating


@checked(path=arguments.file_to_read)
def file_size(path: str | PathLike) -> int:
    """Bytes of a model's file (1 MB = 1,000,000 bytes, 1 MiB = 1,048,576).

    Weights that an exporter left in a second file beside it are not counted; kdlib's exporters leave none there.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError, TypeError: `path` is a folder, or no path.
    """
    return path.stat().st_size


@checked(model=networks.network)
def parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters, a tensor that several layers share counted once.

    Buffers, such as the running means of batch norm, do not count. Weights that pruning has set to zero do: a
    dense layer stores and multiplies them. Modules of torch.ao that are quantised keep their weights elsewhere
    than in parameters, so measure those by `file_size`.

    Args:
        model: a network of torch.

    Raises:
        TypeError: it is none.
        ValueError: it has lazy layers that have seen no image yet.
    """
    return sum(parameter.numel() for parameter in model.parameters())


@checked(model=networks.network, image_shape=arguments.image_shape)
def multiply_adds(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Multiply-add operations (MACs) of one image through convolutions, matrix products and attention.

        MACs = FLOPs / 2,   for a convolution: out_height * out_width * out_channels
                                               * in_channels / groups * kernel_height * kernel_width

    A multiplication with the addition behind it is one MAC and two FLOPs; torch's counter
    (torch.utils.flop_counter), which is used here, counts FLOPs. Counters differ: some tools print MACs and call
    them FLOPs, a factor of two; some add biases, batch norm, activations and pooling, a few per cent of a ResNet
    and not counted here. Positions that only see padding are counted as if they were computed.

    Args:
        model: a network of torch; run once, in eval mode, and left as it was.
        image_shape: (channels, height, width); the MACs grow with height * width, the parameters do not.

    Raises:
        ValueError: the network cannot process such images, or contains no operation that is counted, as after
            quantisation: 0 would be an answer, and a wrong one.
        TypeError: `model` is no network, `image_shape` no shape.
    """
    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    images = torch.from_numpy(noise_images(image_shape)).to(place)
    # With gradients off but not in inference mode: there, convolutions pass by the counter under another name.
    # nn.MultiheadAttention's fast path is one operation that the counter does not know.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            evaluating(model),
            torch.compiler.set_stance("force_eager"),  # not compiled, behind the counter's back
            torch.no_grad(),
            FlopCounterMode(display=False) as counter,
        ):
            [*networks.unwrapped(model)][-1](images)
    except Exception as error:  # its forward is anybody's code
        raise ValueError(
            f"model cannot process images of image_shape={image_shape}: {networks.in_one_line(error)}"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    flops = counter.get_total_flops()
    if flops == 0:
        raise ValueError(
            "model runs no convolution, matrix product or attention of torch's own that could be counted; count "
            "the network from which it was made"
        )
    return flops // 2


@checked(multiply_adds=positive_integer, images=positive_integer, passes=natural_number)
def training_multiply_adds(multiply_adds: int, images: int, passes: int) -> int:
    """The multiply-adds of a training, 3 M N P: forwards once and backwards about twice as much, for every image.

    Counted, so the same on every machine. What a teacher's answers cost is not in it.

    Args:
        multiply_adds: M, of one image, as `multiply_adds` counts them.
        images: N.
        passes: P, how often each is seen.

    Raises:
        TypeError, ValueError: no whole numbers, or negative ones.
    """
    return 3 * multiply_adds * images * passes


@checked(
    path=arguments.file_to_read,
    image_shape=arguments.image_shape,
    batch_size=positive_integer,
    threads=arguments.threads,
)
def peak_memory(
    path: str | PathLike, image_shape: Sequence[int], *, batch_size: int = 1, threads: int = 1
) -> int:
    """The most memory that a fresh Python process holds while it loads a model and answers one batch, in bytes.

    This is the peak of its resident set size, everything included: the interpreter, NumPy, the runtime
    (onnxruntime for .onnx, in a process without torch; torch for .pt2 and .pt), the weights, the activations.
    Two runs differ by some per cent.

    Args:
        path: a file written by `kdlib.deploy.export`: ONNX, a torch.export program or TorchScript.
        image_shape: (channels, height, width).
        batch_size: images in the batch.
        threads: of the runtime.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the process failed; the message ends with its last words.
        NotImplementedError: the system is neither Linux nor macOS.
    """
    noise_images(image_shape, batch_size)
    fresh_process.peak_bytes()  # here only to be refused at once on a system where it cannot be read
    numbers = [str(number) for number in (*image_shape, batch_size, threads)]
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    process = subprocess.run(
        [sys.executable, "-m", "kdlib.deploy.fresh_process", str(path.resolve()), *numbers],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if process.returncode != 0:
        last = process.stderr.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
        raise ValueError(f"{path.name} could not be measured in a process of its own: {last[0]}")
    return int(process.stdout)
