"""What the board shows of single emotions and of time, beside accuracy."""

from __future__ import annotations

from dataclasses import replace

from fer_bench import leaderboard as lb
from fer_bench import results as r
from fer_bench.statistics import Interval
from fer_bench.ui.board_rows import cells
from tests.test_leaderboard import counted, made


def test_the_best_of_each_emotion_is_the_one_with_the_greatest_f1():
    """Answering one emotion always has all its recall, and not its F1; a row alone is compared with nothing."""
    fair = made("fair", hits=80)
    always = made(
        "always", hits=50, confusion_matrix=[[50, 0], [50, 0]],
        per_class_recall={"anger": Interval(1.0, 0.96, 1.0), "happiness": Interval(0.0, 0.0, 0.04)},
    )  # fmt: skip
    text = lb.markdown([fair, always])
    assert "| Method | Anger (50) | Happiness (50) |" in text
    assert "| `fair` (common-v1) | **80.0** (80.0, 0.0 to 100.0) | **80.0** (80.0, 0.0 to 100.0) |" in text
    assert "| `always` (common-v1) | 66.7 (100.0, ≥ 96.0) | 0.0 (0.0, ≤ 4.0) |" in text
    assert "**Per emotion**" not in lb.markdown([fair])


def test_an_emotion_that_nobody_knows_has_no_best():
    """No 0 is bold, and an emotion without test pictures has neither F1 nor recall, though it be answered."""
    matrix = [[30, 0, 20], [0, 0, 0], [50, 0, 0]]
    some = made(
        "some", hits=30, emotions=("anger", "disgust", "happiness"), confusion_matrix=matrix,
        per_class_recall={"anger": Interval(0.6, 0.5, 0.7), "happiness": Interval(0.0, 0.0, 0.04)},
    )  # fmt: skip
    other = [[30, 20, 0], [0, 0, 0], [30, 20, 0]]
    answers = replace(some, method="answers", confusion_matrix=other, metrics=some.metrics | counted(other))
    text = lb.markdown([some, answers])
    assert "| Method | Anger (50) | Happiness (50) |" in text
    assert "| `some` (common-v1) | 46.2 (60.0 ± 10.0) | 0.0 (0.0, ≤ 4.0) |" in text
    assert "| `answers` (common-v1) | **54.5** (60.0 ± 10.0) | 0.0 (0.0, ≤ 4.0) |" in text


def test_test_time_augmentation_has_its_own_best():
    """Rows of several views have a table of their own, as everywhere on the board."""
    rows = [made("a", hits=60), made("b", hits=50), made("a", hits=80, tta="flip"), made("b", hits=70, tta="flip")]
    text = lb.markdown(rows)
    assert text.count("**Per emotion**") == 2
    assert text.index("| **60.0** (") < text.index("test-time augmentation flip") < text.index("| **80.0** (")


def test_a_latency_can_be_turned_into_milliseconds():
    """The reference's own time stands under the table, median and range over the runs, or nothing is said of it."""
    rows = [
        made(name, cost=r.Cost(parameters=1, macs=1, latency_ms=own, latency_ratio=ratio))
        for name, own, ratio in (("a", 4.0, 0.1), ("b", 80.0, 2.0), ("c", 30.0, 0.2))
    ]
    told = "- In the runs that latency comes from, resnet18 took 40 ms a face{}, with one thread of a CPU that is not "
    told += "recorded: 0.10 is about 4.0 ms."
    spread = " (median over the rows; from 40 to 150 ms)"
    assert told.format(spread) in lb.markdown(rows).splitlines()
    assert told.format("") in lb.markdown(rows[:2]).splitlines()
    assert "ms a face" not in lb.markdown([made("a", cost=r.Cost(parameters=1))])


def test_the_page_sorts_by_an_emotions_f1():
    """A column for each emotion, behind all others, sorted by F1 and showing the recall as well."""
    found = cells(lb.table([made("a", hits=80)], None, "fer2013").assign(name="a"))
    assert found.headers[-2:] == ["Anger, F1 %", "Happiness, F1 %"]
    assert found.values[0][-2:] == [80.0, 80.0]
    assert found.shown[0][-1] == "80.0 (80.0, 0.0 to 100.0)"
    assert found.kinds[-2:] == ["number", "number"]
