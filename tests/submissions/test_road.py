"""The road to the board: template, check, validate, queue and evaluate, as the documentation has them."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto
from onnxruntime import InferenceSession
from PIL import Image

from fer_bench import costs, files, leaderboard, submissions
from fer_bench.card_files import SUBMITTED, read_cards
from fer_bench.cards import InputSpec
from fer_bench.datasets import FaceSet, load_dataset
from fer_bench.emotions import SEVEN
from fer_bench.infer import load
from fer_bench.results import headline, read_logits, read_result
from fer_bench.submissions import behaviour, check, checks, exporting, judging, main, read_manifest, template, validate
from fer_bench.submissions.problems import Problem
from fer_bench.ui.method_card import method_card
from fer_bench.weights import pack, run_folder, write_tensors
from tests.helpers import picture, write_folder
from tests.submissions.models import FILLED, MANIFEST, after, faces, memory, model, node, submission, tensor, where_many


@pytest.fixture(autouse=True)
def _bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faces of a check are bars, which the hand-made models can read, and take no time to draw."""
    bars = faces()
    monkeypatch.setattr(behaviour, "rendered_faces", lambda: bars)


def zipped(folder: Path, inside: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, inside + file.name)
    return path


def test_the_template_is_a_manifest_but_for_what_its_authors_know() -> None:
    """Nobody hands in an author, a licence or training data that the template made up; the rest means what it says."""
    manifest, problems = read_manifest(template().encode())
    assert manifest is None
    assert [problem.code for problem in problems] == ["manifest_authors", "manifest_licence", "manifest_training_data"]
    manifest, problems = read_manifest(FILLED.encode())
    assert problems == []
    assert manifest.emotions == SEVEN
    assert manifest.input == InputSpec(48, 1, (0.5,), (0.25,))
    assert manifest.tracks == ("fer2013", "rendered")


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [("[0, 255]", 127.5, 63.75), ("[-1, 1]", 0.0, 0.5), ("[0, 1]", 0.5, 0.25)],
)
def test_every_range_means_the_same_input(text: str, mean: float, std: float) -> None:
    """Mean and std in any range of pixels fold into those of pixels in [0, 1]."""
    content = FILLED.replace("range: [0, 1]", f"range: {text}")
    content = content.replace("mean: [0.5]", f"mean: [{mean}]").replace("std: [0.25]", f"std: [{std}]")
    manifest, problems = read_manifest(content.encode())
    assert problems == []
    assert (manifest.input.mean, manifest.input.std) == ((pytest.approx(0.5),), (pytest.approx(0.25),))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("title: My model", f"title: {'x' * 121}", "(it has 121 characters; at most 120 are read)"),
        ("title: My model", 'title: "-"', "(it has no letter and no digit)"),
        ("licence: MIT", "licence: \u3164\u2800", "(it has no letter and no digit)"),
        ("https://example.org/paper", "http://example.org/paper", "must be an https link"),
        ("title: My model", 'title: "two\\nlines"', "(it holds a line break, or a character that cannot be shown)"),
        ("[FER2013 training split]", f"[{'x' * 201}]", "(it has 201 characters; at most 200 are read)"),
        ("[FER2013 training split]", f"[{'x, ' * 50}x]", "(it has 51 entries; at most 50 are read)"),
        (
            "std: [0.25]",
            "std: [1e-3]",
            "('1e-3' is text to YAML; write the number out, as in 0.001, and without quotes)",
        ),
        ("range: [0, 1]", 'range: [0, "255"]', "('255' is text to YAML;"),
        ("tracks: [fer2013,", "tracks: [FER2013,", "(there is no track 'FER2013'; did you mean 'fer2013'?)"),
    ],
)
def test_a_value_that_looks_right_is_told_its_mend(before: str, after: str, said: str) -> None:
    """Text that is too long, a number that YAML takes for text: what is expected is said already, so the reason is."""
    (problem,) = read_manifest(FILLED.replace(before, after).encode())[1]
    assert said in problem.text


def test_other_spellings_of_emotions_are_understood() -> None:
    """Happy is happiness; the order stays that of the outputs."""
    text = FILLED.replace("[anger, disgust, fear, happiness, sadness, surprise, neutral]", "[Happy, angry, sad]")
    manifest, problems = read_manifest(text.encode())
    assert problems == []
    assert manifest.emotions == ("happiness", "anger", "sadness")


def test_a_folder_and_its_zip_are_valid(tmp_path: Path, not_run: list[Path]) -> None:
    """The same submission passes as a folder, as a zip of its files and as a zip of the folder."""
    folder = submission(tmp_path / "s", model())
    for path in (folder, zipped(folder), zipped(folder, "s/")):
        report = validate(path)
        assert (report.ok, report.problems) == (True, ()), path
        assert report.summary.startswith("All checks passed")
    assert [path.name for path in not_run] == ["model.onnx"] * 3


def test_a_hostile_upload_is_reported(tmp_path: Path) -> None:
    """A zip's model is refused with the same reason as a folder's; what is neither zip nor folder is told so."""
    folder = submission(tmp_path / "s", model(opset=6))
    report = validate(zipped(folder))
    assert not report.ok
    assert [problem.code for problem in report.problems] == ["opset"]
    assert report.summary == "1 problem was found; nothing was evaluated."
    assert validate(folder / "model.onnx").problems[0].code == "no_folder"


def test_the_check_command_prints_all_and_tells_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 for a good folder, 1 for a bad one with every reason on a line of its own."""
    assert main(["check", str(submission(tmp_path / "good", model()))]) == 0
    bad = submission(tmp_path / "bad", model(opset=6), MANIFEST.replace("licence: MIT", ""))
    assert main(["check", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "- submission.yaml: licence is missing" in out
    assert "- model.onnx uses opset 6" in out


@pytest.mark.parametrize("command", ["check none", "evaluate none", "queue none", "queue none --check"])
def test_a_folder_that_is_not_there_is_wrong_use(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command answers with one sentence that names it and with exit code 2: an empty queue is something else."""
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: none: there is no such folder; give the ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e12", "soon"])
def test_a_time_limit_that_is_none_is_wrong_use(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit that would stop everything, or nothing, is refused before anything runs."""
    with pytest.raises(SystemExit) as caught:
        main(["check", "somewhere", f"--seconds={seconds}"])
    assert caught.value.code == 2
    assert "must be a number of seconds" in capsys.readouterr().err


def test_what_is_checked_is_told_with_its_reason() -> None:
    """Every entry of CHECKS has a title of its own and a whole sentence."""
    assert len({title for title, _ in submissions.CHECKS}) == len(submissions.CHECKS) >= 8
    assert all(why.endswith(".") for _, why in submissions.CHECKS)


def test_a_model_on_the_hub_is_told_how_to_be_fetched(tmp_path: Path) -> None:
    """Where nothing is fetched, a folder without its model is refused with the command that fetches and checks it."""
    folder = submission(tmp_path / "s", manifest=MANIFEST + f"\nhub: me/mine@{'a' * 40}\n")
    (problem,) = check(folder)
    assert f"`python -m fer_bench.submissions check hub:me/mine@{'a' * 40}`" in problem.text


@pytest.fixture
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No charts, a small reference network, and no timing of the parent's that a submission's own replaces."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.002))
    monkeypatch.setattr(judging, "REFERENCE", "deep_emotion_sequential")


@pytest.mark.usefixtures("_cheap")
def test_evaluate_measures_a_submission_as_external(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result holds the file's own parameters, a latency and the declared data; logits are in our order."""
    order = [3, 0, 1, 2, 4, 5, 6]
    manifest = MANIFEST.replace("[anger, disgust, fear, happiness,", "[happiness, anger, disgust, fear,")
    swapped = model(after(node("Gather", "answer order", "logits", axis=1)), [tensor("order", order, np.int64)])
    folder = submission(tmp_path / "s", swapped, manifest)
    track = f"folder:{write_folder(tmp_path / 'data')}"
    command = ["evaluate", str(folder), "--track", track, "--out", str(tmp_path / "board")]
    assert main(command) == 0
    told, place = capsys.readouterr().out.splitlines()
    path = Path(place)
    result, logits = read_result(path), read_logits(path)
    assert told == headline(result)
    assert f"accuracy {result.metrics['accuracy'].value:.4f} [" in told
    assert path.parts[-2:] == ("my_model", "submitted-s0.json")
    assert (result.external, result.verified, result.shared_emotions_only) == (True, False, False)
    assert result.emotions == SEVEN
    assert result.metrics["accuracy"].value == float((logits.logits.argmax(1) == logits.targets).mean()) > 0.99
    assert result.cost.parameters == 48 * 7
    assert result.cost.macs is None
    assert 0 < result.cost.latency_ms < 1000
    assert result.cost.latency_ratio not in (0, 0.5)  # of the submission's own process, not of the parent's timing
    assert result.weights.storage == "onnx"
    assert result.trained.pretrained == "declared: FER2013 training split"
    table = (tmp_path / "board" / "LEADERBOARD.md").read_text()
    who = "(submitted by First Author, Second Author, not verified)"
    assert f"`my_model` [My model](https://example.org/paper) {who}" in table
    text = method_card(result, read_cards(tmp_path / "board")["my_model"])
    for said in ("`my_model`: My model", "**Submitted by:** First Author, Second Author · <a href", "**Licence:** MIT"):
        assert said in text
    assert 'href="https://example.org/code"' in text
    assert "; trained elsewhere, as its authors declare on FER2013 training split; submitted, not verified" in text
    assert not re.search("the paper states|What is ours", text)
    assert "--method my_model" not in table  # not to be trained here, as methods without a row are
    monkeypatch.setattr(judging, "latencies", lambda *_: (0.001, 0.002))
    monkeypatch.setattr(checks, "BOARD", tmp_path / "board")  # its own card is no other model's
    with monkeypatch.context() as patch:
        patch.setattr(files, "commit", lambda: "0" * 40 + files.DIRTY)
        assert main([*command, "--verified"]) == 2
    assert "fer_bench/ differs from its own" in capsys.readouterr().err
    assert not read_result(path).verified
    monkeypatch.setattr(files, "commit", lambda: "0" * 40)
    assert main([*command, "--verified"]) == 0
    assert read_result(path).verified


@pytest.mark.usefixtures("_cheap")
def test_what_a_board_cannot_take_in_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken file of cards; one that can be read keeps the cards of the others."""
    folder, board = submission(tmp_path / "s", model()), tmp_path / "board"
    command = ["evaluate", str(folder), "--track", f"folder:{write_folder(tmp_path / 'data')}", "--out", str(board)]
    board.mkdir()
    (board / SUBMITTED).write_text('{"other": ')
    with monkeypatch.context() as patch:
        patch.setattr(judging, "measure_on", lambda *_, **__: pytest.fail("it was measured"))
        assert main(command) == 2
    said = capsys.readouterr().err
    assert f"{board / SUBMITTED} is broken" in said
    assert "take it back from git" in said
    (board / SUBMITTED).write_text('{"other": {"title": "Other"}}')
    assert main(command) == 0
    assert list(read_cards(board)) == ["my_model", "other"]


def test_a_refused_submission_leaves_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluation checks first: exit code 1, the reason, and no file."""
    folder = submission(tmp_path / "s", model(opset=6))
    assert main(["evaluate", str(folder), "--track", "rendered", "--out", str(tmp_path / "board")]) == 1
    assert "uses opset 6" in capsys.readouterr().out
    assert not (tmp_path / "board").exists()


def flipped_where_many(size: float = 1.0, added: float | list[float] = 0.0) -> ModelProto:
    """The honest model, whose answers turn into their contrary in batches of sixty-four. size, added: of all logits."""
    nodes, tensors = where_many(63)
    nodes += [
        node("Mul", "many two", "doubled"),
        node("Sub", "one doubled", "sign"),
        node("Mul", "answer sign", "turn"),
    ]
    nodes += [node("Mul", "turn size", "sized"), node("Add", "sized added", "logits")]
    values = {"one": 1.0, "two": 2.0, "size": size, "added": added}
    return model(after(*nodes), [*tensors, *(tensor(name, value) for name, value in values.items())])


def nan_where_many() -> ModelProto:
    """The honest model, but for batches of sixty-four, which all get NaN."""
    nodes, tensors = where_many(63)
    nodes += [node("Sub", "one many", "rest"), node("Div", "rest rest", "unit"), node("Mul", "answer unit", "logits")]
    return model(after(*nodes), [*tensors, tensor("one", 1.0)])


DIFFERENTLY = "faces differently when they were measured than when it was tried"


def all_but_the_even_sample(known: FaceSet) -> FaceSet:
    """The pictures that `limit` leaves out, which would be the ones to look at if it were known which are."""
    looked_at = set(known.limit(70).ids)
    return known.take([place for place, name in enumerate(known.ids) if name not in looked_at])


@pytest.mark.usefixtures("_cheap")
@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (memory, "the model answers from memory: "),
        (lambda known: memory(all_but_the_even_sample(known)), "the model answers from memory: "),
        (lambda _: flipped_where_many(), DIFFERENTLY),
        (lambda _: flipped_where_many(added=1e6), DIFFERENTLY),
        (lambda _: flipped_where_many(added=[0, -1e6, 0, 0, 0, 0, 0]), DIFFERENTLY),
        (lambda _: flipped_where_many(size=1e-6), DIFFERENTLY),
        (lambda _: nan_where_many(), "the model answers with NaN or infinity"),
    ],
    ids=[
        "all stored",
        "all stored but an even sample",
        "other answers in the batches of a measurement",
        "other answers behind a large constant",
        "other answers behind one large column",
        "tiny other answers",
        "NaN in the batches of a measurement",
    ],
)
def test_the_tracks_own_pictures_are_tried_too(
    hostile: Callable[[FaceSet], ModelProto],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model that every earlier check let pass, but that knows the track or its measurement, is refused on it."""
    stored = faces(20)
    for number, (image, label) in enumerate(zip(stored.images, stored.labels, strict=True)):
        path = tmp_path / "data" / SEVEN[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    monkeypatch.setattr(judging, "check", lambda *_, **__: [])
    monkeypatch.setattr(judging, "latencies", lambda *_: (0.001, 0.002))
    monkeypatch.setattr(judging, "SAMPLE", 70)
    track, board = f"folder:{tmp_path / 'data'}", tmp_path / "board"
    folder = submission(tmp_path / "s", hostile(load_dataset(track, "test")))
    assert main(["evaluate", str(folder), "--track", track, "--out", str(board)]) == 1
    assert reason in capsys.readouterr().out
    assert not board.exists()


@pytest.mark.usefixtures("_cheap")
def test_a_refusal_on_a_later_track_leaves_nothing_of_the_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records are written once every track has passed: what is said of a refused submission is true of the board."""
    monkeypatch.setattr(judging, "latencies", lambda *_: (0.001, 0.002))
    asked = []
    whole = judging.behaves
    refusal = [Problem("from_memory", "the second track is known.")]
    monkeypatch.setattr(judging, "behaves", lambda *a: asked.append(a) or (refusal if asked[1:] else whole(*a)))
    tracks = [f"folder:{write_folder(tmp_path / name)}" for name in ("one", "two")]
    folder, board = submission(tmp_path / "s", model()), tmp_path / "board"
    assert main(["evaluate", str(folder), "--track", *tracks, "--out", str(board)]) == 1
    assert "the second track is known" in (out := capsys.readouterr().out)
    assert "nothing was evaluated" in out
    assert not board.exists()


def test_tracks_without_data_alone_are_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where every track of a submission is skipped, this is said and the exit code is 2, as of `fer_bench.evaluate`."""
    monkeypatch.setenv("FER_BENCH_DATA", str(tmp_path / "empty"))
    folder = submission(tmp_path / "s", model(), MANIFEST.replace("[fer2013, rendered]", "[rafdb]"))
    assert main(["evaluate", str(folder), "--out", str(tmp_path / "board")]) == 2
    error = capsys.readouterr().err
    assert "skipped rafdb" in error
    assert error.endswith("nothing was evaluated.\n")


@pytest.mark.parametrize("command", [["evaluate", "s", "--out"], ["export", "deep_emotion_sequential", "-o"]],
                         ids=["evaluate", "export"])  # fmt: skip
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence and exit code 2; no model ran for it."""
    monkeypatch.chdir(tmp_path)
    submission(tmp_path / "s", model())
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(judging, "check", None)
    monkeypatch.setattr(exporting, "write_onnx", None)
    assert main([*command, "file/out"]) == 2
    assert capsys.readouterr().err.startswith("error: file/out: nothing can be written there (")


def test_a_zip_is_tried_on_the_data_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--on` holds for a zip as for a folder: data that is not there is wrong use, other data is tried."""
    archive = zipped(submission(tmp_path / "s", model()))
    assert main(["check", str(archive), "--on", f"folder:{tmp_path / 'none'}"]) == 2
    assert "none" in capsys.readouterr().err
    wrong = tmp_path / "wrong"
    for place in range(7):
        (wrong / SEVEN[place - 1]).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(picture(place, 100 * place + number)).save(wrong / SEVEN[place - 1] / f"{number}.png")
    assert main(["check", str(archive), "--on", f"folder:{wrong}"]) == 1
    assert "the emotions seem to be in another order" in capsys.readouterr().out


def test_the_export_command_writes_a_folder_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A method with weights is exported; an unknown one is answered with the nearest name and exit code 2."""
    assert main(["export", "deep_emotion_sequential", "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "submission.yaml"}
    assert main(["export", "smal_cnn", "-o", str(tmp_path / "other")]) == 2
    assert "Did you mean 'small_cnn'?" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_one_s_own_training_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --runs the weights are the run's, never the shipped ones; a folder or a run that is not there is said."""
    model = load("deep_emotion_sequential")
    run = run_folder(tmp_path / "runs", model.name, "fer2013", "common-v1", 0)
    state = {name: tensor * 0 for name, tensor in model.network.state_dict().items()}
    tensors, packing = pack(state)
    write_tensors(run / "model.safetensors", tensors, model.record | {"packing": packing})
    command = ["export", model.name, "-o", str(tmp_path / "out"), "--runs"]
    assert main([*command, str(tmp_path / "none")]) == 2
    assert main([*command, str(tmp_path / "runs"), "--seed", "1"]) == 2
    assert "--track fer2013 --recipe common-v1 --seed 0. Ask for these" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "runs")]) == 0
    session = InferenceSession(str(tmp_path / "out" / "model.onnx"))
    (answers,) = session.run(None, {session.get_inputs()[0].name: np.ones((1, 1, 48, 48), np.float32)})
    assert not answers.any()


def test_importing_submissions_is_cheap() -> None:
    """Neither torch nor onnx loads with the package, the manifest, the template or the queue."""
    code = (
        "import sys; from fer_bench import submissions as s; s.template(); s.queue('none'); s.CHECKS; s.Manifest;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'onnxruntime', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 0
