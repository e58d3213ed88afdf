"""What the tabs run: one function in which networks answer, and what is asked of it about faces, pictures and clips."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from fer_bench.emotions import EMOTIONS
from fer_bench.errors import UserError
from fer_bench.files import make_folder
from fer_bench.ui.shelf import model_for

if TYPE_CHECKING:
    from fer_bench.cards import InputSpec
    from fer_bench.faces import Face
    from fer_bench.infer import Model
    from fer_bench.scoring import Prepared

SIDE = 320
"""Side of the face shown with its overlay, in pixels."""
MOST_FACES = 100
"""Of one picture that are answered for: a small tiling of faces has thousands."""
MOST_SECONDS = 240
"""That pictures or a clip are worked on, so that one visitor cannot hold the queue; what is left is left out."""
LENT_SECONDS = 60
"""That a GPU is asked for: a visitor's share of a day is a few minutes, and asking for more than is left is refused."""
CLIP_SECONDS = LENT_SECONDS - 20
"""That a clip is worked on with a lent GPU, which also loads the model and writes the annotated clip meanwhile."""
MOST_DECODED = 40_000_000_000
"""Pixels of a clip that are decoded, in one or two minutes here: 20,000 frames of 1920 x 1080, or 1,200 of 8K."""
F = TypeVar("F", bound=Callable)
T = TypeVar("T")


def on_gpu(function: F) -> F:
    """`spaces.GPU` where that package is installed (a ZeroGPU Space), else the function itself."""
    if importlib.util.find_spec("spaces") is None:
        return function
    import spaces

    return spaces.GPU(duration=LENT_SECONDS)(function)


def clip_seconds() -> int:
    """How long a clip is worked on at most: less where each question lends a GPU."""
    lent = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")  # as the package `spaces` reads it
    return min(MOST_SECONDS, CLIP_SECONDS) if lent else MOST_SECONDS


def warm() -> None:
    """Import what the first answer needs (seconds on a small machine), but load no weights.

    What is there by then stays, and is not looked through for garbage again, which would hold up an answer for half a
    second now and then. Garbage is collected from then on, where it was not before.
    """
    try:
        from fer_bench import explain, faces, predict, torchvision_repair  # noqa: F401

        importlib.import_module("pytorch_grad_cam")
        importlib.import_module("matplotlib.cm")
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()


def ask(job: Callable[..., T], methods: Sequence[str], *arguments: object) -> tuple[T, list[str]]:
    """What a job gives, and a sentence for each method that could not answer, because its weights cannot be loaded.

    job: gets the models of `methods`, in that order and on the best device, then the arguments; a function of a module,
    since a borrowed GPU is another process. Raises UserError for no methods, where none can be loaded and for what the
    job raises as one, UnknownNameError for a method that does not exist. The live camera alone does not come here: its
    frames run on the CPU, for a GPU is lent by the call.
    """
    found, problems, why = _answered(job, chosen(methods), *arguments)
    if why is not None:
        raise UserError(why)
    return found, problems


@on_gpu
def _answered(
    job: Callable[..., T], names: Sequence[str], *arguments: object
) -> tuple[T | None, list[str], str | None]:
    """What `ask` gives, and why there is nothing: of an error on a borrowed GPU nothing but its class comes back.

    The one function in which networks run: forward, backward and class activation maps of one visitor's question.
    """
    from fer_bench.infer import best_device

    models, problems = [], []
    try:
        for name in names:
            try:
                models.append(model_for(name).to(best_device()))
            except UserError as error:
                problems.append(str(error))
        return (job(models, *arguments), problems, None) if models else (None, [], " ".join(problems))
    except (UserError, KeyError) as error:
        return None, [], str(error)


def chosen(methods: Sequence[str] | str) -> list[str]:
    """The methods without repetitions; a name alone is one. Raises UserError for none, UnknownNameError."""
    from fer_bench.methods import METHODS

    given = methods if isinstance(methods, list | tuple) else [methods]
    names = list(dict.fromkeys(str(name) for name in given if name))
    if not names:
        raise UserError("Choose at least one method.")
    for name in names:
        METHODS[name]
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
    empty: bool = False
    """Whether nothing in the face raised the score of `explained`, so that the overlay is the bare face."""

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
) -> tuple[list[Answer], list[str]]:
    """Ask each method about one face: forward, backward and overlay, in the order of `methods`; the rest as `ask`.

    box: (left, top, right, bottom) of the face in `picture`, as a detector gives it; None takes the middle square.
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
        outputs = logits(model, images)
        wanted = target if target in model.emotions else None
        explanation = explain(model, images, cam, wanted)
        scores = dict(zip(model.emotions, softmax(outputs)[0].tolist(), strict=True))
        shown = overlay(_centred(face), explanation.maps[0], opacity, side=SIDE)
        found.append(Answer(model.name, scores, explanation.targets[0], shown, not explanation.maps[0].any()))
    return found


def _centred(face: Image.Image) -> Image.Image:
    """The part of the picture that the networks see: its largest centred square."""
    from fer_bench.faces import square

    return square(face, min(face.size))


def specs_of(methods: Sequence[str]) -> list[InputSpec]:
    """What each of `chosen(methods)` wants to see. Loads none of them. Raises as `chosen`."""
    from fer_bench.methods import METHODS

    return [METHODS[method].card.input for method in chosen(methods)]


def largest_faces(faces: Sequence[Face]) -> list[Face]:
    """The MOST_FACES largest of a picture's faces, in their order."""
    from fer_bench.scoring import largest

    kept = set(largest([face.box for face in faces], MOST_FACES))
    return [face for face in faces if face.box in kept][:MOST_FACES]


def prepare(picture: Image.Image, name: str, specs: Sequence[InputSpec]) -> tuple[Prepared, int]:
    """A picture's faces cut out as the methods want them, and how many faces it has.

    Where those are more than MOST_FACES, the largest are cut out. specs: of `specs_of`. The picture itself is not kept.
    """
    from fer_bench.faces import detect_faces
    from fer_bench.scoring import cut_out, largest

    boxes = [face.box for face in detect_faces(picture)]
    return cut_out(picture, name, largest(boxes, MOST_FACES), specs), len(boxes)


def score_prepared(batch: Sequence[Prepared], methods: Sequence[str]) -> tuple[list[dict], list[str]]:
    """The rows that `fer_bench.predict` would write for pictures from `prepare`, with the specs of these methods.

    And, as `ask` gives them, the methods that are not in them.
    """
    return ask(_score, methods, batch, chosen(methods))


def _score(models: Sequence[Model], batch: Sequence[Prepared], methods: Sequence[str]) -> list[dict]:
    """methods: those that the batch was cut out for; `models` may lack some."""
    from fer_bench.scoring import score_prepared

    kept = [methods.index(model.name) for model in models]
    batch = [replace(one, crops=tuple(one.crops[place] for place in kept)) for one in batch]
    return list(chain.from_iterable(score_prepared(batch, models)))


def score(pictures: Sequence[tuple[str, Image.Image]], methods: Sequence[str]) -> list[dict]:
    """The rows of these (name, picture) pairs, of all methods.

    Raises as `ask` does, and UserError for more than MOST_FACES in one and for a method that cannot answer.
    """
    batch, specs = [], specs_of(methods)
    for name, picture in pictures:
        prepared, found = prepare(picture, name, specs)
        if found > MOST_FACES:
            raise UserError(f"{name}: {found} faces were found, of at most {MOST_FACES}; cut the picture into parts.")
        batch.append(prepared)
    rows, problems = score_prepared(batch, methods)
    if problems:
        raise UserError(" ".join(problems))
    return rows


class _OutOfTimeError(Exception):
    """Ends the reading of a clip."""


def read_clip(path: Path, out: Path, method: str, per_second: float, limit: int, cam: str | None) -> tuple[list, list]:
    """A clip's rows and what of it was damaged or left out; the annotated clip goes to `out` (.mp4). Raises UserError.

    After `clip_seconds` the reading ends, among frames that are never shown too: with the rows until then, and no
    annotated clip; with UserError where there are none.
    """
    return ask(_read_clip, [method], path, out, per_second, limit, cam)[0]


def _read_clip(
    models: Sequence[Model], path: Path, out: Path, per_second: float, limit: int, cam: str | None
) -> tuple[list, list]:
    from fer_bench import video
    from fer_bench.scoring import annotate_clip

    rows: list[dict] = []
    notes: list[str] = []
    (model,) = models
    seconds = clip_seconds()
    end = time.monotonic() + seconds
    late = False
    crowded = f"{path}: of frames with more than {MOST_FACES} faces only the largest {MOST_FACES} are answered for."

    def go_on() -> bool:
        nonlocal late
        late = late or time.monotonic() > end
        return not late

    def take(some: list[dict]) -> None:
        rows.extend(some)
        if len(some) >= MOST_FACES and crowded not in notes:
            notes.append(crowded)
        if not go_on():
            raise _OutOfTimeError

    width, height = video.probe(path, go_on).size
    most = max(1, min(video.MOST_DECODED, MOST_DECODED // (width * height)))
    try:
        annotate_clip(
            path, out, model, per_second, limit, cam, on_rows=take, on_damage=notes.append, most=most,
            most_faces=MOST_FACES, go_on=go_on,
        )  # fmt: skip
        if late:  # in the middle of the decoding, after the last rows
            raise _OutOfTimeError
    except _OutOfTimeError:
        out.unlink(missing_ok=True)
        notes.append(
            f"{path}: after {seconds} seconds of work only its first {rows[-1]['time']:.1f} s were read, and no "
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

    Gradio copies what an answer names, and deletes its own copies. While the app runs it lies in the visitors' folder
    ($GRADIO_TEMP_DIR), so that it goes with that even where the app is killed. Raises UserError where none can be made.
    """
    visitors = os.environ.get("GRADIO_TEMP_DIR")
    parent = make_folder(Path(visitors)) if visitors else None
    held = tempfile.TemporaryDirectory(prefix="fer_bench-", dir=parent, ignore_cleanup_errors=True)
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
