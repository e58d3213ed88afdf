"""A run that is killed in a write: what is on the disk belongs together, whichever write it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from fer_bench import checkpoints
from fer_bench.cards import Track
from fer_bench.methods.base import Method
from fer_bench.train import Run
from fer_bench.weights import read_tensors
from tests.helpers import write_folder
from tests.test_train import STAGED, TINY, run

VALUES = (0.3, 0.5, 0.4, 0.6, 0.55, 0.7, 0.1)


class Killed(BaseException):
    """The process is gone: what follows in it no longer happens."""


@pytest.fixture
def track(tmp_path: Path) -> Track:
    """A track over a tiny folder of learnable pictures."""
    name = f"folder:{write_folder(tmp_path / 'faces', per_class=2)}"
    return Track(name, name, name, (), trained_on=name)


def validated(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, torch.Tensor]]:
    """Validation reads VALUES by the epoch's number. Returns epoch -> the network that was validated then."""
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def validate(self: Run) -> float:
        done = len(self.state["curve"])
        seen[done + 1] = {name: tensor.clone() for name, tensor in self.judged.state_dict().items()}
        return VALUES[done]

    monkeypatch.setattr(Run, "validate", validate)
    return seen


@pytest.mark.parametrize("method", [TINY, STAGED])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_killed_in_any_write_the_best_weights_are_those_that_last_counts_on(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, every: int
) -> None:
    """Whichever write a kill falls into, `last` names weights of the epoch that it calls the best, and resumed, the
    run ends as if it had never been killed."""
    seen = validated(monkeypatch)
    whole, record = read_tensors(run(track, tmp_path / "whole", method, epochs=7).fit())
    asked, write, copies = [0], checkpoints.write_tensors, []

    def due(_keeper: object) -> bool:
        asked[0] += 1
        return asked[0] % every == 1 % every

    def watched(path: Path, *given: object) -> None:
        copies.append(shutil.copytree(tmp_path / "killed", tmp_path / f"copy{len(copies)}"))
        write(path, *given)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Keeper, "due", due)
        patched.setattr(checkpoints, "write_tensors", watched)
        run(track, tmp_path / "killed", method, epochs=7).fit()
    assert len(copies) > 5
    for copy in copies:
        last = next(copy.rglob("last.safetensors"), None)
        if last is not None:
            state = read_tensors(last)[1]["state"]
            kept, expected = read_tensors(last.parent / state["kept"])[0], seen[state["best_epoch"]]
            assert all(torch.equal(kept[name], expected[name].contiguous()) for name in expected)
        resumed, again = read_tensors(run(track, copy, method, epochs=7, resume=True).fit())
        assert again["trained"]["best_epoch"] == record["trained"]["best_epoch"] == 6
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_one_file_of_best_weights_stays(track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that `last` no longer counts on go once it counts on others, those of an older version too."""
    validated(monkeypatch)
    folder = run(track, tmp_path / "out", epochs=7).fit().parent
    assert [path.name for path in folder.glob("best*")] == ["best-6.safetensors"]
    for name in ("best.safetensors", "best-5.safetensors"):
        shutil.copy(folder / "best-6.safetensors", folder / name)
    run(track, tmp_path / "out", epochs=7).fit()
    assert [path.name for path in folder.glob("best*")] == ["best-6.safetensors"]


def test_a_checkpoint_whose_best_weights_have_the_older_name_is_resumed(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs were begun when they were called best.safetensors: they go on with them, and to the same end."""
    validated(monkeypatch)
    whole, _ = read_tensors(run(track, tmp_path / "whole", epochs=7).fit())
    for stop in (3, 6):  # before an epoch that is better, and after the last that is
        stopped, epoch = run(track, tmp_path / str(stop), epochs=7), Run.epoch

        def stopping(self: Run, *given: object, stop: int = stop, epoch: object = epoch) -> tuple[bool, float]:
            if len(self.state["curve"]) == stop:
                raise Killed
            return epoch(self, *given)

        with monkeypatch.context() as patched:
            patched.setattr(checkpoints.Keeper, "due", lambda _keeper: True)
            patched.setattr(Run, "epoch", stopping)
            with pytest.raises(Killed):
                stopped.fit()
        last = stopped.folder / "last.safetensors"
        tensors, record = read_tensors(last)
        (stopped.folder / record["state"]["kept"]).rename(stopped.folder / "best.safetensors")
        record["state"]["kept"] = "best.safetensors"
        checkpoints.write_tensors(last, tensors, record)
        resumed, _ = read_tensors(run(track, tmp_path / str(stop), epochs=7, resume=True).fit())
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)
