"""How much a visitor may send: a bound on what all uploads take on the disk, and on whatever is no upload.

Gradio bounds each file, but neither their number nor the size of a question, which it holds in memory before any queue.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

import anyio.to_thread
from gradio.utils import get_upload_folder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_HELD = 2 * 10**9
"""Bytes of the visitors' folder from which on uploads are refused, so that nobody fills the disk; files go in time."""
MOST_ASKED = 8 * 10**6
"""Bytes of a request that is no upload: a question names its files, and a live camera's frame is less than 1 MB."""
LOOKED_SECONDS = 2
"""How long the folder's size is taken as known, for looking at every file of it takes a while."""
LEAST = 4096
"""Bytes that a file or folder takes at least, so that many empty ones count too."""
UPLOAD = "/gradio_api/upload"
RECORDING = "/gradio_api/process_recording"
"""Where gradio takes screen recordings, which this app has no use for, and leaves each in the system's own folder."""
FULL = "This server holds as many files as it has room for; they are deleted within 20 minutes, so try again then."
NO_RECORDING = "This app takes no recordings of a screen."
LARGE = "This is more than 8 MB, which is too large for a question; upload the files and name them in it."


def size_of(folder: str) -> int:
    """Bytes that the folder takes, roughly."""
    total = 0
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):  # deleted meanwhile
                total += max(LEAST, os.lstat(os.path.join(here, name)).st_size)
    return total


class Bounds:
    """ASGI middleware that answers 507 to an upload for which there is no room, and 413 to a large question.

    By what the request says of its length, and by what comes: a request may name no length.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._held = 0
        self._arrived = 0
        """Bytes of uploads since the folder was looked at."""
        self._looked = float("-inf")
        self._looking = False

    async def held(self) -> int:
        """Bytes that visitors' files take now: as they were at the last look, and what came since."""
        if not self._looking and time.monotonic() - self._looked >= LOOKED_SECONDS:
            self._looking, before = True, self._arrived
            try:
                self._held = await anyio.to_thread.run_sync(size_of, get_upload_folder())
                self._arrived -= before
            finally:
                self._looking, self._looked = False, time.monotonic()
        return self._held + self._arrived

    async def refusal(self, upload: bool, length: int, coming: int = 0) -> tuple[int, str] | None:
        """Status and sentence for a request of which `length` bytes have come and `coming` are said to come."""
        if not upload:
            return (413, LARGE) if length + coming > MOST_ASKED else None
        return (507, FULL) if length > MOST_HELD or await self.held() + coming > MOST_HELD else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # No other path may pass as an upload: /gradio_api/run/upload is a question.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        upload = scope["method"] == "POST" and path == UPLOAD
        told = dict(scope["headers"]).get(b"content-length", b"")
        refused = await self.refusal(upload, 0, int(told) if told.isdigit() else 0)
        if path == RECORDING:
            refused = 404, NO_RECORDING
        if refused:
            await answer(send, *refused)
            return
        length, started = 0, False

        async def counted() -> Message:
            nonlocal length, refused
            message = await receive()
            if message["type"] == "http.request" and not refused:
                size = len(message.get("body", b""))
                length += size
                if upload:
                    self._arrived += size
                refused = await self.refusal(upload, length)
            return {"type": "http.disconnect"} if refused else message

        async def passed_on(message: Message) -> None:
            nonlocal started
            if started or not refused:  # else it is of the connection that seems closed, and the refusal comes instead
                started = True
                await send(message)

        try:
            await self.app(scope, counted, passed_on)
        except Exception:
            if started or not refused:
                raise
        if refused and not started:
            await answer(send, *refused)


async def answer(send: Send, status: int, sentence: str) -> None:
    """Answer with that status and {"error": sentence}."""
    body = json.dumps({"error": sentence}).encode()
    headers: Any = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
