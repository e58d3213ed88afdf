"""The tab for clips and the live camera: emotions over time as a plot, and boxes, answers and maps drawn in."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fer_bench.cams import CAMS, check_cam, for_emotion
from fer_bench.errors import UserError
from fer_bench.ui import engine, look, shelf
from fer_bench.ui.try_it import AS_IT_IS, PRIVACY, method_picker, path_of

if TYPE_CHECKING:
    import gradio as gr
    import plotly.graph_objects as go

    from fer_bench.faces import Box
    from fer_bench.infer import Model

Point = tuple[str, float, dict]
"""Of the live camera: the method that answered, when (seconds), and probability per emotion; None where it paused."""

WAITING = (
    '<div class="fer-empty"><h2>Upload a clip or record one.</h2><p>Its emotions over time appear here, with the '
    "annotated clip and a table to download.</p></div>"
)
MOST_FRAMES = 300
"""Of a clip that are looked at, so that a long one cannot hold the queue."""
LIVE_POINTS = 120
"""Answers of the live camera that stay on the plot."""
LIVE_PAUSE = 5.0
"""Seconds between two answers of the live camera after which no line joins them: it was stopped in between."""
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 15, "max": 30}}}
"""What the live camera is asked for: gradio's own 1920 x 1440 keeps a small machine busy with nothing but pixels."""
LIVE_SECONDS = 120
"""After which the live camera stops; it can be started again."""
LIVE_ENDED = "The camera was stopped after its time; start it again to go on."
OFF, ON = (f"({{__type__: 'update', visible: {seen}}})" for seen in ("false", "true"))
"""JavaScript that takes the camera off the page and puts it back, which ends its recording.

When a stream's time is up gradio closes it, but the page records on and sends its next frame as a new stream, for as
long as it is open; after a refusal it asks, and is refused, twice a second.
"""
LIVE_STREAMS = 6
"""Live cameras that run at once, so that a visitor with two pages does not shut it for the others."""
LIVE_SIDE = 640
"""Longest side of a camera's frame that is shown with a map; larger ones are scaled down."""
NO_FACE = "No face in this frame, so there is no map."
NO_MAP = "No map could be drawn of this frame; the answers go on."
LIVE_NOTE = (
    f"Stops by itself after {LIVE_SECONDS} seconds. While {LIVE_STREAMS} others are on, yours waits without an answer "
    "until one of them stops."
)
_AT_WORK = threading.Semaphore(2)
"""Frames of live cameras that are worked on at once; of a camera that has to wait, the frames between are left out."""
_log = logging.getLogger(__name__)


def emotions_over_time(times: Sequence[float], scores: Sequence[dict[str, float]], title: str) -> go.Figure:
    """Probability per emotion (0..1) against time (seconds): one line per emotion, the y axis always 0 to 1.

    times: (N,), rising.   scores: N dicts, emotion -> probability; one of None breaks the lines.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for emotion in scores[0] if scores else ():
        symbol, dash = look.SIGNS[emotion]
        figure.add_scatter(
            x=list(times), y=[s[emotion] for s in scores], name=emotion, mode="lines+markers",
            line={"color": look.COLOURS[emotion], "width": 2, "dash": dash}, marker={"size": 7, "symbol": symbol},
            hovertemplate=f"{emotion} %{{y:.0%}} at %{{x:.1f}} s<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        title={"text": title, "font": {"size": 15}}, height=400, margin={"l": 55, "r": 15, "t": 45, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"size": 13, "color": "#7f8c99"},
        legend={
            "orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "font": {"size": 12},
        },
        xaxis={"title": "seconds", "gridcolor": "rgba(127,140,153,.3)", "zeroline": False},
        yaxis={"title": "probability", "range": [0, 1], "tickformat": ".0%", "gridcolor": "rgba(127,140,153,.3)"},
    )  # fmt: skip
    return figure


def largest_faces(rows: Sequence[dict]) -> list[dict]:
    """One row per moment: that of the largest face. rows: of one method on one clip, as `predict` gives them."""

    def area(row: dict) -> int:
        return (row["right"] - row["left"]) * (row["bottom"] - row["top"]) if row["face"] else 0

    best: dict[float, dict] = {}
    for row in rows:
        if row["time"] not in best or area(row) > area(best[row["time"]]):
            best[row["time"]] = row
    return [best[time] for time in sorted(best)]


def summary(rows: Sequence[dict], cut: bool) -> str:
    """What was read of a clip, in a sentence. rows: of one method, as `predict` gives them.   cut: the clip goes on."""
    largest = largest_faces(rows)
    without = sum(not row["face"] for row in largest)
    text = f"{look.count(len(largest), 'frame')} over {largest[-1]['time'] - largest[0]['time']:.1f} s"
    if without:
        which = "any" if without == len(largest) else without
        text += f"; no face was found in {which} of them, where the middle of the picture was used"
    text += "; of several faces the largest is on the plot" if len(rows) > len(largest) else ""
    return text + (f"; the clip was followed for its first {len(largest)} frames." if cut else ".")


def goes_on(path: str, last: float, per_second: float) -> bool:
    """Whether a clip has a frame to look at after the one at `last` seconds; so too where its length is not known."""
    from fer_bench.video import probe

    return not 0 < probe(path).duration < last + 1 / per_second + 0.01


def with_point(history: Sequence[Point], method: str, now: float, scores: dict[str, float]) -> list[Point]:
    """The points that are drawn together with a new one: those of the same method, with a break after a pause."""
    kept = [point for point in history if point[0] == method][1 - LIVE_POINTS :]
    if kept and now - kept[-1][1] > LIVE_PAUSE:
        kept.append((method, now, dict.fromkeys(scores)))
    return [*kept, (method, now, scores)]


def frame_in(given: dict[str, Any]) -> Image.Image:
    """A frame of the live camera, which the page sends inside its question. given: as an event with AS_IT_IS gets it.

    Raises UserError for anything else: gradio itself would open whatever path stands there instead.
    """
    from fer_bench.faces import open_picture

    url = given.get("url") if isinstance(given, dict) else None
    head, _, text = (url if isinstance(url, str) else "").partition(",")
    try:
        if not head.startswith("data:image/"):
            raise ValueError(head)
        return open_picture(base64.b64decode(text), "the frame")
    except (ValueError, UserError):
        raise UserError("This is no frame of a camera; start the camera and ask again.") from None


def live_answer(picture: Image.Image, method: str, cam: str | None = None) -> tuple[dict[str, float], bool, str]:
    """One camera frame -> (probability per emotion of the largest face, whether there was a face, its map as HTML).

    cam: a name of `cams.CAMS`, or None for no map, which gives "". Where one is asked for and cannot be drawn, a
    sentence stands in its place; nothing that goes wrong with it takes the answer away. Raises UserError and
    UnknownNameError, of the method alone.
    """
    from fer_bench.faces import crop, detect_faces
    from fer_bench.ui.try_it import first_choice

    found = detect_faces(picture)
    model = shelf.model_for(*engine.chosen([method]))
    box = found[first_choice(found)].box if found else None
    face = crop(picture, box, model.input_spec.margin) if box else picture
    scores = model.predict([face])[0]
    if cam is None:
        return scores, box is not None, ""
    if box is None:
        return scores, False, look.heat(None, picture.size, NO_FACE)
    try:
        heat = with_map(picture, box, face, model, scores, cam)
    except UserError as error:  # of a method without a layer to draw a map over, say
        heat = look.heat(None, picture.size, str(error))
    except Exception:
        _log.exception("%s: no map %r could be drawn of a frame of the camera", method, cam)
        heat = look.heat(None, picture.size, NO_MAP)
    return scores, True, heat


def with_map(
    picture: Image.Image, box: Box, face: Image.Image, model: Model, scores: dict[str, float], cam: str
) -> str:
    """A frame with the face's box, its answer and a CAM drawn in as in an annotated clip, as HTML; no file is made.

    box: of the face in `picture`.   face: what was cut out there and answered for with `scores`. Raises UserError.
    """
    from fer_bench import scoring
    from fer_bench.faces import square

    title = CAMS[check_cam(cam)]
    scale = min(1.0, LIVE_SIDE / max(picture.size))
    small = picture.convert("RGB").resize([max(1, round(side * scale)) for side in picture.size])
    place = tuple(round(edge * scale) for edge in box)
    cut = scoring.Prepared("", None, (place,), ((square(face, model.input_spec.size),),))
    top = max(scores, key=scores.get)
    drawn = scoring.annotated(small, cut, [{"emotion": top, **scores}], model, cam)
    alt = f"Your camera's frame with {title} of {model.name}{for_emotion(cam, top)}"
    return look.heat(drawn, drawn.size, f"Heat: {title}{for_emotion(cam, top)}", alt)


def build(root: Path) -> gr.Dropdown:
    """The tab's components and what they do; called inside a `gr.Tab`. root: the leaderboard's folder.

    Returns the picker of the method.
    """
    import gradio as gr

    from fer_bench.ui import board

    def shown(value: Any) -> dict:
        return gr.update(value=value, visible=True)

    nothing = (gr.update(value=None, visible=False),) * 3

    def run(given: dict | None, method: str, per_second: float, cam: str) -> tuple[Any, ...]:
        """A clip -> (note, plot, annotated clip, CSV)."""
        try:
            path = path_of(given)
        except UserError as error:
            return look.note(str(error), bad=True), *nothing
        if not path:
            return look.note("Upload or record a clip first.", bad=True), *nothing
        try:
            with engine.folder_for() as folder:
                return answered(Path(path), folder, method, per_second, None if cam == "none" else cam)
        except (UserError, KeyError) as error:
            return look.note(str(error).replace(path, Path(path).name), bad=True), *nothing

    def answered(path: Path, folder: Path, method: str, per_second: float, cam: str | None) -> tuple[Any, ...]:
        """What `run` gives for a clip; the files go to `folder`. Raises UserError."""
        name, out = path.name, folder / "annotated.mp4"
        rows, problems = engine.read_clip(path, out, method, per_second, MOST_FRAMES, cam)
        for row in rows:
            row["filepath"] = name
        emotions = engine.emotions_in(rows)
        table = engine.write_csv(rows, emotions, folder / "scores.csv")
        largest = largest_faces(rows)
        plot = emotions_over_time(
            [row["time"] for row in largest], [{e: row[e] for e in emotions} for row in largest], f"{method} on {name}"
        )
        cut = len(largest) >= MOST_FRAMES and goes_on(str(path), largest[-1]["time"], per_second)
        notes = [look.note(summary(rows, cut)), *(look.note(p.replace(str(path), name), bad=True) for p in problems)]
        annotated = shown(str(out)) if out.is_file() else nothing[0]
        return "".join(notes), shown(board.plot(plot)), annotated, shown(str(table))

    def live(frame: dict | None, method: str | None, cam: str, history: list) -> tuple[Any, ...]:
        """One frame of the camera -> (line, frame with a map, plot, history)."""
        import time

        if frame is None or method is None:
            return "", "", gr.skip(), history
        try:
            with _AT_WORK:
                scores, found, heat = live_answer(frame_in(frame), method, None if cam == "none" else cam)
        except (UserError, KeyError) as error:
            return look.note(str(error), bad=True), "", gr.skip(), history
        now = time.monotonic()
        history = with_point(history, method, now, scores)
        start, before = history[0][1], history[-2][1] if len(history) > 1 else None
        top = max(scores, key=scores.get)
        line = f"{top}, {look.percent(scores[top])}" + (
            "" if found else " (no face found: the middle of the picture is used)"
        )
        if before is not None and int(now - start) == int(before - start):  # drawn once a second: it is the costly part
            return look.note(line), heat, gr.skip(), history
        plot = emotions_over_time([t - start for _, t, _ in history], [s for *_, s in history], f"{method}, live")
        return look.note(line), heat, board.plot(plot), history

    maps = [("no map", "none"), *((title, name) for name, title in CAMS.items())]
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            video = gr.Video(label="Your clip", sources=["upload", "webcam"], height=300, buttons=[], elem_id="clip")
            method = method_picker(shelf.choices(root), several=False)
            per_second = gr.Slider(
                1, 10, value=4, step=1, label="Frames per second", info=f"At most {MOST_FRAMES} frames are looked at."
            )
            cam = gr.Dropdown(maps, value="none", label="Map drawn in")
            button = gr.Button("Read the clip", variant="primary", elem_id="read-clip")
            gr.Markdown(PRIVACY, elem_classes="fer-small")
        with gr.Column(scale=5, min_width=320):
            message = gr.HTML(WAITING, elem_id="clip-message", padding=False)
            plot = gr.Plot(label="Emotions over time", visible=False, elem_id="clip-plot", elem_classes="fer-chart")
            annotated = gr.Video(
                label="The clip with boxes and answers", interactive=False, visible=False, height=320,
                buttons=["download"],  # and not "share", which publishes a visitor's clip
                elem_id="annotated",
            )  # fmt: skip
            table = gr.File(label="Every frame's scores (CSV)", interactive=False, visible=False, elem_id="clip-csv")
    with gr.Accordion("Live camera", open=False, elem_id="live"), gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            camera = gr.Image(
                label="Camera", sources=["webcam"], streaming=True, height=260, buttons=[],
                webcam_options=gr.WebcamOptions(constraints=CAMERA), elem_id="camera",
            )  # fmt: skip
            live_cam = gr.Dropdown(
                maps, value="none", label="Map over your face", elem_id="live-cam",
                info="Where the method above looks, drawn into each frame. Answers come more slowly with it.",
            )  # fmt: skip
            gr.Markdown(LIVE_NOTE, elem_classes="fer-small")
        with gr.Column(scale=5, min_width=320):
            line = gr.HTML(elem_id="live-line", padding=False)
            live_map = gr.HTML(elem_id="live-map", padding=False)
            live_plot = gr.Plot(label="Emotions over time", elem_id="live-plot", elem_classes="fer-chart")
    history = gr.State([])
    button.click(
        run, [video, method, per_second, cam], [message, plot, annotated, table], api_visibility="private",
        concurrency_limit=1, concurrency_id="networks", **AS_IT_IS,
    )  # fmt: skip
    # What was read of a clip goes with it.
    video.clear(
        lambda: (WAITING, *nothing), None, [message, plot, annotated, table], api_visibility="private",
        show_progress="hidden", queue=False,
    )  # fmt: skip
    stream = camera.stream(
        live, [camera, method, live_cam, history], [line, live_map, live_plot, history], stream_every=0.5,
        time_limit=LIVE_SECONDS, concurrency_limit=LIVE_STREAMS, api_visibility="private", show_progress="hidden",
        **AS_IT_IS,
    )  # fmt: skip
    # Neither comes where the visitor stops the camera himself.
    stream.success(None, None, [camera, line], js=f"() => [{OFF}, {json.dumps(look.note(LIVE_ENDED))}]").then(
        None, None, camera, js=f"() => {ON}"
    )
    stream.failure(None, None, camera, js=f"() => {OFF}").then(None, None, camera, js=f"() => {ON}")
    return method
