"""The tab for many pictures at once: a gallery of faces with their answers, and a CSV like `predict`'s."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fer_bench.errors import UserError
from fer_bench.ui import engine, look
from fer_bench.ui.try_it import AS_IT_IS, PRIVACY, method_picker, path_of, read

if TYPE_CHECKING:
    from fer_bench.ui.engine import Choice

WAITING = (
    '<div class="fer-empty"><h2>Choose some pictures.</h2><p>Every face in them appears here with its answers, '
    "and a table to download.</p></div>"
)
MOST_PICTURES = 200
"""At once, so that one visitor cannot hold the queue."""
THUMBNAIL = 320
"""Side of a face in the gallery, in pixels."""


def gallery_of(rows: Sequence[dict], pictures: dict[str, Image.Image]) -> list[tuple[Image.Image, str]]:
    """(face, caption) for each face: what each method says of it. rows: as `predict` gives them."""
    from fer_bench.faces import crop, square

    faces: dict[tuple[str, int], list[dict]] = {}
    for row in rows:
        faces.setdefault((row["filepath"], row["face"]), []).append(row)
    items = []
    for (name, number), answers in faces.items():
        box = [answers[0][edge] for edge in ("left", "top", "right", "bottom")]
        face = crop(pictures[name], tuple(box)) if number else pictures[name]
        votes: dict[str, list[str]] = {}
        for answer in answers:
            votes.setdefault(answer["emotion"], []).append(answer["method"])
        if len(votes) == 1:
            said = f"{answers[0]['emotion']} (all {len(answers)})" if len(answers) > 1 else answers[0]["emotion"]
        else:
            ordered = sorted(votes.items(), key=lambda vote: -len(vote[1]))
            said = "; ".join(f"{emotion}: {', '.join(methods)}" for emotion, methods in ordered)
        several = sum(1 for other, _ in faces if other == name) > 1
        caption = f"{said} · {name}{f', face {number}' if several else ''}"
        items.append((square(face.convert("RGB"), THUMBNAIL), caption))
    return items


def build(choices: list[Choice]) -> None:
    """The tab's components and what they do; called inside a `gr.Tab`."""
    import gradio as gr

    nothing = (gr.update(value=None, visible=False),) * 2

    def run(paths: list[str] | None, methods: list[str]) -> tuple[Any, ...]:
        """Files -> (notes, gallery, CSV)."""
        if not paths:
            return look.note("Choose some pictures first.", bad=True), *nothing
        try:
            pictures, problems = read_all(paths[:MOST_PICTURES])
            rows = engine.score(list(pictures.items()), methods)
        except (UserError, KeyError) as error:
            return look.note(str(error), bad=True), *nothing
        left_out = len(paths) - MOST_PICTURES
        if left_out > 0:
            beyond = f"{look.count(left_out, 'picture')} beyond the first {MOST_PICTURES}"
            problems.append(f"Left out: {beyond}; give the rest separately.")
        notes = [look.note(f"{look.count(len(pictures), 'picture')} read.")] if pictures else []
        notes += [look.note(problem, bad=True) for problem in problems]
        if not rows:
            return "".join(notes), *nothing
        table = engine.write_csv(rows, engine.emotions_in(rows), engine.folder_for() / "scores.csv")
        faces = gr.update(value=gallery_of(rows, pictures), visible=True)
        return "".join(notes), faces, gr.update(value=str(table), visible=True)

    def predict(picture: dict, methods: list[str]) -> list[dict]:
        """Score the faces of one picture: one row per face and method, as `python -m fer_bench.predict` gives them.

        picture: an image file. methods: names of methods, such as ["small_cnn"]. Each row holds filepath, face (from 1;
        0 where none was found and the whole picture was used), method, emotion (the likeliest), a probability per
        emotion, and the face's left, top, right and bottom in pixels.
        """
        path = path_of(picture)
        try:
            return engine.score([(Path(path).name if path else "", read(path))], methods)
        except (UserError, KeyError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            files = gr.File(label="Your pictures", file_count="multiple", type="filepath", height=220, elem_id="files")
            methods = method_picker(choices)
            button = gr.Button("Score them", variant="primary", elem_id="score")
            gr.Markdown(f"At most {MOST_PICTURES} at once. {PRIVACY}", elem_classes="fer-small")
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
    button.click(run, [files, methods], [message, gallery, table], api_visibility="private", **one_at_a_time)

    # What programs call: the same scores as JSON.
    asked = gr.Image(visible=False, type="filepath", image_mode=None, label="picture", buttons=[])
    names = gr.Dropdown(
        [choice.name for choice in choices], value=engine.best(choices)[:1], multiselect=True, visible=False,
        label="methods",
    )  # fmt: skip
    gr.Button(visible=False).click(
        predict, [asked, names], gr.JSON(visible=False, label="rows"), api_name="predict", **one_at_a_time, **AS_IT_IS
    )


def read_all(paths: Sequence[str]) -> tuple[dict[str, Image.Image], list[str]]:
    """The readable pictures by name (repeated names are numbered), and one sentence for each that is none."""
    pictures: dict[str, Image.Image] = {}
    problems: list[str] = []
    for path in paths:
        name, number = Path(path).name, 1
        while name in pictures:
            number += 1
            name = f"{Path(path).stem} ({number}){Path(path).suffix}"
        try:
            pictures[name] = read(path)
        except UserError as error:
            problems.append(str(error))
    return pictures, problems
