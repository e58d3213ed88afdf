"""A run's folder: one process at a time trains in it, and an unfinished run is not lost to a shorter one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fer_bench import checkpoints
from fer_bench.cards import Track
from fer_bench.errors import UserError
from fer_bench.train import Run, main
from fer_bench.weights import read_tensors
from tests.helpers import write_folder
from tests.test_train import run

WAITING = """
import sys
from fer_bench import train
def waiting(run, *_):
    print("begun", flush=True)
    sys.stdin.read()
train.Run.epoch = waiting
train.main(sys.argv[1:])
"""


class Killed(BaseException):
    """The process is gone: what follows in it no longer happens."""


@pytest.fixture
def track(tmp_path: Path) -> Track:
    """A track over a tiny folder of learnable pictures."""
    name = f"folder:{write_folder(tmp_path / 'faces')}"
    return Track(name, name, name, (), trained_on=name)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def unfinished(track: Track, out: Path, monkeypatch: pytest.MonkeyPatch, epochs: int = 3, **options: object) -> Path:
    """A run of 4 epochs that was killed after so many of them; its folder."""
    killed, epoch = run(track, out, **options), Run.epoch

    def killing(self: Run, *given: object) -> tuple[bool, float]:
        if len(self.state["curve"]) == epochs:
            raise Killed
        return epoch(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Keeper, "due", lambda _keeper: True)
        patched.setattr(Run, "epoch", killing)
        with pytest.raises(Killed):
            killed.fit()
    assert not (killed.folder / "record.json").exists()
    return killed.folder


@pytest.mark.skipif(checkpoints.fcntl is None, reason="this system has no flock")
@pytest.mark.parametrize("resume", [False, True])
def test_a_second_process_in_a_folder_is_refused_until_the_first_has_ended(
    track: Track, tmp_path: Path, resume: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2, nothing of the first's is touched; and killed with -9 it is no longer in the way."""
    command = ["--method", "deep_emotion", "--track", track.name, "--epochs", "1", "--device", "cpu"]
    command += ["--out", str(tmp_path / "out"), *["--resume"] * resume]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    first = subprocess.Popen([sys.executable, "-c", WAITING, *command], **pipes)
    try:
        assert first.stdout.readline() == "begun\n"
        (lock,) = (tmp_path / "out").rglob(checkpoints.LOCK)
        (lock.parent / "best-1.safetensorsab12.part").write_bytes(b"which it is writing")
        (lock.parent / "last.safetensors").write_bytes(b"which it has written")
        before = content(lock.parent)
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{lock.parent}: another process trains in this folder; let it end")
        assert content(lock.parent) == before
    finally:
        first.kill()
        first.communicate()
    (lock.parent / "last.safetensors").unlink()
    assert main(command) == 0
    assert not list(lock.parent.glob("*.part"))


@pytest.mark.skipif(not hasattr(os, "fork") or checkpoints.fcntl is None, reason="this system forks no processes")
def test_what_a_run_has_forked_does_not_hold_its_folder(tmp_path: Path) -> None:
    """Processes that decode pictures live on for seconds where their parent is killed; its lock has ended with it."""
    begun, told = os.pipe()
    with checkpoints.held(tmp_path):
        child = os.fork()
        if not child:
            os.write(told, b"!")
            time.sleep(600)
            os._exit(0)
        assert os.read(begun, 1) == b"!"
        with pytest.raises(UserError, match="another process trains"), checkpoints.held(tmp_path):
            pytest.fail("held twice")
    try:
        with checkpoints.held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_disk_without_locks_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There two runs are not told apart; neither are they on a system that has no such locks."""
    if checkpoints.fcntl is not None:
        monkeypatch.setattr(checkpoints.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
        with checkpoints.held(tmp_path / "disk"):
            assert (tmp_path / "disk").is_dir()
    monkeypatch.setattr(checkpoints, "fcntl", None)
    with checkpoints.held(tmp_path / "system"):
        assert not list((tmp_path / "system").iterdir())


@pytest.mark.parametrize(
    ("less", "says"),
    [
        ({"max_minutes": 1e-9}, "may end sooner;"),
        ({"epochs": 2}, "will see 56;"),
        ({"limit": 14}, "will see 56;"),
    ],
)
def test_a_shorter_run_does_not_replace_an_unfinished_one(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, less: dict, says: str
) -> None:
    """Killed before it had a record, it counts by its checkpoint: refused with what to do, and every file stays."""
    folder = unfinished(track, tmp_path / "out", monkeypatch)
    before = content(folder)
    told = f"holds an unfinished run of 3 epoch.s., which saw 84 pictures, and this one {says} go on with --resume"
    with pytest.raises(UserError, match=told):
        run(track, tmp_path / "out", **less).fit()
    assert content(folder) == before
    model = run(track, tmp_path / "out", resume=True).fit()
    assert read_tensors(model)[1]["trained"]["pictures_seen"] == 112


def test_one_that_is_as_long_replaces_an_unfinished_run(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does a finished one; a checkpoint that its run's own record outweighs is not looked at."""
    unfinished(track, tmp_path / "out", monkeypatch)
    run(track, tmp_path / "out").fit()
    run(track, tmp_path / "out").fit()
    with pytest.raises(UserError, match="holds a run already, which saw 112 pictures, and this one will see 28"):
        run(track, tmp_path / "out", epochs=1).fit()


def test_an_unfinished_run_from_another_start_is_not_replaced(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a run from nothing take the place of one that was fine-tuned, the other way round, or what is broken."""
    start = str(run(track, tmp_path / "first", epochs=1).fit())
    folder = unfinished(track, tmp_path / "out", monkeypatch, 1)
    with pytest.raises(UserError, match="an unfinished run of 1 epoch.s., which had another start"):
        run(track, tmp_path / "out", start_from=start).fit()
    tuned = unfinished(track, tmp_path / "tuned", monkeypatch, 1, start_from=start)
    with pytest.raises(UserError, match="an unfinished run of 1 epoch.s., which had another start"):
        run(track, tmp_path / "tuned").fit()
    assert (tuned / "last.safetensors").is_file()
    (folder / "last.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="last.safetensors: this is no checkpoint to weigh; remove it"):
        run(track, tmp_path / "out").fit()


@pytest.mark.parametrize("named", ["folder:./faces/", "folder:{}/link"])
def test_a_folder_that_is_written_in_another_way_is_the_same(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """`--resume` goes on with the run on the same pictures, instead of beginning a second one beside it."""
    (tmp_path / "link").symlink_to(tmp_path / "faces")
    monkeypatch.chdir(tmp_path)
    command = ["--method", "deep_emotion", "--epochs", "2", "--resume", "--out", "runs", "--device", "cpu"]
    assert main([*command, "--track", track.name]) == 0
    (model,) = Path("runs").glob("*/*/*/model.safetensors")
    trained = model.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "epoch", lambda *_: pytest.fail("a second run was begun"))
        assert main([*command, "--track", named.format(tmp_path)]) == 0
    assert list(Path("runs").glob("*/*/*/model.safetensors")) == [model]
    assert model.read_bytes() == trained
    assert read_tensors(model)[1]["track"] == track.name
