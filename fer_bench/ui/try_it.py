"""The tab where a visitor gives one picture and sees the methods answer side by side."""

from __future__ import annotations

import atexit
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from fer_bench.cams import CAMS, WHAT_A_CAM_SHOWS, check_cam
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.files import label
from fer_bench.ui import engine, look, shelf
from fer_bench.ui.keeping import KEPT_SECONDS

if TYPE_CHECKING:
    import gradio as gr

    from fer_bench.faces import Face
    from fer_bench.ui.shelf import Choice

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""
PRIVACY = (
    "What you give is used for this answer and for nothing else: no log, no training, no sending on. "
    "The server's copy is deleted within 20 minutes."
)
WAITING = (
    '<div class="fer-empty"><h2>Upload a face, take one with the camera, paste one, or click an example.</h2>'
    "<p>Every chosen method answers, with the part of the face its answer rests on.</p></div>"
)
NOT_UPLOADED = (
    "This is no file that was uploaded here, or it has been deleted since (files are kept for "
    f"{KEPT_SECONDS // 60} minutes); upload it again."
)
"""For every path that `path_of` refuses, so that nobody learns from it which files the server has."""
EXAMPLE_SEEDS = {
    "anger": 3, "disgust": 14, "fear": 23, "happiness": 32, "sadness": 45, "surprise": 56, "neutral": 68,
}  # fmt: skip
"""A different drawn person for each emotion."""
ONE_FACE = "One face was found."
SHOW_ANSWERS = f"""() => {{
  const message = document.querySelector('#message');
  const place = message?.innerText.trim() === '{ONE_FACE}' ? document.querySelector('.fer-verdict') : message;
  if (innerWidth < 700) place?.scrollIntoView({{behavior: 'smooth', block: 'start'}});
}}"""
"""On a phone the answers stand below the pickers (elsewhere beside): this brings them to the eye, or what comes before
them: that no face was found, or several to choose from.
"""
SHOW_VERDICT = """() => {
  if (innerWidth < 700) document.querySelector('.fer-verdict')?.scrollIntoView({behavior: 'smooth', block: 'start'});
}"""
"""On a phone what a chosen face or map changes is far below the picker."""
ONE_GROUP = """() => {
  const face = document.querySelector('#face fieldset') ?? document.querySelector('#face');
  face?.setAttribute('aria-label', 'Which face?');
  document.querySelectorAll('#face input[type=radio]').forEach((one) => (one.name = 'face'));
}"""
"""Gradio gives each radio button a name of its own, so that the arrow keys do not go from one to the next; anew with
each answer."""
SHOWN = 900
"""Longest side of the picture with boxes, in pixels."""
ON_PAGE = (340, 360)
"""Width and height at most, in CSS pixels, that the picture with boxes has on the page."""
AS_IT_IS = {"preprocess": False}
"""For events that take a visitor's file: they get what the page sent, and `path_of` its path.

Gradio would open a picture itself, and answer a broken one with "Error" and the server's path; a clip it would give to
an ffmpeg command that may not be there. `open_picture` and `video.frames` read them and say what is wrong.
"""


@cache
def examples() -> list[tuple[str, str]]:
    """(path of a drawn face, its emotion) for each emotion; drawn once per process, nothing is downloaded."""
    from fer_bench.datasets.rendered import render

    held = tempfile.TemporaryDirectory(prefix="fer_bench-examples-", ignore_cleanup_errors=True)
    atexit.register(held.cleanup)
    folder, found = Path(held.name), []
    for emotion, seed in EXAMPLE_SEEDS.items():
        path = folder / f"{emotion}.png"
        Image.fromarray(render(emotion, 1.0, seed, 256)[0]).save(path)
        found.append((str(path), emotion))
    return found


def read(path: str | None) -> Image.Image:
    """The visitor's picture, upright. Raises UserError, naming the file but not its folder, for what is no picture."""
    from fer_bench.faces import open_picture

    if not path:
        raise UserError("Give a picture first: upload one, use the camera, paste one or click an example.")
    return open_picture(path, label(Path(path).name))  # the visitor knows the name, not where this server keeps it


def path_of(given: dict[str, Any] | None) -> str | None:
    """Where the server keeps a visitor's file, or None for none. given: the file as an event with AS_IT_IS gets it.

    Raises UserError unless it is a regular file in the folder of what visitors gave, links followed: gradio checks a
    path only where the question itself calls it a file, which for a picture it need not do, and opens any other.
    """
    from gradio.utils import get_upload_folder

    path = given.get("path") if isinstance(given, dict) else given
    if not path:
        return None
    try:
        if not isinstance(path, str):
            raise ValueError(path)
        real = os.path.realpath(path)
        ours = Path(real).is_relative_to(os.path.realpath(get_upload_folder())) and os.path.isfile(real)
    except (OSError, ValueError):  # a name that no file can have
        ours = False
    if not ours:
        raise UserError(NOT_UPLOADED)
    return real


def found_in(faces: list[Face], found: int | None = None) -> str:
    """What the detector found, in a sentence. found: how many faces, where `faces` are only the largest of them."""
    if not faces:
        return "No face was found, so the middle square is used. If it shows no face, the answers mean nothing."
    if found is not None and found > len(faces):
        return f"{found} faces were found, of which the {len(faces)} largest are marked; choose one below."
    return ONE_FACE if len(faces) == 1 else f"{len(faces)} faces were found; choose one below."


def boxed(picture: Image.Image, faces: list[Face], chosen: int) -> str:
    """The picture with numbered boxes, the chosen one thick, as HTML. Lines and numbers are sized for the page."""
    shown = picture.convert("RGB")
    scale = min(1.0, SHOWN / max(shown.size))
    shown = shown.resize([max(1, round(side * scale)) for side in shown.size], Image.Resampling.LANCZOS)
    width, height = ON_PAGE if len(faces) > 1 else (ON_PAGE[0], 220)
    pixel = max(1.0, shown.width / width, shown.height / height)  # of the page, in the picture's own
    draw = ImageDraw.Draw(shown)
    font = ImageFont.load_default(13 * pixel)
    boxes = [tuple(round(edge * scale) for edge in face.box) for face in faces]
    for index in sorted(range(len(boxes)), key=lambda index: index == chosen):  # the chosen one above the others
        line = round((3 if index == chosen else 1.5) * pixel)
        draw.rectangle(boxes[index], outline="white", width=line + round(pixel))
        draw.rectangle(boxes[index], outline=_colour(index, chosen), width=line)
    taken = list(boxes)
    for index, box in enumerate(boxes):
        left, top, right, bottom = draw.textbbox((0, 0), str(index + 1), font=font)
        size = (round(right - left + 6 * pixel), round(bottom - top + 5 * pixel))
        taken.append(badge := badge_place(box, size, shown.size, taken))
        draw.rectangle(badge, fill=_colour(index, chosen))
        middle = ((badge[0] + badge[2]) / 2, (badge[1] + badge[3]) / 2)
        draw.text(middle, str(index + 1), fill="white", font=font, anchor="mm")
    alt = f"Your picture with {len(faces)} face(s) marked; face {chosen + 1} is chosen" if faces else "Your picture"
    style = f"max-width:100%;max-height:{height}px;border-radius:8px;display:block;margin:auto"
    return f'<img src="{look.data_uri(shown)}" alt="{alt}" style="{style}">'


def _colour(index: int, chosen: int) -> str:
    return "#b34700" if index == chosen else "#0072b2"


def badge_place(box: Box, size: tuple[int, int], canvas: tuple[int, int], taken: list[Box]) -> Box:
    """Where a face's number goes: above, below or beside its box, inside the picture and off all that is taken.

    size, canvas: width and height of the number and of the picture. Where there is no such room, the box's own corner.
    """
    (left, top, right, bottom), (width, height) = box, size
    for x, y in ((left, top - height), (left, bottom), (right, top), (left - width, top)):
        place = (x, y, x + width, y + height)
        inside = x >= 0 and y >= 0 and place[2] <= canvas[0] and place[3] <= canvas[1]
        if inside and not any(x < o[2] and o[0] < place[2] and y < o[3] and o[1] < place[3] for o in taken):
            return place
    return (left, top, left + width, top + height)


def name_examples() -> str:
    """JavaScript that gives each example's button the name of its emotion: gradio leaves pictures there nameless."""
    names = json.dumps([f"A drawn face: {emotion}" for _, emotion in examples()])
    return f"() => document.querySelectorAll('#examples button').forEach((b, i) => (b.ariaLabel = {names}[i]))"


def first_choice(faces: list[Face]) -> int:
    """The largest face."""
    areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in faces]
    return areas.index(max(areas)) if areas else 0


def method_picker(choices: list[Choice], several: bool = True) -> gr.Dropdown:
    """The methods that have weights here: the best five chosen, or the best one where only one can be, if there is."""
    import gradio as gr

    chosen = shelf.best(choices)
    return gr.Dropdown(
        [(choice.label, choice.name) for choice in choices], value=chosen if several else next(iter(chosen), None),
        multiselect=several, label="Methods" if several else "Method",
        info="With their accuracy on FER2013's test pictures; ◔ trained for less than its full budget.",
    )  # fmt: skip


def build(root: Path) -> gr.Dropdown:
    """The tab's components and what they do; called inside a `gr.Tab`. root: the leaderboard's folder.

    Returns the picker of methods.
    """
    import gradio as gr

    hidden = gr.update(choices=[], value=None, visible=False)

    def show(
        given: dict | None,
        face: int | None,
        methods: list[str],
        cam: str,
        target: str,
        opacity: float,
        opened: Image.Image | None = None,
    ) -> tuple[Any, ...]:
        """One picture through the chosen methods -> (note, picture with boxes, face choice, answers).

        opened: the picture, where it has been read already.
        """  # fmt: skip
        if not given:
            return "", "", hidden, WAITING
        from fer_bench.faces import detect_faces

        try:
            picture = read(path_of(given)) if opened is None else opened
            every = detect_faces(picture)
            faces = engine.largest_faces(every)
            known = {choice.name: choice for choice in shelf.choices(root)}
        except UserError as error:
            return look.note(str(error), bad=True), "", hidden, ""
        chosen = face if face is not None and face < len(faces) else first_choice(faces)
        box, wanted = faces[chosen].box if faces else None, None if target == "predicted" else target
        try:
            answers, problems = engine.answer(picture, box, methods, cam, wanted, opacity)
            note = look.note(found_in(faces, len(every))) + "".join(look.note(text, bad=True) for text in problems)
            html = look.verdict(answers, faceless=not faces) + look.cards(answers, known, check_cam(cam))
        except (UserError, KeyError) as error:  # no method is chosen, say: the chosen face is not forgotten for that
            note, html = look.note(str(error), bad=True), ""
        several = len(faces) > 1
        radio = gr.update(
            choices=[(f"Face {i + 1}", i) for i in range(len(faces))],
            value=chosen if several else None,
            visible=several,
        )
        return note, boxed(picture, faces, chosen) if faces else "", radio, html

    def again(given: dict | None, refused: bool, *settings: Any) -> tuple[Any, ...]:
        """Another picture -> what `show` gives, the picture itself, taken away where it is none, and whether it was."""
        opened = None
        if given:
            try:
                opened = read(path_of(given))
            except UserError as error:
                return look.note(str(error), bad=True), "", hidden, WAITING, None, True
        elif refused:  # just taken away: what was wrong with it stays to be read
            return *(gr.skip() for _ in range(5)), False
        return *show(given, None, *settings, opened), gr.skip(), False

    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            picture = gr.Image(
                label="Your picture", sources=["upload", "webcam", "clipboard"], type="filepath", image_mode=None,
                height=280, buttons=[], elem_id="picture",
            )  # fmt: skip
            message = gr.HTML(elem_id="message", padding=False)
            marked = gr.HTML(elem_id="marked", padding=False)
            face = gr.Radio([], label="Which face?", visible=False, elem_id="face")
            gr.Examples([[path] for path, _ in examples()], picture, label="Or a drawn face", elem_id="examples")
            with gr.Accordion("Choose methods and map", open=False, elem_id="settings"):
                methods = method_picker(shelf.choices(root))
                cam = gr.Dropdown(
                    [(title, name) for name, title in CAMS.items()], value="gradcam", label="Map", elem_id="cam"
                )
                target = gr.Dropdown(
                    [("the predicted emotion", "predicted"), *SEVEN],
                    value="predicted",
                    label="Map for",
                    elem_id="target",
                )
                opacity = gr.Slider(0, 1, value=0.5, step=0.05, label="Strength of the overlay", elem_id="opacity")
            gr.Markdown(PRIVACY, elem_classes="fer-small")
        with gr.Column(scale=5, min_width=320):
            answers = gr.HTML(WAITING, elem_id="answers", padding=False)
            gr.Markdown(f"**What the heat shows.** {WHAT_A_CAM_SHOWS}", elem_classes="fer-small")

    refused = gr.State(False)
    outputs = [message, marked, face, answers]
    settings = [methods, cam, target, opacity]
    asking = {
        "concurrency_limit": 1, "concurrency_id": "networks", "show_progress_on": answers, "api_visibility": "private",
        **AS_IT_IS,
    }  # fmt: skip
    picture.change(again, [picture, refused, *settings], [*outputs, picture, refused], **asking).then(
        None, None, None, js=SHOW_ANSWERS
    ).then(None, None, None, js=ONE_GROUP)
    for change in (face.input, methods.change, cam.change, target.change, opacity.release):
        changed = change(show, [picture, face, *settings], outputs, trigger_mode="always_last", **asking)
        changed.then(None, None, None, js=ONE_GROUP)
        if change in (face.input, cam.change, target.change):  # of methods several are chosen one after the other
            changed.then(None, None, None, js=SHOW_VERDICT)
    return methods
