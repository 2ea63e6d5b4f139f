"""A Dockerfile without Docker: its steps, one after the other, in a folder that stands for the container's disk."""

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import installing

# What changes the system that it runs on: noted, not done.
PRETENDED = ("useradd", "chown")
_ABSOLUTE = re.compile(r"(?<![^\s=(\"'])/(?=\w)")


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each with what stands behind its name, on one line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


@dataclass
class Container:
    """What has become of the steps so far.

    Attributes:
        disk: the folder that stands for the container's disk.
        python: the interpreter that the image brings.
        said: of the instructions that start or describe something, what they said last: USER, EXPOSE, CMD, ...
    """

    disk: Path
    python: Path
    workdir: Path = field(init=False)
    variables: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def build(self, dockerfile: Path) -> "Container":
        """Do what the Dockerfile says."""
        for name in PRETENDED:
            program = self.disk.parent / "pretended" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f'#!/bin/sh\necho {name} "$@" >> "{program.parent}/log"\n')
            program.chmod(0o755)
        self.disk.mkdir()
        for name, rest in instructions(dockerfile.read_text(encoding="utf-8")):
            step = getattr(self, f"_{name.lower()}", None)
            if step is None:
                self.said[name] = rest
            else:
                step(rest, dockerfile.parent)
        return self

    def environment(self, **variables: str) -> dict[str, str]:
        """The variables of what runs in the container."""
        environment = installing.surroundings(self.python, **self.variables, **variables)
        environment["PATH"] = os.pathsep.join([str(self.disk.parent / "pretended"), environment["PATH"]])
        return environment

    def pretended(self) -> list[str]:
        """The commands that were noted."""
        return (self.disk.parent / "pretended" / "log").read_text().splitlines()

    def inside(self, path: str) -> Path:
        """Where a path of the container is."""
        return self.disk / path.lstrip("/") if path.startswith("/") else self.workdir / path

    def command(self, name: str) -> list[str]:
        """A command in the form of a list: of CMD, or of HEALTHCHECK behind its options."""
        return json.loads(self.said[name].partition("CMD ")[2] or self.said[name])

    def _from(self, rest: str, context: Path) -> None:
        self.workdir, self.variables = self.disk, {}

    def _arg(self, rest: str, context: Path) -> None:
        name, _, value = rest.partition("=")
        self.variables[name] = value

    _env = _arg

    def _workdir(self, rest: str, context: Path) -> None:
        self.workdir = self.inside(rest)
        self.workdir.mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str, context: Path) -> None:
        *sources, target = shlex.split(rest)
        for source in sources:
            place = self.inside(target)
            if (context / source).is_dir():
                shutil.copytree(context / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(context / source, place)

    def _run(self, rest: str, context: Path) -> None:
        command = re.sub(
            r"^(--mount=\S+\s+)*", "", rest
        )  # all stages have one disk: what is mounted is there
        subprocess.run(
            ["sh", "-c", _ABSOLUTE.sub(f"{self.disk}/", command)],
            cwd=self.workdir,
            env=self.environment(PIP_NO_DEPS="1"),
            check=True,
            capture_output=True,
            text=True,
        )
