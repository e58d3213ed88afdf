"""What training says while it runs: one line that is rewritten, and one line kept per epoch. Needs no library."""

from __future__ import annotations

import sys
import time


def clock(seconds: float) -> str:
    """ "1:02:03" or "02:03"."""
    hours, rest = divmod(max(0, round(seconds)), 3600)
    return (f"{hours}:" if hours else "") + f"{rest // 60:02d}:{rest % 60:02d}"


class Progress:
    """Progress of one run on standard error. The live line is shown on a terminal only."""

    alone = True
    """Whether no other process of the same call writes to the terminal, where their live lines would take turns."""

    def __init__(self, label: str, epochs: int) -> None:
        self.label, self.epochs = label, epochs
        self.live, self.shown = self.alone and sys.stderr.isatty(), 0.0

    def step(self, epoch: int, done: float, loss: float, left: float) -> None:
        """epoch: from 1. done: fraction of it, 0..1. left: seconds to the end of the run."""
        now = time.monotonic()
        if self.live and now - self.shown > 0.5:
            self.shown = now
            bar = ("#" * round(20 * done)).ljust(20, ".")
            text = f"\r{self.label} epoch {epoch}/{self.epochs} [{bar}] loss {loss:.3f}, {clock(left)} left "
            print(text, end="", file=sys.stderr, flush=True)

    def epoch(self, epoch: int, stage: str, loss: float, value: float, best: float, left: float) -> None:
        """Keep a line for a finished epoch."""
        clear = "\r\033[K" if self.live else ""
        print(
            f"{clear}{self.label} epoch {epoch}/{self.epochs} ({stage}): loss {loss:.4f}, "
            f"validation accuracy {value:.4f} (best {best:.4f}), {clock(left)} left",
            file=sys.stderr,
            flush=True,
        )
