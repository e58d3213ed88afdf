"""A grid's table: which file it is, so that no call replaces another's, what is said of options without effect, and
how far its cells lie from the first."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_bench import grid
from fer_bench.cards import Track
from fer_bench.files import track_folder
from fer_bench.methods import METHODS
from fer_bench.options import Options
from fer_bench.statistics import difference_over_seeds, holm
from fer_bench.train import main
from tests.helpers import write_folder

TEXT = "- {method: deep_emotion, recipe: common-v1, lr: [0.1, 0.2]}\n- {method: deep_emotion, recipe: light-v1}\n"


@pytest.fixture
def track(tmp_path: Path) -> Track:
    """A tiny folder of pictures under the name of the usual track."""
    return Track("fer2013", "T", f"folder:{write_folder(tmp_path / 'data', per_class=1)}", (), trained_on="fer2013")


def planned(tmp_path: Path, track: Track, text: str = TEXT, recipe: str | None = None, **options: object) -> grid.Plan:
    """A grid that was read, for the folder `runs`."""
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    return grid.plan(file, [], track, recipe, Options(**options), tmp_path / "runs")


def test_a_tables_name_says_what_the_command_line_changes(tmp_path: Path, track: Track) -> None:
    """The plain call's table has the file's name; another track, a try-out, a method, recipe or seed add theirs."""
    assert planned(tmp_path, track).name == "grid"
    assert planned(tmp_path, track, epochs=2, limit=8).name == "grid-epochs-2-limit-8"
    assert planned(tmp_path, track, patience=0, limit_validation=5).name == "grid-patience-0-limit_validation-5"
    assert planned(tmp_path, track, "method: small_cnn\n", "paper", seed=3).name == "grid-recipe-paper-seed-3"
    other = replace(track, name="fer2013-4")
    assert planned(tmp_path, other, limit=8).name == "grid-fer2013-4-limit-8"
    own = replace(track, name=track.dataset)
    assert planned(tmp_path, own).name == f"grid-{track_folder(track.dataset)}"
    file = tmp_path / "grid.yaml"
    file.write_text("lr: 0.1\n")
    one, every = (
        grid.plan(file, methods, track, None, Options(), tmp_path / "runs")
        for methods in ([METHODS["small_cnn"]], list(map(METHODS.__getitem__, METHODS)))
    )
    assert one.name == "grid-method-small_cnn"
    assert len(every.name) < 40


def test_a_try_out_leaves_the_table_of_the_whole_grid(tmp_path: Path, track: Track) -> None:
    """After a call with --limit the plain call's table is as it was, and its cells are none of the other's."""
    whole, part = planned(tmp_path, track), planned(tmp_path, track, limit=8)
    first = grid.write_table(whole, whole.cells())
    before = first.read_bytes()
    second = grid.write_table(part, part.cells())
    assert (first.name, second.name) == ("grid.csv", "grid-limit-8.csv")
    assert first.read_bytes() == before
    folders = [{cell.folder for cell in one.cells()} for one in (whole, part)]
    assert folders[0].isdisjoint(folders[1])


def test_another_file_of_the_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second file of the same name does not replace the first one's table; the first, changed, still does."""
    data, out = f"folder:{write_folder(tmp_path / 'data', per_class=1)}", tmp_path / "runs"
    files = [tmp_path / folder / "grid.yaml" for folder in ("a", "b")]
    for file, rate in zip(files, (0.1, 0.2), strict=True):
        file.parent.mkdir()
        file.write_text(f"method: deep_emotion\nepochs: 1\nbatch_size: 16\nlr: {rate}\n")
    command = ["--track", data, "--device", "cpu", "--out", str(out)]
    assert main(["--grid", str(files[0]), *command]) == 0
    (table,) = out.glob("grid-*.csv")
    before = table.read_bytes()
    capsys.readouterr()
    assert main(["--grid", str(files[1]), *command]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{table}: this is the table of {files[0]}, which that of {files[1]} would replace; give ")
    assert len(told.splitlines()) == 1
    assert table.read_bytes() == before
    with files[0].open("a") as file:
        file.write("seed: [0, 1]\n")
    assert main(["--grid", str(files[0]), *command]) == 0
    assert table.read_bytes() != before


def test_a_broken_table_is_written_anew(tmp_path: Path, track: Track) -> None:
    """What is no table of ours, or one that names no file, is replaced."""
    (tmp_path / "runs").mkdir()
    for content in (b"", b"\xff\xfe\x00", b"method,lr\nsmall_cnn,0.1\n"):
        (tmp_path / "runs" / "grid.csv").write_bytes(content)
        plan = planned(tmp_path, track)
        assert grid.write_table(plan, plan.cells()).read_bytes() != content


def test_an_option_without_effect_is_said(tmp_path: Path, track: Track, capsys: pytest.CaptureFixture[str]) -> None:
    """Where every grid of the file names the recipe itself, --recipe changes no cell, and a line says so."""
    plain = planned(tmp_path, track)
    assert capsys.readouterr().err == ""
    idle = planned(tmp_path, track, recipe="paper")
    assert capsys.readouterr().err == (
        f"{tmp_path / 'grid.yaml'} names recipe itself, so that --recipe paper changes nothing\n"
    )
    assert idle.name == plain.name
    assert [cell.folder for cell in idle.cells()] == [cell.folder for cell in plain.cells()]
    planned(tmp_path, track, TEXT + "- {method: small_cnn}\n", "paper")
    assert capsys.readouterr().err == ""


def trained(cell: grid.Cell, right: Sequence[bool] | np.ndarray | None) -> None:
    """What a finished run leaves of this cell: its record, and which validation pictures it recognises."""
    cell.folder.mkdir(parents=True)
    ended = {"best_epoch": 1, "epochs": 1, "ended": "complete", "wall_seconds": 60.0}
    value = 0.5 if right is None else float(np.mean(right))
    (cell.folder / "record.json").write_text(json.dumps({"trained": {"selected_value": value, **ended}}))
    if right is not None:
        np.save(cell.folder / "validation.npy", np.asarray(right))


def written(path: Path) -> dict[str, dict[str, str]]:
    """A table's lines by their kernel."""
    with path.open() as file:
        return {row["kernel"]: row for row in csv.DictReader(file)}


def test_an_ablation_says_how_far_each_cell_is_from_the_first(tmp_path: Path, track: Track) -> None:
    """On 100 pictures the second recognises 10 that the first does not and misses 30 that it does: -20 points.

    By hand: the variance of the differences is 0.4 - 0.2^2 = 0.36, so that the mean's is 0.36 / 99 and half of the
    interval 1.9842 (t with 99 degrees of freedom) times 0.0603 = 0.1197. A cell that recognises the same is at 0, and
    one of a run that did not write its answers has none; nor has one that is not finished, until it is.
    """
    plan = planned(tmp_path, track, "method: small_cnn\nkernel: [2, 3, 4, 5]\n")
    first, second, same, older = plan.cells()
    number = np.arange(100)
    trained(first, number < 60)
    trained(second, (number >= 30) & (number < 70))
    assert written(grid.write_table(plan, plan.cells()))["4"]["difference"] == ""
    trained(same, number < 60)
    trained(older, None)
    lines = written(grid.write_table(plan, plan.cells()))
    told = {kernel: [row[name] for name in ("difference", "low", "high", "p_holm")] for kernel, row in lines.items()}
    assert told["3"][:3] == ["-0.2000", "-0.3197", "-0.0803"]
    assert float(told["3"][3]) == pytest.approx(2 * 0.001275, abs=6e-5), "t = 3.317, and two comparisons"
    assert told["4"] == ["+0.0000", "+0.0000", "+0.0000", "1.0000"]
    assert told["2"] == told["5"] == [""] * 4


def test_settings_are_compared_by_all_their_seeds(tmp_path: Path, track: Track) -> None:
    """The table over seeds takes what `comparison --over-seeds` takes, so that the luck of training is in it."""
    plan = planned(tmp_path, track, "method: small_cnn\nkernel: [2, 3, 4]\nseed: [0, 1]\n")
    draws = np.random.default_rng(0).random((6, 80))
    right = [draw < level for draw, level in zip(draws, (0.5, 0.52, 0.7, 0.72, 0.4, 0.6), strict=True)]
    for cell, answers in zip(plan.cells(), right, strict=True):
        trained(cell, answers)
    table = grid.write_table(plan, plan.cells())
    lines = written(table.with_name("grid-seeds.csv"))
    wanted = [difference_over_seeds(np.stack(right[at : at + 2]), np.stack(right[:2])) for at in (2, 4)]
    for kernel, (apart, _), p in zip("34", wanted, holm([p for _, p in wanted]), strict=True):
        found = [float(lines[kernel][name]) for name in ("difference", "low", "high", "p_holm")]
        assert found == pytest.approx([apart.value, apart.low, apart.high, p], abs=6e-5)
    assert lines["2"]["difference"] == ""


def test_trained_cells_leave_what_they_are_compared_by(tmp_path: Path) -> None:
    """Two real runs: their accuracies are those of the answers that they left, and the difference is theirs."""
    data = f"folder:{write_folder(tmp_path / 'data', per_class=4)}"
    (tmp_path / "grid.yaml").write_text("method: deep_emotion\nepochs: 1\nbatch_size: 16\nlr: [0.01, 1e-6]\n")
    command = ["--grid", str(tmp_path / "grid.yaml"), "--track", data, "--device", "cpu", "--out", str(tmp_path / "o")]
    assert main(command) == 0
    (table,) = (tmp_path / "o").glob("*.csv")
    with table.open() as file:
        rows = {row["lr"]: row for row in csv.DictReader(file)}
    right = {rate: np.load(Path(row["folder"]) / "validation.npy") for rate, row in rows.items()}
    for rate, row in rows.items():
        assert right[rate].dtype == bool
        assert float(row["validation_accuracy"]) == pytest.approx(right[rate].mean(), abs=6e-5)
    apart = right["1e-06"].mean() - right["0.01"].mean()
    assert float(rows["1e-06"]["difference"]) == pytest.approx(apart, abs=6e-5)
    assert rows["0.01"]["difference"] == ""
