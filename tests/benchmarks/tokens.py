"""P0's finding on one trained CNN: `python tests/benchmarks/tokens.py` (needs fer2013).

patch_cam's stage "fusion" trains with the tokens and the PCA each on and off, under three seeds, all on the same frozen
CNN (the shipped weights'), and is judged on the validation split. What the CNN makes of the training split under
common-v1's augmentation is computed --passes times and used over and over, so that twelve trainings take minutes where
`leaderboard/sweeps/p0-tokens-pca.yaml`, which trains a CNN for every cell, takes hours.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

import fer_bench
from fer_bench.datasets import FaceSet, forbid_split, load_dataset
from fer_bench.methods.patch_cam import PatchCam
from fer_bench.optimizers import optimizer_for, rate
from fer_bench.protocols.recipes import COMMON_V1
from fer_bench.statistics import paired_difference
from fer_bench.transforms import augment, to_input

SEEDS = (0, 1, 2)
Features = tuple[Tensor, Tensor, Tensor]
"""Of N pictures: deep features (N, 256), patch vectors (N, 256, 2, 2) and tokens (N, 2, 2)."""


@torch.inference_mode()
def features(network: PatchCam, batches: Iterator[Tensor]) -> Features:
    """What the CNN and the patch convolution make of every picture."""
    parts = []
    for inputs in batches:
        maps = network.features(inputs.contiguous(memory_format=torch.channels_last))
        deep = maps.mean((2, 3))
        parts.append((deep, network.patches(inputs), network.tokens(maps, network.head(deep).argmax(1))))
    deep, vectors, tokens = (torch.cat(part).contiguous() for part in zip(*parts, strict=True))
    return deep, vectors, tokens


def scores(network: PatchCam, found: Features) -> Tensor:
    """`PatchCam.forward` of a fused network, from its features on."""
    deep, vectors, tokens = found
    vectors = network.reduced(vectors)
    if network.use_tokens:
        vectors = vectors * tokens[:, None]
    return network.classifier(torch.cat([deep, network.fusion(vectors)], 1))


def fused(cnn: PatchCam, first: Features, tokens: bool, pca: bool) -> PatchCam:
    """A fresh network with the CNN's weights, fused on plain features of the training split."""
    network = PatchCam(7, tokens=tokens, pca=pca)
    for part in ("features", "head", "patches"):
        getattr(network, part).load_state_dict(getattr(cnn, part).state_dict())
    patches = network.patches
    network.patches = nn.Identity()  # `fuse` is given the vectors themselves
    network.fuse(lambda: iter([(first[1], torch.empty(0))]))
    network.patches = patches
    return network


def trained(network: PatchCam, passes: list[Features], labels: Tensor, epochs: int, seed: int) -> PatchCam:
    """Stage "fusion" of common-v1."""
    parameters = [*network.fusion.parameters(), *network.classifier.parameters()]
    optimizer = optimizer_for(COMMON_V1, network, parameters)
    criterion = nn.CrossEntropyLoss(label_smoothing=COMMON_V1.label_smoothing)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for epoch in range(epochs):
        batches = torch.randperm(len(labels), generator=generator).split(COMMON_V1.batch_size)
        deep, vectors, tokens = passes[epoch % len(passes)]
        for step, rows in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = COMMON_V1.lr * rate(COMMON_V1, epoch * len(batches) + step, epochs * len(batches))
            loss = criterion(scores(network, (deep[rows], vectors[rows], tokens[rows])), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, COMMON_V1.clip)
            optimizer.step()
    return network.eval()


def plain(data: FaceSet, network: fer_bench.Model) -> Iterator[Tensor]:
    for images in torch.from_numpy(data.images).split(256):
        yield to_input(images, network.input_spec)


def changed(data: FaceSet, network: fer_bench.Model, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for images in torch.from_numpy(data.images).split(256):
        yield augment(images, network.input_spec, COMMON_V1.augmentation, generator)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=3, metavar="N", help="augmented passes over train (default 3)")
    parser.add_argument("--epochs", type=int, default=18, metavar="N", help="of the fusion (default 18, common-v1's)")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N training pictures")
    given = parser.parse_args()
    model = fer_bench.load("patch_cam", track="fer2013")
    cnn = model.network
    with forbid_split("test"):
        train = load_dataset("fer2013", "train").restrict(model.emotions).limit(given.limit)
        validation = load_dataset("fer2013", "validation").restrict(model.emotions)
    labels, targets = torch.from_numpy(train.labels), validation.labels
    first = features(cnn, plain(train, model))
    passes = []
    for number in range(given.passes):
        passes.append(features(cnn, changed(train, model, number)))
        print(f"pass {number + 1} of {given.passes}", file=sys.stderr)
    judged = features(cnn, plain(validation, model))
    with torch.inference_mode():
        alone = cnn.head(judged[0]).numpy()
    rows: dict[str, list[np.ndarray]] = {}
    for tokens in (True, False):
        for pca in (True, False):
            name = f"tokens {'on' if tokens else 'off'}, PCA {'on' if pca else 'off'}"
            for seed in SEEDS:
                torch.manual_seed(seed)
                network = trained(fused(cnn, first, tokens, pca), passes, labels, given.epochs, seed)
                with torch.inference_mode():
                    rows.setdefault(name, []).append(scores(network, judged).numpy())
    rows["CNN alone"] = [alone]
    print(f"{len(train):,} training pictures, {given.epochs} epochs of fusion, {len(SEEDS)} seeds;")
    print(f"accuracy on {len(targets):,} validation pictures, difference to the first row (seed 0, paired, 95 %)\n")
    print("| | Accuracy, % | sd over seeds | Difference, points |\n|---|--:|--:|--:|")
    whole = rows["tokens on, PCA on"][0]
    for name, found in rows.items():
        values = [100 * float((one.argmax(1) == targets).mean()) for one in found]
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "–"
        gain = paired_difference(targets, found[0], whole)
        told = "–" if found[0] is whole else f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        print(f"| {name} | {statistics.mean(values):.2f} | {spread} | {told} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
