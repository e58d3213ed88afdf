"""Corruptions do what they say, and what is measured under them is what the network answers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fer_bench import robustness
from fer_bench.beyond_accuracy import TRAINED_WITH, robustness_columns, robustness_tables
from fer_bench.cards import Augmentation, InputSpec
from fer_bench.datasets import FaceSet
from fer_bench.errors import UserError
from fer_bench.infer import Model
from fer_bench.methods import METHODS
from fer_bench.protocols import RECIPES, track_named
from fer_bench.robustness import CORRUPTIONS, SEVERITIES, SUITE, contact_sheet, corrupt, main, measure_robustness
from tests.helpers import picture


def faces(count: int = 6, side: int = 48) -> np.ndarray:
    """uint8 (count, side, side): soft shapes with a full range of greys, as in a photograph."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(7 * x + i) * np.cos(9 * y - i) + (np.hypot(x - 0.5, y - 0.5) < 0.3) for i in range(count)]
    return np.stack([((w - w.min()) / np.ptp(w) * 255).round().astype(np.uint8) for w in waves])


def off(spoiled: np.ndarray, images: np.ndarray) -> float:
    """Mean absolute change, in grey levels."""
    return float(np.abs(spoiled.astype(float) - images).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_higher_severities_change_more(name: str) -> None:
    """Every corruption changes pictures, the more the higher the severity, and never the array that it is given."""
    images = faces()
    before = images.copy()
    changes = [off(corrupt(images, name, severity), images) for severity in range(1, 6)]
    assert changes[0] > 0
    assert np.all(np.diff(changes) > 0)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_for_the_same_seed(name: str) -> None:
    """Shape and type are kept, grey or RGB, whatever the sides; a seed gives the same pictures; none give none."""
    for images in (faces(2), np.repeat(faces(2)[..., None], 3, 3), faces(2)[:, :40]):
        first = corrupt(images, name, 3, seed=1)
        assert (first.shape, first.dtype) == (images.shape, np.uint8)
        assert np.array_equal(first, corrupt(images, name, 3, seed=1))
    assert corrupt(images[:0], name, 3).shape == (0, 40, 48)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "motion_blur", "occlusion", "rotation"])
def test_another_seed_draws_other_numbers(name: str) -> None:
    """What is random differs between seeds and between the pictures of a batch."""
    images = np.repeat(faces(1), 6, 0)
    spoiled = corrupt(images, name, 5)
    assert not np.array_equal(spoiled, corrupt(images, name, 5, seed=1))
    assert len(np.unique(spoiled, axis=0)) > 1


@pytest.mark.parametrize("name", ["blur", "motion_blur", "contrast", "pixelate", "rotation"])
def test_an_even_picture_has_nothing_to_lose(name: str) -> None:
    """Where all pixels are equal, smearing, turning and flattening change nothing, at the border neither."""
    images = np.full((3, 48, 48), 97, np.uint8)
    assert np.array_equal(corrupt(images, name, 5), images)


def test_light_worked_by_hand() -> None:
    """Brightness adds and is cut at white, darkness multiplies, contrast keeps each picture's mean."""
    images = np.zeros((1, 4, 4), np.uint8)
    images[0, :2], images[0, 2:] = 200, 100
    assert corrupt(images, "brightness", 2)[0, :, 0].tolist() == [246, 246, 146, 146]  # + .18 x 255 = 45.9
    assert corrupt(images, "brightness", 5)[0, 0, 0] == 255
    assert corrupt(images, "darkness", 2)[0, :, 0].tolist() == [120, 120, 60, 60]  # x .6
    assert corrupt(images, "contrast", 5)[0, :, 0].tolist() == [162, 162, 138, 138]  # 150 +- 50 x .25, even


def test_noise_has_the_size_it_says() -> None:
    """On mid grey, Gaussian noise scatters by its level, and counting photons by the root of their number."""
    images = np.full((4, 48, 48), 128, np.uint8)
    assert corrupt(images, "gaussian_noise", 3).std() == pytest.approx(255 * 0.06, rel=0.05)
    expected = np.sqrt(128 / 255 * 120) * 255 / 120
    assert corrupt(images, "shot_noise", 3).std() == pytest.approx(expected, rel=0.05)


def test_shapes_worked_by_hand() -> None:
    """Few pixels are as many blocks, a box covers its share, a turned picture turned back is the picture again."""
    images = faces(1)
    for side in (48, 96):
        edges = np.diff(corrupt(faces(1, side), "pixelate", 3)[0].astype(int), axis=1).any(0)
        assert edges.sum() == 24  # between 25 columns of blocks
    covered = corrupt(np.zeros((4, 100, 100), np.uint8), "occlusion", 5)
    assert all((picture > 0).sum() in (0, 43 * 43) for picture in covered)
    assert (covered > 0).any()
    turned = corrupt(images, "rotation", 2)[0]
    both = (np.asarray(Image.fromarray(turned).rotate(angle, Image.Resampling.BILINEAR)) for angle in (12, -12))
    assert min(off(back[12:36, 12:36], images[0, 12:36, 12:36]) for back in both) < 4
    assert off(turned[12:36, 12:36], images[0, 12:36, 12:36]) > 10


@pytest.mark.parametrize("name", ["blur", "motion_blur"])
def test_a_face_is_as_blurred_at_any_side(name: str) -> None:
    """Pictures of 96 pixels, made smaller afterwards, look like those of 48."""
    large = np.stack([np.asarray(Image.fromarray(face).resize((96, 96), 2)) for face in faces(3)])
    spoiled = corrupt(large, name, 5)
    smaller = spoiled.reshape(3, 48, 2, 48, 2).mean((2, 4))
    small = corrupt(faces(3), name, 5)
    assert off(smaller, small) < 0.35 * off(small, faces(3))


def test_wrong_names_and_severities_are_refused() -> None:
    """An unknown corruption or severity is one sentence with the ones there are."""
    with pytest.raises(UserError, match="no corruption 'fog'; the names are: gaussian_noise"):
        corrupt(faces(1), "fog", 1)
    with pytest.raises(UserError, match=r"1\.\.5, not 6"):
        corrupt(faces(1), "blur", 6)


class Light(nn.Module):
    """Answers happiness for bright pictures, sadness for dark ones, by `bias` grey levels sooner."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias / 255))

    def forward(self, x: Tensor) -> Tensor:
        score = x.mean((1, 2, 3)) - 0.5 + self.bias
        return torch.stack([score, -score], 1)


def light(bias: float = 0.0) -> Model:
    spec = InputSpec(size=48, channels=1, mean=(0.0,), std=(1.0,))
    return Model("light", Light(bias).eval(), spec, ("happiness", "sadness"), {"track": "fer2013"})


def bright_and_dark(count: int = 20) -> FaceSet:
    """Even pictures, bright and dark in turn; neutral ones, which `light` does not know, stand last."""
    images = np.empty((count + 2, 48, 48), np.uint8)
    images[0::2], images[1::2] = 192, 40
    labels = np.arange(count + 2) % 2
    labels[-2:] = 2
    names = tuple(map(str, range(count + 2)))
    return FaceSet("lamps", "test", ("happiness", "sadness", "neutral"), images, labels, names)


def test_the_figures_are_what_the_network_answers() -> None:
    """Each cell is the accuracy on the corrupted sample, the mean is theirs, and the drop is relative to the clean."""
    model, data = light(), bright_and_dark()
    found = measure_robustness(model, data)
    assert (found.suite, found.pictures, found.seed) == (SUITE, 20, 0)
    assert (found.clean.value, found.clean.high) == (1, 1)
    assert found.clean.low == pytest.approx(1 / (1 + 1.959964**2 / 20))  # of 20 pictures: Wilson
    assert list(found.corruptions) == list(CORRUPTIONS)
    assert all(list(cells) == ["1", "3", "5"] for cells in found.corruptions.values())
    for name in ("blur", "gaussian_noise", "contrast", "jpeg", "rotation"):  # the mean stays on its side
        assert [cell.value for cell in found.corruptions[name].values()] == [1, 1, 1]
    assert [cell.value for cell in found.corruptions["brightness"].values()] == [1, 1, 0.5]  # 40 + 107 > 127
    assert [cell.value for cell in found.corruptions["darkness"].values()] == [1, 0.5, 0.5]  # 192 x .45 < 127
    cells = [cell.value for cells in found.corruptions.values() for cell in cells.values()]
    assert found.corrupted.value == pytest.approx(np.mean(cells))
    assert found.relative_drop.value == pytest.approx(1 - np.mean(cells))
    assert found.relative_drop.low < found.relative_drop.value < found.relative_drop.high


def test_a_sample_is_drawn_in_proportion_and_stated() -> None:
    """At most `pictures` are used, both emotions alike, and the loop over the cells can be watched."""
    watched = []
    found = measure_robustness(
        light(), bright_and_dark(40), pictures=8, severities=(5,), progress=lambda cells: watched.extend(cells) or cells
    )
    assert found.pictures == 8
    assert found.corruptions["darkness"]["5"].value == 0.5
    assert watched == [(name, 5) for name in CORRUPTIONS]


def test_methods_that_answer_always_or_never_right() -> None:
    """One that answers the same whatever it sees loses nothing; where no clean picture is right there is no drop."""
    same = measure_robustness(light(bias=1000), bright_and_dark(), severities=(3,))
    assert (same.clean.value, same.corrupted.value, same.relative_drop.value) == (0.5, 0.5, 0)
    assert (same.relative_drop.low, same.relative_drop.high) == pytest.approx((0, 0), abs=1e-12)
    dark = bright_and_dark()
    never = measure_robustness(light(bias=1000), dark.take(np.flatnonzero(dark.labels == 1)), severities=(3,))
    assert (never.clean.value, never.relative_drop) == (0, None)


def test_what_cannot_be_measured_is_said() -> None:
    """Without two shared emotions or without pictures there is nothing to measure."""
    with pytest.raises(UserError, match="share 1 emotion"):
        measure_robustness(light(), bright_and_dark().restrict(("happiness", "neutral")))
    with pytest.raises(UserError, match="lamps has no pictures in its test split"):
        measure_robustness(light(), bright_and_dark().take([]))


def test_a_contact_sheet_shows_every_corruption() -> None:
    """The first row is the pictures as they are, then one row per corruption and severity."""
    images = np.stack([picture(1, 1), picture(2, 2)])
    sheet = np.asarray(contact_sheet(images))
    assert sheet.shape == (48 * (1 + len(CORRUPTIONS) * len(SEVERITIES)), 96)
    assert np.array_equal(sheet[:48, 48:], images[1])
    assert np.array_equal(sheet[48:96, :48], corrupt(images, "gaussian_noise", 1)[0])


def test_the_command_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row per corruption, a column per severity, and the summary; the sheet is written where it is asked for."""
    monkeypatch.setattr(robustness, "load", lambda *_: light())
    monkeypatch.setattr(robustness, "load_dataset", lambda *_: bright_and_dark().restrict(("happiness", "sadness")))
    monkeypatch.setattr(robustness, "track_named", lambda name: replace(track_named(name), emotions=()))
    assert main(["--track", "rendered", "--pictures", "10", "--sheet", str(tmp_path / "sheet.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (7 * 48, 48 * 34)
    assert lines[1] == "light on rendered, 10 pictures:"
    assert lines[2].split() == ["severity", "1", "severity", "3", "severity", "5"]
    assert lines[8].startswith("Darkness")
    assert "100.0 [72.2, 100.0]" in lines[8]
    assert [line.split()[0] for line in lines[-3:]] == ["clean", "corrupted", "relative"]


@pytest.mark.parametrize(("given", "recipe"), [([], None), (["--recipe", "light-v1"], "light-v1")])
def test_the_weights_are_those_of_the_methods_own_recipe(
    given: list[str], recipe: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --recipe each method's card names it, as everywhere; "common-v1" would miss reference_tiny's weights."""
    asked: list[str | None] = []

    def load(_name: str, _track: str, recipe: str | None, *_: object) -> Model:
        asked.append(recipe)
        raise UserError("enough")

    monkeypatch.setattr(robustness, "load", load)
    assert main(["--method", "reference_tiny", *given]) == 2
    assert asked == [recipe]


def test_the_weights_of_ones_own_runs_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """--runs reaches `load`, with seed and track."""
    asked = []

    def load(*given: object) -> Model:
        asked.append(given)
        raise UserError("enough")

    monkeypatch.setattr(robustness, "load", load)
    chosen = ["--track", "folder:mine", "--seed", "3", "--device", "cpu", "--runs", "runs"]
    assert main(["--method", "small_cnn", *chosen]) == 2
    assert asked == [("small_cnn", "folder:mine", None, 3, "cpu", Path("runs"))]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "smal_cnn"], "Did you mean 'small_cnn'"),
        (["--track", "rendred"], "Did you mean 'rendered'"),
        (["--pictures", "0"], "--pictures must be at least 1"),
        (["--method", "vgg16"], "there are no weights of vgg16"),
    ],
)
def test_wrong_use_is_one_sentence(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong names, numbers and missing weights end with exit code 2 and a sentence."""
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "code", "says"),
    [
        ("file/sheet.png", 1, r"error: file/sheet\.png cannot be written: \S+/file is a file, not a folder\."),
        ("folder", 2, r"error: folder: this is a folder; give a file to --sheet\."),
    ],
)
def test_a_sheet_that_cannot_be_written(
    place: str, code: int, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Below a file it is exit code 1, as with predict, and a folder for a file is wrong use; nothing is measured."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(robustness, "load", lambda *_: light())
    monkeypatch.setattr(robustness, "load_dataset", lambda *_: bright_and_dark())
    monkeypatch.setattr(robustness, "measure_robustness", lambda *_, **__: pytest.fail("it was measured"))
    monkeypatch.setattr(robustness, "track_named", lambda name: replace(track_named(name), emotions=()))
    assert main(["--sheet", place]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(says, line)


def test_the_table_says_what_the_recipes_train_with() -> None:
    """Every recipe turns and lights pictures, more mildly than severity 5; exactly the named ones lay grey boxes."""
    augmentations = {name: RECIPES[name].augmentation for name in RECIPES}
    for a in augmentations.values():
        assert 0 < a.rotate < CORRUPTIONS["rotation"].levels[-1]
        assert 0 < a.brightness < CORRUPTIONS["brightness"].levels[-1]
        assert 0 < a.contrast < 1 - CORRUPTIONS["contrast"].levels[-1]
    boxes = {name for name, a in augmentations.items() if a.erase}
    assert boxes == {"common-v1", "distilled-v1", "strong-v1", "votes-v1"}
    papers = [METHODS[name].card.paper_recipe for name in METHODS]
    assert any(recipe is not None and recipe.augmentation == Augmentation(flip=False) for recipe in papers)
    for text in (TRAINED_WITH, robustness.__doc__):
        told = " ".join(text.split())
        assert "common-v1, distilled-v1, light-v1, strong-v1 and votes-v1" in told
        named = "common-v1, distilled-v1, strong-v1 and votes-v1"
        assert re.search(rf"{named} lay grey boxes|grey boxes, .* in {named}\.", told)
        assert re.search(r"paper's own recipe may do none of it", told)
        assert {name for name in augmentations if name in told} == set(augmentations)
        assert "never trained on" not in text.replace("Theirs are never trained on", "")
    found = measure_robustness(light(), bright_and_dark(), severities=(1,))
    frame = pd.DataFrame([{"method": "a", "recipe": "common-v1", "seed": 0, **robustness_columns(found)}])
    (about, _table) = robustness_tables(frame)
    assert TRAINED_WITH in about
