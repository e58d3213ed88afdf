"""A Hub that fails, refuses or cannot be reached: what is tried again, what is said, what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_bench.hub import main
from fer_bench.weights import (
    cache_folder,
)
from tests.hub.row import PULL, PUSH, REPO, entry, forget_weights, pin
from tests.hub_server import Hub, point_at

STEPS = {
    "making": ("POST", "/repos/create"),
    "looking": ("GET", f"/api/models/{REPO}$"),
    "tree": ("GET", "/tree/"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "objects/batch"),
    "upload": ("PUT", "/storage/"),
    "commit": ("POST", "/commit/"),
}


@pytest.mark.parametrize("status", [500, None], ids=["500", "dropped"])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_twice_is_tried_again(
    step: str, status: int | None, checkout: Path, hub: Hub, pauses: list[float]
) -> None:
    """A 5xx or a cut connection, twice at any step of a push, ends in one commit, after growing pauses."""
    hub.fail(*STEPS[step], times=2, status=status)
    assert main(PUSH) == 0
    assert len(hub.repo(REPO).commits) == 2
    assert entry()["revision"] == hub.repo(REPO).head
    assert pauses == [1, 2]


@pytest.mark.parametrize("step", ["making", "commit", "upload"])
def test_a_rate_limit_is_waited_for(step: str, checkout: Path, hub: Hub, pauses: list[float]) -> None:
    """After 429 with Retry-After the same step is tried again, not before that many seconds."""
    hub.fail(*STEPS[step], status=429, retry_after="7")
    assert main(PUSH) == 0
    assert len(pauses) == 1
    assert 7 <= pauses[0] <= 8


def test_a_long_rate_limit_ends_the_command(
    checkout: Path, hub: Hub, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the Hub asks for an hour, the command says so and ends with 1 at once."""
    hub.fail(*STEPS["commit"], status=429, retry_after="3600")
    assert main(PUSH) == 1
    assert "in 3600 seconds" in capsys.readouterr().err
    assert pauses == []


def test_an_interrupted_upload_can_be_repeated(checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Connections that keep breaking end the command with 1 and an unpinned index; the next push completes it."""
    hub.fail(*STEPS["commit"], times=99)
    assert main(PUSH) == 1
    assert "could not be reached" in capsys.readouterr().err
    assert entry()["hub"] is None
    hub.failures.clear()
    uploads = len(hub.asked("PUT"))
    assert main(PUSH) == 0
    assert len(hub.asked("PUT")) == uploads == 1  # the weights had arrived, and are not sent again
    assert entry()["revision"] == hub.repo(REPO).head


def test_a_commit_whose_answer_is_lost_is_not_made_twice(checkout: Path, hub: Hub) -> None:
    """The Hub commits, the connection breaks before it says so: the next try finds nothing left to do."""
    hub.fail(*STEPS["commit"], after=True)
    assert main(PUSH) == 0
    assert len(hub.repo(REPO).commits) == 2
    assert entry()["revision"] == hub.repo(REPO).head


def test_a_push_in_between_is_built_upon(checkout: Path, hub: Hub) -> None:
    """Where someone else's commit came first, the next try starts from it: a stale result in it goes as well."""
    stale = {"results/rendered/deep_emotion/old-s0.json": (b"{}", False), "notes.txt": (b"theirs", False)}
    hub.meanwhile = lambda repo: repo.commit(repo.commits[repo.head] | stale)
    assert main(PUSH) == 0
    assert {"model.safetensors", "notes.txt"} <= set(hub.files(REPO))
    assert "results/rendered/deep_emotion/old-s0.json" not in hub.files(REPO)
    assert entry()["revision"] == hub.repo(REPO).head


@pytest.mark.parametrize(
    ("token", "said"), [(None, "hf auth login"), ("hf_read", "a role|role write")], ids=["401", "403"]
)
def test_a_refusal_says_what_to_do(
    token: str | None,
    said: str,
    checkout: Path,
    hub: Hub,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a token, or with one that may not write: exit code 1, what to do, no second try, nothing pinned."""
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    assert main(PUSH) == 1
    error = capsys.readouterr().err
    assert any(part in error for part in said.split("|"))
    assert error.count("\n") == 1
    assert pauses == []
    assert entry()["hub"] is None


def test_no_network_is_said_and_counts_as_a_failure(
    checkout: Path, hub: Hub, pauses: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing listens, both ways end with 1 after a few growing pauses, and nothing is left in the cache."""
    point_at("http://127.0.0.1:9", monkeypatch)
    assert main(PUSH) == 1
    assert "could not be reached" in capsys.readouterr().err
    assert pauses == [1, 2, 4]
    pin(hub=REPO, revision="a" * 40)
    forget_weights()
    assert main(PULL) == 1
    assert "could not be reached" in capsys.readouterr().err
    assert pauses == [1, 2, 4] * 2
    assert list(cache_folder().iterdir()) == []


def test_what_cannot_be_written_here_is_a_failure(
    checkout: Path, published: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A place of --to that takes no files ends with 1, as in every other command, in one sentence."""
    (tmp_path / "file").write_text("as it was")
    pin(hub=None, revision=None)
    to = ["push-results", "--to", f"dir:{tmp_path / 'file' / 'there'}"]
    assert main(to) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "as it was"
