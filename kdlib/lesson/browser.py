"""The part of a widget that runs in the browser: plain JavaScript and CSS files kept in `static`."""

from importlib.resources import files

from kdlib.lesson import figures

_STATIC = files("kdlib.lesson") / "static"


def script(*names: str) -> str:
    """The named files of `static` as one ES module (Jupyter loads a widget's script from a single text)."""
    return "\n".join(_STATIC.joinpath(name).read_text(encoding="utf-8") for name in names)


def stylesheet() -> str:
    """The style sheet of the widgets, with the colours that the matplotlib figures have."""
    colours = "".join(f"--kd-{role}: {colour}; " for role, colour in figures.COLOURS.items())
    on_dark = f"--kd-teacher: {figures.PALETTE['sky blue']}; "  # blue is too dim on a dark page
    rules = f":root {{ {colours}}}\n[data-jp-theme-light='false'] {{ {on_dark}}}\n"
    return rules + _STATIC.joinpath("lesson.css").read_text(encoding="utf-8")
