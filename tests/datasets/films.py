"""Tiny clips of drawn faces, for the data sets that are made of clips."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from fer_bench.datasets.rendered import render

SIZE = (160, 200)
"""Height and width of the frames."""


def face(emotion: str, intensity: float, seed: int) -> np.ndarray:
    """uint8 (*SIZE, 3): a drawn face, found by a detector, on grey."""
    frame = np.full((*SIZE, 3), 120, np.uint8)
    frame[16:144, 36:164] = render(emotion, intensity, seed, 128)[0][:, :, None]
    return frame


def posed(emotion: str, seed: int, count: int = 4) -> list[np.ndarray]:
    """A face that goes from rest to an emotion."""
    return [face(emotion, place / (count - 1), seed) for place in range(count)]


def write_avi(path: Path, frames: Sequence[np.ndarray], fps: int = 20) -> Path:
    """An .avi of these frames; MPEG-4, as DISFA's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=fps, options={"qscale": "2"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """An .avi with sound and no pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".wav")
    with wave.open(str(source), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 8000)
    with av.open(str(source)) as given, av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        for frame in given.decode(audio=0):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source.unlink()
    return path
