"""The board that is committed is the one that its results and the methods' cards give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fer_bench import evaluate, leaderboard
from fer_bench.card_files import OURS, read_cards
from fer_bench.results import read_results
from fer_bench.withdrawn import withdrawn_list

BOARD = Path(__file__).resolve().parents[1] / "leaderboard"


def test_the_table_is_that_of_the_results() -> None:
    """Whoever adds or takes away a result, or changes how it is told, makes the table anew."""
    text = leaderboard.markdown(read_results(BOARD), read_cards(BOARD), end=withdrawn_list(BOARD))
    assert (BOARD / "LEADERBOARD.md").read_text() == text, "run python -m fer_bench.leaderboard --readme README.md"


def test_most_maps_do_not_beat_a_blob_in_the_middle_by_their_intervals() -> None:
    """As README says of Grad-CAM's, for deletion and for insertion."""
    said = " ".join((BOARD.parent / "README.md").read_text().split())
    assert "a blob in the middle of every picture does, which most maps do not beat by their intervals" in said
    found = [r.explanation.centre for r in read_results(BOARD) if r.explanation is not None]
    assert len(found) > 30
    for gain in ("deletion_gain", "insertion_gain"):
        assert sum(getattr(centre, gain).low > 0 for centre in found) < len(found) / 2, gain


def test_each_reason_is_of_weights_that_stand() -> None:
    """Why a row differs from its paper was found of its weights: with others on the board it is to be found again."""
    stand = {(r.method, r.track, r.weights.sha256[:12]) for r in read_results(BOARD)}
    given = [
        (name, stated["track"], why["weights"])
        for name, card in read_cards(BOARD, OURS).items()
        for stated in card["reported"]
        for why in stated["why"]
        if why["weights"]
    ]
    assert given
    assert [one for one in given if one not in stand] == []


def test_the_cards_are_those_of_the_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the table says of a method is what its card says today, and the weights that it names are there."""
    monkeypatch.setattr(evaluate, "write_leaderboard", lambda _: [])
    assert evaluate.write_table(tmp_path) == 0
    fresh, kept = (json.loads((root / "methods.json").read_text()) for root in (tmp_path, BOARD))
    assert kept == fresh, "run python -m fer_bench.evaluate --method deep_emotion --track rendered"
