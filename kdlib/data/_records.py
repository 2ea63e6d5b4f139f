"""A file of comma-separated values as records that know their line."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple


class Record(NamedTuple):
    """The cells of one record, without blanks around them, and where it begins, for messages."""

    where: str
    cells: list[str]


def read(table: Path) -> tuple[list[str], list[Record]]:
    """The header, and what stands below it; lines with nothing on them are left out.

    Raises:
        ValueError: it cannot be read, is not UTF-8, holds no record, or one that does not fit the header.
    """
    header, *records = _parsed(table) or [None]
    if not records:
        raise ValueError(f"{table} must have a header and at least one row below it")
    for where, cells in records:
        if len(cells) != len(header.cells):
            raise ValueError(
                f"{where}: {len(cells)} cells stand under the {len(header.cells)} columns of the header: "
                f"{_remedy(header.cells)}"
            )
    return header.cells, records


def _remedy(header: list[str]) -> str:
    """What to do about rows that do not fit the header, which spreadsheets write in several ways."""
    if re.search("[;\t]", "".join(header)):
        return "separate the columns by commas, and write decimals with a point"
    if header[0].casefold() == "sep=":
        return "delete the first line, which is for Excel alone"
    return "a text with commas in it goes between double quotes"


def _parsed(table: Path) -> list[Record]:
    lines = csv.reader(io.StringIO(_text(table), newline=""), strict=True, skipinitialspace=True)
    records, begin = [], 1
    try:
        for cells in lines:
            if cells:
                records.append(Record(f"{table}, line {begin}", [cell.strip() for cell in cells]))
            begin = lines.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{table}, line {begin}: this is no row of comma-separated values ({error})"
        ) from error
    return records


def _text(table: Path) -> str:
    try:
        content = table.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {table} ({error.strerror}): allow this user to read it") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{table}, line {line}: this is not UTF-8, save the table as CSV in UTF-8"
        ) from error
