"""P4: small-scale deep CNN (Salimov & Yoo, J. KIECS 2021).

Six convolutions with 2x2 kernels, "same" padding and ReLU; 2x2 max pooling after every one but the first; three
fully connected layers of 512 and the output layer. 3,849,319 parameters with 7 classes, as the paper's 3.8M.
Not stated in the paper: initialisation (we use He's for ReLU), input normalisation (we use the training
split's mean and standard deviation), optimiser, learning rate, its schedule and batch size (we use Adam at 1e-3, which
falls along a cosine without a warm-up, and 128), kinds of augmentation (we use flip, shift and rotation). No batch norm
and no dropout are mentioned, so there are none.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fer_bench.cards import Augmentation, InputSpec, MethodCard, Recipe, Reported
from fer_bench.methods.base import register


class SamePad(nn.Module):
    """Zero padding that keeps the side under a stride-1 convolution; the odd pixel goes right and below.

    `padding="same"` gives the same numbers for even kernels but copies the input on every call.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        before = (kernel - 1) // 2
        after = kernel - 1 - before
        self.pad = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pad)


class SmallCNN(nn.Module):
    """(N, 1, size, size) -> logits (N, num_classes). `layers` 2..7 and `kernel` 2..5 span the paper's Table 3."""

    def __init__(self, num_classes: int = 7, layers: int = 6, kernel: int = 2, size: int = 48) -> None:
        super().__init__()
        if not 2 <= layers <= 7 or not 2 <= kernel <= 5:
            raise ValueError(f"layers must be 2..7 and kernel 2..5, not {layers} and {kernel}")
        blocks: list[nn.Module] = []
        channels, side = 1, size
        for index in range(layers):
            width = 32 * 2**index
            block: list[nn.Module] = [SamePad(kernel), nn.Conv2d(channels, width, kernel), nn.ReLU()]
            if index > 0 and side > 1:  # pooling is skipped once a side is 1
                block.append(nn.MaxPool2d(2))
                side //= 2
            blocks.append(nn.Sequential(*block))
            channels = width
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * side * side, 512), nn.ReLU(),
            nn.Linear(512, 512), nn.ReLU(),
            nn.Linear(512, 512), nn.ReLU(),
            nn.Linear(512, num_classes),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


CARD = MethodCard(
    name="small_cnn",
    title="Small-scale deep CNN",
    paper="Salimov & Yoo, J. KIECS 2021",
    summary="Six convolutions with tiny 2x2 kernels and three fully connected layers: 3.8M parameters.",
    input=InputSpec(size=48, channels=1, mean=(0.508,), std=(0.255,)),
    # The last block sees 3x3 positions only; the one before, ahead of its pooling, still has a map to draw (6x6).
    cam_layer="features.4.2",
    parameters=((7, 3_849_319),),
    reported=(
        Reported("fer2013", 0.6932, "Table 3, with augmentation, 500 epochs"),
        Reported("ferplus", 0.8535, "Table 5"),
    ),
    # 500 epochs and the augmentation's presence are the paper's; its kinds, optimiser, rate and schedule are ours.
    paper_recipe=Recipe(
        name="paper",
        epochs=500,
        optimizer="adam",
        lr=1e-3,
        schedule="cosine",
        augmentation=Augmentation(flip=True, rotate=10, shift=0.1),
    ),
    ours="initialisation, input normalisation, optimiser, learning rate (1e-3) and its schedule (cosine), batch size, "
    "kinds of augmentation",
)


@register(CARD)
def small_cnn(num_classes: int) -> SmallCNN:
    return SmallCNN(num_classes)
