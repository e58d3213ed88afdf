"""How training ends: cut off, resumed, refused, one of several failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fer_bench import train
from fer_bench.cards import Track
from fer_bench.files import commit
from fer_bench.methods import METHODS
from fer_bench.train import Run, TrainingError, main
from fer_bench.weights import read_tensors
from tests.helpers import write_folder
from tests.test_train import RECIPE, STAGED, TINY, run


@pytest.fixture
def track(data: str) -> Track:
    """A track over a tiny folder of learnable pictures."""
    return Track(data, data, data, (), trained_on=data)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return f"folder:{write_folder(tmp_path / 'faces')}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """Time passes only where a test says so."""
    now = {"time": 0.0}
    monkeypatch.setattr(train.time, "monotonic", lambda: now["time"])
    return now


def scripted(monkeypatch: pytest.MonkeyPatch, clock: dict[str, float], values: list[float], cut: int | None) -> None:
    """Validation reads these values in turn; the time is up in the middle of epoch `cut`."""
    told = iter(enumerate(values, start=1))

    def validate(_run: Run) -> float:
        number, value = next(told)
        clock["time"] = 1e9 if number + 1 == cut else 0.0
        return value

    monkeypatch.setattr(Run, "validate", validate)


def test_what_a_cut_epoch_found_is_kept_for_its_end_alone(
    track: Track,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: dict[str, float],
) -> None:
    """Resumed after a cut whose weights were the best so far, a run ends as if it had never been cut."""
    scripted(monkeypatch, clock, [0.5, 0.4, 0.45, 0.3], None)
    whole, record = read_tensors(run(track, tmp_path / "whole").fit())
    scripted(monkeypatch, clock, [0.5, 0.6], 2)
    cut = read_tensors(run(track, tmp_path / "cut", max_minutes=1.0).fit())[1]["trained"]
    assert (cut["epochs"], cut["best_epoch"], cut["ended"], cut["complete"]) == (1, 2, "max-minutes", False)
    assert (cut["commit"], cut["torch"]) == (commit(), torch.__version__)
    scripted(monkeypatch, clock, [0.4, 0.45, 0.3], None)
    resumed, again = read_tensors(run(track, tmp_path / "cut", resume=True).fit())
    assert again["trained"]["best_epoch"] == record["trained"]["best_epoch"] == 1
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_call_that_completes_no_epoch_does_not_replace_a_better_model(
    track: Track,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cut in epoch 2 at .65 and, gone on with, in the same epoch at .40: the first call's weights stay, and that is
    said. At .70 they are replaced, and so they are once epoch 2 is full, as if it had never been cut."""
    scripted(monkeypatch, clock, [0.60, 0.65], 2)
    model = run(track, tmp_path / "out", max_minutes=1.0).fit()
    before, record = model.read_bytes(), (model.parent / "record.json").read_bytes()

    def cut_at_once(value: float) -> Path:
        clock["time"] = 0.0
        monkeypatch.setattr(Run, "validate", lambda _run: value)
        again = run(track, tmp_path / "out", max_minutes=1.0, resume=True)
        clock["time"] = 1e9
        return again.fit()

    assert cut_at_once(0.40) == model
    assert (model.read_bytes(), (model.parent / "record.json").read_bytes()) == (before, record)
    told = "this call, which completed no epoch, 0.6000"
    assert f"weights in {model.parent} stay: they read 0.6500 on validation, and {told}" in capsys.readouterr().err
    cut_at_once(0.70)
    assert "stay" not in capsys.readouterr().err
    assert read_tensors(model)[1]["trained"]["best_epoch"] == 2
    clock["time"] = 0.0
    scripted(monkeypatch, clock, [0.50, 0.40], 2)
    trained = read_tensors(run(track, tmp_path / "out", max_minutes=1.0, resume=True).fit())[1]["trained"]
    assert (trained["epochs"], trained["best_epoch"], trained["pictures_seen"]) == (2, 1, 64)
    assert "stay" not in capsys.readouterr().err


def test_a_part_of_a_new_run_does_not_replace_a_finished_one(
    track: Track,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Begun again, killed after an epoch and then cut in the third: what saw four epochs stays."""
    model = run(track, tmp_path / "out").fit()
    before = model.read_bytes()
    again = run(track, tmp_path / "out")
    with monkeypatch.context() as patched:
        epoch, values = again.epoch, iter(range(4))
        patched.setattr(again, "epoch", lambda *given: epoch(*given) if next(values) < 1 else _stop())
        with pytest.raises(KeyboardInterrupt):
            again.fit()
    scripted(monkeypatch, clock, [0.9, 0.9, 0.9], 2)
    assert run(track, tmp_path / "out", max_minutes=1.0, resume=True).fit() == model
    assert "stay: they saw 112 pictures, and this call has 64" in capsys.readouterr().err
    assert model.read_bytes() == before
    monkeypatch.undo()
    assert read_tensors(run(track, tmp_path / "out", resume=True).fit())[1]["trained"]["complete"] is True


def _stop() -> None:
    raise KeyboardInterrupt


def test_a_new_run_forgets_the_checkpoint_of_the_one_before(
    track: Track,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without --resume the old `last` goes at once, so that what is killed at first is not resumed as the old one."""
    run(track, tmp_path / "out").fit()
    monkeypatch.setattr(Run, "epoch", lambda *_: _stop())
    with pytest.raises(KeyboardInterrupt):
        run(track, tmp_path / "out").fit()
    assert not list((tmp_path / "out").rglob("last.safetensors"))


def test_patience_of_ones_own_is_not_the_full_budget(track: Track, tmp_path: Path) -> None:
    """A run that --patience stopped is not complete; one that its recipe's stopped is."""
    still = replace(RECIPE, lr=1e-9, epochs=6)
    impatient = read_tensors(run(track, tmp_path / "a", recipe=still, patience=1).fit())[1]["trained"]
    own = read_tensors(run(track, tmp_path / "b", recipe=replace(still, patience=1)).fit())[1]["trained"]
    assert impatient["ended"] == own["ended"] == "patience"
    assert (impatient["complete"], own["complete"]) == (False, True)


def test_a_run_cut_in_a_stage_counts_all_its_parameters(
    track: Track,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a stage freezes is counted too."""
    monkeypatch.setattr(Run, "epoch", lambda *_: (False, 1.0))
    record = read_tensors(run(track, tmp_path / "out", STAGED, max_minutes=1.0).fit())[1]
    assert record["parameters"] == sum(p.numel() for p in STAGED.build(7).parameters())


def test_a_checkpoint_chosen_by_other_pictures_is_refused(track: Track, tmp_path: Path) -> None:
    """Another validation set is another run."""
    run(track, tmp_path / "out", limit_validation=14).fit()
    with pytest.raises(train.UserError, match="another run"):
        run(track, tmp_path / "out", limit_validation=7, resume=True).fit()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--seed", "-1"], "must be 0 or more"),
        (["--patience", "-1"], "must be 0 or more"),
        (["--max-minutes", "nan"], "must be above 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(more: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is read."""
    with pytest.raises(SystemExit, match="2"):
        main(["--method", "small_cnn", *more])
    assert says in capsys.readouterr().err


def test_an_output_folder_that_is_a_file_is_refused_before_training(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2, and no epoch has been spent."""
    (tmp_path / "out").write_text("")
    assert main(["--method", "deep_emotion", "--track", data, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no folder can be made here" in line


def test_one_emotion_is_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that knows one answer learns nothing."""
    folder = write_folder(tmp_path / "one", emotions=("fear",))
    command = ["--method", "deep_emotion", "--track", f"folder:{folder}", "--out", str(tmp_path / "o")]
    assert main([*command, "--device", "cpu"]) == 2
    assert "too few emotions to tell apart" in capsys.readouterr().err


def test_recipes_are_looked_up_before_the_first_method_trains(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A method without a paper's recipe is refused at once; --all passes it over."""
    trained: list[str] = []
    monkeypatch.setattr(Run, "__init__", lambda self, method, *_, **__: trained.append(method.card.name))
    monkeypatch.setattr(Run, "fit", lambda self: None)
    command = ["--track", data, "--recipe", "paper", "--out", str(tmp_path / "o")]
    assert main(["--method", "deep_emotion", "resnet18", *command]) == 2
    assert trained == []
    assert "resnet18 has no recipe of its own" in capsys.readouterr().err
    assert main(["--all", *command]) == 0
    assert set(trained) == {name for name in METHODS if METHODS[name].card.paper_recipe is not None}


def test_one_method_that_fails_does_not_stop_the_others(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sentence is printed, the next one trains, and the exit code is 1."""
    monkeypatch.setitem(METHODS._entries, "first", replace(TINY, card=replace(TINY.card, name="first")))
    monkeypatch.setitem(METHODS._entries, "second", replace(TINY, card=replace(TINY.card, name="second")))
    fit = Run.fit

    def failing(self: Run) -> Path:
        if self.method.card.name == "first":
            raise TrainingError("the loss of first is not finite in epoch 1.")
        return fit(self)

    monkeypatch.setattr(Run, "fit", failing)
    out = tmp_path / "out"
    command = ["--track", data, "--epochs", "1", "--device", "cpu", "--out", str(out)]
    assert main(["--method", "first", "second", *command]) == 1
    assert len(list(out.rglob("model.safetensors"))) == 1
    said = capsys.readouterr().err
    assert "first: the loss of first is not finite" in said
    assert "1 of 2 methods were not trained" in said


def test_no_memory_on_the_device_is_said(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to do about it, and no traceback."""

    def full(_run: Run) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Run, "fit", full)
    command = ["--method", "deep_emotion", "--track", data, "--device", "cpu", "--out", str(tmp_path / "o")]
    assert main(command) == 1
    assert capsys.readouterr().err.splitlines() == [
        "CUDA out of memory.", "Use a device with more memory, or a smaller batch_size (--grid)."
    ]  # fmt: skip


def test_cuda_without_a_number_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes take a device each from "cuda"; "cuda:0" would be one for all."""
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    assert train.best_device("cuda").index is None
    assert train.best_device("cuda:1").index == 1


def test_minutes_are_kept_where_an_epoch_is_one_step(track: Track, tmp_path: Path) -> None:
    """Pictures that make one batch have no step within an epoch to end at: the epoch that begins too late is cut, and
    the run that goes on from there ends as one that was never stopped."""
    whole = replace(RECIPE, epochs=3, batch_size=512)
    cut = read_tensors(run(track, tmp_path / "out", recipe=whole, max_minutes=1e-9).fit())[1]["trained"]
    assert (cut["ended"], cut["complete"], cut["epochs"]) == ("max-minutes", False, 1)
    again, record = read_tensors(run(track, tmp_path / "out", recipe=whole, resume=True).fit())
    assert (record["trained"]["ended"], record["trained"]["epochs"]) == ("complete", 3)
    wanted, _ = read_tensors(run(track, tmp_path / "other", recipe=whole).fit())
    assert {name: value.tolist() for name, value in again.items()} == {
        name: value.tolist() for name, value in wanted.items()
    }
