"""What anyone's network must be to be trained and judged here, and what is wrong with one that is not."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fer_bench.cards import InputSpec
from fer_bench.errors import TrainingError, UserError
from fer_bench.metrics import NOT_LOGITS, are_probabilities

LIBRARIES = (os.path.dirname(torch.__file__), os.path.dirname(__file__))
"""Folders of code that is not a network's own."""


def built(name: str, build: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """The network that a method's builder gives. Raises UserError, naming the method, as `check_network` does and
    where the builder raises."""
    with failing(name, f"builder fails with {classes} classes"):
        network = build(classes)
    check_network(name, network)
    if not any(True for _ in network.parameters()):
        raise UserError(f"{name}: its network has no parameters, so that there is nothing to train; give it some.")
    return network


def check_network(name: str, network: object) -> None:
    """Raise UserError for what is no network, is not built in full or could not be written to a weight file."""
    if not isinstance(network, nn.Module):
        raise UserError(f"{name}: its network must be a torch.nn.Module, not a value of type {type(network).__name__}.")
    tensors = dict((*network.named_parameters(), *network.named_buffers()))
    if lazy := [key for key, tensor in tensors.items() if is_lazy(tensor)]:
        raise UserError(
            f"{name}: the shape of {lazy[0]} is not known before its first input; call the network once, "
            "network(torch.zeros(2, channels, size, size)), before it is returned or given away."
        )
    if other := [key for key, value in network.state_dict().items() if not isinstance(value, Tensor)]:
        raise UserError(
            f"{name}: {other[0]} in its state_dict() is no tensor, which a weight file cannot hold; register what has "
            "to be kept as a buffer."
        )


def trained_by(name: str, stage: str, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters that a stage trains. Raises UserError where there are none."""
    chosen = list(parameters)
    if not chosen:
        raise UserError(
            f"{name}: its stage {stage} has no parameters to train; give the network some, and leave requires_grad on "
            "for those that are to be trained."
        )
    return chosen


@contextlib.contextmanager
def first_answer(name: str, network: nn.Module, spec: InputSpec, count: int) -> Iterator[None]:
    """In here a network gets its first `count` inputs. Raises UserError, with shape and place, where it raises.

    And where it makes parameters only now, which nothing would train and no new network could load.
    """
    before = {key for key, _ in network.named_parameters()}
    with answering(name, spec, count):
        yield
    if made := [key for key, _ in network.named_parameters() if key not in before]:
        raise UserError(f"{name}: it makes {made[0]} at its first input; make every layer where the network is built.")


def answering(name: str, spec: InputSpec, count: int, proven: bool = False) -> contextlib.AbstractContextManager:
    """In here a network gets `count` inputs. Raises UserError, with their shape and the place, where it raises.

    proven: it took as many before, so that what fails now is no wrong use and stays what it is.
    """
    what = (count, spec.channels, spec.size, spec.size)
    told = f"network fails on a float32 tensor {what} in channels-last order, as its InputSpec has it"
    return contextlib.nullcontext() if proven else failing(name, told)


@contextlib.contextmanager
def failing(name: str, what: str) -> Iterator[None]:
    """What a network's own code raises in here becomes a UserError: what fails, why, and where.

    An exception of this package's own, and one of a device, such as a lack of memory, stays what it is.
    """
    try:
        yield
    except (torch.AcceleratorError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if type(error).__module__.startswith("fer_bench."):
            raise
        raise UserError(f"{name}: its {what}: {told(error)}.") from error


def told(error: Exception) -> str:
    """An exception's kind and text, and the last line of the user's own code on the way to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(LIBRARIES)]
    text = " ".join(str(error).split())[:300].rstrip(".")
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights and buffers are; the CPU for one that has none, such as another runtime's."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))


def pictures_at_once(asked: int | None, device: torch.device) -> int:
    """The batch size asked for (ValueError below 1), else 128, or 32 on a CPU.

    On a CPU what one layer hands to the next then stays in its caches: up to 1.5 times as fast as 128.
    """
    if asked is not None and asked < 1:
        raise ValueError(f"batch_size must be at least 1, not {asked}")
    return asked or (32 if device.type == "cpu" else 128)


def check_scores(name: str, answers: np.ndarray) -> None:
    """Raise UserError for answers (N, K) that no probabilities can be made of: such themselves, and NaN or infinity."""
    if are_probabilities(answers):
        raise UserError(f"{name} {NOT_LOGITS}")
    if broken := int((~np.isfinite(answers)).any(axis=1).sum()):
        raise UserError(
            f"{name} answers {broken:,} of {len(answers):,} picture(s) with NaN or infinity; its weights are broken, "
            "or its input is not the one it was trained on: train it anew, or mend its InputSpec."
        )


def check_answers(name: str, answers: np.ndarray, epoch: int, keeps: str, fresh: bool) -> None:
    """Raise UserError for answers (N, K) that are probabilities, TrainingError for some that are not finite.

    keeps: the folder that holds the last good checkpoint. fresh: whether the network has not been trained at all, so
    that no learning rate can be to blame and nothing is kept.
    """
    if are_probabilities(answers):
        raise UserError(f"{name} {NOT_LOGITS}")
    if np.isfinite(answers).all():
        return
    if fresh:
        raise TrainingError(
            f"{name} gives answers that are not finite before it is trained; mend how its builder sets its weights, or "
            "its input's mean and std."
        )
    raise TrainingError(
        f"{name} gives answers that are not finite in epoch {epoch}; {keeps} keeps the last good checkpoint, train "
        "with a lower learning rate."
    )
