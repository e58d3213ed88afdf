"""What grows on and stands around a painted face: beard, glasses, hair, ears, neck, clothes and background."""

from __future__ import annotations

import numpy as np

from fer_bench.datasets.face_drawing import Painter
from fer_bench.datasets.face_relief import bell, step

_SHOULDERS = 0.22
"""How far below the chin the clothes begin."""


def add_beard(face: Painter) -> None:
    """Beard and moustache, which follow the jaw and the upper lip."""
    person, shape, m = face.person, face.shape, face.mouth
    if person.beard < 0.02 and person.moustache < 0.02:
        return
    xs, ys = face.canvas.xs, face.canvas.ys
    edge = 0.62 + 0.55 * shape.jaw + 0.30 * np.clip(1 - np.abs(xs) / 0.9, 0, 1) ** 0.8
    cover = person.beard * step(ys - edge - 0.02 * face.curls, 0.07)
    corners = sum(shape.corners) / 2
    arc = shape.upper_out - 0.05 + 0.6 * (corners - shape.upper_out) * np.clip(m.t, 0, 1.2) ** 2
    cover = np.maximum(cover, person.moustache * bell(ys, arc, 0.05) * step(1.12 - m.t, 0.08))
    cover *= 1 - step(ys - m.upper_out, 0.015) * step(m.lower_out - ys, 0.015) * step(1 - m.t, 0.04)
    cover *= 1 - 0.35 * bell(ys, shape.lower_out + 0.03, 0.03) * bell(xs, 0.16, 0.06)
    cover = np.clip(cover * (1 + 0.18 * face.grain), 0, 0.93) * face.inside
    tone = (0.06 + 0.55 * person.hair_tone) * (0.45 + 0.7 * face.lit)
    face.picture += cover * (tone * (1 + 0.15 * face.grain) - face.picture)


def add_glasses(face: Painter) -> None:
    """Rounded frames, the bridge between them and the sides."""
    person = face.person
    if not person.glasses:
        return
    rows, cols = face.canvas.window(-1.1, 1.1, -0.45, 0.45)
    x, y = np.abs(face.canvas.xs[:, cols]), face.canvas.ys[rows]
    r = (((x - person.eye_x - 0.02) / 0.30) ** 4 + ((y - 0.03) / 0.215) ** 4) ** 0.25
    bridge = bell(y, -0.02, 0.022) * step(person.eye_x - 0.27 - x, 0.02)
    sides = bell(y, -0.06, 0.022) * step(x - person.eye_x - 0.30, 0.02)
    part = face.picture[rows, cols]
    part *= 1 - 0.05 * step(1 - r, 0.03)
    part *= 1 - person.glasses * np.clip(bell(r, 1.0, 0.055) + bridge + sides, 0, 1)


def add_surroundings(face: Painter, background: np.ndarray, clothes: float) -> np.ndarray:
    """Everything behind the head and the hair in front of it. Returns where skin is seen, (n, n), 0..1."""
    person = face.person
    tone = (0.04 + 0.62 * person.hair_tone) * (0.55 + 0.55 * np.clip(face.lit, 0, 1))
    texture = face.curls if person.hair == "curly" else face.strands
    hair = tone * (1 + 0.28 * texture + 0.10 * face.grain)
    scene = _behind(face, background, clothes, hair)
    face.picture = scene + face.inside * (face.picture - scene)
    if person.hair == "bald":
        return face.inside
    line = _hairline(face)
    front = step(line + 0.02 * texture - face.canvas.ys, 0.03) * _hair_outline(face)
    shadow = step(line + 0.09 - face.canvas.ys, 0.05) * face.inside
    face.picture *= 1 - 0.22 * shadow * (1 - front)
    face.picture += front * (hair - face.picture)
    return face.inside * (1 - front)


def _behind(face: Painter, background: np.ndarray, clothes: float, hair: np.ndarray) -> np.ndarray:
    person, light, xs, ys = face.person, face.light, face.canvas.xs, face.canvas.ys
    x = np.abs(xs)
    body = step(ys - face.shape.chin - _SHOULDERS - 0.12 * (x - 0.4), 0.05)
    scene = background + body * (clothes - background)
    neck = step(0.62 * person.width + 0.06 * (ys - face.shape.chin) - x, 0.03) * step(ys - 0.7, 0.05)
    scene += neck * (person.skin * (0.42 + 0.25 * light.ambient) * (1 - 0.2 * (x / 0.6) ** 2) - scene)
    if person.hair == "long":
        sides = step(1.22 + 0.04 * face.blotch - x + 0.05 * np.clip(ys, -1, 1), 0.04) * step(ys + 1.3 - 0.5 * x**2, 0.1)
        scene += sides * (hair * 0.85 - scene)
    elif person.hair != "curly":
        ear = step(1 - np.hypot((x - person.width) / 0.11, (ys - 0.14) / 0.26), 0.15)
        scene += ear * (person.skin * 0.72 * (0.5 + 0.5 * light.ambient) - scene)
    return scene


def _hairline(face: Painter) -> np.ndarray:
    """The height above which hair covers the forehead, (1, n) or (n, n)."""
    person, xs = face.person, face.canvas.xs
    x = np.abs(xs)
    out = np.clip(x / person.width, 0, 1.3)
    if person.hair == "receding":
        return person.hairline - 0.28 * bell(x, 0.42, 0.22) + 0.40 * out**4
    if person.hair == "fringe":
        return person.hairline + 0.32 + 0.05 * face.strands + 0.25 * out**5
    if person.hair == "side":
        line = person.hairline + 0.18 + 0.28 * np.tanh(2.2 * (xs + 0.35)) + 0.3 * out**4
        return np.minimum(line, person.brow_y - 0.06) + 0.5 * np.clip(x / person.width - 0.75, 0, 1)
    line = person.hairline + 0.42 * out**3.2
    if person.hair == "long":  # falls down both sides of the face
        return np.where(x < 0.80 * person.width, line, line + (x / person.width - 0.80) * 14)
    return line


def _hair_outline(face: Painter) -> np.ndarray:
    person, ys = face.person, face.canvas.ys
    curly = person.hair == "curly"
    grow = {"curly": 1.26, "long": 1.16, "fringe": 1.10, "side": 1.10}.get(person.hair, 1.05)
    rim = person.width * grow * np.sqrt(1 - np.clip(-ys / (1.18 * grow + 0.22), 0, 1) ** 2.6)
    bottom = 1.8 if person.hair == "long" else (0.35 if curly else 0.02)
    ragged = 0.05 * face.curls if curly else 0.015 * face.blotch
    return step(rim + ragged - np.abs(face.canvas.xs), 0.03) * step(bottom - ys, 0.08)
