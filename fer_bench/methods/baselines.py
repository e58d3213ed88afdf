"""The networks that the papers' tables compare with, from torchvision, trained from scratch here.

`resnet18` has a small-image stem (3x3, stride 1, no max pooling); `vgg13` (FER+ paper) and `vgg16` are torchvision's
batch-normalised ones with their 4096-wide heads; `alexnet`; `senet50`, ResNet-50 with a squeeze-and-excitation gate in
every block (reduction 16) and the small-image stem. All read one grey channel.
Not stated in the papers that quote them: their inputs; we use 48x48 for the ResNets (FER2013's own size), 64x64 for the
VGGs (as the FER+ paper) and 112x112 for AlexNet, whose stride-4 stem would leave a 3x3 map at 64. Batch norm in the
VGGs is ours too: it adds less than .01 % of the parameters and lets them train from scratch under the common recipe.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import TYPE_CHECKING

from torch import nn

from fer_bench.cards import InputSpec, MethodCard, Reported, Why
from fer_bench.methods.base import register

if TYPE_CHECKING:
    from torchvision.models import ResNet


def _torchvision() -> ModuleType:
    """Imported when one of these networks is built: it takes longer than torch, and all else does without it."""
    from fer_bench.torchvision_repair import torchvision

    return torchvision


@functools.cache
def _se_bottleneck() -> type[nn.Module]:
    torchvision = _torchvision()

    class SEBottleneck(torchvision.models.resnet.Bottleneck):
        """ResNet-50's block (N, C, H, W) -> (N, 4 planes, H', W') with a squeeze-and-excitation gate before the sum."""

        def __init__(self, inplanes: int, planes: int, *args, **kwargs) -> None:
            super().__init__(inplanes, planes, *args, **kwargs)
            width = planes * self.expansion
            self.bn3 = nn.Sequential(self.bn3, torchvision.ops.SqueezeExcitation(width, width // 16))

    return SEBottleneck


def _small_stem(network: ResNet) -> ResNet:
    """For small grey pictures: a 3x3 stem of stride 1 and no max pooling, so that 48x48 ends at 6x6."""
    network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


def _grey(network: nn.Module) -> nn.Module:
    """Give a torchvision VGG or AlexNet a first convolution that reads one channel."""
    first = network.features[0]
    network.features[0] = nn.Conv2d(1, first.out_channels, first.kernel_size, first.stride, first.padding)
    nn.init.kaiming_normal_(network.features[0].weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(network.features[0].bias)
    return network


def _card(
    name: str, title: str, paper: str, summary: str, size: int, cam_layer: str, seven: int, *reported: Reported,
    shipped: bool = False,
) -> MethodCard:  # fmt: skip
    return MethodCard(
        name=name,
        title=title,
        paper=paper,
        summary=summary,
        input=InputSpec(size=size, channels=1, mean=(0.508,), std=(0.255,)),
        cam_layer=cam_layer,
        parameters=((7, seven),),
        reported=reported,
        licence="BSD-3-Clause (torchvision's network)",
        ours="input size and normalisation, trained from scratch",
        shipped=shipped,
    )


RESNET18 = _card(
    "resnet18", "ResNet-18", "He, Zhang, Ren & Sun, CVPR 2016",
    "The usual strong baseline: ResNet-18 with a stem for small pictures.", 48, "layer4", 11_171_271,
    Reported(
        "ferplus", 0.8855, "Salimov & Yoo 2021, Table 5: RAN-ResNet18, which adds region attention",
        why=(Why("the paper's figure is of a network that adds region attention."),),
    ),
    shipped=True,
)  # fmt: skip
VGG13 = _card(
    "vgg13", "VGG-13", "Simonyan & Zisserman, ICLR 2015; used for FER by the FER+ paper",
    "Ten 3x3 convolutions and a wide head, with batch norm.", 64, "features.33", 128_984_263,
    Reported("ferplus", 0.851, "Salimov & Yoo 2021, Table 5"),
)  # fmt: skip
VGG16 = _card(
    "vgg16", "VGG-16", "Simonyan & Zisserman, ICLR 2015",
    "Thirteen 3x3 convolutions and a wide head, with batch norm.", 64, "features.42", 134_296_519,
    Reported("fer2013", 0.7211, "Salimov & Yoo 2021, Table 4: VGG-face, fine-tuned from face recognition"),
    Reported("ferplus", 0.8479, "Salimov & Yoo 2021, Table 5: VGG-face, fine-tuned from face recognition"),
    Reported("ferplus", 0.8916, "Salimov & Yoo 2021, Table 5: RAN-VGG16, which adds region attention"),
    Reported("fer2013-6", 0.494, "arXiv 2402.15662, test: PublicTest and PrivateTest merged"),
    Reported("fer2013-6-merged", 0.494, "arXiv 2402.15662, test: PublicTest and PrivateTest merged"),
    Reported(
        "rafdb", 0.833, "arXiv 2402.15662, test, 6 classes without neutral",
        why=(Why("the paper's figure is of six classes, without neutral."),),
    ),
)  # fmt: skip
ALEXNET = _card(
    "alexnet", "AlexNet", "Krizhevsky, Sutskever & Hinton, NIPS 2012",
    "Five convolutions with a coarse stem and a wide head.", 112, "features.11", 57_017_031,
)  # fmt: skip
SENET50 = _card(
    "senet50", "SENet-50", "Hu, Shen & Sun, CVPR 2018",
    "ResNet-50 whose blocks rescale their channels.", 48, "layer4", 26_044_535,
    Reported("ferplus", 0.888, "Salimov & Yoo 2021, Table 5"),
    shipped=True,
)  # fmt: skip


@register(RESNET18)
def resnet18(num_classes: int) -> ResNet:
    return _small_stem(_torchvision().models.resnet18(num_classes=num_classes))


@register(VGG13)
def vgg13(num_classes: int) -> nn.Module:
    return _grey(_torchvision().models.vgg13_bn(num_classes=num_classes))


@register(VGG16)
def vgg16(num_classes: int) -> nn.Module:
    return _grey(_torchvision().models.vgg16_bn(num_classes=num_classes))


@register(ALEXNET)
def alexnet(num_classes: int) -> nn.Module:
    return _grey(_torchvision().models.alexnet(num_classes=num_classes))


@register(SENET50)
def senet50(num_classes: int) -> ResNet:
    resnet = _torchvision().models.ResNet
    return _small_stem(resnet(_se_bottleneck(), [3, 4, 6, 3], num_classes=num_classes))
