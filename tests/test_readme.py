"""The README's examples run as they stand."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fer_bench
from fer_bench.datasets.rendered import render
from fer_bench.emotions import SEVEN
from fer_bench.methods import METHODS
from fer_bench.video import write_clip

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
WITH_DATA = re.findall(r"^```python fer2013\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
BASH = [text for language, text in BLOCKS if language == "bash"]
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # commands share this process
COMMANDS = [line for block in BASH[2:] for line in block.splitlines()]


def test_the_first_two_commands_are_what_ci_runs() -> None:
    """The two commands stand first in the README, and .ci/run runs them."""
    ci = (ROOT / ".ci" / "run").read_text()
    assert BASH[0].strip() == "pip install -e . && python -m fer_bench.evaluate --all"
    assert BASH[1].strip() == "pip install -e '.[test]' && python -m pytest"
    assert "python -m fer_bench.evaluate --all" in ci
    assert BASH[1].strip() in ci


def test_python_examples_run(tmp_path: Path) -> None:
    """Each Python example runs by itself in an empty folder, one after the other in a new interpreter."""
    assert len(PYTHON) >= 5
    code = ["import os"]
    for number, example in enumerate(PYTHON, 1):
        (folder := tmp_path / str(number)).mkdir()
        code += [f"os.chdir({str(folder)!r})", f"exec(compile({example!r}, 'example {number}', 'exec'), {{}})"]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.fer2013
def test_the_examples_with_fer2013_run(tmp_path: Path, fer2013_root: Path) -> None:
    """Those that are marked as needing FER2013 run where it is, in an empty folder."""
    assert WITH_DATA
    environment = {**os.environ, "FER_BENCH_DATA": str(fer2013_root.parent)}
    for example in WITH_DATA:
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr


def test_the_commands_on_the_board_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command for the table as data writes it, beside a board that stays as it is."""
    (tmp_path / "leaderboard").symlink_to(ROOT / "leaderboard")
    run_all([command for command in COMMANDS if "fer_bench.leaderboard" in command], tmp_path, monkeypatch)
    header, *rows = (tmp_path / "board.csv").read_text().splitlines()
    assert header.startswith("track,method,recipe,seed,tta,group,rank,accuracy,")
    assert {row.split(",")[0] for row in rows} == {"fer2013", "ferplus"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board.csv", "leaderboard"]


def test_the_example_is_short() -> None:
    """The first example is at most 20 lines of code."""
    assert len([line for line in PYTHON[0].splitlines() if line.strip()]) <= 20


def test_the_commands_for_own_pictures_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands on a user's own pictures run one after the other, on rendered faces saved as such a folder."""
    faces = fer_bench.load_dataset("rendered", "test").limit(63)
    for index, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        split = ("train", "validation", "test")[index % 3]
        folder = tmp_path / "my_faces" / split / SEVEN[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    done = run_all([command for command in COMMANDS if "my_faces" in command], tmp_path, monkeypatch)
    assert len(done) >= 4
    assert (tmp_path / "judged" / "LEADERBOARD.md").is_file()


@pytest.mark.slow
def test_the_other_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that score pictures and clips, and those of a submission, run on faces drawn for the purpose."""
    (tmp_path / "holiday").mkdir()
    face = render("happiness", 1.0, 32, 200)[0]
    for path in ("holiday/one.png", "holiday/two.jpg", "face.jpg"):
        Image.fromarray(face).save(tmp_path / path)
    write_clip(tmp_path / "clip.mp4", [np.stack([face] * 3, 2)] * 8, 8)
    elsewhere = ("my_faces", "fer_bench.leaderboard")
    own = [command for command in COMMANDS if not any(word in command for word in elsewhere)]
    done = run_all(own, tmp_path, monkeypatch)
    assert len(done) >= 6
    assert (tmp_path / "scores.csv").read_text().startswith("filepath,face,time,method,emotion,")
    assert list((tmp_path / "maps").glob("face-small_cnn-*.png"))
    assert (tmp_path / "annotated.mp4").stat().st_size > 1000


def run_all(commands: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run `python -m` commands one after the other in a folder, as Python itself would; each must end with 0.

    In this process, since starting one costs more than most of them do.
    """
    monkeypatch.chdir(folder)
    for command in commands:
        interpreter, flag, module, *arguments = shlex.split(command)
        assert (interpreter, flag) == ("python", "-m")
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert ended.value.code == 0, command
    return commands


def test_the_table_is_the_leaderboards(tmp_path: Path) -> None:
    """The README's table is what the committed results give."""
    from fer_bench.leaderboard import update_readme

    status = subprocess.run(["git", "status", "--porcelain", "leaderboard"], cwd=ROOT, capture_output=True, text=True)
    if status.returncode or status.stdout.strip():
        pytest.skip("the results here are not the committed ones: somebody has run the benchmark since")
    (tmp_path / "leaderboard").symlink_to(ROOT / "leaderboard")  # so that the relative links are the README's own
    copy = tmp_path / "README.md"
    copy.write_text(README)
    update_readme(copy, tmp_path / "leaderboard")
    assert copy.read_text() == README


def test_the_citation_is_of_this_version() -> None:
    """One BibTeX entry, of the version that is installed, with its braces closed."""
    (entry,) = re.findall(r"^```bibtex\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert entry.startswith("@software{fer_bench,\n")
    assert re.findall(r"version = \{(.*?)\}", entry) == [fer_bench.__version__]
    assert entry.count("{") == entry.count("}")


def test_every_method_stands_with_its_paper() -> None:
    """The table of methods names each registered method once, beside its paper's first author."""
    section = README.split("## The methods")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z0-9_]+)`", section)
    assert sorted(named) == sorted(fer_bench.list_methods())
    for line in section.splitlines():
        for name in re.findall(r"`([a-z0-9_]+)`", line) if line.startswith("| P") else ():
            author = METHODS[name].card.paper.split(",")[0].split(" & ")[0]
            assert author in line, (name, author)
