"""Weights of earlier rows, found by their hash."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from fer_bench import history
from fer_bench.results import read_results
from fer_bench.weights import WeightsError, read_tensors

PROJECT = Path(__file__).resolve().parents[1]
AS_NOBODY = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose weights of `a` were replaced once; weights/ of the package itself is empty."""
    folder = tmp_path / "checkout"
    (folder / "weights").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / "pyproject.toml").touch()
    for content in (b"first", b"second"):
        (folder / "weights" / "a-fer2013-common-v1-s0.safetensors").write_bytes(content)
        subprocess.run([*AS_NOBODY, "add", "-A"], cwd=folder, check=True)
        subprocess.run([*AS_NOBODY, "commit", "-qm", "weights"], cwd=folder, check=True)
    monkeypatch.setattr(history, "CHECKOUT", folder)
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path / "none"))
    return folder


def test_replaced_weights_are_found_by_the_first_digits_of_their_hash(checkout: Path) -> None:
    """What a later commit replaced comes out of the history once, and then from the cache."""
    digest = hashlib.sha256(b"first").hexdigest()
    found = history.by_hash(digest[:12], "a")
    assert found.read_bytes() == b"first"
    (checkout / "pyproject.toml").unlink()  # no checkout of ours any more
    assert history.by_hash(digest, "a") == found


@pytest.mark.parametrize(("content", "method"), [(b"third", "a"), (b"first", "b"), (b"first", "")])
def test_what_was_never_there_is_one_sentence(checkout: Path, content: bytes, method: str) -> None:
    """Another hash, and another method's, are refused with the mend; nothing is written."""
    digits = hashlib.sha256(content).hexdigest()[:12]
    with pytest.raises(WeightsError, match=f"no weights of {method} with the hash {digits}.*--unshallow"):
        history.by_hash(digits, method)
    assert not history.cache_folder().exists()


def test_without_a_checkout_of_ours_none_is_asked(checkout: Path) -> None:
    """A package that is installed inside someone else's repository does not search that."""
    (checkout / "pyproject.toml").unlink()
    with pytest.raises(WeightsError, match="no weights of a"):
        history.by_hash(hashlib.sha256(b"first").hexdigest(), "a")


@pytest.mark.slow
def test_every_row_that_went_on_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that rows went on from, those that these went on from, and their teachers' are all to be had."""
    shallow = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"], cwd=PROJECT, capture_output=True, text=True
    )
    if shallow.stdout.strip() != "false":
        pytest.skip("this is no whole clone: its history ends somewhere")
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path))
    named = {
        name
        for row in read_results(PROJECT / "leaderboard")
        for name in [*(row.trained.earlier.weights if row.trained.earlier else ()), *(row.trained.teachers or ())]
    }
    assert named
    for name in sorted(named):
        row, _, digits = name.removesuffix(")").rpartition(" (")
        method, track, _ = row.split("/")
        record = read_tensors(history.by_hash(digits, method))[1]
        assert (record["method"], record["track"]) == (method, track)
