"""Streaming: the same pictures in the same order as from memory, with memory that does not grow."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_bench.cards import Recipe, Track
from fer_bench.datasets import forbid_split, load_dataset, stream
from fer_bench.datasets.stream import InMemory, Listed, Streamed, list_folder, to_stream
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError, UserError
from fer_bench.methods import METHODS
from fer_bench.train import Options, Run
from fer_bench.weights import read_tensors
from tests.helpers import write_folder

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """28 grey pictures of 48 pixels a split."""
    return write_folder(tmp_path / "data")


def everything(files: Listed, workers: int = 0, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """All pictures and labels of one pass, from the last row to the first."""
    rows = torch.arange(len(files)).flip(0).split(size)
    images, labels = zip(*Streamed(files, CPU, workers=workers).batches(rows), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_listed_folder_is_the_folder_in_memory(data: Path, mode: str) -> None:
    """Same order, names, labels, sides and pixels, grey or in colour, and the same rules for emotions and limits."""
    if mode == "RGB":
        for path in data.rglob("*.png"):
            Image.open(path).convert("RGB").resize((60, 50)).save(path)
    files, faces = list_folder(data, "train"), load_dataset(f"folder:{data}", "train")
    assert (files.mode, files.emotions, tuple(files.ids), files.counts) == (
        mode,
        faces.emotions,
        faces.ids,
        faces.counts,
    )
    assert files.nbytes == faces.images.nbytes
    for one, other in ((files, faces), (files.restrict(SEVEN[2:5]).limit(7), faces.restrict(SEVEN[2:5]).limit(7))):
        images, labels = everything(one)
        assert np.array_equal(images.numpy()[::-1], other.images)
        assert np.array_equal(labels.numpy()[::-1], other.labels)
        assert one.emotions == other.emotions


def test_worker_processes_keep_the_order(data: Path) -> None:
    """Decoded by two processes, batches come as they were asked for, and torch's random stream is left alone."""
    files = list_folder(data, "train")
    torch.manual_seed(5)
    images, labels = everything(files, workers=2, size=5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    alone = everything(files)
    assert torch.equal(images, alone[0])
    assert torch.equal(labels, alone[1])


def test_memory_gives_the_same_batches(data: Path) -> None:
    """Both sources answer the same rows with the same pictures and labels, in batches of the sizes asked for."""
    files, faces = list_folder(data, "train"), load_dataset(f"folder:{data}", "train")
    held = InMemory(torch.from_numpy(faces.images), torch.from_numpy(faces.labels))
    rows = torch.randperm(len(files)).split([8, 3, 17])
    for one, other in zip(Streamed(files, CPU, workers=0).batches(rows), held.batches(rows), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_streamed_run_gives_the_weights_of_one_in_memory(data: Path, tmp_path: Path) -> None:
    """Bit for bit, and the record names another data hash, as it is over names and not over pixels."""
    track = Track(f"folder:{data}", "", f"folder:{data}", (), trained_on="x")
    recipe = Recipe(name="tiny", epochs=1, batch_size=8, lr=3e-3)
    method = METHODS["deep_emotion"]
    runs = [Run(method, track, recipe, Options(device="cpu", stream=on), tmp_path / str(on)) for on in (True, False)]
    assert isinstance(runs[0].source, Streamed)
    assert isinstance(runs[1].source, InMemory)
    streamed, held = (read_tensors(run.fit()) for run in runs)
    assert all(torch.equal(streamed[0][name], held[0][name]) for name in held[0])
    assert streamed[1]["trained"]["pictures_seen"] == 28
    assert streamed[1]["data"] != held[1]["data"]


def test_what_cannot_be_read_is_told_once_and_skipped(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A torn picture's place goes to the next of its batch; it is named on standard error, once for all epochs."""
    torn = data / "train" / "anger" / "1.png"
    torn.write_bytes(torn.read_bytes()[:60])
    source = Streamed(list_folder(data, "train"), CPU, workers=0)
    for _ in range(2):
        ((images, labels),) = source.batches([torch.tensor([0, 1, 2])])
        assert torch.equal(images[1], images[2])
        assert not torch.equal(images[1], images[0])
        assert len(labels) == 3
    said = capsys.readouterr().err
    assert said.count("skipped") == 1
    assert str(torn) in said
    with pytest.raises(DataError, match="no picture of a batch can be read, the first: .*1.png"):
        list(source.batches([torch.tensor([1])]))


def test_the_label_goes_with_the_picture_that_takes_a_place(data: Path) -> None:
    """Where the last of an emotion is torn, what stands for it brings its own label."""
    torn = data / "train" / SEVEN[0] / "3.png"
    torn.write_bytes(b"")
    files = list_folder(data, "train")
    row = list(files.ids).index(f"{SEVEN[0]}/3.png")
    ((_, labels),) = Streamed(files, CPU, workers=0).batches([torch.tensor([row, (row + 1) % 28])])
    assert labels[0] == labels[1] == files.labels[(row + 1) % 28]


def test_too_many_unreadable_pictures_end_it(data: Path) -> None:
    """More than a set allows is a broken copy: refused with how many of how many."""
    for name in ("0", "1"):
        (data / "train" / "anger" / f"{name}.png").write_bytes(b"no picture")
    files = replace(list_folder(data, "train"), least=0.95)
    with pytest.raises(DataError, match="2 of the 28 train pictures cannot be read.*get this copy again"):
        everything(files)


def test_the_hash_tells_lists_apart(data: Path) -> None:
    """Another label, name or length is another split; the same list is the same, wherever it lies."""
    whole = list_folder(data, "train")
    here = whole.content_hash()
    hashes = {here, whole.take(range(1, 28)).content_hash(), whole.restrict(SEVEN[:3]).content_hash()}
    moved = data.rename(data.with_name("elsewhere"))
    assert list_folder(moved, "train").content_hash() == here
    path = moved / "train" / "anger" / "0.png"
    path.write_bytes(path.read_bytes() + b" ")
    hashes.add(list_folder(moved, "train").content_hash())
    (moved / "train" / "anger" / "1.png").rename(moved / "train" / "fear" / "9.png")
    hashes.add(list_folder(moved, "train").content_hash())
    assert len(hashes) == 5


def test_what_is_larger_than_the_bound_is_streamed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unasked above the bound, always or never where asked, and not at all for what is never large."""
    name = f"folder:{data}"
    assert to_stream(name, "train") is None
    assert len(to_stream(name, "train", True)) == 28
    monkeypatch.setattr(stream, "BOUND", 28 * 48 * 48 - 1)
    assert len(to_stream(name, "train")) == 28
    assert to_stream(name, "train", False) is None
    monkeypatch.setattr(stream, "BOUND", 28 * 48 * 48)
    assert to_stream(name, "train") is None
    assert to_stream("rendered", "train") is None
    with pytest.raises(
        UserError, match="rendered is always read into memory; --stream is for affectnet and folder:PATH"
    ):
        to_stream("rendered", "train", True)


def test_the_test_split_is_out_of_reach(data: Path) -> None:
    """Listing is loading: where training forbids the test split, its list is forbidden too."""
    with forbid_split("test"), pytest.raises(RuntimeError, match="training never sees it"):
        to_stream(f"folder:{data}", "test", True)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """A missing folder, and one without emotions, are named."""
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        to_stream(f"folder:{tmp_path / 'nowhere'}", "train", True)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no pictures in sub-folders named after emotions"):
        to_stream(f"folder:{tmp_path}", "train", True)


def resident() -> int:
    """Bytes that this process and its children have in memory and share with no other file."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    pages = 0
    for pid in pids:
        total, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        pages += total - shared
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    """After a tenth of 4,000 pictures of 224 pixels (602 MB decoded) as much is held as at their end, but for 60 MB."""
    folder = tmp_path / "train" / "happiness"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (28, 28, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((224, 224)).save(folder / "0.jpg", quality=80)
    for number in range(1, 4000):
        os.link(folder / "0.jpg", folder / f"{number}.jpg")
    files = list_folder(tmp_path, "train")
    assert files.nbytes == 4000 * 224 * 224 * 3
    held = []
    for step, (images, _) in enumerate(Streamed(files, CPU, workers=2).batches(torch.randperm(4000).split(50))):
        assert images.shape == (50, 224, 224, 3)
        if step >= 8:
            held.append(resident())
    assert max(held) - held[0] < 60e6
