"""`python -m fer_bench.comparison`: rows of a board, compared picture by picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_bench.comparison import main, pairs_of, rows_of_board
from fer_bench.metrics import confusion_matrix
from fer_bench.registry import UnknownNameError
from fer_bench.results import Result, write_logits, write_result
from fer_bench.statistics import Interval, mcnemar, paired_difference
from tests.test_leaderboard import counted, made

TARGETS = np.repeat([0, 1], 50)
IDS = [f"picture {number}" for number in range(100)]


def answers(hits: int, first_wrong: int = 0) -> np.ndarray:
    """float32 (100, 2): right on all but 100 - hits pictures, which are those from `first_wrong` on."""
    wrong = np.isin(np.arange(100), (np.arange(100 - hits) + first_wrong) % 100)
    return np.eye(2, dtype=np.float32)[np.where(wrong, 1 - TARGETS, TARGETS)]


def enter(board: Path, result: Result, logits: np.ndarray) -> None:
    """Put a result and its answers on a board; which pictures it had right are those that the answers say."""
    matrix = confusion_matrix(TARGETS, logits)
    recalls = {name: Interval(matrix[place, place] / 50, 0, 1) for place, name in enumerate(result.emotions)}
    metrics = result.metrics | counted(matrix) | {"accuracy": result.metrics["accuracy"]}
    result = replace(result, confusion_matrix=matrix.tolist(), per_class_recall=recalls, metrics=metrics)
    write_result(result, board)
    write_logits(result, board, IDS, TARGETS, logits)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Rows of three methods on one track: alpha 90, beta 70 and, with another seed, 69, gamma 68 of 100 right."""
    enter(tmp_path, made("alpha", 90), answers(90))
    enter(tmp_path, made("beta", 70), answers(70))
    enter(tmp_path, made("beta", 69, seed=1), answers(69))
    enter(tmp_path, made("gamma", 68), answers(68, 20))
    return tmp_path


def test_rows_are_named_by_method_where_that_is_enough(board: Path) -> None:
    """The best stand first; only a method with several rows needs its recipe and seed."""
    rows, problems = rows_of_board(board, "fer2013")
    assert list(rows) == ["alpha", "beta/common-v1-s0", "beta/common-v1-s1", "gamma"]
    assert [row.seed for row in rows.values()] == [0, 0, 1, 0]
    assert problems == []
    enter(board, made("alpha", 92, tta="flip"), answers(92))
    assert list(rows_of_board(board, "fer2013")[0])[:2] == ["alpha/common-v1-s0-flip", "alpha"]
    assert rows_of_board(board, "ferplus") == ({}, [])


def test_one_row_meets_all_others_and_several_meet_each_other() -> None:
    """A method's name stands for all its rows; a misspelt one is answered with the nearest."""
    zero, one = "beta/common-v1-s0", "beta/common-v1-s1"
    rows = {"alpha": made("alpha"), zero: made("beta"), one: made("beta", seed=1), "gamma": made("gamma")}
    assert pairs_of(rows, ["gamma"]) == [("gamma", name) for name in ("alpha", zero, one)]
    assert pairs_of(rows, ["gamma", "alpha", "gamma"]) == [("alpha", "gamma")]
    others = [(beta, name) for beta in (zero, one) for name in ("alpha", "gamma")]
    assert pairs_of(rows, ["beta"]) == [(zero, one), *others]
    assert pairs_of(rows, ["gamma/common-v1-s0", one]) == [(one, "gamma")]
    assert len(pairs_of(rows, ["alpha", "beta", "gamma"])) == 6
    assert pairs_of({"alpha": made("alpha")}, ["alpha"]) == []
    flip = "alpha/common-v1-s0-flip"
    rows[flip] = made("alpha", tta="flip")
    assert pairs_of(rows, ["gamma"]) == [("gamma", name) for name in ("alpha", zero, one)]
    assert pairs_of(rows, ["alpha", flip]) == [("alpha", flip)]
    with pytest.raises(UnknownNameError, match=r"no row 'gama'\. Did you mean 'gamma'\?"):
        pairs_of(rows, ["gama"])


def test_two_rows_get_a_sentence_and_the_table(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict in words, then difference, interval, the two counts and p, and exit code 0."""
    assert main(["gamma", "alpha", "--board", str(board)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("They differ by 22.0 points (95 % interval ")
    assert "alpha recognises more of these 100 pictures than gamma" in said.out
    low, high = (round(100 * bound, 1) for bound in difference(answers(90), answers(68, 20)))
    assert f"| alpha | gamma | +22.0 | +{low} to +{high} | 32 | 10 | < 0.001 | < 0.001 |" in said.out
    assert said.err == ""


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The bounds of the paired interval."""
    found = paired_difference(TARGETS, first, second)
    return found.low, found.high


def test_the_file_holds_unrounded_figures_and_holms_p(board: Path, tmp_path: Path, capsys) -> None:
    """The CSV's p-values are McNemar's and, for the three pairs asked for together, Holm's."""
    out = tmp_path / "new" / "pairs.csv"
    assert main(["gamma", "--board", str(board), "-o", str(out)]) == 0
    frame = pd.read_csv(out)
    others = {"alpha": answers(90), "beta/common-v1-s0": answers(70), "beta/common-v1-s1": answers(69)}
    assert frame["second"].tolist() == list(others)
    wanted = [mcnemar(TARGETS, answers(68, 20), other) for other in others.values()]
    assert frame["p"].tolist() == pytest.approx(wanted)
    assert frame["p_holm"].tolist() == pytest.approx([3 * wanted[0], *[min(1, 2 * min(wanted[1:]))] * 2])
    assert "They differ" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["delta"], "there is no row 'delta'"),
        (["alpha", "--track", "rendered"], "holds no result of rendered (tracks there: fer2013)"),
        (["alpha", "alpha/common-v1-s0"], "alpha and alpha/common-v1-s0 mean one and the same row of fer2013"),
        (
            ["alpha", "--board", "nowhere"],
            "nowhere/results holds no result of fer2013 (tracks there: none); --board takes the folder that evaluate",
        ),
    ],
)
def test_what_is_not_on_the_board_is_wrong_use(board: Path, arguments, says, capsys) -> None:
    """An unknown row, a track without results and a folder that is no board end with one sentence and exit code 2."""
    assert main(["--board", str(board), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_row_that_cannot_be_compared_ends_nothing_else(board: Path, capsys) -> None:
    """Missing answers and a broken record are named on standard error, the rest is compared, exit code 1."""
    (lost,) = (board / "results").glob("*/gamma/*.npz")
    lost.unlink()
    broken = board / "results" / "fer2013" / "beta" / "common-v1-s1.json"
    broken.write_text("{")
    assert main(["alpha", "--board", str(board)]) == 1
    said = capsys.readouterr()
    assert str(broken) in said.err
    assert "skipped alpha and gamma: " in said.err
    assert lost.name in said.err
    assert "| alpha | beta | +20.0 |" in said.out


def test_a_broken_file_of_another_track_is_none_of_this_one(board: Path, capsys) -> None:
    """What cannot be read elsewhere is not mentioned; where a track has nothing else, it is, before the sentence."""
    other = board / "results" / "rendered" / "alpha" / "common-v1-s0.json"
    other.parent.mkdir(parents=True)
    other.write_text("{")
    assert main(["alpha", "gamma", "--board", str(board)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["alpha", "--board", str(board), "--track", "rendered"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert str(other) in first
    assert "holds no result of rendered" in second


def test_a_file_that_cannot_be_written_is_named(board: Path, capsys) -> None:
    """The table is still printed; the exit code is 1."""
    assert main(["alpha", "gamma", "--board", str(board), "-o", str(board / "results")]) == 1
    said = capsys.readouterr()
    assert "| alpha | gamma |" in said.out
    assert f"{board / 'results'} cannot be written" in said.err


def test_the_folder_of_results_is_never_taken_for_the_file(board: Path, capsys) -> None:
    """`--out`, which other commands have for that folder, is refused, and not read as --output."""
    with pytest.raises(SystemExit) as stopped:
        main(["alpha", "--out", str(board)])
    assert stopped.value.code == 2
    assert "unrecognized arguments: --out" in capsys.readouterr().err


def test_own_pictures_are_found_however_their_path_is_written(tmp_path: Path, monkeypatch, capsys) -> None:
    """A row entered under the whole path is compared under the relative one, and the other way round."""
    monkeypatch.chdir(tmp_path)
    for name in (f"folder:{tmp_path / 'mine'}", "folder:other"):
        enter(tmp_path, replace(made("alpha", 90), track=name), answers(90))
        enter(tmp_path, replace(made("beta", 70), track=name), answers(70))
    for name in ("folder:mine", f"folder:{tmp_path / 'other'}"):
        assert main(["alpha", "beta", "--board", str(tmp_path), "--track", name]) == 0
        assert "alpha" in capsys.readouterr().out
