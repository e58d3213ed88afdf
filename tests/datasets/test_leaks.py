"""Which data sets test on what another trains or selects on: what `protocols` refuses is what their splits show."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from fer_bench.datasets import FOLDERS, load_dataset
from fer_bench.protocols import TRACKS, seen_test
from tests.datasets.fer2013_tiny import write_csv, write_votes
from tests.datasets.test_ckplus import cropped as cropped

TRACK_OF = {TRACKS[name].dataset: TRACKS[name] for name in reversed(list(TRACKS))}


def leaks(names: tuple[str, ...], root: Path) -> set[tuple[str, str]]:
    """(trained on, tested on): whose training and validation pictures stand in whose test."""
    learned = {name: {i for split in ("train", "validation") for i in load_dataset(name, split, root).ids}
               for name in names}  # fmt: skip
    tested = {name: set(load_dataset(name, "test", root).ids) for name in names}
    return {(one, other) for one, other in product(names, names) if learned[one] & tested[other]}


def refused(names: tuple[str, ...]) -> set[tuple[str, str]]:
    """The same pairs, as `seen_test` has them."""
    pairs = product(names, names)
    return {(one, other) for one, other in pairs if seen_test({"track": TRACK_OF[one].name}, TRACK_OF[other])}


def test_ckplus_by_subject_and_by_random_frames_share_pictures(cropped: Path) -> None:
    """Each of the two tests on what the other trains on, and both ways are refused."""
    names = ("ckplus", "ckplus-random")
    assert leaks(names, cropped) == refused(names) == {names, names[::-1]}


@pytest.mark.usefixtures("tiny_fer2013")
def test_of_fer2013_only_the_merged_test_was_seen(tmp_path: Path) -> None:
    """PublicTest selects on FER2013's sets and is tested on where both tests are one; nothing else crosses over."""
    write_csv(tmp_path)
    write_votes(tmp_path)
    names = ("fer2013", "ferplus", "fer2013-clean", "fer2013-merged")
    found = leaks(names, tmp_path)
    assert found == refused(names) == {(name, "fer2013-merged") for name in names[:3]}


@pytest.mark.parametrize("name", [name for name in FOLDERS if name.endswith("-random")])
def test_no_random_split_is_forgotten(name: str) -> None:
    """Data sets that are the same clips split in two ways are refused both ways, and on transfer tracks too."""
    home = FOLDERS[name]
    assert refused((name, home)) == {(name, home), (home, name)}
    assert seen_test({"track": name}, TRACKS[f"{home}-transfer"]) == (
        f"weights of {name} were trained on pictures that {home}-transfer tests on"
    )
