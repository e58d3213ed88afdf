"""FER2013 and FER+ from every layout, whole and broken, on tiny copies; and the real one where it is here."""

from __future__ import annotations

import functools
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import FaceSet, duplicated_in, fer2013, fer2013_copies, load_dataset
from fer_bench.emotions import EIGHT, FOUR, SEVEN
from fer_bench.errors import DataError

SPLITS = {"train": range(0, 110), "validation": range(110, 117), "test": range(117, 126)}
"""Rows of the tiny fer2013.csv; 110 so that one broken picture is less than one in a hundred."""
USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
PIXELS = np.random.default_rng(0).integers(0, 256, (126, 48, 48), dtype=np.uint8)
LABELS = [(row * 3) % 7 for row in range(126)]


def votes_of(row: int) -> list[int]:
    """Ten votes: mostly for the picture's own label; every seventh row for contempt; rows 3, 13, 23... are a tie."""
    votes = [0] * 10
    own = fer2013_copies.VOTES.index(SEVEN[LABELS[row]])
    votes[fer2013_copies.VOTES.index("contempt") if row % 7 == 6 else own] = 5 if row % 10 == 3 else 8
    votes[fer2013_copies.VOTES.index("unknown")] = 5 if row % 10 == 3 else 2
    return votes


MAJORITY = {split: [row for row in rows if row % 10 != 3] for split, rows in SPLITS.items()}
CLEAN = {split: [row for row in rows if row % 7 != 6] for split, rows in MAJORITY.items()}


@pytest.fixture(autouse=True)
def _tiny(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The official counts are those of the tiny copy, and nothing is remembered (but for tests of the real one)."""
    if request.node.get_closest_marker("fer2013"):
        yield
        return
    monkeypatch.setattr(fer2013, "COUNTS", {split: len(rows) for split, rows in SPLITS.items()})
    monkeypatch.setattr(fer2013, "FERPLUS_COUNTS", {split: len(rows) for split, rows in MAJORITY.items()})
    monkeypatch.setattr(fer2013, "CLEAN_COUNTS", {split: len(rows) for split, rows in CLEAN.items()})
    monkeypatch.setattr(fer2013_copies, "ROWS", 126)
    fer2013_copies.read.cache_clear()
    yield
    fer2013_copies.read.cache_clear()


@functools.cache
def encode(row: int, suffix: str = "png") -> bytes:
    """A picture's file, lossless where the suffix allows."""
    file = io.BytesIO()
    form, options = {"jpg": ("JPEG", {}), "webp": ("WEBP", {"lossless": True})}.get(suffix, (suffix.upper(), {}))
    Image.fromarray(PIXELS[row]).save(file, form, **options)
    return file.getvalue()


@functools.cache
def numbers(row: int) -> str:
    """A picture as fer2013.csv writes it."""
    return " ".join(map(str, PIXELS[row].ravel()))


def usage_of(row: int) -> str:
    """Training, PublicTest or PrivateTest."""
    return USAGES[next(split for split, rows in SPLITS.items() if row in rows)]


# One writer per layout. Each writes the whole tiny copy below a folder.


def csv_lines(columns: tuple[str, ...] = ("emotion", "pixels", "Usage")) -> list[str]:
    """The lines of fer2013.csv, header first."""
    lines = [",".join(columns)]
    for row in range(126):
        cells = {"emotion": str(LABELS[row]), "pixels": numbers(row), "usage": usage_of(row)}
        lines.append(",".join(cells[column.strip().lower()] for column in columns))
    return lines


def write_csv(root: Path) -> None:
    """fer2013.csv, as from Kaggle's competition."""
    (root / "fer2013.csv").write_text("\n".join(csv_lines()) + "\n")


def write_windows_csv(root: Path) -> None:
    """fer2013.csv saved on Windows: byte-order mark, CR LF, an empty line in the middle and at the end."""
    lines = csv_lines()
    lines.insert(50, "")
    (root / "fer2013.csv").write_bytes(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8-sig"))


def write_icml(root: Path) -> None:
    """icml_face_data.csv, whose columns have leading spaces and another order."""
    (root / "icml_face_data.csv").write_text("\n".join(csv_lines(("emotion", " Usage", " pixels"))) + "\n")


def paths(suffix: Callable[[int], str] = lambda row: "png") -> dict[str, int]:
    """Path in the image-folder layout -> row."""
    folder = {row: "train" if row in SPLITS["train"] else "test" for row in range(126)}
    return {f"{folder[row]}/{CLASSES[LABELS[row]]}/{usage_of(row)}_{row}.{suffix(row)}": row for row in range(126)}


def write_folders(root: Path) -> None:
    """The image folders, with strangers among the pictures."""
    for name, row in paths().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row))
    (root / "train" / "happy" / ".DS_Store").write_bytes(b"\0")
    (root / "train" / "happy" / "._Training_1.png").write_bytes(b"\0")


def write_mixed_folders(root: Path) -> None:
    """The image folders, as PNG, WebP and BMP."""
    kinds = {0: "webp", 1: "bmp"}
    for name, row in paths(lambda row: kinds.get(row % 12, "png")).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row, path.suffix[1:]))


def zip_writer(top: str) -> Callable[[Path], None]:
    """A writer of the image folders in one .zip, below the folder `top` inside it, packed on a Mac."""

    def write(root: Path) -> None:
        with zipfile.ZipFile(root / "archive.zip", "w") as archive:
            for name, row in paths().items():
                archive.writestr(top + name, encode(row))
                archive.writestr(f"__MACOSX/{top}" + name.replace("/T", "/._T").replace("/P", "/._P"), b"\0")

    return write


def write_parquet(
    path: Path,
    rows: list[int] | range,
    known: bool = True,
    votes: bool = True,
    classes: tuple[str, ...] | None = None,
    cells: dict[int, object] | None = None,
) -> None:
    """One parquet file as `datasets` writes it. classes: the stored order of the class names; cells: other images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = classes or CLASSES
    images = [(cells or {}).get(row, {"bytes": encode(row), "path": None}) for row in rows]
    columns: dict[str, list] = {"image": images, "label": [order.index(CLASSES[LABELS[row]]) for row in rows]}
    if known:
        columns["row"] = list(rows)
    if votes:
        columns["ferplus_votes"] = [votes_of(row) for row in rows]
    table = pa.table(columns)
    if classes:
        features = {"info": {"features": {"label": {"names": list(classes), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def parquet_writer(names: dict[str, str], **options: object) -> Callable[[Path], None]:
    """A writer of one parquet file per split under these names."""

    def write(root: Path) -> None:
        for split, name in names.items():
            write_parquet(root / name, SPLITS[split], **options)

    return write


def write_parquet_shards(root: Path) -> None:
    """The training split in two files, shuffled, rows known."""
    rows = np.random.default_rng(1).permutation(110).tolist()
    write_parquet(root / "train-00000-of-00002.parquet", rows[:60])
    write_parquet(root / "train-00001-of-00002.parquet", rows[60:])
    parquet_writer({"validation": "val-00000-of-00001.parquet", "test": "test-00000-of-00001.parquet"})(root)


PLAIN = {"train": "train.parquet", "validation": "validation.parquet", "test": "test.parquet"}
HUB = {
    "train": "data/train-00000-of-00001.parquet",
    "validation": "data/publicTest-00000-of-00001.parquet",
    "test": "data/privateTest-00000-of-00001.parquet",
}
ALPHABETIC = tuple(sorted(CLASSES))

LAYOUTS: dict[str, Callable[[Path], None]] = {
    "csv": write_csv,
    "windows csv": write_windows_csv,
    "icml": write_icml,
    "folders": write_folders,
    "mixed folders": write_mixed_folders,
    "zip": zip_writer(""),
    "zip with a top folder": zip_writer("fer2013/images/"),
    "parquet": parquet_writer(PLAIN),
    "parquet shards": write_parquet_shards,
    "parquet without rows": parquet_writer(PLAIN, known=False, votes=False),
    "parquet without votes": parquet_writer(PLAIN, votes=False),
    "parquet votes without rows": parquet_writer(PLAIN, known=False),
    "hub files": parquet_writer(HUB, known=False, votes=False),
    "hub files by the alphabet": parquet_writer(HUB, known=False, votes=False, classes=ALPHABETIC),
}


def write_votes(root: Path, change: Callable[[list[list[str]]], None] = lambda lines: None, end: str = "\n") -> None:
    """fer2013new.csv, after `change` has had its way with the lines."""
    lines = [["Usage", "Image name", *fer2013_copies.VOTES]]
    lines += [[usage_of(row), f"fer{row:07d}.png", *map(str, votes_of(row))] for row in range(126)]
    change(lines)
    (root / "fer2013new.csv").write_bytes((end.join(map(",".join, lines)) + end).encode("utf-8-sig"))


def expected(split: str) -> FaceSet:
    """What every layout must give."""
    rows = SPLITS[split]
    labels = np.array([LABELS[row] for row in rows])
    return FaceSet("fer2013", split, SEVEN, PIXELS[rows.start : rows.stop], labels, tuple(map(str, rows)))


def refusal(root: Path, split: str = "train", name: str = "fer2013") -> str:
    """The text with which a copy is refused; one line."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, split, root)
    text = str(caught.value)
    assert "\n" not in text
    return text


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


@pytest.mark.parametrize("layout", ["csv", "windows csv", "icml", "folders", "zip", "parquet", "parquet shards"])
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
        (0, lambda text: "", "the columns must be emotion, pixels and Usage, not"),
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


def broken_folders(root: Path) -> str:
    """Image folders of which Training_4 is text; returns how it must be named."""
    write_folders(root)
    path = root / "train" / CLASSES[LABELS[4]] / "Training_4.png"
    path.write_text("hello")
    return str(path)


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
    """A .zip without the image folders is refused by name, with what it should be."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fer2013.csv", "emotion,pixels,Usage\n")
    text = refusal(tmp_path)
    assert text == f"{tmp_path / 'a.zip'}: it has no pictures of the train split (Training); {fer2013_copies.WHERE}."


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


# FER+


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        # neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
        ([0, 10, 0, 0, 0, 0, 0, 0, 0, 0], "happiness"),
        ([1, 4, 1, 1, 1, 1, 1, 0, 0, 0], "happiness"),  # 4 of 10, but single votes are dropped: 4 of 4
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], None),  # a tie is not more than half
        ([2, 4, 2, 0, 0, 0, 0, 0, 1, 1], None),  # 4 of 8 is exactly half
        ([2, 5, 2, 0, 0, 0, 0, 0, 1, 0], "happiness"),  # 5 of 9 is more
        ([3, 4, 0, 3, 0, 0, 0, 0, 0, 0], None),  # the most, but 4 of 10
        ([0, 0, 0, 0, 0, 0, 0, 0, 9, 1], None),  # unknown is no emotion
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], None),  # not a face
        ([0, 0, 0, 0, 0, 0, 0, 6, 4, 0], "contempt"),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),  # nothing is left
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None),  # FER+ has no entry
        ([0, 0, 0, 0, 7, 0, 3, 0, 0, 0], "anger"),
        ([0, 0, 0, 0, 0, 2, 1, 0, 1, 1], "disgust"),
    ],
)
def test_the_majority_rule_by_hand(votes: list[int], label: str | None) -> None:
    """Single votes are dropped; then an emotion, not unknown or no-face, must hold more than half of the rest."""
    kept, labels = fer2013.majority(np.array([votes]))
    assert bool(kept[0]) == (label is not None)
    assert label is None or EIGHT[labels[0]] == label


@pytest.mark.parametrize("layout", ["csv", "windows csv", "folders", "zip", "parquet", "parquet without votes"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ferplus_from_every_layout(layout: str, end: str, tmp_path: Path) -> None:
    """From every layout, FER+ keeps the rows with a majority and labels them by the votes."""
    LAYOUTS[layout](tmp_path)
    if layout == "zip":
        write_votes(tmp_path, end=end)
        with zipfile.ZipFile(tmp_path / "archive.zip", "a") as archive:
            archive.write(tmp_path / "fer2013new.csv", "fer2013/fer2013new.csv")
        (tmp_path / "fer2013new.csv").unlink()
    elif layout != "parquet":
        write_votes(tmp_path, end=end)
    for split, rows in MAJORITY.items():
        faces = load_dataset("ferplus", split, tmp_path)
        assert faces.ids == tuple(f"{USAGES[split]}_{row}" for row in rows)
        assert faces.labels.tolist() == [7 if row % 7 == 6 else LABELS[row] for row in rows]
        np.testing.assert_array_equal(faces.images, PIXELS[rows])
        assert faces.emotions == EIGHT


def test_votes_stay_with_their_picture_without_rows(tmp_path: Path) -> None:
    """Votes in a parquet file without rows belong to the picture beside them."""
    LAYOUTS["parquet votes without rows"](tmp_path)
    faces = load_dataset("ferplus", "test", tmp_path)
    np.testing.assert_array_equal(faces.images, PIXELS[MAJORITY["test"]])


@pytest.mark.parametrize("layout", ["csv", "hub files", "zip"])
def test_no_votes(layout: str, tmp_path: Path) -> None:
    """A copy of FER2013 without votes is refused for FER+, with the file to put beside it."""
    LAYOUTS[layout](tmp_path)
    text = refusal(tmp_path, "test", "ferplus")
    assert text.startswith(f"{tmp_path} has no FER+ votes: put fer2013new.csv beside ")


def test_votes_beside_pictures_of_unknown_rows(tmp_path: Path) -> None:
    """Some copies number their pictures far beyond the last row: FER2013 loads, and no votes are guessed."""
    for name, row in paths().items():
        path = tmp_path / name.replace(f"_{row}.", f"_{row + 10_000_000 * (row % 2)}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row))
    write_votes(tmp_path)
    assert load_dataset("fer2013", "test", tmp_path).counts == expected("test").counts
    assert "numbered by their row" in refusal(tmp_path, "test", "ferplus")


def test_votes_of_other_pictures(tmp_path: Path) -> None:
    """Votes that are shifted against the pictures keep the right number but the wrong labels, and are refused."""
    write_csv(tmp_path)

    def shift(lines: list[list[str]]) -> None:
        # Rows ten apart agree on whether there is a majority, and not on the label.
        lines[1:101] = lines[11:101] + lines[1:11]

    write_votes(tmp_path, shift)
    text = refusal(tmp_path, "train", "ferplus")
    assert f"{tmp_path}: the FER+ majority rule keeps 99 train pictures where it must keep 99, and " in text
    assert text.endswith("do not belong together, get fer2013new.csv and FER2013 again.")


def test_votes_that_keep_the_wrong_number(tmp_path: Path) -> None:
    """Votes that keep another number of pictures than FER+ does are refused with both numbers."""
    write_csv(tmp_path)

    def forget(lines: list[list[str]]) -> None:
        lines[1][2:] = ["0"] * 10

    write_votes(tmp_path, forget)
    text = refusal(tmp_path, "train", "ferplus")
    assert "the FER+ majority rule keeps 98 train pictures where it must keep 99" in text
    assert "get fer2013new.csv and FER2013 again" in text


def test_ferplus_with_a_broken_picture(tmp_path: Path) -> None:
    """One broken picture may be missing from FER+, by name; a missing one besides may not."""
    broken_folders(tmp_path)
    write_votes(tmp_path)
    faces = load_dataset("ferplus", "train", tmp_path)
    assert len(faces) == 98
    assert len(faces.skipped) == 1


@pytest.mark.parametrize(
    ("line", "cells"),
    [(4, ["Training", "fer0000003.png", *"012345678"]), (4, ["Training", "a", *"01234x6789"]), (9, ["Training"])],
)
def test_a_bad_line_in_the_votes(line: int, cells: list[str], tmp_path: Path) -> None:
    """A line without ten counts is refused by file and line."""
    write_csv(tmp_path)
    write_votes(tmp_path, lambda lines: lines.__setitem__(line - 1, cells))
    assert refusal(tmp_path, "test", "ferplus") == (
        f"{tmp_path / 'fer2013new.csv'}, line {line}: ten vote counts must follow the image name; get the file again."
    )


def test_a_vote_file_with_other_columns(tmp_path: Path) -> None:
    """A vote file with another header is refused by file, with the columns it must have."""
    write_csv(tmp_path)
    write_votes(tmp_path, lambda lines: lines[0].reverse())
    text = refusal(tmp_path, "test", "ferplus")
    assert text.startswith(f"{tmp_path / 'fer2013new.csv'}, line 1: the columns must be Usage, Image name, neutral, ")


def test_a_vote_file_that_is_none(tmp_path: Path) -> None:
    """A binary file in place of the votes is refused by name."""
    write_csv(tmp_path)
    (tmp_path / "fer2013new.csv").write_bytes(b"\xff\x80" * 50)
    text = refusal(tmp_path, "test", "ferplus")
    assert text.startswith(f"{tmp_path / 'fer2013new.csv'}: this is not a readable UTF-8 CSV file (")
    assert text.endswith("get it again.")


# FER2013, cleaned


@pytest.mark.parametrize(
    ("votes", "own", "kept"),
    [
        # neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
        ([0, 10, 0, 0, 0, 0, 0, 0, 0, 0], "happiness", True),
        ([9, 1, 0, 0, 0, 0, 0, 0, 0, 0], "happiness", True),  # one rater is enough
        ([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], "happiness", False),  # all saw something else
        ([0, 0, 0, 8, 0, 0, 0, 0, 1, 1], "sadness", True),
        ([0, 0, 0, 7, 0, 0, 0, 0, 2, 1], "sadness", False),  # three saw no emotion or no face
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "neutral", False),  # FER+ has no entry
    ],
)
def test_the_cleaning_rule_by_hand(votes: list[int], own: str, kept: bool) -> None:
    """FER2013's label needs one rater of ten, and at most two may have said unknown or not a face."""
    assert fer2013.clean(np.array([votes]), np.array([SEVEN.index(own)])).tolist() == [kept]


def test_the_clean_pictures_keep_their_own_labels(tmp_path: Path) -> None:
    """Rows of which the raters saw too little or something else are left out; the others are FER2013's as they are."""
    write_csv(tmp_path)
    write_votes(tmp_path)
    for split, rows in CLEAN.items():
        faces = load_dataset("fer2013-clean", split, tmp_path)
        assert faces.ids == tuple(f"{USAGES[split]}_{row}" for row in rows)
        assert faces.labels.tolist() == [LABELS[row] for row in rows]
        np.testing.assert_array_equal(faces.images, PIXELS[rows])
        assert faces.emotions == SEVEN


def test_cleaning_needs_the_votes_of_these_pictures(tmp_path: Path) -> None:
    """Without votes, or with those of other pictures, the cleaned set is refused."""
    write_csv(tmp_path)
    assert refusal(tmp_path, "test", "fer2013-clean").startswith(f"{tmp_path} has no FER+ votes: put fer2013new.csv ")
    write_votes(tmp_path, lambda lines: lines.insert(1, lines.pop()))
    fer2013_copies.read.cache_clear()
    text = refusal(tmp_path, "train", "fer2013-clean")
    assert f"train pictures are clean where {len(CLEAN['train'])} must be; the votes and the pictures do not" in text


# The Hub


def hub_table(split: str, order: tuple[str, ...], broken: int | None = None) -> object:
    """The Hub's copy, in memory."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(order))})
    rows = SPLITS[split]
    images = [{"bytes": b"hello" if row == broken else encode(row), "path": None} for row in rows]
    labels = [order.index(CLASSES[LABELS[row]]) for row in rows]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


@pytest.mark.parametrize("order", [CLASSES, ALPHABETIC])
def test_the_hub_copy(order: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a copy here, the Hub's three splits are used, with the labels that its class names state."""
    import datasets

    asked: list[tuple[str, str]] = []

    def load(repo: str, split: str) -> object:
        asked.append((repo, split))
        ours = {name: key for key, name in fer2013_copies.HUB_SPLITS.items()}
        return hub_table(ours[split], order)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load)
    for split in SPLITS:
        assert load_dataset("fer2013", split).content_hash() == expected(split).content_hash()
    assert asked == [
        (fer2013_copies.HUB_REPO, "train"),
        (fer2013_copies.HUB_REPO, "publicTest"),
        (fer2013_copies.HUB_REPO, "privateTest"),
    ]


def test_a_broken_picture_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of the Hub's copy that cannot be read is skipped and named; the rest is loaded."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda repo, split: hub_table("train", CLASSES, broken=4))
    faces = load_dataset("fer2013", "train")
    assert len(faces) == 109
    assert faces.skipped[0].startswith(f"{fer2013_copies.HUB_REPO}, train row 4: ")


def test_the_hub_has_no_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FER+ cannot be had from the Hub's copy, and the text says what to get."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda repo, split: hub_table("test", CLASSES))
    with pytest.raises(DataError, match=f"{fer2013_copies.HUB_REPO} has no FER\\+ votes: put fer2013new.csv beside"):
        load_dataset("ferplus", "test")


def test_an_unreachable_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither a copy nor the Hub, the end comes within seconds, says what to put where, and leaves no trace."""
    import datasets

    monkeypatch.chdir(tmp_path)
    before, start = datasets.config.HF_HUB_OFFLINE, time.monotonic()
    with pytest.raises(DataError) as caught:
        load_dataset("fer2013", "test")
    assert time.monotonic() - start < 5
    assert str(caught.value).startswith("FER2013 is not here and could not be had from the Hub (")
    assert str(caught.value).endswith(f"); {fer2013_copies.WHERE}.")
    assert datasets.config.HF_HUB_OFFLINE is before


# The real data


@pytest.mark.fer2013
def test_the_real_splits(fer2013_root: Path) -> None:
    """The project's copy lacks 31 training pictures and says so; 288 test pictures also stand in train."""
    found = {split: load_dataset("fer2013", split, fer2013_root) for split in SPLITS}
    assert [len(found[split]) for split in ("train", "validation", "test")] == [28_678, 3_589, 3_589]
    assert found["train"].notes == ("train: 28,678 of the 28,709 official pictures; this copy lacks 31",)
    assert found["validation"].notes == found["test"].notes == ()
    assert found["test"].counts == dict(zip(SEVEN, (491, 55, 528, 879, 594, 416, 626), strict=True))
    in_train = duplicated_in(found["test"], found["train"])
    by_hand = {picture.tobytes() for picture in found["train"].images}
    assert in_train.tolist() == [picture.tobytes() in by_hand for picture in found["test"].images]
    assert in_train.sum() == 288


@pytest.mark.fer2013
def test_the_real_ferplus(fer2013_root: Path) -> None:
    """The majority rule keeps exactly the 25,060 / 3,199 / 3,153 pictures of FER+'s Table 1."""
    found = {split: load_dataset("ferplus", split, fer2013_root) for split in SPLITS}
    assert [len(found[split]) for split in ("train", "validation", "test")] == [25_060, 3_199, 3_153]
    assert all(faces.counts["contempt"] for faces in found.values())


@pytest.mark.fer2013
def test_the_real_clean_pictures(fer2013_root: Path) -> None:
    """The rule keeps 23,504 / 2,888 / 2,938 pictures, of P3's four emotions 23,200 in all (the paper: about 23,000)."""
    found = [load_dataset("fer2013-clean", split, fer2013_root) for split in ("train", "validation", "test")]
    assert [len(faces) for faces in found] == [23_504, 2_888, 2_938]
    assert sum(len(faces.restrict(FOUR)) for faces in found) == 23_200
