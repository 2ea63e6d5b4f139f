"""Quantised files: the numbers in them, what they say of themselves, and what is refused."""

import ast
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from kdlib import data, metrics, models
from kdlib.deploy import compress, runtime
from kdlib.deploy.description import METADATA_KEY, Description
from kdlib.deploy.export import export_onnx
from kdlib.deploy.webapp.classifier import Classifier
from kdlib.training import train

CHECKOUT = Path(__file__).parents[1]
DIGITS = data.load("digits")
CALIBRATION, TEST = DIGITS.train.take(100), DIGITS.test.take(100)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A student of the digits, trained for a moment."""
    model = models.build("tiny-cnn", seed=0)
    train(model, DIGITS.train.take(300), epochs=10, progress=False, device="cpu")
    return model


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory) -> Path:
    return export_onnx(
        network, tmp_path_factory.mktemp("exported") / "digits.onnx", image_shape=(1, 8, 8),
        classes=DIGITS.classes, mean=DIGITS.mean, std=DIGITS.std,
    )  # fmt: skip


@pytest.fixture(scope="module")
def quantised(exported) -> Path:
    return compress.quantize(exported, exported.with_name("quantised.onnx"), CALIBRATION)


def test_the_file_answers_nearly_as_before_and_is_much_smaller(exported, quantised):
    assert quantised.stat().st_size < 0.4 * exported.stat().st_size
    assert compress.agreement(exported, quantised, TEST) >= 0.97
    logits = compress.onnx_logits(quantised, TEST)
    expected = compress.onnx_logits(exported, TEST)
    assert 0 < (logits - expected).abs().mean() < 0.02 * expected.abs().mean()
    assert metrics.accuracy(logits, TEST) > 0.5


def constants(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_weights_are_signed_with_a_scale_a_channel_after_batch_norm_is_folded(network, exported, tmp_path):
    folded = {
        f"network.stages.{number}.0": nn.utils.fuse_conv_bn_eval(stage[0], stage[1])
        for number, stage in enumerate(network.stages)
    }
    for reduce_range, steps in ((True, 64), (False, 127)):
        path = compress.quantize(exported, tmp_path / "a.onnx", CALIBRATION, reduce_range=reduce_range)
        found = constants(path)
        assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
        for name, layer in (folded | {"network.head": network.head}).items():
            weight = layer.weight.detach().flatten(1).numpy()
            scale = np.abs(weight).max(1) / steps
            np.testing.assert_allclose(found[f"{name}.weight_scale"], scale, rtol=1e-4)
            assert not found[f"{name}.weight_zero_point"].any(), (name, steps)
            stored = found[f"{name}.weight_quantized"].reshape(weight.shape)
            assert stored.dtype == np.int8, (name, steps)
            np.testing.assert_allclose(stored, weight / scale[:, None], atol=0.501)  # rounded to the nearest


def test_activations_are_unsigned_and_their_range_is_that_of_the_calibration_images(quantised):
    found, images = constants(quantised), CALIBRATION.normalized().numpy()
    low, high = images.min(), images.max()
    assert found["images_zero_point"].dtype == np.uint8
    np.testing.assert_allclose(found["images_scale"], (high - low) / 255, rtol=1e-5)
    assert found["images_zero_point"] == round(-low / found["images_scale"].item())


def test_images_may_be_a_split_or_its_normalised_pixels(exported, quantised, tmp_path):
    path = compress.quantize(exported, tmp_path / "a.onnx", CALIBRATION.normalized())
    for name, array in constants(path).items():
        np.testing.assert_allclose(array, constants(quantised)[name], rtol=1e-5, atol=1)
    direct = compress.onnx_logits(exported, TEST.normalized())
    torch.testing.assert_close(compress.onnx_logits(exported, TEST), direct, atol=1e-4, rtol=1e-4)


def test_a_split_is_normalised_as_the_file_says_and_not_as_the_split_says(exported):
    elsewhere = data.ImageSplit(TEST.images, TEST.labels, mean=[0.9], std=[0.1])
    expected = compress.onnx_logits(exported, TEST)
    assert torch.equal(compress.onnx_logits(exported, elsewhere), expected)


def test_the_file_keeps_its_description_and_names_no_path(exported, quantised, tmp_path):
    (before,), (after,) = (onnx.load(path).metadata_props for path in (exported, quantised))
    assert before.key == after.key == METADATA_KEY and before.value == after.value
    assert [path.name for path in sorted(quantised.parent.iterdir())] == ["digits.onnx", "quantised.onnx"]
    content = quantised.read_bytes()
    for place in (CHECKOUT, exported.parent, Path(onnx.__file__).parents[1]):
        assert str(place).encode() not in content
    renamed = compress.quantize(exported, tmp_path / "a.onnx", CALIBRATION, name="in 8 bits")
    assert json.loads(onnx.load(renamed).metadata_props[0].value) == json.loads(before.value) | {
        "name": "in 8 bits"
    }
    assert Classifier(renamed).name == "in 8 bits"


def test_a_file_may_be_replaced_by_its_quantised_self_in_silence(
    exported, quantised, tmp_path, capfd, caplog
):
    path = Path(shutil.copy(exported, tmp_path))
    assert compress.quantize(str(path), path, CALIBRATION) == path
    assert path.read_bytes() == quantised.read_bytes()
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_agreement_is_the_share_of_equal_answers(exported, tmp_path):
    other = onnx.load(exported)
    (bias,) = [tensor for tensor in other.graph.initializer if tensor.name == "network.head.bias"]
    shift = np.zeros(10, np.float32)
    shift[3] = 4
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + shift, bias.name))
    onnx.save(other, tmp_path / "shifted.onnx")
    logits = compress.onnx_logits(exported, TEST)
    expected = metrics.agreement(logits, logits + torch.from_numpy(shift), TEST)
    assert compress.agreement(exported, tmp_path / "shifted.onnx", TEST) == expected
    assert 0 < expected < 1 == compress.agreement(exported, exported, TEST)


def without_weights(path: Path) -> Path:
    """A file that describes itself and has nothing to quantise: its logits are the 64 pixels of a digit."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 1, 8, 8]), ("logits", ["batch", 64]))
    ]
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["logits"])], "pixels", values[:1], values[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    described = Description("pixels", tuple(map(str, range(64))), 1, 8, 8, (0.0,), (1.0,))
    model.metadata_props.add(key=METADATA_KEY, value=described.to_json())
    onnx.save(model, path)
    return path


def test_what_cannot_be_quantised_is_refused_and_an_older_file_is_kept(exported, quantised, tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    bare = onnx.load(exported)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    without_weights(tmp_path / "pixels.onnx")
    older = tmp_path / "older.onnx"
    older.write_bytes(b"an older file")
    files = sorted(path.name for path in tmp_path.iterdir())
    for path, message in (
        (tmp_path / "text.onnx", "text.onnx: onnxruntime cannot load this model"),
        (tmp_path / "bare.onnx", "bare.onnx does not say which classes"),
        (tmp_path / "pixels.onnx", "pixels.onnx has nothing to quantise: none of Conv"),
        (quantised, "quantised.onnx is quantised already"),
    ):
        with pytest.raises(ValueError, match=message):
            compress.quantize(path, older, CALIBRATION)
    with pytest.raises(FileNotFoundError):
        compress.quantize(tmp_path / "absent.onnx", older, CALIBRATION)
    assert older.read_bytes() == b"an older file"
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_paths_and_images_of_another_kind_are_refused_by_name_and_nothing_is_made(exported, tmp_path):
    (tmp_path / "file").write_text("hello")
    out, absent = tmp_path / "new" / "out.onnx", tmp_path / "absent.onnx"
    refused = [
        ({"path": tmp_path}, ValueError, "path=.* is a folder; add the name of a file"),
        ({"path": absent}, FileNotFoundError, "path names no file: .*absent.onnx"),
        ({"path": tmp_path / "file" / "a.onnx"}, FileNotFoundError, "path names no file"),
        ({"path": 3}, TypeError, "path must be a path .* got int 3"),
        ({"out": tmp_path}, ValueError, "out=.* is a folder; add the name of a file"),
        ({"out": tmp_path / "file" / "a.onnx"}, ValueError, "out=.* is no folder"),
        ({"out": None}, TypeError, "out must be a path"),
        ({"images": DIGITS}, TypeError, "images must be an ImageSplit .* got ImageDataset; of a data set"),
        ({"images": CALIBRATION.normalized().numpy()}, TypeError, "images must be .* got ndarray"),
        ({"images": CALIBRATION.images}, ValueError, "images must be normalised, .* got torch.uint8; for pixels give"),
        ({"name": " "}, ValueError, "name=' ' is empty"),
        ({"name": 3}, TypeError, "name must be a text, got int 3"),
        ({"reduce_range": "no"}, TypeError, "reduce_range must be True or False"),
    ]  # fmt: skip
    for change, kind, message in refused:
        arguments = {"path": exported, "out": out, "images": CALIBRATION} | change
        with pytest.raises(kind, match=message):
            compress.quantize(**arguments)
        if "path" in change:
            for read in (
                lambda path: compress.onnx_logits(path, CALIBRATION),
                lambda path: compress.agreement(exported, path, CALIBRATION),
            ):
                with pytest.raises(kind, match=message.replace("path", "path_?b?")):
                    read(change["path"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_images_may_be_of_any_floating_point_type(exported, quantised, tmp_path):
    images = CALIBRATION.normalized()
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        found = compress.onnx_logits(exported, images.to(dtype))
        torch.testing.assert_close(
            found, compress.onnx_logits(exported, images.to(dtype).float()), msg=str(dtype)
        )
    path = compress.quantize(exported, tmp_path / "new" / "a.onnx", images.double())
    assert path.read_bytes() == compress.quantize(exported, tmp_path / "b.onnx", images).read_bytes()


def test_a_model_for_single_images_is_refused(exported, tmp_path):
    single = onnx.load(exported)
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(single, tmp_path / "single.onnx")
    with pytest.raises(ValueError, match="(?s)single.onnx cannot be quantised: .*Expected: 1"):
        compress.quantize(tmp_path / "single.onnx", tmp_path / "a.onnx", CALIBRATION)
    with pytest.raises(ValueError, match="(?s)single.onnx cannot process such images: .*Expected: 1"):
        compress.onnx_logits(tmp_path / "single.onnx", TEST)
    assert [path.name for path in tmp_path.iterdir()] == ["single.onnx"]


def test_images_that_are_none_of_the_models_are_refused(exported, tmp_path):
    for images, message in (
        (data.load().test.take(10), r"shape \(n, 1, 8, 8\) for digits.onnx.*got \(10, 1, 28, 28\)"),
        (torch.zeros(0, 1, 8, 8), r"n at least 1, got \(0, 1, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8), r"got \(2, 3, 8, 8\)"),
        (torch.full((2, 1, 8, 8), float("nan")), "images must be finite"),
    ):
        for refused in (
            lambda images: compress.quantize(exported, tmp_path / "a.onnx", images),
            lambda images: compress.onnx_logits(exported, images),
            lambda images: compress.agreement(exported, exported, images),
        ):
            with pytest.raises(ValueError, match=message):
                refused(images)
    assert list(tmp_path.iterdir()) == []


def test_agreement_between_models_of_other_classes_is_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="same number of classes, got 10 and 64"):
        compress.agreement(exported, without_weights(tmp_path / "pixels.onnx"), TEST)


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_onnxruntime_is_imported_behind_the_module_that_keeps_it_from_reporting_home():
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    users = [
        path
        for path in (CHECKOUT / "kdlib").rglob("*.py")
        if any(name.split(".")[0] == "onnxruntime" for name in imported(path))
    ]
    assert Path(runtime.__file__) in users and len(users) > 1
    for path in users:
        assert path == Path(runtime.__file__) or "kdlib.deploy.runtime" in imported(path), path
