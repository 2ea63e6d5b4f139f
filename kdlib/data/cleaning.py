"""From a surveyed folder to one that can be trained on: without what is broken, and each photograph once."""

import shutil
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from kdlib._checks import checked
from kdlib.data.survey import Survey


def twins(survey: Survey, distance: int | None = None) -> list[list[str]]:
    """The files that show one photograph, in groups: the same pixels, or difference hashes at most so far apart.

    A file that looks like either of two others puts both into its group.

    Args:
        distance: bits, as in `Survey.near`.
    """
    leader: dict[str, str] = {}

    def first_of(file: str) -> str:
        while leader.setdefault(file, file) != file:
            file = leader[file]
        return file

    for table in (survey.exact(), survey.near(distance)):
        for one, other in zip(table["file"], table["other"], strict=True):
            low, high = sorted((first_of(one), first_of(other)))
            leader[high] = low
    groups: dict[str, list[str]] = {}
    for file in sorted(leader):
        groups.setdefault(first_of(file), []).append(file)
    return list(groups.values())


def kept(survey: Survey, distance: int | None = None) -> list[str]:
    """The files to train on and to judge by: those that can be read, of each group of twins the largest one.

    Of a group that lies in two classes none is kept, because nobody knows which of them is right; of one that lies in
    train and in test, that of test goes.

    Args:
        distance: bits, as in `Survey.near`.
    """
    files = survey.files.set_index("file")
    pixels = files["width"] * files["height"]
    left_out = set(files.index[files["broken"] != ""])
    for group in twins(survey, distance):
        best = min(group, key=lambda file: (files["split"][file] == "test", -pixels[file], file))
        in_two_classes = files["label"][group].nunique() > 1
        left_out |= set(group) if in_two_classes else {*group} - {best}
    return [file for file in files.index if file not in left_out]


def _new_folder(name: str, value: Any) -> Path:
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{name} must be the path of a folder, got {type(value).__name__} {value!r}")
    folder = Path(value).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{name}={str(value)!r} is there already: give a folder that is empty or not there yet"
        )
    return folder


@checked(out=_new_folder)
def copied(survey: Survey, files: Iterable[str], out: str | PathLike) -> Path:
    """Copy these files of the folder to the same places below `out`; the folder itself stays as it is.

    Returns:
        `out`; `kdlib.data.load(f"folder:{out}", image_size=...)` takes it.

    Raises:
        ValueError: a file that is not in the survey, or an `out` with something in it.
    """
    known, files = set(survey.files["file"]), list(files)
    unknown = [file for file in files if file not in known]
    if unknown:
        raise ValueError(f"files must be those of the survey of {survey.path}, got {unknown[0]!r}")
    for file in files:
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(survey.path / file, out / file)
    return out
