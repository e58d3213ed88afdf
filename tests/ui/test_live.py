"""The live camera: what one frame gives, with and without a map over the face."""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_bench import explain, faces
from fer_bench.cams import CAMS, for_emotion
from fer_bench.datasets.rendered import render
from fer_bench.errors import UserError
from fer_bench.registry import UnknownNameError
from fer_bench.ui import clip, keeping, shelf
from tests.ui.conftest import ask_as

METHOD = "sep_cnn"
GREY = (120, 120, 120)


def camera(*at: tuple[int, int, int], size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A frame with a drawn face at each place: left, top and side."""
    frame = Image.new("RGB", size, GREY)
    for left, top, side in at:
        face = Image.fromarray(render("happiness", 1.0, 32, 256)[0]).convert("RGB")
        frame.paste(face.resize((side, side)), (left, top))
    return frame


@pytest.fixture(scope="module")
def frame() -> Image.Image:
    """A camera's frame with one face."""
    found = camera((200, 100, 256))
    assert len(faces.detect_faces(found)) == 1
    return found


def as_sent(frame: Image.Image) -> dict:
    """A frame as the page sends it."""
    buffer = io.BytesIO()
    frame.save(buffer, "PNG")
    return {"url": "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()}


def picture_in(html: str) -> Image.Image:
    """The picture inside an answer."""
    (data,) = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', html)
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    """bool (H, W): where a picture was drawn on, beyond what JPEG does to it."""
    difference = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16))
    return difference.max(2) > 40


def inside(shape: tuple[int, ...], box: tuple[int, int, int, int], grown: int = 0) -> np.ndarray:
    """bool (H, W): within a box that is larger by so many pixels on each side."""
    mask = np.zeros(shape[:2], bool)
    left, top, right, bottom = box
    mask[max(0, top - grown) : bottom + grown, max(0, left - grown) : right + grown] = True
    return mask


def test_without_a_map_nothing_is_explained(frame: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer alone asks for no class activation map, and its scores are those of the face that was cut out."""
    monkeypatch.setattr(explain, "explain", lambda *given, **named: pytest.fail("a map was made"))
    scores, found, shown = clip.live_answer(frame, METHOD)
    model, (face,) = shelf.model_for(METHOD), faces.detect_faces(frame)
    assert scores == model.predict([faces.crop(frame, face.box, model.input_spec.margin)])[0]
    assert (found, shown) == (True, "")


@pytest.mark.parametrize("cam", CAMS)
def test_a_map_lies_over_the_face_alone(frame: Image.Image, cam: str) -> None:
    """The scores stay as they are; the frame is drawn on where the map of the face's crop is warm, and not far away."""
    scores, found, shown = clip.live_answer(frame, METHOD, cam)
    assert (scores, found) == clip.live_answer(frame, METHOD)[:2]
    after, top = picture_in(shown), max(scores, key=scores.get)
    assert after.size == frame.size
    assert f'alt="Your camera&#x27;s frame with {CAMS[cam]} of {METHOD}{for_emotion(cam, top)}"' in shown
    assert f'<figcaption class="fer-small">Heat: {CAMS[cam]}{for_emotion(cam, top)}</figcaption>' in shown
    model, (face,) = shelf.model_for(METHOD), faces.detect_faces(frame)
    left, wide, right, low = faces.frame_of(face.box, model.input_spec.margin)
    crop = faces.crop(frame, face.box, model.input_spec.margin)
    values = explain.explain(model, faces.stack([crop], model.input_spec.size), cam).maps[0]
    heat = np.asarray(Image.fromarray(values).resize((right - left, low - wide), Image.Resampling.BICUBIC))
    drawn = changed(frame, after)
    within = inside(drawn.shape, face.box, -6)[wide:low, left:right]  # off the box's own line
    assert drawn[wide:low, left:right][within & (heat > 0.8)].mean() > 0.8
    assert drawn[wide:low, left:right][within & (heat < 0.05)].mean() < 0.05
    name = (face.box[0], face.box[1] - 40, face.box[0] + 200, face.box[1])  # where the answer is written
    assert not drawn[~inside(drawn.shape, (left, wide, right, low), 8) & ~inside(drawn.shape, name)].any()


def test_of_two_faces_the_answered_one_has_the_map() -> None:
    """The largest face is answered for and explained; the other stays as the camera saw it."""
    frame = camera((40, 120, 160), (300, 80, 300))
    assert len(faces.detect_faces(frame)) == 2
    drawn = changed(frame, picture_in(clip.live_answer(frame, METHOD, "gradcam")[2]))
    assert drawn[:, 300:].any()
    assert not drawn[:, :230].any()


def test_a_large_frame_is_shown_smaller_and_explained_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown is at most as large as a camera is asked for; the map is of the very crop that was answered for."""
    large = camera((500, 100, 800), size=(1920, 1080))
    (face,), spec = faces.detect_faces(large), shelf.model_for(METHOD).input_spec
    seen, real = [], explain.explain

    def watched(model: Any, images: np.ndarray, **named: Any) -> explain.Explanation:
        seen.append(images)
        return real(model, images, **named)

    monkeypatch.setattr(explain, "explain", watched)
    shown = picture_in(clip.live_answer(large, METHOD, "gradcam")[2])
    assert shown.size == (clip.LIVE_SIDE, 360)
    (images,) = seen
    assert np.array_equal(images, faces.stack([faces.crop(large, face.box, spec.margin)], spec.size))
    drawn = changed(large.resize(shown.size), shown)
    box = tuple(round(edge / 3) for edge in faces.frame_of(face.box, spec.margin))
    assert drawn[inside(drawn.shape, box)].mean() > 0.02
    assert not drawn[360 - 20 :].any()


def test_a_grey_frame_gets_its_map(frame: Image.Image) -> None:
    """A camera without colour is answered and drawn on in colour."""
    shown = picture_in(clip.live_answer(frame.convert("L"), METHOD, "gradcam")[2])
    assert np.ptp(np.asarray(shown, np.int16), axis=2).max() > 100


def test_a_frame_without_a_face_clears_the_map(frame: Image.Image) -> None:
    """There the whole frame is answered for, and in the map's place, which it keeps, a sentence stands."""
    scores, found, shown = clip.live_answer(camera(), METHOD, "gradcam")
    assert not found
    assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
    assert "<img" not in shown
    assert clip.NO_FACE in shown
    assert "aspect-ratio:640/480" in shown
    assert "aspect-ratio:640/480" in clip.live_answer(frame, METHOD, "gradcam")[2]


def test_a_failing_map_leaves_the_answer(
    frame: Image.Image, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the explanation raises, the scores come as without it; the page says so, the server's log why."""

    def fails(*given: Any, **named: Any) -> None:
        raise RuntimeError("the layer has no gradient <b>")

    answer = clip.live_answer(frame, METHOD)
    monkeypatch.setattr(explain, "explain", fails)
    with caplog.at_level(logging.ERROR):
        scores, found, shown = clip.live_answer(frame, METHOD, "gradcam")
    assert (scores, found) == answer[:2]
    assert clip.NO_MAP in shown
    assert "<img" not in shown
    assert "gradient" not in shown
    assert "the layer has no gradient" in caplog.text


def test_a_method_without_a_map_says_so(frame: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no layer is known to draw a map over, the answer comes with the sentence that says so."""
    model = replace(shelf.model_for(METHOD), name="mine")
    monkeypatch.setattr(shelf, "model_for", lambda name: model)
    scores, found, shown = clip.live_answer(frame, METHOD, "gradcam")
    assert found
    assert set(scores) == set(model.emotions)
    assert "mine is not a registered method, so no card names the layer to draw a CAM over." in shown
    assert "<img" not in shown


@pytest.mark.parametrize("cam", ["gradcamm", "", 3, ["gradcam"], {"a": 1}])
def test_a_map_that_does_not_exist_leaves_the_answer(frame: Image.Image, cam: Any) -> None:
    """What a page of someone else's making asks for is answered without a map."""
    scores, found, shown = clip.live_answer(frame, METHOD, cam)
    assert (scores, found) == clip.live_answer(frame, METHOD)[:2]
    assert "<img" not in shown
    assert "there is no CAM" in shown or clip.NO_MAP in shown


def test_a_method_that_cannot_answer_raises_with_a_map_too(frame: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown method, and one whose weights cannot be loaded, are no matter of the map."""
    with pytest.raises(UnknownNameError):
        clip.live_answer(frame, "small_cn", "gradcam")

    def missing(name: str) -> None:
        raise UserError(f"{name} cannot answer: no weights")

    monkeypatch.setattr(shelf, "model_for", missing)
    with pytest.raises(UserError, match="no weights"):
        clip.live_answer(frame, METHOD, "gradcam")


# The event ----------------------------------------------------------------------------------------------------------


def test_the_page_shows_a_map_only_where_one_is_chosen(visitor: Callable, app: Any, frame: Image.Image) -> None:
    """No map is the choice to begin with; with one the frame comes back drawn on, beside the same line."""
    (choice,) = (block for block in app.blocks.values() if getattr(block, "elem_id", None) == "live-cam")
    assert choice.value == "none"
    assert [value for _, value in choice.choices] == ["none", *CAMS]
    line, shown, *_ = visitor("camera", "stream", as_sent(frame), METHOD, choice.value, None)
    assert shown == ""
    again, shown, *_ = visitor("camera", "stream", as_sent(frame), METHOD, "gradcam", None)
    assert again == line
    assert picture_in(shown).size == frame.size


def test_whatever_is_no_face_takes_the_last_map_away(visitor: Callable, frame: Image.Image) -> None:
    """An empty frame, no frame, a broken one and no method each clear what was drawn before."""
    for given, method in ((camera(), METHOD), (None, METHOD), ("broken", METHOD), (frame, None)):
        assert "<img" in visitor("camera", "stream", as_sent(frame), METHOD, "gradcam", None)[1]
        sent = as_sent(given) if isinstance(given, Image.Image) else given and {"url": "data:image/png;base64,AAAA"}
        line, shown, *_ = visitor("camera", "stream", sent, method, "gradcam", None)
        assert isinstance(shown, str)  # and not an update that leaves it as it is
        assert "<img" not in shown
        assert ("bad" in line) is (given == "broken")


def test_a_frame_with_a_map_is_not_kept(app: Any, frame: Image.Image) -> None:
    """No file is made of it; of all frames the memory holds the last alone, and none when the page is closed."""
    from gradio.state_holder import StateHolder

    app.state_session_capacity = keeping.SESSIONS
    holder = StateHolder()
    holder.set_blocks(app)
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = sorted(folder.rglob("*"))

    def held() -> int:
        return str(holder.session_data["one"].config_values).count("data:image/jpeg")

    for _ in range(3):
        ask_as(app, holder["one"], "camera", "stream", as_sent(frame), METHOD, "gradcam", None)
        assert held() == 1
    ask_as(app, holder["one"], "camera", "stream", as_sent(camera()), METHOD, "gradcam", None)
    assert held() == 0
    ask_as(app, holder["one"], "camera", "stream", as_sent(frame), METHOD, "gradcam", None)
    keeping.forget(app, 0, "one")
    assert held() == 0
    assert sorted(folder.rglob("*")) == before


def test_maps_are_made_for_as_many_cameras_as_are_worked_on(
    app: Any, frame: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that has to wait sends no map ahead of its turn: maps are part of the frames that are worked on."""
    (stream,) = (fn for fn in app.fns.values() if fn.connection == "stream")
    most, now, lock = [0], [0], threading.Lock()

    def counted(*given: Any) -> tuple[dict, bool, str]:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.2)
        with lock:
            now[0] -= 1
        return {"anger": 1.0}, True, "a map"

    monkeypatch.setattr(clip, "live_answer", counted)
    answers: list[tuple] = []
    given = as_sent(frame)
    threads = [
        threading.Thread(target=lambda: answers.append(stream.fn(given, METHOD, "gradcam", []))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [answer[1] for answer in answers] == ["a map"] * 6
    assert most == [2]
