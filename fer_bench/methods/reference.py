"""The project's own reference networks: what a practitioner would choose at three sizes. There is no paper.

`reference_tiny` (under 60,000 parameters) is made of inverted residuals (MobileNetV2, Sandler et al., CVPR 2018, with
expansion 2), whose stem halves the side at once. `reference_small` (under 5M) and `reference_large` (under 25M) are
residual networks of dense 3x3 convolutions with squeeze-and-excitation (Hu et al., CVPR 2018) on every block, and start
at the full 48 pixels. All end in global average pooling and one linear layer, and train from FER2013's training split
alone. Tried for three epochs, one seed each, inverted residuals reached 51.8 % on validation and dense residual blocks
of the same size 49.1 %, at half the time an epoch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_bench.cards import InputSpec, MethodCard
from fer_bench.methods.base import register


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size ("same", apart from its stride), and batch norm in place of its bias."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """x + project(depthwise(expand(x))) over `channels`, linear at its end as in the paper."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        wide = channels * expansion
        self.change = nn.Sequential(
            *conv_norm(channels, wide, 1), nn.ReLU(inplace=True),
            *conv_norm(wide, wide, 3, groups=wide), nn.ReLU(inplace=True),
            *conv_norm(wide, channels, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


class Excitation(nn.Module):
    """Each channel weighed by what all of them say of the whole picture; a reduction of 16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, channels // 16), nn.Linear(channels // 16, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * weights[:, :, None, None]


class Residual(nn.Module):
    """relu(x + two 3x3 convolutions and an excitation) over `channels`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            *conv_norm(channels, channels, 3), nn.ReLU(inplace=True), *conv_norm(channels, channels, 3),
            Excitation(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.change(x))


class Reference(nn.Module):
    """(N, 1, 48, 48) -> logits (N, num_classes).

    widths, depths: channels of each stage and how many blocks it has; a stage starts by halving the side, the first
    one only with `stem_stride` 2. separable: the halving is a depthwise and a 1x1 convolution instead of a dense one.
    """

    def __init__(
        self,
        num_classes: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        block: Callable[[int], nn.Module],
        stem_stride: int = 1,
        separable: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers = [*conv_norm(1, widths[0], 3, stem_stride), nn.ReLU(inplace=True)]
        for before, width, depth in zip((0, *widths), widths, depths, strict=False):
            if before and separable:
                layers += [nn.Conv2d(before, before, 3, 2, 1, groups=before, bias=False)]
                layers += [*conv_norm(before, width, 1), nn.ReLU(inplace=True)]
            elif before:
                layers += [*conv_norm(before, width, 3, 2), nn.ReLU(inplace=True)]
            layers += [block(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.features(x).mean((2, 3))))


def _card(name: str, title: str, summary: str, seven: int, recipe: str, shipped: bool = True) -> MethodCard:
    return MethodCard(
        name=name,
        title=title,
        paper="fer_bench, no paper: this project's own",
        summary=summary,
        input=InputSpec(size=48, channels=1, mean=(0.5,), std=(0.25,)),
        cam_layer="features",
        recipe=recipe,
        parameters=((7, seven),),
        ours="everything",
        shipped=shipped,
    )


TINY = _card(
    "reference_tiny", "Reference, tiny",
    "Inverted residuals, under 60,000 parameters: for a browser, a phone or a microcontroller.", 57_979, "light-v1",
)  # fmt: skip
SMALL = _card(
    "reference_small", "Reference, small",
    "A residual network with squeeze-and-excitation, under 5 million parameters: for one CPU core.", 3_512_735,
    "common-v1",
)  # fmt: skip
LARGE = _card(
    "reference_large", "Reference, large",
    "The same, wider and at full resolution, under 25 million parameters: for the last points of accuracy.", 17_331_453,
    "strong-v1",
)  # fmt: skip


@register(TINY)
def reference_tiny(num_classes: int) -> Reference:
    return Reference(num_classes, (24, 40, 60), (2, 2, 2), InvertedResidual, stem_stride=2, separable=True)


@register(SMALL)
def reference_small(num_classes: int) -> Reference:
    return Reference(num_classes, (32, 64, 128, 256), (0, 2, 2, 2), Residual, dropout=0.3)


@register(LARGE)
def reference_large(num_classes: int) -> Reference:
    return Reference(num_classes, (96, 192, 384, 640), (1, 2, 2, 1), Residual, dropout=0.4)
