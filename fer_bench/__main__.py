"""The console script: `fer-bench COMMAND ...` is `python -m fer_bench.COMMAND ...`, `fer-bench app` `python app.py`."""

from __future__ import annotations

import importlib
import sys

from fer_bench import __version__

COMMANDS = {
    "evaluate": "judge methods and write results and the table",
    "train": "train methods, resumable",
    "sweep": "train the cells of a grid on several workers, GPUs or machines",
    "predict": "score pictures, folders and clips of one's own",
    "datasets": "merge data sets, divide pictures, write splits, cut faces out of photographs",
    "comparison": "compare results picture by picture: intervals, McNemar's test",
    "explain": "draw where methods look in pictures",
    "robustness": "measure methods on corrupted pictures",
    "submissions": "check, evaluate or export a submission",
    "hub": "push to and pull from the Hugging Face Hub",
    "weights": "enter finished runs into weights/",
    "leaderboard": "rewrite the table from the results, or write it as CSV or JSON",
    "pretrained": "fetch the ImageNet guide that awei starts from",
    "app": "serve the demo on this machine",
}
HOMES = {"app": "ui.app"}
"""Commands that are not the module of their name."""


def main(argv: list[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 failed, 2 wrong use."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--version"]:
        print(f"fer_bench {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help") or argv[0] not in COMMANDS:
        wrong = bool(argv) and argv[0] not in ("-h", "--help")
        lines = [f"  {name:12} {text}" for name, text in COMMANDS.items()]
        usage = "\n".join(["usage: fer-bench COMMAND [OPTION ...]", *lines])
        print(f"there is no command {argv[0]!r}\n{usage}" if wrong else usage, file=sys.stderr if wrong else sys.stdout)
        return 2 if wrong or not argv else 0
    return importlib.import_module(f"fer_bench.{HOMES.get(argv[0], argv[0])}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
