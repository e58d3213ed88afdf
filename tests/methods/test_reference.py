"""The reference networks: inside the sizes they promise, and made of what their docstring says."""

from __future__ import annotations

import pytest
import torch

from fer_bench.methods import METHODS, build, count_parameters
from fer_bench.methods.reference import Excitation, InvertedResidual, Residual
from fer_bench.protocols import RECIPES, recipe_for


@pytest.mark.parametrize(
    ("name", "most"), [("reference_tiny", 60_000), ("reference_small", 5_000_000), ("reference_large", 25_000_000)]
)
def test_a_network_is_no_larger_than_it_promises(name: str, most: int) -> None:
    """Under 60 thousand, 5 million and 25 million parameters, and not so small that a size below would do."""
    assert most / 2 < count_parameters(build(name)) <= most


@pytest.mark.parametrize("block", [InvertedResidual(8), Residual(32)])
def test_a_block_whose_change_is_nothing_passes_its_input_on(block: torch.nn.Module) -> None:
    """The shortcut is the identity: with the last batch norm at zero, what is positive comes out as it went in."""
    last = [module for module in block.change if isinstance(module, torch.nn.BatchNorm2d)][-1]
    torch.nn.init.zeros_(last.weight)
    x = torch.rand(2, last.num_features, 6, 6)
    assert torch.equal(block.eval()(x), x)
    torch.nn.init.ones_(last.weight)
    assert not torch.allclose(block(x), x, atol=1e-3)


def test_an_excitation_weighs_whole_channels() -> None:
    """Every place of a channel is scaled by the same factor, between 0 and 1, which depends on all channels."""
    torch.manual_seed(0)
    layer, x = Excitation(32), torch.rand(1, 32, 5, 5) + 0.5
    torch.nn.init.constant_(layer.squeeze.weight, 0.1)
    ratio = layer(x) / x
    assert torch.allclose(ratio, ratio.mean((2, 3), keepdim=True).expand_as(ratio), atol=1e-6)
    assert ((ratio > 0) & (ratio < 1)).all()
    other = x.clone()
    other[:, 0] += 3
    assert not torch.allclose(layer(other)[:, 1], layer(x)[:, 1])


def test_their_own_recipes_are_the_default_of_their_cards() -> None:
    """Without a recipe asked for, a card's own is taken: light-v1, strong-v1, and common-v1 for all papers' methods."""
    named = {name: recipe_for(None, METHODS[name].card).name for name in METHODS}
    own = {name: recipe for name, recipe in named.items() if recipe != "common-v1"}
    assert own == {"reference_tiny": "light-v1", "reference_large": "strong-v1"}
    assert named["reference_small"] == named["small_cnn"] == "common-v1"
    assert RECIPES["light-v1"].ema == 0.999
