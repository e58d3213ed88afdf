"""Our networks through ONNX Runtime: the same answers as torch's, exported once, checked whenever they are opened."""

from __future__ import annotations

import copy
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from fer_bench import runtime
from fer_bench.errors import UserError
from fer_bench.files import OutputError
from fer_bench.infer import Model, load, logits
from fer_bench.methods import METHODS, build
from fer_bench.runtime import onnx_folder, onnx_model
from tests.helpers import picture

FACES = np.stack([picture(seed % 7, seed) for seed in range(5)])


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported networks go into a folder of the test's own."""
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "cache"))


def fresh(name: str, digest: str | None = None) -> Model:
    """A method with random weights."""
    torch.manual_seed(1)
    network = build(name, 7)
    network.eval().to(memory_format=torch.channels_last)
    return Model(name, network, METHODS[name].card.input, tuple("abcdefg"), {"sha256": digest} if digest else {})


def count_exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are exported from now on."""
    whole, made = runtime.write_onnx, []

    def counting(*arguments: object) -> Path:
        made.append(whole(*arguments))
        return made[-1]

    monkeypatch.setattr(runtime, "write_onnx", counting)
    return made


@pytest.mark.parametrize("name", ["deep_emotion_parallel", "gimefive"])
def test_the_logits_are_torchs(name: str) -> None:
    """Whatever the number of faces, the logits are torch's to 1e-4, and the model given stays as it was."""
    model = fresh(name)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    layouts = [parameter.stride() for parameter in model.network.parameters()]
    theirs = onnx_model(model)
    for count in (1, 5):
        expected = logits(model, FACES[:count])
        assert np.ptp(expected) > 0.02  # they do tell pictures' classes apart
        assert np.abs(logits(theirs, FACES[:count]) - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    assert logits(theirs, FACES[:0]).shape == (0, 7)
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert [parameter.stride() for parameter in model.network.parameters()] == layouts


def test_it_predicts_as_a_model_does() -> None:
    """`predict` gives each picture's probabilities, the same as torch's."""
    model = load("small_cnn")
    theirs = onnx_model(model)
    assert theirs.emotions == model.emotions
    for ours, other in zip(model.predict(list(FACES)), theirs.predict(list(FACES)), strict=True):
        assert other == pytest.approx(ours, abs=1e-4)
    assert theirs.to("cpu") is theirs
    with pytest.raises(UserError, match="on the CPU here, not on cuda"):
        theirs.to("cuda")


def test_a_network_is_exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays in the cache folder under the weights' sha256; other weights get a file of their own."""
    made = count_exports(monkeypatch)
    first = logits(onnx_model(fresh("deep_emotion_parallel", "ab" * 32)), FACES)
    assert np.array_equal(logits(onnx_model(fresh("deep_emotion_parallel", "ab" * 32)), FACES), first)
    (kept,) = onnx_folder().iterdir()
    assert "ab" * 32 in kept.name
    assert len(made) == 1
    onnx_model(fresh("deep_emotion_parallel", "cd" * 32))
    assert len(made) == len(list(onnx_folder().iterdir())) == 2


def test_threads_that_begin_at_once_export_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a server's threads may ask for the same network before it is in the cache, and for others at once."""
    made = count_exports(monkeypatch)
    models = [fresh("deep_emotion_parallel", "ab" * 32), fresh("sep_cnn", "cd" * 32)] * 3
    with ThreadPoolExecutor(len(models)) as pool:
        found = list(pool.map(onnx_model, models))
    assert [model.name for model in found] == [model.name for model in models]
    assert len(made) == len(list(onnx_folder().iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "other weights"])
def test_a_bad_file_in_the_cache_is_replaced(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached file that cannot be opened, or whose logits are others, is exported again and never used."""
    model = fresh("deep_emotion_parallel", "ab" * 32)
    expected = logits(onnx_model(model), FACES)
    (kept,) = onnx_folder().iterdir()
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:1000])
    else:
        other = fresh("deep_emotion_parallel", "cd" * 32)
        for parameter in other.network.parameters():
            parameter.data.mul_(0.9)
        onnx_model(other)
        next(path for path in onnx_folder().iterdir() if path != kept).replace(kept)
    made = count_exports(monkeypatch)
    assert np.array_equal(logits(onnx_model(model), FACES), expected)
    assert len(made) == 1


def test_without_a_weight_file_nothing_is_kept() -> None:
    """A network without a sha256 is exported, used and not kept."""
    assert logits(onnx_model(fresh("deep_emotion_parallel")), FACES).shape == (5, 7)
    assert not onnx_folder().exists()


def test_logits_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that answers something else is refused in a sentence."""
    model, whole = fresh("deep_emotion_parallel"), runtime.write_onnx

    def wrong(network: torch.nn.Module, *rest: object) -> Path:
        other = copy.deepcopy(network)
        for parameter in other.parameters():
            parameter.data.mul_(0.9)
        return whole(other, *rest)

    monkeypatch.setattr(runtime, "write_onnx", wrong)
    with pytest.raises(UserError, match="its logits differ from torch's by"):
        onnx_model(model)


def test_the_threads_are_torchs() -> None:
    """A session runs on as many threads as torch does, so $OMP_NUM_THREADS and torch's own setting hold for both."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        options = onnx_model(fresh("deep_emotion_parallel")).network.session.get_session_options()
    finally:
        torch.set_num_threads(before)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the cache folder cannot be made, one sentence names it and the variable."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"file/onnx.*set \$FER_BENCH_CACHE"):
        onnx_model(fresh("deep_emotion_parallel", "ab" * 32))


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional packages, one sentence names the extra that brings them."""
    whole = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else whole(name))
    with pytest.raises(UserError, match=r"onnxruntime is not installed; run: pip install 'fer_bench\[onnx\]'"):
        onnx_model(fresh("deep_emotion_parallel"))
