"""python -m fer_bench.predict: wrong use is noticed before anything is written, so that an earlier file stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fer_bench import infer, predict
from fer_bench.weights import write_tensors
from tests.test_predict import _toys, album, run  # noqa: F401 (_toys is a fixture)

BEFORE = "what an earlier run took hours for\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a clip, a file of scores and a few things in the way."""
    monkeypatch.chdir(tmp_path)
    album(tmp_path / "in", 1, clips=1)
    (tmp_path / "scores.csv").write_text(BEFORE)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "broken.onnx").write_text("no network")
    (tmp_path / "linked.mp4").symlink_to("scores.csv")
    os.mkfifo(tmp_path / "pipe.mp4")
    return tmp_path


def kept(here: Path) -> None:
    """The earlier file is as it was, and nothing has come to it."""
    assert (here / "scores.csv").read_text() == BEFORE
    names = ["broken.onnx", "file", "folder.mp4", "in", "linked.mp4", "pipe.mp4", "scores.csv"]
    assert sorted(entry.name for entry in here.iterdir()) == names


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--video", "out.avi"], "out.avi: clips are written as .mp4; give a name that ends so."),
        (["--video", "folder.mp4"], "folder.mp4: this is a folder; give a file to --video."),
        (["--video", "pipe.mp4"], "pipe.mp4: this is a pipe or a device; give a file to --video."),
        (["--video", "linked.mp4"], "linked.mp4: this is the file of scores too; give --video another name."),
        (["--video", "in/005.mp4"], "in/005.mp4: this is the clip itself; give --video another name."),
        (["--video", "out.mp4", "--cam", "grad"], "there is no CAM 'grad'."),
        (["--video", "out.mp4", "--representative", "2"], "--representative chooses the frames itself"),
        (["--runtime", "onnx", "--device", "cuda"], "ONNX Runtime gives no gradients and runs on the CPU here"),
        (["--track", "nowhere"], "nowhere"),
    ],
)
def test_an_earlier_file_of_scores_stays(
    options: list[str], reason: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options that cannot be met are wrong use, said in a sentence before the file of scores is begun anew."""
    assert run("in/005.mp4", "-o", "scores.csv", *options) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert reason in said
    assert said.count("\n") == 1
    kept(here)


def test_a_video_in_a_folder_that_cannot_be(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the folder for --video is a file, that is said at once, with the exit code that -o has for it."""
    assert run("in/005.mp4", "-o", "scores.csv", "--video", "file/more/out.mp4") == 1
    assert capsys.readouterr().err == (
        "error: file/more/out.mp4 cannot be written: file is no folder that can be written to; give another.\n"
    )
    kept(here)


def test_a_detector_that_cannot_be_had(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no YuNet in $FER_BENCH_YUNET is wrong use before anything is written, and no matter without it."""
    monkeypatch.setenv("FER_BENCH_YUNET", "broken.onnx")
    assert run("in/005.mp4", "-o", "scores.csv") == 2
    assert capsys.readouterr().err.startswith("error: broken.onnx: OpenCV cannot read this as YuNet's ONNX file")
    kept(here)
    assert run("in/005.mp4", "-o", "new.csv", "--no-detect") == 0


def test_a_list_is_not_replaced_by_its_scores(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An input is never the output too: someone's list of pictures, given as both, is left as it is."""
    (here / "same.csv").symlink_to("scores.csv")
    for given, out in (("scores.csv", "scores.csv"), ("*.csv", "same.csv"), ("same.csv", "in/../scores.csv")):
        assert run("in", given, "-o", out) == 2
        said = capsys.readouterr().err
        assert said == f"error: {out}: this is one of the inputs; leave it out of them, or give -o another name.\n"
    (here / "same.csv").unlink()
    kept(here)


def test_runs_of_another_track_are_not_answered_for_by_shipped_weights(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where --track was forgotten, what the runs hold is said, and the earlier file stays."""
    monkeypatch.setattr(predict, "load", infer.load)  # not a toy's
    run_of = here / "runs" / "folder-mine-01234567" / "small_cnn" / "common-v1-s0" / "model.safetensors"
    record = {"method": "small_cnn", "track": "folder:mine", "recipe": "common-v1", "seed": 0}
    write_tensors(run_of, {"w": torch.ones(1)}, record)
    assert run("in/005.mp4", "-o", "scores.csv", "--runs", "runs") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: runs holds no weights of small_cnn for fer2013 (common-v1, seed 0), but ")
    assert "but small_cnn --track folder:mine --recipe common-v1 --seed 0" in said
    assert (here / "scores.csv").read_text() == BEFORE


def test_a_recipe_that_does_not_exist_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt --recipe gets the nearest name, not a command that would train it, and the earlier file stays."""
    monkeypatch.setattr(predict, "load", infer.load)  # not a toy's
    assert run("in/005.mp4", "-o", "scores.csv", "--recipe", "comon") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: there is no recipe 'comon'. Did you mean 'common-v1'?")
    assert "train" not in said
    kept(here)


def test_a_new_video_takes_the_place_of_an_old_one(here: Path) -> None:
    """What is no wrong use: a video in a folder that is yet to be made, and one that is there already."""
    for _ in range(2):
        assert run("in/005.mp4", "-o", "scores.csv", "--video", "new/more/out.MP4", "--no-detect") == 0
    assert (here / "new" / "more" / "out.MP4").stat().st_size > 1000
    assert (here / "scores.csv").read_text() != BEFORE
