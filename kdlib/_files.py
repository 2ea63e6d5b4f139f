"""Files are written whole or not at all, and kept for a user in one place: the module that sees to both."""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO


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
    partial = path.with_name(f"{path.name[:40]}.{os.getpid()}-{threading.get_ident()}.partial")
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


def read_weights(path: Path, manifest: Mapping[str, Any], whose: str) -> bytes:
    """The weights that lie beside their manifest.

    Raises:
        ValueError: they are not those that it names by `sha256` and `bytes`; it says by which `command` they are made.
    """
    weights = path.read_bytes() if path.exists() else b""
    digest = hashlib.sha256(weights).hexdigest()
    if digest != manifest["sha256"]:
        raise ValueError(
            f"the weights of {whose} are damaged: {path.name} has {len(weights)} bytes and sha256 "
            f"{digest}, its manifest says {manifest['bytes']} bytes and {manifest['sha256']}. Restore the "
            f"file, or train it again: {manifest['command']}"
        )
    return weights


def writable_folder(folder: Path) -> Path:
    """The folder, made where it is missing, after a file could be written into it.

    Raises:
        OSError: it cannot be made or written, which is better known before a long computation than after it.
    """
    write(folder / ".kdlib-writable", b"").unlink(missing_ok=True)  # two may begin at once
    return folder


def cache_folder() -> Path | None:
    """Where this user keeps what can be fetched or computed again; None for a user without a home folder."""
    from platformdirs import user_cache_path

    return _kept_by_user(user_cache_path)


def data_folder() -> Path | None:
    """Where this user keeps what nobody can restore; None for a user without a home folder."""
    from platformdirs import user_data_path

    return _kept_by_user(user_data_path)


def _kept_by_user(find: Callable[..., Path]) -> Path | None:
    try:
        # Without appauthor=False, Windows keeps a folder "kdlib" inside a folder "kdlib".
        folder = find("kdlib", appauthor=False)
    except (RuntimeError, KeyError):  # neither HOME nor an entry in the password file
        return None
    # Older versions of platformdirs leave "~" as it is, and a folder of that name would be made here.
    return folder if folder.is_absolute() else None
