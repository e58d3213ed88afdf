"""Weight files: the compact form, atomic writing, the index."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fer_bench import weights
from fer_bench.weights import WeightsError, pack, read_tensors, seeded_uniform, unpack, write_tensors


def test_large_matrices_become_int8_with_a_scale_per_output_channel() -> None:
    """Each output channel is off by at most half of its own step, however different the channels' sizes are."""
    torch.manual_seed(0)
    tensor = torch.randn(256, 32, 3, 3) * torch.logspace(-4, 2, 256).view(-1, 1, 1, 1)
    packed, note = pack({"conv.weight": tensor})
    assert packed["conv.weight:int8"].dtype == torch.int8
    assert packed["conv.weight:scale"].shape == (256,)
    restored = unpack(packed, note)["conv.weight"]
    step = tensor.flatten(1).abs().amax(1) / 127
    assert bool(((restored - tensor).flatten(1).abs().amax(1) <= step * 0.5001).all())


def test_small_matrices_become_half_and_vectors_and_counters_stay_exact() -> None:
    """Biases, batch-norm statistics and integer buffers come back bit for bit; small matrices as float16 has them."""
    state = {"w": torch.randn(8, 8), "bias": torch.randn(300_000), "batches": torch.tensor(70_000)}
    packed, note = pack(state)
    restored = unpack(packed, note)
    assert packed["w"].dtype == torch.float16
    assert torch.equal(restored["w"], state["w"].half().float())
    assert torch.equal(restored["bias"], state["bias"])
    assert torch.equal(restored["batches"], state["batches"])
    assert restored["batches"].dtype == torch.int64


def test_what_half_cannot_hold_stays_float() -> None:
    """A matrix of a million, such as a mask, would become infinite; the small ones beside it are half as ever."""
    packed, note = pack({"mask": torch.full((2, 2), 1e6), "weight": torch.ones(2, 2), "none": torch.zeros(0, 2)})
    assert [packed[name].dtype for name in ("mask", "weight", "none")] == [torch.float32, torch.float16, torch.float16]
    assert unpack(packed, note)["mask"].tolist() == [[1e6, 1e6], [1e6, 1e6]]


@pytest.mark.parametrize("side", [3, 300])
def test_what_is_not_finite_stays_as_it_is(side: int) -> None:
    """An attention's mask of -inf has no scale; of any size it comes back, and costs no training at its last step."""
    mask = torch.full((side, side), -torch.inf).triu(1)
    packed, note = pack({"mask": mask, "weight": torch.ones(2, 2)})
    assert torch.equal(unpack(packed, note)["mask"], mask)


def test_tied_tensors_are_written_each(tmp_path: Path) -> None:
    """A network whose two layers share a weight can be trained, kept and loaded again."""
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    network[1].weight = network[0].weight
    write_tensors(tmp_path / "tied.safetensors", network.state_dict(), {})
    tensors, _ = read_tensors(tmp_path / "tied.safetensors")
    assert torch.equal(tensors["0.weight"], tensors["1.weight"])
    network.load_state_dict(tensors)


def test_an_all_zero_channel_comes_back_as_zeros() -> None:
    """A dead channel has no scale to speak of and must not turn into NaN."""
    packed, note = pack({"w": torch.zeros(256, 256)})
    assert torch.equal(unpack(packed, note)["w"], torch.zeros(256, 256))


def test_seeded_uniform_is_the_same_stream_on_every_platform() -> None:
    """The numbers are NumPy's PCG64, pinned here, scaled to the bound."""
    drawn = seeded_uniform((2, 2), seed=7, bound=0.5)
    assert np.allclose(drawn.numpy(), [[0.44490492, 0.12509543], [0.1841799, 0.39721376]], atol=1e-7)


def test_a_seeded_tensor_is_stored_as_its_low_rank_update() -> None:
    """A start of 512 x 1024 random numbers plus an update of rank 8 takes a tenth of int8's room and comes back."""
    torch.manual_seed(1)
    start = seeded_uniform((512, 1024), 3, 0.05)
    update = torch.randn(512, 8) @ torch.randn(8, 1024) * 0.01
    tensor = 0.97 * start + update
    packed, note = pack({"fc.weight": tensor}, {"fc.weight": (3, 0.05)})
    assert sum(part.numel() * part.element_size() for part in packed.values()) < 0.25 * tensor.numel()
    restored = unpack(packed, note)["fc.weight"]
    assert float((restored - tensor).norm() / update.norm()) < 0.03


def test_packing_leaves_the_random_stream_alone() -> None:
    """Packing in the middle of a run must not change what the run draws next."""
    tensor = seeded_uniform((128, 128), 1, 0.1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pack({"w": tensor + 0.01}, {"w": (1, 0.1)})
    assert torch.equal(torch.rand(3), expected)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing fails half way, the file that was there stays and nothing is left lying about."""
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"w": torch.ones(3)}, {"n": 1})

    def fails(_tensors: dict, name: str, metadata: dict) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(weights, "save_file", fails)
    with pytest.raises(OSError, match="disk full"):
        write_tensors(path, {"w": torch.zeros(3)}, {"n": 2})
    tensors, record = read_tensors(path)
    assert torch.equal(tensors["w"], torch.ones(3))
    assert record == {"n": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04\x95pickle"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    """What is not a safetensors file, a pickle included, is refused with its path and never loaded."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        read_tensors(path)


def test_a_missing_file_and_a_foreign_file_are_told_apart(tmp_path: Path) -> None:
    """No file, and a safetensors file without this project's record, each have their own sentence."""
    from safetensors.torch import save_file

    with pytest.raises(WeightsError, match="no such weight file"):
        read_tensors(tmp_path / "none.safetensors")
    save_file({"w": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="no fer_bench record"):
        read_tensors(tmp_path / "foreign.safetensors")


def test_adding_a_run_enters_it_in_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`add` copies the file, and the index gives its size and hash; adding again replaces the entry."""
    record = {"method": "m", "track": "fer2013", "recipe": "common-v1", "seed": 0}
    run = tmp_path / "run" / "model.safetensors"
    for value in (1.0, 2.0):
        write_tensors(run, {"w": torch.full((2,), value)}, record)
        target = weights.add(run, tmp_path / "weights")
    index = json.loads((tmp_path / "weights" / "index.json").read_text())
    assert list(index) == ["m/fer2013/common-v1-s0"]
    entry = index["m/fer2013/common-v1-s0"]
    assert entry["sha256"] == weights.sha256(target)
    assert entry["bytes"] == target.stat().st_size
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path / "weights"))
    assert weights.find("m", "fer2013") == target
    assert weights.find("m", "ferplus") is None


def test_worse_weights_do_not_take_a_rows_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short try does not overwrite what is shipped; the same and better weights do, and worse ones if they shall."""
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path / "weights"))
    record = {"method": "m", "track": "fer2013", "recipe": "common-v1", "seed": 0}
    run = tmp_path / "run" / "model.safetensors"

    def give(value: float, *options: str) -> int:
        trained = {"trained": {"selected_value": value}}
        write_tensors(run, {"w": torch.full((2,), value)}, record | trained)
        return weights.main(["add", str(run.parent), *options])

    assert [give(0.5), give(0.5), give(0.6)] == [0, 0, 0]
    assert give(0.297) == 2
    assert f"read 60.0 % of validation, those of {run} 29.7 %; give --replace" in capsys.readouterr().err
    assert read_tensors(weights.find("m", "fer2013"))[0]["w"][0].item() == pytest.approx(0.6)
    assert give(0.297, "--replace") == 0
    assert read_tensors(weights.find("m", "fer2013"))[0]["w"][0].item() == pytest.approx(0.297)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "../../evil"},
        {"recipe": "/evil"},
        {"track": "../evil"},
        {"track": 1},
        {"method": None},
        {"seed": "0/x"},
    ],
    ids=str,
)
def test_a_record_names_no_other_folder(wrong: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file from elsewhere says itself how its copy is called: a name that leads away is refused, nothing written."""
    record = {"method": "m", "track": "fer2013", "recipe": "common-v1", "seed": 0} | wrong
    write_tensors(tmp_path / "run" / "model.safetensors", {"w": torch.ones(2)}, record)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WeightsError, match="does not say whose weights"):
        weights.add(tmp_path / "run" / "model.safetensors", tmp_path / "in" / "weights")
    assert sorted(tmp_path.rglob("*")) == before
    assert weights.main(["add", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_runs_entered_at_the_same_time_all_stand_in_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one reads the index, changes it and writes it, the others wait; none takes another's row away."""
    runs = [tmp_path / f"run{seed}.safetensors" for seed in range(8)]
    for seed, run in enumerate(runs):
        record = {"method": "m", "track": "fer2013", "recipe": "common-v1", "seed": seed}
        write_tensors(run, {"w": torch.ones(2)}, record)
    read = weights.read_index
    monkeypatch.setattr(weights, "read_index", lambda folder: (read(folder), time.sleep(0.02))[0])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run: weights.add(run, tmp_path / "weights"), runs))
    assert len(read(tmp_path / "weights")) == 8


def test_runs_under_the_name_of_before_are_found(tmp_path: Path) -> None:
    """Where a run on own pictures lies under its folder's old name, it is there that training goes on."""
    old = tmp_path / "folder_mine" / "m" / "common-v1-s0"
    assert weights.run_folder(tmp_path, "m", "folder:mine", "common-v1", 0).parts[-3].startswith("folder-mine-")
    old.mkdir(parents=True)
    assert weights.run_folder(tmp_path, "m", "folder:mine", "common-v1", 0) == old


def test_what_runs_hold_is_told_in_few_words(tmp_path: Path) -> None:
    """Those of the method asked for come first, no more than are wanted; what cannot be read is passed over."""
    for name, track in (("a", "fer2013"), ("m", "folder:mine"), ("z", "rafdb")):
        path = weights.run_folder(tmp_path, name, track, "common-v1", 0) / "model.safetensors"
        write_tensors(path, {"w": torch.ones(2)}, {"method": name, "track": track, "recipe": "common-v1", "seed": 0})
    broken = tmp_path / "fer2013" / "b" / "common-v1-s0" / "model.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_text("half")
    told = weights.held(tmp_path, "m", 2)
    assert told == (
        "m --track folder:mine --recipe common-v1 --seed 0; a --track fer2013 --recipe common-v1 --seed 0; and 1 more"
    )
    assert weights.held(tmp_path / "none") == ""


def test_weights_of_own_pictures_get_a_safe_name(tmp_path: Path) -> None:
    """The file's name holds nothing of the folder's path but its last part; the index knows the track in full."""
    record = {"method": "m", "track": "folder:/home/ada/friends", "recipe": "common-v1", "seed": 0}
    write_tensors(tmp_path / "run.safetensors", {"w": torch.ones(2)}, record)
    assert weights.add(tmp_path / "run.safetensors", tmp_path / "w").name.startswith("m-folder-friends-")
    assert list(weights.read_index(tmp_path / "w")) == ["m/folder:/home/ada/friends/common-v1-s0"]


def test_the_command_s_exit_code_tells_a_failure_from_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 where the folder cannot be written, 2 where there is no such run; both name the path."""
    record = {"method": "m", "track": "fer2013", "recipe": "common-v1", "seed": 0}
    write_tensors(tmp_path / "run.safetensors", {"w": torch.ones(2)}, record)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path / "file" / "weights"))
    assert weights.main(["add", str(tmp_path / "run.safetensors")]) == 1
    assert weights.main(["add", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "file" / "weights") in said
    assert str(tmp_path / "none") in said


def test_shipped_weights_are_what_the_index_says() -> None:
    """Every file of weights/ has its entry, its size and hash agree, and its own record names the same row."""
    folder = weights.weights_folder()
    index = weights.read_index(folder)
    assert {entry["file"] for entry in index.values()} == {path.name for path in folder.glob("*.safetensors")}
    for key, entry in index.items():
        path = folder / entry["file"]
        _, record = read_tensors(path)
        assert key == weights.index_key(record["method"], record["track"], record["recipe"], record["seed"])
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, weights.sha256(path)), key
