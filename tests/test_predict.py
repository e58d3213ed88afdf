"""python -m fer_bench.predict: rows for pictures, folders and globs; formats; what cannot be read."""

from __future__ import annotations

import csv
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from skimage import data

from fer_bench import predict, scoring
from fer_bench.cards import InputSpec
from fer_bench.emotions import FOUR, SEVEN
from fer_bench.faces import crop, detect_faces, open_picture
from fer_bench.infer import Model
from fer_bench.predict import columns, emotions_of, find_inputs, in_groups, main, score_picture
from fer_bench.video import write_clip
from tests.helpers import picture

EVERY = ["filepath", "face", "time", "method", "emotion", *SEVEN, "left", "top", "right", "bottom"]


def toy(name: str = "small_cnn", emotions: tuple[str, ...] = SEVEN, margin: float = 0.0, size: int = 24) -> Model:
    """A model whose answer depends on every pixel, with fixed weights."""
    generator = torch.Generator().manual_seed(len(emotions))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size * size, len(emotions)))
    torch.nn.init.normal_(network[1].weight, std=0.05, generator=generator)
    return Model(name, network.eval(), InputSpec(size, 1, (0.5,), (0.25,), margin), emotions, {})


MODELS = {"small_cnn": toy(), "deep_emotion": toy("deep_emotion", FOUR, 0.3, 20)}


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The command loads the toys, but for tests that want the real weights."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(predict, "load", lambda name, *rest: MODELS[name])


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    """A real portrait in the public domain, 512 x 512, RGB, with one face."""
    return Image.fromarray(data.astronaut())


def album(root: Path, count: int, clips: int = 0) -> Path:
    """A folder of pictures without faces, in two levels, and clips."""
    (root / "more").mkdir(parents=True)
    for index in range(count):
        folder = root / "more" if index % 3 == 0 else root
        Image.fromarray(picture(index % 7, index)).save(folder / f"{index:03d}.png")
    for index in range(clips):
        write_clip(root / f"{index * 40 + 5:03d}.mp4", [np.dstack([picture(i % 7, i)] * 3) for i in range(20)], 10)
    return root


def run(*arguments: object) -> int:
    """The command's exit code."""
    return main([str(argument) for argument in arguments])


def read(path: Path) -> list[dict]:
    """The rows of a CSV, numbers as numbers and empty cells as None."""
    texts = ("filepath", "method", "emotion")
    with path.open(newline="") as file:
        return [
            {key: value if key in texts else float(value) if value else None for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def test_the_columns_of_a_picture(astronaut: Image.Image) -> None:
    """A picture's row: its name, face 1, no time, the method, its likeliest emotion, scores that sum to 1, the box."""
    (row,) = score_picture(astronaut, "a.png", [MODELS["small_cnn"]])
    assert list(row) == columns(SEVEN) == EVERY
    (face,) = detect_faces(astronaut)
    assert (row["filepath"], row["face"], row["time"], row["method"]) == ("a.png", 1, None, "small_cnn")
    assert (row["left"], row["top"], row["right"], row["bottom"]) == face.box
    assert sum(row[emotion] for emotion in SEVEN) == pytest.approx(1, abs=4e-6)
    assert row["emotion"] == max(SEVEN, key=row.get)


def test_each_model_sees_the_face_as_it_wants_it(astronaut: Image.Image) -> None:
    """Scores are those of `Model.predict` on the face cut out with that model's own margin."""
    (face,) = detect_faces(astronaut)
    rows = score_picture(astronaut, "a", list(MODELS.values()))
    for row, model in zip(rows, MODELS.values(), strict=True):
        (expected,) = model.predict(crop(astronaut, face.box, model.input_spec.margin))
        assert {emotion: row[emotion] for emotion in model.emotions} == pytest.approx(expected, abs=1e-6)
    margins = [MODELS["deep_emotion"].predict(crop(astronaut, face.box, margin))[0]["anger"] for margin in (0, 0.3)]
    assert abs(margins[0] - margins[1]) > 1e-3


def test_from_python_a_photograph_is_scored_face_by_face(astronaut: Image.Image, tmp_path: Path) -> None:
    """`predict_faces` gives the boxes and scores that the command writes, for paths too, and [] where no face is."""
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(ImageOps.mirror(astronaut), (512, 0))
    two.save(tmp_path / "two.png")
    for model in MODELS.values():
        found = model.predict_faces(tmp_path / "two.png")
        rows = score_picture(two, "two", [model])
        assert [face.box for face, _ in found] == [tuple(row[side] for side in EVERY[-4:]) for row in rows]
        assert len(found) == 2
        for (_, scores), row in zip(found, rows, strict=True):
            assert scores == pytest.approx({emotion: row[emotion] for emotion in model.emotions}, abs=1e-6)
        assert model.predict_faces(np.full((200, 200), 128, np.uint8)) == []


def test_methods_with_other_emotions_share_the_columns(astronaut: Image.Image) -> None:
    """All methods of a run have the columns of all their emotions; what one does not know is empty."""
    models = [MODELS["deep_emotion"], MODELS["small_cnn"]]
    assert emotions_of(models) == SEVEN
    four, seven = score_picture(astronaut, "a", models)
    assert list(four) == list(seven) == EVERY
    assert [emotion for emotion in SEVEN if four[emotion] is None] == ["disgust", "fear", "surprise"]
    assert sum(four[emotion] for emotion in FOUR) == pytest.approx(1, abs=4e-6)
    assert None not in [seven[emotion] for emotion in SEVEN]


def test_several_faces_give_several_rows(astronaut: Image.Image) -> None:
    """Faces are numbered from the left, and each has its row per method."""
    pair = Image.new("RGB", (1024, 512))
    pair.paste(astronaut, (0, 0))
    pair.paste(ImageOps.mirror(astronaut), (512, 0))
    rows = score_picture(pair, "two", list(MODELS.values()))
    assert [(row["face"], row["method"]) for row in rows] == [
        (1, "small_cnn"), (1, "deep_emotion"), (2, "small_cnn"), (2, "deep_emotion"),
    ]  # fmt: skip
    assert rows[0]["left"] == rows[1]["left"] < 512 < rows[2]["left"]


@pytest.mark.parametrize("detect", [True, False])
def test_the_whole_picture_where_there_is_no_face(detect: bool) -> None:
    """Without a face, or without looking for one, the middle square is face 0 and has no box."""
    image = Image.fromarray(picture(3, 1))
    (row,) = score_picture(image, "a", [MODELS["small_cnn"]], detect)
    assert row["face"] == 0
    assert [row[side] for side in ("left", "top", "right", "bottom")] == [None] * 4
    (expected,) = MODELS["small_cnn"].predict(image)
    assert {emotion: row[emotion] for emotion in SEVEN} == pytest.approx(expected, abs=1e-6)


def test_pictures_without_a_face_are_told(
    astronaut: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever scores a folder of photographs hears how many rows are of no face; not where faces are not looked for."""
    astronaut.save(tmp_path / "a.png")
    Image.new("L", (90, 60), 128).save(tmp_path / "b.png")
    assert run(tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "s.csv") == 0
    told = (
        "no face was found for 1 of 2 rows (face 0): the middle square of the picture was taken, "
        "which says little unless it is one"
    )
    assert told in capsys.readouterr().err
    for more in ([tmp_path / "a.png"], [tmp_path / "b.png", "--no-detect"]):
        assert run(*more, "-o", tmp_path / "t.csv") == 0
        assert "no face was found" not in capsys.readouterr().err


def test_no_detect_ignores_faces(astronaut: Image.Image, tmp_path: Path) -> None:
    """--no-detect takes each picture whole even where there is a face."""
    astronaut.save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "-o", tmp_path / "s.csv", "--no-detect") == 0
    assert run(tmp_path / "a.png", "-o", tmp_path / "t.csv") == 0
    assert [row["face"] for row in read(tmp_path / "s.csv") + read(tmp_path / "t.csv")] == [0, 1]


def test_files_folders_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are themselves, folders all pictures and clips below, globs their matches; each file comes once."""
    monkeypatch.chdir(tmp_path)
    shown = ["a/x.png", "a/b/y.JPG", "a/c.mp4", "d/[1].png", "e.txt"]
    for name in [*shown, "a/b/.hidden.png", "a/.cache/z.png", "a/notes.txt"]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()

    def texts(*given: str) -> list[str]:
        return [str(path) for path in find_inputs(given)]

    assert texts("a") == ["a/c.mp4", "a/x.png", "a/b/y.JPG"]
    assert texts("e.txt", "a/x.png", "a") == ["e.txt", "a/x.png", "a/c.mp4", "a/b/y.JPG"]
    assert texts("a/*.png", "**/*.JPG") == ["a/x.png", "a/b/y.JPG"]
    assert texts("d/[1].png") == ["d/[1].png"]
    assert texts("*") == ["a/c.mp4", "a/x.png", "a/b/y.JPG", "d/[1].png", "e.txt"]
    assert texts("gone/*.png") == ["gone/*.png"]
    Path("d/linked").symlink_to("../a/b")
    Path("d/round").symlink_to("..")
    assert texts("d") == ["d/[1].png", "d/linked/y.JPG"]


def test_what_a_folder_has_besides_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of a folder that do not end as pictures or clips are told by their endings, and HEIC with its mend."""
    root = album(tmp_path / "in", 1)
    for name in ("a.HEIC", "more/b.heic", "notes.txt", "README", ".hidden.txt"):
        (root / name).touch()
    assert run(root, "-o", tmp_path / "s.csv") == 0
    (said, _faceless) = capsys.readouterr().err.splitlines()
    left = "files whose names do not end as those of pictures or clips were left out: .heic (2), "
    assert said.startswith(left)
    for part in (".txt (1)", "none (1)", "; HEIC cannot be opened here: save it as JPEG"):
        assert part in said
    (root / "a.HEIC").rename(tmp_path / "void.heic")
    (tmp_path / "void").mkdir()
    (tmp_path / "void.heic").rename(tmp_path / "void" / "a.heic")
    assert run(tmp_path / "void", "-o", tmp_path / "t.csv") == 2
    assert "left out: .heic (1); HEIC cannot be opened" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.jpe", "a.JP2", "a.pnm", "a.tga"])
def test_rarer_endings_are_pictures_too(name: str, tmp_path: Path) -> None:
    """A folder's pictures in less usual formats are scored as others are."""
    Image.fromarray(picture(1, 1)).save(tmp_path / name)
    assert run(tmp_path, "-o", tmp_path.with_suffix(".csv")) == 0
    assert [Path(row["filepath"]).name for row in read(tmp_path.with_suffix(".csv"))] == [name]


def test_groups_are_pictures_together_and_clips_alone() -> None:
    """Up to GROUP pictures are scored together; a clip is a group of its own; the order stays."""
    names = [Path(f"{i}.png") for i in range(predict.GROUP + 2)] + [Path("a.mp4"), Path("b.mp4"), Path("c.png")]
    groups = in_groups(names)
    assert [len(group) for group in groups] == [predict.GROUP, 2, 1, 1, 1]
    assert [name for group in groups for name in group] == names


def test_three_formats_hold_the_same_rows(tmp_path: Path) -> None:
    """CSV, JSON lines and parquet of the same inputs hold the same rows, columns and numbers."""
    root = album(tmp_path / "in", 5, clips=1)
    for suffix in (".csv", ".jsonl", ".parquet"):
        assert run(root, "-o", tmp_path / f"s{suffix}", "--no-detect", "--method", "small_cnn", "deep_emotion") == 0
    rows = read(tmp_path / "s.csv")
    assert len(rows) == (5 + 10) * 2
    assert rows == [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.schema.names == list(rows[0]) == EVERY
    assert rows == table.to_pylist()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "s.csv", "s.jsonl", "s.parquet"]


def test_rows_of_a_file_are_those_of_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes what `score_picture` gives, batch or not."""
    monkeypatch.setattr(predict, "GROUP", 4)
    root = album(tmp_path / "in", 10)
    assert run(root, "-o", tmp_path / "s.jsonl", "--workers", 3) == 0
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    paths = find_inputs([str(root)])
    assert [row["filepath"] for row in rows] == [str(path) for path in paths]
    for row, path in zip(rows, paths, strict=True):
        assert row == pytest.approx(score_picture(open_picture(path), str(path), [MODELS["small_cnn"]])[0], abs=2e-6)


def test_one_group_is_read_ahead_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a group is scored the next one's pictures are opened, and never a third's: memory does not grow."""
    monkeypatch.setattr(predict, "GROUP", 4)
    opened, scored, waiting = [], [], []
    whole: Callable = scoring.score_prepared

    def score(batch: list, models: list) -> list:
        deadline = time.monotonic() + 20
        while len(opened) < min(len(scored) + 8, 14) and time.monotonic() < deadline:
            time.sleep(0.002)  # the pool opens them meanwhile
        waiting.append(len(opened) - len(scored))
        scored.extend(batch)
        return whole(batch, models)

    monkeypatch.setattr(scoring, "score_prepared", score)
    monkeypatch.setattr(predict, "open_picture", lambda path: opened.append(path) or open_picture(path))
    assert run(album(tmp_path / "in", 14), "-o", tmp_path / "s.csv", "--no-detect", "--workers", 3) == 0
    assert waiting == [8, 8, 6, 2]


def test_onnx_runtime_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--runtime onnx asks the same networks through ONNX Runtime: every number is torch's to 1e-4."""
    root, asked = album(tmp_path / "in", 5, clips=1), []
    whole: Callable = predict.onnx_model
    monkeypatch.setattr(predict, "onnx_model", lambda model: asked.append(whole(model)) or asked[-1])
    for runtime in ("torch", "onnx"):
        options = ["--method", "small_cnn", "deep_emotion", "--runtime", runtime, "--no-detect"]
        assert run(root, "-o", tmp_path / f"{runtime}.csv", *options) == 0
    assert [model.name for model in asked] == ["small_cnn", "deep_emotion"]
    for ours, theirs in zip(read(tmp_path / "torch.csv"), read(tmp_path / "onnx.csv"), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-4)


def test_without_onnxruntime_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--runtime onnx where it is not installed names the extra that brings it, with exit code 2, and writes nothing."""
    whole = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else whole(name))
    assert run(album(tmp_path / "in", 1), "-o", tmp_path / "s.csv", "--runtime", "onnx") == 2
    assert capsys.readouterr().err == "error: onnxruntime is not installed; run: pip install 'fer_bench[onnx]'\n"
    assert not (tmp_path / "s.csv").exists()


def test_what_cannot_be_read_is_listed_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Broken, empty and missing files are named on standard error with exit code 1; every good row is written."""
    root = album(tmp_path / "in", 6, clips=1)
    (root / "001.jpg").write_text("Dear diary, today I was happy.")
    (root / "zz.mp4").write_text("Dear diary, today I was sad.")
    (root / "empty.png").touch()
    for suffix in (".csv", ".jsonl", ".parquet"):
        out = tmp_path / f"s{suffix}"
        assert run(root, tmp_path / "gone.png", "-o", out, "--no-detect") == 1
        said = capsys.readouterr().err
        assert "4 of 11 files could not be read, or not whole:" in said
        for name in ("001.jpg", "zz.mp4", "empty.png", "gone.png"):
            assert sum(name in line for line in said.splitlines()) == 1
    rows = read(tmp_path / "s.csv")
    assert len(rows) == 6 + 10
    assert pq.read_table(tmp_path / "s.parquet").num_rows == 16


def test_nothing_readable_at_all(tmp_path: Path) -> None:
    """Where every file is broken the output has its columns and no rows, and the exit code is 1."""
    (tmp_path / "a.png").write_text("no")
    assert run(tmp_path / "a.png", "-o", tmp_path / "s.csv") == 1
    assert (tmp_path / "s.csv").read_text() == ",".join(EVERY) + "\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["in"], "give -o FILE"),
        (["in", "-o", "s.txt"], "scores are written as .csv, .jsonl, .parquet"),
        (["in", "-o", "folder.csv"], "this is a folder"),
        (["void", "-o", "s.csv"], "there are no pictures or clips in void"),
        (["gone.png", "gone/*.jpg", "-o", "s.csv"], "there is no file, folder or match of gone.png, gone/*.jpg"),
        (["in", "-o", "s.csv", "--method", "small_cn"], "Did you mean 'small_cnn'?"),
        (["in", "-o", "s.csv", "--track", "nowhere"], "nowhere"),
        (["in", "--video", "s.mp4"], "--video needs one clip"),
        (["in/005.mp4", "--video", "s.avi"], "written as .mp4"),
        (["in/005.mp4", "--video", "in/../in/005.mp4"], "this is the clip itself; give --video another name"),
        (["in/005.mp4", "--video", "s.mp4", "--cam", "grad"], "there is no CAM 'grad'"),
        (["in", "-o", "s.csv", "--cam", "gradcam"], "--cam is drawn into a clip"),
        (["in", "-o", "s.csv", "--representative", "3", "--limit", "2"], "--representative chooses"),
        (["in/005.mp4", "--video", "s.mp4", "--resume"], "leave out --resume"),
        (["in/005.mp4", "--video", "s.mp4", "--cam", "gradcam", "--runtime", "onnx"], "gives no gradients"),
        (["in", "-o", "s.csv", "--runtime", "onnx", "--device", "cuda"], "runs on the CPU here: leave out"),
        (["in", "-o", "s.csv", "--device", "gpu0"], "there is no device 'gpu0' here; leave out --device"),
        (["in", "-o", "s.csv", "--device", "cuda:99"], "there is no device 'cuda:99' here"),
    ],
)
def test_wrong_use(
    arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Wrong use is one sentence on standard error, exit code 2, and no file."""
    monkeypatch.chdir(tmp_path)
    album(tmp_path / "in", 1, clips=1)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "void").mkdir()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.csv", "in", "void"]


@pytest.mark.parametrize(("option", "value"), [("--per-second", "0"), ("--per-second", "nan"), ("--limit", "-1")])
def test_numbers_that_make_no_sense(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate or limit that is not positive is wrong use."""
    with pytest.raises(SystemExit) as caught:
        run("a.png", "-o", "s.csv", option, value)
    assert caught.value.code == 2
    kind = "positive number" if option == "--per-second" else "positive whole number"
    assert f"invalid {kind} value" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the output's folder is a file, one sentence says so and the exit code is 1."""
    root = album(tmp_path / "in", 1)
    (tmp_path / "file").touch()
    assert run(root, "-o", tmp_path / "file" / "s.csv") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert str(tmp_path / "file") in said


@pytest.mark.slow
def test_the_astronaut_smiles(tmp_path: Path, astronaut: Image.Image) -> None:
    """The shipped network says of a real, smiling portrait that it is happy."""
    astronaut.save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "-o", tmp_path / "s.csv") == 0
    (row,) = read(tmp_path / "s.csv")
    assert row["emotion"] == "happiness"
    assert row["happiness"] > 0.5
