"""What can answer here: the methods that have weights, with their figures, and their models, loaded once and kept."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_bench.errors import UserError
from fer_bench.leaderboard import table
from fer_bench.ui.board_rows import Board

if TYPE_CHECKING:
    from fer_bench.infer import Model

TRACK = "fer2013"
NO_WEIGHTS = (
    f"**No method can answer, for there are no weights of `{TRACK}` here.** Train one and enter it, then reload this "
    f"page: `python -m fer_bench.train --method small_cnn --track {TRACK}` and `python -m fer_bench.weights add "
    f"runs/{TRACK}/small_cnn/common-v1-s0`; or name a folder that has some in `$FER_BENCH_WEIGHTS` and start the app "
    "again."
)


@dataclass(frozen=True)
class Choice:
    """A method that a visitor can choose: it has weights here."""

    name: str
    title: str
    accuracy: float | None
    """On the main track's test split, fraction; None where it has no result."""
    half_width: float | None
    """Of the accuracy's 95 % interval."""
    short: bool
    """Trained for less than its recipe's budget."""

    @property
    def label(self) -> str:
        if self.accuracy is None:
            return f"{self.name} (no result yet)"
        return f"{self.name} · {100 * self.accuracy:.1f} %{' ◔' if self.short else ''}"


_CHOICES: dict[Path, tuple[Board, dict[str, str], list[Choice]]] = {}
"""By leaderboard folder: what the choices were made from when they were last asked for, and they themselves."""


def choices(root: Path) -> list[Choice]:
    """The methods that `load_model` finds weights of, as files or pinned on the Hub, best on the main track first.

    As the index and the leaderboard's folder `root` are now; made again only where one of the two has changed. A figure
    is that of these very weights: a row of another recipe or seed tells nothing of them.
    """
    board, shipped = Board.read(root), _shipped()
    last = _CHOICES.get(root.absolute())
    if last is not None and last[0] is board and last[1] == shipped:
        return last[2]
    cards = board.cards
    frame = table([r for r in board.results if r.weights.sha256 == shipped.get(r.method)], cards, TRACK)
    found: dict[str, Choice] = {}
    for row in frame.itertuples() if len(frame) else ():
        if row.tta == "none" and row.method not in found:
            title = cards.get(row.method, {}).get("title", row.method)
            half = (row.high - row.low) / 2
            found[row.method] = Choice(row.method, title, row.accuracy, half, bool(row.short))
    missing = sorted(shipped.keys() - found.keys())
    rest = [Choice(name, cards.get(name, {}).get("title", name), None, None, True) for name in missing]
    ordered = sorted(found.values(), key=lambda c: -c.accuracy) + rest
    _CHOICES[root.absolute()] = board, shipped, ordered
    return ordered


def _shipped() -> dict[str, str]:
    """Method -> SHA-256 of its weights, for those whose file is here or, where it is pinned, on the Hub."""
    from fer_bench.methods import METHODS
    from fer_bench.weights import find, read_index

    index = read_index()
    entries = {name: index.get(_key(name)) for name in METHODS}
    return {
        name: entry["sha256"]
        for name, entry in entries.items()
        if entry and (entry["hub"] or find(name, TRACK, entry["recipe"], 0))
    }


def _key(name: str) -> str:
    """Of a method's weights in the index. Raises UnknownNameError."""
    from fer_bench.infer import usual_recipe
    from fer_bench.protocols import track_named
    from fer_bench.weights import index_key

    return index_key(name, TRACK, usual_recipe(name, track_named(TRACK)), 0)


def best(found: Sequence[Choice], count: int = 5) -> list[str]:
    """The names of the first few: the best on the main track."""
    return [choice.name for choice in found[:count]]


class Shelf:
    """Models by name, each loaded once, on first use; the least recently used leave when the bound is passed.

    bound: bytes of parameters and buffers kept; the model just asked for is always kept. version: of what `load` would
    give for a name now; a model of another one is loaded anew. Safe for several threads.
    """

    def __init__(
        self, load: Callable[[str], Model], bound: int, version: Callable[[str], str] = lambda name: ""
    ) -> None:
        self._load, self.bound, self._version = load, bound, version
        self._models: OrderedDict[str, tuple[str, Model]] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def __getitem__(self, name: str) -> Model:
        version = self._version(name)
        with self._lock:
            held = self._held(name, version)
            if held is not None:
                return held
            mine = self._loading.setdefault(name, threading.Lock())
        with mine:  # a second visitor waits for the first one's load; other methods go on
            with self._lock:
                held = self._held(name, version)
                if held is not None:
                    return held
            try:
                model = self._load(name)
            except BaseException:
                with self._lock:  # strangers may ask for any number of names that do not exist
                    self._loading.pop(name, None)
                raise
            with self._lock:
                self._models[name] = version, model
                self._models.move_to_end(name)
                while len(self._models) > 1 and sum(size_of(one) for _, one in self._models.values()) > self.bound:
                    self._models.popitem(last=False)
            return model

    def _held(self, name: str, version: str) -> Model | None:
        """The model of that version if it is held, which is then the most recently used."""
        if name not in self._models or self._models[name][0] != version:
            return None
        self._models.move_to_end(name)
        return self._models[name][1]

    def names(self) -> list[str]:
        """The models held, least recently used first."""
        with self._lock:
            return list(self._models)


def size_of(model: Model) -> int:
    """Bytes of a model's parameters and buffers."""
    tensors = [*model.network.parameters(), *model.network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def load_model(name: str) -> Model:
    """A method's model, ready to answer. Raises as `infer.load` does, and UserError for weights of another input."""
    from fer_bench.infer import load, logits
    from fer_bench.methods import METHODS

    model = load(name, TRACK)
    if model.input_spec != METHODS[name].card.input:  # by which `engine.specs_of` has faces cut out
        raise UserError("its weights were trained for another input than its card's; train them again.")
    side = model.input_spec.size
    logits(model, np.zeros((1, side, side), np.uint8))  # the first pass sets things up, which is not a face's time
    return model


def weights_now(name: str) -> str:
    """The SHA-256 of a method's weights as the index has them now; "" where it has none. Raises UnknownNameError."""
    from fer_bench.weights import read_index

    return read_index().get(_key(name), {}).get("sha256", "")


def bound(text: str) -> int:
    """Megabytes, as `$FER_BENCH_APP_MB` gives them, in bytes. Raises UserError for what is no whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise UserError(f"$FER_BENCH_APP_MB is {text!r}; give a whole number of megabytes, such as 1200.")
    return int(text) * 2**20


SHELF = Shelf(load_model, bound(os.environ.get("FER_BENCH_APP_MB", "1200")), weights_now)
"""What the app keeps in memory; `$FER_BENCH_APP_MB` sets the bound (1200, which all methods together stay below)."""


def model_for(name: str) -> Model:
    """A method's model from the shelf. Raises UserError, naming the method but no folder of this server."""
    from fer_bench.weights import cache_folder, weights_folder

    try:
        return SHELF[name]
    except (UserError, KeyError, OSError) as error:
        text = str(error)
        for folder in (weights_folder(), cache_folder()):
            text = text.replace(f"{folder}/", "")
        raise UserError(f"{name} cannot answer: {text}") from None
