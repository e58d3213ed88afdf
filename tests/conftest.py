"""What all tests share: no network, no data of the machine's own, and the real FER2013 for those that ask for it."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import pytest

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
for _name in OFFLINE:  # read when the libraries are imported, which is before any fixture runs
    os.environ[_name] = "1"

TOOLS = ("FER_BENCH_AXE", "FER_BENCH_CHROMIUM")
"""Where programs are that tests of the app use."""
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher of several processes sets; a test started from one is no part of its training."""
GIVEN = os.environ.get("FER_BENCH_DATA")
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "fer2013"


gc.disable()  # until all is imported: of that nothing is garbage, and looking for some took a quarter of the time


def pytest_collection_finish() -> None:
    """All libraries are imported by now, and stay: going through them for garbage again took a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(5000, 10, 10)


@pytest.fixture(scope="session")
def fer2013_root() -> Path:
    """The folder of a real copy of FER2013; the test is skipped where there is none."""
    candidates = [Path(GIVEN).expanduser() / "fer2013"] if GIVEN else []
    for folder in (*candidates, BESIDE):
        if folder.is_dir():
            return folder
    pytest.skip(f"no copy of FER2013: neither $FER_BENCH_DATA/fer2013 ({GIVEN or 'not set'}) nor {BESIDE} is a folder")


@pytest.fixture(autouse=True)
def _alone(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No setting of the machine's own holds, and (but for slow tests) no other machine can be reached."""
    for name in os.environ:
        if name in LAUNCHED or (name.startswith("FER_BENCH_") and name not in TOOLS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FER_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
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
