"""What training resumes from: a network, the running mean of its weights, its optimiser and where training stood."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench.errors import UserError
from fer_bench.optimizers import flatten_state
from fer_bench.weights import read_tensors, write_tensors


def write_checkpoint(
    path: Path,
    identity: dict,
    state: dict,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write everything as one safetensors file: tensors named "net.", "ema." and "opt.", the rest in its record."""
    tensors, layout = flatten_state(optimizer)
    tensors |= {f"net.{name}": value for name, value in network.state_dict().items()}
    if average is not None:
        tensors |= {f"ema.{name}": value for name, value in average.state_dict().items()}
    write_tensors(path, tensors, {"identity": identity, "state": state, "optimizer": layout})


class Keeper:
    """Writes a run's best weights, as best-EPOCH.safetensors, and what it resumes from, as last.safetensors.

    No more time goes into writing than into training: on a fast device an epoch of a large network takes less than its
    checkpoint. So a kill loses the epoch that it falls into and, where epochs are shorter than a checkpoint takes to
    be written, as much work before it as that takes; ctrl-C and the end of the minutes lose no more. `last` names the
    best weights that it counts on, and those before are removed after it has been written: whatever a kill falls into,
    the two belong together.
    """

    def __init__(self, folder: Path, is_first: bool = True) -> None:
        """is_first: whether this process writes; the others know what it did. Removes what killed writes left."""
        self.folder, self.is_first = folder, is_first
        self.pending: dict[str, Tensor] | None = None
        self.written, self.cost = -math.inf, 0.0  # when the last one was finished, and the seconds that it took
        for torn in folder.glob("*.safetensors*.part") if is_first else ():
            torn.unlink(missing_ok=True)  # each as large as a checkpoint

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
    ) -> None:
        """Write the best weights, where there are new ones, as `state["kept"]`, and what this run resumes from."""
        begun = time.monotonic()
        if self.is_first and self.pending is not None:
            write_tensors(self.folder / state["kept"], self.pending, {})
        if self.is_first:
            write_checkpoint(self.folder / "last.safetensors", identity, state, network, average, optimizer)
            others = {*self.folder.glob("best*.safetensors"), self.folder / "cut.safetensors"}
            for older in others - {self.folder / state["kept"]}:
                older.unlink(missing_ok=True)
        self.pending, self.written = None, time.monotonic()
        self.cost = self.written - begun

    def cut(self) -> str | None:
        """At an end within an epoch: the file of the best weights where `last` knows nothing of them, else None.

        They must not replace those that it counts on.
        """
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
