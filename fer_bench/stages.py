"""What a stage of training is made of: its share of the epochs, its loss as a module, what it trains, its batches."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fer_bench.cards import Augmentation, InputSpec, Recipe
from fer_bench.distributed import Processes
from fer_bench.errors import UserError
from fer_bench.methods.base import Criterion, Method, Stage
from fer_bench.metrics import NOT_LOGITS, are_probabilities
from fer_bench.networks import failing
from fer_bench.transforms import DRAWS, augment


def seeded(seed: int, state: Mapping[str, Any] | None = None, rank: int = 0) -> int:
    """Seed all that a network, a stage's loss or its `prepare` may draw from: torch, NumPy's and Python's own.

    state: the run's: then for its next epoch, alike whether it is resumed before that or not. rank: of the process,
    each of which draws for itself. Returns the epoch's seed, which all processes share.
    """
    if state is not None:
        earlier = state["earlier"]  # runs before: their epochs, and one of each that may have been cut short
        seed = seed * 100_003 + len(state["curve"]) + (earlier["epochs"] + len(earlier["weights"]) if earlier else 0)
    own = seed + rank * 1_000_003
    torch.manual_seed(own)
    np.random.seed(own % 2**32)
    random.seed(own)
    return seed


def staged(method: Method, recipe: Recipe) -> tuple[tuple[Stage, ...], list[int]]:
    """The stages that a method has under a recipe, and the epochs of each. Raises UserError where there are none."""
    stages = tuple(stage for stage in method.stages if not stage.recipes or recipe.name in stage.recipes)
    if not stages:
        named = ", ".join(dict.fromkeys(name for stage in method.stages for name in stage.recipes))
        raise UserError(
            f"{method.card.name}: no stage of its training belongs to the recipe {recipe.name}, only to {named}; mend "
            "the names in its stages' `recipes`, or give --recipe one of them."
        )
    return stages, stage_epochs(stages, recipe.epochs)


def stage_epochs(stages: tuple[Stage, ...], epochs: int) -> list[int]:
    """How many epochs each stage gets: at least one, in proportion to its share; the last takes the remainder."""
    counts = [max(1, round(stage.share * epochs)) for stage in stages[:-1]]
    return [*counts, max(1, epochs - sum(counts))]


class StageLoss(nn.Module):
    """A stage's loss as a module over its network, for engines that wrap what `forward` does (see `distributed`).

    name: the method's, of which is told what it does wrong. classes: how many logits it is to give for each picture;
    None looks at no shape.
    """

    def __init__(self, network: nn.Module, stage: Stage, name: str = "the network", classes: int | None = None) -> None:
        super().__init__()
        self.network, self.stage, self.name, self.classes = network, stage, name, classes
        self.proven = False

    def forward(self, inputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        """(N, C, S, S), (N,) -> scalar.

        Raises UserError where the criterion gets what is no tensor of logits, as of a network that adds to them in
        training mode, where that batch's are probabilities, where no gradient reaches what is trained, and where the
        first batch fails. Seen at that batch, ahead of any step, it costs no pass of its own, which would move batch
        norm's statistics.
        """

        def checked(answers: Tensor, labels: Tensor) -> Tensor:
            wanted = None if self.classes is None else (len(labels), self.classes)
            if not isinstance(answers, Tensor):
                found = f"a value of type {type(answers).__name__}, not a tensor of logits"
            elif not answers.is_floating_point():
                found = f"a tensor of {answers.dtype}, not of floating-point logits"
            elif wanted is not None and answers.shape != wanted:
                found = f"a tensor {tuple(answers.shape)}, not one of logits {wanted}"
            elif not self.proven and wanted and are_probabilities(answers.detach().float().cpu().numpy()):
                raise UserError(f"{self.name}: in training it {NOT_LOGITS}")
            else:
                return criterion(answers, labels)
            mend = "return the logits alone, or register it with a Stage whose loss takes them from it"
            raise UserError(f"{self.name}: in training it gives {found}; {mend}.")

        first = contextlib.nullcontext() if self.proven else failing(self.name, "first batch in training fails")
        with first:  # what fails later is no fault that the network has in any case
            loss = self.stage.loss(self.network, inputs, targets, checked)
        self.proven = True
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise UserError(
                f"{self.name}: in its stage {self.stage.name} the loss does not depend on any parameter that is "
                "trained; look for a detach(), no_grad() or requires_grad_(False) on the way from them to the logits."
            )
        return loss


@dataclass(frozen=True)
class Batch:
    """A batch of an epoch as one of several processes has it."""

    count: int
    """Pictures of the whole batch."""
    mine: Tensor
    """int64, which pictures of the split this process has of it."""
    runs: list[range]
    """Which rows of the batch these are, and `weight`, what the mean of their losses counts: see `Processes.rows`."""
    weight: float


def batches_of(pictures: int, size: int, processes: Processes, generator: torch.Generator) -> list[Batch]:
    """An epoch's batches: all pictures, in an order drawn from the generator, `size` at a time.

    A single one that is left over at the end is left out. Raises UserError for fewer than 2 pictures.
    """
    order = torch.randperm(pictures, generator=generator)
    batches = []
    for whole in order.split(size):
        if len(whole) > 1:  # batch norm needs two
            runs, weight = processes.rows(len(whole))
            mine = torch.cat([whole[run.start : run.stop] for run in runs])
            batches.append(Batch(len(whole), mine, runs, weight))
    if not batches:
        raise UserError(f"{pictures} training picture(s) are too few; at least 2 are needed.")
    return batches


@contextlib.contextmanager
def only_trainable(network: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Let exactly these parameters be trained while open; afterwards every flag is what it was."""
    before = {p: p.requires_grad for p in network.parameters()}
    chosen = set(parameters)
    try:
        for p in before:
            p.requires_grad_(p in chosen)
        yield
    finally:
        for p, flag in before.items():
            p.requires_grad_(flag)


def augmented(
    images: Tensor,
    runs: list[range],
    count: int,
    spec: InputSpec,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> Tensor:
    """These rows of a batch of `count`, with the very changes that they get where one process has the whole batch.

    images: uint8, the rows of `runs` (see `Processes.rows`), in order. The generator ends where it would for all rows.
    """
    parts, done, at = [], 0, 0
    for run in runs:
        torch.rand(run.start - done, DRAWS, generator=generator)  # the numbers of rows that other processes have
        parts.append(augment(images[at : at + len(run)], spec, augmentation, generator))
        done, at = run.stop, at + len(run)
    torch.rand(count - done, DRAWS, generator=generator)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def mixed(criterion: Criterion, part: float, mirrored: Criterion | None = None) -> Criterion:
    """The criterion for a batch of which every picture is `part` itself and the rest the one that mirrors its place.

    mirrored: the criterion for the latter, where it is another.
    """
    other = mirrored or criterion
    return lambda scores, targets: part * criterion(scores, targets) + (1 - part) * other(scores, targets.flip(0))


class RunningMean(AveragedModel):
    """A copy of a network whose every number follows the network's: mean = d * mean + (1 - d) * value.

    d = min(decay, (1 + n) / (10 + n)) after n means: without the smaller d at first, the weights that training started
    from would weigh for thousands of steps. What cannot be averaged (batch norm's count of batches) is copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """As AveragedModel's, in two operations over all tensors, neither of which waits for the device."""
        n = int(self.n_averaged)  # which stays in the host's memory
        weight = 1 - min(self.decay, (1 + n) / (10 + n)) if n else 1.0
        means, values = ([*net.parameters(), *net.buffers()] for net in (self.module, model))
        for floating, change in ((True, partial(torch._foreach_lerp_, weight=weight)), (False, torch._foreach_copy_)):
            pairs = [(m, v) for m, v in zip(means, values, strict=True) if m.is_floating_point() == floating]
            if pairs:
                change([mean for mean, _ in pairs], [value for _, value in pairs])
        self.n_averaged += 1
