"""What the tests of submissions share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A folder around the submission whose contents must be the same afterwards."""
    around = tmp_path / "around"
    around.mkdir()
    (around / "precious.txt").write_text("as it was")
    return around
