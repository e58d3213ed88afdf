"""Several methods trained at the same time, each in a process of its own.

A small network leaves most of an accelerator idle, since starting its operations takes longer than doing them: several
together take hardly longer than one. Each reads the data for itself and trains as it would alone.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time
from collections import deque
from collections.abc import Sequence

import torch

from fer_bench.cards import Track
from fer_bench.children import Child, as_child, context, least_busy
from fer_bench.distributed import Processes
from fer_bench.errors import UserError
from fer_bench.options import Options, arguments_of
from fer_bench.progress import Progress
from fer_bench.start import splits_of

COMMAND = "fer_bench.train"
"""What each process runs. It imports this module, so that it is imported where it runs only."""
PAUSE = 0.1
"""Seconds between two looks at the processes."""


def train_side_by_side(
    names: Sequence[str], given: argparse.Namespace, track: Track, options: Options, processes: Processes
) -> int:
    """Train these methods, `given.at_once` at a time, in their order. Returns the exit code: 1 where one has failed.

    given: the command line, of which each process gets its method's share; on several CUDA devices the least busy one.
    What goes wrong is told by the process it goes wrong in, and the next method's turn comes. Those for which
    `given.total_minutes` leaves nothing are named. Raises DataError ahead of all for data that none could be trained
    with, UserError where a launcher has started several `processes` already. KeyboardInterrupt ends all children, after
    their last full epochs have been written, and goes on up.
    """
    if processes.world > 1:
        raise UserError("--at-once starts processes of its own; leave out the launcher, or --at-once.")
    deadline = math.inf if given.total_minutes is None else time.monotonic() + given.total_minutes * 60
    splits_of(track, options.stream, options.limit, options.limit_validation)
    count = torch.cuda.device_count() if given.device in ("auto", "cuda") else 0
    devices = [f"cuda:{index}" for index in range(count)] if count > 1 else [given.device]
    threads = max(1, torch.get_num_threads() // given.at_once)
    start = context(__name__)  # and not COMMAND, which each process runs as its main module where this one does
    waiting, running, failed = deque(names), dict[str, tuple[Child, str]](), 0
    try:
        while running or (waiting and time.monotonic() < deadline):
            for name, (child, _) in list(running.items()):
                if child.done():
                    del running[name]
                    failed += bool(child.fault())
                    if child.fault().startswith("of "):  # else it has told why itself
                        print(f"{name}: its process died {child.fault()}; go on with --resume", file=sys.stderr)
            while waiting and len(running) < given.at_once and time.monotonic() < deadline:
                name, left = waiting.popleft(), (deadline - time.monotonic()) / 60
                device = least_busy(devices, (taken for _, taken in running.values()))
                argv = arguments_of(given, method=name, device=device, total=None if left == math.inf else left)
                process = start.Process(target=_train, args=(argv, threads))
                process.start()
                running[name] = Child(process), device
            time.sleep(PAUSE)
    finally:
        for child, _ in running.values():
            child.end()
        for child, _ in running.values():
            child.cancel()
    if waiting:
        print(f"no time was left for {', '.join(waiting)}; go on with --resume", file=sys.stderr)
    if failed:
        print(f"{failed} of {len(names)} methods were not trained", file=sys.stderr)
    return 1 if failed else 0


def _train(argv: list[str], threads: int) -> None:
    Progress.alone = False
    torch.set_num_threads(threads)
    as_child(lambda: importlib.import_module(COMMAND).main(argv))
