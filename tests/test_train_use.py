"""What training refuses, and what it says: finished runs that would be lost, stages, limits that gain nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fer_bench import train
from fer_bench.cards import Track
from fer_bench.errors import UserError
from fer_bench.files import OutputError
from fer_bench.methods import METHODS
from fer_bench.methods.base import Criterion, Stage
from fer_bench.options import Options
from fer_bench.records import Trained
from fer_bench.results import decode
from fer_bench.train import Run, main
from fer_bench.weights import read_tensors, sha256, write_tensors
from tests.helpers import write_folder
from tests.test_train import RECIPE, STAGED, TINY, run


@pytest.fixture
def track(data: str) -> Track:
    """A track over a tiny folder of learnable pictures."""
    return Track(data, data, data, (), trained_on=data)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return f"folder:{write_folder(tmp_path / 'faces', per_class=2)}"


@pytest.fixture
def command(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line that trains a tiny network into `out`."""
    monkeypatch.setitem(METHODS._entries, "deep_emotion", TINY)
    return ["--method", "deep_emotion", "--track", data, "--device", "cpu", "--out", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("less", "says"),
    [
        (["--epochs", "1"], "saw 28 pictures, and this one will see 14;"),
        (["--epochs", "2", "--limit", "7"], "saw 28 pictures, and this one will see 14;"),
        (["--epochs", "2", "--max-minutes", "9"], "saw 28 pictures, and this one may end sooner;"),
    ],
)
def test_a_try_out_does_not_replace_a_finished_run(
    less: list[str], says: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that would see fewer pictures is refused with the folder and what to do, and every file stays; the same
    one again, a longer one and one of another seed are not."""
    assert main([*command, "--epochs", "2"]) == 0
    (model,) = (tmp_path / "out").rglob("model.safetensors")
    before = {path.name: path.read_bytes() for path in model.parent.iterdir()}
    capsys.readouterr()
    assert main([*command, *less]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{model.parent} holds a run already, which {says} give another --out, or remove")
    assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == before
    assert main([*command, "--epochs", "2"]) == main([*command, "--epochs", "1", "--seed", "1"]) == 0
    assert main([*command, "--epochs", "2", "--limit", "13"]) == 0  # a picture was taken out
    assert main([*command, "--epochs", "3"]) == 0


class Outputs(NamedTuple):
    """As torchvision's GoogLeNetOutputs."""

    logits: Tensor
    aux_logits: Tensor


@dataclass
class Answer:
    """As a ModelOutput of Hugging Face's."""

    logits: Tensor


class Several(nn.Module):
    """A network that answers with logits in evaluation, and with what `form` makes of them in training."""

    def __init__(self, classes: int, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner, self.form = TINY.build(classes), form

    def forward(self, x: Tensor) -> object:
        logits = self.inner(x)
        return self.form(logits) if self.training else logits


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("tuple", lambda logits: (logits, logits)),
        ("list", lambda logits: [logits]),
        ("dict", lambda logits: {"logits": logits}),
        ("Outputs", lambda logits: Outputs(logits, logits)),
        ("Answer", Answer),
    ],
)
@pytest.mark.parametrize("stage", [Stage("main"), Stage("own", loss=lambda net, x, y, criterion: criterion(net(x), y))])
def test_more_than_logits_in_training_is_refused_before_the_first_epoch(
    kind: str, form: Callable[[Tensor], object], stage: Stage, command: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A network that is right in evaluation alone ends with a sentence that says so and exit code 2, and no weights."""
    method = replace(TINY, build=lambda classes: Several(classes, form), stages=(stage,))
    monkeypatch.setitem(METHODS._entries, "deep_emotion", method)
    steps: list[object] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *_: steps.append(self))
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"deep_emotion: in training it gives a value of type {kind}, not a tensor of logits; return the logits alone, "
        "or register it with a Stage whose loss takes them from it.\n"
    )
    assert not steps
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == [".training"]


def test_a_stage_whose_loss_takes_the_logits_from_the_rest_trains(track: Track, tmp_path: Path) -> None:
    """A network with more outputs in training gives the weights of the same one without."""

    def loss(network: nn.Module, inputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        return criterion(network(inputs)[0], targets)

    def build(classes: int) -> nn.Module:
        return Several(classes, lambda logits: (logits, logits))

    several = replace(TINY, build=build, stages=(Stage("main", loss=loss),))
    found = read_tensors(run(track, tmp_path / "several", several, epochs=1).fit())[0]
    wanted = read_tensors(run(track, tmp_path / "alone", epochs=1).fit())[0]
    assert {name.removeprefix("inner."): value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in wanted.items()
    }


def test_a_run_from_another_start_does_not_replace_a_finished_one(track: Track, tmp_path: Path) -> None:
    """Fine-tuned weights do not take the place of those that they began with, nor the other way round."""
    first = run(track, tmp_path / "out", epochs=1).fit()
    start = Path(shutil.copy(first, tmp_path / "start.safetensors"))
    with pytest.raises(UserError, match="holds a run already, which had another start"):
        run(track, tmp_path / "out", start_from=str(start), epochs=4).fit()
    tuned = run(track, tmp_path / "tuned", start_from=str(start), epochs=1).fit()
    with pytest.raises(UserError, match="holds a run already, which had another start"):
        run(track, tmp_path / "tuned", epochs=4).fit()
    with pytest.raises(UserError, match="another start"):
        run(track, tmp_path / "tuned", start_from=str(tuned), epochs=4).fit()
    run(track, tmp_path / "tuned", start_from=str(start), epochs=2).fit()


def test_a_broken_record_is_said(track: Track, tmp_path: Path) -> None:
    """What stands there cannot be weighed, so it is not replaced either."""
    path = run(track, tmp_path / "out", epochs=1).fit().parent / "record.json"
    path.write_text("{")
    with pytest.raises(UserError, match="record.json: this is no record of a training run; remove it"):
        run(track, tmp_path / "out", epochs=1).fit()


def test_a_validation_split_that_can_choose_nothing_is_refused(tmp_path: Path) -> None:
    """Without a picture of what is trained on, no epoch is better than another: said before the first."""
    folder = write_folder(tmp_path / "odd", per_class=2, emotions=("happiness", "sadness"))
    shutil.rmtree(folder / "validation")
    write_folder(tmp_path / "other", per_class=2, emotions=("anger",))
    shutil.copytree(tmp_path / "other" / "validation", folder / "validation")
    name = f"folder:{folder}"
    with pytest.raises(UserError, match=r"no picture of what is trained on \(happiness, sadness\) in its validation"):
        run(Track(name, name, name, (), name), tmp_path / "out")


def test_a_full_disk_is_a_failure_and_a_wrong_folder_wrong_use(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 where writing fails in mid-training, at once and not once per method; 2 where it could never do."""
    tried: list[Path] = []

    def full(path: Path, *_: object) -> None:
        tried.append(path)
        raise OutputError(f"{path} cannot be written: No space left on device.")

    monkeypatch.setattr(train, "write_tensors", full)
    assert main([*command, "--method", "deep_emotion", "deep_emotion_parallel", "--epochs", "1"]) == 1
    assert "No space left on device." in capsys.readouterr().err
    assert len(tried) == 1
    (tmp_path / "file").touch()
    assert main([*command, "--out", str(tmp_path / "file" / "below")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"no folder can be made here ({tmp_path / 'file'} is a file); give another --out.")


def test_minutes_that_gain_nothing_are_said(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit shorter than an epoch would be resumed for ever; one that lets an epoch pass says nothing."""
    clock = {"time": 0.0}
    monkeypatch.setattr(train.time, "monotonic", lambda: clock["time"])
    monkeypatch.setattr(Run, "validate", lambda _run: clock.update(time=1e9) or 0.5)
    told = "deep_emotion: 1 minutes were too few for a full epoch, so --resume begins this one again; give more."
    run(track, tmp_path / "out", max_minutes=1.0).fit()
    assert told not in capsys.readouterr().err
    monkeypatch.setattr(Run, "epoch", lambda *_: (False, 1.0))
    run(track, tmp_path / "out", max_minutes=1.0, resume=True).fit()
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("seed", [-1, 10**15])
def test_a_seed_that_torch_cannot_hold_is_refused(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line, and in a grid's file, which makes options too."""
    with pytest.raises(SystemExit, match="2"):
        main(["--method", "small_cnn", "--seed", str(seed)])
    assert "must be 0 or more and below 4294967296" in capsys.readouterr().err
    with pytest.raises(UserError, match="a seed must be 0 or more and below 4294967296"):
        Options(seed=seed)


def test_the_largest_seed_trains(track: Track, tmp_path: Path) -> None:
    """What is let through can be drawn from."""
    assert run(track, tmp_path / "out", seed=2**32 - 1, epochs=1).fit().is_file()


def test_a_method_named_twice_is_trained_once(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run would only replace the first."""
    trained: list[str] = []
    monkeypatch.setattr(Run, "fit", lambda self: trained.append(self.method.card.name))
    assert main([*command, "--method", "deep_emotion", "deep_emotion"]) == 0
    assert trained == ["deep_emotion"]


def test_the_record_tells_the_stages_that_the_weights_went_through(
    track: Track, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epochs of each, those of an earlier run too; None where that run does not say. A result takes it over."""
    first = run(track, tmp_path / "first", STAGED).fit()
    trained = read_tensors(first)[1]["trained"]
    assert trained["stages"] == {"first": 3, "second": 1}
    assert json.loads((first.parent / "record.json").read_text())["trained"]["stages"] == trained["stages"]
    known = {name: value for name, value in trained.items() if name in Trained.__dataclass_fields__}
    assert decode(Trained, known, "the record").stages == trained["stages"]
    capsys.readouterr()
    again = run(track, tmp_path / "again", STAGED, epochs=1, start_from=str(first)).fit()
    assert "deep_emotion: 2 epochs, not 1: each of its 2 stages has one at least" in capsys.readouterr().err
    told = read_tensors(again)[1]["trained"]
    assert (told["epochs"], told["stages"]) == (2, {"first": 4, "second": 2})
    tensors, record = read_tensors(first)
    del record["trained"]["stages"]  # as of weights that are older than this
    write_tensors(first, tensors, record)
    later = run(track, tmp_path / "later", STAGED, epochs=2, start_from=str(first)).fit()
    assert read_tensors(later)[1]["trained"]["stages"] is None


def test_aweis_guide_is_fine_tuned_under_common_v1_alone(track: Track, tmp_path: Path) -> None:
    """Under any other recipe there is no stage for it, and all three of P1's networks have the same epochs."""
    method, whole = replace(TINY, stages=METHODS["awei"].stages), {"main": 60}
    for name, stages in (("common-v1", {"guide": 15, "main": 45}), ("paper", whole), ("light-v1", whole)):
        made = run(track, tmp_path / name, method, replace(RECIPE, name=name, epochs=60))
        assert {stage.name: epochs for stage, epochs in zip(made.stages, made.epochs, strict=True)} == stages


def test_an_older_checkpoint_is_resumed(track: Track, tmp_path: Path) -> None:
    """One that does not tell its stages goes on, and the record says that they are not known."""
    path = run(track, tmp_path / "out").fit()
    last = path.parent / "last.safetensors"
    tensors, record = read_tensors(last)
    del record["state"]["stages"]
    write_tensors(last, tensors, record)
    before = sha256(last)
    again = run(track, tmp_path / "out", resume=True).fit()
    assert read_tensors(again)[1]["trained"]["stages"] is None
    assert sha256(last) == before
