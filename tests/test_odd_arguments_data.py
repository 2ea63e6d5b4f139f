"""Odd arguments of data, metrics and losses: a right answer, or an error that names the argument.

One argument of a call that works is replaced at a time. What comes back is compared with what plain arguments
of the same meaning give, or is a ValueError, a TypeError or a FileNotFoundError with the argument's name in it.
An error of the type checker, which only the tests have, counts as a defect: a user would meet what is behind it.
"""

import io
import math
import socket
import unicodedata
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from PIL import Image

from kdlib import data, losses, metrics
from kdlib.data import pixels, sources
from kdlib.data.augment import random_crop_flip

torch.set_num_threads(1)

unhurried = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# ---- odd values

HUGE = 10**400  # no float

NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 7, 2**31, 2**63, HUGE, 0.0, -0.0, 0.3, 4.0, 1e-300, 1e300, 5e-7, 1e10]),
    st.sampled_from(
        [math.nan, math.inf, -math.inf, True, False, Fraction(1, 3), Fraction(4), Decimal("0.5"), 1j]
    ),
    st.sampled_from(
        [np.int64(3), np.uint8(2), np.float32(0.5), np.float64(4), np.bool_(True), np.float16("nan")]
    ),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-100, 100),
)
THINGS = st.sampled_from([
    None, "", "4", "nan", b"4", "0.5", [], [4.0], (), {}, {1}, object(), int, len, Path("4"), slice(2),
    np.array(4.0), np.array([4.0]), np.array("4"), torch.tensor(4.0), torch.tensor([4, 4]), torch.float32, ...,
])  # fmt: skip
ANYTHING = NUMBERS | THINGS


@st.composite
def tensors(draw, rows=4, columns=3):
    """A tensor of about this shape: mostly of another kind, layout or range than logits have."""
    shape = draw(
        st.sampled_from([(rows, columns)] * 6 + [(rows,), (), (0, columns), (rows, 0), (rows, columns, 1)])
    )
    shape = draw(
        st.sampled_from([shape] * 4 + [(rows + 1, columns), (1, columns), (rows, 1), (columns, rows)])
    )
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    values = values * draw(st.sampled_from([1.0, 0.0, 1e-30, 1e4]))
    if values.numel() and draw(st.integers(0, 3)) == 0:
        values.view(-1)[draw(st.integers(0, values.numel() - 1))] = draw(
            st.sampled_from([math.nan, math.inf, -math.inf])
        )
    kinds = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    kinds = kinds * 3 + [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e5m2]
    values = values.to(draw(st.sampled_from(kinds)))
    if values.dtype in kinds[:4] and draw(st.integers(0, 3)) == 0:
        # Only what torch can do with the dtype: sparse and strided views of the others say nothing new.
        odd_layouts = [
            lambda x: x.clone().requires_grad_(),
            lambda x: torch.stack([x, x], dim=-1)[..., 0],
            lambda x: x.to_sparse(),
            lambda x: torch.nn.Parameter(x),
            lambda x: x.to("meta"),
            lambda x: x.numpy() if x.dtype is not torch.bfloat16 else x.tolist(),
            lambda x: x.tolist(),
        ]
        values = draw(st.sampled_from(odd_layouts))(values)
    return values


# ---- what an answer may be


def answer(call, *named):
    """What a call returns; None where it refuses, with one of these names in the message."""
    try:
        return call()
    except TypeCheckError as error:
        raise AssertionError(f"only the tests' type checker refuses this: {error}") from error
    except (ValueError, TypeError, FileNotFoundError) as error:
        assert any(name in str(error) for name in named), f"{named} not named in: {error!r}"
        return None


def is_number(value):
    return (
        isinstance(value, Real) and not isinstance(value, bool) and value is not HUGE and math.isfinite(value)
    )


def is_whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


# ---- losses

STUDENT, TEACHER = (torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
CLASSES = torch.tensor([0, 1, 2, 2])
LOSSES = {
    losses.soft_target_loss: {"temperature": 4.0},
    losses.distillation_loss: {"labels": CLASSES, "temperature": 4.0, "alpha": 0.5},
    losses.logit_mse_loss: {},
    losses.cosine_logit_loss: {},
    losses.decoupled_loss: {"labels": CLASSES, "temperature": 4.0, "alpha": 1.0, "beta": 8.0},
    losses.correlation_loss: {"temperature": 1.0, "inter": 1.0, "intra": 1.0},
    losses.multilabel_distillation_loss: {"temperature": 1.0},
    losses.standardised_loss: {"temperature": 2.0},
    losses.tail_bucket_loss: {"temperature": 4.0, "k": 1},
}
every_loss = st.sampled_from(list(LOSSES.items()))


def value_of(loss):
    return loss.total if isinstance(loss, losses.LossTerms) else loss


def refuses_nothing_odd(found, expected):
    if found is not None and value_of(found).device.type != "meta":
        assert value_of(found).isfinite()
        torch.testing.assert_close(
            value_of(found).double(), value_of(expected).double(), rtol=1e-3, atol=1e-3
        )


@unhurried
@given(case=every_loss, odd=tensors() | ANYTHING, name=st.sampled_from(["student_logits", "teacher_logits"]))
def test_a_loss_takes_logits_or_names_them(case, odd, name):
    loss, others = case
    pair = {"student_logits": STUDENT, "teacher_logits": TEACHER}
    found = answer(lambda: loss(**pair | {name: odd}, **others), name)
    if found is not None:
        assert isinstance(odd, torch.Tensor) and odd.is_floating_point() and odd.shape == STUDENT.shape
        plain = torch.tensor(odd.tolist(), dtype=torch.float64)
        refuses_nothing_odd(
            found, loss(**{key: value.double() for key, value in (pair | {name: plain}).items()}, **others)
        )


@unhurried
@given(case=every_loss, odd=ANYTHING, data=st.data())
def test_a_loss_takes_a_setting_or_names_it(case, odd, data):
    loss, others = case
    settings = [name for name in others if name not in ("labels", "k")]
    assume(settings)
    name = data.draw(st.sampled_from(settings))
    found = answer(lambda: loss(STUDENT.double(), TEACHER.double(), **others | {name: odd}), name)
    if found is not None:
        assert is_number(odd) and odd >= 0 and (odd > 0 or name != "temperature") and odd <= 1e9
        refuses_nothing_odd(found, loss(STUDENT.double(), TEACHER.double(), **others | {name: float(odd)}))


@unhurried
@given(odd=ANYTHING)
def test_a_loss_takes_a_number_of_kept_classes_or_names_it(odd):
    found = answer(lambda: losses.tail_bucket_loss(STUDENT, TEACHER, k=odd), "k must be")
    if found is not None:
        assert is_whole(odd) and odd >= 1
        # Of three classes one or two are kept.
        refuses_nothing_odd(found, losses.tail_bucket_loss(STUDENT, TEACHER, k=min(int(odd), 2)))


@unhurried
@given(
    loss=st.sampled_from([losses.distillation_loss, losses.decoupled_loss]),
    odd=tensors(rows=4, columns=1) | ANYTHING,
)
def test_a_loss_takes_labels_or_names_them(loss, odd):
    others = LOSSES[loss]
    found = answer(lambda: loss(STUDENT, TEACHER, **others | {"labels": odd}), "labels")
    if found is not None:
        assert odd.dtype == torch.int64 and odd.shape == (4,)
        refuses_nothing_odd(found, loss(STUDENT, TEACHER, **others | {"labels": torch.tensor(odd.tolist())}))


# ---- metrics

IMAGES = torch.arange(4 * 16, dtype=torch.uint8).reshape(4, 1, 4, 4)
SPLITS = {
    "classes": data.ImageSplit(IMAGES, CLASSES),
    "several": data.ImageSplit(IMAGES, torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]])),
    "soft": data.ImageSplit(IMAGES, torch.full((4, 3), 1 / 3)),
    "other classes": data.ImageSplit(IMAGES, CLASSES + 5),
    "three images": data.ImageSplit(IMAGES[:3], CLASSES[:3]),
}
METRICS = [metrics.accuracy, metrics.calibration_error, metrics.mean_average_precision, metrics.roc_auc]
every_metric = st.sampled_from(METRICS)


@unhurried
@given(metric=every_metric, odd=tensors() | ANYTHING)
def test_a_metric_takes_logits_or_names_the_model(metric, odd):
    found = answer(lambda: metric(odd, SPLITS["classes"]), "model", "labels must be in [0, 0] for 1 classes")
    if found is not None:
        assert isinstance(odd, torch.Tensor) and odd.is_floating_point() and odd.shape == STUDENT.shape
        assert 0 <= found <= 1 and type(found) is float
        assert found == pytest.approx(metric(torch.tensor(odd.tolist()).to(odd.dtype), SPLITS["classes"]))


@unhurried
@given(odd=tensors() | ANYTHING, name=st.sampled_from(["student", "teacher"]))
def test_agreement_takes_logits_or_names_whose_they_are(odd, name):
    found = answer(
        lambda: metrics.agreement(
            **{"student": STUDENT, "teacher": TEACHER} | {name: odd}, split=SPLITS["soft"]
        ),
        name,
    )
    if found is not None:
        other = TEACHER if name == "student" else STUDENT
        assert found == np.mean(np.argmax(odd.tolist(), axis=1) == other.argmax(dim=1).numpy())


@unhurried
@given(
    metric=every_metric,
    odd=st.sampled_from([*SPLITS.values(), IMAGES, CLASSES, (IMAGES, CLASSES)]) | ANYTHING,
)
def test_a_metric_takes_a_split_or_names_it(metric, odd):
    found = answer(lambda: metric(STUDENT, odd), "split", "labels", "3 images")
    if found is not None:
        assert odd is SPLITS["classes"] or odd is SPLITS["several"] and metric in METRICS[2:]
        assert 0 <= found <= 1


@unhurried
@given(odd=ANYTHING)
def test_calibration_error_takes_a_number_of_bins_or_names_them(odd):
    assume(not (is_whole(odd) and odd > 1000))  # as many bins as asked for are made
    found = answer(lambda: metrics.calibration_error(STUDENT, SPLITS["classes"], bins=odd), "bins")
    assert (found is not None) == (is_whole(odd) and odd >= 1)


NUMBER_LISTS = st.lists(NUMBERS | st.floats(-1e3, 1e3) | THINGS, max_size=4) | st.lists(
    st.floats(-1e3, 1e3), min_size=3, max_size=3
).flatmap(
    lambda x: st.sampled_from(
        [x, tuple(x), np.array(x), torch.tensor(x), torch.tensor(x).bfloat16(), iter(x)]
    )
)


@pytest.mark.filterwarnings("error")
@unhurried
@given(odd=NUMBER_LISTS | ANYTHING, name=st.sampled_from("ab"))
def test_a_paired_interval_takes_numbers_or_names_them(odd, name):
    found = answer(
        lambda: metrics.paired_interval(**{"a": [1.0, 2.0, 4.0], "b": [0.0, 2.0, 1.0]} | {name: odd}),
        f"{name} ",
    )
    if found is not None:
        sign, other = (1, [0.0, 2.0, 1.0]) if name == "a" else (-1, [1.0, 2.0, 4.0])
        numbers = np.array([float(x) for x in odd])
        assert found.mean == pytest.approx(np.mean(sign * (numbers - other)), rel=1e-6, abs=1e-6)
        assert found.low <= found.mean <= found.high


@unhurried
@given(odd=ANYTHING)
def test_a_confidence_is_taken_or_named(odd):
    found = answer(lambda: metrics.paired_interval([1, 2, 4], [0, 2, 1], odd), "confidence")
    assert (found is not None) == (is_number(odd) and 0 < float(odd) < 1)
    assert found is None or all(map(math.isfinite, found))


# ---- splits

ARRAYS = st.sampled_from([
    np.zeros((4, 1, 4, 4), dtype=np.uint8), np.zeros((4, 1, 4, 4)), np.zeros((4, 28, 28, 3), dtype=np.uint8),
    np.zeros((4, 4, 4), dtype=np.uint8), np.zeros((5, 1, 4, 4), dtype=np.uint8), np.array([0, 1, 2, 2]),
    np.arange(64, dtype=np.uint8).reshape(4, 1, 4, 4)[::-1, :, ::2], np.asfortranarray(IMAGES.numpy()),
    np.array([0, 1, 2, 2], dtype=">i4"), np.array([0, 1, 2, 2], dtype=np.uint16), np.array([0, 1, 2, -2]),
    np.array([0.0, 1, 2, 2]), np.array([0, 1, 2, None]), np.array(["a", "b", "c", "d"]), np.eye(4), np.eye(4, 3) > 0,
    np.eye(4, dtype=int), np.full((4, 3), 1 / 3, np.float16), np.full((4, 3), np.nan), 2 * np.eye(4),
    np.eye(4).astype(complex), np.array([0, 1, 2, 2], dtype="datetime64[s]"), np.ma.array([0, 1, 2, 2]),
    np.array([(0, 1)] * 4, dtype=[("x", int), ("y", int)]), np.longdouble([0, 1, 2, 2]),
    torch.tensor([0, 1, 2, 2]), IMAGES, IMAGES.float() / 255, IMAGES.to_sparse(), IMAGES[:0], IMAGES.expand(4, 3, 4, 4),
    [0, 1, 2, 2], (0, 1, 2, 2), range(4), [0, 1], [[0], [1, 2]], iter([0, 1, 2, 2]), [0.5], [0.5, 0.5], [128.0], [2.0],
    [torch.tensor(1)] * 4, [True, False, True, True], [2**70] * 4, {0: 1},
])  # fmt: skip


@unhurried
@given(
    odd=ARRAYS | tensors() | ANYTHING, name=st.sampled_from(["images", "labels", "indices", "mean", "std"])
)
def test_a_split_takes_what_it_holds_or_names_it(odd, name):
    split = answer(lambda: data.ImageSplit(**{"images": IMAGES, "labels": CLASSES} | {name: odd}), name)
    if split is not None:
        assert split.images.shape == (4, split.images.shape[1], *split.images.shape[2:])
        kept = getattr(split, name)
        if odd is not None:
            values = odd.detach().tolist() if isinstance(odd, torch.Tensor) else np.asarray(odd).tolist()
            np.testing.assert_allclose(kept.numpy(), np.array(values, dtype=float), rtol=1e-6)
        assert kept.dtype == {"images": torch.uint8, "labels": kept.dtype, "indices": torch.int64}.get(
            name, torch.float32
        )
        assert (
            split.labels.dtype in (torch.int64, torch.float32)
            and (split.mean >= 0).all()
            and (split.std > 0).all()
        )
        assert split.has_classes == (split.labels.dtype == torch.int64)
        assert split.normalized().isfinite().all() and len(split.take(2)) == 2


@unhurried
@given(odd=ARRAYS | tensors(rows=4, columns=1) | ANYTHING, kind=st.sampled_from(["classes", "several"]))
def test_positions_are_taken_or_named(odd, kind):
    split = SPLITS[kind]
    chosen = answer(lambda: split.subset(odd), "positions")
    seen = answer(lambda: split.normalized(odd), "positions")
    if chosen is not None:
        rows = (
            odd
            if isinstance(odd, slice)
            else np.array([int(x) if type(x) is not bool else x for x in np.asarray(odd).tolist()])
        )
        assert chosen.indices.tolist() == np.arange(4)[rows].tolist()
        assert torch.equal(seen, split.normalized()[chosen.indices])
        assert torch.equal(chosen.labels, split.labels[chosen.indices])


@unhurried
@given(odd=ANYTHING, kind=st.sampled_from(["classes", "several", "soft"]))
def test_a_number_of_images_and_a_seed_are_taken_or_named(odd, kind):
    split = SPLITS[kind]
    some = answer(lambda: split.take(odd), "n must be")
    assert (some is not None) == (is_whole(odd) and 1 <= odd <= 4)
    assert some is None or len(some.indices.unique()) == odd
    seeded = answer(lambda: split.take(2, seed=odd), "seed")
    assert (seeded is not None) == (is_whole(odd) and odd >= 0)
    assert seeded is None or torch.equal(seeded.indices, split.take(2, seed=int(odd)).indices)


@unhurried
@given(odd=ANYTHING)
def test_an_augmentation_takes_its_settings_or_names_them(odd):
    assume(not (is_whole(odd) and odd > 100))  # as many pixels as asked for are made
    shift = answer(lambda: random_crop_flip(odd), "padding")
    assert (shift is not None) == (is_whole(odd) and odd >= 0)
    assert shift is None or shift(IMAGES).shape == IMAGES.shape
    assert (answer(lambda: random_crop_flip(flip=odd), "flip") is not None) == isinstance(
        odd, bool | np.bool_
    )


# ---- data sets

NAMES = st.text(max_size=12) | st.sampled_from(
    ["MNIST", "folder:", "folder: ", "folder:\0", "folder:~x/y", "Digits", "/"]
)


@unhurried
@given(odd=NAMES | ANYTHING)
def test_a_name_is_known_or_named(odd, tmp_path_factory):
    assume(odd not in sources.SOURCES if isinstance(odd, str) else True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        assert answer(lambda: data.load(odd), "name", "there is no folder") is None


@unhurried
@given(odd=NAMES | ANYTHING, name=st.sampled_from(["mnist", "cifar10", "fashion-mnist", "digits"]))
def test_a_root_is_read_or_named(odd, name, tmp_path_factory):
    def refuse(*args, **kwargs):
        raise socket.gaierror("no network in this test")

    assume(odd is not None)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        patch.setattr(socket, "getaddrinfo", refuse)
        assert answer(lambda: data.load(name, root=odd, full=True), "root") is None


@unhurried
@given(odd=ANYTHING, name=st.sampled_from(["seed", "full"]))
def test_seed_and_full_are_taken_or_named(odd, name):
    dataset = answer(lambda: data.load("digits", **{name: odd}), name)
    valid = is_whole(odd) and odd >= 0 if name == "seed" else isinstance(odd, bool | np.bool_)
    assert (dataset is not None) == valid
    if dataset is not None and name == "seed":
        assert torch.equal(dataset.validation.indices, data.load("digits", seed=int(odd)).validation.indices)


# What a file system may take for a name; hidden ones and links to here and above are none of a class.
CLASS_NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=12
).filter(lambda name: not name.startswith(".") and len(name.encode()) < 200)


@settings(unhurried, max_examples=15)
@given(
    names=st.lists(
        CLASS_NAMES, min_size=1, max_size=3, unique_by=lambda name: unicodedata.normalize("NFC", name)
    )
)
def test_a_class_may_have_any_name(names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    for path in (folder / split / name for split in ("train", "test") for name in names):
        path.mkdir(parents=True)
        for row in range(2):
            Image.new("L", (2, 2), row).save(path / f"{row}.png")
    dataset = data.load(f"folder:{folder}")
    assert dataset.classes == sorted(unicodedata.normalize("NFC", name) for name in names)
    assert len(dataset.test) == 2 * len(names)


def image_bytes(format):
    rows = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rows).save(buffer, format)
    return buffer.getvalue()


FORMATS = {
    format: image_bytes(format) for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA")
}


@st.composite
def damaged(draw):
    content = bytearray(draw(st.sampled_from(list(FORMATS.values()))))
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@pytest.mark.filterwarnings("ignore")  # decoders warn of what they find
@settings(unhurried, max_examples=200)
@given(content=damaged() | st.binary(max_size=60))
def test_an_image_file_is_read_or_named(content, tmp_path):
    path = tmp_path / "some image.png"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # a damaged header may ask for all memory
        image = answer(lambda: pixels.read(path), str(path))
    if image is not None:
        assert image.values.dtype == np.uint8 and image.values.ndim == (2 if image.is_grey else 3)
