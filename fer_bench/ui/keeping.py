"""How long what visitors give is kept: their files on the server's disk, and their answers in its memory.

Gradio deletes files too (`delete_cache`), but in a task that ends with the first file that it cannot delete, and a
visitor can name it one: the folder of an upload, say. And it keeps what a page was last sent for as long as it knows
the session, so that a link to that state can be made, which this app does not offer.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path

import gradio as gr

from fer_bench.ui.leftovers import LOCK

KEPT_SECONDS = 600
"""How long a visitor's files stay at least; they are looked for as often, so that none lives twice as long."""
SESSIONS = 100
"""Pages that the server knows at once; of the least recently used it forgets everything when another one comes."""


def sweep(folder: Path, age: float, keep: Collection[str] = ()) -> None:
    """Delete the files below a folder that are older than `age` seconds, but for those in `keep`, and empty folders.

    What cannot be deleted is left, to be tried again the next time. Links are deleted, never followed.
    """
    before = time.time() - age
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if path in keep or found.st_ctime > before:  # a new folder may be about to get its file
                    continue
                if name in folders and not os.path.islink(path):
                    os.rmdir(path)  # refuses one that is not empty
                else:
                    os.unlink(path)


def forget(demo: gr.Blocks, age: float, session: str | None = None) -> None:
    """Drop what the server holds of the answers to sessions that were not used for `age` seconds, or to that one."""
    holder = getattr(demo, "state_holder", None)  # there once it is launched
    before = datetime.now() - timedelta(seconds=age)
    for name, used in list(holder.time_last_used.items()) if holder else ():
        if name in holder.session_data and (used <= before if session is None else name == session):
            holder.session_data[name].config_values = {}


def forget_closed(demo: gr.Blocks) -> None:
    """Have a page's answers dropped when it is closed. Called inside the open `gr.Blocks`."""

    def closed(request: gr.Request) -> None:
        forget(demo, 0, request.session_hash)

    demo.unload(closed)


def start(demo: gr.Blocks, folder: Path, every: float = KEPT_SECONDS) -> threading.Event:
    """Delete and forget, in a thread of its own, what is older than `every` seconds, that often.

    Until what is returned is set, or the process ends. The folder's LOCK stays, and is renewed as a sign of life.
    """
    done = threading.Event()
    lock = os.path.join(os.path.abspath(folder), LOCK)

    def work() -> None:
        while not done.wait(every):
            with contextlib.suppress(OSError):
                os.utime(lock)
            with contextlib.suppress(Exception):  # whatever goes wrong once, the next time comes
                keep = [getattr(block, "keep_in_cache", ()) for block in list(demo.blocks.values())]
                sweep(folder, every, {lock, *(os.path.abspath(path) for some in keep for path in some)})
            with contextlib.suppress(Exception):
                forget(demo, every)

    threading.Thread(target=work, daemon=True, name="fer_bench-keeping").start()
    return done
