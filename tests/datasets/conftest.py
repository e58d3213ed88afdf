"""What the tests of data sets share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fer_bench.datasets import fer2013, fer2013_copies
from tests.datasets.fer2013_tiny import CLEAN, LABELS, MAJORITY, SPLITS


@pytest.fixture
def tiny_fer2013(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The official counts are those of `fer2013_tiny`, and nothing of another copy is remembered."""
    counts = {split: [LABELS[rows.start : rows.stop].count(k) for k in range(7)] for split, rows in SPLITS.items()}
    monkeypatch.setattr(fer2013, "CLASS_COUNTS", counts)
    monkeypatch.setattr(fer2013, "FEW", 0)  # of so few pictures every one counts
    monkeypatch.setattr(fer2013, "COUNTS", {split: len(rows) for split, rows in SPLITS.items()})
    monkeypatch.setattr(fer2013, "FERPLUS_COUNTS", {split: len(rows) for split, rows in MAJORITY.items()})
    monkeypatch.setattr(fer2013, "CLEAN_COUNTS", {split: len(rows) for split, rows in CLEAN.items()})
    monkeypatch.setattr(fer2013_copies, "ROWS", 126)
    fer2013_copies.read.cache_clear()
    yield
    fer2013_copies.read.cache_clear()
