"""The row that these tests push and pull, and its entry in the index."""

from __future__ import annotations

from fer_bench.weights import read_index, weights_folder, write_index

KEY = "deep_emotion/fer2013/common-v1-s0"
REPO = "ada/fer-deep-emotion"
PUSH = ["push", "--repo", REPO, "--method", "deep_emotion"]
PULL = ["pull", "--method", "deep_emotion"]


def entry() -> dict:
    return read_index()[KEY]


def pin(**changes: str) -> None:
    write_index({KEY: entry() | changes})


def forget_weights() -> None:
    """Remove the bundled weight file, so that only the cache and the Hub are left."""
    (weights_folder() / entry()["file"]).unlink()
