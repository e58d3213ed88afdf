"""What training starts from: its two splits and, where asked, weights of this project; and what it may not replace."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fer_bench.cards import Track
from fer_bench.datasets import FaceSet, data_folder, forbid_split, load_dataset
from fer_bench.datasets.stream import InMemory, Listed, Source, Streamed, to_stream
from fer_bench.distributed import Processes
from fer_bench.errors import DataError, UserError
from fer_bench.files import label, track_folder
from fer_bench.history import HASH, by_hash
from fer_bench.methods.base import METHODS, Method
from fer_bench.methods.options import method_options, own_options
from fer_bench.protocols import seen_test
from fer_bench.records import full_epochs
from fer_bench.weights import OWN, WeightsError, find, read_tensors, record_of, sha256, unpack

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
        whole = load_dataset(track.dataset, track.validation)
        if not track.emotions:  # else the track says so
            whole = whole.noted(train.emotions, f"its {track.train} split has no")
        whole = whole.restrict(train.emotions, lacking=True)
    known = ", ".join(train.emotions) or "none"
    if len(train.emotions) < 2:
        raise UserError(f"{track.name} has too few emotions to tell apart in its training split ({known}).")
    if not len(whole):
        none = f"no picture of what is trained on ({known}) in its {track.validation} split"
        raise DataError(f"{track.name} has {none}, so that no epoch could be chosen; add some.")
    return train, whole.limit(limit_validation)


def source_of(train: FaceSet | Listed, device: torch.device, sharing: int) -> Source:
    """Where training gets the split's batches from. sharing: processes of this machine that do so."""
    if isinstance(train, FaceSet):
        return InMemory(torch.from_numpy(train.images).to(device), torch.from_numpy(train.labels).to(device))
    return Streamed(train, device, sharing=sharing)


def check_alike(
    identity: Mapping[str, object], track: Track, sizes: tuple[int, int], settings: Mapping[str, object], of: Processes
) -> None:
    """Raise UserError, in all processes, where one of them reads other pictures than process 0, or does other things.

    identity: what a checkpoint may be resumed by. sizes: pictures of the training and of the validation split.
    settings: what else all must have been given alike. Called by all.
    """
    kind, _, path = track.dataset.partition(":")
    folder = Path(path).expanduser() if kind in OWN and path else data_folder(track.dataset)
    place = f"{socket.gethostname()}:{'' if folder is None else label(folder.resolve())}"
    told = json.dumps({"read": f"{sizes[0]:,} and {sizes[1]:,} pictures of {place}", **identity, **settings})
    said = [json.loads(one) for one in of.gathered(told)]
    differing = {rank: [k for k in said[0] | one if one.get(k) != said[0].get(k)] for rank, one in enumerate(said)}
    pictures = [rank for rank, names in differing.items() if {"data", "validation"} & {*names}]
    if pictures:
        read = ", ".join(f"process {rank} read {said[rank]['read']}" for rank in pictures)
        raise UserError(
            f"the processes do not have the same pictures to train on and to choose by: {read}, process 0 "
            f"{said[0]['read']}; give all of them the same copy."
        )
    others = {rank: names for rank, found in differing.items() if (names := [name for name in found if name != "read"])}
    if others:
        given = ", ".join(f"process {rank} has another {', '.join(names)}" for rank, names in others.items())
        raise UserError(f"{given} than process 0; start all of them with the same command.")


def start_file(given: str | None, method: Method, track: Track, recipe: str) -> Path | None:
    """The weight file that `--start-from` means: a path, or "shipped" for this track's own weights, else fer2013's.

    Or the beginning of a SHA-256, as `history.by_hash` takes it. None for None, which is to start from nothing. Raises
    UserError where there is no such file.
    """
    if given is None:
        return None
    if given != SHIPPED:
        if not Path(given).is_file():
            if HASH.fullmatch(given):
                return by_hash(given, method.card.name)
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


def start_from(
    path: Path,
    method: Method,
    network: nn.Module,
    emotions: tuple[str, ...],
    track: Track,
    settings: Mapping[str, object] | None = None,
) -> dict:
    """Load a weight file into a fresh network of the same method; returns what `Trained` says of it.

    What there is once per class goes by the emotion's name: an emotion that the file does not know keeps its fresh
    weights, and what depends on the number of classes in another way starts fresh, which is said on standard error.
    settings: what a grid says of this cell. Raises WeightsError (a UserError) for a file that is missing or broken,
    UserError for another method's, for one of other options and for one that has seen, or started from one that has
    seen, what `track` tests on.
    """
    tensors, record = read_tensors(path)
    if "packing" not in record:
        raise UserError(f"{path}: this is a checkpoint to resume from; --start-from wants a model.safetensors.")
    if record["method"] != method.card.name:
        raise UserError(f"{path}: these weights are {record['method']}'s; {method.card.name} cannot start from them.")
    theirs, ours = own_options(record.get("settings")), own_options(settings)
    if theirs != ours and {**(usual := method_options(METHODS[method.card.name])[1]), **theirs} != {**usual, **ours}:
        told = [", ".join(f"{key} {value}" for key, value in of.items()) or "no options" for of in (theirs, ours)]
        raise UserError(f"{path}: these weights are of a network with {told[0]}, and this one has {told[1]}.")
    known, state = tuple(record["emotions"]), unpack(tensors, record["packing"])
    if known != emotions:
        names, others = per_class(method, len(known))
        state = by_emotion(state, known, network.state_dict(), emotions, names, others)
        if others:
            told = f"{', '.join(sorted(others))} does not hold one row for each emotion"
            print(f"{method.card.name}: {told}, so it starts fresh: these weights know others.", file=sys.stderr)
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


@dataclass(frozen=True)
class Standing:
    """The run whose record stands in a folder; one that saw nothing where there is none."""

    pictures: int = 0
    """How many it saw."""
    best: float = -1.0
    """Validation accuracy of the epoch that its weights are of, before they were made compact."""
    start: str = ""
    """First 12 digits of the hash of the weights that it started from; "" for none."""

    def stays(self, pictures: int, best: float, gained: bool) -> str:
        """Why its weights stay where a run that was cut ends with such figures; "" where they are to be replaced.

        gained: whether this call completed an epoch: if not, what it has are those of the call before, or a part of
        an epoch.
        """
        if pictures < self.pictures:
            return f"they saw {self.pictures:,} pictures, and this call has {pictures:,}"
        if not gained and round(best, 5) < self.best:
            return f"they read {self.best:.4f} on validation, and this call, which completed no epoch, {best:.4f}"
        return ""


def standing(folder: Path) -> Standing:
    """The run whose record stands in the folder. Raises UserError where it is none."""
    path = folder / "record.json"
    if not path.is_file():
        return Standing()
    try:
        record = json.loads(path.read_text())
        trained, curve = record["trained"], record.get("curve") or []
        earlier, epoch = trained.get("earlier"), trained.get("best_epoch") or 0
        # The last word of the first row is the weights' hash in brackets.
        start = earlier["weights"][0].split()[-1].strip("()") if earlier else ""
        best = curve[epoch - 1][2] if 0 < epoch <= len(curve) else -1.0
        return Standing(int(trained["pictures_seen"]), float(best), start)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise UserError(f"{path}: this is no record of a training run; remove it, or give another --out.") from None


def check_standing(folder: Path, start: Path | None, asked: int, whole: bool) -> Standing:
    """Raise UserError where a run would replace one that saw clearly more pictures, or that started elsewhere.

    That is a run with a record, or one that was stopped or killed before it had one: what its checkpoint saw counts.
    Returns the one with a record.

    folder: of both. start: the new run's weight file. asked: how many pictures it will see; whole: or may end after so
    many. A tenth fewer may be: some pictures were taken out of the same data.
    """
    found, last = standing(folder), folder / "last.safetensors"
    stand = []
    if (folder / "record.json").is_file():
        stand.append(("a run already, which", found.pictures, found.start, ""))
    if last.is_file():
        try:
            record = record_of(last)
            state, origin = record["state"], record["identity"].get("start", "")[:12]
            seen, epochs = int(state["pictures"]), len(state["curve"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{last}: this is no checkpoint to weigh; remove it, or give another --out.") from None
        if seen > found.pictures:  # else the record tells of its end
            stand.append((f"an unfinished run of {epochs} epoch(s), which", seen, origin, "go on with --resume, "))
    for what, seen, origin, mend in stand:
        if origin != ("" if start is None else sha256(start)[:12]):
            why = "had another start (--start-from)"
        elif 0.9 * seen > asked:
            why = f"saw {seen:,} pictures, and this one " + (f"will see {asked:,}" if whole else "may end sooner")
        else:
            continue
        raise UserError(f"{folder} holds {what} {why}; {mend}give another --out, or remove that folder first.")
    return found


def per_class(method: Method, classes: int) -> tuple[set[str], set[str]]:
    """The names of the tensors with one row for each class, and of those that depend on their number in another way."""
    few, more = method.build(classes).state_dict(), method.build(classes + 1).state_dict()
    growing = {name for name, tensor in few.items() if name not in more or tensor.shape != more[name].shape}
    rows = {
        name for name in growing & more.keys() if few[name].ndim and len(few[name]) == classes == len(more[name]) - 1
        and few[name].shape[1:] == more[name].shape[1:]
    }  # fmt: skip
    return rows, growing - rows | (more.keys() - few.keys())


def by_emotion(
    state: Mapping[str, Tensor],
    known: tuple[str, ...],
    fresh: Mapping[str, Tensor],
    emotions: tuple[str, ...],
    names: set[str],
    others: set[str] = frozenset(),
) -> dict[str, Tensor]:
    """`state` for `emotions` instead of `known`: the tensors `names` (classes first) are put together row by row.

    others: those that are as in `fresh`, where it has them.
    """
    result = {name: tensor for name, tensor in state.items() if name not in others}
    result |= {name: fresh[name].detach().cpu().clone() for name in others if name in fresh}
    for name in names:
        result[name] = fresh[name].detach().cpu().clone()
        for row, emotion in enumerate(emotions):
            if emotion in known:
                result[name][row] = state[name][known.index(emotion)]
    return result
