"""Weights that once stood in weights/, found by their hash: what a row went on from, so that it can be made again."""

from __future__ import annotations

import functools
import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fer_bench.files import atomic_write
from fer_bench.weights import WeightsError, cache_folder, find, read_index

HASH = re.compile("[0-9a-f]{12,64}")
"""The first digits of a SHA-256 as records and cards give them: 12 at least."""
CHECKOUT = Path(__file__).resolve().parents[1]
"""Where the package lies in a checkout of the project; its history is asked."""


def by_hash(digits: str, method: str) -> Path:
    """The weight file of a method whose SHA-256 begins with `digits`: a present row's, or an earlier one's.

    Of an earlier row it is taken out of the git history of this checkout, into the cache. Raises WeightsError where
    neither has it, OutputError where the cache cannot be written to.
    """
    for entry in read_index().values():
        if entry["method"] == method and entry["sha256"].startswith(digits):
            path = find(method, entry["track"], entry["recipe"], entry["seed"])
            if path is not None:
                return path
    kept = cache_folder() / "history"
    if found := sorted(kept.glob(f"{digits}*.safetensors")):
        return found[0]
    for content in _earlier(method):
        digest = hashlib.sha256(content).hexdigest()
        if digest.startswith(digits):
            return atomic_write(kept / f"{digest}.safetensors", content)
    raise WeightsError(
        f"no weights of {method} with the hash {digits} are in weights/ or in the history of this checkout; clone it "
        "whole (git fetch --unshallow), or give --start-from their file."
    )


def _earlier(method: str) -> Iterator[bytes]:
    """Every version of a method's weight files that the checkout's history holds, the latest first."""
    if not (CHECKOUT / "pyproject.toml").is_file():  # an installed package may lie in another's checkout
        return
    git = functools.partial(subprocess.run, cwd=CHECKOUT, capture_output=True, check=True)
    try:
        listed = git(["git", "rev-list", "--objects", "HEAD", "--", "weights"]).stdout.decode()
        for line in listed.splitlines():
            blob, _, path = line.partition(" ")
            if path.startswith(f"weights/{method}-") and path.endswith(".safetensors"):
                yield git(["git", "cat-file", "blob", blob]).stdout
    except (OSError, subprocess.CalledProcessError):
        return
