"""Any method of ours as a submission's folder: submission.yaml and model.onnx."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from fer_bench.errors import UserError
from fer_bench.files import atomic_write
from fer_bench.infer import Model, evaluating, load
from fer_bench.methods import METHODS
from fer_bench.protocols import TRACKS
from fer_bench.submissions.checks import need_onnx
from fer_bench.submissions.folder import can_write
from fer_bench.terms import OTHERS, terms

OPSET = 20
"""The first with grid sampling of 2-D maps by name (`deep_emotion`) that every onnxruntime here runs."""
TOLERANCE = 1e-4
"""Greatest difference between the exported logits and torch's, relative to the largest logit (at least 1)."""


def export_method(name: str, out: Path, track: str = "fer2013") -> Path:
    """A method with the weights of a track as a submission in the folder `out`; returns it.

    Raises UserError where `out` holds something or a package is missing, WeightsError where there are no weights.
    """
    return export_model(load(name, track), out)


def export_model(model: Model, out: Path) -> Path:
    """A loaded model as a submission in the new or empty folder `out`; returns it.

    The logits of the ONNX file are compared with torch's before this returns; UserError where they differ. The name
    gets "_copy" behind it, because those of registered methods are taken.
    """
    need_onnx()
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: this is a file or not empty; give a new folder.")
    can_write(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:  # interrupted, it leaves no half a model
        path = write_onnx(model.network, model.input_spec.channels, model.input_spec.size, Path(folder) / "model.onnx")
        worst = difference(model, path)
        if worst > TOLERANCE:
            text = f"its logits differ from torch's by {worst:.2g}; report this with your torch version."
            raise UserError(f"{out / path.name}: {text}")
        os.replace(path, out / path.name)
    atomic_write(out / "submission.yaml", manifest_text(model).encode())
    return out


def _licence(model: Model) -> str:
    """The code's, and whose terms hold for the weights, as what a submission's manifest says of them."""
    code = METHODS[model.name].card.licence
    lines = terms([({"method": model.name, "track": model.record["trained"]["track"]}, model.record)])
    bound = [line.split(":")[0] for line in lines if OTHERS not in line]  # the code's says whose weights it starts from
    return f"{code}; weights: terms of {', '.join(bound)}" if bound else code


def manifest_text(model: Model) -> str:
    """submission.yaml of one of our models; the title, paper and licence come from its card."""
    card, spec = METHODS[model.name].card, model.input_spec
    trained = model.record["trained"]["track"]
    values = {
        "name": f"{model.name[:35]}_copy",
        "title": card.title,
        "authors": ["fer_bench"],
        "licence": _licence(model),
        # A manifest is made to be handed on: no path of one's own pictures.
        "training_data": ["pictures of one's own" if ":" in trained else f"the training split of track {trained}"],
        "emotions": list(model.emotions),
        "input": {
            "size": spec.size, "channels": spec.channels, "range": [0, 1], "mean": list(spec.mean),
            "std": list(spec.std), "margin": spec.margin,
        },
        "tracks": [name for name in TRACKS if TRACKS[name].trained_on == trained] or ["rendered"],
        **({"paper": card.url} if card.url.startswith("https://") else {}),
    }  # fmt: skip
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def write_onnx(network: nn.Module, channels: int, size: int, path: Path) -> Path:
    """Export a network (N, channels, size, size) -> logits (N, K) with a free N, all weights inside one file.

    The tracing exporter: it is ten times as quick as the other, and alone it keeps N free in `awei`. Under no_grad,
    because `awei` computes its gradients by hand. In the contiguous layout, which ONNX has.
    """
    network = network.to(memory_format=torch.contiguous_format)
    example = torch.zeros(2, channels, size, size, device=next(network.parameters()).device)
    with evaluating(network), torch.no_grad(), exportable(network, example), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example,), str(path), dynamo=False,
            input_names=["input"], output_names=["logits"], opset_version=OPSET,
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )  # fmt: skip
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
