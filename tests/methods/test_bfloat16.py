"""Every method in the arithmetic of accelerators."""

from __future__ import annotations

import pytest
import torch

from fer_bench.infer import evaluating
from fer_bench.methods import METHODS, build, list_methods
from tests.methods.test_every_method import LARGE, pictures

HALF = ("small_cnn", "deep_emotion_sequential", "deep_emotion", "sep_se", "sep_se_residual", "patch_cam", "alexnet")
"""One row per kind of layer: CPUs without bfloat16 units take ten times as long over it."""
OTHERS = {"awei", "awei_plain", "vgg13", "vgg16", "reference_large"}
"""Their layers are those of awei_residual, alexnet and reference_small, and take longest."""
ASKED = [name for name in list_methods() if name not in OTHERS]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in HALF else pytest.mark.slow) for n in ASKED])
def test_bfloat16_autocast(name: str) -> None:
    """A network runs forward and backward under bfloat16 autocast, with logits near those of float32."""
    torch.manual_seed(0)
    method, network = METHODS[name], build(name, 5)
    inputs = pictures(method, 1 if name in LARGE else 2)
    with evaluating(network):
        usual = network(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(inputs)
        half.float().sum().backward()
    assert (half - usual).abs().max() < 0.05 * usual.abs().max() + 1e-3
    gradients = [p.grad for p in network.parameters() if p.grad is not None]  # of a stage to come there is none
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
