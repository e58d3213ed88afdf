"""What all tests share: no network, no data of the machine's own, and the real FER2013 for those that ask for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
for _name in OFFLINE:  # read when the libraries are imported, which is before any fixture runs
    os.environ[_name] = "1"

GIVEN = os.environ.get("FER_BENCH_DATA")
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "fer2013"


@pytest.fixture(scope="session")
def fer2013_root() -> Path:
    """The folder of a real copy of FER2013; the test is skipped where there is none."""
    candidates = [Path(GIVEN).expanduser() / "fer2013"] if GIVEN else []
    for folder in (*candidates, BESIDE):
        if folder.is_dir():
            return folder
    pytest.skip(f"no copy of FER2013: neither $FER_BENCH_DATA/fer2013 ({GIVEN or 'not set'}) nor {BESIDE} is a folder")


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own data is found, and (but for slow tests) no other machine can be reached."""
    monkeypatch.delenv("FER_BENCH_DATA", raising=False)
    for name in OFFLINE:
        monkeypatch.setenv(name, "1")
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(socket.socket, "connect", _connect_here)


_connect = socket.socket.connect


def _connect_here(self: socket.socket, address: object) -> None:
    host = address[0] if isinstance(address, tuple) else "localhost"
    if host not in ("localhost", "::1") and not str(host).startswith("127."):
        raise OSError(f"a test tried to reach {host}: the default tests use no network")
    return _connect(self, address)
