"""Clips that would take a machine's memory or time: frames that are too large, and too many to decode."""

from __future__ import annotations

import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fer_bench import scoring, video
from fer_bench.faces import Face
from fer_bench.predict import annotate_clip, score_clip
from fer_bench.video import frames, probe, write_clip
from tests.test_predict import MODELS
from tests.test_video import encode, plain, refusal

TOO_LARGE = "its frames have more than 36 megapixels; make the clip smaller first."
PEAK = """
import contextlib, re, sys
import av
from fer_bench.video import UnreadableClipError, frames
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
with contextlib.suppress(UnreadableClipError):
    list(frames(sys.argv[1]))
print(peak() - before)
"""
"""Prints the KB by which memory rises at most while a clip is read: a frame of the clips below takes 72,000 or more."""


def huge(path: Path, codec: str, width: int, height: int, form: str = "yuv420p", count: int = 1) -> Path:
    """A clip of frames that are all one colour, a few kilobytes each."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, form
        frame = av.VideoFrame(width, height, form)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for _ in range(count):
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "codec", "form"), [("a.mov", "png", "rgb24"), ("a.mp4", "mpeg4", "yuv420p")])
def test_frames_too_large_to_open(name: str, codec: str, form: str, tmp_path: Path) -> None:
    """A small file whose frames would unfold to more than the bound is refused before any of them does."""
    path = huge(tmp_path / name, codec, 8000, 6000, form)
    assert path.stat().st_size < 1_000_000
    assert refusal(path) == f"{path}: {TOO_LARGE}"
    if Path("/proc/self/status").exists():
        ran = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        assert int(ran.stdout) < 120_000


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("a.mp4", "libx264", "yuv420p"), ("a.ts", "libx264", "yuv420p"), ("a.mkv", "mpeg4", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"), ("a.webm", "libvpx", "yuv420p"), ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"), ("a.wmv", "wmv2", "yuv420p"), ("a.flv", "flv", "yuv420p"),
    ],
)  # fmt: skip
def test_the_bound_is_for_every_codec(
    name: str, codec: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its container and codec, a clip just at the bound is read and one just over it refused as too large."""
    monkeypatch.setattr(video, "MOST_PIXELS", 1024 * 768)
    assert probe(huge(tmp_path / f"small-{name}", codec, 1024, 768, form)).size == (1024, 768)
    for height in (800, 1536):
        path = huge(tmp_path / f"{height}-{name}", codec, 1024, height, form)
        assert "its frames have more than 0 megapixels" in refusal(path)


def test_a_clip_that_grows_ends_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where frames become too large in the middle, those before are read and the rest is told as lost."""
    monkeypatch.setattr(video, "MOST_PIXELS", 256 * 192)
    parts = [huge(tmp_path / f"{side}.ts", "libx264", side, side, count=20) for side in (64, 512)]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    said: list[str] = []
    got = list(frames(path, on_damage=said.append))
    assert {frame.image.size for frame in got} == {(64, 64)}
    assert len(got) >= 10
    assert len(said) == 1


def test_fewer_frames_at_once_where_they_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many frames of a clip are in memory at once as HELD pixels allow, at least one and at most FRAMES."""
    path, sizes = write_clip(tmp_path / "a.mp4", [plain(9)] * 20, 10), []
    whole = scoring.score_prepared
    monkeypatch.setattr(scoring, "score_prepared", lambda batch, *rest: sizes.append(len(batch)) or whole(batch, *rest))
    expected = list(score_clip(path, [MODELS["small_cnn"]], 20, detect=False))
    assert sizes == [8, 8, 4]
    for held, counts in ((3 * 64 * 48, [3] * 6 + [2]), (10, [1] * 20)):
        sizes.clear()
        monkeypatch.setattr(scoring, "HELD", held)
        rows = list(score_clip(path, [MODELS["small_cnn"]], 20, detect=False))
        assert rows == [pytest.approx(row, abs=2e-6) for row in expected]
        assert sizes == counts


def test_a_bound_on_decoded_frames(tmp_path: Path) -> None:
    """`most` ends a clip whose time stamps all agree, with one sentence; one that is just so long is whole."""
    path = encode(tmp_path / "a.mkv", (plain(i) for i in range(200)), [0.001 * i for i in range(200)])
    said: list[str] = []
    assert [frame.index for frame in frames(path, 1, 300, said.append, most=150)] == [0]
    assert said == [f"{path}: only the first 150 frames, up to 0.1 s, were read; cut it into parts."]
    said.clear()
    assert len(list(frames(path, on_damage=said.append, most=200))) == 200
    assert len(list(frames(path, limit=5, on_damage=said.append, most=5))) == 5
    assert said == []
    assert len(list(frames(path, on_damage=said.append, most=7))) == 7
    assert len(said) == 1
    with pytest.raises(ValueError, match="most must be positive, not 0"):
        frames(path, most=0)


def coded(side: int) -> list[bytes]:
    """Three frames of VP8 as they are stored; the first is a key frame."""
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width = encoder.height = side
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    encoder.options = {"lag-in-frames": "0", "auto-alt-ref": "0"}
    packets = []
    for stamp in range(3):
        frame = av.VideoFrame.from_ndarray(np.full((side * 3 // 2, side), 128, np.uint8), format="yuv420p")
        frame.pts, frame.time_base = stamp, Fraction(1, 25)
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def hidden(path: Path, count: int, side: int = 0) -> Path:
    """A clip of VP8 with one picture, and then so many frames that are decoded and never shown.

    side: that of the hidden ones, which are key frames then; 0 is the picture's.
    """
    unseen = bytearray(coded(side)[0] if side else coded(64)[-1])
    unseen[0] &= ~0x10  # show_frame of a VP8 frame's header (RFC 6386, section 9.1)
    held = [coded(64)[0], *[bytes(unseen)] * count]
    head = b"DKIF" + struct.pack("<HHIHHIIII", 0, 32, 0x30385056, 64, 64, 25, 1, len(held), 0)
    path.write_bytes(head + b"".join(struct.pack("<IQ", len(one), i) + one for i, one in enumerate(held)))
    return path


def test_frames_that_are_never_shown_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may hold any number of them, and each takes as long as one that is seen."""
    monkeypatch.setattr(video, "HELD_BACK", 5)
    path, said = hidden(tmp_path / "a.ivf", 100), []
    assert [frame.index for frame in frames(path, on_damage=said.append, most=20)] == [0]
    assert said == [f"{path}: only the first 1 frames, up to 0.0 s, were read; cut it into parts."]
    said.clear()
    assert [frame.index for frame in frames(hidden(path, 15), on_damage=said.append, most=20)] == [0]
    assert "only the first" not in "".join(said)


def test_reading_ends_when_it_must_not_go_on(tmp_path: Path) -> None:
    """It is asked before every packet, one that shows nothing too; what was shown until then is given."""
    path, said, asked = hidden(tmp_path / "a.ivf", 100), [], []
    some = lambda: asked.append(1) or len(asked) <= 30  # noqa: E731
    assert [frame.index for frame in frames(path, on_damage=said.append, go_on=some)] == [0]
    assert (len(asked), said) == (31, [])
    for read in (lambda: list(frames(path, go_on=lambda: False)), lambda: probe(path, lambda: False)):
        with pytest.raises(video.UnreadableClipError, match="the time was up before it showed a frame"):
            read()


def test_hidden_frames_that_grow_count_for_more(tmp_path: Path) -> None:
    """Large frames that are never shown, behind a small one that is, count by their pixels as shown ones do."""
    path, said, asked = hidden(tmp_path / "a.ivf", 300, 256), [], []
    assert len(list(frames(path, on_damage=said.append, most=500, go_on=lambda: asked.append(1) or True))) == 1
    assert "only the first 1 frames" in said[0]
    assert len(asked) < 120


def test_frames_that_grow_count_for_more(tmp_path: Path) -> None:
    """The bound is on the pixels that are decoded: a frame of 16 times the first one's size is 16 of them."""
    parts = [huge(tmp_path / f"{side}.ts", "libx264", side, side, count=20) for side in (64, 256)]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    said: list[str] = []
    got = [frame.image.size for frame in frames(path, on_damage=said.append, most=60)]
    assert 10 <= got.count((64, 64)) <= 20
    assert 2 <= got.count((256, 256)) <= 4
    assert f"only the first {len(got)} frames, up to " in said[-1]


def test_many_faces_in_a_frame_are_answered_for_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more faces than TOGETHER wait for the networks at once, and of a frame's the largest `most_faces` alone."""
    path, sizes = write_clip(tmp_path / "a.mp4", [plain(9)] * 6, 10), []
    found = [Face((4 * i, 0, 4 * i + 4, 4 + i), 0.9) for i in range(10)]
    monkeypatch.setattr(scoring, "detect_faces", lambda _: found)
    monkeypatch.setattr(scoring, "TOGETHER", 20)
    whole = scoring.score_prepared
    monkeypatch.setattr(scoring, "score_prepared", lambda batch, *rest: sizes.append(len(batch)) or whole(batch, *rest))
    model, rows = MODELS["small_cnn"], []
    assert len(list(score_clip(path, [model]))) == 3 * 10
    assert sizes == [2, 1]
    sizes.clear()
    annotate_clip(path, tmp_path / "b.mp4", model, on_rows=rows.append, most_faces=3)
    assert [[row["left"] for row in frame] for frame in rows] == [[28, 32, 36]] * 6
    assert sizes == [6]


def test_scoring_passes_the_bound_on(tmp_path: Path) -> None:
    """Scores and annotated clips have the same bound, and say where the clip was cut."""
    path = encode(tmp_path / "a.mp4", [plain(20 * i) for i in range(10)])
    model, said = MODELS["small_cnn"], []
    assert len(list(score_clip(path, [model], 10, detect=False, on_damage=said.append, most=4))) == 4
    out = annotate_clip(path, tmp_path / "out.mp4", model, detect=False, on_damage=said.append, most=4)
    assert len(list(frames(out))) == 4
    assert said == [f"{path}: only the first 4 frames, up to 0.3 s, were read; cut it into parts."] * 2
    assert len(list(score_clip(path, [model], 10, detect=False, on_damage=said.append))) == 10
    assert len(said) == 2
