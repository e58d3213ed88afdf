"""What a stage of training is made of."""

from __future__ import annotations

from copy import deepcopy

import torch

from fer_bench.methods.base import Stage
from fer_bench.stages import RunningMean, mixed, stage_epochs


def test_stage_epochs_share_the_budget() -> None:
    """Every stage gets at least one epoch, and the last takes the remainder."""
    stages = (Stage("a", 0.7), Stage("b", 0.3))
    assert stage_epochs(stages, 60) == [42, 18]
    assert stage_epochs(stages, 1) == [1, 1]
    assert stage_epochs((Stage("only"),), 5) == [5]


def test_a_mixed_loss_weighs_both_labels() -> None:
    """The loss of a batch mixed 3 : 1 with its mirror is 3/4 the loss on its labels and 1/4 on the mirrored ones."""
    scores, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    plain = torch.nn.CrossEntropyLoss()
    expected = 0.75 * plain(scores, targets) + 0.25 * plain(scores, torch.tensor([1, 0]))
    assert torch.isclose(mixed(plain, 0.75)(scores, targets), expected)
    assert not torch.isclose(expected, plain(scores, targets))


def test_the_running_mean_follows_parameters_and_statistics() -> None:
    """The first update copies; then each number moves by 1 - min(decay, (1 + n) / (10 + n)); counts are copied."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    mean = RunningMean(network, decay=0.25)
    expected = None
    for count in range(6):
        network.train()(torch.randn(4, 1, 3, 3) + count)
        with torch.no_grad():
            network[0].weight.add_(1.0)
        values = deepcopy(network.state_dict())
        mean.update_parameters(network)
        d = min(0.25, (1 + count) / (10 + count)) if count else 0.0
        expected = values if expected is None else {k: d * expected[k] + (1 - d) * v for k, v in values.items()}
        found = mean.module.state_dict()
        assert found["1.num_batches_tracked"] == count + 1
        for name in ("0.weight", "0.bias", "1.running_mean", "1.running_var", "1.weight"):
            torch.testing.assert_close(found[name], expected[name])
    assert int(mean.n_averaged) == 6
    again = RunningMean(network, decay=0.25)
    again.load_state_dict(mean.state_dict())
    assert int(again.n_averaged) == 6
    torch.testing.assert_close(again.module.state_dict()["0.weight"], expected["0.weight"])
