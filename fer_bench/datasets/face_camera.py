"""From a painted face to a picture: pose, crop, blur, contrast, noise and compression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fer_bench.datasets.face_drawing import Light, Painter, resized, smooth_noise
from fer_bench.datasets.face_relief import HALF, Canvas, region_mask
from fer_bench.datasets.face_shape import Person, Shape
from fer_bench.datasets.face_surround import add_beard, add_glasses, add_surroundings

FRAME = 1.18
"""Half the side of a picture in face units at scale 1: brows to chin with a little hair, as in FER2013."""


@dataclass(frozen=True)
class Scene:
    """What differs between two pictures of one person with the same expression."""

    light: Light
    yaw: float
    """Turn of the head to the side, radians; likewise `pitch` (nod) and `roll` (tilt)."""
    pitch: float
    roll: float
    scale: float
    """1 crops the face as FER2013 does; greater is closer."""
    shift: tuple[float, float]
    """Offset of the crop, in face units."""
    gaze: tuple[float, float]
    background: float
    """Mean brightness, 0..1."""
    clutter: float
    clothes: float
    blur: float
    """Deviation of the blur in pixels of a 48-pixel picture."""
    contrast: float
    brightness: float
    """Deviation and mean of the skin's brightness (0..1) that exposure aims at."""
    noise: float
    """Deviation of the sensor's noise, 0..1."""
    quality: float
    """Strength of the JPEG-like rounding; 0 is none."""


def photograph(
    person: Person, shape: Shape, scene: Scene, rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 (size, size), and the mask of the displaced parts that are in sight, bool (size, size).

    What is drawn from `rng` does not depend on the shape, so that only the expression differs between two shapes.
    """
    # Small pictures are drawn larger and averaged, as a sensor does.
    side = size * max(1, round(96 / size))
    canvas = Canvas(side * scene.scale / (2 * FRAME))
    face = Painter(person, shape, scene.light, scene.gaze, canvas, rng)
    add_beard(face)
    add_glasses(face)
    clutter = scene.background + scene.clutter * smooth_noise(rng, 5, 5, canvas.n)
    skin = add_surroundings(face, np.clip(clutter, 0.02, 1), scene.clothes)

    x, y = _where(face.relief, scene, side)
    picture = _sample(face.picture, x, y)
    mask = _sample(region_mask(person, shape, canvas) * skin, x, y)
    if side != size:
        picture, mask = (resized(v, (size, size), Image.Resampling.BOX) for v in (picture, mask))
    noise = rng.standard_normal((size, size))
    return _develop(picture, _metered(person, scene.light), scene, noise), mask > 0.5


def _where(relief: np.ndarray, scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The canvas positions, in pixels, that each of side x side picture points shows."""
    coarse = 36
    n = len(relief)
    # What stands beside the head turns with its edge, so that the outline does not tear.
    depth = resized(np.maximum(relief, 0.25), (coarse, coarse), Image.Resampling.BOX) - 0.55
    grid = ((np.arange(coarse) + 0.5) / coarse * 2 - 1) * FRAME / scene.scale
    px, py = grid[None, :] + scene.shift[0], grid[:, None] + scene.shift[1]
    cos, sin = np.cos(scene.roll), np.sin(scene.roll)
    px, py = cos * px + sin * py, -sin * px + cos * py
    # The depth at the point that is seen depends on where that point is: a few steps of fixed-point iteration find it.
    x, y = px, py
    for _ in range(3):
        col = np.clip((x + HALF) / (2 * HALF) * coarse - 0.5, 0, coarse - 1)
        row = np.clip((y + HALF) / (2 * HALF) * coarse - 0.5, 0, coarse - 1)
        z = _sample(depth, col, row)
        x = (px - z * np.sin(scene.yaw)) / np.cos(scene.yaw)
        y = (py - z * np.sin(scene.pitch)) / np.cos(scene.pitch)
    wide = [resized(v, (side, side), Image.Resampling.BICUBIC) for v in (x, y)]
    return tuple(np.clip((v + HALF) / (2 * HALF) * n - 0.5, 0, n - 1.001) for v in wide)


def _sample(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear interpolation at columns x and rows y."""
    n = len(values)
    left, top = np.minimum(x.astype(np.int64), n - 2), np.minimum(y.astype(np.int64), n - 2)
    fx, fy = x - left, y - top
    flat, at = values.ravel(), top * n + left
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    lower = flat[at + n] * (1 - fx) + flat[at + n + 1] * fx
    return upper * (1 - fy) + lower * fy


def _metered(person: Person, light: Light) -> tuple[float, float]:
    """Mean and deviation of resting skin in this light: a fit to 250 resting faces (within 3 % and 8 %).

    Exposure must not be read off the picture: an open mouth would brighten the background, and so the expression would
    show where no part of the face has moved.
    """
    length = float(np.sqrt(light.x**2 + light.y**2 + light.z**2))
    frontal = min(1.0, (0.85 * light.z / length + 0.25) / 1.25)
    mean = person.skin * (0.94 * (light.ambient + (1 - light.ambient) * frontal) - 0.05) + 0.08 * light.gloss
    return mean, mean * (0.31 - 0.22 * light.ambient + 0.20 * (light.x / length) ** 2)


def _develop(picture: np.ndarray, metered: tuple[float, float], scene: Scene, noise: np.ndarray) -> np.ndarray:
    size = len(picture)
    if scene.blur:
        picture = _blurred(picture, scene.blur * size / 48)
    mean, spread = metered
    picture = scene.brightness + (picture - mean) * scene.contrast / spread
    picture = picture + scene.noise * noise
    # Highlights and shadows roll off instead of being cut.
    picture = np.where(picture > 0.85, 0.85 + 0.15 * np.tanh((picture - 0.85) / 0.15), picture)
    picture = np.where(picture < 0.1, 0.1 + 0.1 * np.tanh((picture - 0.1) / 0.1), picture)
    if scene.quality > 0:
        picture = _compressed(picture, scene.quality)
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(picture, [(reach, reach) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        n = picture.shape[axis]
        picture = sum(w * np.take(padded, np.arange(k, k + n), axis=axis) for k, w in enumerate(weights))
    return picture


_K = np.arange(8)
_DCT = np.sqrt(np.where(_K == 0, 1, 2) / 8)[:, None] * np.cos(np.pi * (2 * _K[None, :] + 1) * _K[:, None] / 16)


def _compressed(picture: np.ndarray, strength: float) -> np.ndarray:
    """Round the cosine transform of 8x8 blocks, coarser for fine detail, as JPEG does; as is where 8 does not fit."""
    n = len(picture)
    if n % 8:
        return picture
    blocks = picture.reshape(n // 8, 8, n // 8, 8).transpose(0, 2, 1, 3)
    waves = _DCT @ blocks @ _DCT.T
    grain = strength * (1 + _K[:, None] + _K[None, :])
    waves = np.rint(waves / grain) * grain
    return (_DCT.T @ waves @ _DCT).transpose(0, 2, 1, 3).reshape(n, n)
