"""Push and pull: the real client over HTTP against a server shaped like the Hub. Nothing here reaches the real one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, constants, parse_eval_result_entries
from packaging.requirements import Requirement

import fer_bench
from fer_bench.hub import HubError, contents, fetch, main
from fer_bench.results import read_result, read_results, track_folder
from fer_bench.weights import WeightsError, cache_folder, cached, read_index, sha256, weights_folder, write_index
from tests.hub_server import Hub, Repo, connected, point_at, serving
from tests.submissions.models import MANIFEST, model

CHECKOUT = Path(__file__).resolve().parents[1]
KEY = "deep_emotion/fer2013/common-v1-s0"
REPO = "ada/fer-deep-emotion"
PUSH = ["push", "--repo", REPO, "--method", "deep_emotion"]
PULL = ["pull", "--method", "deep_emotion"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout: one method with its weights and results, one result on someone's own pictures, an app."""
    root = tmp_path / "checkout"
    for name in (
        "LICENSE",
        "pyproject.toml",
        "leaderboard/methods.json",
        "weights/deep_emotion-fer2013-common-v1-s0.safetensors",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, root / name)
    for track in ("fer2013", "rendered"):
        source = CHECKOUT / "leaderboard" / "results" / track / "deep_emotion"
        shutil.copytree(source, root / "leaderboard" / "results" / track / "deep_emotion")
    record = json.loads((root / "leaderboard/results/rendered/deep_emotion/common-v1-s0.json").read_text())
    own = root / "leaderboard" / "results" / track_folder("folder:/home/ada/friends") / "deep_emotion"
    own.mkdir(parents=True)
    (own / "common-v1-s0.json").write_text(json.dumps(record | {"track": "folder:/home/ada/friends"}))
    (root / "leaderboard/figures").mkdir()
    (root / "leaderboard/figures/fer2013.png").write_bytes(b"png")
    (root / "README.md").write_text("# fer_bench\n\nWhat it is.\n")
    (root / "app.py").write_text("print('the app')\n")
    for name in ("__init__.py", "ui/tab.py", "__pycache__/tab.cpython-311.pyc", ".hidden"):
        (root / "fer_bench" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fer_bench" / name).write_text(f"# {name}\n")
    entry = read_index(CHECKOUT / "weights")[KEY] | {"hub": None, "revision": None}
    write_index({KEY: entry}, root / "weights")
    monkeypatch.setattr(contents, "ROOT", root)
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(root / "weights"))
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "cache"))
    return root


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between tries; none of them really pass."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Iterator[Hub]:
    """A running server that the client takes for the Hub, and a token that may write."""
    with connected(tmp_path, monkeypatch) as server:
        yield server


def entry() -> dict:
    return read_index()[KEY]


def pin(**changes: str) -> None:
    write_index({KEY: entry() | changes})


def forget_weights() -> None:
    """Remove the bundled weight file, so that only the cache and the Hub are left."""
    (weights_folder() / entry()["file"]).unlink()


# What is pushed


def test_push_makes_the_repository_and_pins_its_commit(checkout: Path, hub: Hub) -> None:
    """Weights, card, licence, evaluation and public results arrive; the index names repository and commit."""
    assert main(PUSH) == 0
    files = hub.files(REPO)
    assert sorted(files) == [
        ".eval_results/fer2013.yaml", "LICENSE", "README.md", "model.safetensors",
        "results/fer2013/deep_emotion/common-v1-s0.json", "results/rendered/deep_emotion/common-v1-s0.json",
    ]  # fmt: skip
    assert files["model.safetensors"] == (weights_folder() / entry()["file"]).read_bytes()
    assert (entry()["hub"], entry()["revision"]) == (REPO, hub.repo(REPO).head)
    assert entry()["sha256"] in hub.large


def test_the_card_states_figures_training_and_limits(checkout: Path, hub: Hub) -> None:
    """The card's model-index holds the records' own numbers; the text says how far it was trained, and the limits."""
    main(PUSH)
    result = read_result(checkout / "leaderboard/results/fer2013/deep_emotion/common-v1-s0.json")
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    figures = {(e.dataset_config, e.metric_name): e.metric_value for e in card.data.eval_results}
    assert figures["fer2013", "accuracy"] == result.metrics["accuracy"].value
    assert figures["fer2013", "macro f1"] == result.metrics["macro_f1"].value
    assert ("rendered", "accuracy") in figures
    assert f"{result.trained.epochs} of {result.trained.budget_epochs} epochs" in card.text
    assert f"{result.trained.pictures_seen:,} pictures" in card.text
    assert 'fer_bench.load("deep_emotion", track="fer2013")' in card.text
    assert "Do not use it to" in card.text
    assert "research use" in card.text
    assert "/home/ada" not in card.content


def test_eval_results_are_readable_by_the_library(checkout: Path, hub: Hub) -> None:
    """`.eval_results` parses with huggingface_hub and names the data set on the Hub; rendered faces have none."""
    main(PUSH)
    (found,) = parse_eval_result_entries(yaml.safe_load(hub.files(REPO)[".eval_results/fer2013.yaml"]))
    result = read_result(checkout / "leaderboard/results/fer2013/deep_emotion/common-v1-s0.json")
    assert (found.dataset_id, found.value) == (
        "Aaryan333/fer2013_train_publicTest_privateTest",
        result.metrics["accuracy"].value,
    )


def test_a_transfer_track_means_its_home_s_weights(checkout: Path, hub: Hub) -> None:
    """As `load` does, push and pull take for rendered the weights of fer2013."""
    assert main([*PUSH, "--track", "rendered"]) == 0
    assert entry()["revision"] == hub.repo(REPO).head
    forget_weights()
    assert main([*PULL, "--track", "rendered"]) == 0
    assert sha256(cached(entry())) == entry()["sha256"]


def test_a_result_of_other_weights_is_not_pushed(checkout: Path, hub: Hub) -> None:
    """A record whose weights' hash is not that of the file stays here."""
    path = checkout / "leaderboard/results/rendered/deep_emotion/common-v1-s0.json"
    record = json.loads(path.read_text())
    record["weights"]["sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    main(PUSH)
    assert [name for name in hub.files(REPO) if name.startswith("results/")] == [
        "results/fer2013/deep_emotion/common-v1-s0.json"
    ]


def test_a_second_push_does_nothing(checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The same content is neither uploaded nor committed again, and the index stays as it is."""
    main(PUSH)
    before, asked, repo = entry(), len(hub.requests), hub.repo(REPO)
    repo.commit(repo.commits[repo.head] | {"notes.txt": (b"someone's", False)})
    assert main(PUSH) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert len(repo.commits) == 3
    assert entry() == before
    assert not [path for method, path, _ in hub.requests[asked:] if method == "PUT" or "commit" in path]


def test_only_what_changed_is_sent_and_what_vanished_is_deleted(checkout: Path, hub: Hub) -> None:
    """After a change here, weights are not uploaded again; a withdrawn result goes, a stranger's file stays."""
    main(PUSH)
    repo = hub.repo(REPO)
    repo.commit(repo.commits[repo.head] | {"notes.txt": (b"someone's", False)})
    shutil.rmtree(checkout / "leaderboard/results/rendered/deep_emotion")
    uploads = len(hub.asked("PUT"))
    assert main(PUSH) == 0
    assert "results/rendered/deep_emotion/common-v1-s0.json" not in hub.files(REPO)
    assert hub.files(REPO)["notes.txt"] == b"someone's"
    assert len(hub.asked("PUT")) == uploads
    assert entry()["revision"] == hub.repo(REPO).head


def test_weights_that_are_not_the_index_s_are_not_pushed(
    checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose hash differs from the index is refused as wrong use, before any request."""
    pin(sha256="0" * 64)
    assert main(PUSH) == 2
    assert "not the file of weights/index.json" in capsys.readouterr().err
    assert not hub.requests


def test_results_become_a_data_set_that_datasets_loads(checkout: Path, hub: Hub, tmp_path: Path) -> None:
    """Every public record is a row of the parquet file, which the card's configuration loads; own pictures stay out."""
    import datasets

    assert main(["push-results", "--repo", "ada/fer-results"]) == 0
    files = hub.files("ada/fer-results", "datasets")
    assert "results/fer2013/deep_emotion/common-v1-s0.npz" in files
    assert not [name for name, data in files.items() if "folder" in name or b"/home/ada" in data]
    for name, data in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    rows = datasets.load_dataset(str(tmp_path / "copy"), split="results", cache_dir=str(tmp_path / "datasets"))
    expected = {r.track: r for r in read_results(checkout / "leaderboard") if ":" not in r.track}
    assert {row["track"] for row in rows} == set(expected)
    for row in rows:
        result = expected[row["track"]]
        assert row["accuracy"] == result.metrics["accuracy"].value
        assert row["ece_high"] == result.metrics["ece"].high
        assert row["recall_anger"] == result.per_class_recall["anger"].value
        assert (row["method"], row["rank"], row["epochs"]) == ("deep_emotion", 1, result.trained.epochs)


def test_results_are_the_same_bytes_each_time(checkout: Path) -> None:
    """Nothing in the tree depends on when it was made, or a second push could not be empty."""
    first, second = (contents.listing(contents.results_tree("ada/r", checkout)) for _ in range(2))
    assert first == second


def test_the_space_is_complete(checkout: Path, hub: Hub) -> None:
    """App, package, leaderboard and weights arrive with front matter and requirements; nothing private or compiled."""
    assert main(["push-space", "--repo", "ada/fer"]) == 0
    files = hub.files("ada/fer", "spaces")
    assert {"app.py", "fer_bench/__init__.py", "fer_bench/ui/tab.py", "leaderboard/figures/fer2013.png"} <= set(files)
    assert {"leaderboard/results/rendered/deep_emotion/common-v1-s0.npz", f"weights/{entry()['file']}"} <= set(files)
    assert not [name for name in files if "pycache" in name or "hidden" in name or "folder-" in name]
    assert not [name for name, data in files.items() if b"/home/ada" in data]
    readme = files["README.md"].decode()
    front = yaml.safe_load(readme.split("---\n")[1])
    assert readme.endswith("---\n\n# fer_bench\n\nWhat it is.\n")
    assert (front["sdk"], front["app_file"], front["python_version"]) == ("gradio", "app.py", "3.12.12")
    assert "leaderboard" in front["tags"]
    assert f"gradio=={front['sdk_version']}" in files["requirements.txt"].decode().splitlines()


def test_requirements_are_those_of_the_project_without_the_tests(checkout: Path) -> None:
    """Each dependency of pyproject.toml is a line that pip reads, torch as pinned; test tools are not among them."""
    text = contents.requirements(checkout / "pyproject.toml", "6.31.0")
    wanted = {Requirement(line).name: line for line in text.splitlines() if not line.startswith("#")}
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        name = Requirement(line).name
        assert wanted[name] == ("gradio==6.31.0" if name == "gradio" else line)
    assert wanted["torch"].startswith("torch==")
    assert "spaces" in wanted
    assert not {"pytest", "ruff", "playwright", "scikit-image"} & set(wanted)


def test_front_matter_of_the_repository_is_kept(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A README that starts with a Space's metadata is sent as it is; metadata without an app file is refused."""
    front = "---\nsdk: gradio\nsdk_version: 6.30.0\napp_file: app.py\n---\n# Ours\n"
    (checkout / "README.md").write_text(front)
    tree = contents.space_tree(checkout)
    assert tree["README.md"] == front.encode()
    assert b"gradio==6.30.0\n" in tree["requirements.txt"]
    (checkout / "README.md").write_text("---\nsdk: gradio\nsdk_version: 6.30.0\n---\n# Ours\n")
    assert main(["push-space", "--repo", "ada/fer", "--dry-run"]) == 2
    assert "app_file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [PUSH, ["push-results", "--repo", "ada/fer-results"], ["push-space", "--repo", "ada/fer"]],
    ids=lambda c: c[0],
)
def test_dry_run_and_folder_agree(
    command: list[str], checkout: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry-run lists exactly the files, sizes and hashes that --to dir: writes; neither asks the Hub anything."""
    target = tmp_path / "out"
    assert main([*command, "--dry-run"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[:-1]]
    for _ in range(2):  # and again, over what is there
        assert main([*command, "--to", f"dir:{target}"]) == 0
    written = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    assert {path: (size.replace(",", ""), sha) for sha, size, path in rows} == {
        name: (str(path.stat().st_size), sha256(path)) for name, path in written.items()
    }
    assert not hub.requests
    (target / "diary.txt").write_text("mine")
    assert main([*command, "--to", f"dir:{target}"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["push", "--method", "deep_emotion"], "--repo NAMESPACE/NAME is missing"),
        (["push", "--method", "deep_emotion", "--repo", "nameonly"], "must be NAMESPACE/NAME"),
        (["push", "--method", "deep_emotion", "--repo", "a/../b"], "no repository name"),
        (["push", "--method", "deep_emotion", "--to", "/tmp/x"], "must be dir:PATH"),
        (["push", "--method", "deep-emotion", "--repo", REPO], "Did you mean 'deep_emotion'"),
        (["push", "--method", "deep_emotion", "--seed", "7", "--repo", REPO], "weights add RUN"),
        (["pull", "--method", "small-cnn"], "Did you mean 'small_cnn'"),
        (["push", "--method", "deep_emotion", "--track", "ferpluss", "--repo", REPO], "Did you mean 'ferplus'"),
        (["pull", "--method", "deep_emotion", "--track", "ferplus"], f"its rows of it are {KEY}."),
        (["pull", "--method", "small_cnn"], "no such row of small_cnn; python -m fer_bench.train makes them"),
        (["pull", "--all", "--track", "ferpluss"], "Did you mean 'ferplus'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[3:]),
)
def test_wrong_use_is_said_in_a_sentence(
    arguments: list[str], said: str, checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one sentence, no request."""
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert not hub.requests


# Failures


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


# Pulling


@pytest.fixture
def published(checkout: Path, hub: Hub) -> Hub:
    """The method is on the Hub and pinned, and its bundled file is gone."""
    assert main(PUSH) == 0
    forget_weights()
    hub.requests.clear()
    return hub


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
    with pytest.raises(WeightsError, match="train them with: python -m fer_bench.train --method deep_emotion"):
        fer_bench.load("deep_emotion")
    assert not hub.requests


# The command line as a whole


@pytest.mark.slow
def test_the_environment_alone_points_the_command_at_a_hub(checkout: Path, tmp_path: Path) -> None:
    """In a process of its own, with HF_ENDPOINT and a stored token as a user has them: push, pull, and a submission."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("hf_write")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    bundled = str(weights_folder() / entry()["file"])
    with serving() as server:
        files = {"submission.yaml": MANIFEST.encode(), "model.onnx": model(opset=6).SerializeToString()}
        server.repos["models", "me/mine"] = Repo()
        revision = server.repo("me/mine").commit({name: (data, False) for name, data in files.items()})
        script = (
            "import os, sys; from fer_bench import hub, submissions\n"
            f"code = hub.main({PUSH}); os.remove({bundled!r}); code = code or hub.main({PULL})\n"
            f"sys.exit(code or submissions.main(['check', 'hub:me/mine@{revision}']) - 1)"
        )
        clean |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", script]
        run = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, run.stderr
        assert "uses opset 6" in run.stdout  # fetched, and refused with 1 for its own fault
        assert entry()["revision"] == server.repo(REPO).head
        assert {token for _, path, token in server.requests if REPO in path} == {"hf_write"}
    assert sha256(cached(entry())) == entry()["sha256"]
