"""Eval mode for a while: whoever answers at the same time, and whatever modes the modules were in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from fer_bench.cards import InputSpec
from fer_bench.emotions import SEVEN
from fer_bench.infer import Model, logits
from fer_bench.modes import evaluating

FACES = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)


def network() -> nn.Sequential:
    """A tiny network whose answers and statistics depend on its mode, in training mode but for a frozen batch norm."""
    torch.manual_seed(0)
    built = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(64, 7),
    )  # fmt: skip
    built.train()
    built[1].eval()
    return built


def modes(built: nn.Module) -> list[bool]:
    return [module.training for module in built.modules()]


def test_each_module_gets_its_own_mode_back() -> None:
    """A batch norm that was frozen stays so, also after an error."""
    built = network()
    before = modes(built)
    assert any(before)
    assert not all(before)
    with evaluating(built) as given:
        assert given is built
        assert not any(modes(built))
    assert modes(built) == before
    try:
        with evaluating(built):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert modes(built) == before


def test_the_last_that_is_open_sets_the_modes_back() -> None:
    """The first to come, as another thread's, may be the first to go: the others are still answering."""
    built = network()
    before = modes(built)
    first, second = evaluating(built), evaluating(built)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(modes(built))
    second.__exit__(None, None, None)
    assert modes(built) == before


def test_a_network_with_no_module_in_training_mode_is_left_alone() -> None:
    """A network's own `train` is not called, since another thread may be in the middle of an answer."""

    class Counting(nn.Linear):
        calls = 0

        def train(self, mode: bool = True) -> nn.Module:
            self.calls += 1
            return super().train(mode)

    built = Counting(2, 2)
    built.eval()
    assert built.calls == 1
    with evaluating(built), evaluating(built):
        assert not built.training
    assert built.calls == 1
    built.train()
    with evaluating(built):
        assert not built.training
    assert built.training
    assert built.calls == 4  # train above, then eval and train: what a network does there besides is done


def test_threads_share_a_network_in_training_mode() -> None:
    """Each gets the answers of eval mode, and the statistics of the batch norms are what they were."""
    built = network()
    model = Model("own", built, InputSpec(8, 1, (0.5,), (0.5,)), SEVEN)
    wanted = logits(model, FACES)
    state = {key: value.clone() for key, value in built.state_dict().items()}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: logits(model, FACES, batch_size=1), range(80)))
    assert all(np.allclose(answer, wanted, atol=1e-5) for answer in answers)
    assert all(torch.equal(value, state[key]) for key, value in built.state_dict().items())
    assert modes(built) == modes(network())
