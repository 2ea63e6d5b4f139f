"""The figures drawn in the browser: what is sent there, and the mathematics that JavaScript does with it."""

import base64
import io
import itertools
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from kdlib import losses
from kdlib.lesson import browser, widgets

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 255, (3, 1, 28, 28), dtype=np.uint8)
LOGITS = RANDOM.normal(scale=4, size=(3, 5))
STUDENT_LOGITS = RANDOM.normal(scale=2, size=(3, 5))
LABELS = [4, 0, 2]
CLASSES = ["ant", "bee", "cat", "dog", "eel"]


WITH_STUDENT = {"student_logits": STUDENT_LOGITS, "alpha": 0.5}


def hero(**changes):
    arguments = {
        "images": IMAGES,
        "logits": LOGITS,
        "labels": LABELS,
        "classes": CLASSES,
        "caption": "Drag T.",
    }
    return widgets.temperature_hero(**{**arguments, **changes})


def test_a_hero_sends_the_real_logits_and_images():
    sent = hero(logits=torch.tensor(LOGITS), images=torch.tensor(IMAGES), labels=torch.tensor(LABELS))
    np.testing.assert_array_equal(sent.logits, LOGITS)
    assert sent.labels == LABELS and sent.names == ["eel", "ant", "cat"]
    for source, image in zip(sent.images, IMAGES, strict=True):
        png = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), image[0])


def test_a_hero_takes_colour_images():
    colour = RANDOM.integers(0, 255, (3, 3, 8, 9), dtype=np.uint8)
    png = base64.b64decode(hero(images=colour).images[0].partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), colour[0].transpose(1, 2, 0))


def test_a_hero_in_a_committed_notebook_is_one_stable_line():
    begin = "Interactive figure: open the notebook in JupyterLab to move"
    for sent, moved in ((hero(), "temperature"), (hero(**WITH_STUDENT), "temperature, alpha")):
        data, _ = sent._repr_mimebundle_()
        assert data["text/plain"] == f"{begin} {moved} and to pick an image."


def test_a_hero_with_a_student_sends_both_networks_logits():
    sent = hero(student_logits=torch.tensor(STUDENT_LOGITS), alpha=0.25)
    np.testing.assert_array_equal(sent.student_logits, STUDENT_LOGITS)
    np.testing.assert_array_equal(sent.teacher_logits, LOGITS)
    assert sent.alpha == 0.25


def test_a_hero_refuses_what_cannot_work():
    for changes, message in [
        ({"logits": LOGITS[:2]}, r"logits has shape \(2, 5\), but \(images, classes\) is \(3, 5\)"),
        ({"logits": LOGITS * np.inf}, "logits must be finite"),
        ({"labels": [0, 1]}, "3 images and 2 labels"),
        ({"labels": [0, 1, 5]}, "label 5 is not one of the 5 classes"),
        ({"images": IMAGES.astype(float)}, "must be uint8"),
        ({"images": IMAGES.repeat(2, axis=1)}, r"\(2, 28, 28\)"),
        ({"temperature": 30}, r"temperature=30 lies outside temperatures=\(0.5, 20.0\)"),
        ({"temperatures": (0, 5)}, r"temperatures=\(0, 5\) must be a range"),
        ({**WITH_STUDENT, "alpha": 1.5}, r"alpha=1.5 must lie in \[0, 1\]"),
        ({**WITH_STUDENT, "student_logits": LOGITS[:, :4]}, r"student_logits has shape \(3, 4\)"),
        ({"alpha": 0.5}, "alpha is given without student_logits"),
        ({"student_logits": STUDENT_LOGITS}, "student_logits is given without alpha"),
        ({"names": ["one"]}, "1 names for 3 images"),
        ({"caption": ""}, "caption"),
    ]:
        with pytest.raises(ValueError, match=message):
            hero(**changes)
            pytest.fail(f"accepted: {changes}")


def test_a_gradient_hero_sends_both_networks_logits():
    sent = widgets.gradient_hero(IMAGES, STUDENT_LOGITS, LOGITS, LABELS, CLASSES, caption="Drag alpha.")
    np.testing.assert_array_equal(sent.student_logits, STUDENT_LOGITS)
    np.testing.assert_array_equal(sent.teacher_logits, LOGITS)
    with pytest.raises(ValueError, match="student_logits has shape"):
        widgets.gradient_hero(IMAGES, STUDENT_LOGITS[:, :4], LOGITS, LABELS, CLASSES, caption="Drag alpha.")


# --- the static twin


def terms_of(row: int, temperature: float, alpha: float) -> losses.LossTerms:
    """The loss of one image, as the library computes it."""
    student, teacher = torch.tensor(STUDENT_LOGITS[[row]]), torch.tensor(LOGITS[[row]])
    label = torch.tensor(LABELS[row : row + 1])
    return losses.distillation_loss(student, teacher, label, temperature=temperature, alpha=alpha)


def test_the_twin_draws_both_predictions_and_the_terms_of_the_loss():
    figure = Figure()
    update = hero(**WITH_STUDENT, names=["a", "b", "c"]).draw(figure)
    picture, bars, areas = figure.axes
    for row, name, temperature, alpha in ((0, "a", 4.0, 0.9), (2, "c", 1.0, 0.25)):
        update(image=name, temperature=temperature, alpha=alpha)
        total, task, distill = (float(term) for term in terms_of(row, temperature, alpha))
        np.testing.assert_array_equal(picture.images[0].get_array(), IMAGES[row, 0])
        written = [text.get_text() for text in bars.texts]
        for drawn, logits, letter in zip(bars.containers, (LOGITS, STUDENT_LOGITS), "pq", strict=True):
            expected = torch.tensor(logits[row] / temperature).softmax(dim=0)
            np.testing.assert_allclose([bar.get_width() for bar in drawn], expected)
            column = written[written.index(letter) :][1:6]
            assert column == [f"{100 * share:.1f} %" for share in expected.tolist()]
        np.testing.assert_allclose(bars.lines[0].get_ydata(), LABELS[row])
        label_bar, teacher_bar, top = areas.lines
        floor = (1 - alpha) * task
        for line, heights in ((label_bar, [0, floor]), (teacher_bar, [floor, total]), (top, [total])):
            np.testing.assert_allclose(line.get_xdata(), [temperature] * len(heights))
            np.testing.assert_allclose(line.get_ydata(), heights)
        written = [text.get_text().split("= ")[-1] for text in areas.get_legend().get_texts()]
        assert written == [f"{value:.2f}" for value in (floor, alpha * distill, total)]


def test_the_twins_scale_holds_every_loss_of_an_image_and_stays():
    figure = Figure()
    update = hero(**WITH_STUDENT, names=["a", "b", "c"]).draw(figure)
    areas, limits = figure.axes[2], set()
    for temperature, alpha in itertools.product([0.5, 2, 20], [0, 0.5, 1]):
        update(image="b", temperature=temperature, alpha=alpha)
        limits.add(areas.get_ylim())
        assert terms_of(1, temperature, alpha).total <= areas.get_ylim()[1] * 1.001
    assert len(limits) == 1


def test_the_twin_refuses_a_name_that_is_not_one_images():
    update = hero(**WITH_STUDENT, names=["same", "same", "other"]).draw(Figure())
    for name, number in (("same", 2), ("none", 0)):
        with pytest.raises(ValueError, match=f"image='{name}' is the name of {number} images"):
            update(image=name, temperature=4.0, alpha=0.5)


# --- mathematics in JavaScript


@pytest.fixture(scope="module")
def javascript():
    """Evaluate an expression of static/maths.js on arguments, in one run of node per call."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the browser's mathematics cannot be run here")

    def evaluate(expression: str, **arguments):
        names = ", ".join(arguments)
        program = (
            f"const {{ {names} }} = {json.dumps(arguments)};\nconsole.log(JSON.stringify({expression}));"
        )
        command = [node, "--input-type=module", "-"]
        script = f"{browser.script('maths.js')}\n{program}"
        finished = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
        return json.loads(finished.stdout)

    return evaluate


def test_softmax_and_entropy_agree_with_torch(javascript):
    temperatures = [0.05, 0.5, 1, 4, 20, 1e6]
    rows = [*LOGITS.tolist(), [1e4, -1e4, 0, 0, 0]]
    got = javascript(
        "T.map((t) => z.map((row) => [softmax(row, t), entropy(softmax(row, t))]))", T=temperatures, z=rows
    )
    for temperature, of_rows in zip(temperatures, got, strict=True):
        for row, (soft, entropy) in zip(rows, of_rows, strict=True):
            expected = torch.distributions.Categorical(
                logits=torch.tensor(row, dtype=torch.float64) / temperature
            )
            np.testing.assert_allclose(soft, expected.probs, rtol=1e-12, atol=1e-300)
            assert entropy == pytest.approx(float(expected.entropy()), rel=1e-9, abs=1e-12)


def test_the_terms_of_the_loss_are_those_of_the_library(javascript):
    settings = list(itertools.product(range(3), [0.5, 1, 4, 20, 100], [0, 0.35, 1]))
    found = javascript(
        "settings.map(([row, T, alpha]) => lossTerms(student[row], teacher[row], labels[row], T, alpha))",
        student=STUDENT_LOGITS.tolist(), teacher=LOGITS.tolist(), labels=LABELS, settings=settings,
    )  # fmt: skip
    for setting, got in zip(settings, found, strict=True):
        for name, expected in terms_of(*setting)._asdict().items():
            assert got[name] == pytest.approx(float(expected), rel=1e-6), (name, setting)


def test_the_loss_stays_finite_where_a_probability_is_too_small_to_be_told_from_0(javascript):
    extreme = [1e4, -1e4, 0.0]
    got = javascript("lossTerms(z, [...z].reverse(), 1, 0.5, 0.5)", z=extreme)
    student, teacher = torch.tensor([extreme], dtype=torch.float64), torch.tensor([[0.0, -1e4, 1e4]]).double()
    expected = losses.distillation_loss(student, teacher, torch.tensor([1]), temperature=0.5, alpha=0.5)
    assert got == pytest.approx({name: float(term) for name, term in expected._asdict().items()})


def test_the_step_between_the_numbers_of_an_axis_is_round(javascript):
    got = javascript("[7.6, 2.45, 1, 0.043].map(roundStep)")
    assert got == pytest.approx([5, 2, 1, 0.02])


def test_the_gradients_are_those_of_the_loss(javascript):
    settings = list(itertools.product([0.7, 4.0], [0.0, 0.35, 1.0]))
    found = javascript(
        "settings.map(([temperature, alpha]) => gradients(student, teacher, label, temperature, alpha))",
        student=STUDENT_LOGITS[0].tolist(),
        teacher=LOGITS[0].tolist(),
        label=LABELS[0],
        settings=settings,
    )
    student = torch.tensor(STUDENT_LOGITS[:1], requires_grad=True)
    teacher, labels = torch.tensor(LOGITS[:1]), torch.tensor(LABELS[:1])
    for (temperature, alpha), got in zip(settings, found, strict=True):
        terms = losses.distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
        for name, term in terms._asdict().items():
            (expected,) = torch.autograd.grad(term, student, retain_graph=True)
            np.testing.assert_allclose(
                got[name], expected[0], rtol=1e-6, atol=1e-9, err_msg=f"{name} at {temperature}, {alpha}"
            )


def test_norm_and_angle_of_vectors(javascript):
    got = javascript("[norm([3, 4]), angle([1, 0], [0, 2]), angle([1, 1], [-2, -2]), angle([0, 0], [1, 2])]")
    np.testing.assert_allclose(got, [5, np.pi / 2, np.pi, 0])
