"""`rendered`: faces drawn by this project's own code from facial action units, so that no download is needed.

Which action units make up an emotion: P. Ekman and W. V. Friesen, Facial Action Coding System (FACS), 1978, and their
EMFACS-7: Emotional Facial Action Coding System, 1983. Every picture comes with the mask of the parts that its action
units displace: the only data set here for which the right explanation is known.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.datasets.base import DATASETS, SPLITS, Dataset, FaceSet, check_allowed
from fer_bench.datasets.face_camera import Scene, photograph
from fer_bench.datasets.face_drawing import Light
from fer_bench.datasets.face_shape import Person, check_action_units, shape_of
from fer_bench.emotions import SEVEN, canonical

COUNTS: dict[str, int] = {"train": 2100, "validation": 350, "test": 350}
"""Pictures per split; each a multiple of 7, so that every person shows every emotion once."""
NEUTRAL = 0.15
"""The strongest trace of an expression on a neutral face."""
WEAKEST = 0.3
"""The mildest expression of the six emotions."""

PROTOTYPES: dict[str, tuple[Mapping[int, float], ...]] = {
    "anger": (
        {4: 1.0, 7: 0.7, 24: 0.9, 17: 0.8, 15: 0.5},
        {4: 1.0, 5: 0.5, 7: 0.6, 10: 0.8, 16: 1.0, 25: 0.8},
        {4: 1.0, 7: 0.6, 10: 0.8, 16: 0.8, 25: 1.0, 26: 1.0},
        {4: 1.0, 7: 0.5, 10: 1.0, 16: 1.0, 25: 1.0, 26: 0.7},
        {4: 1.0, 7: 0.8, 10: 0.6, 25: 1.0, 27: 0.6, 16: 0.5},
        {4: 1.0, 7: 0.5, 10: 0.8, 25: 0.8, 27: 0.65, 16: 1.0},
    ),
    "disgust": (
        {4: 0.3, 6: 0.6, 7: 0.95, 9: 1.0, 10: 0.25, 15: 0.8, 26: 1.0},
        {4: 0.3, 6: 0.6, 7: 0.95, 9: 1.0, 15: 0.65, 17: 0.4, 26: 1.0},
        {4: 0.3, 6: 0.6, 7: 0.95, 9: 1.0, 15: 0.9, 26: 0.85},
        {4: 0.3, 6: 0.6, 7: 0.95, 9: 1.0, 10: 0.5, 15: 0.8, 17: 0.9, 26: 1.0},
    ),
    "fear": (
        {1: 0.8, 2: 0.15, 4: 1.0, 5: 0.9, 16: 0.8, 20: 1.0, 25: 1.0, 26: 0.8},
        {1: 0.8, 2: 0.1, 4: 1.0, 5: 0.9, 7: 0.3, 16: 0.8, 20: 0.9, 25: 1.0, 27: 0.5},
        {1: 0.7, 2: 0.1, 4: 1.0, 5: 0.9, 16: 1.0, 20: 1.0, 25: 1.0, 26: 0.9},
        {1: 0.8, 2: 0.15, 4: 1.0, 5: 1.0, 16: 0.8, 20: 0.9, 25: 1.0, 27: 0.6},
    ),
    "happiness": (
        {6: 0.9, 12: 1.0, 25: 1.0},
        {6: 0.8, 12: 0.9, 25: 0.8},
        {6: 1.0, 12: 1.0, 25: 1.0, 26: 0.5},
        {6: 0.8, 12: 0.9},
    ),
    "sadness": (
        {1: 1.0, 4: 0.7, 15: 0.9, 64: 0.5, 11: 0.4},
        {1: 1.0, 4: 0.7, 15: 1.0, 17: 0.8, 64: 0.3},
        {1: 0.9, 4: 0.9, 15: 0.8, 17: 0.5, 7: 0.5, 43: 0.3, 11: 0.5},
        {1: 1.0, 4: 0.8, 6: 0.7, 7: 0.6, 15: 0.8, 20: 0.5, 25: 1.0, 26: 0.4, 11: 0.8},
    ),
    "surprise": (
        {1: 1.0, 2: 1.0, 5: 0.9, 25: 1.0, 26: 1.0, 27: 0.15},
        {1: 1.0, 2: 1.0, 5: 1.0, 25: 1.0, 27: 0.7},
        {1: 0.9, 2: 1.0, 5: 0.7, 25: 1.0, 26: 1.0, 27: 0.2},
    ),
    "neutral": ({},),
}
"""Per emotion, several sets of action units with their levels at full intensity (EMFACS and its common variants)."""

CARD = DatasetCard(
    name="rendered",
    title="Rendered faces, drawn from action units",
    emotions=SEVEN,
    counts=tuple(COUNTS.items()),
    licence="MIT (drawn by this project)",
    source="Drawn by fer_bench itself when it is loaded; nothing to download.",
    paper="Action units after Ekman & Friesen, FACS (1978) and EMFACS (1983).",
)


def _draw_person(rng: np.random.Generator) -> Person:
    u = rng.uniform
    male = bool(rng.random() < 0.5)
    age = float(rng.beta(1.6, 2.4))
    skin = float(np.clip(rng.normal(0.66, 0.12), 0.34, 0.86))
    dark = skin < 0.5
    styles = _HAIR_OF_MEN if male else _HAIR_OF_WOMEN
    hair = str(rng.choice(list(styles), p=list(styles.values())))
    hair_tone = float(rng.beta(1.1, 2.6)) if age < 0.6 else float(u(0.3, 1.0))
    hair_tone *= 0.3 if dark else 1
    bearded = male and age > 0.15 and rng.random() < 0.35
    beard = float(u(0.25, 0.85)) if bearded else float(u(0, 0.18)) * male  # the rest is stubble
    only_moustache = male and rng.random() < 0.05
    return Person(
        male=male,
        age=age,
        skin=skin,
        width=u(0.86, 0.98) + 0.03 * male,
        chin=u(1.34, 1.46) + 0.03 * male,
        jaw=float(np.clip(rng.normal(0.55 if male else 0.25, 0.15), 0, 1)),
        eye_x=u(0.395, 0.44),
        eye_width=u(0.175, 0.205) + 0.01 * (not male),
        eye_open=u(0.85, 1.15) + 0.08 * (not male),
        eye_tilt=u(-0.05, 0.14),
        iris=u(0.08, 0.38),
        brow_y=u(-0.275, -0.21) - 0.04 * (not male),
        brow_thick=u(0.075, 0.12) if male else u(0.05, 0.085),
        brow_dark=max(0.35, u(0.6, 0.95) - 0.3 * hair_tone * (hair_tone > 0.5)),
        nose_length=u(0.92, 1.1),
        nose_width=u(0.85, 1.15) + 0.05 * male + 0.12 * dark,
        mouth_y=u(0.88, 0.95),
        mouth_width=u(0.32, 0.39),
        lips=u(0.75, 1.2) + 0.15 * dark + 0.1 * (not male),
        lip_dark=u(0.70, 0.88) - 0.08 * (not male),
        hair=hair,
        hair_tone=hair_tone,
        hairline=u(-1.02, -0.80),
        beard=beard,
        moustache=float(u(0.5, 0.9)) if only_moustache else beard * 0.9,
        glasses=float(u(0.45, 0.9)) if rng.random() < 0.11 else 0.0,
        asymmetry=float(rng.normal(0, 0.06)),
    )


_HAIR_OF_MEN = {"bald": 0.1, "short": 0.4, "receding": 0.18, "fringe": 0.1, "side": 0.14, "curly": 0.08}
_HAIR_OF_WOMEN = {"long": 0.42, "fringe": 0.16, "side": 0.18, "curly": 0.1, "tied": 0.14}


def _draw_scene(rng: np.random.Generator) -> Scene:
    u = rng.uniform

    def about(mean: float, deviation: float, reach: float) -> float:
        return float(np.clip(rng.normal(mean, deviation), mean - reach, mean + reach))

    return Scene(
        light=Light(x=about(0, 0.38, 1), y=u(-0.75, -0.15), z=u(0.7, 1.1), ambient=u(0.3, 0.6), gloss=u(0.02, 0.13)),
        yaw=about(0, 0.16, 0.40),
        pitch=about(0, 0.07, 0.16),
        roll=about(0, 0.07, 0.20),
        scale=u(0.95, 1.15),
        shift=(about(0, 0.03, 0.09), about(0, 0.03, 0.09)),
        gaze=(about(0, 0.02, 0.05), about(0, 0.006, 0.015)),
        background=float(rng.beta(0.9, 0.9)),
        clutter=float(rng.choice([0.0, 0.03, 0.12])),
        clothes=u(0.03, 0.9),
        blur=float(rng.choice([0.0, 0.0, 0.3, 0.5])),
        contrast=about(0.185, 0.03, 0.06),
        brightness=about(0.53, 0.11, 0.18),
        noise=u(0.0, 0.02),
        quality=float(rng.choice([0.0, 0.004, 0.009])),
    )


_RESTLESS = (1, 2, 4, 6, 7, 10, 12, 15, 17, 20, 23)
"""Units that a face at rest may show a trace of."""


def _action_units(emotion: str, intensity: float, rng: np.random.Generator) -> dict[int, float]:
    """One of the emotion's prototypes at this intensity, each unit's level varied a little."""
    if emotion == "neutral":
        picked = rng.choice(_RESTLESS, 3, replace=False)
        return {int(unit): float(level) * intensity for unit, level in zip(picked, rng.uniform(0, 1, 3), strict=True)}
    variants = PROTOTYPES[emotion]
    chosen = variants[int(rng.integers(len(variants)))]
    wobble = rng.uniform(0.85, 1.1, len(chosen))
    return {
        unit: float(min(1.0, level * w * intensity)) for (unit, level), w in zip(chosen.items(), wobble, strict=True)
    }


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _render(
    aus: Mapping[int, float], person_key: tuple[int, ...], scene_key: tuple[int, ...], size: int
) -> tuple[np.ndarray, np.ndarray]:
    if not 16 <= size <= 512:
        raise ValueError(f"size must lie in 16..512 pixels, not {size}")
    person = _draw_person(_rng(*person_key, 1))
    scene = _draw_scene(_rng(*scene_key, 2))
    return photograph(person, shape_of(person, aus), scene, _rng(*scene_key, 3), size)


def render_action_units(aus: Mapping[int, float], seed: int, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Draw a face with these facial action units.

    aus: unit -> level 0..1 (the units of `face_shape.ACTION_UNITS`; missing ones are at rest). seed: a non-negative
    integer that fixes person, pose, light and camera, so that two calls differ in nothing but the action units.
    size: 16..512 pixels. Returns the picture, uint8 (size, size), and the mask, bool (size, size), of the parts that
    units at 0.05 or more displace.
    Raises ValueError for an unknown unit, a level outside 0..1 or a size out of range.
    Source: Ekman & Friesen, Facial Action Coding System, 1978.
    """
    return _render(check_action_units(aus), (seed,), (seed,), size)


def render(emotion: str, intensity: float, seed: int, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Draw a face that shows an emotion.

    emotion: one of `SEVEN` (any usual spelling). intensity: 0 (at rest) to 1 (as strong as it gets); neutral faces move
    by traces only. seed: a non-negative integer; it fixes the person, scene and the emotion's variant. size: 16..512.
    Returns the picture, uint8 (size, size), and the mask, bool (size, size), of the parts that carry the emotion (all
    false for neutral). Raises ValueError for another emotion, an intensity outside 0..1 or a size out of range.
    Source: Ekman & Friesen, EMFACS-7, 1983.
    """
    name = canonical(emotion)
    if name not in PROTOTYPES:
        raise ValueError(f"{name} cannot be rendered; the emotions are {', '.join(PROTOTYPES)}")
    if not 0 <= intensity <= 1:
        raise ValueError(f"intensity must lie in 0..1, not {intensity}")
    aus = _action_units(name, intensity * (NEUTRAL if name == "neutral" else 1), _rng(seed, 4))
    picture, mask = _render(aus, (seed,), (seed,), size)
    return picture, np.zeros_like(mask) if name == "neutral" else mask


def person_key(split: str, index: int) -> tuple[int, ...]:
    """The seed of the person in that picture of a split: one for seven pictures, never shared by two splits."""
    return (0, SPLITS.index(split) + 1, 0, index // len(SEVEN))


def draw_split(split: str, count: int) -> FaceSet:
    """The first `count` pictures of a split: person by person, each showing every emotion once.

    Each picture has its own scene, variant and intensity (0.3..1; neutral 0..0.15, the strength of its traces).
    """
    images, masks = np.empty((count, 48, 48), dtype=np.uint8), np.empty((count, 48, 48), dtype=bool)
    labels = np.arange(count, dtype=np.int64) % len(SEVEN)
    intensity = np.empty(count, dtype=np.float32)
    for i in range(count):
        emotion = SEVEN[labels[i]]
        scene_key = (0, SPLITS.index(split) + 1, 1, i)
        rng = _rng(*scene_key, 5)
        intensity[i] = rng.uniform(0, NEUTRAL) if emotion == "neutral" else rng.uniform(WEAKEST, 1)
        aus = _action_units(emotion, float(intensity[i]), rng)
        images[i], masks[i] = _render(aus, person_key(split, i), scene_key, 48)
        if emotion == "neutral":
            masks[i] = False
    ids = tuple(f"rendered-{split}-{i:04d}" for i in range(count))
    return FaceSet("rendered", split, SEVEN, images, labels, ids, masks=masks, intensity=intensity)


_draw_once = functools.cache(draw_split)


def load(root: Path | None, split: str) -> FaceSet:
    """One split, drawn on first use (about 15 ms a picture) and then kept in memory; `root` is not used.

    images uint8 (N, 48, 48), masks bool (N, 48, 48), intensity float32 (N,): 0.3..1, for neutral 0..0.15. Seven
    pictures in a row show one person, with every emotion once; `subjects` does not say so, since intervals over people
    would mostly be narrower for that (0.8 times, over the board's rows): a method that knows one emotion recognises
    one picture of everybody. Raises ValueError for an unknown split, RuntimeError where `forbid_split` is open for it.
    """
    check_allowed(split)
    drawn = _draw_once(split, COUNTS[split])
    # Copies, so that a caller who writes into a picture does not change everybody's data.
    return drawn.take(np.arange(len(drawn)))


DATASETS.add("rendered", Dataset(CARD, load, apart=True))  # no person stands in two splits
