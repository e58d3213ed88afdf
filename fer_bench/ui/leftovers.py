"""The folder of what visitors give: one for each running app, which removes those that killed apps left behind.

Gradio is not imported here, since it reads where its files go when it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PREFIX = "fer_bench-visitors-"
LOCK = ".running"
"""The file in such a folder that its app holds locked; the system lets go of it however the app ends."""
STALE_SECONDS = 3600
"""Age of a folder's newest file from which on nobody uses it, where no lock tells; an app renews LOCK more often."""


@contextlib.contextmanager
def held_folder(parent: Path) -> Iterator[Path]:
    """A new folder that other apps leave alone for as long as this process lives; gone when the block is left."""
    while True:
        made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent, ignore_cleanup_errors=True)
        lock = os.open(Path(made.name) / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if _still_ours(lock, Path(made.name) / LOCK):
            break
        os.close(lock)
        made.cleanup()
    try:
        with made:
            yield Path(made.name)
    finally:
        os.close(lock)


def _still_ours(lock: int, path: Path) -> bool:
    """Lock it; False where another app that started took the folder for a leftover before it was locked."""
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks: there the age tells
        return True


def sweep_stale(parent: Path) -> None:
    """Remove the folders in `parent` whose app has ended without removing them, as one that is killed does.

    Only folders of this user, no links and nothing through links. What cannot be removed is left.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            if name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _remove_stale(parent / name)


def _remove_stale(folder: Path) -> None:
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        return
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # of an app that was killed before it made one, or that is making it now
        lock = None
    try:
        if _let_go(lock, folder):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


def _let_go(lock: int | None, folder: Path) -> bool:
    """Whether no app holds the folder."""
    if fcntl is not None and lock is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    newest = os.lstat(folder).st_mtime
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                newest = max(newest, os.lstat(os.path.join(here, name)).st_mtime)
    return newest < time.time() - STALE_SECONDS
