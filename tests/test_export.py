"""Exported files: they compute what the network computes, say what they are, and are refused when they differ."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from torch import nn

from kdlib import data, models, teachers
from kdlib.deploy import export, runtime
from kdlib.deploy.description import METADATA_KEY, Description
from kdlib.inference import predict_logits

GREY = {"image_shape": (1, 28, 28), "classes": list("abcdefghij"), "mean": [0.3], "std": [0.35]}
COLOUR = {"image_shape": (3, 64, 64), "classes": list("abcde"), "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture
def student() -> nn.Module:
    return models.build("tiny-cnn", seed=0)


def run_onnx(path: Path, images: torch.Tensor) -> np.ndarray:
    (logits,) = runtime.session(path.read_bytes()).run(["logits"], {"images": images.numpy()})
    return logits


def images_of(shape: tuple[int, int, int], count: int) -> torch.Tensor:
    """Structured images of another kind than the exporter's own: bars of random width, brightness and noise."""
    generator = torch.Generator().manual_seed(99 + count)
    bars = torch.rand(count, shape[0], 1, 4, generator=generator).repeat_interleave(shape[2] // 4, dim=3)
    return 4 * (bars.expand(count, *shape) + 0.1 * torch.rand(count, *shape, generator=generator)) - 2


def assert_agrees(path: Path, network: nn.Module, shape: tuple[int, int, int]) -> None:
    for count in (1, 3, 5):
        images = images_of(shape, count)
        with torch.inference_mode():
            expected = network.eval()(images).numpy()
        scale = max(1, np.abs(expected).max())
        assert np.abs(run_onnx(path, images) - expected).max() <= 1e-4 * scale, (path.name, count)


def test_every_kind_of_network_of_kdlib_computes_the_same_in_onnxruntime(tmp_path):
    # Of the ResNets one for each width, and one with repeated blocks: the deeper ones have more of the same, and
    # their export takes a minute.
    resnets = ("resnet8", "resnet14", "resnet8x2", "resnet8x4")
    options = dict(GREY, image_shape=(1, 12, 12))
    for name in ("tiny-cnn", "pocket-cnn", "student-net", "teacher-net", *resnets):
        network = models.build(name, seed=0, image_size=12)
        assert_agrees(export.export_onnx(network, tmp_path / f"{name}.onnx", **options), network, (1, 12, 12))


def test_networks_of_torchvision_compute_the_same_in_onnxruntime(tmp_path):
    for name in ("mobilenet_v2", "resnet18", "shufflenet_v2_x0_5"):
        network = models.build(name, seed=0, num_classes=5, in_channels=3, image_size=64)
        assert_agrees(export.export_onnx(network, tmp_path / f"{name}.onnx", **COLOUR), network, (3, 64, 64))


def test_the_teacher_of_the_course_keeps_its_logits_on_real_images(tmp_path):
    dataset, teacher = data.load(), teachers.load()
    few = dataset.test.take(20)
    path = export.export_onnx(
        teacher, tmp_path / "teacher.onnx", image_shape=(1, 28, 28), classes=dataset.classes,
        mean=dataset.mean, std=dataset.std,
    )  # fmt: skip
    expected = predict_logits(teacher, few).numpy()
    np.testing.assert_allclose(run_onnx(path, few.normalized()), expected, atol=1e-4)


def test_the_file_is_one_file_that_says_what_it_is_and_names_no_path_of_this_machine(
    tmp_path, student, capfd
):
    path = export.export_onnx(student, tmp_path / "student.onnx", **GREY)
    assert [file.name for file in tmp_path.iterdir()] == ["student.onnx"]
    assert capfd.readouterr() == ("", "")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (entry,) = model.metadata_props
    assert entry.key == METADATA_KEY and json.loads(entry.value) == {
        "name": "student", "classes": list("abcdefghij"), "channels": 1, "height": 28, "width": 28,
        "mean": [0.3], "std": [0.35], "value_range": [0.0, 1.0],
    }  # fmt: skip
    content = path.read_bytes()
    assert str(Path(export.__file__).parents[2]).encode() not in content and b"site-packages" not in content


def test_the_network_is_left_as_it_was(tmp_path, student):
    student.train().to(torch.float64)
    student.stages[0].eval()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    export.export_onnx(student, tmp_path / "a.onnx", **GREY)
    assert student.training and not student.stages[0].training and student.stages[1].training
    after = student.state_dict()
    assert all(
        tensor.dtype == after[name].dtype and torch.equal(tensor, after[name])
        for name, tensor in before.items()
    )


def test_a_network_that_answers_with_an_object_is_exported_by_its_logits(tmp_path, student):
    class Answer(dict):
        logits = property(lambda self: self["logits"])

    class Talkative(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = student

        def forward(self, images):
            return Answer(logits=self.inner(images))

    assert_agrees(export.export_onnx(Talkative(), tmp_path / "a.onnx", **GREY), student, (1, 28, 28))


class Unfaithful(nn.Module):
    """Computes something else while it is exported than afterwards."""

    def __init__(self, error: float):
        super().__init__()
        self.inner, self.error = models.build("tiny-cnn", seed=0), error

    def forward(self, images):
        return self.inner(images) + (self.error if torch.compiler.is_exporting() else 0.0)


def test_a_file_that_differs_from_its_network_is_refused_with_the_difference(tmp_path):
    for exporter, options in (
        (export.export_onnx, GREY),
        (export.export_program, {"image_shape": (1, 28, 28)}),
    ):
        folder = tmp_path / exporter.__name__
        folder.mkdir()
        older = folder / "a.pt2"
        older.write_bytes(b"an older file")
        with pytest.raises(
            ValueError, match=r"differs from the network by 0\.002 .* tolerance=0\.0001; nothing was written"
        ):
            exporter(Unfaithful(0.002), older, **options)
        assert [file.name for file in folder.iterdir()] == [
            "a.pt2"
        ] and older.read_bytes() == b"an older file"
        assert exporter(Unfaithful(0.002), folder / "b.pt2", tolerance=0.01, **options).exists()


def test_a_network_that_answers_nan_is_refused(tmp_path, student):
    nn.init.constant_(student.head.bias, float("nan"))
    with pytest.raises(ValueError, match="logits that are not finite"):
        export.export_onnx(student, tmp_path / "a.onnx", **GREY)
    assert list(tmp_path.iterdir()) == []


def test_the_difference_is_absolute_for_small_and_relative_for_large_logits():
    small, large = torch.tensor([[0.5, -0.25]]), torch.tensor([[500.0, -250.0]])
    assert export.logit_difference(small + 0.01, small) == pytest.approx(0.01, rel=1e-5)
    assert export.logit_difference(large + 1, large) == pytest.approx(1 / 500)


def test_a_torch_program_takes_batches_of_any_size(tmp_path, student):
    path = export.export_program(student, tmp_path / "a.pt2", image_shape=(1, 28, 28))
    loaded = torch.export.load(path).module()
    for count in (1, 3, 5):
        images = images_of((1, 28, 28), count)
        torch.testing.assert_close(loaded(images), student.eval()(images), atol=1e-5, rtol=0)


def test_torchscript_agrees_and_what_torch_says_of_its_deprecation_is_passed_on(tmp_path, student):
    def deprecated(function, *arguments, **options) -> set[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function(*arguments, **options)
        return {text for text in (str(warning.message) for warning in caught) if "deprecated" in text}

    path, images = tmp_path / "a.pt", images_of((1, 28, 28), 5)
    said = deprecated(torch.jit.trace, student.eval(), images)
    assert said <= deprecated(export.export_torchscript, student, path, image_shape=(1, 28, 28))
    torch.testing.assert_close(torch.jit.load(path)(images), student(images), atol=1e-5, rtol=0)


def test_arguments_that_describe_no_classifier_are_refused_by_name_and_nothing_is_made(tmp_path, student):
    refused = [
        ({"classes": ["a", "b"]}, "2 names, 10 logits"),
        ({"classes": ["a"] * 10}, "classes must have distinct names"),
        ({"classes": [*"abcdefghi", " "]}, "classes must have distinct names, none of them empty"),
        ({"classes": ["a"]}, "at least two classes"),
        ({"classes": []}, "at least two classes"),
        ({"classes": "abcdefghij"}, "classes must be a list of texts, got str 'abcdefghij'"),
        ({"classes": set("abcdefghij")}, "classes must be a list of texts, got set"),
        ({"classes": dict.fromkeys("abcdefghij")}, "classes must be a list of texts, got dict"),
        ({"classes": range(10)}, "each of classes must be a text, got int 0"),
        ({"classes": 10}, "classes must be a list of texts, got int 10"),
        ({"mean": [0.3, 0.3]}, r"mean must be 1 finite numbers, one for each of the channels, got \[0.3, 0.3\]"),
        ({"mean": []}, "mean must be 1 finite numbers"),
        ({"mean": [float("nan")]}, "mean must be 1 finite numbers"),
        ({"mean": ["0.3"]}, "mean must be numbers, got list"),
        ({"mean": None}, "mean must be numbers, got NoneType"),
        ({"mean": [[0.1], [0.2, 0.3]]}, "mean must be numbers, got list"),
        ({"mean": [True]}, "mean must be numbers, got list"),
        ({"std": [0]}, "std must be positive"),
        ({"std": [float("inf")]}, "std must be 1 finite numbers"),
        ({"std": torch.ones(3)}, "std must be 1 finite numbers"),
        ({"std": [1j]}, "std must be numbers"),
        ({"value_range": (1, 0)}, "value_range must be two finite numbers, low < high"),
        ({"value_range": (0, float("inf"))}, "value_range must be two finite numbers"),
        ({"value_range": (0, float("nan"))}, "value_range must be two finite numbers"),
        ({"value_range": (0, 1, 2)}, "value_range must be two finite numbers"),
        ({"value_range": "01"}, "value_range must be numbers, got str '01'"),
        ({"name": " "}, "name=' ' is empty"),
        ({"name": 3}, "name must be a text, got int 3"),
        ({"image_shape": (28, 28)}, r"image_shape must be \(channels, height, width\)"),
        ({"image_shape": (2, 1, 28, 28)}, r"image_shape must be \(channels, height, width\)"),
        ({"image_shape": (1, 0, 28)}, "image_shape must be .* none of them 0"),
        ({"image_shape": (1, -1, 28)}, "image_shape.* must be at least 1, got -1"),
        ({"image_shape": (1, 28.5, 28)}, "image_shape.* must be an integer, got float 28.5"),
        ({"image_shape": "128"}, "image_shape must be .* got str '128'"),
        ({"image_shape": 28}, "image_shape must be .* got int 28"),
        ({"image_shape": (True, 28, 28)}, "image_shape.* must be an integer, got bool True"),
        ({"image_shape": (2, 28, 28), "mean": [0, 0], "std": [1, 1]}, "channels must be 1 .* or 3"),
        ({"image_shape": (3, 28, 28), "mean": [0] * 3, "std": [1] * 3}, r"cannot process .*\(1, 3, 28, 28\)"),
        ({"tolerance": 0}, "tolerance must be above 0"),
        ({"tolerance": float("nan")}, "tolerance must be a finite number"),
        ({"tolerance": "small"}, "tolerance must be a number"),
    ]  # fmt: skip
    for change, message in refused:
        with pytest.raises((ValueError, TypeError), match=message):
            export.export_onnx(student, tmp_path / "new" / "a.onnx", **{**GREY, **change})
        assert list(tmp_path.iterdir()) == [], change


def test_numbers_and_names_may_come_in_every_usual_container(tmp_path, student):
    expected = export.export_onnx(student, tmp_path / "a.onnx", **GREY).read_bytes()
    same = [
        {"mean": np.array([0.3]), "std": (0.35,)},
        {"mean": torch.tensor([[[0.3]]], dtype=torch.float64), "std": [np.float64(0.35)]},
        {"mean": 0.3, "std": torch.tensor(0.35, dtype=torch.float64, requires_grad=True)},
        {"classes": np.array(list("abcdefghij")), "image_shape": torch.zeros(1, 28, 28).shape},
        {"classes": pd.Index(list("abcdefghij")), "image_shape": np.array([1, 28, 28])},
        {"classes": (name for name in "abcdefghij"), "value_range": np.array([0, 1])},
    ]
    for number, change in enumerate(same):
        path = export.export_onnx(student, str(tmp_path / "b.onnx"), name="a", **{**GREY, **change})
        assert path.read_bytes() == expected, number


def test_a_description_survives_its_metadata_to_the_last_digit():
    described = Description("a", ("x", "y"), 3, 5, 7, (0.1, 1 / 3, 2 / 7), (0.1, 0.2, 0.3), (-1.0, 1.0))
    assert Description.from_metadata({METADATA_KEY: described.to_json()}, "a.onnx") == described


def test_a_damaged_description_is_a_clear_error():
    for text in ("", "{", "[]", "3", '{"name": "a"}', '{"classes": 3}', "null"):
        with pytest.raises(ValueError, match="description of the model"):
            Description.from_json(text)


def test_a_file_without_a_description_says_how_to_write_one():
    with pytest.raises(ValueError, match=re.escape("old.onnx does not say") + ".*export_onnx"):
        Description.from_metadata({}, "old.onnx")
