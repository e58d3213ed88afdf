"""The whole app: tabs, theme and launch. `app.py` at the top of the project only calls `main`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_bench.errors import UserError
from fer_bench.files import board_folder, make_folder
from fer_bench.ui import leftovers

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

if TYPE_CHECKING:
    import gradio as gr

TITLE = "fer_bench"
HEADER = (
    "# fer_bench\nThe place where a facial-emotion-recognition method is judged: upload a face, see every method "
    "answer, see where it looked, and browse the leaderboard."
)
MAX_UPLOAD = "60mb"


def build(root: Path | None = None) -> gr.Blocks:
    """The app, not yet launched. root: the leaderboard's folder. Loads no weights."""
    import gradio as gr

    from fer_bench.ui import about, address, board, clip, keeping, pictures, shelf, submit, try_it, turns

    root = root or board_folder()
    built = shelf.choices(root)
    kept = (keeping.KEPT_SECONDS, keeping.KEPT_SECONDS)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=kept) as demo:
        gr.Markdown(HEADER, elem_classes="fer-title")
        without = gr.Markdown(shelf.NO_WEIGHTS, visible=not built)
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            with gr.Tab("Try it", id="try"):
                first = try_it.build(root)
            with gr.Tab("Many pictures", id="many"):
                many = pictures.build(root)
            with gr.Tab("Video and camera", id="video"):
                one = clip.build(root)
            with gr.Tab("Leaderboard", id="leaderboard"):
                arrived = board.build_board(root)
            with gr.Tab("Submit", id="submit"):
                waiting = submit.build(root)
            with gr.Tab("About", id="about"):
                about.build()
        for tab in tabs.children:
            tab.select(None, None, None, js=address.tab_to(tab.id, first=tab is tabs.children[0]))
        arrived.then(None, None, tabs, js=address.tab_from([tab.id for tab in tabs.children]))
        demo.load(None, None, None, js=try_it.name_examples())
        keeping.forget_closed(demo)

        def renewed() -> list:
            """What a page shows of weights and submissions that came after the app was started."""
            found = shelf.choices(root)
            pickers = [gr.skip()] * 3  # the page has them
            if found != built:
                pickers = [try_it.method_picker(found, several) for several in (True, True, False)]
            return [gr.Markdown(visible=not found), *pickers, *submit.waiting(root)]

        demo.load(
            renewed, None, [without, first, many, one, *waiting], api_visibility="private", show_progress="hidden",
            queue=False,
        )  # fmt: skip
    # Where the API is open, a question can be asked past the queue and all its bounds.
    demo.queue(max_size=turns.MOST_WAITING, default_concurrency_limit=4, api_open=False)
    turns.bound(demo)
    return demo


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` is given beside the port: look, limits and privacy."""
    from starlette.middleware import Middleware

    from fer_bench.ui import board, bodies, keeping, look

    return {
        "theme": look.theme(), "css": look.CSS + board.CSS, "footer_links": ["api"], "run_history": False,
        "max_file_size": MAX_UPLOAD, "show_error": True, "ssr_mode": False, "share": False,
        "state_session_capacity": keeping.SESSIONS,
        "app_kwargs": {"middleware": [Middleware(bodies.Bounds)]},
        "mcp_server": importlib.util.find_spec("mcp") is not None,
        # Gradio asks its own page within three seconds and gives up if it gets no answer, as on a busy machine.
        "_frontend": False,
    }  # fmt: skip


@contextlib.contextmanager
def visitors_folder() -> Iterator[Path]:
    """A new folder for what visitors give, inside $GRADIO_TEMP_DIR where that is set; it goes when the server ends.

    Gradio deletes single files when the last page is closed, which at the end of the server may be too late. What a
    killed server left beside it goes first, since nobody else would delete it.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    leftovers.sweep_stale(make_folder(parent))
    with leftovers.held_folder(parent) as folder:
        yield folder


def port(text: str) -> int:
    """A port's number from the command line or the environment. Raises argparse.ArgumentTypeError for what is none."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a whole number from 1 to 65535.")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """`python app.py [--port N] [--host ADDRESS]`: serve until interrupted. 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="app.py", description="Serve the demo.")
    parser.add_argument("--port", type=port, help="default: $GRADIO_SERVER_PORT, else 7860 or the next free one")
    parser.add_argument("--host", help="address to listen on (default: $GRADIO_SERVER_NAME, else this machine only)")
    options = parser.parse_args(arguments)
    try:  # gradio reads it itself, when it is imported, and takes whatever stands there
        port(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    except argparse.ArgumentTypeError as error:
        parser.error(f"$GRADIO_SERVER_PORT: {error}")
    gc.disable()  # until `engine.warm` has imported everything: looking for garbage in it takes a fifth of the start
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Docker, systemd and Spaces stop a server so: as Ctrl-C
    try:
        from fer_bench.ui import engine

        with visitors_folder() as folder:
            os.environ["GRADIO_TEMP_DIR"] = str(folder.resolve())
            demo = build()
            from fer_bench.ui import keeping  # which imports gradio, as `build` does

            threading.Thread(target=engine.warm, daemon=True).start()
            keeping.start(demo, Path(os.environ["GRADIO_TEMP_DIR"]))
            demo.launch(server_port=options.port, server_name=options.host, **launch_options())
    except KeyboardInterrupt:  # before it served; after that gradio ends it
        return 0
    except (UserError, OSError) as error:  # of the latter gradio's own sentence names the port
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        gc.enable()
    return 0
