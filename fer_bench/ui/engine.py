"""What the tabs run: models loaded once and kept within a memory bound, and one function that answers for a face."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from fer_bench.card_files import read_cards
from fer_bench.emotions import EMOTIONS
from fer_bench.errors import UserError
from fer_bench.leaderboard import read_readable, table

if TYPE_CHECKING:
    from fer_bench.cards import InputSpec
    from fer_bench.infer import Model
    from fer_bench.scoring import Prepared

TRACK = "fer2013"
NO_WEIGHTS = (
    f"**No method can answer, for there are no weights of `{TRACK}` here.** Train one and enter it, then start the app "
    f"again: `python -m fer_bench.train --method small_cnn --track {TRACK}` and `python -m fer_bench.weights add "
    f"runs/{TRACK}/small_cnn/common-v1-s0`; or name a folder that has some in `$FER_BENCH_WEIGHTS`."
)
SIDE = 320
"""Side of the face shown with its overlay, in pixels."""
MOST_FACES = 100
"""Of one picture that are answered for: a small tiling of faces has thousands."""
MOST_SECONDS = 240
"""That pictures or a clip are worked on, so that one visitor cannot hold the queue; what is left is left out."""
MOST_DECODED = 40_000_000_000
"""Pixels of a clip that are decoded, in one or two minutes here: 20,000 frames of 1920 x 1080, or 1,200 of 8K."""
F = TypeVar("F", bound=Callable)
T = TypeVar("T")


def on_gpu(function: F) -> F:
    """`spaces.GPU` where that package is installed (a ZeroGPU Space), else the function itself."""
    if importlib.util.find_spec("spaces") is None:
        return function
    import spaces

    return spaces.GPU(function)


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


def choices(root: Path) -> list[Choice]:
    """The methods whose weights `_load` finds here, best on the main track first. root: the leaderboard's folder.

    A figure is that of these very weights: a row of another recipe or seed tells nothing of them.
    """
    from fer_bench.methods import METHODS
    from fer_bench.weights import index_key, read_index

    index = read_index()
    keys = {name: index_key(name, TRACK, METHODS[name].card.recipe, 0) for name in METHODS}
    shipped = {name: index[key]["sha256"] for name, key in keys.items() if key in index}
    try:
        cards = read_cards(root)
    except UserError:  # the leaderboard tab says it; what the methods are called is no reason not to serve
        cards = {}
    frame = table([r for r in read_readable(root)[0] if r.weights.sha256 == shipped.get(r.method)], cards, TRACK)
    found: dict[str, Choice] = {}
    for row in frame.itertuples() if len(frame) else ():
        if row.tta == "none" and row.method not in found:
            title = cards.get(row.method, {}).get("title", row.method)
            half = (row.high - row.low) / 2
            found[row.method] = Choice(row.method, title, row.accuracy, half, not row.complete)
    missing = sorted(shipped.keys() - found.keys())
    rest = [Choice(name, cards.get(name, {}).get("title", name), None, None, True) for name in missing]
    return sorted(found.values(), key=lambda c: -c.accuracy) + rest


def best(found: Sequence[Choice], count: int = 5) -> list[str]:
    """The names of the first few: the best on the main track."""
    return [choice.name for choice in found[:count]]


class Shelf:
    """Models by name, each loaded once, on first use; the least recently used leave when the bound is passed.

    bound: bytes of parameters and buffers kept; the model just asked for is always kept. Safe for several threads.
    """

    def __init__(self, load: Callable[[str], Model], bound: int) -> None:
        self._load, self.bound = load, bound
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def __getitem__(self, name: str) -> Model:
        with self._lock:
            if name in self._models:
                self._models.move_to_end(name)
                return self._models[name]
            mine = self._loading.setdefault(name, threading.Lock())
        with mine:  # a second visitor waits for the first one's load; other methods go on
            with self._lock:
                if name in self._models:
                    return self._models[name]
            try:
                model = self._load(name)
            except BaseException:
                with self._lock:  # strangers may ask for any number of names that do not exist
                    self._loading.pop(name, None)
                raise
            with self._lock:
                self._models[name] = model
                while len(self._models) > 1 and sum(map(size_of, self._models.values())) > self.bound:
                    self._models.popitem(last=False)
            return model

    def names(self) -> list[str]:
        """The models held, least recently used first."""
        with self._lock:
            return list(self._models)


def size_of(model: Model) -> int:
    """Bytes of a model's parameters and buffers."""
    tensors = [*model.network.parameters(), *model.network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _load(name: str) -> Model:
    from fer_bench.infer import load, logits

    model = load(name, TRACK)
    side = model.input_spec.size
    logits(model, np.zeros((1, side, side), np.uint8))  # the first pass sets things up, which is not a face's time
    return model


SHELF = Shelf(_load, bound=int(os.environ.get("FER_BENCH_APP_MB", "600")) * 2**20)
"""What the app keeps in memory; `$FER_BENCH_APP_MB` sets the bound (600)."""


def warm() -> None:
    """Import what the first answer needs (seconds on a small machine), but load no weights."""
    from fer_bench import explain, faces, predict, torchvision_repair  # noqa: F401

    importlib.import_module("pytorch_grad_cam")
    importlib.import_module("matplotlib.cm")


@on_gpu
def ask(job: Callable[..., T], methods: Sequence[str], *arguments: object) -> T:
    """The one function in which networks run: forward, backward and class activation maps of one visitor's question.

    job: gets the models of `methods`, in that order and on the best device, then the arguments; a function of a module,
    since a borrowed GPU is another process. Raises UserError for no methods, UnknownNameError for one that does not
    exist. The live camera alone does not come here: its frames run on the CPU, for a GPU is lent by the call.
    """
    from fer_bench.infer import best_device

    return job([SHELF[name].to(best_device()) for name in chosen(methods)], *arguments)


def chosen(methods: Sequence[str]) -> list[str]:
    """The methods without repetitions. Raises UserError where there is none."""
    names = list(dict.fromkeys(filter(None, methods or ())))
    if not names:
        raise UserError("Choose at least one method.")
    return names


@dataclass(frozen=True)
class Answer:
    """What one method says of one face, and where it looked."""

    method: str
    scores: dict[str, float]
    """Probability per emotion, in the model's order; they sum to 1."""
    explained: str
    """The emotion that the overlay is about."""
    overlay: Image.Image
    """RGB, (SIDE, SIDE)."""
    milliseconds: float
    """Of the network's forward pass on this face, without detection and overlay."""

    @property
    def emotion(self) -> str:
        return max(self.scores, key=self.scores.get)


def answer(
    picture: Image.Image,
    box: tuple[int, int, int, int] | None,
    methods: Sequence[str],
    cam: str = "gradcam",
    target: str | None = None,
    opacity: float = 0.5,
) -> list[Answer]:
    """Ask each method about one face: forward, backward and overlay, in the order of `methods`.

    box: (left, top, right, bottom) of the face in `picture`, as a detector gives it; None takes the whole picture.
    target: the emotion that the overlay is about; None, or one that a method does not know, takes its own answer.
    opacity: 0..1. Raises as `ask` does.
    """
    return ask(_answer, methods, picture, box, cam, target, opacity)


def _answer(
    models: Sequence[Model],
    picture: Image.Image,
    box: tuple[int, int, int, int] | None,
    cam: str,
    target: str | None,
    opacity: float,
) -> list[Answer]:
    from fer_bench.explain import explain, overlay
    from fer_bench.faces import crop, stack
    from fer_bench.infer import logits
    from fer_bench.metrics import softmax

    found = []
    for model in models:
        face = picture if box is None else crop(picture, box, model.input_spec.margin)
        images = stack([face], model.input_spec.size)
        start = time.perf_counter()
        outputs = logits(model, images)
        milliseconds = 1000 * (time.perf_counter() - start)
        wanted = target if target in model.emotions else None
        explanation = explain(model, images, cam, wanted)
        scores = dict(zip(model.emotions, softmax(outputs)[0].tolist(), strict=True))
        shown = overlay(_centred(face), explanation.maps[0], opacity, side=SIDE)
        found.append(Answer(model.name, scores, explanation.targets[0], shown, milliseconds))
    return found


def _centred(face: Image.Image) -> Image.Image:
    """The part of the picture that the networks see: its largest centred square."""
    from fer_bench.faces import square

    return square(face, min(face.size))


def specs_of(methods: Sequence[str]) -> list[InputSpec]:
    """What each of `chosen(methods)` wants to see. Loads them, so once for all pictures. Raises as `ask`."""
    return [SHELF[method].input_spec for method in chosen(methods)]


def prepare(picture: Image.Image, name: str, specs: Sequence[InputSpec]) -> tuple[Prepared, int]:
    """A picture's faces cut out as the methods want them, and how many faces it has.

    Where those are more than MOST_FACES, the largest are cut out. specs: of `specs_of`. The picture itself is not kept.
    """
    from fer_bench.faces import detect_faces
    from fer_bench.scoring import cut_out, largest

    boxes = [face.box for face in detect_faces(picture)]
    return cut_out(picture, name, largest(boxes, MOST_FACES), specs), len(boxes)


def score_prepared(batch: Sequence[Prepared], methods: Sequence[str]) -> list[dict]:
    """The rows that `fer_bench.predict` would write for pictures from `prepare`, with the specs of these methods."""
    return ask(_score, methods, batch)


def _score(models: Sequence[Model], batch: Sequence[Prepared]) -> list[dict]:
    from fer_bench.scoring import score_prepared

    return list(chain.from_iterable(score_prepared(batch, models)))


def score(pictures: Sequence[tuple[str, Image.Image]], methods: Sequence[str]) -> list[dict]:
    """The rows of these (name, picture) pairs. Raises as `ask` does, and UserError for more than MOST_FACES in one."""
    batch, specs = [], specs_of(methods)
    for name, picture in pictures:
        prepared, found = prepare(picture, name, specs)
        if found > MOST_FACES:
            raise UserError(f"{name}: {found} faces were found, of at most {MOST_FACES}; cut the picture into parts.")
        batch.append(prepared)
    return score_prepared(batch, methods)


class _OutOfTimeError(Exception):
    """Ends the reading of a clip."""


def read_clip(path: Path, out: Path, method: str, per_second: float, limit: int, cam: str | None) -> tuple[list, list]:
    """A clip's rows and what of it was damaged or left out; the annotated clip goes to `out` (.mp4). Raises UserError.

    After MOST_SECONDS the reading ends: with the rows until then, and no annotated clip.
    """
    return ask(_read_clip, [method], path, out, per_second, limit, cam)


def _read_clip(
    models: Sequence[Model], path: Path, out: Path, per_second: float, limit: int, cam: str | None
) -> tuple[list, list]:
    from fer_bench import video
    from fer_bench.scoring import annotate_clip

    rows: list[dict] = []
    notes: list[str] = []
    (model,) = models
    width, height = video.probe(path).size
    most = max(1, min(video.MOST_DECODED, MOST_DECODED // (width * height)))
    end = time.monotonic() + MOST_SECONDS
    crowded = f"{path}: of a frame's faces only the {MOST_FACES} largest are answered for."

    def take(some: list[dict]) -> None:
        rows.extend(some)
        if len(some) >= MOST_FACES and crowded not in notes:
            notes.append(crowded)
        if time.monotonic() > end:
            raise _OutOfTimeError

    try:
        annotate_clip(
            path, out, model, per_second, limit, cam, on_rows=take, on_damage=notes.append, most=most,
            most_faces=MOST_FACES,
        )  # fmt: skip
    except _OutOfTimeError:
        notes.append(
            f"{path}: after {MOST_SECONDS} seconds of work only its first {rows[-1]['time']:.1f} s were read, and no "
            "annotated clip was made; give a shorter clip or choose fewer frames per second."
        )
    return rows, notes


def write_csv(rows: Sequence[dict], emotions: Sequence[str], path: Path) -> Path:
    """Rows as `fer_bench.predict` writes them, the same columns in the same order; returns the path."""
    from fer_bench.scores import ScoreFile

    with ScoreFile(path, emotions, sorted({row["method"] for row in rows})).start([]) as file:
        file.add(rows)
    return path


@contextlib.contextmanager
def folder_for(seconds: float = 120) -> Iterator[Path]:
    """A new folder for what a visitor downloads, gone `seconds` after the block is left, or at once where it raised.

    Gradio copies what an answer names, and deletes its own copies.
    """
    held = tempfile.TemporaryDirectory(prefix="fer_bench-", ignore_cleanup_errors=True)
    try:
        yield Path(held.name)
    except BaseException:
        held.cleanup()
        raise
    timer = threading.Timer(seconds, held.cleanup)  # holds the folder, which is also removed when the process ends
    timer.daemon = True
    timer.start()


def emotions_in(rows: Sequence[dict]) -> tuple[str, ...]:
    """The emotion columns of rows, in the canonical order."""
    return tuple(emotion for emotion in EMOTIONS if rows and emotion in rows[0])
