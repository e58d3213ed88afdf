"""FER2013 from the Hub, whole, broken and unreachable, on tiny copies; copies on disk are in test_fer2013_copies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fer_bench.datasets import fer2013_copies, load_dataset
from fer_bench.errors import DataError
from tests.datasets.fer2013_tiny import ALPHABETIC, CLASSES, LABELS, SPLITS, encode, expected

pytestmark = pytest.mark.usefixtures("tiny_fer2013")


def hub_table(split: str, order: tuple[str, ...], broken: int | None = None) -> object:
    """The Hub's copy, in memory."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(order))})
    rows = SPLITS[split]
    images = [{"bytes": b"hello" if row == broken else encode(row), "path": None} for row in rows]
    labels = [order.index(CLASSES[LABELS[row]]) for row in rows]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


@pytest.mark.parametrize("order", [CLASSES, ALPHABETIC])
def test_the_hub_copy(order: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a copy here, the Hub's three splits are used, with the labels that its class names state."""
    import datasets

    asked: list[tuple[str, str]] = []

    def load(repo: str, split: str) -> object:
        asked.append((repo, split))
        ours = {name: key for key, name in fer2013_copies.HUB_SPLITS.items()}
        return hub_table(ours[split], order)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load)
    for split in SPLITS:
        assert load_dataset("fer2013", split).content_hash() == expected(split).content_hash()
    assert asked == [
        (fer2013_copies.HUB_REPO, "train"),
        (fer2013_copies.HUB_REPO, "publicTest"),
        (fer2013_copies.HUB_REPO, "privateTest"),
    ]


def test_a_broken_picture_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of the Hub's copy that cannot be read is skipped and named; the rest is loaded."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda repo, split: hub_table("train", CLASSES, broken=4))
    faces = load_dataset("fer2013", "train")
    assert len(faces) == 109
    assert faces.skipped[0].startswith(f"{fer2013_copies.HUB_REPO}, train row 4: ")


def test_the_hub_has_no_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FER+ cannot be had from the Hub's copy, and the text says what to get."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda repo, split: hub_table("test", CLASSES))
    with pytest.raises(DataError, match=f"{fer2013_copies.HUB_REPO} has no FER\\+ votes: put fer2013new.csv beside"):
        load_dataset("ferplus", "test")


def test_an_unreachable_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither a copy nor the Hub, the end comes within seconds, says what to put where, and leaves no trace."""
    import datasets

    monkeypatch.chdir(tmp_path)
    before, start = datasets.config.HF_HUB_OFFLINE, time.monotonic()
    with pytest.raises(DataError) as caught:
        load_dataset("fer2013", "test")
    assert time.monotonic() - start < 5
    assert str(caught.value).startswith("FER2013 is not here and could not be had from the Hub (")
    assert str(caught.value).endswith(f"); {fer2013_copies.WHERE}.")
    assert datasets.config.HF_HUB_OFFLINE is before
