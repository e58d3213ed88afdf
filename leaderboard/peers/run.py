"""Peers on the same board: packages that carry their own weights, measured by fer_bench's own code.

    python leaderboard/peers/run.py fer --track fer2013 rendered

Each peer runs in a virtual environment of its own (README.md says how to make one), in a child process that gets the
test pictures as a .npy and gives back log-scores as a .npy. Everything after that - order of the emotions, metrics,
intervals, duplicates - is fer_bench's. fer_bench never imports a peer and opens none of its files but to hash them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from fer_bench import __version__
from fer_bench.card_files import read_cards
from fer_bench.datasets import FaceSet, duplicated_in, load_dataset
from fer_bench.emotions import canonical, in_order, shared
from fer_bench.errors import UserError
from fer_bench.evaluate import Answers
from fer_bench.files import check_committed, commit
from fer_bench.leaderboard import write_leaderboard
from fer_bench.metrics import restrict_logits
from fer_bench.protocols import track_named
from fer_bench.registry import UnknownNameError
from fer_bench.results import Cost, Data, Result, Trained, Versions, Weights, measure, write_logits, write_result
from fer_bench.weights import sha256

HERE = Path(__file__).resolve().parent
RECIPE = "as-published"
"""What stands for the recipe: the weights as the package ships them."""
SIDE = 48
"""Pixels; every track's pictures have this side, and adapters are told nothing else."""


@dataclass(frozen=True)
class Said:
    """What a peer answered: float32 log-scores (N, K), its columns in the canonical order of `emotions`."""

    logits: np.ndarray
    emotions: tuple[str, ...]
    parameters: int
    weights: Path
    """The package's weight file; it is hashed and never opened."""
    version: str
    seconds: float
    """Its own time for all pictures, preprocessing included, loading left out."""


def command(adapter: Path, home: Path) -> list[str]:
    """What runs an adapter in the environment `home`: Node for .mjs, else that environment's Python."""
    if adapter.suffix == ".mjs":
        return ["node", str(adapter)]
    folder, python = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return [str(home / folder / python), str(adapter)]


def ask(adapter: Path, home: Path, images: np.ndarray, seconds: float = 1200) -> Said:
    """Run an adapter in its environment over uint8 (N, 48, 48) pictures; its columns are put into our order.

    The child gets no environment variables but a few, so that no secret reaches a foreign package. Raises UserError,
    with the end of its output, where it cannot be run, fails, takes longer than `seconds` or answers something else.
    """
    home = home.resolve()
    if not home.is_dir():
        raise UserError(f"{home}: there is no such environment; {HERE / 'README.md'} says how to make it.")
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="fer_bench-peer-") as folder:
        pictures, answers = Path(folder) / "pictures.npy", Path(folder) / "answers.npy"
        np.save(pictures, images)
        try:
            done = subprocess.run(
                [*command(adapter, home), str(pictures), str(answers)], cwd=home, capture_output=True, text=True,
                errors="replace", timeout=seconds, env={**kept, **dict.fromkeys(names, threads)},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{adapter.name} could not be run in {home}: {error}") from None
        if done.returncode:
            end = (done.stderr or done.stdout).strip()[-800:]
            raise UserError(f"{adapter.name} failed in {home} (exit code {done.returncode}): {end}")
        try:
            about = json.loads(answers.with_name(answers.name + ".json").read_text(encoding="utf-8"))
            labels = [canonical(label) for label in about["labels"]]
            return Said(
                columns(np.load(answers, allow_pickle=False), labels, len(images)), in_order(labels),
                int(about["parameters"]), Path(about["weights"]), str(about["version"]), float(about["seconds"]),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{adapter.name} did not answer as agreed: {error}") from None


def columns(answers: np.ndarray, labels: list[str], pictures: int) -> np.ndarray:
    """A peer's answers with its columns in the canonical order; ValueError where they are not what was asked for."""
    if len(set(labels)) != len(labels):
        raise ValueError(f"it names an emotion twice: {', '.join(labels)}")
    if answers.shape != (pictures, len(labels)) or answers.dtype != np.float32:
        raise ValueError(f"{pictures} pictures and {len(labels)} labels, but {answers.dtype} {answers.shape}")
    if not np.isfinite(answers).all():
        raise ValueError("some of its answers are not finite")
    return answers[:, [labels.index(emotion) for emotion in in_order(labels)]]


def judge(name: str, card: dict, said: Said, faces: FaceSet, track_name: str, verified: bool = False) -> Answers:
    """What `fer_bench.evaluate.judge` does, for answers given elsewhere; the result is marked external.

    faces: the track's test split, all emotions; `said` answers for each of its pictures.
    """
    track = track_named(track_name)
    emotions = shared(said.emotions, faces.emotions)
    kept = np.isin(faces.labels, [faces.emotions.index(emotion) for emotion in emotions])
    scored, duplicates = faces.restrict(emotions), None
    if track.trained_on == track.name:
        duplicates = duplicated_in(faces, load_dataset(track.dataset, track.train).restrict(track.emotions))[kept]
    answers = restrict_logits(said.logits[kept], said.emotions, emotions)
    notes = [f"`{name}`: {note}" for note in card.get("notes", {}).get(track.name, [])]
    result = Result(
        method=name, track=track.name, recipe=RECIPE, seed=0, emotions=emotions,
        trained=Trained(
            track=card["trained_on"], complete=True, selection="by its authors",
            pretrained=f"weights of {card['package'].partition('==')[0]} {said.version}",
        ),
        weights=Weights(sha256=sha256(said.weights), bytes=said.weights.stat().st_size, storage=card["storage"]),
        data=Data(
            hash=scored.content_hash(), counts={track.test: len(faces) + len(faces.skipped)}, test_pictures=len(scored),
            skipped=list(faces.skipped), notes=[*faces.notes, *notes],
            duplicates_in_train=None if duplicates is None else int(duplicates.sum()),
        ),
        protocol=track.hash(), **measure(scored.labels, answers, emotions, duplicates, subjects=scored.subjects),
        cost=Cost(parameters=said.parameters, checkpoint_bytes=said.weights.stat().st_size),
        shared_emotions_only=emotions != said.emotions, verified=verified, external=True, commit=commit(),
        versions=Versions(
            python=platform.python_version(), torch=torch.__version__, numpy=np.__version__, fer_bench=__version__
        ),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Answers(result, scored.ids, scored.labels, answers, scored.subjects)


def peers(root: Path) -> dict[str, dict]:
    """The peers' cards by name, from `<root>/peers.json`."""
    return {name: card for name, card in read_cards(root).items() if card.get("package")}


def run(names: list[str], tracks: list[str], venvs: Path, out: Path, cards: dict[str, dict], verified: bool) -> None:
    """Measure peers on tracks and write their results; a line per row on standard output."""
    for name in names:
        if name not in cards:
            raise UserError(f"there is no peer {name!r}; the peers are {', '.join(cards)}.")
    for track_name in tracks:
        track = track_named(track_name)
        faces = load_dataset(track.dataset, track.test).restrict(track.emotions)
        if faces.images.shape[1:] != (SIDE, SIDE):
            raise UserError(f"{track_name}: adapters take grey pictures of {SIDE} x {SIDE}, not {faces.images.shape}.")
        for name in names:
            said = ask(HERE / cards[name]["adapter"], venvs / name, faces.images)
            answers = judge(name, cards[name], said, faces, track_name, verified)
            write_logits(answers.result, out, answers.ids, answers.targets, answers.logits, answers.subjects)
            path, accuracy = write_result(answers.result, out), answers.result.metrics["accuracy"]
            speed = len(faces) / said.seconds
            print(f"{track_name:10} {name:28} accuracy {accuracy.value:.4f} "
                  f"[{accuracy.low:.4f}, {accuracy.high:.4f}], {speed:,.0f} faces/s: {path}", flush=True)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure peers and write their rows. Exit codes: 0 done, 1 failed, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="leaderboard/peers/run.py", description=main.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="peers of peers.json, or: all")
    parser.add_argument("--track", nargs="+", default=["fer2013", "rendered"], metavar="TRACK")
    parser.add_argument(
        "--venvs", type=Path, default=Path("runs/peers"), metavar="DIR",
        help="a folder with one environment per peer, of its name (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE.parent, metavar="DIR", help="the leaderboard's folder")
    parser.add_argument("--verified", action="store_true", help="mark the results as run by the maintainers")
    options = parser.parse_args(arguments)
    try:
        if options.verified:
            check_committed()
        cards = peers(HERE.parent)
        names = list(cards) if options.names == ["all"] else options.names
        run(names, options.track, options.venvs, options.out, cards, options.verified)
        paths = write_leaderboard(options.out)
    except (UserError, UnknownNameError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
