"""An optional log of a training, to be read with `tensorboard --logdir`."""

from pathlib import Path

from torch import Tensor


class TensorBoardLog:
    """Every number of an epoch's record as a scalar, and the soft targets as a histogram.

    Raises:
        ModuleNotFoundError: the package `tensorboard` is not installed.
    """

    def __init__(self, log_dir: str | Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "log_dir= needs the package tensorboard: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(str(log_dir))

    def write(self, record: dict[str, float | int], soft_targets: Tensor | None) -> None:
        epoch = int(record["epoch"])
        for name, value in record.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, epoch)
        if soft_targets is not None:
            self._writer.add_histogram("soft_targets", soft_targets, epoch)

    def close(self) -> None:
        self._writer.close()
