"""What a training computes on: one device, or whatever a `Fabric` of Lightning was made for.

`fabric=Fabric(...)` of `train`, `distill` and `match_features` chooses the device (CPU, CUDA, MPS), the precision
("32-true", "bf16-mixed", or "16-mixed" with its scaling of the loss) and the number of processes. A script for two
graphics cards, of which Fabric starts a copy for each:

    fabric = Fabric(accelerator="cuda", devices=2, strategy="ddp", precision="bf16-mixed")
    fabric.launch()
    training.distill(student, teacher, split, epochs=30, batch_size=256, fabric=fabric)

In a notebook `strategy="ddp_notebook"` starts the processes, by `fabric.launch(function)`. Sweeps are no matter of
this file: they train many small networks, one a core, and spread over machines by Dask (`kdlib.sweeps`).

Why Fabric is a door and not the loop: on one device it adds nothing, the weights are the same to the last bit, and
importing it takes longer than importing kdlib and torch together, for it looks at everything that torchmetrics and
torch's compiler offer. A step through it costs a small network a few hundredths of its time at most; `python
benchmarks/fabric.py` measures all three. So there is one loop, which asks a `Devices` for what Fabric could do for it:
the one without Fabric is plain PyTorch, and nothing of kdlib imports Fabric, not even this file.

Why the gradients are summed here and not by torch's `DistributedDataParallel`, which `Fabric.setup` would wrap around
the student: that one waits for a gradient of every weight, and layers behind a hint of FitNets get none; it does not
see the weights of a loss; and it averages over processes, whatever the number of images each of them had. What it does
better is to send the first gradients while the last ones are computed.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from kdlib._checks import positive_integer, positive_number
from kdlib.inference import pick_device

Answer = TypeVar("Answer")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
STRATEGIES = ("SingleDeviceStrategy", "DDPStrategy")


class Devices:
    """One device without Fabric, and what the loop asks of any."""

    rank, world = 0, 1
    scaled = False  # whether gradients are those of a loss that was multiplied by a large number

    def __init__(self, device: torch.device):
        self.device = device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, shows and validates."""
        return self.rank == 0

    @property
    def precision(self) -> str | None:
        """What Fabric was told, where that is more than the recipe's `bfloat16` says."""
        return None

    def autocast(self, bfloat16: bool) -> AbstractContextManager:
        """Within it, the forward pass is computed in the precision that was asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16)

    def prepared(self, optimizer: Optimizer) -> Optimizer:
        """The optimiser whose `step` is to be called."""
        return optimizer

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss."""
        loss.backward()

    def clip(self, optimizer: Optimizer, norm: float) -> None:
        """Scale the gradient of all weights together down to this norm, where it is larger."""
        nn.utils.clip_grad_norm_(_weights(optimizer), norm)

    def joined(
        self, compute: Callable[[], tuple[Tensor, ...]], optimizer: Optimizer, images: int
    ) -> tuple[tuple[Tensor, ...], int]:
        """What `compute` returns for this process's `images`, while gradients are added, for those of all
        processes: loss terms, number of images, and gradients in the weights."""
        return compute(), images

    def from_first(self, make: Callable[[], Answer]) -> Answer:
        """What `make` returns in the first process, in all of them."""
        return make()

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Give these tensors the numbers that they have in the first process."""

    def wait(self) -> None:
        """For the other processes."""

    def warn_of(self, norms: Sequence[nn.Module]) -> None:
        """Say what batch norm does in several processes, if there is any whose statistics move."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """The same, read again."""


class FabricDevice(Devices):
    """One device that a Fabric chose, in the precision that it was told."""

    def __init__(self, fabric: Any):
        super().__init__(fabric.device)
        self.fabric, self._precision = fabric, fabric.strategy.precision
        self.scaled = getattr(self._precision, "scaler", None) is not None

    @property
    def precision(self) -> str | None:
        return "16-mixed" if self._precision.precision == "16-mixed" else None

    def autocast(self, bfloat16: bool) -> AbstractContextManager:
        return self.fabric.autocast()

    def prepared(self, optimizer: Optimizer) -> Optimizer:
        return self.fabric.setup_optimizers(optimizer)

    def backward(self, loss: Tensor) -> None:
        self.fabric.backward(loss)

    def clip(self, optimizer: Optimizer, norm: float) -> None:
        # Not finite is nothing unheard of in half precision: such a step is skipped.
        self.fabric.clip_gradients(None, optimizer, max_norm=norm, error_if_nonfinite=False)

    def state(self) -> dict[str, Any]:
        return self._precision.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        self._precision.load_state_dict(state)


class Processes(FabricDevice):
    """One of several processes that a Fabric started."""

    def __init__(self, fabric: Any):
        super().__init__(fabric)
        self.rank, self.world = fabric.global_rank, fabric.world_size

    def joined(
        self, compute: Callable[[], tuple[Tensor, ...]], optimizer: Optimizer, images: int
    ) -> tuple[tuple[Tensor, ...], int]:
        weights = _weights(optimizer)
        try:
            terms = compute()
        except Exception:
            self._told(weights, math.nan)  # the others would wait for ever
            raise
        used, total = self._told(weights, images)
        if math.isnan(total):
            raise RuntimeError("another process of this training failed; its own message says why")
        trained = [weight for weight, is_used in zip(weights, used, strict=True) if is_used]
        # A mean over this process's images counts as much as they do among all.
        values = self._summed([*map(_gradient, trained), torch.stack(terms).detach()], images / total)
        for weight, gradient in zip(trained, values, strict=False):
            weight.grad.copy_(gradient)
        return terms._make(values[-1].unbind()), int(total)

    def _told(self, weights: Sequence[Tensor], images: float) -> tuple[list[bool], float]:
        """Which weights have a gradient in any process, and how many images all have together: NaN for a failure."""
        said = [*(float(weight.grad is not None) for weight in weights), float(images)]
        said = torch.tensor(said, device=self.device)
        torch.distributed.all_reduce(said)
        *used, total = said.tolist()
        return [count > 0 for count in used], total

    def _summed(self, tensors: Sequence[Tensor], share: float) -> list[Tensor]:
        """Sums over the processes, each tensor multiplied by the share of this process."""
        flat = torch.cat([tensor.flatten() for tensor in tensors]).mul_(share)
        torch.distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def from_first(self, make: Callable[[], Answer]) -> Answer:
        said = None
        if self.first:
            try:
                said = make(), None
            except Exception as error:
                self.fabric.broadcast((None, f"{type(error).__name__}: {error}"))
                raise
        answer, error = self.fabric.broadcast(said)
        if error is not None:
            raise RuntimeError(f"the first process of this training failed: {error}")
        return answer

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        firsts = self.from_first(lambda: [tensor.detach().cpu() for tensor in tensors])
        with torch.no_grad():
            for tensor, first in zip(tensors, firsts, strict=True):
                tensor.copy_(first)

    def wait(self) -> None:
        self.fabric.barrier()

    def warn_of(self, norms: Sequence[nn.Module]) -> None:
        if self.first and any(not isinstance(norm, nn.SyncBatchNorm) for norm in norms):
            warnings.warn(
                f"batch norm in {self.world} processes: each normalises its own share of a batch, so the result is "
                "not that of one process, and the statistics of the first are kept. On CUDA, "
                "torch.nn.SyncBatchNorm.convert_sync_batchnorm(model) normalises the whole batch",
                stacklevel=5,
            )


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _gradient(weight: Tensor) -> Tensor:
    """The gradient of a weight that is used in some process: 0 where it is not in this one."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def fabric_rule(name: str, value: Any) -> Any:
    """A rule for `kdlib._checks.checked`: a Fabric, of either package that carries one, or None."""
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(value).__mro__}
    if value is None or kinds & {("lightning_fabric", "Fabric"), ("lightning", "Fabric")}:
        return value
    raise TypeError(
        f"{name} must be a lightning_fabric.Fabric (pip install 'kdlib[devices]') or None, got "
        f"{type(value).__name__} {value!r:.80}"
    )


def clip_rule(name: str, value: Any) -> float | None:
    """Likewise: a number above 0, or None."""
    return None if value is None else positive_number(name, value)


rules = {"fabric": fabric_rule, "accumulate": positive_integer, "clip_norm": clip_rule}


class Chosen(NamedTuple):
    """What to compute on, and whether in bfloat16; None leaves that to `bfloat16_helps`."""

    devices: Devices
    bfloat16: bool | None


def choose(fabric: Any, device: str | torch.device | None, bfloat16: bool | None) -> Chosen:
    """From the arguments of a training.

    Raises:
        ValueError: Fabric and another argument answer the same question; or Fabric shards the weights, changes their
            type, or has not started its processes.
    """
    if fabric is None:
        return Chosen(Devices(pick_device(device)), bfloat16)
    precision = str(getattr(fabric.strategy.precision, "precision", None))
    if device is not None:
        raise ValueError(
            f"device={str(device)!r} and fabric, which computes on {fabric.device}: give one of them"
        )
    if bfloat16 is not None:
        raise ValueError(
            f"bfloat16={bfloat16} and fabric, whose precision is {precision!r}: give one of them; "
            "Fabric(precision='bf16-mixed') computes in bfloat16"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"fabric must have a precision of {', '.join(PRECISIONS)}, got {precision!r}")
    kinds = {kind.__name__ for kind in type(fabric.strategy).__mro__}
    if not kinds & {*STRATEGIES} or fabric.device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(
            "fabric must keep all weights on each device, on CPU, CUDA or MPS (one device, or strategy='ddp'), got "
            f"{type(fabric.strategy).__name__} on {fabric.device}"
        )
    if fabric.world_size == 1:
        return Chosen(FabricDevice(fabric), precision == "bf16-mixed")
    if not torch.distributed.is_initialized():
        raise ValueError(
            f"fabric has {fabric.world_size} processes to start: call fabric.launch() before training"
        )
    return Chosen(Processes(fabric), precision == "bf16-mixed")


def refuse_small_parts(images: int, steps: int, accumulate: int, world: int) -> None:
    """Every part of every batch must hold an image; `images` of an epoch make `steps` batches."""
    smallest = images // steps
    if accumulate * world > smallest:
        raise ValueError(
            f"accumulate={accumulate} on {world} device{'s' * (world > 1)} must be at most {smallest // world}: each "
            f"batch is cut into {accumulate * world} parts, and the smallest has {smallest} images"
        )


def moving_norms(modules: Sequence[nn.Module], frozen: Sequence[nn.Module]) -> list[nn.Module]:
    """Batch norm whose statistics a training changes."""
    norms = [norm for module in modules for norm in module.modules() if isinstance(norm, _BatchNorm)]
    return [norm for norm in norms if not any(norm is other for other in frozen)]
