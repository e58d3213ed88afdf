"""What is otherwise in a process that is one of this package's own commands; programs that import it keep their own."""

from __future__ import annotations

import gc
import os
import select
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


def is_command() -> bool:
    """Whether this process is `python -m fer_bench.…` or `fer-bench …`."""
    given = sys.orig_argv
    asked = given[given.index("-m") + 1] if "-m" in given[:-1] else ""
    return asked.partition(".")[0] == __package__ or any(PurePath(name).name == "fer-bench" for name in sys.argv[:1])


def begin() -> None:
    """Start faster, and end quietly where the output is read no further. To be called before anything is imported.

    Nothing of what is imported is garbage, and looking for some took a sixth of a command's start.
    """
    gc.set_threshold(50_000, 20, 100)
    if hasattr(select, "poll"):  # not on Windows
        sys.excepthook = end_quietly


def end_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook`: where `| head` has read enough the command ends with 1 and says nothing, after Ctrl-C, where
    it has nothing of its own to say, with 1 and a sentence."""
    if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout.fileno()):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not tried again at the exit
        return
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted; what was finished is kept.", file=sys.stderr)
        raise SystemExit(1)  # in this place it sets the exit code; a shell would else have the signal's
    sys.__excepthook__(kind, error, trace)


def _is_closed(pipe: int) -> bool:
    """Whether nobody reads a pipe any more."""
    asked = select.poll()
    asked.register(pipe, 0)
    return any(event & select.POLLERR for _, event in asked.poll(0))
