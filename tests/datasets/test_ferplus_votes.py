"""FER+ alone, in the folders that its authors' own script makes: the votes, and no label of FER2013."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer_bench.datasets import load_dataset
from fer_bench.datasets.fer2013 import BY_NAME
from fer_bench.datasets.ferplus_votes import VOTES
from fer_bench.emotions import EIGHT
from tests.datasets.fer2013_tiny import (
    MAJORITY,
    PIXELS,
    SPLITS,
    encode,
    refusal,
    usage_of,
    votes_of,
    write_csv,
    write_votes,
)

pytestmark = pytest.mark.usefixtures("tiny_fer2013")

AUTHORS = {"train": "FER2013Train", "validation": "FER2013Valid", "test": "FER2013Test"}


def name_of(row: int) -> str:
    """The name of a row's picture: its number is not the row, as in fer2013new.csv."""
    return f"fer{row + row // 20:07d}.png"


def write_named_votes(root: Path) -> None:
    """fer2013new.csv with these names; rows that no majority is for have one, too."""

    def rename(lines: list[list[str]]) -> None:
        for row, line in enumerate(lines[1:]):
            line[1] = name_of(row)

    write_votes(root, rename)


def write_authors(root: Path, box: bool = True, labels: bool = True) -> None:
    """FER2013Train, FER2013Valid and FER2013Test. box: label.csv has the face's, as in the authors' repository."""
    for split, rows in SPLITS.items():
        folder = root / AUTHORS[split]
        folder.mkdir(parents=True)
        lines = []
        for row in rows:
            (folder / name_of(row)).write_bytes(encode(row))
            lines.append(",".join([name_of(row), *(['"(0, 0, 48, 48)"'] * box), *map(str, votes_of(row))]))
        if labels:
            (folder / "label.csv").write_bytes("\r\n".join([*lines, ""]).encode("utf-8-sig"))
        (folder / "._label.csv").write_bytes(b"\0")


def zipped(root: Path) -> None:
    """The authors' folders in one .zip, below a folder of it."""
    write_authors(root / "all")
    with zipfile.ZipFile(root / "ferplus.zip", "w") as archive:
        for path in sorted((root / "all").rglob("*.*")):
            archive.write(path, f"FERPlus/{path.relative_to(root / 'all')}")
            path.unlink()
    for folder in AUTHORS.values():
        (root / "all" / folder).rmdir()
    (root / "all").rmdir()


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "label.csv with the box": write_authors,
    "label.csv without a box": lambda root: write_authors(root, box=False),
    "votes beside": lambda root: (write_authors(root, labels=False), write_named_votes(root)),
    "their repository": lambda root: (write_authors(root / "data"), write_named_votes(root)),
    "zip": zipped,
    "zip and votes beside": lambda root: (zipped(root), write_named_votes(root)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ferplus_from_its_authors_folders(layout: str, tmp_path: Path) -> None:
    """Pictures, labels and order are those of every other copy; a note says what could not be checked."""
    LAYOUTS[layout](tmp_path / "authors" if layout == "label.csv with the box" else tmp_path)
    root = tmp_path / "authors" if layout == "label.csv with the box" else tmp_path
    (other := tmp_path / "other").mkdir()
    write_csv(other)
    write_votes(other)
    for split, rows in MAJORITY.items():
        faces = load_dataset("ferplus", split, root)
        wanted = load_dataset("ferplus", split, other)
        np.testing.assert_array_equal(faces.images, PIXELS[rows])
        assert faces.content_hash() == wanted.content_hash()
        assert (faces.emotions, faces.skipped, faces.notes) == (EIGHT, (), (BY_NAME,))
        if "votes" in layout or "repository" in layout:  # of which the rows are known
            assert faces.ids == wanted.ids
        else:
            assert faces.ids[0] == f"{usage_of(rows[0])}_{Path(name_of(rows[0])).stem}"


def test_they_may_lie_in_a_folder_named_ferplus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no folder fer2013, one named after FER+ is found; where there is, it comes first."""
    monkeypatch.setenv("FER_BENCH_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_authors(tmp_path / "ferplus")
    assert load_dataset("ferplus", "test").notes == (BY_NAME,)
    (tmp_path / "fer2013").mkdir()
    write_csv(tmp_path / "fer2013")
    write_votes(tmp_path / "fer2013")
    assert load_dataset("ferplus", "test").notes == ()


def test_a_zip_of_fer2013_with_the_votes_beside_it(tmp_path: Path) -> None:
    """fer2013new.csv is found beside the .zip as well as in it."""
    write_csv(tmp_path)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(tmp_path / "fer2013.csv", "fer2013.csv")
    (tmp_path / "fer2013.csv").unlink()
    write_votes(tmp_path)
    assert len(load_dataset("ferplus", "test", tmp_path)) == len(MAJORITY["test"])


@pytest.mark.parametrize("layout", ["label.csv with the box", "zip", "their repository"])
@pytest.mark.parametrize("name", ["fer2013", "fer2013-clean", "fer2013-merged"])
def test_they_are_no_fer2013(name: str, layout: str, tmp_path: Path) -> None:
    """What asks for FER2013's own labels is refused, with the file that holds them."""
    LAYOUTS[layout](tmp_path)
    assert "the folders of FER+'s authors (FER2013Train) lack FER2013's labels; put fer2013.csv" in refusal(
        tmp_path, "train", name
    )


def test_a_clone_without_pictures(tmp_path: Path) -> None:
    """The authors' repository as it is cloned has votes alone: the text names the script that makes the pictures."""
    write_authors(tmp_path / "data")
    write_named_votes(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert refusal(tmp_path, "test", "ferplus") == (
        f"{tmp_path / 'data' / 'FER2013Test'}: 0 of the 9 pictures named in fer2013new.csv's PrivateTest rows are "
        "there; make them with the FER+ authors' generate_training_data.py out of fer2013.csv and fer2013new.csv."
    )


def test_folders_without_votes(tmp_path: Path) -> None:
    """Pictures alone say nothing; the text names the file of the votes, and where to put it."""
    write_authors(tmp_path, labels=False)
    assert refusal(tmp_path, "test", "ferplus") == (
        f"{tmp_path / 'FER2013Test'} has no label.csv: put fer2013new.csv from FER+'s authors into {tmp_path}."
    )


@pytest.mark.parametrize("content", [None, b"hello"])
def test_one_broken_or_missing_picture(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It is skipped and named; the others are loaded."""
    write_authors(tmp_path)
    path = tmp_path / "FER2013Train" / name_of(50)
    path.unlink() if content is None else path.write_bytes(content)
    faces = load_dataset("ferplus", "train", tmp_path)
    assert len(faces) == len(MAJORITY["train"]) - 1
    assert len(faces.skipped) == 1
    assert faces.skipped[0].startswith(f"{path}: {'there is no such file' if content is None else 'this is not a'}")
    assert capsys.readouterr().err == f"skipped {faces.skipped[0]}\n"


def test_a_bad_line_in_a_label_csv(tmp_path: Path) -> None:
    """It is refused by file and line."""
    write_authors(tmp_path)
    path = tmp_path / "FER2013Test" / "label.csv"
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    lines[3] = lines[3].rsplit(",", 2)[0]
    path.write_text("\n".join(lines))
    assert refusal(tmp_path, "test", "ferplus") == (
        f"{path}, line 4: ten vote counts must follow the image name; get the file again."
    )


def test_votes_of_another_version(tmp_path: Path) -> None:
    """Votes that keep another number of pictures than FER+'s are refused."""
    write_authors(tmp_path)
    path = tmp_path / "FER2013Test" / "label.csv"
    nobody = ",".join(["0"] * (len(VOTES) - 1) + ["10"])
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    path.write_text("\n".join([f'{name_of(117)},"(0, 0, 48, 48)",{nobody}', *lines[1:]]))
    assert refusal(tmp_path, "test", "ferplus").startswith(
        f"{tmp_path}: the FER+ majority rule keeps 7 test pictures where it must keep 8; the votes and the pictures do"
    )
