"""How long what visitors give stays on the server: their files, and what its memory holds of the answers."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from fer_bench.datasets.rendered import render
from fer_bench.ui import app as entry
from fer_bench.ui import keeping
from fer_bench.ui.board_rows import Board
from tests.ui.conftest import ask_as, sent


def sweep_at(now: float, folder: Path, age: float, keep: Collection[str] = ()) -> None:
    """`keeping.sweep` as it is at that time, however long this machine takes to get there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping.time, "time", lambda: now)
        keeping.sweep(folder, age, keep)


def test_old_files_go_and_new_ones_stay(tmp_path: Path) -> None:
    """Of the visitors' folder what is older than asked goes, empty folders too; new files and those to be kept stay."""
    for name in ("a/old.png", "b/example.png", "c/d/old.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("a face")
    (tmp_path / "a" / "link").symlink_to(tmp_path.parent)
    time.sleep(0.1)
    between = time.time()
    time.sleep(0.1)
    (tmp_path / "new").mkdir()  # an upload's, before its file is there
    (tmp_path / "b" / "new.png").write_text("a face")
    sweep_at(between + 600, tmp_path, 600, {str(tmp_path / "b" / "example.png")})
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left >= {"new", "b/new.png", "b/example.png"}
    assert not any("old" in name or "link" in name for name in left)
    assert tmp_path.parent.is_dir()
    for _ in range(3):  # a folder is as new as what was last deleted in it
        sweep_at(time.time() + 601, tmp_path, 600)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_deleted_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever one file raises, the others are deleted."""
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_text("a face")
    unlink = os.unlink

    def refuses(path: str) -> None:
        if path.endswith("b.png"):
            raise PermissionError(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuses)
    keeping.sweep(tmp_path, -1)
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_a_folder_named_as_a_file_stops_gradio_but_not_the_app(visitor: Callable, app: Any) -> None:
    """A visitor who names the folder of an upload as his file ends gradio's own deletion; the app's goes on.

    The first half is why the app has one: where it fails gradio has been mended, and `keeping` may be too much.
    """
    from gradio.route_utils import delete_files_created_by_app

    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    (uploads / "0123").mkdir()
    (uploads / "0123" / "face.png").write_text("a face")
    visitor("picture", "change", sent(uploads / "0123"), None, ["small_cnn"], "gradcam", "predicted", 0.5)
    with pytest.raises(OSError, match="0123"):
        delete_files_created_by_app(app, -1)
    done = keeping.start(app, uploads, 0.2)
    deadline = time.monotonic() + 60
    while (uploads / "0123").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    done.set()
    assert not (uploads / "0123").exists()
    assert len(list(uploads.rglob("*.png"))) == 7  # the examples, which pages show for as long as the server runs


def test_the_deletion_goes_on_after_any_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the whole pass, blocks that change meanwhile say, is one pass's."""
    passes = []

    def sweep(*given: object) -> None:
        passes.append(given)
        raise RuntimeError("Set changed size during iteration")

    monkeypatch.setattr(keeping, "sweep", sweep)
    done = keeping.start(SimpleNamespace(blocks={}), tmp_path, 0.01)
    deadline = time.monotonic() + 60
    while len(passes) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    done.set()
    assert len(passes) >= 3


def test_the_app_starts_the_deletion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`python app.py` has the folder of its visitors looked through for as long as it serves."""
    from fer_bench.ui import engine

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *given: None)
    served, started = [], []
    demo = SimpleNamespace(launch=lambda **given: served.append((given, os.environ["GRADIO_TEMP_DIR"])))
    monkeypatch.setattr(entry, "build", lambda: demo)
    monkeypatch.setattr(engine, "warm", lambda: None)
    monkeypatch.setattr(keeping, "start", lambda *given: started.append(given))
    assert entry.main([]) == 0
    assert gc.isenabled()
    ((options, folder),) = served
    assert started == [(demo, Path(folder))]
    assert options["state_session_capacity"] == keeping.SESSIONS <= 100


@pytest.fixture
def holder(app: Any) -> Any:
    """What gradio's server knows of its sessions, for the app as it is launched."""
    from gradio.state_holder import StateHolder

    app.state_session_capacity = entry.launch_options()["state_session_capacity"]
    found = StateHolder()
    found.set_blocks(app)
    return found


def asked(app: Any, holder: Any, session: str) -> None:
    """That session's page asks about a face."""
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / session / "face.png"
    path.parent.mkdir()
    Image.fromarray(render("anger", 1.0, 3, 64)[0]).save(path)
    answer = ask_as(app, holder[session], "picture", "change", sent(path), None, ["deep_emotion"], "gradcam", "fear", 1)
    assert "data:image/jpeg" in answer[3]


def faces_in(holder: Any, session: str) -> int:
    """Faces of a visitor that the memory of a session holds."""
    return str(holder.session_data[session].config_values).count("data:image/jpeg")


def test_answers_are_forgotten_when_the_page_is_closed(app: Any, holder: Any) -> None:
    """A closed page's overlays leave the server's memory at once, other pages' do not."""
    from gradio.helpers import special_args

    asked(app, holder, "one")
    asked(app, holder, "two")
    assert min(faces_in(holder, "one"), faces_in(holder, "two")) >= 1
    (unload,) = (fn for fn in app.fns.values() if any(event == "unload" for _, event in fn.targets))
    request = SimpleNamespace(session_hash="one")
    given, *_ = special_args(unload.fn, [], request=request)
    assert given == [request]
    unload.fn(*given)
    assert faces_in(holder, "one") == 0
    assert faces_in(holder, "two") >= 1


def test_answers_of_pages_that_lie_idle_are_forgotten(app: Any, holder: Any) -> None:
    """What was not used for as long as files are kept goes, and the page is answered as before when it asks again."""
    asked(app, holder, "idle")
    asked(app, holder, "busy")
    holder.time_last_used["idle"] = datetime.now() - timedelta(seconds=keeping.KEPT_SECONDS)
    keeping.forget(app, keeping.KEPT_SECONDS)
    assert faces_in(holder, "idle") == 0
    assert faces_in(holder, "busy") >= 1
    (Path(os.environ["GRADIO_TEMP_DIR"]) / "idle" / "face.png").unlink()
    (Path(os.environ["GRADIO_TEMP_DIR"]) / "idle").rmdir()
    asked(app, holder, "idle")
    assert "idle" in holder


def test_a_session_that_was_forgotten_is_served_on(app: Any, holder: Any) -> None:
    """A page whose session is no longer known gets what it asks for, of rows and methods it was told of before."""
    for number in range(keeping.SESSIONS + 5):
        holder[f"page {number}"]
    assert len(holder.session_data) <= keeping.SESSIONS
    row = next(iter(Board.read(entry.board_folder()).rows("fer2013")[1]))
    card, *_ = ask_as(app, holder["page 0"], "board-row", "input", "fer2013", "all", row)
    assert "How to run it" in str(card)
    message, *_ = ask_as(app, holder["page 0"], "score", "click", None, ["a method that came later"])
    assert "Choose some pictures first." in message


@pytest.mark.parametrize("renewed", [True, False])
def test_the_sign_that_the_app_runs_stays(tmp_path: Path, renewed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of the visitors' folder is not deleted with the visitors' files, but renewed if it can be."""

    def refuses(*given: object) -> None:
        raise PermissionError

    lock = tmp_path / keeping.LOCK
    lock.touch()
    os.utime(lock, (0, 0))
    if not renewed:
        monkeypatch.setattr(os, "utime", refuses)
    (tmp_path / "face.png").write_text("a face")
    done = keeping.start(SimpleNamespace(blocks={}), tmp_path, 0.05)
    deadline = time.monotonic() + 60
    while (tmp_path / "face.png").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    done.set()
    assert [path.name for path in tmp_path.iterdir()] == [keeping.LOCK]
    assert (lock.stat().st_mtime > time.time() - 600) == renewed
