"""Submissions that lie on the Hub, fetched by the real client over HTTP from a server shaped like it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from fer_bench import costs
from fer_bench.results import read_result
from fer_bench.submissions import behaviour, judging, located, main
from fer_bench.weights import cache_folder, sha256
from tests.helpers import write_folder
from tests.hub_server import Hub, Repo, connected, point_at
from tests.submissions.models import MANIFEST, faces, model, submission
from tests.submissions.records import record

REPO = "me/mine"
MODEL = model().SerializeToString()
GOOD = {"submission.yaml": (MANIFEST.encode(), False), "model.onnx": (MODEL, True), "README.md": (b"# Mine\n", False)}
"""What a repository with a submission holds, beside what the Hub puts into each."""
ATTRIBUTES = {".gitattributes": (b"*.onnx filter=lfs\n", False)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bars for faces, a cache of the test's own, and pauses that do not pass."""
    bars = faces()
    monkeypatch.setattr(behaviour, "rendered_faces", lambda: bars)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running server that the client takes for the Hub."""
    with connected(tmp_path, monkeypatch) as server:
        yield server


def publish(hub: Hub, files: dict[str, tuple[bytes, bool]] = GOOD) -> str:
    """Commit these files as the repository's newest state; returns the commit."""
    repo = hub.repos.setdefault(("models", REPO), Repo())
    hub.large |= {oid_of(data): data for data, large in files.values() if large}
    return repo.commit(ATTRIBUTES | files)


def oid_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pin(revision: str) -> str:
    return f"hub:{REPO}@{revision}"


def fetched() -> list[str]:
    """The names of all files in the cache, links and temporary ones too."""
    return sorted(path.name for path in cache_folder().parent.rglob("*") if not path.is_dir())


def test_a_submission_on_the_hub_is_fetched_once_and_checked(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own files alone arrive, as plain files; the second check asks nothing, and a newer commit changes nothing."""
    revision = publish(hub)
    publish(hub, GOOD | {"model.onnx": (b"something else", True)})
    assert main(["check", pin(revision)]) == 0
    assert "All checks passed" in capsys.readouterr().out
    (folder,) = (path.parent for path in cache_folder().parent.rglob("model.onnx"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(GOOD) == fetched()
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert (folder / "model.onnx").read_bytes() == MODEL
    hub.requests.clear()
    assert located(pin(revision)).folder == folder
    assert not hub.requests


@pytest.mark.usefixtures("not_run")
def test_what_is_wrong_with_it_is_said_as_of_a_folder(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The same files give the same reasons, in the same words, whether they lie here or on the Hub."""
    files = GOOD | {"model.onnx": (model(opset=6).SerializeToString(), True)}
    files["submission.yaml"] = (MANIFEST.replace("licence: MIT", "").encode(), False)
    for name, (data, _) in files.items():
        (tmp_path / "here").mkdir(exist_ok=True)
        (tmp_path / "here" / name).write_bytes(data)
    assert main(["check", str(tmp_path / "here")]) == 1
    here = capsys.readouterr().out.splitlines()[:-1]
    assert main(["check", pin(publish(hub, files))]) == 1
    assert capsys.readouterr().out.splitlines()[:-1] == here
    assert len(here) == 2


@pytest.mark.usefixtures("not_run")
def test_files_that_the_client_s_own_cache_links_to_arrive_plain(hub: Hub) -> None:
    """Where the client has the repository in its cache, which is made of links, the folder still holds none."""
    revision = publish(hub)
    cache = Path(snapshot_download(REPO, revision=revision))
    assert (cache / "model.onnx").is_symlink()
    assert main(["check", pin(revision)]) == 0
    (ours,) = cache_folder().parent.rglob("model.onnx")
    assert (ours.is_symlink(), ours.read_bytes()) == (False, MODEL)


def test_the_record_keeps_repository_and_revision(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that names the Hub is the same place as `hub:...`; `evaluate` writes what was measured and whence."""
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.002))
    monkeypatch.setattr(judging, "latencies", lambda *_: (0.001, 0.002))
    monkeypatch.setattr(judging, "write_leaderboard", lambda _: None)
    where = pin(publish(hub))
    entry = submission(tmp_path / "my_model", manifest=MANIFEST + f"\n{where.replace('hub:', 'hub: ')}\n")
    place = located(entry)
    assert place == located(where)
    command = ["evaluate", str(entry), "--track", f"folder:{write_folder(tmp_path / 'data')}"]
    assert main([*command, "--out", str(tmp_path / "board")]) == 0
    (path,) = (tmp_path / "board").glob("results/*/my_model/submitted-s0.json")
    result = read_result(path)
    assert result.trained.pretrained == f"declared: FER2013 training split; model {where}"
    assert (result.weights.sha256, result.external) == (sha256(place.folder / "model.onnx"), True)


@pytest.mark.parametrize("revision", ["main", "v1", "0123abc", "a" * 39, "A" * 40, "refs/pr/1", ""])
def test_a_revision_that_can_move_is_refused(revision: str, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """A branch, a tag, a short hash or nothing is wrong use; the sentence says how the revision is found."""
    publish(hub)
    for command in (["check"], ["evaluate"]):
        assert main([*command, pin(revision) if revision else f"hub:{REPO}"]) == 2
        error = capsys.readouterr().err
        assert f"`git ls-remote https://huggingface.co/{REPO} HEAD`" in error
        assert error.count("\n") == 1
    assert not hub.requests


@pytest.mark.parametrize("command", ["check", "evaluate"])
def test_a_place_on_the_hub_without_its_prefix_is_told_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No folder is there; a repository at a commit, or an address of the Hub, is told how it is written."""
    given = {f"me/mine@{'a' * 40}": f"hub:me/mine@{'a' * 40}", "https://huggingface.co/me/mine": "hub:NAMESPACE/NAME@"}
    for path, said in given.items():
        assert main([command, path]) == 2
        assert f"For what lies on the Hub give {said}" in capsys.readouterr().err
    assert main([command, "nowhere/mine"]) == 2
    assert "Hub" not in capsys.readouterr().err


@pytest.mark.parametrize("repo", ["mine", "a/../b", "../../etc", "me/mine/more", "https://huggingface.co/me/mine"])
def test_what_is_no_repository_is_refused(repo: str, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths and addresses do not pass for repositories; nothing is asked or written."""
    assert main(["check", f"hub:{repo}@{'a' * 40}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not hub.requests
    assert fetched() == []


Spoil = Callable[[Hub, pytest.MonkeyPatch], object]
REFUSED: dict[str, tuple[dict, Spoil, str]] = {
    "no such repository": (GOOD, lambda hub, _: hub.repos.clear(), "no such repository"),
    "401": (GOOD, lambda hub, patch: (hub.repos.clear(), patch.delenv("HF_TOKEN")), "log in with `hf auth login`"),
    "403": (GOOD, lambda hub, _: hub.fail("GET", "/api/models", status=403), "may not read this repository"),
    "gated": (GOOD, lambda hub, _: setattr(hub.repo(REPO), "gated", True), "is gated; ask for access on its page"),
    "no network": (GOOD, lambda _, patch: point_at("http://127.0.0.1:9", patch), "could not be reached"),
    "offline": (GOOD, lambda _, patch: patch.setattr(constants, "HF_HUB_OFFLINE", True), "unset HF_HUB_OFFLINE"),
    "a rewritten history": (GOOD, lambda hub, _: hub.repo(REPO).commits.popitem(), "has no such commit (any more)"),
    "another file behind the name": (
        GOOD, lambda hub, _: hub.large.update({oid_of(MODEL): bytes(len(MODEL))}), "not the file that the Hub lists"
    ),
    "a rate limit of an hour": (
        GOOD, lambda hub, _: hub.fail("GET", "/api/models", status=429, retry_after="3600"), "in 3600 seconds"
    ),
}  # fmt: skip
UNTOUCHED: dict[str, tuple[dict, Spoil, str]] = {
    "a pickle": (GOOD | {"model.pkl": (b"\x80\x04.", False)}, lambda *_: None, "holds model.pkl, which may not be"),
    "code": (GOOD | {"modeling.py": (b"import os", False)}, lambda *_: None, "holds modeling.py, which may not be"),
    "a folder": (GOOD | {"onnx/model.onnx": (b"x", True)}, lambda *_: None, "holds onnx, which may not be"),
    "a name that leaves its folder": (GOOD | {"../x": (b"x", False)}, lambda *_: None, "holds .., which may not be"),
    "a terminal's commands for a name": (GOOD | {"\x1b[2J": (b"", False)}, lambda *_: None, "holds \\x1b[2J, which"),
    "a thousand files": (
        GOOD | {f"{n}.bin": (b"", False) for n in range(1000)}, lambda *_: None, "0.bin, 1.bin, 2.bin and 43 more"
    ),
    "a model of 600 MB and a byte": (
        GOOD, lambda hub, _: hub.repo(REPO).claims.update({"model.onnx": 600_000_001}), "has 600,000,001 bytes"
    ),
    "two models of 400 MB": (
        GOOD | {"model.safetensors": (b"x", True)},
        lambda hub, _: hub.repo(REPO).claims.update({"model.onnx": 4 * 10**8, "model.safetensors": 4 * 10**8}),
        "holds 800,00",
    ),
    "a revision that moved": (
        GOOD,
        lambda hub, _: setattr(hub.repo(REPO), "answers_as", "b" * 40),
        "has moved: the Hub answered with commit bbbb",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "spoil", "reason"), [*REFUSED.values(), *UNTOUCHED.values()],
                         ids=[*REFUSED, *UNTOUCHED])  # fmt: skip
def test_what_cannot_be_fetched_is_said_in_a_sentence(
    files: dict, spoil: Spoil, reason: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Exit code 2, one sentence with the reason, nothing kept; what the listing already tells is never downloaded."""
    revision = publish(hub, files)
    spoil(hub, monkeypatch)
    assert main(["check", pin(revision)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "trying again" not in line and "B/s" not in line]
    assert len(said) == 1, said
    assert reason in said[0]
    assert fetched() == []
    if (files, spoil, reason) in UNTOUCHED.values():
        assert not [path for _, path, _ in hub.requests if "/resolve/" in path or "/storage/" in path]


@pytest.mark.parametrize(("method", "path"), [("GET", "/revision/"), ("GET", "/tree/"), ("HEAD", "/resolve/"),
                                              ("GET", "/storage/")])  # fmt: skip
@pytest.mark.parametrize("status", [503, None], ids=["503", "dropped"])
def test_a_hub_that_fails_twice_is_asked_again(method: str, path: str, status: int | None, hub: Hub) -> None:
    """A 5xx or a cut connection at any step costs a pause; what arrives is whole."""
    revision = publish(hub)
    hub.fail(method, path, times=2, status=status)
    assert Path(located(pin(revision)).folder, "model.onnx").read_bytes() == MODEL


def test_an_entry_that_names_the_hub_is_fetched_and_compared(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], not_run: list[Path]
) -> None:
    """The folder of a pull request is checked with its model; a submission.yaml that says something else is refused."""
    line = f"\nhub: {REPO}@{publish(hub)}\n"
    assert main(["check", str(submission(tmp_path / "same", manifest=MANIFEST + line))]) == 0
    assert not_run == [located(tmp_path / "same").folder / "model.onnx"]
    other = MANIFEST.replace("licence: MIT", "licence: none").replace("[fer2013, rendered]", "[rendered]")
    assert main(["check", str(submission(tmp_path / "other", manifest=other + line))]) == 1
    assert "submission.yaml: licence, tracks not as in hub:me/mine@" in capsys.readouterr().out


def test_an_entry_with_a_fault_of_its_own_fetches_nothing(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script beside the submission.yaml of a pull request is the reason, before anything is asked."""
    entry = submission(tmp_path / "my_model", manifest=MANIFEST + f"\nhub: {REPO}@{publish(hub)}\n")
    (entry / "run.py").write_text("")
    assert main(["check", str(entry)]) == 1
    assert "run.py does not belong" in capsys.readouterr().out
    assert not hub.requests


@pytest.mark.usefixtures("not_run")
def test_the_queue_is_checked_as_ci_does(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every entry that waits is checked, those on the Hub too; each reason stands under its entry's name.

    Of one on the board the model is not run again, but still looked at: a record can be made by hand.
    """
    root = tmp_path / "board" / "submissions"
    line = f"\nhub: {REPO}@{publish(hub)}\n"
    submission(root / "my_model", manifest=MANIFEST + line)
    assert main(["queue", str(root), "--check"]) == 0
    assert "my_model: All checks passed" in capsys.readouterr().out
    submission(root / "gone", manifest=MANIFEST + f"\nhub: {REPO}@{'c' * 40}\n")
    submission(root / "renamed", manifest=MANIFEST + line)
    for name, content in (("done_model", model().SerializeToString()), ("made_by_hand", b"no model")):
        record(tmp_path / "board", name, content)
        submission(root / name, content, MANIFEST.replace("name: my_model", f"name: {name}"))
    assert main(["queue", str(root), "--check"]) == 1
    out = capsys.readouterr().out
    assert "has no such commit (any more)" in out
    assert "the folder renamed must be called as its submission.yaml says, my_model." in out
    assert "my_model: All checks passed" in out
    assert "done_model: " not in out
    assert "made_by_hand: 1 problem was found" in out


def test_an_empty_queue_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With nothing to check the command succeeds."""
    assert main(["queue", str(tmp_path), "--check"]) == 0
    assert "nothing waits here" in capsys.readouterr().out
