"""That a training epoch does what its recipe says: order, inputs, loss, rate and clipping, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fer_bench import train
from fer_bench.cards import Augmentation, Recipe, Track
from fer_bench.datasets import load_dataset
from fer_bench.methods.base import Criterion, Stage
from fer_bench.optimizers import rate
from fer_bench.train import Options, Run
from fer_bench.transforms import augment, to_input
from fer_bench.weights import read_tensors
from tests.helpers import write_folder
from tests.test_train import TINY

RECIPE = Recipe(
    name="tiny", epochs=2, batch_size=8, optimizer="sgd", lr=0.05, schedule="cosine", warmup=0.3, label_smoothing=0.1,
    clip=0.05, mixup=0.4, augmentation=Augmentation(flip=True, rotate=10, shift=0.1, contrast=0.2, erase=0.1),
)  # fmt: skip


@dataclass
class Seen:
    """What one training was given and did, a list entry a step."""

    inputs: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    losses: list[tuple[Tensor, Criterion, float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    run: Run | None = None


@pytest.fixture
def track(tmp_path: Path) -> Track:
    """A track over a tiny folder of learnable pictures."""
    name = f"folder:{write_folder(tmp_path / 'data')}"
    return Track(name, name, name, (), trained_on=name)


def watched(track: Track, out: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe = RECIPE) -> Seen:
    """A training of two epochs whose every step is written down."""
    seen, original = Seen(), torch.optim.SGD.step

    def loss(network: nn.Module, inputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        answers = network(inputs)
        value = criterion(answers, targets)
        seen.inputs.append(inputs.detach().clone())
        seen.targets.append(targets.clone())
        seen.losses.append((answers.detach(), criterion, value.item()))
        return value

    def step(self: torch.optim.SGD, *args: object) -> None:
        seen.rates.append(self.param_groups[0]["lr"])
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.norms.append(torch.cat(gradients).norm().item())
        original(self, *args)

    method = replace(TINY, stages=(Stage("whole", 1.0, loss=loss),))
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        seen.run = Run(method, track, recipe, Options(device="cpu"), out)
        seen.run.fit()
    return seen


def test_inputs_are_the_batch_augmented_and_mixed(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step's inputs are those made by hand from the seed; an epoch sees each picture once, in another order."""
    seen = watched(track, tmp_path / "out", monkeypatch)
    faces = load_dataset(track.dataset, "train")
    images, labels = torch.from_numpy(faces.images), torch.from_numpy(faces.labels)
    place, orders = 0, []
    for epoch in range(RECIPE.epochs):
        generator, draws = torch.Generator().manual_seed(epoch), np.random.default_rng(epoch)
        order = torch.randperm(len(faces), generator=generator)
        orders.append(order.tolist())
        for batch in order.split(RECIPE.batch_size):
            if len(batch) < 2:
                continue
            fresh = augment(images[batch], seen.run.spec, RECIPE.augmentation, generator)
            part = draws.beta(RECIPE.mixup, RECIPE.mixup)
            assert torch.allclose(seen.inputs[place], part * fresh + (1 - part) * fresh.flip(0), atol=1e-6)
            assert not torch.allclose(fresh, to_input(images[batch], seen.run.spec), atol=1e-2)
            assert torch.equal(seen.targets[place], labels[batch])
            place += 1
    assert place == len(seen.inputs) > 4
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(faces)))


def test_loss_is_smoothed_cross_entropy_of_both_pictures_of_a_mixture(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against log-softmax by hand: 0.9 on the label and 0.1 over all classes, of each picture by its part."""
    seen = watched(track, tmp_path / "out", monkeypatch)
    draws = np.random.default_rng(0)
    for (answers, _, value), targets in zip(seen.losses[:3], seen.targets, strict=False):
        part, logs = draws.beta(RECIPE.mixup, RECIPE.mixup), answers.float().log_softmax(1)
        smooth = -0.1 * logs.mean(1)
        own = -0.9 * logs.gather(1, targets[:, None])[:, 0] + smooth
        other = -0.9 * logs.gather(1, targets.flip(0)[:, None])[:, 0] + smooth
        assert value == pytest.approx((part * own.mean() + (1 - part) * other.mean()).item(), rel=1e-4)


def test_rate_of_each_step_follows_the_schedule(track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear warm-up over the first 30 % of all steps, then a cosine that ends near 0, over both epochs."""
    seen = watched(track, tmp_path / "out", monkeypatch)
    steps = len(seen.rates)
    assert seen.rates == pytest.approx([RECIPE.lr * rate(RECIPE, step, steps) for step in range(steps)])
    warm = round(0.3 * steps)
    assert seen.rates[0] == pytest.approx(RECIPE.lr / warm)
    assert seen.rates[warm] == max(seen.rates) == RECIPE.lr
    assert seen.rates[-1] < 0.2 * RECIPE.lr


def test_gradients_are_clipped_to_the_recipe_s_norm(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is taken with a longer gradient; without clipping some are."""
    clipped = watched(track, tmp_path / "clipped", monkeypatch)
    assert max(clipped.norms) <= RECIPE.clip * 1.001
    free = watched(track, tmp_path / "free", monkeypatch, replace(RECIPE, clip=0.0))
    assert max(free.norms) > 2 * RECIPE.clip


def test_what_the_compact_form_costs_is_measured(track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`selected_value` is the accuracy of what is shipped, `accuracy_loss` what full precision had more."""
    recipe, original = replace(RECIPE, epochs=12, mixup=0.0, clip=1.0), train.pack

    def lossy(tensors: dict[str, Tensor], seeded: dict) -> tuple[dict[str, Tensor], dict]:
        """As a compact form that lost the last layer: every picture is then of the first class."""
        spoilt = {name: torch.zeros_like(t) if name.startswith("6.") else t for name, t in tensors.items()}
        return original(spoilt, seeded)

    monkeypatch.setattr(train, "pack", lossy)
    run = Run(TINY, track, recipe, Options(device="cpu"), tmp_path / "out")
    _, record = read_tensors(run.fit())
    labels = load_dataset(track.dataset, "validation").labels
    assert record["trained"]["selected_value"] == pytest.approx((labels == 0).mean())
    assert record["accuracy_loss"] == pytest.approx(run.state["best"] - (labels == 0).mean())
    assert record["accuracy_loss"] > 0.1
