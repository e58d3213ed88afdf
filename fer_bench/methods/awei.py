"""P1: Awei (Liu, 2023).

`awei_plain`: five 3x3 convolutions (32..512), each followed by 2x2 max pooling, then 1792 hidden units. `awei_residual`
adds a skip: a 3x3 convolution with 512 filters on the input, 32x32 max pooling, summed with the fifth layer's output.
`awei` adds the pool5 output of a VGG16 guide to that sum, which is normalised and classified; the guide is held fixed.

Not stated in the paper; we use: ReLU after every convolution and after the hidden layer, He initialisation, no change
of the guide's scale ahead of the sum, division by the Euclidean norm for "normalised", Adam at 1e-4. The guide sees
ImageNet's normalisation, which is applied inside. `guide_side` 112 runs the guide on halved pictures, where its last
convolutions are 7x7 already and pool5 is left out: a quarter of the work, for faces that were small to begin with.

There are two guides, and `trained.stages` of a result says which one it has:
- fine-tuned, under `common-v1` alone: for a quarter of the epochs (15 of 60, stage "guide") the guide is trained on the
  training split through a linear layer on its pooled features, which is no part of the method, at a tenth of the
  recipe's rate; then it is frozen, and stage "main" has the other 45, fewer than the 60 of `awei_residual`;
- ImageNet's, under every other recipe, the paper's among them: there is no stage "guide", and "main" has all epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_bench import pretrained
from fer_bench.cards import InputSpec, MethodCard, Recipe, Reported
from fer_bench.methods.base import Batches, Criterion, Stage, register
from fer_bench.weights import seeded_uniform

CHANNELS, SIDE, HIDDEN = 512, 7, 1792
FC1_SEED = 1792
FC1_BOUND = (6 / (CHANNELS * SIDE * SIDE)) ** 0.5  # He's, for ReLU


class ConvMaxPool(nn.Conv2d):
    """A 3x3 "same" convolution, ReLU and max pooling over cells of `cell` pixels, without keeping the full map.

    (N, C, S, S) -> (N, filters, S/cell, S/cell). The map of Awei's skip has 26 million values per picture. It is
    computed one row of cells at a time to find where each maximum stands; only there is the convolution differentiated,
    which gives the gradient of the full map, since a maximum passes it to no other place.
    """

    def __init__(self, channels: int, filters: int, cell: int) -> None:
        super().__init__(channels, filters, 3, padding=1)
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        cell, side = self.cell, x.shape[-1]
        padded = F.pad(x, (1, 1, 1, 1))
        if not torch.is_grad_enabled():
            # On a CPU picture by picture, so that the maps of a band of cells stay near the processor's cache.
            alone = x.device.type == "cpu" and not torch.jit.is_tracing()  # a trace would fix the number of pictures
            parts = padded.split(1) if alone else (padded,)
            return F.relu(torch.cat([self._pooled(part) for part in parts]))
        with torch.no_grad():
            found = []
            for top in range(0, side, cell):
                # detach: autocast would else remember the half-precision copy made here, which has no gradient.
                band = F.conv2d(padded[:, :, top : top + cell + 2], self.weight.detach(), self.bias.detach())
                values, places = F.max_pool2d(band, cell, return_indices=True)
                found.append((values, places // side * (side + 2) + places % side + top * (side + 2)))
            pooled = torch.cat([values for values, _ in found], 2)
            corner = torch.cat([places for _, places in found], 2).flatten(1)  # upper left of each winning 3x3 window
        steps = torch.arange(3, device=x.device)
        window = (steps[:, None] * (side + 2) + steps).flatten()
        index = (corner[:, :, None] + window).flatten(1)
        taps = padded.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1))
        taps = taps.view(len(x), x.shape[1], self.out_channels, -1, 9)
        kernel = self.weight.flatten(2)
        pooled = torch.einsum("ncokt,oct->nok", taps, kernel).view_as(pooled) + self.bias[:, None, None]
        return F.relu(pooled)  # ReLU and maximum may be swapped

    def _pooled(self, padded: Tensor) -> Tensor:
        """Padded pictures -> the maximum in each cell, without where it stands: there is no gradient to pass on."""
        bands = (padded[:, :, top : top + self.cell + 2] for top in range(0, padded.shape[-1] - 2, self.cell))
        return torch.cat([F.max_pool2d(F.conv2d(band, self.weight, self.bias), self.cell) for band in bands], 2)


class Awei(nn.Module):
    """(N, 3, 224, 224) in [0, 1] -> logits (N, num_classes). `residual`: the skip; `guide`: a VGG16 beside it."""

    def __init__(self, num_classes: int = 7, residual: bool = True, guide: bool = False, guide_side: int = 224) -> None:
        super().__init__()
        if guide_side not in (112, 224):
            raise ValueError(f"guide_side must be 112 or 224, not {guide_side}")
        self.guide_side = guide_side
        widths = (3, 32, 64, 128, 256, CHANNELS)
        self.features = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()) for a, b in pairwise(widths))
        )
        self.skip = ConvMaxPool(3, CHANNELS, 32) if residual else None
        self.merge = nn.Identity()  # its output is all that is classified, so this is where a CAM is drawn
        self.guide: nn.Sequential | None = None
        if guide:
            from fer_bench.torchvision_repair import torchvision  # here, since it takes seconds

            vgg = torchvision.models.vgg
            self.guide = vgg.make_layers(vgg.cfgs["D"])
            self.guide_head = nn.Linear(CHANNELS, num_classes).requires_grad_(False)
            self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
            self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
            self.register_buffer("guiding", torch.zeros((), dtype=torch.uint8))
        self.fc1 = nn.utils.skip_init(nn.Linear, CHANNELS * SIDE * SIDE, HIDDEN)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(HIDDEN, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        self.seeded_tensors: dict[str, tuple[int, float]] = {"fc1.weight": (FC1_SEED, FC1_BOUND)}
        """state_dict key -> (seed, bound) of its `seeded_uniform` start: a checkpoint stores the update from there."""
        with torch.no_grad():
            self.fc1.weight.copy_(seeded_uniform(tuple(self.fc1.weight.shape), FC1_SEED, FC1_BOUND))
            self.fc1.bias.zero_()
        if self.guide is not None:
            self.guide.requires_grad_(False)
        self.is_guiding = False  # a copy of `guiding` on the host: reading the buffer would wait for the device
        self.register_load_state_dict_post_hook(Awei._loaded)

    def _loaded(self, _keys: object) -> None:
        self.is_guiding = self.guide is not None and bool(self.guiding)

    def guide_only(self, on: bool) -> None:
        """Whether `forward` gives the logits of the guide's own linear layer (while it is fine-tuned) or Awei's."""
        self.guiding.fill_(int(on))
        self.is_guiding = on

    def guide_maps(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, 224, 224) in [0, 1] -> the guide's maps (N, 512, 7, 7)."""
        x = (x - self.mean) / self.std
        if self.guide_side == 224:
            return self.guide(x)
        return self.guide[:-1](F.avg_pool2d(x, 2))

    def forward(self, x: Tensor, guide_maps: Tensor | None = None) -> Tensor:
        """guide_maps: what `guide_maps(x)` gave, where it was computed before (once per picture is enough)."""
        if self.is_guiding:
            return self.guide_head(self.guide_maps(x).mean((2, 3)))
        maps = self.features(x)
        if self.skip is not None:
            maps = maps + self.skip(x)
        if self.guide is not None:
            if guide_maps is None:
                with torch.no_grad():
                    guide_maps = self.guide_maps(x)
            maps = maps + guide_maps
        flat = self.merge(maps).flatten(1)
        if self.guide is not None:
            flat = F.normalize(flat)
        return self.fc2(self.dropout(F.relu(self.fc1(flat))))


def load_guide(network: Awei) -> str:
    """Put ImageNet's VGG16 into the guide; returns where it came from. Raises UserError where it cannot be had."""
    state, source = pretrained.vgg16_features()
    network.guide.load_state_dict(state, strict=True)
    return source


def _guide_parameters(network: Awei) -> Iterator[nn.Parameter]:
    yield from network.guide.parameters()
    yield from network.guide_head.parameters()


def _main_parameters(network: Awei) -> Iterator[nn.Parameter]:
    for part in (network.features, network.skip, network.fc1, network.fc2):
        yield from part.parameters()


def _start_guide(network: Awei, _batches: Batches) -> None:
    network.guide_only(True)


def _start_main(network: Awei, _batches: Batches) -> None:
    network.guide_only(False)


def guide_loss(network: Awei, inputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
    """The criterion over the logits of the guide's own linear layer."""
    return criterion(network.guide_head(network.guide_maps(inputs).mean((2, 3))), targets)


def _card(
    name: str,
    title: str,
    summary: str,
    seven: int,
    *reported: Reported,
    ours: str = "",
    note: str = "",
    licence: str = "MIT (this implementation)",
) -> MethodCard:
    return MethodCard(
        name=name,
        title=title,
        paper="Liu, Awei, 2023",
        summary=summary,
        input=InputSpec(size=224, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3),
        cam_layer="merge",
        parameters=((7, seven),),
        reported=reported,
        # Batch and epochs are the paper's; the optimiser and its rate are ours.
        paper_recipe=Recipe(name="paper", epochs=20, batch_size=8, optimizer="adam", lr=1e-4, schedule="constant"),
        ours="optimiser, learning rate (1e-4), activations, initialisation; no decay of the 45M weights ahead of the "
        "hidden layer, which are stored as a rank-64 update of a seeded start" + ours,
        note=note,
        licence=licence,
    )


PLAIN = _card(
    "awei_plain", "Awei, plain", "Five convolutions with max pooling and one wide hidden layer on 224x224 colour.",
    46_540_615,
)  # fmt: skip
RESIDUAL = _card(
    "awei_residual", "Awei, residual", "The plain network with one skip from the input to its last maps.", 46_554_951
)
AWEI = _card(
    "awei", "Awei", "The residual network guided by a frozen VGG16, whose last maps are added to its own.", 46_554_951,
    Reported("rafdb", 0.70, "validation settles at or above .70"),
    ours="; fine-tuning of the guide before it is frozen",
    note="awei's guide, ImageNet's VGG16, is fine-tuned for the first quarter of common-v1's epochs, then held "
    "fixed; its 14.7M weights are not among the parameters.",
    licence="MIT (this implementation); its guide is torchvision's VGG16 (BSD-3-Clause)",
)  # fmt: skip


@register(PLAIN)
def awei_plain(num_classes: int) -> Awei:
    return Awei(num_classes, residual=False)


@register(RESIDUAL)
def awei_residual(num_classes: int) -> Awei:
    return Awei(num_classes)


@register(
    AWEI,
    stages=(
        Stage(
            "guide",
            0.25,
            rate=0.1,
            recipes=("common-v1",),
            loss=guide_loss,
            parameters=_guide_parameters,
            prepare=_start_guide,
        ),
        Stage("main", 0.75, parameters=_main_parameters, prepare=_start_main),
    ),
    pretrained=load_guide,
)
def awei(num_classes: int) -> Awei:
    return Awei(num_classes, guide=True)
