"""python -m fer_bench.explain: overlays of pictures, folders and globs, by the weights that are asked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import explain as module
from fer_bench.explain import main
from fer_bench.faces import Face
from tests.helpers import picture
from tests.test_explain import fresh


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load` gives networks with fresh weights."""
    monkeypatch.setattr(module, "load", lambda name, *_: fresh(name))


def test_main_writes_overlays_and_names_what_it_cannot_read(
    loaded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each picture and method gives a PNG, equal stems are numbered, and an unreadable file means exit code 1."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture(1, 1)).save(tmp_path / folder / "face.png")
    (tmp_path / "note.jpg").write_text("hello")
    inputs = [str(tmp_path / name) for name in ("a/face.png", "note.jpg", "b/face.png")]
    out = tmp_path / "out" / "overlays"
    methods = ("deep_emotion", "small_cnn")
    command = [*inputs, "-o", str(out), "--method", *methods, "--cam", "gradcam++"]
    assert main([*command, "--target", "happy"]) == 1
    names = {
        f"{stem}-{method}-gradcam++.png" for stem in ("face", "face-2") for method in ("deep_emotion", "small_cnn")
    }
    assert {path.name for path in out.iterdir()} == names
    with Image.open(out / "face-small_cnn-gradcam++.png") as drawn:
        assert drawn.size == (module.SIDE, module.SIDE)
    said = capsys.readouterr()
    assert said.out.count(": happiness") == 4
    assert said.err.splitlines()[-1].startswith(f"unreadable {tmp_path / 'note.jpg'}")
    assert main([inputs[0], "-o", str(out)]) == 0


def test_a_name_that_is_no_utf8_costs_nothing(loaded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told in one line with its odd byte escaped, and the picture after it is drawn too."""
    for name in (b"a\xff.png", b"b\nc.png"):
        Image.fromarray(picture(1, 1)).save(tmp_path / os.fsdecode(name), format="PNG")
    assert main([str(tmp_path), "-o", str(tmp_path / "out"), "--method", "deep_emotion", "--no-detect"]) == 0
    said = capsys.readouterr().out
    assert said.isascii()
    overlays = [line.split(": ")[0] for line in said.splitlines()]
    assert [name.rsplit("/", 1)[1].split("-")[0] for name in overlays] == ["a\\udcff", "b\\nc"]


def test_main_overlays_every_face_it_finds(
    loaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two faces in a picture give two overlays, cropped as the detector's boxes say: one black, one white.

    Each line says which face of which picture its overlay is of.
    """
    scene = np.zeros((60, 120), np.uint8)
    scene[:, 60:] = 255
    Image.fromarray(scene).save(tmp_path / "two.png")
    boxes = [Face((15, 15, 40, 45), 0.9), Face((80, 15, 105, 45), 0.9)]
    monkeypatch.setattr(module, "detect_faces", lambda image: boxes)
    assert main([str(tmp_path / "two.png"), "-o", str(tmp_path), "--opacity", "0", "--method", "deep_emotion"]) == 0
    for name, value in (("two", 0), ("two-2", 255)):
        with Image.open(tmp_path / f"{name}-deep_emotion-gradcam.png") as drawn:
            assert np.all(np.asarray(drawn) == value)
    said = capsys.readouterr()
    for line, number, name in zip(said.out.splitlines(), (1, 2), ("two", "two-2"), strict=True):
        assert line.startswith(f"{tmp_path / name}-deep_emotion-gradcam.png: ")
        assert line.endswith(f" (face {number} of {tmp_path / 'two.png'})")
    assert said.err == ""


def test_main_says_where_it_found_no_face(
    loaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As predict does: the overlay is of the middle square, face 0; not said where no face is looked for."""
    Image.fromarray(picture(1, 1)).save(tmp_path / "face.png")
    monkeypatch.setattr(module, "detect_faces", lambda image: [])
    command = [str(tmp_path / "face.png"), "-o", str(tmp_path / "out"), "--method", "deep_emotion"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f" (face 0 of {tmp_path / 'face.png'})\n")
    told = "the middle square was explained, which says little unless it is one"
    assert said.err == f"no face was found in 1 of 1 pictures (face 0): {told}.\n"
    assert main([*command, "--no-detect"]) == 0
    assert capsys.readouterr().err == ""


def test_main_takes_folders_and_globs(loaded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As predict does, but for clips; what is left out of a folder is counted, and no picture at all is wrong use."""
    (tmp_path / "faces" / "more").mkdir(parents=True)
    for name in ("one.png", "more/two.png"):
        Image.fromarray(picture(1, 1)).save(tmp_path / "faces" / name)
    (tmp_path / "faces" / "clip.mp4").write_text("")
    out, folder = tmp_path / "out", str(tmp_path / "faces")
    command = ["-o", str(out), "--method", "deep_emotion", "--no-detect"]
    assert main([folder, str(tmp_path / "faces" / "*.png"), *command]) == 0
    assert {path.name for path in out.iterdir()} == {f"{stem}-deep_emotion-gradcam.png" for stem in ("one", "two")}
    assert "as those of pictures were left out: .mp4 (1)." in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), *command]) == 2
    assert f"there are no pictures in {tmp_path / 'empty'}." in capsys.readouterr().err


def test_main_explains_the_weights_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Track, recipe, seed, device and runs reach `load`; with --no-detect no face is looked for."""
    asked = []
    monkeypatch.setattr(module, "load", lambda *given: asked.append(given) or fresh(given[0]))
    monkeypatch.setattr(module, "detect_faces", lambda _: pytest.fail("a face was looked for"))
    Image.fromarray(picture(1, 1)).save(tmp_path / "face.png")
    command = [str(tmp_path / "face.png"), "-o", str(tmp_path / "out"), "--method", "deep_emotion", "--no-detect"]
    chosen = ["--track", "folder:mine", "--recipe", "light-v1", "--seed", "3", "--runs", "runs", "--device", "cpu"]
    assert main([*command, *chosen]) == 0
    assert asked == [("deep_emotion", "folder:mine", "light-v1", 3, "cpu", Path("runs"))]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--runs", "nowhere"], "nowhere: there is no such folder of training runs"),
        (["--cam", "gradcan"], "Did you mean 'gradcam'"),
        (["--method", "small-cnn"], "Did you mean 'small_cnn'"),
        (["--target", "boredom"], "not boredom"),
        (["--opacity", "2"], "--opacity"),
        (["--out", "FILE"], "face.png: this is a file; give a folder to -o."),
        (["MISSING"], "there is no file, folder or match of "),
    ],
)
def test_wrong_use_of_main(wrong: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong option is one sentence on standard error and exit code 2."""
    face = tmp_path / "face.png"
    Image.fromarray(picture(1, 1)).save(face)
    wrong = [str(face) if word == "FILE" else word for word in wrong]
    inputs = [str(tmp_path / "missing.png") if wrong == ["MISSING"] else str(face)]
    assert main([*inputs, "--out", str(tmp_path / "out"), *(word for word in wrong if word != "MISSING")]) == 2
    assert not (tmp_path / "out").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


def test_a_folder_that_cannot_be_made_is_no_wrong_use(
    loaded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below a file it is exit code 1 and a sentence, as with predict."""
    Image.fromarray(picture(1, 1)).save(tmp_path / "face.png")
    (tmp_path / "file").touch()
    command = [str(tmp_path / "face.png"), "--method", "deep_emotion", "--no-detect", "-o"]
    assert main([*command, str(tmp_path / "file" / "maps")]) == 1
    assert f"error: {tmp_path / 'file' / 'maps'}: no folder can be made here" in capsys.readouterr().err
