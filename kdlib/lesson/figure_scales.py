"""How an axis of a figure writes its values: in which unit, to how many digits, by which names."""

import re
from dataclasses import dataclass

import numpy as np
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryFormatter
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, PercentFormatter

DIGITS = 4
_LARGEST_COUNT = 1e6
_NEAR = 0.35  # of the distance between two ticks: how far from its tick something stands that belongs to it


@dataclass
class Scale:
    """One axis, read from a drawn figure.

    Args:
        label: the words beside it, or "x" or "y".
        categories: the names at the ticks, by their places; empty where the axis has numbers.
        span: from one end to the other, or None where equal distances are no equal differences (a logarithm).
        factor: by which values are multiplied to be in the unit that the ticks have (100 for per cent).
    """

    label: str
    categories: dict[float, str]
    span: float | None
    factor: float = 1.0

    @classmethod
    def of(cls, axis: Axis) -> "Scale":
        """Read an axis."""
        low, high = axis.get_view_interval()
        linear = axis.get_scale() == "linear"
        percent = isinstance(axis.get_major_formatter(), PercentFormatter)
        factor = 100 / axis.get_major_formatter().xmax if percent else 1.0
        label = plain(axis.get_label().get_text()) or axis.axis_name
        if percent and "%" not in label:
            label += " (%)"
        span = float(abs(high - low)) * factor if linear and high != low else None
        return cls(label, _categories(axis), span, factor)

    def named(self, values: np.ndarray) -> list[str] | None:
        """The names of the categories at which the values stand; None unless all of them stand at one."""
        if not self.categories or not len(values):
            return None
        places = np.array(list(self.categories))
        spacing = np.diff(np.sort(places)).min() if len(places) > 1 else 1.0
        distances = np.abs(np.asarray(values, dtype=float)[:, None] - places)
        if not (distances.min(axis=1) <= _NEAR * spacing).all():
            return None
        names = list(self.categories.values())
        return [names[nearest] for nearest in distances.argmin(axis=1)]

    def shown(self, values: np.ndarray) -> list:
        """The values as they are read off: names, or numbers rounded to what can be seen."""
        return self.named(values) or self.rounded(values)

    def rounded(self, values: np.ndarray) -> list[float]:
        """Numbers to four significant digits; counts stay as they are.

        On an even axis, what is far below a pixel, such as the 1e-17 that a computer writes for 0, is 0; and where
        the axis shows a small stretch far from zero, the digits are those that tell its values apart.
        """
        values = np.asarray(values, dtype=float) * self.factor
        finite = values[np.isfinite(values)]
        if not len(finite) or (np.abs(finite).max() < _LARGEST_COUNT and (finite == finite.round()).all()):
            return [float(value) for value in values + 0.0]
        if self.span is None:
            return [significant(value) for value in values]
        visible = _decimals(self.span) + 1
        return [_rounded(value, visible - 2, visible) for value in values]


def _rounded(value: float, least: int, most: int) -> float:
    """The value to four significant digits, but to at least and at most so many decimals."""
    if value == 0 or not np.isfinite(value):
        return float(value) + 0.0
    return round(float(value), min(most, max(least, _decimals(abs(value))))) + 0.0


def significant(value: float, digits: int = DIGITS) -> float:
    """The value rounded to so many significant digits."""
    return float(f"{value:.{digits}g}") + 0.0


def _decimals(size: float) -> int:
    """How many decimals (negative: zeros) four significant digits of a number of this size have."""
    return DIGITS - 1 - int(np.floor(np.log10(size)))


def _categories(axis: Axis) -> dict[float, str]:
    formatter = axis.get_major_formatter()
    chosen = isinstance(axis.get_major_locator(), FixedLocator) and isinstance(formatter, FuncFormatter)
    if not chosen and not isinstance(formatter, (FixedFormatter, StrCategoryFormatter)):
        return {}
    places = [float(place) for place in axis.get_majorticklocs()]
    names = map(
        plain, formatter.format_ticks(places)
    )  # also where the labels are hidden, as beside a neighbour's
    known = {place: name for place, name in zip(places, names, strict=False) if name}
    return {} if all(_is_number(name, place) for place, name in known.items()) else known


def _is_number(name: str, place: float) -> bool:
    """Whether what is written at a tick is just its place."""
    try:
        number = float(name.replace("−", "-").replace(",", "").rstrip(" %x×"))
    except ValueError:
        return False
    return bool(np.isclose(number, place) or np.isclose(number, 100 * place))


def plain(text: object) -> str:
    """A label on one line, with formulas as words: "$\\alpha$ of $T^2$" becomes "alpha of T^2"."""
    text = re.sub(r"\$([^$]*)\$", lambda formula: _plain_formula(formula[1]), str(text))  # ticks may be numbers
    return " ".join(text.replace("\\$", "$").split())


def _plain_formula(formula: str) -> str:
    formula = re.sub(r"\\(?:math|text)[a-z]*", "", formula)
    formula = re.sub(r"\\[,;:! ]", " ", formula)
    return re.sub(r"[\\{}]", "", formula)
