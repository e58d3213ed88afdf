"""A grid whose cell fails, and one beside another: the others go on, and no cell is trained twice at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from fer_bench.datasets.base import ForbiddenSplitError
from fer_bench.errors import DataError, UserError
from fer_bench.files import OutputError
from fer_bench.train import Run
from tests.helpers import write_folder
from tests.test_grid import BASE, search, table

TWO = BASE + "lr: [9, 0.001]\n"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A tiny folder of learnable pictures, as a track."""
    return f"folder:{write_folder(tmp_path / 'data')}"


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[float]:
    """The cell of rate 9 ends with this error. Returns the rates of those that were tried, as they come."""
    fit, tried = Run.fit, []

    def one_fails(self: Run) -> Path:
        tried.append(self.recipe.lr)
        if self.recipe.lr == 9:
            raise error
        return fit(self)

    monkeypatch.setattr(Run, "fit", one_fails)
    return tried


def test_a_cell_that_lacks_something_does_not_end_the_grid(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one cell lacks (a guide, memory) is in the table, the others go on, and the next call tries it again."""
    fit, errors = Run.fit, {9.0: UserError("there is no guide here."), 8.0: torch.OutOfMemoryError("out of\nmemory")}

    def lacking(self: Run) -> Path:
        if self.recipe.lr in errors:
            raise errors[self.recipe.lr]
        return fit(self)

    monkeypatch.setattr(Run, "fit", lacking)
    assert search(tmp_path, data, BASE + "lr: [9, 8, 0.001]\n") == 1
    ended = {row["lr"]: row["ended"] for row in table(tmp_path)}
    assert ended["0.001"] == "complete"
    assert ended["9.0"].endswith("there is no guide here.")
    assert ended["8.0"].endswith("out of memory")
    monkeypatch.setattr(Run, "fit", fit)
    assert search(tmp_path, data, BASE + "lr: [9, 8, 0.001]\n") == 0
    assert {row["ended"] for row in table(tmp_path)} == {"complete"}


def test_a_library_that_fails_in_one_cell_does_not_end_the_grid(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its table line has the error and the screen where it happened; the others are trained, the exit code is 1, and
    the next call tries it again."""
    with monkeypatch.context() as patched:
        failing(patched, RuntimeError("cuDNN error:\nNOT_SUPPORTED"))
        assert search(tmp_path, data, TWO) == 1
    ended = {row["lr"]: row["ended"] for row in table(tmp_path)}
    assert ended == {"0.001": "complete", "9.0": "failed: RuntimeError: cuDNN error: NOT_SUPPORTED"}
    said = capsys.readouterr().err
    assert "one_fails" in said
    assert "1 failed, the same command tries them again" in said
    tried = failing(monkeypatch, RuntimeError("again"))
    assert search(tmp_path, data, TWO) == 1
    assert tried == [9]


@pytest.mark.parametrize("content", ['{"method": "deep_emo', "[]", '{"trained": {}}', b"\xff"])
@pytest.mark.parametrize("name", ["record.json", "failed.json"])
def test_a_broken_file_of_one_cell_does_not_end_the_grid(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes
) -> None:
    """Cut short by a power cut, it is named once; a cell without a record is brought to its end again, no other is."""
    text = TWO.replace("9", "0.002")
    assert search(tmp_path, data, text) == 0
    before = {row["folder"]: row for row in table(tmp_path)}
    broken, whole = map(Path, before)
    changed = (whole / "record.json").stat().st_mtime_ns
    (broken / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    capsys.readouterr()
    assert search(tmp_path, data, text) == 0
    said = capsys.readouterr().err
    assert said.count(f"{broken / name} is broken and passed over: its cell counts as not finished") == 1
    assert "Traceback" not in said
    assert {row["folder"]: row["ended"] for row in table(tmp_path)} == dict.fromkeys(before, "complete")
    assert json.loads((broken / "record.json").read_text())["method"] == "deep_emotion"
    assert (whole / "record.json").stat().st_mtime_ns == changed


@pytest.mark.parametrize("error", [ForbiddenSplitError("test"), DataError("no data"), OutputError("disk full")])
def test_what_concerns_every_cell_ends_the_grid(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A look at the test split is never passed over; missing data and a full disk end the others as well."""
    tried = failing(monkeypatch, error)
    if isinstance(error, ForbiddenSplitError):
        with pytest.raises(ForbiddenSplitError):
            search(tmp_path, data, TWO)
    else:
        assert search(tmp_path, data, TWO) == (1 if isinstance(error, OutputError) else 2)
    assert tried == [9]


def test_a_cell_that_another_process_trains_comes_last(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker of a sweep holds it: it is passed over, and trained once the worker has let it go."""
    text = TWO.replace("9", "0.002")
    fit, tried = Run.fit, []
    with monkeypatch.context() as patched:
        patched.setattr(Run, "fit", lambda self: tried.append(self.folder))
        search(tmp_path, data, text)
    first, second = tried
    tried.clear()
    lock = FileLock(first / "lock")
    lock.acquire()

    def watched(self: Run) -> Path:
        tried.append(self.folder)
        if lock.is_locked:
            lock.release()
        return fit(self)

    monkeypatch.setattr(Run, "fit", watched)
    capsys.readouterr()
    assert search(tmp_path, data, text) == 0
    assert tried == [second, first]
    assert "another process trains it, so the others come first" in capsys.readouterr().err
    assert [row["ended"] for row in table(tmp_path)] == ["complete"] * 2


def test_a_cell_that_another_process_has_finished_meanwhile_is_not_trained(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again once its turn has come."""
    assert search(tmp_path, data, BASE) == 0
    (row,) = table(tmp_path)
    record, hidden = Path(row["folder"]) / "record.json", tmp_path / "hidden.json"
    record.rename(hidden)
    acquire, tried = FileLock.acquire, []

    def finished_meanwhile(self: FileLock, *given: object, **more: object) -> object:
        if hidden.exists():
            os.replace(hidden, record)
        return acquire(self, *given, **more)

    monkeypatch.setattr(FileLock, "acquire", finished_meanwhile)
    monkeypatch.setattr(Run, "fit", lambda self: tried.append(self.folder))
    assert search(tmp_path, data, BASE) == 0
    assert tried == []
