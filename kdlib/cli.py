"""The commands of the workbook: `kdlib lab`, `run`, `site`, `grade`, `serve`, `distill`, `train-teacher`,
`build-model`, `record`, `audit`, `doctor`.

Each command imports what it needs when it runs, so that `kdlib --help` answers at once.
Exit status: 0 all is well, 1 something failed, 2 the command could not begin, 130 interrupted.
"""

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import kdlib
from kdlib.deploy.distillation import command as distillation
from kdlib.grading import command as grading
from kdlib.lesson.profiles import NAMES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: as on the command line, without the program's name; by default those of this process.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, OSError) as error:
        print(f"kdlib: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        part = _part_with(error.name or "")
        print(f"kdlib: error: {error}; install what is missing: pip install 'kdlib[{part}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kdlib: interrupted", file=sys.stderr)
        return 130


def _part_with(module: str) -> str:
    """The optional part of kdlib that brings a module; `all`, where none is known to."""
    from importlib import metadata

    try:
        required = metadata.requires("kdlib") or []
    except metadata.PackageNotFoundError:
        required = []
    package = module.partition(".")[0].replace("_", "-").lower()
    lines = (re.match(r"([\w-]+).*; extra == ['\"](\w+)['\"]", line) for line in required)
    parts = [line[2] for line in lines if line and line[1].lower() == package]
    return next((part for part in parts if part not in ("all", "colab")), "all")  # `colab` is a part of `lab`


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kdlib", description="The Distillation Workbook.")
    parser.add_argument("--version", action="version", version=f"kdlib {kdlib.__version__}")
    commands = parser.add_subparsers(title="commands", dest="name", required=True, metavar="COMMAND")

    lab = commands.add_parser(
        "lab",
        help="open JupyterLab with your own copies of the lessons",
        description="Open JupyterLab with your own copies of the lessons, in my_notebooks: of the repository that the "
        "current folder belongs to or, where the lessons came with kdlib, in the current folder. Copies are made, "
        "without outputs, where there are none; one that exists is never changed.",
    )
    instead = lab.add_mutually_exclusive_group()
    instead.add_argument(
        "--reset",
        nargs="+",
        metavar="LESSON",
        help="put fresh copies of these lessons there, keep yours under another name, and open nothing; "
        "02, 2, temperature, or how one of the names begins",
    )
    instead.add_argument(
        "--demo",
        metavar="LESSON",
        help="show a lesson's sliders in large type, for a class, and nothing else",
    )
    lab.add_argument("options", nargs="*", metavar="-- OPTION", help="options handed on to JupyterLab")
    lab.set_defaults(command=_lab)

    run = commands.add_parser("run", help="execute notebooks; write them, HTML and summary.json")
    run.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="files, or lessons of the course: 02, temperature; default: every lesson",
    )
    run.add_argument("--profile", choices=NAMES, help="default: $KDLIB_PROFILE, else lesson")
    run.add_argument("--out", metavar="DIR", help="default: runs/PROFILE")
    run.add_argument("--jobs", type=int, metavar="N", help="how many at a time; default: one per core")
    run.set_defaults(command=_run)

    site = commands.add_parser(
        "site",
        help="write the course as pages that need no server",
        description="Execute the lessons and write them as pages that any static host takes, and that open from a disk "
        "as well. The folder gets its name when it is whole; an earlier site in it is replaced.",
    )
    site.add_argument("--out", required=True, metavar="DIR", help="a folder that is missing, empty, or an earlier site")
    site.add_argument("--profile", choices=NAMES, help="default: $KDLIB_PROFILE, else lesson")
    site.add_argument("--from", dest="executed", metavar="DIR", help="execute nothing: take what kdlib run wrote there")
    site.add_argument("--jobs", type=int, metavar="N", help="how many lessons at a time; default: one per core")
    site.set_defaults(command=_site)

    grading.add_to(commands).set_defaults(command=_grade)

    serve = commands.add_parser("serve", help="classify pictures with exported models, on a web page")
    serve.add_argument(
        "models",
        nargs="+",
        metavar="MODEL.onnx",
        help="one, or two to see them side by side; or a folder of them",
    )
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0: any free one")
    serve.add_argument(
        "--until-input-ends",
        action="store_true",
        help="end with the standard input, too: for a program that starts the page and must not leave it behind",
    )
    serve.set_defaults(command=_serve)

    distillation.add_to(commands).set_defaults(command=_distill)

    train = commands.add_parser("train-teacher", help="train the teacher of a data set and save its weights")
    train.add_argument("dataset", metavar="DATASET", help="fashion-mnist, cifar10, folder:PATH, ...")
    train.add_argument("--root", metavar="DIR", help="where the data set lies or is downloaded to")
    train.add_argument("--out", metavar="DIR", help="default: the user's folder of teachers")
    train.add_argument("--epochs", type=int, metavar="N", help="default: the recipe's own")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    train.set_defaults(command=_train_teacher)

    build = commands.add_parser(
        "build-model", help="make a model of lesson 05 again, from all training images"
    )
    build.add_argument("names", nargs="+", metavar="NAME", help="such as distilled, or distilled-int8")
    build.add_argument("--root", metavar="DIR", help="where the 60,000 images lie or are downloaded to")
    build.set_defaults(command=_build_model)

    record = commands.add_parser("record", help="run experiments full-size and keep their tables")
    record.add_argument("names", nargs="*", metavar="NAME", help="such as lesson01-gain")
    record.add_argument("--list", action="store_true", help="list the experiments and their records")
    record.set_defaults(command=_record)

    audit = commands.add_parser("audit", help="what tutorials claim, and what is measured of it here")
    audit.add_argument(
        "numbers", nargs="*", metavar="NUMBER", help="such as A1; default: every claim of lesson 10"
    )
    audit.set_defaults(command=_audit)

    doctor = commands.add_parser("doctor", help="what is installed, what would fail, and how to mend it")
    doctor.set_defaults(command=_doctor)
    return parser


def _lab(options: argparse.Namespace) -> int:
    from kdlib.lesson import lab

    for option, value in (("--reset", options.reset), ("--demo", options.demo)):
        if value is not None and options.options:
            raise ValueError(f"{option} opens no JupyterLab that could take {' '.join(options.options)!r}")
    if options.reset is not None:
        lab.reset(options.reset)
    elif options.demo is not None:
        from kdlib.lesson import classroom

        classroom.show(options.demo)
    else:
        lab.open_lab(options.options)
    return 0


def _run(options: argparse.Namespace) -> int:
    from kdlib.lesson import course, profiles, runner

    profile = profiles.get(options.profile).name
    notebooks = course.chosen(options.notebooks)
    out = Path(options.out) if options.out else (course.repository() or Path.cwd()) / "runs" / profile
    # A run that is told to end (a job's time limit, say) ends as on Ctrl-C: summary written, no kernel left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = runner.run(notebooks, out=out, profile=profile, jobs=options.jobs)
    print(f"\n{runner.table(results)}\n\nwritten to {out}")
    return 0 if all(result.status == "passed" for result in results) else 1


def _site(options: argparse.Namespace) -> int:
    from kdlib import site

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to end, it leaves nothing behind
    try:
        written = site.build(
            options.out, executed=options.executed, profile=options.profile, jobs=options.jobs
        )
    except RuntimeError as error:
        print(f"\n{error}")
        return 1
    size = sum(path.stat().st_size for path in written) / 1e6
    print(f"\n{len(written)} files, {size:.1f} MB: open {Path(options.out, 'index.html')}")
    return 0


def _grade(options: argparse.Namespace) -> int:
    # Told to end, it ends as on Ctrl-C, with everything that it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return grading.run(options)


def _serve(options: argparse.Namespace) -> int:
    from kdlib.deploy.webapp import server

    server.serve(
        options.models, host=options.host, port=options.port, until_input_ends=options.until_input_ends
    )
    return 0


def _distill(options: argparse.Namespace) -> int:
    # Told to end (a job's time limit, say), it ends as on Ctrl-C: it says how to go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return distillation.run(options)


def _train_teacher(options: argparse.Namespace) -> int:
    from kdlib.training.teacher_recipe import train_teacher

    manifest = train_teacher(
        options.dataset, root=options.root, out=options.out, epochs=options.epochs, seed=options.seed
    )
    print(f"written: {manifest} and its weights beside it")
    return 0


def _build_model(options: argparse.Namespace) -> int:
    from kdlib.deploy import shelf

    for name in options.names:
        print(f"written: {shelf.build(name, root=options.root)} and the model beside it", flush=True)
    return 0


def _record(options: argparse.Namespace) -> int:
    from kdlib.lesson import results

    if not options.names and not options.list:
        raise ValueError("name at least one experiment, or ask for them: kdlib record --list")
    for manifest in results.record(options.names):
        print(results.provenance(manifest["name"]), flush=True)
    if options.list:
        print(results.overview())
    return 0


def _audit(options: argparse.Namespace) -> int:
    from kdlib import audit

    known = {claim.number: claim for claim in audit.claims()}
    asked = [audit.find(number).number for number in options.numbers] or list(known)
    for number in dict.fromkeys(asked):
        claim, (verdict, measured) = known[number], audit.measure(number)
        said = {"claim": claim.says, "needs": claim.needs, "measured": measured, "by": claim.by}
        print(
            f"{claim.number}  {verdict}",
            *(f"  {name:10}{words}" for name, words in said.items()),
            "",
            sep="\n",
            flush=True,
        )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from kdlib.lesson import doctor

    findings = doctor.examine()
    print(doctor.report(findings))
    return 1 if any(finding.state == doctor.BROKEN for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
