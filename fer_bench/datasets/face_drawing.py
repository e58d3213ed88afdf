"""Painting the skin, mouth, eyes and brows of a drawn face: relief and shape in, brightness out.

Lengths are face units (see face_shape). Painting multiplies or blends smooth masks, so it works at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fer_bench.datasets.face_relief import Canvas, Mouth, bell, crease, mouth_of, relief_of, step
from fer_bench.datasets.face_shape import Person, Shape


@dataclass(frozen=True)
class Light:
    """Where the light comes from (x to the right, y down, z to the viewer; any length) and how the rest is lit."""

    x: float
    y: float
    z: float
    ambient: float
    """Share of the light that comes from everywhere, 0..1."""
    gloss: float
    """Strength of the highlights on the skin."""


def resized(values: np.ndarray, size: tuple[int, int], method: int) -> np.ndarray:
    """float64 (h, w) resampled by PIL to (size[1], size[0])."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, method), dtype=np.float64)


def smooth_noise(rng: np.random.Generator, rows: int, cols: int, n: int) -> np.ndarray:
    """Noise (n, n) of about unit deviation whose grain is n/rows pixels high and n/cols wide."""
    return resized(rng.standard_normal((rows, cols)), (n, n), Image.Resampling.BICUBIC)


class Painter:
    """One face on one canvas, painted without hair, glasses and surroundings (face_surround adds them).

    picture: brightness (n, n), about 0..1.   relief: heights (n, n).   inside: 1 within the head, 0 outside.
    lit: the light that each point of the skin gets.   grain, blotch, strands, curls: noise of unit deviation.
    """

    def __init__(
        self,
        person: Person,
        shape: Shape,
        light: Light,
        gaze: tuple[float, float],
        canvas: Canvas,
        rng: np.random.Generator,
    ) -> None:
        self.person, self.shape, self.light, self.gaze, self.canvas = person, shape, light, gaze, canvas
        self.mouth: Mouth = mouth_of(shape, canvas)
        self.relief, self.inside = relief_of(person, shape, canvas, self.mouth)
        self.edge = 0.8 * canvas.pixel
        # Grain is drawn on a fixed grid, so that a larger picture shows the same face.
        self.grain = smooth_noise(rng, 90, 90, canvas.n)
        self.blotch = smooth_noise(rng, 14, 14, canvas.n)
        self.strands = smooth_noise(rng, 10, 80, canvas.n)
        self.curls = smooth_noise(rng, 40, 40, canvas.n)
        self._shade()
        self.picture = np.clip(self._skin() * self.lit + self.shine, 0, 1.1)
        self._wrinkles(rng.uniform(-1, 1, 4))
        self._folds()
        self._mouth()
        for side in (-1, 1):
            self._eye(side)
            self._brow(side)
        self._nostrils()

    def _shade(self) -> None:
        z, light, p = self.relief, self.light, self.canvas.pixel
        gy, gx = np.gradient(z, p)
        gx, gy = np.clip(gx, -3, 3), np.clip(gy, -3, 3)
        norm = np.sqrt(1 + gx * gx + gy * gy)
        length = np.sqrt(light.x**2 + light.y**2 + light.z**2)
        dot = (-gx * light.x - gy * light.y + light.z) / (norm * length)
        # Hollows see less of the surroundings: compare each point with the mean height around it.
        n = self.canvas.n
        around = resized(resized(z, (24, 24), Image.Resampling.BOX), (n, n), Image.Resampling.BICUBIC)
        wide = resized(resized(z, (11, 11), Image.Resampling.BOX), (n, n), Image.Resampling.BICUBIC)
        hollow = np.clip(1 + 1.6 * (z - around) + 0.7 * (z - wide), 0.45, 1.12)
        self.lit = (light.ambient + (1 - light.ambient) * np.clip((dot + 0.25) / 1.25, 0, 1)) * hollow
        self.shine = light.gloss * np.clip(dot, 0, 1) ** 14 * self.inside

    def _skin(self) -> np.ndarray:
        person, shape, xs, ys = self.person, self.shape, self.canvas.xs, self.canvas.ys
        tone = person.skin * (1 + 0.035 * self.blotch + 0.02 * self.grain)
        tired = bell(ys, 0.11, 0.06) * (bell(xs, person.eye_x, 0.14) + bell(xs, -person.eye_x, 0.14))
        socket = bell(ys, -0.06, 0.11) * (bell(xs, person.eye_x - 0.06, 0.20) + bell(xs, 0.06 - person.eye_x, 0.20))
        # Lowered brows throw a shadow over the eyes.
        overhang = 0.22 * shape.level[4] * (1 - 0.6 * shape.level[1]) + 0.10 * shape.level[9]
        return tone * (1 - (0.05 + 0.08 * person.age) * tired - (0.17 + overhang) * socket)

    def _line(self, window: tuple[float, ...], curve: np.ndarray, along: np.ndarray, width: float, dark: float) -> None:
        """Darken along y = curve(x), with a light lip below it, as a wrinkle does; `along` fades it along x."""
        rows, cols = self.canvas.window(*window)
        off = self.canvas.ys[rows] - curve[:, cols]
        self.picture[rows, cols] *= 1 - dark * along[:, cols] * (
            bell(off, 0, width) - 0.35 * bell(off, 2.2 * width, width)
        )

    def _wrinkles(self, wobbles: np.ndarray) -> None:
        person, shape, xs = self.person, self.shape, self.canvas.xs
        a, age = shape.level, person.age
        raised = max(0.8 * a[1], a[2])
        for k, wobble in enumerate(wobbles.tolist()):
            y = person.brow_y - 0.22 - 0.115 * k - 0.03 * raised
            reach = 0.50 if a[2] >= a[1] * 0.6 else 0.28
            curve = y + 0.02 * wobble * np.sin(5 * xs + k) + 0.03 * (np.abs(xs) / 0.5) ** 2
            dark = 0.10 * age**2 + (0.16 + 0.20 * age) * raised * (1 - 0.15 * k)
            self._line((-0.8, 0.8, y - 0.1, y + 0.2), curve, bell(xs, 0, reach) ** 0.7, 0.016, dark)
        # Upright lines between the brows, and lines across the root of the nose.
        rows, cols = self.canvas.window(-0.25, 0.25, person.brow_y - 0.25, 0.2)
        x, y = xs[:, cols], self.canvas.ys[rows]
        frown = (0.06 * age**2 + (0.30 + 0.15 * age) * a[4]) * bell(y, person.brow_y + 0.02 - 0.03 * a[1], 0.11)
        pleats = bell(np.abs(x), 0.062 + 0.03 * (y - person.brow_y), 0.017)
        self.picture[rows, cols] *= 1 - frown * (pleats - 0.25 * bell(x, 0, 0.03))
        scrunch = 0.45 * a[9]
        for k in range(3):
            bend = -0.06 + 0.065 * k + 0.05 * np.cos(9 * x)
            line = bell(y, bend, 0.014) - 0.3 * bell(y, bend + 0.03, 0.014)
            self.picture[rows, cols] *= 1 - scrunch * bell(x, 0, 0.08) * line
        # Lines down the sides of a wrinkled nose.
        rows, cols = self.canvas.window(-0.4, 0.4, 0.05, 0.6)
        x, y = np.abs(xs[:, cols]), self.canvas.ys[rows]
        self.picture[rows, cols] *= 1 - 0.42 * a[9] * bell(x, 0.115 + 0.22 * (y - 0.15), 0.02) * bell(y, 0.28, 0.11)
        # Crow's feet and the furrow below the eye.
        squint = 0.05 * age**2 + (0.12 + 0.22 * age) * a[6]
        for side in (-1, 1):
            u = side * xs - person.eye_x - person.eye_width
            for slope in (-0.45, 0.05, 0.5):
                ray = 0.01 + slope * np.clip(u, 0, None)
                self._line((-1, 1, -0.25, 0.35), ray, bell(u, 0.14, 0.06), 0.014, squint)
            u = side * xs - person.eye_x
            bag = 0.12 - 0.02 * a[6] - 0.35 * np.clip(u, -0.3, 0.3) ** 2 + 0.03 * u
            self._line((-1, 1, 0.0, 0.3), bag, bell(u, 0, 0.14), 0.018, 0.05 + 0.12 * age + 0.20 * a[6] + 0.12 * a[7])

    def _folds(self) -> None:
        """The folds beside the mouth, which are too fine for the relief alone."""
        shape, xs = self.shape, self.canvas.xs
        rows, cols = self.canvas.window(-0.9, 0.9, 0.35, 1.3)
        y = self.canvas.ys[rows]
        off = np.abs(xs[:, cols]) - crease(shape, y)
        fade = step(y - 0.5 + shape.nose_lift, 0.05) * step(sum(shape.corners) / 2 + 0.06 - y, 0.06)
        line = bell(off, -0.01, 0.03) - 0.2 * bell(off, 0.07, 0.04)
        self.picture[rows, cols] *= 1 - fade * (0.20 + 0.06 * shape.level[9]) * shape.fold * line

    def _mouth(self) -> None:
        person, shape, m = self.person, self.shape, self.mouth
        reach = shape.mouth_width + 0.12
        top, bottom = min(shape.upper_out, *shape.corners) - 0.12, max(shape.lower_out, *shape.corners) + 0.16
        rows, cols = self.canvas.window(-reach, reach, top, bottom)
        y, t, e = self.canvas.ys[rows], m.t[:, cols], self.edge
        uo, ui, li, lo = (edge[:, cols] for edge in (m.upper_out, m.upper_in, m.lower_in, m.lower_out))
        part = self.picture[rows, cols]
        within = step(1.0 - t, 0.04)
        upper = step(y - uo, 1.2 * e) * step(ui - y, e) * within
        lower = step(y - li, e) * step(lo - y, 1.4 * e) * within
        shade = self.lit[rows, cols]
        gloss = bell(y, li + 0.42 * (lo - li), 0.022) * bell(t, 0.1, 0.35) * 0.10
        colour = person.skin * person.lip_dark
        part += upper * (colour * 0.86 * shade - part) + lower * ((colour + gloss) * shade * 1.04 - part)
        # Shadow under the lower lip.
        part *= 1 - 0.16 * bell(y, lo + 0.045, 0.03) * step(0.75 - t, 0.2)

        gap = np.clip(li - ui, 0, None)
        opening = step(y - ui, e) * step(li - y, e) * within * np.clip(gap / (2 * e), 0, 1)
        row_u = shape.teeth_upper * (1 - 0.55 * t**2)
        teeth_u = step(ui + row_u - y, e) * step(gap - 0.02, 0.012)
        # Bared with the jaw shut, the rows meet.
        shut = max(0.0, 1 - shape.jaw / 0.06) * min(1.0, shape.teeth_lower / 0.03)
        row_l = np.maximum(shape.teeth_lower * (1 - 0.5 * t**2), shut * (gap - row_u))
        teeth_l = step(y - (li - row_l), e) * step(gap - 0.04, 0.012)
        teeth_l = teeth_l * (shape.teeth_lower > 0.005)
        cavity = 0.09 + 0.03 * np.clip((y - ui) / np.maximum(gap, 0.05), 0, 1)
        # The tongue fills the lower part of a wide open mouth.
        if shape.jaw > 0.08:
            cavity = cavity + 0.20 * step(y - (li - 0.42 * gap), 0.03) * step(0.62 - t, 0.1)
        round_off = 1 - 0.45 * np.clip(t, 0, 1) ** 2
        seams = 1 - 0.10 * np.abs(np.sin(np.pi * self.canvas.xs[:, cols] / 0.075)) ** 12
        tooth = (0.55 + 0.40 * np.clip(self.light.ambient + 0.35, 0, 1)) * round_off * seams
        tooth = tooth * (1 - 0.30 * bell(y, ui, 0.022))
        inner = cavity + np.maximum(teeth_u, 0.9 * teeth_l) * (tooth - cavity)
        between = teeth_u * teeth_l * bell(y, ui + row_u, 0.018) * 0.8
        part += opening * (inner * (1 - between) - part)
        # Where the lips touch, and the shadows in the corners.
        seam = (ui + li) / 2
        closed = np.clip(1 - gap / 0.04, 0, 1)
        part *= 1 - 0.55 * closed * bell(y, seam, 0.018) * step(1.04 - t, 0.05)
        for side, cy in zip((-1, 1), shape.corners, strict=True):
            off = self.canvas.xs[:, cols] - side * (shape.mouth_width + 0.005)
            part *= 1 - 0.28 * bell(off, 0, 0.035) * bell(y, cy, 0.028)

    def _eye(self, side: int) -> None:
        person, shape, e = self.person, self.shape, self.edge
        cx, ew = side * person.eye_x, person.eye_width
        rows, cols = self.canvas.window(cx - 0.40, cx + 0.40, -0.32, 0.26)
        u, y = side * (self.canvas.xs[:, cols] - cx), self.canvas.ys[rows]
        t = np.clip(np.abs(u) / ew, 0, 1)
        axis = -person.eye_tilt * u
        # The upper lid is highest a little towards the nose, the lower lid lowest towards the temple.
        skew = u / ew
        top = axis - shape.lid_upper * (1 - t**2.3) * (1 - 0.12 * skew)
        low = axis + shape.lid_lower * (1 - t**2.0) * (1 + 0.15 * skew)
        droop = 0.5 * max(0.0, shape.level[15] - 0.5 * shape.level[9]) * max(shape.level[1], 0.4)
        # Lowered brows push the inner half of the lid down; raised inner brows pull it up.
        frown = shape.level[4] * (1 - shape.level[1])
        pressed = 0.030 * frown * np.clip(0.4 - skew, 0, 1) - 0.022 * shape.level[1] * np.clip(0.3 - skew, 0, 1)
        top = top + (1 - t**2) * pressed
        top = top + 0.03 * droop * np.clip(skew + 0.3, 0, 1)
        low = np.maximum(low, top + 0.004)
        part = self.picture[rows, cols]
        opened = step(y - top, e) * step(low - y, e) * step(1 - np.abs(u) / ew, 0.05)
        light = 0.55 + 0.45 * self.light.ambient
        white = (0.72 - 0.25 * t**3) * light * np.clip(0.62 + (y - top) / 0.09, 0.62, 1)
        gx, gy = side * self.gaze[0], self.gaze[1] - 0.004 + 0.04 * shape.level[64]
        r = np.sqrt((u - gx) ** 2 + (y - gy) ** 2)
        disc, pupil = step(0.081 - r, e), step(0.037 - r, e)
        tone = person.iris * (0.65 + 0.5 * np.clip((y + 0.02) / 0.09, 0, 1)) * (1 - 0.4 * step(r - 0.072, 0.012))
        ball = white + disc * (tone - white)
        ball = ball + pupil * (0.03 - ball)
        spark = bell(u, gx - side * 0.030, 0.016) * bell(y, gy - 0.031, 0.016)
        ball = ball + 0.85 * spark * (1 - ball)
        part += opened * (ball - part)
        # Lashes, the crease above the lid (which a raised lid swallows) and the lower rim.
        bold = 0.85 if not person.male else 0.72
        reach = step(1.10 - np.abs(u - 0.01) / ew, 0.08)
        part *= 1 - bold * reach * bell(y, top - 0.004, 0.017 if person.male else 0.022)
        part *= 1 - (0.25 + 0.12 * (not person.male)) * reach * bell(y, low + 0.006, 0.013)
        fold = axis - (shape.lid_upper + 0.045 - 0.02 * shape.level[5]) * (1 - 0.55 * t**2) - 0.008
        part *= 1 - (0.26 - 0.10 * shape.level[5]) * step(1.15 - np.abs(u) / ew, 0.1) * bell(y, fold, 0.017)
        part *= 1 - 0.35 * bell(u, -ew - 0.01, 0.03) * bell(y, axis + 0.01, 0.02)

    def _brow(self, side: int) -> None:
        person, brow = self.person, self.shape.brows[(side + 1) // 2]
        rows, cols = self.canvas.window(-0.95 if side < 0 else 0, 0 if side < 0 else 0.95, -0.95, 0.15)
        s, y = side * self.canvas.xs[:, cols], self.canvas.ys[rows]
        end = person.eye_x + person.eye_width + 0.15
        v = np.clip((s - brow.start) / (end - brow.start), 0, 1)
        # A parabola through the inner end, the arch (at 0.58) and the outer end.
        k = 0.58
        c1 = (brow.arch - brow.inner - k * k * (brow.outer - brow.inner)) / (k - k * k)
        c2 = (brow.outer - brow.inner) - c1
        line = brow.inner + c1 * v + c2 * v * v
        bunched = 1 + 0.25 * self.shape.level[4] * (1 - 0.5 * v)
        thick = person.brow_thick * bunched * (1 - 0.62 * v**2) * (0.75 + 0.25 * np.clip(v / 0.15, 0, 1))
        body = np.exp(-((((y - line) / (0.62 * thick)) ** 2) ** 1.5))
        ends = step(s - brow.start, 0.03) * step(end - s, 0.045)
        hair = np.clip(1 + 0.25 * self.grain[rows, cols], 0.5, 1.3)
        cover = np.clip(person.brow_dark * body * ends * hair, 0, 0.95)
        part = self.picture[rows, cols]
        part += cover * (0.08 + 0.25 * person.hair_tone - part) * (part > 0.05)

    def _nostrils(self) -> None:
        person, shape = self.person, self.shape
        tip = 0.50 * person.nose_length - shape.nose_lift
        rows, cols = self.canvas.window(-0.45, 0.45, 0.2, 0.95)
        x, y = np.abs(self.canvas.xs[:, cols]), self.canvas.ys[rows]
        nw = person.nose_width * (1 + 0.12 * shape.level[9])
        part = self.picture[rows, cols]
        part *= 1 - 0.62 * bell(x, 0.080 * nw, 0.036) * bell(y, tip + 0.108 - 0.02 * x / 0.1, 0.020)
        part *= 1 - 0.08 * bell(x, 0, 0.15 * nw) * bell(y, tip + 0.15, 0.035)
        wing = 0.205 * nw
        part *= 1 - (0.20 + 0.36 * shape.level[9]) * bell(x, wing, 0.022) * bell(
            y, tip + 0.05 - 0.6 * shape.nose_lift, 0.05
        )
