"""Where training runs: one process, or several that share each batch, and the device of each.

`torchrun` and `accelerate launch` start the processes and say through environment variables which is which;
torch.distributed connects them, and DistributedDataParallel averages the gradients. A recipe's batch size is that of
the whole batch, whatever the number of processes:

- The pictures, their order and the random numbers that change them are those of one process, bit for bit.
- Each process takes its rows of a batch; its loss is weighed by their number, so that the gradient is the mean over the
  whole batch. Without batch norm and dropout the weights are those of one process up to the rounding of sums.
- Batch norm sees the whole batch on CUDA (SyncBatchNorm). On CPU, for which torch has no such layer, it sees a
  process's own rows, and the running statistics are those of process 0. Dropout draws other masks in each process, and
  a loss that compares the pictures of a batch with each other (patch_cam's triplets) compares a process's own. There
  the result is the same within the noise between seeds.

Process 0 alone writes files and tells of progress; what it decides (no time is left) holds for all. Each reads the
data for itself: where one finds other pictures than process 0, all of them refuse to train (`start.check_alike`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from fer_bench.errors import UserError

PATIENCE = timedelta(hours=2)
"""How long a process waits for one that is alive (a slow disk, the last validation); one that has ended is noticed at
once."""


class LostProcessError(Exception):
    """Another process of this run has ended too early; one sentence."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train one network. The methods that say so must be called by all of them."""

    rank: int = 0
    """Which one this is, from 0."""
    world: int = 1
    """How many there are."""
    local_rank: int = 0
    """Which one of this machine's."""
    local_world: int = 1
    """How many this machine has."""
    connected: ClassVar[bool] = False
    """Whether this process has been connected to others (by `joined`), also after they have parted."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def device(self, chosen: torch.device) -> torch.device:
        """The device of this process where one process would take `chosen`: each has a CUDA device to itself.

        Raises UserError where a machine has fewer than processes, and for a device that several cannot share.
        """
        if self.world == 1 or chosen.type == "cpu":
            return chosen
        if chosen.type != "cuda" or chosen.index is not None:
            raise UserError(f"{self.world} processes cannot share the device {chosen}; use --device cuda or cpu.")
        there = torch.cuda.device_count()
        if self.local_world > there:
            raise UserError(
                f"{self.local_world} processes on a machine with {there} CUDA device(s); start at most one for each, "
                f"as in: torchrun --nproc-per-node {max(1, there)}"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def check_batch(self, size: int) -> None:
        """Raise UserError where a batch of `size` pictures cannot be shared: each process needs two of them."""
        if self.world > 1 and size < 2 * self.world:
            raise UserError(
                f"a batch of {size} is too small for {self.world} processes, which need two pictures each; start at "
                f"most {max(1, size // 2)}."
            )

    def told(self, device: torch.device) -> str:
        """What a result says of the hardware: "cpu, 4 threads", "2 x NVIDIA H100"."""
        cuda = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if cuda else f"{device.type}, {torch.get_num_threads()} threads"
        return name if self.world == 1 else f"{self.world} x {name}"

    def synchronised(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with batch norms that see the whole batch, where torch has such layers (CUDA)."""
        if self.world == 1 or device.type != "cuda":
            return network
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes, and process 0's values in all. Called by all."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def rows(self, count: int) -> tuple[list[range], float]:
        """Which rows of a batch of `count` are this process's, and the weight of the mean of their losses.

        A run of the first half and its mirror image in the second, so that the pairs of `mixup` (a row and the one that
        mirrors its place) stay together. The weights make the mean over the processes the mean over the batch. Batch
        norm needs two rows: where there are too few for all, the processes left over repeat the first's at weight 0.
        """
        half, sharing = (count + 1) // 2, max(1, min(self.world, count // 2))
        part = self.rank if self.rank < sharing else 0
        start, stop = half * part // sharing, half * (part + 1) // sharing
        runs = [range(start, stop), range(max(stop, count - stop), count - start)]
        if runs[0].stop == runs[1].start:
            runs = [range(start, count - start)]
        mine = sum(map(len, runs))
        return runs, self.world * mine / count if part == self.rank else 0.0

    def mean(self, value: Tensor) -> float:
        """The mean of a scalar over the processes. Called by all."""
        if self.world > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
            value /= self.world
        return float(value)

    def total(self, value: int) -> int:
        """The sum over the processes. Called by all."""
        if self.world == 1:
            return value
        summed = torch.tensor(value)
        torch.distributed.all_reduce(summed)
        return int(summed)

    def decides(self, flag: bool) -> bool:
        """What process 0 says. Called by all."""
        if self.world == 1:
            return flag
        said = torch.tensor(int(flag))
        torch.distributed.broadcast(said, 0)
        return bool(said)

    def gathered(self, text: str) -> list[str]:
        """What each process says here, by rank. Called by all."""
        said = [text] * self.world
        if self.world > 1:
            torch.distributed.all_gather_object(said, text)
        return said

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the first's running statistics. Called by all."""
        if self.world > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """What is done in here (fetching a file) is done by process 0, and then by the others. Called by all."""
        if not self.is_first:
            self.total(0)
        yield
        if self.is_first:
            self.total(0)

    def all_see(self, file: Path) -> bool:
        """Whether the file is there. UserError where some machines see it and others do not. Called by all."""
        seen = self.total(int(file.is_file()))
        if seen not in (0, self.world):
            raise UserError(
                f"{file}: only {seen} of {self.world} processes see this checkpoint; --out must be a folder that all "
                "machines share."
            )
        return bool(seen)

    def wait(self) -> None:
        """Until all have come here. Called by all."""
        self.total(0)


ALONE = Processes()


@contextlib.contextmanager
def joined(variables: Mapping[str, str] | None = None) -> Iterator[Processes]:
    """The processes that `torchrun` or `accelerate launch` started, connected while open; `ALONE` without a launcher.

    variables: of the environment (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT). Raises
    UserError where they are incomplete, and LostProcessError in place of what torch raises when another process ends.
    """
    given = os.environ if variables is None else variables
    world = int(given.get("WORLD_SIZE", 1))
    if world == 1:
        yield ALONE
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not given.get(name)]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {world}, but {', '.join(missing)} is not set; start training with torchrun or accelerate "
            "launch, or unset WORLD_SIZE."
        )
    rank = int(given["RANK"])
    this = Processes(rank, world, int(given.get("LOCAL_RANK", rank)), int(given.get("LOCAL_WORLD_SIZE", world)))
    # The few numbers that live on the host (counts, decisions) never wait for the device.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        torch.distributed.init_process_group(backend, rank=rank, world_size=world, timeout=PATIENCE)
        Processes.connected = torch.distributed.is_initialized()
        yield this
    except RuntimeError as error:
        if not is_lost(error):
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise LostProcessError(
            f"another of the {world} processes has ended, so this one ends too ({reason}); see what that one said, and "
            "go on with --resume."
        ) from error
    # Only at a clean end: after an error the others may never come to the point where the parting waits for them.
    torch.distributed.destroy_process_group()


def speaker(variables: Mapping[str, str] | None = None) -> str:
    """What a message of this process begins with: "process 1: ", or nothing where it is the first or the only one."""
    rank = (os.environ if variables is None else variables).get("RANK", "0")
    return "" if rank == "0" else f"process {rank}: "


def left(code: int) -> int:
    """The exit code; where several processes were connected, the end of this one, which Python must not clean up.

    The threads of gloo are still there: after an error because the group stays open (see `joined`), after a clean end
    because DistributedDataParallel keeps it alive. One that looks for an interpreter which is being taken down aborts
    the process: exit code -6 in place of its own, about once in forty processes after an error, rarely after none.
    """
    if Processes.connected:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    return code


def is_lost(error: RuntimeError) -> bool:
    """Whether torch's error says that another process can no longer be reached, and not that this one has failed."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return any(word in str(error) for word in ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL"))


def bfloat16_pays(device: torch.device) -> bool:
    """Whether bfloat16 autocast is faster on this device: modern CUDA, and CPUs with bfloat16 arithmetic of their own.

    On a CPU that is AMX's matrix units (x2.4 for reference_small's training step on one core) or AVX512-BF16's
    instructions (x1.7 there, x1.5 to x2.1 for the rest); older CPUs emulate it, which is slower than float32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    questions = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(asked is not None and bool(asked()) for asked in questions)
