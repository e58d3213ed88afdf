"""The Hugging Face Hub: push weights, results and the demo, pull weights and submissions.

`client` makes every request, through huggingface_hub's own API, `folders` those for someone else's files; `contents`
says what is sent, `readmes` writes the README of each repository, `terms` says what weights are licensed under, `cli`
is the command line. These fetch by one full commit and a known hash only, and unpickle nothing. Pictures of FER2013 and
the networks of `classifiers` come through libraries of their own, which are no part of this.
"""

from __future__ import annotations

from fer_bench.hub.client import COMMIT, HubError, checked_repo, fetch, pinned, send
from fer_bench.hub.folders import fetch_folder

__all__ = ["COMMIT", "HubError", "checked_repo", "fetch", "fetch_folder", "main", "pinned", "send"]


def main(argv: list[str] | None = None) -> int:
    """Push to and pull from the Hub. Exit codes: 0 done, 1 failed (the Hub, or a file here), 2 wrong use."""
    from fer_bench.hub.cli import main as run  # what a download needs is less than what a push needs

    return run(argv)
