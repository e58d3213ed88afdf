"""From a data set that knows its people to the board: intervals over people, and words that say so."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fer_bench import costs, evaluate, judged, leaderboard
from fer_bench.comparison import compare
from fer_bench.datasets.rendered import draw_split
from fer_bench.faithfulness import measure_faithfulness
from fer_bench.infer import load
from fer_bench.results import measure, read_logits, read_result
from fer_bench.robustness import measure_robustness
from fer_bench.statistics import bootstrap_interval
from tests.test_leaderboard import made


def test_an_evaluation_draws_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record's intervals are over the people of the data set, and its logits say who is who."""
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))
    few = replace(draw_split("test", 42), subjects=np.arange(42) // 7)
    for module in (evaluate, judged):
        monkeypatch.setattr(module, "load_dataset", lambda *_: few)
    assert evaluate.evaluate(["reference_tiny"], ["rendered"], tmp_path) == (1, [])
    (path,) = (tmp_path / "results").glob("rendered/reference_tiny/*.json")
    result, stored = read_result(path), read_logits(path)
    assert result.subjects == 6
    assert stored.subjects.tolist() == few.subjects.tolist()
    expected = bootstrap_interval(stored.targets, stored.logits, subjects=stored.subjects)
    assert result.metrics["accuracy"] == expected != bootstrap_interval(stored.targets, stored.logits)


def test_robustness_and_explanation_draw_people_too() -> None:
    """Where people are known their intervals are others than over pictures; one person alone is no sample of people."""
    model = load("reference_tiny", "fer2013")
    few = draw_split("test", 28)
    six, alone = replace(few, subjects=np.arange(28) // 5), replace(few, subjects=np.zeros(28, int))
    found = [measure_robustness(model, faces, severities=(3,)) for faces in (few, alone, six)]
    assert found[0] == found[1]
    assert found[0].clean.value == found[2].clean.value
    assert found[0].clean != found[2].clean
    assert found[0].relative_drop != found[2].relative_drop
    told = [measure_faithfulness(model, faces) for faces in (few, alone, six)]
    assert told[0] == told[1]
    assert told[0].insertion_gain.value == told[2].insertion_gain.value
    assert told[0].insertion_gain != told[2].insertion_gain
    assert told[0].regions.energy != told[2].regions.energy


def test_intervals_over_pictures_are_not_kept_beside_those_over_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged again once people are known, a row loses its robustness until it is measured anew; else it keeps it."""
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))
    monkeypatch.setattr(evaluate, "measure_robustness", partial(measure_robustness, severities=(3,)))
    few = draw_split("test", 28)
    left = []
    for faces, asked in ((few, True), (few, False), (replace(few, subjects=np.arange(28) // 7), False)):
        for module in (evaluate, judged):
            monkeypatch.setattr(module, "load_dataset", lambda *_, faces=faces: faces)
        evaluate.evaluate(["reference_tiny"], ["rendered"], tmp_path, robustness=asked)
        (path,) = (tmp_path / "results").glob("rendered/reference_tiny/*.json")
        left.append(read_result(path).robustness)
    assert left[0] == left[1] is not None
    assert left[2] is None


def test_one_person_alone_is_no_sample_of_people() -> None:
    """Their pictures are then all there is to draw from, as where it is not known whom they show."""
    targets, rng = np.arange(20) % 2, np.random.default_rng(0)
    logits, others = rng.normal(size=(2, 20, 2))
    alone = np.full(20, "S1")
    assert measure(targets, logits, ("anger", "fear"), subjects=alone) == measure(targets, logits, ("anger", "fear"))
    found, plain = (compare(targets, logits, others, ("anger", "fear"), subjects=who) for who in (alone, None))
    assert (found.difference, found.p_value, found.test) == (plain.difference, plain.p_value, "McNemar")


def test_the_board_says_where_intervals_are_over_people() -> None:
    """The text on reading the table names the tracks; a track whose records know their people has a note of its own."""
    said = "over people where it is known whom the pictures show (CK+, MMI, DISFA, TFEID, a CSV with subjects)"
    assert said in leaderboard.HOW_TO_READ
    note = "- ± is over the 24 people, not their pictures."
    assert note in leaderboard.markdown([made("a", track="ckplus", subjects=24)])
    assert "people, not their pictures" not in leaderboard.markdown([made("a", track="ckplus")])
