"""The script for somebody who has ImageNet: from a made-up folder of images to a distilled student."""

import importlib.util
import json
import re
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

pytestmark = pytest.mark.usefixtures("one_thread")
SCRIPT = Path(__file__).parents[1] / "examples" / "distill_imagenet.py"
CLASSES = ("n01440764", "n01443537")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("distill_imagenet", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def teacher_file(path, classes=2):
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=classes).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Two classes of noise of all shapes, 9 images each to learn from and 3 to be judged by, and a teacher's file."""
    folder, noise = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for part, count in (("train", 9), ("val", 3)):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                shape = (*noise.integers(30, 60, size=2), 3) if number else (40, 40)  # the first ones are grey
                pixels = noise.integers(0, 256, size=shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    teacher_file(folder / "teacher.pt")
    return folder


@pytest.fixture
def command(imagenet, tmp_path):
    """The arguments of a short run, with others in their place."""

    def arguments(**changed):
        values = {
            "--data": imagenet, "--out": tmp_path / "out", "--teacher-weights": imagenet / "teacher.pt",
            "--epochs": 2, "--batch-size": 8, "--image-size": 32, "--workers": 0,
        }  # fmt: skip
        values |= {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
        return [str(part) for pair in values.items() for part in pair if pair[1] is not None]

    return arguments


def contents(folder):
    state = torch.load(folder / "student.pt", weights_only=True)
    return state, json.loads((folder / "result.json").read_text())


def test_a_run_that_was_stopped_ends_as_one_that_was_not(script, command, tmp_path, monkeypatch, capsys):
    script.main(command(out=tmp_path / "whole"))
    epoch, calls = script.one_epoch, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(script, "one_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        script.main(command())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["checkpoint.pt"]
    monkeypatch.setattr(script, "one_epoch", epoch)
    capsys.readouterr()
    script.main([*command(), "--resume"])
    printed = capsys.readouterr().out
    assert "epoch 2:" in printed and "epoch 1:" not in printed
    (weights, result), (expected, expected_result) = contents(tmp_path / "out"), contents(tmp_path / "whole")
    assert result == expected_result and result["classes"] == 2 and result["images"] == 17
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert result["student"] * 6 % 1 == 0 and f"student {result['student']:.2%}" in printed  # of six images of val/


def test_resume_begins_where_there_is_nothing_to_go_on_from(script, command, tmp_path):
    script.main([*command(epochs=1), "--resume"])
    assert (tmp_path / "out" / "result.json").exists()


def test_a_checkpoint_is_not_overwritten_and_not_taken_for_another_training(script, command, tmp_path):
    script.main(command(epochs=1))
    checkpoint = tmp_path / "out" / "checkpoint.pt"
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match="is there already: add --resume"):
        script.main(command(epochs=1))
    with pytest.raises(ValueError, match="epochs=1, this call has epochs=3"):
        script.main([*command(epochs=3), "--resume"])
    assert checkpoint.read_bytes() == before


def test_images_are_learned_from_or_held_out_never_both_and_val_is_apart(script, imagenet):
    train, held_out, val, classes = script.splits(imagenet, 32)
    learned, looked_at = ([part.dataset.samples[row][0] for row in part.indices] for part in (train, held_out))
    assert len(learned) == 17 and len(looked_at) == 1 and classes == 2
    assert sorted(learned + looked_at) == sorted(map(str, (imagenet / "train").rglob("*.png")))
    assert sorted(path for path, _ in val.samples) == sorted(map(str, (imagenet / "val").rglob("*.png")))
    assert not torch.equal(train[0][0], train[0][0])  # another cut each time
    assert torch.equal(held_out[0][0], held_out[0][0]) and torch.equal(val[0][0], val[0][0])
    assert train[0][0].shape == val[0][0].shape == (3, 32, 32)


def test_a_step_follows_the_gradient_of_hintons_loss(script):
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(12, 4)) for _ in range(2))
    images, labels = torch.randn(6, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0, 1])
    weight = student[1].weight.detach().clone().requires_grad_()
    logits, known = F.linear(images.flatten(1), weight, student[1].bias.detach()), teacher(images).detach()
    soft = F.kl_div((logits / 5).log_softmax(1), (known / 5).softmax(1), reduction="batchmean")
    loss = 0.7 * 25 * soft + 0.3 * F.cross_entropy(logits, labels)
    loss.backward()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    before = teacher[1].weight.clone()
    mean = script.one_epoch(student, teacher, [(images, labels)], optimizer, torch.device("cpu"))
    assert mean == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(student[1].weight, weight - 0.5 * weight.grad, atol=1e-6)
    assert torch.equal(teacher[1].weight, before) and teacher[1].weight.grad is None


def test_accuracy_is_the_share_of_right_first_choices_over_batches_of_all_sizes(script):
    network = nn.Sequential(nn.Flatten())
    batches = [(torch.eye(3).view(3, 3, 1, 1), torch.tensor([0, 1, 1])), (torch.ones(1, 3, 1, 1), torch.tensor([0]))]
    assert script.accuracy(network, batches, torch.device("cpu")) == 0.75


def test_the_time_that_is_left_comes_from_the_steps_so_far(script, monkeypatch, capsys):
    clock = iter([100.0, 110.0])  # 50 steps in ten seconds
    monkeypatch.setattr(script, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    batches = [(None, torch.zeros(8))] * 1000
    assert list(script.timed(batches, epochs_left=4)) == batches
    assert capsys.readouterr().out == "40 images a second: about 0.2 hours to the end\n"  # (4000 - 50) / 5 seconds


def test_without_a_file_the_teacher_is_torchvisions_own(script, imagenet, monkeypatch):
    state = torch.load(imagenet / "teacher.pt", weights_only=True)
    theirs = types.SimpleNamespace(DEFAULT=types.SimpleNamespace(get_state_dict=lambda **_: state))
    monkeypatch.setattr(script, "ResNet18_Weights", theirs)
    teacher = script.load_teacher(None, classes=2)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())


def test_bad_input_is_refused_before_anything_is_written(script, imagenet, command, tmp_path):
    flat, odd = tmp_path / "flat", tmp_path / "odd"
    (flat / "train").mkdir(parents=True)
    for part, names in (("train", CLASSES), ("val", ("n01440764", "n99999999"))):
        for name in names:
            (odd / part / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(odd / part / name / "0.png")
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"fc.bias": torch.zeros(2)}, tmp_path / "part.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "empty.pt").touch()
    refused = [
        ({"data": tmp_path / "nowhere"}, FileNotFoundError, "no folder .*nowhere.train"),
        ({"data": flat}, FileNotFoundError, "no folder .*flat.val"),
        ({"data": odd}, ValueError, "only one of them has n01443537, n99999999"),
        ({"teacher_weights": tmp_path / "nowhere.pt"}, FileNotFoundError, "no file --teacher-weights .*nowhere.pt"),
        *(
            ({"teacher_weights": tmp_path / name}, ValueError, f"{name} is no state dict")
            for name in ("text.pt", "part.pt", "list.pt", "empty.pt")
        ),
        (
            {"teacher_weights": teacher_file(tmp_path / "more.pt", classes=3)}, ValueError,
            "the teacher knows 3 classes, but train/ has 2 folders",
        ),
        ({"batch_size": 18}, ValueError, "--batch-size 18 is more than the 17 images"),
        ({"learning_rate": -1}, ValueError, "learning rate"),
    ]  # fmt: skip
    for changed, kind, message in refused:
        with pytest.raises(kind, match=message):
            script.main(command(**changed))
        assert not (tmp_path / "out").exists(), changed


def test_numbers_that_make_no_sense_are_refused_by_the_name_of_their_argument(script, command, capsys):
    for name, value in (("epochs", 0), ("epochs", "two"), ("batch_size", 1), ("image_size", 31), ("workers", -1)):
        with pytest.raises(SystemExit):
            script.main(command(**{name: value}))
        assert f"--{name.replace('_', '-')}: must be a whole number of at least" in capsys.readouterr().err


def test_the_command_ends_with_one_line_that_says_what_is_wrong(command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *command(data=tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="^error: there is no folder .*nowhere"):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_command_that_a_lesson_gives_is_one_that_the_script_takes(script):
    given = [
        line.split()
        for lesson in sorted((SCRIPT.parents[1] / "lessons").glob("*.py"))
        for line in re.findall(r"python examples/distill_imagenet\.py ([^`]+)`", lesson.read_text(encoding="utf-8"))
    ]
    assert given
    for arguments in given:
        assert script.parse(arguments).data.name == "IMAGENET"
