"""What the page's events answer, without a browser: as gradio runs them for one visitor after another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_bench import charts
from fer_bench.ui import app as app_module
from fer_bench.ui import clip, look, pictures, try_it
from fer_bench.ui.board_rows import ALL
from fer_bench.weights import write_index
from tests.ui.conftest import sent


@pytest.fixture
def faces(app: Any, tmp_path: Path) -> dict[str, dict]:
    """A portrait, the same twice in one picture, and a text file named .jpg, as the page sends them."""
    from skimage.data import astronaut

    one = astronaut()
    Image.fromarray(one).save(tmp_path / "one.jpg")
    Image.fromarray(np.concatenate([one, one[:, ::-1]], 1)).save(tmp_path / "two.jpg")
    (tmp_path / "notes.jpg").write_text("This is not a picture.")
    return {path.stem: sent(path) for path in tmp_path.glob("*.jpg")}


SETTINGS = (["small_cnn"], "gradcam", "predicted", 0.5)


@pytest.mark.parametrize("cost", charts.COSTS)
def test_every_cost_gives_its_chart(visitor: Callable, cost: str) -> None:
    """Whatever accuracy is to be drawn against, the choice shows a chart with that axis."""
    shown, words = visitor("Cost", "input", "fer2013", ALL, cost)
    assert shown["visible"]
    assert json.loads(shown["value"]["plot"])["layout"]["xaxis"]["title"]["text"].startswith(charts.COSTS[cost])
    assert words.startswith(f"**The frontier, cheapest first** ({charts.COSTS[cost].lower()}, accuracy): ")


def test_pictures_of_another_kind_than_the_chosen_one_do_not_stay(visitor: Callable) -> None:
    """Another kind of disagreement takes away the pictures that are shown, and the line that tells of them."""
    assert visitor("Which pictures", "input") == ["", ""]


def test_what_was_read_names_pictures_without_a_face() -> None:
    """The line above the gallery counts the pictures, and those in which no face was found."""
    assert pictures.summary([("a.png", 1), ("a.png", 2)]) == "1 picture read."
    told = "3 pictures read; of 2, in which no face was found, the middle square was used."
    assert pictures.summary([("a.png", 1), ("b.png", 0), ("c.png", 0)]) == told
    assert (
        pictures.summary([("b.png", 0)])
        == "1 picture read; of 1, in which no face was found, the middle square was used."
    )


def test_a_broken_picture_after_a_good_one_is_named(visitor: Callable, faces: dict) -> None:
    """A good picture, taken away, then a broken one: one sentence with its name, and the broken one is taken away."""
    message, *_ = visitor("picture", "change", faces["one"], None, *SETTINGS)
    assert try_it.ONE_FACE in message
    assert visitor("picture", "change", None, None, *SETTINGS)[3] == try_it.WAITING
    message, _, _, answers, picture, _ = visitor("picture", "change", faces["notes"], None, *SETTINGS)
    assert "notes.jpg: this is not a readable picture" in message
    assert (answers, picture) == (try_it.WAITING, None)
    kept = visitor("picture", "change", None, None, *SETTINGS)[:4]
    assert all("value" not in part for part in kept)  # the sentence stays, though the picture has gone
    assert visitor("picture", "change", None, None, *SETTINGS)[0] == ""


def test_the_chosen_face_survives_an_emptied_list_of_methods(visitor: Callable, faces: dict) -> None:
    """Without a method the visitor is told so; the face that was chosen stays chosen and marked, as does the choice."""
    visitor("picture", "change", faces["two"], None, *SETTINGS)
    message, marked, radio, answers = visitor("face", "input", faces["two"], 1, [], *SETTINGS[1:])
    assert "Choose at least one method." in message
    assert "face 2 is chosen" in marked
    assert (radio["value"], radio["visible"], len(radio["choices"])) == (1, True, 2)
    assert answers == ""


def test_nothing_offers_to_share_a_visitors_picture(app: Any) -> None:
    """No component has Gradio's share button, which publishes what it holds."""
    assert not [block.label for block in app.blocks.values() if "share" in (getattr(block, "buttons", None) or ())]


def test_one_picture_is_counted_as_one(visitor: Callable, faces: dict) -> None:
    """The note counts in plain words: one picture, two pictures."""
    message, *_ = visitor("score", "click", [faces["one"]], ["small_cnn"])
    assert "1 picture read." in message
    assert look.count(2, "picture") == "2 pictures"
    assert pictures.THUMBNAIL >= 320


def frames(*faces_at: int) -> list[dict]:
    """Rows of frames half a second apart; each with so many faces, 0 for none."""
    return [
        {"time": index / 2, "face": face, "left": 0, "top": 0, "right": 10 * face, "bottom": 10}
        for index, several in enumerate(faces_at)
        for face in (range(1, several + 1) if several else [0])
    ]


def test_frames_without_a_face_are_counted() -> None:
    """The sentence about a clip says in how many frames no face was found, and when the clip goes on."""
    assert clip.summary(frames(1, 1, 1), False) == "3 frames over 1.0 s."
    assert clip.summary(frames(1, 0, 0), False) == (
        "3 frames over 1.0 s; no face was found in 2 of them, where the middle of the picture was used."
    )
    assert clip.summary(frames(0, 0), False) == (
        "2 frames over 0.5 s; no face was found in any of them, where the middle of the picture was used."
    )
    several = clip.summary(frames(2, 1), True)
    assert several.endswith("the largest is on the plot; the clip was followed for its first 2 frames.")


@pytest.mark.parametrize(("length", "more"), [(20, False), (21, True)])
def test_a_clip_of_just_the_most_frames_is_not_called_cut(tmp_path: Path, length: int, more: bool) -> None:
    """A clip that ends with the last frame looked at does not go on; one with another frame does."""
    from fer_bench.video import write_clip

    path = tmp_path / "clip.mp4"
    write_clip(path, (np.full((64, 64, 3), step, np.uint8) for step in range(length)), 10)
    assert clip.goes_on(str(path), 1.9, 10) == more


def test_live_points_are_of_one_method_and_break_after_a_pause() -> None:
    """Another method begins a plot of its own; a camera that was stopped leaves a gap in the lines."""
    scores = {"anger": 0.4, "fear": 0.6}
    history = clip.with_point(clip.with_point([], "one", 0.0, scores), "one", 1.0, scores)
    assert [point[1] for point in history] == [0.0, 1.0]
    later = clip.with_point(history, "one", 60.0, scores)
    assert [list(point[2].values()) for point in later] == [[0.4, 0.6], [0.4, 0.6], [None, None], [0.4, 0.6]]
    assert clip.with_point(history, "two", 2.0, scores) == [("two", 2.0, scores)]
    for step in range(2 * clip.LIVE_POINTS):
        later = clip.with_point(later, "one", 60.5 + step, scores)
    assert len(later) == clip.LIVE_POINTS


def test_a_number_stands_outside_its_face_where_there_is_room() -> None:
    """Above the box, else below or beside it, off other faces and inside the picture; else in the box's own corner."""
    face, size = (40, 40, 60, 60), (10, 12)
    assert try_it.badge_place(face, size, (100, 100), [face]) == (40, 28, 50, 40)
    assert try_it.badge_place(face, size, (100, 100), [face, (30, 10, 60, 35)]) == (40, 60, 50, 72)
    assert try_it.badge_place((0, 0, 60, 60), size, (100, 60), [(0, 0, 60, 60)]) == (60, 0, 70, 12)
    assert try_it.badge_place((0, 0, 60, 60), size, (60, 60), [(0, 0, 60, 60)]) == (0, 0, 10, 12)


def test_a_new_page_shows_what_has_come_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and submissions that were added while the app runs stand in the pickers and the queue of the next page.

    A page that has them already gets none of them again: pickers are left as they are.
    """
    from gradio.state_holder import SessionState

    weights, root = tmp_path / "weights", tmp_path / "board"
    weights.mkdir()
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(weights))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    demo = app_module.build(root)
    (load,) = (
        fn for fn in demo.fns.values() if any(t == (demo._id, "load") for t in fn.targets) and len(fn.outputs) == 6
    )
    assert not load.queue

    def loaded() -> list[dict]:
        return asyncio.run(demo.process_api(load._id, [], state=SessionState(demo)))["data"]

    without, *pickers, queue, empty = loaded()
    assert (without["visible"], queue["visible"], empty["visible"]) == (True, False, True)
    assert all("choices" not in picker for picker in pickers)

    row = {"method": "small_cnn", "track": "fer2013", "recipe": "common-v1", "seed": 0}
    entry = {**row, "file": "x", "bytes": 1, "sha256": "0" * 64, "hub": None, "revision": None}
    write_index({"small_cnn/fer2013/common-v1-s0": entry}, weights)
    (weights / "x").write_bytes(b"x")
    (root / "submissions" / "mine").mkdir(parents=True)
    without, *pickers, queue, empty = loaded()
    assert (without["visible"], queue["visible"], empty["visible"]) == (False, True, False)
    assert [picker["value"] for picker in pickers] == [["small_cnn"], ["small_cnn"], "small_cnn"]
    assert [[name for _, name in picker["choices"]] for picker in pickers] == [["small_cnn"]] * 3
    assert queue["value"]["data"][0][0] == "mine"
