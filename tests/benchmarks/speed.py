"""Speed in ratios, each taken in one run: `python tests/benchmarks/speed.py [--methods NAME ...] [--pictures N]`.

Evaluating methods over one split: decoding it once into memory and running every method over it, against the usual way,
one DataLoader pass over the encoded pictures with PIL transforms per method, networks included. `training.py` beside
this file does the same for training.
"""

from __future__ import annotations

import argparse
import copy
import io
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fer_bench.datasets import load_dataset
from fer_bench.emotions import SEVEN
from fer_bench.infer import Model, best_device, logits
from fer_bench.methods import METHODS, build, list_methods
from fer_bench.torchvision_repair import torchvision


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


def evaluation(methods: list[str], data: str, pictures: int, device: torch.device, workers: int) -> None:
    """Print each method's seconds and the ratio of all of them."""
    blobs = [encode(image) for image in load_dataset(data, "train").limit(pictures).images]
    begun = time.perf_counter()
    images = np.stack([np.asarray(Image.open(io.BytesIO(blob))) for blob in blobs])
    decode = time.perf_counter() - begun
    rows = []
    for name in methods:
        network = build(name).eval().to(device, memory_format=torch.channels_last)
        model = Model(name, network, METHODS[name].card.input, SEVEN, {})
        plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        loader = DataLoader(Encoded(blobs, name), batch_size=64, num_workers=workers)

        def usual(network: torch.nn.Module = plain, loader: DataLoader = loader) -> None:
            with torch.inference_mode():
                for batch in loader:
                    network(batch.to(device)).cpu()

        logits(model, images[:64])  # warm up
        ours = seconds(lambda model=model: logits(model, images))
        theirs = seconds(usual)
        theirs_input = seconds(lambda loader=loader: [batch.to(device) for batch in loader])
        rows.append((ours, theirs, theirs_input))
        print(f"{name:24} in memory {ours:7.2f} s, DataLoader {theirs:7.2f} s ({theirs_input:.2f} s of it its input)")
    ours, theirs, theirs_input = (sum(column) for column in zip(*rows, strict=True))
    print(f"all methods: {theirs:.2f} s / {ours + decode:.2f} s = {theirs / (ours + decode):.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list_methods(), metavar="NAME")
    parser.add_argument("--data", default="rendered", help="a data set whose train split is here (default rendered)")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=0, help="of the DataLoader; with a free core each, they help it")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = best_device(arguments.device)
    methods = arguments.methods or list_methods()
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {arguments.pictures} pictures")
    evaluation(methods, arguments.data, arguments.pictures, device, arguments.workers)


if __name__ == "__main__":
    main()
