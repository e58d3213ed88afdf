"""What every registered method must do, whichever paper it is from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fer_bench.infer import evaluating
from fer_bench.methods import METHODS, Method, build, count_parameters, list_methods
from fer_bench.methods.base import plain_loss

TRACKS = {"fer2013", "ferplus", "fer2013-6", "fer2013-6-merged", "fer2013-4", "fer2013-4-clean"}
TRACKS |= {"rafdb", "mmi", "mmi-random", "ckplus"}
QUICK = ("deep_emotion_sequential", "deep_emotion_parallel", "deep_emotion")
LARGE = {"awei_plain", "awei_residual", "awei", "vgg13", "vgg16", "alexnet"}
"""Over 45M parameters: a step takes gigabytes, so their gradients are tested with two pictures."""
UNTRAINED = {*LARGE, "senet50", "reference_large"}
"""Training them on 64 pictures takes minutes on a CPU: their gradients are tested, their training is not.

(reference_large is reference_small's class with other widths.)
"""


def pictures(method: Method, count: int = 4, seed: int = 0) -> Tensor:
    """Noise (count, C, S, S) of unit variance, the same for the same seed."""
    spec = method.card.input
    return torch.randn(count, spec.channels, spec.size, spec.size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=list_methods())
def case(request: pytest.FixtureRequest) -> tuple[Method, nn.Module]:
    """A method and its network, which the tests leave as it is."""
    torch.manual_seed(0)
    method = METHODS[request.param]
    return method, build(request.param, method.card.parameters[0][0])


def test_the_parameter_count_is_the_cards(case: tuple[Method, nn.Module]) -> None:
    """The network has exactly as many trainable parameters as its card says."""
    method, network = case
    assert count_parameters(network) == method.card.parameters[0][1]


def test_the_card_is_complete(case: tuple[Method, nn.Module]) -> None:
    """Paper, title, summary and what is ours are stated, and reported figures belong to tracks that exist."""
    card = case[0].card
    assert all((card.paper, card.title, card.summary, card.ours))
    assert {figure.track for figure in card.reported} <= TRACKS
    assert card.paper_recipe is None or card.paper_recipe.name == "paper"


def test_logits_and_cam_layer(case: tuple[Method, nn.Module]) -> None:
    """A batch gives finite logits (N, classes), in eval mode the same ones again; the cam_layer gives a 4-D map."""
    method, network = case
    maps: list[Tensor] = []
    handle = network.get_submodule(method.card.cam_layer).register_forward_hook(lambda *args: maps.append(args[2]))
    try:
        with evaluating(network), torch.inference_mode():
            inputs = pictures(method, 2)
            out, again = network(inputs), network(inputs)
            alone = network(inputs[:1])
    finally:
        handle.remove()
    assert torch.equal(out, again)  # no dropout is left on
    torch.testing.assert_close(alone, out[:1], atol=1e-3, rtol=1e-3)  # nor statistics of the batch
    assert out.shape == (2, method.card.parameters[0][0])
    assert out.isfinite().all()
    assert maps[0].ndim == 4
    assert len(maps[0]) == 2
    assert min(maps[0].shape[2:]) >= 3


def test_the_state_dict_fits_a_fresh_channels_last_network(case: tuple[Method, nn.Module]) -> None:
    """The state_dict loads strictly into a new network, which gives the same logits in channels-last layout."""
    method, network = case
    torch.manual_seed(1)
    fresh = build(method.card.name, method.card.parameters[0][0])
    fresh.load_state_dict(network.state_dict(), strict=True)
    fresh.to(memory_format=torch.channels_last)
    inputs = pictures(method, 1)
    with evaluating(network), evaluating(fresh), torch.inference_mode():
        last = fresh(inputs.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(last, network(inputs), atol=1e-3, rtol=1e-3)


def test_every_parameter_gets_a_gradient(case: tuple[Method, nn.Module]) -> None:
    """Each stage's loss gives each parameter of the stage a gradient, no other one any; together they cover all."""
    method, _ = case
    classes = 3  # another class count than the cards'
    torch.manual_seed(0)
    network = build(method.card.name, classes)
    inputs, targets = pictures(method, 6), torch.tensor([0, 0, 1, 1, 2, 2])
    if method.card.name in LARGE:
        inputs, targets = inputs[:2], targets[1:3]
    covered: set[int] = set()
    for stage in method.stages:
        if stage.prepare is not None:
            with evaluating(network), torch.no_grad():
                stage.prepare(network, lambda: iter([(inputs, targets)]))
        chosen = {id(p) for p in stage.parameters(network)}
        covered |= chosen
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(id(parameter) in chosen)
                if name.split(".")[-2] in ("theta", "classifier"):
                    parameter.add_(0.01 * torch.randn_like(parameter))  # they start at zero, which stops gradients once
        network.train()
        network.zero_grad()
        loss = stage.loss(network, inputs, targets, nn.CrossEntropyLoss())
        loss.backward()
        assert loss.ndim == 0
        without = [n for n, p in network.named_parameters() if id(p) in chosen and (p.grad is None or not p.grad.any())]
        assert without == []
        assert not any(p.grad is not None for p in network.parameters() if id(p) not in chosen)
    assert covered == {id(p) for p in network.parameters()}
    with evaluating(network), torch.inference_mode():
        assert network(inputs[:1]).shape == (1, classes)


def test_two_classes_are_the_fewest() -> None:
    """A network for one class is refused."""
    with pytest.raises(ValueError, match="at least 2"):
        build("small_cnn", 1)


def test_rows_stand_in_the_papers_order() -> None:
    """The registry lists P4, P3, P2, P1, P0 and then the baselines."""
    firsts = ["small_cnn", "deep_emotion", "sep_cnn", "awei", "patch_cam", "resnet18"]
    places = [list_methods().index(name) for name in firsts]
    assert places == sorted(places)


def quadrants(method: Method) -> tuple[Tensor, Tensor]:
    """64 noisy pictures and their classes 0..3: which quarter is bright."""
    targets = torch.arange(64) % 4
    inputs = pictures(method, 64, seed=1)
    half = inputs.shape[-1] // 2
    for picture, target in zip(inputs, targets.tolist(), strict=True):
        top, left = target // 2 * half, target % 2 * half
        picture[:, top : top + half, left : left + half] += 2.0
    return inputs, targets


def passes(method: Method, network: nn.Module, inputs: Tensor, targets: Tensor) -> Iterator[float]:
    """Adam over the pictures in batches of 16; gives the accuracy in eval mode after every pass.

    Of four steps a pass, the running means of a batch norm know too little at its usual momentum of 0.1.
    """
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 0.5
    for stage in method.stages:
        if stage.prepare is not None:
            with evaluating(network), torch.no_grad():
                stage.prepare(network, lambda: iter([(inputs, targets)]))
        network.train()
        optimizer = torch.optim.Adam(stage.parameters(network), lr=1e-3)
        for _ in range(60):
            for batch in torch.randperm(len(inputs)).split(16):
                optimizer.zero_grad()
                stage.loss(network, inputs[batch], targets[batch], nn.CrossEntropyLoss()).backward()
                optimizer.step()
            with evaluating(network), torch.inference_mode():
                found = (network(inputs).argmax(1) == targets).float().mean().item()
            yield found
            if found > 0.98:
                break


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in list_methods() if n not in UNTRAINED],
)
def test_it_learns_64_pictures(name: str) -> None:
    """Training with the method's own stages fits 64 pictures of four classes almost perfectly."""
    torch.manual_seed(0)
    method, network = METHODS[name], build(name, 4)
    *_, last = passes(method, network, *quadrants(method))
    assert last > 0.95


def test_the_usual_loss_is_the_criterion_over_the_logits() -> None:
    """A stage without a loss of its own takes the criterion of the network's logits."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    inputs, targets = torch.randn(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    criterion = nn.CrossEntropyLoss()
    assert torch.equal(plain_loss(network, inputs, targets, criterion), criterion(network(inputs), targets))
