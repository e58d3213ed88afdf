"""Judging weights that are on the Hub only."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_bench import costs, evaluate, judged
from fer_bench.errors import Failure
from fer_bench.weights import sha256
from tests.hub.row import entry, pin
from tests.hub_server import Hub


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))
    load_dataset = evaluate.load_dataset
    for module in (evaluate, judged):
        monkeypatch.setattr(module, "load_dataset", lambda name, split: load_dataset(name, split).limit(28))


def test_pinned_weights_are_fetched_and_judged(published: Hub, tmp_path: Path) -> None:
    """What `load` would fetch is not said to be untrained: it is fetched and judged, and others are named alone."""
    written, (line,) = evaluate.evaluate(["deep_emotion", "small_cnn"], ["rendered"], tmp_path / "out")
    assert written == 1
    assert line.startswith("rendered: no weights of small_cnn ")
    evaluate.check_recipe(["deep_emotion"], ["rendered"], "common-v1")
    model = evaluate.load("deep_emotion", "rendered")
    assert sha256(model.path) == entry()["sha256"]


def test_a_pin_that_cannot_be_fetched_costs_its_own_row(published: Hub, tmp_path: Path) -> None:
    """It is a failure with what to do, not a method without weights."""
    pin(revision="0" * 40)
    written, (line,) = evaluate.evaluate(["deep_emotion"], ["rendered"], tmp_path / "out")
    assert written == 0
    assert isinstance(line, Failure)
    assert "fetching them failed" in line
