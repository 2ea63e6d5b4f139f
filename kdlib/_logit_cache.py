"""A teacher's logits, kept in memory and on disk under a digest of its weights and of the images."""

import hashlib
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdlib import _files
from kdlib.data import ImageSplit
from kdlib.inference import check_steady, predict_logits, preprocessing_of

# Images whose logits are computed and kept at a time: what a process that is killed can lose.
PART = 2_000

_memory: dict[str, Tensor] = {}
_warned: set[str] = set()


def known_or_computed(
    teacher: nn.Module,
    split: ImageSplit,
    device: str | torch.device | None,
    *,
    bfloat16: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The logits of every image, read where they are known, else computed, in bfloat16 where asked for, and kept in
    `dtype`."""
    weights = _digest(teacher)
    if weights is None:
        return _computed(teacher, split, device, bfloat16, dtype, None)
    own = preprocessing_of(teacher)
    wants = "" if own is None else own.describe()
    kind = " bfloat16" * bfloat16 + " float16" * (dtype == torch.float16)
    key = hashlib.sha256(f"{weights}{wants}{kind} {split.digest()}".encode()).hexdigest()
    path = _path(key)
    logits = _memory[key] if key in _memory else _read(path)
    if logits is None or not _agrees(logits, teacher, split, device, bfloat16):
        logits = _computed(teacher, split, device, bfloat16, dtype, path)
        _write(path, logits)
        if path is not None and path.exists():
            # A process beside this one computes again what it misses.
            shutil.rmtree(_parts_of(path), ignore_errors=True)
    _memory[key] = logits
    return logits.clone()


def _computed(
    teacher: nn.Module,
    split: ImageSplit,
    device: str | torch.device | None,
    bfloat16: bool,
    dtype: torch.dtype,
    path: Path | None,
) -> Tensor:
    """The logits, part by part. What a process that was killed had kept is read; two processes may do this at once."""
    if len(split) <= PART:
        logits = _of_part(teacher, split, device, bfloat16, dtype)
    else:
        folder = None if path is None else _parts_of(path)
        rows = torch.arange(len(split)).split(PART)
        logits = torch.cat([_part(teacher, split, some, device, bfloat16, dtype, folder) for some in rows])
    check_steady("teacher", teacher, split, device, logits.float())
    return logits


def _part(
    teacher: nn.Module,
    split: ImageSplit,
    rows: Tensor,
    device: str | torch.device | None,
    bfloat16: bool,
    dtype: torch.dtype,
    folder: Path | None,
) -> Tensor:
    path = None if folder is None else folder / f"{rows[0].item()}.safetensors"
    logits, part = _read(path), split.subset(rows)
    if logits is None or not _agrees(logits, teacher, part, device, bfloat16):
        logits = _of_part(teacher, part, device, bfloat16, dtype)
        _write(path, logits)
    return logits


def _of_part(
    teacher: nn.Module,
    split: ImageSplit,
    device: str | torch.device | None,
    bfloat16: bool,
    dtype: torch.dtype,
) -> Tensor:
    logits = predict_logits(teacher, split, device=device, bfloat16=bfloat16)
    if dtype == torch.float16 and logits.abs().max() > torch.finfo(dtype).max:
        raise ValueError(
            f"dtype=torch.float16 holds numbers up to {torch.finfo(dtype).max:g}, the teacher's logits reach "
            f"{logits.abs().max().item():.4g}: keep them in float32"
        )
    return logits.to(dtype)


def _path(key: str) -> Path | None:
    folder = _files.cache_folder()
    if folder is None:
        _warn_once("teacher logits are not kept on disk: this user has no home folder")
        return None
    return folder / "logits" / f"{key}.safetensors"


def _parts_of(path: Path) -> Path:
    """The folder of what is known so far."""
    return path.with_suffix(".parts")


def _agrees(
    logits: Tensor, teacher: nn.Module, split: ImageSplit, device: str | torch.device | None, bfloat16: bool
) -> bool:
    """Ask the teacher about a few images: a digest of weights does not see a change in the code of `forward`."""
    few = torch.linspace(0, len(split) - 1, min(8, len(split))).long()
    asked = predict_logits(teacher, split.subset(few), device=device, bfloat16=bfloat16)
    if len(logits) != len(split) or asked.shape[1:] != logits.shape[1:]:
        return False
    # bfloat16 rounds each number by up to 0.4 %, in another batch differently.
    rounding = 0.05 * asked.abs().max().item() if bfloat16 else 1e-3
    return torch.allclose(asked, logits[few].float(), rtol=1e-3, atol=rounding, equal_nan=True)


def _read(path: Path | None) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path is None:
        return None
    try:
        return load_file(path)["logits"]
    except (OSError, SafetensorError, KeyError):
        return None  # absent or unreadable: computing them again is the remedy for both


def _write(path: Path | None, logits: Tensor) -> None:
    from safetensors.torch import save

    if path is None:
        return
    try:
        _files.write(path, save({"logits": logits}))
    except OSError as error:
        # A read-only home is no reason to fail: the copy in memory serves this session.
        _warn_once(f"teacher logits are not kept on disk: {error.strerror or error}")


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, stacklevel=2)


def _digest(module: nn.Module) -> str | None:
    """A digest of what a module computes: its structure as printed, and every parameter and buffer.

    None where some of that cannot be read as bytes (weights in a form of another library's own): such a teacher is
    asked each time.
    """
    digest = hashlib.sha256(repr(getattr(module, "network", module)).encode())
    try:
        for name, value in module.state_dict().items():
            digest.update(name.removeprefix("network.").encode())
            for part in _bytes_of(value):
                digest.update(part)
    except (RuntimeError, NotImplementedError, TypeError):
        return None
    return digest.hexdigest()


def _bytes_of(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _bytes_of(item)
    elif isinstance(value, Tensor):
        dense = value.detach().cpu()
        dense = dense.dequantize() if dense.is_quantized else dense
        yield dense.to_dense().reshape(-1).contiguous().view(torch.uint8).numpy()
    else:
        yield repr(value).encode()
