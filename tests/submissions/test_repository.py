"""The repository's own results: each stands where its content says, none vanishes, hashes are those of the weights."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fer_bench.protocols import TRACKS, track_named
from fer_bench.results import read_logits, read_result, read_results
from fer_bench.submissions import checks, queue
from fer_bench.weights import index_key, read_index
from tests.submissions.models import model, submission

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "leaderboard"
RESULTS = BOARD / "results"


def git(root: Path, *arguments: str) -> str | None:
    """What git prints about the checkout `root`; None where it fails or is not there."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # not a hook's own
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=alone, capture_output=True, text=True, timeout=30, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def lost(root: Path) -> list[str]:
    """The results that a checkout lacks of those in its last two commits and where its branch left main.

    On main itself the branch has left nothing yet: there the commit before the last is what shows a deletion.
    """
    tried = (("rev-parse", "-q", "--verify", commit) for commit in ("HEAD", "HEAD~1"))
    tried = (*tried, *(("merge-base", "HEAD", branch) for branch in ("origin/main", "main")))
    commits = sorted({commit for command in tried if (commit := git(root, *command))})
    listings = (git(root, "ls-tree", "-r", "--name-only", commit, "leaderboard/results") for commit in commits)
    return vanished(sorted({path for listing in listings for path in (listing or "").splitlines()}), root)


def vanished(before: list[str], root: Path) -> list[str]:
    """The paths of `before` that are no files under `root` any more."""
    return [path for path in before if path.endswith((".json", ".npz")) and not (root / path).is_file()]


def test_every_result_stands_where_its_content_says() -> None:
    """Each file under results/ is a valid record at its own path, or the logits beside one; there is nothing else."""
    records = sorted(RESULTS.rglob("*.json"))
    assert records == sorted(RESULTS.glob("*/*/*.json")), "a record lies too deep or not deep enough"
    assert len([read_result(path) for path in records]) == len(records) > 0
    logits = {path.with_suffix(".npz") for path in records}
    others = {path for path in RESULTS.rglob("*") if path.is_file()} - set(records) - logits
    assert others == set()


def test_every_figure_follows_from_the_logits_beside_it() -> None:
    """The confusion matrix of a record is that of its stored logits, so that no figure was typed in."""
    for path in sorted(RESULTS.glob("*/*/*.json")):
        result, stored = read_result(path), read_logits(path)
        matrix = [[0] * len(result.emotions) for _ in result.emotions]
        for target, answer in zip(stored.targets, stored.logits.argmax(axis=1), strict=True):
            matrix[target][answer] += 1
        assert matrix == result.confusion_matrix, path


def test_every_result_was_measured_under_todays_protocol() -> None:
    """A record's protocol hash is that of its track, so that rows of different protocols are not mixed."""
    for result in read_results(BOARD):
        if result.track in TRACKS:
            assert result.protocol == track_named(result.track).hash(), (result.track, result.method)


def test_hashes_are_those_of_the_weights() -> None:
    """A result of ours names the very weights that weights/index.json lists for its row; submissions name their own."""
    index = read_index(ROOT / "weights")
    for result in read_results(BOARD):
        entry = index.get(index_key(result.method, result.trained.track, result.recipe, result.seed))
        if entry is not None and not result.external:
            row = (result.track, result.method)
            assert (row, result.weights.sha256, result.weights.bytes) == (row, entry["sha256"], entry["bytes"])


def test_no_result_vanished() -> None:
    """Every result of the last two commits, and of where this branch left main, still stands."""
    if git(ROOT, "rev-parse", "--is-inside-work-tree") != "true":
        pytest.skip("this is no git checkout")
    if git(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("this clone is shallow: what stood before is not in it")
    assert lost(ROOT) == []


def test_a_deletion_is_noticed_on_main_without_a_remote(tmp_path: Path) -> None:
    """A result that the last commit deletes is named, as is one that is deleted and not committed; nothing else is."""
    if git(tmp_path, "init", "-q", "-b", "main") is None:
        pytest.skip("there is no git here")
    for name, value in (
        ("user.name", "a"),
        ("user.email", "a@b"),
        ("core.hooksPath", "/"),
        ("commit.gpgsign", "false"),
    ):
        git(tmp_path, "config", name, value)
    results = [tmp_path / "leaderboard/results" / f"{name}.json" for name in ("committed", "not_committed", "kept")]
    results[0].parent.mkdir(parents=True)
    for path in results:
        path.write_text("{}")
    assert git(tmp_path, "add", "-A") == git(tmp_path, "commit", "-qm", "made") == ""
    assert lost(tmp_path) == []
    results[0].unlink()
    assert git(tmp_path, "commit", "-qam", "deleted") == ""
    results[1].unlink()
    assert lost(tmp_path) == [f"leaderboard/results/{name}.json" for name in ("committed", "not_committed")]


def test_a_vanished_result_would_be_noticed(tmp_path: Path) -> None:
    """The comparison names a missing record and a missing file of logits, and nothing that is there."""
    (tmp_path / "kept.json").write_text("{}")
    assert vanished(["kept.json", "lost.json", "lost.npz", "README.md"], tmp_path) == ["lost.json", "lost.npz"]


def faults(submissions: Path) -> list[str]:
    """What keeps waiting submissions from the board: a folder that is broken, bears another name or fails `check`."""
    found = []
    for item in queue(submissions):
        manifest, _ = checks.manifest_of(submissions / item.name)
        if manifest is None or item.state.startswith("broken"):
            found.append(f"{item.name}: {item.state}")
        else:
            found += [f"{item.name}: it is named {manifest.name}"] if manifest.name != item.name else []
            problems = (problem.code for problem in checks.check(submissions / item.name))
            found += [f"{item.name}: {code}" for code in problems if code != "model_elsewhere"]
    return found


def test_every_submission_that_waits_passes_its_check() -> None:
    """This is CI's part of the road: each folder under leaderboard/submissions carries its name and passes `check`."""
    assert faults(BOARD / "submissions") == []


@pytest.mark.usefixtures("not_run")
def test_a_submission_that_waits_and_fails_would_be_noticed(tmp_path: Path) -> None:
    """A made queue: a sound entry has no fault, one without a model, of another name or without a manifest has."""
    submission(tmp_path / "my_model", model())
    assert [item.name for item in queue(tmp_path)] == ["my_model"]
    assert faults(tmp_path) == []
    (tmp_path / "my_model" / "model.onnx").unlink()
    submission(tmp_path / "another", model())
    submission(tmp_path / "broken", manifest="name: [")
    told = sorted(faults(tmp_path))
    assert [line.partition(":")[0] for line in told] == ["another", "broken", "my_model"], told
    assert told[0] == "another: it is named my_model"
    assert told[1].startswith("broken: broken: submission.yaml: it is not valid YAML")
    assert told[2] == "my_model: no_model"
