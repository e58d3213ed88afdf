"""What several tests need: tiny data sets made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fer_bench.emotions import SEVEN


def picture(label: int, seed: int, side: int = 48) -> np.ndarray:
    """uint8 (side, side): noise with a bright bar whose place tells the label."""
    image = np.random.default_rng(seed).integers(0, 90, (side, side), dtype=np.uint8)
    top = label * side // 8
    image[top : top + side // 8] = 230
    return image


def write_folder(root: Path, per_class: int = 4, emotions: tuple[str, ...] = SEVEN, splits: bool = True) -> Path:
    """An emotion-per-folder data set of learnable pictures, with or without the three splits."""
    for offset, split in enumerate(("train", "validation", "test") if splits else ("",)):
        for emotion in emotions:
            folder = root / split / emotion
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(per_class):
                seed = offset * 10_000 + SEVEN.index(emotion) * 100 + index
                Image.fromarray(picture(SEVEN.index(emotion), seed)).save(folder / f"{index}.png")
    return root
