"""The README tells the truth: its links lead somewhere, its example runs, its tables are complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

from kdlib import cli

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_links_lead_to_files_that_are_there():
    targets = re.findall(r"\]\(([^)#]+)", README)
    local = [target for target in targets if "://" not in target]
    assert local and not [target for target in local if not (CHECKOUT / target).exists()]


def test_every_lesson_has_a_row():
    linked = re.findall(r"^\| \[[^]]*\]\((notebooks/[^)]+\.ipynb)\)", README, flags=re.MULTILINE)
    lessons = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
    assert linked == [path.relative_to(CHECKOUT).as_posix() for path in lessons]


def test_every_command_has_a_row():
    named = re.findall(r"^\| `kdlib ([a-z-]+)", README, flags=re.MULTILINE)
    (commands,) = (action for action in cli._parser()._actions if action.dest == "name")
    assert sorted(named) == sorted(commands.choices)


def test_examples_run_one_after_the_other_and_the_student_has_learned():
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(examples) == 2
    example = "\n".join([*examples, "print(metrics.accuracy(student, images.test))"])
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    process = subprocess.run(
        [sys.executable, "-c", example], cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    accuracies = [float(line) for line in process.stdout.splitlines() if line.startswith("0.")]
    assert len(accuracies) == 2 and all(0.7 < accuracy < 1 for accuracy in accuracies), process.stdout
