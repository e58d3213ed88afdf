"""The tab where a visitor gives one picture and sees the methods answer side by side."""

from __future__ import annotations

import atexit
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image, ImageDraw, ImageFont

from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.ui import engine, look

if TYPE_CHECKING:
    import gradio as gr

    from fer_bench.faces import Face
    from fer_bench.ui.engine import Choice

C = TypeVar("C")
PRIVACY = (
    "What you give is used for this answer and for nothing else: no log, no training, no sending on. "
    "The server's copy is deleted within 20 minutes."
)
WAITING = (
    '<div class="fer-empty"><h2>Upload a face, take one with the camera, paste one, or click an example.</h2>'
    "<p>Every chosen method answers, with the part of the face its answer rests on.</p></div>"
)
EXAMPLE_SEEDS = {
    "anger": 3, "disgust": 14, "fear": 23, "happiness": 32, "sadness": 45, "surprise": 56, "neutral": 68,
}  # fmt: skip
"""A different drawn person for each emotion."""
SHOW_ANSWERS = """() => {
  if (innerWidth < 700) document.querySelector('.fer-verdict')?.scrollIntoView({behavior: 'smooth', block: 'start'});
}"""
"""On a phone the answers stand below the pickers: this brings them to the eye. Elsewhere they are beside."""
SHOWN = 900
"""Longest side of the picture with boxes, in pixels."""


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
    try:
        return open_picture(path)
    except UserError as error:  # the visitor knows the file's name, not where this server keeps it
        raise UserError(str(error).replace(str(path), Path(path).name)) from None


def found_in(faces: list[Face]) -> str:
    """What the detector found, in a sentence."""
    if not faces:
        return "No face was found, so the whole picture is used."
    return "One face was found." if len(faces) == 1 else f"{len(faces)} faces were found; choose one below."


def boxed(picture: Image.Image, faces: list[Face], chosen: int) -> str:
    """The picture with numbered boxes, the chosen one thick, as HTML."""
    shown = picture.convert("RGB")
    scale = min(1.0, SHOWN / max(shown.size))
    shown = shown.resize([max(1, round(side * scale)) for side in shown.size], Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(shown)
    font = ImageFont.load_default(max(14, min(shown.size) // 22))
    for index, face in enumerate(faces):
        left, top, right, bottom = (round(edge * scale) for edge in face.box)
        colour = "#d55e00" if index == chosen else "#0072b2"
        draw.rectangle((left, top, right, bottom), outline="white", width=7 if index == chosen else 5)
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=colour, width=5 if index == chosen else 3)
        place = draw.textbbox((left + 6, top + 4), str(index + 1), font=font)
        draw.rectangle((left, top, place[2] + 6, place[3] + 4), fill=colour)
        draw.text((left + 6, top + 4), str(index + 1), fill="white", font=font)
    alt = f"Your picture with {len(faces)} face(s) marked; face {chosen + 1} is chosen" if faces else "Your picture"
    height = 360 if len(faces) > 1 else 220
    style = f"max-width:100%;max-height:{height}px;border-radius:8px;display:block;margin:auto"
    return f'<img src="{look.data_uri(shown)}" alt="{alt}" style="{style}">'


def name_examples() -> str:
    """JavaScript that gives each example's button the name of its emotion: gradio leaves pictures there nameless."""
    names = json.dumps([f"A drawn face: {emotion}" for _, emotion in examples()])
    return f"() => document.querySelectorAll('#examples button').forEach((b, i) => (b.ariaLabel = {names}[i]))"


def first_choice(faces: list[Face]) -> int:
    """The largest face."""
    areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in faces]
    return areas.index(max(areas)) if areas else 0


def method_picker(choices: list[Choice], several: bool = True) -> gr.Dropdown:
    """The methods that have weights here: the best five chosen, or the best one where only one can be."""
    import gradio as gr

    chosen = engine.best(choices)
    return gr.Dropdown(
        [(choice.label, choice.name) for choice in choices], value=chosen if several else chosen[0],
        multiselect=several, label="Methods" if several else "Method",
        info="With their accuracy on FER2013's test pictures; ◔ trained for less than its full budget.",
    )  # fmt: skip


def as_given(component: C) -> C:
    """The same component (an Image or a Video), handing on the path of the visitor's file as it is.

    `open_picture` and `video.frames` read it and say what is wrong. Gradio itself opens pictures beforehand, and
    answers a broken one with no more than "Error"; clips it would give to an ffmpeg command that may not be there.
    """
    read_by_gradio = component.preprocess

    def preprocess(payload: Any) -> Any:
        if payload is not None and payload.path and not (payload.url or "").startswith("data:"):
            return payload.path
        return read_by_gradio(payload)

    component.preprocess = preprocess
    return component


def build(choices: list[Choice]) -> None:
    """The tab's components and what they do; called inside a `gr.Tab`."""
    import gradio as gr

    from fer_bench.explain import CAMS, WHAT_A_CAM_SHOWS

    known = {choice.name: choice for choice in choices}

    hidden = gr.update(choices=[], value=None, visible=False)

    def show(
        path: str | None, face: int | None, methods: list[str], cam: str, target: str, opacity: float
    ) -> tuple[Any, ...]:
        """One picture through the chosen methods -> (note, picture with boxes, face choice, answers)."""
        if not path:
            return "", "", hidden, WAITING
        from fer_bench.faces import detect_faces

        try:
            picture = read(path)
            faces = detect_faces(picture)
            chosen = face if face is not None and face < len(faces) else first_choice(faces)
            box = faces[chosen].box if faces else None
            answers = engine.answer(picture, box, methods, cam, None if target == "predicted" else target, opacity)
        except (UserError, KeyError) as error:
            return look.note(str(error), bad=True), "", hidden, ""
        several = len(faces) > 1
        radio = gr.update(
            choices=[(f"Face {i + 1}", i) for i in range(len(faces))],
            value=chosen if several else None,
            visible=several,
        )
        html = look.verdict(answers) + look.cards(answers, known, CAMS[cam])
        return look.note(found_in(faces)), boxed(picture, faces, chosen) if faces else "", radio, html

    def again(path: str | None, told: str | None, *settings: Any) -> tuple[Any, ...]:
        """Another picture -> what `show` gives, and the picture itself, taken away where it is none."""
        if path:
            try:
                read(path)
            except UserError as error:
                return look.note(str(error), bad=True), "", hidden, WAITING, None
        elif told and 'class="fer-note bad"' in told:  # just taken away: what was wrong with it stays to be read
            return (gr.skip(),) * 5
        return *show(path, None, *settings), gr.skip()

    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            picture = as_given(
                gr.Image(
                    label="Your picture", sources=["upload", "webcam", "clipboard"], type="filepath", image_mode=None,
                    height=280, buttons=[], elem_id="picture",
                )
            )  # fmt: skip
            message = gr.HTML(elem_id="message", padding=False)
            marked = gr.HTML(elem_id="marked", padding=False)
            face = gr.Radio([], label="Which face?", visible=False, elem_id="face")
            gr.Examples([[path] for path, _ in examples()], picture, label="Or a drawn face", elem_id="examples")
            with gr.Accordion("Choose methods and map", open=False, elem_id="settings"):
                methods = method_picker(choices)
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

    outputs = [message, marked, face, answers]
    settings = [methods, cam, target, opacity]
    one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "networks", "show_progress_on": answers}
    picture.change(
        again, [picture, message, *settings], [*outputs, picture], api_visibility="private", **one_at_a_time
    ).then(None, None, None, js=SHOW_ANSWERS)
    for change in (face.input, methods.change, cam.change, target.change, opacity.release):
        change(
            show, [picture, face, *settings], outputs, api_visibility="private", trigger_mode="always_last",
            **one_at_a_time,
        )  # fmt: skip
