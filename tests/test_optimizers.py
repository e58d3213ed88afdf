"""Optimisers and rates as a recipe says, and optimiser state in files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fer_bench.cards import Recipe
from fer_bench.optimizers import flatten_state, optimizer_for, rate, restore_state
from fer_bench.weights import read_tensors, write_tensors


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    """Linear over the first tenth, 1 at its end, half way down in the middle of the rest, near 0 at the end."""
    recipe = Recipe(name="r", epochs=1, warmup=0.1)
    assert [rate(recipe, step, 100) for step in (0, 4, 9, 10, 55)] == pytest.approx([0.1, 0.5, 1, 1, 0.5])
    assert rate(recipe, 99, 100) < 0.001
    assert rate(replace(recipe, schedule="constant"), 99, 100) == 1


def test_vectors_are_not_decayed() -> None:
    """Weight decay applies to matrices and kernels, not to biases, norms and tensors stored as an update."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    network.seeded_tensors = {"2.weight": (0, 1.0)}
    recipe = Recipe(name="r", epochs=1, weight_decay=0.1)
    decayed, others = optimizer_for(recipe, network, list(network.parameters())).param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(others["params"]) == 5


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "nesterov"])
def test_optimiser_state_survives_as_plain_tensors(kind: str) -> None:
    """Two steps, stored, restored and a third give what three steps in a row give."""
    recipe = Recipe(name="r", epochs=1, optimizer=kind, lr=0.1)

    def steps(network: torch.nn.Linear, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            network(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    straight = torch.nn.Linear(3, 2)
    torch.manual_seed(0)
    broken = torch.nn.Linear(3, 2)
    steps(straight, optimizer_for(recipe, straight, list(straight.parameters())), 3)
    before = optimizer_for(recipe, broken, list(broken.parameters()))
    steps(broken, before, 2)
    tensors, layout = flatten_state(before)
    after = optimizer_for(recipe, broken, list(broken.parameters()))
    restore_state(after, tensors, json.loads(json.dumps(layout)))
    steps(broken, after, 1)
    assert torch.equal(straight.weight, broken.weight)


def test_restored_optimiser_state_lies_in_memory_as_its_weights_do(tmp_path: Path) -> None:
    """By way of a file, moments of a channels_last kernel are channels_last again, with the values that they had."""
    kernel = torch.nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    scale = torch.nn.Parameter(torch.tensor(2.0))  # of the shape that Adam's count of steps has
    network = torch.nn.ParameterList([kernel, scale])
    recipe = Recipe(name="r", epochs=1, optimizer="adamw")
    before, after = (optimizer_for(recipe, network, [kernel, scale]) for _ in range(2))
    (scale * kernel.square()).sum().backward()
    before.step()
    tensors, layout = flatten_state(before)
    write_tensors(tmp_path / "state", tensors, {})
    restore_state(after, read_tensors(tmp_path / "state")[0], json.loads(json.dumps(layout)))
    for key in ("exp_avg", "exp_avg_sq"):
        assert after.state[kernel][key].stride() == kernel.stride() != kernel.contiguous().stride()
        assert torch.equal(after.state[kernel][key], before.state[kernel][key])
    assert after.state[scale]["step"].dtype == before.state[scale]["step"].dtype
    assert after.state[scale]["step"] == 1
