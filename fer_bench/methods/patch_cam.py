"""P0: patch features with Grad-CAM tokens (Haider, Kim, Lee, Kim, Chonnam).

A face of 40x40 becomes four patches of 20x20, each one vector (a 20x20 convolution of stride 20), reduced by PCA. A CNN
trained with a triplet loss gives deep features and, by Grad-CAM, one weight ("token") per patch; the weighted patch
vectors pass through a CNN block and, with the deep features, give the class.

Not stated in the paper; we use, with one epoch of each stage at least, so that one epoch asked for makes two:
- CNN: a small ResNet (stem 32; two blocks of 64 at 20x20, two of 128 and one of 256 at 10x10), global average pooling,
  one linear layer. So Grad-CAM has a closed form: the class's linear weights over the feature maps, then ReLU.
- stage "cnn" (.7 of the epochs): cross-entropy + .5 x batch-hard triplet loss (squared distances of the normalised deep
  features, margin .2) + .5 x cross-entropy of a linear layer on the patch vectors, which trains the patch convolution
  (256 channels, ReLU) and serves nothing else;
- stage "fusion" (.3): all of that frozen; PCA of rank 64, one for all four patches, fitted on the training split;
  tokens of the class that the CNN predicts, scaled to mean 1; the block is a 1x1 and a 2x2 convolution with 128
  channels. The fused classifier starts as the CNN's own, with zeros for the patches.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_bench.cards import InputSpec, MethodCard, Recipe, Reported, Why
from fer_bench.methods.base import Batches, Criterion, Stage, register

MARGIN = 0.2
TRIPLET_WEIGHT = 0.5
PATCH_WEIGHT = 0.5


class Block(nn.Module):
    """ResNet's basic block, (N, channels, S, S) -> (N, width, S/stride, S/stride)."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut = nn.Identity()
        if channels != width or stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class PatchCam(nn.Module):
    """(N, 1, 40, 40) -> logits (N, num_classes): the CNN's until `fuse` has been called, the fused ones from then on.

    `tokens` and `pca` switch the weighting and the reduction of the patch vectors off, for an ablation.
    """

    WIDTH = 256

    def __init__(
        self, num_classes: int = 7, patch_width: int = 256, rank: int = 64, tokens: bool = True, pca: bool = True
    ) -> None:
        super().__init__()
        if pca and rank > patch_width:
            raise ValueError(f"a PCA of rank {rank} needs patch vectors at least as long, not of {patch_width}")
        self.use_tokens, self.use_pca = tokens, pca
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            Block(32, 64, stride=2), Block(64, 64),
            Block(64, 128, stride=2), Block(128, 128),
            Block(128, self.WIDTH),
        )  # fmt: skip
        self.head = nn.Linear(self.WIDTH, num_classes)
        self.patches = nn.Sequential(nn.Conv2d(1, patch_width, 20, stride=20), nn.ReLU())
        self.patch_head = nn.Linear(4 * patch_width, num_classes)
        self.fusion = nn.Sequential(
            nn.Conv2d(rank if pca else patch_width, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
            nn.Conv2d(128, 128, 2), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        )  # fmt: skip
        self.classifier = nn.Linear(self.WIDTH + 128, num_classes)
        self.register_buffer("pca_mean", torch.zeros(patch_width))
        self.register_buffer("pca_components", torch.eye(rank, patch_width))
        self.register_buffer("fused", torch.zeros((), dtype=torch.uint8))
        # A copy on the host: reading the buffer would make every forward wait for the device.
        self.is_fused = False
        self.register_load_state_dict_post_hook(PatchCam._loaded)

    def _loaded(self, _keys: object) -> None:
        self.is_fused = bool(self.fused)
        self.train(self.training)

    def train(self, mode: bool = True) -> PatchCam:
        """As usual, but once fused the frozen CNN stays in eval mode, so that its batch norms do not drift."""
        super().train(mode)
        if self.is_fused:
            self.features.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        frozen = self.is_fused and self.training
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            maps = self.features(x)
            deep = maps.mean((2, 3))
            logits = self.head(deep)
        if not self.is_fused:
            return logits
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            vectors = self.reduced(self.patches(x))
        if self.use_tokens:
            vectors = vectors * self.tokens(maps.detach(), logits.argmax(1))[:, None]
        return self.classifier(torch.cat([deep, self.fusion(vectors)], 1))

    def closed_form_cam(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """Grad-CAM of the CNN, (N, 10, 10), not negative, without a backward pass.

        target: (N,) class of each picture; None takes the class that the CNN predicts. Grad-CAM weighs a feature map by
        the mean gradient of the class's logit: here the linear weight / 100, and the factor goes in any normalisation.
        """
        maps = self.features(x)
        if target is None:
            target = self.head(maps.mean((2, 3))).argmax(1)
        return self._cam(maps, target)

    def _cam(self, maps: Tensor, target: Tensor) -> Tensor:
        return F.relu(torch.einsum("nc,nchw->nhw", self.head.weight[target].to(maps.dtype), maps))

    def tokens(self, maps: Tensor, target: Tensor) -> Tensor:
        """Feature maps (N, 256, 10, 10), classes (N,) -> one weight per patch (N, 2, 2), not negative, of mean 1."""
        quarters = F.adaptive_avg_pool2d(self._cam(maps, target)[:, None].float(), 2)[:, 0].detach()
        mean = quarters.mean((1, 2), keepdim=True)
        return torch.where(mean > 1e-6, quarters / mean.clamp(min=1e-6), 1.0)

    def reduced(self, vectors: Tensor) -> Tensor:
        """Patch vectors (N, patch_width, 2, 2) -> their principal components (N, rank, 2, 2)."""
        if not self.use_pca:
            return vectors
        return F.conv2d(vectors - self.pca_mean[:, None, None], self.pca_components[:, :, None, None])

    def unfuse(self, _batches: Batches) -> None:
        """Back to the CNN alone, as stage "cnn" trains it; weights to start from may be of a finished network."""
        self.fused.zero_()
        self.is_fused = False
        self.train(self.training)

    @torch.no_grad()
    def fuse(self, batches: Batches) -> None:
        """Fit the PCA on the patches of `batches` (the training split), start the fused classifier, switch to it."""
        width = len(self.pca_mean)
        count, total, outer = 0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        for inputs, _ in batches():
            rows = self.patches(inputs).permute(0, 2, 3, 1).reshape(-1, width).cpu().double()
            count, total, outer = count + len(rows), total + rows.sum(0), outer + rows.T @ rows
        mean = total / count
        _, vectors = torch.linalg.eigh(outer / count - torch.outer(mean, mean))
        components = vectors.flip(1).T[: len(self.pca_components)]  # largest variance first
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        self.pca_components.copy_(components * largest.sign())  # an eigenvector's sign is arbitrary
        self.pca_mean.copy_(mean)
        self.classifier.weight.zero_()
        self.classifier.weight[:, : self.WIDTH] = self.head.weight
        self.classifier.bias.copy_(self.head.bias)
        self.fused.fill_(1)
        self.is_fused = True
        self.train(self.training)


def batch_hard_triplet(embedding: Tensor, targets: Tensor, margin: float = MARGIN) -> Tensor:
    """Mean over anchors of max(0, farthest positive - nearest negative + margin), squared distances on the unit sphere.

    embedding: (N, D); targets: (N,). Anchors without a positive or a negative in the batch do not count; 0 if none do.
    """
    with torch.autocast(device_type=embedding.device.type, enabled=False):
        unit = F.normalize(embedding.float())
        distance = 2 - 2 * unit @ unit.T
        same = targets[:, None] == targets[None]
        other = ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
        positive = distance.masked_fill(~(same & other), -1.0).amax(1)
        negative = distance.masked_fill(same, 5.0).amin(1)
        valid = (same & other).any(1) & (~same).any(1)
        return (F.relu(positive - negative + margin) * valid).sum() / valid.sum().clamp(min=1)


def cnn_loss(network: PatchCam, inputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
    """The loss of stage "cnn", see the module's docstring."""
    deep = network.features(inputs).mean((2, 3))
    patches = network.patch_head(network.patches(inputs).flatten(1))
    return (
        criterion(network.head(deep), targets)
        + PATCH_WEIGHT * criterion(patches, targets)
        + TRIPLET_WEIGHT * batch_hard_triplet(deep, targets)
    )


def _cnn_parameters(network: PatchCam) -> Iterator[nn.Parameter]:
    for part in (network.features, network.head, network.patches, network.patch_head):
        yield from part.parameters()


def _fusion_parameters(network: PatchCam) -> Iterator[nn.Parameter]:
    yield from network.fusion.parameters()
    yield from network.classifier.parameters()


CARD = MethodCard(
    name="patch_cam",
    title="Patch features with Grad-CAM tokens",
    paper="Haider, Kim, Lee & Kim, Chonnam National University",
    summary="Four patches of the face, each weighted by where a CNN looks (Grad-CAM), join the CNN's deep features.",
    input=InputSpec(size=40, channels=1, mean=(0.508,), std=(0.255,)),
    cam_layer="features",
    parameters=((7, 1_765_109),),
    reported=(
        Reported("mmi-random", 0.9606, "validation, random 70/30 split of frames: one video's frames on both sides"),
        Reported(
            "mmi",
            0.9606,
            "validation, random 70/30 split of frames: one video's frames on both sides",
            why=(Why("the paper's split has frames of one video on both sides, which mmi-random repeats."),),
        ),
    ),
    paper_recipe=Recipe(name="paper", epochs=250, batch_size=256, optimizer="sgd", lr=0.01, schedule="constant"),
    ours="sizes of all layers, PCA rank, margin and weights of the losses, training in two stages, fusion",
)


@register(
    CARD,
    stages=(
        Stage("cnn", 0.7, loss=cnn_loss, parameters=_cnn_parameters, prepare=PatchCam.unfuse),
        Stage("fusion", 0.3, parameters=_fusion_parameters, prepare=PatchCam.fuse),
    ),
)
def patch_cam(num_classes: int) -> PatchCam:
    return PatchCam(num_classes)
