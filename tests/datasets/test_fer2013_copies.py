"""FER2013 from every layout on disk, whole and broken, on tiny copies; the Hub is in test_fer2013_hub."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer_bench.datasets import fer2013_copies, load_dataset
from fer_bench.emotions import SEVEN
from tests.datasets.fer2013_tiny import (
    ALPHABETIC,
    CLASSES,
    LABELS,
    LAYOUTS,
    PIXELS,
    SPLITS,
    broken_folders,
    csv_lines,
    encode,
    expected,
    paths,
    refusal,
    write_csv,
    write_folders,
    write_parquet,
    zip_writer,
)

pytestmark = pytest.mark.usefixtures("tiny_fer2013")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_give_the_same_splits(layout: str, tmp_path: Path) -> None:
    """From every layout, PublicTest is validation, PrivateTest is test, and pictures, labels and order are the same."""
    LAYOUTS[layout](tmp_path)
    for split in SPLITS:
        faces, wanted = load_dataset("fer2013", split, tmp_path), expected(split)
        np.testing.assert_array_equal(faces.images, wanted.images)
        assert faces.labels.tolist() == wanted.labels.tolist()
        assert faces.content_hash() == wanted.content_hash()
        assert (faces.skipped, faces.notes, faces.split) == ((), (), split)
        assert len(set(faces.ids)) == len(faces)


@pytest.mark.parametrize(
    "layout",
    [
        "csv", "windows csv", "icml", "folders", "folders in capitals", "zip", "zip of the csv", "parquet",
        "parquet shards",
    ],
)  # fmt: skip
def test_ids_are_the_rows_of_the_csv(layout: str, tmp_path: Path) -> None:
    """Where rows are known, a picture has the same id in every layout, so that logits can be compared."""
    LAYOUTS[layout](tmp_path)
    assert load_dataset("fer2013", "test", tmp_path).ids == tuple(f"PrivateTest_{row}" for row in SPLITS["test"])


def test_jpeg_folders(tmp_path: Path) -> None:
    """JPEG folders give the same labels in the same order, and pictures that are near, as JPEG allows."""
    for name, row in paths(lambda row: "jpg").items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row, "jpg"))
    faces = load_dataset("fer2013", "test", tmp_path)
    assert faces.labels.tolist() == expected("test").labels.tolist()
    assert np.abs(faces.images.astype(int) - expected("test").images).mean() < 20


def test_what_is_read_can_be_written_into(tmp_path: Path) -> None:
    """A caller who paints over a picture does not change what the next one loads."""
    write_csv(tmp_path)
    first = load_dataset("fer2013", "test", tmp_path)
    first.images[:] = 0
    assert load_dataset("fer2013", "test", tmp_path).content_hash() == expected("test").content_hash()


# What is missing or broken


def test_a_missing_folder(tmp_path: Path) -> None:
    """A folder that is not there is named, with what to put where."""
    text = refusal(tmp_path / "gone")
    assert text == f"{tmp_path / 'gone'}: there is no such folder; {fer2013_copies.WHERE}."
    assert "$FER_BENCH_DATA" in text


def test_an_empty_folder(tmp_path: Path) -> None:
    """A folder with no FER2013 in it is named, with what to put there."""
    (tmp_path / "readme.txt").write_text("soon")
    assert refusal(tmp_path) == f"{tmp_path}: no FER2013 in this folder; {fer2013_copies.WHERE}."


@pytest.mark.parametrize("layout", ["csv", "folders", "parquet"])
def test_a_copy_further_below(layout: str, tmp_path: Path) -> None:
    """A tar or .zip that was unpacked in its place makes a folder of its own: the text says what to move."""
    (tmp_path / "fer2013").mkdir()
    LAYOUTS[layout](tmp_path / "fer2013")
    told = f"no FER2013 in this folder itself, but there is in {tmp_path / 'fer2013'}: move what is in there up into it"
    assert refusal(tmp_path) == f"{tmp_path}: {told}; {fer2013_copies.WHERE}."


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_tar_that_is_none(content: bytes | None, tmp_path: Path) -> None:
    """A download that broke off is refused by name."""
    LAYOUTS["tar"](tmp_path)
    path = tmp_path / "fer2013.tar.gz"
    path.write_bytes(path.read_bytes()[:-5000] if content is None else content)
    assert refusal(tmp_path).startswith(f"{path}: this is not a readable tar (")


def test_empty_image_folders(tmp_path: Path) -> None:
    """Image folders without pictures are refused by split, with what to put there."""
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    text = refusal(tmp_path, "validation")
    assert text == f"{tmp_path}: it has no pictures of the validation split (PublicTest); {fer2013_copies.WHERE}."


@pytest.mark.parametrize(
    ("line", "change", "reason"),
    [
        (0, lambda text: "emotion,pixels", "the columns must be emotion, pixels and Usage, not"),
        (0, lambda text: "", "the columns must be emotion, pixels and Usage, not none"),
        (0, lambda text: "3," + "7 " * 2304, f"emotion, pixels and Usage, not 3, {'7 ' * 28}7."),  # no header: no page
        (5, lambda text: "7" + text[1:], "the emotion must be 0 to 6, not '7'; get the file again"),
        (5, lambda text: "happy" + text[1:], "the emotion must be 0 to 6, not 'happy'; get the file again"),
        (5, lambda text: text.replace("Training", "Test"), "this is no row of FER2013"),
        (5, lambda text: text + ",1", "this is no row of FER2013"),
        (110, lambda text: text[:400], "this is no row of FER2013 (emotion, pixels, Usage); get the file again"),
    ],
)
def test_a_bad_line_in_the_csv(line: int, change: Callable[[str], str], reason: str, tmp_path: Path) -> None:
    """A wrong header, emotion, usage or number of columns is refused by file and line."""
    lines = csv_lines()
    lines[line] = change(lines[line])
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    text = refusal(tmp_path)
    assert text.startswith(f"{tmp_path / 'fer2013.csv'}, line {line + 1}: ")
    assert reason in text


@pytest.mark.parametrize("content", [b"\x80\xff" * 99, b"emotion,pixels,Usage\n0," + b"1" * 200_000 + b",Training\n"])
def test_a_csv_that_is_none(content: bytes, tmp_path: Path) -> None:
    """A binary file or an endless field in place of the CSV is refused by name."""
    (tmp_path / "fer2013.csv").write_bytes(content)
    text = refusal(tmp_path)
    assert text.startswith(f"{tmp_path / 'fer2013.csv'}: this is not a readable UTF-8 CSV file (")
    assert text.endswith("get it again.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cells: cells[:-1], "2,303 pixels where there must be 2,304"),
        (lambda cells: [*cells, "0"], "2,305 pixels where there must be 2,304"),
        (lambda cells: [], "0 pixels where there must be 2,304"),
        (lambda cells: ["256", *cells[1:]], "the pixels must be 0 to 255, not '256'"),
        (lambda cells: ["-1", *cells[1:]], "the pixels must be 0 to 255, not '-1'"),
        (lambda cells: ["1.5", *cells[1:]], "the pixels must be 0 to 255, not '1.5'"),
        (lambda cells: ["x", *cells[1:]], "the pixels must be 0 to 255, not 'x'"),
    ],
)
def test_bad_pixels_in_the_csv(
    change: Callable[[list[str]], list[str]], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture with too few, too many or impossible pixels is skipped and named by line; the rest is loaded."""
    lines = csv_lines()
    emotion, pixels, usage = lines[5].split(",")
    lines[5] = ",".join((emotion, " ".join(change(pixels.split())), usage))
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    faces = load_dataset("fer2013", "train", tmp_path)
    assert faces.skipped == (f"{tmp_path / 'fer2013.csv'}, line 6: {reason}.",)
    assert capsys.readouterr().err == f"skipped {faces.skipped[0]}\n"
    assert faces.ids == tuple(f"Training_{row}" for row in range(110) if row != 4)
    np.testing.assert_array_equal(faces.images, np.delete(PIXELS[:110], 4, 0))


def broken_zip(root: Path) -> str:
    """A .zip in which Training_4 has a wrong checksum."""
    zip_writer("")(root)
    path = root / "archive.zip"
    content = path.read_bytes().replace(encode(4), encode(4)[:-40] + bytes(40))
    path.write_bytes(content)
    return f"{path}/train/{CLASSES[LABELS[4]]}/Training_4.png"


def broken_parquet(root: Path, cell: object = None) -> str:
    """A parquet file in which Training_4 has no picture."""
    write_parquet(root / "train.parquet", SPLITS["train"], cells={4: cell})
    return f"{root / 'train.parquet'}, row 4"


@pytest.mark.parametrize(
    "write",
    [
        broken_folders,
        broken_zip,
        broken_parquet,
        lambda root: broken_parquet(root, {"bytes": None, "path": "x.png"}),
        lambda root: broken_parquet(root, {"bytes": b"hello", "path": None}),
    ],
)
def test_a_broken_picture_among_good_ones(write: Callable[[Path], str], tmp_path: Path) -> None:
    """In folders, .zip and parquet, a picture that cannot be read is skipped and named; the rest is loaded."""
    named = write(tmp_path)
    faces = load_dataset("fer2013", "train", tmp_path)
    assert len(faces) == 109
    assert len(faces.skipped) == 1
    assert faces.skipped[0].startswith(f"{named}: ")
    np.testing.assert_array_equal(faces.images, np.delete(PIXELS[:110], 4, 0))


def test_a_copy_with_many_broken_pictures(tmp_path: Path) -> None:
    """Where more than one picture in a hundred is broken, the copy is refused with their number and the first."""
    write_folders(tmp_path)
    for row in (4, 8):
        (tmp_path / "train" / CLASSES[LABELS[row]] / f"Training_{row}.png").write_bytes(b"")
    text = refusal(tmp_path)
    assert text.startswith(f"{tmp_path}: 110 of the 110 official train pictures (2 of them broken, the first: ")
    assert str(tmp_path / "train" / CLASSES[LABELS[4]] / "Training_4.png") in text
    assert text.endswith("this is not a whole copy of FER2013, get it again.")


def test_a_slightly_incomplete_copy_is_noted(tmp_path: Path) -> None:
    """A copy that lacks less than one picture in a hundred is loaded, and a note says how many it lacks."""
    lines = csv_lines()
    del lines[100]
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    faces = load_dataset("fer2013", "train", tmp_path)
    assert len(faces) == 109
    assert faces.notes == ("train: 109 of the 110 official pictures; this copy lacks 1",)


def test_a_truncated_copy_is_refused(tmp_path: Path) -> None:
    """A copy that lacks more than one picture in a hundred is refused with what is there and what should be."""
    (tmp_path / "fer2013.csv").write_text("\n".join(csv_lines()[:109]))
    assert refusal(tmp_path) == (
        f"{tmp_path}: 108 of the 110 official train pictures; this is not a whole copy of FER2013, get it again."
    )
    assert "it has no pictures of the test split (PrivateTest)" in refusal(tmp_path, "test")


def test_merged_test_splits_are_refused(tmp_path: Path) -> None:
    """A copy whose test split is PublicTest and PrivateTest together has too many pictures and is refused."""
    write_parquet(tmp_path / "test.parquet", range(110, 126))
    assert refusal(tmp_path, "test") == (
        f"{tmp_path}: 16 of the 9 official test pictures; this is not a whole copy of FER2013, get it again."
    )


def test_a_picture_in_two_folders_is_refused(tmp_path: Path) -> None:
    """A picture that stands under two emotions is refused by its name."""
    write_folders(tmp_path)
    (tmp_path / "train" / "sad" / "Training_7.png").write_bytes(encode(7))
    (tmp_path / "train" / CLASSES[LABELS[8]] / "Training_8.png").unlink()
    assert LABELS[7] != CLASSES.index("sad")
    assert "Training_7 stands in it twice" in refusal(tmp_path)


def test_a_random_number_in_two_classes_is_two_pictures(tmp_path: Path) -> None:
    """Where names are drawn at random, one may come up twice: these two tell their class, the others keep their ids."""
    for name, row in paths().items():
        number = 10_000_000 + (8 if row == 7 else row)
        path = tmp_path / name.replace(f"_{row}.", f"_{number}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row))
    faces = load_dataset("fer2013", "train", tmp_path)
    twice = sorted(f"Training_{SEVEN[LABELS[row]]}_10000008" for row in (7, 8))
    assert sorted(faces.ids) == sorted(
        [f"Training_{10_000_000 + row}" for row in range(110) if row not in (7, 8)] + twice
    )
    by_pixels = {pixels.tobytes(): LABELS[row] for row, pixels in enumerate(PIXELS)}
    assert faces.labels.tolist() == [by_pixels[picture.tobytes()] for picture in faces.images]
    again = tmp_path / "train" / CLASSES[LABELS[8]] / "Training_10000008.webp"
    again.write_bytes(encode(8, "webp"))
    fer2013_copies.read.cache_clear()
    assert f"Training_{SEVEN[LABELS[8]]}_10000008 stands in it twice" in refusal(tmp_path)


def test_labels_in_another_order_are_refused(tmp_path: Path) -> None:
    """Labels numbered by the alphabet, with nothing that says so, are not read as FER2013's own."""
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "train.parquet", SPLITS["train"], classes=ALPHABETIC)
    assert load_dataset("fer2013", "train", tmp_path).labels.tolist() == expected("train").labels.tolist()
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "train.parquet")
    fer2013_copies.read.cache_clear()
    text = refusal(tmp_path)
    assert re.match(
        rf"{tmp_path}: \d+ of its train pictures are labelled sadness where FER2013 has \d+; the labels", text
    )
    assert "must be numbered 0 anger, 1 disgust, 2 fear, 3 happiness, 4 sadness, 5 surprise, 6 neutral, or" in text


def test_a_folder_that_is_no_emotion(tmp_path: Path) -> None:
    """A picture in a folder that is none of the seven emotions is refused by its path."""
    write_folders(tmp_path)
    stray = tmp_path / "train" / "contempt" / "Training_3.png"
    stray.parent.mkdir()
    stray.write_bytes(encode(3))
    assert refusal(tmp_path) == f"{stray}: it does not lie in a folder named after one of the seven emotions."


def test_a_zip_that_is_none(tmp_path: Path) -> None:
    """A download that broke off in the middle of a .zip is refused by name."""
    zip_writer("")(tmp_path)
    path = tmp_path / "archive.zip"
    path.write_bytes(path.read_bytes()[:-5000])
    assert refusal(tmp_path).startswith(f"{path}: this is not a readable .zip (")
    assert refusal(tmp_path).endswith("; get it again.")


def test_a_zip_of_other_things(tmp_path: Path) -> None:
    """A .zip without pictures of the split or rows of it is refused by name, with what it should be."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fer2013.csv", "emotion,pixels,Usage\n")
    text = refusal(tmp_path)
    assert text == f"{tmp_path / 'a.zip'}: it has no pictures of the train split (Training); {fer2013_copies.WHERE}."


def test_a_locked_zip(tmp_path: Path) -> None:
    """A .zip that wants a password is refused by name."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fer2013.csv", "\n".join(csv_lines()))
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1  # the flags of the member, and of its entry in the list
    path.write_bytes(content)
    assert refusal(tmp_path).startswith(f"{path}: this is not a readable .zip (File 'fer2013.csv' is encrypted")


def test_folders_of_ferplus_authors(tmp_path: Path) -> None:
    """What FER+'s own script makes holds no labels of FER2013; the text says which file does."""
    (tmp_path / "FER2013Train").mkdir()
    (tmp_path / "FER2013Train" / "fer0000000.png").write_bytes(encode(0))
    assert refusal(tmp_path) == (
        f"{tmp_path}: the folders of FER+'s authors (FER2013Train) lack FER2013's labels; put fer2013.csv, which they "
        "are made of, and fer2013new.csv beside them."
    )


def test_parquet_that_is_none(tmp_path: Path) -> None:
    """A file that is no parquet is refused by name."""
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing more")
    text = refusal(tmp_path)
    assert text.startswith(f"{tmp_path / 'train.parquet'}: this is not a readable parquet file (")
    assert text.endswith("; get it again.")


def test_parquet_of_another_split(tmp_path: Path) -> None:
    """Where no parquet file is of the split, the text says how its name must start."""
    write_parquet(tmp_path / "train.parquet", SPLITS["train"])
    assert refusal(tmp_path, "test") == (
        f"{tmp_path}: no parquet file of the test split; its name must start with test."
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": None}, ": the columns must be image and label, not label, row"),
        ({"label": [7] * 110}, ", row 0: the label must be 0 to 6, not 7; get the file again."),
        ({"label": [3] * 109 + [None]}, ", row 109: the label must be 0 to 6, not None; get the file again."),
        ({"label": ["happy"] * 110}, ", row 0: the label must be 0 to 6, not 'happy'; get the file again."),
        ({"row": [None] * 110}, ", row 0: the row must be a whole number, not None; get the file again."),
        ({"ferplus_votes": [[1] * 9] * 110}, ", row 0: ferplus_votes must be ten counts, not 9; get the file again."),
    ],
)
def test_parquet_with_bad_columns(change: dict, reason: str, tmp_path: Path) -> None:
    """Missing columns and impossible labels, rows or votes are refused by file and row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "train.parquet"
    columns = {"image": [encode(0)] * 110, "label": [3] * 110, "row": list(range(110)), **change}
    pq.write_table(pa.table({name: values for name, values in columns.items() if values is not None}), path)
    assert refusal(tmp_path).startswith(f"{path}{reason}")


def test_parquet_of_other_classes(tmp_path: Path) -> None:
    """A parquet file whose stored class names are not the seven emotions is refused with them."""
    write_parquet(tmp_path / "train.parquet", SPLITS["train"], classes=(*CLASSES, "contempt"))
    assert refusal(tmp_path) == (
        f"{tmp_path / 'train.parquet'}: its classes must be the seven emotions, not {', '.join(CLASSES)}, contempt."
    )
