"""Networks of anyone's that cannot be trained or judged: what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fer_bench
from fer_bench.emotions import SEVEN
from fer_bench.errors import UserError
from fer_bench.explain import explain
from fer_bench.methods import METHODS, Stage
from fer_bench.scoring import prepare, score_prepared
from fer_bench.train import main
from tests.helpers import write_folder
from tests.test_train import TINY, tiny


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Called with what builds a network, and more options: trains it on a tiny folder, and gives the exit code."""
    faces = write_folder(tmp_path / "faces", per_class=2)

    def command(build: Callable[..., object], *more: str) -> int:
        monkeypatch.setitem(METHODS._entries, "deep_emotion", replace(TINY, build=build))
        given = ["--track", f"folder:{faces}", "--device", "cpu", "--epochs", "1", "--out", str(tmp_path / "out")]
        return main([*given, *(more or ("--method", "deep_emotion"))])

    return command


def answering(form: Callable[[Tensor], object], in_training: bool = True) -> Callable[[int], nn.Module]:
    """What builds a network that gives what `form` makes of its logits; in_training: in training mode alone."""

    class Own(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.inner = tiny(classes)

        def forward(self, x: Tensor) -> object:
            logits = self.inner(x)
            return form(logits) if self.training or not in_training else logits

    return Own


def test_a_networks_own_nan_is_not_put_down_to_the_learning_rate(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any step nothing was learned and no checkpoint is there; the sentence speaks of neither."""
    assert train(answering(lambda logits: logits * torch.nan, in_training=False)) == 1
    assert capsys.readouterr().err == (
        "deep_emotion gives answers that are not finite before it is trained; mend how its builder sets its weights, "
        "or its input's mean and std.\n"
    )


def test_a_cell_whose_network_gives_probabilities_says_so(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not that its loss was not finite; and once the network is mended the same command trains it."""
    (tmp_path / "grid.yaml").write_text("method: deep_emotion\n")
    grid = ("--grid", str(tmp_path / "grid.yaml"))
    assert train(answering(lambda logits: logits.softmax(1), in_training=False), *grid) == 1
    assert "failed: deep_emotion answers with probabilities, not logits" in capsys.readouterr().out
    (failed,) = (tmp_path / "out").rglob("failed.json")
    assert json.loads(failed.read_text())["final"] is False
    assert train(tiny, *grid) == 0


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda logits: logits[:, :, None], "a tensor (14, 7, 1), not one of logits (14, 7)"),
        (lambda logits: logits.flatten(), "a tensor (98,), not one of logits (14, 7)"),
        (lambda logits: logits[::2], "a tensor (7, 7), not one of logits (14, 7)"),
        (lambda logits: logits[:, :3], "a tensor (14, 3), not one of logits (14, 7)"),
        (lambda logits: torch.cat([logits, logits], 1), "a tensor (14, 14), not one of logits (14, 7)"),
        (lambda logits: logits.long(), "a tensor of torch.int64, not of floating-point logits"),
    ],
)
def test_a_tensor_that_is_wrong_in_training_alone_is_refused(
    form: Callable[[Tensor], Tensor],
    says: str,
    train: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one sentence and with exit code 2, too many columns as well, which cross-entropy would take."""
    assert train(answering(form)) == 2
    assert capsys.readouterr().err == (
        f"deep_emotion: in training it gives {says}; return the logits alone, or register it with a Stage whose loss "
        "takes them from it.\n"
    )
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_method_without_a_stage_for_the_recipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt name in `recipes` leaves nothing to train; said so, and not that weights are missing."""
    monkeypatch.setitem(METHODS._entries, "deep_emotion", replace(TINY, stages=(Stage("main", recipes=("comon-v1",)),)))
    command = ["--method", "deep_emotion", "--track", f"folder:{write_folder(tmp_path / 'faces', per_class=2)}"]
    assert main([*command, "--device", "cpu", "--out", str(tmp_path / "out")]) == 2
    told = "deep_emotion: no stage of its training belongs to the recipe common-v1, only to comon-v1; mend"
    assert capsys.readouterr().err.splitlines()[-1].startswith(told)


def test_probabilities_in_training_alone_are_refused(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cross-entropy over them trains, and towards something else, while validation sees logits."""
    assert train(answering(lambda logits: logits.softmax(1))) == 2
    assert capsys.readouterr().err == (
        "deep_emotion: in training it answers with probabilities, not logits; remove its last Softmax or make it "
        "LogSoftmax.\n"
    )
    assert not list(tmp_path.rglob("*.safetensors"))


def test_logits_that_nothing_trained_leads_to_are_refused(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A detach() in the network is told, not autograd's element 0 of tensors."""
    assert train(answering(Tensor.detach)) == 2
    assert capsys.readouterr().err.startswith(
        "deep_emotion: in its stage main the loss does not depend on any parameter that is trained; look for a detach()"
    )


class Late(nn.Module):
    """A network that makes its last layer when it sees its first input."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.first, self.last = classes, nn.Conv2d(1, 1, 1), None

    def forward(self, x: Tensor) -> Tensor:
        if self.last is None:
            self.last = nn.Linear(x[0].numel(), self.classes)
        return self.last(self.first(x).flatten(1))


class Extra(nn.Sequential):
    """A network with something in its state that is no tensor."""

    def get_extra_state(self) -> dict:
        return {"version": 1}


def flat() -> nn.Module:
    """Pixels and one linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(2304, 7))


def broken(classes: int) -> nn.Module:
    """A builder that misses a file."""
    raise FileNotFoundError("backbone.pth")


UNUSABLE = [
    (broken, "its builder fails with 7 classes: FileNotFoundError: backbone.pth (test_networks.py, line "),
    (lambda: tiny(7), "its builder fails with 7 classes: TypeError: "),
    (lambda _: None, "its network must be a torch.nn.Module, not a value of type NoneType."),
    (lambda _: nn.Flatten(), "its network has no parameters, so that there is nothing to train; give it some."),
    (lambda classes: tiny(classes).requires_grad_(False), "its stage main has no parameters to train; give the"),
    (lambda _: nn.Sequential(nn.Flatten(), nn.LazyLinear(7)), "the shape of 1.weight is not known before its first"),
    (lambda classes: Late(classes), "it makes last.weight at its first input; make every layer where"),
    (lambda _: nn.Linear(5, 7), "its network fails on a float32 tensor (2, 1, 48, 48) in channels-last order, as its "),
    (lambda classes: tiny(classes).double(), "its network fails on a float32 tensor (2, 1, 48, 48) in channels-last"),
    (answering(lambda logits: logits.view(3)), "its first batch in training fails: RuntimeError: shape '[3]' is inv"),
    (lambda _: Extra(*flat()), "_extra_state in its state_dict() is no tensor, which a weight file cannot hold;"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "says"), UNUSABLE, ids=[says[:40] for _, says in UNUSABLE])
def test_a_network_that_cannot_be_trained_is_refused_in_a_sentence(
    build: Callable[..., object],
    says: str,
    train: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It names the method and what is wrong; wrong use, no traceback, and nothing that could be taken for weights."""
    assert train(build) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"deep_emotion: {says}")
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_fails_after_the_first_batch_stays_a_defect(train: Callable[..., int]) -> None:
    """A network that worked for a batch is no wrong use: what a library or a device does then keeps its traceback."""
    seen: list[Tensor] = []

    def form(logits: Tensor) -> Tensor:
        seen.append(logits)
        return logits.view(3) if len(seen) > 1 else logits

    with pytest.raises(RuntimeError, match="is invalid for input"):
        train(answering(form), "--method", "deep_emotion", "--epochs", "2")


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (lambda x: x, "^mine: its network must be a torch.nn.Module, not a value of type function.$"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(7)), "^mine: the shape of 1.weight is not known before its first"),
        (Extra(*flat()), r"^mine: _extra_state in its state_dict\(\) is no tensor"),
    ],
)
def test_a_network_that_cannot_be_judged_is_refused_in_a_sentence(network: nn.Module, says: str) -> None:
    """`benchmark` says what is wrong with the network, where torch speaks of uninitialised parameters and detach."""
    model = fer_bench.Model("mine", network, fer_bench.InputSpec(48, 1, (0.5,), (0.25,)), SEVEN)
    with pytest.raises(UserError, match=says):
        fer_bench.benchmark(model, fer_bench.load_dataset("rendered", "test").limit(7))


@pytest.mark.parametrize("ask", ["benchmark", "predict", "explain"])
@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(1600, 7)), "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (nn.Sequential(nn.Conv2d(3, 7, 3), nn.Flatten()), "RuntimeError: Given groups=1, weight of size"),
        (nn.Sequential(nn.Conv2d(1, 7, 3), nn.Flatten()).double(), "RuntimeError: Input type"),
    ],
)
def test_a_network_that_rejects_its_input_is_refused_in_a_sentence(network: nn.Module, says: str, ask: str) -> None:
    """Whoever asks it: with the shape that its InputSpec gives, and torch's own reason."""
    if ask == "explain" and isinstance(network[0], nn.Flatten):
        network = nn.Sequential(nn.Conv2d(1, 1, 1), *network)  # a layer to draw a CAM over
    mine = fer_bench.Model("mine", network, fer_bench.InputSpec(48, 1, (0.5,), (0.25,)), SEVEN)
    faces = fer_bench.load_dataset("rendered", "test").limit(7)
    asked = {
        "benchmark": lambda: fer_bench.benchmark(mine, faces),
        "predict": lambda: mine.predict(faces.images),
        "explain": lambda: explain(mine, faces.images, cam_layer="0"),
    }
    with pytest.raises(UserError) as caught:
        asked[ask]()
    given = "mine: its network fails on a float32 tensor (7, 1, 48, 48) in channels-last order, as its InputSpec has it"
    assert str(caught.value).startswith(f"{given}: {says}")
    assert "\n" not in str(caught.value)


def test_a_network_that_takes_whole_batches_alone_is_refused_at_the_last_one() -> None:
    """A network written for one size of batch fails where the pictures do not divide by it: that is told, too."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2304, 7), nn.Flatten(0), nn.Unflatten(0, (4, 7)))
    mine = fer_bench.Model("mine", network, fer_bench.InputSpec(48, 1, (0.5,), (0.25,)), SEVEN)
    faces = fer_bench.load_dataset("rendered", "test").limit(6)
    assert len(mine.predict(faces.images[:4], batch_size=4)) == 4
    with pytest.raises(UserError, match=r"^mine: its network fails on a float32 tensor \(2, 1, 48, 48\) in"):
        mine.predict(faces.images, batch_size=4)


def test_a_value_that_a_builder_asserts_against_is_refused(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is trained, and where the assertion has no text, with the value."""

    def build(classes: int, width: int = 4) -> nn.Module:
        if width >= 8:
            raise AssertionError  # as a bare assert does where pytest does not add to it
        return tiny(classes)

    grid = tmp_path / "grid.yaml"
    grid.write_text("method: deep_emotion\nwidth: [4, 8]\n")
    assert train(build, "--grid", str(grid)) == 2
    assert capsys.readouterr().err == f"{grid}: deep_emotion refuses width 8.\n"


def test_answers_that_are_not_finite_are_no_scores() -> None:
    """`predict`, and what writes the table of scores, say so where NaN for every emotion stood."""
    spec = fer_bench.InputSpec(48, 1, (0.5,), (0.25,))
    network = nn.Sequential(nn.Flatten(), nn.Linear(2304, 7), nn.Threshold(1e9, torch.nan))
    model = fer_bench.Model("mine", network, spec, SEVEN)
    faces = list(fer_bench.load_dataset("rendered", "test").limit(2).images)
    says = r"^mine answers 2 of 2 picture\(s\) with NaN or infinity; its weights are broken, or its input is not"
    with pytest.raises(UserError, match=says):
        model.predict(faces)
    with pytest.raises(UserError, match=says):
        score_prepared([prepare(Image.fromarray(face), "face.png", [model], detect=False) for face in faces], [model])
