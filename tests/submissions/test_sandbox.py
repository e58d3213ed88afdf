"""The process that submitted models run in: what it cannot do, and that it always ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fer_bench.cards import InputSpec
from fer_bench.submissions import sandbox
from fer_bench.submissions.problems import Limits
from fer_bench.submissions.sandbox import Child, RefusedError
from tests.submissions.models import SIDE, faces, model, submission

SPEC = InputSpec(SIDE, 1, (0.0,), (1.0,))

LOCKED = """
import os, sys
sys.path.insert(0, {root!r})
from fer_bench.submissions._child import lock_in
granted = lock_in(2 * 2**30, 5)
import socket
def fails(what):
    try:
        what()
    except (OSError, MemoryError):
        return True
    return False
write = lambda: open({path!r}, "ab", buffering=0).write(b"x" * 10)
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
routes = open("/proc/self/net/route").read().count(chr(10)) if os.path.exists("/proc/self/net/route") else 1
print(fails(write), fails(lambda: bytearray(4 * 2**30)), fails(lambda: socket.create_connection(("127.0.0.1", 1))),
      fails(lambda: [open(os.devnull) for _ in range(100)]), not granted["cut_off"] or routes <= 1,
      not granted["walled"] or fails(lambda: os.remove({path!r})) and fails(lambda: os.mkdir({path!r} + "2")))
"""


def test_a_locked_in_process_cannot_write_fill_the_memory_or_reach_the_network(tmp_path: Path) -> None:
    """Writing, 4 GiB of memory, sockets and a hundred files fail; where the kernel helps, routes and removing too."""
    (tmp_path / "out").write_bytes(b"as it was")
    code = LOCKED.format(root=str(Path(__file__).parents[2]), path=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["True"] * 6, done.stderr
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("out", b"as it was")]


def test_a_model_answers_through_the_pipe(tmp_path: Path) -> None:
    """Logits come back as float32 (N, K), with the parameters of the file; afterwards the process is gone."""
    folder = submission(tmp_path / "s", model())
    pictures = faces(1).images[:, None].astype(np.float32) / 255
    with Child(folder / "model.onnx", SPEC, 7) as child:
        logits, process = child(pictures), child._process.pid
        assert child.parameters == SIDE * 7
    assert logits.argmax(axis=1).tolist() == list(range(7))
    assert logits.dtype == np.float32
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_environment_holds_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of this process are not in the child's environment."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder = submission(tmp_path / "s", model())
    with Child(folder / "model.onnx", SPEC, 7) as child:
        try:
            environment = Path(f"/proc/{child._process.pid}/environ").read_bytes()
        except OSError as error:
            pytest.skip(f"this system does not show a process's environment ({error})")
    assert b"hf_secret" not in environment
    assert b"OMP_NUM_THREADS" in environment or not environment


@pytest.mark.parametrize(
    ("how", "mend"), [("SIGKILL", "it may need more than 6 GiB"), ("SIGFPE", "build it from others")]
)
def test_a_process_that_is_killed_is_a_reason_and_not_a_crash(how: str, mend: str, tmp_path: Path) -> None:
    """Where the child dies under the parent's hands, the parent gets a sentence that says how and what to do."""
    folder = submission(tmp_path / "s", model())
    with Child(folder / "model.onnx", SPEC, 7) as child:
        child._process.send_signal(getattr(signal, how))
        with pytest.raises(RefusedError, match=f"process died \\({how}\\); .*{mend}"):
            child(np.zeros((1, 1, SIDE, SIDE)))


def test_time_is_up_even_where_the_parent_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer ends a process that would go on at its limit, although nobody waits for an answer."""
    ready = b'{"parameters": 1}'
    code = (
        f"import sys, time\nout = open(int(sys.argv[2]), 'wb')\n"
        f"out.write(({len(ready)}).to_bytes(4) + {ready!r}); out.flush(); time.sleep(60)"
    )
    monkeypatch.setattr(sandbox, "_START", code)
    folder = submission(tmp_path / "s", b"not read")
    with Child(folder / "model.onnx", SPEC, 7, limits=Limits(seconds=4)) as child:
        until = time.monotonic() + 15
        while child._process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert child.timed_out
        with pytest.raises(RefusedError, match="within 4 seconds"):
            child(np.zeros((1, 1, SIDE, SIDE)))


@pytest.mark.parametrize(
    "spam",
    [
        "b'hello, world! ' * 100_000",
        "struct.pack('>I', 50_000) + b'[' * 50_000",
        "struct.pack('>I', 2**32 - 1) + b'x' * 10**6",
        "struct.pack('>I', 2) + b'{}'",
        "struct.pack('>I', 21) + b'{\"parameters\": 1e9999}'[:21]",
        "struct.pack('>I', 4) + b'[[[['",
        "struct.pack('>I', 14) + b'{\"refused\": 5}'",
    ],
    ids=[
        "text",
        "JSON that nests without end",
        "a header of 4 GB",
        "nothing announced",
        "infinity",
        "no JSON",
        "a refusal of no reasons",
    ],
)
def test_what_comes_back_is_not_trusted(spam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that was taken over and writes what it likes is stopped at once, with a reason, and fills no memory."""
    write = f"out.write({spam}); out.flush(); time.sleep(9)"
    code = f"import struct, sys, time\nwith open(int(sys.argv[2]), 'wb') as out: {write}"
    monkeypatch.setattr(sandbox, "_START", code)
    monkeypatch.setattr(sandbox, "GRACE", 0.05)  # it would sleep on anyway
    folder, begun = submission(tmp_path / "s", model()), time.monotonic()
    with pytest.raises(RefusedError, match="process"):
        Child(folder / "model.onnx", SPEC, 7)
    assert time.monotonic() - begun < 9


def test_an_open_sandbox_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the kernel grants no namespace or no wall, one line says what a model could do; else there is none."""
    sandbox._say_what_is_open.cache_clear()
    sandbox._say_what_is_open(True, True)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        sandbox._say_what_is_open(False, True)
    error = capsys.readouterr().err
    assert error.startswith("note: here a model that breaks out of its runtime could use the network; ")
    assert error.count("\n") == 1
    sandbox._say_what_is_open.cache_clear()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A model that was exchanged for a link after it was scanned is not opened."""
    folder = submission(tmp_path / "s", model())
    (folder / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(RefusedError, match="cannot be opened"):
        Child(folder / "model.onnx", SPEC, 7)
