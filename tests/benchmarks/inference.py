"""Single-face latency and batch throughput on the CPU beside two packages, in one run, as a Markdown table:

    python tests/benchmarks/inference.py [--methods NAME ...] [--venvs runs/peers] [--threads 1 2] [--rounds 7]

Ours in torch and in ONNX Runtime, `fer` and `what-the-face-classification` where leaderboard/peers/README.md has put
them (folders `fer` and `what_the_face` of --venvs). Each gets the same 48 x 48 test faces as uint8 and ends with one
score per emotion: its own resizing and scaling are timed with it, finding faces is not. Every contestant is a process
of its own; they are asked in turn, one at a time, round after round, so that a busy machine slows all of them, and the
medians of the rounds stand in the table, with the CPU time beside the clock's. Accuracy is what leaderboard/results
says of FER2013's PrivateTest.

This file also runs inside a peer's environment, where there is no fer_bench: it is imported where it is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BATCH = 256
"""Faces of a batch."""
OURS = ("small_cnn", "deep_emotion_parallel", "patch_cam")
PEERS = {"fer": "fer", "what_the_face": "what-the-face-classification"}
"""Folder of the environment, and row of the board -> name of the package."""
Answer = Callable[[np.ndarray], np.ndarray]
"""uint8 (N, 48, 48) -> scores (N, K)."""


# In the contestant's process ----------------------------------------------------------------------------------------


def ours(method: str, recipe: str, seed: int, onnx: bool) -> Answer:
    """One of our methods, as `infer.logits` runs it."""
    from fer_bench.infer import load, logits
    from fer_bench.runtime import onnx_model

    model = load(method, "fer2013", recipe, seed)
    model = onnx_model(model) if onnx else model
    return lambda faces: logits(model, faces, BATCH)


def fer() -> Answer:
    """What fer's `detect_emotions` does with faces that it has found (see leaderboard/peers/fer_peer.py)."""
    import cv2
    from fer.fer import FER

    peer = FER()
    return lambda faces: peer._classify_emotions(
        (np.stack([cv2.resize(face, (64, 64)) for face in faces]).astype(np.float32) / 255 - 0.5) * 2
    )


def what_the_face() -> Answer:
    """The package's own transform and network (see leaderboard/peers/what_the_face.py)."""
    import torch
    from PIL import Image
    from what_the_face_classification import inference

    peer = inference.Image_classifier()
    peer.net.eval()

    def answer(faces: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return peer.net(torch.stack([peer.transform(Image.fromarray(face)) for face in faces]).float()).numpy()

    return answer


def serve(spec: dict, faces: np.ndarray) -> None:
    """Answer each line of standard input, "one COUNT" or "batch", with the seconds and CPU seconds of a call (JSON)."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a package prints is no answer
    answer = {"fer": fer, "what_the_face": what_the_face}.get(spec["kind"], ours)(**spec["arguments"])
    shape = answer(faces[:BATCH]).shape
    answer(faces[:1])
    print(json.dumps(shape), file=answers, flush=True)
    for line in sys.stdin:
        what, *count = line.split()
        calls = [faces[at : at + 1] for at in range(int(count[0]))] if what == "one" else [faces[:BATCH]]
        taken, cpu = [], []
        for call in calls:
            begun, used = time.perf_counter(), time.process_time()
            answer(call)
            taken.append(time.perf_counter() - begun)
            cpu.append(time.process_time() - used)
        print(json.dumps([median(taken), median(cpu)]), file=answers, flush=True)


# Asking -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """row: the board's name.   spec: what `serve` is told.   python: the interpreter of its environment."""

    row: str
    runtime: str
    spec: dict
    python: Path = Path(sys.executable)


class Running:
    """A contestant's process with its number of threads, ready for questions."""

    def __init__(self, contestant: Contestant, threads: int, faces: Path) -> None:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads)) | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [str(contestant.python), __file__, "--serve", json.dumps(contestant.spec), "--pictures", str(faces)]
        self.contestant, self.threads = contestant, threads
        self.one: list[float] = []
        self.batch: list[float] = []
        self.cpu: list[float] = []
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by stop); a pipe that nobody reads could fill up
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True, env=environment
        )

    def answer(self) -> object:
        line = self.process.stdout.readline()
        if not line:
            self.said.seek(0)
            raise SystemExit(f"{self.contestant.row} ({self.contestant.runtime}) ended: {self.said.read()[-600:]}")
        return json.loads(line)

    def ask(self, question: str) -> list[float]:
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self.answer()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()


def contestants(methods: list[str], venvs: Path) -> list[Contestant]:
    """Our methods in both runtimes, then the packages that are installed; what is not is said on standard error."""
    from fer_bench.weights import read_index

    index = read_index().values()
    reference = [e["method"] for e in index if e["method"].startswith("reference_") and e["track"] == "fer2013"]
    found = []
    for name in dict.fromkeys(methods or [*OURS, *reference]):
        entry = next((e for e in index if e["method"] == name and e["track"] == "fer2013"), None)
        if entry is None:
            raise SystemExit(f"there are no weights of {name} for fer2013 here")
        for runtime in ("torch", "ONNX Runtime"):
            given = {"method": name, "recipe": entry["recipe"], "seed": entry["seed"], "onnx": runtime != "torch"}
            found.append(Contestant(name, runtime, {"kind": "ours", "arguments": given}))
    for name, package in PEERS.items():
        folder, file = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
        python = (venvs / name).absolute() / folder / file
        if python.is_file():
            runtime = "TensorFlow Lite" if name == "fer" else "torch"
            found.append(Contestant(name, runtime, {"kind": name, "arguments": {}}, python))
        else:
            print(f"{package} is left out: there is no {python} (see leaderboard/peers/README.md)", file=sys.stderr)
    return found


def figures(contestant: Contestant) -> tuple[str, str]:
    """(accuracy in percent, parameters) of its row of the board, "-" where there is no result."""
    given = contestant.spec["arguments"]
    run = f"{given['recipe']}-s{given['seed']}" if given else "as-published-s0"
    path = ROOT / "leaderboard" / "results" / "fer2013" / contestant.row / f"{run}.json"
    if not path.is_file():
        return "-", "-"
    result = json.loads(path.read_text())
    return f"{result['metrics']['accuracy']['value'] * 100:.1f} %", f"{result['cost']['parameters']:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: three rows, and reference_*")
    parser.add_argument("--venvs", type=Path, default=ROOT / "runs" / "peers", metavar="DIR")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=20, help="single faces asked for in a round")
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, np.load(arguments.pictures, allow_pickle=False))
        return
    from fer_bench.datasets import load_dataset

    running: list[Running] = []
    with tempfile.TemporaryDirectory(prefix="fer_bench-inference-") as folder:
        pictures = Path(folder) / "faces.npy"
        np.save(pictures, load_dataset("fer2013", "test").limit(BATCH).images)
        try:
            for contestant in contestants(arguments.methods, arguments.venvs):
                for threads in arguments.threads:
                    running.append(Running(contestant, threads, pictures))
            for one in running:
                one.answer()  # ready, and warm
            for _ in range(arguments.rounds):
                for one in running:
                    one.one.append(one.ask(f"one {arguments.calls}")[0])
                    seconds, cpu = one.ask("batch")
                    one.batch.append(seconds)
                    one.cpu.append(cpu)
        finally:
            for one in running:
                one.stop()
    print(table(running, arguments.threads))
    print(f"\nMedians of {arguments.rounds} rounds in turn; {os.cpu_count()} cores; batches of {BATCH} faces.")


def table(running: list[Running], threads: list[int]) -> str:
    """One line per contestant: what it is, then latency and throughput for each number of threads."""
    names = "ms per face, {} thread(s)", "faces/s in a batch", "CPU ms per face in it"
    speeds = [name.format(n) for n in threads for name in names]
    header = ["network", "runtime", "parameters", "PrivateTest", *speeds]
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    for start in range(0, len(running), len(threads)):
        some = running[start : start + len(threads)]
        who = some[0].contestant
        accuracy, parameters = figures(who)
        found = []
        for one in some:
            found += [f"{median(one.one) * 1e3:.1f}", f"{BATCH / median(one.batch):,.0f}"]
            found += [f"{median(one.cpu) / BATCH * 1e3:.2f}"]
        lines.append([PEERS.get(who.row, who.row), who.runtime, parameters, accuracy, *found])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
