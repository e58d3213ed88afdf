"""When checkpoints are written, and what of them stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fer_bench import checkpoints
from fer_bench.cards import Track
from fer_bench.errors import UserError
from fer_bench.weights import read_tensors
from tests.helpers import write_folder
from tests.test_train import run


@pytest.fixture
def track(tmp_path: Path) -> Track:
    """A track over a tiny folder of learnable pictures."""
    name = f"folder:{write_folder(tmp_path / 'data')}"
    return Track(name, name, name, (), trained_on=name)


def test_no_more_time_goes_into_writing_than_into_training(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a checkpoint takes as long as three epochs it is written in the first, the fourth and the last, with
    the best weights up to then; the model is that of a run that wrote every time."""
    whole = read_tensors(run(track, tmp_path / "whole", epochs=6).fit())[0]
    clock, written = [0.0], []
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    write = checkpoints.write_checkpoint

    def slow(path: Path, identity: dict, state: dict, *rest: object) -> None:
        write(path, identity, state, *rest)
        assert (path.parent / state["kept"]).is_file()
        written.append(len(state["curve"]))
        clock[0] += 3

    monkeypatch.setattr(checkpoints, "write_checkpoint", slow)
    training = run(track, tmp_path / "slow", epochs=6)
    validated = training.validate

    def after_an_epoch() -> float:
        clock[0] += 1
        return validated()

    monkeypatch.setattr(training, "validate", after_an_epoch)
    found = read_tensors(training.fit())[0]
    assert written == [1, 4, 6]
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_run_resumed_from_an_earlier_checkpoint_ends_alike(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when two epochs were not written yet, it repeats them and gives the weights of an unbroken run."""
    whole = read_tensors(run(track, tmp_path / "whole").fit())[0]
    monkeypatch.setattr(checkpoints.Keeper, "due", lambda self: self.cost == 0)
    training = run(track, tmp_path / "killed")
    epoch = training.epoch

    def killed(*given: object) -> tuple[bool, float]:
        if len(training.state["curve"]) == 3:
            raise KeyboardInterrupt
        return epoch(*given)

    monkeypatch.setattr(training, "epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        training.fit()
    assert len(read_tensors(training.folder / "last.safetensors")[1]["state"]["curve"]) == 1
    resumed = read_tensors(run(track, tmp_path / "killed", resume=True).fit())[0]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_what_killed_writes_left_is_removed(track: Track, tmp_path: Path) -> None:
    """A file that was never finished goes when the run goes on; those of others stay."""
    folder = run(track, tmp_path / "out", epochs=1).fit().parent
    torn, other = folder / "last.safetensorsab12.part", folder / "notes.part"
    torn.write_bytes(b"x")
    other.write_bytes(b"x")
    run(track, tmp_path / "out", epochs=1, resume=True).fit()
    assert (torn.exists(), other.exists()) == (False, True)


def test_a_first_epoch_cut_sooner_does_not_take_the_place_of_one_cut_later(track: Track, tmp_path: Path) -> None:
    """Neither left a checkpoint: the weights that saw more pictures stay."""
    model = run(track, tmp_path / "out", max_minutes=1e-9).fit()
    told = json.loads((model.parent / "record.json").read_text())
    told["trained"]["pictures_seen"] += 1
    (model.parent / "record.json").write_text(json.dumps(told))
    before = model.read_bytes()
    again = run(track, tmp_path / "out", max_minutes=1e-9, resume=True, seed=0)
    assert again.fit() == model
    assert model.read_bytes() == before
    assert json.loads((model.parent / "record.json").read_text()) == told


def test_what_a_cut_left_is_removed_once_it_is_not_needed(track: Track, tmp_path: Path) -> None:
    """Weights of a cut epoch go when the run has gone on to a checkpoint of its own."""
    folder = run(track, tmp_path / "out", max_minutes=1e-9).fit().parent
    assert (folder / "cut.safetensors").is_file()
    run(track, tmp_path / "out", resume=True).fit()
    assert not (folder / "cut.safetensors").exists()


def test_minutes_do_not_replace_a_longer_run_whose_checkpoint_is_gone(track: Track, tmp_path: Path) -> None:
    """--resume finds nothing to go on from, and --max-minutes may end the new run after a part of the old one's."""
    model = run(track, tmp_path / "out").fit()
    (model.parent / "last.safetensors").unlink()
    before = model.read_bytes()
    with pytest.raises(UserError, match="holds a run already, which saw 112 pictures, and this one may end sooner"):
        run(track, tmp_path / "out", resume=True, max_minutes=1e-9).fit()
    assert model.read_bytes() == before
