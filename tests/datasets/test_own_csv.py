"""Anyone's own pictures in CSV files, in good order and in bad; folders are in test_own."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.datasets import load_dataset
from fer_bench.datasets.merge import sources_of
from fer_bench.datasets.own_csv import has_splits
from fer_bench.errors import DataError
from fer_bench.registry import UnknownNameError
from tests.datasets.own_pictures import draw, refusal, table


def test_a_csv_of_relative_paths(tmp_path: Path) -> None:
    """Paths are relative to the CSV; rows keep their order; columns may be in any order with others between."""
    draw(tmp_path / "faces" / "1.png", 10)
    draw(tmp_path / "faces" / "2.png", 20)
    name = table(tmp_path / "all.csv", "emotion,who,path", "Happy,Ann,faces/2.png", "angry,Bob,faces/1.png")
    faces = load_dataset(name)
    assert (faces.ids, faces.emotions) == (("faces/2.png", "faces/1.png"), ("anger", "happiness"))
    assert (faces.labels.tolist(), faces.images[:, 0, 0].tolist()) == ([1, 0], [20, 10])


@pytest.mark.parametrize(
    "header",
    [
        "path,emotion", "FilePath,Label", "file,label", " image , Emotion ", "filename,label", "file_path,label",
        "image_path,emotion", "img_path,label", "Image_Name,label",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8"), ("\r\n", "utf-8-sig")])
def test_csv_dialects(header: str, end: str, encoding: str, tmp_path: Path) -> None:
    """Usual column names, a byte-order mark, Windows line ends, quotes, blanks and blank lines are all read alike."""
    draw(tmp_path / "é, 1.png")
    faces = load_dataset(table(tmp_path / "a.csv", header, "", '"é, 1.png", sad ', "", end=end, encoding=encoding))
    assert (faces.ids, faces.emotions) == (("é, 1.png",), ("sadness",))


def test_a_csv_with_splits(tmp_path: Path) -> None:
    """The column split chooses, in any usual spelling."""
    for name in "abc":
        draw(tmp_path / f"{name}.png")
    name = table(tmp_path / "s.csv", "path,emotion,split", "a.png,sad,train", "b.png,fear,Val", "c.png,joy,test")
    ids = {split: load_dataset(name, split).ids for split in ("train", "validation", "test")}
    assert ids == {"train": ("a.png",), "validation": ("b.png",), "test": ("c.png",)}


def test_a_csv_without_splits_is_all_test(tmp_path: Path) -> None:
    """Without a column split there is no training split, and the text says how to mark one."""
    draw(tmp_path / "a.png")
    name = table(tmp_path / "a.csv", "path,emotion", "a.png,sad")
    assert refusal(name, "train") == (
        f"{tmp_path / 'a.csv'}: no rows of the train split; mark them by train in a column split, "
        f"or divide them: python -m fer_bench.datasets split {tmp_path / 'a.csv'} -o my.csv"
    )


@pytest.mark.parametrize("column", ["Usage", "set", "subset", "partition"])
def test_splits_in_columns_of_other_names(column: str, tmp_path: Path) -> None:
    """FER2013's Usage and its values, and other usual names, divide the rows: none is all test by mistake."""
    for name in "abc":
        draw(tmp_path / f"{name}.png")
    rows = ("a.png,sad,Training", "b.png,fear,PublicTest", "c.png,joy,PrivateTest")
    name = table(tmp_path / "s.csv", f"path,emotion,{column}", *rows)
    ids = {split: load_dataset(name, split).ids for split in ("train", "validation", "test")}
    assert ids == {"train": ("a.png",), "validation": ("b.png",), "test": ("c.png",)}


def test_columns_that_are_not_read_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a column might have meant, the set's notes and standard error say that it was passed over."""
    draw(tmp_path / "a.png")
    name = table(tmp_path / "a.csv", ",path,emotion,Phase", "0,a.png,sad,train")
    assert load_dataset(name).notes == ("columns of the CSV that were not read: one without a name, phase",)
    assert (
        capsys.readouterr().err == f"{name} (test): columns of the CSV that were not read: one without a name, phase\n"
    )


@pytest.mark.parametrize("column", ["subject", "Person", "identity", "subject_id", "person_id"])
def test_people_in_a_column(column: str, tmp_path: Path) -> None:
    """Whom each picture shows is kept with it, also where a picture before it cannot be read."""
    for name in "ac":
        draw(tmp_path / f"{name}.png")
    name = table(tmp_path / "a.csv", f"path,emotion,{column}", "a.png,sad,Ann", "b.png,sad,Bob", "c.png,joy,7")
    faces = load_dataset(name)
    assert (faces.ids, faces.subjects.tolist(), faces.notes) == (("a.png", "c.png"), ["Ann", "7"], ())


def test_people_are_told_apart_in_any_case(tmp_path: Path) -> None:
    """S01 and s01 are one person, who is then on two sides; the name is as it was written first."""
    for name in "abc":
        draw(tmp_path / f"{name}.png")
    lines = ("a.png,sad,S01,test", "b.png,sad,s01,test", "c.png,joy,s01,train")
    faces = load_dataset(table(tmp_path / "a.csv", "path,emotion,subject,split", *lines))
    assert faces.subjects.tolist() == ["S01", "S01"]
    assert faces.notes[0].startswith("1 of the 1 people of the test split are in train too")


def test_blanks_after_commas_are_no_part_of_what_is_quoted(tmp_path: Path) -> None:
    """As some programs write their tables."""
    draw(tmp_path / "a.png")
    faces = load_dataset(table(tmp_path / "a.csv", '"path", "emotion"', '"a.png", "Angry"'))
    assert (faces.ids, faces.emotions) == (("a.png",), ("anger",))


@pytest.mark.parametrize("header", ["img,expression", "pth,class", "image_path,label"])
def test_columns_as_others_call_them(header: str, tmp_path: Path) -> None:
    """And a table without any of them is told which names are known."""
    draw(tmp_path / "a.png")
    assert len(load_dataset(table(tmp_path / "a.csv", header, "a.png,anger"))) == 1
    text = refusal(table(tmp_path / "b.csv", f"my_{header}", "a.png,anger"))
    assert "img or pth; emotion or label or expression or class)" in text


def test_pictures_that_name_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where some rows name a subject, each of the others is a person of its own, and a note says so; where none does,
    nothing is known of people."""
    for name in "abc":
        draw(tmp_path / f"{name}.png")
    name = table(tmp_path / "a.csv", "path,emotion,subject", "a.png,sad,Ann", "b.png,sad,", "c.png,joy, ")
    faces = load_dataset(name)
    assert len(set(faces.subjects.tolist())) == 3
    assert faces.notes == ("2 test picture(s) name no subject; each counts as a person of its own",)
    assert capsys.readouterr().err == f"{name} (test): {faces.notes[0]}\n"
    nobody = load_dataset(table(tmp_path / "b.csv", "path,emotion,subject", "a.png,sad,", "b.png,joy,"))
    assert (nobody.subjects, nobody.notes) == (None, ())


def test_people_on_both_sides_of_a_split_are_told_of(tmp_path: Path) -> None:
    """Testing on people who were trained on flatters a method: every figure then says how many they are."""
    rows = ("train,Ann", "train,Bob", "train,", "val,Ann", "val,Cy", "test,Ann", "test,Bob", "test,Di", "test,Di")
    for index in range(len(rows)):
        draw(tmp_path / f"{index}.png", index)
    listed = (f"{index}.png,sad,{row}" for index, row in enumerate(rows))
    name = table(tmp_path / "a.csv", "path,emotion,split,subject", *listed)
    told = {split: load_dataset(name, split).notes for split in ("train", "validation", "test")}
    more = "; a figure on people who were trained on says little of others"
    assert told["test"] == (f"2 of the 3 people of the test split are in train and validation too{more}",)
    assert told["validation"] == (f"1 of the 2 people of the validation split are in train and test too{more}",)
    assert told["train"][0] == f"2 of the 2 people of the train split are in validation and test too{more}"
    apart = table(tmp_path / "b.csv", "path,emotion,split,subject", "0.png,sad,train,Ann", "1.png,sad,test,Bob")
    assert load_dataset(apart).notes == ()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_semicolons_and_tabs(separator: str, tmp_path: Path) -> None:
    """What spreadsheets of other languages write is read alike, with commas in its paths."""
    draw(tmp_path / "a, b.png")
    rows = ("path,emotion,split", "a* b.png,sad,test")
    name = table(tmp_path / "a.csv", *(row.replace(",", separator).replace("*", ",") for row in rows))
    assert load_dataset(name).ids == ("a, b.png",)


@pytest.mark.parametrize(
    ("first", "separator"),
    [
        ("sep=;", ";"), ("sep=,", ","), ("sep=\t", "\t"), (r"sep=\t", "\t"), ("SEP=|", "|"), ('"sep=;"', ";"),
        ("sep=,,,", ","), ("sep= ", " "),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8-sig")])
def test_a_first_line_of_excels_names_the_separator(
    first: str, separator: str, end: str, encoding: str, tmp_path: Path
) -> None:
    """The header stands in the line after it, for what loads, merges and divides the pictures alike."""
    draw(tmp_path / "a, b; c.png")
    rows = [row.replace(",", separator) for row in ("path,emotion,split", '"a* b; c.png",sad,validation')]
    name = table(tmp_path / "a.csv", first, *(row.replace("*", ",") for row in rows), end=end, encoding=encoding)
    assert load_dataset(name, "validation").ids == ("a, b; c.png",)
    assert sources_of([name])[0].splits == ("validation",)
    assert has_splits(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        (("sep=;", "path;emotion", "a.png;hungry"), "line 3", "unknown emotion 'hungry'"),
        (("sep=;", "path;emotion", "", "a.png;sad;x"), "line 4", "3 columns where there must be 2, as in line 2"),
        (("sep=;", "path;emotion", "a.png;sad", "a.png;fear"), "line 4", "keep one row per picture (line 3 has it"),
        (
            ("sep=;", "path;mood"),
            "line 2",
            "path and emotion with ';' between them, as line 1 says, not path, mood",
        ),
        (("sep=;", "path,emotion"), "line 2", "with ';' between them, as line 1 says, not path,emotion"),
        (("sep=;",), "line 2", "with ';' between them, as line 1 says, not none"),
        (("sep=", "path,emotion"), "line 1", "the columns must be path and emotion, not sep="),
        (("sep=a", "pathaemotion"), "line 1", "the columns must be path and emotion, not sep=a"),
    ],
)
def test_lines_are_counted_from_excels_own(lines: tuple[str, ...], where: str, what: str, tmp_path: Path) -> None:
    """What is bad below it is named by the line of the file, and a header that contradicts it by both lines."""
    draw(tmp_path / "a.png")
    text = refusal(table(tmp_path / "bad.csv", *lines))
    assert text.startswith(f"{tmp_path / 'bad.csv'}, {where}: ")
    assert what in text


def test_pictures_that_name_nobody_are_counted_from_excels_own_line(tmp_path: Path) -> None:
    """A person of its own is called by the line in which its picture stands."""
    for name in "ab":
        draw(tmp_path / f"{name}.png")
    name = table(tmp_path / "a.csv", "sep=;", "path;emotion;subject", "a.png;sad;Ann", "b.png;joy;")
    assert load_dataset(name).subjects.tolist() == ["Ann", "unnamed 4"]


def test_paths_written_on_windows(tmp_path: Path) -> None:
    """A backslash divides folders, but where a picture's name holds one."""
    draw(tmp_path / "sad" / "1.png")
    draw(tmp_path / "a\\b.png")
    name = table(tmp_path / "a.csv", "path,emotion", "sad\\1.png,sad", "a\\b.png,fear")
    assert load_dataset(name).ids == ("sad/1.png", "a\\b.png")


def test_a_picture_listed_again_through_a_link(tmp_path: Path) -> None:
    """Another name for the same file, or for its folder, is the same picture."""
    draw(tmp_path / "faces" / "1.png")
    (tmp_path / "faces" / "2.png").symlink_to("1.png")
    (tmp_path / "more").symlink_to("faces")
    for again in ("faces/2.png", "more/1.png"):
        name = table(tmp_path / "a.csv", "path,emotion,split", "faces/1.png,sad,train", f"{again},sad,test")
        text = f"{tmp_path / 'a.csv'}, line 3: {tmp_path / again} is listed twice, in train and in test; "
        assert refusal(name) == f"{text}keep one row per picture (line 2 has it too)."


def test_a_csv_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's refusal is a sentence that names the file."""
    name = table(tmp_path / "a.csv", "path,emotion", "a.png,sad")

    def refusing(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refusing)
    assert refusal(name) == f"{tmp_path / 'a.csv'}: this file cannot be read (Permission denied); make it readable."


def test_a_csv_of_broken_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no picture can be read, it is the CSV that is named, and the first picture."""
    monkeypatch.chdir(tmp_path)
    table(Path("a.csv"), "path,emotion", "gone.png,sad")
    assert refusal("csv:a.csv") == (
        "a.csv: none of its 1 pictures could be read; the first: gone.png: there is no such file."
    )


def test_absolute_paths(tmp_path: Path) -> None:
    """An absolute path is read as it is; outside the CSV's folder it is the picture's id in full."""
    inside, outside = draw(tmp_path / "here" / "a.png"), draw(tmp_path / "there" / "b.png")
    name = table(tmp_path / "here" / "a.csv", "path,emotion", f"{inside},sad", f"{outside},sad")
    assert load_dataset(name).ids == ("a.png", str(outside))


def test_missing_pictures_are_skipped_and_named(tmp_path: Path) -> None:
    """A row whose picture is not there, or is a folder, is left out by name; the rest is loaded."""
    draw(tmp_path / "a.png")
    (tmp_path / "deep").mkdir()
    name = table(tmp_path / "a.csv", "path,emotion", "a.png,sad", "gone.png,sad", "deep,sad")
    faces = load_dataset(name)
    assert faces.ids == ("a.png",)
    assert faces.skipped == (
        f"{tmp_path / 'gone.png'}: there is no such file.",
        f"{tmp_path / 'deep'}: this is not a readable picture (it is a folder).",
    )


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        (("path,emotion", "a.png,sad", "a.png,hungry"), "line 3", "unknown emotion 'hungry'; the emotions are anger"),
        (("path,emotion", "", "", "b.png,"), "line 4", "unknown emotion ''"),
        (("path,label", "a.png,3"), "line 2", "a number names none, since data sets number them differently: write"),
        (("path,label", "a.png,3"), "line 2", "RAF-DB's 1 to 7 are surprise, fear, disgust, happiness, sadness, ang"),
        (("path,mood", "a.png,sad"), "line 1", "the columns must be path and emotion, not path, mood"),
        (("name,emotion", "a.png,sad"), "line 1", "the columns must be path and emotion, not name, emotion"),
        (("path|emotion", "a.png|sad"), "line 1", "the columns must be path and emotion, not path|emotion"),
        (("",), "line 1", "the columns must be path and emotion, not none"),
        (("path,emotion,Emotion", "a.png,sad,fear"), "line 1", "the column emotion is there more than once; keep or "),
        (("path,emotion", "a.png,sad,x"), "line 2", "3 columns where there must be 2, as in line 1"),
        (("path,emotion", "a.png"), "line 2", "1 columns where there must be 2, as in line 1"),
        (("path,emotion", ",sad"), "line 2", "the path is empty; name a picture"),
        (("path,emotion,split", "a.png,sad,all"), "line 2", "the split must be train, validation or test, not 'all'"),
        (("path,emotion,set", "a.png,sad,lab"), "line 2", "not 'lab'; give this column another name if it tells some"),
        (("path,emotion", "a.png,sad", "a.png,fear"), "line 3", "a.png is listed twice; keep one row per picture"),
        (("path,emotion", "a.png,sad", "b/../a.png,sad"), "line 3", "b/../a.png is listed twice; keep one row per"),
        (
            ("path,emotion,split", "a.png,sad,train", "a.png,sad,test"),
            "line 3",
            "listed twice, in train and in test; k",
        ),
    ],
)
def test_a_csv_with_a_bad_line(lines: tuple[str, ...], where: str, what: str, tmp_path: Path) -> None:
    """A bad header or row is refused by file and line, with what must stand there."""
    draw(tmp_path / "a.png")
    text = refusal(table(tmp_path / "bad.csv", *lines))
    assert text.startswith(f"{tmp_path / 'bad.csv'}, {where}: ")
    assert what in text


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 9, b"path,emotion\n" + b"a" * 200_000 + b",sad\n", "path,é\n".encode("latin-1")]
)
def test_a_file_that_is_no_csv(content: bytes, tmp_path: Path) -> None:
    """A binary file, an endless field or another encoding in place of the CSV is refused by name."""
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    text = refusal(f"csv:{path}")
    assert text.startswith(f"{path}: this is not a readable UTF-8 CSV file (")
    assert text.endswith("save it as one.")


def test_a_missing_csv(tmp_path: Path) -> None:
    """A CSV that is not there is named, with what to give instead."""
    gone = tmp_path / "gone.csv"
    assert refusal(f"csv:{gone}") == f"{gone}: there is no such file; give a CSV with the columns path and emotion."


def test_the_same_pictures_as_folder_and_csv(tmp_path: Path) -> None:
    """A folder and a CSV of the same pictures in the same order have the same content hash."""
    rows = []
    for index, emotion in enumerate(("anger", "fear", "sad")):
        path = tmp_path / "set" / emotion / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (50, 50), dtype=np.uint8)).save(path)
        rows.append(f"set/{emotion}/1.png,{emotion}")
    name = table(tmp_path / "a.csv", "path,emotion", *rows)
    assert load_dataset(name).content_hash() == load_dataset(f"folder:{tmp_path / 'set'}").content_hash()


def test_a_folder_for_a_csv_and_the_other_way_round(tmp_path: Path) -> None:
    """The text says how the other is given, whether it is loaded, merged or named without a kind."""
    listed = tmp_path / "my.csv"
    listed.write_text("path,emotion\na.png,happy\n")
    for name, told in (
        (f"csv:{tmp_path}", f"{tmp_path}: this is a folder, not a CSV; give folder:{tmp_path}."),
        (f"folder:{listed}", f"{listed}: this is a file, not a folder; give csv:{listed}."),
    ):
        for read in (load_dataset, lambda one: sources_of([one])):
            with pytest.raises(DataError) as caught:
                read(name)
            assert str(caught.value) == told
    for given, kind in ((tmp_path, "folder"), (str(tmp_path), "folder"), (str(listed), "csv")):
        with pytest.raises(UnknownNameError, match=f"; for your own pictures give {kind}:{given}"):
            load_dataset(given)


def test_fer2013s_own_file_is_no_table_of_paths(tmp_path: Path) -> None:
    """Who gives fer2013.csv as a CSV of pictures is told where it goes."""
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n3,1 2 3,Training\n")
    told = "not emotion, pixels, usage; FER2013's own file goes into a folder fer2013 that .FER_BENCH_DATA holds"
    with pytest.raises(DataError, match=told):
        load_dataset(f"csv:{tmp_path / 'fer2013.csv'}")
