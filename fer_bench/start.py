"""What training starts from: its two splits and, where asked, weights of this project; and what it may not replace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from fer_bench.cards import Track
from fer_bench.datasets import FaceSet, forbid_split, load_dataset
from fer_bench.datasets.stream import Listed, to_stream
from fer_bench.errors import DataError, UserError
from fer_bench.files import track_folder
from fer_bench.methods.base import Method
from fer_bench.protocols import seen_test
from fer_bench.records import full_epochs
from fer_bench.weights import WeightsError, find, read_tensors, sha256, unpack

SHIPPED = "shipped"


def splits_of(
    track: Track, stream: bool | None, limit: int | None, limit_validation: int | None
) -> tuple[FaceSet | Listed, FaceSet]:
    """The training split, in memory or (`stream`, see `to_stream`) as files, and the validation split of its emotions.

    The test split is out of reach meanwhile. Raises DataError where data is missing or no epoch could be chosen by it,
    UserError where there is nothing to tell apart.
    """
    with forbid_split(track.test):
        files = to_stream(track.dataset, track.train, stream)
        pictures = load_dataset(track.dataset, track.train) if files is None else files
        train = pictures.restrict(track.emotions).limit(limit)
        whole = load_dataset(track.dataset, track.validation).restrict(train.emotions, lacking=True)
    known = ", ".join(train.emotions) or "none"
    if len(train.emotions) < 2:
        raise UserError(f"{track.name} has too few emotions to tell apart in its training split ({known}).")
    if not len(whole):
        none = f"no picture of what is trained on ({known}) in its {track.validation} split"
        raise DataError(f"{track.name} has {none}, so that no epoch could be chosen; add some.")
    return train, whole.limit(limit_validation)


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
    for one that has seen, or started from one that has seen, what `track` tests on.
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
    track_name = track_folder(record["track"])  # records are published: no path of one's own pictures
    row = f"{record['method']}/{track_name}/{record['recipe']}-s{record['seed']} ({sha256(path)[:12]})"
    before = trained.get("earlier") or {"weights": [], "epochs": 0, "pictures_seen": 0}
    seen = seen_test(record, track)
    if seen:
        raise UserError(f"{path}: {seen}; leave out --start-from, or give it another file.")
    epochs = full_epochs(trained["epochs"], trained["pictures_seen"], trained.get("train_pictures"))
    earlier = {
        "weights": [row, *before["weights"]], "track": track_name,
        "epochs": before["epochs"] + epochs,
        "pictures_seen": before["pictures_seen"] + trained["pictures_seen"],
    }  # fmt: skip
    return {"pretrained": trained.get("pretrained"), "earlier": earlier, "stages": trained.get("stages")}


def check_standing(folder: Path, start: Path | None, asked: int, whole: bool) -> int:
    """Raise UserError where a run would replace one that saw clearly more pictures, or that started elsewhere.

    Returns how many pictures the one that stands there saw.

    folder: of both. start: the new run's weight file. asked: how many pictures it will see; whole: or may end after so
    many. A tenth fewer may be: some pictures were taken out of the same data.
    """
    path = folder / "record.json"
    if not path.is_file():
        return 0
    try:
        trained = json.loads(path.read_text())["trained"]
        seen, earlier = int(trained["pictures_seen"]), trained.get("earlier")
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: this is no record of a training run; remove it, or give another --out.") from None
    came = earlier["weights"][0].split()[-1] if earlier else ""  # its last word is the weights' hash in brackets
    if came != ("" if start is None else f"({sha256(start)[:12]})"):
        why = "had another start (--start-from)"
    elif 0.9 * seen > asked:
        why = f"saw {seen:,} pictures, and this one " + (f"will see {asked:,}" if whole else "may end sooner")
    else:
        return seen
    raise UserError(f"{folder} holds a run already, which {why}; give another --out, or remove that folder first.")


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
