"""Training throughput, each ratio taken in one run: `python tests/benchmarks/training.py [--method NAME ...]`.

Images per second of three ways to train the same network at the same batch size, in turn, so that a machine that slows
down slows all: our loop (pictures in memory, whole batches augmented on the device), the usual one (a DataLoader that
decodes and augments picture by picture with PIL and torchvision), and the same step on one batch that is there already,
which is the most that any loop can reach. With --compile the loss goes through torch.compile ("reduce-overhead" uses
CUDA graphs) in all three.

`--stream N` generates a folder of N small JPEG files (hard links to a few that differ) and reads it once as training
does with --stream: seconds, pictures per second and what the process and its workers hold in memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from speed import Encoded, encode, seconds
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fer_bench.cards import Recipe
from fer_bench.datasets import load_dataset
from fer_bench.datasets.stream import InMemory, Source, Streamed, to_stream
from fer_bench.distributed import ALONE, bfloat16_pays
from fer_bench.emotions import SEVEN
from fer_bench.infer import best_device
from fer_bench.methods import METHODS, list_methods
from fer_bench.optimizers import optimizer_for
from fer_bench.protocols.recipes import COMMON_V1
from fer_bench.stages import StageLoss, augmented
from fer_bench.torchvision_repair import torchvision

ROUNDS = 3
Batch = tuple[Tensor, Tensor]


class Augmented(Encoded):
    """The usual way: each picture decoded and changed on its own, as common-v1 does with whole batches."""

    def __init__(self, blobs: list[bytes], labels: list[int], method: str) -> None:
        super().__init__(blobs, method)
        self.labels, a, t = labels, COMMON_V1.augmentation, torchvision.transforms
        changes = [
            t.RandomHorizontalFlip(0.5 if a.flip else 0.0),
            t.RandomAffine(a.rotate, (a.shift, a.shift), (1 - a.scale, 1 + a.scale)),
            t.ColorJitter(a.brightness, a.contrast),
        ]
        self.transform = t.Compose([*changes, *self.transform.transforms, t.RandomErasing(a.erase)])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return super().__getitem__(index), self.labels[index]


class Step:
    """One method's training step under common-v1: what `fer_bench.train` does with a batch once it is there."""

    def __init__(self, name: str, recipe: Recipe, device: torch.device, compiled: str | None) -> None:
        self.spec, self.recipe, self.device = METHODS[name].card.input, recipe, device
        torch.manual_seed(0)
        network = METHODS[name].build(len(SEVEN)).to(device, memory_format=torch.channels_last).train()
        stage = METHODS[name].stages[0]
        self.parameters = list(stage.parameters(network))
        self.optimizer = optimizer_for(recipe, network, self.parameters)
        loss = StageLoss(network, stage)
        self.loss = torch.compile(loss, mode=compiled) if compiled else loss
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)

    def __call__(self, inputs: Tensor, labels: Tensor) -> None:
        inputs = inputs.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16_pays(self.device)):
            loss = self.loss(inputs, labels.to(self.device, non_blocking=True), self.criterion)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimizer.step()

    def ours(self, source: Source, steps: int, generator: torch.Generator) -> Iterator[Batch]:
        """Augmented batches as `fer_bench.train` makes them."""
        size = self.recipe.batch_size
        order = torch.randperm(len(source), generator=generator).repeat(steps * size // len(source) + 1)
        for images, labels in source.batches(order.split(size)[:steps]):
            runs, _ = ALONE.rows(len(images))
            yield augmented(images, runs, len(images), self.spec, self.recipe.augmentation, generator), labels


def throughput(names: list[str], given: argparse.Namespace, device: torch.device) -> None:
    """Print the table of images per second."""
    faces = load_dataset(given.data, "train").limit(given.pictures)
    blobs = [encode(image) for image in faces.images]
    source = InMemory(torch.from_numpy(faces.images).to(device), torch.from_numpy(faces.labels).to(device))
    generator = torch.Generator().manual_seed(0)
    recipe = Recipe(**{**vars(COMMON_V1), "batch_size": given.batch})
    print("| method | our loop | DataLoader | fixed batch | ours / DataLoader | ours / fixed |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in names:
        step = Step(name, recipe, device, given.compile)
        loader = DataLoader(
            Augmented(blobs, faces.labels.tolist(), name), batch_size=given.batch, shuffle=True, drop_last=True,
            num_workers=given.workers, pin_memory=device.type == "cuda", persistent_workers=given.workers > 0,
        )  # fmt: skip
        fixed = next(step.ours(source, 1, generator))
        step(*fixed)  # warm up, compile

        def usual(loader: DataLoader = loader) -> Iterator[Batch]:
            while True:
                yield from loader

        endless = usual()
        step(*next(endless))  # its workers have started

        def run(batches: Iterator[Batch], step: Step = step) -> float:
            def work() -> None:
                for _, batch in zip(range(given.steps), batches, strict=False):
                    step(*batch)

            return given.steps * given.batch / seconds(work)

        rates = [
            (run(step.ours(source, given.steps, generator)), run(endless), run(iter([fixed] * given.steps)))
            for _ in range(ROUNDS)
        ]
        ours, theirs, most = (median(column) for column in zip(*rates, strict=True))
        print(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {most:,.0f} | {ours / theirs:.2f} | {ours / most:.2f} |")


def generate(root: Path, count: int, side: int) -> None:
    """`count` files in root/train, one folder per emotion: hard links to 64 JPEG files that differ."""
    generator = np.random.default_rng(0)
    for emotion in SEVEN:
        (root / "train" / emotion).mkdir(parents=True)
    originals = []
    for number in range(64):
        image = Image.fromarray(generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize((side, side))
        originals.append(root / f"{number}.jpg")
        image.save(originals[-1], quality=85)
    for number in range(count):
        os.link(originals[number % 64], root / "train" / SEVEN[number % 7] / f"{number}.jpg")


def resident() -> float:
    """Megabytes that this process and its workers hold and share with no file."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    pages = 0
    for pid in pids:
        total, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        pages += total - shared
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def streaming(given: argparse.Namespace, device: torch.device) -> None:
    """Print the table of one streamed epoch, read and augmented for the first method (no network)."""
    spec = METHODS[given.method[0]].card.input
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        begun = time.perf_counter()
        generate(Path(folder), given.stream, given.side)
        made = time.perf_counter()
        files = to_stream(f"folder:{folder}", "train", True)
        source = Streamed(files, device, workers=given.workers or None)
        listed, before = time.perf_counter(), resident()
        generator, held = torch.Generator().manual_seed(0), []
        order = torch.randperm(len(files), generator=generator).split(given.batch)
        for number, (images, _) in enumerate(source.batches(order)):
            augmented(images, [range(len(images))], len(images), spec, COMMON_V1.augmentation, generator)
            if number % 10 == 0:
                held.append(resident())
            read = min(len(files), (number + 1) * given.batch)
            if given.seconds and time.perf_counter() - listed > given.seconds:
                break
        done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    settled = held[len(held) // 10 + 1 :] or held
    print("| pictures | decoded, MB | listed, s | read | in s | pictures/s | workers "
          "| held before, after 10 %, most, MB | peak of the main process, MB |")  # fmt: skip
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {len(files):,} | {files.nbytes / 1e6:,.0f} | {listed - made:.1f} | {read:,} | {done - listed:.1f} | "
        f"{read / (done - listed):,.0f} | {source.workers} | {before:.0f}, {settled[0]:.0f}, {max(held):.0f} | "
        f"{peak:.0f} |"
    )
    print(f"(the files took {made - begun:.1f} s to make)", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", choices=list_methods(), metavar="NAME", default=["deep_emotion"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", default="rendered", help="a data set whose train split is here (default rendered)")
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=COMMON_V1.batch_size)
    parser.add_argument("--steps", type=int, default=20, help=f"of each way in each of {ROUNDS} rounds")
    parser.add_argument("--workers", type=int, default=0, help="of the DataLoader (0: none; --stream: one a core)")
    parser.add_argument("--compile", choices=["default", "reduce-overhead"], help="torch.compile, on CUDA only")
    parser.add_argument("--stream", type=int, metavar="N", help="read N generated pictures from disk instead")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop reading after S seconds; the table says where")
    parser.add_argument("--side", type=int, default=96, help="of the generated pictures")
    parser.add_argument("--folder", type=Path, help="where to generate them (default: the system's temporary folder)")
    given = parser.parse_args()
    device = best_device(given.device)
    if given.compile and device.type != "cuda":
        parser.error(f"--compile is for CUDA, where it pays; the device is {device}")
    print(f"torch {torch.__version__}, {ALONE.told(device)}, batches of {given.batch}\n")
    if given.stream:
        streaming(given, device)
    else:
        throughput(given.method, given, device)


if __name__ == "__main__":
    main()
