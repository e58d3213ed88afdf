"""Judging: the figures agree with the logits, costs are counted right, and wrong use is one sentence."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fer_bench
from fer_bench import evaluate, robustness
from fer_bench.cards import Recipe, Track
from fer_bench.datasets import FaceSet
from fer_bench.emotions import FOUR, SEVEN
from fer_bench.evaluate import judge, main
from fer_bench.infer import Model, load, logits, macs
from fer_bench.methods import METHODS, build
from fer_bench.metrics import softmax
from fer_bench.records import Faithfulness
from fer_bench.results import read_logits, read_result, read_results, write_result
from fer_bench.statistics import Interval
from fer_bench.train import Options, Run
from tests.helpers import write_folder

LITTLE = Recipe(name="common-v1", epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` (7 emotions, splits) and `runs` (deep_emotion trained on it for one epoch)."""
    base = tmp_path_factory.mktemp("judged")
    name = f"folder:{write_folder(base / 'data')}"
    Run(METHODS["deep_emotion"], Track(name, name, name, (), name), LITTLE, Options(device="cpu"), base / "runs").fit()
    return base


@pytest.fixture
def model(base: Path) -> Model:
    return load("deep_emotion", f"folder:{base / 'data'}", runs=base / "runs")


def test_the_command_writes_result_logits_and_table(base: Path, tmp_path: Path) -> None:
    """One command leaves a record, the logits it can be recomputed from, the table and a figure."""
    track, out = f"folder:{base / 'data'}", tmp_path / "out"
    command = ["--method", "deep_emotion", "--track", track, "--runs", str(base / "runs"), "--out", str(out)]
    assert main(command) == 0
    (path,) = (out / "results").glob("*/deep_emotion/common-v1-s0.json")
    result, answers = read_result(path), read_logits(path)
    assert result.track == track
    assert result.data.test_pictures == len(answers.ids) == 28
    right = float((answers.logits.argmax(1) == answers.targets).mean())
    assert result.metrics["accuracy"].value == pytest.approx(right)
    assert result.trained.epochs == 1
    assert "deep_emotion" in (out / "LEADERBOARD.md").read_text()
    assert list((out / "figures").glob("*.png"))


def test_robustness_and_explanation_are_measured_where_asked_and_kept_otherwise(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags fill both blocks; judging again without them keeps both, but not those of other weights or data."""
    monkeypatch.setattr(evaluate, "measure_robustness", partial(robustness.measure_robustness, severities=(3,)))
    even = Interval(0, 0, 0)
    faithful = Faithfulness(
        cam="gradcam", pictures=28, seed=0, empty_maps=0.5, deletion=0.2, deletion_random=0.2, deletion_gain=even,
        insertion=0.3, insertion_random=0.3, insertion_gain=even,
    )  # fmt: skip
    monkeypatch.setattr(evaluate, "write_leaderboard", lambda out: [])  # drawing takes longest
    asked = []
    monkeypatch.setattr(
        evaluate, "measure_faithfulness", lambda model, faces, **_: asked.append((model.name, len(faces))) or faithful
    )
    track, out = f"folder:{base / 'data'}", tmp_path / "out"
    command = ["--method", "deep_emotion", "--track", track, "--runs", str(base / "runs"), "--out", str(out)]
    assert main([*command, "--robustness", "--explanation"]) == 0
    (path,) = (out / "results").glob("*/deep_emotion/common-v1-s0.json")
    first = read_result(path)
    assert first.robustness.pictures == 28
    assert (asked, first.explanation) == ([("deep_emotion", 28)], faithful)
    assert first.robustness.clean.value == pytest.approx(first.metrics["accuracy"].value)
    assert main(command) == 0
    second = read_result(path)
    assert (second.robustness, second.explanation) == (first.robustness, first.explanation)
    assert second.date >= first.date

    for change in (
        {"weights": replace(second.weights, sha256="0" * 64)},
        {"data": replace(second.data, hash="0" * 64)},
    ):
        write_result(replace(second, **change), out)
        assert evaluate.standing(second, out) is None
        assert evaluate.completed(second, None, load_faces(track), out) == second
    older = replace(second, robustness=replace(second.robustness, suite="faces-0"))
    write_result(older, out)
    kept = evaluate.completed(replace(second, robustness=None, explanation=None), None, load_faces(track), out)
    assert (kept.robustness, kept.explanation) == (None, second.explanation)


def load_faces(track: str) -> FaceSet:
    return fer_bench.load_dataset(track, "test")


def test_a_folder_with_fewer_emotions_is_scored_over_the_shared_ones(model: Model, tmp_path: Path) -> None:
    """A seven-emotion model on pictures of four answers among the four, and the result says so."""
    track = f"folder:{write_folder(tmp_path / 'four', emotions=FOUR, splits=False)}"
    result = fer_bench.benchmark(model, track)
    assert result.emotions == FOUR
    assert result.shared_emotions_only
    assert np.array(result.confusion_matrix).shape == (4, 4)
    faces = fer_bench.load_dataset(track)
    columns = [SEVEN.index(emotion) for emotion in FOUR]
    answers = judge(model, faces, Track(track, track, track, (), "fer2013"))
    assert np.allclose(softmax(answers.logits), softmax(logits(model, faces.images)[:, columns]), atol=1e-6)


def test_pictures_of_emotions_that_the_model_does_not_know_are_left_out(model: Model, tmp_path: Path) -> None:
    """Contempt is not among FER2013's seven: such pictures are not scored."""
    folder = write_folder(tmp_path / "eight", splits=False, per_class=2)
    (folder / "contempt").mkdir()
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(folder / "contempt" / "0.png")
    result = fer_bench.benchmark(model, f"folder:{folder}")
    assert result.emotions == SEVEN
    assert result.data.test_pictures == 14
    assert not result.shared_emotions_only


def test_one_shared_emotion_is_too_few(model: Model, tmp_path: Path) -> None:
    """There is nothing to judge where only one emotion is shared."""
    folder = write_folder(tmp_path / "one", emotions=("fear",), splits=False)
    with pytest.raises(evaluate.UserError, match="share 1 emotion"):
        fer_bench.benchmark(model, f"folder:{folder}")


def test_duplicates_of_training_pictures_are_counted_and_left_out(base: Path, tmp_path: Path) -> None:
    """A test picture that also stands in train is counted, and a second accuracy is given without it."""
    folder = write_folder(tmp_path / "dup")
    for emotion in ("anger", "fear", "neutral"):
        source = folder / "train" / emotion / "0.png"
        (folder / "test" / emotion / "0.png").write_bytes(source.read_bytes())
    track = f"folder:{folder}"
    own = Track(track, track, track, (), track)
    Run(METHODS["deep_emotion"], own, LITTLE, Options(device="cpu"), tmp_path / "runs").fit()
    faces, train = (fer_bench.load_dataset(track, split) for split in ("test", "train"))
    duplicates = fer_bench.datasets.duplicated_in(faces, train)
    answers = judge(load("deep_emotion", track, runs=tmp_path / "runs"), faces, own, duplicates)
    assert answers.result.data.duplicates_in_train == 3
    kept = ~duplicates
    expected = float((answers.logits.argmax(1) == answers.targets)[kept].mean())
    assert answers.result.metrics["accuracy_without_duplicates"].value == pytest.approx(expected)


def test_an_unreadable_picture_is_named_in_the_result(model: Model, tmp_path: Path) -> None:
    """One broken picture among others is reported by name, skipped, and not counted as scored."""
    folder = write_folder(tmp_path / "broken", splits=False, per_class=1)
    (folder / "fear" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    result = fer_bench.benchmark(model, f"folder:{folder}")
    assert result.data.test_pictures == 7
    assert len(result.data.skipped) == 1
    assert "torn.png" in result.data.skipped[0]


def test_macs_are_the_layers_own() -> None:
    """small_cnn's multiply-accumulates equal the sum over its layers, worked by hand."""
    sides, widths = (48, 48, 24, 12, 6, 3), (1, 32, 64, 128, 256, 512, 1024)
    convolutions = sum(s * s * 4 * a * b for s, a, b in zip(sides, widths, widths[1:], strict=False))
    connected = 1024 * 512 + 512 * 512 * 2 + 512 * 7
    assert macs(build("small_cnn"), METHODS["small_cnn"].card.input) == convolutions + connected


def test_the_cost_is_measured_beside_the_reference(model: Model) -> None:
    """The ratio of latencies is that of the millisecond figures, and a tiny network is far below resnet18."""
    found = evaluate.cost(model)
    assert found.parameters == 48_587
    assert found.checkpoint_bytes == model.path.stat().st_size
    assert found.latency_ratio < 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "smal_cnn"], "Did you mean 'small_cnn'"),
        (["--method", "small_cnn", "--track", "rendred"], "Did you mean 'rendered'"),
        (["--method", "deep_emotion", "--track", "folder:nowhere"], "nowhere: there is no such folder"),
        (["--method", "deep_emotion", "--track", "csv:nowhere.csv"], "nowhere.csv: there is no such file"),
        (["--method", "vgg16", "--track", "rendered"], "no weights of vgg16"),
    ],
)
def test_wrong_use_ends_with_2_and_writes_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], says: str,
) -> None:  # fmt: skip
    """Unknown names, missing data and missing weights end with exit code 2, a sentence, and nothing written."""
    monkeypatch.setattr(evaluate, "weights_for", lambda method, *_: None if method == "vgg16" else base)
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_one_sentence(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without pictures says what it should hold."""
    (tmp_path / "empty").mkdir()
    command = ["--method", "deep_emotion", "--runs", str(base / "runs"), "--out", str(tmp_path / "out")]
    evaluate_weights = ["--track", f"folder:{tmp_path / 'empty'}"]
    assert main([*command, *evaluate_weights]) == 2
    assert "empty" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_committed_result_is_recomputable() -> None:
    """Each committed record's accuracy is what its own logits give, picture by picture."""
    root = Path(__file__).parent.parent / "leaderboard"
    for result in read_results(root):
        folder = root / "results" / result.track / result.method
        answers = read_logits(folder / f"{result.recipe}-s{result.seed}.npz")
        right = float((answers.logits.argmax(1) == answers.targets).mean())
        assert right == pytest.approx(result.metrics["accuracy"].value, abs=2e-3), (result.track, result.method)
