"""A folder of photographs looked at before anything is trained: what is in it, what is broken, what is there twice.

    found = survey("folder:PATH")
    found                                  # displays itself
    found.files                            # a pandas table, a row a file
    found.near(6)                          # pairs of files that look alike

`kdlib.data.cleaning` says which files to keep, `kdlib.data.disputes` which labels a network does not believe.
"""

import hashlib
import html
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kdlib._checks import checked
from kdlib.data import pixels
from kdlib.data.folders import PREFIX, SUFFIXES, entries
from kdlib.data.likeness import alike, difference_hash

NEAR = 6  # of 64 bits: saved again or scaled, photographs differ in fewer, two photographs hardly ever do
SPLITS = ("train", "test")
SHOWN = 8  # lines of a list, before the rest is counted
_ORIENTATION = 274  # the tag of EXIF


@dataclass(frozen=True, repr=False)
class Survey:
    """What stands in a folder; it displays itself.

    Args:
        path: of the folder.
        files: a row a file. `file` is its path in the folder; `split` "train", "test" or "" and `label` its class
            follow from that; `width` and `height` as it is shown; `format` and `mode` as it is stored; `turned`:
            whether EXIF tells to turn it; `broken`: why it cannot be read, or "". Of broken files the numbers are 0.
        digests: of the pixels of each file; of a broken one "".
        hashes: the difference hash of each file, 64 bits.
        distance: how many bits two files may differ in to be shown as near duplicates.
    """

    path: Path
    files: pd.DataFrame
    digests: list[str]
    hashes: np.ndarray
    distance: int = NEAR
    _pairs: dict[int, pd.DataFrame] = field(default_factory=dict)

    @property
    def readable(self) -> np.ndarray:
        """The rows of the files that can be read."""
        return np.flatnonzero(self.files["broken"] == "")

    def exact(self) -> pd.DataFrame:
        """Pairs of files with the same pixels: of each group the first with every other one."""
        first: dict[str, int] = {}
        pairs = [
            (first[digest], row)
            for row in self.readable.tolist()
            if first.setdefault(digest := self.digests[row], row) != row
        ]
        return self._described([(one, other, 0) for one, other in pairs])

    def near(self, distance: int | None = None) -> pd.DataFrame:
        """Pairs of files whose difference hashes differ in at most so many of 64 bits, and whose pixels differ.

        Those of two classes or of two splits come first, and of these the most alike. A photograph without any
        structure, such as a white page, looks like every other one of this kind.

        Args:
            distance: from 0 to 64; where not given, that of the survey.
        """
        distance = self.distance if distance is None else _distance("distance", distance)
        if distance not in self._pairs:
            found, readable = alike(self.hashes[self.readable], distance), self.readable.tolist()
            rows = ((readable[one], readable[other], bits) for one, other, bits in found)
            self._pairs[distance] = self._described(
                [pair for pair in rows if self.digests[pair[0]] != self.digests[pair[1]]]
            )
        return self._pairs[distance]

    def _described(self, pairs: list[tuple[int, int, int]]) -> pd.DataFrame:
        names, labels, splits = (self.files[column].to_numpy() for column in ("file", "label", "split"))
        table = pd.DataFrame(
            [
                (names[one], names[other], bits, labels[one] != labels[other], splits[one] != splits[other])
                for one, other, bits in pairs
            ],
            columns=["file", "other", "bits", "two classes", "two splits"],
        )
        table = table.astype({"two classes": bool, "two splits": bool})
        order = ["two classes", "two splits", "bits", "file", "other"]
        return table.sort_values(order, ascending=[False, False, True, True, True], ignore_index=True)

    def parts(self) -> list[tuple[str, pd.DataFrame | str]]:
        """What is displayed: headings, each with a table or a sentence."""
        good = self.files.iloc[self.readable]
        twins, near = self.exact(), self.near()
        shown = [
            (
                f"{len(self.files):,} files in {self.path.name}, {len(good):,} of them can be read",
                self._balance(),
            )
        ]
        if len(good):
            shown += [("Sizes", _sizes(good)), ("How they are stored", _kinds(good))]
        turned = int(good["turned"].sum())
        if turned:
            shown.append(
                (
                    "EXIF",
                    f"{turned:,} files are to be turned before they are shown; who ignores it sees them lie",
                )
            )
        broken = self.files.loc[self.files["broken"] != "", ["file", "broken"]]
        shown.append((f"Broken: {len(broken):,}", _first(broken, "file", "broken")))
        shown.append(
            (
                f"The same pixels: {len(twins):,} pairs",
                _first(twins, "file", "other", "two classes", "two splits"),
            )
        )
        words = f"At most {self.distance} of 64 bits of the difference hash apart: {len(near):,} more pairs"
        shown.append((words, _first(near, "file", "other", "bits", "two classes", "two splits")))
        return shown

    def _balance(self) -> pd.DataFrame:
        """How many files of each class, by split where there are splits."""
        good = self.files.assign(broken=self.files["broken"] != "")
        table = good.groupby(["split", "label"], sort=True).agg(
            files=("file", "size"), broken=("broken", "sum")
        )
        table["share"] = (table["files"] / len(good)).map("{:.0%}".format)
        return table.reset_index() if good["split"].any() else table.reset_index().drop(columns="split")

    def __repr__(self) -> str:
        return "\n\n".join(f"{heading}\n{_as_text(part)}" for heading, part in self.parts())

    def _repr_html_(self) -> str:
        return "".join(f"<h4>{html.escape(heading)}</h4>{_as_html(part)}" for heading, part in self.parts())


# ------------------------------------------------------------------ the survey


def _existing_folder(name: str, value: Any) -> Path:
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{name} must be the path of a folder, got {type(value).__name__} {value!r}")
    path = Path(str(value).removeprefix(PREFIX)).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{name}={str(value)!r} is no folder that is there")
    return path


def _distance(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= 64:
        raise ValueError(f"{name} must be a whole number from 0 to 64, got {value!r}")
    return int(value)


@checked(folder=_existing_folder, near=_distance)
def survey(folder: str | PathLike, *, near: int = NEAR) -> Survey:
    """Read every image file of a folder once, and say what is in it. Nothing is changed, and nothing broken raises.

    Args:
        folder: a path, or "folder:PATH" as `kdlib.data.load` takes it: PATH/CLASS/*, or PATH/train/CLASS/* and
            PATH/test/CLASS/*. Images that lie in PATH itself are of the class "".
        near: how many of the 64 bits of the difference hash may differ between near duplicates.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no image files.
    """
    names = sorted(name for name, _ in _image_files(str(folder), "", {os.path.realpath(folder)}))
    if not names:
        raise ValueError(
            f"there are no image files in {str(folder)!r}; they end in {', '.join(sorted(SUFFIXES))}"
        )
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda name: _look_at(folder / name), names))
    files = pd.DataFrame([row for row, _, _ in rows])
    files.insert(0, "file", names)
    files.insert(1, "split", [_place(name)[0] for name in names])
    files.insert(2, "label", [_place(name)[1] for name in names])
    return Survey(
        folder, files, [digest for _, digest, _ in rows], np.array([bits for *_, bits in rows]), near
    )


def _image_files(folder: str, inside: str, visited: set[str]) -> Iterator[tuple[str, str]]:
    """The paths below the folder, and where they lead; nothing hidden, and each folder once."""
    for entry in entries(folder):
        name = f"{inside}{entry.name}"
        if entry.is_dir():
            leads_to = os.path.realpath(entry.path)
            if leads_to not in visited:
                visited.add(leads_to)
                yield from _image_files(entry.path, f"{name}/", visited)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
            yield name, entry.path


def _place(name: str) -> tuple[str, str]:
    """The split and the class of a file, from its path in the folder."""
    folders = name.split("/")[:-1]
    split = folders.pop(0) if folders and folders[0] in SPLITS else ""
    return split, folders[0] if folders else ""


def _look_at(path: Path) -> tuple[dict[str, Any], str, np.uint64]:
    """A row of the table, the digest of the pixels, and their hash."""
    row = {
        "width": 0,
        "height": 0,
        "format": "",
        "mode": "",
        "turned": False,
        "bytes": path.stat().st_size,
        "broken": "",
    }
    try:
        row |= _as_stored(path)
        values = pixels.read(path).values
    except (ValueError, OSError) as error:
        return row | {"broken": _reason(error, path)}, "", np.uint64(0)
    row |= {"height": values.shape[0], "width": values.shape[1]}
    digest = hashlib.sha256(repr(values.shape).encode() + np.ascontiguousarray(values).tobytes())
    return row, digest.hexdigest(), difference_hash(values)


def _as_stored(path: Path) -> dict[str, Any]:
    """What the head of a file says; of what cannot be opened, nothing: reading it will say why."""
    if not path.stat().st_size:
        raise ValueError("the file is empty")
    with Image.open(path) as image:
        return {
            "format": image.format,
            "mode": image.mode,
            "turned": image.getexif().get(_ORIENTATION, 1) != 1,
        }


def _reason(error: Exception, path: Path) -> str:
    """The message without the path, which stands beside it."""
    text = str(error)
    for told in (f"cannot read the image {path} ", "): replace or delete it", f" {str(path)!r}", f" {path}"):
        text = text.replace(told, "")
    return text.strip("() ")


# ------------------------------------------------------------------ how it is displayed


def _sizes(files: pd.DataFrame) -> pd.DataFrame:
    aspect = files["width"] / files["height"]
    measures = {
        "width": files["width"], "height": files["height"], "shorter side": files[["width", "height"]].min(axis=1),
        "width / height": aspect.round(2), "kB": (files["bytes"] / 1000).round(1),
    }  # fmt: skip
    quantiles = {"smallest": 0, "a quarter below": 0.25, "half": 0.5, "three quarters": 0.75, "largest": 1}
    columns = {
        words: [f"{values.quantile(share):g}" for values in measures.values()]
        for words, share in quantiles.items()
    }
    return pd.DataFrame({"": [*measures], **columns})


def _kinds(files: pd.DataFrame) -> pd.DataFrame:
    return (
        files.groupby(["format", "mode"])
        .size()
        .rename("files")
        .reset_index()
        .sort_values("files", ascending=False)
    )


def _first(table: pd.DataFrame, *columns: str) -> pd.DataFrame | str:
    """The first lines, with yes and no, and without what is no everywhere."""
    if table.empty:
        return "none"
    kept = [name for name in columns if table[name].dtype != bool or table[name].any()]
    shown = table[kept].head(SHOWN).copy()
    for name in kept:
        if shown[name].dtype == bool:
            shown[name] = np.where(shown[name], "yes", "")
    if len(table) > SHOWN:
        more = [f"... and {len(table) - SHOWN:,} more", *[""] * (len(kept) - 1)]
        shown = pd.concat([shown.astype(object), pd.DataFrame([more], columns=kept)])
    return shown


def _as_text(part: pd.DataFrame | str) -> str:
    return part if isinstance(part, str) else part.to_string(index=False)


def _as_html(part: pd.DataFrame | str) -> str:
    return f"<p>{html.escape(part)}</p>" if isinstance(part, str) else part.to_html(index=False, border=0)
