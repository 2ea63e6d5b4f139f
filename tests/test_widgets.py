"""Explorers, twins and strips: one drawing function, and pictures that are right at every value."""

import io

import ipywidgets
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from kdlib.lesson import browser, figures, widgets
from kdlib.lesson.canvas import BlittedFigure

GRID = np.linspace(0, 1, 50)


def power_curve(calls=None):
    """A curve x^exponent, inside the frame; `calls` records what its update was called with."""

    def draw(figure):
        axes = figure.subplots()
        axes.set(xlim=(-0.2, 1.2), ylim=(-0.2, 1.2))
        (line,) = axes.plot([], [])

        def update(*, exponent, scale=1.0):
            if calls is not None:
                calls.append((exponent, scale))
            line.set_data(GRID, scale * GRID**exponent)
            return [line]

        return update

    return draw


def power_explorer(draw=None, **controls):
    controls = controls or {"exponent": widgets.slider(1, 9, value=2)}
    return widgets.explorer(draw or power_curve(), caption="A power.", size=(4, 3), **controls)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


# --- explorer


def test_moving_a_slider_draws_the_picture_of_its_value():
    calls = []
    controls = {"exponent": widgets.slider(1, 9, value=2), "scale": widgets.slider(0.1, 1.0, value=0.5)}
    explorer = power_explorer(power_curve(calls), **controls)
    first = explorer.image.value
    explorer.controls["exponent"].value = 5
    explorer.controls["scale"].value = 0.7
    assert calls == [(2, 0.5), (5, 0.5), (5, 0.7)]
    assert explorer.image.value != first
    explorer.controls["scale"].value = 0.5
    explorer.controls["exponent"].value = 2
    assert explorer.image.value == first


def test_a_blitted_picture_is_the_picture_drawn_at_once():
    blitted = BlittedFigure(power_curve(), size=(4, 3))
    blitted.png({"exponent": 1})
    with figures.style():
        whole = Figure(figsize=(4, 3))
        power_curve()(whole)(exponent=5)
        canvas = FigureCanvasAgg(whole)
        canvas.draw()
    np.testing.assert_array_equal(
        pixels(blitted.png({"exponent": 5})), np.asarray(canvas.buffer_rgba())[..., :3]
    )


def test_a_quick_picture_shows_what_a_kept_one_shows():
    figure = Figure(figsize=(3.1, 1.7), facecolor="#123456")
    figure.subplots().plot([0, 1], color="#FF8001")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    quick = Image.open(io.BytesIO(figures.encoded(canvas, compress_level=1)))
    assert (quick.format, quick.mode, quick.size) == ("PNG", "RGB", (310, 170))
    np.testing.assert_array_equal(np.asarray(quick), np.asarray(canvas.buffer_rgba())[..., :3])
    np.testing.assert_array_equal(pixels(figures.png(figure)), np.asarray(quick))


def test_a_move_does_not_redraw_what_stands_still():
    blitted = BlittedFigure(power_curve(), size=(4, 3))
    blitted.png({"exponent": 1})
    background = blitted._background
    blitted.png({"exponent": 2})
    assert blitted._background is background


def titled(figure):
    axes = figure.subplots()
    (line,) = axes.plot([], [])

    def update(*, exponent):
        axes.set_title(f"x to the {exponent}")  # moved, but not returned
        axes.set_xlim(0, exponent)
        line.set_data(GRID, GRID**exponent)
        return line

    return update


def replaced(figure):
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    drawn = []

    def update(*, exponent):
        while drawn:
            drawn.pop().remove()
        drawn.append(axes.fill_between(GRID, GRID**exponent, color="black"))
        return drawn

    return update


def test_the_picture_does_not_depend_on_the_way_to_it():
    for draw in (titled, replaced):
        explorer = power_explorer(draw, exponent=widgets.slider(1, 9, value=2))
        first = explorer.image.value
        explorer.controls["exponent"].value = 7
        there = explorer.image.value
        explorer.controls["exponent"].value = 2
        explorer.controls["exponent"].value = 7
        assert explorer.image.value == there != first, draw


def test_the_output_keeps_its_size_on_the_page():
    explorer = power_explorer()
    width, height = pixels(explorer.image.value).shape[1::-1]
    assert (explorer.image.width, explorer.image.height) == (str(width), str(height)) == ("400", "300")
    assert explorer.image.layout.max_width == "100%"


def test_labels_default_to_the_names_of_the_controls():
    own = widgets.slider(0.1, 1.0, value=0.5, label="scale factor")
    explorer = power_explorer(exponent=widgets.choice([1, 2], value=1), scale=own)
    assert [control.description for control in explorer.controls.values()] == ["exponent", "scale factor"]


def test_what_is_committed_names_the_controls_and_no_model():
    texts = {power_explorer()._repr_mimebundle_()["text/plain"] for _ in range(2)}
    assert texts == {"Interactive figure: open the notebook in JupyterLab to move exponent."}


def test_an_update_that_fails_says_so_in_the_page_and_recovers():
    def draw(figure):
        update_curve = power_curve()(figure)

        def update(*, exponent):
            if exponent == 3:
                raise ArithmeticError("three <is> a crowd")
            return update_curve(exponent=exponent)

        return update

    explorer = power_explorer(draw)
    with pytest.raises(ArithmeticError):
        explorer.controls["exponent"].value = 3
    assert "three &lt;is&gt; a crowd" in explorer.children[2].value
    explorer.controls["exponent"].value = 4
    assert explorer.children[2].value == ""


def test_an_explorer_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="cannot take the values of .temperature."):
        power_explorer(temperature=widgets.slider(1, 9, value=2))
    with pytest.raises(ValueError, match="at least one control"):
        widgets.explorer(power_curve(), caption="A power.")
    with pytest.raises(ValueError, match="exponent=5 is not a control"):
        power_explorer(exponent=5)
    with pytest.raises(ValueError, match="caption"):
        widgets.explorer(power_curve(), caption=" ", exponent=widgets.slider(1, 9, value=2))
    with pytest.raises(ValueError, match="returned no artist"):
        power_explorer(lambda figure: lambda exponent: None)
    with pytest.raises(ValueError, match="update returned 3"):
        power_explorer(lambda figure: lambda exponent: [3])
    with pytest.raises(TypeError, match=r"draw\(figure\) returned None"):
        power_explorer(lambda figure: None)


# --- controls


def test_whole_numbers_make_a_slider_of_whole_numbers():
    slider = widgets.slider(0, 5, value=2)
    assert isinstance(slider, ipywidgets.IntSlider) and (slider.min, slider.max, slider.step) == (0, 5, 1)
    assert isinstance(widgets.slider(0, 5, value=2.0), ipywidgets.FloatSlider)


def test_a_slider_has_round_steps_and_shows_their_decimals():
    for span, step, shown in ((1, 0.01, ".2f"), (19.5, 0.1, ".1f"), (400, 2, ".0f")):
        slider = widgets.slider(0.5, 0.5 + span, value=0.5)
        assert slider.step == pytest.approx(step) and slider.readout_format == shown, span


def test_a_logarithmic_slider_stops_at_its_first_value():
    for value in (0.5, 1, 4, 20):
        slider = widgets.slider(0.5, 20, value=value, log=True)
        stops = (np.log10(value) - slider.min) / slider.step
        assert slider.value == pytest.approx(value) and stops == pytest.approx(round(stops))
        assert 80 <= (slider.max - slider.min) / slider.step <= 200, value


def test_controls_refuse_what_cannot_work():
    with pytest.raises(ValueError, match="minimum=5 must be smaller than maximum=5"):
        widgets.slider(5, 5, value=5)
    with pytest.raises(ValueError, match="value=7 lies outside"):
        widgets.slider(0, 5, value=7)
    with pytest.raises(ValueError, match="step=0 must be positive"):
        widgets.slider(0, 5, value=2, step=0)
    with pytest.raises(ValueError, match="minimum=0 must be positive"):
        widgets.slider(0, 5, value=2, log=True)
    with pytest.raises(ValueError, match="value='z' is not one of the options"):
        widgets.choice(["a", "b"], value="z")


# --- twin and strip


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as a list of (data, metadata)."""
    outputs = []
    monkeypatch.setattr(figures, "display", lambda data, **rest: outputs.append((data, rest.get("metadata"))))
    return outputs


def test_a_twin_shows_one_figure_and_its_caption(shown):
    calls = []
    settings = [{"exponent": 1}, {"exponent": 2}, {"exponent": 4}]
    widgets.twin(power_curve(calls), settings, caption="Powers\n  bend.", columns=2, size=(3, 2))
    assert calls == [(1, 1.0), (2, 1.0), (4, 1.0)]
    (picture, metadata), (caption, _), (data, _) = shown
    assert pixels(picture["image/png"]).shape == (400, 600, 3)
    assert metadata["image/png"]["alt"] == "Powers bend."
    assert caption["text/markdown"] == "*Figure: Powers bend.*"
    assert all(f">exponent = {exponent}" in data["text/html"] for exponent in (1, 2, 4))


def test_the_panels_of_a_twin_say_what_they_show():
    def titles(settings):
        figure = widgets.small_multiples(power_curve(), settings, columns=2, size=(3, 2))
        return [panel.get_suptitle() for panel in figure.subfigs]

    settings = [{"exponent": 1, "scale": 0.25}, {"exponent": 2, "scale": 1 / 3}]
    assert titles(settings) == ["exponent = 1, scale = 0.25", "exponent = 2, scale = 0.333"]
    assert titles({"straight": {"exponent": 1}}) == ["straight"]


def test_a_twin_is_the_same_every_time(shown):
    for _ in range(2):
        widgets.twin(power_curve(), [{"exponent": 1}], caption="A power.")
    assert shown[:3] == shown[3:]


def test_a_twin_refuses_what_cannot_work():
    with pytest.raises(ValueError, match=r"settings=\[\] is empty"):
        widgets.twin(power_curve(), [], caption="A power.")
    with pytest.raises(ValueError, match="columns=0"):
        widgets.twin(power_curve(), [{"exponent": 1}], caption="A power.", columns=0)
    with pytest.raises(ValueError, match="cannot take the values of .power."):
        widgets.twin(power_curve(), [{"power": 1}], caption="A power.")


def test_the_frames_of_a_strip_are_the_pictures_of_an_explorer():
    exponents, scales = [1, 2, 4], [0.5, 1.0]
    strip = widgets.strip(power_curve(), caption="A power.", size=(4, 3), exponent=exponents, scale=scales)
    explorer = power_explorer(
        exponent=widgets.slider(1, 9, value=1), scale=widgets.slider(0.5, 1.0, value=0.5)
    )
    pictures = []
    for explorer.controls["exponent"].value in exponents:
        for explorer.controls["scale"].value in scales:
            pictures.append(explorer.image.value)
    assert strip.frames == pictures and len(set(pictures)) == 6
    assert strip.stops == [["1", "2", "4"], ["0.5", "1"]] and strip.pixels == (400, 300)


def test_a_strip_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="one or two sliders, not 0"):
        widgets.strip(power_curve(), caption="A power.")
    with pytest.raises(ValueError, match=r"exponent=\[1\]: a slider needs at least two positions"):
        widgets.strip(power_curve(), caption="A power.", exponent=[1])


def test_page_and_figures_share_their_colours():
    style = browser.stylesheet()
    for role, colour in figures.COLOURS.items():
        assert f"--kd-{role}: {colour};" in style
