"""The tab for many pictures at once: a gallery of faces with their answers, and a CSV like `predict`'s."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fer_bench.errors import UserError
from fer_bench.files import label
from fer_bench.ui import engine, look, shelf
from fer_bench.ui.try_it import AS_IT_IS, PRIVACY, method_picker, path_of, read

if TYPE_CHECKING:
    import gradio as gr

    from fer_bench.scoring import Prepared

Face = tuple[str, int]
"""Its picture's name and its number there, from 1; 0 where none was found and the middle square is used."""
WAITING = (
    '<div class="fer-empty"><h2>Choose some pictures.</h2><p>Every face in them appears here with its answers, '
    "and a table to download.</p></div>"
)
NO_FACE = "No face found · "
"""Begins the caption of a picture whose middle square was answered for."""
MOST_PICTURES = 200
"""At once, so that one visitor cannot hold the queue."""
MOST_FACES = 500
"""Of one question; the picture in which they are reached is the last. Those of one picture: `engine.MOST_FACES`."""
TOGETHER = 64
"""Faces that wait for the networks together."""
NAMED = """() => {
  document.querySelectorAll('#files [aria-label="common.upload"]').forEach((one) => {
    one.ariaLabel = one.title = 'Add pictures';
  });
  const name = () => document.querySelectorAll('#gallery .thumbnail-item').forEach((one) => {
    const said = one.querySelector('.caption-label')?.innerText.trim();
    if (said) one.ariaLabel = said;
  });
  name();
  setTimeout(name, 500);
}"""
"""Gradio names the gallery's buttons "Thumbnail 1 of 3", so that a screen reader would never say an answer, and the
button that adds files by a key of its translations. The gallery is drawn a moment after its value came.
"""
THUMBNAIL = 320
"""Side of a face in the gallery, in pixels."""


def gallery_of(rows: Sequence[dict], faces: dict[Face, Image.Image]) -> list[tuple[Image.Image, str]]:
    """(face, caption) for each face: what each method says of it. rows: as `predict` gives them."""
    answered: dict[Face, list[dict]] = {}
    for row in rows:
        answered.setdefault((row["filepath"], row["face"]), []).append(row)
    several = Counter(name for name, _ in answered)
    items = []
    for (name, number), answers in answered.items():
        votes: dict[str, list[str]] = {}
        for answer in answers:
            votes.setdefault(answer["emotion"], []).append(answer["method"])
        if len(votes) == 1:
            said = f"{answers[0]['emotion']} (all {len(answers)})" if len(answers) > 1 else answers[0]["emotion"]
        else:
            ordered = sorted(votes.items(), key=lambda vote: -len(vote[1]))
            said = "; ".join(f"{emotion}: {', '.join(methods)}" for emotion, methods in ordered)
        caption = f"{'' if number else NO_FACE}{said} · {name}{f', face {number}' if several[name] > 1 else ''}"
        items.append((faces[name, number], caption))
    return items


def summary(faces: Collection[Face]) -> str:
    """How many pictures were read, and in how many of them no face was found, in a sentence."""
    pictures, without = len({name for name, _ in faces}), sum(not number for _, number in faces)
    text = f"{look.count(pictures, 'picture')} read"
    if without:
        text += f"; of {without}, in which no face was found, the middle square was used"
    return f"{text}."


def score_all(paths: Sequence[str], methods: Sequence[str]) -> tuple[list[dict], dict[Face, Image.Image], list[str]]:
    """Rows, each face for the gallery, and a sentence on each picture, face or method that is not in them.

    One picture is open at a time, and of it only what the methods and the gallery need is kept: 200 of the largest
    would take 53 GB. Repeated names are numbered. Raises as `engine.ask` does.
    """
    from fer_bench.faces import crop, square

    specs = engine.specs_of(methods)
    rows: list[dict] = []
    faces: dict[Face, Image.Image] = {}
    problems: list[str] = []
    names: set[str] = set()
    batch: list[Prepared] = []
    start = time.monotonic()

    def answer() -> None:
        some, missing = engine.score_prepared(batch, methods)
        rows.extend(some)
        problems.extend(text for text in missing if text not in problems)
        batch.clear()

    for done, path in enumerate(paths):
        bound = reached(done, len(faces), time.monotonic() - start)
        if bound:
            left_out = look.count(len(paths) - done, "picture")
            problems.append(f"Left out: {left_out} {bound}; give the rest separately.")
            break
        name, number = Path(path).name, 1
        while name in names:
            number += 1
            name = f"{Path(path).stem} ({number}){Path(path).suffix}"
        try:
            picture = read(path)
        except UserError as error:
            problems.append(str(error))
            continue
        names.add(name)
        prepared, found = engine.prepare(picture, name, specs)
        if found > engine.MOST_FACES:
            problems.append(f"{name}: of its {found} faces only the {engine.MOST_FACES} largest are answered for.")
        for place, box in enumerate(prepared.boxes, 1):
            face = square(crop(picture, box) if box else picture, THUMBNAIL).convert("RGB")
            faces[name, place if box else 0] = face
        batch.append(prepared)
        if sum(len(one.boxes) for one in batch) >= TOGETHER:
            answer()
    if batch:
        answer()
    return rows, faces, problems


def reached(pictures: int, faces: int, seconds: float) -> str:
    """Which bound of a question is reached, in words for after "Left out: 3 pictures"; "" for none."""
    if pictures >= MOST_PICTURES:
        return f"beyond the first {MOST_PICTURES}"
    if faces >= MOST_FACES:
        return f"after the first {faces} faces"
    return f"after {engine.MOST_SECONDS} seconds of work" if pictures and seconds > engine.MOST_SECONDS else ""


def build(root: Path) -> gr.Dropdown:
    """The tab's components and what they do; called inside a `gr.Tab`. root: the leaderboard's folder.

    Returns the picker of methods.
    """
    import gradio as gr

    nothing = (gr.update(value=None, visible=False),) * 2
    choices = shelf.choices(root)

    def run(given: list[dict] | None, methods: list[str]) -> tuple[Any, ...]:
        """Files -> (notes, gallery, CSV)."""
        paths, lost = [], []
        for one in given or ():
            try:
                paths.append(path_of(one))
            except UserError as error:
                lost.append(f"{label(Path(one['path']).name)}: {error}")
        paths = list(filter(None, paths))
        if not paths and not lost:
            return look.note("Choose some pictures first.", bad=True), *nothing
        try:
            rows, faces, problems = score_all(paths, methods)
        except (UserError, KeyError) as error:
            return look.note(str(error), bad=True), *nothing
        notes = [look.note(summary(faces))] if faces else []
        notes += [look.note(problem, bad=True) for problem in lost + problems]
        if not rows:
            return "".join(notes), *nothing
        with engine.folder_for() as folder:
            table = engine.write_csv(rows, engine.emotions_in(rows), folder / "scores.csv")
        gallery = gr.update(value=gallery_of(rows, faces), visible=True)
        return "".join(notes), gallery, gr.update(value=str(table), visible=True)

    def predict(picture: dict, methods: list[str]) -> list[dict]:
        """Score the faces of one picture: one row per face and method, as `python -m fer_bench.predict` gives them.

        picture: an image file. methods: names of methods, such as ["small_cnn"]. Each row holds filepath, face (from 1;
        0 where none was found: then it is the middle square), method, emotion (the likeliest), a probability per
        emotion, and the face's left, top, right and bottom in pixels. A picture of more than 100 faces is refused, and
        so (429) are more than 12 questions at once from one visitor.
        """
        try:
            path = path_of(picture)
            return engine.score([(Path(path).name if path else "", read(path))], methods)
        except (UserError, KeyError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            files = gr.File(label="Your pictures", file_count="multiple", type="filepath", height=220, elem_id="files")
            methods = method_picker(choices)
            button = gr.Button("Score them", variant="primary", elem_id="score")
            gr.Markdown(
                f"At most {MOST_PICTURES} at once, with {MOST_FACES} faces. {PRIVACY}", elem_classes="fer-small"
            )
        with gr.Column(scale=5, min_width=320):
            message = gr.HTML(WAITING, elem_id="files-message", padding=False)
            gallery = gr.Gallery(
                label="Faces", columns=4, height="auto", object_fit="cover", visible=False, elem_id="gallery",
                buttons=["download", "fullscreen"],  # and not "share", which publishes a visitor's face
            )  # fmt: skip
            table = gr.File(
                label="Scores (CSV, the same columns as predict)", interactive=False, visible=False, elem_id="csv"
            )
    one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "networks"}
    button.click(
        run, [files, methods], [message, gallery, table], api_visibility="private", **one_at_a_time, **AS_IT_IS
    ).then(None, None, None, js=NAMED)
    # The faces of pictures go with them, and with other pictures what was wrong with the ones before.
    unqueued = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    files.clear(lambda: (WAITING, *nothing), None, [message, gallery, table], **unqueued)
    files.upload(lambda: (WAITING, *nothing), None, [message, gallery, table], **unqueued).then(
        None, None, None, js=NAMED
    )

    # What programs call: the same scores as JSON.
    asked = gr.Image(visible=False, type="filepath", image_mode=None, label="picture", buttons=[])
    names = gr.Dropdown(
        [choice.name for choice in choices], value=shelf.best(choices)[:1], multiselect=True, visible=False,
        label="methods",
    )  # fmt: skip
    gr.Button(visible=False).click(
        predict, [asked, names], gr.JSON(visible=False, label="rows"), api_name="predict", **one_at_a_time, **AS_IT_IS
    )
    return methods
