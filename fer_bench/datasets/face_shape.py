"""From facial action units to the shape of a face: who the person is, and where each part stands.

Coordinates are "face units": the origin lies between the eyes, x runs to the picture's right, y runs down, and half the
distance between the pupils is about 0.42 (so one unit is some 75 mm). A resting face has its brows near y = -0.25, the
mouth near 0.92 and the chin near 1.4.

Action units (AUs) and what they move: P. Ekman and W. V. Friesen, Facial Action Coding System, 1978 (2nd ed. 2002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

ACTION_UNITS: dict[int, str] = {
    1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser", 6: "cheek raiser",
    7: "lid tightener", 9: "nose wrinkler", 10: "upper lip raiser", 11: "nasolabial deepener",
    12: "lip corner puller", 15: "lip corner depressor", 16: "lower lip depressor", 17: "chin raiser",
    18: "lip pucker", 20: "lip stretcher", 22: "lip funneler", 23: "lip tightener", 24: "lip pressor",
    25: "lips part", 26: "jaw drop", 27: "mouth stretch", 43: "eyes closed", 64: "eyes down",
}  # fmt: skip
"""The action units that can be drawn, with FACS's names."""


HAIR_STYLES = ("bald", "short", "receding", "fringe", "side", "long", "curly", "tied")


@dataclass(frozen=True)
class Person:
    """What stays the same in all pictures of one person. Lengths in face units, brightness 0 (black) to 1 (white)."""

    male: bool
    age: float
    """0 (a child) to 1 (old)."""
    skin: float
    width: float
    """Half the width of the face at the cheekbones."""
    chin: float
    """y of the chin at rest."""
    jaw: float
    """How square the jaw is, 0..1."""
    eye_x: float
    eye_width: float
    """Half the width of an eye."""
    eye_open: float
    """Relative opening of the resting eye, about 1."""
    eye_tilt: float
    iris: float
    brow_y: float
    brow_thick: float
    brow_dark: float
    nose_length: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    """Half the width of the resting mouth."""
    lips: float
    """Relative thickness of the lips, about 1."""
    lip_dark: float
    hair: str
    """One of HAIR_STYLES."""
    hair_tone: float
    hairline: float
    beard: float
    moustache: float
    glasses: float
    """Darkness of the frame; 0 means no glasses."""
    asymmetry: float
    """Relative difference between the left and right side of an expression, signed."""


@dataclass(frozen=True)
class Brow:
    """One eyebrow: the heights of its inner end, its arch and its outer end, and where it begins."""

    inner: float
    arch: float
    outer: float
    start: float


@dataclass(frozen=True)
class Shape:
    """Where the movable parts stand for one person with one expression."""

    level: Mapping[int, float]
    brows: tuple[Brow, Brow]
    """Left and right in the picture."""
    lid_upper: float
    lid_lower: float
    """Distances of the lids from the line between the corners of the eye."""
    chin: float
    jaw: float
    """How far the jaw hangs."""
    mouth_width: float
    corners: tuple[float, float]
    """y of the left and right corner of the mouth."""
    upper_out: float
    upper_in: float
    lower_in: float
    lower_out: float
    """y of the four lip edges at the middle of the mouth; upper_in equals lower_in where the lips touch."""
    square: float
    """0: the opening narrows towards the corners; 1: it is rectangular, as in bared teeth."""
    teeth_upper: float
    teeth_lower: float
    """How far each row of teeth shows into the opening."""
    fold: float
    """Depth of the folds between nose and corners of the mouth, 0..1."""
    nose_lift: float


def check_action_units(aus: Mapping[int, float]) -> dict[int, float]:
    """The same levels as plain floats. Raises ValueError for an unknown unit or a level outside 0..1."""
    for unit, level in aus.items():
        if unit not in ACTION_UNITS:
            raise ValueError(f"action unit {unit!r} cannot be drawn; known are {', '.join(map(str, ACTION_UNITS))}")
        if not 0 <= level <= 1:
            raise ValueError(f"the level of action unit {unit} must lie in 0..1, not {level}")
    return {int(unit): float(level) for unit, level in aus.items()}


def shape_of(person: Person, aus: Mapping[int, float]) -> Shape:
    """Move the parts of a resting face by the action units, each at its level 0..1."""
    level = {unit: aus.get(unit, 0.0) for unit in ACTION_UNITS}
    a = level
    jaw = 0.20 * a[26] + 0.45 * a[27]
    # AU4 with AU1 draws the brows together more than down (the oblique brow of grief and fear).
    lower = a[4] * (1 - 0.55 * a[1])

    def brow(side: int) -> Brow:
        s = 1 + side * person.asymmetry
        return Brow(
            inner=person.brow_y + 0.02 + s * (-0.185 * a[1] + 0.18 * lower * (1 - 0.3 * a[1]) + 0.065 * a[9]),
            arch=person.brow_y - 0.035 + s * (-0.05 * a[1] - 0.13 * a[2] + 0.12 * lower + 0.05 * a[9] + 0.015 * a[6]),
            outer=person.brow_y + 0.05 + s * (0.03 * a[1] - 0.14 * a[2] + 0.05 * lower + 0.03 * a[9] + 0.01 * a[6]),
            start=0.16 - 0.055 * a[4] - 0.02 * a[9],
        )

    closing = 1 - a[43]
    lid_upper = 0.066 * person.eye_open * closing + 0.042 * a[5]
    lid_upper -= 0.022 * a[7] + 0.022 * a[6] + 0.048 * a[9] + 0.008 * lower + 0.028 * a[64]
    lid_lower = 0.054 * person.eye_open * (1 - 0.5 * a[43]) + 0.012 * a[5]
    lid_lower -= 0.022 * a[7] + 0.026 * a[6] + 0.035 * a[9]

    rounding = max(0.0, a[26] * 0.5 + a[27] - a[12] - a[20] - a[10])
    wider = 0.34 * a[12] + 0.24 * a[20] + 0.06 * a[10] + 0.03 * a[15]
    narrower = 0.12 * a[23] + 0.05 * a[24] + 0.3 * a[18] + 0.2 * a[22] + 0.22 * rounding
    middle = person.mouth_y - 0.055 * a[17] + 0.01 * a[12] - 0.015 * a[24]
    thin = (1 - 0.35 * a[23]) * (1 - 0.6 * a[24]) * (1 - 0.15 * a[20])
    upper = 0.075 * person.lips * thin * (1 - 0.3 * a[12]) * (1 + 0.3 * a[22] + 0.2 * a[18])
    lowerlip = 0.105 * person.lips * thin * (1 - 0.15 * a[12] - 0.2 * a[16]) * (1 + 0.3 * a[22] + 0.2 * a[17])
    part = 0.05 * a[25]
    raise_upper = 0.10 * a[10] + 0.025 * a[9] + 0.05 * a[12] * a[25] + 0.25 * part
    drop_lower = jaw * 0.95 + 0.75 * part + 0.12 * a[16] + 0.03 * a[20] * a[25] + 0.045 * a[12] * a[25]
    # Lips that touch move together, so raising one cannot open the mouth.
    apart = min(1.0, max(4 * a[25], 20 * jaw))
    upper_in = middle - (0.5 + 0.5 * apart) * raise_upper
    lower_in = upper_in + apart * (drop_lower + raise_upper)

    def corner(side: int) -> float:
        s = 1 + side * person.asymmetry
        moved = -0.16 * a[12] + 0.11 * a[15] + 0.12 * a[20] + 0.03 * a[16] + 0.02 * a[17]
        return person.mouth_y + s * moved - 0.01 * a[9] + 0.35 * jaw

    fold = 0.12 + 0.35 * person.age**2
    fold += 1.15 * a[9] + 0.6 * a[10] + 0.5 * a[11] + 0.75 * a[12] + 0.25 * a[15] + 0.3 * a[20]
    return Shape(
        level=level,
        brows=(brow(-1), brow(1)),
        lid_upper=max(lid_upper, 0.006),
        lid_lower=max(lid_lower, 0.006),
        chin=person.chin + 0.9 * jaw - 0.03 * a[17],
        jaw=jaw,
        mouth_width=person.mouth_width * max(0.4, 1 + wider - narrower),
        corners=(corner(-1), corner(1)),
        upper_out=upper_in - upper,
        upper_in=upper_in,
        lower_in=lower_in,
        lower_out=lower_in + lowerlip,
        square=float(np.clip(a[10] + a[20] + 0.6 * a[16] - 0.4 * a[12], 0, 1)),
        teeth_upper=0.02 + 0.10 * max(a[12], a[10], 0.7 * a[20], 0.7 * a[9]),
        teeth_lower=0.09 * max(a[16], 0.6 * a[20], 0.4 * a[10] * a[25]),
        fold=min(1.7, fold),
        nose_lift=0.075 * a[9] + 0.02 * a[10],
    )
