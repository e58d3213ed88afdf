"""python -m fer_bench.robustness: how much accuracy is left on corrupted copies of the test pictures.

After D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
ICLR 2019 (ImageNet-C): each corruption has severities 1 to 5. Theirs are made for photographs of 224 pixels; these are
set for faces of 48, so that a person still names most emotions at severity 5. What has a length (blur, motion) is
scaled with the picture's side, so that a face is as blurred at 224 pixels as at 48. Darkness, occlusion and rotation
are not among theirs; faces meet them.

Theirs are never trained on; of these, a milder kind of some is part of what training does to its pictures: rotation
(8 to 12 degrees at most; severity 5 is 30), brightness, darkness and contrast in common-v1, distilled-v1, light-v1,
strong-v1 and votes-v1, and grey boxes, which is what occlusion is, in common-v1, distilled-v1, strong-v1 and votes-v1.
A paper's own recipe may do none of it. Noise, blur, motion, JPEG and few pixels are in none.
"""

from __future__ import annotations

import argparse
import io
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from fer_bench.cards import RECIPE_HELP
from fer_bench.datasets import FaceSet, load_dataset
from fer_bench.emotions import shared
from fer_bench.errors import UserError
from fer_bench.files import OutputError, atomic_write
from fer_bench.infer import Model, best_device, load, logits
from fer_bench.judged import widened
from fer_bench.methods import METHODS
from fer_bench.metrics import restrict_logits
from fer_bench.protocols import track_named
from fer_bench.records import Robustness
from fer_bench.registry import UnknownNameError
from fer_bench.sampling import percentile_interval, resampled_means, stratified
from fer_bench.statistics import several

SUITE = "faces-1"
"""The name of the corruptions below with their levels; figures of two suites are not comparable."""
SEVERITIES = (1, 3, 5)
"""Those that are measured, of 1 (mild) to 5."""
PICTURES = 350
"""Pictures of the test split that are measured on at most: all of `rendered`, a tenth of FER2013."""
SIDE = 48
"""The side that lengths in pixels are given for."""

Apply = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Corruption:
    """A way of spoiling pictures."""

    title: str
    levels: tuple[float, float, float, float, float]
    """What `apply` takes at severities 1 to 5."""
    apply: Apply
    """(uint8 (N, H, W) or (N, H, W, 3), level, random numbers) -> the same shape, 0..255, rounded and cut later."""


def corrupt(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """Corrupted copies of uint8 (N, H, W) or (N, H, W, 3), as uint8 of the same shape.

    name: a key of `CORRUPTIONS`. severity: 1..5. What is drawn at random (noise, direction, place) depends on the seed
    and the name alone, so that a higher severity is more of the same. Raises UserError for another name or severity.
    """
    if name not in CORRUPTIONS:
        raise UserError(f"there is no corruption {name!r}; the names are: {', '.join(CORRUPTIONS)}.")
    if severity not in range(1, 6):
        raise UserError(f"a severity lies in 1..5, not {severity}.")
    chosen, rng = CORRUPTIONS[name], np.random.default_rng((seed, zlib.crc32(name.encode())))
    if not len(images):
        return images.copy()
    return np.clip(np.rint(chosen.apply(images, chosen.levels[severity - 1], rng)), 0, 255).astype(np.uint8)


# ---- the corruptions


def _per_picture(images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Numbers (N,) in a shape that multiplies pictures."""
    return numbers.reshape(-1, *[1] * (images.ndim - 1))


def _each(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def _gaussian_noise(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return images + 255 * sigma * rng.standard_normal(images.shape)


def _shot_noise(images: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """As many photons at white; light counted, not measured."""
    return rng.poisson(images / 255 * photons) * (255 / photons)


def _blur(images: np.ndarray, sigma: float, _rng: np.random.Generator) -> np.ndarray:
    blur = ImageFilter.GaussianBlur(sigma * images.shape[1] / SIDE)
    return _each(images, lambda picture: picture.filter(blur))


def _sampled(images: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """float32, shape of images: their values where (N, 2, 3) takes each place (-1..1), the border repeated outside."""
    values = torch.from_numpy(images.astype(np.float32))
    values = values[:, None] if images.ndim == 3 else values.permute(0, 3, 1, 2)
    theta: Tensor = torch.from_numpy(matrices.astype(np.float32))
    grid = F.affine_grid(theta, list(values.shape), align_corners=False)
    found = F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return (found[:, 0] if images.ndim == 3 else found.permute(0, 2, 3, 1)).numpy()


def _motion_blur(images: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """The mean of the picture along a straight way of that many pixels of 48, in a random direction."""
    angle = rng.uniform(0, np.pi, len(images))
    steps = np.linspace(-1, 1, 2 * int(np.ceil(length * images.shape[1] / SIDE)) + 1)
    total = np.zeros(images.shape, np.float64)
    for step in steps:
        matrices = np.tile(np.eye(2, 3), (len(images), 1, 1))
        matrices[:, :, 2] = step * length / SIDE * np.stack([np.cos(angle), np.sin(angle)], 1)  # -1..1 is one side
        total += _sampled(images, matrices)
    return total / len(steps)


def _rotation(images: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    angle = np.deg2rad(degrees) * rng.choice([-1, 1], len(images))
    cos, sin, none = np.cos(angle), np.sin(angle), np.zeros(len(images))
    return _sampled(images, np.stack([np.stack([cos, -sin, none], 1), np.stack([sin, cos, none], 1)], 1))


def _brightness(images: np.ndarray, amount: float, _rng: np.random.Generator) -> np.ndarray:
    return images + 255 * amount


def _darkness(images: np.ndarray, gain: float, _rng: np.random.Generator) -> np.ndarray:
    return images * gain


def _contrast(images: np.ndarray, gain: float, _rng: np.random.Generator) -> np.ndarray:
    mean = _per_picture(images, images.mean(tuple(range(1, images.ndim))))
    return (images - mean) * gain + mean


def _jpeg(images: np.ndarray, quality: float, _rng: np.random.Generator) -> np.ndarray:
    def through(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(quality))
        return Image.open(buffer)

    return _each(images, through)


def _pixelate(images: np.ndarray, side: float, _rng: np.random.Generator) -> np.ndarray:
    """As if the face had been that many pixels wide."""
    small, size = (min(int(side), images.shape[2]), min(int(side), images.shape[1])), images.shape[2:0:-1]
    nearest = Image.Resampling.NEAREST
    return _each(images, lambda picture: picture.resize(small, Image.Resampling.BOX).resize(size, nearest))


def _occlusion(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A square of that share of the side, wholly inside and of one grey, both at random."""
    height, width = images.shape[1:3]
    box_h, box_w = round(share * height), round(share * width)
    spoiled, place, greys = images.copy(), rng.random((len(images), 2)), rng.integers(0, 256, len(images))
    for image, (down, right), grey in zip(spoiled, place, greys, strict=True):
        top, left = round(down * (height - box_h)), round(right * (width - box_w))
        image[top : top + box_h, left : left + box_w] = grey
    return spoiled


CORRUPTIONS: dict[str, Corruption] = {
    # Levels are fractions of full range, but for: photons at white, pixels of 48, degrees, JPEG's quality.
    "gaussian_noise": Corruption("Gaussian noise", (0.02, 0.04, 0.06, 0.08, 0.11), _gaussian_noise),
    "shot_noise": Corruption("Shot noise", (400, 220, 120, 75, 50), _shot_noise),
    "blur": Corruption("Gaussian blur", (0.5, 0.75, 1.0, 1.3, 1.6), _blur),
    "motion_blur": Corruption("Motion blur", (2, 3, 4, 5.5, 7), _motion_blur),
    "brightness": Corruption("Brightness", (0.1, 0.18, 0.26, 0.34, 0.42), _brightness),
    "darkness": Corruption("Darkness", (0.75, 0.6, 0.45, 0.35, 0.28), _darkness),
    "contrast": Corruption("Low contrast", (0.75, 0.55, 0.42, 0.33, 0.25), _contrast),
    "jpeg": Corruption("JPEG", (50, 35, 22, 15, 10), _jpeg),
    "pixelate": Corruption("Few pixels", (36, 30, 25, 21, 18), _pixelate),
    "occlusion": Corruption("Occlusion", (0.15, 0.22, 0.29, 0.36, 0.43), _occlusion),
    "rotation": Corruption("Rotation", (6, 12, 18, 24, 30), _rotation),
}
"""Name -> corruption."""


# ---- what is measured


def measure_robustness(
    model: Model,
    faces: FaceSet,
    pictures: int | None = PICTURES,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Robustness:
    """Accuracy on a stratified sample of at most `pictures` test pictures (None: all), clean and corrupted.

    Every picture of the sample is answered once as it is and once for each corruption and severity, so len(CORRUPTIONS)
    x len(severities) + 1 passes over the sample. `corrupted` is the mean over all of these accuracies but the clean,
    `relative_drop` is 1 - corrupted / clean; None where no clean picture is right. Intervals are 95 % bootstrap
    intervals over the sample's pictures, or over its people where they are known, all cells of one drawn together.
    Emotions that model and data do not share are left out. progress wraps the loop over the cells (a tqdm, say). Raises
    UserError where there are fewer than two shared emotions or no pictures.
    """
    emotions = shared(model.emotions, faces.emotions)
    if len(emotions) < 2:
        raise UserError(f"{model.name} and {faces.name} share {len(emotions)} emotion(s); at least two are needed.")
    faces = faces.restrict(emotions)
    if not len(faces):
        raise UserError(f"{faces.name} has no pictures in its {faces.split} split; there is nothing to corrupt.")
    sample = faces.take(stratified(faces.labels, pictures, seed))

    def correct(images: np.ndarray) -> np.ndarray:
        answers = restrict_logits(logits(model, images, batch_size), model.emotions, emotions)
        return answers.argmax(1) == sample.labels

    cells = [(name, severity) for name in CORRUPTIONS for severity in severities]
    right = np.empty((len(sample), 1 + len(cells)))
    right[:, 0] = correct(sample.images)
    for column, cell in enumerate(progress(cells), start=1):
        right[:, column] = correct(corrupt(sample.images, *cell, seed))
    people = several(sample.subjects)
    means, draws = right.mean(0), resampled_means(right, seed, subjects=people)
    interval = partial(percentile_interval, subjects=people)
    fraction = partial(interval, pictures=len(sample))
    found: dict[str, dict[str, object]] = {name: {} for name in CORRUPTIONS}
    for column, (name, severity) in enumerate(cells, start=1):
        found[name][str(severity)] = fraction(means[column], draws[:, column])
    spoiled = draws[:, 1:].mean(1)
    drop = 1 - np.divide(spoiled, draws[:, 0], out=np.full(len(draws), np.nan), where=draws[:, 0] > 0)
    return Robustness(
        suite=SUITE, pictures=len(sample), seed=seed,
        clean=fraction(means[0], draws[:, 0]),
        corrupted=fraction(means[1:].mean(), spoiled),
        relative_drop=interval(1 - means[1:].mean() / means[0], drop) if means[0] > 0 else None,
        corruptions=found,
    )  # fmt: skip


def contact_sheet(images: np.ndarray, severities: Sequence[int] = SEVERITIES, seed: int = 0) -> Image.Image:
    """One row per picture as it is and per corruption and severity; one column per picture of `images`."""
    rows = [images, *(corrupt(images, name, severity, seed) for name in CORRUPTIONS for severity in severities)]
    return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))


# ---- the command


def table_text(found: Robustness) -> str:
    """The figures as lines of plain text: a row per corruption, a column per severity; per cent."""
    severities = list(next(iter(found.corruptions.values())))
    lines = [f"{'':16}" + "".join(f"{'severity ' + severity:>20}" for severity in severities)]
    for name, cells in found.corruptions.items():
        shown = (f"{100 * c.value:.1f} [{100 * c.low:.1f}, {100 * c.high:.1f}]" for c in cells.values())
        lines.append(f"{CORRUPTIONS[name].title:16}" + "".join(f"{cell:>20}" for cell in shown))
    named = {"clean": found.clean, "corrupted": found.corrupted, "relative drop": found.relative_drop}
    for name, c in named.items():
        told = "none: no clean picture is right"
        if c is not None:
            told = f"{100 * c.value:.1f} [{100 * c.low:.1f}, {100 * c.high:.1f}]"
        lines.append(f"{name:16}{told:>20}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print what accuracy corrupted pictures leave to methods, per cent. Exit codes: 0 done, 1 the sheet could not be
    written, 2 wrong use."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(prog="python -m fer_bench.robustness", description=main.__doc__)
    parser.add_argument("--method", nargs="+", default=["small_cnn"], metavar="NAME", help="default: small_cnn")
    parser.add_argument("--track", default="rendered", help="a track, folder:PATH or csv:PATH; default: rendered")
    parser.add_argument("--pictures", type=int, default=PICTURES, metavar="N", help="at most; default: %(default)s")
    parser.add_argument("--recipe", help=RECIPE_HELP)
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="take the weights from this training output folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also write a contact sheet (PNG) of seven pictures")
    arguments = parser.parse_args(argv)
    try:
        if arguments.pictures < 1:
            raise UserError(f"--pictures must be at least 1, not {arguments.pictures}.")
        if arguments.sheet is not None and arguments.sheet.is_dir():
            raise UserError(f"{arguments.sheet}: this is a folder; give a file to --sheet.")
        for name in arguments.method:
            METHODS[name]
        track, device = track_named(arguments.track), str(best_device(arguments.device))
        chosen = (track.name, arguments.recipe, arguments.seed, device, arguments.runs)
        models = [load(name, *chosen) for name in arguments.method]
        faces = load_dataset(track.dataset, track.test).restrict(track.emotions)
        if arguments.sheet is not None:
            sheet = contact_sheet(faces.images[: min(7, len(faces))])
            print(atomic_write(arguments.sheet, partial(sheet.save, format="PNG")))
        for model in models:
            bar = partial(tqdm, desc=model.name, leave=False, disable=None)
            found = measure_robustness(model, widened(faces, model, track), arguments.pictures, progress=bar)
            print(f"{model.name} on {track.name}, {found.pictures} pictures:\n{table_text(found)}")
    except (UserError, UnknownNameError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, OutputError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
