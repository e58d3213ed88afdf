"""Emotions that are given as numbers: what these mean is the data set's, and never guessed."""

from __future__ import annotations

from fer_bench.emotions import SEVEN

NUMBERED = {
    tuple("0123456"): ("FER2013", SEVEN),
    tuple("1234567"): ("RAF-DB", ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")),
}
"""Names of folders that copies of a data set go round under, and the emotions that it means by them."""


def numbers_told() -> str:
    """The mend where an emotion is given as a number: what numbers mean in the data sets that are known for it."""
    known = (f"{of}'s {ks[0]} to {ks[-1]} are {', '.join(emotions)}" for ks, (of, emotions) in NUMBERED.items())
    return f"; a number names none, since data sets number them differently: write names ({'; '.join(known)})"


def numbered(names: list[str]) -> str:
    """The mend where the folders are numbered, else "". What a number means is the data set's: it is never guessed."""
    numbers = sorted(name for name in names if name.isdecimal())
    if len(numbers) < 2:
        return ""
    known, emotions = NUMBERED.get(tuple(numbers), ("", ()))
    pairs = ", ".join(f"{number} {emotion}" for number, emotion in zip(numbers, emotions, strict=bool(known)))
    hint = f"if it is {known}'s numbering, {pairs}" if known else "its data set's description says which is which"
    return f"a number names no emotion: rename each of these folders to its emotion ({hint})"
