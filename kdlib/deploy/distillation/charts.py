"""Learning curves as SVG inside a page: a few lines, no library, no network."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 36


def curves(lines: Mapping[str, Sequence[float]], *, what: str, percent: bool = False) -> Markup:
    """One line for each name over epochs 1, 2, ..., with a legend below; empty where there are no numbers.

    Args:
        lines: name -> a number for each epoch.
        what: the name of the numbers.
        percent: whether they are shares.
    """
    lines = {name: values for name, values in lines.items() if len(values)}
    if not lines:
        return Markup("")
    epochs = max(map(len, lines.values()))
    ticks = nice_ticks(min(map(min, lines.values())), max(map(max, lines.values())))
    low, high = ticks[0], ticks[-1]

    def across(epoch: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / max(1, epochs - 1)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(what)} by epoch">',
        f'<text class="tick" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">epoch</text>',
    ]
    for tick in ticks:
        label = f"{100 * tick:g} %" if percent else f"{tick:g}"
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{label}</text>'
        )
    for epoch in sorted({1, (1 + epochs) // 2, epochs}):
        parts.append(
            f'<text class="tick" x="{across(epoch):.1f}" y="{HEIGHT - 19}" text-anchor="middle">{epoch}</text>'
        )
    for number, values in enumerate(lines.values()):
        points = " ".join(
            f"{across(epoch):.1f},{up(value):.1f}" for epoch, value in enumerate(values, start=1)
        )
        parts.append(f'<polyline class="line line-{number}" points="{points}"/>')
        if len(values) == 1:
            parts.append(
                f'<circle class="dot line-{number}" cx="{across(1):.1f}" cy="{up(values[0]):.1f}" r="3"/>'
            )
    parts.append("</svg>")
    legend = "".join(
        f'<span class="key"><i class="line-{number}"></i>{escape(name)}</span>'
        for number, name in enumerate(lines)
    )
    return Markup(f"<figure><figcaption>{escape(what)}</figcaption>{''.join(parts)}<p>{legend}</p></figure>")


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at most `low` to at least `high`: 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]
