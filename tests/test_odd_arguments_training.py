"""Odd arguments of trainings, sweeps, teachers and metrics: a right answer, or an error that names the argument.

One argument of a call that works is replaced at a time. What is worth the same gives the same answer; what makes no
sense is a ValueError, a TypeError or a FileNotFoundError with the argument's name in it. An error of the type
checker, which only the tests have, counts as a defect: a user would meet what is behind it.
"""

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn import functional as F

from kdlib import _files, _logit_cache, losses, metrics, sweeps, teachers, training
from kdlib.data import ImageSplit
from kdlib.features import FeatureTerm, hint_loss

pytestmark = pytest.mark.usefixtures("one_thread")

few = settings(
    max_examples=120, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip

# ---- what a call is made of


def images_of(count: int = 6, classes: int = 3) -> ImageSplit:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSplit(pixels, torch.arange(count) % classes)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
        )


class Net(nn.Module):
    def forward(self, images):
        return images


SPLIT, TEST = images_of(), images_of(4)
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
RECIPE = {
    "epochs": 1,
    "batch_size": 3,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "seed": 0,
    "progress": False,
}
RECIPE |= {"augment": None, "mix": None, "views": None, "checkpoint": None, "log_dir": None, "device": "cpu"}
RECIPE |= {"bfloat16": False}


def trained(model=None, split=SPLIT, **options):
    model = network() if model is None else model
    history = training.train(model, split, **{**RECIPE, **options})
    return history.records[-1]["loss"]


def distilled(student=None, teacher=LOGITS, split=SPLIT, **options):
    student = network() if student is None else student
    return training.distill(student, teacher, split, **{**RECIPE, **options}).records[-1]["loss"]


def matched(student=None, teacher=None, split=SPLIT, features=None, **options):
    student, teacher = network() if student is None else student, network(1) if teacher is None else teacher
    features = [FeatureTerm(hint_loss, "2", "2")] if features is None else features
    options = {**RECIPE, **options}
    return training.match_features(student, teacher, split, features=features, **options).records[-1]["loss"]


def swept(student=network, teacher=LOGITS, split=SPLIT, test=TEST, **options):
    options = {
        "temperatures": [4.0], "alphas": [1.0], "seeds": [0], "epochs": 1, "batch_size": 3, "bfloat16": False,
        "workers": 0, "progress": False,
    } | options  # fmt: skip
    return float(sweeps.run(student, teacher, split, test, **options)["accuracy"].iloc[0])


def frozen(network=None, mean=(0.5,), std=(0.5,), size=None):
    model = globals()["network"](2) if network is None else network
    return metrics.accuracy(teachers.freeze(model, mean=mean, std=std, size=size), SPLIT)


def combined(teachers_given=(LOGITS, LOGITS), by="logits"):
    return teachers.combine(teachers_given, by=by).sum().item()


def cached(teacher=None, split=SPLIT, device="cpu"):
    return (
        teachers.cached_logits(network(3) if teacher is None else teacher, split, device=device).sum().item()
    )


def loaded(dataset="fashion-mnist", folder=None):
    return next(teachers.load(dataset, folder=folder).parameters()).sum().item()


def accurate(model=LOGITS, split=SPLIT):
    return metrics.accuracy(model, split)


def calibrated(model=LOGITS, split=SPLIT, bins=15):
    return metrics.calibration_error(model, split, bins=bins)


def agreeing(student=LOGITS, teacher=LOGITS, split=SPLIT):
    return metrics.agreement(student, teacher, split)


# ---- what is worth the same, and what makes no sense

ONES = [1, np.int64(1), np.uint8(1)]
THREES = [3, np.int32(3), np.int64(3)]
HUNDREDTHS = [0.01, np.float64(0.01), Fraction(1, 100)]
SAME = {
    trained: {
        "epochs": ONES, "batch_size": THREES, "learning_rate": HUNDREDTHS, "weight_decay": HUNDREDTHS,
        "seed": [0, np.int64(0), np.uint8(0)], "device": [None, "cpu", torch.device("cpu")],
        "label_smoothing": [0, 0.0, np.float32(0), np.float64(0)],
        "progress": [False, True, None, lambda record: None, np.bool_(False)], "bfloat16": [False, np.bool_(False)],
        "task_loss": [F.cross_entropy, nn.CrossEntropyLoss()], "validation": [None, TEST],
    },
    distilled: {
        "epochs": ONES, "temperature": [4, 4.0, np.int64(4), np.float32(4), Fraction(4)],
        "alpha": [0.5, np.float64(0.5), np.float32(0.5), Fraction(1, 2)],
        "teacher": [LOGITS, LOGITS.numpy(), LOGITS.double(), np.asfortranarray(LOGITS.numpy().astype(np.float64))],
        "batch_size": [6, 7, 10**6, np.int64(6)], "features": [(), []],
        "loss": [losses.soft_target_loss, lambda s, t, temperature: losses.soft_target_loss(s, t, temperature)],
    },
    matched: {"epochs": ONES, "seed": [5, np.int64(5)]},
    swept: {
        "temperatures": [[4], (4.0,), np.array([4.0]), range(4, 5)],
        "alphas": [[1], (1.0,), np.array([1.0])], "seeds": [[0], range(1), np.array([0])], "epochs": ONES,
        "teacher": [LOGITS, LOGITS.numpy()], "workers": [0, np.int64(0)],
        "progress": [False, None, lambda done, total: None, np.bool_(False)],
    },
    frozen: {
        "mean": [[0.5], (0.5,), np.array([0.5]), torch.tensor([0.5]), torch.tensor([0.5], dtype=torch.float64)],
        "std": [[0.5], np.array([0.5], np.float32)], "size": [None, 8, np.int64(8)],
    },
    combined: {"teachers_given": [(LOGITS, LOGITS), [LOGITS, LOGITS.double()]]},
    cached: {"device": [None, "cpu", torch.device("cpu")]},
    loaded: {"dataset": ["fashion-mnist", np.str_("fashion-mnist")]},
    accurate: {"model": [LOGITS, LOGITS.double(), LOGITS.clone().requires_grad_()]},
    agreeing: {"teacher": [LOGITS, LOGITS.double()]},
}  # fmt: skip

NO_NUMBER = [
    None,
    "4",
    [4.0],
    (),
    {},
    object(),
    1j,
    math.nan,
    math.inf,
    -math.inf,
    np.array([1, 2]),
    nn.Linear,
]
NO_COUNT = [*NO_NUMBER, 0, -1, 1.5, 2.0, True, np.float64(2), Decimal(1)]
NEGATIVE = [-1, -0.5, -(10**400), 10**400]
NO_SPLIT = [None, "fashion-mnist", [SPLIT], LOGITS, SPLIT.images, (SPLIT.images, SPLIT.labels), ImageSplit, 3]
NO_NETWORK = [None, "tiny-cnn", 3, Net, [network()], lambda x: x, network().state_dict(), iter([network()])]
NO_LOGITS = [
    LOGITS[:4],
    LOGITS[0],
    LOGITS * math.nan,
    LOGITS.long(),
    LOGITS.bool(),
    torch.zeros(6, 0),
    LOGITS[:, :, None],
]
NO_LOGITS += [
    LOGITS.tolist(),
    LOGITS.to("meta"),
    LOGITS.to_sparse(),
    np.full((6, 3), np.inf),
    np.zeros((6, 3), int),
]
NO_FUNCTION = ["cross_entropy", 3, [F.cross_entropy], LOGITS]
NO_PATH = [3, ["a"], LOGITS, b"a", True]
NO_FILE = [*NO_PATH, "/dev/null", "."]
NO_DEVICE = ["gpu", "cuda:99", 3.5, ["cpu"], "", LOGITS]
NO_FLAG = ["yes", 3, [], LOGITS, 0.5]

RECIPE_NONSENSE = {
    "epochs": NO_COUNT, "batch_size": NO_COUNT, "learning_rate": [*NO_NUMBER, *NEGATIVE, 0, True],
    "weight_decay": [*NO_NUMBER, *NEGATIVE, True], "seed": [*NO_NUMBER, 1.0, True, np.float64(3)],
    "augment": NO_FUNCTION, "mix": NO_FUNCTION, "views": [*NO_COUNT[1:], 3], "split": NO_SPLIT,
    "checkpoint": NO_FILE, "log_dir": NO_PATH, "device": NO_DEVICE, "progress": ["yes", 3, [], LOGITS, 0.5, dict],
    "bfloat16": NO_FLAG,
}  # fmt: skip
NONSENSE = {
    trained: RECIPE_NONSENSE | {
        "model": NO_NETWORK[1:], "validation": NO_SPLIT[1:], "task_loss": [None, *NO_FUNCTION],
        "label_smoothing": [*NO_NUMBER, *NEGATIVE, 1.5, True],
    },
    distilled: RECIPE_NONSENSE | {
        "student": NO_NETWORK[1:], "teacher": [*NO_NETWORK, *NO_LOGITS], "validation": NO_SPLIT[1:],
        "temperature": [*NO_NUMBER, *NEGATIVE, 0, True], "alpha": [*NO_NUMBER, *NEGATIVE, 1.5, True],
        "loss": [None, *NO_FUNCTION], "task_loss": [None, *NO_FUNCTION],
        "features": [None, 3, "layer", [hint_loss], FeatureTerm, hint_loss],
    },
    matched: RECIPE_NONSENSE | {
        "student": NO_NETWORK[1:], "teacher": [*NO_NETWORK[1:], LOGITS],
        "features": [[], 3, "layer", [hint_loss], FeatureTerm],
    },
    swept: {
        "student": [None, "no-such-net", 3, network(), [network], lambda: 3], "teacher": [*NO_NETWORK, *NO_LOGITS],
        "split": NO_SPLIT, "test": NO_SPLIT, "epochs": NO_COUNT, "batch_size": NO_COUNT,
        "temperatures": [None, 4.0, [], [0], [-1], [math.nan], ["4"], [4, 4.0], "4", [True], [[4]]],
        "alphas": [None, 0.5, [], [2], [-0.1], [math.nan], ["1"], [1, 1.0], "1"],
        "seeds": [None, 0, [], [1.5], [math.nan], ["0"], [0, 0], [True], "0"],
        "workers": [-1, 1.5, "two", [1], math.nan, True], "results": NO_FILE, "bfloat16": NO_FLAG,
        "test_logits": [LOGITS, LOGITS[:, :2], "logits", 3, LOGITS[:4] * math.nan],
        "progress": ["yes", 3, [], LOGITS],
    },
    frozen: {
        "network": NO_NETWORK[1:], "mean": [3, "grey", [math.nan], [], [[0.5]], [0.5, 0.5], 1j, [127.5], object()],
        "std": [3, "grey", [0], [-1], [math.inf], [], [0.5, 0.5], None], "size": [0, -8, 1.5, "8", [8], True, math.nan],
    },
    combined: {
        "teachers_given": [None, 3, [], LOGITS, [None], [LOGITS, network()], [LOGITS, LOGITS[:3]], ["a"], network(),
                           [LOGITS, "a"], [LOGITS.long(), LOGITS]],
        "by": [None, "mean", 3, ["logits"], ""],
    },
    cached: {"teacher": [*NO_NETWORK[1:], LOGITS], "split": NO_SPLIT, "device": NO_DEVICE},
    loaded: {"dataset": [None, 3, "", "no-such-set", ["fashion-mnist"], "folder:/no/such", "a\0b"],
             "folder": ["/no/such", 3, ["a"], b"a", ""]},
    accurate: {"model": [*NO_NETWORK, *NO_LOGITS], "split": NO_SPLIT},
    calibrated: {"model": NO_NETWORK, "split": NO_SPLIT, "bins": NO_COUNT},
    agreeing: {"student": NO_NETWORK, "teacher": [*NO_NETWORK, *NO_LOGITS], "split": NO_SPLIT},
}  # fmt: skip
ALSO_CALLED = {"teachers_given": "teachers", "student": "model", "split": "images"}


def shown(call, **arguments) -> str:
    return f"{call.__name__}({', '.join(f'{name}={value!r:.60}' for name, value in arguments.items())})"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(_logit_cache, "_memory", {})
    monkeypatch.chdir(tmp_path)


# ---- the properties


def answer(call, **arguments):
    """What a call returns; None where it refuses, with an argument's name in the message."""
    (name,) = arguments
    try:
        return call(**arguments)
    except TypeCheckError as error:
        raise AssertionError(f"only the tests' type checker refuses this: {error}") from error
    except (ValueError, TypeError, FileNotFoundError) as error:
        named = name in str(error) or ALSO_CALLED.get(name, name) in str(error)
        assert named, f"{shown(call, **arguments)}: {name} is not named in {error!r}"
        return None


def test_what_is_worth_the_same_gives_the_same_answer():
    for call, arguments in SAME.items():
        for name, values in arguments.items():
            answers = [answer(call, **{name: value}) for value in values]
            assert None not in answers, f"{call.__name__}, {name}: {answers}"
            expected = pytest.approx(answers[0], rel=1e-5)
            for value, found in zip(values, answers, strict=True):
                assert found == expected, shown(call, **{name: value})


@pytest.mark.parametrize("call", NONSENSE, ids=lambda call: call.__name__)
def test_what_makes_no_sense_is_refused_by_the_arguments_name(call, tmp_path):
    for name, values in NONSENSE[call].items():
        for value in values:
            assert answer(call, **{name: value}) is None, f"{shown(call, **{name: value})} was accepted"
    left = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert not left, f"left in the current folder: {left}"


NUMBERS = st.one_of(
    st.floats(), st.integers(-(10**20), 10**20), st.fractions(), st.decimals(), st.complex_numbers(),
    st.sampled_from([np.float16("inf"), np.uint64(2**63), True, np.bool_(True), np.array(0.5), "0.5"]),
    st.sampled_from([torch.tensor(4.0), torch.tensor(3), torch.tensor(math.nan)]),
)  # fmt: skip
NUMERIC = [
    *((trained, name) for name in ("batch_size", "learning_rate", "weight_decay", "seed", "label_smoothing")),
    *((distilled, name) for name in ("temperature", "alpha", "batch_size")),
    *((calibrated, name) for name in ("bins",)),
]


@few
@given(called=st.sampled_from(NUMERIC), value=NUMBERS)
def test_any_number_gives_a_finite_loss_or_is_refused_by_the_arguments_name(called, value):
    call, name = called
    try:
        found = answer(call, **{name: value})
    except FloatingPointError as error:
        assert "learning_rate" in str(error)  # a rate may be too high
        return
    assert found is None or math.isfinite(found), shown(call, **{name: value})


def test_the_smallest_and_the_most_lopsided_splits_are_trained_on():
    one_class = ImageSplit(SPLIT.images, torch.zeros(6, dtype=torch.int64))
    for name, split in {
        "two images": images_of(2),
        "one class": one_class,
        "three in twos": images_of(3),
    }.items():
        for batch_size in (1, 2, 3, 100):
            if batch_size == 1:
                model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))  # batch norm wants two images
            else:
                model = network()
            assert math.isfinite(trained(model, split, batch_size=batch_size)), (name, batch_size)
    for alpha in (0, 1):
        assert math.isfinite(distilled(alpha=alpha, split=SPLIT)), alpha


def test_seeds_of_any_size_and_sign_give_trainings_of_their_own():
    losses_by_seed = [
        trained(split=images_of(24), seed=seed) for seed in (0, -1, 10**30, -(10**30), 2**40 + 5)
    ]
    assert len(set(losses_by_seed)) == 5 and all(map(math.isfinite, losses_by_seed))


def test_a_path_may_be_a_text_or_a_path(tmp_path):
    for name in (str(tmp_path / "text.pt"), tmp_path / "path.pt"):
        loss = trained(checkpoint=name)
        assert Path(name).exists() and trained(checkpoint=name) == loss
