"""`kdlib grade`: what a class has handed in becomes a table, a summary and pages."""

import argparse
import os
from pathlib import Path

from kdlib import _files
from kdlib.grading import MEMORY, SECONDS


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """The command's options, which its documentation in docs/grading.md explains."""
    parser = commands.add_parser(
        "grade",
        help="grade the notebooks of a class: a table of exercises and mistakes",
        description="Grade the notebooks of a class. Each answer runs apart, with limits and without a network.",
    )
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="files, or folders of them")
    parser.add_argument("--csv", metavar="FILE", help="the table: notebook, exercise, status, mistake")
    parser.add_argument("--html", metavar="DIR", help="class.html, and a page of feedback for each learner")
    parser.add_argument("--jobs", type=int, metavar="N", help="how many at a time; default: one per core")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help=f"of computing, a notebook; default: {SECONDS}",
    )
    parser.add_argument(
        "--memory", type=int, default=MEMORY, metavar="MB", help=f"for an answer; default: {MEMORY}"
    )
    parser.add_argument(
        "--otter",
        nargs=2,
        metavar=("DIR", "LESSON"),
        help="instead: write a lesson as an assignment for otter-grader",
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Grade, or write an assignment.

    Raises:
        ValueError: options that do not go together, or bad ones.
        OSError: files that cannot be read or written.
    """
    if options.otter:
        from kdlib.grading import otter

        if options.notebooks or options.csv or options.html:
            raise ValueError("--otter writes an assignment and grades nothing: name no notebooks with it")
        for path in otter.write(Path(options.otter[0]), options.otter[1]):
            print(f"written: {path}")
        return 0
    if not options.notebooks or not options.csv:
        raise ValueError(
            "name notebooks, or folders of them, and the table to write: kdlib grade FOLDER --csv FILE"
        )
    return _grade(options)


def _grade(options: argparse.Namespace) -> int:
    if not hasattr(os, "fork"):
        raise OSError("notebooks can be graded on Linux and macOS; on Windows, in its Linux (WSL)")
    from kdlib.grading import grader, report

    grader.find(options.notebooks)
    if Path(options.csv).is_dir():
        raise ValueError(f"--csv {options.csv} is a folder: name the file of the table")
    for target in filter(None, (Path(options.csv).parent, options.html)):
        _files.writable_folder(Path(target))  # before the long computation
    graded = grader.grade(
        options.notebooks, jobs=options.jobs, seconds=options.seconds, memory=options.memory,
        report=lambda words: print(words, flush=True),
    )  # fmt: skip
    _files.write(Path(options.csv), report.table(graded.rows))
    print(f"\n{report.summary(graded)}\n\nwritten: {options.csv}")
    if options.html:
        print(f"written: {report.write_pages(graded, Path(options.html))}, and a page for each notebook")
    return 130 if graded.interrupted else 0
