"""How far a distillation is: one line that is written over on a terminal, a line an epoch where it is none."""

import shutil
import sys
import time
from collections.abc import Callable

LONGEST_SILENCE = 60  # seconds, where every line stays


class Progress:
    """Says which stage runs, and in a training the epoch, the loss and the time that is left.

    Args:
        minutes: what each stage takes by the plan, in their order.
    """

    def __init__(self, minutes: dict[str, float]):
        self.minutes = dict(minutes)
        self.overwrites = sys.stdout.isatty()
        self._open_line = False

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._open_line:
            print()
            self._open_line = False
        print(text, flush=True)

    def begin(self, stage: str, title: str) -> None:
        """A stage begins."""
        number = [*self.minutes].index(stage) + 1
        self.say(f"[{number}/{len(self.minutes)}] {title}, about {duration(self.minutes[stage])}")
        self._stage = stage

    def of_training(self) -> Callable[[dict], None]:
        """A reporter for `kdlib.training`."""
        began, first, shown_epoch, shown_at = time.monotonic(), 0, 0, 0.0

        def report(record: dict) -> None:
            nonlocal first, shown_epoch, shown_at
            now = time.monotonic()
            first = first or record["step"]
            done = record["step"] - first
            left = (now - began) / done * (record["steps"] - record["step"]) / 60 if done else None
            if self.overwrites or record["epoch"] != shown_epoch or now - shown_at > LONGEST_SILENCE:
                self._show(record, left)
                shown_epoch, shown_at = record["epoch"], now

        return report

    def _show(self, record: dict, left: float | None) -> None:
        text = (
            f"    {self._stage}: epoch {record['epoch']}, step {record['step']:,} of {record['steps']:,}, "
            f"loss {record['loss']:.3f}"
        )
        if left is not None:
            later = [*self.minutes.values()][[*self.minutes].index(self._stage) + 1 :]
            text += f", {duration(left)} left here, {duration(left + sum(later))} in all"
        if not self.overwrites:
            print(text, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width), end="", flush=True)
        self._open_line = True


def duration(minutes: float) -> str:
    """Minutes as people say them: "40 s", "3 min", "2 h 10 min"."""
    seconds = 60 * minutes
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    if minutes < 59.5:
        return f"{round(minutes)} min"
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
