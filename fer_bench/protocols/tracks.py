"""The tracks. A figure belongs to exactly one; its hash is part of every result."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fer_bench.cards import Track
from fer_bench.emotions import EIGHT, FOUR, SEVEN, SIX
from fer_bench.registry import Registry, UnknownNameError

TRACKS: Registry[Track] = Registry("track")

for _track in (
    Track("fer2013", "FER2013, 7 emotions, PrivateTest", "fer2013", SEVEN, trained_on="fer2013"),
    Track("ferplus", "FER+, 8 emotions, majority rule", "ferplus", EIGHT, trained_on="ferplus"),
    Track("fer2013-6", "FER2013 without neutral (P2)", "fer2013", SIX, trained_on="fer2013-6"),
    Track(
        "fer2013-6-merged", "FER2013 without neutral, both tests as one (P2)", "fer2013-merged", SIX, "fer2013-6-merged"
    ),
    Track("fer2013-4", "FER2013, anger, happiness, sadness, neutral (P3)", "fer2013", FOUR, trained_on="fer2013-4"),
    Track("fer2013-4-clean", "FER2013, 4 emotions, cleaned by votes (P3)", "fer2013-clean", FOUR, "fer2013-4-clean"),
    Track("rendered", "Rendered faces, 7 emotions, transfer from FER2013", "rendered", SEVEN, trained_on="fer2013"),
    Track("rafdb", "RAF-DB, 7 emotions", "rafdb", SEVEN, trained_on="rafdb"),
    Track("affectnet", "AffectNet, 8 emotions, official validation set", "affectnet", EIGHT, trained_on="affectnet"),
    Track("affectnet-7", "AffectNet without contempt", "affectnet", SEVEN, trained_on="affectnet-7"),
    # All emotions that the copy has: CK+48 has no neutral.
    Track("ckplus", "CK+, by subject", "ckplus", (), trained_on="ckplus"),
    Track("ckplus-random", "CK+, random frames, people on both sides", "ckplus-random", (), trained_on="ckplus-random"),
    Track("mmi", "MMI, 6 emotions, by subject", "mmi", SIX, trained_on="mmi"),
    Track("mmi-random", "MMI, random frames, people on both sides", "mmi-random", SIX, trained_on="mmi-random"),
    Track("disfa", "DISFA, 7 emotions from action units, by subject", "disfa", SEVEN, trained_on="disfa"),
    Track("tfeid", "TFEID, 8 emotions, by subject", "tfeid", EIGHT, trained_on="tfeid"),
    # Data that the networks never saw, of other people in other light: the same test pictures as above.
    Track("rafdb-transfer", "RAF-DB, transfer from FER2013", "rafdb", SEVEN, trained_on="fer2013"),
    Track("affectnet-transfer", "AffectNet, 7 emotions, transfer from FER2013", "affectnet", SEVEN, "fer2013"),
    Track("ckplus-transfer", "CK+, transfer from FER2013", "ckplus", (), trained_on="fer2013"),
    Track("mmi-transfer", "MMI, transfer from FER2013", "mmi", SIX, trained_on="fer2013"),
    Track("disfa-transfer", "DISFA, transfer from FER2013", "disfa", SEVEN, trained_on="fer2013"),
    Track("tfeid-transfer", "TFEID, 7 emotions, transfer from FER2013", "tfeid", SEVEN, trained_on="fer2013"),
):
    TRACKS.add(_track.name, _track)


_SELECTED, _TRAINED = "were selected on PublicTest, which", "were trained on pictures that"
_SEEN = {
    "fer2013-merged": dict.fromkeys(("fer2013", "fer2013-clean", "ferplus"), _SELECTED),
    "ckplus": {"ckplus-random": _TRAINED},
    "ckplus-random": {"ckplus": _TRAINED},
    "mmi": {"mmi-random": _TRAINED},
    "mmi-random": {"mmi": _TRAINED},
}
"""Data set -> those whose training or validation pictures it tests on, and what that makes of weights of theirs.

FER2013's sets are not here otherwise: they keep its official splits, of which PrivateTest only tests.
"""


def seen_test(record: Mapping, track: Track) -> str:
    """Why weights cannot be judged on a track: they, or weights that they started from, have seen pictures of its test.

    record: what a weight file says of itself. Returns the beginning of a sentence, or "" where they can be. What
    weights of a user's own pictures have seen is not known here.
    """
    before = (record.get("trained", {}).get("earlier") or {}).get("weights", ())
    for name in (record.get("track"), *(row.split("/")[1] for row in before)):
        how = _SEEN.get(track.dataset, {}).get(TRACKS[name].dataset) if name in TRACKS else None
        if how:
            return f"weights of {name} {how} {track.name} tests on"
    return ""


def track_named(name: str) -> Track:
    """The track of that name; `folder:PATH` and `csv:PATH` make one for a user's own pictures.

    Such a track scores whatever emotions the pictures have, with weights trained on them or else on fer2013.

    Raises UnknownNameError for anything else, with what may have been meant.
    """
    kind, _, path = name.partition(":")
    if kind in ("folder", "csv") and path:
        name = f"{kind}:{path.rstrip('/') or '/'}"  # as completed by a shell, it is the same folder
        return Track(name, f"Your pictures ({name})", name, (), trained_on="fer2013")
    kind = "folder" if os.path.isdir(name) else "csv" if name.endswith(".csv") and os.path.isfile(name) else ""
    if name not in TRACKS and kind:
        raise UnknownNameError(f"there is no track {name!r}; for your own pictures give {kind}:{name}.")
    return TRACKS[name]


def place(track: str) -> tuple[int, int, str]:
    """Sort key: the tracks in their own order, then unknown ones, then `rendered`, then a user's own pictures."""
    names = list(TRACKS)
    own, last, known = ":" in track, track == "rendered", track in names
    return (3 if own else 2 if last else 0 if known else 1, names.index(track) if known else 0, track)


def track_title(track: str) -> str:
    return track_named(track).title if track in TRACKS or ":" in track else track
