"""The command line of `python app.py`, up to where it would serve."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fer_bench.errors import UserError
from fer_bench.ui import app, shelf
from tests.ui.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
WRONG = ("70000", "65536", "0", "-1", "many", "", "80.5", "٨٠", "9" * 5000)


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:8])
def test_a_port_that_is_none_is_wrong_use(text: str, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    """`--port` and $GRADIO_SERVER_PORT beyond 1 to 65535 end with one sentence that says so, and exit code 2."""
    monkeypatch.delenv("GRADIO_SERVER_PORT", raising=False)
    with pytest.raises(SystemExit) as ended:
        app.main([f"--port={text}"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "--port" in told
    assert "is no port; give a whole number from 1 to 65535." in told
    monkeypatch.setenv("GRADIO_SERVER_PORT", text)
    with pytest.raises(SystemExit) as ended:
        app.main([])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "$GRADIO_SERVER_PORT: " in told
    assert "is no port; give a whole number from 1 to 65535." in told


@pytest.mark.parametrize("number", [1, 7860, 65535])
def test_a_port_is_a_number(number: int) -> None:
    """The smallest, the usual and the largest port are taken."""
    assert app.port(str(number)) == number


def test_a_server_too_busy_to_answer_itself_starts_all_the_same(monkeypatch) -> None:
    """Where gradio's own question to the page gets no answer in time, the app is served, not ended by a traceback."""
    import gradio as gr

    monkeypatch.setattr(gr.networking, "url_ok", lambda url: False)
    with gr.Blocks() as demo:
        gr.Markdown("served")
    try:
        _, url, _ = demo.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True, **app.launch_options())
        assert urllib.request.urlopen(url, timeout=60).status == 200
    finally:
        demo.close()


@pytest.mark.parametrize("text", ["1g", "0", "-5", "1.5", ""])
def test_a_bound_that_is_none_is_wrong_use(text: str) -> None:
    """A whole number of megabytes above 0."""
    with pytest.raises(UserError, match=r"FER_BENCH_APP_MB is .*; give a whole number of megabytes, such as 1200"):
        shelf.bound(text)
    assert shelf.bound("3") == 3 * 2**20


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"FER_BENCH_APP_MB": "1g"}, "error: $FER_BENCH_APP_MB is '1g'; give a whole number of megabytes"),
        ({"GRADIO_TEMP_DIR": "/proc/none"}, "error: /proc/none: no folder can be made here"),
        ({"FER_BENCH_WEIGHTS": "{broken}"}, "index.json"),
    ],
)
def test_settings_that_cannot_be_used_end_in_a_sentence(settings: dict[str, str], says: str, tmp_path: Path) -> None:
    """Where the server's log ends, and with the exit code of wrong use."""
    (tmp_path / "index.json").write_text("{")
    environment = os.environ | {key: value.format(broken=tmp_path) for key, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
