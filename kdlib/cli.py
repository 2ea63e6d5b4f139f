"""The commands of the workbook: `kdlib lab`, `run`, `serve`, `distill`, `train-teacher`, `build-model`, `record`,
`audit`, `doctor`.

Each command imports what it needs when it runs, so that `kdlib --help` answers at once.
Exit status: 0 all is well, 1 something failed, 2 the command could not begin, 130 interrupted.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import kdlib
from kdlib.deploy.distillation import command as distillation
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
        print(f"kdlib: error: {error}; install all parts with: pip install 'kdlib[all]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kdlib: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kdlib", description="The Distillation Workbook.")
    parser.add_argument("--version", action="version", version=f"kdlib {kdlib.__version__}")
    commands = parser.add_subparsers(title="commands", dest="name", required=True, metavar="COMMAND")

    lab = commands.add_parser(
        "lab",
        help="open JupyterLab with your own copies of the lessons",
        description="Open JupyterLab with your own copies of the lessons, in my_notebooks. Copies are made, without "
        "outputs, where there are none; one that exists is never changed.",
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
    run.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="default: every lesson of the course")
    run.add_argument("--profile", choices=NAMES, help="default: $KDLIB_PROFILE, else lesson")
    run.add_argument("--out", metavar="DIR", help="default: runs/PROFILE")
    run.add_argument("--jobs", type=int, metavar="N", help="how many at a time; default: one per core")
    run.set_defaults(command=_run)

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
    notebooks = options.notebooks or map(os.path.relpath, course.lessons(course.require_repository()))
    out = Path(options.out) if options.out else (course.repository() or Path.cwd()) / "runs" / profile
    # A run that is told to end (a job's time limit, say) ends as on Ctrl-C: summary written, no kernel left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = runner.run(list(notebooks), out=out, profile=profile, jobs=options.jobs)
    print(f"\n{runner.table(results)}\n\nwritten to {out}")
    return 0 if all(result.status == "passed" for result in results) else 1


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
