"""Files are written whole or not at all: the one place that does so."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write(path: Path, content: bytes | Callable[[BinaryIO], None]) -> Path:
    """Write the file, or replace an older one, in one step: nobody ever finds half of it, whatever ends the process.

    The bytes go to a file beside it, are flushed to the disk, and only then get its name. Its folder is made where
    it is missing. Two processes may write the same file at once: one of them wins.

    Args:
        path: the file.
        content: its bytes, or a function that writes them to an open file.

    Raises:
        OSError: the folder cannot be written; an older file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with open(partial, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path
