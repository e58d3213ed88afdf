"""P1: the skip, the guide, the seeded start of the widest layer and the two stages."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F

from fer_bench import pretrained
from fer_bench.methods import METHODS
from fer_bench.methods.awei import FC1_BOUND, Awei, ConvMaxPool, load_guide
from fer_bench.weights import seeded_uniform


@pytest.fixture(scope="module")
def guided() -> Awei:
    """An `awei` with a guide of random weights, in eval mode."""
    torch.manual_seed(0)
    return Awei(7, guide=True).eval()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_lean_skip_is_convolution_and_max_pooling(layout: torch.memory_format) -> None:
    """Values and all gradients equal those of the full convolution, max pooling and ReLU."""
    torch.manual_seed(0)
    skip = ConvMaxPool(3, 6, 4)
    with torch.no_grad():
        skip.bias.uniform_(-2, 2)
    x = torch.randn(2, 3, 12, 12).contiguous(memory_format=layout).requires_grad_()
    full = F.max_pool2d(F.relu(F.conv2d(x, skip.weight, skip.bias, padding=1)), 4)
    upstream = torch.randn_like(full)
    wanted = torch.autograd.grad(full, (x, skip.weight, skip.bias), upstream)
    lean = skip(x)
    torch.testing.assert_close(lean, full)
    for ours, theirs in zip(torch.autograd.grad(lean, (x, skip.weight, skip.bias), upstream), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(skip(x), full)


def test_the_skip_trains_under_autocast() -> None:
    """Under bfloat16 autocast the skip's weight still gets its gradient, near that of float32."""
    torch.manual_seed(0)
    skip, x = ConvMaxPool(3, 6, 4), torch.randn(2, 3, 12, 12)
    skip(x).square().mean().backward()
    exact = skip.weight.grad.clone()
    skip.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        loss = skip(x).float().square().mean()
    loss.backward()
    assert F.cosine_similarity(skip.weight.grad.flatten(), exact.flatten(), dim=0) > 0.9


def test_a_silent_guide_leaves_the_residual_network(guided: Awei) -> None:
    """With guide maps of zeros `awei` classifies `awei_residual`'s own maps, divided by their Euclidean norm."""
    residual = Awei(7).eval()
    own = {k: v for k, v in guided.state_dict().items() if not k.startswith("guid")}
    residual.load_state_dict(own, strict=True)
    x = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        flat = (residual.features(x) + residual.skip(x)).flatten(1)
        expected = residual.fc2(residual.fc1(flat / flat.square().sum().sqrt()).relu())
        torch.testing.assert_close(guided(x, guide_maps=torch.zeros(1, 512, 7, 7)), expected)
        assert not torch.allclose(guided(x), expected)


def test_the_guides_maps_are_added_once_computed(guided: Awei) -> None:
    """Maps computed ahead give the same logits as the guide inside, and the merged maps are own plus guide's."""
    x = torch.rand(1, 3, 224, 224)
    merged = []
    handle = guided.merge.register_forward_hook(lambda *args: merged.append(args[2]))
    with torch.inference_mode():
        maps = guided.guide_maps(x)
        inside, ahead = guided(x), guided(x, guide_maps=maps)
        own = guided.features(x) + guided.skip(x)
    handle.remove()
    assert maps.shape == (1, 512, 7, 7)
    assert torch.equal(inside, ahead)
    torch.testing.assert_close(merged[0], own + maps)


def test_the_guide_is_not_counted_and_gets_no_gradient(guided: Awei) -> None:
    """The guide and its linear layer are frozen in a fresh network."""
    assert not any(p.requires_grad for n, p in guided.named_parameters() if n.startswith("guide"))


def test_the_guide_sees_imagenets_normalisation(guided: Awei) -> None:
    """A picture of ImageNet's mean colour is zero to the guide; white is about 2.2 to 2.6."""
    seen = []
    handle = guided.guide[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        guided.guide_maps(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 224, 224))
        guided.guide_maps(torch.ones(1, 3, 224, 224))
    handle.remove()
    assert seen[0].abs().max() < 1e-6
    torch.testing.assert_close(seen[1][0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-4, rtol=0)


def test_a_small_guide_has_maps_of_the_same_shape() -> None:
    """guide_side 112 leaves pool5 out and still gives 7x7 maps; other sides are refused."""
    network = Awei(7, guide=True, guide_side=112).eval()
    with torch.inference_mode():
        assert network.guide_maps(torch.rand(1, 3, 224, 224)).shape == (1, 512, 7, 7)
    with pytest.raises(ValueError, match="112 or 224"):
        Awei(7, guide=True, guide_side=96)


def test_the_stages_switch_the_logits_and_the_checkpoint_knows() -> None:
    """During stage "guide" the logits are the guide's own; the state_dict carries the switch."""
    network, other = Awei(3, guide=True, guide_side=112).eval(), Awei(3, guide=True, guide_side=112).eval()
    guide, main = METHODS["awei"].stages
    x = torch.rand(1, 3, 224, 224)
    guide.prepare(network, None)
    with torch.inference_mode():
        expected = network.guide_head(network.guide_maps(x).mean((2, 3)))
        assert torch.equal(network(x), expected)
    other.load_state_dict(network.state_dict())
    assert other.is_guiding
    main.prepare(network, None)
    other.load_state_dict(network.state_dict())
    assert not other.is_guiding
    with torch.inference_mode():
        assert not torch.equal(other(x), expected)


def test_the_widest_layer_starts_from_the_seeded_stream(guided: Awei) -> None:
    """Every network starts fc1 from the stream that `seeded_tensors` names, inside He's bound."""
    ((key, (seed, bound)),) = guided.seeded_tensors.items()
    assert torch.equal(guided.state_dict()[key], seeded_uniform((1792, 25088), seed, bound))
    assert guided.fc1.weight.abs().max() <= FC1_BOUND
    assert pytest.approx((6 / 25088) ** 0.5) == FC1_BOUND


def test_the_seeded_stream_never_changes() -> None:
    """The first numbers of the stream are these, on every platform and version: stored checkpoints depend on them."""
    drawn = seeded_uniform((64, 64), 1792, 0.5)
    digest = hashlib.sha256((drawn * 2**24).round().to(torch.int32).numpy().tobytes()).hexdigest()
    assert digest[:16] == "04e2e0a957dbcf2e"


def test_the_guides_weights_are_loaded_by_the_hook(guided: Awei, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook puts the 26 tensors into the guide and returns their source."""
    network = Awei(2, guide=True)
    state = {name: tensor.clone() for name, tensor in guided.guide.state_dict().items()}
    monkeypatch.setattr(pretrained, "vgg16_features", lambda: (state, "a test"))
    assert load_guide(network) == "a test"
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.guide.state_dict().items())
    assert METHODS["awei"].pretrained is load_guide
