"""The package as a stranger installs it, without a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fer_bench import weights

ROOT = Path(__file__).parent.parent


def files_of(package: Path) -> set[Path]:
    """The files of a package, but for what Python compiled."""
    found = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(package) for path in found}


def test_an_installed_package_finds_the_weights_it_came_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the prefix or the --target; a checkout's own come before them, a folder that the user names before all."""
    monkeypatch.delenv("FER_BENCH_WEIGHTS", raising=False)
    for prefix, package in ((tmp_path / "venv", "lib/python3.12/site-packages"), (tmp_path / "target", ".")):
        home = prefix / package / "fer_bench"
        home.mkdir(parents=True)
        monkeypatch.setattr(weights, "__file__", str(home / "weights.py"))
        assert weights.weights_folder() == Path("weights")
        share = prefix / "share/fer_bench/weights"
        share.mkdir(parents=True)
        (share / "index.json").write_text("{}")
        assert weights.weights_folder().resolve() == share.resolve()
        (home.parent / "pyproject.toml").touch()
        assert weights.weights_folder().resolve() == (home.parent / "weights").resolve()
    monkeypatch.setenv("FER_BENCH_WEIGHTS", str(tmp_path / "mine"))
    assert weights.weights_folder() == tmp_path / "mine"


@pytest.mark.slow
def test_a_plain_install_predicts(tmp_path: Path) -> None:
    """`pip install` of the sources, not editable, gives every file of the package and all weights of the index."""
    source, target, elsewhere = tmp_path / "source", tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("fer_bench", "weights"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(pip, check=True, cwd=elsewhere, timeout=300)
    assert files_of(target / "fer_bench") == files_of(ROOT / "fer_bench")
    for entry in json.loads((ROOT / "weights" / "index.json").read_text()).values():
        assert weights.sha256(target / weights.INSTALLED / entry["file"]) == entry["sha256"]
    code = (
        "import fer_bench, numpy\n"
        "model = fer_bench.load('reference_tiny')\n"
        "print(fer_bench.__file__, model.path, len(model.predict(numpy.zeros((48, 48), numpy.uint8))), sep='\\n')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "FER_BENCH_WEIGHTS"} | {"PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    package, model, answers = done.stdout.split()
    assert Path(package).is_relative_to(target)
    assert Path(model).is_relative_to(target)
    assert answers == "1"
