"""python -m fer_bench.predict --resume: the file of an uninterrupted run, and what is not gone on with."""

from __future__ import annotations

import json
import operator
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fer_bench import predict, scoring
from fer_bench.faces import open_picture
from fer_bench.predict import find_inputs
from tests.helpers import picture
from tests.test_predict import MODELS, _toys, album, read, run  # noqa: F401 (_toys is a fixture)


class Killed(BaseException):
    """What ends a run at once."""


def stop_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Let a run end in the middle: the next batch after so many is never scored."""
    whole: Callable = scoring.score_prepared
    left = [calls]

    def once(*arguments: object) -> list:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return whole(*arguments)

    monkeypatch.setattr(scoring, "score_prepared", once)


def interrupt(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """A run that ends after its first batch."""
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Killed):
            run(*arguments)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("calls", [0, 1, 3, 5])
def test_resume_gives_the_same_file(suffix: str, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends anywhere and is resumed leaves the file of an uninterrupted one, and no other."""
    monkeypatch.setattr(predict, "GROUP", 4)
    root = album(tmp_path / "in", 14, clips=1)
    options = ["--no-detect", "--method", "small_cnn", "deep_emotion", "--per-second", 10]
    assert run(root, "-o", tmp_path / f"whole{suffix}", *options) == 0
    out = tmp_path / f"s{suffix}"
    with monkeypatch.context() as patch:
        stop_after(patch, calls)
        with pytest.raises(Killed):
            run(root, "-o", out, *options)
    assert run(root, "-o", out, *options, "--resume") == 0
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", f"s{suffix}", f"whole{suffix}"]


@pytest.mark.parametrize("turned", [False, True])
def test_inputs_in_another_order_lose_no_part_of_a_clip(
    turned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip that was interrupted is scored whole, though by now it does not stand last among the inputs."""
    inputs = [album(tmp_path / "pictures", 3), album(tmp_path / "clips", 0, clips=1)]
    options = ["--no-detect", "--method", "deep_emotion", "--per-second", 10]
    assert run(*inputs, "-o", tmp_path / "whole.csv", *options) == 0
    monkeypatch.setattr(predict, "GROUP", 4)
    out = tmp_path / "s.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Killed):
            run(*inputs, "-o", out, *options)
    partly = read(out)
    assert 3 < len(partly) < len(read(tmp_path / "whole.csv"))
    assert run(*(inputs[::-1] if turned else inputs), "-o", out, *options, "--resume") == 0
    key = operator.itemgetter("filepath", "face", "time")
    assert sorted(read(out), key=key) == sorted(read(tmp_path / "whole.csv"), key=key)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_resume_after_half_a_row(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a file was cut off, in the middle of a row or a name, resuming gives the whole file again."""
    monkeypatch.setattr(predict, "GROUP", 4)
    root = album(tmp_path / "in", 9)
    (root / 'a "quoted", name.png').write_bytes((root / "001.png").read_bytes())
    options = ["--no-detect", "--method", "small_cnn", "deep_emotion"]
    out = tmp_path / f"s{suffix}"
    assert run(root, "-o", out, *options) == 0
    whole = out.read_bytes()
    for cut in [0, 1, 90, *range(130, len(whole), 331), len(whole) - 1, len(whole)]:
        out.write_bytes(whole[:cut])
        assert run(root, "-o", out, *options, "--resume") == 0
        assert out.read_bytes() == whole, cut


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_resume_scores_what_is_new_only(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished file is kept and pictures that came since are added; what is done is not opened again."""
    monkeypatch.setattr(predict, "GROUP", 4)
    root, out = album(tmp_path / "in", 12), tmp_path / f"s{suffix}"
    assert run(root, "-o", out, "--no-detect") == 0
    Image.fromarray(picture(2, 99)).save(root / "zz.png")
    opened: list[str] = []
    monkeypatch.setattr(predict, "open_picture", lambda path: opened.append(path.name) or open_picture(path))
    assert run(root, "-o", out, "--no-detect", "--resume") == 0
    names = pq.read_table(out)["filepath"].to_pylist() if suffix == ".parquet" else None
    if names is None:
        names = (
            [row["filepath"] for row in read(out)]
            if suffix == ".csv"
            else [json.loads(line)["filepath"] for line in out.read_text().splitlines()]
        )
    assert sorted(names) == sorted(str(path) for path in find_inputs([str(root)]))
    assert "zz.png" in opened
    assert len(opened) <= 1 + 4


def test_resume_tries_again_what_could_not_be_read(tmp_path: Path) -> None:
    """A broken picture is reported by each run, and scored by the one that finds it mended."""
    root, out = album(tmp_path / "in", 3), tmp_path / "s.csv"
    (root / "bad.png").write_text("no")
    assert run(root, "-o", out) == 1
    assert run(root, "-o", out, "--resume") == 1
    (root / "bad.png").write_bytes((root / "001.png").read_bytes())
    assert run(root, "-o", out, "--resume") == 0
    assert sorted(row["filepath"] for row in read(out)) == sorted(str(path) for path in find_inputs([str(root)]))


def test_a_line_end_in_a_file_name_breaks_nothing(tmp_path: Path) -> None:
    """Names with a carriage return or a new line are one row each, written with escapes, and a resumed run agrees."""
    root, out = album(tmp_path / "in", 2), tmp_path / "s.csv"
    for name in ("c\rd.png", "e\nf.png"):
        (root / name).write_bytes((root / "001.png").read_bytes())
    assert run(root, "--no-detect", "-o", out) == 0
    whole = out.read_bytes()
    assert [Path(row["filepath"]).name for row in read(out)] == ["001.png", "c\\rd.png", "e\\nf.png", "000.png"]
    assert len(whole.splitlines()) == 5
    assert run(root, "--no-detect", "-o", out, "--resume") == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_resume_refuses_the_file_of_another_run(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file with other methods or columns is not touched: one sentence, exit code 2."""
    root, out = album(tmp_path / "in", 3), tmp_path / f"s{suffix}"
    assert run(root, "-o", out) == 0
    before = out.read_bytes()
    for methods in (["deep_emotion"], ["small_cnn", "deep_emotion"]):
        capsys.readouterr()
        assert run(root, "-o", out, "--resume", "--method", *methods) == 2
        assert f"{out}: this was written by another kind of run" in capsys.readouterr().err
        assert out.read_bytes() == before


OTHER_RUNS = [
    (["--no-detect"], [], "--no-detect, face detector"),
    (["--per-second", 2], ["--per-second", 10], "--per-second"),
    ([], ["--per-second", 10], "--per-second"),
    (["--limit", 3], [], "--limit"),
    (["--representative", 3], ["--representative", 2], "--representative"),
    (["--method", "small_cnn", "deep_emotion"], ["--method", "deep_emotion", "small_cnn"], "--method"),
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("before", "after", "named"), OTHER_RUNS)
def test_resume_refuses_other_options(
    before: list, after: list, named: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A run that was cut off is not gone on with under other options: one sentence names them, and nothing changes."""
    monkeypatch.setattr(predict, "GROUP", 2)
    root, out = album(tmp_path / "in", 5, clips=1), tmp_path / f"s{suffix}"
    assert run(root, "-o", tmp_path / f"whole{suffix}", *before) == 0
    interrupt(monkeypatch, root, "-o", out, *before)
    left = {path: path.read_bytes() for path in tmp_path.glob(f"s{suffix}*")}
    capsys.readouterr()
    assert run(root, "-o", out, *after, "--resume") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{out}: the run that began it differs from this one in {named} (see s{suffix}.unfinished.json" in said
    assert "leave out --resume" in said
    assert {path: path.read_bytes() for path in tmp_path.glob(f"s{suffix}*")} == left
    assert run(root, "-o", out, *before, "--resume") == 0
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_resume_refuses_other_inputs_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other inputs, the same name seen from another folder, and other weights of a method are another run."""
    monkeypatch.setattr(predict, "GROUP", 2)
    for place in ("here", "there"):
        album(tmp_path / place / "in", 5)
    album(tmp_path / "here" / "other", 5)
    monkeypatch.chdir(tmp_path / "here")
    out = tmp_path / "s.csv"
    interrupt(monkeypatch, "in", "-o", out)
    assert run("other", "-o", out, "--resume") == 2
    assert "differs from this one in inputs (" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "there")
        assert run("in", "-o", out, "--resume") == 2
        assert "differs from this one in working folder (" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(MODELS["small_cnn"], "record", {"sha256": "0" * 64})
        assert run("in", "-o", out, "--resume") == 2
        assert "differs from this one in weights of small_cnn (" in capsys.readouterr().err
    assert run("in", "-o", out, "--resume") == 0


def test_pictures_that_came_since_are_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run over a folder goes on where pictures were added to it meanwhile, and scores them once."""
    monkeypatch.setattr(predict, "GROUP", 2)
    root, out = album(tmp_path / "in", 5), tmp_path / "s.csv"
    interrupt(monkeypatch, root, "-o", out)
    for name in ("000a.png", "zz.png"):
        Image.fromarray(picture(2, 99)).save(root / name)
    assert run(root, "-o", out, "--resume") == 0
    assert sorted(row["filepath"] for row in read(out)) == sorted(str(path) for path in find_inputs([str(root)]))
    listed = find_inputs([str(root)])  # as a shell lists them for *.png
    interrupt(monkeypatch, *listed[:-1], "-o", out)
    assert run(*listed[1:], "-o", out, "--resume") == 2
    assert run(*listed, "-o", out, "--resume") == 0
    assert sorted(row["filepath"] for row in read(out)) == sorted(map(str, listed))


def test_a_run_goes_on_where_all_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and output that are told from the working folder may lie elsewhere by then, together."""
    monkeypatch.setattr(predict, "GROUP", 2)
    album(tmp_path / "here" / "in", 5)
    monkeypatch.chdir(tmp_path / "here")
    interrupt(monkeypatch, "in", "-o", "s.csv")
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    assert run("in", "-o", "s.csv", "--resume") == 0
    assert len(read(tmp_path / "there" / "s.csv")) == 5


def test_resume_without_a_word_on_how_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing says how rows were made (an older version's run, a finished file) it goes on and says that; where
    what does is damaged it does not.
    """
    monkeypatch.setattr(predict, "GROUP", 2)
    root, out = album(tmp_path / "in", 5), tmp_path / "s.csv"
    interrupt(monkeypatch, root, "-o", out)
    beside = tmp_path / "s.csv.unfinished.json"
    beside.write_text("{")
    assert run(root, "-o", out, "--resume") == 2
    assert f"{beside}: this is not readable as JSON; leave out --resume" in capsys.readouterr().err
    beside.unlink()
    for _ in range(2):
        assert run(root, "-o", out, "--resume") == 0
        assert f"{out}: nothing beside it says that its rows were made with these options" in capsys.readouterr().err
    assert len(read(out)) == 5
    assert not beside.exists()


def test_without_resume_a_file_is_replaced(tmp_path: Path) -> None:
    """A run without --resume starts anew."""
    out = tmp_path / "s.csv"
    assert run(album(tmp_path / "in", 5), "-o", out) == 0
    assert run(tmp_path / "in" / "001.png", "-o", out) == 0
    assert len(read(out)) == 1


def test_interrupting_leaves_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends a run with exit code 1, the rows so far, and how to go on."""
    monkeypatch.setattr(predict, "GROUP", 2)
    whole, calls = scoring.score_prepared, []

    def interrupted(*arguments: object) -> list:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(scoring, "score_prepared", interrupted)
    out = tmp_path / "s.csv"
    assert run(album(tmp_path / "in", 9), "-o", out, "--no-detect") == 1
    assert len(read(out)) == 4
    assert capsys.readouterr().err.strip().endswith(f"interrupted; --resume goes on with {out}.")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_leaves_what_is_done(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, one sentence with the file and how to go on; and so it does once there is room again.

    A bound on the size of files stands in for the disk's.
    """
    monkeypatch.setattr(predict, "GROUP", 4)
    inputs, out, other = album(tmp_path / "in", 20), tmp_path / f"s{suffix}", tmp_path / f"other{suffix}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        assert run(inputs, "-o", out, "--no-detect") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    growing = out if suffix == ".csv" else tmp_path / "s.parquet.unfinished.jsonl"
    mend = "once it can be, the same command with --resume goes on from what is there"
    assert capsys.readouterr().err.strip().endswith(f"error: {growing} cannot be written: File too large; {mend}.")
    assert growing.stat().st_size > 500
    assert run(inputs, "-o", out, "--no-detect", "--resume") == 0
    assert run(inputs, "-o", other, "--no-detect") == 0
    assert out.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_run_that_is_killed_can_be_resumed(tmp_path: Path) -> None:
    """With the real network: SIGKILL in the middle, then --resume, gives the bytes of an uninterrupted run."""
    root, out = album(tmp_path / "in", 7 * predict.GROUP), tmp_path / "s.csv"
    assert run(root, "--no-detect", "-o", tmp_path / "whole.csv") == 0
    command = [sys.executable, "-m", "fer_bench.predict", str(root), "--no-detect", "-o", str(out)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})
    while process.poll() is None and (not out.exists() or out.stat().st_size < 5000):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert out.stat().st_size < (tmp_path / "whole.csv").stat().st_size
    assert run(root, "--no-detect", "-o", out, "--resume") == 0
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
