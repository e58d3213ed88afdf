"""Over which layer a CAM is drawn: the one that the caller names, of a network of one's own too."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fer_bench
from fer_bench import explain as module
from fer_bench.datasets.rendered import draw_split
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.explain import CAMS, explain, main
from fer_bench.faithfulness import measure_faithfulness
from fer_bench.infer import Model, logits
from tests.helpers import picture
from tests.test_explain import fresh, hooks, pictures


def own() -> Model:
    """A network of nobody's whose activations work in place, as most do."""
    torch.manual_seed(0)
    network = nn.Sequential()
    network.add_module("first", nn.Conv2d(1, 4, 3, stride=4))
    network.add_module("act", nn.ReLU(inplace=True))
    network.add_module("block", nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True)))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", nn.Flatten())
    network.add_module("head", nn.Linear(6, 7))
    return Model("mine", network, fer_bench.InputSpec(48, 1, (0.5,), (0.25,)), SEVEN)


@pytest.mark.parametrize("cam", list(CAMS))
@pytest.mark.parametrize("layer", ["first", "act", "block", "block.0"])
def test_a_network_of_ones_own_is_explained(layer: str, cam: str) -> None:
    """Over any layer that gives maps; the answers are the network's own, and it is left as it was."""
    model, images = own(), pictures(3)
    found = explain(model, images, cam, cam_layer=layer)
    assert found.maps.shape == (3, 48, 48)
    assert found.maps.max() == 1
    assert np.allclose(found.logits, logits(model, images), atol=1e-5)
    assert hooks(model.network) == 0
    assert model.network.act.inplace


class ChannelsLast(nn.Module):
    """A network whose maps have their channels last, as torchvision's Swin has them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.head = nn.Conv2d(1, 12, 8, stride=8), nn.ReLU(), nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.first(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize("cam", CAMS)
def test_maps_with_their_channels_last_are_those_with_them_first(cam: str) -> None:
    """The same cells at the same places: what the convolution gives, and that with its axes moved."""
    torch.manual_seed(0)
    network = ChannelsLast().eval()
    first = nn.Sequential(OrderedDict(first=network.first, last=nn.ReLU(), rest=nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.head))).eval()  # fmt: skip
    images, spec = pictures(3), fer_bench.InputSpec(48, 1, (0.5,), (0.25,))
    one, other = (
        explain(Model("mine", net, spec, SEVEN), images, cam, cam_layer="last").maps for net in (network, first)
    )
    assert np.ptp(one, axis=(1, 2)).min() == 1
    assert np.allclose(one, other, atol=1e-5)


def test_gradcam_of_a_convolution_is_of_what_it_gives() -> None:
    """Grad-CAM's closed form over the last convolution, whose activation in place would otherwise change its maps."""
    model, images = own(), pictures(2)
    x = (torch.from_numpy(images)[:, None] / 255 - 0.5) / 0.25
    maps = model.network.block[0](model.network.act(model.network.first(x))).detach().requires_grad_()
    scores = model.network.head(maps.relu().mean((2, 3)))
    scores[:, 3].sum().backward()
    expected = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach().numpy()
    found = explain(model, images, target="happiness", cam_layer="block.0").maps
    # At the cells' centres, whose first lies under the 5.5th pixel and the others 4 further each.
    places = [slice(first, first + 39, 4) for first in (5, 6)]
    shown = sum(found[:, rows, columns] for rows in places for columns in places) / 4
    assert np.corrcoef(shown.ravel(), (expected / expected.max((1, 2), keepdims=True)).ravel())[0, 1] > 0.98


def test_a_layer_that_is_not_there_is_told_with_those_that_are() -> None:
    """With the nearest names and the outermost layers; where none is named or it gives no maps, that is said too."""
    model, images = own(), pictures(1)
    listed = "first, act, block, pool, flat, head, block.0, block.1"
    with pytest.raises(UserError) as refused:
        explain(model, images, cam_layer="blok.0")
    assert str(refused.value) == (
        f"mine has no layer 'blok.0'. Did you mean 'block.0' or 'block.1' or 'block'? Its layers are: {listed}."
    )
    with pytest.raises(UserError, match=r"give cam_layer=, .* \(first, act, block, .*\): mine is not a registered me"):
        explain(model, images)
    with pytest.raises(UserError, match=r"the layer 'head' of mine gives no square maps \(N, C, H, W\) and no tokens"):
        explain(model, images, cam_layer="head")
    assert hooks(model.network) == 0


def test_many_layers_are_not_all_listed() -> None:
    """The outermost come first, and how many more there are is said."""
    with pytest.raises(UserError, match=r"resnet18 has no layer 'nothing'\. Its layers are: .* and \d+ more\.$"):
        explain(fresh("resnet18"), pictures(1), cam_layer="nothing")


def test_the_card_s_layer_is_but_the_default() -> None:
    """For a registered method as well, naming the card's layer changes nothing and naming another one does."""
    model, images = fresh("deep_emotion_sequential"), pictures(2)
    card = module.METHODS[model.name].card.cam_layer
    plain = explain(model, images).maps
    assert np.array_equal(plain, explain(model, images, cam_layer=card).maps)
    other = next(name for name, part in model.network.named_modules() if isinstance(part, nn.Conv2d) and name != card)
    assert not np.allclose(plain, explain(model, images, cam_layer=other).maps)


def test_faithfulness_is_measured_over_the_named_layer() -> None:
    """Of a network of one's own too, on faces of which the regions are known."""
    found = measure_faithfulness(own(), draw_split("test", 14), pictures=7, cam_layer="block")
    assert found.pictures == 7
    assert found.regions is not None


def test_the_command_takes_a_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--cam-layer reaches the map; a wrong one is a sentence and exit code 2 before anything is written."""
    monkeypatch.setattr(module, "load", lambda name, *_: fresh(name))
    Image.fromarray(picture(1, 1)).save(tmp_path / "face.png")
    command = [str(tmp_path / "face.png"), "--method", "resnet18", "--no-detect", "-o"]
    assert main([*command, str(tmp_path / "none"), "--cam-layer", "layr1"]) == 2
    assert "error: resnet18 has no layer 'layr1'. Did you mean 'layer1'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    drawn = []
    for layer in ([], ["--cam-layer", "layer1"]):
        out = tmp_path / f"out{len(layer)}"
        assert main([*command, str(out), *layer]) == 0
        drawn.append((out / "face-resnet18-gradcam.png").read_bytes())
    assert drawn[0] != drawn[1]
