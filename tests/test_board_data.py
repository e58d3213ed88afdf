"""The board as CSV, as JSON and as a frame: the same rows and figures as the page, as numbers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fer_bench
from fer_bench import leaderboard as lb
from fer_bench import results as r
from fer_bench.answers import answers_of
from fer_bench.board_data import COLUMNS, KEY
from fer_bench.card_files import write_cards
from fer_bench.errors import BrokenFilesError, UserError
from fer_bench.records import Earlier
from fer_bench.selective import accuracy_at, aurc
from fer_bench.statistics import Interval
from tests.test_leaderboard import card, made

BOARD = Path(__file__).resolve().parents[1] / "leaderboard"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A board of three rows on two tracks: of one the whole training is known, of one nothing is."""
    trained = r.Trained(
        track="fer2013", epochs=18, budget_epochs=60, pictures_seen=516_780, train_pictures=28_710, complete=False,
        ended="max-minutes", commit="b" * 40,
        earlier=Earlier(weights=["awei/fer2013/common-v1-s0 (0123456789ab)"], track="fer2013", epochs=30,
                        pictures_seen=861_300),
        teachers=["resnet18/fer2013/common-v1-s0 (f33b5bec3d4c)", "awei/fer2013/common-v1-s0 (0123456789ab)"],
    )  # fmt: skip
    first = made("small_cnn", 70, trained=trained, commit="c" * 40)
    first.metrics["accuracy_without_duplicates"] = Interval(0.68, 0.66, 0.7)
    theirs = r.Trained(track="own", complete=True)
    rows = [
        first,
        made("peer", 60, trained=theirs, external=True, recipe="as-published"),
        made("big", 90, track="rendered"),
    ]
    for result in rows:
        r.write_result(result, tmp_path / "board")
    write_cards(tmp_path / "board", [card("small_cnn")])
    return tmp_path / "board"


def written(root: Path, *options: str) -> tuple[int, list[dict]]:
    """The exit code of the command, and the rows of the JSON that it wrote."""
    file = root.parent / "rows.json"
    code = lb.main(["--out", str(root), "--json", str(file), *options])
    return code, json.loads(file.read_text())


def test_a_row_has_its_figures_as_numbers(root: Path) -> None:
    """Every figure is that of the record; what is not known is null, what does not apply is empty."""
    code, rows = written(root)
    assert code == 0
    assert [(row["track"], row["method"], row["rank"]) for row in rows] == [
        ("fer2013", "small_cnn", 1), ("fer2013", "peer", 2), ("rendered", "big", 1)
    ]  # fmt: skip
    row, peer, _ = rows
    expected = {
        "track": "fer2013", "method": "small_cnn", "recipe": "common-v1", "seed": 0, "tta": "none", "group": 0,
        "accuracy": 0.7, "accuracy_low": pytest.approx(0.68), "accuracy_high": 0.72,
        "accuracy_without_duplicates": 0.68, "accuracy_without_duplicates_low": 0.66,
        "balanced_accuracy": 0.7, "balanced_accuracy_low": pytest.approx(0.65),
        "macro_f1": 0.7, "macro_f1_high": 0.75, "ece": 0.25, "ece_by_chance": 0.05, "nll": 0.25, "nll_high": 0.3,
        "reported": 0.6932, "difference": pytest.approx(0.0068), "recall_anger": 0.7, "f1_anger": 0.7,
        "pictures_of_anger": 50, "recall_contempt": None, "parameters": 3_849_319, "macs": 90_000_000,
        "latency_ratio": 0.4, "latency_ms": None, "epochs": 18, "budget_epochs": 60, "pictures_seen": 516_780,
        "budget_share": pytest.approx(0.8), "complete": False, "short": True, "earlier_tracks": "fer2013",
        "earlier_epochs": 30, "earlier_pictures": 861_300,
        "earlier_weights": "awei/fer2013/common-v1-s0 (0123456789ab)",
        "teachers": "resnet18/fer2013/common-v1-s0 (f33b5bec3d4c); awei/fer2013/common-v1-s0 (0123456789ab)",
        "ended": "max-minutes", "trained_commit": "b" * 40,
        "external": False, "verified": False, "commit": "c" * 40, "weights_sha256": "0" * 64,
        "record": "results/fer2013/small_cnn/common-v1-s0.json", "aurc": None, "accuracy_at_80": None,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert [peer[name] for name in ("epochs", "budget_share", "teachers", "ended", "external")] == [
        None,
        None,
        "",
        "",
        True,
    ]
    assert list(row)[: len(COLUMNS)] == list(COLUMNS)


def test_data_alone_leaves_the_page_as_it_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither LEADERBOARD.md nor a figure is written; what was written is said."""
    before = sorted(root.rglob("*"))
    file = root.parent / "deep" / "rows.csv"
    assert lb.main(["--out", str(root), "--csv", str(file)]) == 0
    assert capsys.readouterr().out.split() == [str(file)]
    assert sorted(root.rglob("*")) == before


def test_csv_and_json_and_the_frame_hold_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Read back from standard output and from a file, they are `load_results` to the last digit."""
    frame = fer_bench.load_results(root=root)
    file = root.parent / "rows.json"
    assert lb.main(["--out", str(root), "--csv", "-", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err.split() == [str(file)]
    table = pd.read_csv(io.StringIO(out), keep_default_na=False, dtype=str)
    assert list(table) == list(frame) == list(json.loads(file.read_text())[0])
    for name in frame:
        text = ["" if value is None else value for value in frame[name].astype(object).where(frame[name].notna(), None)]
        assert table[name].tolist() == [str(value) for value in text], name
    assert "\n\n" not in out


def test_one_track_alone(root: Path) -> None:
    """--track and `track=` give its rows only, with the same columns; several may be named."""
    assert [row["method"] for row in written(root, "--track", "rendered")[1]] == ["big"]
    whole = fer_bench.load_results(root=root)
    for asked in ("rendered", ["rendered"]):
        frame = fer_bench.load_results(asked, root)
        assert frame["method"].tolist() == ["big"]
        assert list(frame) == list(whole)
        assert frame.dtypes.equals(whole.dtypes)
    assert len(fer_bench.load_results(["rendered", "fer2013"], root)) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--csv", "x", "--track", "rafdb"], "holds no result of rafdb; the tracks there are: fer2013, rendered."),
        (["--track", "rendered"], "--track goes with --csv or --json"),
        (["--csv", "x", "--readme", "README.md"], "--readme has to be a command of its own"),
        (["--csv", "-", "--json", "-"], "--csv and --json both name -"),
    ],
)
def test_wrong_use_is_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    """Exit code 2, what there is, nothing on standard output and nothing written."""
    monkeypatch.chdir(root.parent)
    before = sorted(root.parent.rglob("*"))
    assert lb.main(["--out", str(root), *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
    assert sorted(root.parent.rglob("*")) == before


def test_a_folder_without_results_says_so(tmp_path: Path) -> None:
    """No folder, and one that holds nothing."""
    with pytest.raises(UserError, match="results: there is no such folder"):
        fer_bench.load_results(root=tmp_path)
    (tmp_path / "results").mkdir()
    with pytest.raises(UserError, match="holds no result that can be read"):
        fer_bench.load_results(root=tmp_path)


def test_a_broken_record_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes the others and ends with 1; `load_results` raises, but for a track that it is not of."""
    broken = root / "results" / "fer2013" / "peer" / "as-published-s0.json"
    broken.write_text("{")
    code, rows = written(root)
    assert (code, len(rows)) == (1, 2)
    err = capsys.readouterr().err
    assert str(broken) in err
    assert "The data was written without them." in err
    with pytest.raises(BrokenFilesError, match="as-published-s0.json"):
        fer_bench.load_results(root=root)
    assert len(fer_bench.load_results("rendered", root)) == 1


def test_selective_figures_are_those_of_the_saved_answers(root: Path) -> None:
    """AURC and the accuracy on the surest 80 % come from the answers beside a record, and only from its own."""
    (row,) = [result for result in r.read_results(root) if result.method == "big"]
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], 50)
    logits = np.stack([np.zeros(100), rng.uniform(0.1, 3, 100)], axis=1) * np.where(targets == 1, 1, -1)[:, None]
    logits[[0, 1, 2, 3, 4, 50, 51, 52, 53, 54]] *= -1  # five of each are wrong, as the record has it
    r.write_logits(row, root, [str(index) for index in range(100)], targets, logits)
    saved = r.as_saved(logits)
    frame = fer_bench.load_results("rendered", root)
    assert frame["aurc"].tolist() == [aurc(targets, saved)]
    assert frame["accuracy_at_80"].tolist() == [accuracy_at(targets, saved, 0.8)]
    assert 0 < frame["aurc"][0] != frame["accuracy_at_80"][0]
    r.write_logits(row, root, [str(index) for index in range(100)], targets, -logits)
    with pytest.raises(BrokenFilesError, match="saved logits of big are not those that its record was measured on"):
        fer_bench.load_results("rendered", root)
    code, (said,) = written(root, "--track", "rendered")
    assert (code, said["aurc"], said["accuracy"]) == (1, None, 0.9)


def test_the_committed_board_is_whole() -> None:
    """Every record is a row of `load_results`, each column is explained, and the answers of every row are there."""
    frame, results = fer_bench.load_results(), r.read_results(BOARD)
    assert len(frame) == len(results) > 70
    assert not frame.duplicated(KEY).any()
    assert {str(BOARD / path) for path in frame["record"]} == {str(p) for p in BOARD.glob("results/*/*/*.json")}
    families = ("robustness_", "under_", "explanation_", "centre_", "region_")
    assert [name for name in frame if name not in COLUMNS and not name.startswith(families)] == []
    assert frame["aurc"].between(0, 1).all()
    assert (frame["accuracy_at_80"] >= frame["accuracy"] - 0.02).all()


def test_answers_by_name_by_row_and_by_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same answers, whichever way a row is named, wherever the command runs."""
    monkeypatch.chdir(tmp_path)
    frame = fer_bench.load_results("fer2013")
    row = frame[(frame["method"] == "small_cnn") & (frame["tta"] == "flip")].iloc[0]
    (record,) = [x for x in r.read_results(BOARD) if all(getattr(x, name) == row[name] for name in KEY)]
    ways = [
        ("fer2013", "small_cnn", "common-v1", 0, "flip"), (row,), (dict(row),), (row["record"],), (record,),
        (BOARD / row["record"],), (str((BOARD / row["record"]).with_suffix(".npz")),),
        (next(frame[frame["record"] == row["record"]].itertuples()),),
    ]  # fmt: skip
    expected = answers_of(BOARD, record)
    for way in ways:
        found = fer_bench.load_answers(*way)
        assert found.record == BOARD / row["record"]
        assert found.emotions == record.emotions
        assert (found.targets.dtype, found.logits.dtype) == (np.int64, np.float32)
        for name in ("ids", "targets", "logits"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert fer_bench.load_answers("fer2013", "small_cnn", tta="none").record.stem == "common-v1-s0"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("fer2014", "small_cnn"), "holds no row of fer2014; the tracks there are: fer2013, rendered"),
        (("fer2013", "smal_cnn"), "holds no row of smal_cnn on fer2013; the methods there are: peer, small_cnn"),
        (("fer2013", "small_cnn", "paper"), "has no row of recipe paper, seed 0, tta none on fer2013; its rows there"),
        (("fer2013", "small_cnn", None, 4), "has no row of seed 4, tta none on fer2013; its rows there are: common-v1"),
        (("fer2013",), "'fer2013' is no record's path"),
        ((3,), "a value of type int does not name a row"),
        (({"track": "fer2013"},), "a value of type dict does not name a row"),
        (("none.json",), "none.json cannot be read as a result"),
        (("fer2013", "small_cnn"), "common-v1-s0.npz cannot be read as logits"),
    ],
)
def test_a_row_that_is_not_there_is_one_sentence(root: Path, asked: tuple, says: str) -> None:
    """The sentence names what there is."""
    with pytest.raises(UserError, match=says):
        fer_bench.load_answers(*asked, root=root)


def test_several_recipes_have_to_be_told_apart(root: Path) -> None:
    """No recipe is chosen for the caller: the sentence names them."""
    r.write_result(replace(made("small_cnn", 65), recipe="paper"), root)
    with pytest.raises(UserError, match="several rows on fer2013: give recipe= one of common-v1, paper"):
        fer_bench.load_answers("fer2013", "small_cnn", root=root)


def test_a_broken_record_of_the_row_is_named_not_missed(root: Path) -> None:
    """Where the very record cannot be read, it is not said that there is none."""
    (root / "results" / "fer2013" / "peer" / "as-published-s0.json").write_text("{")
    with pytest.raises(UserError, match="as-published-s0.json cannot be read as a result"):
        fer_bench.load_answers("fer2013", "peer", root=root)


def test_answers_are_put_into_another_rows_order() -> None:
    """By the pictures' ids; other emotions and other pictures are refused."""
    first = fer_bench.load_answers("fer2013", "small_cnn")
    order = np.random.default_rng(0).permutation(len(first.ids))
    mixed = replace(first, ids=first.ids[order], targets=first.targets[order], logits=first.logits[order])
    again = mixed.in_order_of(first)
    np.testing.assert_array_equal(again.ids, first.ids)
    np.testing.assert_array_equal(again.targets, first.targets)
    np.testing.assert_array_equal(again.logits, first.logits)
    with pytest.raises(UserError, match="different emotions"):
        fer_bench.load_answers("ferplus", "small_cnn").in_order_of(first)
    with pytest.raises(UserError, match="different pictures"):
        fer_bench.load_answers("rendered", "small_cnn").in_order_of(first)


def test_reading_results_imports_no_torch() -> None:
    """Neither the rows nor the answers need it."""
    code = (
        "import sys, fer_bench; fer_bench.load_results('ferplus'); fer_bench.load_answers('ferplus', 'small_cnn');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
