"""Face crops -> network input, in whole batches on tensors. Training and evaluation share one geometry."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_bench.cards import Augmentation, InputSpec

DRAWS = 16
"""Random numbers that `augment` draws for each picture of a batch."""
PASSES = {"none": 1, "flip": 2, "tencrop": 10}
"""Test-time augmentations and the passes that each takes through the network for one picture."""
CROP = 11 / 12
"""Side of each of the ten crops as a share of the input's: 44 of 48 pixels."""


def to_input(images: Tensor, spec: InputSpec) -> Tensor:
    """uint8 (N, H, W) or (N, H, W, 3) -> normalised float32 (N, channels, size, size), on the images' device."""
    x = _channels_first(images, spec.channels)
    if x.shape[-2:] != (spec.size, spec.size):
        smaller = x.shape[-1] > spec.size or x.shape[-2] > spec.size
        x = F.interpolate(x, (spec.size, spec.size), mode="bilinear", align_corners=False, antialias=smaller)
    return _normalise(x, spec)


def augment(images: Tensor, spec: InputSpec, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """As `to_input`, with random changes drawn from `generator` (a CPU generator, so that devices agree).

    Flip, rotation, shift, zoom, perspective and an enlargement to the input size are one bilinear sampling; a side
    above the input size is made as small as the input, with antialiasing, before it.
    """
    a, n, device = augmentation, len(images), images.device
    x = _channels_first(images, spec.channels)
    # A bilinear sampling at fewer places than there are pixels would show training sharper, aliased pictures that
    # evaluation never sees. So these become as small as the input first, as `to_input` makes them: without any change
    # the two are then equal.
    sides = [min(side, spec.size) for side in x.shape[-2:]]
    if sides != list(x.shape[-2:]):
        x = F.interpolate(x, sides, mode="bilinear", align_corners=False, antialias=True)
    draw = torch.rand(n, DRAWS, generator=generator)
    # From pinned memory, since a copy from elsewhere waits until the device has done all that it was given.
    draw = draw.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else draw.to(device)
    between = draw * 2 - 1  # -1..1

    angle = between[:, 0] * (a.rotate * torch.pi / 180)
    zoom = 1 / (1 + between[:, 1] * a.scale)
    mirror = torch.where(draw[:, 2] < 0.5, -1.0, 1.0) if a.flip else torch.ones(n, device=device)
    cos, sin, zero = torch.cos(angle) * zoom, torch.sin(angle) * zoom, torch.zeros(n, device=device)
    top = torch.stack([cos * mirror, -sin, between[:, 3] * 2 * a.shift], 1)
    middle = torch.stack([sin * mirror, cos, between[:, 4] * 2 * a.shift], 1)
    bottom = torch.stack([between[:, 5] * a.perspective, between[:, 6] * a.perspective, zero + 1], 1)
    matrix = torch.stack([top, middle, bottom], 1)

    axis = (torch.arange(spec.size, device=device, dtype=torch.float32) * 2 + 1) / spec.size - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([u, v, torch.ones_like(u)], -1).reshape(1, -1, 3)
    mapped = points @ matrix.transpose(1, 2)
    grid = (mapped[..., :2] / mapped[..., 2:].clamp(min=0.1)).reshape(n, spec.size, spec.size, 2)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)

    if a.brightness or a.contrast:
        mean = x.mean((1, 2, 3), keepdim=True)
        gain = 1 + between[:, 7].view(-1, 1, 1, 1) * a.contrast
        x = ((x - mean) * gain + mean + between[:, 8].view(-1, 1, 1, 1) * a.brightness).clamp(0, 1)
    if a.erase:
        # A box of 10 to 45 % of each side, anywhere, filled with one random grey.
        height, width = 0.1 + 0.35 * draw[:, 9], 0.1 + 0.35 * draw[:, 10]
        y0, x0 = draw[:, 11] * (1 - height), draw[:, 12] * (1 - width)
        place = (axis + 1) / 2
        inside_y = (place >= y0[:, None]) & (place < (y0 + height)[:, None])
        inside_x = (place >= x0[:, None]) & (place < (x0 + width)[:, None])
        chosen = (draw[:, 13] < a.erase)[:, None, None]
        box = (inside_y[:, :, None] & inside_x[:, None, :] & chosen)[:, None]
        x = torch.where(box, draw[:, 14].view(-1, 1, 1, 1), x)
    return _normalise(x, spec)


def views(x: Tensor, tta: str) -> Iterator[Tensor]:
    """The views of network inputs (N, C, S, S) that a test-time augmentation answers for, each (N, C, S, S).

    tta: a key of PASSES. "flip": each input and its mirror image. "tencrop": its four corners and its middle, CROP of
    its side and enlarged to S again, and the mirror images of these (Krizhevsky et al., NeurIPS 2012, section 4.1).
    """
    if tta != "tencrop":
        yield x
        if tta == "flip":
            yield x.flip(-1)
        return
    size = x.shape[-1]
    side = round(CROP * size)
    last, middle = size - side, (size - side) // 2
    for top, left in ((0, 0), (0, last), (last, 0), (last, last), (middle, middle)):
        crop = x[..., top : top + side, left : left + side]
        whole = F.interpolate(crop, (size, size), mode="bilinear", align_corners=False)
        yield from (whole, whole.flip(-1))


def _channels_first(images: Tensor, channels: int) -> Tensor:
    """uint8 pictures -> float32 (N, channels, H, W) in [0, 1]; RGB to grey by ITU-R 601, grey to RGB by repetition."""
    if images.dtype != torch.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise TypeError(f"pictures must be uint8 (N, H, W) or (N, H, W, 3), not {images.dtype} {tuple(images.shape)}")
    x = images.to(torch.float32).div_(255)
    x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
    if x.shape[1] == 3 and channels == 1:
        x = (x * _per_channel((0.299, 0.587, 0.114), x.device)).sum(1, keepdim=True)
    elif x.shape[1] == 1 and channels == 3:
        x = x.expand(-1, 3, -1, -1)
    return x


def _normalise(x: Tensor, spec: InputSpec) -> Tensor:
    return (x - _per_channel(spec.mean, x.device)) / _per_channel(spec.std, x.device)


@functools.lru_cache(maxsize=256)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """float32 (1, C, 1, 1), copied to the device once, since each copy waits for it."""
    with torch.inference_mode(False):  # else it could not be part of a backward pass later
        return torch.tensor(values, device=device).view(1, -1, 1, 1)
