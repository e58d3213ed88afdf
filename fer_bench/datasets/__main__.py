"""python -m fer_bench.datasets merge fer2013 rafdb ckplus --size 64 -o DIR: one data set out of several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fer_bench.datasets import load_dataset
from fer_bench.datasets.merge import WRITERS, write_merged
from fer_bench.errors import UserError
from fer_bench.registry import UnknownNameError


def side(text: str) -> int:
    """An argparse type: pixels, 16 to 512."""
    value = int(text)
    if not 16 <= value <= 512:
        raise argparse.ArgumentTypeError(f"must lie in 16..512 pixels, not {value}")
    return value


def main(argv: list[str] | None = None) -> int:
    """Data sets on disk. Exit codes: 0 done, 1 failed or interrupted (nothing is left behind), 2 wrong use."""
    parser = argparse.ArgumentParser(prog="fer_bench.datasets", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    merging = commands.add_parser("merge", help="write several data sets as one, each picture once, with provenance")
    merging.add_argument("sources", nargs="+", metavar="SOURCE", help="data sets, folder:PATH or csv:PATH")
    merging.add_argument("--size", type=side, default=64, metavar="PIXELS", help="side of every picture (default 64)")
    merging.add_argument("--as", dest="form", choices=list(WRITERS), default="parquet", help="default: parquet")
    merging.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="a new or an empty folder")
    given = parser.parse_args(argv)
    try:
        summary = write_merged(given.sources, given.size, given.out, load_dataset, given.form, _say)
    except (UserError, UnknownNameError) as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, KeyboardInterrupt) as error:
        why = "stopped" if isinstance(error, KeyboardInterrupt) else str(error)
        print(f"{given.out}: {why}; nothing was written", file=sys.stderr)
        return 1
    counts = ", ".join(f"{split} {count:,}" for split, count in summary["pictures"].items())
    print(f"{given.out}: {counts}; {summary['duplicates']['total']:,} duplicates removed")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
