"""A data set from a folder of images with a table of labels: a class an image, or several labels, as sets of chest
X-rays have it.

The table is PATH/labels.csv: UTF-8, separated by commas, with a header, a row for each image. The case of a header
does not matter. Its columns:

- `file` (or `filename`, `image`, `Image Index`, or `Path`): the image, relative to PATH, with /. Links are followed.
- `split`: train, validation (or val) or test. Without this column the first folder of the path says it, as in
  `train/4711.png`. Where no row is for validation, the validation split is cut from the rows for training. Where
  nothing says a split at all and each image has one class, a fifth of the images becomes the test split.
- `patient` (or `Patient ID`), optional: the images of one patient must lie in one split, and a validation split
  that is cut takes whole patients, about a tenth of the images.
- the labels, in one of three forms: one column `label` (or `class`) with the name of the one class of each image;
  one column `labels` (or `Finding Labels`) with names separated by |, such as
  `Cardiomegaly|Effusion`, where blank or `No Finding` means none of them, and the classes are the sorted names (two
  that differ in their case alone, other separators, and what programs write for a blank are refused); or a column
  for each class with numbers in [0, 1], where blank means 0, and the classes have the order of the header.
  Every column that is none of the above is a class, so columns of metadata must be deleted first.

The table of NIH ChestX-ray14 becomes such a one, and CheXpert's with the columns of its findings likewise, by pandas:
`table[["Image Index", "Finding Labels", "Patient ID"]].assign(split=...).to_csv("labels.csv", index=False)`.

From a column `label` the labels become int64 (n,), otherwise float32 (n, classes). Indices are the rows of the table,
from 0 for the first below the header. Images become pixels as those of `kdlib.data.folders` do.
"""

import math
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from kdlib.data import _records, folders
from kdlib.data._records import Record
from kdlib.data.image_files import ImageFiles

NAME = "labels.csv"
_COLUMNS = {
    "file": "file", "filename": "file", "image": "file", "image index": "file", "path": "file", "split": "split",
    "patient": "patient", "patient id": "patient", "labels": "labels", "finding labels": "labels",
    "label": "label", "class": "label",
}  # fmt: skip
_NO_CLASSES = set(_COLUMNS.values())
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_WITHOUT_LABELS = "no finding"
_BLANKS = {"nan", "na", "n/a", "none", "null"}  # what programs write where there was nothing


class Row(NamedTuple):
    """A row of the table: where it stands, for messages, and its cells by the name of their column."""

    where: str
    cells: dict[str, str]


def stands_in(path: Path) -> bool:
    return os.path.isfile(path / NAME)


def find(path: Path) -> ImageFiles:
    """Read the table in `path`; no image is opened.

    Raises:
        FileNotFoundError: the table names a file that is not there.
        ValueError: a table that is not as described above, a file outside of the folder or named twice, a patient
            in two splits, class folders beside the table. The message names the line or the column.
    """
    table = path / NAME
    header, records = _records.read(table)
    _refuse_class_folders(path, records)
    columns = _columns(table, header)
    rows = [Row(where, dict(zip(columns, cells, strict=True))) for where, cells in records]
    files = _image_files(path, rows)
    splits = _splits(rows)
    patients = _patients(rows, splits) if "patient" in columns else None
    _refuse_missing_splits(table, splits, patients, cuts="label" in columns)
    classes = [name for name in columns if name not in _NO_CLASSES]
    if "label" in columns:
        classes, labels = _one_label(table, rows)
        _refuse_lonely_classes(table, classes, labels, splits)
    elif classes:
        labels = _labels_by_column(rows, classes)
        _refuse_classes_never_seen(table, classes, labels[splits == "train"])
    else:
        classes, labels = _labels_by_name(table, rows)
    return ImageFiles(
        list(map(str, files)), labels, splits, np.arange(len(rows)), classes, patients
    ).with_test()


def _refuse_class_folders(path: Path, records: Sequence[Record]) -> None:
    """Folders in train may be the patients of a table that names their images; otherwise they are classes."""
    train = path / "train"
    standing = folders.entries(train) if os.path.isdir(train) else []
    inside = [entry.name for entry in standing if folders.is_folder(entry)]
    named = {tuple(cell.split("/")[:2]) for record in records for cell in record.cells if "/" in cell}
    if inside and not any(("train", name) in named for name in inside):
        raise ValueError(
            f"{path} holds both {NAME} and folders in train ({inside[0]}, ...) from which {NAME} names no image: "
            f"remove {NAME} if the folders are the classes, and these folders if the table says the labels"
        )


def _columns(table: Path, header: list[str]) -> list[str]:
    """The header, with the columns that are no classes under the names that they have here."""
    names = [_COLUMNS.get(name.casefold(), _name(name)) for name in header]
    for position, name in enumerate(names):
        if not name:
            raise ValueError(
                f"{table}: column {position + 1} has no name: name it, or delete it (the index that pandas writes is "
                "left out by index=False)"
            )
        if name in names[:position]:
            both = f"{header[names.index(name)]!r} and {header[position]!r}"
            raise ValueError(f"{table}: the columns {both} mean the same: delete one")
    if "file" not in names:
        is_one_text = len(header) == 1 and re.search("[;\t]", header[0])
        remedy = "separate the columns by commas" if is_one_text else "name the column of the images so"
        raise ValueError(f"{table} has no column file, Image Index or Path in its header {header}: {remedy}")
    classes = [name for name in names if name not in _NO_CLASSES]
    if "label" in names and ("labels" in names or classes):
        raise ValueError(
            f"{table} has one class an image in the column {header[names.index('label')]!r}, and the columns "
            f"{[header[position] for position, name in enumerate(names) if name in ('labels', *classes)]} besides: "
            "delete these columns, or that one"
        )
    if "labels" in names and classes:
        raise ValueError(
            f"{table} has labels by name in the column {header[names.index('labels')]!r}, and the columns {classes}, "
            "which would be classes: delete these columns (also where they are metadata, such as an age), or that one"
        )
    if not {"label", "labels"} & {*names} and not classes:
        raise ValueError(
            f"{table} has no labels: add a column labels, or a column for each class, or a column label with the one "
            "class of each image"
        )
    return names


def _name(text: str) -> str:
    """The same name may be spelt with composed or with combining characters."""
    return unicodedata.normalize("NFC", text)


def _image_files(path: Path, rows: Sequence[Row]) -> list[Path]:
    files, first_named = [], {}
    for row in rows:
        name = row.cells["file"]
        if not name:
            raise ValueError(f"{row.where}: the column for the file is blank")
        inside = PurePosixPath(name)
        if "\\" in name or re.match("[a-zA-Z]:", name) or inside.is_absolute() or ".." in inside.parts:
            raise ValueError(f"{row.where}: {name!r} must be a path inside {path}, with / and without ..")
        if not os.path.isfile(path / name):
            raise FileNotFoundError(f"{row.where}: there is no file {name!r} in {path}{_near(path / name)}")
        other = first_named.setdefault(os.path.realpath(path / name), row.where)
        if other != row.where:
            raise ValueError(f"{row.where}: the file {name!r} is the one of {other}: name each file once")
        files.append(path / name)
    return files


def _near(file: Path) -> str:
    """A file whose name differs in its case or has an ending besides, for a message."""
    folder = file.parent
    if not os.path.isdir(folder) or not os.access(folder, os.R_OK):
        return ""
    wanted = file.name.casefold()
    there = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    similar = [name for name in there if wanted in (name.casefold(), os.path.splitext(name)[0].casefold())]
    return f": did you mean {similar[0]!r}?" if similar else ""


def _splits(rows: Sequence[Row]) -> np.ndarray:
    """The split of each image; where nothing says any and each image has one class, all are for train."""
    first_folders = {PurePosixPath(row.cells["file"]).parts[0] for row in rows}
    if "label" in rows[0].cells and "split" not in rows[0].cells and not first_folders & _SPLITS.keys():
        return np.full(len(rows), "train", dtype="<U10")
    return np.array([_split(row) for row in rows])


def _split(row: Row) -> str:
    if "split" in row.cells:
        word = row.cells["split"]
        if word.casefold() not in _SPLITS:
            raise ValueError(f"{row.where}: split must be train, validation or test, got {word!r}")
        return _SPLITS[word.casefold()]
    first, *below = PurePosixPath(row.cells["file"]).parts
    if not below or first not in _SPLITS:
        raise ValueError(
            f"{row.where}: nothing says to which split {row.cells['file']!r} belongs: add a column split with train, "
            "validation or test, or put the images into folders train, validation (or val) and test"
        )
    return _SPLITS[first]


def _patients(rows: Sequence[Row], splits: np.ndarray) -> Int64[np.ndarray, " n"]:
    """The patient of each image as a number."""
    first_rows: dict[str, int] = {}
    names = [_name(row.cells["patient"]) for row in rows]
    for position, (row, name) in enumerate(zip(rows, names, strict=True)):
        if not name:
            raise ValueError(f"{row.where}: the patient is blank: fill it in, or delete the column")
        first = first_rows.setdefault(name, position)
        if splits[first] != splits[position]:
            raise ValueError(
                f"patient {name!r} is in {splits[first]} ({rows[first].where}) and in {splits[position]} ({row.where})"
                ": put all images of a patient into one split, or what is learnt of the patient helps there (leakage)"
            )
    return np.array([first_rows[name] for name in names])


def _refuse_missing_splits(
    table: Path, splits: np.ndarray, patients: np.ndarray | None, *, cuts: bool
) -> None:
    for split in ("train", "test"):
        if split not in splits and not (cuts and split == "test"):
            raise ValueError(f"{table} has no image for {split}: it needs some for train and some for test")
    parts = np.arange(len(splits)) if patients is None else patients
    if "validation" not in splits and len(np.unique(parts[splits == "train"])) < 2:
        raise ValueError(
            f"{table} has one {'image' if patients is None else 'patient'} for train: add another, because the "
            "validation split is cut from these, or say which images are for validation"
        )


def _one_label(table: Path, rows: Sequence[Row]) -> tuple[list[str], Int64[np.ndarray, " n"]]:
    names = [_name(row.cells["label"]) for row in rows]
    for row, name in zip(rows, names, strict=True):
        if not name or name.casefold() in _BLANKS:
            raise ValueError(f"{row.where}: the class is blank: fill it in, or delete the row")
    classes = sorted(set(names))
    if len(classes) < 2:
        raise ValueError(f"{table} has one class, {classes[0]!r}: there is nothing to tell apart")
    _refuse_one_label_in_two_ways(table, classes)
    return classes, np.array([classes.index(name) for name in names])


def _refuse_lonely_classes(table: Path, classes: list[str], labels: np.ndarray, splits: np.ndarray) -> None:
    least = 2 if "test" in splits else 3
    counts = np.bincount(labels[splits == "train"], minlength=len(classes))
    lonely = [name for name, count in zip(classes, counts, strict=True) if count < least]
    if lonely:
        raise ValueError(
            f"{table}: the classes {lonely} have fewer than {least} images for train, from which "
            f"{'validation' if least == 2 else 'validation and test'} images are cut: add some, or delete these rows"
        )


def _labels_by_name(table: Path, rows: Sequence[Row]) -> tuple[list[str], Float32[np.ndarray, "n classes"]]:
    names = [_findings(row) for row in rows]
    classes = sorted(set().union(*names))
    if not classes:
        raise ValueError(f"{table} gives no image a label")
    _refuse_one_label_in_two_ways(table, classes)
    labels = np.array([[name in found for name in classes] for found in names], dtype=np.float32)
    return classes, labels


def _findings(row: Row) -> set[str]:
    names = {_name(name.strip()) for name in row.cells["labels"].split("|")} - {""}
    without = {name for name in names if name.casefold() == _WITHOUT_LABELS}
    if without and len(names) > 1:
        raise ValueError(f"{row.where}: {row.cells['labels']!r} means some labels and none: delete some")
    for name in names:
        if name.casefold() in _BLANKS:
            raise ValueError(f"{row.where}: the label {name!r} stands for none: leave the cell blank")
        if ";" in name or name.startswith("["):
            raise ValueError(f"{row.where}: {row.cells['labels']!r} must be names separated by |")
    return names - without


def _refuse_one_label_in_two_ways(table: Path, classes: Sequence[str]) -> None:
    spelt: dict[str, str] = {}
    for name in classes:
        parts = [part.strip() for part in name.split(",")]
        if len(parts) > 1 and set(parts) <= set(classes):
            raise ValueError(
                f"{table}: the label {name!r} consists of others: separate the labels of an image by |"
            )
        other = spelt.setdefault(name.casefold(), name)
        if other != name and len(name) > 1:  # single letters may be what is to be read
            raise ValueError(
                f"{table}: the labels {other!r} and {name!r} differ in their case alone: write them alike"
            )


def _labels_by_column(rows: Sequence[Row], classes: list[str]) -> Float32[np.ndarray, "n classes"]:
    return np.array([[_number(row, name) for name in classes] for row in rows], dtype=np.float32)


def _number(row: Row, name: str) -> float:
    text = row.cells[name]
    try:
        number = float(text or 0)
    except ValueError as error:
        raise ValueError(
            f"{row.where}: the column {name!r}, which is read as a class, holds the text {text!r}: delete the column "
            "if it is none, or write 1, 0 or a number between"
        ) from error
    if number == -1:
        raise ValueError(
            f"{row.where}: the column {name!r} holds -1 (uncertain), which is no label: write 1 or 0 for what you take "
            "it to be, or a number between, such as 0.5"
        )
    if math.isnan(number):
        raise ValueError(
            f"{row.where}: the column {name!r} holds {text}, which is not in [0, 1] as labels are: "
            "leave the cell blank where it means 0"
        )
    if not 0 <= number <= 1:
        raise ValueError(
            f"{row.where}: the column {name!r} holds {text}, which is not in [0, 1] as labels are: "
            "delete the column if it is no class"
        )
    return number


def _refuse_classes_never_seen(table: Path, classes: list[str], labels: np.ndarray) -> None:
    never = [name for name, seen in zip(classes, labels.any(axis=0), strict=True) if not seen]
    if never:
        raise ValueError(
            f"{table}: no image for train has a number above 0 in the columns {never}: delete them, or add images"
        )
