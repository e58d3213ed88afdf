"""What holds for a while and is then as it was: a network's eval mode, full float32 precision, one thread.

The first two may be open in several threads at once: the first sets it, the last sets it back.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

_LOCK = threading.Lock()
_exact, _usual = 0, ""
"""Of `full_precision`: how many are open, and what the setting was before the first."""


@dataclass
class _Opened:
    """Of `evaluating`, for one network: how many are open, and the modes of its modules before the first."""

    count: int
    modes: list[tuple[nn.Module, bool]]


_opened: dict[int, _Opened] = {}
"""By the network's id, which is nobody else's while it is open."""


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """Eval mode while open, then each of its modules is in the mode that it was in: a frozen batch norm stays frozen.

    A network of which nothing is in training mode is left alone.
    """
    with _LOCK:
        opened = _opened.setdefault(id(network), _Opened(0, []))
        opened.count += 1
        if opened.count == 1 and any(module.training for module in network.modules()):
            opened.modes = [(module, module.training) for module in network.modules()]
            network.eval()
    try:
        yield network
    finally:
        with _LOCK:
            opened.count -= 1
            if opened.count == 0:
                del _opened[id(network)]
                if opened.modes and opened.modes[0][1]:
                    network.train()  # a network's own may do more than to set modes
                for module, was_training in opened.modes:
                    module.training = was_training


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """While open, convolutions on NVIDIA GPUs keep float32's 23 bits, of which torch by default lets TF32 drop 13."""
    global _exact, _usual
    if device.type != "cuda":
        yield
        return
    convolutions = torch.backends.cudnn.conv
    with _LOCK:
        _exact += 1
        if _exact == 1:
            _usual, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield
    finally:
        with _LOCK:
            _exact -= 1
            if _exact == 0:
                convolutions.fp32_precision = _usual


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """While open, torch computes on one core; afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
