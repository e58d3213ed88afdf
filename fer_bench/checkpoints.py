"""What training resumes from: a network, the running mean of its weights, its optimiser and where training stood."""

from __future__ import annotations

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
