"""`evaluate --resume`: what an interrupted call has finished is not measured again, and all else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fer_bench import costs, evaluate, leaderboard
from fer_bench.cards import Recipe, Track
from fer_bench.datasets import load_dataset
from fer_bench.evaluate import main
from fer_bench.infer import Model, load
from fer_bench.methods import METHODS
from fer_bench.protocols import track_named
from fer_bench.results import read_result, write_result
from fer_bench.resuming import stands
from fer_bench.train import Options, Run
from tests.helpers import write_folder
from tests.test_results import FAITHFULNESS, ROBUSTNESS

NAMES = ("deep_emotion", "deep_emotion_parallel")
FEW = {"pictures": 7}
"""As many as the test split holds."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` (7 emotions, splits) and `runs` of two methods on it."""
    base = tmp_path_factory.mktemp("resumed")
    name = f"folder:{write_folder(base / 'data', per_class=1)}"
    recipe = Recipe(name="common-v1", epochs=1, batch_size=16)
    for method in NAMES:
        Run(METHODS[method], Track(name, name, name, (), name), recipe, Options(device="cpu"), base / "runs").fit()
    return base


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures are drawn, nothing is timed: both take longer than what is tested."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods whose networks answered, in turn; `measure_robustness` answers with a block made by hand."""
    seen: list[str] = []
    answer = evaluate.logits

    def noted(model: Model, *arguments: object) -> object:
        seen.append(model.name)
        return answer(model, *arguments)

    monkeypatch.setattr(evaluate, "logits", noted)
    monkeypatch.setattr(evaluate, "measure_robustness", lambda *_, **__: replace(ROBUSTNESS, **FEW))
    return seen


def command(base: Path, out: Path, *more: str) -> list[str]:
    own = ["--track", f"folder:{base / 'data'}", "--runs", str(base / "runs"), "--out", str(out)]
    return ["--method", *NAMES, *own, *more]


def interrupted(monkeypatch: pytest.MonkeyPatch, call: Callable[[], int]) -> int:
    """The exit code of a call that Ctrl-C ends once the first record stands."""
    judge = evaluate.judge

    def stopped(model: Model, *arguments: object) -> evaluate.Answers:
        if model.name == NAMES[1]:
            raise KeyboardInterrupt
        return judge(model, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "judge", stopped)
        return call()


def test_an_interrupted_call_goes_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], judged: list[str]
) -> None:
    """The second call measures the second method alone and says so; a third has nothing to do, which is no failure."""
    assert interrupted(monkeypatch, lambda: main(command(base, tmp_path))) == 1
    assert "are kept. Go on with --resume." in capsys.readouterr().err
    judged.clear()
    assert main(command(base, tmp_path, "--resume")) == 0
    assert judged == [NAMES[1]]
    told = capsys.readouterr().err
    assert f"folder:{base / 'data'} {NAMES[0]}: its result stands" in told
    assert f"{NAMES[1]}: its result stands" not in told
    assert main(command(base, tmp_path, "--resume")) == 0
    assert judged == [NAMES[1]]
    assert "nothing was evaluated" not in capsys.readouterr().err
    assert all(f"`{name}`" in (tmp_path / "LEADERBOARD.md").read_text() for name in NAMES)
    assert main(command(base, tmp_path)) == 0
    assert judged == [NAMES[1], *NAMES], "without --resume all are measured, as ever"


def test_a_row_that_lacks_what_is_asked_for_is_measured_again(base: Path, tmp_path: Path, judged: list[str]) -> None:
    """With --robustness, the row that has none; and one that has some needs no other."""
    assert main(command(base, tmp_path)) == 0
    path = next(tmp_path.glob(f"results/*/{NAMES[0]}/*.json"))
    write_result(replace(read_result(path), robustness=replace(ROBUSTNESS, **FEW)), tmp_path)
    judged.clear()
    assert main(command(base, tmp_path, "--resume", "--robustness")) == 0
    assert judged == [NAMES[1]]
    assert all(read_result(path).robustness is not None for path in tmp_path.glob("results/*/*/*.json"))


def test_only_a_record_of_the_very_same_measurement_stands(base: Path, tmp_path: Path) -> None:
    """Other weights, pictures, protocol, views or corruptions, a lost file, no mark where one is asked for: again."""
    assert main(command(base, tmp_path)) == 0
    track = track_named(f"folder:{base / 'data'}")
    model = load(NAMES[0], track.name, runs=base / "runs")
    faces = load_dataset(track.dataset, track.test)
    path = next(tmp_path.glob(f"results/*/{NAMES[0]}/*.json"))
    before = read_result(path)
    assert stands(model, faces, track, tmp_path)
    assert not stands(model, faces, track, tmp_path, "flip")
    assert not stands(model, faces, track, tmp_path / "elsewhere")
    changed = replace(model, record=model.record | {"sha256": "0" * 64})
    assert not stands(changed, faces, track, tmp_path)
    assert not stands(model, replace(faces, images=255 - faces.images), track, tmp_path)
    assert not stands(model, replace(faces, labels=faces.labels[::-1].copy()), track, tmp_path)
    assert not stands(model, replace(faces, subjects=faces.labels // 2), track, tmp_path)
    for asked in ("verified", "robustness", "explanation"):
        assert not stands(model, faces, track, tmp_path, **{asked: True})
    whole = replace(
        before, verified=True, robustness=replace(ROBUSTNESS, **FEW), explanation=replace(
            FAITHFULNESS, regions=replace(FAITHFULNESS.regions, pictures=7), **FEW
        ),
    )  # fmt: skip
    write_result(whole, tmp_path)
    assert stands(model, faces, track, tmp_path, verified=True, robustness=True, explanation=True)
    write_result(replace(whole, robustness=replace(whole.robustness, suite="faces-0")), tmp_path)
    assert stands(model, faces, track, tmp_path)
    assert not stands(model, faces, track, tmp_path, robustness=True)
    write_result(replace(whole, protocol="0" * 12), tmp_path)
    assert not stands(model, faces, track, tmp_path)
    write_result(before, tmp_path)
    path.with_suffix(".npz").unlink()
    assert not stands(model, faces, track, tmp_path)
