"""Tracks and recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_bench.cards import Augmentation, InputSpec, MethodCard, Recipe, Track
from fer_bench.datasets import DATASETS
from fer_bench.emotions import EIGHT, FOUR, SEVEN, SIX, in_order
from fer_bench.errors import UserError
from fer_bench.protocols import RECIPES, TRACKS, recipe_for, seen_test, track_named
from fer_bench.registry import UnknownNameError

CARD = MethodCard("a_net", "A net", "Someone, 2020", "It looks.", InputSpec(48, 1, (0.0,), (1.0,)), "features")


@pytest.mark.parametrize("name", list(TRACKS))
def test_a_track_is_consistent(name: str) -> None:
    """A track is registered under its own name, has a data set, orders its emotions and keeps its splits apart."""
    track = TRACKS[name]
    assert track.name == name
    assert track.dataset in DATASETS
    assert in_order(track.emotions) == track.emotions
    assert set(track.emotions) <= set(DATASETS[track.dataset].card.emotions)
    assert len({track.train, track.validation, track.test}) == 3
    assert TRACKS[track.trained_on].trained_on == track.trained_on


def test_the_label_sets_of_the_tracks() -> None:
    """The papers' tracks score seven, eight, six and four emotions, and rendered takes FER2013's weights."""
    wanted = {"fer2013": SEVEN, "ferplus": EIGHT, "fer2013-6": SIX, "fer2013-4": FOUR, "rendered": SEVEN}
    assert {name: TRACKS[name].emotions for name in wanted} == wanted
    assert TRACKS["rendered"].trained_on == "fer2013"


@pytest.mark.parametrize("name", [name for name in TRACKS if name.endswith("-transfer")])
def test_transfer_is_tested_on_what_is_else_trained_on(name: str) -> None:
    """A transfer track takes fer2013's weights to the test pictures of a track that others are trained on."""
    track, home = TRACKS[name], TRACKS[name.removesuffix("-transfer")]
    assert track.trained_on == "fer2013"
    assert (track.dataset, track.test) == (home.dataset, home.test)
    assert set(track.emotions) == set(home.emotions) - {"contempt"}


def test_no_two_tracks_share_a_hash() -> None:
    """Results of different tracks cannot be mixed: every hash differs."""
    assert len({TRACKS[name].hash() for name in TRACKS}) == len(TRACKS)


def test_hashes_are_the_same_everywhere() -> None:
    """The hash of a protocol is a function of its content alone, so that yesterday's results stay comparable."""
    track = Track("t", "T", "faces", ("anger", "fear"), trained_on="t")
    assert track.hash() == "d8221646f8a5"
    assert Recipe("r", epochs=2, augmentation=Augmentation(rotate=5)).hash() == "6c4a729e2fb5"


@pytest.mark.parametrize("name", ["folder:my/faces", "csv:C:\\faces\\all.csv", "folder:~/faces"])
def test_a_track_of_ones_own_pictures(name: str) -> None:
    """`folder:PATH` and `csv:PATH` make a track of that path, all its emotions, with the weights of fer2013."""
    track = track_named(name)
    assert (track.name, track.dataset, track.trained_on, track.emotions) == (name, name, "fer2013", ())


def test_two_folders_are_two_tracks() -> None:
    """Tracks of different folders have different hashes."""
    assert track_named("folder:a").hash() != track_named("folder:b").hash()


def test_a_folder_is_one_track_with_and_without_a_slash_at_its_end() -> None:
    """What a shell completes names the same results and runs; the root of the disk stays what it is."""
    assert track_named("folder:faces/") == track_named("folder:faces")
    assert track_named("folder:/").name == "folder:/"


def test_a_registered_track_by_name() -> None:
    """A track's name gives the registered track itself."""
    assert track_named("ferplus") is TRACKS["ferplus"]


@pytest.mark.parametrize(("wrong", "near"), [("fer2031", "fer2013"), ("fer-plus", "ferplus"), ("render", "rendered")])
def test_an_unknown_track_gives_the_nearest(wrong: str, near: str) -> None:
    """A misspelt track is answered with the nearest one and all valid names."""
    with pytest.raises(UnknownNameError, match=f"there is no track '{wrong}'. Did you mean '{near}'") as caught:
        track_named(wrong)
    assert ", ".join(TRACKS) in str(caught.value)


def test_a_folder_without_its_prefix_is_told_what_to_type(tmp_path: Path) -> None:
    """Somebody who gives a path of their own pictures is told the prefix that makes a track of it."""
    (tmp_path / "faces.csv").touch()
    for path, kind in ((tmp_path, "folder"), (tmp_path / "faces.csv", "csv")):
        with pytest.raises(UnknownNameError, match=f"for your own pictures give {kind}:{path}"):
            track_named(str(path))


def test_what_is_no_path_of_pictures_is_no_hint(tmp_path: Path) -> None:
    """A file of another kind and a name that is too long for a path are unknown tracks like any other."""
    (tmp_path / "README.md").touch()
    for name in (str(tmp_path / "README.md"), "a" * 5000, "a\0b"):
        with pytest.raises(UnknownNameError, match="The names are: fer2013"):
            track_named(name)


def test_weights_that_were_selected_on_a_tracks_test() -> None:
    """PublicTest selects on FER2013's tracks and tests where both tests are one; where weights started counts too."""
    merged = TRACKS["fer2013-6-merged"]
    for name in ("fer2013", "ferplus", "fer2013-4-clean"):
        assert seen_test({"track": name}, merged) == (
            f"weights of {name} were selected on PublicTest, which fer2013-6-merged tests on"
        )
        assert seen_test({"track": name}, TRACKS["fer2013"]) == ""
    started = {"track": "rafdb", "trained": {"earlier": {"weights": ["small_cnn/fer2013/common-v1-s0 (0)"]}}}
    assert seen_test(started, merged).startswith("weights of fer2013 ")
    for name in ("fer2013-6-merged", "rafdb", "submitted"):
        assert seen_test({"track": name, "trained": {"earlier": None}}, merged) == ""


@pytest.mark.parametrize("name", ["folder:", "csv:", "zip:a.zip"])
def test_a_prefix_without_a_path_is_no_track(name: str) -> None:
    """A prefix with no path after it, or an unknown prefix, is an unknown track."""
    with pytest.raises(UnknownNameError, match=f"there is no track '{name}'"):
        track_named(name)


def test_the_common_recipe_is_the_same_for_every_method() -> None:
    """`common-v1` is one recipe, whatever the method's paper says."""
    own = MethodCard(**{**vars(CARD), "paper_recipe": Recipe("paper", epochs=1)})
    assert recipe_for("common-v1", CARD) is recipe_for("common-v1", own) is RECIPES["common-v1"]


def test_the_papers_recipe_comes_from_the_card() -> None:
    """`paper` is the recipe on the method's card."""
    recipe = Recipe("paper", epochs=1)
    assert recipe_for("paper", MethodCard(**{**vars(CARD), "paper_recipe": recipe})) is recipe


def test_a_card_may_name_the_papers_recipe_as_its_own() -> None:
    """What it is trained with unless another is asked for."""
    own = MethodCard(**{**vars(CARD), "paper_recipe": Recipe("paper", epochs=1), "recipe": "paper"})
    assert recipe_for(None, own) is own.paper_recipe


def test_a_method_without_a_paper_recipe() -> None:
    """Where the paper gives no recipe, `paper` is refused with the method's name and the option to use instead."""
    with pytest.raises(UserError, match=r"a_net has no recipe of its own .* use --recipe common-v1\."):
        recipe_for("paper", CARD)


def test_an_unknown_recipe_gives_the_nearest() -> None:
    """A misspelt recipe is answered with the nearest one; the names are all that may be asked for."""
    with pytest.raises(UnknownNameError, match=r"there is no recipe 'common-1'\. Did you mean 'common-v1'"):
        recipe_for("common-1", CARD)
    with pytest.raises(UnknownNameError, match=r"there is no recipe 'papr'.* of a method's own paper: paper\.$"):
        recipe_for("papr", CARD)
