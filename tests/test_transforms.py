"""Pictures to network input, against hand computations; augmentation changes what it says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fer_bench.cards import Augmentation, InputSpec
from fer_bench.transforms import DRAWS, augment, to_input

OFF = Augmentation(flip=False)


def plain(size: int, channels: int = 1) -> InputSpec:
    """A spec that leaves pixels in 0..1."""
    return InputSpec(size, channels, (0.0,) * channels, (1.0,) * channels)


def noise(*shape: int) -> Tensor:
    """Random uint8 pictures, the same every time."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def seeded(seed: int = 0) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def only(images: Tensor, seed: int = 0, size: int | None = None, **strengths: float) -> Tensor:
    """One kind of augmentation alone, pixels in 0..1."""
    return augment(images, plain(size or images.shape[1]), Augmentation(**{"flip": False, **strengths}), seeded(seed))


def test_scaling_and_normalisation_by_hand() -> None:
    """Pixels are divided by 255, the mean is subtracted and the standard deviation divides, per channel."""
    image = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    image[0, 2, 5] = torch.tensor([0, 51, 255])
    x = to_input(image, InputSpec(8, 3, (0.5, 0.1, 0.0), (0.5, 0.2, 2.0)))
    assert x.shape == (1, 3, 8, 8)
    assert x.dtype == torch.float32
    assert x[0, :, 2, 5].tolist() == pytest.approx([-1.0, 0.5, 0.5])
    assert x[0, :, 0, 0].tolist() == pytest.approx([-1.0, -0.5, 0.0])


def test_grey_is_repeated_for_three_channels() -> None:
    """A grey picture gives each of three channels the same values, normalised by that channel's own figures."""
    x = to_input(torch.full((1, 8, 8), 102, dtype=torch.uint8), InputSpec(8, 3, (0.0, 0.2, 0.4), (1.0, 2.0, 4.0)))
    assert x[0, :, 3, 3].tolist() == pytest.approx([0.4, 0.1, 0.0])


def test_colour_becomes_grey_by_itu_601() -> None:
    """RGB becomes grey with the weights 0.299, 0.587 and 0.114."""
    image = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    image[0, ..., 0] = image[1, ..., 1] = image[2, ..., 2] = 255
    image[3] = torch.tensor([10, 20, 30])
    x = to_input(image, plain(8))
    assert x.shape == (4, 1, 8, 8)
    by_hand = [0.299, 0.587, 0.114, (0.299 * 10 + 0.587 * 20 + 0.114 * 30) / 255]
    assert x[:, 0, 4, 4].tolist() == pytest.approx(by_hand, abs=1e-6)


def test_enlarging_by_hand() -> None:
    """Twice the size interpolates at quarter steps between pixel centres and repeats the edge (half-pixel bilinear)."""
    image = noise(1, 8, 8)
    x = to_input(image, plain(16))[0, 0].numpy()
    weights = np.zeros((16, 8))
    for i in range(16):
        centre = np.clip((i + 0.5) / 2 - 0.5, 0, 7)
        left = min(int(centre), 6)
        weights[i, left], weights[i, left + 1] = 1 - (centre - left), centre - left
    np.testing.assert_allclose(x, weights @ (image[0].numpy() / 255) @ weights.T, atol=1e-6)


def test_shrinking_by_hand() -> None:
    """Half the size weighs 1/8, 3/8, 3/8, 1/8 of four neighbours (antialiased), cut and rescaled at the edge."""
    image = noise(1, 16, 16)
    x = to_input(image, plain(8))[0, 0].numpy()
    weights = np.zeros((8, 16))
    for i in range(8):
        for k, weight in zip(range(2 * i - 1, 2 * i + 3), (1, 3, 3, 1), strict=True):
            if 0 <= k < 16:
                weights[i, k] = weight
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(x, weights @ (image[0].numpy() / 255) @ weights.T, atol=1e-6)


def test_a_picture_of_the_right_size_is_not_resampled() -> None:
    """At the input's own size every pixel is exactly its value over 255."""
    image = noise(3, 8, 8)
    assert torch.equal(to_input(image, plain(8)), image.unsqueeze(1).float() / 255)


def test_the_pictures_are_left_as_they_are() -> None:
    """Neither function writes into the pictures it is given."""
    image = noise(2, 8, 8)
    before = image.clone()
    to_input(image, plain(8))
    only(image, brightness=0.5, erase=0.9, rotate=30)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 8, 8),
        torch.zeros(2, 8, 8, dtype=torch.int64),
        torch.zeros(8, 8, dtype=torch.uint8),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 8, 8, 4, dtype=torch.uint8),
    ],
)
def test_anything_but_uint8_pictures_is_refused(wrong: Tensor) -> None:
    """Floats, channels first or four channels are refused with what was given, instead of silently misread."""
    for call in (lambda: to_input(wrong, plain(8)), lambda: augment(wrong, plain(8), OFF, seeded())):
        with pytest.raises(TypeError, match=r"pictures must be uint8 \(N, H, W\) or \(N, H, W, 3\), not") as caught:
            call()
        assert str(tuple(wrong.shape)) in str(caught.value)


def test_no_pictures() -> None:
    """An empty batch gives an empty input of the right shape."""
    assert to_input(noise(0, 16, 16), plain(8)).shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    ("side", "size"), [(16, 16), (16, 24), (48, 64), (16, 17), (48, 40), (100, 64), (49, 48), (96, 48)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_without_augmentation_training_sees_what_evaluation_sees(side: int, size: int, channels: int) -> None:
    """With everything off, `augment` equals `to_input`, whether that leaves the size, enlarges or shrinks."""
    image = noise(3, side, side, 3)
    spec = InputSpec(size, channels, (0.4,) * channels, (0.3,) * channels)
    torch.testing.assert_close(augment(image, spec, OFF, seeded()), to_input(image, spec), atol=2e-5, rtol=0)


def test_flip_mirrors_or_leaves() -> None:
    """With flip alone each picture is its mirror image or itself, and of 64 some are either."""
    image = noise(64, 8, 8)
    x, same = only(image, flip=True), to_input(image, plain(8))
    mirrored = (x - same.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    kept = (x - same).abs().amax((1, 2, 3)) < 1e-5
    assert bool((mirrored ^ kept).all())
    assert mirrored.any()
    assert kept.any()


def test_the_generator_decides() -> None:
    """The same seed gives the same pictures, another one others, and the global generator is neither read nor moved."""
    image = noise(8, 16, 16)
    strong = {"flip": True, "rotate": 20, "shift": 0.2, "scale": 0.2, "perspective": 0.1, "contrast": 0.5, "erase": 0.5}
    state = torch.get_rng_state()
    first = only(image, seed=1, **strong)
    torch.rand(5)
    assert torch.equal(only(image, seed=1, **strong), first)
    assert not torch.equal(only(image, seed=2, **strong), first)
    torch.set_rng_state(state)
    only(image, seed=1, **strong)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_pictures_changes_do_not_depend_on_what_is_switched_on() -> None:
    """A strength of zero for one kind leaves the draws of the others as they were."""
    image = torch.full((8, 16, 16), 100, dtype=torch.uint8)
    alone, together = only(image, brightness=0.2), only(image, brightness=0.2, rotate=30, shift=0.2)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_shift_moves_the_whole_picture() -> None:
    """A ramp stays a ramp, offset by one number per picture that is at most `shift` of the side, along either axis."""
    ramp = torch.arange(0, 64, dtype=torch.uint8).expand(32, 64, 64)
    for image, axis in ((ramp, 3), (ramp.transpose(1, 2), 2)):
        moved = (only(image, shift=0.1) - to_input(image, plain(64)))[:, :, 8:-8, 8:-8] * 255
        offset = moved.mean((1, 2, 3))
        assert (moved - offset.view(-1, 1, 1, 1)).abs().max() < 1e-3, f"axis {axis}"
        assert offset.abs().max() < 6.4
        assert offset.min() < -3 < 3 < offset.max()


def test_rotation_turns_about_the_middle() -> None:
    """A ramp turned by at most 30 degrees keeps its middle and its steepness."""
    ramp = torch.arange(0, 64, dtype=torch.uint8).expand(32, 64, 64)
    x = only(ramp, rotate=30)[:, 0] * 255
    across = (x[:, 32, 36] - x[:, 32, 28]) / 8
    down = (x[:, 36, 32] - x[:, 28, 32]) / 8
    torch.testing.assert_close(x[:, 31:33, 31:33].mean((1, 2)), torch.full((32,), 31.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(across**2 + down**2, torch.ones(32), atol=1e-3, rtol=0)
    assert across.min() > np.cos(np.pi / 6) - 1e-3
    assert down.min() < -0.3 < 0.3 < down.max()


def test_perspective_divides_by_the_distance() -> None:
    """A ramp is read at u / (1 + p u + q v), p and q of either sign and at most `perspective`, along either axis."""
    ramp = torch.arange(0, 64, dtype=torch.uint8).expand(32, 64, 64)
    axis = (torch.arange(64) * 2 + 1) / 64 - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    p, q = ((2 * torch.rand(32, DRAWS, generator=seeded()) - 1)[:, 5:7] * 0.3).T[:, :, None, None]
    inner = slice(16, -16)
    for image, read in ((ramp, u), (ramp.transpose(1, 2), v)):
        x = only(image, perspective=0.3)[:, 0] * 255
        expected = 31.5 + 32 * read / (1 + p * u + q * v)
        torch.testing.assert_close(x[:, inner, inner], expected[:, inner, inner], atol=1e-2, rtol=0)
    assert p.min() < -0.2 < 0.2 < p.max()


def test_zoom_changes_the_steepness_alone() -> None:
    """A ramp zoomed by at most a fifth is flatter or steeper by one factor in 0.8..1.2, about the middle."""
    ramp = torch.arange(0, 64, dtype=torch.uint8).expand(32, 64, 64)
    x = only(ramp, scale=0.2)[:, 0] * 255
    zoom = 8 / (x[:, 32, 36] - x[:, 32, 28])
    expected = 31.5 + (torch.arange(64) - 31.5) / zoom.view(-1, 1, 1)
    torch.testing.assert_close(x[:, 8:-8, 8:-8], expected.expand(32, 64, 64)[:, 8:-8, 8:-8], atol=1e-2, rtol=0)
    assert 0.8 <= zoom.min() < 0.9 < 1.1 < zoom.max() <= 1.2


def test_brightness_adds_one_number() -> None:
    """Each picture is brighter or darker by one number, at most `brightness` of full range, and cut at 0 and 1."""
    image = torch.stack([torch.full((8, 8), 128), torch.full((8, 8), 255), torch.zeros(8, 8)]).to(torch.uint8)
    added = only(image.repeat(16, 1, 1), brightness=0.3) - to_input(image.repeat(16, 1, 1), plain(8))
    assert (added - added.mean((1, 2, 3), keepdim=True)).abs().max() < 1e-6
    middle, white, black = added[0::3, 0, 0, 0], added[1::3, 0, 0, 0], added[2::3, 0, 0, 0]
    assert -0.3 <= middle.min() < -0.1 < 0.1 < middle.max() <= 0.3
    assert white.max() == 0
    assert black.min() == 0


def test_contrast_keeps_the_mean() -> None:
    """Differences from the picture's mean are multiplied by one factor in 1 - contrast .. 1 + contrast."""
    image = torch.randint(100, 156, (16, 8, 8), generator=seeded(), dtype=torch.uint8)
    before, after = to_input(image, plain(8)), only(image, contrast=0.5)
    mean = before.mean((1, 2, 3), keepdim=True)
    gain = ((after - mean) * (before - mean)).sum((1, 2, 3)) / ((before - mean) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(after, (before - mean) * gain.view(-1, 1, 1, 1) + mean, atol=1e-5, rtol=0)
    assert 0.5 <= gain.min() < 0.8 < 1.2 < gain.max() <= 1.5


def test_erase_fills_one_box_with_one_grey() -> None:
    """What erase changes in a picture is one full rectangle of one value, its sides 10 to 45 % of the picture's."""
    image = torch.full((32, 40, 40), 128, dtype=torch.uint8)
    x = only(image, erase=0.99)[:, 0]
    touched = (x - 128 / 255).abs() > 1e-6
    for picture, box in zip(x[touched.any((1, 2))], touched[touched.any((1, 2))], strict=True):
        rows, columns = box.any(1).nonzero()[:, 0], box.any(0).nonzero()[:, 0]
        inside = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.unique().numel() == 1
        assert inside.numel() == box.sum()
        assert all(3 <= side <= 19 for side in inside.shape)
    assert touched.any((1, 2)).sum() > 28


def test_erase_spares_most_pictures_where_it_is_rare() -> None:
    """With a probability of a tenth, about one picture in ten of 400 loses a box."""
    image = torch.full((400, 16, 16), 128, dtype=torch.uint8)
    erased = ((only(image, erase=0.1) - 128 / 255).abs() > 1e-6).any(3).any(2).any(1).sum()
    assert 22 <= erased <= 58  # three standard deviations about 40


@pytest.mark.parametrize(("side", "size"), [(96, 48), (224, 48), (224, 64), (100, 50), (48, 40), (95, 48), (100, 64)])
def test_large_pictures_look_in_training_as_in_evaluation(side: int, size: int) -> None:
    """Above the input's side, by however little, the augmentation that changes nothing gives what `to_input` gives."""
    images = noise(2, side, side, 3)
    torch.testing.assert_close(only(images, size=size), to_input(images, plain(size)), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("side", "size"), [(48, 48), (48, 64), (40, 48), (47, 48)])
def test_smaller_pictures_are_sampled_once(side: int, size: int) -> None:
    """Up to the input's side nothing is resized before the one bilinear sampling."""
    images = noise(2, side, side)
    x = images.float().div(255)[:, None]
    axis = (torch.arange(size) * 2 + 1) / size - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).expand(2, -1, -1, -1)
    by_hand = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    assert torch.equal(only(images, size=size), by_hand)


@pytest.mark.parametrize("value", [0, 255])
def test_extreme_strengths_stay_finite(value: int) -> None:
    """At the greatest strengths that a card admits, black and white pictures stay within 0..1 and finite."""
    image = torch.full((64, 16, 16), value, dtype=torch.uint8)
    strong = {"rotate": 180, "shift": 0.99, "scale": 0.99, "perspective": 0.99}
    x = only(image, size=24, flip=True, **strong)
    torch.testing.assert_close(x, torch.full_like(x, value / 255), atol=1e-5, rtol=0)
    y = only(image, size=24, flip=True, brightness=0.99, contrast=0.99, erase=0.99, **strong)
    assert bool(y.isfinite().all())
    assert y.min() >= 0
    assert y.max() <= 1
