"""Programs and many visitors at once, over the network.

The app runs in this process, on a port of its own: the browser's tests start `python app.py`, these need no second one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import fer_bench
from fer_bench.datasets.rendered import render
from fer_bench.emotions import SEVEN
from tests.ui.conftest import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The app, as `python app.py` launches it."""
    from fer_bench.ui import app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        demo = app.build()
        options = app.launch_options()
        demo.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True, **options)
        yield demo
        demo.close()


@pytest.fixture(scope="module")
def app_url(launched: Any) -> str:
    """Its address."""
    return launched.local_url


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten different drawn faces."""
    folder = tmp_path_factory.mktemp("faces")
    paths = []
    for seed in range(10):
        paths.append(folder / f"face{seed}.png")
        Image.fromarray(render(SEVEN[seed % 7], 1.0, 100 + seed, 160)[0]).save(paths[-1])
    return paths


def client_of(url: str) -> object:
    from gradio_client import Client

    return Client(url, verbose=False)


def test_the_api_gives_the_rows_of_predict(app_url: str, faces: list[Path]) -> None:
    """A program gets the same figures over the network as in Python, one row per face and method."""
    from gradio_client import handle_file

    from fer_bench.ui import engine

    methods = ["small_cnn", "deep_emotion"]
    rows = client_of(app_url).predict(handle_file(str(faces[0])), methods, api_name="/predict")
    expected = engine.score([(faces[0].name, Image.open(faces[0]))], methods)
    assert [row["method"] for row in rows] == methods
    for row, right in zip(rows, expected, strict=True):
        assert row["filepath"] == "face0.png"
        for emotion in SEVEN:
            assert row[emotion] == pytest.approx(right[emotion], abs=2e-6)


def test_a_program_may_name_one_method_alone(app_url: str, faces: list[Path]) -> None:
    """A method's name instead of a list of names is that method."""
    from gradio_client import handle_file

    rows = client_of(app_url).predict(handle_file(str(faces[0])), "small_cnn", api_name="/predict")
    assert {row["method"] for row in rows} == {"small_cnn"}


def test_a_closed_page_leaves_no_answer_in_memory(launched: Any, app_url: str) -> None:
    """What a page was sent is dropped when it goes away; its heartbeat is how the server knows."""
    asked = {"fn_index": board_of(launched), "data": [None] * 5, "session_hash": "closing"}
    with httpx.stream("GET", f"{app_url}gradio_api/heartbeat/closing", timeout=240) as page:
        beats = page.iter_bytes()  # held: an iterator that goes away closes the connection
        next(beats)
        httpx.post(f"{app_url}gradio_api/run/predict", json=asked, timeout=240).raise_for_status()
        held = launched.state_holder.session_data["closing"]
        assert "small_cnn" in str(held.config_values)
    deadline = time.monotonic() + 60
    while held.config_values and time.monotonic() < deadline:
        time.sleep(0.05)
    assert held.config_values == {}


def board_of(launched: Any) -> int:
    """The number of the event that gives a new page the leaderboard's table."""
    (number,) = (number for number, fn in launched.fns.items() if getattr(fn.fn, "__name__", "") == "arrive")
    return number


def test_the_api_is_documented(app_url: str) -> None:
    """The endpoints that are meant for programs are described, with their parameters; the app's own wiring is not."""
    described = client_of(app_url).view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {"/predict", "/leaderboard"} <= set(described)
    assert [p["parameter_name"] for p in described["/predict"]["parameters"]] == ["picture", "methods"]
    assert not [name for name in described if name.startswith(("/run", "/show", "/again", "/live"))]


def test_a_bad_file_is_named_to_the_program(app_url: str, tmp_path: Path) -> None:
    """What is no picture raises in the client, with the sentence that a visitor would see."""
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    with pytest.raises(AppError, match=r"notes\.jpg: this is not a readable picture"):
        client_of(app_url).predict(handle_file(str(path)), ["small_cnn"], api_name="/predict")


def odd_pictures(folder: Path) -> dict[str, Path]:
    """One real portrait in every form that visitors bring."""
    from skimage.data import astronaut

    portrait = Image.fromarray(astronaut())
    paths = {
        name: folder / name for name in ("turned.jpg", "grey.png", "clear.png", "print.jpg", "deep.png", "moving.gif")
    }
    exif = Image.Exif()
    exif[274] = 6  # to be shown turned by 90 degrees clockwise
    portrait.rotate(90, expand=True).save(paths["turned.jpg"], exif=exif)
    portrait.convert("L").save(paths["grey.png"])
    portrait.convert("RGBA").save(paths["clear.png"])
    portrait.convert("CMYK").save(paths["print.jpg"])
    Image.fromarray(np.asarray(portrait.convert("L")).astype(np.uint16) * 257).save(paths["deep.png"])
    portrait.save(paths["moving.gif"], save_all=True, append_images=[portrait.rotate(180)])
    paths["huge.jpg"] = folder / "huge.jpg"
    portrait.resize((8192, 8192)).save(paths["huge.jpg"], quality=60)
    return paths


def test_every_form_of_picture_is_read(app_url: str, tmp_path: Path) -> None:
    """Turned by EXIF, grey, transparent, CMYK, 16-bit, animated or 67 megapixels: the same face, the same emotion."""
    from gradio_client import handle_file

    client = client_of(app_url)
    for name, path in odd_pictures(tmp_path).items():
        rows = client.predict(handle_file(str(path)), ["small_cnn"], api_name="/predict")
        assert [(row["face"], row["emotion"]) for row in rows] == [(1, "happiness")], name


def test_ten_visitors_at_once_get_their_own_answers_in_order(
    app_url: str, faces: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten programs ask together, each about a face of its own: each gets its own face's figures, first come first."""
    from gradio_client import handle_file

    from fer_bench.predict import score_picture
    from fer_bench.ui import engine

    methods, asked, all_here = ["small_cnn", "patch_cam"], [], threading.Event()
    score = engine.score

    def noted(pictures: list, methods: list[str]) -> list[dict]:
        all_here.wait(240)
        asked.append(pictures[0][0])
        return score(pictures, methods)

    monkeypatch.setattr(engine, "score", noted)
    jobs = []
    for client, face in zip([client_of(app_url) for _ in faces], faces, strict=True):
        jobs.append(client.submit(handle_file(str(face)), methods, api_name="/predict"))
        _queued(jobs[-1])
    all_here.set()  # only now, so that all ten wait at once
    model = fer_bench.load("small_cnn")
    for face, job in zip(faces, jobs, strict=True):
        row = job.result(timeout=240)[0]
        right = score_picture(Image.open(face), face.name, [model])[0]
        assert row["filepath"] == face.name
        assert [row[e] for e in SEVEN] == pytest.approx([right[e] for e in SEVEN], abs=2e-6)
    assert asked == [face.name for face in faces]


def _queued(job: object) -> None:
    """Wait until the server has taken the question, so that the order of asking is known."""
    deadline = time.monotonic() + 240
    while job.status().code.name in ("STARTING", "JOINING_QUEUE", "SENDING_DATA") and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {"meta": {"_type": "gradio.Other"}}, {}])
@pytest.mark.parametrize("name", ["private.png", "missing.png"])
def test_a_file_of_the_server_cannot_be_asked_about(app_url: str, tmp_path: Path, name: str, meta: dict) -> None:
    """A question that names a file which was not uploaded is refused, though it is a readable picture."""
    Image.fromarray(render("anger", 1.0, 3, 64)[0]).save(tmp_path / "private.png")
    given = {"path": str(tmp_path / name), **meta}
    asking = app_url + "gradio_api/call/predict"
    started = httpx.post(asking, json={"data": [given, ["small_cnn"]]}, timeout=240)
    answer = httpx.get(f"{asking}/{started.json()['event_id']}", timeout=240).text
    assert answer.startswith("event: error")
    assert "uploaded" in answer


def test_the_board_opens_though_the_queue_is_full(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no more questions about pictures are taken, the leaderboard's table still comes."""
    monkeypatch.setattr(launched._queue, "max_size", 0)
    join, run = (f"{launched.local_url}gradio_api/{where}" for where in ("call/predict", "run/predict"))
    assert httpx.post(join, json={"data": [None, []]}, timeout=240).status_code == 503
    asked = {"fn_index": board_of(launched), "data": [None] * 5, "session_hash": "visitor"}
    answer = httpx.post(run, json=asked, timeout=240).raise_for_status().json()
    assert "small_cnn" in str(answer["data"])


def test_one_visitor_leaves_places_in_the_queue(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often one page or address asks the app, others get their answers, and the queue is not gone round."""
    from fer_bench.ui import pictures, turns

    go, path_of = threading.Event(), pictures.path_of
    monkeypatch.setattr(pictures, "path_of", lambda given: go.wait(60) and path_of(given))
    (predict,) = (fn for fn in launched.fns.values() if fn.api_name == "predict")
    assert f"more than {turns.MOST_ASKED} questions at once from one visitor" in " ".join(predict.fn.__doc__.split())
    api = f"{launched.local_url}gradio_api"

    def ask(where: str, session: str, address: str) -> int:
        asked = {"fn_index": predict._id, "data": [None, []], "session_hash": session}
        return httpx.post(f"{api}/{where}", json=asked, headers={"X-Forwarded-For": address}, timeout=240).status_code

    answers = [ask("queue/join", f"flood {n}", "93.184.216.34") for n in range(turns.MOST_WAITING + 9)]
    assert answers == [200] * turns.MOST_ASKED + [429] * (turns.MOST_WAITING + 9 - turns.MOST_ASKED)
    assert ask("queue/join", "other", "8.8.4.4") == 200
    queue = launched._queue
    assert queue.event_queue_per_concurrency_id["networks"].queue[0].session_hash == "other"
    assert ask("run/predict", "round it", "93.184.216.34") == 404
    go.set()
    deadline = time.monotonic() + 60
    while (len(queue) or any(queue.active_jobs)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(queue) == 0
