"""Our networks through ONNX Runtime, for those who want it: `python -m fer_bench.predict --runtime onnx`.

    model = onnx_model(load("small_cnn"))
    model.predict("face.png")

A network is exported once (`fer_bench.submissions.exporting`) and kept in the cache folder under its weights' sha256;
whenever it is opened, its logits are compared with torch's first. It runs on the CPU, on as many threads as torch does.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.errors import UserError
from fer_bench.files import written_whole
from fer_bench.infer import Model, logits
from fer_bench.submissions.checks import need_onnx
from fer_bench.submissions.exporting import OPSET, TOLERANCE, write_onnx
from fer_bench.weights import cache_folder

if TYPE_CHECKING:
    import onnxruntime

RUNTIMES = ("torch", "onnx")
_FILLING = threading.Lock()
"""Of the cache folder: threads that want the same network wait for the one that exports it."""


class Session(nn.Module):
    """An ONNX Runtime session in a network's place: float32 (N, C, S, S) -> logits (N, K), both on the CPU."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        super().__init__()
        self.session = session

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"input": x.contiguous().numpy()})[0])


class OnnxModel(Model):
    """A `Model` whose network is a `Session`: it predicts, and has no gradients, parameters or other device."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: str | torch.device) -> OnnxModel:
        """Returns itself for the CPU. Raises UserError for anything else."""
        if torch.device(device).type != "cpu":
            raise UserError(f"ONNX Runtime is used on the CPU here, not on {device}; take the torch model for that.")
        return self


def onnx_model(model: Model) -> OnnxModel:
    """The same model in ONNX Runtime, exported first where it is not in the cache folder.

    model: as `infer.load` gives it; it is left as it is. One without a weight file (no sha256 in its record) is
    exported anew each time. Its logits are within 1e-4 of torch's, relative to the largest (at least 1). May be called
    from several threads. Raises UserError where onnx or onnxruntime is not installed or the logits differ, OutputError
    where the cache cannot be written.
    """
    need_onnx()
    digest = model.record.get("sha256")
    if digest is None:
        with tempfile.TemporaryDirectory(prefix="fer_bench-onnx-") as folder:
            return _checked(model, _export(model, Path(folder) / "model.onnx"))
    path = onnx_folder() / f"{model.name}-{digest}-{OPSET}.onnx"
    with _FILLING:
        if path.is_file():
            with contextlib.suppress(UserError):  # damaged, or of an older version of the network: export it again
                return _checked(model, path)
        return _checked(model, _export(model, path))


def onnx_folder() -> Path:
    """Where exported networks lie: `$FER_BENCH_CACHE`/onnx, else ~/.cache/fer_bench/onnx."""
    return cache_folder().parent / "onnx"


def _export(model: Model, path: Path) -> Path:
    """Write the network to `path`, whole or not at all."""
    with written_whole(path, "; set $FER_BENCH_CACHE to a folder with room") as temporary:
        write_onnx(model.network, model.input_spec.channels, model.input_spec.size, temporary)
    return path


def _checked(model: Model, path: Path) -> OnnxModel:
    """The file as a model. UserError where it cannot be opened or its logits on three pictures of noise are others."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # torch's own number, which follows $OMP_NUM_THREADS and the cores that the process may use.
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each kind of damage raises one of its own kinds
        raise UserError(f"{path}: ONNX Runtime cannot open it ({' '.join(str(error).split())[:120]}).") from None
    theirs = OnnxModel(model.name, Session(session), model.input_spec, model.emotions, model.record, model.path)
    side = model.input_spec.size
    noise = np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)
    expected, found = logits(model, noise), logits(theirs, noise)
    worst = np.inf
    if found.shape == expected.shape:
        worst = float(np.abs(expected - found).max() / max(1.0, np.abs(expected).max()))
    if not worst <= TOLERANCE:
        raise UserError(f"{path}: its logits differ from torch's by {worst:.2g}; use --runtime torch and report this.")
    return theirs
