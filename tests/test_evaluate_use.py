"""What evaluation refuses: pictures that were learned from, splits that are no test, options that do not fit."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fer_bench
from fer_bench import evaluate, explain, files, leaderboard, predict
from fer_bench.cards import Recipe, Track
from fer_bench.errors import UserError
from fer_bench.evaluate import main
from fer_bench.infer import Model, load
from fer_bench.methods import METHODS
from fer_bench.options import arguments_from
from fer_bench.train import Options, Run
from fer_bench.weights import WeightsError
from tests.helpers import write_folder

NEVER = Recipe(name="grid-0123456789", epochs=1, batch_size=16)
"""A recipe of a grid's cell: only its own folder of runs knows it."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` (7 emotions, splits) and `runs`, deep_emotion trained on it under `NEVER`."""
    base = tmp_path_factory.mktemp("used")
    name = f"folder:{write_folder(base / 'data')}"
    Run(METHODS["deep_emotion"], Track(name, name, name, (), name), NEVER, Options(device="cpu"), base / "runs").fit()
    return base


@pytest.fixture
def model(base: Path) -> Model:
    return load("deep_emotion", f"folder:{base / 'data'}", NEVER.name, runs=base / "runs")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_only_the_test_split_is_judged(model: Model, base: Path, split: str) -> None:
    """Pictures that were trained on or selected by never pass for a test; a part of the test does."""
    track = f"folder:{base / 'data'}"
    with pytest.raises(UserError, match=f"of its {split} split, and only its test split is judged on; give load_"):
        fer_bench.benchmark(model, fer_bench.load_dataset(track, split))
    assert fer_bench.benchmark(model, fer_bench.load_dataset(track, "test").limit(14)).data.test_pictures == 14


@pytest.mark.parametrize("started", [False, True])
def test_weights_that_saw_the_test_are_not_judged_on_it(model: Model, base: Path, started: bool) -> None:
    """Of frames drawn at random among all people, whether trained on them or started from such weights."""
    faces = replace(fer_bench.load_dataset(f"folder:{base / 'data'}"), name="ckplus")
    row = {"weights": ["deep_emotion/ckplus-random/common-v1-s0 (0)"], "track": "ckplus-random"}
    model.record["track"] = "fer2013" if started else "ckplus-random"
    model.record["trained"] |= {"earlier": {**row, "epochs": 1, "pictures_seen": 1} if started else None}
    told = "deep_emotion cannot be judged on ckplus: weights of ckplus-random were trained on pictures that ckplus"
    with pytest.raises(UserError, match=told):
        fer_bench.benchmark(model, faces)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--recipe", "comon-v1"], "Did you mean 'common-v1'"),
        (["--method", "resnet18", "--recipe", "paper"], "resnet18 has no recipe of its own in its paper"),
        (["--costs", "--verified", "--tta", "flip"], "measures costs alone, of rows that stand; leave out --verified"),
        (["--costs", "--resume"], "measures costs alone, of rows that stand; leave out --resume."),
        (["--costs", "--robustness"], "leave out --robustness."),
        (["--costs", "--explanation"], "leave out --explanation."),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_exit_code_2(
    more: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recipes that do not exist and options that would be passed over: nothing is judged and nothing recommended."""
    monkeypatch.setattr(evaluate, "load", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(evaluate, "measure_costs", lambda *_: pytest.fail("costs were measured"))
    assert main(["--method", "deep_emotion", "--track", "rendered", "--out", str(tmp_path / "out"), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "out").exists()


def test_what_no_commit_holds_is_not_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkout whose package was changed is refused before anything is read, and only where that is asked for."""
    monkeypatch.setattr(files, "commit", lambda: "0" * 40 + files.DIRTY)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: pytest.fail("something was judged"))
    command = ["--method", "deep_emotion", "--track", "rendered", "--out", str(tmp_path / "out")]
    assert main([*command, "--verified"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("(git status fer_bench); commit or stash that first, or leave --verified out.")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: (0, []))
    main(command)
    assert "differs" not in capsys.readouterr().err
    monkeypatch.setattr(files, "commit", lambda: "unknown")  # an installed package is what it was released as
    main([*command, "--verified"])
    assert "differs" not in capsys.readouterr().err


def test_a_negative_seed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """As training does, which could not make such weights."""
    with pytest.raises(SystemExit, match="2"):
        main(["--method", "deep_emotion", "--seed", "-1"])
    assert "must be 0 or more" in capsys.readouterr().err


def test_a_recipe_that_only_the_runs_know_is_judged_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A grid's cell is found in --runs; what lacks it gets no command that training would refuse; names count once."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    monkeypatch.setattr("fer_bench.costs.latency_pair", lambda _: (0.001, 0.5))
    track = f"folder:{base / 'data'}"
    asked = ["--method", "deep_emotion", "small_cnn", "deep_emotion", "--track", track, track, "--recipe", NEVER.name]
    assert main([*asked, "--runs", str(base / "runs"), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"skipped {track}: no weights of small_cnn ({NEVER.name}, seed 0)."]
    assert len([line for line in said.out.splitlines() if "accuracy" in line]) == 1


def test_a_papers_recipe_is_recommended_where_there_is_one(tmp_path: Path) -> None:
    """Methods whose paper gives none are named as missing, and left out of the command."""
    _, (line,) = evaluate.evaluate(["resnet18", "deep_emotion"], ["fer2013"], tmp_path, recipe="paper")
    assert line == (
        "fer2013: no weights of resnet18, deep_emotion (paper, seed 0); add --runs runs once you have trained "
        "them with: python -m fer_bench.train --method deep_emotion --track fer2013 --recipe paper"
    )


def test_all_methods_under_their_papers_recipes_pass_over_those_without(tmp_path: Path, capsys) -> None:
    """As `train --all --recipe paper` does: a method without one does not refuse the others."""
    assert main(["--all", "--recipe", "paper", "--track", "fer2013", "--out", str(tmp_path)]) == 2
    line, _ = capsys.readouterr().err.splitlines()
    assert line == (
        "skipped fer2013: no weights of any method (paper, seed 0); add --runs runs once you have trained them with: "
        "python -m fer_bench.train --missing --track fer2013 --recipe paper"
    )


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain", "load"])
def test_weights_that_own_pictures_lack_are_trained_on_these(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names --runs, the command that trains on these very pictures, and the track that stands in."""
    track = f"folder:{write_folder(tmp_path / 'my faces', per_class=1)}"
    face, chosen = str(tmp_path / "my faces" / "test" / "fear" / "0.png"), ["--method", "vgg16", "--track", track]
    if command == "evaluate":
        assert main([*chosen, "--out", str(tmp_path / "out")]) == 2
    elif command == "predict":
        assert predict.main([face, "--no-detect", "-o", str(tmp_path / "out.csv"), *chosen]) == 2
    elif command == "explain":
        assert explain.main([face, "--no-detect", "-o", str(tmp_path / "out"), *chosen]) == 2
    else:
        with pytest.raises(WeightsError) as caught:
            load("vgg16", track)
        print(caught.value, file=sys.stderr)
    said = capsys.readouterr().err.splitlines()[0]
    told, _, pasted = said.partition(" with: ")
    assert told.endswith(
        "; give --runs the folder that has them, or add --runs runs once you have trained them (on these pictures, or "
        "with --track fer2013)"
    )
    _, _, module, *arguments = shlex.split(pasted)
    given = arguments_from(arguments)
    assert (module, given.method, given.track) == ("fer_bench.train", ["vgg16"], track)
    if command != "evaluate":
        assert f"there are no weights of vgg16 for {track} or fer2013 (common-v1, seed 0) here; " in told


def test_weights_that_own_pictures_lack_are_trained_where_they_are_looked_for(tmp_path: Path) -> None:
    """Beside a method that --runs holds, one that it lacks is trained on these pictures into that folder."""
    (tmp_path / "runs").mkdir()
    _, (line,) = evaluate.evaluate(["vgg16"], [f"folder:{tmp_path}"], tmp_path / "out", runs=tmp_path / "runs")
    assert line == (
        f"folder:{tmp_path}: no weights of vgg16 (the recipe of its card, seed 0); train them (on these pictures, or "
        f"with --track fer2013) with: python -m fer_bench.train --method vgg16 --track folder:{tmp_path} "
        f"--out {tmp_path / 'runs'}"
    )


@pytest.mark.parametrize("dataset", [None, np.zeros((2, 48, 48), np.uint8), Path("faces"), ["rendered"]])
def test_what_no_model_can_be_judged_on_is_refused(model: Model, dataset: object) -> None:
    """Pictures without labels, a Path, a list: the sentence says what `benchmark` takes."""
    told = f"^a {type(dataset).__name__} does not say what its pictures show; give the name of a track"
    with pytest.raises(UserError, match=told):
        fer_bench.benchmark(model, dataset)


def test_a_model_of_the_wrong_parts_is_refused(model: Model) -> None:
    """An input that is no InputSpec, a name that is no text; and a batch holds one picture at least."""
    faces = fer_bench.load_dataset("rendered", "test").limit(7)
    with pytest.raises(UserError, match="^mine: its input_spec must be a fer_bench.InputSpec, not a value of type tup"):
        fer_bench.benchmark(Model("mine", model.network, (48, 1), model.emotions), faces)
    with pytest.raises(UserError, match="^3: its name must be text, not a value of type int"):
        fer_bench.benchmark(Model(3, model.network, model.input_spec, model.emotions), faces)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        fer_bench.benchmark(Model("mine", model.network, model.input_spec, model.emotions), faces, batch_size=0)
