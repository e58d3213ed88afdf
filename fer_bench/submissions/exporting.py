"""A method of ours, or anyone's model in torch, as a submission's folder: submission.yaml and model.onnx."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from fer_bench.errors import UserError
from fer_bench.files import OutputError, atomic_write, filled_folder
from fer_bench.infer import Model, load
from fer_bench.judged import OWN, recorded
from fer_bench.methods import METHODS
from fer_bench.modes import evaluating
from fer_bench.protocols import TRACKS
from fer_bench.submissions.checks import need_onnx
from fer_bench.submissions.folder import can_write
from fer_bench.submissions.manifest import read_manifest
from fer_bench.submissions.problems import SIZES
from fer_bench.terms import OTHERS, terms
from fer_bench.weights import read_index

OPSET = 20
"""The first with grid sampling of 2-D maps by name (`deep_emotion`) that every onnxruntime here runs."""
LEFT_OPEN = ("authors", "licence", "training_data")
"""What only its authors can say of a model that was trained elsewhere; the check refuses a manifest without it."""
TOLERANCE = 1e-4
"""Greatest difference between the exported logits and torch's, relative to the largest logit (at least 1)."""
_EXPORTING = threading.Lock()
"""torch's exporter keeps its state in the process: two threads in it at once fail both."""


def export_method(name: str, out: Path, track: str = "fer2013") -> Path:
    """A method with the weights of a track as a submission in the folder `out`; returns it.

    Raises UserError where `out` holds something or a package is missing, WeightsError where there are no weights.
    """
    return export_model(load(name, track), out)


def export_model(model: Model, out: Path) -> Path:
    """A model as a submission in the new or empty folder `out`; returns it.

    model: of `load`, of `from_transformers`, or one's own; it is left as it is. A registered method's name is taken:
    it gets "_copy" behind it. What only its authors know of weights that are not shipped here the manifest leaves open
    (`LEFT_OPEN`). The ONNX file says in its own metadata what its input and outputs are, for whoever gets it alone
    (`described`). Its logits are compared with torch's before this returns. Raises UserError where they differ, where
    `out` holds something or cannot be written, and for a model that no manifest can describe or ONNX cannot hold.
    """
    need_onnx()
    model, out = recorded(model), Path(out)
    text = manifest_text(model)
    _describes(model, text)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: this is a file or not empty; give a new folder.")
    can_write(out)
    try:
        with filled_folder(out) as folder:  # interrupted, it leaves no half a model
            _write_checked(model, folder / "model.onnx", out)
            atomic_write(folder / "submission.yaml", text.encode())
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{out}: this cannot be written ({error.strerror}); give a folder with room.") from None
    return out


def _write_checked(model: Model, path: Path, out: Path) -> None:
    """`write_onnx` of a model into `out`, tried in ONNX Runtime. UserError in a sentence where it will not do."""
    spec = model.input_spec
    try:
        described(write_onnx(model.network, spec.channels, spec.size, path), model)
        worst = difference(model, path)
    except OSError:
        raise
    except Exception as error:  # torch's exporter, ONNX Runtime and a network of one's own raise their own kinds
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        text = "it cannot be written as ONNX with a free number of pictures"
        mend = "export it yourself, as leaderboard/submissions/README.md has it"
        raise UserError(f"{model.name}: {text} ({reason}); {mend}.") from None
    if worst > TOLERANCE:
        text = f"its logits differ from torch's by {worst:.2g}; report this with your torch version."
        raise UserError(f"{out / path.name}: {text}")
    if path.stat().st_size > SIZES[path.name]:
        text = f"as ONNX it has {path.stat().st_size:,} bytes, and at most {SIZES[path.name]:,} are taken"
        raise UserError(f"{model.name}: {text}; submit a smaller one.")


def _describes(model: Model, text: str) -> None:
    """Raise UserError where the check would refuse a manifest for more than what its authors are to fill in."""
    _, problems = read_manifest(text.encode())
    wrong = [problem.text for problem in problems if problem.code.removeprefix("manifest_") not in LEFT_OPEN]
    if wrong:
        raise UserError(f"{model.name} cannot be a submission: {wrong[0]}")


def _licence(model: Model) -> str:
    """The code's, and whose terms hold for the weights, as what a submission's manifest says of them."""
    code = METHODS[model.name].card.licence
    lines = terms([({"method": model.name, "track": model.record["trained"]["track"]}, model.record)])
    bound = [line.split(":")[0] for line in lines if OTHERS not in line]  # the code's says whose weights it starts from
    return f"{code}; weights: terms of {', '.join(bound)}" if bound else code


def left_open(out: Path) -> list[str]:
    """The fields of an exported manifest that its authors have to fill in before the check takes it."""
    _, problems = read_manifest((out / "submission.yaml").read_bytes())
    return [problem.code.removeprefix("manifest_") for problem in problems]


def manifest_text(model: Model) -> str:
    """submission.yaml of a model. Of a method's, title, paper and licence come from its card; see `LEFT_OPEN`."""
    spec = model.input_spec
    of_method = model.name in METHODS and model.record["trained"]["track"] != OWN
    told, after = _of_card(model) if of_method else _of_others(model)
    values = {
        "emotions": list(model.emotions),
        "input": {
            "size": spec.size, "channels": spec.channels, "range": [0, 1], "mean": list(spec.mean),
            "std": list(spec.std), "margin": spec.margin,
        },
    }  # fmt: skip
    return told + yaml.safe_dump(values | after, sort_keys=False, allow_unicode=True)


def _of_card(model: Model) -> tuple[str, dict]:
    """What stands before emotions and input, as text, and what behind them, of a method that `train` has trained."""
    card, trained = METHODS[model.name].card, model.record["trained"]["track"]
    shipped = model.record.get("sha256") in {entry["sha256"] for entry in read_index().values()}
    before = {
        "name": f"{model.name[:35]}_copy",
        "title": card.title,
        "authors": ["fer_bench"] if shipped else [],  # who trained it elsewhere is to say so
        "licence": _licence(model),
        # A manifest is made to be handed on: no path of one's own pictures.
        "training_data": ["pictures of one's own" if ":" in trained else f"the training split of track {trained}"],
    }
    after = {
        "tracks": [name for name in TRACKS if TRACKS[name].trained_on == trained] or ["rendered"],
        **({"paper": card.url} if card.url.startswith("https://") else {}),
    }
    return yaml.safe_dump(before, sort_keys=False, allow_unicode=True), after


def _of_others(model: Model) -> tuple[str, dict]:
    """As `_of_card`, of a model that was trained elsewhere."""
    name = f"{model.name[:35]}_copy" if model.name in METHODS else model.name[:40]
    source = model.record["trained"].get("pretrained")
    before = (
        yaml.safe_dump({"name": name, "title": name}, sort_keys=False)
        + (f"# {source}\n" if source else "")
        + "# Fill in the next three. The check refuses them as they are.\n"
        "authors: []\n"
        "licence: ''        # of the weights, such as MIT\n"
        "training_data: []  # everything it was trained on, pre-training included, and test pictures among it\n"
    )
    return before, {"tracks": ["ferplus" if "contempt" in model.emotions else "fer2013", "rendered"]}


def write_onnx(network: nn.Module, channels: int, size: int, path: Path) -> Path:
    """Export a network (N, channels, size, size) -> logits (N, K) with a free N, all weights inside one file.

    The tracing exporter: it is ten times as quick as the other, and alone it keeps N free in `awei`. Under no_grad,
    because `awei` computes its gradients by hand. A copy on the CPU is exported, in the contiguous layout, which ONNX
    has, so that the network itself may answer meanwhile. Several threads take turns.
    """
    network = copy.deepcopy(network).eval().to("cpu", memory_format=torch.contiguous_format)
    example = torch.zeros(2, channels, size, size)
    with _EXPORTING, torch.no_grad(), exportable(network, example), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example,), str(path), dynamo=False,
            input_names=["input"], output_names=["logits"], opset_version=OPSET,
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )  # fmt: skip
    return path


def described(path: Path, model: Model) -> Path:
    """Put into an ONNX file's metadata, as JSON by these names, what a user of the file alone has to know.

    emotions: the order of the logits. size: pixels a side. channels: 1 or 3 (RGB). mean, std: per channel, of pixels
    in 0..1. margin: how far around a detected face the picture reaches. sha256: of the weight file it was made from.
    """
    import onnx

    file, spec = onnx.load(path), model.input_spec
    known = {
        "emotions": list(model.emotions), "size": spec.size, "channels": spec.channels, "mean": list(spec.mean),
        "std": list(spec.std), "margin": spec.margin, "sha256": model.record.get("sha256"),
    }  # fmt: skip
    onnx.helper.set_model_props(file, {key: json.dumps(value) for key, value in known.items() if value is not None})
    onnx.save(file, path)
    return path


class Averages(nn.Module):
    """Adaptive average pooling (N, C, H, W) -> (N, C, *out) of maps of one known size, as two matrix products."""

    def __init__(self, size: Sequence[int], out: Sequence[int]) -> None:
        super().__init__()
        rows, columns = (averaging(*sides) for sides in zip(size, out, strict=True))
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns.T)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns


def averaging(size: int, out: int) -> Tensor:
    """float32 (out, size): row i takes the mean of the places that adaptive pooling gives to output i."""
    matrix = torch.zeros(out, size)
    for row in range(out):
        first, last = row * size // out, -(-(row + 1) * size // out)
        matrix[row, first:last] = 1 / (last - first)
    return matrix


@contextlib.contextmanager
def exportable(network: nn.Module, example: Tensor) -> Iterator[None]:
    """While open, adaptive poolings that ONNX has no operator for (2 x 2 to 7 x 7 in the VGGs) are matrix products."""
    pools = {name: m for name, m in network.named_modules() if isinstance(m, nn.AdaptiveAvgPool2d)}
    sizes: dict[nn.Module, tuple[int, int]] = {}
    handles = [
        pool.register_forward_pre_hook(lambda module, inputs: sizes.update({module: tuple(inputs[0].shape[2:])}))
        for pool in pools.values()
    ]
    try:
        if pools:
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    swapped = {}
    for name, pool in pools.items():
        out = (pool.output_size,) * 2 if isinstance(pool.output_size, int) else pool.output_size
        size = sizes.get(pool, out)
        if any(s % o for s, o in zip(size, out, strict=True)):
            swapped[name] = Averages(size, out).to(example.device)
    try:
        for name, averages in swapped.items():
            network.set_submodule(name, averages)
        yield
    finally:
        for name in swapped:
            network.set_submodule(name, pools[name])


def difference(model: Model, path: Path) -> float:
    """The largest difference of a logit on noise, in batches of one and three, relative to the largest (at least 1).

    Infinite where one of the two answers something that is not finite.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    spec, worst = model.input_spec, 0.0
    for count in (1, 3):
        generator = torch.Generator().manual_seed(count)
        inputs = torch.randn(count, spec.channels, spec.size, spec.size, generator=generator)
        with evaluating(model.network), torch.inference_mode():
            ours = model.network(inputs.to(model.device)).cpu()
        theirs = torch.from_numpy(session.run(None, {"input": inputs.numpy()})[0])
        apart = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))
        worst = max(worst, apart) if math.isfinite(apart) else math.inf
    return worst
