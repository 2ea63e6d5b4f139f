"""The folder of one distillation: its settings, its results, and the one process that may work in it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdlib import _files
from kdlib.deploy.distillation.settings import Settings, first_difference

SETTINGS = "settings.json"
RESULTS = "results.json"  # written last: where it is, all is done
STUDENT, INT8, STUDENT_WEIGHTS = "student.onnx", "student-int8.onnx", "student.safetensors"
TEACHER_WEIGHTS, CARD, REPORT = "teacher.safetensors", "model_card.md", "report.html"


class Folder:
    """DIR, with DIR/work for what is only needed until the end.

    Args:
        path: made where it is missing.
    """

    def __init__(self, path: Path):
        self.path, self.work = path, path / "work"

    @contextmanager
    def held(self) -> Iterator["Folder"]:
        """Keep other processes out. The system frees the lock when its process ends, however it ends.

        Raises:
            ValueError: another process works here, or other things lie here.
            OSError: the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        self._refuse_other_things()
        _files.writable_folder(self.work)
        owner, lock = self.work / "process", FileLock(self.work / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            number = owner.read_text().strip() if owner.exists() else "unknown"
            raise ValueError(
                f"another process (number {number}) works in {self.path}: wait for it, or give another --out"
            ) from error
        try:
            _files.write(owner, f"{os.getpid()}\n".encode())
            yield self
        finally:
            lock.release()

    def settle(self, given: Settings | None) -> Settings:
        """The settings of this folder: those that it has, or those that are given, which are then kept.

        Until there is a plan nothing has been done by them, and they may be replaced: a path may have been mistyped.

        Raises:
            ValueError: others are given than those that are there.
        """
        file = self.path / SETTINGS
        if given is not None and not (file.exists() and (self.has("plan") or self.is_finished)):
            _files.write(file, given.to_json().encode())
            return given
        stored = Settings.from_json(file.read_text(encoding="utf-8"))
        difference = None if given is None else first_difference(stored, given)
        if difference is not None:
            raise ValueError(
                f"{self.path} holds a distillation with other settings: {difference}. Give another --out, or go on "
                f"with the old settings by: kdlib distill --out {self.path}"
            )
        return stored

    def refuse_nothing(self) -> None:
        """There must be a distillation to go on with.

        Raises:
            ValueError: there is none.
        """
        if not (self.path / SETTINGS).is_file():
            raise ValueError(
                f"there is no distillation in {self.path} to go on with: give --data, --teacher and --student"
            )

    @property
    def is_finished(self) -> bool:
        return (self.path / RESULTS).exists()

    def has(self, stage: str) -> bool:
        """Whether a stage is done."""
        return self._record(stage).exists()

    def read(self, stage: str) -> dict[str, Any]:
        """What a stage has left."""
        return json.loads(self._record(stage).read_text(encoding="utf-8"))

    def keep(self, stage: str, record: dict[str, Any]) -> None:
        """Mark a stage as done: the last thing that it does."""
        _files.write(self._record(stage), (json.dumps(record, indent=1) + "\n").encode())

    def checkpoint(self, stage: str) -> Path:
        """Where a training keeps its state after each epoch."""
        return self.work / f"{stage}.checkpoint"

    def weights(self, stage: str) -> Path:
        """Where the weights of a student lie until the end."""
        return self.work / f"{stage}.safetensors"

    def _record(self, stage: str) -> Path:
        return self.work / f"{stage}.json"

    def _refuse_other_things(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--out={str(self.path)!r} is a file: give a folder")
        if not self.path.exists():
            return
        settings = self.path / SETTINGS
        if settings.exists():  # of another program, it may be: that is not written over
            Settings.from_json(settings.read_text(encoding="utf-8", errors="replace"))
            return
        others = sorted(entry.name for entry in self.path.iterdir() if entry.name != "work")
        if others:
            raise ValueError(
                f"--out={str(self.path)!r} holds other things already, such as {others[0]!r}: give a folder of its own"
            )
