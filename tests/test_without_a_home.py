"""A stranger's machine: no home folder, no name, nothing writable, another folder, no network; the library works."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
# Somebody without an entry in the password file, who may read everything and write nothing.
STRANGER = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
STRANGER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
OFFLINE = ["unshare", "-n"]

TAUGHT = """
import warnings
import torch
from kdlib import data, metrics, models, sweeps, teachers, training

dataset, teacher = data.load(), teachers.load()
assert metrics.accuracy(teacher, dataset.test.take(500)) > 0.9
train, test = dataset.train.take(60), dataset.test.take(40)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    logits = teachers.cached_logits(teacher, train)
    assert torch.equal(teachers.cached_logits(teacher, train), logits)
print("|".join(str(warning.message) for warning in caught if "kept" in str(warning.message)))
"""
TAUGHT_AND_SWEPT = (
    TAUGHT
    + """
student = models.build("tiny-cnn", seed=0)
history = training.distill(student, teacher, train, validation=test, epochs=1, progress=False)
assert 0 <= history.records[-1]["validation_accuracy"] <= 1
table = sweeps.run("tiny-cnn", teacher, train, test, temperatures=[4], alphas=[0, 1], seeds=[0], epochs=1,
                   workers=2, progress=False)
assert len(table) == 2 and "error" not in table and table["agreement"].notna().all()
print("done")
"""
)


def works(*prefix: str) -> bool:
    try:
        return subprocess.run([*prefix, sys.executable, "-c", "pass"], capture_output=True).returncode == 0
    except OSError:
        return False


def as_stranger(folder: Path, *arguments: str, variables: dict[str, str] | None = None):
    """Python in `folder`, without a home, a name and, where that can be had, a network."""
    if not works(*STRANGER):
        pytest.skip("only root may become a user without a name, by setpriv")
    offline = OFFLINE if works(*OFFLINE) else []
    named = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"} | (variables or {})
    command = [*offline, *STRANGER, "env", "-i", *(f"{key}={value}" for key, value in named.items())]
    return subprocess.run(
        [*command, sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def elsewhere():
    """A folder that the stranger may read and not write. Not below tmp_path, which only its owner may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        yield Path(folder)
        assert os.listdir(folder) == [], "something was left in the current folder"


def test_teachers_metrics_distillation_and_sweeps_work_without_home_name_and_permission(elsewhere):
    process = as_stranger(elsewhere, "-c", TAUGHT_AND_SWEPT)
    assert process.returncode == 0, process.stderr[-3000:]
    said, done = process.stdout.splitlines()
    assert said == "teacher logits are not kept on disk: this user has no home folder"
    assert done == "done" and "Traceback" not in process.stderr


def test_a_home_that_does_not_exist_costs_a_warning_only(elsewhere):
    process = as_stranger(elsewhere, "-c", TAUGHT, variables={"HOME": "/nonexistent"})
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.startswith("teacher logits are not kept on disk: "), process.stdout


def test_nothing_is_recorded_where_it_could_not_be_kept(elsewhere):
    process = as_stranger(elsewhere, "-m", "kdlib.cli", "record", "lesson01-gain")
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr
    assert "nothing was computed" in process.stderr and "Permission denied" in process.stderr


def test_what_cannot_be_written_is_refused_before_anything_is_trained(elsewhere):
    code = """
from kdlib import data, models, sweeps, training
train = data.load().train.take(20)
def told(**arguments):
    raise SystemExit("trained all the same")
for call in (
    lambda: training.train(models.build("tiny-cnn"), train, epochs=1, progress=lambda record: told(),
                           checkpoint="checkpoint.pt"),
    lambda: training.train(models.build("tiny-cnn"), train, epochs=1, progress=lambda record: told(), log_dir="log"),
    lambda: sweeps.run("tiny-cnn", models.build("tiny-cnn"), train, train, temperatures=[4], alphas=[1], seeds=[0],
                       epochs=1, progress=lambda *record: told(), results="results.jsonl"),
):
    try:
        call()
    except (ValueError, OSError) as error:
        print(type(error).__name__, error)
"""
    process = as_stranger(elsewhere, "-c", code)
    assert process.returncode == 0, process.stderr[-3000:]
    refusals = process.stdout.splitlines()
    for refusal, name in zip(refusals, ("checkpoint", "log", "results"), strict=True):
        assert name in refusal and ("ermission denied" in refusal or "written" in refusal), refusal
