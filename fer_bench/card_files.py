"""The methods', the peers' and the submissions' cards as files of the board, so that it opens without the networks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fer_bench.cards import MethodCard
from fer_bench.errors import UserError
from fer_bench.files import alone_in, atomic_write

OURS, PEERS, SUBMITTED = "methods.json", "peers.json", "submitted.json"
MENDS = {
    OURS: "delete it, and the next evaluation writes it again",
    PEERS: "mend it by hand",
    SUBMITTED: "take it back from git",
}
"""File of cards -> what to do where it is broken; a name stands for the first file that has it."""


def write_cards(
    root: Path | str, cards: Iterable[MethodCard], weights: Mapping[str, Mapping[str, Sequence[str]]] | None = None
) -> Path:
    """Write what the table and the app need of the methods' cards to `<root>/methods.json`; returns its path.

    weights: method -> track with weights -> their recipes, first that of those that are meant where none is named; left
    out where None.
    """
    plain = {
        card.name: {
            "title": card.title,
            "paper": card.paper,
            "url": card.url,
            "summary": card.summary,
            "ours": card.ours,
            **({"note": card.note} if card.note else {}),
            "licence": card.licence,
            "input": card.input.to_dict(),
            "cam_layer": card.cam_layer,
            "recipe": card.recipe,
            "paper_recipe": None if card.paper_recipe is None else card.paper_recipe.values(),
            "reported": [asdict(reported) for reported in card.reported],
            "shipped": card.shipped,
            "parameters": {str(classes): count for classes, count in card.parameters},
            **({} if weights is None else {"weights": {track: list(how) for track, how in weights[card.name].items()}}),
        }
        for card in cards
    }
    return atomic_write(Path(root) / OURS, (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())


def write_submitted(root: Path | str, cards: Mapping[str, Mapping[str, object]]) -> Path:
    """Enter the cards of submissions, by name, beside those in `<root>/submitted.json`; returns its path.

    A card says what its authors do: `title`, `authors`, `licence`, `training_data`, `url` ("" for none), `links` (what
    of it -> where) and `input`. Raises UserError where the file is broken or cannot be read.
    """
    with alone_in(Path(root)):  # two evaluations at once keep each other's cards
        plain = dict(sorted({**read_cards(root, SUBMITTED), **cards}.items()))
        return atomic_write(Path(root) / SUBMITTED, (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())


def read_cards(root: Path | str, *names: str) -> dict[str, dict]:
    """The methods by name as `write_cards` wrote them, the peers of `peers.json`, whose cards name a `package`, and the
    submissions as `write_submitted` entered them, whose cards name `authors`.

    names: of these files alone. Empty where there is no such file. Raises UserError where one is broken.
    """
    cards, problems = readable_cards(root, *names)
    if problems:
        raise UserError(problems[0])
    return cards


def readable_cards(root: Path | str, *names: str) -> tuple[dict[str, dict], list[str]]:
    """The cards of the files that can be read, all or those of these names, and a sentence for each that cannot."""
    cards: dict[str, dict] = {}
    problems = []
    for name, mend in MENDS.items():
        if names and name not in names:
            continue
        path = Path(root) / name
        try:
            found = json.loads(path.read_bytes()) if path.exists() else {}
            if strange := [key for key, card in found.items() if not isinstance(card, dict)]:
                raise ValueError(f"the card of {strange[0]} is no object")
            cards |= {key: card for key, card in found.items() if key not in cards}  # no other stands for a method
        except (ValueError, AttributeError, RecursionError) as error:
            problems.append(f"{path} is broken ({error}); {mend}.")
        except OSError as error:
            problems.append(f"{path} cannot be read ({error.strerror or error}).")
    return cards, problems
