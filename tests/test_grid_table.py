"""A grid's table: which file it is, so that no call replaces another's, and what is said of options without effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fer_bench import grid
from fer_bench.cards import Track
from fer_bench.files import track_folder
from fer_bench.methods import METHODS
from fer_bench.options import Options
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
