"""Rows that stand: their figures follow from their saved answers, and can be computed anew from them alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_bench import evaluate, leaderboard
from fer_bench.datasets import FaceSet
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.evaluate import judge, main
from fer_bench.infer import load
from fer_bench.protocols import TRACKS, track_named
from fer_bench.results import (
    Result,
    ResultError,
    as_saved,
    read_logits,
    read_result,
    result_path,
    write_logits,
    write_result,
)
from fer_bench.standing import KEPT, guard, recomputed
from fer_bench.statistics import Interval
from fer_bench.weights import read_tensors, write_tensors


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one record and its answers: shipped weights judged on 24 grey pictures of noise."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 48, 48), dtype=np.uint8)
    ids = tuple(f"{index}" for index in range(24))
    faces = FaceSet("rendered", "test", SEVEN, images, np.arange(24) % 7, ids)
    model = load("deep_emotion_parallel", "rendered")
    answers = judge(model, faces, TRACKS["rendered"])
    write_logits(answers.result, tmp_path, answers.ids, answers.targets, answers.logits)
    write_result(answers.result, tmp_path)
    return tmp_path


def record(board: Path) -> tuple[Path, Result]:
    (path,) = (board / "results").glob("*/*/*.json")
    return path, read_result(path)


def test_what_was_judged_is_what_was_saved(board: Path) -> None:
    """To the last digit: figures are measured on the answers as they are kept, so nothing moves by their rounding."""
    path, before = record(board)
    assert recomputed(before, read_logits(path)) == before
    logits = np.random.default_rng(1).normal(scale=30, size=(50, 7))
    kept = as_saved(logits)
    assert kept.dtype == np.float32
    assert (kept == as_saved(kept)).all()
    assert (kept.max(axis=1) == 0).all()
    assert np.abs(kept - (logits - logits.max(axis=1, keepdims=True))).max() < 0.1
    with pytest.raises(ValueError, match="finite"):
        as_saved(np.array([[0.0, np.nan]]))


def test_figures_of_an_older_statistic_are_computed_anew(
    board: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is loaded or answered, and all but the figures stays, accuracy without duplicates too."""
    path, before = record(board)
    without = Interval(0.1, 0.05, 0.2)
    old = replace(
        before, metrics={n: Interval(m.value, 0, m.high) for n, m in before.metrics.items()} | {KEPT: without}
    )
    write_result(old, board)
    monkeypatch.setattr(evaluate, "load", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(evaluate, "load_dataset", lambda *_: pytest.fail("data was read"))
    command = ["--all", "--track", "rendered", "--figures", "--out", str(board)]
    assert main(command) == 0
    first = next(name for name, metric in before.metrics.items() if metric.low > 0)
    told = f"computed anew (metrics.{first}.low 0 -> {before.metrics[first].low:.4g}, "
    assert told in capsys.readouterr().out
    assert record(board)[1] == replace(before, metrics=before.metrics | {KEPT: without})
    changed = path.stat().st_mtime_ns
    assert main(command) == 0
    assert "computed anew" not in capsys.readouterr().out
    assert path.stat().st_mtime_ns == changed, "a record that agrees is left alone"


def test_a_figure_that_another_machine_rounds_otherwise_is_the_same(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever does the sum again sees what differs, not every row."""
    path, before = record(board)
    nll = before.metrics["nll"]
    write_result(replace(before, metrics=before.metrics | {"nll": replace(nll, value=nll.value + 1e-12)}), board)
    changed = path.read_bytes()
    assert main(["--all", "--track", "rendered", "--figures", "--out", str(board)]) == 0
    assert "computed anew" not in capsys.readouterr().out
    assert path.read_bytes() == changed


def test_a_verified_row_is_not_replaced_by_a_try(board: Path) -> None:
    """Nothing of a user's own runs takes the place of what the project measured, unless it is of the same weights."""
    _, before = record(board)
    model = load("deep_emotion_parallel", "rendered")
    other = replace(model, record=model.record | {"sha256": "0" * 64})
    write_result(replace(before, verified=True), board)
    guard(model, TRACKS["rendered"], board, "none", True)
    guard(other, TRACKS["rendered"], board, "flip", True)  # there is no such row
    guard(other, TRACKS["rendered"], board, "none", False)
    with pytest.raises(UserError, match=r"common-v1-s0\.json is a verified row of other weights; give another folder"):
        guard(other, TRACKS["rendered"], board, "none", True)
    write_result(before, board)
    guard(other, TRACKS["rendered"], board, "none", True)


def test_a_row_of_other_training_pictures_stays(board: Path) -> None:
    """One's own pictures judged with shipped weights and then with those trained on them: both rows have one place."""
    _, before = record(board)
    model = load("deep_emotion_parallel", "rendered")
    track = track_named("folder:/my/faces")
    write_result(replace(before, track=track.name, protocol=track.hash()), board)
    again = replace(model, record=model.record | {"sha256": "0" * 64})
    guard(again, track, board, "none", False)  # trained on, from the same pictures
    trained = model.record["trained"] | {"track": track.name}
    mine = replace(model, record=model.record | {"sha256": "0" * 64, "track": track.name, "trained": trained})
    for trying in (True, False):
        with pytest.raises(UserError, match=r"is a row of weights of fer2013, and these are of folder:/my/faces; give"):
            guard(mine, track, board, "none", trying)
    guard(mine, track, board, "flip", True)  # there is no such row


def test_a_run_of_ones_own_leaves_the_verified_row(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--runs without --out, as one tries a recipe: the row stays, and a sentence says where to put the new one."""
    path, before = record(board)
    write_result(replace(before, verified=True), board)
    text = path.read_bytes()
    model = load("deep_emotion_parallel", "rendered")
    tensors, about = read_tensors(model.path)
    about["trained"]["pictures_seen"] += 1
    run = tmp_path / "runs" / "fer2013" / "deep_emotion_parallel" / "common-v1-s0" / "model.safetensors"
    run.parent.mkdir(parents=True)
    write_tensors(run, tensors, about)
    command = ["--method", "deep_emotion_parallel", "--track", "rendered", "--runs", str(tmp_path / "runs")]
    assert main([*command, "--out", str(board)]) == 1
    assert "is a verified row of other weights; give another folder to --out for yours." in capsys.readouterr().err
    assert path.read_bytes() == text


@pytest.mark.parametrize("broken", ["gone", "other", "fewer"])
def test_answers_of_another_record_change_nothing(board: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, before = record(board)
    text, saved = path.read_bytes(), read_logits(path)
    if broken == "gone":
        path.with_suffix(".npz").unlink()
        says = "cannot be read as logits"
    elif broken == "other":
        write_logits(before, board, saved.ids, saved.targets, np.roll(saved.logits, 1, axis=1))
        says = "the saved answers give another confusion matrix than the record has"
    else:
        write_logits(before, board, saved.ids[1:], saved.targets[1:], saved.logits[1:])
        says = "the saved answers are 23 x 7, but the record is of 24 pictures and 7 emotions"
        with pytest.raises(ResultError, match=says):
            recomputed(before, read_logits(path))
    assert main(["--all", "--track", "rendered", "--figures", "--out", str(board)]) == 1
    told = capsys.readouterr().err
    assert says in told
    assert told.replace(".npz", ".json").startswith(f"failed rendered deep_emotion_parallel: {path}")
    assert path.read_bytes() == text


def test_what_is_not_there_is_said(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--method", "senet50", "--track", "rendered", "--figures", "--out", str(board)]) == 2
    assert f"{board} holds no record of that" in capsys.readouterr().err
    assert main(["--all", "--figures", "--runs", str(board), "--out", str(board)]) == 2
    assert "--figures computes figures alone, of rows that stand; leave out --runs." in capsys.readouterr().err


def test_all_rows_that_stand_are_computed_anew(board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --track and --seed also those of own pictures (found by another spelling too) and of other seeds."""
    path, before = record(board)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    name = f"folder:{tmp_path / 'mine'}"
    wrong = {n: Interval(m.value, 0, m.high) for n, m in before.metrics.items()}
    rows = [replace(before, seed=3), replace(before, track=name), before]
    for row in rows:
        place = write_result(replace(row, metrics=wrong), board)
        place.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes())
    read = [result_path(board, row.track, row.method, row.recipe, row.seed) for row in rows]
    assert main(["--all", "--figures", "--track", "folder:./mine", "--out", str(board)]) == 0
    assert [read_result(place) == row for place, row in zip(read, rows, strict=True)] == [False, True, False]
    assert main(["--all", "--figures", "--seed", "3", "--out", str(board)]) == 0
    assert [read_result(place) == row for place, row in zip(read, rows, strict=True)] == [True, True, False]
    assert main(["--all", "--figures", "--out", str(board)]) == 0
    assert [read_result(place) == row for place, row in zip(read, rows, strict=True)] == [True, True, True]


def test_costs_of_no_row_say_where_rows_are_looked_for(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A track that the folder has no record of is named as such."""
    assert main(["--method", "senet50", "--costs", "--track", "fer2013", "--out", str(board)]) == 2
    assert f"{board} holds no such record; --out takes the folder" in capsys.readouterr().err
