"""Names and orders of emotions."""

from __future__ import annotations

import pytest

from fer_bench.emotions import EIGHT, EMOTIONS, FOUR, SEVEN, SIX, canonical, in_order, shared


def test_the_order_is_fer2013s_then_contempt() -> None:
    """FER2013's labels 0 to 6 index the first seven names, and FER+'s contempt is the eighth."""
    angry_first = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert tuple(map(canonical, angry_first)) == SEVEN == EMOTIONS[:7]
    assert (*SEVEN, "contempt") == EIGHT


def test_the_smaller_label_sets() -> None:
    """P2's six are the basic emotions, P3's four are anger, happiness, sadness and neutral, both in canonical order."""
    assert SIX == ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    assert in_order(FOUR) == FOUR == ("anger", "happiness", "sadness", "neutral")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Angry", "anger"), ("AN", "anger"), ("disgusted", "disgust"), ("Afraid", "fear"), ("scared", "fear"),
        (" happy\n", "happiness"), ("JOY", "happiness"), ("sad", "sadness"), ("Surprised", "surprise"),
        ("NE", "neutral"), ("contemptuous", "contempt"), ("suprise", "surprise"), ("AF", "fear"),
    ],
)  # fmt: skip
def test_usual_spellings(spelling: str, name: str) -> None:
    """Any usual spelling, in any case and with blanks around it, gives the canonical name."""
    assert canonical(spelling) == name


@pytest.mark.parametrize("name", EMOTIONS)
def test_canonical_names_stay(name: str) -> None:
    """A canonical name is its own canonical name."""
    assert canonical(name) == name


@pytest.mark.parametrize("strange", ["", "bored", "3", "happy face"])
def test_an_unknown_emotion_is_refused(strange: str) -> None:
    """An unknown spelling is refused by a text that quotes it and lists the emotions."""
    with pytest.raises(ValueError, match="unknown emotion") as caught:
        canonical(strange)
    assert repr(strange) in str(caught.value)
    assert ", ".join(EMOTIONS) in str(caught.value)


def test_in_order_sorts_and_drops_repeats() -> None:
    """Names in any order and spelling come out distinct and in the canonical order."""
    assert in_order(["contempt", "sad", "joy", "angry", "happy"]) == ("anger", "happiness", "sadness", "contempt")
    assert in_order([]) == ()


def test_shared_emotions() -> None:
    """What two label sets share is in the canonical order, whichever comes first and however either is ordered."""
    assert shared(("surprise", "neutral", "anger"), SIX) == shared(SIX, ("neutral", "anger", "surprise"))
    assert shared(("surprise", "neutral", "anger"), SIX) == ("anger", "surprise")
    assert shared(("contempt",), SEVEN) == ()
