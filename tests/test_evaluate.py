"""Judging: the figures agree with the logits, costs are counted right, and wrong use is one sentence."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fer_bench
from fer_bench import costs, evaluate, infer, judged, leaderboard, robustness
from fer_bench.cards import Recipe, Track
from fer_bench.datasets import FaceSet
from fer_bench.datasets.rendered import draw_split
from fer_bench.emotions import FOUR, SEVEN
from fer_bench.errors import DataError, UserError
from fer_bench.evaluate import judge, main
from fer_bench.infer import Model, load, logits, macs
from fer_bench.methods import METHODS, build
from fer_bench.options import arguments_from
from fer_bench.protocols import TRACKS
from fer_bench.records import Faithfulness
from fer_bench.results import as_saved, read_logits, read_result, write_result
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


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures are drawn, nothing is timed: both take longer than what is tested."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))


def command(base: Path, out: Path, *more: str) -> list[str]:
    """The arguments that judge deep_emotion, trained in `base`, on the test split of its own data."""
    own = ["--track", f"folder:{base / 'data'}", "--runs", str(base / "runs"), "--out", str(out)]
    return ["--method", "deep_emotion", *own, *more]


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(("name", "content"), [("results/rendered/zzz/common-v1-s0.json", "{"), ("peers.json", "[1]")])
def test_a_broken_file_in_the_folder_costs_its_own_row_only(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    """The table of the rest is written, the file is named, and the exit code is 1."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    assert main(command(base, tmp_path)) == 1
    assert str(tmp_path / name) in capsys.readouterr().err
    assert "`deep_emotion`" in (tmp_path / "LEADERBOARD.md").read_text()


@pytest.mark.usefixtures("cheap")
def test_broken_weights_and_missing_data_do_not_stop_the_rest(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken weight file is exit code 1, data that was named and is missing 2; the other rows and the table come."""
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors")
    weights_for = infer.weights_for
    for module in (evaluate, infer):
        monkeypatch.setattr(
            module, "weights_for", lambda method, *more: broken if method == "awei" else weights_for(method, *more)
        )
    assert main(command(base, tmp_path / "one", "--method", "awei", "deep_emotion")) == 1
    said = capsys.readouterr().err
    assert "broken.safetensors: this is not a readable safetensors file" in said
    assert "`deep_emotion`" in (tmp_path / "one" / "LEADERBOARD.md").read_text()
    tracks = ["folder:nowhere", f"folder:{base / 'data'}"]
    assert main(command(base, tmp_path / "two", "--track", *tracks)) == 2
    assert "nowhere: there is no such folder" in capsys.readouterr().err
    assert "`deep_emotion`" in (tmp_path / "two" / "LEADERBOARD.md").read_text()


@pytest.mark.usefixtures("cheap")
def test_answers_that_are_not_finite_are_one_sentence(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that answer NaN end with a sentence that names the method and exit code 1, and no result."""
    monkeypatch.setattr(evaluate, "logits", lambda _model, images, *_: np.full((len(images), 7), np.nan))
    assert main(command(base, tmp_path)) == 1
    assert "deep_emotion answers 28 of 28 pictures of folder:" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("cheap")
def test_an_interrupt_keeps_what_was_finished(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the second track: one sentence, exit code 1, and a table that holds the first."""
    load_dataset = evaluate.load_dataset

    def stopped(name: str, split: str) -> FaceSet:
        if name == "rendered":
            raise KeyboardInterrupt
        return load_dataset(name, split)

    monkeypatch.setattr(evaluate, "load_dataset", stopped)
    assert main(command(base, tmp_path, "--track", f"folder:{base / 'data'}", "rendered")) == 1
    assert "interrupted; the results that were finished are kept." in capsys.readouterr().err
    assert "`deep_emotion`" in (tmp_path / "LEADERBOARD.md").read_text()


def test_an_output_folder_that_cannot_be_written_is_said_before_inference(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder below a file is exit code 1, as with predict, and one sentence, and no model is loaded."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(evaluate, "load", lambda *_: pytest.fail("a model was loaded"))
    assert main(command(base, tmp_path / "file" / "out")) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "file" / "out") in said
    assert "cannot be written" in said


@pytest.mark.usefixtures("cheap")
def test_weights_that_are_not_of_the_given_runs_are_said(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A --runs that is no folder, or has nothing of what is asked for, is wrong use; what it lacks beside is named."""
    typo = ["--track", "rendered", "--runs", str(tmp_path / "typo")]
    assert main(command(base, tmp_path / "out", *typo)) == 2
    assert f"{tmp_path / 'typo'}: there is no such folder of training runs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    assert main(command(base, tmp_path / "out", "--runs", str(tmp_path / "empty"))) == 2
    assert f"{tmp_path / 'empty'} holds no weights of deep_emotion for folder:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(command(base, tmp_path / "out", "--method", "small_cnn", "deep_emotion")) == 0
    said = capsys.readouterr().err
    assert f"small_cnn: {base / 'runs'} holds no such run, so " in said
    assert "small_cnn-fer2013-common-v1-s0.safetensors is judged." in said
    assert "deep_emotion: " not in said
    tracks = ["--method", "deep_emotion", "small_cnn", "--costs"]
    assert main(command(base, tmp_path / "out", *tracks)) == 0


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


def test_what_another_evaluation_wrote_meanwhile_is_kept(
    base: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An explanation that is written while robustness is measured stands in the record afterwards."""
    faces = load_faces(f"folder:{base / 'data'}")
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))
    result = judge(model, faces, Track(faces.name, faces.name, faces.name, (), faces.name)).result
    even = Interval(0, 0, 0)
    faithful = Faithfulness(
        cam="gradcam", pictures=28, seed=0, empty_maps=0.5, deletion=0.2, deletion_random=0.2, deletion_gain=even,
        insertion=0.3, insertion_random=0.3, insertion_gain=even,
    )  # fmt: skip
    write_result(result, tmp_path)

    def meanwhile(*_: object, **__: object) -> None:
        write_result(replace(result, explanation=faithful), tmp_path)

    monkeypatch.setattr(evaluate, "measure_robustness", meanwhile)
    assert evaluate.completed(result, model, faces, tmp_path, robustness=True).explanation == faithful


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
    assert np.array_equal(answers.logits, as_saved(logits(model, faces.images)[:, columns]))


def test_pictures_of_emotions_that_the_model_does_not_know_are_left_out(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Contempt is not among FER2013's seven: such pictures are not scored, which the record and the command say."""
    folder = write_folder(tmp_path / "eight", splits=False, per_class=2)
    (folder / "contempt").mkdir()
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(folder / "contempt" / "0.png")
    result = fer_bench.benchmark(model, f"folder:{folder}")
    assert result.emotions == SEVEN
    assert result.data.test_pictures == 14
    assert not result.shared_emotions_only
    note = "deep_emotion does not know contempt: pictures of the test split are left out (1 of contempt)"
    assert result.data.notes == [note]
    assert f"folder:{folder}: {note}.\n" in capsys.readouterr().err


def test_validation_pictures_of_emotions_that_training_lacks_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What epochs are chosen by is not to shrink without a word."""
    folder = write_folder(tmp_path / "faces")
    (folder / "train" / "neutral").rename(tmp_path / "gone")
    track = f"folder:{folder}"
    Run(METHODS["deep_emotion"], Track(track, track, track, (), track), LITTLE, Options(device="cpu"), tmp_path / "r")
    told = "its train split has no neutral: pictures of the validation split are left out (4 of neutral)"
    assert f"{track}: {told}.\n" in capsys.readouterr().err


def test_weights_are_not_judged_on_what_selected_them(model: Model, tmp_path: Path) -> None:
    """A model of fer2013, selected on PublicTest, is refused where PublicTest is part of the test."""
    folder = f"folder:{write_folder(tmp_path / 'data')}"
    faces = replace(fer_bench.load_dataset(folder), name="fer2013-merged")
    model.record["track"] = "fer2013"
    with pytest.raises(UserError, match="deep_emotion cannot be judged on fer2013-merged: weights of fer2013 were sel"):
        fer_bench.benchmark(model, faces)
    model.record["track"] = "fer2013-6-merged"
    assert fer_bench.benchmark(model, faces).data.test_pictures == 28


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


@pytest.mark.usefixtures("cheap")
def test_leaks_within_ones_own_folder_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights trained on a folder are judged on its test split with the pictures counted that also stand in train."""
    folder = write_folder(tmp_path / "data")
    (folder / "test" / "fear" / "0.png").write_bytes((folder / "train" / "fear" / "0.png").read_bytes())
    name = f"folder:{folder}"
    method, runs = METHODS["deep_emotion"], tmp_path / "runs"
    Run(method, Track(name, name, name, (), name), LITTLE, Options(device="cpu"), runs).fit()
    assert main(command(tmp_path, tmp_path / "out")) == 0
    (path,) = (tmp_path / "out" / "results").glob("*/deep_emotion/*.json")
    assert read_result(path).data.duplicates_in_train == 1
    shipped = ["--method", "deep_emotion", "--track", name, "--out"]
    before = path.read_bytes()
    assert main([*shipped, str(tmp_path / "out")]) == 1
    told = f"{path} is a row of weights of {name}, and these are of fer2013; give another folder to --out"
    assert told in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main([*shipped, str(tmp_path / "shipped")]) == 0
    (path,) = (tmp_path / "shipped" / "results").glob("*/deep_emotion/*.json")
    assert read_result(path).data.duplicates_in_train is None  # of the shipped weights, which saw FER2013


def test_only_training_pictures_of_the_tracks_emotions_count_as_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test picture that stands in train under an emotion that the track leaves out was never trained on."""
    folder = write_folder(tmp_path / "data")
    for train, test in (("fear", "anger"), ("sadness", "neutral")):
        (folder / "test" / test / "0.png").write_bytes((folder / "train" / train / "0.png").read_bytes())
    name = f"folder:{folder}"
    track = Track(name, name, name, FOUR, name)
    faces = fer_bench.load_dataset(name, "test").restrict(FOUR)
    mask, unknown = evaluate.duplicates_in_train(faces, track)
    assert (mask.sum(), unknown) == (1, "")


def test_a_training_split_that_cannot_be_read_does_not_stop_the_judging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result comes without the count of duplicates, and why is said."""
    load_dataset = evaluate.load_dataset

    def without_train(name: str, split: str) -> FaceSet:
        if split == "train":
            raise DataError("fer2013: no training pictures.")
        return load_dataset("rendered", split).limit(14)

    for module in (evaluate, judged):
        monkeypatch.setattr(module, "load_dataset", without_train)
    written, skipped = evaluate.evaluate(["deep_emotion"], ["fer2013"], tmp_path, strict=True)
    assert written == 1
    assert skipped == ["the search for fer2013's test pictures in its training split: fer2013: no training pictures."]
    result = read_result(tmp_path / "results" / "fer2013" / "deep_emotion" / f"{LITTLE.name}-s0.json")
    assert result.data.duplicates_in_train is None
    assert "accuracy_without_duplicates" not in result.metrics


def test_an_unreadable_picture_is_named_in_the_result(model: Model, tmp_path: Path) -> None:
    """One broken picture among others is reported by name, skipped, and not counted as scored."""
    folder = write_folder(tmp_path / "broken", splits=False, per_class=1)
    (folder / "fear" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    result = fer_bench.benchmark(model, f"folder:{folder}")
    assert result.data.test_pictures == 7
    assert len(result.data.skipped) == 1
    assert "torn.png" in result.data.skipped[0]


def test_no_record_tells_where_the_data_lies(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are published: a picture that was left out is named from the data set's own folder on."""
    (tmp_path / "rafdb").mkdir()
    monkeypatch.setenv("FER_BENCH_DATA", str(tmp_path))
    line = f"{tmp_path / 'rafdb' / 'deep' / '1.png'}: there is no such file"
    faces = replace(draw_split("test", 14), name="rafdb", skipped=(line,))
    result = judge(model, faces, TRACKS["rendered"]).result
    assert result.data.skipped == [f"{Path('deep') / '1.png'}: there is no such file"]


def test_macs_are_the_layers_own() -> None:
    """small_cnn's multiply-accumulates equal the sum over its layers, worked by hand."""
    sides, widths = (48, 48, 24, 12, 6, 3), (1, 32, 64, 128, 256, 512, 1024)
    convolutions = sum(s * s * 4 * a * b for s, a, b in zip(sides, widths, widths[1:], strict=False))
    connected = 1024 * 512 + 512 * 512 * 2 + 512 * 7
    assert macs(build("small_cnn"), METHODS["small_cnn"].card.input) == convolutions + connected


def test_the_latency_ratio_is_that_of_the_quickest_answers(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy most of the time slows the reference alone, which needs more than one slice of time."""
    own, times = model.network, []

    def seconds(network: nn.Module, _face: object) -> float:
        busy = 30 if len(times) % 20 >= 6 else 1  # three pairs quiet, seven busy
        times.append(0.001 if network is own else 0.004 * busy)
        return times[-1]

    monkeypatch.setattr(infer, "_seconds", seconds)
    assert infer.latency_pair(model, seconds=0) == (pytest.approx(0.001), pytest.approx(0.25))
    assert len(times) == 2 * (infer.PAIRS + 2) > 30
    times.clear()
    infer.latency_pair(model, seconds=0, most=0)
    assert len(times) == 2 * (4 + 2)  # a slow network gets fewer


def test_the_cost_is_measured_beside_the_reference(model: Model) -> None:
    """The ratio of latencies is that of the millisecond figures, and a tiny network is far below resnet18."""
    found = costs.cost(model)
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


def test_the_command_for_missing_weights_names_what_was_asked_for(tmp_path: Path) -> None:
    """Recipe and seed stand in the hint where they were given, so that the command makes these very weights."""
    _, (line,) = evaluate.evaluate(["vgg16"], ["rendered"], tmp_path, recipe="light-v1", seed=3)
    assert line.endswith("python -m fer_bench.train --method vgg16 --track fer2013 --recipe light-v1 --seed 3")
    _, (line,) = evaluate.evaluate(["vgg16"], ["rendered"], tmp_path)
    assert line.endswith(
        "; add --runs runs once you have trained them with: python -m fer_bench.train --method vgg16 --track fer2013"
    )


def test_the_command_for_missing_weights_trains_where_they_are_looked_for(tmp_path: Path) -> None:
    """Into the --runs that were given, quoted for a shell, and no other folder has to be named then."""
    (tmp_path / "my runs").mkdir()
    _, (line,) = evaluate.evaluate(["vgg16"], ["rendered"], tmp_path, seed=3, runs=tmp_path / "my runs")
    told, _, pasted = line.partition("; train them with: ")
    assert told == "rendered: no weights of vgg16 (the recipe of its card, seed 3)"
    _, _, module, *arguments = shlex.split(pasted)
    assert module == "fer_bench.train"
    given = arguments_from(arguments)
    assert (given.method, given.track, given.seed, given.out) == (["vgg16"], "fer2013", 3, tmp_path / "my runs")


def test_an_empty_folder_is_one_sentence(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without pictures says what it should hold."""
    (tmp_path / "empty").mkdir()
    command = ["--method", "deep_emotion", "--runs", str(base / "runs"), "--out", str(tmp_path / "out")]
    evaluate_weights = ["--track", f"folder:{tmp_path / 'empty'}"]
    assert main([*command, *evaluate_weights]) == 2
    assert "empty" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_costs_alone_are_measured_anew_for_rows_of_the_same_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--costs changes nothing but costs: weights are timed once for all rows; records of others are left alone."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    timed = iter([(0.001, 0.5), (0.002, 0.6), (0.003, 0.7)])
    monkeypatch.setattr(costs, "latency_pair", lambda _: next(timed))
    assert main(command(base, tmp_path)) == main(command(base, tmp_path, "--tta", "flip")) == 0
    (path,) = (tmp_path / "results").glob("*/deep_emotion/common-v1-s0.json")
    mirrored = path.with_stem(path.stem + "-flip")
    before, before_mirrored = read_result(path), read_result(mirrored)
    monkeypatch.setattr(evaluate, "logits", lambda *_: pytest.fail("nothing is to be answered"))
    assert main(command(base, tmp_path, "--costs")) == 0
    after, after_mirrored = read_result(path), read_result(mirrored)
    assert (after.cost.latency_ms, after.cost.latency_ratio) == (3.0, 0.7)
    assert (after_mirrored.cost.latency_ms, after_mirrored.cost.latency_ratio) == (6.0, 1.4)
    assert after_mirrored.cost.macs == 2 * after.cost.macs
    assert replace(after, cost=before.cost) == before
    assert replace(after_mirrored, cost=before_mirrored.cost) == before_mirrored
    for record in (after, after_mirrored):
        write_result(replace(record, weights=replace(record.weights, sha256="0" * 64)), tmp_path)
    assert main(command(base, tmp_path, "--costs")) == 2
    assert "is of other weights than" in capsys.readouterr().err
    assert read_result(path).cost == after.cost


def test_latency_is_that_of_one_core(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """While networks are timed torch has one thread, and afterwards as many as before, after an error too."""
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(infer, "_seconds", lambda *_: seen.append(torch.get_num_threads()) or 0.001)
        infer.latency_pair(model, seconds=0, most=0)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(infer, "_seconds", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            infer.latency_pair(model)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
