"""How faithful maps are, on a network for which the right answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fer_bench import faithfulness
from fer_bench.datasets import FaceSet
from fer_bench.errors import UserError
from fer_bench.explain import Explanation, explain
from fer_bench.faithfulness import (
    STEPS,
    blob,
    deletion,
    energy_in_regions,
    insertion,
    measure_faithfulness,
    points_inside,
    random_maps,
)
from fer_bench.infer import Model, logits
from fer_bench.statistics import Interval
from tests.test_explain import SCALE, SIDE, lit, quadrants_model

quadrants = pytest.fixture(quadrants_model)


def striped(count: int = 1) -> np.ndarray:
    """uint8 (count, SIDE, SIDE): white and black columns in the upper left quadrant, which blur turns grey."""
    images = lit(0, 0, count)
    images[:, :, ::2] = 0
    return images


def upper_left(count: int) -> np.ndarray:
    """bool (count, SIDE, SIDE)."""
    return lit(0, 0, count) > 0


def test_energy_and_pointing_worked_by_hand() -> None:
    """A quarter of the mass inside gives .25; the maximum decides the pointing game; an empty map counts as outside."""
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0] = [[0.25, 0.75], [0, 0]]
    maps[1] = [[1, 0], [0, 0]]
    masks = np.zeros((3, 2, 2), bool)
    masks[:, 0, 0] = True
    assert energy_in_regions(maps, masks).tolist() == [0.25, 1, 0]
    assert points_inside(maps, masks).tolist() == [False, True, False]


def test_of_several_maxima_the_one_nearest_the_middle_points() -> None:
    """A map is even beyond its outermost cells: a peak there lies where the cell is, and not at the picture's edge."""
    maps, masks = np.zeros((4, 8, 8), np.float32), np.zeros((4, 8, 8), bool)
    maps[0, :3, 3:5] = maps[1, 5:, 3:5] = maps[2, 3:5, :3] = maps[3, 3:5, 5:] = 1
    masks[0, 2, 3:5] = masks[1, 5, 3:5] = masks[2, 3:5, 2] = masks[3, 3:5, 5] = True
    assert points_inside(maps, masks).all()
    assert not points_inside(maps, ~masks).any()


def test_the_blob_in_the_middle_is_symmetric() -> None:
    """A Gaussian of a quarter of the side: 1 in the middle, e^-2 at the middle of an edge."""
    found = blob((9, 5))
    assert found.shape == (9, 5)
    assert (found == found[::-1]).all()
    assert (found == found[:, ::-1]).all()
    assert found[4, 2] == 1
    assert found[4, 0] == pytest.approx(np.exp(-((0.4 / 0.25) ** 2) / 2))


def test_deletion_worked_by_hand(quadrants: Model) -> None:
    """Greying the white quadrant first follows the logistic curve that the network's weights say, and no other."""
    images, order = lit(0, 0), lit(0, 0) / 255.0
    mean = 64 / 255  # a quarter of 255, rounded
    done = np.round(np.arange(STEPS + 1) / STEPS * SIDE * SIDE)
    left = 1 - np.clip(done, 0, 64) / 64 * (1 - mean**4)
    right = np.clip(done - 64, 0, 64) / 64 * mean**4  # where the order is flat, rows from the top
    expected = np.trapezoid(1 / (1 + np.exp(-SCALE * (left - right))), dx=1 / STEPS)
    assert deletion(quadrants, images, order, np.array([0]))[0] == pytest.approx(expected, abs=1e-6)
    assert deletion(quadrants, images, -order, np.array([0]))[0] > expected + 0.2


def test_insertion_rewards_the_pixels_that_are_read(quadrants: Model) -> None:
    """Bringing the striped quadrant back first raises the score sooner than last; RGB pictures give the same."""
    images, order = striped(), lit(0, 0) / 255.0
    first, last = (insertion(quadrants, images, way, np.array([0]))[0] for way in (order, -order))
    assert first > last + 0.1
    colour = np.repeat(images[..., None], 3, 3)
    assert insertion(quadrants, colour, order, np.array([0]))[0] == pytest.approx(first, abs=1e-3)


def known(count: int = 6) -> FaceSet:
    """Anger is stripes in the upper left quadrant, over a dark noise; the last picture is neutral and has no mask."""
    noise = np.random.default_rng(0).integers(0, 40, (count, SIDE, SIDE), dtype=np.uint8)
    images, masks = np.maximum(noise, striped(count)), upper_left(count)
    masks[-1] = False
    labels = np.array([0] * (count - 1) + [1])
    return FaceSet("known", "test", ("anger", "neutral"), images, labels, tuple(map(str, range(count))), masks=masks)


def exact(
    model: Model, images: np.ndarray, _cam: str = "gradcam", target: list[str] | None = None, **_: object
) -> Explanation:
    """What Grad-CAM gives for `quadrants`, without importing it: the quadrant of the emotion, as bright as its map."""
    answers = logits(model, images)
    chosen = answers.argmax(1) if target is None else np.array([model.emotions.index(name) for name in target])
    maps = (images / np.float32(255)) ** 4 * np.concatenate([lit(0, 0), lit(0, 1)])[chosen]
    return Explanation(maps / maps.max((1, 2), keepdims=True), answers, tuple(model.emotions[i] for i in chosen))


def misleading(*arguments: object, **_: object) -> Explanation:
    """The same, pointing at the opposite quadrant."""
    found = exact(*arguments)
    return replace(found, maps=found.maps[:, ::-1, ::-1].copy())


@pytest.mark.parametrize("maps", [exact, pytest.param(explain, marks=pytest.mark.slow)])
def test_a_faithful_map_beats_chance_everywhere(
    quadrants: Model, monkeypatch: pytest.MonkeyPatch, maps: Callable[..., Explanation]
) -> None:
    """Where the truth is known, all mass and every maximum lie inside, and deletion and insertion beat random."""
    monkeypatch.setattr(faithfulness, "explain", maps)
    found = measure_faithfulness(quadrants, known())
    assert (found.cam, found.pictures, found.empty_maps) == ("gradcam", 6, 0)
    assert found.deletion_gain.low > 0.1
    assert found.insertion_gain.value > 0.02
    assert found.deletion_gain.value == pytest.approx(found.deletion_random - found.deletion)
    assert found.insertion_gain.value == pytest.approx(found.insertion - found.insertion_random)
    assert found.regions.pictures == 5  # the model tells no neutral, which has no region either
    assert found.regions.energy.low == pytest.approx(1, abs=1e-6)
    assert found.regions.area == 0.25
    centre = found.centre
    assert centre.deletion_gain.value == pytest.approx(centre.deletion - found.deletion)
    assert centre.insertion_gain.value == pytest.approx(found.insertion - centre.insertion)
    assert centre.deletion_gain.low > 0.1  # what counts lies in one quadrant, not in the middle
    assert (centre.energy, centre.pointing_game) == (pytest.approx(0.25), pytest.approx(1))
    assert found.regions.empty_maps == 0
    assert found.regions.pointing_game == Interval(1, pytest.approx(1 / (1 + 1.959964**2 / 5)), 1)  # of five: Wilson's


def test_a_misleading_map_is_found_out(quadrants: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that points at the wrong quadrant has no mass inside, and deleting by it spares the score."""
    monkeypatch.setattr(faithfulness, "explain", misleading)
    found = measure_faithfulness(quadrants, known())
    assert found.regions.energy.value == found.regions.pointing_game.value == 0
    assert found.centre.insertion_gain.value < 0
    assert found.deletion_gain.value < -0.03
    assert found.insertion_gain.value < -0.02


def test_photographs_have_no_known_regions_and_the_sample_is_bounded(
    quadrants: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without masks only deletion and insertion are given; at most so many pictures are used; none is refused."""
    monkeypatch.setattr(faithfulness, "explain", exact)
    found = measure_faithfulness(quadrants, replace(known(), masks=None), pictures=3, seed=4)
    assert found.regions is None
    assert (found.pictures, found.seed) == (3, 4)
    assert found == measure_faithfulness(quadrants, replace(known(), masks=None), pictures=3, seed=4)
    none = replace(known(), masks=np.zeros((6, SIDE, SIDE), bool))
    assert measure_faithfulness(quadrants, none, pictures=2).regions is None
    with pytest.raises(UserError, match="known has no pictures in its test split"):
        measure_faithfulness(quadrants, known().take([]))


def test_random_maps_are_as_coarse_as_cams() -> None:
    """They depend on the seed alone, fill 0..1 and are smooth: neighbours differ far less than far points."""
    maps = random_maps(4, (48, 48), 1)
    assert np.array_equal(maps, random_maps(4, (48, 48), 1))
    assert not np.array_equal(maps, random_maps(4, (48, 48), 2))
    assert 0 <= maps.min() < 0.2 < 0.8 < maps.max() <= 1
    assert np.abs(np.diff(maps, axis=2)).mean() < 0.2 * np.abs(maps[:, :, :24] - maps[:, :, 24:]).mean()
