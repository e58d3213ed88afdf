"""Recipes -> optimisers and learning rates; optimiser state as plain tensors, so that checkpoints need no pickle."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fer_bench.cards import Recipe


def optimizer_for(recipe: Recipe, network: nn.Module, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimiser over `parameters`; vectors (biases, norms) are not decayed.

    Neither are a network's `seeded_tensors`, of which a weight file stores only the update (see `weights.pack`).
    """
    seeded = getattr(network, "seeded_tensors", {})
    kept = {id(p) for name, p in network.named_parameters() if p.ndim < 2 or name in seeded}
    decayed = [p for p in parameters if id(p) not in kept]
    others = [p for p in parameters if id(p) in kept]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer in ("sgd", "nesterov"):
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=recipe.optimizer == "nesterov")
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr)


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """The factor on the peak learning rate for step `step` (from 0) of `steps`: linear warm-up, then the schedule."""
    warm = round(recipe.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def flatten_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict]:
    """An optimiser's state as named tensors, and its layout as JSON values."""
    state = optimizer.state_dict()
    tensors = {
        f"opt.{index}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state["state"].items()
        for key, value in values.items()
        if value is not None
    }
    return tensors, {"param_groups": state["param_groups"]}


def restore_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], layout: dict) -> None:
    """The reverse of `flatten_state`; names without the prefix "opt." are passed over.

    What has a parameter's shape gets its memory format too, which files do not keep and the fast optimisers ask for.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("opt."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": layout["param_groups"]})
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.ndim and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
