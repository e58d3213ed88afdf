"""Results -> table, LEADERBOARD.md and figures. Never imports torch, so that a board of 1,000 rows opens at once.

What the papers report comes from `methods.json`, which `evaluate` writes from the cards (`write_cards`), and what
packages from outside claim of themselves from `peers.json`, which is written by hand. Who submitted a model stands in
`submitted.json` (see `card_files`).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fer_bench.beyond_accuracy import (
    emotion_columns,
    emotion_tables,
    explanation_columns,
    explanation_tables,
    robustness_columns,
    robustness_tables,
)
from fer_bench.board_data import add_data_options, write_data
from fer_bench.card_files import read_cards, readable_cards
from fer_bench.cards import reason
from fer_bench.cells import by, ece_text, markdown_table, percent, ratio_text, safe, short, titled, trained_text
from fer_bench.errors import BrokenFilesError, UserError
from fer_bench.figures import accuracy_against_parameters
from fer_bench.files import alone_in, atomic_write
from fer_bench.how_to_read import HOW_TO_READ
from fer_bench.protocols import TRACKS, place, track_named, track_title
from fer_bench.records import budget_share, full_epochs
from fer_bench.results import Result, read_readable, read_results, track_folder
from fer_bench.seeds import seed_tables
from fer_bench.statistics import tie_ranks
from fer_bench.withdrawn import readable_list

README_TRACKS = ("fer2013", "ferplus", "rendered")
START, END = "<!-- leaderboard:start -->", "<!-- leaderboard:end -->"
_WITH_HALF = ("balanced_accuracy", "macro_f1", "ece")
"""Metrics whose intervals' half-widths stand in the table too, as `<metric>_half`."""
_COMPARABLE = ["protocol", "data_hash", "emotions", "test_pictures", "tta"]
"""Rows are ranked against each other only where all of these agree."""
WHOLE = 0.99
"""A copy of a data set with all but 1 % of the training pictures of the fullest one is all of it, no part."""
LARGE = 0.02
"""A difference from the reported figure (fraction) that asks for a sentence on why."""


def _split_sizes(results: Iterable[Result]) -> dict[str, int]:
    """Track -> pictures in its training split, as far as it can be known here: the most that a row was trained on.

    One's own pictures stand also under the name that `Earlier.track` has for them.
    """
    sizes: dict[str, int] = {}
    for trained in (result.trained for result in results if not result.external):
        for name in {trained.track, track_folder(trained.track) if ":" in trained.track else trained.track}:
            sizes[name] = max(sizes.get(name, 0), trained.train_pictures or 0)
    return sizes


def _row(result: Result, card: dict, sizes: Mapping[str, int]) -> dict[str, object]:
    """sizes: what `_split_sizes` gives."""
    trained, earlier = result.trained, result.trained.earlier
    split, pictures = sizes.get(trained.track), trained.train_pictures
    if split and pictures and pictures >= WHOLE * split:
        split = pictures
    cost, metrics = result.cost, {name: i.value for name, i in result.metrics.items()}
    stated = next((r for r in card.get("reported", ()) if r["track"] == result.track), {})
    reported = stated.get("accuracy") if result.tta == "none" else None
    epochs = trained.epochs
    if epochs is not None:
        epochs = full_epochs(epochs, trained.pictures_seen, trained.train_pictures)
    share = budget_share(trained, split)
    before = sizes.get(earlier.track) if earlier else None
    return {
        "rank": 0, "track": result.track,
        "method": result.method, "recipe": result.recipe, "seed": result.seed, "tta": result.tta,
        "accuracy": metrics["accuracy"],
        "low": result.metrics["accuracy"].low,
        "high": result.metrics["accuracy"].high,
        "balanced_accuracy": metrics["balanced_accuracy"],
        "macro_f1": metrics["macro_f1"],
        "nll": metrics["nll"],
        "ece": metrics["ece"],
        "ece_by_chance": result.calibration.expected,
        **{f"{name}_half": (result.metrics[name].high - result.metrics[name].low) / 2 for name in _WITH_HALF},
        "accuracy_without_duplicates": metrics.get("accuracy_without_duplicates"),
        "reported": reported,
        "difference": None if reported is None else metrics["accuracy"] - reported,
        "why": reason(stated, result.weights.sha256), "note": card.get("note", ""),
        "epochs": epochs,
        "budget_epochs": trained.budget_epochs,
        "budget_fraction": share,
        "train_pictures": trained.train_pictures,
        "split_pictures": split or None,
        "pictures_seen": trained.pictures_seen,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "latency_ms": cost.latency_ms,
        "latency_ratio": cost.latency_ratio,
        "checkpoint_bytes": cost.checkpoint_bytes,
        "complete": trained.complete, "short": not trained.complete and not (earlier and share and share >= 1),
        "shipped": bool(card.get("shipped", False)),
        "verified": result.verified,
        "external": result.external,
        "shared_emotions_only": result.shared_emotions_only,
        "pretrained": trained.pretrained or "", "teachers": len(trained.teachers or ()), "ended": trained.ended or "",
        "earlier_epochs": full_epochs(earlier.epochs, earlier.pictures_seen, before) if earlier else None,
        "earlier_pictures": earlier.pictures_seen if earlier else None,
        "earlier_split": before or None,
        "earlier_tracks": " and ".join(earlier.tracks) if earlier else "",
        "trained_on": trained.track,
        "emotions": ", ".join(result.emotions),
        "test_pictures": result.data.test_pictures,
        "protocol": result.protocol,
        "data_hash": result.data.hash,
        "group": 0,
        **emotion_columns(result),
        **robustness_columns(result.robustness),
        **explanation_columns(result.explanation),
    }  # fmt: skip


_TEXT = {"track", "method", "recipe", "tta", "pretrained", "trained_on", "emotions", "protocol", "data_hash"}
_TEXT |= {"why", "note", "ended", "earlier_tracks", "robustness_suite", "explanation_cam"}
_FLAGS = {"complete", "short", "shipped", "verified", "external", "shared_emotions_only"}
_WHOLE = {"rank", "seed", "parameters", "test_pictures", "group"}


def table(
    results: Sequence[Result], cards: dict[str, dict] | None, track: str, recipe: str | None = None
) -> pd.DataFrame:
    """One row per result on `track` (all recipes, or one), best first; fractions, NaN for what is not known.

    `rank` is the tie group within `group`: rows of the same protocol, data, emotions and test-time augmentation. The
    largest group without such augmentation is 0 and comes first. cards: what `read_cards` gives; None leaves `reported`
    empty, as it is for rows with such augmentation.
    """
    chosen = [r for r in results if r.track == track and recipe in (None, r.recipe)]
    if not chosen:
        return pd.DataFrame()
    sizes = _split_sizes(results)
    rows = [_row(result, (cards or {}).get(result.method, {}), sizes) for result in chosen]
    frame = pd.DataFrame(rows)
    frame = frame.astype(dict.fromkeys(frame.columns.difference(list(_TEXT | _FLAGS | _WHOLE)), np.float64)).copy()
    groups = [part.index for _, part in frame.groupby(_COMPARABLE)]
    groups.sort(key=lambda index: (frame.loc[index[0], "tta"] != "none", -len(index)))
    for number, index in enumerate(groups):
        frame.loc[index, "group"] = number
        frame.loc[index, "rank"] = tie_ranks(frame.loc[index, "low"], frame.loc[index, "high"])
    order = ["group", "rank", "accuracy", "method", "recipe", "seed"]
    return frame.sort_values(order, ascending=[True, True, False, True, True, True], ignore_index=True)


def why_groups(frame: pd.DataFrame) -> str:
    """Why a table has several groups of rows that are not ranked against each other; "" where it has one."""
    if frame["group"].nunique() < 2:
        return ""
    if frame.groupby([name for name in _COMPARABLE if name != "tta"]).ngroups == 1:
        return "Rows marked tta answer for several views of each picture"
    return "Not all rows were measured on the same pictures in the same way"


def _method(row: NamedTuple, card: dict) -> str:
    whose = "a package's own" if card.get("package") else "its authors'"
    source = "submitted" if row.recipe == "submitted" else f"external: {whose} weights"
    marks = [row.recipe + (f", seed {row.seed}" if row.seed else "")] if row.recipe != source else []
    marks += [f"tta {row.tta}"] if row.tta != "none" else []
    marks += [source + by(card) + ("" if row.verified else ", not verified")] if row.external else []
    dagger = " †" if row.shared_emotions_only else ""
    return f"`{row.method}`{dagger} {titled(card)} ({'; '.join(marks)})".replace("  ", " ")


def _rows(frame: pd.DataFrame, cards: dict[str, dict], compact: bool = False) -> str:
    """A markdown table of a frame from `table`."""
    columns = {
        "Rank": lambda r: str(r.rank),
        "Method": lambda r: _method(r, cards.get(r.method, {})),
        "Accuracy, %": lambda r: f"**{percent(r.accuracy)}** ± {percent((r.high - r.low) / 2)}",
        "Without duplicates, %": lambda r: percent(r.accuracy_without_duplicates),
        "Balanced accuracy, %": lambda r: percent(r.balanced_accuracy),
        "Macro F1, %": lambda r: percent(r.macro_f1),
        "ECE, %": ece_text,
        "NLL": lambda r: f"{r.nll:.2f}",
        "Reported, %": lambda r: percent(r.reported),
        "Difference, points": lambda r: percent(r.difference, "+"),
        "Trained": lambda r: safe(trained_text(r)),
        "Parameters": lambda r: short(r.parameters),
        "MACs": lambda r: short(r.macs),
        "Latency, × resnet18": lambda r: ratio_text(r.latency_ratio),
    }
    absent = {"Without duplicates, %"} if compact or frame["accuracy_without_duplicates"].isna().all() else set()
    absent |= {"Balanced accuracy, %", "Macro F1, %", "NLL", "MACs"} if compact else set()
    columns = {name: cell for name, cell in columns.items() if name not in absent}
    return markdown_table(columns, frame, words=("Method", "Trained"))


def _why(row: NamedTuple) -> str:
    """What is known of a large difference from the reported figure."""
    budget = "trained for less than its budget" if row.short else "trained for its full budget"
    why = safe(row.why) or ("what else it comes from is not known." if row.short else "why is not known.")
    return f"`{row.method}` ({row.recipe}) is {percent(row.difference, '+')} points from its paper: {budget}; {why}"


def _milliseconds(frame: pd.DataFrame) -> list[str]:
    """What a latency of 1.0 was where the rows' were taken, in a sentence; none where no row has one."""
    took = (frame["latency_ms"] / frame["latency_ratio"]).dropna()
    if took.empty:
        return []
    middle, low, high = (ratio_text(value) for value in (took.median(), took.min(), took.max()))
    spread = "" if low == high else f" (median over the rows; from {low} to {high} ms)"
    told = f"In the runs that latency comes from, resnet18 took {middle} ms a face{spread}, with one thread of a CPU"
    return [f"{told} that is not recorded: 0.10 is about {ratio_text(took.median() / 10)} ms."]


def notes_on(results: Sequence[Result], frame: pd.DataFrame) -> list[str]:
    """What a reader of one track's table must know, as list items."""
    notes = []
    if frame["shared_emotions_only"].any():
        notes.append("† knows other emotions too; its probabilities are renormalised over those it shares.")
    if frame["external"].any():
        notes.append("External and submitted rows were trained elsewhere: what their training saw is theirs to say.")
    moved = (frame["accuracy_without_duplicates"] - frame["accuracy"]).abs().max()
    duplicates = max((r.data.duplicates_in_train or 0 for r in results), default=0)
    if duplicates:
        change = f"; without them accuracies here move by up to {percent(moved)} points."
        known = change if moved == moved else "."
        notes.append(f"{duplicates:,} test pictures also stand, pixel for pixel, in the training split{known}")
    skipped = max(len(r.data.skipped) for r in results)
    if skipped:
        notes.append(f"{skipped:,} picture(s) of the split could not be read; the results' files name them.")
    notes += _milliseconds(frame)
    first = (
        frame.sort_values("seed").drop_duplicates(["method", "recipe", "tta"]).sort_index()
    )  # of the others, the seed
    notes += [_why(row) for row in first.itertuples() if abs(row.difference) > LARGE and not row.external]
    notes += dict.fromkeys(safe(note) for note in frame["note"] if note)
    notes += dict.fromkeys(f"± is over the {r.subjects} people, not their pictures." for r in results if r.subjects)
    notes += dict.fromkeys(safe(note) for result in results for note in result.data.notes)
    return [f"- {note}" for note in notes]


def _not_run(track: str, results: Sequence[Result], cards: dict[str, dict], out: str) -> list[str]:
    """The methods without a result on `track`, each with the command that makes one. out: the board's folder, or ""."""
    home = track_named(track).trained_on if track in TRACKS or ":" in track else track
    ran = {(r.track, r.method) for r in results if r.tta == "none"}
    lines = []
    for name, card in cards.items():
        if (track, name) in ran or card.get("package") or card.get("authors"):  # neither is ever trained here
            continue
        ready = home != track and (home, name) in ran and card.get("shipped")  # a guess for older files
        if "weights" in card:
            ready = not {track, home}.isdisjoint(card["weights"])
        judge = f"python -m fer_bench.evaluate --method {name} --track {shlex.quote(track)}"
        judge += f" --out {shlex.quote(out)}" if out else ""
        train = f"python -m fer_bench.train --method {name} --track {shlex.quote(home)}"
        why = "" if card.get("shipped", True) else "  # its weights are too large to ship"
        lines.append(judge if ready else f"{train} && {judge} --runs runs{why}")
    return lines


def markdown(results: Sequence[Result], cards: dict[str, dict] | None = None, out: str = "", end: str = "") -> str:
    """The text of LEADERBOARD.md, beside `figures/`. out: its folder, if not `evaluate`'s own. end: its last part."""
    cards = cards or {}
    parts = ["# Leaderboard", "Made by `python -m fer_bench.leaderboard`; do not edit.", HOW_TO_READ]
    if not results:
        parts.append("There are no results yet. `python -m fer_bench.evaluate --all` makes them.")
    for track in sorted({r.track for r in results}, key=place):
        mine, frame = [r for r in results if r.track == track], table(results, cards, track)
        parts.append(f"## {safe(track_title(track))}")
        parts += [f"{why}; ranks start anew." for why in filter(None, [why_groups(frame)])]
        for _, group in frame.groupby("group"):
            first = group.iloc[0]
            tta = "" if first["tta"] == "none" else f", test-time augmentation {first['tta']}"
            about = f"{first['test_pictures']:,} pictures of {first['emotions']}{tta}"
            stamp = f" (data `{safe(first['data_hash'][:12])}`, protocol `{first['protocol']}`)"
            parts += [f"{about}{stamp}:", _rows(group, cards), *emotion_tables(group)]
            parts += [*seed_tables(group), *robustness_tables(group), *explanation_tables(group)]
        parts.append("\n".join(notes_on(mine, frame)))
        parts.append(f"![Accuracy against parameters on {safe(track)}](figures/{track_folder(track)}.png)")
        commands = _not_run(track, results, cards, out)
        if commands:
            body = "```\n" + "\n".join(commands) + "\n```"
            parts.append(f"<details><summary>Not run: {len(commands)} method(s)</summary>\n\n{body}\n\n</details>")
    return "\n\n".join(part for part in [*parts, end] if part) + "\n"


def figure(results: Sequence[Result], track: str, path: Path | str) -> Path:
    """Accuracy against parameters for the first comparable group (see `table`), as a PNG; returns the path.

    Raises UserError where there is no result on the track.
    """
    frame = table(results, None, track)
    if frame.empty:
        raise UserError(f"there is no result on {track} to draw.")
    return atomic_write(Path(path), accuracy_against_parameters(frame[frame["group"] == 0], track_title(track)))


def write_leaderboard(root: Path | str) -> list[Path]:
    """Write LEADERBOARD.md and `figures/<track>.png` from the results under `root`; returns the paths written.

    Raises BrokenFilesError, after that, where a file could not be read and so has no part in the table.
    """
    root = Path(root)
    out = "" if root.resolve() == Path("leaderboard").resolve() else str(root)
    with alone_in(root):  # of two evaluations at once the second then reads what the first has written
        (results, problems), (cards, more) = read_readable(root), readable_cards(root)
        end, broken = readable_list(root)
        tracks = sorted({r.track for r in results}, key=place)
        paths = [figure(results, track, root / "figures" / f"{track_folder(track)}.png") for track in tracks]
        page = atomic_write(root / "LEADERBOARD.md", markdown(results, cards, out, end).encode())
    if problems or more or broken:
        raise BrokenFilesError("\n".join([*problems, *more, *broken, f"{page} was written without them."]))
    return [page, *paths]


def update_readme(readme: Path | str, root: Path | str) -> Path:
    """Replace the README's leaderboard block by compact tables of the primary tracks; returns the README's path.

    Raises UserError where the README or its two markers are missing.
    """
    readme, root = Path(readme), Path(root)
    try:
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{readme} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise UserError(f"{readme} must hold the lines {START} and {END}, between which the table goes.")
    results, cards = read_results(root), read_cards(root)
    link = Path(os.path.relpath(root.absolute(), readme.absolute().parent)).as_posix()
    parts = []
    for track in README_TRACKS:
        frame = table(results, cards, track)
        if not frame.empty:
            parts += [f"### {track_title(track)}", _rows(frame[frame["group"] == 0], cards, compact=True)]
            seen = max((r.data.duplicates_in_train or 0 for r in results if r.track == track), default=0)
            told = f"{seen:,} of the test pictures also stand in the training split; the accuracies without them are in"
            parts += [f"{told} [LEADERBOARD.md]({link}/LEADERBOARD.md)."] if seen else []
            if track == README_TRACKS[0]:
                parts.append(f"![Accuracy against parameters on {track}]({link}/figures/{track_folder(track)}.png)")
    parts += [HOW_TO_READ, f"All tracks: [LEADERBOARD.md]({link}/LEADERBOARD.md)."]
    block = "\n\n".join(["", *parts, ""])
    atomic_write(readme, f"{before}{START}{block}{END}{after}".encode())
    return readme


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m fer_bench.leaderboard`: 0 done, 1 something could not be read, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m fer_bench.leaderboard", description="Make the table and figures.")
    parser.add_argument("--out", default="leaderboard", metavar="DIR", help="the leaderboard's folder (%(default)s)")
    parser.add_argument("--readme", metavar="FILE", help="also refresh the table in this README")
    add_data_options(parser)
    options = parser.parse_args(arguments)
    results = Path(options.out) / "results"
    try:
        if not results.is_dir():
            raise UserError(f"{results}: there is no such folder; --out takes the folder that evaluate wrote to.")
        if write_data(options, table):
            return 0
        paths = write_leaderboard(options.out)
        paths += [update_readme(options.readme, options.out)] if options.readme else []
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, BrokenFilesError) else 2
    print("\n".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
