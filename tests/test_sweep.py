"""Sweeps: killed workers are retried, finished cells never run again, the table fills, whichever engine runs them."""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fer_bench import grid, train
from fer_bench.files import OutputError
from fer_bench.options import Options
from fer_bench.sweep import engines, main
from fer_bench.sweep.engines import Board, drive
from tests.helpers import write_folder

SWEEPS = Path(__file__).parents[1] / "leaderboard" / "sweeps"
BASE = "method: deep_emotion\nbatch_size: 4\n"
EPOCHS = 30
KILLED_AND_KEPT = f"{BASE}epochs: {EPOCHS}\nseed: [0, 1]\n"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A tiny folder of learnable pictures, as a track."""
    return f"folder:{write_folder(tmp_path / 'data', per_class=1)}"


def sweep(tmp_path: Path, data: str, text: str, *more: str) -> int:
    """Write the file and sweep it from the command line."""
    (tmp_path / "tiny.yaml").write_text(text)
    command = [str(tmp_path / "tiny.yaml"), "--track", data, "--device", "cpu", "--out", str(tmp_path / "runs")]
    return main([*command, *more])


def table(tmp_path: Path, seeds: bool = False) -> list[dict[str, str]]:
    """The rows of the CSV, or of the one that sums up the seeds; there is one of each."""
    (path,) = (p for p in (tmp_path / "runs").glob("tiny-*.csv") if p.stem.endswith("-seeds") == seeds)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def logs(tmp_path: Path) -> dict[str, str]:
    """Cell's folder, by name -> all that its workers said."""
    return {path.parent.name: path.read_text() for path in (tmp_path / "runs").rglob("log.txt")}


def workers(log: str) -> list[int]:
    """Process ids of a cell's workers, in order."""
    return [int(number) for number in re.findall(r"process (\d+) on ", log)]


def kill_workers(tmp_path: Path, times: int, seconds: float = 300) -> threading.Thread:
    """Start a thread that kills -9 so many workers of the first cell that trains, each after its first epoch."""

    def run() -> None:
        killed: list[int] = []
        end = time.monotonic() + seconds
        while len(killed) < times and time.monotonic() < end:
            time.sleep(0.01)
            for log in sorted((tmp_path / "runs").rglob("*-s0/log.txt")):
                running = workers(log.read_text())
                if (log.parent / "last.safetensors").is_file() and running and running[-1] not in killed:
                    killed.append(running[-1])
                    os.kill(running[-1], signal.SIGKILL)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "engine",
    ["process", pytest.param("submitit", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.slow)],
)
def test_a_killed_worker_is_retried_and_nothing_is_run_twice(tmp_path: Path, data: str, engine: str) -> None:
    """A worker killed in mid-training is replaced and resumes; called again, no engine trains anything."""
    if engine != "process":
        pytest.importorskip("ray.tune" if engine == "ray" else engine)
    killer = kill_workers(tmp_path, times=1)
    assert sweep(tmp_path, data, KILLED_AND_KEPT, "--engine", engine) == 0
    killer.join(1)
    assert [(row["ended"], row["epochs_run"]) for row in table(tmp_path)] == [("complete", str(EPOCHS))] * 2
    said = logs(tmp_path)
    first, second = (said[name] for name in sorted(said))
    assert (len(workers(first)), len(workers(second))) == (2, 1)
    assert first.count(f" epoch 1/{EPOCHS} ") == 1, "the second worker resumed"
    (means,) = table(tmp_path, seeds=True)
    assert (means["seeds"], means["finished"]) == ("2", "2")
    assert sweep(tmp_path, data, KILLED_AND_KEPT, "--engine", engine) == 0
    again = ["--grid", str(tmp_path / "tiny.yaml"), "--track", data, "--device", "cpu"]
    assert train.main([*again, "--out", str(tmp_path / "runs")]) == 0
    assert logs(tmp_path) == said


def test_cells_may_stream_their_pictures(tmp_path: Path, data: str) -> None:
    """A worker of the process engine may have workers of its own, which decode for it."""
    assert sweep(tmp_path, data, f"{BASE}epochs: 1\n", "--engine", "process", "--stream") == 0
    assert [row["ended"] for row in table(tmp_path)] == ["complete"]


def test_a_cell_whose_workers_always_die_does_not_end_the_sweep(tmp_path: Path, data: str) -> None:
    """After three deaths a cell is a failure in the table, the next one is trained, and another call mends it."""
    killer = kill_workers(tmp_path, times=3)
    assert sweep(tmp_path, data, KILLED_AND_KEPT, "--engine", "process") == 1
    killer.join(1)
    assert {row["seed"]: row["ended"] for row in table(tmp_path)} == {
        "0": "failed: its worker died 3 times, the last time of SIGKILL", "1": "complete",
    }  # fmt: skip
    before = {name: len(workers(log)) for name, log in logs(tmp_path).items()}
    assert sweep(tmp_path, data, KILLED_AND_KEPT, "--engine", "process") == 0
    after = {name: len(workers(log)) for name, log in logs(tmp_path).items()}
    assert sorted(before.values()) == [1, 3]
    assert sorted(after.values()) == [1, 4]
    assert [row["ended"] for row in table(tmp_path)] == ["complete"] * 2


def test_ctrl_c_ends_the_workers_and_leaves_the_sweep_resumable(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped by hand, no child is left over; the same command goes on from the last full epoch."""
    text = f"{BASE}epochs: {EPOCHS}\n"

    class Clock:
        """Ctrl-C comes after the first epoch."""

        @staticmethod
        def sleep(_seconds: float) -> None:
            time.sleep(0.01)
            if list((tmp_path / "runs").rglob("last.safetensors")):
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(engines, "time", Clock)
        assert sweep(tmp_path, data, text, "--engine", "process") == 1
    assert "the same command goes on from here" in capsys.readouterr().err
    assert multiprocessing.active_children() == []
    assert [row["ended"] for row in table(tmp_path)] == ["not finished"]
    assert sweep(tmp_path, data, text, "--engine", "process") == 0
    (log,) = logs(tmp_path).values()
    assert len(workers(log)) == 2
    assert log.count(f" epoch 1/{EPOCHS} ") == 1


@dataclass(frozen=True)
class Stopped:
    """Work that is told to end while it runs, as `Child.cancel` does it."""

    told: Path

    def __call__(self, number: int) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt:
            self.told.write_text(f"cell {number} may write its last full epoch")
            raise


def test_a_worker_that_is_stopped_may_write_its_last_full_epoch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM reaches training as Ctrl-C would; the worker ends without a traceback, and its exit code says why."""
    process = multiprocessing.get_context("spawn").Process(target=engines._child, args=(Stopped(tmp_path / "told"), 4))
    process.start()
    process.join(120)
    assert (tmp_path / "told").read_text() == "cell 4 may write its last full epoch"
    assert process.exitcode == 128 + signal.SIGTERM
    assert "Traceback" not in capfd.readouterr().err


def test_faults_that_another_try_would_not_mend_are_not_tried_again_at_once(tmp_path: Path, data: str) -> None:
    """A refusal is kept with its sentence, a diverged loss ends a cell for good; one worker each, two at a time."""
    common = "method: deep_emotion, epochs: 1, batch_size: 4"
    text = f"- {{{common}, limit: 1}}\n- {{{common}, lr: 1e30}}\n"
    assert sweep(tmp_path, data, text, "--engine", "process", "--workers", "2") == 1
    refused, diverged = "failed: 1 training picture(s) are too few; at least 2 are needed.", "the loss was not finite"
    assert sorted(row["ended"] for row in table(tmp_path)) == [refused, diverged]
    assert [len(workers(log)) for log in logs(tmp_path).values()] == [1, 1]


class Fake:
    """A worker that has ended before it is first looked at, badly where it has a fault; and that can be cancelled."""

    def __init__(self, number: int, fault: str = "", ends: bool = True) -> None:
        self.number, self.died_of, self.ends, self.cancelled = number, fault, ends, False

    def done(self) -> bool:
        return self.ends

    def fault(self) -> str:
        return self.died_of

    def cancel(self) -> None:
        self.cancelled = True


class Quiet(Board):
    """A board on which no cell is ever finished, and that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(None, [])  # type: ignore[arg-type]
        self.told: list[tuple] = []

    def finished(self, number: int) -> bool:
        return False

    def started(self, number: int) -> None:
        self.attempts[number] += 1
        self.told.append(("started", number))

    def retried(self, number: int, fault: str) -> None:
        self.told.append(("retried", number))

    def ended(self, number: int, fault: str = "") -> None:
        self.told.append(("ended", number, fault))


def test_the_order_of_retries() -> None:
    """With one worker, a dead cell is tried twice more before the next one starts."""
    board = Quiet()
    drive([0, 1], lambda chosen: [Fake(n, "of SIGKILL" if n == 0 else "") for n in chosen], board, 1, 0)
    tried = [("started", 0), ("retried", 0)]
    assert board.told == [*tried * 2, ("started", 0), ("ended", 0, "of SIGKILL"), ("started", 1), ("ended", 1, "")]


def test_no_more_workers_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cells on two workers: the third starts when one has ended; an error ends those that are left."""
    board, made = Quiet(), dict[int, Fake]()

    def launch(chosen: list[int]) -> list[Fake]:
        made.update({number: Fake(number, ends=number != 1) for number in chosen})
        if 2 in chosen:
            raise RuntimeError("no room")
        return [made[number] for number in chosen]

    with pytest.raises(RuntimeError, match="no room"):
        drive([0, 1, 2], launch, board, 2, 0)
    assert board.told == [("started", 0), ("started", 1), ("ended", 0, ""), ("started", 2)]
    assert made[1].cancelled
    assert not made[0].cancelled


def test_a_dry_run_lists_the_cells_and_trains_nothing(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell is a line with what became of it; nothing is written."""
    assert sweep(tmp_path, data, BASE + "lr: [0.1, 0.2]\n", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "1: method deep_emotion, batch_size 4, lr 0.1: not finished",
        "2: method deep_emotion, batch_size 4, lr 0.2: not finished",
    ]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        (BASE, ["--engine", "ray", "--slurm", "partition=a"], "--slurm goes with --engine submitit"),
        (BASE, ["--slurm", "partition"], "--slurm takes KEY=VALUE, such as partition=gpu, not 'partition'"),
        (BASE, ["--track", "rendered"], "rendered is a track to test on only"),
        (BASE, ["--method", "smal_cnn"], "Did you mean 'small_cnn'"),
        ("lr: 1\n", [], "no method; add `method: small_cnn` or give --method"),
        (BASE + "epochs: 0\n", [], "epochs must be at least 1"),
        (BASE, ["--engine", "submitit"], "submitit is missing: pip install 'fer_bench[sweep]'"),
        (BASE, ["--engine", "ray"], "ray is missing: pip install 'fer_bench[sweep]'"),
        (BASE, ["--device", "cuda:99"], "there is no device 'cuda:99' here; leave out --device, or give cpu."),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, data: str, text: str, more: list[str], says: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Wrong use and missing packages are exit code 2 and one sentence that names the mend."""
    for name in ("ray", "ray.tune", "submitit"):
        monkeypatch.setitem(sys.modules, name, None)
    assert sweep(tmp_path, data, text, *more) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_is_no_wrong_use(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be written while cells are trained is exit code 1; an --out that is a file is 2."""

    def full(*_: object) -> None:
        raise OutputError("runs/grid.csv cannot be written: no space left.")

    monkeypatch.setattr("fer_bench.sweep.__main__.write_table", full)
    assert sweep(tmp_path, data, BASE, "--engine", "process") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "runs/grid.csv cannot be written: no space left."
    (tmp_path / "file").write_text("")
    assert sweep(tmp_path, data, BASE, "--out", str(tmp_path / "file" / "runs")) == 2
    assert "no folder can be made here" in capsys.readouterr().err


@pytest.mark.parametrize("gpus", ["-1", "nan", "inf"])
def test_a_share_of_accelerators_that_makes_no_sense_is_refused(
    tmp_path: Path, data: str, gpus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """--gpus takes finite numbers from 0 on; anything else is wrong use, with the number."""
    with pytest.raises(SystemExit) as caught:
        sweep(tmp_path, data, BASE, "--dry-run", "--gpus", gpus)
    assert caught.value.code == 2
    assert f"argument --gpus: must be a finite number, 0 or more, not {gpus}" in capsys.readouterr().err


def test_without_ray_tune_auto_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--engine auto` takes Ray Tune where it can be imported, else child processes."""
    monkeypatch.setitem(sys.modules, "ray.tune", None)
    assert engines.engine_named("auto")[0] == "process"
    monkeypatch.setattr(engines, "needed", lambda name: None)
    assert engines.engine_named("auto")[0] == "ray"


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("p0-tokens-pca", 4), ("p1-skip-guide", 3), ("p2-se-augmentation", 4), ("p3-transformer", 3),
        ("p4-augmentation", 2), ("p4-table3", 24), ("reference-ablation", 8),
        ("common-v1", 3), ("distillation", 4),
    ],
)  # fmt: skip
def test_the_shipped_sweeps(name: str, cells: int) -> None:
    """Each file that is shipped is a valid grid of its finding's size under three seeds; the README has its command."""
    file = SWEEPS / f"{name}.yaml"
    given = ["small_cnn"] if name == "common-v1" else []  # it is for the method that is asked about
    settings = grid.combinations(file, grid.read_axes(file), given)
    assert {one["seed"] for one in settings} == {0, 1, 2}
    assert len(settings) == 3 * cells
    assert f"python -m fer_bench.sweep leaderboard/sweeps/{name}.yaml" in (SWEEPS / "README.md").read_text()


def test_every_shipped_sweep_is_tested() -> None:
    """No file lies in leaderboard/sweeps that the test above does not know."""
    assert len(list(SWEEPS.glob("*.yaml"))) == 9


def test_the_networks_of_table_3() -> None:
    """P4's 24 networks are built, each of another size; its best (6 layers, kernel 2) has the paper's parameters."""
    file, track = SWEEPS / "p4-table3.yaml", grid.Track("t", "T", "fer2013", (), trained_on="t")
    combined = [one for one in grid.combinations(file, grid.read_axes(file), []) if one["seed"] == 0]
    cells = [grid.cell_of(file, one, track, "paper", Options(), Path("o"), ["hash"]) for one in combined]
    with torch.device("meta"):  # sizes without memory: the largest has 70M parameters
        built = {(cell.settings["layers"], cell.settings["kernel"]): cell.method.build(7) for cell in cells}
    sizes = {key: sum(p.numel() for p in network.parameters()) for key, network in built.items()}
    assert sizes[6, 2] == 3_849_319
    assert len(set(sizes.values())) == 24
