"""Faces that a killed app left behind go when the next one starts, and nothing else does."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fer_bench.ui import app, engine, leftovers

HOLDS = """
import os, sys, time
from fer_bench.ui import app, engine
with app.visitors_folder() as folder:
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    with engine.folder_for() as answer:
        (answer / "scores.csv").write_text("a face")
        print(folder, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the apps of this test have their folders."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def left(parent: Path, hours: float = 0, name: str = "left") -> Path:
    """A folder as an app leaves it, with one face in it, all of that age."""
    folder = parent / f"{leftovers.PREFIX}{name}"
    (folder / "ab").mkdir(parents=True)
    (folder / "ab" / "face.png").write_text("a face")
    for path in (folder / "ab" / "face.png", folder / "ab", folder):
        os.utime(path, (time.time() - hours * 3600,) * 2)
    return folder


def test_a_killed_apps_faces_go_at_the_next_start_and_a_running_apps_stay(parent: Path) -> None:
    """The lock tells the two apart, at once: no age is waited for. Files of an answer lie there too and go as well."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True)
    try:
        folder = Path(process.stdout.readline().strip())
        assert len(list(folder.rglob("scores.csv"))) == 1
        with app.visitors_folder() as ours:
            assert ours.parent == folder.parent == parent
            assert len(list(folder.rglob("scores.csv"))) == 1
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert folder.is_dir()
        with app.visitors_folder() as ours:
            assert list(parent.iterdir()) == [ours]
        assert list(parent.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("system", ["no lock", "no fcntl", "no locks here"])
def test_without_a_lock_the_age_tells(parent: Path, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after its newest file a folder goes: an older version's, one on Windows, one where nothing can lock."""
    young, old = left(parent, 0.9, "young"), left(parent, 1.1, "old")
    if system != "no lock":
        for folder in (young, old):
            age = folder.stat().st_mtime
            for path in (folder / leftovers.LOCK, folder):
                path.touch()
                os.utime(path, (age, age))
    if system == "no fcntl":
        monkeypatch.setattr(leftovers, "fcntl", None)
    if system == "no locks here":

        def refuses(*given: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(leftovers.fcntl, "flock", refuses)
    with app.visitors_folder() as ours:
        assert {young, ours} == set(parent.iterdir())


def test_links_and_other_folders_stay(parent: Path) -> None:
    """No link is followed, named like a leftover or inside of one; what is named otherwise is not ours."""
    elsewhere = left(parent / "elsewhere", 5)
    (parent / f"{leftovers.PREFIX}link").symlink_to(elsewhere)
    (parent / f"{leftovers.PREFIX}file").write_text("")
    other = parent / "fer_bench-other"
    other.mkdir()
    os.utime(other, (0, 0))
    stale = left(parent, 5)
    (stale / "ab" / "link").symlink_to(elsewhere)
    for path in (stale / "ab", stale):
        os.utime(path, (0, 0))
    os.utime(stale / "ab" / "link", (0, 0), follow_symlinks=False)
    leftovers.sweep_stale(parent)
    assert not stale.exists()
    assert (elsewhere / "ab" / "face.png").exists()
    assert (parent / f"{leftovers.PREFIX}link").is_symlink()
    assert other.is_dir()


def test_another_users_folder_stays(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where this user could remove it, as root can."""
    folder = left(parent, 5)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    leftovers.sweep_stale(parent)
    assert folder.exists()
    monkeypatch.setattr(os, "getuid", lambda: user)
    leftovers.sweep_stale(parent)
    assert not folder.exists()


def test_a_folder_that_another_start_took_is_made_anew(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making a folder and locking it another app may start and remove it; the app then has one all the same."""
    flock, taken = leftovers.fcntl.flock, []

    def late(file: int, how: int) -> None:
        if not taken:
            taken.extend(parent.iterdir())
            (taken[0] / leftovers.LOCK).unlink()
        flock(file, how)

    monkeypatch.setattr(leftovers.fcntl, "flock", late)
    with app.visitors_folder() as ours:
        assert (ours / leftovers.LOCK).exists()
        assert [ours] == list(parent.iterdir()) != taken


def test_the_folder_is_the_users_own(parent: Path) -> None:
    """Nobody else looks into it."""
    with app.visitors_folder() as ours:
        assert stat.S_IMODE(ours.stat().st_mode) == 0o700


def test_downloads_lie_with_what_visitors_gave(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the app's folder while there is one, made where it went; elsewhere where the system puts such things."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(parent / "gone"))
    with engine.folder_for(0) as folder:
        assert folder.parent == parent / "gone"
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(parent))
    with engine.folder_for(0) as folder:
        assert folder.parent == parent
