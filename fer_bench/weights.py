"""Weight files: safetensors written atomically, the compact form that is shipped, and the index of shipped files.

The compact form ("fp16+int8") is what is evaluated and published: matrices and kernels of 2**16 elements and more are
int8 with one float32 scale per output channel, smaller ones float16, vectors (biases, batch-norm statistics) float32.
A tensor that a network initialises from a fixed stream (`seeded_tensors`, awei's 45M-weight layer) is stored as that
stream's seed plus the int8 factors of the low-rank update that training made. Nothing is ever unpickled.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import hashlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fer_bench.cards import Track
from fer_bench.errors import UserError
from fer_bench.files import OutputError, alone_in, atomic_write, make_folder, replace_with, track_folder

INSTALLED = "share/fer_bench/weights"
"""Where an installed package has its weights, below the prefix (or the --target) that it is installed to."""
INT8_FROM = 2**16
RANK = 64
STORAGE = "fp16+int8"
OWN = ("folder", "csv")
"""What the names of tracks of one's own pictures begin with."""
NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
"""A method's or a recipe's name: files are called by it, so that it must lead to no other folder."""
_KEY = "fer_bench"
_EMPTY: Mapping[str, tuple[int, float]] = {}


class WeightsError(UserError):
    """A weight file that is missing, broken or of another network; the text names it and the mend."""


def weights_folder() -> Path:
    """`$FER_BENCH_WEIGHTS`, else weights/ of the checkout, else what was installed with the package, else ./weights."""
    if os.environ.get("FER_BENCH_WEIGHTS"):
        return Path(os.environ["FER_BENCH_WEIGHTS"]).expanduser()
    package = Path(__file__).resolve().parent
    if (package.parent / "pyproject.toml").is_file():
        return package.parent / "weights"
    places = (above / INSTALLED for above in package.parents[:4])
    return next((place for place in places if (place / "index.json").is_file()), Path("weights"))


def cache_folder() -> Path:
    """Where weights fetched from the Hub lie: `$FER_BENCH_CACHE`/weights, else ~/.cache/fer_bench/weights."""
    return Path(os.environ.get("FER_BENCH_CACHE") or "~/.cache/fer_bench").expanduser() / "weights"


def cached(entry: Mapping) -> Path:
    """Where the file of an index entry lies once fetched, named by its hash: another file can never pass for it."""
    return cache_folder() / entry["sha256"][:16] / entry["file"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: dict) -> None:
    """Write tensors and a JSON record as one safetensors file: whole or not at all. Raises OutputError."""
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        contiguous: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            tensor = tensor.detach().cpu().contiguous()
            shared = any(tensor.data_ptr() == other.data_ptr() for other in contiguous.values())  # as tied weights do
            contiguous[name] = tensor.clone() if shared else tensor
        save_file(contiguous, temporary, metadata={_KEY: json.dumps(record)})
        os.chmod(temporary, 0o644)
        replace_with(temporary, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} cannot be written: {error}.") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The reverse of `write_tensors`. Raises WeightsError where the file is missing, broken or not of this project."""
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such weight file.")
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118 (not a dict)
    except KeyError:
        raise WeightsError(f"{path}: no fer_bench record in it; it was not written by fer_bench.train.") from None
    except (SafetensorError, OSError, ValueError) as error:
        mend = "get it again or train anew"
        raise WeightsError(f"{path}: this is not a readable safetensors file ({error}); {mend}.") from None


def seeded_uniform(shape: tuple[int, ...], seed: int, bound: float) -> Tensor:
    """float32, uniform in [-bound, bound), from NumPy's PCG64: the same numbers on every platform and version."""
    draw = np.random.Generator(np.random.PCG64(seed)).random(shape, dtype=np.float32)
    return torch.from_numpy(draw).mul_(2 * bound).sub_(bound)


def pack(
    state: Mapping[str, Tensor], seeded: Mapping[str, tuple[int, float]] = _EMPTY
) -> tuple[dict[str, Tensor], dict]:
    """A state_dict in the compact form, and the JSON note that `unpack` needs.

    seeded: tensor name -> (seed, bound) of the `seeded_uniform` it was initialised from.
    """
    packed: dict[str, Tensor] = {}
    streams: dict[str, dict] = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        if name in seeded:
            seed, bound = seeded[name]
            start = seeded_uniform(tuple(tensor.shape), seed, bound)
            keep = float((tensor.double() * start).sum() / start.double().square().sum())  # least squares
            generator_state = torch.get_rng_state()
            torch.manual_seed(0)  # svd_lowrank draws from the global stream
            left, size, right = torch.svd_lowrank(tensor.float() - keep * start, q=RANK, niter=4)
            torch.set_rng_state(generator_state)
            for part, factor in (("left", left * size.sqrt()), ("right", right * size.sqrt())):
                packed[f"{name}:{part}"], packed[f"{name}:{part}_scale"] = _quantise(factor.T.contiguous())
            streams[name] = {"seed": seed, "bound": bound, "keep": keep}
        elif tensor.is_floating_point() and tensor.ndim >= 2:
            largest = tensor.abs().max().item() if tensor.numel() else 0.0
            if not math.isfinite(largest):  # an attention's mask of -inf, say, of which no scale can be made
                packed[name] = tensor.float()
            elif tensor.numel() >= INT8_FROM:
                packed[f"{name}:int8"], packed[f"{name}:scale"] = _quantise(tensor.float())
            else:
                fits = largest <= torch.finfo(torch.float16).max
                packed[name] = tensor.to(torch.float16) if fits else tensor.float()
        else:
            packed[name] = tensor.clone()
    return packed, {"storage": STORAGE, "streams": streams}


def unpack(packed: Mapping[str, Tensor], note: dict) -> dict[str, Tensor]:
    """The float32 state_dict that `pack` stored. Raises KeyError where parts are missing."""
    state: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        base, _, part = name.partition(":")
        if part == "int8":
            state[base] = _dequantise(tensor, packed[f"{base}:scale"])
        elif part == "left":
            stream = note["streams"][base]
            left = _dequantise(tensor, packed[f"{base}:left_scale"])
            right = _dequantise(packed[f"{base}:right"], packed[f"{base}:right_scale"])
            shape = (left.shape[1], right.shape[1])
            start = seeded_uniform(shape, stream["seed"], stream["bound"])
            state[base] = torch.addmm(start, left.T, right, beta=stream["keep"])
        elif not part:
            state[base] = tensor.float() if tensor.is_floating_point() else tensor
    return state


def _quantise(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 of the same shape and float32 (out,): symmetric, one scale per index of the first axis."""
    flat = tensor.reshape(len(tensor), -1)
    scale = flat.abs().amax(1).clamp(min=1e-12) / 127
    return (flat / scale[:, None]).round().to(torch.int8).reshape(tensor.shape), scale


def _dequantise(values: Tensor, scale: Tensor) -> Tensor:
    return values.float() * scale.view(-1, *[1] * (values.ndim - 1))


def sha256(path: Path) -> str:
    """64 hex digits over the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_ENTRY = {"method", "track", "recipe", "seed", "file", "bytes", "sha256", "hub", "revision"}


def read_index(folder: Path | None = None) -> dict[str, dict]:
    """weights/index.json: "<method>/<track>/<recipe>-s<seed>" -> its entry. Empty where there is none."""
    path = (folder or weights_folder()) / "index.json"
    if not path.is_file():
        return {}
    try:
        index = json.loads(path.read_text())
        for key, entry in index.items():
            if lacking := sorted(_ENTRY - entry.keys()):
                raise ValueError(f"{key} has no {', '.join(lacking)}")
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: this is no index of weights ({error}); restore it with git checkout.") from None
    return index


def find(method: str, track: str, recipe: str = "common-v1", seed: int = 0, runs: Path | None = None) -> Path | None:
    """The weight file of a row: of a training output folder `runs`, else shipped, else fetched before, or None."""
    if runs is not None and (path := find_run(runs, method, track, recipe, seed)) is not None:
        return path
    entry = read_index().get(index_key(method, track, recipe, seed))
    places = (weights_folder() / entry["file"], cached(entry)) if entry else ()
    return next((path for path in places if path.is_file()), None)


def find_run(runs: Path, method: str, track: str, recipe: str, seed: int) -> Path | None:
    """The weight file of a row in a training output folder, or None.

    Of one's own pictures also that of a run whose record writes their path in another way.
    """
    path = run_folder(runs, method, track, recipe, seed) / "model.safetensors"
    if path.is_file():
        return path
    if track.partition(":")[0] not in OWN:
        return None
    for path in sorted(runs.glob(f"*/{glob.escape(f'{method}/{recipe}-s{seed}')}/model.safetensors")):
        if same_track(record_of(path).get("track"), track):
            return path
    return None


def check_indexed(path: Path, record: Mapping) -> None:
    """Raise WeightsError, as `check_hash`, for a shipped or fetched file that is not the one of its row in the index.

    record: the file's own, and its `sha256`. A row that the index does not have passes.
    """
    entry = read_index().get(index_key(record["method"], record["track"], record["recipe"], record["seed"]))
    if entry is not None:
        check_hash(path, record["sha256"], entry)


def check_hash(path: Path, found: str, entry: Mapping) -> None:
    """Raise WeightsError where a file's SHA-256 is not that of the entry of weights/index.json."""
    if found != entry["sha256"]:
        raise WeightsError(
            f"{path}: this is not the file of weights/index.json (another SHA-256), whose figures are of others; "
            "remove it, or enter the run that it is of with: python -m fer_bench.weights add RUN"
        )


def same_track(one: object, other: str) -> bool:
    """Whether two names mean one track: `folder:PATH` and `csv:PATH` do where the paths lead to the same place."""
    if not isinstance(one, str) or one == other:
        return one == other
    (kind, _, path), (other_kind, _, other_path) = one.partition(":"), other.partition(":")
    if kind != other_kind or kind not in OWN or not (path and other_path):
        return False
    return len({os.path.realpath(os.path.expanduser(place)) for place in (path, other_path)}) == 1


def mend_of(track: Track, told: str, runs: Path | None = None) -> tuple[str, str]:
    """The track to train on for weights that a track lacks, and the words that the command then follows.

    told: these words, but for one's own pictures, which are judged with weights of their own or of the track that is
    named for them. runs: where they are looked for, and so trained into.
    """
    if track.name.partition(":")[0] not in OWN:
        return track.trained_on, told
    where = f"(on these pictures, or with --track {track.trained_on}) with"
    if runs is not None:
        return track.name, f"train them {where}"
    return track.name, f"give --runs the folder that has them, or add --runs runs once you have trained them {where}"


def held(runs: Path, first: str = "", most: int = 6) -> str:
    """What finished runs a training output folder holds, as the options that ask for them; those of `first` first.

    "" where there are none.
    """
    records = [record_of(path) for path in sorted(runs.glob("*/*/*/model.safetensors"))]
    options = ("track", "recipe", "seed")
    rows = [
        " ".join([str(record["method"]), *(f"--{name} {record[name]}" for name in options)])
        for record in sorted(records, key=lambda record: record.get("method") != first)
        if {"method", *options} <= record.keys()
    ]
    return "; ".join(rows[:most]) + (f"; and {len(rows) - most:,} more" if len(rows) > most else "")


def record_of(path: Path) -> dict:
    """A weight file's record, without its tensors; {} where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})[_KEY])
    except (SafetensorError, OSError, ValueError, KeyError):
        return {}
    return record if isinstance(record, dict) else {}


def as_begun(out: Path, track: str) -> str:
    """The track as the runs in `out` have it: one's own pictures may be written there with another path."""
    if track.partition(":")[0] not in OWN:
        return track
    names = {}
    for folder in sorted(out.glob("*/")):
        for path in sorted(folder.glob("*/*/*.safetensors")):
            record = record_of(path)
            if name := record.get("track") or record.get("identity", {}).get("track"):
                names[name] = None
                break  # one folder, one name
    return track if track in names else next((name for name in names if same_track(name, track)), track)


def index_key(method: str, track: str, recipe: str, seed: int) -> str:
    return f"{method}/{track}/{recipe}-s{seed}"


def run_folder(out: Path, method: str, track: str, recipe: str, seed: int) -> Path:
    """Where training writes: out/<track>/<method>/<recipe>-s<seed>, <track> as `track_folder` has it.

    Runs on own pictures under the name that was theirs before that are found there.
    """
    run = f"{method}/{recipe}-s{seed}"
    before, now = out / re.sub("[/:]", "_", track) / run, out / track_folder(track) / run
    return before if before.is_dir() and not now.exists() else now


@contextlib.contextmanager
def index_held(folder: Path | None = None) -> Iterator[dict[str, dict]]:
    """The index, to be changed and then written back; meanwhile other processes wait, so that no row is lost."""
    folder = folder or weights_folder()
    with alone_in(folder, ".index.lock"):
        index = read_index(folder)
        yield index
        write_index(index, folder)


def add(path: Path, folder: Path | None = None, replace: bool = False) -> Path:
    """Copy a run's model.safetensors into the weights folder and enter it in the index. Returns the copy's path.

    The pin of a row stays where the file is the same. Raises WeightsError where the file does not say whose it is, or
    gives a name that no file may have, and, unless `replace`, where the row's weights are better on validation.
    """
    folder = folder or weights_folder()
    _, record = read_tensors(path)
    try:
        row = {name: record[name] for name in ("method", "track", "recipe", "seed")}
        if not (NAME.fullmatch(row["method"]) and NAME.fullmatch(row["recipe"]) and type(row["seed"]) is int):
            raise TypeError
        track_folder(row["track"])
    except (KeyError, TypeError, AttributeError, UserError):
        raise WeightsError(f"{path}: its record does not say whose weights these are; train them again.") from None
    key = index_key(**row)
    target = folder / f"{row['method']}-{track_folder(row['track'])}-{row['recipe']}-s{row['seed']}.safetensors"
    with index_held(folder) as index:
        held, given = (one.get("trained", {}).get("selected_value") for one in (record_of(target), record))
        if not replace and held is not None and given is not None and given < held:
            text = f"{100 * held:.1f} % of validation, those of {path} {100 * given:.1f} %"
            raise WeightsError(f"{target} stays: its weights read {text}; give --replace to have these all the same.")
        atomic_write(target, path.read_bytes())
        entry = {**row, "file": target.name, "bytes": target.stat().st_size, "sha256": sha256(target)}
        entry["validation"] = given
        before = index.get(key, {})
        pin = before if before.get("sha256") == entry["sha256"] else {}
        index[key] = entry | {name: pin.get(name) for name in ("hub", "revision")}
    return target


def write_index(index: Mapping[str, dict], folder: Path | None = None) -> Path:
    """Write index.json, sorted by key; returns its path."""
    text = json.dumps(dict(sorted(index.items())), indent=1) + "\n"
    return atomic_write((folder or weights_folder()) / "index.json", text.encode())


def main(argv: list[str] | None = None) -> int:
    """`python -m fer_bench.weights add RUN...`: enter finished training runs into weights/.

    Exit codes: 0 done, 1 it could not be written, 2 wrong use.
    """
    parser = argparse.ArgumentParser(prog="python -m fer_bench.weights", description=main.__doc__)
    parser.add_argument("command", choices=["add"])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder or its model.safetensors")
    parser.add_argument("--replace", action="store_true", help="also weights that are worse on validation")
    arguments = parser.parse_args(argv)
    try:
        for run in arguments.runs:
            target = add(run / "model.safetensors" if run.is_dir() else run, replace=arguments.replace)
            print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, OutputError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
