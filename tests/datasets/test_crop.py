"""Photographs among one's own pictures: they are told of, and the faces in them are cut out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import crop, load_dataset
from fer_bench.datasets.__main__ import main
from fer_bench.datasets.own import largest_face
from fer_bench.datasets.rendered import render
from fer_bench.errors import UserError
from fer_bench.faces import HEIC_MEND
from fer_bench.faces import crop as cut_out

SIDE = 128


def photograph(path: Path, seed: int = 0, size: tuple[int, int] = (400, 300), at: tuple[int, int] = (150, 100)) -> Path:
    """A drawn face of SIDE pixels on a wall."""
    image = Image.new("L", size, 120)
    image.paste(Image.fromarray(render("happiness", 1.0, seed, SIDE)[0]), at)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three photographs in two sub-folders, two of them with one stem."""
    for seed, name in enumerate(("happy/1.bmp", "happy/1.png", "sad/deep/2.png")):
        photograph(tmp_path / "in" / name, seed)
    return tmp_path / "in"


def test_the_largest_face_of_each_picture_is_cut_out(photographs: Path, tmp_path: Path) -> None:
    """Sub-folders and names stay, PNG keeps the pixels, and of two pictures with one stem none is lost."""
    larger = Image.open(photographs / "sad" / "deep" / "2.png")
    larger.paste(Image.fromarray(render("fear", 1.0, 9, SIDE)[0]).resize((64, 64)), (10, 10))
    larger.save(photographs / "sad" / "deep" / "2.png")
    assert main(["crop", str(photographs), str(tmp_path / "out")]) == 0
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["happy/1.png", "happy/1.png.png", "sad/deep/2.png"]
    for given, name in (("happy/1.bmp", "happy/1.png"), ("happy/1.png", "happy/1.png.png"), ("sad/deep/2.png",) * 2):
        face = Image.open(tmp_path / "out" / name)
        with Image.open(photographs / given) as picture:
            assert np.array_equal(np.asarray(face), np.asarray(cut_out(picture, largest_face(picture))))
        assert face.mode == "L"
        assert abs(face.width - SIDE) < SIDE / 4
    faces = load_dataset(f"folder:{tmp_path / 'out'}")
    assert (faces.counts, faces.notes) == ({"happiness": 2, "sadness": 1}, ())


def test_what_gives_no_face_is_named(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures without a face are named and left out; where one cannot be read, too, the command ends with 1."""
    Image.new("L", (200, 200), 90).save(photographs / "happy" / "wall.png")
    (photographs / "happy" / "3.heic").touch()
    assert main(["crop", str(photographs), str(tmp_path / "a")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'a'}: 3 faces; 1 without a face and 0 unreadable left out\n"
    assert said.err.splitlines() == [
        f"skipped {photographs}/happy/wall.png: no face was found in it.",
        f"files whose names do not end as those of pictures were left out: .heic (1); {HEIC_MEND}",
    ]
    (photographs / "torn.jpg").write_text("hello")
    assert main(["crop", str(photographs), str(tmp_path / "b")]) == 1
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'b'}: 3 faces; 1 without a face and 1 unreadable left out\n"
    assert f"skipped {photographs}/torn.jpg: this is not a readable picture" in said.err
    assert len(list((tmp_path / "b").rglob("*.png"))) == 3


def test_wrong_use_of_crop(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there, one without faces and a place that is taken are a sentence and 2, and no file."""
    Image.new("L", (200, 200), 90).save(tmp_path / "wall.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain").mkdir()
    Image.new("L", (200, 200), 90).save(tmp_path / "plain" / "wall.png")
    before = sorted(tmp_path.rglob("*"))
    for source, out, says in (
        ("gone", "out", f"{tmp_path / 'gone'}: there is no such folder; give one of pictures.\n"),
        ("empty", "out", f"{tmp_path / 'empty'}: there are no pictures in it; give a folder of some.\n"),
        (
            "plain",
            "out",
            f"skipped {tmp_path / 'plain' / 'wall.png'}: no face was found in it.\n"
            f"{tmp_path / 'plain'}: none of its 1 pictures gave a face; name others.\n",
        ),
        ("in", "in", f"{tmp_path / 'in'}: there is something in this place already; name a new or an empty folder.\n"),
    ):
        assert main(["crop", str(tmp_path / source), str(tmp_path / out)]) == 2
        assert capsys.readouterr().err == says
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_makes_no_second_face(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that is met twice is cut once, and the line says by which way."""
    whole = sorted(path for path in photographs.rglob("*") if path.is_file())
    (photographs / "zz").mkdir()
    (photographs / "zz" / "again.png").symlink_to(whole[0])
    assert main(["crop", str(photographs), str(tmp_path / "out")]) == 0
    line = f"skipped {photographs}/zz/again.png: a link leads from it to {whole[0]}, which is cut already."
    assert line in capsys.readouterr().err.splitlines()
    assert not (tmp_path / "out" / "zz").exists()


def test_a_crop_that_fails_leaves_nothing(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the disk is full half-way the place is as it was, with exit code 1."""

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(crop, "crop", full)
    assert main(["crop", str(photographs), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.endswith(f"{tmp_path / 'out'}: no space left on device; nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_whole_photographs_are_told_of(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The set's notes, which go into the record, and standard error name the command; the faces it cuts are well."""
    faces = load_dataset(f"folder:{photographs}")
    (note,) = faces.notes
    assert note.startswith("the face is a small part of 3 of the 3 test pictures looked at: they look like whole phot")
    assert "python -m fer_bench.datasets crop" in note
    assert capsys.readouterr().err == f"folder:{photographs}: {note}\n"


@pytest.mark.parametrize("side", [100, 160, 224])
@pytest.mark.parametrize("margin", [0.0, 0.3, 0.6])
def test_cropped_faces_are_not(side: int, margin: float, tmp_path: Path) -> None:
    """Faces with any usual margin around them are no photographs, at the usual sizes."""
    data = pytest.importorskip("skimage.data")
    person = Image.fromarray(data.astronaut())
    drawn = [Image.open(photograph(tmp_path / f"{seed}.png", seed)) for seed in range(2)]
    for number, image in enumerate((person, *drawn)):
        path = tmp_path / "set" / "happy" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_out(image, largest_face(image), margin).resize((side, side)).save(path)
    assert load_dataset(f"folder:{tmp_path / 'set'}").notes == ()


def test_few_pictures_are_looked_at_and_small_ones_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most twenty, over all emotions; half of them whole photographs is no note, and a detector need not be here."""
    looked: list[int] = []

    def find(image: Image.Image) -> tuple[int, int, int, int]:
        looked.append(image.getpixel((0, 0)))
        return (0, 0, 9, 9) if looked[-1] < 50 else (0, 0, *image.size)

    monkeypatch.setattr("fer_bench.datasets.own.largest_face", find)
    for number in range(100):
        path = tmp_path / ("fear" if number < 50 else "sad") / f"{number:02d}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (97, 97), number).save(path)
    assert load_dataset(f"folder:{tmp_path}").notes == ()
    assert (len(looked), sum(value < 50 for value in looked)) == (20, 10)

    def none(image: Image.Image) -> None:
        raise UserError("no detector is here.")

    monkeypatch.setattr("fer_bench.datasets.own.largest_face", none)
    assert load_dataset(f"folder:{tmp_path}").notes == ()
    for path in tmp_path.rglob("*.bmp"):
        Image.new("L", (96, 300), 0).save(path)
    looked.clear()
    monkeypatch.setattr("fer_bench.datasets.own.largest_face", find)
    assert load_dataset(f"folder:{tmp_path}").notes == ()
    assert looked == []
