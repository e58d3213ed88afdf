"""Where training may start from: weights that this project's training wrote, for a longer budget or another track."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from fer_bench.cards import Track
from fer_bench.errors import UserError
from fer_bench.methods.base import Method
from fer_bench.protocols import selected_on_test
from fer_bench.weights import WeightsError, find, read_tensors, sha256, unpack

SHIPPED = "shipped"


def start_file(given: str | None, method: Method, track: Track, recipe: str) -> Path | None:
    """The weight file that `--start-from` means: a path, or "shipped" for this track's own weights, else fer2013's.

    None for None, which is to start from nothing. Raises UserError where there is no such file.
    """
    if given is None:
        return None
    if given != SHIPPED:
        if not Path(given).is_file():
            raise WeightsError(f"{given}: there is no such weight file.")
        return Path(given)
    name, own = method.card.name, method.card.recipe
    tried = ((track.name, recipe), (track.name, own), ("fer2013", own))
    path = next((path for where, how in tried if (path := find(name, where, how)) is not None), None)
    if path is None:
        raise UserError(
            f"{name} has no shipped weights for {track.name} or fer2013; leave out --start-from, or give it a file."
        )
    return path


def start_from(path: Path, method: Method, network: nn.Module, emotions: tuple[str, ...], track: Track) -> dict:
    """Load a weight file into a fresh network of the same method; returns what `Trained` says of it.

    What there is once per class goes by the emotion's name: an emotion that the file does not know keeps its fresh
    weights. Raises WeightsError (a UserError) for a file that is missing or broken, UserError for another method's and
    for one that was, or started from one that was, selected on what `track` tests on.
    """
    tensors, record = read_tensors(path)
    if "packing" not in record:
        raise UserError(f"{path}: this is a checkpoint to resume from; --start-from wants a model.safetensors.")
    if record["method"] != method.card.name:
        raise UserError(f"{path}: these weights are {record['method']}'s; {method.card.name} cannot start from them.")
    known, state = tuple(record["emotions"]), unpack(tensors, record["packing"])
    if known != emotions:
        state = by_emotion(state, known, network.state_dict(), emotions, per_class(method, len(known)))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: {method.card.name} has changed since these weights ({error}).") from None
    trained = record["trained"]
    row = f"{record['method']}/{record['track']}/{record['recipe']}-s{record['seed']} ({sha256(path)[:12]})"
    before = trained.get("earlier") or {"weights": [], "epochs": 0, "pictures_seen": 0}
    chosen = selected_on_test(record, track)
    if chosen:
        raise UserError(f"{path}: {chosen}; leave out --start-from.")
    earlier = {
        "weights": [row, *before["weights"]], "track": record["track"],
        "epochs": before["epochs"] + trained["epochs"],
        "pictures_seen": before["pictures_seen"] + trained["pictures_seen"],
    }  # fmt: skip
    return {"pretrained": trained.get("pretrained"), "earlier": earlier}


def per_class(method: Method, classes: int) -> set[str]:
    """The names of the tensors that grow with the number of classes."""
    few, more = method.build(classes).state_dict(), method.build(classes + 1).state_dict()
    return {name for name, tensor in few.items() if tensor.shape != more[name].shape}


def by_emotion(
    state: Mapping[str, Tensor],
    known: tuple[str, ...],
    fresh: Mapping[str, Tensor],
    emotions: tuple[str, ...],
    names: set[str],
) -> dict[str, Tensor]:
    """`state` for `emotions` instead of `known`: the tensors `names` (classes first) are put together row by row."""
    result = dict(state)
    for name in names:
        result[name] = fresh[name].detach().cpu().clone()
        for row, emotion in enumerate(emotions):
            if emotion in known:
                result[name][row] = state[name][known.index(emotion)]
    return result
