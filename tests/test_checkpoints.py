"""When checkpoints are written, and what of them stays."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fer_bench import checkpoints
from fer_bench.cards import Track
from fer_bench.errors import UserError
from fer_bench.methods import METHODS
from fer_bench.methods.base import Method, Stage
from fer_bench.train import Run, main
from fer_bench.weights import read_tensors
from tests.helpers import write_folder
from tests.test_train import RECIPE, STAGED, TINY, run
from tests.test_train_folder import Killed


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
            raise Killed
        return epoch(*given)

    monkeypatch.setattr(training, "epoch", killed)
    with pytest.raises(Killed):
        training.fit()
    assert len(read_tensors(training.folder / "last.safetensors")[1]["state"]["curve"]) == 1
    resumed = read_tensors(run(track, tmp_path / "killed", resume=True).fit())[0]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def stopping(monkeypatch: pytest.MonkeyPatch, stop: Callable[[], object], after: int = 3) -> None:
    """`stop` is called in the epoch after so many, and no checkpoint but the first is worth its time before it."""
    epoch = Run.epoch

    def watched(self: Run, *given: object) -> tuple[bool, float]:
        answer = epoch(self, *given)  # so that the network is no longer what the last full epoch left
        if len(self.state["curve"]) == after:
            stop()
        return answer

    monkeypatch.setattr(checkpoints.Keeper, "due", lambda self: self.cost == 0)
    monkeypatch.setattr(Run, "epoch", watched)


def interrupt() -> None:
    raise KeyboardInterrupt


def leave() -> None:
    raise SystemExit(-1)


@pytest.mark.parametrize("method", [TINY, STAGED])
@pytest.mark.parametrize("stop", [interrupt, leave])
def test_what_is_stopped_by_hand_writes_its_last_full_epoch(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Callable[[], object], method: Method
) -> None:
    """Ctrl-C in the fourth epoch, when two full ones were not on the disk: resumed, only that one is trained again."""
    recipe = replace(RECIPE, ema=0.9, epochs=6)
    whole = read_tensors(run(track, tmp_path / "whole", method, recipe).fit())[0]
    with monkeypatch.context() as patched:
        stopping(patched, stop)
        training = run(track, tmp_path / "stopped", method, recipe)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            training.fit()
    state = read_tensors(training.folder / "last.safetensors")[1]["state"]
    assert [row[0] for row in state["curve"]] == [1, 2, 3]
    assert [path.name for path in training.folder.glob("best*")] == [state["kept"]]
    resumed = read_tensors(run(track, tmp_path / "stopped", method, recipe, resume=True).fit())[0]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_ctrl_c_in_a_write_does_not_lose_what_was_being_written(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither file of it, whichever it falls into."""
    write = checkpoints.write_tensors
    for stopped in range(2, 6):  # each of the two files of the second epoch and of the third
        asked = iter(range(10))

        def interrupted(path: Path, *given: object, asked: Iterator = asked, stopped: int = stopped) -> None:
            if next(asked) == stopped:
                raise KeyboardInterrupt
            write(path, *given)

        training = run(track, tmp_path / str(stopped))
        values = iter((0.1, 0.2, 0.3, 0.4))
        with monkeypatch.context() as patched:
            patched.setattr(training, "validate", lambda values=values: next(values))
            patched.setattr(checkpoints.Keeper, "due", lambda self: True)
            patched.setattr(checkpoints, "write_tensors", interrupted)
            with pytest.raises(KeyboardInterrupt):
                training.fit()
        state = read_tensors(training.folder / "last.safetensors")[1]["state"]
        assert len(state["curve"]) == stopped // 2 + 1
        assert (training.folder / state["kept"]).is_file()


def test_sigterm_stops_as_ctrl_c_does(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm, Docker and torchrun end a process so: it writes, says how to go on and ends with exit code 1."""
    monkeypatch.setitem(METHODS._entries, "deep_emotion", TINY)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # else it would end the tests
    try:
        stopping(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        command = ["--method", "deep_emotion", "--track", track.name, "--device", "cpu", "--epochs", "6"]
        assert main([*command, "--out", str(tmp_path / "out")]) == 1
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "go on with --resume" in capsys.readouterr().err
    (last,) = (tmp_path / "out").rglob("last.safetensors")
    assert len(read_tensors(last)[1]["state"]["curve"]) == 3


def test_the_end_of_the_minutes_writes_the_last_full_epoch(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the fourth epoch, when two full ones were not on the disk, a run goes on from the third."""
    whole = read_tensors(run(track, tmp_path / "whole", epochs=6).fit())[0]
    cut = run(track, tmp_path / "cut", epochs=6, max_minutes=1.0)
    epoch = cut.epoch

    def late(*given: object) -> tuple[bool, float]:
        in_time, loss = epoch(*given)
        return in_time and len(cut.state["curve"]) < 3, loss

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Keeper, "due", lambda self: self.cost == 0)
        patched.setattr(cut, "epoch", late)
        cut.fit()
    assert len(read_tensors(cut.folder / "last.safetensors")[1]["state"]["curve"]) == 3
    resumed = read_tensors(run(track, tmp_path / "cut", epochs=6, resume=True).fit())[0]
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


def test_a_checkpoint_of_a_network_that_has_changed_is_refused(
    track: Track, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence with the file and the mend, exit code 2: other tensors, or an optimiser of other parameters."""
    narrow = replace(TINY, build=lambda classes: torch.nn.Sequential(*list(TINY.build(classes))[:-1]))
    part = replace(TINY, stages=(Stage("main", parameters=lambda network: network[-1].parameters()),))
    training = run(track, tmp_path / "out")
    with monkeypatch.context() as patched:
        stopping(patched, interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.fit()
    for method in (narrow, part):
        monkeypatch.setitem(METHODS._entries, "deep_emotion", method)
        monkeypatch.setattr("fer_bench.train.recipe_for", lambda *_: RECIPE)
        command = ["--method", "deep_emotion", "--track", track.name, "--device", "cpu", "--resume"]
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert line.startswith(f"{training.folder / 'last.safetensors'}: the network has changed since this checkpoint")
        assert line.endswith("; remove its folder, or leave out --resume.")
