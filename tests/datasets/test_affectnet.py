"""AffectNet's loader on tiny trees in exactly its two official shapes, and on broken ones."""

from __future__ import annotations

import contextlib
import functools
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_bench.datasets import affectnet, lists, load_dataset, stream
from fer_bench.datasets.base import SPLITS
from fer_bench.datasets.splits import a_tenth
from fer_bench.emotions import EIGHT
from fer_bench.errors import DataError

NAMES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
COUNTS = {"train": 48, "test": 16}
HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official counts are those of the tiny trees, and a quarter of them may be broken."""
    monkeypatch.setattr(affectnet, "OFFICIAL", COUNTS)
    monkeypatch.setattr(lists, "WHOLE", 0.75)


def save(path: Path, label: int, size: tuple[int, int] = (224, 224), box: tuple[int, ...] = ()) -> None:
    """A picture of one colour, which tells the label; with a box, it is only inside that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(label, size, box))


@functools.cache
def encoded(label: int, size: tuple[int, int], box: tuple[int, ...]) -> bytes:
    colour, file = (label * 30, 200, 99), io.BytesIO()
    image = Image.new("RGB", size, (255, 0, 255) if box else colour)
    if box:
        image.paste(colour, box)
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """train_set and val_set with images/N.jpg and annotations/N_exp.npy (and the other annotations)."""
    for part, folder in affectnet.FOLDERS.items():
        annotations = tmp_path / "affectnet" / folder / "annotations"
        annotations.mkdir(parents=True)
        for number in range(COUNTS[part]):
            save(annotations.parent / "images" / f"{number * 3}.jpg", number % 8)
            np.save(annotations / f"{number * 3}_exp.npy", str(number % 8))
            np.save(annotations / f"{number * 3}_val.npy", "-0.5")
    return tmp_path / "affectnet"


def row(number: int, label: int | str, box: tuple[object, ...] = (20, 30, 60, 50)) -> str:
    return f"{number % 5}/pic{number}.jpg,{','.join(map(str, box))},1.5;2;3;4,{label},-0.5,0.1"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The lists of Manually_Annotated_file_lists and the pictures of Manually_Annotated_Images, faces in a box."""
    root = tmp_path / "first"
    (root / "Manually_Annotated_file_lists").mkdir(parents=True)
    for part, name in affectnet.CSVS.items():
        rows = [HEADER]
        for index in range(COUNTS[part]):
            number = index + (1000 if part == "test" else 0)
            save(
                root / f"Manually_Annotated_Images/{number % 5}/pic{number}.jpg",
                index % 8,
                (120, 110),
                (15, 20, 85, 90),
            )
            rows.append(row(number, index % 8))
        rows += [row(9000, 8), row(9001, 9), row(9002, 10, ("NULL",) * 4)]
        (root / "Manually_Annotated_file_lists" / name).write_text("\n".join(rows) + "\n")
    return root


def list_of(root: Path, part: str) -> Path:
    return root / "Manually_Annotated_file_lists" / affectnet.CSVS[part]


@pytest.fixture(params=["later", "first"])
def tree(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_the_official_validation_set_is_the_test_split(tree: Path) -> None:
    """Test is the whole official validation set under our names, cut to the face, at 96 x 96."""
    faces = load_dataset("affectnet", "test", tree)
    assert (faces.emotions, faces.images.shape, faces.images.dtype) == (EIGHT, (16, 96, 96, 3), np.uint8)
    assert [EIGHT[label] for label in faces.labels] == list(NAMES) * 2
    wanted = np.array([(label % 8 * 30, 200, 99) for label in range(16)])
    assert (np.abs(faces.images.astype(int) - wanted[:, None, None]) <= 4).all()
    assert (faces.skipped, faces.notes) == ((), ())


def test_a_fixed_tenth_of_train_validates(tree: Path) -> None:
    """Train and validation together are the official training set, apart, and which is which goes by the name."""
    train, validation, test = (load_dataset("affectnet", split, tree) for split in SPLITS)
    whole = [*train.ids, *validation.ids]
    assert len(set(whole)) == len(whole) == COUNTS["train"]
    assert a_tenth(validation.ids).all()
    assert not a_tenth(train.ids).any()
    assert len(validation)
    assert not set(whole) & set(test.ids)


def test_below_the_data_folder(later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, below $FER_BENCH_DATA, in the order of the numbers."""
    monkeypatch.setenv("FER_BENCH_DATA", str(later.parent))
    assert load_dataset("affectnet", "test").ids == tuple(f"test_{number * 3}" for number in range(16))


@pytest.mark.parametrize("value", [np.array("5"), np.array(["5"]), np.array(5), np.array([5], np.int8), np.array(b"5")])
def test_every_way_of_storing_an_expression(later: Path, value: np.ndarray) -> None:
    """Text or number, alone or in a list of one: the annotation is the same."""
    np.save(later / "val_set/annotations/0_exp.npy", value)
    faces = load_dataset("affectnet", "test", later)
    assert EIGHT[faces.labels[0]] == "disgust"


def test_a_pickle_is_refused(later: Path) -> None:
    """An annotation with a pickle in it is never opened, whatever it holds: the file is named."""
    path = later / "val_set/annotations/3_exp.npy"
    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="this is not a .npy file of one expression") as caught:
        load_dataset("affectnet", "test", later)
    assert str(path) in str(caught.value)


class Trap:
    """Ends the test run where it is unpickled."""

    def __reduce__(self) -> tuple:
        return exit, (1,)


@pytest.mark.parametrize("content", [b"", b"5", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_a_broken_annotation_is_named(later: Path, content: bytes) -> None:
    """A file that is no .npy, or a torn one, is refused by name."""
    path = later / "train_set/annotations/3_exp.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match="this is not a .npy file of one expression") as caught:
        load_dataset("affectnet", "train", later)
    assert str(path) in str(caught.value)
    assert "unsafely" not in str(caught.value), "NumPy's advice on pickles is not for the user of a list of labels"


@pytest.mark.parametrize("value", ["11", "-1", "happy", ""])
def test_a_label_out_of_range(tree: Path, value: str) -> None:
    """An expression that AffectNet does not have is refused with its file, and in a list with its line."""
    if (tree / "val_set").exists():
        where = tree / "val_set/annotations/3_exp.npy"
        np.save(where, value)
    else:
        path = list_of(tree, "test")
        path.write_text(path.read_text().replace(row(1001, 1), row(1001, value)))
        where = f"{path}, line 3"
    with pytest.raises(DataError, match="the expression must be 0 to 10") as caught:
        load_dataset("affectnet", "test", tree)
    assert str(caught.value).startswith(f"{where}: ")


def test_what_is_no_expression_is_left_out(later: Path) -> None:
    """Pictures marked as none, uncertain or no face are not read and count for nothing."""
    for number, value in enumerate(("8", "9", "10"), 900):
        np.save(later / f"val_set/annotations/{number}_exp.npy", value)
    faces = load_dataset("affectnet", "test", later)
    assert (len(faces), faces.skipped, faces.notes) == (16, (), ())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r\n\r\n"])
@pytest.mark.parametrize("header", [True, False])
def test_a_list_from_windows(first: Path, encoding: str, ends: str, header: bool) -> None:
    """A BOM, Windows line ends, empty lines, backslashes and a missing line of names change nothing."""
    whole = load_dataset("affectnet", "test", first)
    path = list_of(first, "test")
    lines = path.read_text().replace("/", "\\").splitlines()[0 if header else 1 :]
    path.write_bytes((ends.join(lines) + ends).encode(encoding))
    again = load_dataset("affectnet", "test", first)
    assert (again.ids, again.content_hash()) == (whole.ids, whole.content_hash())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (row(1001, 1).replace(",0.1", ""), "8 columns where there must be 9"),
        (row(1001, 1, (1, 2, 0, 5)), "must be a box, not 1, 2, 0, 5"),
        (row(1001, 1, ("a", 2, 5, 5)), "must be a box, not a, 2, 5, 5"),
        (row(1001, 1, ("inf", 2, 5, 5)), "must be a box, not inf"),
        (row(1001, 1).replace("1/pic", "../../pic"), "is no path inside Manually_Annotated_Images"),
        (row(1001, 1).replace("1/pic", "/etc/pic"), "is no path inside Manually_Annotated_Images"),
    ],
)
def test_a_wrong_line_is_named(first: Path, line: str, says: str) -> None:
    """Too few columns, a face that is no box and a path that leads out of the folder: file and line are named."""
    path = list_of(first, "test")
    path.write_text(path.read_text().replace(row(1001, 1), line))
    with pytest.raises(DataError, match=says) as caught:
        load_dataset("affectnet", "test", first)
    assert str(caught.value).startswith(f"{path}, line 3: ")


def test_a_missing_column_is_named(first: Path) -> None:
    """A list without face_width is refused with the column and line 1."""
    path = list_of(first, "test")
    path.write_text(path.read_text().replace("face_width", "width"))
    with pytest.raises(DataError, match="line 1: there is no column face_width"):
        load_dataset("affectnet", "test", first)


def test_a_picture_listed_again_keeps_its_first_label(first: Path) -> None:
    """A second entry of a picture changes nothing but a note."""
    whole = load_dataset("affectnet", "test", first)
    path = list_of(first, "test")
    path.write_text(path.read_text() + row(1001, 6) + "\n")
    faces = load_dataset("affectnet", "test", first)
    assert faces.content_hash() == whole.content_hash()
    assert faces.notes == ("validation.csv lists 1 picture(s) again; the first label of each was kept",)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((20, 30, 60, 50), (20, 25, 80, 85)),
        ((-30, -40, 60, 50), (0, 0, 60, 60)),
        ((100, 90, 60, 50), (60, 50, 120, 110)),
        ((0, 0, 500, 400), (5, 0, 115, 110)),
        (("NULL",) * 4, (5, 0, 115, 110)),
    ],
)
def test_the_square_around_the_listed_face(first: Path, box: tuple, kept: tuple) -> None:
    """The longer side of the box, about its centre, moved into the picture; without a box the centred square."""
    path = list_of(first, "test")
    path.write_text(path.read_text().replace(row(1001, 1), row(1001, 1, box)))
    gradient = np.add.outer(np.arange(110), np.arange(120)).astype(np.uint8)
    image = Image.fromarray(gradient).convert("RGB")
    image.save(first / "Manually_Annotated_Images/1/pic1001.jpg", "JPEG", quality=98)
    found = load_dataset("affectnet", "test", first).images[1]
    wanted = np.asarray(image.crop(kept).resize((96, 96), Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - wanted).max() <= 6


def test_bad_pictures_are_reported_and_skipped(tree: Path) -> None:
    """An absent picture and a torn one are left out and named with what lists them; the others stay."""
    whole = load_dataset("affectnet", "test", tree)
    folder = tree / "val_set/images" if (tree / "val_set").exists() else tree / "Manually_Annotated_Images"
    absent, torn = (folder / f"{name.removeprefix('test_').removesuffix('.jpg')}.jpg" for name in whole.ids[2:4])
    absent.unlink()
    torn.write_bytes(torn.read_bytes()[:200])
    faces = load_dataset("affectnet", "test", tree)
    assert faces.content_hash() == whole.take([0, 1, *range(4, 16)]).content_hash()
    assert faces.skipped[0].startswith(f"{absent}: there is no such file (listed in {tree}")
    assert faces.skipped[1].startswith(f"{torn}: this is not a readable picture")
    assert "6_exp.npy" in faces.skipped[0] or "validation.csv, line 4" in faces.skipped[0]


def test_names_in_another_case(tree: Path) -> None:
    """Folders and extensions in another case are found all the same."""
    whole = load_dataset("affectnet", "test", tree)
    for path in list(tree.rglob("*.jpg")):
        path.rename(path.with_suffix(".JPG"))
    for path in list(tree.rglob("*_exp.npy")):
        path.rename(path.with_name(path.name.upper()))
    for folder in list(tree.iterdir()):
        folder.rename(folder.with_name(folder.name.upper()))
    again = load_dataset("affectnet", "test", tree)
    assert (again.ids, again.content_hash()) == (whole.ids, whole.content_hash())


def test_a_split_larger_than_memory_is_refused(later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the decoded split would not fit into this machine's memory, both figures are given, and nothing is read."""
    monkeypatch.setattr(lists.os, "sysconf", lambda name: 1 if name == "SC_PHYS_PAGES" else 400_000)
    with pytest.raises(DataError, match=r"16 test pictures of 96 x 96 pixels take 0\.0 GB of memory, and this machine"):
        load_dataset("affectnet", "test", later)


@pytest.mark.parametrize(("bound", "fits"), [("400000", False), ("4000000", True), ("max", True)])
def test_a_container_may_have_less_memory(
    bound: str, fits: bool, later: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's own bound counts where it has one, and not the machine's memory."""
    (tmp_path / "memory.max").write_text(f"{bound}\n")
    monkeypatch.setattr(lists, "CONTAINER", tmp_path / "memory.max")
    with (
        contextlib.nullcontext() if fits else pytest.raises(DataError, match="take 0.0 GB of memory, and this machine")
    ):
        assert len(load_dataset("affectnet", "test", later)) == 16


def test_an_incomplete_copy(later: Path) -> None:
    """A few pictures too few are noted; far fewer, or more, is no copy of AffectNet."""
    annotations = later / "val_set/annotations"
    (annotations / "3_exp.npy").unlink()
    note = "15 of the 16 official test pictures of eight expressions; this copy lacks 1"
    assert load_dataset("affectnet", "test", later).notes == (note,)
    for number in range(2, 8):
        (annotations / f"{number * 3}_exp.npy").unlink()
    with pytest.raises(DataError, match="9 of the 16 official test .*; this is not a whole copy of AffectNet"):
        load_dataset("affectnet", "test", later)
    for number in range(900, 910):
        np.save(annotations / f"{number}_exp.npy", "1")
    with pytest.raises(DataError, match="19 of the 16 official"):
        load_dataset("affectnet", "test", later)


@pytest.mark.parametrize("part", ["images", "annotations"])
def test_what_is_missing_is_named(later: Path, first: Path, tmp_path: Path, part: str) -> None:
    """Without pictures or labels: the set, its folder and layouts, whom to ask, and that a licence is agreed to."""
    (later / "val_set" / part).rename(tmp_path / "elsewhere")
    lost = "Manually_Annotated_Images" if part == "images" else "Manually_Annotated_file_lists"
    (first / lost).rename(tmp_path / "elsewhere too")
    for root in (later, first, tmp_path / "nothing"):
        with pytest.raises(DataError) as caught:
            load_dataset("affectnet", "test", root)
        for text in ("AffectNet", str(root), "annotations/*_exp.npy", "mohammadmahoor.com", "licence"):
            assert text in str(caught.value)


def test_training_may_stream_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed, it is the split that is loaded: the same names, labels, cut and pixels, and streamed above the bound."""
    faces, files = load_dataset("affectnet", "train", tree), affectnet.list_affectnet(tree, "train")
    assert (tuple(files.ids), files.emotions, files.notes) == (faces.ids, faces.emotions, faces.notes)
    assert files.nbytes == faces.images.nbytes
    ((images, labels),) = stream.Streamed(files, torch.device("cpu"), workers=0).batches([torch.arange(len(files))])
    assert np.array_equal(images.numpy(), faces.images)
    assert np.array_equal(labels.numpy(), faces.labels)
    monkeypatch.setenv("FER_BENCH_DATA", str(tree.parent))
    if tree.name == "affectnet":
        assert stream.to_stream("affectnet", "train") is None
        monkeypatch.setattr(stream, "BOUND", files.nbytes - 1)
        assert len(stream.to_stream("affectnet", "train")) == len(files)
