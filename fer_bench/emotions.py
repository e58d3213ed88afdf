"""The one place that knows emotion names and their order.

The canonical order is FER2013's label order (0 anger .. 6 neutral; Goodfellow et al., 2013) followed by FER+'s
eighth class, contempt (Barsoum et al., 2016). Every data set maps its own labels into these names, every
checkpoint stores the tuple it was trained with, and every result names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

EMOTIONS: tuple[str, ...] = (
    "anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt",
)  # fmt: skip
SEVEN: tuple[str, ...] = EMOTIONS[:7]
"""FER2013 and RAF-DB."""
EIGHT: tuple[str, ...] = EMOTIONS
"""FER+ and AffectNet."""
SIX: tuple[str, ...] = EMOTIONS[:6]
"""The six basic emotions, without neutral (P2, sep_*)."""
FOUR: tuple[str, ...] = ("anger", "happiness", "sadness", "neutral")
"""P3's four (deep_emotion*)."""

_SPELLINGS: dict[str, str] = {
    "angry": "anger", "anger": "anger", "an": "anger",
    "disgust": "disgust", "disgusted": "disgust", "di": "disgust",
    "fear": "fear", "fearful": "fear", "afraid": "fear", "scared": "fear", "fe": "fear", "af": "fear",
    "happy": "happiness", "happiness": "happiness", "joy": "happiness", "ha": "happiness",
    "sad": "sadness", "sadness": "sadness", "sa": "sadness",
    "surprise": "surprise", "surprised": "surprise", "su": "surprise",
    "suprise": "surprise", "suprised": "surprise",  # so misspelt in copies of data sets that go round
    "neutral": "neutral", "neutrality": "neutral", "ne": "neutral",
    "contempt": "contempt", "contemptuous": "contempt", "co": "contempt",
}  # fmt: skip


def canonical(name: str) -> str:
    """The canonical name of an emotion in any of its usual spellings ("Happy", "joy" -> "happiness").

    Raises ValueError, naming the accepted emotions, where the spelling is unknown.
    """
    try:
        return _SPELLINGS[name.strip().lower()]
    except KeyError:
        raise ValueError(f"unknown emotion {name!r}; the emotions are {', '.join(EMOTIONS)}") from None


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct emotions of `names`, in the canonical order."""
    present = {canonical(name) for name in names}
    return tuple(emotion for emotion in EMOTIONS if emotion in present)


def shared(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    """The emotions that both label sets have, in the canonical order."""
    return in_order(set(first) & set(second))
