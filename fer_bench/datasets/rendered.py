"""`rendered`: faces drawn by this project's own code from facial action units, so that no download is needed.

Which action units make up an emotion: P. Ekman and W. V. Friesen, Facial Action Coding System (FACS), 1978, and their
EMFACS-7: Emotional Facial Action Coding System, 1983. Every picture comes with the mask of the parts that its action units
displace: the only data set here for which the right explanation is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fer_bench.cards import DatasetCard
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.datasets.face_camera import Scene, photograph
from fer_bench.datasets.face_drawing import Light
from fer_bench.datasets.face_shape import Person, check_action_units, shape_of
from fer_bench.emotions import SEVEN, canonical

COUNTS: dict[str, int] = {"train": 2100, "validation": 350, "test": 350}
"""Pictures per split; each a multiple of 7, so that every person shows every emotion once."""

PROTOTYPES: dict[str, tuple[Mapping[int, float], ...]] = {
    "anger": (
        {4: 1.0, 5: 0.3, 7: 0.8, 23: 0.8, 17: 0.5},
        {4: 1.0, 7: 0.9, 24: 0.9, 17: 0.6, 15: 0.3},
        {4: 1.0, 5: 0.3, 7: 0.8, 10: 0.9, 25: 1.0, 16: 0.8, 9: 0.3},
        {4: 1.0, 5: 0.3, 7: 0.8, 10: 0.8, 25: 1.0, 26: 1.0, 16: 0.6, 9: 0.3},
        {4: 1.0, 7: 0.8, 10: 0.6, 25: 1.0, 27: 0.6, 16: 0.5, 9: 0.3},
    ),
    "disgust": (
        {9: 1.0, 10: 0.7, 4: 0.6, 7: 0.7, 6: 0.5, 17: 0.5, 15: 0.3},
        {9: 1.0, 10: 1.0, 25: 0.8, 16: 0.6, 4: 0.6, 7: 0.8, 6: 0.6},
        {9: 1.0, 10: 0.8, 15: 0.8, 17: 0.6, 4: 0.6, 7: 0.9, 6: 0.5},
        {9: 1.0, 10: 0.9, 16: 0.7, 25: 1.0, 26: 0.4, 4: 0.6, 7: 1.0, 6: 0.7, 20: 0.4},
    ),
    "fear": (
        {1: 1.0, 2: 0.25, 4: 0.9, 5: 1.0, 20: 0.9, 25: 1.0, 16: 0.5},
        {1: 1.0, 2: 0.3, 4: 0.8, 5: 1.0, 20: 0.8, 25: 1.0, 26: 0.7},
        {1: 1.0, 2: 0.2, 4: 1.0, 5: 0.8, 20: 1.0, 25: 1.0, 16: 0.8, 26: 0.3},
        {1: 1.0, 2: 0.3, 4: 0.9, 5: 1.0, 20: 0.5, 25: 1.0, 27: 0.6, 10: 0.3},
    ),
    "happiness": (
        {6: 0.9, 12: 1.0, 25: 1.0},
        {6: 0.8, 12: 0.9, 25: 0.8},
        {6: 1.0, 12: 1.0, 25: 1.0, 26: 0.5},
        {6: 0.8, 12: 0.9},
    ),
    "sadness": (
        {1: 1.0, 4: 0.6, 15: 0.9},
        {1: 1.0, 4: 0.7, 15: 1.0, 17: 0.7},
        {1: 0.9, 4: 0.8, 15: 0.8, 17: 0.5, 7: 0.4, 43: 0.3},
        {1: 0.9, 4: 0.5, 15: 0.8, 43: 0.5},
    ),
    "surprise": (
        {1: 1.0, 2: 1.0, 5: 0.9, 25: 1.0, 26: 1.0},
        {1: 1.0, 2: 1.0, 5: 1.0, 25: 1.0, 27: 0.7},
        {1: 0.9, 2: 1.0, 5: 0.7, 25: 1.0, 26: 0.8},
    ),
    "neutral": ({},),
}
"""Per emotion, several sets of action units with their levels at full intensity (EMFACS and its common variants)."""

CARD = DatasetCard(
    name="rendered",
    title="Rendered faces (action units)",
    emotions=SEVEN,
    counts=tuple(COUNTS.items()),
    licence="MIT (drawn by this project)",
    source="Drawn by fer_bench itself when it is loaded; nothing to download.",
    paper="Action units after Ekman & Friesen, FACS (1978) and EMFACS (1983).",
)


def _draw_person(rng: np.random.Generator) -> Person:
    male = bool(rng.random() < 0.5)
    age = float(np.clip(rng.beta(1.6, 2.4), 0, 1))
    u = rng.uniform
    skin = float(np.clip(rng.normal(0.66, 0.12), 0.34, 0.86))
    if male:
        hair = str(rng.choice(["bald", "short", "receding", "fringe", "side", "curly"], p=[0.1, 0.4, 0.18, 0.1, 0.14, 0.08]))
    else:
        hair = str(rng.choice(["long", "fringe", "side", "curly", "tied"], p=[0.42, 0.16, 0.18, 0.1, 0.14]))
    hair_tone = float(rng.beta(1.1, 2.6)) if age < 0.6 else float(u(0.3, 1.0))
    if skin < 0.5:
        hair_tone *= 0.3
    bearded = male and age > 0.15 and rng.random() < 0.35
    beard = float(u(0.25, 0.85)) if bearded else (float(u(0, 0.18)) if male else 0.0)
    return Person(
        male=male,
        age=age,
        skin=skin,
        width=u(0.86, 0.98) + 0.03 * male,
        chin=u(1.34, 1.46) + 0.03 * male,
        jaw=float(np.clip(rng.normal(0.55 if male else 0.25, 0.15), 0, 1)),
        eye_x=u(0.395, 0.44),
        eye_width=u(0.175, 0.205) + 0.01 * (not male),
        eye_open=u(0.85, 1.2) + 0.08 * (not male),
        eye_tilt=u(-0.05, 0.14),
        iris=u(0.08, 0.38),
        brow_y=u(-0.29, -0.22) - 0.04 * (not male),
        brow_thick=u(0.075, 0.12) if male else u(0.05, 0.085),
        brow_dark=float(np.clip(u(0.6, 0.95) - 0.3 * hair_tone * (hair_tone > 0.5), 0.35, 0.95)),
        nose_length=u(0.92, 1.1),
        nose_width=u(0.85, 1.15) + 0.05 * male + (0.12 if skin < 0.5 else 0),
        mouth_y=u(0.88, 0.95),
        mouth_width=u(0.32, 0.39),
        lips=u(0.75, 1.2) + (0.15 if skin < 0.5 else 0) + 0.1 * (not male),
        lip_dark=u(0.70, 0.88) - 0.08 * (not male),
        hair=hair,
        hair_tone=hair_tone,
        hairline=u(-1.02, -0.80),
        beard=beard,
        moustache=beard if bearded and rng.random() < 0.85 else (float(u(0.5, 0.9)) if male and rng.random() < 0.06 else beard * 0.8),
        glasses=float(u(0.45, 0.9)) if rng.random() < 0.13 else 0.0,
        asymmetry=float(rng.normal(0, 0.06)),
    )


def _draw_scene(rng: np.random.Generator) -> Scene:
    u = rng.uniform
    return Scene(
        light=Light(x=float(rng.normal(0, 0.45)), y=u(-0.75, -0.15), z=u(0.7, 1.1), ambient=u(0.25, 0.55), gloss=u(0.02, 0.16)),
        yaw=float(np.clip(rng.normal(0, 0.16), -0.4, 0.4)),
        pitch=float(np.clip(rng.normal(0, 0.07), -0.16, 0.16)),
        roll=float(np.clip(rng.normal(0, 0.07), -0.2, 0.2)),
        scale=u(0.93, 1.10),
        shift=(float(rng.normal(0, 0.03)), CENTRE + float(rng.normal(0, 0.03))),
        gaze=(float(rng.normal(0, 0.02)), float(rng.normal(0.0, 0.006))),
        background=float(rng.beta(0.9, 0.9)),
        clutter=float(rng.choice([0.0, 0.03, 0.12])),
        clothes=u(0.03, 0.9),
        blur=float(rng.choice([0.0, 0.0, 0.3, 0.5])),
        contrast=float(np.clip(rng.normal(0.22, 0.05), 0.12, 0.33)),
        brightness=float(np.clip(rng.normal(0.5, 0.12), 0.25, 0.75)),
        noise=u(0.0, 0.02),
        quality=float(rng.choice([0.0, 0.01, 0.02])),
    )


CENTRE = 0.0


def _action_units(emotion: str, intensity: float, rng: np.random.Generator) -> dict[int, float]:
    """One of the emotion's prototypes at this intensity, each unit's level varied a little."""
    variants = PROTOTYPES[emotion]
    chosen = variants[int(rng.integers(len(variants)))]
    wobble = rng.uniform(0.85, 1.1, len(chosen))
    levels = {unit: float(min(1.0, level * w * intensity)) for (unit, level), w in zip(chosen.items(), wobble, strict=True)}
    # No face at rest is quite still.
    for unit in (1, 2, 4, 7, 12, 15, 17, 25):
        levels.setdefault(unit, 0.0)
    still = rng.uniform(0, 0.10, 8)
    if emotion == "neutral":
        for unit, level in zip((1, 2, 4, 7, 12, 15, 17, 25), still, strict=True):
            levels[unit] = float(level) * intensity * (unit != 25)
    return levels


def _draw(person: Person, aus: Mapping[int, float], scene: Scene, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    if not 16 <= size <= 512:
        raise ValueError(f"size must lie in 16..512 pixels, not {size}")
    return photograph(person, shape_of(person, aus), scene, rng, size)


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def render_action_units(aus: Mapping[int, float], seed: int, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A face with these action units."""
    aus = check_action_units(aus)
    return _draw(_draw_person(_rng(seed, 1)), aus, _draw_scene(_rng(seed, 2)), _rng(seed, 4), size)


def render(emotion: str, intensity: float, seed: int, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A face that shows an emotion."""
    name = canonical(emotion)
    if name not in PROTOTYPES:
        raise ValueError(f"{name} cannot be rendered; the emotions are {', '.join(PROTOTYPES)}")
    if not 0 <= intensity <= 1:
        raise ValueError(f"intensity must lie in 0..1, not {intensity}")
    picture, mask = render_action_units(_action_units(name, intensity, _rng(seed, 3)), seed, size)
    return picture, mask if name != "neutral" else np.zeros_like(mask)


def load(root: Path | None, split: str) -> FaceSet:
    check_allowed(split)
    raise NotImplementedError


DATASETS.add("rendered", Dataset(CARD, load))
