"""What the tests of the Hub share: a small checkout and a server shaped like the Hub."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_bench.hub import contents, main
from fer_bench.results import track_folder
from fer_bench.weights import (
    read_index,
    write_index,
)
from tests.hub.row import KEY, PUSH, forget_weights
from tests.hub_server import Hub, connected

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout: one method with its weights and results, one result on someone's own pictures, an app."""
    root = tmp_path / "checkout"
    for name in (
        "LICENSE",
        "pyproject.toml",
        "leaderboard/methods.json",
        "weights/deep_emotion-fer2013-common-v1-s0.safetensors",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, root / name)
    for track in ("fer2013", "rendered"):
        source = CHECKOUT / "leaderboard" / "results" / track / "deep_emotion"
        shutil.copytree(source, root / "leaderboard" / "results" / track / "deep_emotion")
    record = json.loads((root / "leaderboard/results/rendered/deep_emotion/common-v1-s0.json").read_text())
    own = root / "leaderboard" / "results" / track_folder("folder:/home/ada/friends") / "deep_emotion"
    own.mkdir(parents=True)
    (own / "common-v1-s0.json").write_text(json.dumps(record | {"track": "folder:/home/ada/friends"}))
    (root / "leaderboard/figures").mkdir()
    (root / "leaderboard/figures/fer2013.png").write_bytes(b"png")
    (root / "README.md").write_text("# fer_bench\n\nWhat it is.\n")
    (root / "app.py").write_text("print('the app')\n")
    for name in ("__init__.py", "ui/tab.py", "__pycache__/tab.cpython-311.pyc", ".hidden"):
        (root / "fer_bench" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fer_bench" / name).write_text(f"# {name}\n")
    entry = read_index(CHECKOUT / "weights")[KEY] | {"hub": None, "revision": None}
    write_index({KEY: entry}, root / "weights")
    monkeypatch.setattr(contents, "ROOT", root)
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(root / "weights"))
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path / "cache"))
    return root


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between tries; none of them really pass."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Iterator[Hub]:
    """A running server that the client takes for the Hub, and a token that may write."""
    with connected(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def published(checkout: Path, hub: Hub) -> Hub:
    """The method is on the Hub and pinned, and its bundled file is gone."""
    assert main(PUSH) == 0
    forget_weights()
    hub.requests.clear()
    return hub
