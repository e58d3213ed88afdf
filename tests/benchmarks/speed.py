"""Speed in ratios, each taken in one run: `python tests/benchmarks/speed.py [--methods NAME ...] [--pictures N]`.

1. Evaluating methods over one split: decoding it once into memory and running every method over it, against the usual
   way, one DataLoader pass over the encoded pictures with PIL transforms per method, networks included.
2. A training step: drawn, augmented and resized from memory, against the same step on one batch that is there already.
"""

from __future__ import annotations

import argparse
import copy
import io
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fer_bench.datasets import load_dataset
from fer_bench.infer import Model, best_device, logits
from fer_bench.methods import METHODS, build, list_methods
from fer_bench.optimizers import optimizer_for
from fer_bench.protocols.recipes import COMMON_V1
from fer_bench.torchvision_repair import torchvision
from fer_bench.train import bfloat16_pays
from fer_bench.transforms import augment


class Encoded(Dataset):
    """Encoded pictures, decoded and transformed one by one: what most training code of the field does."""

    def __init__(self, blobs: list[bytes], method: str) -> None:
        spec = METHODS[method].card.input
        transforms = torchvision.transforms
        self.blobs, self.mode = blobs, "L" if spec.channels == 1 else "RGB"
        resize, normalise = transforms.Resize((spec.size, spec.size)), transforms.Normalize(spec.mean, spec.std)
        self.transform = transforms.Compose([resize, transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self.blobs)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(io.BytesIO(self.blobs[index])).convert(self.mode))


def encode(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def evaluation(methods: list[str], pictures: int, device: torch.device, workers: int) -> None:
    """Print the first ratio."""
    blobs = [encode(image) for image in load_dataset("rendered", "train").limit(pictures).images]
    begun = time.perf_counter()
    images = np.stack([np.asarray(Image.open(io.BytesIO(blob))) for blob in blobs])
    decode = time.perf_counter() - begun
    rows = []
    for name in methods:
        network = build(name).eval().to(device, memory_format=torch.channels_last)
        model = Model(name, network, METHODS[name].card.input, (), {})
        plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        loader = DataLoader(Encoded(blobs, name), batch_size=64, num_workers=workers)

        def usual(network: torch.nn.Module = plain, loader: DataLoader = loader) -> None:
            with torch.inference_mode():
                for batch in loader:
                    network(batch.to(device)).cpu()

        logits(model, images[:64], 64)  # warm up
        ours = seconds(lambda model=model: logits(model, images, 64))
        theirs = seconds(usual)
        theirs_input = seconds(lambda loader=loader: [batch.to(device) for batch in loader])
        rows.append((ours, theirs, theirs_input))
        print(f"{name:24} in memory {ours:7.2f} s, DataLoader {theirs:7.2f} s ({theirs_input:.2f} s of it its input)")
    ours, theirs, theirs_input = (sum(column) for column in zip(*rows, strict=True))
    print(f"all methods: {theirs:.2f} s / {ours + decode:.2f} s = {theirs / (ours + decode):.2f} x")


def training(methods: list[str], device: torch.device, steps: int) -> None:
    """Print the second ratio."""
    faces = load_dataset("rendered", "train").limit(1024)
    images, labels = torch.from_numpy(faces.images).to(device), torch.from_numpy(faces.labels).to(device)
    generator = torch.Generator().manual_seed(0)
    for name in methods:
        spec, stage = METHODS[name].card.input, METHODS[name].stages[0]
        network = build(name).to(device, memory_format=torch.channels_last).train()
        optimizer = optimizer_for(COMMON_V1, network, [p for p in network.parameters() if p.requires_grad])

        def batch(spec: object = spec) -> tuple[torch.Tensor, torch.Tensor]:
            index = torch.randperm(len(images), generator=generator)[: COMMON_V1.batch_size].to(device)
            x = augment(images[index], spec, COMMON_V1.augmentation, generator)
            return x.contiguous(memory_format=torch.channels_last), labels[index]

        def step(
            pair: tuple[torch.Tensor, torch.Tensor], network=network, stage=stage, optimizer=optimizer
        ) -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_pays(device)):
                loss = stage.loss(network, *pair, torch.nn.functional.cross_entropy)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

        fixed, full, still = batch(), [], []
        for _ in range(steps + 2):  # in turn, so that a machine that slows down slows both
            full.append(seconds(lambda: step(batch())))
            still.append(seconds(lambda fixed=fixed: step(fixed)))
        a, b = median(full[2:]), median(still[2:])
        print(f"{name:24} step {a * 1e3:7.1f} ms, on one batch {b * 1e3:7.1f} ms: {a / b:.3f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list_methods(), metavar="NAME")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0, help="of the DataLoader; with a free core each, they help it")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = best_device(arguments.device)
    methods = arguments.methods or list_methods()
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {arguments.pictures} pictures")
    evaluation(methods, arguments.pictures, device, arguments.workers)
    training(methods, device, arguments.steps)


if __name__ == "__main__":
    main()
