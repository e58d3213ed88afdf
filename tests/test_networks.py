"""Networks of anyone's that cannot be trained or judged: what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fer_bench.methods import METHODS
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


def test_logits_that_nothing_trained_leads_to_are_refused(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A detach() in the network is told, not autograd's element 0 of tensors."""
    assert train(answering(Tensor.detach)) == 2
    assert capsys.readouterr().err.startswith(
        "deep_emotion: in its stage main the loss does not depend on any parameter that is trained; look for a detach()"
    )
