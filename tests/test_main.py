"""The console script."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

from fer_bench.__main__ import COMMANDS, HOMES, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`fer-bench --help` names each command and what it is for, exit code 0."""
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said and text in said for name, text in COMMANDS.items())


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """`fer-bench --version` prints the package's version, as installed."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fer_bench {version('fer_bench')}\n"


def test_an_unknown_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command and no command at all end with exit code 2."""
    assert main(["evalaute"]) == 2
    assert "there is no command 'evalaute'" in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command answers --help with its usage."""
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert ("app.py" if command in HOMES else f"fer_bench.{command}") in capsys.readouterr().out


STARTED = """
import sys
from fer_bench.__main__ import main
assert main(["predict", "--no-detect", *sys.argv[1:], "--method", "reference_tiny"]) == 0
print(*sorted({"torchvision", "torch._dynamo", "pandas", "matplotlib", "transformers"} & set(sys.modules)))
"""


def test_predicting_waits_for_no_library_that_it_does_not_use(tmp_path: Path) -> None:
    """torchvision takes longer to import than torch: only a network that is built from it brings it in."""
    Image.new("L", (48, 48), 128).save(tmp_path / "face.png")
    command = [sys.executable, "-c", STARTED, str(tmp_path / "face.png"), "-o", str(tmp_path / "scores.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1:] in ([], [""]), done.stdout
    assert (tmp_path / "scores.csv").read_text().count("\n") == 2


def test_a_map_is_drawn_where_nothing_has_imported_torchvision(tmp_path: Path) -> None:
    """The CAMs' library imports it, and beside a CPU torch it has to be mended first: so in a fresh process."""
    Image.new("L", (48, 48), 128).save(tmp_path / "face.png")
    given = [str(tmp_path / "face.png"), "-o", str(tmp_path / "maps"), "--method", "reference_tiny", "--no-detect"]
    command = [sys.executable, "-m", "fer_bench.explain", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "maps").iterdir())) == 1
