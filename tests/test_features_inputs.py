"""Feature losses on the inputs that break others: zeros, one image, low precision, shapes that do not fit."""

import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlib import features

pytestmark = pytest.mark.usefixtures("one_thread")


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _flow(student, teacher):
    return features.flow_loss((student, student), (teacher, teacher))


def _gradcam(student, teacher):
    return features.gradcam_transfer_loss(student, teacher, student, teacher)


def _contrastive(student, teacher):
    return features.contrastive_loss(student.flatten(1), teacher.flatten(1))


def _variational(student, teacher):
    return features.variational_information_loss(student, teacher, torch.ones(student.shape[1]))


def _weighted(student, teacher):
    def scores(logits):  # nothing for every third position
        places = torch.arange(student[0, 0].numel()).view(student.shape[2:])
        return (places % 3).expand(len(logits), -1, -1)

    return features.score_weighted_loss(student, teacher, torch.zeros(len(student), 3), scores=scores)


def _module(kind):
    def loss(student, teacher):
        torch.manual_seed(0)
        return kind(student.shape[1], teacher.shape[1])(student, teacher)

    return loss


LOSSES = {
    "hint": features.hint_loss,
    "attention": features.attention_transfer_loss,
    "gradcam": _gradcam,
    "mmd polynomial": features.mmd_loss,
    "mmd linear": lambda s, t: features.mmd_loss(s, t, kernel="linear"),
    "mmd gaussian": lambda s, t: features.mmd_loss(s, t, kernel="gaussian"),
    "similarity": features.similarity_loss,
    "relational": features.relational_loss,
    "probabilistic": features.probabilistic_transfer_loss,
    "congruence": features.correlation_congruence_loss,
    "variational": _variational,
    "variational module": _module(features.VariationalInformationLoss),
    "contrastive": _contrastive,
    "contrastive module": _module(features.ContrastiveLoss),
    "flow": _flow,
    "weighted by score": _weighted,
}


def _one_zero_image():
    student = maps(3, 2, 2, 2)
    student[1] = 0
    return student, maps(3, 2, 2, 2, seed=1)


EDGES = {
    "zero image": _one_zero_image,
    "zero student": lambda: (torch.zeros(3, 2, 2, 2), maps(3, 2, 2, 2)),
    "zero teacher": lambda: (maps(3, 2, 2, 2), torch.zeros(3, 2, 2, 2)),
    "all zero": lambda: (torch.zeros(3, 2, 2, 2), torch.zeros(3, 2, 2, 2)),
    "one image": lambda: (maps(1, 2, 2, 2), maps(1, 2, 2, 2, seed=1)),
    "two images": lambda: (maps(2, 2, 2, 2), maps(2, 2, 2, 2, seed=1)),
    "equal to the teacher": lambda: (maps(3, 2, 2, 2), maps(3, 2, 2, 2)),
    "equal images": lambda: (maps(1, 2, 2, 2).repeat(3, 1, 1, 1), maps(3, 2, 2, 2)),
    "opposite images": lambda: (
        maps(1, 2, 2, 2) * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1),
        maps(2, 2, 2, 2),
    ),
    "one position": lambda: (maps(3, 2, 1, 1), maps(3, 2, 1, 1, seed=1)),
    "one channel": lambda: (maps(3, 1, 2, 2), maps(3, 1, 2, 2, seed=1)),
    "tiny": lambda: (maps(3, 2, 2, 2) * 1e-12, maps(3, 2, 2, 2, seed=1) * 1e-12),
    "large": lambda: (maps(3, 2, 2, 2) * 1e6, maps(3, 2, 2, 2, seed=1) * 1e6),
    "huge": lambda: (maps(3, 2, 2, 2) * 1e15, maps(3, 2, 2, 2, seed=1) * 1e15),
    "huge student": lambda: (maps(3, 2, 2, 2) * 1e15, maps(3, 2, 2, 2, seed=1)),
    "huge teacher": lambda: (maps(3, 2, 2, 2), maps(3, 2, 2, 2, seed=1) * 1e15),
    "huge channel": lambda: (
        maps(3, 2, 2, 2) * torch.tensor([1e15, 1.0]).view(1, 2, 1, 1),
        maps(3, 2, 2, 2, seed=1),
    ),
    "large common part": lambda: (maps(3, 2, 2, 2) + 1e6, maps(3, 2, 2, 2, seed=1) + 1e6),
    "one number": lambda: (maps(1, 1, 1, 1), maps(1, 1, 1, 1, seed=1)),
    "one huge number": lambda: (maps(1, 1, 1, 1) * 1e15, maps(1, 1, 1, 1, seed=1) * 1e15),
    "one row of positions": lambda: (maps(2, 3, 1, 5), maps(2, 3, 1, 5, seed=1)),
}
# A gradient has the features' dtype: float16 holds nothing above 65504.
TOO_LARGE_FOR_FLOAT16 = [edge for edge in EDGES if "large" in edge or "huge" in edge]


def is_finite(name, student, teacher):
    student = student.detach().requires_grad_()
    value = LOSSES[name](student, teacher)
    value.backward()
    return value.shape == () and value.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_finite(name):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for edge, features_ in EDGES.items():
            if dtype == torch.float16 and edge in TOO_LARGE_FOR_FLOAT16:
                continue
            assert is_finite(name, *(tensor.to(dtype) for tensor in features_())), (edge, dtype)


SCALES = {torch.float32: 1e15, torch.bfloat16: 1e15, torch.float16: 10.0}


@pytest.mark.filterwarnings("ignore:.*look like a channels-last map:UserWarning")
@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    dtype=st.sampled_from(list(SCALES)),
    scales=st.tuples(*[st.sampled_from([0.0, 1.0, "largest"])] * 2),
    zero_rows=st.booleans(),
    equal=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_features_give_finite_values_and_gradients(shape, dtype, scales, zero_rows, equal, seed):
    student, teacher = maps(*shape, seed=seed), maps(*shape, seed=seed if equal else seed + 1)
    if zero_rows:
        student[::2], teacher[1::2] = 0, 0
    student, teacher = (
        (tensor * (SCALES[dtype] if scale == "largest" else scale)).to(dtype)
        for tensor, scale in zip((student, teacher), scales, strict=True)
    )
    for name in LOSSES:
        assert is_finite(name, student, teacher), name


def test_teacher_gets_no_gradient():
    for name, loss in LOSSES.items():
        student, teacher = maps(4, 2, 2, 2).requires_grad_(), maps(4, 2, 2, 2, seed=1).requires_grad_()
        loss(student, teacher).backward()
        assert teacher.grad is None, name
        assert student.grad.abs().sum() > 0, name


def test_low_precision_is_computed_in_float32_also_under_autocast():
    for name, loss in LOSSES.items():
        for dtype in (torch.bfloat16, torch.float16):
            student, teacher = (tensor.to(dtype) for tensor in (maps(4, 2, 2, 2), maps(4, 2, 2, 2, seed=1)))
            exact = loss(student.float(), teacher.float()).item()
            assert loss(student, teacher).item() == pytest.approx(exact, rel=1e-6), name
            if name != "variational module":  # its convolutions are the user's to run in bfloat16
                with torch.autocast("cpu", dtype=dtype):
                    value = loss(student.float(), teacher.float()).item()
                assert value == pytest.approx(exact, rel=1e-6), name


SCALE_FREE = [
    "attention",
    "mmd polynomial",
    "similarity",
    "relational",
    "probabilistic",
    "congruence",
    "contrastive",
]


def test_scale_free_losses_ignore_the_scale():
    for name in SCALE_FREE:
        student, teacher = maps(5, 3, 2, 2), maps(5, 3, 2, 2, seed=1)
        value = LOSSES[name](student, teacher).item()
        for scale in (1e-10, 1e8):
            scaled = LOSSES[name](student * scale, teacher).item()
            assert scaled == pytest.approx(value, rel=1e-4), (name, scale)


def test_relations_accept_any_two_shapes_and_are_zero_for_one_image():
    for name in ("similarity", "relational", "probabilistic", "congruence"):
        assert torch.isfinite(LOSSES[name](maps(4, 7), maps(4, 3, 5, 5))), name
        assert abs(LOSSES[name](maps(1, 7), maps(1, 9)).item()) < 1e-12, name


MISMATCHES = [
    ("hint", (4, 2, 8, 8), (4, 3, 8, 8), "Regressor"),
    ("hint", (4, 2, 8, 8), (4, 2, 4, 4), "Regressor"),
    ("weighted by score", (4, 2, 8, 8), (4, 3, 8, 8), "Regressor"),
    ("weighted by score", (4, 2, 8, 8), (4, 2, 4, 4), "Regressor"),
    ("attention", (4, 2, 8, 8), (4, 2, 4, 4), "adaptive_avg_pool2d"),
    ("gradcam", (4, 2, 8, 8), (4, 2, 4, 4), "adaptive_avg_pool2d"),
    ("mmd gaussian", (4, 2, 8, 8), (4, 2, 8, 4), "adaptive_avg_pool2d"),
    ("flow", (4, 2, 8, 8), (4, 3, 8, 8), "Regressor"),
    ("variational", (4, 2, 8, 8), (4, 3, 8, 8), "VariationalInformationLoss"),
    ("variational module", (4, 2, 8, 8), (4, 3, 4, 4), "adaptive_avg_pool2d"),
    ("contrastive", (4, 2, 1, 1), (4, 3, 1, 1), "ContrastiveLoss"),
    *((name, (4, 2, 2, 2), (3, 2, 2, 2), "batch|shape") for name in LOSSES if name != "variational module"),
]


def refusal(call, *arguments):
    """The message of the ValueError that the call must raise."""
    try:
        call(*arguments)
    except ValueError as error:
        return str(error)
    return "nothing was raised"


def test_mismatch_shows_both_shapes_and_what_to_use():
    for name, student, teacher, advice in MISMATCHES:
        message = refusal(LOSSES[name], torch.zeros(student), torch.zeros(teacher))
        assert re.search(advice, message), (name, student, teacher, message)
        for shape in (student, teacher):
            shown = shape if name != "contrastive" else (shape[0], shape[1] * shape[2] * shape[3])
            assert str(shown) in message, (name, student, teacher, message)


def test_maps_must_be_maps():
    for name in ("attention", "gradcam", "mmd linear", "flow", "weighted by score"):
        message = refusal(LOSSES[name], torch.zeros(4, 10), torch.zeros(4, 10))
        wanted = r"\(batch, channels, height, width\), got \(4, 10\).*to_map"
        assert re.search(wanted, message), (name, message)


def test_wrong_kinds_of_features_are_named():
    for name, loss in LOSSES.items():
        message = refusal(loss, torch.zeros(4, 2, 2, 2, dtype=torch.int64), torch.zeros(4, 2, 2, 2))
        assert "floating-point" in message, (name, message)


def test_empty_and_missing_features():
    with pytest.raises(ValueError, match=r"no axis of length 0, got \(0, 5\)"):
        features.similarity_loss(torch.zeros(0, 5), torch.zeros(0, 5))
    with pytest.raises(TypeError, match="teacher_features must be a torch.Tensor, got list"):
        features.hint_loss(torch.zeros(1, 2), [[0.0, 0.0]])
    with pytest.raises(TypeError, match="teacher_features"):
        features.hint_loss(torch.zeros(1, 2))


BAD_ARGUMENTS = [
    (lambda s: features.mmd_loss(s, s, kernel="cubic"), "kernel .*'polynomial'.*'cubic'"),
    (lambda s: features.attention_transfer_loss(s, s, power=0), "power must be above 0"),
    (lambda s: features.relational_loss(s, s, angle_weight=-1), "angle_weight must be at least 0"),
    (lambda s: features.correlation_congruence_loss(s, s, gamma=0), "gamma must be above 0"),
    (lambda s: features.correlation_congruence_loss(s, s, order=0), "order must be at least 1"),
    (lambda s: features.contrastive_loss(s[:, :, 0, 0], s[:, :, 0, 0], temperature=0), "temperature"),
    (lambda s: features.contrastive_loss(s[:, :, 0, 0], s[:, :, 0, 0], dataset_size=0), "dataset_size"),
    (
        lambda s: features.contrastive_loss(s[:, :, 0, 0], s[:, :, 0, 0], labels=torch.zeros(9).long()),
        r"labels must be a tensor of shape \(4,\).*got \(9,\)",
    ),
    (lambda s: features.variational_information_loss(s, s, torch.ones(7)), r"variance.*\(2,\).*\(7,\)"),
    (lambda s: features.variational_information_loss(s, s, torch.zeros(2)), "variance must be above 0"),
    (lambda s: features.gradcam_transfer_loss(s, s, s[:, :1], s), "student_gradients and student_features"),
    (lambda s: features.gradcam_map(s, s[:, :1]), r"\(4, 2, 2, 2\) and \(4, 1, 2, 2\)"),
    (lambda s: features.class_gradients(s[:, :, 0, 0], s, torch.zeros(4).long()), "gradients enabled"),
    (lambda s: features.flow_loss((s,), (s, s)), "student_features must be two feature maps"),
    (lambda s: features.attention_map(s[0]), r"features must have shape \(batch, .*got \(2, 2, 2\)"),
    (lambda s: features.Regressor(0, 3), "student_channels must be at least 1"),
    (lambda s: features.Regressor(5, 3)(s), r"must have 5 channels.*\(4, 2, 2, 2\)"),
    (lambda s: features.Regressor.between(s, s.flatten(1)), r"\(4, 2, 2, 2\) and \(4, 8\)"),
    (lambda s: features.ContrastiveLoss(3, 2)(s, s), "student_features must have 3 channels"),
    (lambda s: features.VariationalInformationLoss(3, 2)(s, s), "must have 3 and 2 channels"),
    (lambda s: features.VariationalInformationLoss(2, 2, initial_variance=1e-9), "initial_variance"),
    (
        lambda s: features.VariationalInformationLoss(2, 2)(s.flatten(2), s.flatten(2)),
        r"\(4, 2, 4\) and \(4, 2, 4\); see kdlib.features.to_map",
    ),
    (lambda s: features.Regressor(2, 3, size=(0, 4)), r"size must be \(height, width\).*got \(0, 4\)"),
    (lambda s: features.Regressor(2, 3, size=7), r"size must be \(height, width\).*got 7"),
    (
        lambda s: features.Regressor(2, 3, batch_norm=True)(s[:1, :, 0, 0]),
        r"nothing to normalise by in training mode.*one image of one position.*\(1, 2\)",
    ),
    (
        lambda s: features.class_gradients(
            s[:, :, 0, 0].clone().requires_grad_(), s.clone().requires_grad_(), torch.zeros(4).long()
        ),
        "logits do not depend on features: take both from one forward pass",
    ),
]


def test_bad_arguments_are_named():
    for call, wanted in BAD_ARGUMENTS:
        message = refusal(call, maps(4, 2, 2, 2))
        assert re.search(wanted, message), (wanted, message)


def test_what_is_no_tensor_is_named():
    cases = [
        (lambda: features.Regressor(2, 3)([1.0]), "student_features must be a torch.Tensor, got list"),
        (lambda: features.attention_map(None), "features must be a torch.Tensor, got NoneType"),
        (
            lambda: features.alignment_map([maps(4, 2)], {}),
            "features must be a mapping from layers .* got list",
        ),
        (lambda: features.Regressor("2", 3), "student_channels must be an integer, got str '2'"),
        (
            lambda: features.relational_loss(maps(4, 2), maps(4, 2), angle_weight="1"),
            "angle_weight must be a num",
        ),
    ]
    for call, message in cases:
        with pytest.raises(TypeError, match=message):
            call()


def test_contrastive_module_pairs_student_and_teacher():
    torch.manual_seed(0)
    student, teacher = maps(16, 6), maps(16, 9, 2, 2, seed=1)
    loss = features.ContrastiveLoss(6, 9, dimension=8)
    before = loss(student, teacher).item()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    after = loss(student, teacher).item()
    assert after < 0.3 * before
    assert loss(student.roll(1, 0), teacher).item() > 2 * after


def test_values_do_not_depend_on_how_much_there_is():
    """Features of independent noise: four times the images, channels or positions, nearly the same value."""
    comparable = {
        "hint": "bcm",
        "attention": "bm",
        "mmd polynomial": "b",
        "relational": "b",
        "probabilistic": "b",
        "congruence": "b",
        "variational": "bcm",
        "flow": "b",
    }
    larger = {"b": (64, 8, 8, 8), "c": (16, 32, 8, 8), "m": (16, 8, 16, 16)}
    for name, axes in comparable.items():
        base = LOSSES[name](maps(16, 8, 8, 8), maps(16, 8, 8, 8, seed=1)).item()
        for axis in axes:
            value = LOSSES[name](maps(*larger[axis]), maps(*larger[axis], seed=1)).item()
            assert value == pytest.approx(base, rel=0.3), (name, axis)


def test_importing_the_losses_does_not_import_torchvision():
    code = "import sys, kdlib.features; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
