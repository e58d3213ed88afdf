"""Judging several methods: what goes wrong with one costs its own row; and what a row says of its own circumstances."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fer_bench
from fer_bench import costs, evaluate, files, leaderboard
from fer_bench.cards import Recipe, Track
from fer_bench.evaluate import main
from fer_bench.infer import Model, load
from fer_bench.methods import METHODS
from fer_bench.protocols import track_named
from fer_bench.results import read_result
from fer_bench.train import Options, Run
from fer_bench.weights import WeightsError
from tests.helpers import write_folder

LITTLE = Recipe(name="common-v1", epochs=1, batch_size=16)
NAMES = ("deep_emotion", "deep_emotion_parallel")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` (7 emotions, splits) and `runs` of two methods on it."""
    base = tmp_path_factory.mktemp("several")
    name = f"folder:{write_folder(base / 'data')}"
    for method in NAMES:
        Run(METHODS[method], Track(name, name, name, (), name), LITTLE, Options(device="cpu"), base / "runs").fit()
    return base


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures are drawn, nothing is timed: both take longer than what is tested."""
    monkeypatch.setattr(leaderboard, "figure", lambda _results, _track, path: path)
    monkeypatch.setattr(costs, "latency_pair", lambda _: (0.001, 0.5))


def command(base: Path, out: Path, *more: str) -> list[str]:
    own = ["--track", f"folder:{base / 'data'}", "--runs", str(base / "runs"), "--out", str(out)]
    return ["--method", *NAMES, *own, *more]


@pytest.mark.parametrize(
    ("error", "told", "traced"),
    [
        (AttributeError("no squeeze"), "AttributeError: no squeeze", True),
        (torch.OutOfMemoryError("2 GiB"), "too little memory; use another --device", False),
    ],
)
def test_a_network_that_raises_costs_its_own_row(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error, told, traced
) -> None:
    """Whatever one method's network raises is told, the next one is judged, and the table is written."""
    original = evaluate.logits

    def failing(model: Model, *arguments: object):
        if model.name == "deep_emotion":
            raise error
        return original(model, *arguments)

    monkeypatch.setattr(evaluate, "logits", failing)
    assert main(command(base, tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert f"deep_emotion: {told}" in said
    assert ("Traceback" in said) is traced
    assert [path.parent.name for path in (tmp_path / "out" / "results").glob("*/*/*.json")] == ["deep_emotion_parallel"]
    assert "`deep_emotion_parallel`" in (tmp_path / "out" / "LEADERBOARD.md").read_text()


def test_a_data_set_that_raises_costs_its_own_track(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loader that an installed package added may be broken: the tracks after it are judged, and the table written."""
    read = evaluate.load_dataset

    def broken(name: str, *more: str) -> fer_bench.FaceSet:
        if name == "fer2013":
            raise ValueError("float images")
        return read(name, *more)

    monkeypatch.setattr(evaluate, "load_dataset", broken)
    given = ["--method", "deep_emotion", "--track", "fer2013", "rendered", "--out", str(tmp_path)]
    assert main(given) == 1
    assert "failed fer2013: ValueError: float images" in capsys.readouterr().err
    assert (tmp_path / "results/rendered/deep_emotion/common-v1-s0.json").is_file()
    assert "## Rendered" in (tmp_path / "LEADERBOARD.md").read_text()


def test_an_explanation_that_fails_loses_no_accuracy(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What was measured before it stands in the record, with the logits beside it, and in the table."""

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no such layer")

    monkeypatch.setattr(evaluate, "measure_faithfulness", failing)
    assert main(command(base, tmp_path / "out", "--explanation")) == 1
    paths = sorted((tmp_path / "out" / "results").glob("*/*/*.json"))
    assert [path.parent.name for path in paths] == list(NAMES)
    assert [read_result(path).explanation for path in paths] == [None, None]
    assert all(path.with_suffix(".npz").is_file() for path in paths)
    assert all(f"`{name}`" in (tmp_path / "out" / "LEADERBOARD.md").read_text() for name in NAMES)
    assert "nothing was evaluated" not in capsys.readouterr().err


def test_costs_go_past_a_network_that_raises(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The other rows' costs are measured anew."""
    assert main(command(base, tmp_path / "out")) == 0

    def pair(model: Model) -> tuple[float, float]:
        if model.name == "deep_emotion":
            raise RuntimeError("no kernel")
        return 0.002, 0.7

    monkeypatch.setattr(costs, "latency_pair", pair)
    assert main(command(base, tmp_path / "out", "--costs")) == 1
    assert "deep_emotion: RuntimeError: no kernel" in capsys.readouterr().err
    found = {path.parent.name: read_result(path) for path in (tmp_path / "out" / "results").glob("*/*/*.json")}
    assert {name: result.cost.latency_ratio for name, result in found.items()} == {NAMES[0]: 0.5, NAMES[1]: 0.7}


def test_shipped_weights_are_no_run_of_a_folder_above_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the checkout for its runs/, nothing is answered by what lies elsewhere in it, however it is written."""
    home = Path(fer_bench.__file__).parents[1]
    monkeypatch.chdir(home)
    for runs in (home, ".", home.parent):
        with pytest.raises(WeightsError, match="holds no weights of deep_emotion for fer2013"):
            load("deep_emotion", runs=runs)


def test_another_project_s_commit_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed into a folder of somebody's own repository, the package does not take its commit for its own."""
    place = tmp_path / "site-packages" / "fer_bench" / "files.py"
    place.parent.mkdir(parents=True)
    asked = []
    monkeypatch.setattr(files, "__file__", str(place))
    monkeypatch.setattr(files.subprocess, "run", lambda *_, **__: asked.append(1) or 1 / 0)
    assert files.commit() == "unknown"
    assert not asked
    shutil.copy(Path(fer_bench.__file__).parents[1] / "pyproject.toml", tmp_path / "site-packages")
    with pytest.raises(ZeroDivisionError):
        files.commit()


def test_latency_is_a_cpu_s_whatever_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy on the CPU is timed, and the network itself stays where it is."""
    model, timed = load("deep_emotion"), []
    monkeypatch.setattr(costs, "latency_pair", lambda given: timed.append(given.network) or (0.001, 0.5))
    costs.cost(model)
    assert timed[0] is model.network
    monkeypatch.setattr(Model, "device", property(lambda _: torch.device("cuda")))
    moved = []
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda network: moved.append(network) or network)
    costs.cost(model)
    assert timed[1] is moved[0] is not model.network


def test_pictures_given_as_such_and_by_name_are_one_task() -> None:
    """`benchmark` of a track's own test split has the track's protocol, so that the two rows can be compared."""
    model, faces = load("deep_emotion"), fer_bench.load_dataset("rendered", "test").limit(35)
    assert fer_bench.benchmark(model, faces).protocol == track_named("rendered").hash()
    four = faces.restrict(("anger", "happiness", "sadness", "neutral"))
    assert fer_bench.benchmark(model, four).protocol != track_named("rendered").hash()
    elsewhere = replace(model, record=model.record | {"track": "ferplus"})
    assert fer_bench.benchmark(elsewhere, faces).protocol != track_named("rendered").hash()
