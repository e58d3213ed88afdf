"""How the app looks: theme, style sheet, and answers as HTML. Every text that is not ours is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from fer_bench.cams import CAMS, for_emotion
from fer_bench.ui.engine import Answer
from fer_bench.ui.shelf import Choice

if TYPE_CHECKING:
    from gradio.themes import Base

COLOURS = {
    "anger": "#d55e00", "disgust": "#7a8b00", "fear": "#8a5fbf", "happiness": "#c08400",
    "sadness": "#1f86c9", "surprise": "#009e73", "neutral": "#7f8c99", "contempt": "#cc79a7",
}  # fmt: skip
"""One colour per emotion (after Okabe & Ito). Not all are told apart with every colour blindness, so that a name stands
beside each, or its sign.
"""
SIGNS = {
    "anger": ("square", "solid"), "disgust": ("x", "dot"), "fear": ("diamond", "dash"),
    "happiness": ("circle", "solid"), "sadness": ("triangle-down", "dashdot"), "surprise": ("triangle-up", "dash"),
    "neutral": ("cross", "dot"), "contempt": ("star", "longdash"),
}  # fmt: skip
"""A marker and a kind of line per emotion, as Plotly names them."""

CSS = """
.gradio-container {max-width: 1240px !important; width: 100%; margin: auto !important}
.fer-title h1 {font-size: 1.6rem; margin: .3rem 0 0}
.fer-title p {margin: .15rem 0 .3rem; opacity: .85}
#examples button {width: 62px; height: 62px}
#examples button img {width: 100%; height: 100%; object-fit: cover}
:is(#message, #marked, #answers, #files-message, #clip-message, #report, #live-line, #live-map) > .html-container
  {padding: 0}
.block:is(#message, #marked, #report, #live-map):has(> .html-container > .prose:empty) {display: none}
#clip .video-container:has(video) {display: flex; flex-direction: column}
#clip .video-container:has(video) > .wrap {flex: 1; min-height: 0}
#annotated {display: flex; flex-direction: column}
#annotated > label {position: static; align-self: flex-start}
#annotated > label ~ .wrap {flex: 1; min-height: 0}
#gallery .grid-wrap {height: auto; min-height: 0; max-height: none}
#gallery .grid-container {grid-auto-rows: auto}
#gallery .grid-container .thumbnail-item {display: flex; flex-direction: column; height: auto; aspect-ratio: auto}
#gallery .grid-container .thumbnail-item img {height: auto; aspect-ratio: 1}
#gallery .grid-container .caption-label {position: static; max-width: none; width: 100%; flex: 1; white-space: normal;
  overflow-wrap: anywhere; border-radius: 0; text-align: left}
#gallery .preview {position: fixed; inset: 0; z-index: 1000; height: auto}
#gallery .preview .media-button {flex: 1; min-height: 0; height: auto !important}
#gallery .preview img {object-fit: scale-down}
#gallery .preview .caption {flex: none; max-height: 30vh; overflow-y: auto; white-space: normal;
  overflow-wrap: anywhere}
#gallery .preview .thumbnails {position: static; flex: none}
footer .divider, footer > :not(button):not(a) {display: none}
.fer-verdict {border-radius: 12px; padding: 14px 18px; margin-bottom: 14px;
  border: 1px solid var(--border-color-primary); background: var(--block-background-fill)}
.fer-verdict.split {border: 2px solid #d55e00}
.fer-verdict h2 {margin: 0; font-size: 1.25rem; line-height: 1.35; color: var(--body-text-color)}
.fer-split {display: flex; flex-wrap: wrap; gap: 10px; margin-top: 12px}
.fer-camp {flex: 1 1 150px; border-left: 6px solid var(--c); padding: 4px 10px; border-radius: 6px;
  background: var(--background-fill-secondary); color: var(--body-text-color)}
.fer-camp strong {display: block; font-size: 1.1rem}
.fer-camp span {font-size: .85rem}
.fer-cards {display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr))}
.fer-card {border: 1px solid var(--border-color-primary); border-radius: 12px; overflow: hidden;
  background: var(--block-background-fill); color: var(--body-text-color); display: flex; flex-direction: column}
.fer-card.alone {border: 2px solid #d55e00}
.fer-card img {width: 100%; aspect-ratio: 1; display: block; margin: 0}
.fer-card .inside {padding: 10px 12px 12px}
.fer-card h3 {margin: 0; overflow-wrap: anywhere; font-size: 1rem; color: var(--body-text-color)}
.fer-card .what {font-size: 1.3rem; font-weight: 700; margin: 2px 0 8px}
.fer-card .chip {float: right; font-size: .72rem; font-weight: 600; padding: 1px 8px; border-radius: 9px;
  background: #b34700; color: #fff}
.fer-bar {display: grid; grid-template-columns: 5.4rem 1fr 2.9rem; gap: 8px; align-items: center; font-size: .85rem;
  margin: 3px 0}
.fer-bar .rail {height: 10px; border-radius: 5px; background: var(--border-color-primary); overflow: hidden}
.fer-bar .fill {height: 100%; background: var(--c); border-radius: 5px}
.fer-bar .number {text-align: right; font-variant-numeric: tabular-nums}
label:has(input[type=radio]:focus-visible) {outline: 2px solid var(--body-text-color); outline-offset: 2px}
.fer-small {font-size: .8rem; opacity: .9; margin-top: 8px; line-height: 1.4}
.fer-note + .fer-note {margin-top: 6px !important}
.fer-note {padding: 8px 12px; border-radius: 8px; border: 1px solid var(--border-color-primary);
  background: var(--background-fill-secondary); color: var(--body-text-color); margin: 0}
.fer-note.bad {border-color: #b3261e; border-left-width: 6px}
.fer-heat {margin: 0; max-width: 640px}
.fer-heat img, .fer-heat div {width: 100%; display: flex; align-items: center; justify-content: center; margin: 0;
  border-radius: 8px}
.fer-heat div {padding: 12px; text-align: center; border: 1px dashed var(--border-color-primary);
  color: var(--body-text-color)}
.fer-heat figcaption {min-height: 1.4em}
@media (max-width: 640px) {
  .fer-card {flex-direction: row}
  .fer-card img {width: 38%; height: auto; align-self: flex-start}
  .fer-card .inside {flex: 1; min-width: 0; padding: 8px 10px}
  .fer-card .chip {float: none; display: inline-block; margin-bottom: 4px}
  .fer-bar {grid-template-columns: 4.3rem 1fr 2.3rem; gap: 5px; font-size: .78rem}
  #gallery .grid-container {grid-template-columns: 1fr 1fr}
}
.dark button[role=tab].selected {color: var(--primary-300) !important}
.prose pre, .prose pre code {white-space: pre-wrap !important; overflow-wrap: anywhere}
.prose code {overflow-wrap: anywhere; white-space: normal}
#manifest textarea {font-family: ui-monospace, Consolas, monospace; font-size: .8rem}
.prose .token {color: inherit !important; background: none !important}
.fer-empty {text-align: center; padding: 48px 16px; border: 1px dashed var(--border-color-primary); border-radius: 12px;
  color: var(--body-text-color)}
"""


def theme() -> Base:
    """The app's theme: gradio's default with system fonts (nothing is fetched) and enough contrast in both modes."""
    import gradio as gr

    fonts = ["ui-sans-serif", "system-ui", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    base = gr.themes.Default(
        primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=mono
    )
    return base.set(
        color_accent="*primary_600",
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700", block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_600", input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600", button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white", button_primary_text_color_dark="white",
        link_text_color="*primary_700", link_text_color_dark="*primary_300",
        link_text_color_hover="*primary_800", link_text_color_hover_dark="*primary_200",
    )  # fmt: skip


def note(text: str, bad: bool = False) -> str:
    """One line for the visitor; bad ones are announced."""
    return f'<p class="fer-note{" bad" if bad else ""}" role="{"alert" if bad else "status"}">{escape(text)}</p>'


def count(number: int, what: str) -> str:
    """(2, "picture") -> "2 pictures"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def percent(value: float) -> str:
    """0.873 -> "87 %"."""
    return f"{100 * value:.0f} %"


def verdict(answers: Sequence[Answer], faceless: bool = False) -> str:
    """What meets the eye first: whether the methods agree, and if not, who says what.

    faceless: no face was found, and the middle of the picture was taken; that is said before anything else.
    """
    none = "No face was found. Of the picture's middle square, " if faceless else ""
    camps: dict[str, list[Answer]] = {}
    for item in answers:
        camps.setdefault(item.emotion, []).append(item)
    ordered = sorted(camps.items(), key=lambda camp: (-len(camp[1]), -max(a.scores[camp[0]] for a in camp[1])))
    if len(ordered) == 1:
        emotion, members = ordered[0]
        mean = sum(a.scores[emotion] for a in members) / len(members)
        every = "all" if faceless else "All"
        who = f"{none}{members[0].method} says" if len(members) == 1 else f"{none}{every} {len(members)} methods say"
        sure = f", {percent(mean)} sure" + (" on average" if len(members) > 1 else "")
        return f'<div class="fer-verdict" role="status"><h2>{escape(who)} <b>{escape(emotion)}</b>{sure}.</h2></div>'
    parts = ", ".join(
        f"{len(members)} {'says' if len(members) == 1 else 'say'} {emotion}" for emotion, members in ordered
    )
    boxes = "".join(_camp(emotion, members) for emotion, members in ordered)
    return (
        f'<div class="fer-verdict split" role="status"><h2>{escape(f"{none}they" if faceless else "They")} disagree: '
        f"{escape(parts)}.</h2>"
        f'<div class="fer-split">{boxes}</div></div>'
    )


def _camp(emotion: str, members: Sequence[Answer]) -> str:
    """Who says an emotion, and how surely; a figure and its sign are not parted at a line's end."""
    who = escape(", ".join(f"{one.method} {percent(one.scores[emotion])}" for one in members)).replace(" %", "&nbsp;%")
    return (
        f'<div class="fer-camp" style="--c:{COLOURS[emotion]}"><strong>{escape(emotion)}</strong>'
        f"<span>{who}</span></div>"
    )


def cards(answers: Sequence[Answer], known: Mapping[str, Choice], cam: str, bars: int = 4) -> str:
    """One card per answer, side by side; those outside the largest camp are marked. cam: a name of `CAMS`."""
    votes = [a.emotion for a in answers]
    most = max(votes.count(v) for v in votes)
    lone = {v for v in votes if votes.count(v) < most} if most > 1 else set()
    return f'<div class="fer-cards">{"".join(_card(a, known, cam, bars, a.emotion in lone) for a in answers)}</div>'


def _card(item: Answer, known: Mapping[str, Choice], cam: str, bars: int, alone: bool) -> str:
    ordered = sorted(item.scores.items(), key=lambda pair: -pair[1])
    # What the map is about has its bar, too: a vivid map of an emotion at 1 % is no evidence.
    top = ordered[:bars] + [pair for pair in ordered[bars:] if pair[0] == item.explained]
    lines = "".join(
        f'<div class="fer-bar"><span>{escape(emotion)}</span><div class="rail"><div class="fill" '
        f'style="--c:{COLOURS[emotion]};width:{100 * score:.1f}%"></div></div>'
        f'<span class="number">{percent(score)}</span></div>'
        for emotion, score in top
    )
    choice = known.get(item.method)
    tested = "not yet tested"
    if choice and choice.accuracy is not None:
        tested = f"right on {100 * choice.accuracy:.1f} ± {100 * choice.half_width:.1f} % of FER2013's test pictures"
        tested += ", short training" if choice.short else ""
    heat = f"Heat: {CAMS[cam]}{for_emotion(cam, item.explained)}"
    alt = f"The face with {CAMS[cam]} of {item.method}{for_emotion(cam, item.explained)}"
    if item.empty:
        nothing = f"nothing in this face raised {item.explained}" if for_emotion(cam, "it") else "nothing stands out"
        heat, alt = f"No heat: {nothing} ({CAMS[cam]})", f"The face; {nothing} ({CAMS[cam]} of {item.method})"
    name = escape(item.method).replace("_", "_<wbr>")  # where a narrow card may break it
    chip = '<span class="chip">disagrees</span>' if alone else ""
    return (
        f'<article class="fer-card{" alone" if alone else ""}"><img src="{data_uri(item.overlay)}" alt="{escape(alt)}">'
        f'<div class="inside">{chip}<h3>{name}</h3><div class="what">{escape(item.emotion)}</div>{lines}'
        f'<div class="fer-small">{escape(heat)}<br>{escape(tested[0].upper() + tested[1:])}</div></div></article>'
    )


def heat(frame: Image.Image | None, size: tuple[int, int], text: str, alt: str = "") -> str:
    """A camera's frame with a map drawn in, and a caption; or the place that it would take, with why there is none.

    size: width and height of the frame, so that nothing below moves where one of several has no map.
    """
    ratio = f"aspect-ratio:{size[0]}/{size[1]}"
    if frame is None:
        inside, text = f'<div style="{ratio}" role="status">{escape(text)}</div>', ""
    else:
        inside = f'<img src="{data_uri(frame)}" alt="{escape(alt)}" style="{ratio}">'
    return f'<figure class="fer-heat">{inside}<figcaption class="fer-small">{escape(text)}</figcaption></figure>'


def data_uri(image: Image.Image) -> str:
    """A picture inside the page, so that no file of it is made."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
