"""Clips: frames by time, damage, representative frames, writing. Every clip is made on the spot."""

from __future__ import annotations

import os
import resource
import wave
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fer_bench import video
from fer_bench.errors import UserError
from fer_bench.files import OutputError
from fer_bench.video import UnreadableClipError, frames, is_clip, probe, representative, write_clip


def plain(level: int, width: int = 64, height: int = 48) -> np.ndarray:
    """One grey, with a white corner at the top left that shows which way is up."""
    picture = np.full((height, width, 3), level, np.uint8)
    picture[: height // 4, : width // 4] = 255
    return picture


def encode(
    path: Path,
    pictures: Iterable[np.ndarray],
    times: Sequence[float] | None = None,
    fps: int = 10,
    rotation: int = 0,
    form: str | None = None,
    gop: int = 12,
    start: float = 0.0,
) -> Path:
    """A clip with these time stamps (default: even ones), its display rotation and container format."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=fps, options={"qscale": "2", "g": str(gop)})
        stream.pix_fmt = "yuv420p"
        base = Fraction(1, 1000) if times is not None or start else Fraction(1, fps)
        stream.codec_context.time_base = base
        for index, picture in enumerate(pictures):
            if not index:
                stream.width, stream.height = picture.shape[1], picture.shape[0]
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = base
            frame.pts = round((start + (times[index] if times is not None else index / fps)) / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def level(frame: video.Frame) -> float:
    """The mean of the lower right quarter."""
    pixels = np.asarray(frame.image)
    return float(pixels[pixels.shape[0] // 2 :, pixels.shape[1] // 2 :].mean())


def refusal(path: Path) -> str:
    """The one sentence with which a clip is refused, the same from all three readers."""
    texts = set()
    for read in (lambda: list(frames(path)), lambda: representative(path), lambda: probe(path)):
        with pytest.raises(UnreadableClipError) as caught:
            read()
        texts.add(str(caught.value))
    (text,) = texts
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    assert "\n" not in text
    return text


def test_every_frame_in_order(tmp_path: Path) -> None:
    """Without a rate every frame comes, RGB, with its number and its time from the first one."""
    path = encode(tmp_path / "a.mp4", [plain(20 * i) for i in range(10)], start=5.0)
    got = list(frames(path))
    assert [frame.index for frame in got] == list(range(10))
    assert [frame.time for frame in got] == pytest.approx([i / 10 for i in range(10)], abs=2e-3)
    assert [level(frame) for frame in got] == pytest.approx([20 * i for i in range(10)], abs=4)
    assert {(frame.image.mode, frame.image.size) for frame in got} == {("RGB", (64, 48))}


def test_a_rate_samples_by_time(tmp_path: Path) -> None:
    """Four a second of a 10 a second clip are the first frames of each quarter second; a limit ends it."""
    path = encode(tmp_path / "a.mp4", [plain(10 * i) for i in range(20)])
    assert [frame.index for frame in frames(path, per_second=4)] == [0, 3, 5, 8, 10, 13, 15, 18]
    assert [frame.index for frame in frames(path, per_second=4, limit=3)] == [0, 3, 5]
    assert [frame.index for frame in frames(path, per_second=1000)] == list(range(20))


def test_a_varying_frame_rate(tmp_path: Path) -> None:
    """With uneven time stamps the choice follows the clock: a burst gives one frame, a pause gives none."""
    times = [0, 0.02, 0.04, 0.06, 0.5, 0.52, 2.2, 2.3, 3.0]
    path = encode(tmp_path / "a.mkv", [plain(20 * i) for i in range(9)], times)
    got = list(frames(path, per_second=2))
    assert [frame.index for frame in got] == [0, 4, 6, 8]
    assert [frame.time for frame in got] == pytest.approx([0, 0.5, 2.2, 3.0], abs=2e-3)


@pytest.mark.parametrize(("per_second", "limit"), [(0, None), (-1, None), (float("nan"), None), (None, 0)])
def test_rates_and_limits_that_make_no_sense(per_second: float | None, limit: int | None, tmp_path: Path) -> None:
    """A rate or limit that is not positive is refused at once, before any file is touched."""
    with pytest.raises(ValueError, match="must be positive"):
        frames(tmp_path / "none.mp4", per_second, limit)


@pytest.mark.parametrize(
    ("rotation", "size", "corner"),
    [(0, (64, 48), "tl"), (90, (48, 64), "bl"), (-90, (48, 64), "tr"), (180, (64, 48), "br")],
)
def test_a_phone_held_on_its_side(rotation: int, size: tuple[int, int], corner: str, tmp_path: Path) -> None:
    """The display rotation, counter-clockwise, is applied: the white corner goes where a player shows it."""
    path = encode(tmp_path / "a.mp4", [plain(60)] * 3, rotation=rotation)
    picture = np.asarray(next(frames(path)).image).mean(2)
    assert picture.shape == size[::-1]
    corners = {"tl": picture[4, 4], "tr": picture[4, -5], "bl": picture[-5, 4], "br": picture[-5, -5]}
    assert max(corners, key=corners.get) == corner
    assert probe(path).size == size
    assert probe(path).rotation % 360 == rotation % 360


def test_probe(tmp_path: Path) -> None:
    """A clip's header gives its length, rate, number of frames and size."""
    clip = probe(encode(tmp_path / "a.mp4", [plain(9)] * 25, fps=10))
    assert clip.duration == pytest.approx(2.5, abs=0.11)
    assert clip.fps == pytest.approx(10, abs=0.5)
    assert (clip.frames, clip.size, clip.rotation) == (25, (64, 48), 0)


def test_what_is_no_clip(tmp_path: Path) -> None:
    """Missing, a folder, empty, text, a picture: each is refused with one sentence that names the file."""
    assert refusal(tmp_path / "none.mp4") == f"{tmp_path / 'none.mp4'}: there is no such file."
    assert "this is a folder" in refusal(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "this file is empty" in refusal(tmp_path / "empty.mp4")
    (tmp_path / "notes.mp4").write_text("Dear diary, today I was happy.\n" * 50)
    assert "not a readable clip" in refusal(tmp_path / "notes.mp4")
    Image.new("RGB", (20, 20)).save(tmp_path / "picture.mp4", "PNG")
    assert "not a readable clip" in refusal(tmp_path / "picture.mp4")


def test_sound_only(tmp_path: Path) -> None:
    """A clip without pictures is refused as such, even in a clip's container."""
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 8192, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "only sound" in refusal(tmp_path / "song.mp4")
    with wave.open(str(tmp_path / "song.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    (tmp_path / "song.wav").rename(tmp_path / "song.avi")
    assert "not a readable clip" in refusal(tmp_path / "song.avi")


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    """A playlist in a clip's clothes is no clip, although the clip that it points to is there."""
    encode(tmp_path / "secret.ts", [plain(9)] * 20, form="mpegts")
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp4").write_text(text)
    assert "not a readable clip" in refusal(tmp_path / "list.mp4")


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".ts"])
def test_a_clip_cut_off_in_the_middle(suffix: str, tmp_path: Path) -> None:
    """The frames that decode are given, then it ends, and one sentence says that part is missing."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    path = encode(tmp_path / f"a{suffix}", noise, form="mpegts" if suffix == ".ts" else None, gop=5)
    whole: list[str] = []
    assert len(list(frames(path, on_damage=whole.append))) == 60
    assert whole == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said: list[str] = []
    got = list(frames(path, on_damage=said.append))
    assert 20 <= len(got) < 40
    assert [frame.index for frame in got] == list(range(len(got)))
    if suffix != ".ts":  # a transport stream is made to be cut anywhere and states no length
        (text,) = said
        assert text.startswith(f"{path}: part of this clip is broken or cut off; its frames up to ")
        chosen: list[str] = []
        assert 1 <= len(representative(path, on_damage=chosen.append)) <= 20
        assert chosen == said


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_sound_that_goes_on_is_no_damage(suffix: str, tmp_path: Path) -> None:
    """Where a clip's sound is longer than its pictures, these are read whole and their own length is told."""
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        shown = container.add_stream("libvpx", rate=10)
        shown.width, shown.height, shown.pix_fmt = 64, 48, "yuv420p"
        heard = container.add_stream("libopus", rate=48000, layout="mono")
        for number in range(20):
            container.mux(shown.encode(av.VideoFrame.from_ndarray(plain(number), format="rgb24")))
        container.mux(shown.encode(None))
        for start in range(0, 240_000, 960):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 48000, start
            container.mux(heard.encode(sound))
        container.mux(heard.encode(None))
    said: list[str] = []
    assert len(list(frames(path, on_damage=said.append))) == 20
    assert said == []
    assert probe(path).duration == pytest.approx(2, abs=0.11)


def test_a_last_frame_that_stands_long_is_no_damage(tmp_path: Path) -> None:
    """A frame that is to be shown for 9 s ends a clip of 10 s: nothing is lost."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = [p for i in range(10) for p in stream.encode(av.VideoFrame.from_ndarray(plain(i), format="rgb24"))]
        packets += stream.encode(None)
        packets[-1].duration = round(9 / packets[-1].time_base)
        container.mux(packets)
    said: list[str] = []
    assert len(list(frames(path, on_damage=said.append))) == 10
    assert said == []
    assert probe(path).duration == pytest.approx(9.9, abs=0.11)


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    """An mp4 whose end, which holds the index, is gone cannot be read at all and says so."""
    path = encode(tmp_path / "a.mp4", [plain(9)] * 30)
    whole = path.read_bytes()
    for kept in (-800, len(whole) // 2):
        path.write_bytes(whole[:kept])
        assert "cut off" in refusal(path)


def test_bytes_lost_in_the_middle(tmp_path: Path) -> None:
    """Zeros in the middle of a clip cost the frames there, not those after them, and are told."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    path = encode(tmp_path / "a.mp4", noise, gop=5)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(content)
    said: list[str] = []
    got = list(frames(path, on_damage=said.append))
    assert 20 < len(got) < 60
    assert got[-1].time == pytest.approx(5.9, abs=0.01)
    assert len(said) == 1


def test_representative_frames_hold_every_stage_once(tmp_path: Path) -> None:
    """Of a clip that rests on four pictures, one frame of each is chosen, in order of time, and no more."""
    rng = np.random.default_rng(1)
    stages = [rng.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(4)]
    path = encode(tmp_path / "a.mp4", [stage for stage in stages for _ in range(8)], gop=8)
    chosen = representative(path, 20)
    assert [frame.index // 8 for frame in chosen] == [0, 1, 2, 3]
    assert [frame.time for frame in chosen] == sorted(frame.time for frame in chosen)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_apex_is_always_chosen(count: int, tmp_path: Path) -> None:
    """A short expression in a long rest is in, however few frames are asked for; the first frame is the second."""
    strength = [0.0] * 12 + [0.3, 0.7, 1.0, 0.6, 0.2] + [0.0] * 12
    pictures = [plain(60) for _ in strength]
    for picture, s in zip(pictures, strength, strict=True):
        picture[24:40, 20:44] = round(60 + 150 * s)
    chosen = representative(encode(tmp_path / "a.mp4", pictures), count)
    assert len(chosen) == count
    assert 14 in [frame.index for frame in chosen]
    if count > 1:
        assert chosen[0].index == 0


def test_a_clip_that_stands_still_gives_one_frame(tmp_path: Path) -> None:
    """Near-duplicates are never chosen twice, nor is a change of light alone a new picture."""
    still = encode(tmp_path / "a.mp4", [plain(60)] * 30)
    assert len(representative(still)) == 1
    dim = [np.full((48, 64, 3), 40 + i, np.uint8) for i in range(30)]
    assert len(representative(encode(tmp_path / "b.mp4", dim))) == 1


def test_a_slight_change_is_told_from_grain(tmp_path: Path) -> None:
    """A fiftieth of the frame that gets 8 levels brighter is a new picture; grain of 3 levels in all of it is none."""
    rng = np.random.default_rng(0)
    pictures = 100 + rng.normal(0, 3, (16, 256, 320, 3))
    pictures[8:, 150:176, 120:184] += 8
    chosen = representative(encode(tmp_path / "a.mp4", pictures.round().clip(0, 255).astype(np.uint8)))
    assert [frame.index // 8 for frame in chosen] == [0, 1]


def test_representative_frames_are_spread_over_a_steady_change(tmp_path: Path) -> None:
    """Of a steady movement as many are chosen as asked for, evenly: no two lie close together."""
    pictures = []
    for i in range(60):
        picture = np.full((64, 96, 3), 40, np.uint8)
        picture[:, i : i + 30] = 220
        pictures.append(picture)
    chosen = [frame.index for frame in representative(encode(tmp_path / "a.mp4", pictures), 7)]
    assert len(chosen) == 7
    assert chosen[0] == 0
    assert np.diff(chosen).min() >= 3
    assert np.diff(chosen).max() <= 20


def test_choosing_keeps_the_apex_of_a_long_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When thumbnails are thinned for length, a single odd frame is still found and the kept ones stay few."""
    monkeypatch.setattr(video, "CANDIDATES", 8)
    pictures = [plain(60) for _ in range(80)]
    pictures[53][24:40, 20:44] = 230
    path = encode(tmp_path / "a.mp4", pictures)
    assert [frame.index for frame in representative(path, 2)] == [0, 53]


def resident() -> int:
    """Bytes of memory that this process holds, decoded frames and pictures included."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("this system does not say what memory a process holds")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_flat_in_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither reading nor choosing holds on to frames: 110 of them, 57 MB as pictures, take less than 15."""
    path = encode(tmp_path / "a.mp4", (plain(i % 200, 480, 360) for i in range(130)), gop=60)
    held = [resident() for _ in frames(path)]
    assert max(held[20:]) - held[20] < 15e6
    chosen, whole = [], video._thumbnail
    monkeypatch.setattr(video, "_thumbnail", lambda frame: chosen.append(resident()) or whole(frame))
    assert len(representative(path, 3)) == 3
    assert len(chosen) == 130
    assert max(chosen[20:]) - chosen[20] < 15e6


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """In one sentence that names the clip, with nothing left behind. A bound on the size of files stands in for it."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), dtype=np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"out\.mp4 cannot be written: File too large\."):
            write_clip(tmp_path / "out.mp4", noise, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_count_that_makes_no_sense(tmp_path: Path) -> None:
    """Asking for no frame at all is refused."""
    with pytest.raises(ValueError, match="count must be positive"):
        representative(tmp_path / "a.mp4", 0)


@pytest.mark.parametrize("size", [(48, 64), (49, 63)])
def test_a_written_clip_reads_back(size: tuple[int, int], tmp_path: Path) -> None:
    """What is written comes back: the pictures, the rate, even sides, and a pixel format that browsers play."""
    pictures = [plain(20 + 30 * i, size[1], size[0]) for i in range(6)]
    path = write_clip(tmp_path / "new" / "out.mp4", pictures, 12.5)
    got = list(frames(path))
    assert [level(frame) for frame in got] == pytest.approx([20 + 30 * i for i in range(6)], abs=5)
    assert got[1].time == pytest.approx(0.08, abs=1e-3)
    assert got[0].image.size == (64, 50 if size[0] == 49 else 48)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.name in ("h264", "mpeg4")
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["out.mp4"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What it leads to is written."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "there" / "real.mp4")
    assert write_clip(tmp_path / "link.mp4", [plain(50)] * 3, 10) == tmp_path / "link.mp4"
    assert (tmp_path / "link.mp4").is_symlink()
    assert len(list(frames(tmp_path / "there" / "real.mp4"))) == 3
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["real.mp4"]


def test_writing_that_fails_leaves_the_old_clip(tmp_path: Path) -> None:
    """A clip is written whole or not at all: what was there before stays, and no temporary file is left."""
    path = write_clip(tmp_path / "out.mp4", [plain(9)] * 3, 10)
    before = path.read_bytes()

    def breaking() -> Iterable[np.ndarray]:
        yield from [plain(200)] * 3
        raise RuntimeError("the camera fell")

    with pytest.raises(RuntimeError, match="fell"):
        write_clip(path, breaking(), 10)
    with pytest.raises(ValueError, match="must be uint8"):
        write_clip(path, [plain(9), plain(9, 32, 32)], 10)
    with pytest.raises(UserError, match="no frames"):
        write_clip(path, [], 10)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]
    with pytest.raises(UserError, match=r"written as \.mp4"):
        write_clip(tmp_path / "out.avi", [plain(9)], 10)
    with pytest.raises(ValueError, match="fps must be positive"):
        write_clip(path, [plain(9)], 0)
    with pytest.raises(ValueError, match="at most 1000, not 1000000"):  # it could not be decoded again
        write_clip(path, [plain(9)], 1_000_000)


def test_clips_are_told_by_their_names() -> None:
    """Clips end in .mp4, .MOV and the like; pictures, animations and text do not."""
    assert all(is_clip(name) for name in ("a.mp4", Path("b/C.MOV"), "d.e.webm", "x.avi", "y.mkv"))
    assert not any(is_clip(name) for name in ("a.jpg", "b.gif", "mp4", "c.txt", "d.csv"))
