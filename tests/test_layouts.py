"""Whatever the architecture: features come as maps (batch, channels, height, width) or vectors, of whole blocks."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from architectures import (
    ARCHITECTURES,
    COLOURED,
    Attention,
    Halvings,
    Patches,
    SequenceFirst,
    encoder,
    small_vit,
    swin,
    tokens,
    turned,
)
from torch import nn

from kdlib import features

pytestmark = pytest.mark.usefixtures("one_thread")


def built(name):
    torch.manual_seed(0)
    return ARCHITECTURES[name].build().eval()


def images_for(name, batch):
    shape = ARCHITECTURES[name].image_shape
    dtype = torch.bfloat16 if name == "half precision" else torch.float32
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def raw_outputs(model, layers, images):
    """What the layers return, by hooks of the test's own, and the logits."""
    raw, handles = {}, []
    for layer in layers:
        module = dict(model.named_modules()).get(layer) or model.get_submodule(f"module.{layer}")

        def keep(module, arguments, output, layer=layer):
            raw[layer] = output if isinstance(output, torch.Tensor) else output[0]

        handles.append(module.register_forward_hook(keep))
    logits = model(images)
    for handle in handles:
        handle.remove()
    return raw, logits


def test_features_are_maps_or_vectors_whatever_a_layer_returns():
    for name, (_, _, layers, _) in ARCHITECTURES.items():
        model = built(name)
        # 17 and 16 images: as many as tokens, with and without a class token, or rows.
        for batch in (3, 17, 16, 1):
            images = images_for(name, batch)
            with torch.no_grad():
                raw, expected = raw_outputs(model, layers, images)
                logits, found = features.capture(model, list(layers))(images)
            assert torch.equal(logits, expected), name
            for layer, how in layers.items():
                assert found[layer].dim() in (2, 4) and len(found[layer]) == batch, (name, layer, batch)
                assert torch.equal(found[layer], how(raw[layer])), (name, layer, batch)


def test_suggested_layers_are_whole_blocks():
    for name, (_, shape, _, expected) in ARCHITECTURES.items():
        model = built(name)
        pairs = features.suggest_layers(model, model, shape)
        assert pairs == [(layer, layer) for layer in expected], name
        _, found = features.capture(model, expected)(images_for(name, 3))
        assert all(maps.dim() == 4 and len(maps) == 3 for maps in found.values()), name


def test_the_logits_depend_on_the_features_and_gradients_are_those_without_capture():
    for name, (_, _, layers, _) in ARCHITECTURES.items():
        if name in ("frozen", "half precision"):
            continue
        model, images = built(name), images_for(name, 3)
        raw, logits = raw_outputs(model, layers, images)
        tensors = [*(raw[layer] for layer in layers), *model.parameters()]
        plain = torch.autograd.grad(logits.square().sum(), tensors, allow_unused=True)
        logits, found = features.capture(model, list(layers))(images)
        ours = torch.autograd.grad(
            logits.square().sum(), [*found.values(), *model.parameters()], allow_unused=True
        )
        for layer, theirs, mine in zip(layers, plain, ours, strict=False):
            torch.testing.assert_close(mine, layers[layer](theirs), msg=f"{name}, {layer}")
        for theirs, mine in zip(plain[len(layers) :], ours[len(layers) :], strict=True):
            if theirs is not None:
                torch.testing.assert_close(mine, theirs, msg=name)


def test_class_gradients_of_captured_features_are_those_of_the_layer():
    model = built("swin")
    images, classes = images_for("swin", 3), torch.tensor([0, 3, 2])
    logits, found = features.capture(model, ["features.1"])(images)
    gradients = features.class_gradients(logits, found["features.1"], classes)
    assert features.gradcam_map(found["features.1"], gradients).shape == (3, 8, 8)
    raw, logits = raw_outputs(model, ["features.1"], images)
    theirs = torch.autograd.grad(logits[torch.arange(3), classes].sum(), raw["features.1"])[0]
    torch.testing.assert_close(gradients, turned(theirs))


def test_sequences_of_a_model_that_takes_them_sequence_first():
    for length, batch in ((5, 3), (4, 4)):
        source = torch.randn(length, batch, 16)
        model = encoder().eval()
        expected = model.layers[0](source).permute(1, 2, 0)[..., None]
        _, found = features.capture(model, ["layers.0", "layers.0.linear1"])(source)
        torch.testing.assert_close(found["layers.0"], expected)
        assert found["layers.0.linear1"].shape == (batch, 32, length, 1)


def test_asking_for_the_batch_leaves_no_trace():
    model = Patches(nn.Sequential(SequenceFirst(), nn.Dropout()), sequence_first=True).train()
    model.head.eval()
    images, state = torch.randn(17, 1, 16, 16), torch.random.get_rng_state()
    logits, _ = features.capture(model, ["blocks.0"])(images)
    assert model.training and model.blocks[1].training and not model.head.training
    assert not any(module._forward_hooks for module in model.modules())
    torch.random.set_rng_state(state)
    first = model(images)
    # The layer lay the other way, so the batch ran a second time, with the next draw of the dropout.
    assert torch.equal(logits, model(images)) and not torch.equal(logits, first)


def test_registers_before_the_tokens_are_left_out():
    class WithRegisters(Patches):
        def __init__(self):
            super().__init__(nn.Sequential(Attention()), class_token=False)
            self.token = nn.Parameter(torch.randn(1, 5, 16))

    model = WithRegisters().eval()
    images = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        raw, _ = raw_outputs(model, ["blocks.0"], images)
        _, found = features.capture(model, ["blocks.0"])(images)
    assert raw["blocks.0"].shape == (3, 21, 16)
    assert torch.equal(found["blocks.0"], tokens(raw["blocks.0"][:, 5:]))


def test_maps_over_time_stay_as_they_are():
    model = nn.Sequential(nn.Conv3d(1, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2))
    _, found = features.capture(model, ["0"])(torch.randn(2, 1, 5, 8, 8))
    assert found["0"].shape == (2, 4, 3, 6, 6)


class Windows(nn.Module):
    """Attention in windows of 2 x 2, and some other tensors that are no features of an image."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(1, 8, 1), nn.LayerNorm(8), nn.Linear(8, 5)
        self.folded, self.beside, self.classes, self.shapes = (nn.Identity() for _ in range(4))
        self.scalars, self.named = nn.Flatten(0), nn.Flatten()

    def forward(self, images):
        maps = self.stem(images)
        windows = (
            F.unfold(maps, 2, stride=2).unflatten(1, (8, 4)).permute(0, 3, 2, 1)
        )  # (batch, windows, 4, 8)
        self.folded(self.norm(windows).flatten(0, 1))
        self.beside(windows)
        self.classes(maps.argmax(dim=1))
        self.shapes({"maps": maps})
        self.scalars(maps.mean(dim=(1, 2, 3)))
        return self.head(maps.mean(dim=(2, 3)))


def test_what_is_neither_map_nor_tokens_nor_vectors_is_refused():
    cases = {
        "folded": r"layer 'folded' returned shape \(192, 4, 8\), whose first axis is not the batch of 3 .*windows",
        "beside": r"layer 'beside' returned shape \(3, 64, 4, 8\), .* no map of images 16 x 16 .*take the block",
        "classes": "layer 'classes' returned torch.int64, and features are floating-point",
        "shapes": "layer 'shapes' must return a tensor, or a tuple that begins with one, .* got dict",
        "scalars": r"layer 'scalars' returned shape \(3,\), which is neither a map nor a vector",
    }
    for layer, message in cases.items():
        with pytest.raises(ValueError, match=message):
            features.capture(Windows(), [layer])(torch.randn(3, 1, 16, 16))
    model = Halvings(lambda maps: OrderedDict({0: maps}))
    with pytest.raises(ValueError, match="layer 'blocks.0' must return a tensor.*got OrderedDict"):
        features.capture(model, ["blocks.0"])(torch.randn(2, 1, 16, 16))
    with pytest.raises(ValueError, match="a captured model must be called with a tensor .* got dict"):
        features.capture(model, ["blocks.0"])({})


def test_the_last_run_of_a_layer_counts_also_where_an_earlier_one_gave_no_features():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.relu, self.head = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, images):
            weights = self.relu(self.head.weight.flatten())
            return self.head(self.relu(self.stem(images)).mean(dim=(2, 3))) + weights.sum()

    model, images = Twice(), torch.randn(3, 1, 8, 8)
    _, found = features.capture(model, ["relu"])(images)
    assert torch.equal(found["relu"], model.stem(images).relu())


def test_pairs_of_suggested_layers_can_be_compared():
    """Of architectures that lay their features out in four ways: a regressor and an attention map fit each pair."""
    student, images = torchvision.models.resnet18(num_classes=5).eval(), torch.randn(2, 3, 32, 32)
    for teacher in (swin(24), small_vit(), torchvision.models.convnext_tiny(num_classes=5)):
        pairs = features.suggest_layers(student, teacher.eval(), COLOURED)
        assert len(pairs) >= 2
        _, ours = features.capture(student, [mine for mine, _ in pairs])(images)
        _, others = features.capture(teacher, [theirs for _, theirs in pairs])(images)
        for mine, theirs in pairs:
            regressor = features.Regressor.between(ours[mine], others[theirs])
            assert features.hint_loss(regressor(ours[mine]), others[theirs]).isfinite()


def test_losses_that_meet_another_layout_say_what_turns_it():
    maps = torch.randn(2, 7, 7, 48)
    for loss in (features.attention_transfer_loss, features.mmd_loss):
        with pytest.warns(
            UserWarning, match=r"look like a channels-last map.*to_map\(features, channels_last=True\)"
        ):
            loss(maps, maps)
    for call in (
        lambda: features.Regressor(48, 5)(maps),
        lambda: features.Regressor(48, 5)(maps.flatten(1, 2)),
        lambda: features.VariationalInformationLoss(48, 48)(maps, maps),
        lambda: features.VariationalInformationLoss(49, 48)(maps.flatten(1, 2), maps.flatten(1, 2)),
        lambda: features.ContrastiveLoss(48, 48)(maps, maps),
    ):
        with pytest.raises(ValueError, match="tokens and channels-last maps.*kdlib.features.to_map"):
            call()
    with pytest.warns(UserWarning, match="look channels-first already.*capture returns them"):
        features.to_map(torch.randn(2, 48, 7, 7), channels_last=True)
