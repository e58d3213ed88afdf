"""The examples of the documentation: methods from installed packages, and how a model is exported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

from fer_bench.submissions import check
from tests.submissions.models import FILLED

ROOT = Path(__file__).resolve().parents[2]
ROAD = (ROOT / "leaderboard" / "submissions" / "README.md").read_text()


def block(language: str, first: str = "") -> str:
    """The only example in that language that begins so; the spaces that a list puts before its lines are taken off."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", ROAD, re.DOTALL | re.MULTILINE)
    (text,) = (textwrap.dedent(text) for _, text in found if text.lstrip().startswith(first))
    return text


def install(folder: Path, name: str, module: str, source: str) -> None:
    """What pip leaves of a package: the module, and its entry point in the metadata."""
    (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[fer_bench.methods]\n{module} = {module}\n")


def test_the_documented_package_adds_its_method_and_a_broken_one_is_skipped(tmp_path: Path) -> None:
    """The example registers and builds; a package that raises and one with a taken name are named in warnings."""
    project = tomllib.loads(block("toml"))
    assert project["project"]["entry-points"]["fer_bench.methods"] == {"my_methods": "my_methods"}
    example = block("python", "# my_methods.py")
    install(tmp_path, "my-methods", "my_methods", example)
    install(tmp_path, "half-done", "half_done", "raise SystemExit('not yet')")
    install(tmp_path, "thief", "thief", example.replace("tiny_net", "small_cnn"))
    code = (
        "import warnings; warnings.simplefilter('always')\n"
        "import torch, fer_bench; names = fer_bench.list_methods(); print(names.count('tiny_net'), len(names))\n"
        "print(tuple(fer_bench.build('tiny_net', 4)(torch.zeros(2, 1, 48, 48)).shape))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    from fer_bench.methods import list_methods

    assert done.stdout.splitlines() == [f"1 {len(list_methods()) + 1}", "(2, 4)"]
    assert "the methods of half-done (half_done) were skipped: SystemExit: not yet" in done.stderr
    assert "(thief) were skipped: ValueError: the method 'small_cnn' is registered twice" in done.stderr


@pytest.mark.slow
def test_the_documented_export_makes_a_file_that_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the road says to call writes one file with a free batch, which breaks no rule."""
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 11 * 11, 7))
    exec(block("python", "torch.onnx.export"), {"torch": torch, "network": network})
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    (tmp_path / "submission.yaml").write_text(FILLED)
    assert check(tmp_path, run=False) == []
