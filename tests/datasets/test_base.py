"""FaceSet, the guard of the test split, and how data sets are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_bench.cards import DatasetCard
from fer_bench.datasets import DATASETS, FaceSet, data_folder, duplicated_in, forbid_split, load_dataset, register
from fer_bench.emotions import FOUR, SEVEN
from fer_bench.errors import DataError
from fer_bench.registry import UnknownNameError


def faces(count: int = 14, seed: int = 0) -> FaceSet:
    """`count` random pictures of 4x4 pixels; the emotions take turns."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4), dtype=np.uint8)
    ids = tuple(f"p{index}" for index in range(count))
    labels = np.arange(count) % 7
    return FaceSet("some", "test", SEVEN, images, labels, ids, ("x.jpg: broken",), ("incomplete",))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": np.zeros((14, 4, 4))}, "images must be uint8"),
        ({"images": np.zeros((14, 16), np.uint8)}, "images must be uint8"),
        ({"images": np.zeros((14, 4, 4, 4), np.uint8)}, "images must be uint8"),
        ({"images": np.zeros((13, 4, 4), np.uint8)}, "13 images, 14 labels and 14 ids do not agree"),
        ({"ids": ("a", "b")}, "14 images, 14 labels and 2 ids do not agree"),
        ({"labels": np.full(14, 7)}, "labels must lie in 0..6"),
        ({"labels": np.full(14, -1)}, "labels must lie in 0..6"),
        ({"emotions": ("happi", *SEVEN[1:])}, "unknown emotion 'happi'; the emotions are anger"),
        ({"emotions": ("happy", *SEVEN[1:])}, "each emotion has one name, and happy, .* name one twice"),
        ({"ids": ("a", *"bcdefghijklm", "a")}, "ids must be distinct, and 'a' stands there twice"),
    ],
)
def test_a_face_set_that_contradicts_itself(change: dict, reason: str) -> None:
    """Images of another type or shape, lengths that differ and labels out of range are refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        replace(faces(), **change)


def test_usual_spellings_are_the_emotions() -> None:
    """("angry", "happy") are what a model calls anger and happiness: no picture is left out of its judgement."""
    spelt = replace(faces(), emotions=("Angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral"))
    assert spelt.emotions == SEVEN
    assert spelt.restrict(SEVEN).counts == faces().counts


def test_counts_name_every_emotion() -> None:
    """Counts are per emotion in order, with a zero where there is no picture."""
    few = faces(3)
    assert len(few) == 3
    assert few.counts == dict(zip(SEVEN, (1, 1, 1, 0, 0, 0, 0), strict=True))


def test_take_keeps_everything_together() -> None:
    """Pictures, labels, ids, masks and intensities are taken at the same positions, in the order asked for."""
    whole = replace(faces(), masks=np.arange(14)[:, None, None] > np.zeros((14, 4, 4)), intensity=np.arange(14) / 13)
    part = whole.take([5, 2])
    np.testing.assert_array_equal(part.images, whole.images[[5, 2]])
    assert (part.ids, part.labels.tolist(), part.intensity.tolist()) == (("p5", "p2"), [5, 2], [5 / 13, 2 / 13])
    assert part.masks.shape == (2, 4, 4)
    assert (part.emotions, part.skipped, part.notes) == (SEVEN, ("x.jpg: broken",), ("incomplete",))


@pytest.mark.parametrize(
    ("count", "ids"), [(0, ""), (1, "p0"), (2, "p0 p13"), (4, "p0 p4 p9 p13"), (5, "p0 p3 p6 p10 p13")]
)
def test_limit_spreads_evenly(count: int, ids: str) -> None:
    """`limit` takes distinct pictures spread from the first to the last, the same ones every time."""
    assert " ".join(faces().limit(count).ids) == ids
    assert faces().limit(count).ids == faces().limit(count).ids


def test_every_limit_keeps_the_emotions_in_proportion() -> None:
    """Where the emotions take turns or follow one another, none is missed: a step of seven would meet one alone."""
    turns, uneven = np.arange(350) % 7, np.repeat(np.arange(7), [5, 80, 70, 60, 55, 50, 30])
    for labels in (turns, np.sort(turns), uneven):
        ids = tuple(map(str, range(350)))
        whole = FaceSet("some", "test", SEVEN, np.zeros((350, 1, 1), np.uint8), labels, ids)
        for count in range(1, 350):
            part = whole.limit(count)
            share = count * np.bincount(labels) / 350
            found = np.array(list(part.counts.values()))
            assert (len(part), len(set(part.ids))) == (count, count)
            assert list(map(int, part.ids)) == sorted(map(int, part.ids))
            assert (found >= (share >= 1)).all()
            assert (abs(found - share) <= 1 + share / 2).all()
    few = replace(whole, labels=turns).limit(51)
    assert list(few.counts.values()) == [8, 8, 7, 7, 7, 7, 7]
    assert few.ids == replace(whole, labels=turns).limit(51).ids


def test_a_limit_that_chance_may_have_drawn_stays() -> None:
    """Labels in no order are spread over the split as a whole, so that what was measured on it can be repeated."""
    labels = np.random.default_rng(0).integers(0, 7, 2000)
    ids = tuple(map(str, range(2000)))
    whole = FaceSet("some", "test", SEVEN, np.zeros((2000, 1, 1), np.uint8), labels, ids)
    assert list(map(int, whole.limit(300).ids)) == np.linspace(0, 1999, 300).round().astype(int).tolist()


@pytest.mark.parametrize("count", [None, 14, 100])
def test_limit_keeps_all(count: int | None) -> None:
    """None, or as many as there are, keeps the set as it is."""
    whole = faces()
    assert whole.limit(count) is whole


@pytest.mark.parametrize("count", range(1, 14))
def test_limit_gives_exactly_as_many(count: int) -> None:
    """Every limit gives that many distinct pictures."""
    assert len(set(faces().limit(count).ids)) == count


def test_restrict_renumbers_in_the_canonical_order() -> None:
    """Only the pictures of the named emotions stay, numbered in the canonical order, however they were named."""
    kept = faces().restrict(("Neutral", "happy", "sadness", "angry"))
    assert kept.emotions == FOUR == ("anger", "happiness", "sadness", "neutral")
    assert kept.ids == ("p0", "p3", "p4", "p6", "p7", "p10", "p11", "p13")
    assert kept.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_restrict_to_what_is_there_changes_nothing() -> None:
    """All seven emotions, in any order, give the set itself, and so does naming none."""
    whole = faces()
    assert whole.restrict(()) is whole
    assert whole.restrict(SEVEN[::-1]) is whole


def test_restrict_to_an_emotion_that_no_picture_has() -> None:
    """An emotion that the data set does not know is refused by both names, with the split and what to do."""
    with pytest.raises(DataError, match="some has no pictures labelled contempt in its test split; add some, or take"):
        faces().restrict(("anger", "contempt"))


def test_an_emotion_may_be_lacking_where_that_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    """The labels are then those of the emotions asked for, and what lacks is noted and told."""
    part = faces().restrict(("contempt", "anger", "neutral"), lacking=True)
    assert (part.emotions, part.labels.tolist()) == (("anger", "neutral", "contempt"), [0, 1, 0, 1])
    assert part.counts == {"anger": 2, "neutral": 2, "contempt": 0}
    assert part.notes == ("incomplete", "the test split has no pictures labelled contempt")
    assert capsys.readouterr().err == f"some: {part.notes[-1]}\n"
    assert faces().restrict(FOUR, lacking=True).notes == ("incomplete",)


def test_the_content_hash_is_of_the_content() -> None:
    """The hash ignores names and notes, and does not change between runs and machines."""
    zeros = np.zeros((2, 4, 4), np.uint8)
    plain = FaceSet("a", "test", SEVEN, zeros, np.array([0, 1]), ("x", "y"))
    other = FaceSet("b", "train", SEVEN, zeros.copy(), np.array([0, 1]), ("1", "2"), notes=("odd",))
    assert plain.content_hash() == other.content_hash()
    assert plain.content_hash() == "059d125ad9b9e9893fc8aa5f419d0c5a141dd47313f56fc0f31d0d0fa51fbe42"


def test_the_content_hash_sees_every_change() -> None:
    """One pixel, one label, the order, the shape, one picture more or less: each gives another hash."""
    whole = faces()
    pixel, label = whole.images.copy(), whole.labels.copy()
    pixel[7, 2, 2] ^= 1
    label[7] = (label[7] + 1) % 7
    changed = [
        whole,
        replace(whole, images=pixel),
        replace(whole, labels=label),
        whole.take(np.arange(14)[::-1]),
        replace(whole, images=whole.images.reshape(14, 2, 8)),
        whole.take(np.arange(13)),
        whole.restrict(FOUR),
    ]
    assert len({faceset.content_hash() for faceset in changed}) == len(changed)


def test_the_content_hash_goes_by_the_emotions_name() -> None:
    """The same pictures of the same emotions have the same hash under either numbering."""
    whole = faces().restrict(FOUR)
    renamed = replace(whole, emotions=SEVEN, labels=np.array([SEVEN.index(FOUR[label]) for label in whole.labels]))
    assert renamed.content_hash() == whole.content_hash()


def test_duplicates_are_found_by_their_pixels() -> None:
    """A picture counts as duplicated where the other set has the same pixels under any label or name."""
    first, second = faces(6, seed=1), faces(6, seed=2)
    images = second.images.copy()
    images[4], images[0] = first.images[1], first.images[5]
    second = replace(second, images=images)
    assert duplicated_in(first, second).tolist() == [False, True, False, False, False, True]
    assert duplicated_in(second, first).tolist() == [True, False, False, False, True, False]


def test_duplicates_in_nothing() -> None:
    """Nothing is duplicated in an empty set, and an empty set has no duplicates."""
    assert not duplicated_in(faces(3), faces(0)).any()
    assert duplicated_in(faces(0), faces(3)).shape == (0,)


def test_pictures_of_two_sizes_cannot_be_compared() -> None:
    """No zero is claimed where the pictures are stored at two sizes and their files are not known."""
    large = replace(faces(3), images=np.zeros((3, 5, 5), np.uint8))
    with pytest.raises(DataError, match=r"^some: pictures of \(4, 4\) and \(5, 5\) cannot be compared\.$"):
        duplicated_in(faces(3), large)
    named = [replace(one, originals=(b"a", b"b", last)) for one, last in ((faces(3), b"c"), (large, b"d"))]
    assert duplicated_in(*named).tolist() == [True, True, False]
    assert duplicated_in(named[0].take([2, 1]), named[1]).tolist() == [False, True]


@pytest.fixture
def own(tmp_path: Path) -> str:
    """The smallest data set: one picture, in all three splits."""
    from PIL import Image

    for split in ("train", "validation", "test"):
        folder = tmp_path / "own" / split / "happy"
        folder.mkdir(parents=True)
        Image.new("L", (48, 48)).save(folder / "1.png")
    return f"folder:{tmp_path / 'own'}"


@pytest.mark.parametrize("name", ["fer2013", "fer2013-clean", "fer2013-merged", "ferplus", "rendered", "folder", "csv"])
def test_a_forbidden_split_cannot_be_read(name: str, own: str, tmp_path: Path) -> None:
    """While `forbid_split("test")` is open, no loader gives the test split, before it looks for any file."""
    name = {"folder": own, "csv": f"csv:{tmp_path / 'no.csv'}"}.get(name, name)
    with forbid_split("test"), pytest.raises(RuntimeError, match="the test split must not be read here"):
        load_dataset(name, "test", root=tmp_path)


def test_other_splits_stay_open(own: str) -> None:
    """Train and validation are read as ever while test is forbidden."""
    with forbid_split("test"):
        assert load_dataset(own, "train").split == "train"
        assert load_dataset(own, "validation").split == "validation"


def test_the_guard_is_released_after_an_exception(own: str) -> None:
    """When what ran inside fails, test can be read again; an inner guard's end does not open an outer one."""
    with pytest.raises(ZeroDivisionError), forbid_split("test"):
        raise ZeroDivisionError
    assert len(load_dataset(own, "test")) == 1
    with forbid_split("test"):
        with forbid_split("test"):
            pass
        with pytest.raises(RuntimeError, match="must not be read"):
            load_dataset(own, "test")
    assert len(load_dataset(own, "test")) == 1


def test_a_misspelt_split_is_refused(own: str) -> None:
    """A split that does not exist is refused with the valid ones, by the loader and by the guard."""
    with pytest.raises(ValueError, match="there is no split 'tset'; the splits are train, validation, test"):
        load_dataset(own, "tset")
    with pytest.raises(ValueError, match="there is no split 'tset'"), forbid_split("tset"):
        pass


def test_an_unknown_data_set_gives_the_nearest() -> None:
    """A misspelt data set is answered with the nearest and all valid names."""
    with pytest.raises(UnknownNameError, match=r"there is no data set 'fer2012'\. Did you mean 'fer2013'") as caught:
        load_dataset("fer2012")
    assert ", ".join(DATASETS) in str(caught.value)


def test_data_is_found_by_the_environment_then_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$FER_BENCH_DATA comes before ./data; FER+ lives in FER2013's folder; what is nowhere is None."""
    monkeypatch.chdir(tmp_path)
    assert data_folder("fer2013") is None
    (tmp_path / "data" / "fer2013").mkdir(parents=True)
    assert data_folder("fer2013").samefile(tmp_path / "data" / "fer2013")
    monkeypatch.setenv("FER_BENCH_DATA", str(tmp_path / "elsewhere"))
    assert data_folder("fer2013").samefile(tmp_path / "data" / "fer2013")
    (tmp_path / "elsewhere" / "fer2013").mkdir(parents=True)
    assert data_folder("ferplus") == tmp_path / "elsewhere" / "fer2013"
    assert data_folder("rafdb") is None


def test_a_wrong_data_folder_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that names no folder is told of, however many data sets are looked for; ~ in it means home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FER_BENCH_DATA", "~/faces")
    assert data_folder("fer2013") is data_folder("rafdb") is None
    assert capsys.readouterr().err == (
        "$FER_BENCH_DATA is ~/faces, and there is no such folder; name the one that holds the data sets.\n"
    )
    (tmp_path / "faces" / "fer2013").mkdir(parents=True)
    assert data_folder("fer2013") == tmp_path / "faces" / "fer2013"
    assert capsys.readouterr().err == ""


def test_a_tilde_means_home(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`folder:~/own` is read from the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_dataset("folder:~/own", "train")) == 1


def test_every_data_set_is_registered_under_its_cards_name() -> None:
    """The registry's name, the card's and the loaded set's are one."""
    assert {name: DATASETS[name].card.name for name in DATASETS} == {name: name for name in DATASETS}


def test_ones_own_loader_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its card's name, with its folder as root; a taken name is refused, and training cannot read its test."""
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    monkeypatch.setenv("FER_BENCH_DATA", str(tmp_path))
    (tmp_path / "my_set").mkdir()
    card, asked = DatasetCard("my_set", "My set", SEVEN, (), licence="mine", source="from me"), []

    @register(card)
    def load_my_set(root: Path | None, split: str) -> FaceSet:
        asked.append((root, split))
        return replace(faces(), name="my_set", split=split)

    assert load_dataset("my_set", "train").split == "train"
    assert asked == [(tmp_path / "my_set", "train")]
    with forbid_split("test"), pytest.raises(RuntimeError, match="training never sees it"):
        load_dataset("my_set")
    with pytest.raises(ValueError, match="there is no split 'tset'"):
        load_dataset("my_set", "tset")
    assert len(asked) == 1
    assert load_my_set(None, "test").split == "test"  # the function itself is left as it was
    with pytest.raises(ValueError, match="the data set 'my_set' is registered twice"):
        register(card)(load_my_set)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        ([np.zeros((8, 8), np.uint8)], np.array([0]), "images must be a numpy array, not a value of type list"),
        (np.zeros((1, 8, 8), np.uint8), [0], "labels must be a numpy array, not a value of type list"),
        (
            np.zeros((1, 8, 8), np.uint8),
            np.array([0.0]),
            "labels must be whole numbers, indices into emotions, not",
        ),
    ],
)
def test_what_is_no_array_of_pictures_or_labels_is_refused(images: object, labels: object, says: str) -> None:
    """Lists, and labels that are no indices, are told, not left to fail further down."""
    with pytest.raises(ValueError, match=says):
        FaceSet("mine", "test", ("anger", "fear"), images, labels, ("a",))
