"""Runs a submitted model in a process of its own, which may be killed at any moment.

What guarantees what:
- memory, processor time, file size (0, so nothing can be written into a file) and open files: the kernel's limits;
- no file made, emptied or removed, no program started, no signal sent: Landlock, on Linux from 5.13 on (signals: 6.12);
  `Child.walled` says whether it holds;
- wall-clock time: a timer here that kills the child's whole process group; it needs nothing of the child;
- network: an empty network namespace, where the system allows a process to make one (`Child.cut_off` says so; most
  Linux systems do, some containers do not). Without it Landlock denies TCP (Linux 6.7), else only Python's sockets are
  blocked, which stops accidents but not native code that was taken over. ONNX's operators cannot open sockets or files;
- secrets: the child's environment is made from nothing, so tokens are not in it. It runs as the same user, so it could
  read that user's files if onnxruntime itself were broken into: run submissions from strangers in a container too.
Nothing that comes back is trusted: lengths are bounded, values are float32 of the announced shape, nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from fer_bench.cards import InputSpec
from fer_bench.errors import UserError
from fer_bench.submissions.folder import open_plain
from fer_bench.submissions.problems import SIZES, Limits, Problem

HEADER_BYTES = 64 * 1024
GRACE = 1.0
"""Seconds that a process which stopped answering is given to end by itself, so that it can be said how it ended."""
_START = "import sys; sys.path.insert(0, sys.argv.pop()); from fer_bench.submissions._child import main; main()"


def plain(text: object) -> str:
    """What a terminal or page shows as it stands: names inside a model may hold escape sequences."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


@cache
def _say_what_is_open(cut_off: bool, walled: bool) -> None:
    """One line on standard error, once per process, where this system lets a model do more than it should."""
    doors = [] if cut_off else ["use the network"]
    doors += [] if walled else ["change this user's files"]
    if doors:
        text = f"here a model that breaks out of its runtime could {' and '.join(doors)}"
        print(f"note: {text}; run strangers' models in a container.", file=sys.stderr)


class RefusedError(UserError):
    """The model was refused or stopped; `problems` says why."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(" ".join(str(problem) for problem in problems))
        self.problems = problems


class Child:
    """A submitted model behind pipes. A context manager: leaving it ends the process, whatever it is doing.

    Making it loads the model; calling it gives logits. Both raise RefusedError where the model or its process fails.
    """

    def __init__(
        self,
        model: Path,
        spec: InputSpec | None,
        outputs: int,
        architecture: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        run: bool = True,
    ) -> None:
        """model: model.onnx, or model.safetensors of the registered `architecture`. run: False only inspects.

        spec: None leaves the shapes of input and output out of the inspection (with run=False only).
        """
        if os.name != "posix":
            raise UserError("submissions are run on Linux or macOS only, where a process can be limited.")
        self.limits, self.outputs, self.timed_out = limits, outputs, False
        order = {
            "memory": limits.memory, "seconds": limits.seconds * limits.threads, "threads": limits.threads,
            "input": asdict(spec) if spec else None, "outputs": outputs, "architecture": architecture, "run": run,
            "bytes": SIZES[model.name],
        }  # fmt: skip
        self._home = tempfile.TemporaryDirectory(prefix="fer_bench-")
        try:
            file = open_plain(model)
        except OSError as error:
            self._home.cleanup()
            text = f"{model.name} cannot be opened ({error.strerror or error})."
            raise RefusedError((Problem("unreadable", text),)) from None
        there, orders = os.pipe()
        answers, back = os.pipe()
        variables = {
            "HOME": self._home.name, "TMPDIR": self._home.name, "LANG": "C.UTF-8",
            "TORCHINDUCTOR_CACHE_DIR": self._home.name,  # torch would make a folder for it
            **{name: str(limits.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
        }  # fmt: skip
        root = str(Path(__file__).resolve().parents[2])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, str(there), str(back), str(file), root],
                env=variables, cwd=self._home.name, pass_fds=(there, back, file), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            for descriptor in (there, back, file):
                os.close(descriptor)
        self._orders, self._answers = os.fdopen(orders, "wb"), os.fdopen(answers, "rb")
        self._timer = threading.Timer(limits.seconds, self._out_of_time)
        self._timer.daemon = True
        self._timer.start()
        try:
            self._send(order)
            header = self._receive("parameters")
        except BaseException:
            self.close()
            raise
        self.parameters = int(header["parameters"])
        self.cut_off, self.walled = header.get("cut_off") is True, header.get("walled") is True
        """Whether the kernel shut off the network, and every change to files."""
        _say_what_is_open(self.cut_off, self.walled)
        self.seconds: list[tuple[int, float]] = []
        """(pictures, seconds inside the model) of every batch so far."""

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """float32 (N, C, S, S) -> float32 logits (N, outputs), which may hold NaN."""
        inputs = np.ascontiguousarray(inputs, dtype=np.float32)
        self._send({"shape": list(inputs.shape)}, inputs.tobytes())
        header = self._receive("seconds")
        count = len(inputs) * self.outputs
        payload = self._exactly(4 * count)
        self.seconds.append((len(inputs), header["seconds"]))
        return np.frombuffer(payload, np.float32).reshape(len(inputs), self.outputs).copy()

    def close(self) -> None:
        """Kill the process group and wait for it."""
        self._timer.cancel()
        self._kill()
        self._process.wait()
        for pipe in (self._orders, self._answers):
            with contextlib.suppress(OSError):  # what was still to be sent has nobody to read it
                pipe.close()
        self._home.cleanup()

    def _out_of_time(self) -> None:
        self.timed_out = True
        self._kill()

    def _kill(self) -> None:
        if self._process.returncode is None:  # once it was waited for, its number may be another's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, header: dict, payload: bytes = b"") -> None:
        text = json.dumps(header).encode()
        try:
            self._orders.write(struct.pack(">I", len(text)) + text + payload)
            self._orders.flush()
        except OSError:  # the process has ended; reading says why
            pass

    def _receive(self, number: str) -> dict:
        """The next header, in which `number` is one; RefusedError where it is not or the model was refused."""
        length = struct.unpack(">I", self._exactly(4))[0]
        if length > HEADER_BYTES:
            raise self._stopped()
        try:
            header = json.loads(self._exactly(length))
            refused = tuple(Problem(plain(code)[:60], plain(text)[:600]) for code, text in header.get("refused", ()))
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise self._stopped() from None
        if refused:
            raise RefusedError(refused)
        value = header.get(number)
        if not isinstance(value, int | float) or not 0 <= value < 1e12:
            raise self._stopped()
        return header

    def _exactly(self, count: int) -> bytes:
        content = self._answers.read(count)
        if len(content) != count:
            raise self._stopped()
        return content

    def _stopped(self) -> RefusedError:
        """Why the process is no more, or what it sends is none of ours."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=GRACE)  # it may just be on its way out, and how it went is of interest
        self._kill()
        status = self._process.wait()
        if self.timed_out or status == -signal.SIGXCPU:
            text = f"the model did not finish within {self.limits.seconds:g} seconds; "
            text += "make it smaller, or give the command more time (--seconds)."
            return RefusedError((Problem("time", text),))
        how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        text = f"the model's process died ({how}); "
        if -status in (signal.SIGFPE, signal.SIGILL, signal.SIGSEGV):
            text += "one of its operators is more than the runtime can bear, so build it from others."
        else:
            text += f"it may need more than {self.limits.memory / 2**30:g} GiB of memory."
        return RefusedError((Problem("crash", text),))
