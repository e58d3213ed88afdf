"""The scripts under tests/benchmarks still run and print their tables; how fast anything is, is not asked here."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from tests.helpers import write_folder

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """(script, arguments) -> what it prints on standard output."""
    monkeypatch.syspath_prepend(FOLDER)

    def run(script: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        importlib.import_module(script).main()
        return capfd.readouterr().out

    return run


def numbers(line: str) -> list[float]:
    """The numbers in a line, in their order."""
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", line)]


def test_the_shared_path_is_compared_with_a_loader_per_method(printed, tmp_path) -> None:
    """Each method has its line, and the last gives the ratio of the sums above it (rounded)."""
    methods, data = ("deep_emotion", "reference_tiny"), f"folder:{write_folder(tmp_path)}"
    out = printed("speed", "--methods", *methods, "--data", data, "--device", "cpu")
    lines = out.splitlines()
    assert tuple(line.split()[0] for line in lines[1:3]) == methods
    theirs, ours, ratio = numbers(lines[3])
    half = 0.005  # of the last digit that is printed
    assert (theirs - half) / (ours + half) - half <= ratio <= (theirs + half) / max(ours - half, 1e-9) + half


def test_training_is_compared_with_a_loader_and_a_fixed_batch(printed, tmp_path) -> None:
    """One row for the method, with three rates above nought and their ratios."""
    data = f"folder:{write_folder(tmp_path)}"
    given = ("--data", data, "--batch", "8", "--steps", "1", "--device", "cpu")
    ours, theirs, most, over_theirs, over_most = numbers(printed("training", *given).splitlines()[-1])
    assert min(ours, theirs, most) > 0
    assert over_theirs == pytest.approx(ours / theirs, rel=0.05)
    assert over_most == pytest.approx(ours / most, rel=0.05)


def test_a_generated_folder_is_streamed(printed, tmp_path) -> None:
    """All of the pictures that were generated are read, and nothing of them is left behind."""
    out = printed("training", "--stream", "20", "--batch", "8", "--device", "cpu", "--folder", str(tmp_path))
    cells = [cell.strip() for cell in out.splitlines()[-1].split("|")]
    assert (cells[1], cells[4]) == ("20", "20")
    assert list(tmp_path.iterdir()) == []
