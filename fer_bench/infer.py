"""Model + images -> logits: the only inference loop. Evaluation, prediction, explanation and the app all use it."""

from __future__ import annotations

import contextlib
import importlib
import math
import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fer_bench.cards import InputSpec, Track
from fer_bench.emotions import canonical
from fer_bench.errors import UserError
from fer_bench.faces import Face, Picture, UnreadablePictureError, crop, detect_faces, one_by_one, open_picture, stack
from fer_bench.methods import METHODS, build
from fer_bench.methods.options import builder, own_options
from fer_bench.modes import evaluating, full_precision, one_thread
from fer_bench.networks import answering, check_scores, device_of, pictures_at_once
from fer_bench.protocols import recipe_for, track_named
from fer_bench.transforms import to_input, views
from fer_bench.weights import (
    WeightsError,
    check_indexed,
    find,
    find_run,
    held,
    index_key,
    mend_of,
    read_index,
    read_tensors,
    same_track,
    sha256,
    unpack,
)

REFERENCE = "resnet18"
"""The network that latencies are given relative to, timed in the same run."""
PAIRS = 15
"""Timings of a network and of the reference that the quickest are taken of, at least; slow networks get fewer."""


def best_device(wanted: str = "auto") -> torch.device:
    """ "auto" -> cuda, mps or cpu, in this order of preference; anything else is taken as it is.

    Raises UserError for what is no device or is not in this machine.
    """
    if wanted != "auto":
        try:
            torch.empty(0, device=wanted)
            return torch.device(wanted)  # not the tensor's, which has a number where "cuda" has none
        except (RuntimeError, AssertionError, NotImplementedError):  # unknown, absent, or not in this build of torch
            raise UserError(f"there is no device {wanted!r} here; leave out --device, or give cpu.") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass
class Model:
    """A network with weights and all that is needed to use it.

    network: is in eval mode while it answers, and afterwards in the modes that it was in.
    emotions: the order of its outputs, in any usual spelling; held under canonical names.
    record: what the weight file says of itself; left out for a network of one's own, of which nothing is known.
    """

    name: str
    network: nn.Module
    input_spec: InputSpec
    emotions: tuple[str, ...]
    record: dict = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        with contextlib.suppress(ValueError):  # whoever judges the model says what is wrong with its emotions
            self.emotions = tuple(map(canonical, self.emotions))

    @property
    def device(self) -> torch.device:
        """Where the network's weights are; the CPU where it has none of its own."""
        return device_of(self.network)

    def to(self, device: str | torch.device) -> Model:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    @overload
    def predict(
        self,
        pictures: Picture | Iterable[Picture],
        batch_size: int | None = None,
        unreadable: Literal["raise"] = "raise",
    ) -> list[dict[str, float]]: ...

    @overload
    def predict(
        self, pictures: Picture | Iterable[Picture], batch_size: int | None = None, *, unreadable: Literal["skip"]
    ) -> list[dict[str, float] | None]: ...

    def predict(self, pictures, batch_size=None, unreadable="raise"):
        """Probability per emotion for each picture of a face.

        pictures: one picture or any iterable of them: PIL images, paths, encoded bytes or arrays (uint8 0..255 or
        float 0..1, (H, W) or (H, W, 3)); also one array of them, (N, H, W) or (N, H, W, 3). Channels come last: an
        array (3, H, W) is three grey pictures. Of a picture that is not square, the largest centred square is seen, and
        no face is looked for: for that there is `predict_faces`. Returns one dict per
        picture, emotion -> probability, summing to 1.
        unreadable: what becomes of what is no picture: "raise" raises UnreadablePictureError, naming the file; "skip"
        puts None into its place. Raises UserError for a network that answers with probabilities, NaN or infinity,
        and as `logits`.
        """
        batch_size = pictures_at_once(batch_size, self.device)
        if unreadable not in ("raise", "skip"):
            raise ValueError(f"unreadable must be 'raise' or 'skip', not {unreadable!r}")
        waiting = iter(one_by_one(pictures))
        scores: list[dict[str, float] | None] = []
        while batch := list(islice(waiting, batch_size)):
            opened: list[Image.Image | None] = []
            for picture in batch:
                try:
                    opened.append(open_picture(picture))
                except UnreadablePictureError:
                    if unreadable == "raise":
                        raise
                    opened.append(None)
            images = stack([image for image in opened if image is not None], self.input_spec.size)
            answers = logits(self, images, batch_size)
            check_scores(self.name, answers)
            rows = iter(torch.from_numpy(answers).softmax(1).tolist())
            scores += [None if image is None else dict(zip(self.emotions, next(rows), strict=True)) for image in opened]
        return scores

    def predict_faces(self, photograph: Picture) -> list[tuple[Face, dict[str, float]]]:
        """Find the faces in a picture of any size, cut each out as this model wants it, and score it.

        photograph: one picture, as `predict` takes it. Returns a face (its `box` in pixels of the upright picture, its
        detector's `score`) and its probability per emotion for each, from left to right; [] where there is none.
        Raises UnreadablePictureError, naming the file, for what is no picture.
        """
        image = open_picture(photograph)
        faces = detect_faces(image)
        answers = self.predict(crop(image, face.box, self.input_spec.margin) for face in faces)
        return list(zip(faces, answers, strict=True))


def logits(
    model: Model,
    images: np.ndarray,
    batch_size: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    tta: str = "none",
) -> np.ndarray:
    """uint8 (N, H, W) or (N, H, W, 3) -> float32 logits (N, K), in full float32 precision.

    progress wraps the loop over batches (a tqdm, say). tta: a key of `transforms.PASSES`; with test-time augmentation
    the logarithm of the mean of the probabilities of each picture's `views`. Raises UserError for a network that fails
    on what its InputSpec gives it, or gives another tensor than one of logits.
    """
    results: list[np.ndarray] = []
    spec, size, proven = model.input_spec, pictures_at_once(batch_size, model.device), 0
    with evaluating(model.network), torch.inference_mode(), full_precision(model.device):
        for start in progress(range(0, len(images), size)):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + size])).to(model.device)
            shown = views(to_input(batch, spec), tta)
            with answering(model.name, spec, len(batch), len(batch) == proven):
                every = [model.network(view.contiguous(memory_format=torch.channels_last)) for view in shown]
            proven = len(batch)
            found, wanted = getattr(every[0], "shape", type(every[0]).__name__), (len(batch), len(model.emotions))
            if found != wanted:
                told = f"a tensor {wanted}, a logit for each of {', '.join(model.emotions)}"
                raise UserError(f"{model.name} must answer {len(batch)} picture(s) with {told}, not with {found}.")
            every = [one.float() for one in every]
            answers = every[0]
            if tta != "none":
                answers = torch.stack([one.log_softmax(1) for one in every]).logsumexp(0) - math.log(len(every))
            results.append(answers.cpu().numpy())
    return np.concatenate(results) if results else np.zeros((0, len(model.emotions)), np.float32)


def macs(network: nn.Module, spec: InputSpec) -> int:
    """Multiply-accumulates of one forward pass for one face, by torch's own counter (two FLOPs each)."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with evaluating(network), counter, torch.no_grad():
        network(one_face(network, spec))
    return counter.get_total_flops() // 2


def one_face(network: nn.Module, spec: InputSpec) -> Tensor:
    """A face of zeros, float32 (1, C, S, S), on the network's device."""
    return torch.zeros(1, spec.channels, spec.size, spec.size, device=device_of(network))


@lru_cache(maxsize=1)
def _reference(device: torch.device) -> nn.Module:
    """The reference network, built once: what its weights are does not change its speed."""
    return build(REFERENCE).eval().to(device, memory_format=torch.channels_last)


def latency_pair(model: Model, seconds: float = 0.5, most: float = 5.0) -> tuple[float, float]:
    """Seconds for one face, and their ratio to the reference's: of each the quickest answer, the two taken in turn.

    On a CPU both have one thread: with more, the ratio would depend on how many there are and what else they do. The
    quickest, since a busy machine does not slow both alike: a tiny network answers within its slice of time and the
    reference does not, so that ratios of medians came out as a tenth of what they are. The pairs take `seconds`, or
    longer until there are PAIRS of them; after `most` seconds four are enough.
    """
    reference = _reference(model.device)
    runs = [(model.network, one_face(model.network, model.input_spec))]
    runs.append((reference, one_face(reference, METHODS[REFERENCE].card.input)))
    pairs: list[tuple[float, float]] = []
    begun = time.monotonic()
    with evaluating(model.network), one_thread(), torch.inference_mode():
        while len(pairs) < 4 * PAIRS:
            spent = time.monotonic() - begun
            if spent > seconds and len(pairs) >= 2 + (PAIRS if spent < most else 4):
                break
            own, other = (_seconds(network, face) for network, face in runs)
            pairs.append((own, other))
    pairs = pairs[2:]  # the first two warm up
    own, other = (min(times) for times in zip(*pairs, strict=True))
    return own, own / other


def _seconds(network: nn.Module, face: torch.Tensor) -> float:
    """What one answer takes."""
    begun = time.perf_counter()
    network(face)
    if face.device.type in ("cuda", "mps"):  # where the call returns before the answer is there
        getattr(torch, face.device.type).synchronize()
    return time.perf_counter() - begun


def network_of(method: str, record: dict, path: Path) -> nn.Module:
    """A fresh network for weights: the method's, with the options of the grid's cell that they are of, where they are.

    Raises WeightsError where the method no longer takes them.
    """
    options = own_options(record.get("settings"))
    try:
        return builder(METHODS[method], options)(len(record["emotions"]))
    except (TypeError, ValueError, AssertionError) as error:
        told = ", ".join(f"{name} {value}" for name, value in options.items())
        if not options:
            raise
        raise WeightsError(f"{path}: {method} cannot be built with {told} any more ({error}); train it anew.") from None


def set_weights(network: nn.Module, tensors: dict[str, Tensor], record: dict, path: Path) -> None:
    """Put the tensors of a weight file, compact or full, into a network, strictly; WeightsError where they differ."""
    streams = record.get("packing", {}).get("streams", {})
    begun = {name: (stream["seed"], stream["bound"]) for name, stream in streams.items()}
    if begun != getattr(network, "seeded_tensors", {}) and "packing" in record:
        raise WeightsError(f"{path}: these weights are of another version of the network; train it anew.")
    try:
        network.load_state_dict(unpack(tensors, record["packing"]) if "packing" in record else tensors, strict=True)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: the weights do not fit the network ({reason}).") from None


def usual_recipe(method: str, track: Track, seed: int = 0) -> str:
    """The recipe that is meant where none is named.

    That of the shipped weights of the track (else of the track it is trained on) that read best on validation; the one
    that the method's card names where none are shipped, or none better.
    """
    own = METHODS[method].card.recipe
    for name in (track.name, track.trained_on):
        wanted = {"method": method, "track": name, "seed": seed}
        if rows := [row for row in read_index().values() if wanted.items() <= row.items()]:
            return max(rows, key=lambda row: (row.get("validation") or 0.0, row["recipe"] == own))["recipe"]
    return own


def weights_for(
    method: str, track: Track, recipe: str | None = None, seed: int = 0, runs: Path | None = None
) -> Path | None:
    """The weight file of a method for a track: its own where there is one, else that of the track it is trained on.

    recipe: None is `usual_recipe`, and in `runs` the one that the method's card names. What `runs`, a training output
    folder, holds comes before all that is shipped. Raises WeightsError where it is no folder.
    """
    shipped, names = recipe or usual_recipe(method, track, seed), (track.name, track.trained_on)
    found = [run_for(method, track, recipe, seed, runs), *(find(method, name, shipped, seed) for name in names)]
    return next((path for path in found if path is not None), None)


def run_for(method: str, track: Track, recipe: str | None, seed: int, runs: Path | None) -> Path | None:
    """The weight file of a training output folder that `weights_for` gives, or None: it has none, or `runs` is None.

    Raises WeightsError where it is no folder.
    """
    if runs is None:
        return None
    if not runs.is_dir():
        raise WeightsError(f"{runs}: there is no such folder of training runs; --runs takes what train got as --out.")
    recipe, names = recipe or METHODS[method].card.recipe, (track.name, track.trained_on)
    found = (find_run(runs, method, name, recipe, seed) for name in names)
    return next((path for path in found if path is not None), None)


def pinned(method: str, track: Track, recipe: str | None = None, seed: int = 0) -> dict | None:
    """The index's entry of weights that `weights_for` would give and that are published on the Hub, or None."""
    index, recipe = read_index(), recipe or usual_recipe(method, track, seed)
    entries = (index.get(index_key(method, name, recipe, seed)) for name in (track.name, track.trained_on))
    return next((entry for entry in entries if entry and entry.get("hub")), None)


def fetch(method: str, track: Track, recipe: str, seed: int) -> Path:
    """Get the weights of a method for a track from the Hub into the cache; returns their path there.

    Raises WeightsError, with the command that gets or makes them, where they are not published or out of reach, and as
    `recipe_for` does for a recipe that nothing can be trained with.
    """
    source, (target, told) = track.trained_on, mend_of(track, "add --runs runs once you have trained them with")
    names, row = " or ".join(dict.fromkeys((target, source))), f"--recipe {recipe} --seed {seed}"
    missing = f"there are no weights of {method} for {names} ({recipe}, seed {seed}) here"
    train = f"{told}: python -m fer_bench.train --method {method} --track {shlex.quote(target)} {row}"
    entry = pinned(method, track, recipe, seed)
    if entry is None:
        recipe_for(recipe, METHODS[method].card)  # what is misspelt is not to be trained
        raise WeightsError(f"{missing}; {train}")
    # Loaded by name and only here: hub stands above this layer and is the only module that talks to the Hub.
    hub = importlib.import_module("fer_bench.hub")
    try:
        return hub.fetch(entry)
    except UserError as error:
        raise WeightsError(
            f"{missing}, and fetching them failed: {error} "
            f"Once the Hub can be reached, get them with: python -m fer_bench.hub pull --method {method} "
            f"--track {source} {row}; or {train}"
        ) from error


def not_in(runs: Path, method: str, track: Track, recipe: str, seed: int) -> str:
    """The sentence on weights that a training output folder lacks: what it holds, and the mend."""
    names = " or ".join(dict.fromkeys((track.name, track.trained_on)))
    there = held(runs, method)
    mend = f", but {there}. Ask for these, or" if there else ", nor any finished run; give another folder, or"
    lacking = f"{runs} holds no weights of {method} for {names} ({recipe}, seed {seed})"
    return f"{lacking}{mend} leave out --runs (in Python runs=) for the weights that are shipped."


def load(
    name: str,
    track: str = "fer2013",
    recipe: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    runs: str | Path | None = None,
) -> Model:
    """A method with the weights of a track, ready to predict.

    recipe: None is that of the shipped weights that read best on the track's validation split, and with `runs` the one
    on the method's card, common-v1 for nearly all.
    Weights are looked for in `runs` (a training output folder) and nowhere else where that is given, else in weights/,
    in the cache and, where the index pins a copy of them, on the Hub. Transfer tracks (`rendered`, `folder:PATH`) take
    those of the track they were trained on. Raises UnknownNameError for an unknown method, track or, without
    `runs`, recipe; WeightsError, with the command that gets them or with what `runs` holds, where there are no weights.
    """
    METHODS[name]  # an unknown one is said before missing weights are
    wanted = track_named(track)
    recipe = recipe or (usual_recipe(name, wanted, seed) if runs is None else METHODS[name].card.recipe)
    folder = None if runs is None else Path(runs)
    path = (weights_for if folder is None else run_for)(name, wanted, recipe, seed, folder)
    if path is None and folder is not None:
        raise WeightsError(not_in(folder, name, wanted, recipe, seed))
    if path is None:
        path = fetch(name, wanted, recipe, seed)
    tensors, record = read_tensors(path)
    if record["method"] != name:
        raise WeightsError(f"{path}: these are the weights of {record['method']}, not of {name}.")
    if record["track"] != wanted.trained_on and not same_track(record["track"], wanted.name):
        raise WeightsError(f"{path}: these weights are of {record['track']}, not of {wanted.trained_on}.")
    network = network_of(name, record, path)
    set_weights(network, tensors, record, path)
    record |= {"sha256": sha256(path), "bytes": path.stat().st_size}
    if folder is None:
        check_indexed(path, record)
    network.eval().to(best_device(device), memory_format=torch.channels_last)  # up to 1.8 times as fast on a CPU
    return Model(name, network, InputSpec.from_dict(record["input"]), tuple(record["emotions"]), record, path)
