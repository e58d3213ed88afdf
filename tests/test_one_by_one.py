"""Several methods in one call: what goes wrong with one, and how long all may take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fer_bench.datasets import load_dataset
from fer_bench.distributed import ALONE
from fer_bench.methods import METHODS
from fer_bench.one_by_one import train_each
from fer_bench.options import Options
from fer_bench.train import Run, TrainingError, main
from tests.helpers import write_folder
from tests.test_train import RECIPE, TINY

NAMES = ("first", "second", "third")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line that trains three tiny networks."""
    for name in NAMES:
        monkeypatch.setitem(METHODS._entries, name, replace(TINY, card=replace(TINY.card, name=name)))
    data = f"folder:{write_folder(tmp_path / 'faces', per_class=2)}"
    return ["--method", *NAMES, "--track", data, "--epochs", "1", "--device", "cpu", "--out", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("error", "traced"),
    [
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), True),
        (ValueError("Expected more than 1 value per channel"), True),
        (torch.OutOfMemoryError("out of memory"), False),
        (MemoryError("Unable to allocate 9 GiB"), False),
    ],
)
def test_a_library_that_fails_with_one_network_does_not_stop_the_others(
    error: Exception,
    traced: bool,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The others are trained, the exit code is 1, and what happened is told: with where, unless memory ran out."""
    fit = Run.fit

    def failing(self: Run) -> Path:
        if self.method.card.name == "second":
            raise error
        return fit(self)

    monkeypatch.setattr(Run, "fit", failing)
    assert main(command) == 1
    assert sorted(path.parts[-3] for path in (tmp_path / "out").rglob("model.safetensors")) == ["first", "third"]
    said = capsys.readouterr().err
    assert "second: " in said
    assert str(error) in said
    assert ("Traceback" in said) is traced
    assert "1 of 3 methods were not trained" in said


def test_a_look_at_the_test_split_is_never_passed_over(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends everything, however many methods are left."""

    def peeking(_run: Run) -> Path:
        return load_dataset("rendered", "test")

    monkeypatch.setattr(Run, "fit", peeking)
    with pytest.raises(RuntimeError, match="the test split must not be read here"):
        main(command)


def test_minutes_of_all_together_are_shared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Each method gets what is left, its own --max-minutes at most; those for which nothing is left are named."""
    now, given = [0.0], {}
    monkeypatch.setattr("fer_bench.one_by_one.time.monotonic", lambda: now[0])

    def fit(method: object, _recipe: object, options: Options) -> None:
        given[method.card.name] = options.max_minutes
        now[0] += 60 * 4

    methods = [(replace(TINY, card=replace(TINY.card, name=name)), RECIPE) for name in NAMES]
    assert train_each(methods, Options(max_minutes=5), 7, fit, TrainingError, ALONE) == 0
    assert given == {"first": 5, "second": 3}
    assert capsys.readouterr().err == "no time was left for third; go on with --resume\n"
    assert train_each(methods[:1], Options(), None, fit, TrainingError, ALONE) == 0
    assert given["first"] is None


def test_total_minutes_end_a_command(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The method whose turn it is ends cleanly, with weights and a mark that it was cut; it is not a failure."""
    assert main([*command, "--total-minutes", "1e-9"]) == 0
    assert "no time was left for first, second, third; go on with --resume" in capsys.readouterr().err
    assert main([*command, "--total-minutes", "9"]) == 0
    assert len(list((tmp_path / "out").rglob("model.safetensors"))) == 3
    with pytest.raises(SystemExit) as refused:
        main(["--grid", "grid.yaml", "--total-minutes", "9"])
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--device", "cuda:99"], "there is no device 'cuda:99' here; leave out --device, or give cpu."),
        (["--start-from", "gone.safetensors"], "gone.safetensors: there is no such weight file."),
        (["--track", "fer2013", "--stream"], "fer2013 is always read into memory; --stream is for"),
    ],
)
def test_what_would_fail_with_every_method_is_wrong_use(
    more: list[str], says: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once, before anything is trained, and the exit code is 2."""
    assert main([*command, *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)
