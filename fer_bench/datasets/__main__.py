"""Data sets on disk.

python -m fer_bench.datasets merge fer2013 rafdb ckplus --size 64 -o DIR    one data set out of several
python -m fer_bench.datasets splits ckplus -o ckplus.csv                    which picture is in which split, to keep
python -m fer_bench.datasets split my_faces -o my.csv                       train, validation and test of one's own
python -m fer_bench.datasets crop photographs my_faces                      the largest face of each, for folder:PATH
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

from fer_bench.datasets import load_dataset
from fer_bench.datasets.base import SPLITS
from fer_bench.datasets.crop import crop_folder
from fer_bench.datasets.divide import write_division
from fer_bench.datasets.merge import WRITERS, write_merged
from fer_bench.errors import UserError
from fer_bench.files import OutputError, atomic_write
from fer_bench.registry import UnknownNameError


def side(text: str) -> int:
    """An argparse type: pixels, 16 to 512."""
    value = int(text)
    if not 16 <= value <= 512:
        raise argparse.ArgumentTypeError(f"must lie in 16..512 pixels, not {value}")
    return value


def write_splits(name: str, path: Path) -> dict[str, int]:
    """Write id, emotion and split of every picture of a data set as a CSV, and return split -> pictures.

    Where the data set tells whom its pictures show, a column subject says so.
    The same copy gives the same file byte for byte, so that two files show whether two figures have one split.
    Raises UserError where the path does not end in .csv, DataError and UnknownNameError as `load_dataset`.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"{path}: splits are written as .csv; give a name that ends so.")
    rows: list[tuple[str, str, str, str]] = []
    counts = {}
    for split in SPLITS:
        faces = load_dataset(name, split)
        counts[split] = len(faces)
        people = [""] * len(faces) if faces.subjects is None else map(str, faces.subjects)
        names = (faces.emotions[label] for label in faces.labels.tolist())
        rows += zip(faces.ids, names, [split] * len(faces), people, strict=True)
    columns = ("id", "emotion", "split", "subject")[: 4 if any(row[3] for row in rows) else 3]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *(row[: len(columns)] for row in rows)])
    atomic_write(path, text.getvalue().encode())
    return counts


def main(argv: list[str] | None = None) -> int:
    """Data sets on disk. Exit codes: 0 done, 1 failed or interrupted (nothing is left behind), 2 wrong use; `crop` also
    ends with 1 where a picture could not be read, and keeps the others' faces.
    """
    parser = argparse.ArgumentParser(prog="python -m fer_bench.datasets", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    merging = commands.add_parser("merge", help="write several data sets as one, each picture once, with provenance")
    merging.add_argument("sources", nargs="+", metavar="SOURCE", help="data sets, folder:PATH or csv:PATH")
    merging.add_argument("--size", type=side, default=64, metavar="PIXELS", help="side of every picture (default 64)")
    merging.add_argument("--as", dest="form", choices=list(WRITERS), default="parquet", help="default: parquet")
    merging.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="a new or an empty folder")
    splitting = commands.add_parser("splits", help="write which picture of a data set is in which split")
    splitting.add_argument("source", metavar="SOURCE", help="a data set, folder:PATH or csv:PATH")
    splitting.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.csv", help="is replaced")
    dividing = commands.add_parser("split", help="divide one's own pictures into train, validation and test, for csv:")
    dividing.add_argument("source", metavar="IN", help="a folder with one per emotion, or train and test; or a CSV")
    dividing.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.csv", help="is replaced")
    dividing.add_argument("--seed", type=int, default=0, metavar="N", help="another one is another draw (default 0)")
    cutting = commands.add_parser("crop", help="cut the largest face out of each picture of a folder, for folder:PATH")
    cutting.add_argument("source", type=Path, metavar="IN", help="a folder of pictures, with any sub-folders")
    cutting.add_argument("out", type=Path, metavar="OUT", help="a new or an empty folder; gets the same sub-folders")
    given = parser.parse_args(argv)
    try:
        if given.command == "crop":
            ends = crop_folder(given.source, given.out, _say)
            left = f"{ends['faceless']:,} without a face and {ends['unreadable']:,} unreadable left out"
            print(f"{given.out}: {ends['cropped']:,} faces; {left}")
            return 1 if ends["unreadable"] else 0
        if given.command == "splits":
            found, more = write_splits(given.source, given.out), ""
        elif given.command == "split":
            found, more = write_division(given.source, given.out, given.seed, _say), ""
        else:
            summary = write_merged(given.sources, given.size, given.out, load_dataset, given.form, _say)
            unreadable = sum(source["unreadable"] for source in summary["sources"])
            found, more = summary["pictures"], f"; {summary['duplicates']['total']:,} duplicates removed"
            more += f"; {unreadable:,} unreadable, left out" if unreadable else ""
    except (UserError, UnknownNameError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, OutputError) else 2
    except (OSError, KeyboardInterrupt) as error:
        why = "stopped" if isinstance(error, KeyboardInterrupt) else str(error)
        print(f"{given.out}: {why}; nothing was written", file=sys.stderr)
        return 1
    print(f"{given.out}: {', '.join(f'{split} {count:,}' for split, count in found.items())}{more}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
