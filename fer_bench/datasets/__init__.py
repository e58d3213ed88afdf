"""The data sets: one file each, found under `$FER_BENCH_DATA` (a folder with one folder per data set) or ./data."""

from __future__ import annotations

import os
from pathlib import Path

from fer_bench.datasets import affectnet, ckplus, disfa, fer2013, mmi, rafdb, rendered, tfeid
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, duplicated_in, forbid_split, register, tell
from fer_bench.datasets.own import load_folder
from fer_bench.datasets.own_csv import load_csv
from fer_bench.registry import UnknownNameError

__all__ = [
    "DATASETS", "Dataset", "FaceSet", "affectnet", "ckplus", "data_folder", "disfa", "duplicated_in", "fer2013",
    "forbid_split", "load_dataset", "mmi", "rafdb", "register", "rendered", "tfeid",
]  # fmt: skip

FOLDERS = {
    "ferplus": "fer2013", "fer2013-clean": "fer2013", "fer2013-merged": "fer2013",
    "ckplus-random": "ckplus", "mmi-random": "mmi",
}  # fmt: skip
"""Data sets that live in another one's folder; where that is not there, one of their own name will do."""


def data_folder(name: str) -> Path | None:
    """The folder of a data set under `$FER_BENCH_DATA` or ./data; None where there is none.

    A variable that names no folder is told of once on standard error, and passed over.
    """
    given = os.environ.get("FER_BENCH_DATA")
    if given and not Path(given).expanduser().is_dir():
        tell(f"$FER_BENCH_DATA is {given}, and there is no such folder; name the one that holds the data sets.")
    for own in dict.fromkeys((FOLDERS.get(name, name), name)):
        for base in filter(None, (given, "data")):
            folder = Path(base).expanduser() / own
            if folder.is_dir():
                return folder
    return None


def load_dataset(name: str, split: str = "test", root: str | os.PathLike[str] | None = None) -> FaceSet:
    """One split of a data set, in memory.

    name: a registered data set, `folder:PATH` or `csv:PATH`. split: "train", "validation" or "test". root: the data
    set's own folder, where it is not under `$FER_BENCH_DATA` or ./data. Raises UnknownNameError (with the nearest
    match) for an unknown name and DataError, naming folder, file and mend, for missing or broken data; of a licensed
    set, a part is taken where `$FER_BENCH_PARTIAL` is 1.
    """
    kind, _, path = str(name).partition(":")
    if kind == "folder" and path:
        return load_folder(Path(path).expanduser(), split)
    if kind == "csv" and path:
        return load_csv(Path(path).expanduser(), split)
    text = str(name)  # a Path, say
    kind = "folder" if os.path.isdir(text) else "csv" if text.endswith(".csv") and os.path.isfile(text) else ""
    if name not in DATASETS and kind:
        raise UnknownNameError(f"there is no data set {text!r}; for your own pictures give {kind}:{text}.")
    dataset = DATASETS[name]
    return dataset.load(Path(root) if root is not None else data_folder(name), split)


def main(argv: list[str] | None = None) -> int:
    """`python -m fer_bench.datasets`: see `__main__`."""
    from fer_bench.datasets.__main__ import main as run

    return run(argv)
