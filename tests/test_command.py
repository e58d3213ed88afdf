"""A process that is one of the package's own commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fer_bench import command


@pytest.mark.parametrize(
    ("started", "program", "expected"),
    [
        (["python", "-m", "fer_bench.train", "--help"], "-m", True),
        (["python", "-u", "-m", "fer_bench"], "-m", True),
        (["python", "/usr/bin/fer-bench", "train"], "/usr/bin/fer-bench", True),
        (["python", "-m", "fer_bench_extras", "--help"], "-m", False),
        (["python", "-m", "pytest", "-m", "fer_bench"], "/venv/pytest/__main__.py", False),
        (["python", "mine.py", "-m"], "mine.py", False),
        (["python"], "", False),
    ],
)
def test_only_its_own_commands_are_one(
    monkeypatch: pytest.MonkeyPatch, started: list[str], program: str, expected: bool
) -> None:
    """Whoever imports the package keeps Python's own setting."""
    monkeypatch.setattr(sys, "orig_argv", started)
    monkeypatch.setattr(sys, "argv", [program])
    assert command.is_command() == expected


@pytest.mark.parametrize(("reads", "expected"), [(True, 0), (False, 1)])
def test_output_that_is_read_no_further_is_no_error(reads: bool, expected: int) -> None:
    """`python -m fer_bench … | head` ends without a traceback, and with 1 where something could not be said."""
    asked = "import time; time.sleep(1.5); import runpy, sys; sys.argv[1:] = ['--help']; import fer_bench.command as c;"
    asked += "c.begin(); runpy.run_module('fer_bench', run_name='__main__')"
    process = subprocess.Popen([sys.executable, "-c", asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not reads:
        process.stdout.close()
        process.stdout = None
    said, wrong = process.communicate(timeout=120)
    assert (process.returncode, wrong) == (expected, "")
    assert ("usage" in (said or "")) == reads


@pytest.mark.skipif(os.name != "posix", reason="this system sends no SIGINT")
def test_an_interruption_is_a_sentence_and_exit_code_1() -> None:
    """Where a command has no words of its own for Ctrl-C."""
    code = "from fer_bench import command; command.begin(); import os, signal, time;"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT);"
    code += "time.sleep(9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "interrupted; what was finished is kept.\n")


def test_other_errors_are_told_as_ever() -> None:
    """A pipe that is broken elsewhere, as one to a worker, is not silent."""
    code = "from fer_bench import command; command.begin(); raise BrokenPipeError('to a worker')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "BrokenPipeError: to a worker" in done.stderr
