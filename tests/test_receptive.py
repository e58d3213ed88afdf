"""Where the cells of feature maps look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_bench.methods import METHODS, list_methods
from fer_bench.methods.small_cnn import SamePad
from fer_bench.receptive import Cells, Located, spread

LARGE = {"vgg13", "vgg16", "alexnet", "awei", "awei_plain", "awei_residual", "senet50", "reference_large"}


def cells_of(network: nn.Module, side: int = 24) -> Cells | None:
    """The cells of what the network makes of a grey picture."""
    inputs = torch.zeros(1, 1, side, side)
    with torch.no_grad(), Located(inputs) as located:
        return located.of(network(inputs))


class Functional(nn.Module):
    """Operations that are no modules."""

    def __init__(self, operation: object) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x)


@pytest.mark.parametrize(
    ("network", "first", "step"),
    [
        (nn.Identity(), 0, 1),
        (nn.ReLU(), 0, 1),
        (nn.Conv2d(1, 2, 3, padding=1), 0, 1),
        (nn.Conv2d(1, 2, 3), 1, 1),  # cell 0 sees pixels 0, 1, 2
        (nn.Conv2d(1, 2, 3, stride=2, padding=1), 0, 2),
        (nn.Conv2d(1, 2, 3, dilation=2), 2, 1),  # 0, 2, 4
        (nn.Conv2d(1, 2, 2, padding="same"), 0.5, 1),  # the odd pixel below and to the right
        (nn.Sequential(SamePad(2), nn.Conv2d(1, 2, 2)), 0.5, 1),
        (nn.MaxPool2d(2), 0.5, 2),
        (nn.MaxPool2d(3, 2, 1), 0, 2),
        (nn.AvgPool2d(4), 1.5, 4),
        (nn.AdaptiveAvgPool2d(6), 1.5, 4),
        (nn.Sequential(nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")), 0, 1),
        (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.MaxPool2d(2)), 3.5, 4),
        (Functional(lambda x: F.max_pool2d(F.relu(x), 2) + F.avg_pool2d(x, 2)), 0.5, 2),
        (Functional(lambda x: torch.cat([F.max_pool2d(x, 3), F.max_pool2d(x, 3)], 1).relu_()), 1, 3),
    ],
)
def test_cells_lie_where_the_layers_look(network: nn.Module, first: float, step: float) -> None:
    """The first cell's centre and the step, worked out by hand, for the layers that networks are made of."""
    assert cells_of(network.eval()) == Cells((first, first), (step, step))


def test_rows_and_columns_are_told_apart() -> None:
    """Kernels, strides and paddings that differ down and to the right give cells that do."""
    assert cells_of(nn.Conv2d(1, 1, (3, 5), stride=(1, 2), padding=(1, 0))) == Cells((0, 2), (1, 2))
    assert cells_of(nn.ZeroPad2d((3, 0, 1, 0))) == Cells((-1, -3), (1, 1))


@pytest.mark.parametrize(
    "operation",
    [lambda x: x[:, :, ::2], lambda x: x.reshape(1, 4, 12, 12), lambda x: torch.zeros(1, 1, 4, 4)],
)
def test_what_cannot_be_followed_is_not_guessed(operation: object) -> None:
    """Maps whose cells are nowhere in particular, or nowhere known, have none."""
    assert cells_of(Functional(operation)) is None


def test_maps_are_spread_from_centre_to_centre() -> None:
    """A value stands at its cell's centre, half way there is the mean of two, and beyond the last it stays."""
    found = spread(np.array([[[0.0, 1.0], [2.0, 3.0]]], np.float32), 9, Cells((2.0, 2.0), (4.0, 4.0)))[0]
    np.testing.assert_allclose(found[2], [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(found[:, 6], [1, 1, 1, 1.5, 2, 2.5, 3, 3, 3], atol=1e-6)
    one = spread(np.full((2, 1, 1), 0.7, np.float32), 5, Cells((2.0, 2.0), (5.0, 5.0)))
    np.testing.assert_allclose(one, np.full((2, 5, 5), 0.7), atol=1e-6)


def test_maps_of_unknown_cells_lie_edge_to_edge() -> None:
    """As every image library enlarges a picture."""
    maps = np.random.default_rng(0).random((3, 4, 4), dtype=np.float32)
    wanted = F.interpolate(torch.from_numpy(maps)[:, None], (12, 12), mode="bilinear")[:, 0].numpy()
    np.testing.assert_allclose(spread(maps, 12, None), wanted, atol=1e-6)


class Reached(Exception):  # noqa: N818
    """The layer has been reached; what comes after it may not take pictures of this size."""


@pytest.mark.parametrize("name", [name for name in list_methods() if name not in LARGE])
def test_the_cells_of_every_method_are_where_its_gradients_are(name: str) -> None:
    """The pixels that move a cell of the layer on its card lie around the place that is worked out for it.

    On a picture so large that the receptive field of the cell in its middle is whole: the picture's edges cut others
    off. A spatial transformer takes pictures of its own size only, and a fresh one leaves them as they are: where maps
    lie in pictures that one has turned, tests/methods/test_deep_emotion.py asks.
    """
    card = METHODS[name].card
    torch.manual_seed(0)
    network = METHODS[name].build(7).eval()
    held: dict[str, Tensor] = {}

    def stop(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        held["maps"] = output
        raise Reached

    network.get_submodule(card.cam_layer).register_forward_hook(stop)
    side = card.input.size * (1 if name.startswith("deep_emotion") else 4)
    inputs = torch.rand(2, card.input.channels, side, side, requires_grad=True)
    with Located(inputs) as located, pytest.raises(Reached):
        network(inputs)
    maps, cells = held["maps"], located.of(held["maps"])
    middle = maps.shape[2] // 2
    (gradient,) = torch.autograd.grad(maps[:, :, middle, middle].pow(2).sum(), inputs)
    weight = gradient.pow(2).sum((0, 1))
    places = torch.arange(side, dtype=torch.float32)
    for axis, start, step in zip((1, 0), cells.first, cells.step, strict=True):
        centre = float((weight.sum(axis) * places).sum() / weight.sum())
        assert centre == pytest.approx(start + step * middle, abs=max(1.0, step / 8))
