"""Child processes that train: each starts with torch imported, ends with its parent, and when told to, after its last
full epoch has been written."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from fer_bench.checkpoints import stopped_as_by_hand

GRACE = 60
"""Seconds that a child that is told to end may take to write its last full epoch."""


def context(preload: str) -> BaseContext:
    """What starts children that find the module `preload` imported.

    A fork server has imported it once for all of them; forking this process itself would not be safe.
    """
    methods = multiprocessing.get_all_start_methods()
    if "forkserver" not in methods:
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload([preload])
    return multiprocessing.get_context("forkserver")


def least_busy(devices: Sequence[str], taken: Iterable[str]) -> str:
    """The device that the fewest children have. taken: that of each child which still runs."""
    busy = Counter(taken)
    return min(devices, key=lambda device: busy[device])


@dataclass(frozen=True)
class Child:
    """A child process on its way."""

    process: BaseProcess

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return not self.process.is_alive()

    def fault(self) -> str:
        """What it died of; "" where it ended well."""
        code = self.process.exitcode or 0
        return "" if code == 0 else f"of {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

    def end(self) -> None:
        """Tell it to end; `cancel` waits for it."""
        self.process.terminate()

    def cancel(self) -> None:
        """End it: within GRACE by itself, after its last full epoch has been written, else at once."""
        self.end()
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()


def as_child(work: Callable[[], int | None]) -> None:
    """What the target of a child calls: it does the work, with its exit code where it gives one.

    The child goes on at ctrl-C, of which the parent hears as well and ends its children, and ends with its parent: a
    killed one would leave it training beside those that are started next.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent and parent.join(), os._exit(1)), daemon=True).start()
    try:
        with stopped_as_by_hand():
            code = work()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)
    sys.exit(code)
