"""python -m fer_bench.predict on clips: times, chosen frames, what is cut off, and clips with the answers drawn in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fer_bench.faces import detect_faces
from fer_bench.predict import annotate_clip, score_clip
from fer_bench.video import UnreadableClipError, frames, write_clip
from tests.helpers import picture
from tests.test_predict import MODELS, _toys, album, read, run  # noqa: F401 (_toys is a fixture)


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    """A real portrait in the public domain, 512 x 512, RGB, with one face."""
    return Image.fromarray(data.astronaut())


def test_a_clip_has_times(tmp_path: Path) -> None:
    """A clip's rows carry the seconds of its frames: five a second, or as asked for, or as many as allowed."""
    root = album(tmp_path / "in", 0, clips=1)
    for options, times in (
        ([], [i / 5 for i in range(10)]),
        (["--per-second", 2], [0, 0.5, 1, 1.5]),
        (["--per-second", 2, "--limit", 3], [0, 0.5, 1]),
    ):
        assert run(root, "-o", tmp_path / "s.csv", *options) == 0
        assert [row["time"] for row in read(tmp_path / "s.csv")] == pytest.approx(times)


def test_representative_frames_of_a_clip(tmp_path: Path) -> None:
    """--representative scores the chosen frames only: of a clip of seven pictures in turn, seven."""
    pictures = [np.dstack([picture(i // 3, i // 3)] * 3) for i in range(21)]
    write_clip(tmp_path / "a.mp4", pictures, 10)
    assert run(tmp_path / "a.mp4", "-o", tmp_path / "s.csv", "--representative", 3) == 0
    rows = read(tmp_path / "s.csv")
    assert len(rows) == 3
    assert len({int(row["time"] * 10) // 3 for row in rows}) == 3


def test_progress_of_a_clip(tmp_path: Path) -> None:
    """The progress of a clip rises to 1."""
    album(tmp_path / "in", 0, clips=1)
    fractions: list[float] = []
    path = tmp_path / "in" / "005.mp4"
    assert len(list(score_clip(path, [MODELS["small_cnn"]], 20, progress=fractions.append))) == 20
    assert fractions == sorted(fractions)
    assert len(fractions) >= 3
    assert fractions[-1] == 1
    with pytest.raises(UnreadableClipError):
        list(score_clip(tmp_path / "none.mp4", [MODELS["small_cnn"]]))


def test_a_clip_cut_off_gives_its_rows_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The frames of half a clip are scored, and the clip is listed."""
    album(tmp_path / "in", 0, clips=1)
    path = tmp_path / "in" / "005.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # its index stands in front
    assert run(path, "-o", tmp_path / "s.csv", "--per-second", 10) == 1
    assert 3 <= len(read(tmp_path / "s.csv")) < 20
    assert "part of this clip is broken or cut off" in capsys.readouterr().err


def test_an_annotated_clip(tmp_path: Path, astronaut: Image.Image) -> None:
    """--video writes the frames with a box around the face and the emotion above it, and with -o the scores too."""
    small = np.asarray(astronaut.resize((256, 256)))
    write_clip(tmp_path / "a.mp4", [np.roll(small, 6 * i, 1) for i in range(6)], 10)
    out, table = tmp_path / "out.mp4", tmp_path / "s.csv"
    methods = ["--method", "small_cnn", "deep_emotion"]
    assert run(tmp_path / "a.mp4", "--video", out, "-o", table, "--per-second", 5, *methods) == 0
    shown, source = list(frames(out)), list(frames(tmp_path / "a.mp4", 5))
    assert [frame.time for frame in shown] == pytest.approx([frame.time for frame in source], abs=0.01)
    rows = read(table)
    assert [row["method"] for row in rows] == ["small_cnn", "deep_emotion"] * 3
    for frame, before, row in zip(shown, source, rows[::2], strict=True):
        after, pixels = np.asarray(frame.image).astype(int), np.asarray(before.image).astype(int)
        left, top, bottom = (int(row[side]) for side in ("left", "top", "bottom"))
        edge = after[top + 8 : bottom - 8, left]  # yellow: no blue beside red and green
        assert (edge[:, :2].min(1) - edge[:, 2]).mean() > 80
        assert np.abs(after[200:] - pixels[200:]).mean() < 4  # the lower part is as it was


def test_an_annotated_clip_keeps_its_pauses(tmp_path: Path) -> None:
    """Uneven time stamps keep their pace: a pause holds the picture."""
    from tests.test_video import encode, plain

    source = encode(tmp_path / "a.mkv", [plain(20), plain(120), plain(220)], [0, 0.2, 1.4])
    out = annotate_clip(source, tmp_path / "out.mp4", MODELS["small_cnn"], per_second=5, detect=False)
    levels = [float(np.asarray(frame.image)[40, 50].mean()) for frame in frames(out)]
    assert levels == pytest.approx([20, *[120] * 6, 220], abs=6)


def test_a_clip_that_fails_leaves_no_video(tmp_path: Path) -> None:
    """A broken clip gives exit code 1 and no half-written video."""
    (tmp_path / "a.mp4").write_text("no clip")
    assert run(tmp_path / "a.mp4", "--video", tmp_path / "out.mp4") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.slow
def test_a_clip_with_a_cam(tmp_path: Path, astronaut: Image.Image) -> None:
    """--cam lays a map over the face and over nothing else."""
    write_clip(tmp_path / "a.mp4", [np.asarray(astronaut)] * 2, 2)
    shown = []
    for options in ([], ["--cam", "gradcam"]):
        assert run(tmp_path / "a.mp4", "--video", tmp_path / "out.mp4", *options) == 0
        shown.append(np.asarray(next(frames(tmp_path / "out.mp4")).image).astype(int))
    change = np.abs(shown[1] - shown[0]).mean(2)
    (face,) = detect_faces(astronaut)
    left, top, right, bottom = face.box
    assert change[top:bottom, left:right].max() > 40
    assert change[bottom + 40 :].max() < 30
