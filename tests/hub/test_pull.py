"""Pull and load: pinned weights from the Hub into the cache, or a sentence."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

import fer_bench
from fer_bench.hub import HubError, fetch, main
from fer_bench.weights import (
    WeightsError,
    add,
    cache_folder,
    cached,
    read_tensors,
    sha256,
    weights_folder,
    write_tensors,
)
from fer_bench.weights import main as enter
from tests.hub.row import PULL, PUSH, REPO, entry, forget_weights, pin
from tests.hub_server import Hub


@pytest.mark.parametrize("which", [PULL, ["pull", "--all"]], ids=["method", "all"])
def test_pull_fills_the_cache(which: list[str], published: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The pinned file arrives whole under its hash, alone; a second pull asks nothing."""
    assert main(which) == 0
    assert sha256(cached(entry())) == entry()["sha256"]
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == [cached(entry())]
    published.requests.clear()
    assert main(which) == 0
    assert "already here" in capsys.readouterr().out
    assert not published.requests


def test_the_token_is_not_shown_to_the_storage_host(published: Hub) -> None:
    """Large files come from another host, which is not told the token."""
    main(PULL)
    assert {token for _, path, token in published.requests if "/resolve/" in path} == {"hf_write"}
    assert {token for _, path, token in published.requests if "/storage/" in path} == {None}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "resolve", 500), ("HEAD", "resolve", None), ("GET", "storage", 500), ("GET", "storage", None)],
)
def test_a_download_that_fails_twice_is_tried_again(
    method: str, path: str, status: int | None, published: Hub, pauses: list[float]
) -> None:
    """A 5xx or a cut connection, while looking or half way through the file, costs a pause and no byte is wrong."""
    published.fail(method, path, times=2, status=status)
    assert main(PULL) == 0
    assert sha256(cached(entry())) == entry()["sha256"]
    assert len(pauses) == 2


def test_a_wrong_hash_is_refused_and_leaves_nothing(published: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not the one of the index never enters the cache; exit code 1."""
    published.large[entry()["sha256"]] = bytes(entry()["bytes"])
    assert main(PULL) == 1
    assert "was refused and deleted: its SHA-256 is" in capsys.readouterr().err
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == []


def test_a_truncated_file_is_refused_and_leaves_nothing(published: Hub) -> None:
    """A file that is shorter than announced is no file."""
    published.large[entry()["sha256"]] = b"short"
    assert main(PULL) == 1
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123abc", "A" * 40, "refs/pr/1"])
def test_a_revision_that_can_move_is_refused(revision: str, published: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything but a commit of 40 hex digits is wrong use, before any request."""
    pin(revision=revision)
    assert main(PULL) == 2
    assert "no commit of 40 hex digits" in capsys.readouterr().err
    assert not published.requests


def test_a_branch_that_moved_changes_nothing(published: Hub) -> None:
    """After a new commit on main, the pinned one is still what is fetched."""
    repo = published.repo(REPO)
    repo.commit(repo.commits[repo.head] | {"model.safetensors": (b"other weights", True)})
    assert main(PULL) == 0
    assert sha256(cached(entry())) == entry()["sha256"]


def test_an_answer_from_another_commit_is_refused(published: Hub) -> None:
    """A server that answers a pinned request with another commit is not believed."""
    published.fail("HEAD", "resolve", status=200, x_repo_commit="b" * 40, etag='"x"')
    with pytest.raises(HubError, match="not with the pinned"):
        fetch(entry())


def test_a_commit_that_is_gone_is_said(published: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """A pinned commit or repository that does not exist ends with 1 and says so, without more tries."""
    pin(revision="c" * 40)
    assert main(PULL) == 1
    assert "has no such commit (any more)" in capsys.readouterr().err
    assert len(published.requests) == 1
    pin(hub="ada/nothing")
    assert main(PULL) == 1
    assert "no such repository, commit or file" in capsys.readouterr().err


def test_a_row_without_a_copy_is_said(checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """By name it is wrong use; among --all it is a line."""
    forget_weights()
    assert main(PULL) == 2
    assert "has no copy on the Hub" in capsys.readouterr().err
    assert main(["pull", "--all"]) == 0
    assert "no copy on the Hub" in capsys.readouterr().out


def test_a_file_here_that_hides_the_right_one_is_said(published: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """A bundled file that is not the index's would be used in place of what was fetched: it is named, exit code 1."""
    hiding = weights_folder() / entry()["file"]
    hiding.write_bytes(b"something else")
    for _ in range(2):
        assert main(PULL) == 1
        out, error = capsys.readouterr()
        assert f"fetched, {cached(entry())}" in out
        assert f"{hiding} is not the file of weights/index.json" in error
    hiding.unlink()
    assert main(PULL) == 0


def test_a_cache_that_is_a_file_is_a_failure(
    published: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence that names the folder which cannot be made, and exit code 1, before any request."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "file"))
    assert main(PULL) == 1
    error = capsys.readouterr().err
    assert f"{cache_folder()}: no folder can be made here" in error
    assert error.count("\n") == 1
    assert not published.requests


@pytest.mark.parametrize("index", ["[]", '{"a": 1}', '{"a": {"method": "deep_emotion"}}', "{"])
def test_a_broken_index_is_a_sentence(index: str, checkout: Path, hub: Hub, capsys: pytest.CaptureFixture) -> None:
    """What is no mapping of whole rows is said with the file's name and how it is restored; exit code 2."""
    (weights_folder() / "index.json").write_text(index)
    assert main(["pull", "--all"]) == 2
    error = capsys.readouterr().err
    assert "index.json: this is no index of weights (" in error
    assert error.count("\n") == 1


def test_entering_the_same_weights_again_keeps_their_pin(
    published: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The identical file leaves repository and revision as they are; another file has no copy on the Hub yet."""
    assert main(PULL) == 0
    pinned, copy = entry(), cached(entry())
    add(copy)
    assert entry() == pinned
    tensors, record = read_tensors(copy)
    other = tmp_path / "model.safetensors"
    write_tensors(other, tensors, record | {"note": "trained again"})
    add(other)
    assert (entry()["hub"], entry()["revision"]) == (None, None)
    write_tensors(other, tensors, {})
    assert enter(["add", str(other)]) == 2
    assert "does not say whose weights these are" in capsys.readouterr().err


# fer_bench.load


def test_load_takes_the_bundled_file_first(checkout: Path, hub: Hub) -> None:
    """With the file in weights/, a pinned copy on the Hub is not asked for."""
    main(PUSH)
    hub.requests.clear()
    assert fer_bench.load("deep_emotion", track="fer2013").path.parent == weights_folder()
    assert not hub.requests


def test_load_falls_back_on_the_cache_and_then_on_the_hub(published: Hub) -> None:
    """Without the bundled file the first load fetches it, the second finds it in the cache, for transfer tracks too."""
    model = fer_bench.load("deep_emotion", track="fer2013")
    assert model.path == cached(entry())
    assert published.requests
    published.requests.clear()
    assert fer_bench.load("deep_emotion", track="rendered").path == cached(entry())
    assert not published.requests


def test_load_offline_says_what_is_missing(published: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """In offline mode the error names the row, the reason and both commands that mend it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        fer_bench.load("deep_emotion", track="fer2013")
    text = str(caught.value)
    assert "no weights of deep_emotion for fer2013 (common-v1, seed 0)" in text
    assert "HF_HUB_OFFLINE" in text
    assert "python -m fer_bench.hub pull --method deep_emotion --track fer2013" in text
    assert "python -m fer_bench.train --method deep_emotion --track fer2013" in text


def test_load_without_a_copy_anywhere_says_how_to_train(checkout: Path, hub: Hub) -> None:
    """Nothing here and nothing published: the command that trains, and no request."""
    forget_weights()
    mend = "add --runs runs once you have trained them with: python -m fer_bench.train --method deep_emotion"
    with pytest.raises(WeightsError, match=mend):
        fer_bench.load("deep_emotion")
    assert not hub.requests


@pytest.mark.parametrize("wanted", [["--recipe", "nosuch"], ["--seed", "77"]])
def test_all_of_nothing_is_wrong_use(wanted: list[str], published: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt filter does not end well with no weights."""
    assert main(["pull", "--all", *wanted]) == 2
    assert f"has no row for --all {' '.join(wanted)}; there is nothing to fetch." in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_to_is_one_sentence(published: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """A file stands where the folder of the hash belongs."""
    cache_folder().mkdir(parents=True)
    cached(entry()).parent.write_bytes(b"")
    assert main(PULL) == 1
    told = capsys.readouterr().err
    assert f"{cache_folder()} cannot be written to" in told
    assert "$FER_BENCH_CACHE" in told
    with pytest.raises(WeightsError, match="cannot be written to"):
        fer_bench.load("deep_emotion")


def test_what_a_killed_download_left_goes_after_a_day(published: Hub) -> None:
    """One of today may be another process's."""
    cache_folder().mkdir(parents=True)
    old, new = cache_folder() / ".fetch-old", cache_folder() / ".fetch-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "part").write_bytes(b"x")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    assert main(PULL) == 0
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("endpoint", ["hub.example", "http://[bad", "ftp://hub.example"])
def test_an_address_that_is_none_is_told_at_once(
    endpoint: str, published: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pauses: list
) -> None:
    """Trying again would not mend it, and the network is not to blame."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
    assert main(PULL) == 2
    assert f"$HF_ENDPOINT is {endpoint!r}, which is no address" in capsys.readouterr().err
    assert not pauses


def test_a_token_with_other_letters_is_told_as_such(
    published: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pasted wrongly; it is not shown."""
    monkeypatch.setenv("HF_TOKEN", "hf_s\u00e9cret")
    assert main(PULL) == 2
    told = capsys.readouterr().err
    assert "$HF_TOKEN, or what `hf auth login` stored, is no token" in told
    assert "cret" not in told


def test_a_file_that_is_not_the_index_s_is_not_loaded(checkout: Path) -> None:
    """Its figures would be those of other weights; entered as a run is, it is."""
    path = weights_folder() / entry()["file"]
    tensors, record = read_tensors(path)
    write_tensors(path, {key: tensor * 2 for key, tensor in tensors.items()}, record)
    with pytest.raises(WeightsError, match="is not the file of weights/index.json .another SHA-256."):
        fer_bench.load("deep_emotion")
    pin(sha256=sha256(path))
    assert fer_bench.load("deep_emotion").path == path
