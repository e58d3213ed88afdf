"""What a sweep gives its workers: accelerators and cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fer_bench import grid
from fer_bench.errors import UserError
from fer_bench.options import Options
from fer_bench.sweep import __main__ as command
from fer_bench.sweep import engines
from tests.helpers import write_folder
from tests.test_sweep import BASE, Quiet, sweep


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A tiny folder of learnable pictures, as a track."""
    return f"folder:{write_folder(tmp_path / 'data', per_class=1)}"


@pytest.mark.parametrize(
    ("device", "count", "gpus", "workers", "shared"),
    [
        ("auto", 2, None, 4, ("cuda:0", "cuda:1")),
        ("cuda", 2, 1.0, 2, ("cuda:0", "cuda:1")),
        ("auto", 2, 0.5, 4, ("cuda:0", "cuda:1")),
        ("auto", 2, 0.0, 4, ("cpu",)),
        ("cuda:1", 2, 0.5, 2, ()),
        ("auto", 0, None, 4, ()),
        ("cpu", 2, None, 4, ()),
    ],
)
def test_child_processes_share_the_accelerators(
    device: str, count: int, gpus: float | None, workers: int, shared: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that --device leaves open; --gpus 0 is the CPU, and a device that was named is everyone's."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert command.devices_for(device, gpus, workers) == shared


@pytest.mark.parametrize(
    ("device", "gpus", "workers", "says"),
    [
        ("auto", 1.0, 3, "3 cell.s. at a time cannot have 1 of an accelerator each, for there are 2; give fewer"),
        ("cuda:1", 0.5, 3, "3 cell.s. at a time cannot have 0.5 of an accelerator each, for there are 1;"),
        ("cpu", 1.0, None, "1 cell.s. at a time cannot have 1 of an accelerator each, for there are 0;"),
        ("auto", 2.0, 1, "trains on one accelerator at most, so that --gpus 2 gains nothing; give 1"),
        ("cuda", 0.0, 1, "--gpus 0 leaves no cell the device cuda"),
    ],
)
def test_gpus_that_child_processes_cannot_have_are_refused(
    device: str, gpus: float, workers: int | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than put all of them on one."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=says):
        command.devices_for(device, gpus, workers)


class Started:
    """A child process that is never started: what it was asked for, and whether it is alive."""

    def __init__(self, target: object, args: tuple) -> None:
        self.device, self.number = args[0].plan.options.device, args[1]
        self.exitcode, self.alive = 0, True

    def start(self) -> None:
        pass

    def is_alive(self) -> bool:
        return self.alive


def test_each_child_process_gets_the_least_busy_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cells on two devices, three at a time; the fourth takes the place of the one that has ended."""
    made: list[Started] = []

    class Context:
        @staticmethod
        def Process(target: object, args: tuple) -> Started:  # noqa: N802 (multiprocessing's own name)
            made.append(Started(target, args))
            return made[-1]

    class Clock:
        """The second ends first, the others once all have been started."""

        @staticmethod
        def sleep(_seconds: float) -> None:
            for process in made:
                process.alive = process.number != 1 and len(made) < 4

    monkeypatch.setattr(engines, "context", lambda _: Context)
    monkeypatch.setattr(engines, "time", Clock)
    track = grid.Track("t", "T", "fer2013", (), trained_on="t")
    plan = grid.Plan(tmp_path, ({},) * 4, track, None, Options(device="auto"), tmp_path, ("", ""), 1, "n")
    work, board = engines.Work(plan, ".", ()), Quiet()
    engines.in_processes([0, 1, 2, 3], work, board, engines.Means(3, devices=("cuda:0", "cuda:1")))
    assert [(one.number, one.device) for one in made] == [(0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0"), (3, "cuda:1")]
    made.clear()
    engines.in_processes([1], work, board, engines.Means())
    assert [one.device for one in made] == ["auto"]


@pytest.mark.parametrize(
    ("engine", "srun", "more", "cores", "cpus"),
    [
        ("process", None, [], 4, 4),
        ("submitit", None, [], 4, 4),
        ("submitit", "/usr/bin/srun", [], None, 1),
        ("submitit", None, ["--slurm", "partition=a"], None, 1),
        ("submitit", "/usr/bin/srun", ["--cpus", "3"], 3, 3),
        ("ray", None, [], 4, 4),
    ],
)
def test_the_cores_of_this_machine_are_shared_by_its_own_workers_alone(
    tmp_path: Path, data: str, engine: str, srun: str | None, more: list[str], cores: int | None, cpus: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Two workers on eight cores have four each; the jobs of Slurm have other machines, of which the login node's
    cores tell nothing, and get what --cpus says."""
    told: list[tuple[int | None, int]] = []
    monkeypatch.setattr(command, "engine_named", lambda name: (name, lambda _, work, __, means: told.append(
        (work.threads, means.cpus))))  # fmt: skip
    monkeypatch.setattr(command.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(command.shutil, "which", lambda _: srun)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sweep(tmp_path, data, BASE, "--engine", engine, "--workers", "2", *more)
    assert told == [(cores, cpus)]
    if engine == "ray":
        monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
        sweep(tmp_path, data, BASE, "--engine", engine, "--workers", "2")
        assert told[1:] == [(None, 1)]
