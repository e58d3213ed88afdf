"""What training resumes from: a network, the running mean of its weights, its optimiser and where training stood.

And the folder that it lies in, which one process at a time trains in.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from fer_bench.distributed import ALONE, Processes
from fer_bench.errors import UserError
from fer_bench.files import OutputError, make_folder
from fer_bench.optimizers import flatten_state
from fer_bench.weights import read_tensors, write_tensors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".training"
"""The file of a run's folder that is locked while a process trains in it."""
VALIDATED = "validation.npy"
"""Of a grid's cell: bool (N,), which pictures of the validation split the written weights recognise, in its order."""
_locked: set[BinaryIO] = set()
if hasattr(os, "register_at_fork"):
    # A process that decodes pictures for a killed one would hold its lock on for some seconds.
    os.register_at_fork(after_in_child=lambda: [file.close() for file in _locked])


@contextlib.contextmanager
def held(folder: Path, processes: Processes = ALONE) -> Iterator[None]:
    """While open, no other run trains in this folder, which is made where it is not there. Called by all `processes`.

    Process 0 has the lock (flock), which ends with it, however that ends. Windows and some network disks know no such
    lock: two runs in one folder are not noticed there. Raises UserError where another process trains in it, OutputError
    where it cannot be written to.
    """
    free, file = True, None
    if processes.is_first:
        make_folder(folder)
        if fcntl is not None:
            try:
                file = open(folder / LOCK, "ab")  # noqa: SIM115 (closed below)
            except OSError as error:
                raise OutputError(f"{folder} cannot be written to ({error.strerror}).") from None
            _locked.add(file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:  # this disk has no locks
                pass
    try:
        if not processes.decides(free):
            raise UserError(f"{folder}: another process trains in this folder; let it end, or give another --out.")
        yield
    finally:
        if file is not None:
            _locked.discard(file)
            file.close()


@contextlib.contextmanager
def stopped_as_by_hand() -> Iterator[None]:
    """While open, SIGTERM (of Slurm, Docker, systemd, torchrun) raises KeyboardInterrupt, as Ctrl-C does.

    Only a process's main thread can do that; in another, nothing changes.
    """
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def write_checkpoint(path: Path, identity: dict, state: dict, tensors: dict[str, Tensor], layout: dict) -> None:
    """Write what a run resumes from as one safetensors file. tensors, layout: of `checkpoint`."""
    write_tensors(path, tensors, {"identity": identity, "state": state, "optimizer": layout})


def checkpoint(
    network: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict]:
    """Their tensors, named "net.", "ema." and "opt.", which training goes on to change; and the optimiser's layout."""
    tensors, layout = flatten_state(optimizer)
    tensors |= {f"net.{name}": value for name, value in network.state_dict().items()}
    if average is not None:
        tensors |= {f"ema.{name}": value for name, value in average.state_dict().items()}
    return tensors, layout


class Keeper:
    """Writes a run's best weights, as best-EPOCH.safetensors, and what it resumes from, as last.safetensors.

    No more time goes into writing than into training: on a fast device an epoch of a large network takes less than its
    checkpoint. Full epochs that are not written are held in memory. Where training is stopped (Ctrl-C, SIGTERM, the end
    of its minutes) they are written then, and the epoch that this falls into is lost; a kill loses, before that one,
    the epochs trained in about the time that one checkpoint takes. `last` names the best weights that it counts on, and
    those before are removed after it has been written: whatever a kill falls into, the two belong together.

    As a context manager it writes what is held where it is left by KeyboardInterrupt or SystemExit.
    """

    def __init__(self, folder: Path, is_first: bool = True) -> None:
        """is_first: whether this process writes; the others know what it did. Removes what killed writes left."""
        self.folder, self.is_first = folder, is_first
        self.pending: dict[str, Tensor] | None = None
        self.unwritten: tuple[dict[str, Tensor] | None, dict, dict, dict[str, Tensor], dict] | None = None
        """Best weights where they are new, identity, state, tensors, layout of an epoch that `last` does not hold."""
        self.written, self.cost = -math.inf, 0.0  # when the last one was finished, and the seconds that it took
        for torn in folder.glob("*.safetensors*.part") if is_first else ():
            torn.unlink(missing_ok=True)  # each as large as a checkpoint

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self.write()

    def improve(self, network: nn.Module, epoch: int) -> str:
        """Hold these weights as the best so far. Returns the name of the file that will hold them."""
        self.pending = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        return f"best-{epoch}.safetensors"

    def due(self) -> bool:
        """Whether as much time has passed since the last writing as that took."""
        return time.monotonic() - self.written >= self.cost

    def keep(
        self,
        identity: dict,
        state: dict,
        network: nn.Module,
        average: nn.Module | None,
        optimizer: torch.optim.Optimizer,
        now: bool,
    ) -> None:
        """Keep a full epoch: the best weights, as `state["kept"]`, and what is resumed from. now: on the disk as well.

        Else a copy in memory, on the network's device, which the next one takes the place of.
        """
        tensors, layout = checkpoint(network, average, optimizer) if self.is_first else ({}, {})
        if not now:
            tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.unwritten = self.pending, identity, copy.deepcopy(state), tensors, copy.deepcopy(layout)
        if now:
            self.write()

    def write(self) -> None:
        """Write the epoch that was kept last, where it is not on the disk: best weights first, then `last`."""
        if self.unwritten is None:
            return
        begun, (best, identity, state, tensors, layout) = time.monotonic(), self.unwritten
        if self.is_first:
            if best is not None:
                write_tensors(self.folder / state["kept"], best, {})
            write_checkpoint(self.folder / "last.safetensors", identity, state, tensors, layout)
            others = {*self.folder.glob("best*.safetensors"), self.folder / "cut.safetensors"}
            for older in others - {self.folder / state["kept"]}:
                older.unlink(missing_ok=True)
        if self.pending is best:  # else those of an epoch that was cut
            self.pending = None
        self.unwritten, self.written = None, time.monotonic()
        self.cost = self.written - begun

    def cut(self) -> str | None:
        """At an end within an epoch: write what is held; the file of the best weights where `last` knows nothing of
        them, else None.

        They must not replace those that it counts on.
        """
        self.write()
        if self.pending is None:
            return None
        if self.is_first:
            write_tensors(self.folder / "cut.safetensors", self.pending, {})
        return "cut.safetensors"


def read_checkpoint(path: Path, identity: dict) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of the reverse. Raises UserError where the checkpoint is of another run."""
    tensors, record = read_tensors(path)
    known = record.get("identity", {})
    if {"validation": identity["validation"], **known} != identity:  # older checkpoints do not say what they chose by
        raise UserError(
            f"{path}: this checkpoint is of another run (recipe, epochs, start, data or seed differ); use another "
            "--out, or, to start anew in its place, remove its folder or leave out --resume."
        )
    return tensors, record


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start so, without the prefix."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """What is loaded in here comes from the checkpoint `path`: UserError, naming it, where the network refuses it."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, KeyError) as error:
        why = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: the network has changed since this checkpoint ({why}); remove its folder, or leave out --resume."
        ) from None
