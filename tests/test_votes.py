"""Raters' votes as the target: how they are spread, what becomes of them in the loss, who has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fer_bench.cards import Recipe
from fer_bench.datasets import FaceSet, fer2013, load_dataset
from fer_bench.emotions import EIGHT, SEVEN
from fer_bench.errors import UserError
from fer_bench.methods import METHODS
from fer_bench.options import Options
from fer_bench.protocols import RECIPES, track_named
from fer_bench.teachers import Teachers, teachers_of
from fer_bench.train import Run
from fer_bench.weights import read_tensors
from tests.helpers import write_folder
from tests.test_start import track_of

VOTED = Recipe(name="voted", epochs=2, batch_size=8, lr=1e-3, votes=1.0)


@pytest.mark.parametrize(
    ("votes", "shares"),
    [
        # neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
        ([0, 10, 0, 0, 0, 0, 0, 0, 0, 0], {"happiness": 1.0}),
        ([1, 4, 1, 1, 1, 1, 1, 0, 0, 0], {"happiness": 1.0}),  # single votes are dropped
        ([2, 6, 0, 0, 0, 0, 0, 0, 2, 0], {"neutral": 0.25, "happiness": 0.75}),  # unknown is no emotion
        ([0, 0, 2, 0, 0, 0, 3, 5, 0, 0], {"surprise": 0.2, "fear": 0.3, "contempt": 0.5}),
    ],
)
def test_how_votes_are_spread_by_hand(votes: list[int], shares: dict[str, float]) -> None:
    """Over the emotions alone, in the canonical order."""
    (found,) = fer2013.spread_of(np.array([votes]))
    assert found.dtype == np.float32
    assert dict(zip(EIGHT, found.tolist(), strict=True)) == pytest.approx(dict.fromkeys(EIGHT, 0.0) | shares)


def test_votes_go_with_their_pictures() -> None:
    """Chosen pictures keep theirs; where emotions are left out there are none; another number of them is refused."""
    images, labels = np.zeros((3, 4, 4), np.uint8), np.array([0, 1, 1])
    votes = np.array([[0.8, 0.2], [0.3, 0.7], [0.0, 1.0]], np.float32)
    faces = FaceSet("a", "train", ("anger", "fear"), images, labels, ("x", "y", "z"), votes=votes)
    assert faces.take([2, 0]).votes.tolist() == votes[[2, 0]].tolist()
    assert faces.restrict(("anger", "fear")).votes is votes
    assert faces.restrict(("fear",)).votes is None
    assert faces.content_hash() == replace(faces, votes=None).content_hash()
    with pytest.raises(ValueError, match="votes must be an array of 3 x 2"):
        replace(faces, votes=votes[:, :1])


def test_with_votes_alone_no_label_counts(tmp_path: Path) -> None:
    """The loss is the cross-entropy against them, in their share, and the rest is against the label."""
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(4, 3, generator=generator), torch.tensor([0, 2, 1, 1])
    votes, rows = torch.rand(9, 3, generator=generator).softmax(1), torch.tensor([7, 0, 3, 3])
    against = -(votes[rows] * scores.log_softmax(1)).sum(1).mean()
    for share in (1.0, 0.25):
        raters = Teachers((), 0.0, votes, share)
        raters.ask(None, None, "", tmp_path, None)
        for labels in (targets, targets.flip(0)):
            expected = share * against + (1 - share) * cross_entropy(scores, labels)
            assert torch.isclose(raters.criterion(cross_entropy, rows)(scores, labels), expected)


def test_networks_and_votes_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run is trained against holds both, in the proportion of their shares."""
    folder = write_folder(tmp_path / "seven")
    options = Options(device="cpu", epochs=1)
    Run(METHODS["deep_emotion"], track_of(folder), RECIPES["common-v1"], options, tmp_path / "runs").fit()
    with_votes(monkeypatch)
    recipe = replace(VOTED, name="both", teachers=("deep_emotion",), teaching=0.6, votes=0.2)
    run = Run(METHODS["reference_tiny"], track_of(folder), recipe, options, tmp_path / "runs")
    run.fit()
    (file,) = tmp_path.glob("runs/*/teachers-*.safetensors")
    answers, votes = read_tensors(file)[0]["answers"], torch.from_numpy(run.train_set.votes)
    assert torch.allclose(run.teachers.answers, 0.75 * answers + 0.25 * votes)
    assert run.teachers.share == pytest.approx(0.8)


def with_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run from now on gets training pictures with votes: half for the label, half for the emotion after it."""
    from fer_bench import train

    def voted(*given: object) -> tuple[FaceSet, FaceSet]:
        pictures, validation = original(*given)
        share = np.eye(len(pictures.emotions), dtype=np.float32)[pictures.labels]
        return replace(pictures, votes=(share + np.roll(share, 1, axis=1)) / 2), validation

    original = train.splits_of
    monkeypatch.setattr(train, "splits_of", voted)


def test_a_network_learns_how_raters_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss falls towards the entropy of what they said, and never below it, as it would on labels alone."""
    with_votes(monkeypatch)
    recipe = replace(VOTED, epochs=12, lr=0.02)
    folder = write_folder(tmp_path / "seven")
    run = Run(METHODS["reference_tiny"], track_of(folder), recipe, Options(device="cpu"), tmp_path / "runs")
    run.fit()
    losses = [loss for _, loss, _ in run.state["curve"]]
    assert losses[-1] < losses[0]
    assert losses[-1] > np.log(2) - 0.02  # the entropy of what they said, below which nothing can come


def test_votes_alone_ask_for_no_label(tmp_path: Path) -> None:
    """A data set without votes and one streamed from disk are one sentence, before anything is written."""
    with pytest.raises(UserError, match="voted learns from how raters voted on each picture, which folder:.* does not"):
        Run(METHODS["reference_tiny"], track_of(write_folder(tmp_path / "a")), VOTED, Options(device="cpu"), tmp_path)
    with pytest.raises(UserError, match="raters' votes, which are kept for pictures in memory only; give --no-stream"):
        teachers_of(VOTED, track_named("ferplus"), None, object(), torch.device("cpu"), tmp_path)
    assert not [*tmp_path.glob("*/reference_tiny")]


def test_a_recipe_without_votes_is_what_it_was() -> None:
    """Its hash and its checkpoints do not know of them; shares are no more than the whole."""
    assert "votes" not in RECIPES["common-v1"].values()
    assert RECIPES["distilled-v1"].hash() == "66f88f443357"
    assert VOTED.hash() != replace(VOTED, votes=0.5).hash()
    assert replace(VOTED, votes=0.2, teachers=("a",), teaching=0.8).votes == 0.2  # 1 together, as floats have it
    for wrong in ({"votes": -0.1}, {"votes": 1.1}, {"votes": 0.5, "teachers": ("a",), "teaching": 0.6}):
        with pytest.raises(ValueError, match="votes must lie in"):
            replace(VOTED, **wrong)


def test_real_votes_agree_with_the_labels(fer2013_root: Path) -> None:
    """FER+'s label of each training picture has more than half of its votes, 88 % on average; FER2013 has none."""
    faces = load_dataset("ferplus", "train", fer2013_root)
    own = faces.votes[np.arange(len(faces)), faces.labels]
    assert own.min() > 0.5
    assert own.mean() == pytest.approx(0.878, abs=0.001)
    assert np.allclose(faces.votes.sum(1), 1)
    assert load_dataset("fer2013", "train", fer2013_root).votes is None
    assert faces.emotions == EIGHT != SEVEN
