"""How faithful the class activation maps of `explain` are: to the network, and, where it is known, to the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

from fer_bench.datasets import FaceSet
from fer_bench.errors import UserError
from fer_bench.explain import explain
from fer_bench.infer import Model, logits
from fer_bench.metrics import softmax
from fer_bench.records import Centre, Faithfulness, Regions
from fer_bench.sampling import mean_interval, stratified
from fer_bench.statistics import several

PICTURES = 70
"""Pictures of the test split that are measured on at most."""
STEPS = 10
"""Equal steps in which the pixels of a picture are taken away or put back."""
GRID = 7
"""Cells a side of a random map: as coarse as CAMs are. Single random pixels would be noise, which hurts by itself."""
BLOB = 0.25
"""Standard deviation of the blob in the middle, as a share of the side."""
TIED = 1e-6
"""Values of a map (0..1) that are as close to its maximum are maxima, too: beyond its outermost cells a map is even."""


def measure_faithfulness(
    model: Model,
    faces: FaceSet,
    cam: str = "gradcam",
    pictures: int | None = PICTURES,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
    cam_layer: str | None = None,
) -> Faithfulness:
    """How well the maps of a CAM point at what the model uses, on a stratified sample of `pictures` at most.

    pictures: None is all. empty_maps: the share of the maps of the predicted emotion that are all 0. deletion and
    insertion: see the functions of these names, for the predicted emotion; deletion_random, insertion_random: the same
    with random blobs in place of the map. A faithful map has less deletion and more insertion than these, and than
    `centre`, the same blob in the middle for every picture: most of what counts in a face lies there, so that a map
    which only finds the face beats chance, too. Where the right regions are known (`rendered`, but for its neutral
    faces), with maps of the emotion that is shown: the share of a map's energy (its sum) inside them, the area that
    they cover, which is what an even map would get, and the pointing game: the share of maps whose maximum lies inside
    (Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016). An empty map counts as outside.
    Intervals are 95 % bootstrap intervals over the pictures, or over the people where they are known. About 66 forward
    passes a picture; progress wraps the loop over the six orders. cam_layer: as `explain` has it. Raises UserError as
    `explain` does, and where there are no pictures.
    """
    if not len(faces):
        raise UserError(f"{faces.name} has no pictures in its {faces.split} split; there is nothing to explain.")
    faces = faces.take(stratified(faces.labels, pictures, seed))
    size = faces.images.shape[1:3]
    gain = partial(mean_interval, seed=seed, subjects=several(faces.subjects), span=(-1, 1))
    found = explain(model, faces.images, cam, cam_layer=cam_layer)
    classes = np.array([model.emotions.index(emotion) for emotion in found.targets])
    chance = random_maps(len(faces), size, seed)
    # The sliver of chance settles the order where a map is flat, as it is wherever it is 0.
    own = resized(found.maps, size) + 1e-6 * chance
    middle = np.broadcast_to(blob(size), chance.shape)
    runs = [(area, order) for area in (deletion, insertion) for order in (own, chance, middle)]
    deleted, deleted_random, deleted_middle, inserted, inserted_random, inserted_middle = (
        area(model, faces.images, order, classes) for area, order in progress(runs)
    )
    regions, blob_inside = _regions(model, faces, cam, seed, cam_layer)
    return Faithfulness(
        cam=cam, pictures=len(faces), seed=seed, empty_maps=float((found.maps.max((1, 2)) == 0).mean()),
        deletion=float(deleted.mean()), deletion_random=float(deleted_random.mean()),
        deletion_gain=gain(deleted_random - deleted),
        insertion=float(inserted.mean()), insertion_random=float(inserted_random.mean()),
        insertion_gain=gain(inserted - inserted_random),
        regions=regions, centre=Centre(
            deletion=float(deleted_middle.mean()), deletion_gain=gain(deleted_middle - deleted),
            insertion=float(inserted_middle.mean()),
            insertion_gain=gain(inserted - inserted_middle), **blob_inside,
        ),
    )  # fmt: skip


def _regions(
    model: Model, faces: FaceSet, cam: str, seed: int, cam_layer: str | None
) -> tuple[Regions | None, dict[str, float]]:
    """The maps' regions, and `energy` and `pointing_game` of the blob in the middle; None and nothing where no picture
    has known regions and an emotion that the model tells."""
    if faces.masks is None:
        return None, {}
    known = np.array([emotion in model.emotions for emotion in faces.emotions])
    shown = faces.take(np.flatnonzero(faces.masks.any((1, 2)) & known[faces.labels]))
    if not len(shown):
        return None, {}
    emotions = [shown.emotions[label] for label in shown.labels]
    found = explain(model, shown.images, cam, emotions, cam_layer=cam_layer)
    maps = resized(found.maps, shown.images.shape[1:3])
    mean = partial(mean_interval, seed=seed, subjects=several(shown.subjects), span=(0, 1))
    middle = np.broadcast_to(blob(maps.shape[1:]), maps.shape)
    figures = {"energy": energy_in_regions, "pointing_game": points_inside}
    regions = Regions(
        pictures=len(shown), area=float(shown.masks.mean()), empty_maps=float((maps.max((1, 2)) == 0).mean()),
        **{name: mean(figure(maps, shown.masks)) for name, figure in figures.items()},
    )  # fmt: skip
    return regions, {name: float(figure(middle, shown.masks).mean()) for name, figure in figures.items()}


def energy_in_regions(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """float64 (N,), 0..1: the share of each map's sum inside its mask; 0 for a map that is all 0.

    maps: (N, H, W), not negative. masks: bool (N, H, W).
    """
    inside, total = (maps * masks).sum((1, 2), dtype=np.float64), maps.sum((1, 2), dtype=np.float64)
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


def points_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """bool (N,): whether each map's maximum lies inside its mask; false for a map that is all 0.

    Of several maxima it is the one nearest the middle of the picture: a map is even beyond its outermost cells, where
    that is the centre of the cell.
    """
    flat = maps.reshape(len(maps), -1)
    peaks = flat.max(1)
    away = -blob(maps.shape[1:]).reshape(-1)
    places = np.where(flat >= peaks[:, None] - TIED, away, np.inf).argmin(1)[:, None]
    return np.take_along_axis(masks.reshape(flat.shape), places, 1)[:, 0] & (peaks > 0)


def deletion(model: Model, images: np.ndarray, order: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Area under the probability of a class while its picture is greyed, greatest `order` first: low is faithful.

    images: uint8 (N, H, W) or (N, H, W, 3). order: (N, H, W). classes: (N,), places in model.emotions. Pixels become
    the picture's mean colour. Returns float64 (N,), 0..1.
    Source: Petsiuk, Das & Saenko, RISE: Randomized Input Sampling for Explanation, BMVC 2018, section 4.1.
    """
    greyed = np.broadcast_to(images.mean((1, 2), keepdims=True).round().astype(np.uint8), images.shape)
    return _area(model, images, greyed, order, classes)


def insertion(model: Model, images: np.ndarray, order: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """As `deletion`, while the pixels of the picture come back onto a blurred copy of it: high is faithful."""
    blur = ImageFilter.GaussianBlur(images.shape[1] / 10)
    blurred = np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in images])
    return _area(model, blurred, images, order, classes)


def _area(model: Model, start: np.ndarray, end: np.ndarray, order: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mean probability of each picture's class on the way from `start` to `end`, by the trapezoid rule."""
    flat = order.reshape(len(order), -1)
    ranks = (-flat).argsort(1, kind="stable").argsort(1).reshape(order.shape)
    if start.ndim == 4:
        ranks = ranks[..., None]
    curve = []
    for step in range(STEPS + 1):
        mixed = np.where(ranks < round(flat.shape[1] * step / STEPS), end, start)
        curve.append(softmax(logits(model, mixed))[np.arange(len(classes)), classes])
    return np.trapezoid(curve, dx=1 / STEPS, axis=0)


def resized(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 maps (N, S, S) at another size (H, W), bilinear."""
    if maps.shape[1:] == tuple(size):
        return maps
    smaller = maps.shape[1] > size[0]
    larger = F.interpolate(torch.from_numpy(maps)[:, None], size, mode="bilinear", antialias=smaller)
    return larger[:, 0].numpy()


def blob(size: tuple[int, int]) -> np.ndarray:
    """float32 (H, W): a Gaussian of the standard deviation BLOB in the middle, 1 at most."""
    rows, columns = (((np.arange(side) + 0.5) / side - 0.5) / BLOB for side in size)
    return np.exp(-(rows[:, None] ** 2 + columns**2) / 2).astype(np.float32)


def random_maps(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """float32 (count, H, W), 0..1: GRID x GRID random values each, enlarged as a CAM is."""
    coarse = np.random.default_rng(seed).random((count, GRID, GRID), dtype=np.float32)
    return resized(coarse, size)
