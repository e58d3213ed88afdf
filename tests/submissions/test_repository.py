"""The repository's own results: each stands where its content says, none vanishes, hashes are those of the weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partial, reduce
from pathlib import Path

import pytest

from fer_bench.card_files import SUBMITTED, read_cards
from fer_bench.protocols import TRACKS, track_named
from fer_bench.results import REQUIRED_METRICS, read_logits, read_result, read_results
from fer_bench.standing import KEPT, ROUNDING, differences, recomputed
from fer_bench.submissions import checks, queue
from fer_bench.weights import index_key, read_index
from fer_bench.withdrawn import FILE, contradictions, read_withdrawn
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
    listed = partial(git, root, "ls-tree", "-r", "--name-only")
    before = {path: at for at in commits for path in (listed(at, "leaderboard/results") or "").splitlines()}
    listed_gone = {f"leaderboard/{place}" for place in read_withdrawn(root / "leaderboard")}
    gone = [path for path in vanished(sorted(before), root) if str(Path(path).with_suffix(".json")) not in listed_gone]
    return [path for path in gone if not withdrawn(path, before[path], root)]


def withdrawn(path: str, commit: str, root: Path) -> bool:
    """Whether a submission's record may be gone: its name is, everywhere, or another model now stands under it.

    path: as it stood in that commit.
    """
    name, record = Path(path).parent.name, Path(path).with_suffix(".json")
    if not record.name.startswith("submitted-s"):
        return False
    entry, rows = root / "leaderboard/submissions" / name, root.glob(f"leaderboard/results/*/{name}/submitted-s*.json")
    others = {json.loads(row.read_bytes())["weights"]["sha256"] for row in rows}
    if not others:
        return not entry.exists() and name not in read_cards(root / "leaderboard", SUBMITTED)
    stood = git(root, "show", f"{commit}:{record.as_posix()}")
    return stood is not None and json.loads(stood)["weights"]["sha256"] not in others


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


def typed_in(path: Path) -> list[str]:
    """The figures of a record, their intervals too, that its stored logits do not give with today's statistics.

    Of the accuracy without duplicates, for which the pictures are needed, what no such pictures could give.
    """
    result, stored = read_result(path), read_logits(path)
    found = differences(result, recomputed(result, stored))
    kept, repeated = result.metrics.get(KEPT), result.data.duplicates_in_train or 0
    if kept is not None:
        rest, hits = len(stored.targets) - repeated, int((stored.logits.argmax(axis=1) == stored.targets).sum())
        right = round(kept.value * rest)
        possible = hits - repeated <= right <= hits and abs(right / rest - kept.value) < ROUNDING
        found += [] if possible else [f"metrics.{KEPT}.value {kept.value:.4g}"]
    return found


def test_every_figure_follows_from_the_logits_beside_it() -> None:
    """All that a record states of its answers is what they give, intervals too, so that no figure was typed in."""
    found = {path.relative_to(RESULTS).as_posix(): typed_in(path) for path in sorted(RESULTS.glob("*/*/*.json"))}
    assert {path: figures for path, figures in found.items() if figures} == {}, "run evaluate --all --figures"


@pytest.mark.parametrize(
    ("place", "figure"),
    [
        *((("metrics", name, "high"), f"metrics.{name}.high") for name in REQUIRED_METRICS),
        (("metrics", "nll", "value"), "metrics.nll.value"),
        (("metrics", "ece", "value"), "metrics.ece.value"),
        (("metrics", KEPT, "value"), f"metrics.{KEPT}.value"),
        (("per_class_recall", "disgust", "low"), "per_class_recall.disgust.low"),
        (("calibration", "expected"), "calibration.expected"),
    ],
)
def test_a_figure_that_was_typed_in_would_be_noticed(tmp_path: Path, place: tuple[str, ...], figure: str) -> None:
    """One figure of a copied record, moved by a thousandth, is named, and nothing else is."""
    path = tmp_path / "results/fer2013/awei/common-v1-s0.json"
    path.parent.mkdir(parents=True)
    original = RESULTS / path.relative_to(tmp_path / "results")
    shutil.copy(original.with_suffix(".npz"), path.with_suffix(".npz"))
    values = json.loads(original.read_bytes())
    *blocks, last = place
    block = reduce(lambda outer, name: outer[name], blocks, values)
    block[last] += 0.001
    path.write_text(json.dumps(values))
    assert [line.split()[0] for line in typed_in(path)] == [figure]


def test_every_result_was_measured_under_todays_protocol() -> None:
    """A record's protocol hash is that of its track, so that rows of different protocols are not mixed."""
    for result in read_results(BOARD):
        if result.track in TRACKS:
            assert result.protocol == track_named(result.track).hash(), (result.track, result.method)


def test_every_verified_result_is_of_committed_code() -> None:
    """Its commit is a whole one, of a tree without changes: whoever doubts a figure can take that code."""
    odd = {(r.track, r.method, r.commit) for r in read_results(BOARD) if r.verified and len(r.commit) != 40}
    assert odd == set()


def test_hashes_are_those_of_the_weights() -> None:
    """A result of ours names the very weights that weights/index.json lists for its row; submissions name their own."""
    index = read_index(ROOT / "weights")
    for result in read_results(BOARD):
        entry = index.get(index_key(result.method, result.trained.track, result.recipe, result.seed))
        if not result.external:
            row = (result.track, result.method)
            assert entry is not None, f"{row} is said to be ours, and weights/index.json has no such weights"
            assert (row, result.weights.sha256, result.weights.bytes) == (row, entry["sha256"], entry["bytes"])


def test_what_is_withdrawn_is_gone_and_its_successor_stands() -> None:
    """Each entry of withdrawn.json has a day and a reason, its row is not there, and the one in its place is."""
    assert contradictions(BOARD) == []


def test_no_result_vanished() -> None:
    """Every result of the last two commits, and of where this branch left main, stands or is listed as withdrawn."""
    if git(ROOT, "rev-parse", "--is-inside-work-tree") != "true":
        pytest.skip("this is no git checkout")
    if git(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("this clone is shallow: what stood before is not in it")
    assert lost(ROOT) == []


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An empty git repository."""
    if git(tmp_path, "init", "-q", "-b", "main") is None:
        pytest.skip("there is no git here")
    for name, value in (
        ("user.name", "a"),
        ("user.email", "a@b"),
        ("core.hooksPath", "/"),
        ("commit.gpgsign", "false"),
    ):
        git(tmp_path, "config", name, value)
    return tmp_path


def test_a_submission_can_be_withdrawn_or_replaced(made: Path) -> None:
    """Its records may go where its name is gone everywhere, or stands for another model; else each is named."""
    board = made / "leaderboard"
    rows = [board / f"results/{track}/theirs/submitted-s0" for track in ("fer2013", "ferplus")]

    def write(digest: str, *some: Path) -> None:
        for row in some:
            row.parent.mkdir(parents=True, exist_ok=True)
            row.with_suffix(".json").write_text(json.dumps({"weights": {"sha256": digest}}))
            row.with_suffix(".npz").write_bytes(digest.encode())

    write("old", *rows)
    (board / "submissions/theirs").mkdir(parents=True)
    (board / "submissions/theirs/submission.yaml").write_text("name: theirs")
    (board / SUBMITTED).write_text('{"theirs": {}}')
    assert git(made, "add", "-A") == git(made, "commit", "-qm", "made") == ""
    gone = [f"leaderboard/results/ferplus/theirs/submitted-s0{suffix}" for suffix in (".json", ".npz")]
    shutil.rmtree(rows[1].parent)
    assert lost(made) == gone, "the model still stands on the other track"
    write("new", rows[0])
    assert lost(made) == [], "replaced by another model"
    shutil.rmtree(rows[0].parent)
    assert len(lost(made)) == 4, "its folder and its card are still here"
    shutil.rmtree(board / "submissions/theirs")
    assert len(lost(made)) == 4, "its card is still here"
    (board / SUBMITTED).write_text("{}")
    assert lost(made) == []


def test_a_row_that_is_listed_as_withdrawn_may_be_gone(made: Path) -> None:
    """As may one that was renamed, whose new name the list gives; one that is not listed is lost, though another is."""
    board = made / "leaderboard"
    names = [f"results/fer2013/{name}/common-v1-s0.json" for name in ("old", "other")]
    for name in names:
        (board / name).parent.mkdir(parents=True)
        for suffix in (".json", ".npz"):
            (board / name).with_suffix(suffix).write_text("{}")
    assert git(made, "add", "-A") == git(made, "commit", "-qm", "made") == ""
    (board / "results/fer2013/old").rename(board / "results/fer2013/new")
    shutil.rmtree(board / "results/fer2013/other")
    new = "results/fer2013/new/common-v1-s0.json"
    lines = {names[0]: {"date": "2026-11-28", "reason": "It has a new name.", "replaced_by": new}}
    assert len(lost(made)) == 4
    (board / FILE).write_text(json.dumps(lines))
    assert contradictions(board) == []
    assert lost(made) == [f"leaderboard/results/fer2013/other/common-v1-s0{suffix}" for suffix in (".json", ".npz")]


def test_a_deletion_is_noticed_on_main_without_a_remote(made: Path) -> None:
    """A result that the last commit deletes is named, as is one that is deleted and not committed; nothing else is."""
    tmp_path = made
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
