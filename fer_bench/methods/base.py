"""What a method is: a card, a builder and, where plain training does not fit it, its stages.

A method file holds, in this order: docstring naming the paper, modules, cards, registered builders.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points

import torch
from torch import Tensor, nn

from fer_bench.cards import InputSpec, MethodCard
from fer_bench.registry import Registry

Criterion = Callable[[Tensor, Tensor], Tensor]
Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Called, gives one unaugmented pass over the training split: (inputs (N,C,S,S), labels (N,)) on the device."""


def plain_loss(network: nn.Module, inputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
    """The usual loss: the criterion over the logits."""
    return criterion(network(inputs), targets)


def not_frozen(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that a builder did not freeze (`requires_grad_(False)`)."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


@dataclass(frozen=True)
class Stage:
    """One phase of fitting. Most methods have one; patch_cam and awei have two."""

    name: str
    share: float = 1.0
    """Fraction of the recipe's epochs given to this stage; the shares of a method's stages sum to 1."""
    rate: float = 1.0
    """Factor on the recipe's learning rate (a pretrained part wants a smaller one)."""
    recipes: tuple[str, ...] = ()
    """The recipes this stage belongs to; () is all."""
    loss: Callable[[nn.Module, Tensor, Tensor, Criterion], Tensor] = plain_loss
    """(network, inputs (N,C,S,S), targets (N,), criterion) -> scalar."""
    parameters: Callable[[nn.Module], Iterable[nn.Parameter]] = not_frozen
    """The parameters this stage trains; all others are held fixed."""
    prepare: Callable[[nn.Module, Batches], None] | None = None
    """Called once when the stage starts (not on resume), under no_grad and in eval mode. What it draws at random from
    torch, NumPy or `random` is seeded by the run's seed and the epoch, as in `loss`."""


@dataclass(frozen=True)
class Method:
    """An entry of the registry."""

    card: MethodCard
    build: Callable[[int], nn.Module]
    """num_classes -> network with fresh weights, giving logits (N, num_classes) for inputs (N, C, size, size)."""
    stages: tuple[Stage, ...] = (Stage("main"),)
    pretrained: Callable[[nn.Module], str] | None = None
    """Loads weights from outside (an ImageNet guide) into a fresh network before training; returns their source."""


METHODS: Registry[Method] = Registry("method")
ENTRY_POINTS = "fer_bench.methods"
"""Installed packages name modules here; importing such a module registers its methods."""


def register(
    card: MethodCard,
    stages: tuple[Stage, ...] = (Stage("main"),),
    pretrained: Callable[[nn.Module], str] | None = None,
) -> Callable[[Callable[[int], nn.Module]], Callable[[int], nn.Module]]:
    """Decorator: register a builder `num_classes -> nn.Module` under its card's name."""
    if abs(sum(stage.share for stage in stages) - 1) > 1e-9:
        raise ValueError(f"{card.name}: the stages' shares must sum to 1")

    def decorate(build: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
        METHODS.add(card.name, Method(card, build, stages, pretrained))
        return build

    return decorate


def add_installed() -> None:
    """Import the modules that installed packages name in the entry-point group, once, after our own methods.

    A broken one is named in a RuntimeWarning and skipped; it must not take the others down with it.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            from fer_bench import torchvision_repair  # noqa: F401  # whatever is named may import torchvision itself

            entry.load()
        except (Exception, SystemExit) as error:  # it is someone else's code
            package = entry.dist.name if entry.dist is not None else "an unknown package"
            text = f"the methods of {package} ({entry.value}) were skipped: {type(error).__name__}: {error}"
            warnings.warn(f"{text}; mend or uninstall it.", RuntimeWarning, stacklevel=2)


def build(name: str, num_classes: int = 7) -> nn.Module:
    """A method's network with fresh weights, in training mode; logits (N, num_classes).

    Raises UnknownNameError for a name that is not registered, ValueError for fewer than 2 classes.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, not {num_classes}")
    return METHODS[name].build(num_classes)


def list_methods() -> list[str]:
    """The registered methods' names, in the order of the papers."""
    return list(METHODS)


def count_parameters(network: nn.Module) -> int:
    """Trainable parameters (frozen guides and buffers are not counted)."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def example_input(spec: InputSpec, batch: int = 2) -> Tensor:
    """A float32 batch of zeros of the right shape (batch, channels, size, size)."""
    return torch.zeros(batch, spec.channels, spec.size, spec.size)
