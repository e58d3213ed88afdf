"""What the commands on a user's own pictures share: the files that are meant, and whose weights."""

from __future__ import annotations

import argparse
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from fer_bench.cards import RECIPE_HELP
from fer_bench.faces import HEIC_MEND, HEIC_SUFFIXES, PICTURE_SUFFIXES
from fer_bench.files import files_below, label
from fer_bench.video import is_clip


def find_inputs(given: Iterable[str], others: Counter[str] | None = None, clips: bool = True) -> list[Path]:
    """The files that the inputs stand for, each once: a file is itself, a folder all pictures and clips below it (by
    their names' endings, in order, hidden ones left out, links followed), and what is neither is taken as a glob ("**"
    reaches into folders). An input that matches nothing stays in the list, to be reported as a file that is not there.

    others: is added the number of files in the folders that are left out, by their names' endings. clips: False leaves
    these out as well.
    """
    found: dict[Path, None] = {}
    for text in given:
        matches = [Path(text)] if os.path.lexists(text) else [Path(m) for m in sorted(glob.glob(text, recursive=True))]
        for path in matches or [Path(text)]:
            found.update(dict.fromkeys(_below(path, others, clips) if path.is_dir() else [path]))
    return list(found)


def _below(folder: Path, others: Counter[str] | None, clips: bool) -> Iterator[Path]:
    for path in map(Path, files_below(folder)):
        if path.suffix.lower() in PICTURE_SUFFIXES or (clips and is_clip(path)):
            yield path
        elif others is not None:
            others[label(path.suffix.lower()) or "none"] += 1


def left_out(others: Counter[str], kept: str = "pictures or clips") -> str:
    """One sentence on the files that `find_inputs` leaves out. kept: what it does not."""
    kinds = ", ".join(f"{suffix} ({count:,})" for suffix, count in others.most_common())
    mend = f"; {HEIC_MEND}" if HEIC_SUFFIXES & others.keys() else ""
    return f"files whose names do not end as those of {kept} were left out: {kinds}{mend}."


def weights_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that say whose weights answer, as `infer.load` takes them; returns their group."""
    weights = parser.add_argument_group("weights")
    weights.add_argument("--track", default="fer2013", help="whose weights; default: fer2013")
    weights.add_argument("--recipe", help=RECIPE_HELP)
    weights.add_argument("--seed", type=int, default=0)
    weights.add_argument("--runs", type=Path, metavar="DIR", help="take them from this training output folder")
    weights.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    return weights
