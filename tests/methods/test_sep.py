"""P2's rows beside one another."""

from __future__ import annotations

import torch

from fer_bench.methods import METHODS, build, count_parameters
from fer_bench.methods.sep import SqueezeExcitation


def test_the_squeeze_and_excitation_costs_512_parameters() -> None:
    """sep_se has 2 x 64 x 4 parameters more than sep_cnn: reduction 16, no biases."""
    assert count_parameters(build("sep_se", 6)) - count_parameters(build("sep_cnn", 6)) == 512


def test_the_gate_rescales_whole_channels() -> None:
    """With a closed excitation the gate is one half everywhere."""
    block = SqueezeExcitation(32)
    torch.nn.init.zeros_(block.excite.weight)
    x = torch.randn(2, 32, 5, 5)
    torch.testing.assert_close(block(x), x / 2)


def test_the_augmented_row_differs_by_its_recipe_only() -> None:
    """sep_se and sep_se_aug are the same network; only the paper recipe's augmentation differs."""
    plain, augmented = METHODS["sep_se"].card, METHODS["sep_se_aug"].card
    assert build("sep_se", 6).state_dict().keys() == build("sep_se_aug", 6).state_dict().keys()
    assert plain.paper_recipe.augmentation != augmented.paper_recipe.augmentation
    assert plain.paper_recipe.lr == augmented.paper_recipe.lr == 1e-3


def test_gimefive_has_no_squeeze_and_excitation() -> None:
    """The authors' count of 10,478,086 leaves room for five plain blocks and the wide head only."""
    assert not any(isinstance(m, SqueezeExcitation) for m in build("gimefive", 6).modules())
