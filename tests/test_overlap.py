"""One's own pictures that are among those that a model was made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fer_bench import judged
from fer_bench.datasets import FaceSet, load_dataset
from fer_bench.datasets.base import tell
from fer_bench.errors import DataError
from fer_bench.evaluate import evaluate
from fer_bench.infer import load
from fer_bench.judged import overlapping
from fer_bench.results import read_results


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four pictures, of which fer2013's training split, as it is here, has one and its validation one."""
    tell.cache_clear()
    judged._seen.cache_clear()
    drawn = load_dataset("rendered", "test").limit(14)
    known = {"train": drawn.take([0, 1]), "validation": drawn.take([2, 3])}
    for row, emotion in ((0, "anger"), (2, "anger"), (8, "fear"), (9, "fear")):
        (tmp_path / "own" / emotion).mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.images[row]).save(tmp_path / "own" / emotion / f"{row}.png")

    def pictures(name: str, split: str) -> FaceSet:
        return known[split] if name == "fer2013" else load_dataset(name, split)

    monkeypatch.setattr(judged, "load_dataset", pictures)
    return tmp_path / "own"


def test_pictures_that_the_weights_were_made_from_are_told_of(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error and in the record; the figure is over all pictures all the same."""
    written, skipped = evaluate(["reference_tiny"], [f"folder:{own}"], tmp_path / "out")
    assert (written, skipped) == (1, [])
    told = "2 of the 4 pictures are among those that weights of fer2013 were trained or selected on"
    assert f"folder:{own} (test): {told}\n" in capsys.readouterr().err
    (result,) = read_results(tmp_path / "out")
    assert told in result.data.notes
    assert result.data.test_pictures == 4


def test_without_the_data_it_is_not_known(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note says so; a set without overlap has none."""
    model = load("reference_tiny")
    faces = load_dataset(f"folder:{own}")
    assert overlapping(faces.take([2, 3]), model).notes == ()

    def absent(_name: str, _split: str) -> FaceSet:
        raise DataError("not here")

    judged._seen.cache_clear()
    monkeypatch.setattr(judged, "load_dataset", absent)
    assert "is not known, as its pictures are not here" in overlapping(faces, model).notes[-1]


def test_data_sets_are_left_as_they_are(own: Path) -> None:
    """Their splits are kept apart, and looked at, elsewhere."""
    faces = load_dataset("rendered", "test").limit(7)
    assert overlapping(faces, load("reference_tiny")) is faces
