"""The repository's own results: each stands where its content says, none vanishes, hashes are those of the weights."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fer_bench.protocols import TRACKS, track_named
from fer_bench.results import read_logits, read_result, read_results
from fer_bench.submissions import check, queue
from fer_bench.submissions.checks import manifest_of
from fer_bench.weights import index_key, read_index

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "leaderboard"
RESULTS = BOARD / "results"


def git(*arguments: str) -> str | None:
    """What git prints about this checkout; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


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
    """Every result that stood where this branch left main still stands."""
    if git("rev-parse", "--is-inside-work-tree") != "true":
        pytest.skip("this is no git checkout")
    bases = (git("merge-base", "HEAD", branch) for branch in ("origin/main", "main"))
    base = next((base for base in bases if base), None)
    if base is None:
        pytest.skip("git knows no main to compare with (a shallow checkout?)")
    before = (git("ls-tree", "-r", "--name-only", base, "leaderboard/results") or "").splitlines()
    assert vanished(before, ROOT) == []


def test_a_vanished_result_would_be_noticed(tmp_path: Path) -> None:
    """The comparison names a missing record and a missing file of logits, and nothing that is there."""
    (tmp_path / "kept.json").write_text("{}")
    assert vanished(["kept.json", "lost.json", "lost.npz", "README.md"], tmp_path) == ["lost.json", "lost.npz"]


def test_every_submission_that_waits_passes_its_check() -> None:
    """This is CI's part of the road: each folder under leaderboard/submissions carries its name and passes `check`."""
    for item in queue(BOARD / "submissions"):
        folder = BOARD / "submissions" / item.name
        assert not item.state.startswith("broken"), (item.name, item.state)
        assert manifest_of(folder)[0].name == item.name
        assert [problem for problem in check(folder) if problem.code != "model_elsewhere"] == [], item.name
