"""What the board shows of single emotions and of time, beside accuracy."""

from __future__ import annotations

from dataclasses import replace

from fer_bench import leaderboard as lb
from fer_bench import results as r
from fer_bench.statistics import Interval
from fer_bench.ui.board_rows import cells
from tests.test_leaderboard import made


def test_the_best_of_each_emotion_is_the_one_with_the_greatest_f1():
    """Answering one emotion always has all its recall, and not its F1; a row alone is compared with nothing."""
    fair = made("fair", hits=80)
    always = replace(
        made("always", hits=50), confusion_matrix=[[50, 0], [50, 0]],
        per_class_recall={"anger": Interval(1.0, 0.96, 1.0), "happiness": Interval(0.0, 0.0, 0.04)},
    )  # fmt: skip
    text = lb.markdown([fair, always])
    assert "| Method | Anger (50) | Happiness (50) |" in text
    assert "| `fair` (common-v1) | **80.0** (80.0 ± 50.0) | **80.0** (80.0 ± 50.0) |" in text
    assert "| `always` (common-v1) | 66.7 (100.0 ± 2.0) | 0.0 (0.0 ± 2.0) |" in text
    assert "**Per emotion**" not in lb.markdown([fair])


def test_a_latency_can_be_turned_into_milliseconds():
    """The reference's own time stands under the table, as the median over the runs; without it nothing is said."""
    rows = [
        made(name, cost=r.Cost(parameters=1, macs=1, latency_ms=own, latency_ratio=ratio))
        for name, own, ratio in (("a", 4.0, 0.1), ("b", 80.0, 2.0), ("c", 30.0, 0.2))
    ]
    told = "- resnet18 took 40 ms a face where latency was measured (median over the rows): 0.10 is 4.0 ms there."
    assert told in lb.markdown(rows).splitlines()
    assert "ms a face" not in lb.markdown([made("a")])


def test_the_page_sorts_by_an_emotions_f1():
    """A column for each emotion, behind all others, sorted by F1 and showing the recall as well."""
    found = cells(lb.table([made("a", hits=80)], None, "fer2013").assign(name="a"))
    assert found.headers[-2:] == ["Anger, F1 %", "Happiness, F1 %"]
    assert found.values[0][-2:] == [80.0, 80.0]
    assert found.shown[0][-1] == "80.0 (80.0 ± 50.0)"
    assert found.kinds[-2:] == ["number", "number"]
