"""P3's spatial transformer."""

from __future__ import annotations

import pytest
import torch

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
