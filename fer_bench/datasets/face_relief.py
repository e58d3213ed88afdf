"""The geometry of a drawn face on a grid: its outline, lips and relief, and where its action units show.

Lengths are face units (see face_shape); heights point towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fer_bench.datasets.face_shape import Person, Shape, shape_of

CENTRE_Y = 0.26
"""The face unit that lies at the middle of an uncropped picture."""
HALF = 1.45
"""Half the side of the canvas, more than a picture shows, so that turning the head uncovers no empty border."""

BAND = 0.12
"""How far inside the outline of a resting jaw its shading ends."""
EDGE = 0.05
"""How far inside the outline of a head the background no longer shines through its soft edge."""


class Canvas:
    """A square grid over the face. `xs` and `ys` are the units of its columns (1, n) and rows (n, 1)."""

    def __init__(self, per_unit: float) -> None:
        self.n = round(2 * HALF * per_unit)
        self.pixel = 2 * HALF / self.n
        middle = (np.arange(self.n) + 0.5) * self.pixel - HALF
        self.xs = middle[None, :]
        self.ys = middle[:, None] + CENTRE_Y

    def window(self, x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice]:
        """The rows and columns between these units, cut at the border."""
        rows = np.clip(np.array([y0 - CENTRE_Y + HALF, y1 - CENTRE_Y + HALF]) / self.pixel, 0, self.n).astype(int)
        cols = np.clip(np.array([x0 + HALF, x1 + HALF]) / self.pixel, 0, self.n).astype(int)
        return slice(*rows.tolist()), slice(*cols.tolist())


def bell(v: np.ndarray, centre: float | np.ndarray, width: float) -> np.ndarray:
    """A Gaussian bump of height 1."""
    return np.exp(-0.5 * ((v - centre) / width) ** 2)


def step(v: np.ndarray, width: float) -> np.ndarray:
    """A smooth step from 0 to 1 that begins at -1.5 width and ends at 1.5 width (a cubic: cheaper than tanh)."""
    s = np.clip(0.5 + v / (3 * width), 0, 1)
    return s * s * (3 - 2 * s)


def half_width(person: Person, shape: Shape, y: np.ndarray) -> np.ndarray:
    """Half the width of the head at each height; 0 above the crown and below the chin."""
    down = np.clip((y - 0.1) / (shape.chin - 0.1), 0, 1)
    up = np.clip((0.1 - y) / 1.55, 0, 1)
    power = 2.2 + 1.5 * person.jaw
    return person.width * np.sqrt(1 - up**2.4) * (1 - down**power) ** (0.62 - 0.12 * person.jaw)


@dataclass(frozen=True)
class Mouth:
    """The lip edges as heights per column, (1, n), all four meeting at the corners."""

    t: np.ndarray
    """Position across the mouth: 0 at the middle, 1 at the corners (and beyond them, greater)."""
    upper_out: np.ndarray
    upper_in: np.ndarray
    lower_in: np.ndarray
    lower_out: np.ndarray


def mouth_of(shape: Shape, canvas: Canvas) -> Mouth:
    """The lip edges of this face."""
    signed = canvas.xs / shape.mouth_width
    t = np.abs(signed)
    c = np.clip(t, 0, 1)
    left, right = shape.corners
    corner = (left + right) / 2 + (right - left) / 2 * np.clip(signed, -1, 1)
    smile, frown = shape.level[12], shape.level[15]
    # A smile's line is a bow; a frown's line is flat in the middle and falls near the corners.
    line = 1 - c ** (1.9 + 0.5 * frown)
    open_upper = 1 - c ** (2.0 + 4 * shape.square)
    open_lower = (1 - c ** (2.2 + 3 * shape.square)) ** (1 - 0.25 * min(1.0, 3 * shape.jaw))
    rest = (shape.upper_in + shape.lower_in) / 2
    closed = corner + (rest - corner) * line
    upper_in = closed - (rest - shape.upper_in) * open_upper
    lower_in = closed + (shape.lower_in - rest) * open_lower
    bow = 0.18 * bell(t, 0, 0.13) * (1 - 0.5 * smile)
    upper = (shape.upper_in - shape.upper_out) * ((1 - c**2) ** 0.8) * (0.9 + 0.2 * bell(t, 0.28, 0.2) - bow)
    lower = (shape.lower_out - shape.lower_in) * (1 - c**2.4) ** 0.9
    return Mouth(t, upper_in - upper, upper_in, lower_in, lower_in + lower)


def crease(shape: Shape, y: np.ndarray) -> np.ndarray:
    """x of the fold from the wing of the nose round the corner of the mouth, at each height."""
    end = sum(shape.corners) / 2 + 0.08
    start = 0.46 - shape.nose_lift
    v = np.clip((y - start) / (end - start), 0, 1.3)
    out = shape.mouth_width + 0.07 + 0.05 * shape.level[12]
    return 0.20 + (out - 0.20) * v ** (0.9 - 0.25 * shape.level[9] - 0.2 * shape.level[12])


@dataclass
class _Bumps:
    """Separable Gaussians, summed by one matrix product."""

    canvas: Canvas
    rows: list[np.ndarray] = field(default_factory=list)
    cols: list[np.ndarray] = field(default_factory=list)

    def add(self, x: float, y: float, sx: float, sy: float, height: float) -> None:
        self.rows.append(height * bell(self.canvas.ys[:, 0], y, sy))
        self.cols.append(bell(self.canvas.xs[0], x, sx))

    def pair(self, x: float, y: float, sx: float, sy: float, height: float) -> None:
        self.rows.append(height * bell(self.canvas.ys[:, 0], y, sy))
        self.cols.append(bell(self.canvas.xs[0], x, sx) + bell(self.canvas.xs[0], -x, sx))

    def total(self) -> np.ndarray:
        return np.einsum("ky,kx->yx", np.array(self.rows), np.array(self.cols), optimize=True)


def relief_of(person: Person, shape: Shape, canvas: Canvas, mouth: Mouth) -> tuple[np.ndarray, np.ndarray]:
    """Heights (n, n) of the whole face, and `inside` (n, n): 1 inside the head, 0 outside, soft at its edge."""
    xs, ys, a = canvas.xs, canvas.ys, shape.level
    wide = np.maximum(half_width(person, shape, ys), 1e-3)
    r = np.abs(xs) / wide
    inside = step((1 - r) * np.minimum(wide, 0.5), 0.02)
    slope = 1 - 0.30 * np.clip((ys - 0.3) / 1.2, 0, 1) ** 2 - 0.55 * np.clip((-0.5 - ys) / 1.0, 0, 1) ** 2
    z = 0.85 * np.sqrt(np.clip(1 - r**2.3, 0.003, 1)) * slope

    b = _Bumps(canvas)
    ex, ew = person.eye_x, person.eye_width
    male = 1.0 if person.male else 0.35
    b.pair(0.34, person.brow_y + 0.04, 0.22, 0.09, 0.025 + 0.03 * male)
    b.add(0, person.brow_y + 0.02, 0.14, 0.10, 0.02 + 0.05 * a[4])
    b.pair(0.10, person.brow_y + 0.05, 0.045, 0.07, 0.05 * a[4])
    b.pair(ex - 0.05, 0.0, 0.21, 0.13, -0.12)
    b.pair(ex - ew - 0.02, 0.03, 0.07, 0.07, -0.07)
    b.pair(ex, 0.0, 0.15, 0.085, 0.10)
    # Bags below the eyes, which the cheek raiser pushes up and age lets hang.
    b.pair(ex, 0.17, 0.15, 0.05, -0.02 - 0.03 * person.age - 0.03 * a[6])
    b.pair(ex, 0.10 - 0.01 * a[6], 0.14, 0.035, 0.012 + 0.035 * a[6] + 0.02 * a[7] + 0.02 * person.age)
    # Cheeks
    up = 0.09 * a[6] + 0.07 * a[12]
    b.pair(0.60, 0.40 - up, 0.22, 0.20, 0.06 + 0.05 * max(a[6], a[12]))
    b.pair(0.46 + 0.06 * a[12], 0.52 - 1.1 * up, 0.15, 0.14, 0.02 + 0.10 * a[12] + 0.022 * a[9])
    b.pair(0.60, 0.86 + 0.1 * shape.jaw, 0.16, 0.26, -0.05 - 0.05 * min(1, 3 * shape.jaw) - 0.02 * person.age)
    b.pair(0.27, 0.36, 0.08, 0.12, -0.03 + 0.04 * a[9])
    # Nose: wings, tip, hollow below it
    tip = 0.50 * person.nose_length - shape.nose_lift
    nw = person.nose_width * (1 + 0.05 * a[9] + 0.08 * a[12] + 0.05 * a[10])
    b.add(0, tip, 0.105 * nw, 0.10, 0.07)
    b.pair(0.155 * nw, tip + 0.055 - 0.6 * shape.nose_lift, 0.065, 0.065, 0.08)
    b.pair(0.26 * nw, tip + 0.05, 0.05, 0.09, -0.05)
    # Round the mouth and the chin
    low = shape.lower_out
    b.add(0, (shape.upper_in + low) / 2, 0.36, 0.20 + 0.5 * shape.jaw, 0.07)
    b.add(0, shape.upper_out - 0.10, 0.028, 0.06, -0.02)
    b.add(0, low + 0.055, 0.20, 0.05, -0.065 - 0.03 * a[17])
    b.add(0, (low + shape.chin) / 2 + 0.06, 0.20, 0.12, 0.07 + 0.05 * a[17])
    for side, y in zip((-1, 1), shape.corners, strict=True):
        x = side * (shape.mouth_width + 0.045)
        b.add(x, y + 0.01, 0.05, 0.07, -0.02 - 0.03 * max(a[12], a[15], a[20]))
        b.add(side * (shape.mouth_width + 0.01), y + 0.16, 0.06, 0.10, -0.05 * a[15] - 0.02 * person.age)
    for k in range(3):  # dimples of a bunched chin
        b.add(0.09 * (k - 1), (low + shape.chin) / 2 + 0.03 + 0.04 * (k % 2), 0.03, 0.03, -0.03 * a[17])
    z += b.total()

    # The bridge rises evenly to the tip and ends sharply below it.
    v = np.clip((ys + 0.22) / (tip + 0.22), 0, 1.2)
    ridge = (0.05 + 0.22 * v**1.3) * step(tip + 0.10 - ys, 0.06) * step(ys + 0.30, 0.12)
    z += ridge * bell(xs, 0, (0.075 + 0.045 * v) * nw)

    _add_fold(z, shape, canvas)
    _add_lips(z, shape, canvas, mouth)
    return z, inside


def _add_fold(z: np.ndarray, shape: Shape, canvas: Canvas) -> None:
    rows, cols = canvas.window(-0.95, 0.95, 0.3, 1.35)
    ys = canvas.ys[rows]
    end = sum(shape.corners) / 2 + 0.10
    fade = step(ys - 0.44 + shape.nose_lift, 0.05) * step(end - ys, 0.07)
    off = np.abs(canvas.xs[:, cols]) - crease(shape, ys)
    # The cheek side stands higher and falls steeply into the fold.
    bank = 0.05 * step(off, 0.05) * np.exp(-np.clip(off, 0, None) / 0.2)
    z[rows, cols] += fade * shape.fold * (bank - 0.018 * bell(off, 0, 0.04))


def _add_lips(z: np.ndarray, shape: Shape, canvas: Canvas, mouth: Mouth) -> None:
    reach = shape.mouth_width + 0.05
    rows, cols = canvas.window(-reach, reach, shape.upper_out - 0.15, shape.lower_out + 0.15)
    ys = canvas.ys[rows]
    edges = [edge[:, cols] for edge in (mouth.upper_out, mouth.upper_in, mouth.lower_in, mouth.lower_out)]
    thick_u, thick_l = np.maximum(edges[1] - edges[0], 0.012), np.maximum(edges[3] - edges[2], 0.012)
    upper = np.clip((ys - edges[0]) / thick_u, 0, 1)
    lower = np.clip((ys - edges[2]) / thick_l, 0, 1)
    across = np.clip(1.02 - mouth.t[:, cols] ** 2, 0, 1)
    z[rows, cols] += across * (0.9 * thick_u * np.sin(np.pi * upper**0.75) + 1.0 * thick_l * np.sin(np.pi * lower**0.9))


def region_mask(person: Person, shape: Shape, canvas: Canvas, threshold: float = 0.05) -> np.ndarray:
    """bool (n, n): the parts of the face that the active action units displace, where they stand and where they stood.

    Active is a unit at `threshold` or more. Units of the jaw move its whole outline, so that the band along it counts.
    """
    rest = shape_of(person, {})
    a = {unit: level if level >= threshold else 0.0 for unit, level in shape.level.items()}
    xs, ys = canvas.xs, canvas.ys
    x = np.abs(xs)
    found = np.zeros((canvas.n, canvas.n), dtype=bool)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> None:
        np.logical_or(found, ((x - cx) / rx) ** 2 + ((ys - cy) / ry) ** 2 < 1, out=found)

    brow = sum(b.arch for b in shape.brows) / 2
    end = person.eye_x + person.eye_width + 0.12
    if a[1] or a[2] or a[4] or a[9]:
        ellipse((0.12 + end) / 2, brow + 0.03, (end - 0.08) / 2, 0.16)
    if a[4] or a[1] or a[9]:
        ellipse(0, person.brow_y + 0.03, 0.20, 0.18)
    if a[5] or a[6] or a[7] or a[43] or a[9] or a[64]:
        ellipse(person.eye_x, 0.0, person.eye_width + 0.07, 0.15)
    if a[6]:
        ellipse(person.eye_x + 0.08, 0.30, 0.28, 0.30)
    if a[1] or a[2]:  # the forehead, which wrinkles
        ellipse(0, brow - 0.30, 0.55 if a[2] else 0.35, 0.24)
    if a[9]:
        ellipse(0, 0.04, 0.17, 0.16)
    if a[9] or a[10] or a[11]:
        ellipse(0, 0.38, 0.34, 0.30)
        ellipse(0.34, 0.68, 0.16, 0.28)
    if a[12]:
        ellipse(0.50, 0.52, 0.22, 0.22)
    if any(a[unit] for unit in (9, 10, 12, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27)):
        top = min(rest.upper_out, shape.upper_out, *shape.corners) - 0.06
        low = max(rest.lower_out, shape.lower_out, *shape.corners) + 0.06
        ellipse(0, (top + low) / 2, max(rest.mouth_width, shape.mouth_width) + 0.12, (low - top) / 2 + 0.05)
    if a[17] or a[26] or a[27]:
        ellipse(0, (shape.lower_out + shape.chin) / 2, 0.30, (shape.chin - shape.lower_out) / 2)
    outline = half_width(person, shape, ys)
    if a[26] or a[27]:  # from where the jaw's outline was to where it is
        band = (x > half_width(person, rest, ys) - BAND) & (x < outline - EDGE)
        np.logical_or(found, band & (ys > person.mouth_y - 0.35), out=found)
    found &= x < outline
    return found
