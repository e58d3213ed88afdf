"""Rows that were taken from the board: why and since when is said, or the list is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fer_bench import leaderboard
from fer_bench.errors import UserError
from fer_bench.results import write_result
from fer_bench.withdrawn import FILE, contradictions, read_withdrawn, withdrawn_list
from tests.test_leaderboard import made

OLD, NEW, LATER = (f"results/fer2013/{name}/common-v1-s0.json" for name in ("old", "new", "later"))
ENTRY = {"date": "2026-11-28", "reason": "Its training saw | test pictures.", "replaced_by": None}


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one row, `new`."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    write_result(made("new"), tmp_path)
    return tmp_path


def enter(board: Path, entries: object) -> None:
    (board / FILE).write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([], "it must be an object"),
        ({"../peers.json": ENTRY}, "'../peers.json' is no path such as results/"),
        ({"results/fer2013/../old.json": ENTRY}, "'results/fer2013/../old.json' is no path such as results/"),
        ({OLD: "it was wrong"}, f"{OLD} must have date, reason, replaced_by, and nothing else"),
        ({OLD: {"date": "2026-11-28", "replaced_by": None}}, f"{OLD} must have date, reason, replaced_by"),
        ({OLD: ENTRY | {"by": "me"}}, f"{OLD} must have date, reason, replaced_by, and nothing else"),
        ({OLD: ENTRY | {"reason": "  "}}, f"{OLD} has no reason; say in a sentence why the row is gone"),
        ({OLD: ENTRY | {"reason": 7}}, f"{OLD} has no reason"),
        ({OLD: ENTRY | {"date": "yesterday"}}, f"{OLD}: date 'yesterday' must be a day such as 2026-11-28"),
        ({OLD: ENTRY | {"date": "2026-02-30"}}, f"{OLD}: date '2026-02-30' must be a day"),
        ({OLD: ENTRY | {"date": 20261128}}, f"{OLD}: date 20261128 must be a day"),
        ({OLD: ENTRY | {"replaced_by": "new"}}, f"{OLD}: replaced_by 'new' must be null or the path of another"),
    ],
)
def test_a_broken_list_is_one_sentence_and_the_table_is_made_without_it(
    board: Path, entries: object, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the file and the entry; the rows that stand are none the worse."""
    enter(board, entries)
    with pytest.raises(UserError) as caught:
        read_withdrawn(board)
    assert str(caught.value).startswith(f"{board / FILE} is broken ({says}")
    assert len(str(caught.value).splitlines()) == 1
    assert leaderboard.main(["--out", str(board)]) == 1
    assert str(caught.value) in capsys.readouterr().err
    text = (board / "LEADERBOARD.md").read_text()
    assert "`new`" in text
    assert "Withdrawn" not in text


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_what_is_no_json_is_named(board: Path, content: bytes) -> None:
    """As is every other broken file of the board."""
    (board / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"withdrawn\.json is broken .*; mend it by hand\.$"):
        read_withdrawn(board)


def test_the_board_lists_what_was_withdrawn(board: Path) -> None:
    """At its end, the last one first, with the day, the reason as plain text and what stands there now."""
    assert leaderboard.write_leaderboard(board)
    without = (board / "LEADERBOARD.md").read_text()
    enter(board, {})
    leaderboard.write_leaderboard(board)
    assert (board / "LEADERBOARD.md").read_text() == without
    assert withdrawn_list(board) == ""
    enter(board, {LATER: ENTRY | {"date": "2026-11-27", "replaced_by": NEW}, OLD: ENTRY})
    leaderboard.write_leaderboard(board)
    assert (board / "LEADERBOARD.md").read_text() == without + (
        "\n## Withdrawn\n\n"
        f"- 2026-11-28, `{OLD}`: Its training saw &#124; test pictures.\n"
        f"- 2026-11-27, `{LATER}`: Its training saw &#124; test pictures. In its place stands `{NEW}`.\n"
    )


def test_an_entry_must_agree_with_the_board(board: Path) -> None:
    """Its row, or the logits of it, are not there, and its successor is, unless that was withdrawn in turn."""
    enter(board, {OLD: ENTRY | {"replaced_by": NEW}})
    assert contradictions(board) == []
    enter(board, {NEW: ENTRY})
    assert contradictions(board) == [f"{NEW} is withdrawn, but common-v1-s0.json is there"]
    enter(board, {OLD: ENTRY | {"replaced_by": LATER}})
    assert contradictions(board) == [f"{OLD} is replaced by {LATER}, which does not stand"]
    enter(board, {OLD: ENTRY | {"replaced_by": LATER}, LATER: ENTRY | {"replaced_by": NEW}})
    assert contradictions(board) == []
    enter(board, {OLD: ENTRY | {"replaced_by": LATER}, LATER: ENTRY | {"replaced_by": OLD}})
    assert len(contradictions(board)) == 2
    enter(board, {OLD: ENTRY})
    (board / OLD).parent.mkdir()
    (board / OLD).with_suffix(".npz").touch()
    assert contradictions(board) == [f"{OLD} is withdrawn, but common-v1-s0.npz is there"]
