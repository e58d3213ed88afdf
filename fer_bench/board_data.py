"""The board as data: every row with its figures as numbers, as a pandas frame, CSV or JSON. Imports no torch.

`python -m fer_bench.leaderboard --csv FILE` and `fer_bench.load_results` give it; `COLUMNS` says what each column is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from fer_bench.answers import answers_of
from fer_bench.beyond_accuracy import F1, OF, RECALL
from fer_bench.card_files import readable_cards
from fer_bench.comparison import as_entered
from fer_bench.emotions import EMOTIONS
from fer_bench.errors import BrokenFilesError, UserError
from fer_bench.files import atomic_write, track_folder
from fer_bench.protocols import place
from fer_bench.results import Result, read_readable, result_path
from fer_bench.selective import accuracy_at, aurc

Table = Callable[[Sequence[Result], dict[str, dict], str], pd.DataFrame]
"""`leaderboard.table`, which stands in a higher layer than this module."""

KEY = ["track", "method", "recipe", "seed", "tta"]
"""What names a row."""
SURE = 0.8
"""The coverage of the column `accuracy_at_80`."""
COLUMNS: dict[str, str] = {
    "track": "what was tested on, and what it was trained for",
    "method": "the method's name",
    "recipe": "how it was trained; as-published and submitted rows were trained elsewhere",
    "seed": "of its training",
    "tta": "test-time augmentation, or none",
    "group": "rows of a track are ranked within a group: same pictures, emotions, protocol and tta; 0 is the largest",
    "rank": "1 + the number of rows of its group whose interval of accuracy lies wholly above",
    "accuracy": "share of the test pictures whose likeliest emotion is the label",
    "accuracy_low": "lower bound of its 95 % bootstrap interval",
    "accuracy_high": "upper bound",
    "accuracy_without_duplicates": "without the test pictures that also stand in train; empty where that is not known",
    "accuracy_without_duplicates_low": "lower bound",
    "accuracy_without_duplicates_high": "upper bound",
    "balanced_accuracy": "mean recall over the emotions",
    "balanced_accuracy_low": "lower bound",
    "balanced_accuracy_high": "upper bound",
    "macro_f1": "mean F1 over the emotions",
    "macro_f1_low": "lower bound",
    "macro_f1_high": "upper bound",
    "ece": "expected calibration error of the likeliest emotion",
    "ece_low": "lower bound",
    "ece_high": "upper bound",
    "ece_by_chance": "what a perfectly calibrated method with these confidences shows on as many pictures",
    "nll": "mean negative log-likelihood of the label, in nats",
    "nll_low": "lower bound",
    "nll_high": "upper bound",
    "aurc": "area under the risk-coverage curve (fer_bench.selective); empty where no answers lie beside the record",
    "accuracy_at_80": "accuracy on the 80 % of the pictures that it is surest of; empty as aurc",
    "reported": "the accuracy that the paper or the package states, often under another protocol",
    "difference": "accuracy minus reported",
    **{
        f"{name}{emotion}{end}": text
        for emotion in EMOTIONS
        for name, end, text in (
            (RECALL, "", f"share of the pictures of {emotion} that is recognised; empty where there are none"),
            (RECALL, "_low", "lower bound"),
            (RECALL, "_high", "upper bound"),
            (F1, "", f"F1 of {emotion}"),
            (OF, "", f"test pictures of {emotion}"),
        )
    },
    "parameters": "trainable ones",
    "macs": "multiply-accumulates for one picture",
    "latency_ms": "of one face, with one thread of a CPU, in milliseconds",
    "latency_ratio": "the same beside that of resnet18 in the same run",
    "checkpoint_bytes": "size of the weights' file",
    "epochs": "run in full, without those of earlier runs; empty where its training is not known, as all that follows",
    "budget_epochs": "the recipe's",
    "pictures_seen": "in these epochs",
    "train_pictures": "size of the training split",
    "budget_share": "pictures seen, in earlier runs too, as a share of those of the recipe's whole budget",
    "complete": "whether the recipe's budget was run in full, or it was submitted or published as it is",
    "short": "whether it saw fewer pictures than its recipe asks, all runs together",
    "ended": "how its training did: complete (all epochs that were asked for), patience, max-minutes; or not known",
    "trained_commit": "of this project's code that trained it; empty where that was not kept",
    "earlier_tracks": "what the runs before, whose weights it started from, were trained on",
    "earlier_epochs": "of these runs",
    "earlier_pictures": "pictures seen in these runs",
    "earlier_weights": "method/track/recipe-seed (sha256) of the weights that it started from, newest first",
    "teachers": "of the networks whose answers were part of the target",
    "pretrained": "where weights from outside the project that it started from came from",
    "trained_on": "the track whose training split its weights come from",
    "external": "whether it was trained and submitted, or published, by others",
    "verified": "whether the figures were measured by the project itself",
    "shared_emotions_only": "whether it tells other emotions too and is renormalised over those shared",
    "emotions": "those scored",
    "test_pictures": "how many were scored",
    "duplicates_in_train": "how many of these also stand, pixel for pixel, in the training split",
    "protocol": "hash of the track's protocol",
    "data_hash": "of the test pictures and labels",
    "commit": "of this project's code that measured the row",
    "date": "when, ISO 8601, UTC",
    "weights_sha256": "of the weights' file",
    "record": "path of the record below the leaderboard's folder; its answers lie beside it as .npz",
}
"""Column -> what it is. Shares are fractions, 0 to 1. Behind them stand robustness and explanation, where measured."""

_NAMES = {"low": "accuracy_low", "high": "accuracy_high", "budget_fraction": "budget_share"}
"""A column of `leaderboard.table` -> its name here."""
_LEFT_OUT = {"balanced_accuracy_half", "macro_f1_half", "ece_half", "why", "note", "shipped", "split_pictures"}
_LEFT_OUT |= {"earlier_split"}
_WHOLE = {"seed", "group", "rank", "parameters", "macs", "checkpoint_bytes", "epochs", "budget_epochs"}
_WHOLE |= {"pictures_seen", "train_pictures", "earlier_epochs", "earlier_pictures", "test_pictures"}
_WHOLE |= {"duplicates_in_train", *(f"{OF}{emotion}" for emotion in EMOTIONS)}


def gather(root: Path | str, table: Table, tracks: Sequence[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the board under `root`, of all or of these tracks, and a sentence for each file left out.

    The frame has all `COLUMNS`, and behind them what `table` has of robustness and explanation; tracks stand in the
    board's order, and each one's rows best first. Text that does not apply is "", a number NaN or, of whole numbers
    (Int64), NA. Raises UserError, naming what there is, where the folder holds no result, or none of a track.
    """
    root = Path(root)
    if not (root / "results").is_dir():
        raise UserError(
            f"{root / 'results'}: there is no such folder; name the leaderboard's, which evaluate wrote to."
        )
    (results, problems), (cards, more) = read_readable(root), readable_cards(root)
    there = sorted({result.track for result in results}, key=place)
    asked = list(dict.fromkeys(as_entered(root, track.rstrip("/")) for track in tracks))
    if lacking := [track for track in asked if track not in there]:
        known = ", ".join(there) or "none"
        raise UserError(f"{root / 'results'} holds no result of {', '.join(lacking)}; the tracks there are: {known}.")
    if not there:
        mend = "python -m fer_bench.evaluate --all makes some"
        raise UserError("\n".join([*problems, f"{root / 'results'} holds no result that can be read; {mend}."]))
    if asked:
        folders = [f"/{track_folder(track)}/" for track in asked]
        problems = [line for line in problems if any(folder in line.replace("\\", "/") for folder in folders)]
    problems += more
    by_key = {tuple(getattr(result, name) for name in KEY): result for result in results}
    frames = []
    for track in asked or there:
        frame = table(results, cards, track).drop(columns=list(_LEFT_OUT), errors="ignore").rename(columns=_NAMES)
        rows = [by_key[key] for key in frame[KEY].itertuples(index=False, name=None)]
        extra = pd.DataFrame([_more(root, result, problems) for result in rows])
        frames.append(pd.concat([frame.drop(columns=frame.columns.intersection(extra.columns)), extra], axis=1))
    whole = pd.concat(frames, ignore_index=True)
    whole = whole.reindex(columns=[*COLUMNS, *(name for name in whole if name not in COLUMNS)])
    counts = _WHOLE | {name for name in whole if name.endswith("_pictures")}
    return whole.astype(dict.fromkeys(counts, "Int64")), problems


def _more(root: Path, result: Result, problems: list[str]) -> dict[str, object]:
    """What `leaderboard.table` does not have of a row. Answers that cannot be read are added to `problems`."""
    trained, twice = result.trained, result.data.duplicates_in_train
    path = result_path(root, *(getattr(result, name) for name in KEY))
    bounds = {f"{name}_{end}": getattr(i, end) for name, i in result.metrics.items() for end in ("low", "high")}
    found = {"aurc": float("nan"), "accuracy_at_80": float("nan")}
    if path.with_suffix(".npz").exists():
        try:
            answers = answers_of(root, result)
            found["aurc"] = aurc(answers.targets, answers.logits)
            found["accuracy_at_80"] = accuracy_at(answers.targets, answers.logits, SURE)
        except UserError as error:
            problems.append(str(error))
    return {
        **bounds,
        **found,
        "earlier_weights": "; ".join(trained.earlier.weights if trained.earlier else ()),
        "teachers": "; ".join(trained.teachers or ()),
        "duplicates_in_train": float("nan") if twice is None else twice,
        "trained_commit": trained.commit or "",
        "commit": result.commit,
        "date": result.date,
        "weights_sha256": result.weights.sha256,
        "record": path.relative_to(root).as_posix(),
    }


def as_csv(frame: pd.DataFrame) -> str:
    """A header and a line for each row; numbers are not rounded, what is not known is empty."""
    return frame.to_csv(index=False, lineterminator="\n")


def as_json(frame: pd.DataFrame) -> str:
    """A list with an object for each row; what is not known is null."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Those of `leaderboard` that ask for the table as data."""
    said = "write the rows as {} instead, unrounded, and leave the page as it is; - is standard output"
    parser.add_argument("--csv", metavar="FILE", help=said.format("CSV"))
    parser.add_argument("--json", metavar="FILE", help=said.format("JSON"))
    parser.add_argument(
        "--track", nargs="+", default=[], metavar="TRACK", help="of these tracks alone (with --csv, --json)"
    )


def write_data(options: argparse.Namespace, table: Table) -> bool:
    """Write what `add_data_options` asks for, out of the board in `options.out`; False where nothing was asked for.

    Says on standard output what it wrote, on standard error where the data goes there. Raises UserError for options
    that contradict each other, and BrokenFilesError, after all is written, where a file could not be read.
    """
    files = [(name, text) for name, text in ((options.csv, as_csv), (options.json, as_json)) if name is not None]
    if not files:
        if options.track:
            raise UserError("--track goes with --csv or --json: the page holds every track.")
        return False
    if getattr(options, "readme", None):
        raise UserError("--csv and --json write no page, so that --readme has to be a command of its own.")
    if len(files) == 2 and files[0][0] == files[1][0]:
        raise UserError(f"--csv and --json both name {files[0][0]}; give them different files.")
    frame, problems = gather(options.out, table, options.track)
    for name, text in files:
        if name == "-":
            sys.stdout.write(text(frame))
            continue
        path = atomic_write(Path(name), text(frame).encode())
        print(path, file=sys.stderr if "-" in (options.csv, options.json) else sys.stdout)
    if problems:
        raise BrokenFilesError("\n".join([*problems, "The data was written without them."]))
    return True
