"""python -m fer_bench.evaluate: judge methods on tracks; writes results, logits and the table.

The test split of a track is read once and every method is run over it through `infer.logits`. Nothing here selects
anything: weights come finished, and each figure is computed once, without test-time augmentation.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fer_bench import __version__
from fer_bench.cards import Track
from fer_bench.datasets import FaceSet, duplicated_in, load_dataset
from fer_bench.emotions import shared
from fer_bench.errors import DataError, UserError
from fer_bench.faithfulness import measure_faithfulness
from fer_bench.infer import Model, best_device, load, logits, macs, one_face, weights_for
from fer_bench.leaderboard import write_cards, write_leaderboard
from fer_bench.methods import METHODS, build, count_parameters, list_methods
from fer_bench.metrics import restrict_logits
from fer_bench.protocols import TRACKS, track_named
from fer_bench.registry import UnknownNameError
from fer_bench.results import (
    Cost,
    Data,
    Result,
    ResultError,
    Trained,
    Versions,
    Weights,
    decode,
    measure,
    read_result,
    result_path,
    write_logits,
    write_result,
)  # fmt: skip
from fer_bench.robustness import SUITE, measure_robustness

REFERENCE = "resnet18"
"""The network that latencies are given relative to, timed in the same run."""


@dataclass(frozen=True)
class Answers:
    """What a model answered on a test split: float32 logits (N, K) over the result's emotions, targets (N,), ids."""

    result: Result
    ids: tuple[str, ...]
    targets: np.ndarray
    logits: np.ndarray


def benchmark(model: Model, dataset: FaceSet | str, batch_size: int = 128) -> Result:
    """Judge a loaded model on a test split: every metric with its 95 % bootstrap interval, and its cost.

    dataset: a FaceSet, or the name of a track or data set ("rendered", "fer2013", "folder:PATH"). Where label sets
    differ, the shared emotions are scored and the logits renormalised over them. Raises UserError where model and
    data share fewer than two emotions.
    """
    if isinstance(dataset, str):
        track = track_named(dataset)
        dataset = load_dataset(track.dataset, track.test).restrict(track.emotions)
    else:
        track = Track(dataset.name, dataset.name, dataset.name, dataset.emotions, trained_on=model.record["track"])
    return judge(model, dataset, track, batch_size=batch_size).result


def judge(
    model: Model,
    faces: FaceSet,
    track: Track,
    duplicates: np.ndarray | None = None,
    batch_size: int = 128,
    verified: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Answers:
    """Run a model over a split and measure everything. duplicates: bool (N,), pictures that also stand in train."""
    emotions = shared(model.emotions, faces.emotions)
    if len(emotions) < 2:
        raise UserError(f"{model.name} and {faces.name} share {len(emotions)} emotion(s); at least two are needed.")
    kept = np.isin(faces.labels, [faces.emotions.index(emotion) for emotion in emotions])
    scored = faces.restrict(emotions)
    duplicates = duplicates[kept] if duplicates is not None else None
    answers = restrict_logits(logits(model, scored.images, batch_size, progress), model.emotions, emotions)
    record = model.record
    known = {field.name for field in fields(Trained)}
    trained = {name: value for name, value in record["trained"].items() if name in known}
    result = Result(
        method=model.name, track=track.name, recipe=record["recipe"], seed=record["seed"], emotions=emotions,
        trained=decode(Trained, trained, f"what {model.name}'s weights say of their training"),
        weights=Weights(
            sha256=record["sha256"], bytes=record["bytes"], storage=record["packing"]["storage"],
            accuracy_loss=record["accuracy_loss"],
        ),
        data=Data(
            hash=scored.content_hash(), counts={track.test: len(faces) + len(faces.skipped)}, test_pictures=len(scored),
            skipped=list(faces.skipped), notes=list(faces.notes),
            duplicates_in_train=int(duplicates.sum()) if duplicates is not None else None,
        ),
        protocol=track.hash(), **measure(scored.labels, answers, emotions, duplicates), cost=cost(model),
        shared_emotions_only=emotions != model.emotions, verified=verified, commit=commit(),
        versions=Versions(
            python=platform.python_version(), torch=torch.__version__, numpy=np.__version__, fer_bench=__version__
        ),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Answers(result, scored.ids, scored.labels, answers)


def cost(model: Model) -> Cost:
    """Parameters, multiply-accumulates for one face, and single-face latency beside the reference network's."""
    own, reference = latency_pair(model)
    return Cost(
        parameters=count_parameters(model.network),
        macs=macs(model.network, model.input_spec),
        latency_ms=own * 1000, latency_ratio=own / reference, checkpoint_bytes=model.record["bytes"],
    )  # fmt: skip


@lru_cache(maxsize=1)
def _reference(device: torch.device) -> nn.Module:
    """The reference network, built once: what its weights are does not change its speed."""
    return build(REFERENCE).eval().to(device, memory_format=torch.channels_last)


def latency_pair(model: Model, seconds: float = 0.5) -> tuple[float, float]:
    """Median seconds for one face through the model and through the reference, taken in turn in one run."""
    reference = _reference(model.device)
    pairs = [(model.network.eval(), one_face(model.network, model.input_spec))]
    pairs.append((reference, one_face(reference, METHODS[REFERENCE].card.input)))
    times: list[list[float]] = [[], []]
    with torch.inference_mode():
        until = time.monotonic() + seconds
        while len(times[0]) < 6 or (time.monotonic() < until and len(times[0]) < 60):
            for (network, face), taken in zip(pairs, times, strict=True):
                begun = time.perf_counter()
                network(face)
                if model.device.type == "cuda":
                    torch.cuda.synchronize()
                taken.append(time.perf_counter() - begun)
    return median(times[0][2:]), median(times[1][2:])  # the first two warm up


def commit() -> str:
    """The checkout's commit, 40 hex digits; "unknown" outside a checkout."""
    try:
        folder = Path(__file__).resolve().parent
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else "unknown"
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def evaluate(
    methods: list[str],
    tracks: list[str],
    out: Path,
    recipe: str | None = None,
    seed: int = 0,
    runs: Path | None = None,
    device: str = "cpu",
    verified: bool = False,
    strict: bool = False,
    robustness: bool = False,
    explanation: bool = False,
) -> tuple[int, list[str]]:
    """Judge every method on every track; results are written as they come.

    Returns how many were written, and a line for each thing skipped. strict: missing data raises DataError instead.
    recipe: None is the one that each method's card names. robustness, explanation: measure these too (`completed`).
    """
    written, skipped = 0, []
    for name in tracks:
        track = track_named(name)
        ready, missing = [], []
        for method in methods:
            (ready if weights_for(method, track, recipe, seed, runs) else missing).append(method)
        if missing:
            every = set(missing) == set(METHODS)
            chosen = "--missing" if every else f"--method {' '.join(missing)}"
            command = f"python -m fer_bench.train {chosen} --track {track.trained_on}"
            which = f"{recipe or 'the recipe of its card'}, seed {seed}"
            rows = f"any method ({which})" if every else f"{', '.join(missing)} ({which})"
            skipped.append(f"{name}: no weights of {rows}; train them with: {command}")
        if not ready:
            continue
        try:
            faces = load_dataset(track.dataset, track.test).restrict(track.emotions)
        except DataError as error:
            if strict:
                raise
            skipped.append(f"{name}: {error}")
            continue
        duplicates = None
        if track.trained_on == track.name:
            duplicates = duplicated_in(faces, load_dataset(track.dataset, track.train))
        for method in ready:
            model = load(method, name, recipe, seed, device, runs)

            def bar(batches: Iterable, label: str = f"{name} {method}") -> Iterable:
                return tqdm(batches, desc=f"{label:32}", unit="batch", leave=False, disable=None)

            answers = judge(model, faces, track, duplicates, 64, verified, bar)
            result = completed(answers.result, model, faces, out, robustness, explanation, bar)
            write_logits(result, out, answers.ids, answers.targets, answers.logits)
            write_result(result, out)
            figure = result.metrics["accuracy"]
            tqdm.write(f"{name:12} {method:24} accuracy {figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]")
            written += 1
    return written, skipped


def completed(
    result: Result,
    model: Model,
    faces: FaceSet,
    out: Path,
    robustness: bool = False,
    explanation: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Result:
    """The result with its robustness and explanation: measured where asked for, else carried over.

    robustness: on at most `robustness.PICTURES` pictures, once for each corruption and severity. explanation: Grad-CAM
    on at most `faithfulness.PICTURES` pictures, 44 passes each. What is not asked for is taken from the record that
    stands in `out`, if it is of the same weights, data and emotions, so that judging again loses nothing.
    """
    before = standing(result, out)
    scored = faces.restrict(result.emotions)
    blocks = {}
    if robustness:
        blocks["robustness"] = measure_robustness(model, scored, progress=progress)
    elif before is not None and before.robustness is not None and before.robustness.suite == SUITE:
        blocks["robustness"] = before.robustness
    if explanation:
        blocks["explanation"] = measure_faithfulness(model, scored, progress=progress)
    elif before is not None:
        blocks["explanation"] = before.explanation
    return replace(result, **blocks)


def standing(result: Result, out: Path) -> Result | None:
    """The record that this result will replace, or None where there is none of the same weights, data and emotions."""
    try:
        before = read_result(result_path(out, result.track, result.method, result.recipe, result.seed, result.tta))
    except ResultError:  # there is none, or one of another version
        return None
    measured, replaced = ((r.weights.sha256, r.data.hash, r.emotions) for r in (result, before))
    return before if measured == replaced else None


def main(argv: list[str] | None = None) -> int:
    """Judge methods and write results and the table. Exit codes: 0 done, 1 failed, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="fer_bench.evaluate", description=main.__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true", help="every method that has weights")
    chosen.add_argument("--method", nargs="+", metavar="NAME")
    parser.add_argument(
        "--track", nargs="+", metavar="TRACK", help="tracks, folder:PATH or csv:PATH; default: all whose data is here"
    )
    parser.add_argument("--out", type=Path, default=Path("leaderboard"), metavar="DIR", help="default: leaderboard")
    parser.add_argument("--recipe", help="weights of this recipe; default: the one on each method's card")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="a training output folder to take weights from first")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--verified", action="store_true", help="mark the results as run by the maintainers")
    parser.add_argument(
        "--robustness", action="store_true", help="also measure accuracy on corrupted pictures (some 12,000 answers)"
    )
    parser.add_argument(
        "--explanation", action="store_true", help="also measure how faithful Grad-CAM is (some 3,000 answers)"
    )
    arguments = parser.parse_args(argv)
    try:
        methods = list_methods() if arguments.all else arguments.method
        for name in methods:
            METHODS[name]
        tracks = arguments.track or list(TRACKS)
        for name in tracks:
            track_named(name)
        if arguments.out.exists() and not arguments.out.is_dir():
            raise UserError(f"{arguments.out}: this is a file; give a folder to --out.")
        device = str(best_device(arguments.device))
        written, skipped = evaluate(
            methods, tracks, arguments.out, arguments.recipe, arguments.seed, arguments.runs, device,
            arguments.verified, strict=arguments.track is not None, robustness=arguments.robustness,
            explanation=arguments.explanation,
        )  # fmt: skip
    except (UserError, UnknownNameError) as error:
        print(error, file=sys.stderr)
        return 2
    for line in skipped:
        print(f"skipped {line}", file=sys.stderr)
    if not written:
        print("nothing was evaluated.", file=sys.stderr)
        return 2
    write_cards(arguments.out, [METHODS[name].card for name in METHODS])
    for path in write_leaderboard(arguments.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
