"""Methods trained at the same time, each in a process of its own: `fer_bench.train --at-once N`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fer_bench import side_by_side
from fer_bench.infer import one_thread
from fer_bench.options import arguments_from, arguments_of
from fer_bench.train import main
from fer_bench.weights import read_tensors
from tests.helpers import write_folder

NAMES = ("deep_emotion", "reference_tiny", "deep_emotion_sequential")


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """The command line that trains three small networks on a tiny folder, two at a time."""
    data = f"folder:{write_folder(tmp_path / 'faces', per_class=2)}"
    common = ["--track", data, "--epochs", "1", "--device", "cpu", "--out", str(tmp_path / "out")]
    return ["--method", *NAMES, "--at-once", "2", *common]


def trained(out: Path) -> dict[str, Path]:
    """Method -> its model."""
    return {path.parts[-3]: path for path in out.rglob("model.safetensors")}


def test_weights_are_those_of_one_after_the_other(command: list[str], tmp_path: Path) -> None:
    """Each trains as it would alone; one that cannot is told of once and does not stop the others."""
    ahead = ["--method", "deep_emotion", "--epochs", "3", *command[command.index("--track") :][:2]]
    assert main([*ahead, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    kept = trained(tmp_path / "out")["deep_emotion"].read_bytes()
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    call = [sys.executable, "-m", "fer_bench.train", *command]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    said = done.stderr
    assert said.count("holds a run already, which saw 42 pictures, and this one will see 14") == 1
    assert said.endswith("1 of 3 methods were not trained\n")
    assert "reference_tiny on" in said
    assert "Warning" not in said
    side = trained(tmp_path / "out")
    assert sorted(side) == sorted(NAMES)
    assert side["deep_emotion"].read_bytes() == kept
    alone = [part for part in command if part not in ("--at-once", "2")]
    with one_thread():  # as each of the two processes had
        assert main([*alone[: alone.index("--out")], "--out", str(tmp_path / "alone")]) == 0
    for name in NAMES[1:]:
        ours, theirs = (read_tensors(found[name])[0] for found in (side, trained(tmp_path / "alone")))
        assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items()), name


def test_what_fails_alike_with_all_is_told_once(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ahead of any process: data that is not there, no time, and options that do not go together."""
    assert main([*command, "--total-minutes", "1e-9"]) == 0
    assert f"no time was left for {', '.join(NAMES)}; go on with --resume" in capfd.readouterr().err
    command[command.index("--track") + 1] = f"folder:{tmp_path / 'gone'}"
    assert main(command) == 2
    assert capfd.readouterr().err.count("gone") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as refused:
        main(["--grid", "grid.yaml", "--at-once", "2"])
    assert refused.value.code == 2
    assert "python -m fer_bench.sweep FILE --workers N" in capfd.readouterr().err


def test_a_launcher_beside_it_is_refused(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two processes would each start their own."""
    monkeypatch.setattr("fer_bench.distributed.Processes.world", 2)
    monkeypatch.setattr(side_by_side, "context", lambda _: pytest.fail("a process was started"))
    given = arguments_from(command)
    with pytest.raises(side_by_side.UserError, match="leave out the launcher, or --at-once"):
        side_by_side.train_side_by_side(NAMES, given, None, None, side_by_side.Processes(world=2))


@pytest.mark.parametrize(
    "options",
    [
        ["--all", "--stream", "--resume", "--recipe", "paper", "--seed", "3", "--patience", "0"],
        ["--missing", "--no-stream", "--limit", "9", "--limit-validation", "5", "--start-from", "shipped"],
        ["--method", "a", "b", "--epochs", "2", "--max-minutes", "0.25", "--total-minutes", "7", "--out", "a b"],
    ],
)
def test_each_process_gets_its_share_of_the_command_line(options: list[str]) -> None:
    """All that was given, with one method, its device and the minutes that are left."""
    given = arguments_from([*options, "--at-once", "4"])
    share = arguments_from(arguments_of(given, method="resnet18", device="cuda:1", total=2.5))
    own = {
        "method": ["resnet18"],
        "device": "cuda:1",
        "total_minutes": 2.5,
        "at_once": 1,
        "all": False,
        "missing": False,
    }
    assert vars(share) == vars(given) | own
    assert arguments_from(arguments_of(given, method="resnet18", device="cpu", total=None)).total_minutes is None


class Started:
    """A process that ends when `Clock` says so."""

    def __init__(self, argv: list[str], threads: int) -> None:
        self.given, self.threads = arguments_from(argv), threads
        self.alive, self.exitcode, self.ended = True, 0, []

    def start(self) -> None: ...

    def is_alive(self) -> bool:
        return self.alive

    def terminate(self) -> None:
        self.ended.append("terminate")

    def join(self, timeout: float | None = None) -> None:
        self.ended.append("join")

    def kill(self) -> None:
        self.ended.append("kill")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    """The processes that were started; each look at them takes a minute, and the oldest alive ends with it."""
    made: list[Started] = []

    class Context:
        @staticmethod
        def Process(target: object, args: tuple) -> Started:  # noqa: N802 (multiprocessing's own name)
            made.append(Started(*args))
            return made[-1]

    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

        @classmethod
        def sleep(cls, _seconds: float) -> None:
            cls.now += 60
            for process in [process for process in made if process.alive][:1]:
                process.alive = False

    monkeypatch.setattr(side_by_side, "context", lambda _: Context)
    monkeypatch.setattr(side_by_side, "time", Clock)
    monkeypatch.setattr(side_by_side, "splits_of", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    return made


def run(*options: str) -> int:
    given = arguments_from(["--method", *NAMES, "--at-once", "3", *options])
    track = side_by_side.Track("t", "T", "fer2013", (), trained_on="t")
    names = [*NAMES, "small_cnn", "resnet18"]
    return side_by_side.train_side_by_side(names, given, track, side_by_side.Options(), side_by_side.Processes())


def test_accelerators_cores_and_minutes_are_shared(made: list[Started], capsys: pytest.CaptureFixture[str]) -> None:
    """The least busy device, an even part of the cores, and the minutes that are left when its turn comes."""
    assert run("--total-minutes", "1.5") == 0
    assert [one.given.device for one in made] == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]
    assert [one.given.total_minutes for one in made] == [1.5, 1.5, 1.5, 0.5]
    assert {one.threads for one in made} == {2}
    assert capsys.readouterr().err == "no time was left for resnet18; go on with --resume\n"


def test_one_device_that_was_named_is_everyones(made: list[Started]) -> None:
    """And without a limit none is passed on."""
    assert run("--device", "cuda:1") == 0
    assert {one.given.device for one in made} == {"cuda:1"}
    assert {one.given.total_minutes for one in made} == {None}
    assert [one.given.method for one in made] == [[name] for name in (*NAMES, "small_cnn", "resnet18")]


def test_a_process_that_dies_is_told_of(made: list[Started], capsys: pytest.CaptureFixture[str]) -> None:
    """One that was killed has not told why; one that failed has."""

    class Ends(Started):
        def is_alive(self) -> bool:
            self.exitcode = {"deep_emotion": -signal.SIGKILL, "small_cnn": 1}.get(self.given.method[0], 0)
            return self.alive

    made_by = side_by_side.context("")
    made_by.Process = staticmethod(lambda target, args: made.append(Ends(*args)) or made[-1])
    assert run() == 1
    told = "deep_emotion: its process died of SIGKILL; go on with --resume\n2 of 5 methods were not trained\n"
    assert capsys.readouterr().err == told


def test_ctrl_c_ends_all_after_their_last_full_epochs(made: list[Started], monkeypatch: pytest.MonkeyPatch) -> None:
    """All are told first, so that they write at the same time; then each is waited for."""

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side.time, "sleep", interrupted)
    order: list[int] = []
    terminate = Started.terminate
    monkeypatch.setattr(Started, "terminate", lambda self: order.append(made.index(self)) or terminate(self))
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(made) == 3
    assert order[:3] == [0, 1, 2]
    assert all(one.ended[:3] == ["terminate", "terminate", "join"] for one in made)
