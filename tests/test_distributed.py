"""Several processes train what one trains: two real ones, connected by gloo, on the CPU."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fer_bench.cards import Augmentation, InputSpec, Recipe, Track
from fer_bench.checkpoints import fcntl, held
from fer_bench.distributed import ALONE, LostProcessError, Processes, bfloat16_pays, joined, left, speaker
from fer_bench.errors import UserError
from fer_bench.methods import METHODS
from fer_bench.methods.base import Criterion, Method, Stage
from fer_bench.stages import augmented
from fer_bench.train import Options, Run, main
from fer_bench.transforms import augment
from fer_bench.weights import read_tensors
from tests.helpers import write_folder

RECIPE = Recipe(
    name="tiny", epochs=3, batch_size=8, optimizer="sgd", lr=0.02, label_smoothing=0.1, clip=1.0, mixup=0.3, ema=0.5,
    augmentation=Augmentation(rotate=10, shift=0.1, contrast=0.2, erase=0.3),
)  # fmt: skip
WORLD = 2


def plain(classes: int) -> nn.Module:
    """A network without batch norm and dropout, whose result depends on the whole batch alone."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, classes)
    )


def train_and_watch(data: str, out: Path, processes: Processes = ALONE, stop_in: int = 0, **options: object) -> dict:
    """One run; what it saw, step by step. stop_in: the epoch (from 1) whose start stops it, as a Ctrl-C would."""
    seen: list[Tensor] = []

    def watched(network: nn.Module, inputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        seen.append(inputs.detach().clone())
        return criterion(network(inputs), targets)

    class Stopped(Run):
        def epoch(self, *args: object) -> tuple[bool, float]:
            if len(self.state["curve"]) + 1 == stop_in:
                raise KeyboardInterrupt
            return super().epoch(*args)

    method: Method = replace(METHODS["deep_emotion"], build=plain, stages=(Stage("main", loss=watched),))
    track = Track(data, data, data, (), trained_on=data)
    run = Stopped(method, track, RECIPE, Options(device="cpu", limit=27, **options), out, processes=processes)
    run.autocast = contextlib.nullcontext()  # in bfloat16, which some CPUs take, sums in another order differ by more
    try:
        run.fit()
    except KeyboardInterrupt:
        assert stop_in
    return {f"{step:03}": inputs.numpy() for step, inputs in enumerate(seen)}


def work(folder: Path) -> None:
    """What each of the two processes does, which ends here as one of `fer_bench.train` does."""
    data = f"folder:{folder / 'data'}"
    with joined() as processes:
        seen = train_and_watch(data, folder / "two", processes)
        np.savez(folder / f"seen{processes.rank}.npz", **seen)
        train_and_watch(data, folder / "two-then-one", processes, stop_in=3)
        train_and_watch(data, folder / "one-then-two", processes, resume=True)
    left(0)


def start(code: str, rank: int, port: int) -> subprocess.Popen:
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD)}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parents[1]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | variables | place, cwd=root, **pipes)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same run by one process and by two, and two more that the other number went on with."""
    folder = tmp_path_factory.mktemp("trained")
    data = f"folder:{write_folder(folder / 'data')}"
    seen = train_and_watch(data, folder / "one")
    train_and_watch(data, folder / "one-then-two", stop_in=2)
    code = f"from pathlib import Path; from tests.test_distributed import work; work(Path({str(folder)!r}))"
    port = free_port()
    processes = [start(code, rank, port) for rank in range(WORLD)]
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    train_and_watch(data, folder / "two-then-one", resume=True)
    theirs = [dict(np.load(folder / f"seen{rank}.npz")) for rank in range(WORLD)]
    return SimpleNamespace(folder=folder, seen=seen, theirs=theirs, said=said)


def test_bfloat16_is_not_taken_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old GPUs can hold such numbers and do not compute with them; asked is the device that trains."""
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: asked.append(device) or contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not bfloat16_pays(torch.device("cuda", 1))
    assert asked == [torch.device("cuda", 1)]


@pytest.mark.parametrize(("amx", "avx512"), [(True, True), (True, False), (False, True), (False, False)])
def test_bfloat16_is_taken_on_cpus_that_compute_with_it(
    amx: bool, avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By matrix units or by instructions of its own; not on a CPU that would emulate it, nor on other devices."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert bfloat16_pays(torch.device("cpu")) == (amx or avx512)
    assert not bfloat16_pays(torch.device("mps"))
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # private to torch: it may go
    assert bfloat16_pays(torch.device("cpu")) == amx


def test_every_picture_is_seen_once_and_changed_alike(trained: SimpleNamespace) -> None:
    """In each step the two have, bit for bit, the augmented and mixed rows that one process has, each of them once."""
    assert trained.seen.keys() == trained.theirs[0].keys() == trained.theirs[1].keys()
    assert len(trained.seen) == 12
    for step, whole in trained.seen.items():
        weights = [Processes(rank, WORLD).rows(len(whole))[1] for rank in range(WORLD)]
        parts = [part[step] for part, weight in zip(trained.theirs, weights, strict=True) if weight]
        assert sorted(row.tobytes() for part in parts for row in part) == sorted(row.tobytes() for row in whole)


@pytest.mark.parametrize("other", ["two", "two-then-one", "one-then-two"])
def test_two_processes_give_the_losses_and_weights_of_one(trained: SimpleNamespace, other: str) -> None:
    """At the same whole batch, to 1e-4, also where a checkpoint of one number of processes is resumed by another."""

    def read(name: str, file: str) -> Path:
        return next((trained.folder / name).rglob(file))

    expected, found = (read_tensors(read(name, "last.safetensors"))[0] for name in ("one", other))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].float(), value.float(), atol=1e-4), name
    one, two = (json.loads(read(name, "record.json").read_text()) for name in ("one", other))
    assert np.allclose(np.array(two["curve"]), np.array(one["curve"]), atol=1e-4)
    assert two["trained"]["pictures_seen"] == one["trained"]["pictures_seen"] == 81
    assert two["trained"]["device"].startswith("2 x cpu") is (other != "two-then-one")


def test_only_the_first_process_speaks(trained: SimpleNamespace) -> None:
    """Process 0 tells of each epoch of the three runs and of the models that were written, process 1 of nothing."""
    first, second = trained.said
    assert first.count(": loss ") == 3 + 2 + 2
    assert first.count("model.safetensors: validation accuracy") == 2
    assert second == ""


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_the_rows_of_a_batch_are_shared_out(world: int) -> None:
    """Each row once, with its mirror image, two at least and in even parts; the weights make means a mean of all."""
    for count in range(2, 40):
        shares = [Processes(rank, world).rows(count) for rank in range(world)]
        rows = [[row for run in runs for row in run] for runs, _ in shares]
        weights = [weight for _, weight in shares]
        counted = [mine for mine, weight in zip(rows, weights, strict=True) if weight]
        assert sorted(row for mine in counted for row in mine) == list(range(count))
        for mine, weight in zip(rows, weights, strict=True):
            assert [count - 1 - row for row in reversed(mine)] == mine
            assert len(mine) >= 2
            assert weight == pytest.approx(world * len(mine) / count) or weight == 0
        assert len(counted) == min(world, count // 2)
        assert max(map(len, counted)) - min(map(len, counted)) <= 3


def test_a_part_of_a_batch_is_changed_as_within_the_whole() -> None:
    """Rows augmented alone are, bit for bit, those of the whole batch, and the random stream ends at the same place."""
    images = torch.randint(0, 256, (11, 48, 48), dtype=torch.uint8)
    spec = InputSpec(size=40, channels=1, mean=(0.5,), std=(0.25,))
    one, two = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    whole = augment(images, spec, RECIPE.augmentation, one)
    runs = [range(2, 4), range(7, 9)]
    part = augmented(images[[2, 3, 7, 8]], runs, 11, spec, RECIPE.augmentation, two)
    assert torch.equal(part, whole[[2, 3, 7, 8]])
    assert torch.equal(one.get_state(), two.get_state())


def test_without_a_launcher_there_is_one_process() -> None:
    """No variables, or a world of one, need no connection; and the first process has no name before its messages."""
    for variables in ({}, {"WORLD_SIZE": "1", "RANK": "0"}):
        with joined(variables) as processes:
            assert processes is ALONE
    assert (speaker({}), speaker({"RANK": "0"}), speaker({"RANK": "3"})) == ("", "", "process 3: ")


def test_half_a_launcher_is_refused() -> None:
    """WORLD_SIZE without the place to meet names the variables and the commands that set them."""
    with pytest.raises(UserError, match="RANK, MASTER_PORT is not set; start training with torchrun or accelerate"), \
            joined({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}):  # fmt: skip
        pytest.fail("joined")


def test_a_lost_process_is_told_apart_from_a_fault_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """gloo's "connection closed" says that another one ended; a RuntimeError of this one stays what it is."""
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args, **kwargs: None)
    variables = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    with pytest.raises(LostProcessError, match="another of the 2 processes has ended"), joined(variables):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:23")
    with pytest.raises(RuntimeError, match="shapes"), joined(variables):
        raise RuntimeError("shapes do not match")


COMMAND = """
import os, sys
from dataclasses import replace
from fer_bench.methods import METHODS
from fer_bench.train import main
from tests.test_distributed import plain
METHODS._entries["deep_emotion"] = replace(METHODS["deep_emotion"], build=plain)
os.chdir({folder!r} + "/machine" + os.environ["RANK"])
arguments = ["--method", "deep_emotion", "--track", "folder:data", "--epochs", "1", "--device", "cpu"]
sys.exit(main([*arguments, "--out", {folder!r} + "/out", *{more!r}[int(os.environ["RANK"])]]))
"""


@pytest.mark.parametrize(
    ("broken", "more", "says"),
    [
        (
            True,
            ([], []),
            "the processes do not have the same pictures to train on and to choose by: process 1 read 27 and 28 "
            "pictures of {host}:{folder}/machine1/data, process 0 28 and 28 pictures of {host}:{folder}/machine0/data; "
            "give all of them the same copy.",
        ),
        (
            False,
            ([], ["--seed", "1", "--max-minutes", "9"]),
            "process 1 has another seed, --max-minutes than process 0; start all of them with the same command.",
        ),
    ],
)
def test_processes_that_do_not_train_alike_all_refuse(
    tmp_path: Path, broken: bool, more: tuple[list[str], list[str]], says: str
) -> None:
    """A machine that skipped a broken picture, or was given another seed: one sentence and exit code 2 in both."""
    for number in range(WORLD):
        write_folder(tmp_path / f"machine{number}" / "data")
    if broken:
        (tmp_path / "machine1" / "data" / "train" / "fear" / "2.png").write_bytes(b"broken")
    port = free_port()
    processes = [start(COMMAND.format(folder=str(tmp_path), more=more), rank, port) for rank in range(WORLD)]
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:  # where they wait for each other
            process.kill()
    assert [process.returncode for process in processes] == [2, 2], "\n".join(said)
    expected = says.format(host=socket.gethostname(), folder=tmp_path)
    assert said[0].splitlines() == [expected]
    assert said[1].splitlines()[-1] == f"process 1: {expected}"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(fcntl is None, reason="this system has no flock")
def test_where_process_0_finds_the_folder_taken_none_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It alone asks for the lock, and what it finds holds for all."""
    decided: list[bool] = []
    with held(tmp_path):
        monkeypatch.setattr(Processes, "decides", lambda self, flag: decided.append(flag) or False)
        for rank in range(WORLD):
            with pytest.raises(UserError, match="another process trains in this folder"), \
                    held(tmp_path, Processes(rank, WORLD)):  # fmt: skip
                pytest.fail("held twice")
    assert decided == [False, True]


def test_a_process_of_a_group_ends_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """gloo's threads abort an interpreter that ends: its own exit code, after its last words, error or none."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    assert (left(2), ended) == (2, [])
    monkeypatch.setattr(Processes, "connected", True)
    assert main(["--method", "deep_emotion", "--track", "folder:nowhere", "--device", "cpu"]) == 2
    assert ended == [2]
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.setattr("fer_bench.train.train", lambda given, processes: 0)
    assert main(["--method", "deep_emotion", "--track", "folder:nowhere", "--device", "cpu"]) == 0
    assert ended == [2, 0]


@pytest.mark.parametrize("wanted", ["cuda:1", "mps"])
def test_a_device_that_cannot_be_shared_is_refused(wanted: str) -> None:
    """One accelerator by its number, or of a kind that knows no groups, is for one process."""
    with pytest.raises(UserError, match=f"2 processes cannot share the device {wanted}"):
        Processes(0, 2).device(torch.device(wanted))
    assert ALONE.device(torch.device(wanted)) == torch.device(wanted)


def test_more_processes_than_accelerators_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says how many there are and the command that fits."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes on a machine with 1 CUDA .* torchrun --nproc-per-node 1"):
        Processes(0, 2, 0, 2).device(torch.device("cuda"))


def test_a_batch_too_small_for_the_processes_is_refused(tmp_path: Path) -> None:
    """Each needs two pictures; the sentence says how many may be started."""
    track = Track("folder:x", "x", "folder:x", (), trained_on="x")
    with pytest.raises(UserError, match="a batch of 8 is too small for 5 processes.*at most 4"):
        Run(METHODS["deep_emotion"], track, RECIPE, Options(device="cpu"), tmp_path, processes=Processes(0, 5))


def test_a_grid_is_not_shared_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Under a launcher --grid would train each cell several times over: refused, with the command that shares cells."""
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args, **kwargs: None)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["--grid", "grid.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("process 1: ")
    assert "fer_bench.sweep" in said


@pytest.mark.slow
def test_torchrun_trains_stages_and_batch_norms(tmp_path: Path) -> None:
    """`torchrun -m fer_bench.train` takes a two-stage network with batch norm to its end; the record says "2 x"."""
    data = write_folder(tmp_path / "data", per_class=3)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    command += [str(free_port()), "-m", "fer_bench.train", "--method", "patch_cam", "--track", f"folder:{data}"]
    command += ["--epochs", "2", "--device", "cpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    tensors, record = read_tensors(next(tmp_path.glob("out/**/model.safetensors")))
    assert int(tensors["fused"]) == 1
    assert record["trained"]["device"].startswith("2 x cpu")
    assert done.stderr.count(": loss ") == 2


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others(tmp_path: Path) -> None:
    """Where one cannot read its data, it says why (exit code 2), and the other that it has ended (exit code 1)."""
    data = write_folder(tmp_path / "data", per_class=2)
    port = free_port()
    tracks = (data, tmp_path / "nowhere")
    arguments = (["--method", "deep_emotion", "--track", f"folder:{track}", "--epochs", "2", "--device", "cpu",
                  "--out", str(tmp_path / "out")] for track in tracks)  # fmt: skip
    code = "import sys; from fer_bench.train import main; sys.exit(main({!r}))"
    processes = [start(code.format(given), rank, port) for rank, given in enumerate(arguments)]
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 2], "\n".join(said)
    assert "process 1: " in said[1]
    assert "there is no such folder" in said[1]
    assert "another of the 2 processes has ended" in said[0]
    assert "Traceback" not in said[0] + said[1]
