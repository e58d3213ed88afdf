"""How long clips are said to be whose time stamps do not begin at 0, and that these are whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fer_bench.video import frames, probe
from tests.test_video import plain


def late(path: Path, codec: str, start: float, sound: str | None = None) -> Path:
    """A clip of two seconds of noise, ten frames a second, the first at `start`; its sound begins at 0."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        shown = container.add_stream(codec, rate=10, options={"g": "5"})
        shown.width, shown.height, shown.pix_fmt = 64, 48, "yuv420p"
        shown.codec_context.time_base = Fraction(1, 1000)
        heard = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, picture in enumerate(noise):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(1000 * (start + number / 10)), Fraction(1, 1000)
            container.mux(shown.encode(frame))
        container.mux(shown.encode(None))
        if heard:
            size = heard.codec_context.frame_size
            for begun in range(0, 48_000, size):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, size), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 48000, begun
                container.mux(heard.encode(samples))
            container.mux(heard.encode(None))
    return path


KINDS = [
    ("a.mkv", "mpeg4", None), ("a.mkv", "mpeg4", "libopus"), ("a.webm", "libvpx", None), ("a.mp4", "mpeg4", None),
    ("a.webm", "libvpx", "libopus"), ("a.mp4", "mpeg4", "aac"), ("a.mov", "mpeg4", None), ("a.ts", "mpeg4", None),
    ("a.wmv", "msmpeg4", None), ("a.flv", "flv", None), ("a.flv", "flv", "aac"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "sound"), KINDS)
@pytest.mark.parametrize("start", [0, 5])
def test_a_clip_that_begins_late_is_whole(name: str, codec: str, sound: str | None, start: int, tmp_path: Path) -> None:
    """A clip whose first frame is at 5 s is as long as the same at 0, and nothing in it is called broken."""
    path = late(tmp_path / name, codec, start, sound)
    said: list[str] = []
    assert len(list(frames(path, on_damage=said.append))) == 20
    assert said == []
    assert probe(path).duration == pytest.approx(2, abs=0.11)


def test_a_clip_that_begins_late_and_is_cut_off(tmp_path: Path) -> None:
    """Of a Matroska clip that begins at 5 s half is gone: that is told, with its length."""
    path = late(tmp_path / "a.mkv", "mpeg4", 5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said: list[str] = []
    assert 3 <= len(list(frames(path, on_damage=said.append))) < 16
    assert "of 2.0 s were read" in said[0]


def test_a_length_as_mkvmerge_writes_it(tmp_path: Path) -> None:
    """Where FFmpeg's tag has the time stamp of the end, mkvmerge's has the length: it is taken as such."""
    path = late(tmp_path / "a.mkv", "mpeg4", 5)
    content = path.read_bytes()
    with av.open(str(path)) as container:
        muxer = container.metadata["ENCODER"].encode()
    assert content.count(b"00:00:07.000000000") == 1
    content = content.replace(muxer, b"libmatroska 1".ljust(len(muxer))[: len(muxer)])
    path.write_bytes(content.replace(b"00:00:07.000000000", b"00:00:02.000000000"))
    said: list[str] = []
    assert len(list(frames(path, on_damage=said.append))) == 20
    assert said == []
    assert probe(path).duration == pytest.approx(2)


def test_a_clip_of_one_frame(tmp_path: Path) -> None:
    """A single late frame is a whole clip."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        shown = container.add_stream("mpeg4", rate=10)
        shown.width, shown.height, shown.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(plain(9), format="rgb24")
        frame.pts, frame.time_base = 50, Fraction(1, 10)
        container.mux(shown.encode(frame))
        container.mux(shown.encode(None))
    said: list[str] = []
    assert len(list(frames(path, on_damage=said.append))) == 1
    assert said == []
    assert probe(path).duration == pytest.approx(0.1, abs=0.11)
