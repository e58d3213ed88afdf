"""A folder of pictures through `fer_bench.predict`, beside `fer`, in one run: faces/s, and what takes the time.

    python tests/benchmarks/folder.py [--pictures 10000] [--method small_cnn] [--runtime torch] [--fer runs/peers/fer]

FER2013's pictures are written as PNG files to a temporary folder. Then, over the same files: predict as a user runs it
(faces found first, and with --no-detect), each with the CPU seconds of its stages and its greatest memory; and `fer`
(`detect_emotions` on what cv2.imread gives, and again with the whole picture given as the face), in its own process.
CPU seconds add up however busy the machine is; faces/s are by the clock. fer's detector looks for 50 pixels and more,
so it finds no face in a bare one of 48: --enlarge 4 writes the pictures at 192.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fer(folder: Path, find: bool) -> None:
    """In fer's environment: print pictures, those with a face, seconds and CPU seconds as JSON."""
    import cv2
    from fer.fer import FER

    answers, sys.stdout = sys.stdout, sys.stderr
    peer, paths, found = FER(), sorted(folder.iterdir()), 0
    peer.detect_emotions(cv2.imread(str(paths[0])), [(0, 0, 48, 48)])  # warm up
    begun, cpu = time.perf_counter(), time.process_time()
    for path in paths:
        image = cv2.imread(str(path))
        whole = (0, 0, image.shape[1], image.shape[0])
        found += bool(peer.detect_emotions(image, None if find else [whole]))
    print(json.dumps([len(paths), found, time.perf_counter() - begun, time.process_time() - cpu]), file=answers)


def ours(folder: Path, method: str, runtime: str, find: bool, out: Path) -> None:
    """In a process of its own: run the command over the folder and print the same figures, stages and memory."""
    from fer_bench import predict, scoring

    spent: Counter[str] = Counter()
    lock = threading.Lock()

    def timed(stage: str, function: Callable) -> Callable:
        """The function, its thread's CPU seconds added to a stage."""

        def call(*arguments: object) -> object:
            begun = time.thread_time()
            try:
                return function(*arguments)
            finally:
                with lock:
                    spent[stage] += time.thread_time() - begun

        return call

    network, seconds = scoring.logits, [0.0]

    def networks(*arguments: object) -> object:
        """By the clock, since torch's own threads work on it too."""
        begun, cpu = time.perf_counter(), time.thread_time()
        try:
            return network(*arguments)
        finally:
            seconds[0] += time.perf_counter() - begun
            spent["main thread in the network"] += time.thread_time() - cpu

    predict.open_picture = timed("decode", predict.open_picture)
    scoring.detect_faces = timed("detect", scoring.detect_faces)
    scoring.prepare = timed("prepare", scoring.prepare)  # finding included
    scoring.logits = networks
    models, whole = [], predict.load
    predict.load = lambda *arguments: models.append(whole(*arguments)) or models[-1]
    run = predict.score_files
    clock: list[float] = []

    def scored(*arguments: object) -> object:
        begun, cpu, main = time.perf_counter(), time.process_time(), time.thread_time()
        answer = run(*arguments)
        clock.extend((time.perf_counter() - begun, time.process_time() - cpu, time.thread_time() - main))
        return answer

    predict.score_files = scored
    options = [str(folder), "-o", str(out), "--method", method, "--runtime", runtime, "--device", "cpu"]
    answers, sys.stdout = sys.stdout, sys.stderr
    if predict.main([*options, *([] if find else ["--no-detect"])]):
        raise SystemExit("predict failed")
    taken, cpu, main = clock
    other = main - spent["main thread in the network"]
    stages = {
        "decoding": spent["decode"],
        "finding faces": spent["detect"],
        "cutting out": spent["prepare"] - spent["detect"],
        "the network": cpu - spent["decode"] - spent["prepare"] - other,
        "rows, reading ahead": other,
    }
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = len({row["filepath"] for row in rows if row["face"] != "0"})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = [len({row["filepath"] for row in rows}), found, taken, cpu, len(rows), stages, peak, seconds[0]]
    print(json.dumps(figures), file=answers)


def child(python: Path, threads: int, *arguments: object) -> list:
    """What this script prints when it is run by that interpreter with these arguments."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    command = [str(python), __file__, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{python} ended with exit code {done.returncode}")
    return json.loads(done.stdout)


def write(folder: Path, count: int, enlarge: int) -> None:
    """That many FER2013 pictures as PNG files, spread over its training split, each side `enlarge` times as long."""
    from PIL import Image

    from fer_bench.datasets import load_dataset

    for index, image in enumerate(load_dataset("fer2013", "train").limit(count).images):
        side = image.shape[0] * enlarge
        Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{index:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--enlarge", type=int, default=1, metavar="N", help="N times 48 pixels a side (%(default)s)")
    parser.add_argument("--method", default="small_cnn")
    parser.add_argument("--runtime", default="torch", choices=["torch", "onnx"])
    parser.add_argument("--fer", type=Path, default=ROOT / "runs" / "peers" / "fer", metavar="DIR")
    parser.add_argument("--threads", type=int, default=1, help="of torch, ONNX Runtime and TensorFlow (%(default)s)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        who, how = arguments.child
        if who == "fer":
            fer(arguments.folder, how == "find")
        else:
            out = arguments.folder.with_name(f"{how}.csv")
            ours(arguments.folder, arguments.method, arguments.runtime, how == "find", out)
        return
    python = arguments.fer.absolute() / "bin" / "python"
    lines = []
    with tempfile.TemporaryDirectory(prefix="fer_bench-folder-") as place:
        folder = Path(place) / "pictures"
        folder.mkdir()
        write(folder, arguments.pictures, arguments.enlarge)
        given = ("--folder", folder, "--method", arguments.method, "--runtime", arguments.runtime)
        for how, what in (("find", "faces found first"), ("whole", "whole pictures")):
            count, found, seconds, cpu, rows, stages, peak, network = child(
                Path(sys.executable), arguments.threads, "--child", "ours", how, *given
            )
            name = f"predict, {arguments.method} ({arguments.runtime}), {what}"
            lines.append([name, count, found, f"{seconds:.1f}", f"{rows / seconds:,.0f}", f"{cpu / rows * 1e3:.1f}"])
            shares = ", ".join(f"{stage} {value / cpu:.0%}" for stage, value in stages.items())
            print(f"{name}: {shares} of {cpu:.1f} CPU seconds; the network {network:.1f} s by the clock; "
                  f"at most {peak:,.0f} MB of memory", flush=True)  # fmt: skip
            if python.is_file():
                count, found, seconds, cpu = child(python, arguments.threads, "--child", "fer", how, *given)
                scored = found if how == "find" else count  # it gives no scores where it finds no face
                each = [f"{seconds:.1f}", f"{scored / seconds:,.0f}", f"{cpu / count * 1e3:.1f}"]
                lines.append([f"fer, {what}", count, found if how == "find" else 0, *each])
    if not python.is_file():
        print(f"fer is left out: there is no {python} (see leaderboard/peers/README.md)", file=sys.stderr)
    header = ["", "pictures", "a face found in", "seconds", "faces scored/s", "CPU ms per picture"]
    print("\n".join(f"| {' | '.join(map(str, line))} |" for line in [header, ["---", *["---:"] * 5], *lines]))
    print(f"\n{os.cpu_count()} cores; where no face is found, predict scores the whole picture and fer nothing.")


if __name__ == "__main__":
    main()
