"""CAMs and overlays, on networks for which the right answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fer_bench import explain as module
from fer_bench.cards import InputSpec
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.explain import CAMS, WHAT_A_CAM_SHOWS, explain, overlay, principal_maps
from fer_bench.infer import Model, logits
from fer_bench.methods import METHODS, build, list_methods
from fer_bench.methods.small_cnn import SamePad
from fer_bench.receptive import Cells, spread
from fer_bench.transforms import to_input
from tests.helpers import picture

LARGE = {"awei_plain", "awei_residual", "awei", "vgg13", "vgg16", "alexnet", "senet50"}
ALL_CAMS = {"small_cnn", "deep_emotion_sequential", "deep_emotion", "patch_cam", "sep_se"}
"""One row per kind of network; the others are explained by two CAMs, which is quicker."""
SIDE = 16
SCALE = 6.0


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small networks are quicker on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(name: str, classes: int = 7) -> Model:
    """A method with random weights, the same on every run."""
    torch.manual_seed(0)
    network = build(name, classes).eval()
    return Model(name, network, METHODS[name].card.input, SEVEN[:classes], {"track": "fer2013"})


def pictures(count: int, side: int = 48) -> np.ndarray:
    """uint8 (count, side, side)."""
    return np.stack([picture(index % 7, index, side) for index in range(count)])


def hooks(network: nn.Module) -> int:
    """How many hooks hang on the modules of a network."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in network.modules() for kind in kinds)


class Quadrants(nn.Module):
    """Reads one quadrant per emotion: anger is SCALE x (mean of x^4 in the upper left), disgust in the upper right.

    The maps over which the CAM is drawn are x^4, once per quadrant, black outside of it. The power makes blur count.
    """

    def __init__(self) -> None:
        super().__init__()
        half = SIDE // 2
        quadrants = torch.zeros(2, SIDE, SIDE)
        quadrants[0, :half, :half], quadrants[1, :half, half:] = 1, 1
        self.register_buffer("quadrants", quadrants)
        self.maps = nn.Identity()
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(4 * SCALE * torch.eye(2))  # times 4: the mean is over the whole map

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x**4 * self.quadrants).mean((2, 3)))


def quadrants_model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The network above, registered as a method for as long as a test runs."""
    spec = InputSpec(size=SIDE, channels=1, mean=(0.0,), std=(1.0,))
    card = replace(METHODS["small_cnn"].card, name="quadrants", input=spec, cam_layer="maps")
    monkeypatch.setitem(METHODS._entries, "quadrants", replace(METHODS["small_cnn"], card=card))
    return Model("quadrants", Quadrants().eval(), spec, ("anger", "disgust"), {"track": "fer2013"})


quadrants = pytest.fixture(quadrants_model)


def lit(row: int, column: int, count: int = 1) -> np.ndarray:
    """uint8 (count, SIDE, SIDE): one quadrant white, the rest black."""
    half = SIDE // 2
    images = np.zeros((count, SIDE, SIDE), np.uint8)
    images[:, row * half : (row + 1) * half, column * half : (column + 1) * half] = 255
    return images


# ---- maps


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in list_methods()]
)
def test_every_method_can_be_explained(name: str) -> None:
    """Every registered network gives maps at its input's side, of maximum 1 or all 0, and the logits of `infer`."""
    model = fresh(name)
    images = pictures(2)
    for cam in CAMS if name in ALL_CAMS else ("gradcam", "layercam"):
        found = explain(model, images, cam)
        side = model.input_spec.size
        assert found.maps.shape == (2, side, side)
        assert found.maps.dtype == found.logits.dtype == np.float32
        peaks = found.maps.max((1, 2))
        assert np.all((peaks == 1) | (peaks == 0))
        assert found.maps.min() >= 0
        assert peaks.any() or cam != "layercam"  # its terms are all of one sign, so that it is never black here
        np.testing.assert_allclose(found.logits, logits(model, images), atol=1e-5)
        assert found.targets == tuple(SEVEN[index] for index in found.logits.argmax(1))


def test_a_map_shows_the_quadrant_that_is_read(quadrants: Model) -> None:
    """On an evenly grey picture, each emotion's Grad-CAM is its own quadrant, whichever emotion is predicted."""
    images = np.full((1, SIDE, SIDE), 200, np.uint8)
    for target, expected in (("anger", lit(0, 0)), ("disgust", lit(0, 1)), ("Angry", lit(0, 0))):
        for cam in ("gradcam", "gradcam++", "hirescam", "layercam"):
            np.testing.assert_allclose(explain(quadrants, images, cam, target).maps, expected / 255, atol=1e-5)


class Dots(nn.Module):
    """Anger is the sum of what three layers like small_cnn's (padded below and to the right only) make of a dot."""

    def __init__(self) -> None:
        super().__init__()
        layers = [layer for _ in range(3) for layer in (SamePad(2), nn.Conv2d(1, 1, 2, bias=False), nn.MaxPool2d(2))]
        self.maps = nn.Sequential(*layers)
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        warmth = self.maps(x).sum((1, 2, 3))
        return torch.stack([warmth, -warmth], 1)


def test_a_map_lies_where_its_cells_look(quadrants: Model) -> None:
    """Maps of a bright dot lie around the dot; drawn edge to edge they would lie 3.5 pixels up and to the left."""
    side = 48
    model = replace(quadrants, network=Dots().eval(), input_spec=replace(quadrants.input_spec, size=side))
    spots = [(row, column) for row in range(20, 28) for column in range(20, 28)]
    images = np.zeros((len(spots), side, side), np.uint8)
    for image, (row, column) in zip(images, spots, strict=True):
        image[row, column] = 255
    maps = explain(model, images, "gradcam", "anger").maps
    places = np.arange(side)
    for axis in (1, 2):
        profile = maps.sum(3 - axis)
        centres = profile @ places / profile.sum(1)
        off = centres - np.array([spot[axis - 1] for spot in spots])
        assert abs(off.mean()) < 0.5


def test_a_map_lies_over_the_picture_and_not_over_its_warped_copy() -> None:
    """A spatial transformer that reads 9 pixels to the right and 6 below gives the maps of the picture, moved so.

    That is: as of a network without one that is shown what it reads, moved by 9 and 6; 0 where it reads nothing.
    """
    plain = InputSpec(size=48, channels=1, mean=(0.0,), std=(1.0,))  # what lies beyond the border is black
    still, moving = (replace(fresh("deep_emotion_sequential"), input_spec=plain) for _ in range(2))
    with torch.no_grad():
        moving.network.transformer.theta.bias[[2, 5]] = torch.tensor([2 * 9 / 48, 2 * 6 / 48])
    images = pictures(7)
    read = np.zeros_like(images)
    read[:, :-6, :-9] = images[:, 6:, 9:]
    for cam in CAMS:
        of_the_read = explain(still, read, cam, list(SEVEN)).maps[:, :-6, :-9]
        found = explain(moving, images, cam, list(SEVEN)).maps
        assert found[:, :6].max() < 1e-4
        assert found[:, :, :9].max() < 1e-4
        lively = [i for i in range(7) if of_the_read[i].std() > 0.05]
        assert len(lively) >= 3
        for i in lively:
            assert np.corrcoef(of_the_read[i].ravel(), found[i, 6:, 9:].ravel())[0, 1] > 0.9999


def test_gradcam_is_the_closed_form_of_patch_cam() -> None:
    """On a network that ends in averaging and a linear layer, Grad-CAM and HiResCAM are its weighted maps."""
    model = fresh("patch_cam")
    images, target = pictures(7, 40), list(SEVEN)
    with torch.inference_mode():
        inputs = to_input(torch.from_numpy(images), model.input_spec)
        closed = model.network.closed_form_cam(inputs, torch.arange(7)).numpy()
    closed = spread(closed, 40, Cells((0.0, 0.0), (4.0, 4.0)))
    for cam in ("gradcam", "hirescam"):
        maps = explain(model, images, cam, target).maps
        lively = [i for i in range(7) if closed[i].std() > 0]
        assert len(lively) >= 4
        for i in lively:
            assert np.corrcoef(closed[i].ravel(), maps[i].ravel())[0, 1] > 0.999


def test_principal_maps_are_the_librarys_with_a_sign() -> None:
    """They equal pytorch-grad-cam's sign-corrected projection, and do not turn over with the channels' order."""
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction

    activations = np.random.default_rng(0).random((4, 20, 5, 6), dtype=np.float32) ** 4
    maps = principal_maps(activations)
    np.testing.assert_allclose(maps, get_2d_projection_with_sign_correction(activations), atol=1e-5)
    np.testing.assert_allclose(principal_maps(activations[:, ::-1]), maps, atol=1e-5)
    assert np.all(maps.max((1, 2)) >= -maps.min((1, 2)))


def test_targets_can_be_one_or_one_per_picture() -> None:
    """A name stands for all pictures, a sequence for each; maps are those of the named emotion, logits unchanged."""
    model, images = fresh("deep_emotion"), pictures(3)
    predicted = explain(model, images)
    mixed = explain(model, images, target=["fear", "Happy", "sadness"])
    assert mixed.targets == ("fear", "happiness", "sadness")
    assert explain(model, images, target="fear").targets == ("fear",) * 3
    np.testing.assert_array_equal(explain(model, images, target="fear").maps[0], mixed.maps[0])
    np.testing.assert_array_equal(mixed.logits, predicted.logits)
    assert not np.array_equal(mixed.maps, predicted.maps)
    np.testing.assert_array_equal(explain(model, images, target=predicted.targets).maps, predicted.maps)


def test_batches_and_colour_do_not_matter() -> None:
    """Batches of 2 give what one batch gives, RGB pictures of equal channels what grey ones give, none gives none."""
    model, images = fresh("small_cnn"), pictures(5)
    whole = explain(model, images)
    np.testing.assert_allclose(explain(model, images, batch_size=2).maps, whole.maps, atol=1e-4)
    colour = np.repeat(images[..., None], 3, 3)
    np.testing.assert_allclose(explain(model, colour).maps, whole.maps, atol=1e-3)
    none = explain(model, images[:0])
    assert none.maps.shape == (0, 48, 48)
    assert none.logits.shape == (0, 7)
    assert none.targets == ()


def test_the_network_is_left_as_it_was() -> None:
    """Training mode, gradient flags and gradients of the network survive, no hook is left, and no gradient is added."""
    model = fresh("patch_cam")
    model.network.train()
    model.network.head.weight.requires_grad_(False)
    model.network.classifier.weight.grad = torch.ones_like(model.network.classifier.weight)
    flags = [p.requires_grad for p in model.network.parameters()]
    before = hooks(model.network)
    statistics = {name: value.clone() for name, value in model.network.named_buffers()}
    explain(model, pictures(2))
    assert model.network.training
    assert [p.requires_grad for p in model.network.parameters()] == flags
    assert [name for name, p in model.network.named_parameters() if p.grad is not None] == ["classifier.weight"]
    assert torch.equal(model.network.classifier.weight.grad, torch.ones_like(model.network.classifier.weight))
    assert all(torch.equal(value, statistics[name]) for name, value in model.network.named_buffers())
    assert hooks(model.network) == before == 0


def test_hooks_are_released_when_the_network_fails() -> None:
    """An error in the forward pass, an IndexError too, reaches the caller and leaves no hook behind."""

    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.layer(x)
            raise IndexError("no such place")

    from pytorch_grad_cam import GradCAM

    network = Failing().eval()
    seen = []

    def ask() -> None:
        with module._hooked(GradCAM, network, network.layer) as explainer:
            seen.append(hooks(network))
            explainer(torch.zeros(1, 1, 8, 8), None)

    with pytest.raises(IndexError, match="no such place"):
        ask()
    assert seen == [3]
    assert hooks(network) == 0


def test_it_works_inside_inference_mode() -> None:
    """A caller inside inference_mode, with a network made there, gets the same maps as any other."""
    images = pictures(2)
    expected = explain(fresh("patch_cam"), images)
    with torch.inference_mode():
        model = fresh("patch_cam")
        logits(model, images)
        found = explain(model, images)
        assert torch.is_inference_mode_enabled()
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)


def test_threads_share_a_network() -> None:
    """Eight threads that explain pictures with one network, while others predict with it, get their own answers."""
    model = fresh("deep_emotion")
    sets = [pictures(16)[2 * i : 2 * i + 2] for i in range(8)]
    emotions = [SEVEN[i % 7] for i in range(8)]
    expected = [explain(model, images, "hirescam", emotion) for images, emotion in zip(sets, emotions, strict=True)]

    def ask(i: int) -> None:
        for _ in range(5):
            found = explain(model, sets[i], "hirescam", emotions[i])
            np.testing.assert_allclose(found.maps, expected[i].maps, atol=1e-4)
            np.testing.assert_allclose(logits(model, sets[i]), expected[i].logits, atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert hooks(model.network) == 0


def test_wrong_names_are_explained(quadrants: Model) -> None:
    """An unknown CAM gives the nearest, an unknown emotion the model's own; a model is refused that is not registered

    or that computes outside of torch.
    """
    images = lit(0, 0)
    with pytest.raises(UserError, match=r"no CAM 'grad-cam'\. Did you mean 'gradcam'\?"):
        explain(quadrants, images, "grad-cam")
    for target in ("happiness", "boredom", ["fear"]):
        with pytest.raises(UserError, match=r"quadrants tells \(anger, disgust\)"):
            explain(quadrants, images, target=target)
    with pytest.raises(UserError, match="2 target emotions were given for 1 pictures"):
        explain(quadrants, images, target=["anger", "anger"])
    with pytest.raises(UserError, match="elsewhere is not a registered method"):
        explain(replace(quadrants, name="elsewhere"), images)
    with pytest.raises(UserError, match=r"quadrants has no parameters in torch.* explain the torch model of load\(\)"):
        explain(replace(quadrants, network=nn.Flatten()), images)


def test_the_titles_and_the_sentence_for_visitors() -> None:
    """Five CAMs have titles, and the sentence says both what a map is and what it is not."""
    assert list(CAMS) == ["gradcam", "gradcam++", "hirescam", "layercam", "eigencam"]
    assert len(set(CAMS.values())) == 5
    assert "does not say why" in WHAT_A_CAM_SHOWS
    assert "not a proof" in WHAT_A_CAM_SHOWS


# ---- overlays


def test_opacity_zero_is_the_bare_picture() -> None:
    """With opacity 0, or a map that is all 0, every pixel is the picture's; the size is the picture's or the given."""
    face = Image.fromarray(picture(2, 2))
    bare = np.asarray(face.convert("RGB"))
    assert np.array_equal(np.asarray(overlay(face, np.ones((4, 4)), 0)), bare)
    assert np.array_equal(np.asarray(overlay(face, np.zeros((4, 4)), 1)), bare)
    assert overlay(face, np.ones((4, 4)), 0.5, side=100).size == (100, 100)
    assert overlay(Image.new("RGB", (30, 20)), np.ones((4, 4))).size == (30, 20)


def test_an_overlay_colours_what_is_hot() -> None:
    """Only the hot half of a grey face changes, the more so the higher the opacity, and hotter is lighter."""
    face, cam = Image.new("L", (40, 40), 100), np.zeros((40, 40), np.float32)
    cam[:, 30:] = 1
    changes = []
    for opacity in (0.25, 0.5, 1):
        drawn = np.asarray(overlay(face, cam, opacity)).astype(int)
        assert np.all(drawn[:, :25] == 100)
        changes.append(np.abs(drawn[:, 35:] - 100).sum())
    assert changes[0] < changes[1] < changes[2]
    ramp = np.tile(np.linspace(0.4, 1, 40, dtype=np.float32), (40, 1))
    lightness = np.asarray(overlay(Image.new("L", (40, 40)), ramp, 1).convert("L")).mean(0)
    assert np.all(np.diff(lightness) > -0.5)
    assert lightness[-1] > lightness[0] + 50
    with pytest.raises(ValueError, match="opacity"):
        overlay(face, cam, 1.5)
