"""The command line as a whole, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_bench.weights import (
    cached,
    sha256,
    weights_folder,
)
from tests.hub.row import PULL, PUSH, REPO, entry
from tests.hub_server import Repo, serving
from tests.submissions.models import MANIFEST, model


@pytest.mark.slow
def test_the_environment_alone_points_the_command_at_a_hub(checkout: Path, tmp_path: Path) -> None:
    """In a process of its own, with HF_ENDPOINT and a stored token as a user has them: push, pull, and a submission."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("hf_write")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    bundled = str(weights_folder() / entry()["file"])
    with serving() as server:
        files = {"submission.yaml": MANIFEST.encode(), "model.onnx": model(opset=6).SerializeToString()}
        server.repos["models", "me/mine"] = Repo()
        revision = server.repo("me/mine").commit({name: (data, False) for name, data in files.items()})
        script = (
            "import os, sys; from fer_bench import hub, submissions\n"
            f"code = hub.main({PUSH}); os.remove({bundled!r}); code = code or hub.main({PULL})\n"
            f"sys.exit(code or submissions.main(['check', 'hub:me/mine@{revision}']) - 1)"
        )
        clean |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", script]
        run = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, run.stderr
        assert "uses opset 6" in run.stdout  # fetched, and refused with 1 for its own fault
        assert entry()["revision"] == server.repo(REPO).head
        assert {token for _, path, token in server.requests if REPO in path} == {"hf_write"}
    assert sha256(cached(entry())) == entry()["sha256"]
