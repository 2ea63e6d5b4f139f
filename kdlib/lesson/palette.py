"""The colours of every figure.

The palette is that of M. Okabe and K. Ito, "Color Universal Design" (2002): its hues stay apart for readers
with any of the common colour-vision deficiencies. A role (teacher, student, label, ...) keeps its colour
through the whole course, in matplotlib and in the browser alike.
"""

PALETTE = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}

COLOURS = {
    "teacher": PALETTE["blue"],
    "student": PALETTE["vermillion"],
    "label": PALETTE["orange"],
    "mix": PALETTE["green"],
    "other": PALETTE["purple"],
    "muted": "#767676",
}
