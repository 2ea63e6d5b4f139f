"""The options of `kdlib distill`, and what happens between its start and its end."""

import argparse
import os
import shlex
import sys
from dataclasses import fields
from pathlib import Path

from kdlib.deploy.distillation.settings import Settings, flag

DESCRIPTION = (
    "Train or fine-tune a teacher on your images, distil it into a student, export the student as ONNX and in 8 bits, "
    "measure all of them, and write a model card and a report. The plan with its minutes is printed first. What is "
    "done is kept in DIR: after Ctrl-C, or a kill, `kdlib distill --out DIR` goes on and ends with the same student."
)


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the command to those of `kdlib`; its parser."""
    parser = commands.add_parser(
        "distill",
        help="from images to a student: trained, exported, measured, described",
        description=DESCRIPTION,
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="a folder of its own for the results")
    for one in fields(Settings):
        how = dict(one.metadata)
        says = how["says"]
        if how["kind"] is bool:
            parser.add_argument(flag(one.name), action="store_const", const=True, help=says)
            continue
        if isinstance(one.default, int | float):
            says = f"{says}; default: {one.default:g}"
        parser.add_argument(flag(one.name), type=how["kind"], metavar=how["metavar"], help=says)
    return parser


def run(options: argparse.Namespace) -> int:
    """Distil; the exit status.

    Raises:
        ValueError, OSError: it cannot begin or go on; what is done is kept.
    """
    given = {one.name: getattr(options, one.name) for one in fields(Settings)}
    given = {name: value for name, value in given.items() if value is not None}
    out = Path(options.out)
    settings = Settings(**_with_whole_paths(given)) if given else None
    from kdlib.deploy.distillation import folder, summary

    _refuse_inside_data(out, settings)
    place = folder.Folder(out)
    if settings is None:
        place.refuse_nothing()
    try:
        with place.held() as held:
            chosen = held.settle(settings)
            if held.is_finished:
                print("All of this is done already.", flush=True)
            else:
                from kdlib.deploy.distillation import stages  # torch and all: seconds

                stages.distill(held, chosen)
            print(f"\n{summary.ending(held)}", flush=True)
    except KeyboardInterrupt:
        print(
            "\nStopped; all but the epoch that was running is kept. Go on with:\n"
            f"  kdlib distill --out {shlex.quote(options.out)}",
            file=sys.stderr,
            flush=True,
        )
        return 130
    return 0


def _with_whole_paths(given: dict) -> dict:
    """Paths as they are from anywhere, so that the command can be resumed in another folder."""
    whole = dict(given)
    kind, colon, path = given.get("data", "").partition(":")
    if colon and kind == "folder" and path:
        whole["data"] = f"folder:{_whole(path)}"
    weights = given.get("teacher_weights")
    if weights is not None and not weights.startswith("wheel:"):
        whole["teacher_weights"] = _whole(weights)
        if not Path(whole["teacher_weights"]).is_file():
            raise FileNotFoundError(f"--teacher-weights={weights!r} is no file that is there")
    return whole


def _whole(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))


def _refuse_inside_data(out: Path, settings: Settings | None) -> None:
    """Results inside the folder of images would be read as images, or as a class, in the next start."""
    if settings is None or not settings.data.startswith("folder:"):
        return
    images = Path(settings.data.removeprefix("folder:"))
    if images == Path(_whole(str(out))) or images in Path(_whole(str(out))).parents:
        raise ValueError(f"--out={str(out)!r} lies inside the folder of images: give a folder beside it")
