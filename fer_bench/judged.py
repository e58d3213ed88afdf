"""What can be judged: weights that are here or on the Hub, and networks of one's own; over which emotions."""

from __future__ import annotations

import functools
import hashlib
import re
import shlex
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fer_bench.cards import InputSpec, Track
from fer_bench.datasets import DATASETS, FaceSet, data_folder, duplicated_in, load_dataset
from fer_bench.datasets.base import original_hash, tell
from fer_bench.emotions import canonical, in_order
from fer_bench.errors import DataError, Failure, UserError
from fer_bench.infer import Model, not_in, pinned, run_for, usual_recipe, weights_for
from fer_bench.methods import METHODS
from fer_bench.metrics import NOT_LOGITS, are_probabilities, restrict_logits
from fer_bench.networks import check_network
from fer_bench.protocols import RECIPES, TRACKS, recipe_for, track_named
from fer_bench.weights import WeightsError, find, mend_of, record_of, same_track

OWN = "own"
"""What stands for the track and the recipe of a network that was trained elsewhere, with nothing known of how."""


def recorded(model: Model) -> Model:
    """The model with the record that judging it needs: its own, and where it is one's own network, what is known of it.

    Raises UserError, saying how to wrap it, for a bare network, for one without parameters in torch (of `onnx_model`),
    as `check_network` does, and for emotions that do not fit.
    """
    if not isinstance(model, Model):
        raise UserError(
            f"a {type(model).__name__} does not say what it reads and what its outputs mean; give a model of load(), "
            "or wrap it: fer_bench.Model('my_network', network, fer_bench.InputSpec(size=48, channels=1, mean=(0.5,), "
            "std=(0.25,)), emotions), with the emotions in the order of its outputs."
        )
    if not isinstance(model.name, str) or not isinstance(model.input_spec, InputSpec):
        wrong = model.input_spec if isinstance(model.name, str) else model.name
        asked = "input_spec must be a fer_bench.InputSpec" if wrong is model.input_spec else "name must be text"
        raise UserError(f"{model.name}: its {asked}, not a value of type {type(wrong).__name__}.")
    check_network(model.name, model.network)
    if not any(True for _ in model.network.parameters()):
        raise UserError(
            f"{model.name} has no parameters in torch; judge the torch model that it was made from, or, of what only "
            "computes elsewhere, make a submission: python -m fer_bench.submissions."
        )
    if "track" in model.record:
        return model
    try:
        emotions = tuple(canonical(name) for name in model.emotions)
    except ValueError as error:
        raise UserError(f"{model.name}: {error}.") from None
    if twice := [name for name in dict.fromkeys(emotions) if emotions.count(name) > 1]:
        raise UserError(f"{model.name}: several of its outputs are {twice[0]}; give each output an emotion of its own.")
    if not re.fullmatch("[a-z0-9_]+", model.name):
        raise UserError(f"the name {model.name!r} may hold small letters, digits and _ only; give another.")
    digest, size = hashlib.sha256(), 0
    for name, tensor in sorted(model.network.state_dict().items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(name.encode() + b"\0" + content.tobytes())
        size += content.nbytes
    record = {
        "track": OWN, "recipe": OWN, "seed": 0, "sha256": digest.hexdigest(), "bytes": size,
        "packing": {"storage": "float32"}, "accuracy_loss": None,
        "trained": {"track": OWN, "complete": False, "selection": "by its authors"},
    }  # fmt: skip
    return replace(model, emotions=emotions, record=record | model.record)


def judgeable(dataset: FaceSet | str) -> FaceSet | str:
    """What `benchmark` judges on, as it is. Raises UserError, saying what it takes, for anything else."""
    if isinstance(dataset, FaceSet | str):
        return dataset
    raise UserError(
        f"a {type(dataset).__name__} does not say what its pictures show; give the name of a track ('rendered', "
        "'folder:PATH'), a set of load_dataset(), or a fer_bench.FaceSet."
    )


def widened(faces: FaceSet, model: Model, track: Track) -> FaceSet:
    """The pictures under all emotions of a model that was trained on the very track, whose test may lack some.

    Left out of its answers, such an emotion would make the others easier to tell. A track with emotions of its own, and
    pictures that the model was not trained on, stay as they are: there the shared emotions are scored. A note says what
    is lacking, on standard error too.
    """
    if track.emotions or not same_track(model.record["track"], track.name):
        return faces
    return faces.restrict(in_order((*faces.emotions, *model.emotions)), lacking=True)


def overlapping(faces: FaceSet, model: Model) -> FaceSet:
    """One's own pictures, with a note on those that the model's weights were trained or selected on.

    Where these were those of a track of the project, and its pictures are here: else that is not known, which the note
    says. The first is said on standard error too. Pictures of a data set stay as they are.
    """
    home = model.record["track"]
    if faces.originals is None or home not in TRACKS:
        return faces
    try:
        seen = _seen(home, str(data_folder(TRACKS[home].dataset)))
    except DataError:
        note = f"whether weights of {home} have seen some of these pictures is not known, as its pictures are not here"
        return replace(faces, notes=(*faces.notes, note))
    found = sum(digest in seen for digest in faces.originals)
    if not found:
        return faces
    note = (
        f"{found:,} of the {len(faces):,} pictures are among those that weights of {home} were trained or selected on"
    )
    tell(f"{faces.name} ({faces.split}): {note}")
    return replace(faces, notes=(*faces.notes, note))


@functools.lru_cache(maxsize=4)
def _seen(track: str, _folder: str) -> frozenset[bytes]:
    """What `original_hash` gives of a track's training and validation pictures. Raises DataError for missing data."""
    home = TRACKS[track]
    splits = [load_dataset(home.dataset, split) for split in (home.train, home.validation)]
    return frozenset(original_hash(Image.fromarray(image)) for faces in splits for image in faces.images)


def duplicates_in_train(faces: FaceSet, track: Track, trained_on: str | None = None) -> tuple[np.ndarray | None, str]:
    """bool (N,), which test pictures also stand in the training split; and why that is not known, or "".

    trained_on: the track that the weights were trained on; None is the one that the track names. None is returned where
    the training pictures are not read: they are another track's, are not here, or do not fit into memory (training can
    stream them). The accuracy without duplicates is then left out of the result.
    """
    if (trained_on or track.trained_on) != track.name:
        return None, ""
    if track.dataset in DATASETS and DATASETS[track.dataset].apart:
        return np.zeros(len(faces), dtype=bool), ""
    try:
        return duplicated_in(faces, load_dataset(track.dataset, track.train).restrict(track.emotions)), ""
    except DataError as error:
        return None, f"the search for {track.name}'s test pictures in its training split: {error}"


def scorable(answers: np.ndarray, model: Model, emotions: Sequence[str], track: Track) -> np.ndarray:
    """Answers (N, K) of a model over the emotions that are scored, (N, len(emotions)).

    Raises UserError where they are probabilities, as submissions are refused for, and where one is not finite.
    """
    if are_probabilities(answers):
        raise UserError(f"{model.name} {NOT_LOGITS}")
    answers = restrict_logits(answers, model.emotions, emotions)
    broken = int((~np.isfinite(answers)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"{model.name} answers {broken:,} of {len(answers):,} pictures of {track.name} with NaN or infinity; "
            "its weights are broken: fetch them again or train anew."
        )
    return answers


def no_weights(missing: list[str], track: Track, recipe: str | None, seed: int, runs: Path | None = None) -> str:
    """The line on methods without weights of a recipe and seed, with the command that trains those that have it.

    It trains into `runs`, so that the command that lacked the weights finds them; without one, into what then has to be
    given to --runs. See `mend_of` for one's own pictures.
    """
    every = set(missing) == set(METHODS)
    which = f"{recipe or 'the recipe of its card'}, seed {seed}"
    told = f"{track.name}: no weights of {'any method' if every else ', '.join(missing)} ({which})"
    papers = {name for name in missing if recipe == "paper" and METHODS[name].card.paper_recipe is not None}
    able = [name for name in missing if recipe in (None, *RECIPES) or name in papers]
    if not able:
        return f"{told}."
    chosen = "--missing" if every else f"--method {' '.join(able)}"
    here = "train them with" if runs else "add --runs runs once you have trained them with"
    target, mend = mend_of(track, here, runs)
    chosen += f" --track {shlex.quote(target)}" + (f" --recipe {shlex.quote(recipe)}" if recipe else "")
    chosen += (f" --seed {seed}" if seed else "") + (f" --out {shlex.quote(str(runs))}" if runs else "")
    transfer = f"{track.name}-transfer"
    shipped = f"; or judge {TRACKS[transfer].trained_on}'s on it: --track {transfer}" if transfer in TRACKS else ""
    return f"{told}; {mend}: python -m fer_bench.train {chosen}{shipped}"


def check_recipe(methods: list[str], tracks: list[str], recipe: str, seed: int = 0, runs: Path | None = None) -> None:
    """Raise, as `recipe_for` does, for a recipe that no method here can be trained with and has no weights of either.

    A grid's cell, say, has weights of a recipe that only --runs knows.
    """
    chosen = [(method, track_named(name), recipe, seed) for name in tracks for method in methods]
    if not any(weights_for(*one, runs) or pinned(*one) for one in chosen):
        for method in methods:
            recipe_for(recipe, METHODS[method].card)


def as_trained(track: Track, methods: Sequence[str], recipe: str | None, seed: int, runs: Path | None) -> Track:
    """One's own pictures under the name that runs on them in `runs` were trained with, else the track itself.

    So rows of a folder that is written in another way stand in the same table. Where runs bear several names it is that
    of the first method's.
    """
    paths = (run_for(method, track, recipe, seed, runs) for method in methods)
    names = (record_of(path).get("track") for path in paths if path is not None)
    return next((track_named(name) for name in names if same_track(name, track.name)), track)


def check_runs(methods: list[str], tracks: list[str], recipe: str | None, seed: int, runs: Path) -> None:
    """Raise WeightsError, saying what it holds, for a training output folder that has none of what is asked for.

    Where it has some, the others' shipped weights are judged beside them.
    """
    asked = [(method, track_named(name)) for name in tracks for method in methods]
    if all(run_for(method, track, recipe, seed, runs) is None for method, track in asked):
        method, track = asked[0]
        raise WeightsError(not_in(runs, method, track, recipe or METHODS[method].card.recipe, seed))


def recipes_here(method: str) -> dict[str, list[str]]:
    """Track -> the recipes of the method's weights for it that are here, seed 0, first that of `usual_recipe`."""
    found: dict[str, list[str]] = {}
    for name in TRACKS:
        usual = usual_recipe(method, TRACKS[name])
        names = dict.fromkeys((usual, METHODS[method].card.recipe, "paper", *RECIPES))
        if here := [recipe for recipe in names if find(method, name, recipe)]:
            found[name] = here
    return found


def failure(what: str, error: Exception) -> Failure:
    """The line on what went wrong with one row. The traceback of a defect goes to standard error.

    A defect is what is no UserError: of a method's own code, or of a library on this device.
    """
    if isinstance(error, UserError):
        return Failure(f"{what}: {error}")
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Failure(f"{what}: too little memory; use another --device")
    traceback.print_exception(error)
    return Failure(f"{what}: {type(error).__name__}: {error}")
