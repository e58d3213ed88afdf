"""P3's spatial transformer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fer_bench.methods import build

ROWS = ("deep_emotion_sequential", "deep_emotion_parallel", "deep_emotion")


@pytest.mark.parametrize("name", ROWS)
def test_the_transformer_starts_at_identity(name: str) -> None:
    """A fresh transformer gives its target back to 1e-5, whatever the picture."""
    transformer = build(name, 4).transformer
    picture, target = torch.randn(2, 1, 48, 48), torch.randn(2, 10, 9, 9)
    torch.testing.assert_close(transformer(picture, target), target, atol=1e-5, rtol=0)


def test_the_transformer_shifts_by_theta() -> None:
    """A translation of two thirds of half the side moves a 6x6 target by two columns and fills with zeros."""
    transformer = build("deep_emotion", 4).transformer
    with torch.no_grad():
        transformer.theta.bias[2] = 2 * 2 / 6
    target = torch.arange(36.0).view(1, 1, 6, 6)
    moved = transformer(torch.zeros(1, 1, 48, 48), target)
    torch.testing.assert_close(moved[..., :4], target[..., 2:], atol=1e-4, rtol=0)
    assert not moved[..., 4:].abs().gt(1e-4).any()


def test_the_warp_stays_in_float32_under_autocast() -> None:
    """Under bfloat16 autocast the warp itself is computed in float32."""
    transformer = build("deep_emotion", 4).transformer
    target = torch.randn(1, 10, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        warped = transformer(torch.randn(1, 1, 48, 48), target)
    assert warped.dtype == torch.float32
    torch.testing.assert_close(warped, target, atol=1e-5, rtol=0)


def test_only_the_sequential_row_warps_the_picture() -> None:
    """The sequential row computes its features on the warped picture, the parallel row on the picture itself."""
    picture = torch.randn(1, 1, 48, 48)
    seen = {}
    for name in ("deep_emotion_sequential", "deep_emotion_parallel"):
        network = build(name, 4).eval()
        with torch.no_grad():
            network.transformer.theta.bias[2] = 0.5
        network.features.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        network(picture)
    assert torch.equal(seen["deep_emotion_parallel"], picture)
    torch.testing.assert_close(seen["deep_emotion_sequential"][..., :36], picture[..., 12:], atol=1e-4, rtol=0)


def turned(name: str, turn: float = 0.4, zoom: float = 0.7, shift: tuple[float, float] = (0.15, -0.2)) -> nn.Module:
    """A row whose transformer turns, zooms and moves every picture alike."""
    torch.manual_seed(0)
    network = build(name, 4).eval()
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    with torch.no_grad():
        network.transformer.theta.bias.copy_(torch.tensor([cos, -sin, shift[0], sin, cos, shift[1]]))
    return network


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("row", "column"), [(4, 4), (2, 5), (6, 3)])
def test_maps_are_moved_to_the_pixels_that_make_them(name: str, row: int, column: int) -> None:
    """A bump over a cell of the features comes to lie, in the picture, around the pixels whose change moves that cell.

    Under a transform that is not the identity: there nothing would have to be moved.
    """
    network, held = turned(name), []
    x = torch.rand(32, 1, 48, 48, requires_grad=True)
    network.features.register_forward_hook(lambda *given: held.append(given[2]))
    network(x)
    (gradient,) = torch.autograd.grad(held[0][:, :, row, column].pow(2).sum(), x)
    places = torch.arange(48.0)
    cell = 7.5 + 4 * torch.tensor([row, column])  # by the kernels and poolings of `features`
    bump = torch.exp(-((places[:, None] - cell[0]) ** 2 + (places - cell[1]) ** 2) / 8)
    with torch.no_grad():
        moved = network.in_picture(x, bump.expand(32, -1, -1))
    for axis in (0, 1):
        profiles = [weight.sum((0, 2 - axis)) for weight in (gradient[:, 0].pow(2), moved)]
        pulled, laid = (float(profile @ places / profile.sum()) for profile in profiles)
        assert pulled == pytest.approx(laid, abs=1)


def test_maps_move_with_each_pictures_own_transform() -> None:
    """Each map is undone by its own picture's theta: warped by that theta again, it is what it was."""
    network = turned("deep_emotion_sequential", turn=0.1, zoom=1.2, shift=(0.05, 0.05))
    with torch.no_grad():
        network.transformer.theta.weight.normal_(0, 0.15)
    x = torch.rand(6, 1, 48, 48)
    places = torch.linspace(-1, 1, 48)
    bump = torch.exp(-((places[:, None] - 0.1) ** 2 + (places + 0.2) ** 2) / 0.08).expand(6, -1, -1)
    with torch.no_grad():
        theta = network.transformer.transform(x)
        moved = network.in_picture(x, bump)
        again = network.transformer(x, moved[:, None])[:, 0]
    assert (theta - theta[0]).abs().max() > 0.02
    assert (moved - bump).abs().amax((1, 2)).min() > 0.1
    torch.testing.assert_close(again, bump, atol=0.03, rtol=0)


@pytest.mark.parametrize("name", ROWS[1:])
def test_the_parallel_rows_maps_stay(name: str) -> None:
    """Their features are of the picture itself, whatever the transformer does behind them."""
    maps = torch.rand(2, 48, 48)
    assert torch.equal(turned(name).in_picture(torch.rand(2, 1, 48, 48), maps), maps)


def test_what_the_transformer_never_saw_is_cold() -> None:
    """A transformer that reads the upper left quarter alone leaves the map of the rest at 0, and spreads none of it."""
    network = turned("deep_emotion_sequential", turn=0, zoom=0.5, shift=(-0.5, -0.5))
    with torch.no_grad():
        moved = network.in_picture(torch.rand(2, 1, 48, 48), torch.ones(2, 48, 48))
    assert torch.all(moved[:, :24, :24] > 0.2)
    assert torch.all(moved[:, 1:23, 1:23] == 1)
    assert not moved[:, 25:].any()
    assert not moved[:, :, 25:].any()


@pytest.mark.parametrize(("zoom", "shift"), [(0.0, (0, 0)), (0.02, (0, 0)), (math.nan, (0, 0)), (1.0, (3.0, 0))])
def test_a_map_that_has_no_place_in_the_picture_is_empty(zoom: float, shift: tuple[float, float]) -> None:
    """All 0 and finite where the picture is read at one point, within a pixel, nowhere, or beside the picture."""
    network = turned("deep_emotion_sequential", zoom=zoom, shift=shift)
    with torch.no_grad():
        moved = network.in_picture(torch.rand(2, 1, 48, 48), torch.ones(2, 48, 48))
    assert torch.equal(moved, torch.zeros(2, 48, 48))
