"""Results on the Hub that are not here: they stay, they stay rows, and what cannot be a row ends the push."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from fer_bench.hub import main
from fer_bench.results import track_folder
from tests.hub.conftest import CHECKOUT
from tests.hub_server import Hub, Repo

REPO = "ada/fer-results"
RESULTS = ["push-results", "--repo", REPO]
THEIRS = "results/rendered/deep_emotion_parallel/common-v1-s0.json"


@pytest.fixture
def board(checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> Repo:
    """The results are on the Hub."""
    assert main(RESULTS) == 0
    capsys.readouterr()
    return hub.repo(REPO, "datasets")


def adds(path: str, content: bytes) -> object:
    """Someone's commit of one file."""
    return lambda repo: repo.commit(repo.commits[repo.head] | {path: (content, False)})


def theirs(**changes: object) -> bytes:
    return json.dumps(json.loads((CHECKOUT / "leaderboard" / THEIRS).read_text()) | changes).encode()


def rows(hub: Hub) -> set[tuple[str, str]]:
    frame = pd.read_parquet(io.BytesIO(hub.files(REPO, "datasets")["results.parquet"]))
    return set(zip(frame["track"], frame["method"], strict=True))


def counted(hub: Hub) -> str:
    """What the card says of the rows."""
    text = " ".join(hub.files(REPO, "datasets")["README.md"].decode().split())
    return re.search(r"\d+ rows on [^.]*", text)[0]


OURS = {("fer2013", "deep_emotion"), ("rendered", "deep_emotion")}
ALL = OURS | {("rendered", "deep_emotion_parallel")}


def test_results_of_others_stay_rows_unless_they_are_to_go(
    board: Repo, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result there that is not here, as from another checkout, stays, is named, and is a row; --delete takes it."""
    adds(THEIRS, theirs())(board)
    assert main(RESULTS) == 0
    assert hub.files(REPO, "datasets")[THEIRS] == theirs()
    assert rows(hub) == ALL
    assert counted(hub) == "3 rows on fer2013, rendered"
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"{REPO}: 1 file(s) there are not here and were left, the results among them as rows of results.parquet too: "
        f"{THEIRS} (--delete deletes them)"
    )
    assert second.startswith(f"{REPO}: 2 of ")
    assert main(RESULTS) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert main([*RESULTS, "--delete"]) == 0
    assert THEIRS not in hub.files(REPO, "datasets")
    assert rows(hub) == OURS
    assert capsys.readouterr().out.splitlines()[0] == f"deleted {THEIRS}"


def test_a_result_that_comes_in_between_is_a_row_too(board: Repo, hub: Hub, pauses: list[float]) -> None:
    """The next try is made from the commit that came first; what was fetched for the first try is not asked again."""
    adds(THEIRS, theirs())(board)
    another = THEIRS.replace("_parallel", "_sequential")
    hub.meanwhile = adds(another, theirs(method="deep_emotion_sequential"))
    assert main(RESULTS) == 0
    assert pauses == [1]
    assert rows(hub) == ALL | {("rendered", "deep_emotion_sequential")}
    assert counted(hub) == "4 rows on fer2013, rendered"
    assert len(hub.asked("GET", f"resolve/.*/{THEIRS}")) == 1


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        (THEIRS, b"{}", "missing key"),
        (THEIRS, b"[" * 100_000, "cannot be read as a result"),
        (THEIRS, theirs(schema=2), "schema is 2"),
        (THEIRS, theirs(method="small_cnn"), "does not stand where its content says"),
        ("results/rendered/x/\x1b[2Jy.json", b"{}", "missing key"),
        (THEIRS, theirs(**{"\x1b[2J": 1}), "unknown key"),
        (THEIRS, theirs(commit="x" * 2_000_000), "bytes"),
    ],
    ids=["empty", "deep", "newer", "misplaced", "escapes in the path", "escapes in a key", "large"],
)
def test_what_cannot_be_a_row_ends_the_push(
    path: str, content: bytes, reason: str, board: Repo, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record there that this version cannot read would vanish from the table: one sentence, unless it is to go."""
    adds(path, content)(board)
    before = len(board.commits)
    assert main(RESULTS) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert reason in error
    assert error.rstrip("\n").isprintable()
    assert "--delete" in error
    assert "/tmp" not in error
    assert len(board.commits) == before
    assert main([*RESULTS, "--delete"]) == 0
    assert path not in hub.files(REPO, "datasets")
    assert capsys.readouterr().out.isascii()


def test_a_record_that_is_not_the_listed_one_is_refused(
    board: Repo, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """What arrives must have the size and hash of the listing."""
    adds(THEIRS, theirs())(board)
    board.claims[THEIRS] = len(theirs()) - 1
    assert main(RESULTS) == 1
    assert "is not the file that the Hub lists" in capsys.readouterr().err


def test_records_on_someone_s_own_pictures_are_no_rows(board: Repo, hub: Hub) -> None:
    """As with ours: what lies there lies there, but its name is not repeated in the table."""
    track = "folder:/home/eve/faces"
    adds(THEIRS.replace("rendered", track_folder(track)), theirs(track=track))(board)
    assert main(RESULTS) == 0
    assert rows(hub) == OURS


@pytest.mark.parametrize("status", [500, None], ids=["500", "dropped"])
def test_a_record_that_fails_to_arrive_twice_is_asked_again(
    status: int | None, board: Repo, hub: Hub, pauses: list[float]
) -> None:
    """A 5xx or a cut connection on the way of a record costs pauses, no row."""
    adds(THEIRS, theirs())(board)
    hub.fail("HEAD", "resolve", times=2, status=status)
    assert main(RESULTS) == 0
    assert rows(hub) == ALL
    assert hub.failures[0].times == 0 < len(pauses)


def test_a_listing_without_the_network_says_what_it_cannot_know(
    checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry-run asks nothing of the Hub, so it says that results which are only there would be rows as well."""
    assert main([*RESULTS, "--dry-run"]) == 0
    assert "results that are only there would stay rows" in capsys.readouterr().out.splitlines()[-1]
    assert main([*RESULTS, "--dry-run", "--delete"]) == 0
    assert "; what is only there would be deleted from results/;" in capsys.readouterr().out.splitlines()[-1]
    assert not hub.requests
