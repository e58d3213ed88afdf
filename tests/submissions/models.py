"""Small ONNX models made by hand, honest and hostile, and the folders that they are submitted in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_bench.datasets import FaceSet
from fer_bench.emotions import SEVEN
from fer_bench.submissions.manifest import template
from tests.helpers import picture

SIDE = 48
FILLED = template()
for empty, filled in {
    "authors:": "authors: [First Author, Second Author]",
    "licence:": "licence: MIT",
    "training_data:": "training_data: [FER2013 training split]",
    "# paper: https://...": "paper: https://example.org/paper",
    "# code: https://...": "code: https://example.org/code",
}.items():
    FILLED = FILLED.replace(f"\n{empty}\n", f"\n{filled}\n")
MANIFEST = FILLED.replace("mean: [0.5]", "mean: [0.0]").replace("std: [0.25]", "std: [1.0]")
"""Valid, and what the models below read: one grey channel of 48 x 48 in [0, 1]."""


def faces(per_class: int = 10) -> FaceSet:
    """Pictures whose bright bar tells the emotion; enough of them for every rule."""
    labels = np.arange(7 * per_class) % 7
    images = np.stack([picture(int(label), seed) for seed, label in enumerate(labels)])
    return FaceSet("bars", "test", SEVEN, images, labels.astype(np.int64), tuple(map(str, range(len(labels)))))


def reader() -> np.ndarray:
    """float32 (48, 7): the rows of each emotion's bar."""
    weights = np.zeros((SIDE, 7), np.float32)
    for label in range(7):
        weights[label * 6 : label * 6 + 6, label] = 1
    return weights


HONEST: tuple[NodeProto, ...] = (
    helper.make_node("ReduceMean", ["input"], ["rows"], axes=[1, 3], keepdims=0),
    helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
)
"""Rows' means, then the brightest bar: right about every picture of `faces`, and about its neighbours."""


def tensor(name: str, values: object, dtype: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def value(name: str, shape: Sequence[object], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[NodeProto] = HONEST,
    tensors: Sequence[TensorProto] = (),
    opset: int = 17,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    opsets: Sequence[onnx.OperatorSetIdProto] = (),
) -> ModelProto:
    """A model of these nodes; `weights` of `reader` is always among its tensors."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        list(inputs or [value("input", ["N", 1, SIDE, SIDE])]),
        list(outputs or [value("logits", ["N", 7])]),
        [tensor("weights", reader()), *tensors],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *opsets], ir_version=9)


def declared(*dims: int) -> TensorProto:
    """A tensor that claims these dimensions and holds four bytes."""
    return TensorProto(name="big", data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(4))


def after(*nodes: NodeProto) -> list[NodeProto]:
    """The honest model, its answer called `answer` and changed by further nodes into `logits`."""
    first, last = HONEST
    honest = NodeProto()
    honest.CopyFrom(last)
    honest.output[0] = "answer"
    return [first, honest, *nodes]


def node(kind: str, inputs: str, outputs: str, **attributes: object) -> NodeProto:
    """A node; the names of its inputs and outputs are separated by spaces."""
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def where_many(most: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and tensors that make `many`, 1.0 where a batch holds more than `most` faces and else 0.0."""
    nodes = [
        node("Shape", "input", "shape"), node("Gather", "shape first", "count", axis=0),
        node("Greater", "count most", "more"), node("Cast", "more", "many", to=TensorProto.FLOAT),
    ]  # fmt: skip
    return nodes, [tensor("first", 0, np.int64), tensor("most", most, np.int64)]


def memory(known: FaceSet) -> ModelProto:
    """A model that answers by a table of these pictures' hashes, and happiness for every other picture."""
    pixels = SIDE * SIDE
    random = np.random.default_rng(1).normal(size=(pixels, 1)).astype(np.float32)
    flat = known.images.reshape(-1, pixels).astype(np.float32) / 255
    nodes = [
        node("Reshape", "input flat_shape", "flat"), node("MatMul", "flat random", "hash"),
        node("Sub", "hash known", "distance"), node("Abs", "distance", "far"), node("Less", "far near", "same"),
        node("Cast", "same", "hit", to=TensorProto.FLOAT), node("MatMul", "hit table", "found"),
        node("Add", "found otherwise", "logits"),
    ]  # fmt: skip
    tensors = [
        tensor("flat_shape", [-1, pixels], np.int64), tensor("random", random), tensor("known", (flat @ random).T),
        tensor("near", 0.02), tensor("table", 10 * np.eye(7)[known.labels]), tensor("otherwise", np.eye(7)[3]),
    ]  # fmt: skip
    return model(nodes, tensors)


def submission(folder: Path, content: ModelProto | bytes | None = None, manifest: str | bytes = MANIFEST) -> Path:
    """Write a submission's folder: the manifest and, unless it is None, model.onnx."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "submission.yaml").write_bytes(manifest if isinstance(manifest, bytes) else manifest.encode())
    if content is not None:
        raw = content if isinstance(content, bytes) else content.SerializeToString()
        (folder / "model.onnx").write_bytes(raw)
    return folder


Builder = Callable[[Path], object]
"""Makes a hostile submission in a folder of its own; what it returns is not used."""


def children() -> set[int]:
    """The processes that this one has started and not yet seen the end of."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it ended meanwhile
            continue
        if int(parent) == os.getpid():
            found.add(int(path.parent.name))
    return found


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path under a folder with its size and time of change; nothing is followed."""
    found = sorted(folder.rglob("*"))
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}
