"""What the tests of submissions share."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from fer_bench.cards import InputSpec
from fer_bench.submissions import _child, checks, remote
from fer_bench.submissions.folder import open_plain
from fer_bench.submissions.problems import Limits, Problem
from fer_bench.submissions.sandbox import RefusedError, plain


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A folder around the submission whose contents must be the same afterwards."""
    around = tmp_path / "around"
    around.mkdir()
    (around / "precious.txt").write_text("as it was")
    return around


@pytest.fixture
def inspected_here(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Models are inspected in this process, by the code that the sandboxed one runs; the paths of those that were.

    A process of its own costs each of the many cases half a second; what it adds is tested in test_sandbox.py.
    """
    seen: list[Path] = []

    class Here:
        def __init__(
            self, model: Path, spec: InputSpec | None, outputs: int, architecture: str | None, limits: Limits, run: bool
        ) -> None:
            assert not run
            seen.append(model)
            order = {"input": asdict(spec) if spec else None, "outputs": outputs, "run": False}
            with os.fdopen(open_plain(model), "rb") as file:
                content = file.read()
            try:
                _child.OnnxModel(content, order)
            except _child.RefusedError as error:
                raise RefusedError(tuple(Problem(plain(code), plain(text)) for code, text in error.args)) from None

        def close(self) -> None:
            pass

    monkeypatch.setattr(checks, "Child", Here)
    return seen


@pytest.fixture
def not_run(inspected_here: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Checks inspect models, in this process, and do not run them; the paths of those that were inspected."""
    whole = checks.check
    monkeypatch.setattr(checks, "check", lambda folder, **options: whole(folder, **options | {"run": False}))
    monkeypatch.setattr(remote, "check", checks.check)
    return inspected_here
