"""Rules for arguments (see `kdlib._checks`) that take no torch: the server and what it measures do without.

Each is given the name of an argument, for its message, and the value, and returns the value in its plain form.
"""

import errno
import math
import os
from collections.abc import Mapping, Set
from numbers import Integral
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np

MOST_VALUES = 2**28  # of an image, or of a batch of them: a gigabyte
MOST_THREADS = 1024


def whole_number(name: str, value: Any, *, least: int = 1) -> int:
    """An integer of at least `least`; NumPy's integers count, True and 2.0 do not.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {short(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {short(value)}")
    return int(value)


def image_shape(name: str, value: Any) -> tuple[int, int, int]:
    """(channels, height, width), all at least 1, of at most 2**28 values.

    Raises:
        TypeError, ValueError: it is none.
    """
    shape = listed(name, value, "(channels, height, width)")
    if len(shape) != 3 or any(size == 0 for size in shape if isinstance(size, Integral)):
        raise ValueError(f"{name} must be (channels, height, width), none of them 0, got {short(value)}")
    sizes = tuple(whole_number(f"each of {name}=(channels, height, width)", size) for size in shape)
    if math.prod(sizes) > MOST_VALUES:
        raise ValueError(f"{name} must have at most 2**28 values, got {short(value)}")
    return sizes


def check_batch(count: int, shape: tuple[int, int, int]) -> None:
    """Refuse batches that no machine of a course holds.

    Raises:
        ValueError: so many images of this shape have more than 2**28 values.
    """
    if count * math.prod(shape) > MOST_VALUES:
        raise ValueError(
            f"{short(count)} images of shape {shape} have more than 2**28 values; choose a smaller count, batch_size "
            "or batch_sizes"
        )


def threads(name: str, value: Any) -> int:
    """A number of threads: at least 1, at most 1024.

    Raises:
        TypeError, ValueError: it is none.
    """
    if whole_number(name, value) > MOST_THREADS:
        raise ValueError(f"{name} must be at most {MOST_THREADS}, got {short(value)}")
    return int(value)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A list of texts. A single text is none: its letters would be taken for the list.

    Raises:
        TypeError: it is none, or its order is not the author's, as in a set.
    """
    found = listed(name, value, "a list of texts")
    for one in found:
        text(f"each of {name}", one)
    return tuple(map(str, found))


def text(name: str, value: Any) -> str:
    """A text.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {type(value).__name__} {short(value)}")
    return value


def text_or_none(name: str, value: Any) -> str | None:
    """A text, or None for the standard one.

    Raises:
        TypeError: it is neither.
    """
    return None if value is None else text(name, value)


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """Numbers in a row, from a list, an array or a tensor (also one of shape (channels, 1, 1)).

    Raises:
        TypeError: they are none.
    """
    try:
        array = np.asarray(value.detach().tolist() if hasattr(value, "detach") else value)
    except (ValueError, NotImplementedError):  # lists of different lengths, or a tensor on the device 'meta'
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers, got {type(value).__name__} {short(value)}")
    return tuple(array.astype(float).flatten().tolist())


def path(name: str, value: Any) -> Path:
    """A path, whether something is there or not.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(
            f"{name} must be a path (str or pathlib.Path), got {type(value).__name__} {short(value)}"
        )
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise ValueError(f"{name}={os.fspath(value)!r} is no path; give the name of a file")
    return Path(value)


def paths(name: str, value: Any) -> list[Path]:
    """A list of paths. A single path is none.

    Raises:
        TypeError, ValueError: it is none.
    """
    return [path(f"each of {name}", one) for one in listed(name, value, "a list of paths")]


def file_to_write(name: str, value: Any) -> Path:
    """A path where a file can be written: below a folder that may be written, and not a folder itself.

    Folders that are missing are made when the file is written, not before.

    Raises:
        TypeError: it is no path.
        ValueError: nothing can be written there; the message says why.
    """
    file = path(name, value)
    refused = f"{name}={str(file)!r} cannot be written"
    try:
        os.lstat(file)  # an error where the name is too long, or a folder above is none or may not be entered
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ValueError(f"{refused}: {error.strerror}; choose another path") from error
    if file.is_dir():
        raise ValueError(f"{refused}: it is a folder; add the name of a file to it")
    if file.exists() and not file.is_file():
        raise ValueError(f"{refused}: it is neither a file nor free for one; choose another path")
    above = file.absolute().parents
    folder = next((folder for folder in above if folder.exists()), above[-1])
    if not folder.is_dir():
        raise ValueError(f"{refused}: {str(folder)!r} is no folder; choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{refused}: the folder {str(folder)!r} may not be written; choose another path")
    return file


def file_to_read(name: str, value: Any) -> Path:
    """The path of a file that is there.

    Raises:
        TypeError: it is no path.
        FileNotFoundError: there is nothing.
        ValueError: it is a folder.
    """
    file = path(name, value)
    try:
        os.stat(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, f"{name} names no file", str(file)) from error
    except OSError as error:
        raise ValueError(f"{name}={str(file)!r} cannot be read: {error.strerror}") from error
    if file.is_dir():
        raise ValueError(f"{name}={str(file)!r} is a folder; add the name of a file to it")
    return file


def listed(name: str, value: Any, what: str) -> tuple:
    """What is in a list: not the letters of a text, nor what is in no order of its author's."""
    try:
        if not isinstance(value, str | bytes | os.PathLike | Mapping | Set):
            return tuple(value)
    except TypeError:
        pass  # the error below says what it is
    raise TypeError(f"{name} must be {what}, got {type(value).__name__} {short(value)}")
