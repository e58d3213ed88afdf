"""Under which terms published weights are: the code is MIT throughout, but most pictures they are made from are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fer_bench.datasets import DATASETS, FOLDERS
from fer_bench.methods import METHODS
from fer_bench.protocols import TRACKS

NAME = "mit-code-research-use-data"
"""`license_name` of a repository whose LICENSE has terms beside MIT's."""
DRAWN = "MIT (drawn"
"""How the licence of pictures begins that this project drew itself."""
OTHERS = "weights of others that training started from: their own licence"
OWN = "pictures of someone's own: their owner's terms, which are not known here"


def terms(rows: Iterable[tuple[Mapping, Mapping]]) -> list[str]:
    """A line for each of the terms that hold for weights beside MIT's: whose they are, then what they are.

    rows: entries of weights/index.json, each with what its weight file says of itself. The terms are those of every
    data set that they, the runs before and their teachers were trained on; of FER2013 for the sets that have its
    pictures; and of weights of others that training started from. None where the project drew all pictures itself.
    """
    lines: dict[str, None] = {}
    for entry, record in rows:
        trained = record.get("trained") or {}
        before = [*(trained.get("earlier") or {}).get("weights", ()), *(trained.get("teachers") or ())]
        for track in (entry["track"], *(row.split("/")[1] for row in before)):
            lines |= dict.fromkeys(_of_pictures(track))
        if trained.get("pretrained"):
            method = METHODS[entry["method"]].card.licence
            lines[f"{trained['pretrained']}, {OTHERS} (the method's card: {method})"] = None
    return list(lines)


def _of_pictures(track: str) -> list[str]:
    """The lines of one track's data set, and of the one whose pictures it has where that has other terms."""
    if track not in TRACKS:
        return [OWN]
    card = DATASETS[TRACKS[track].dataset].card
    shown = DATASETS[FOLDERS.get(card.name, card.name)].card
    cards = [card] if card.licence == shown.licence else [card, shown]
    return [f"{card.title}: {card.licence}" for card in cards if not card.licence.startswith(DRAWN)]


def metadata(lines: Sequence[str]) -> dict[str, str | None]:
    """The fields of a card's metadata on licences; LICENSE is then what `licence` gives."""
    return {
        "license": "other" if lines else "mit",
        "license_name": NAME if lines else None,
        "license_link": "LICENSE" if lines else None,
    }


def licence(mit: str, weights: str, lines: Sequence[str]) -> str:
    """The text of LICENSE: what holds for the weights, then the MIT text for all else; the latter alone without lines.

    mit: the project's LICENSE.   weights: how the file calls them, beginning a sentence.   lines: what `terms` gives.
    """
    if not lines:
        return mit
    listed = "\n".join(f"- {line}" for line in lines)
    return (
        f"{weights} are not under the MIT License alone. They were made from the following,\n"
        f"whose terms hold for them, and may be used only as these allow:\n\n{listed}\n\n"
        "Everything else here, and the code that the weights are loaded with, is under the MIT License:\n\n"
        f"{mit}"
    )
