"""How much one visitor can ask of the app: pictures, faces, seconds, memory and places in the queue."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_bench import faces as detection
from fer_bench import scoring
from fer_bench.errors import UserError
from fer_bench.faces import Face
from fer_bench.ui import clip, engine, pictures, shelf
from fer_bench.ui.app import board_folder
from fer_bench.ui.board import build_board
from fer_bench.ui.board_rows import Board
from tests.test_video_bounds import hidden
from tests.ui.conftest import sent

METHODS = ["small_cnn", "deep_emotion"]


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that finds as many faces as a picture is tens of pixels wide, the later ones the larger."""

    def found(picture: Image.Image) -> list[Face]:
        return [Face((10 * i, 0, 10 * i + 8, min(8 + i, 48)), 0.9) for i in range(picture.width // 10)]

    monkeypatch.setattr(detection, "detect_faces", found)


def drawn(folder: Path, *widths: int) -> list[str]:
    """Files of pictures so wide."""
    paths = []
    for width in widths:
        paths.append(str(folder / f"{len(paths)}.png"))
        Image.fromarray(np.full((48, width, 3), 90 + len(paths), np.uint8)).save(paths[-1])
    return paths


def test_one_picture_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a picture is opened no other is kept at its size, nor is one when all are answered."""
    read, alive, most = pictures.read, [], []

    def watched(path: str) -> Image.Image:
        gc.collect()
        most.append(sum(one() is not None for one in alive))
        picture = read(path)
        alive.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr(pictures, "read", watched)
    rows, faces, problems = pictures.score_all(drawn(tmp_path, *[600] * 5), ["small_cnn"])
    gc.collect()
    assert (len(rows), len(faces), problems) == (5, 5, [])
    assert max(most) <= 1  # the one before, until the new one takes its name
    assert sum(one() is not None for one in alive) == 0
    assert {face.size for face in faces.values()} == {(pictures.THUMBNAIL,) * 2}


def test_groups_of_pictures_give_the_rows_of_each(tmp_path: Path, tiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many faces go through the networks together, the rows are those of every picture alone, in order."""
    paths = drawn(tmp_path, 50, 9, 50, 20)
    monkeypatch.setattr(pictures, "TOGETHER", 6)
    rows, faces, problems = pictures.score_all(paths, METHODS)
    alone = [row for path in paths for row in engine.score([(Path(path).name, Image.open(path))], METHODS)]
    assert problems == []
    assert [(row["filepath"], row["face"], row["method"]) for row in rows] == [
        (row["filepath"], row["face"], row["method"]) for row in alone
    ]
    assert len(rows) == 2 * (5 + 1 + 5 + 2)
    for row, right in zip(rows, alone, strict=True):
        assert [row[e] for e in engine.emotions_in([row])] == pytest.approx(
            [right[e] for e in engine.emotions_in([right])], abs=2e-6
        )
    items = pictures.gallery_of(rows, faces)
    assert [item[1].split(" · ")[-1] for item in items[4:7]] == ["0.png, face 5", "1.png", "2.png, face 1"]
    assert [place for place, item in enumerate(items) if item[1].startswith("No face found · ")] == [5]


def test_the_largest_faces_of_a_crowd_are_answered_for(
    visitor: Callable, tmp_path: Path, tiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more faces than the bound the largest get answers, from left to right, and the page says so."""
    monkeypatch.setattr(engine, "MOST_FACES", 3)
    crowd, pair = drawn(tmp_path, 70, 20)
    rows, _, problems = pictures.score_all([crowd, pair], ["small_cnn"])
    assert [(row["face"], row["left"]) for row in rows] == [(1, 40), (2, 50), (3, 60), (1, 0), (2, 10)]
    assert problems == ["0.png: of its 7 faces only the 3 largest are answered for."]
    message, *_ = visitor("score", "click", [sent(Path(crowd)), sent(Path(pair))], ["small_cnn"])
    assert "2 pictures read." in message
    assert problems[0] in message


def test_a_program_is_told_of_a_crowd(app: Any, tmp_path: Path, tiled: None) -> None:
    """/predict answers for a picture of as many faces as its description says, and refuses one of more."""
    (predict,) = (fn for fn in app.fns.values() if fn.api_name == "predict")
    assert f"more than {engine.MOST_FACES} faces" in predict.fn.__doc__
    few, many = drawn(tmp_path, 10 * engine.MOST_FACES, 10 * engine.MOST_FACES + 10)
    assert len(engine.score([("few.png", Image.open(few))], ["small_cnn"])) == engine.MOST_FACES
    with pytest.raises(UserError, match=r"many\.png: 101 faces were found, of at most 100; cut the picture"):
        engine.score([("many.png", Image.open(many))], ["small_cnn"])


def test_what_is_beyond_a_bound_is_left_out_and_said(
    tmp_path: Path, tiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures beyond the bounds of pictures, faces and seconds are not opened, and one sentence counts them."""
    paths = drawn(tmp_path, 20, 20, 20, 20)

    def answered() -> tuple[list[str], list[str]]:
        rows, _, problems = pictures.score_all(paths, ["small_cnn"])
        return sorted({row["filepath"] for row in rows}), problems

    assert answered() == (["0.png", "1.png", "2.png", "3.png"], [])
    monkeypatch.setattr(pictures, "MOST_FACES", 3)
    assert answered() == (
        ["0.png", "1.png"], ["Left out: 2 pictures after the first 4 faces; give the rest separately."],
    )  # fmt: skip
    monkeypatch.setattr(pictures, "MOST_PICTURES", 1)
    assert answered() == (["0.png"], ["Left out: 3 pictures beyond the first 1; give the rest separately."])
    monkeypatch.setattr(pictures, "MOST_PICTURES", 9)
    monkeypatch.setattr(engine, "MOST_SECONDS", -1)
    assert answered() == (["0.png"], ["Left out: 3 pictures after -1 seconds of work; give the rest separately."])


def test_a_method_named_twice_is_asked_once() -> None:
    """A list of a thousand times the same method is a list of that one."""
    assert engine.chosen(["small_cnn", "deep_emotion", "small_cnn"] * 500) == ["small_cnn", "deep_emotion"]
    assert engine.ask(lambda models: [model.name for model in models], ["small_cnn"] * 9) == (["small_cnn"], [])


def test_names_that_do_not_exist_leave_nothing_behind() -> None:
    """However many unknown methods are asked for, the shelf does not grow."""

    def load(name: str) -> SimpleNamespace:
        raise UserError(name)

    kept = shelf.Shelf(load, bound=1)
    for number in range(9):
        with pytest.raises(UserError):
            kept[f"unknown {number}"]
    assert kept._loading == {}


def test_tracks_that_do_not_exist_leave_nothing_behind() -> None:
    """However many unknown tracks and recipes are asked for, the board does not grow; each gets an empty table."""
    seen = Board.read(board_folder())
    seen.cells("fer2013"), seen.cells("fer2013", "common-v1")
    before = len(seen._rows), len(seen._cells)
    assert min(before) >= 2
    for number in range(9):
        assert seen.cells(f"track {number}").values == []
        assert seen.cells("fer2013", f"recipe {number}").values == []
        assert seen.rows(None, f"recipe {number}")[1] == {}
    assert (len(seen._rows), len(seen._cells)) == before


# Clips --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def short_clip(tmp_path: Path) -> Path:
    """Two seconds at ten frames a second."""
    from fer_bench.video import write_clip

    return write_clip(tmp_path / "clip.mp4", (np.full((64, 96, 3), 5 * step, np.uint8) for step in range(20)), 10)


def test_the_folder_of_an_answer_waits_for_the_answer() -> None:
    """However long the work takes, what is to be downloaded is there until its time after the work; then it goes."""
    with engine.folder_for(0.2) as folder:
        time.sleep(0.6)
        (folder / "scores.csv").write_text("a face")
    assert (folder / "scores.csv").exists()
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


def test_the_folder_of_a_failure_goes_at_once() -> None:
    """Where the work raises, nothing of it stays."""
    made = []

    def fails(folder: Path) -> None:
        (folder / "annotated.mp4").write_text("a face")
        made.append(folder)
        raise UserError("no clip")

    with pytest.raises(UserError), engine.folder_for() as folder:
        fails(folder)
    assert not made[0].exists()


def test_a_clip_that_takes_long_gets_its_answer(
    visitor: Callable, short_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time after which its files go begins when the work is done, so that they are there to be shown."""
    read_clip, started, before = engine.read_clip, [], []

    class Noted(threading.Timer):
        def start(self) -> None:
            started.append(self)

    def watched(*given: Any) -> tuple[list, list]:
        answer = read_clip(*given)
        before.append(len(started))
        return answer

    monkeypatch.setattr(threading, "Timer", Noted)
    monkeypatch.setattr(engine, "read_clip", watched)
    message, plot, annotated, table = visitor("read-clip", "click", sent(short_clip), "small_cnn", 4, "none")
    assert "8 frames over 1.8 s" in message
    assert all(part["visible"] for part in (plot, annotated, table))
    assert json.loads(plot["value"]["plot"])["config"] == {"displayModeBar": False}  # it covers a phone's plot
    assert before == [0]
    (timer,) = started
    assert timer.interval == 120
    timer.function()


def test_a_clip_out_of_time_gives_what_was_read(
    visitor: Callable, short_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time is up the frames read so far are plotted and listed, and the page says what is missing and why."""
    answered, now = scoring.score_prepared, [0.0]

    def slow(*given: Any) -> list:
        now[0] += 300
        return answered(*given)

    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(scoring, "score_prepared", slow)
    message, plot, annotated, table = visitor("read-clip", "click", sent(short_clip), "small_cnn", 4, "none")
    assert "1 frame over 0.0 s" in message
    assert "clip.mp4: after 240 seconds of work only its first 0.0 s were read, and no annotated clip was" in message
    assert "choose fewer frames per second." in message
    assert (plot["visible"], annotated["visible"], table["visible"]) == (True, False, True)


@pytest.mark.parametrize("packets", [0, 40])
def test_the_time_is_up_among_frames_that_are_never_shown(
    packets: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip of one picture and many hidden frames ends with its time, with that picture or a word that none was."""
    path, out, asked = hidden(tmp_path / "clip.ivf", 400), tmp_path / "out.mp4", []
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: asked.append(1) or len(asked)))
    monkeypatch.setattr(engine, "MOST_SECONDS", packets)
    if packets:
        rows, notes = engine.read_clip(path, out, "small_cnn", 4, 300, None)
        assert [row["time"] for row in rows] == [0]
        assert len(notes) == 1
        assert f"after {packets} seconds of work only its first 0.0 s were read, and no annotated clip" in notes[0]
    else:
        with pytest.raises(UserError, match=r"clip\.ivf: the time was up before it showed a frame; cut it into parts"):
            engine.read_clip(path, out, "small_cnn", 4, 300, None)
    assert len(asked) < 60
    assert not out.exists()


def test_a_clip_is_decoded_as_far_as_its_size_allows(
    visitor: Callable, short_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large frames fewer are decoded, and the page says up to where."""
    monkeypatch.setattr(engine, "MOST_DECODED", 64 * 96 * 10)
    message, _, annotated, _ = visitor("read-clip", "click", sent(short_clip), "small_cnn", 4, "none")
    assert "clip.mp4: only the first 10 frames, up to 0.9 s, were read; cut it into parts." in message
    assert "4 frames over 0.8 s" in message
    assert annotated["visible"]


# The queue ----------------------------------------------------------------------------------------------------------


def test_the_board_does_not_wait_for_pictures(app: Any) -> None:
    """What the leaderboard's tab shows is not queued, but for the pictures of a data set, which have to be loaded."""
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as alone:
        build_board(board_folder())
    events = [fn for fn in alone.fns.values() if fn.fn and fn.api_visibility == "private"]
    assert len(events) >= 8
    (queued,) = (fn for fn in events if fn.queue)
    assert [alone.blocks[number].elem_id for number, _ in queued.targets] == ["board-show"]
    networks = [fn for fn in app.fns.values() if fn.concurrency_id == "networks"]
    assert len(networks) >= 5
    assert all(fn.queue and fn.concurrency_limit == 1 for fn in networks)


def test_several_cameras_run_and_the_rest_are_told(app: Any) -> None:
    """More cameras run at once than are worked on together, and the page says what a visitor beyond them waits for."""
    (stream,) = (fn for fn in app.fns.values() if fn.connection == "stream")
    assert stream.concurrency_limit == clip.LIVE_STREAMS > clip._AT_WORK._value
    texts = [block.value for block in app.blocks.values() if type(block).__name__ == "Markdown"]
    assert f"While {clip.LIVE_STREAMS} others are on, yours waits" in "".join(filter(None, texts))


# Crowds -------------------------------------------------------------------------------------------------------------


def test_of_a_crowd_the_largest_faces_can_be_chosen(
    visitor: Callable, tmp_path: Path, tiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In "Try it" too the largest faces alone are marked and offered, and the page says how many there are."""
    monkeypatch.setattr(engine, "MOST_FACES", 3)
    crowd, few = drawn(tmp_path, 70, 30)
    settings = (["deep_emotion"], "gradcam", "predicted", 0.5)
    message, marked, radio, *_ = visitor("picture", "change", sent_of(crowd), None, *settings)
    assert "7 faces were found, of which the 3 largest are marked; choose one below." in message
    assert "3 face(s) marked" in marked
    assert len(radio["choices"]) == 3
    message, *_ = visitor("face", "input", sent_of(crowd), 1, *settings)
    assert "7 faces were found" in message
    message, *_ = visitor("picture", "change", sent_of(few), None, *settings)
    assert "3 faces were found; choose one below." in message


def test_the_largest_faces_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal boxes, were there any, do not make them more than the bound."""
    monkeypatch.setattr(engine, "MOST_FACES", 2)
    small, large, middle = (Face((0, 0, side, side), 0.9) for side in (5, 9, 7))
    assert engine.largest_faces([small, large, middle]) == [large, middle]
    assert engine.largest_faces([large] * 3) == [large] * 2
    assert engine.largest_faces([]) == []


def test_a_frame_of_just_the_most_faces_is_not_called_cut(
    visitor: Callable, short_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page says of a clip's crowds is true of frames with as many faces as are answered for, too."""
    monkeypatch.setattr(engine, "MOST_FACES", 2)
    faces = [Face((8 * i, 0, 8 * i + 8, 8 + i), 0.9) for i in range(3)]
    for found, told in ((1, False), (2, True), (3, True)):
        monkeypatch.setattr("fer_bench.scoring.detect_faces", lambda picture, found=found: faces[:found])
        message, *_ = visitor("read-clip", "click", sent_of(short_clip), "deep_emotion", 1, "none")
        assert ("clip.mp4: of frames with more than 2 faces only the largest 2 are answered for." in message) is told


def sent_of(path: Path | str) -> dict:
    """A file in the folder of uploads, as the page sends it."""
    there = Path(os.environ["GRADIO_TEMP_DIR"]) / Path(path).parent.name / Path(path).name
    there.parent.mkdir(exist_ok=True)
    there.write_bytes(Path(path).read_bytes())
    return sent(there)
