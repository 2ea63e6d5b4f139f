"""`kdlib distill`: what it leaves behind, that it says the truth, and that a kill at any moment changes nothing."""

import base64
import contextlib
import http.client
import io
import json
import random
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import distilling
import numpy as np
import onnxruntime
import pytest
import torch
from filelock import FileLock
from PIL import Image
from serving import serving

from kdlib import _logit_cache, cli, data, models, teachers
from kdlib.deploy.distillation import charts, disputes, measures, networks, pictures, plan, settings
from kdlib.deploy.distillation.settings import Settings
from kdlib.inference import predict_logits, preprocessing_of

CHECKOUT = Path(__file__).parents[1]
CLASSES = ["bright", "dark <b>& wide", "striped"]
BROKEN = "train/dark <b>& wide/broken.png"
PRODUCTS = ["student.onnx", "student-int8.onnx", "student.safetensors", "teacher.safetensors"]
FEW_WORDS = ["--teacher", "pocket-cnn", "--student", "tiny-cnn", "--epochs", "3", "--teacher-epochs", "3"]
FEW_WORDS += ["--batch-size", "16", "--views", "2", "--learning-rate", "0.003"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Three kinds of small pictures, 14 of each to learn from and 6 to be tested on, and one broken file."""
    folder, random_numbers = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, count in (("train", 14), ("test", 6)):
        for number in range(count):
            for kind, name in enumerate(CLASSES):
                noise = random_numbers.integers(0, 60, (20, 24 + number, 3))
                pixels = {0: 180 + noise, 1: noise, 2: noise + 120 * (np.arange(20) // 3 % 2)[:, None, None]}[
                    kind
                ]
                file = folder / split / name / f"{number:02}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    (folder / BROKEN).write_bytes(b"no picture")
    return folder


def words(photographs: Path, out: Path) -> list[str]:
    where = ["--data", f"folder:{photographs}", "--image-size", "16", "--skip-broken"]
    return [*where, *FEW_WORDS, "--out", str(out)]


@pytest.fixture(scope="module")
def uninterrupted(photographs, tmp_path_factory) -> tuple[Path, str]:
    """The folder of one distillation, and what it printed."""
    folder, printed, threads = (
        tmp_path_factory.mktemp("uninterrupted"),
        io.StringIO(),
        torch.get_num_threads(),
    )
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(_logit_cache, "_memory", {})
        status = cli.main(["distill", *words(photographs, folder / "out")])
    torch.set_num_threads(threads)
    assert status == 0
    return folder / "out", printed.getvalue()


def is_progress(line: str) -> bool:
    return re.match(r"\[\d+/\d+\] |    \S+: epoch ", line) is not None


def nth_progress(number: int) -> Callable[[str], bool]:
    """Whether a line is the `number`-th of those that tell of progress."""
    left = iter(range(number - 1, -1, -1))
    return lambda line: is_progress(line) and next(left) == 0


@pytest.fixture(scope="module")
def resumed(photographs, tmp_path_factory) -> dict:
    """The same distillation, killed at five random moments of its progress, stopped once by Ctrl-C, then left alone."""
    folder = tmp_path_factory.mktemp("resumed")
    arguments, cache, moments = words(photographs, folder / "out"), folder / "cache", random.Random(19)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in distilling.environment(cache).items():
            patch.setenv(name, value)
        killed = [distilling.kill_at(arguments, cache, nth_progress(moments.randint(1, 3))) for _ in range(5)]
    stopped = distilling.start(["--out", str(folder / "out")], cache)
    next(line for line in stopped.stdout if is_progress(line))
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate()
    last = distilling.start(["--out", str(folder / "out")], cache)
    printed, complaint = last.communicate()
    return {
        "out": folder / "out", "killed": killed, "by_ctrl_c": (stopped.returncode, said), "status": last.returncode,
        "printed": printed, "complaint": complaint,
    }  # fmt: skip


def test_five_kills_and_a_ctrl_c_leave_the_same_student_bit_for_bit(uninterrupted, resumed):
    assert resumed["killed"] == [-signal.SIGKILL] * 5
    assert resumed["status"] == 0, resumed["complaint"]
    for name in PRODUCTS:
        assert (resumed["out"] / name).read_bytes() == (uninterrupted[0] / name).read_bytes(), name
    assert not list(resumed["out"].rglob("*.checkpoint"))


def test_ctrl_c_says_how_to_go_on_and_what_is_done_is_not_done_again(resumed):
    status, said = resumed["by_ctrl_c"]
    assert status == 130 and "Traceback" not in said
    assert f"kdlib distill --out {resumed['out']}" in said
    assert re.search(r" 1 teacher: .* done$", resumed["printed"], flags=re.MULTILINE)
    assert "[1/9]" not in resumed["printed"]


def test_the_plan_is_printed_before_anything_is_trained(uninterrupted):
    printed = uninterrupted[1]
    plan_at, first_stage = printed.index("\nPlan\n"), printed.index("[1/9] ")
    assert plan_at < printed.index("about", plan_at) < first_stage
    assert "one seed: the difference that the teacher makes will have no interval" in printed[:first_stage]
    assert "epoch" not in printed[:plan_at]


def independent_accuracy(model: Path, folder: Path) -> float:
    """By onnxruntime and Pillow alone, from the test files and what the model says of itself."""
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    says = json.loads(session.get_modelmeta().custom_metadata_map["kdlib"])
    mean, std = (np.array(says[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))
    dataset = data.load(f"folder:{folder}", image_size=16, skip_broken=True)
    pixels = dataset.test.images.numpy().astype(np.float32)
    (logits,) = session.run(None, {"images": (pixels / 255 - mean) / std})
    assert says["classes"] == CLASSES == dataset.classes
    return float((logits.argmax(axis=1) == dataset.test.labels.numpy()).mean())


@pytest.mark.filterwarnings("ignore:1 broken files")
def test_the_numbers_are_those_of_the_files_that_are_there(uninterrupted, photographs):
    out = uninterrupted[0]
    results = json.loads((out / "results.json").read_text())
    assert results["accuracy"] == results["models"]["student"]["accuracy"]
    for name in ("student", "student-int8"):
        row = results["models"][name]
        assert row["accuracy"] == pytest.approx(independent_accuracy(out / f"{name}.onnx", photographs))
        assert row["bytes"] == (out / f"{name}.onnx").stat().st_size
        assert row["low"] <= row["accuracy"] <= row["high"] and row["milliseconds"] > 0
    assert results["models"]["student-int8"]["bytes"] < results["models"]["student"]["bytes"]
    assert np.sum(results["confusion"]["label_by_answer"]) == results["images"]["test"] == 18
    right = np.trace(results["confusion"]["label_by_answer"])
    assert right / 18 == pytest.approx(results["accuracy"])
    assert results["gain"]["low"] is None and results["gain"]["over"] == "one seed: no interval"
    assert [len(records) for records in results["curves"].values()] == [3, 3, 3]


def test_report_and_card_show_names_as_they_are_and_need_no_network(uninterrupted):
    out = uninterrupted[0]
    page, card = (out / "report.html").read_text(), (out / "model_card.md").read_text()
    assert "dark &lt;b&gt;&amp; wide" in page and "dark <b>" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:)|https?://|@import", page)
    assert page.count("<polyline") == 6 and "broken.png" in page and "one seed: no interval" in page
    assert "dark \\<b\\>\\& wide" in card and "one seed: no interval" in card
    for text in (page, card, (out / "results.json").read_text()):
        assert str(out.parent) not in text and str(CHECKOUT) not in text
    assert {*PRODUCTS, "model_card.md", "report.html", "results.json", "settings.json", "work"} == {
        entry.name for entry in out.iterdir()
    }


def test_a_finished_folder_is_not_worked_on_again(uninterrupted, photographs, capsys):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted[0].iterdir() if path.is_file()}
    assert cli.main(["distill", *words(photographs, uninterrupted[0])]) == 0
    assert "done already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_other_settings_are_refused_by_the_first_that_differs(uninterrupted, photographs, capsys):
    stored = (uninterrupted[0] / "settings.json").read_bytes()
    for more, complaint in (
        (["--epochs", "4", "--seed", "2"], "--epochs was 3 and is now 4"),
        (["--alpha", "0.5"], "--alpha was 0.9 and is now 0.5"),
        (["--no-flip"], "--no-flip was False and is now True"),
    ):
        assert cli.main(["distill", *words(photographs, uninterrupted[0]), *more]) == 2
        assert complaint in capsys.readouterr().err
    assert (uninterrupted[0] / "settings.json").read_bytes() == stored


def test_a_second_process_in_the_same_folder_is_refused(uninterrupted, capsys):
    with FileLock(uninterrupted[0] / "work" / "lock"):
        assert cli.main(["distill", "--out", str(uninterrupted[0])]) == 2
    assert "another process (number " in capsys.readouterr().err
    assert cli.main(["distill", "--out", str(uninterrupted[0])]) == 0


def test_what_cannot_begin_is_refused_in_one_line(photographs, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    (tmp_path / "editor").mkdir()
    others = tmp_path / "editor" / "settings.json"
    others.write_text('{"editor.fontSize": 12}')
    out, few = ["--out", str(tmp_path / "out")], ["--data", f"folder:{photographs}", "--image-size", "16"]
    for arguments, complaint in (
        ([*out], "there is no distillation in"),
        ([*out, "--data", "digits"], "--teacher"),
        ([*out, *few, *FEW_WORDS], "broken.png"),
        ([*out, *few, *FEW_WORDS, "--epochs", "0"], "--epochs must be at least 1, got 0"),
        ([*out, *few, *FEW_WORDS, "--alpha", "0"], "--alpha must be above 0 and at most 1, got 0.0"),
        ([*out, *few, *FEW_WORDS, "--teacher-size", "64"], "--teacher-size=64 is for pretrained:NAME"),
        ([*out, *few, *FEW_WORDS, "--teacher-weights", "absent.pt"], "absent.pt"),
        (
            ["--out", str(tmp_path / "full"), *few, *FEW_WORDS],
            "holds other things already, such as 'diary.txt'",
        ),
        (["--out", str(tmp_path / "editor"), *few, *FEW_WORDS], "settings.json cannot be read"),
        (["--out", str(photographs / "out"), *few, *FEW_WORDS], "lies inside the folder of images"),
    ):
        assert cli.main(["distill", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert complaint in said and len(said.splitlines()) == 1, said
        assert not (tmp_path / "out" / "student.onnx").exists()
    assert others.read_text() == '{"editor.fontSize": 12}'


def test_images_that_changed_since_the_first_start_are_refused(uninterrupted, photographs, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "work").mkdir(parents=True)
    (out / "settings.json").write_bytes((uninterrupted[0] / "settings.json").read_bytes())
    (out / "work" / "plan.json").write_bytes((uninterrupted[0] / "work" / "plan.json").read_bytes())
    record = json.loads((uninterrupted[0] / "work" / "data.json").read_text())
    record["digests"]["train"] = "0" * 64
    (out / "work" / "data.json").write_text(json.dumps(record))
    assert cli.main(["distill", "--out", str(out)]) == 2
    assert (
        "the images are not those that this distillation began with: their digests" in capsys.readouterr().err
    )


def test_the_folder_can_be_served(uninterrupted, photographs):
    picture = (photographs / "test" / "striped" / "00.png").read_bytes()
    form = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n%s\r\n--x--\r\n'
        % picture
    )
    with serving([uninterrupted[0]]) as running:
        with contextlib.closing(http.client.HTTPConnection(running.host, running.port, timeout=60)) as asked:
            asked.request("POST", "/predict", form, {"Content-Type": "multipart/form-data; boundary=x"})
            models = json.loads(asked.getresponse().read())["models"]
    assert [model["name"] for model in models] == ["tiny-cnn, distilled", "tiny-cnn, distilled, in 8 bits"]
    assert all({entry["label"] for entry in model["predictions"]} == set(CLASSES) for model in models)


def test_a_folder_without_a_model_cannot_be_served(tmp_path, capsys):
    assert cli.main(["serve", str(tmp_path)]) == 2
    assert "holds no model (*.onnx)" in capsys.readouterr().err


CHOSEN = Settings(data="digits", teacher="resnet8", student="tiny-cnn", image_size=None)


def some_pictures(classes: int = 3) -> pictures.Pictures:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 1, 16, 16), dtype=torch.uint8, generator=generator)
    split = data.ImageSplit(images, torch.arange(12) % classes)
    dataset = data.ImageDataset(split, split, split, [f"class {number}" for number in range(classes)])
    return pictures.Pictures(dataset, [], {}, {("train", 4): "four.png"})


def test_weights_go_through_a_file_with_their_preprocessing(tmp_path):
    some = some_pictures()
    network = networks.student(CHOSEN, some, seed=1).eval()
    first, second = (
        networks.write(tmp_path / name, network, mean=[0.25], std=[0.5]).read_bytes()
        for name in ("a.safetensors", "b")
    )
    assert first == second
    again = networks.read(tmp_path / "a.safetensors", networks.student(CHOSEN, some, seed=2))
    expected = network((some.dataset.test.images / 255 - 0.25) / 0.5)
    assert torch.allclose(predict_logits(again, some.dataset.test, device="cpu"), expected, atol=1e-5)
    with pytest.raises(ValueError, match="a.safetensors holds no weights of this network for these classes"):
        networks.read(tmp_path / "a.safetensors", networks.student(CHOSEN, some_pictures(4), seed=2))


def test_a_given_teacher_is_not_trained(tmp_path):
    some = some_pictures()
    trained = networks.teacher(CHOSEN, some).eval()
    networks.write(tmp_path / "teacher.safetensors", trained, mean=[0.5], std=[0.5])
    given = replace(CHOSEN, teacher_weights=str(tmp_path / "teacher.safetensors"))
    assert (
        networks.teacher_epochs(given) == 0 and networks.teacher_epochs(CHOSEN) == settings.EPOCHS["trained"]
    )
    weights = networks.teacher(given, some).network.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trained.state_dict().items())


def test_settings_may_be_mended_until_there_is_a_plan(photographs, tmp_path, capsys):
    arguments = words(photographs, tmp_path / "out")
    for wrong in (["--data", f"folder:{tmp_path / 'absent'}"], ["--student", "tiny-cnm"]):
        assert cli.main(["distill", *arguments, *wrong]) == 2
        assert wrong[1].removeprefix("folder:") in capsys.readouterr().err
        stored = json.loads((tmp_path / "out" / "settings.json").read_text())
        assert stored[wrong[0].removeprefix("--")] == wrong[1]


@pytest.mark.filterwarnings("ignore:1 broken files")
def test_a_pretrained_teacher_is_fine_tuned_and_keeps_its_preprocessing(
    photographs, tmp_path, one_thread, own_cache
):
    torch.save(
        models.build("resnet8", num_classes=5, in_channels=3, seed=3).state_dict(), tmp_path / "others.pt"
    )
    chosen = Settings(
        data=f"folder:{photographs}", teacher="pretrained:resnet8", student="tiny-cnn", image_size=16, skip_broken=True,
        teacher_weights=str(tmp_path / "others.pt"), teacher_size=20,
    )  # fmt: skip
    some = pictures.read(chosen)
    network = networks.teacher(chosen, some)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    history = networks.train_teacher(network, chosen, some, epochs=2, progress=False, device="cpu")
    assert any(not torch.equal(before[name], weight) for name, weight in network.state_dict().items())
    assert sum(record.get("stage") == 2 for record in history.records) == 2
    networks.write(tmp_path / "teacher.safetensors", network)
    again = networks.read(tmp_path / "teacher.safetensors", networks.teacher(chosen, some))
    assert again.preprocessing.describe() == preprocessing_of(network).describe()
    assert again.preprocessing.size == 20 and again.preprocessing.mean.tolist() == pytest.approx(
        [0.485, 0.456, 0.406]
    )
    test = some.dataset.test
    assert torch.equal(predict_logits(again, test, device="cpu"), predict_logits(network, test, device="cpu"))


def test_the_shipped_teacher_is_taken_by_name():
    chosen = Settings(data="fashion-mnist", teacher="shipped", student="tiny-cnn")
    assert isinstance(networks.teacher(chosen, some_pictures()), teachers.FrozenTeacher)
    assert networks.teacher_epochs(chosen) == 0
    with pytest.raises(ValueError, match="there is no teacher for dataset='digits'"):
        networks.teacher(replace(chosen, data="digits"), some_pictures())


def planned(**chosen) -> plan.Plan:
    """A plan from given seconds: a teacher's epoch takes 100 s, a student's 10 s, an answer 1 ms."""
    some = replace(CHOSEN, **chosen)
    speed = plan.Speed(teacher_step=1.0, student_step=0.1, teacher_image=0.001)
    whole = plan.Plan(some.epochs, networks.teacher_epochs(some), some.seeds, True, "cpu", 1, speed)
    return plan.fitted(whole, some, {"train": 6400, "validation": 0, "test": 1000})


def test_minutes_are_those_of_the_steps_that_are_taken():
    whole = planned(epochs=6, teacher_epochs=3, seeds=2, views=5)
    assert whole.minutes["teacher"] == pytest.approx(3 * 100 * 1.0 / 60)
    assert whole.minutes["distilled-0"] == whole.minutes["labels-1"] == pytest.approx(6 * 100 * 0.1 / 60)
    assert whole.minutes["answers-0"] == pytest.approx(5 * 6400 * 0.001 / 60)
    assert not whole.cuts


def test_seeds_are_cut_before_epochs_and_the_comparison_last():
    whole = planned(epochs=12, teacher_epochs=12, seeds=5)
    total = sum(whole.minutes.values())
    fewer = planned(epochs=12, teacher_epochs=12, seeds=5, minutes=total - 4)
    assert 1 <= fewer.seeds < 5 and (fewer.epochs, fewer.teacher_epochs, fewer.control) == (12, 12, True)
    shorter = planned(epochs=12, teacher_epochs=12, seeds=5, minutes=15.0)
    assert shorter.seeds == 1 and 4 <= shorter.epochs < 12 and shorter.control
    alone = planned(epochs=12, teacher_epochs=12, seeds=5, minutes=5.0)
    assert (
        not alone.control
        and alone.epochs < 4
        and "nothing says what the teacher was good for" in alone.cuts[-1]
    )
    for made, minutes in ((fewer, total - 4), (shorter, 15.0), (alone, 5.0)):
        assert sum(made.minutes.values()) <= minutes and made.cuts
    with pytest.raises(
        ValueError, match="--minutes=1 is too short: with one epoch of each network it takes about"
    ):
        planned(epochs=12, teacher_epochs=12, minutes=1.0)


def test_paths_are_shortened_and_the_command_can_be_repeated():
    chosen = replace(CHOSEN, data="folder:/home/somebody/flowers", views=0, no_flip=True)
    assert chosen.shown()["data"] == "folder:flowers"
    line = settings.command_of(chosen, "out")
    parsed = cli._parser().parse_args(line[1:])
    assert (parsed.data, parsed.views, parsed.no_flip, parsed.epochs) == ("folder:flowers", 0, True, None)
    assert Settings.from_json(chosen.to_json()) == chosen


def test_the_most_confident_disputes_come_first_under_the_names_of_their_files():
    some = some_pictures()
    logits = torch.nn.functional.one_hot(some.dataset.train.labels, 3).float() * 9
    logits[4], logits[7] = torch.tensor([5.0, 0, 0]), torch.tensor([0.0, 0, 7])  # both are of class 1
    job = SimpleNamespace(pictures=some)
    entries, count = disputes.against_labels(job, "validation", some.dataset.validation, logits)
    assert count == 2 and [entry["image"] for entry in entries] == ["image 7", "four.png"]
    assert [(entry["label"], entry["teacher"]) for entry in entries] == [
        ("class 1", "class 2"),
        ("class 1", "class 0"),
    ]
    assert entries[1]["confidence"] == pytest.approx(np.exp(5) / (np.exp(5) + 2), abs=1e-6)
    address = disputes.picture(some.dataset.train, 4)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))
    assert np.array_equal(shown[::6, ::6], some.dataset.train.images[4, 0].numpy())


def test_a_gain_has_an_interval_from_two_seeds_on():
    right = [torch.arange(20) < count for count in (18, 17, 12, 13)]
    one = measures.gain(right[:1], right[2:3])
    assert one["mean"] == pytest.approx(0.3) and one["low"] is None and one["over"] == "one seed: no interval"
    two = measures.gain(right[:2], right[2:])
    # differences 0.3 and 0.2: t(1, 0.975) = 12.706, standard error 0.05
    assert two["mean"] == pytest.approx(0.25)
    assert (two["low"], two["high"]) == pytest.approx(
        (0.25 - 12.7062 * 0.05, 0.25 + 12.7062 * 0.05), abs=1e-4
    )


def test_confusion_counts_labels_by_answers():
    table = measures.confusion(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2]), 3)
    assert table == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.94, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.0, 3.0, [1, 2, 3, 4, 5]),
    ],
)
def test_ticks_are_round_and_enclose_what_is_drawn(low, high, expected):
    ticks = charts.nice_ticks(low, high)
    assert ticks[0] <= low and high <= ticks[-1] and ticks == pytest.approx(expected)


def test_curves_of_one_epoch_are_seen_and_names_are_no_markup():
    drawn = str(charts.curves({"<b>": [0.5], "other": []}, what="accuracy"))
    assert "<circle" in drawn and "&lt;b&gt;" in drawn and "other" not in drawn
    assert charts.curves({}, what="accuracy") == ""
