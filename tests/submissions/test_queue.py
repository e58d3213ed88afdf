"""The queue and the names on the board: what is skipped as measured, whose name is taken, what one entry can break."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fer_bench.card_files import SUBMITTED, read_cards, write_submitted
from fer_bench.results import read_result
from fer_bench.submissions import behaviour, check, check_queue, checks, judging, main, queue
from fer_bench.weights import sha256
from tests.helpers import write_folder
from tests.submissions.models import MANIFEST, after, faces, model, node, submission, tensor
from tests.submissions.records import record

MODEL = model().SerializeToString()
OTHER = model(after(node("Mul", "answer two", "logits")), [tensor("two", 2.0)]).SerializeToString()
"""The same answers, more surely."""


def named(name: str) -> str:
    return MANIFEST.replace("name: my_model", f"name: {name}")


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return tmp_path / "board"


def test_the_queue_lists_what_waits(board: Path) -> None:
    """A waiting submission, one whose model is on the Hub, measured ones and a broken one are told apart."""
    root = board / "submissions"
    submission(root / "here", MODEL, named("here"))
    pins = {name: f"me/mine@{letter * 40}" for name, letter in (("hub", "a"), ("hub_done", "b"))}
    for name, pin in pins.items():
        submission(root / name, manifest=f"{named(name)}\nhub: {pin}\n")
    submission(root / "broken", manifest="name: [")
    submission(root / "done", MODEL, named("done"))
    record(board, "done", MODEL)
    record(board, "hub_done", OTHER, pretrained=f"declared: x; model hub:{pins['hub_done']}")
    states = {item.name: item.state for item in queue(root)}
    broken = states.pop("broken")
    assert states == {
        "here": "waiting", "hub": "waiting (model on the Hub)", "done": "on the board", "hub_done": "on the board",
    }  # fmt: skip
    assert broken.startswith("broken: submission.yaml: it is not valid YAML")
    assert queue(board / "nowhere") == []


def test_a_row_counts_once_maintainers_have_measured_what_stands_here(board: Path) -> None:
    """By its authors, on one of two tracks, or of another submission.yaml: the entry still waits, and says for what."""
    root, manifest = board / "submissions", named("mine")
    folder = submission(root / "mine", MODEL, manifest)
    path = record(board, "mine", MODEL)

    def state() -> str:
        (item,) = queue(root)
        return item.state

    assert state() == "on the board", "there are no rows on fer2013 here: it cannot be measured there"
    (board / "results" / "fer2013").mkdir()
    assert state() == "waiting: to be measured on fer2013"
    (board / "results" / "fer2013").rmdir()
    for old, new in (
        ("licence: MIT", "licence: GPL"),
        ("[anger, disgust,", "[disgust, anger,"),
        ("[1.0]", "[2.0]"),
    ):
        (folder / "submission.yaml").write_text(manifest.replace(old, new))
        assert state() == "waiting: its submission.yaml is not the one that was measured"
    (folder / "submission.yaml").write_text(manifest)
    assert state() == "on the board"
    path.write_text(path.read_text().replace('"verified": true', '"verified": false'))
    assert state() == "waiting: measured, not verified"


def test_evaluations_at_once_keep_each_others_cards(board: Path) -> None:
    """Each reads, adds and writes alone."""
    names = [f"model_{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: write_submitted(board, {name: {"authors": [name]}}), names))
    assert sorted(read_cards(board, SUBMITTED)) == sorted(names)


def test_the_queue_is_listed_by_name(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Name, tracks and state: when a file was written here is the day of the clone, so no date is claimed."""
    root = board / "submissions"
    for name, age in (("bb", 2), ("aa", 1)):
        os.utime(submission(root / name, MODEL, named(name)) / "submission.yaml", (10**9 * age, 10**9 * age))
    assert main(["queue", str(root)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["aa", "fer2013,", "rendered", "waiting"], ["bb", "fer2013,", "rendered", "waiting"],
    ]  # fmt: skip


def test_a_measured_model_is_hashed_once(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the queue costs no reading of models that have not changed; one that has is read again."""
    read, whole = [], hashlib.file_digest
    monkeypatch.setattr(checks.hashlib, "file_digest", lambda file, kind: read.append(1) or whole(file, kind))
    path = submission(board / "submissions" / "mine", MODEL, named("mine")) / "model.onnx"
    record(board, "mine", MODEL)
    for _ in range(3):
        assert [item.state for item in queue(board / "submissions")] == ["on the board"]
    assert len(read) == 1
    path.write_bytes(OTHER)
    assert [item.state for item in queue(board / "submissions")] == ["waiting"]
    assert len(read) == 2


@pytest.mark.usefixtures("not_run")
@pytest.mark.parametrize(
    ("folder", "name", "measured", "external", "code"),
    [
        ("mine", "mine", MODEL, True, None),
        ("mine", "mine", OTHER, True, "name_taken"),
        ("mine", "mine", MODEL, False, "name_taken"),
        ("mine", "mine", b"", True, "name_taken"),
        ("elsewhere", "mine", MODEL, True, "folder_name"),
        ("small_cnn", "small_cnn", MODEL, True, "name_taken"),
    ],
    ids=["this very model", "another model", "a row of ours", "a broken record", "a folder of another name",
         "a method's name"],
)  # fmt: skip
def test_only_this_very_model_is_skipped(
    folder: str, name: str, measured: bytes, external: bool, code: str | None, board: Path
) -> None:
    """A row under the name does not wave a submission through: folder, name and the model's own hash must agree."""
    root = board / "submissions"
    submission(root / folder, MODEL, named(name))
    path = record(board, name, measured, external)
    if not measured:
        path.write_text("{}")
    found = check_queue(root)
    assert [problem.code for problems in found.values() for problem in problems] == ([code] if code else [])
    assert list(found) == ([folder] if code else [])


@pytest.mark.usefixtures("not_run")
def test_a_model_that_was_swapped_is_checked_whole(board: Path) -> None:
    """What takes the place of a measured model is looked at like any other file."""
    root = board / "submissions"
    folder = submission(root / "mine", b"\x80\x04pickle", named("mine"))
    (folder / "run.sh").write_text("x")
    record(board, "mine", MODEL)
    assert {problem.code for problem in check_queue(root)["mine"]} == {"extra_file", "name_taken", "not_onnx"}


def test_the_name_of_another_submission_on_the_board_is_taken(
    board: Path, tmp_path: Path, inspected_here: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check says so beforehand; of the model that stands there it does not."""
    monkeypatch.setattr(checks, "BOARD", board)
    record(board, "mine", MODEL)
    assert check(submission(tmp_path / "same", MODEL, named("mine")), run=False) == []
    (problem,) = check(submission(tmp_path / "other", OTHER, named("mine")), run=False)
    assert problem.code == "name_taken"
    assert "for another model (results/rendered/mine/submitted-s0.json)" in problem.text


def test_a_row_of_another_model_is_overwritten_only_when_asked(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured another model under the same name is refused; --replace lets it take the row."""
    bars = faces()
    monkeypatch.setattr(behaviour, "rendered_faces", lambda: bars)
    monkeypatch.setattr(judging, "latencies", lambda *_: (0.001, 0.002))
    monkeypatch.setattr(judging, "write_leaderboard", lambda _: None)
    command = ["--track", f"folder:{write_folder(tmp_path / 'data')}", "--out", str(board)]
    assert main(["evaluate", str(submission(tmp_path / "one", MODEL)), *command]) == 0
    (path,) = board.glob("results/*/my_model/*.json")
    before = read_result(path)
    other = submission(tmp_path / "two", OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(checks, "open_model", None)  # nothing runs
        assert main(["evaluate", str(other), *command]) == 1
    assert "[name_taken]" in capsys.readouterr().out
    assert read_result(path) == before
    assert main(["evaluate", str(other), *command, "--replace"]) == 0
    assert read_result(path).weights.sha256 == sha256(other / "model.onnx") != before.weights.sha256


@pytest.mark.usefixtures("not_run")
def test_one_hostile_entry_does_not_end_the_queue(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Many files with a link behind them, and what cannot be read at all, are reasons; the others are still checked."""
    root = board / "submissions"
    folder = submission(root / "aa", manifest=named("aa") + "\narchitecture: small_cnn\n")
    for number in range(17):
        (folder / f"a{number:02}").write_text("")
    (folder / "model.safetensors").symlink_to("/etc/hostname")
    (submission(root / "bb", manifest=named("bb")) / "model.onnx").symlink_to("bb")
    (root / "cc").mkdir()
    (root / "cc" / "submission.yaml").symlink_to("submission.yaml")
    submission(root / "mine", MODEL, named("mine"))
    record(board, "bb", MODEL)  # so that even the queue would read bb's model
    assert main(["queue", str(root), "--check"]) == 1
    out = capsys.readouterr().out
    assert "there are more than 16 entries" in out
    assert "mine: All checks passed" in out
    assert {name: [p.code for p in found] for name, found in check_queue(root).items()} == {
        "aa": ["too_many_files"], "bb": ["link"], "cc": ["link"], "mine": [],
    }  # fmt: skip


@pytest.mark.usefixtures("not_run")
def test_what_is_no_folder_is_not_lost(board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A zip, a link or the bare files in the queue's own folder wait for nobody: each is a reason, unopened."""
    root = submission(board / "submissions", MODEL)
    (root / "mine.zip").write_bytes(b"PK")
    (root / "linked").symlink_to(submission(tmp_path / "elsewhere", MODEL, named("linked")))
    for name in ("README.md", ".DS_Store"):
        (root / name).write_text("no submission")
    lost = ["linked", "mine.zip", "model.onnx", "submission.yaml"]
    assert [(item.name, item.state) for item in queue(root)] == [(name, f"broken: {checks.STRAY}") for name in lost]
    found = check_queue(root)
    assert [(name, [p.code for p in found[name]]) for name in found] == [(name, ["no_folder"]) for name in lost]
    assert main(["queue", str(root), "--check"]) == 1
    assert "mine.zip" in capsys.readouterr().out


def test_an_entry_that_fails_while_it_is_read_is_a_reason(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that vanishes or closes itself between two looks costs its own entry alone."""
    root = board / "submissions"
    submission(root / "mine", MODEL, named("mine"))

    def gone(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks, "_model_problems", gone)
    assert [problem.code for problem in check_queue(root)["mine"]] == ["unreadable"]
    monkeypatch.setattr(checks, "scan", gone)
    assert [problem.code for problem in check_queue(root)["mine"]] == ["unreadable"]
    monkeypatch.setattr(checks, "manifest_of", gone)
    assert [item.state for item in queue(root)] == ["broken: it cannot be read (Permission denied)."]


@pytest.mark.parametrize("name", ["z\x1b[2JALL CHECKS PASSED", "::error::x", "Übung"])
def test_a_folder_s_name_is_no_command(name: str, board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that no submission may have is shown in quotes, without escapes, and never begins a line bare."""
    submission(board / "submissions" / name, manifest="name: [")
    assert main(["queue", str(board / "submissions"), "--check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isascii() and line.isprintable() and not line.startswith("::") for line in lines)
    assert ascii(name) in "".join(lines)
