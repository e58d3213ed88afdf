"""What an ONNX file must be before it may run. Called in the sandboxed child: even parsing has limits there.

Only arithmetic over what the file declares; nothing is allocated by its dimensions. onnx is imported here, so nothing
else may import this module lightly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from fer_bench.submissions.problems import LFS, POINTER

OPSETS = (11, 24)
"""The oldest and newest operator sets that are run."""
OWN = ("", "ai.onnx")
"""Names of the domain of ONNX's own operators."""
NODES, TENSORS = 5000, 5000
TENSOR_BYTES = 600_000_000
CONTROL_FLOW = {"Loop", "Scan", "If", "SequenceMap"}
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
NOT_NUMBERS = {"ImageDecoder", "LabelEncoder", "Optional", "OptionalGetElement", "OptionalHasElement", "RegexFullMatch"}
ITEMSIZE = {
    TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1, TensorProto.UINT8: 1, TensorProto.INT16: 2, TensorProto.UINT16: 2, TensorProto.INT32: 4,
    TensorProto.UINT32: 4, TensorProto.INT64: 8, TensorProto.UINT64: 8, TensorProto.BOOL: 1,
}  # fmt: skip
WEIGHTS = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8,
    TensorProto.UINT8,
}  # fmt: skip
"""Types of numbers that count as parameters; whole numbers of other types are shapes and indices."""


class Findings(list[tuple[str, str]]):
    """(code, sentence) pairs; a code is noted once, however often it occurs."""

    def note(self, code: str, text: str) -> None:
        if code not in (known for known, _ in self):
            self.append((code, f"model.onnx {text}"))


def parse(content: bytes) -> tuple[ModelProto | None, Findings]:
    """The model in these bytes, external data not loaded, or why it is none."""
    found = Findings()
    if content[:2] == b"PK":
        found.note("not_onnx", "is a zip (TorchScript or a PyTorch checkpoint?), not ONNX; export it to ONNX.")
    elif content[:1] == b"\x80" or content[:6] == b"\x93NUMPY":
        found.note("not_onnx", "is a pickle or NumPy file, not ONNX, and is never loaded; export it to ONNX.")
    elif content.startswith(LFS):
        found.note("not_onnx", POINTER)
    if found:
        return None, found
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # protobuf's DecodeError has no stable home
        found.note("not_onnx", "is not a readable ONNX file (cut off or of another format); export it again.")
        return None, found
    if not model.HasField("graph") or not model.graph.node:
        found.note("not_onnx", "holds no graph of operators, so it is not ONNX; export it again.")
        return None, found
    return model, found


def inspect(model: ModelProto, shape: tuple[int, int, int] | None) -> Findings:
    """Everything that is wrong with a model; shape is (channels, size, outputs), None where the manifest is broken.

    Wanted are inputs (N, channels, size, size) and logits (N, outputs), both float32.
    """
    found = Findings()
    _header(model, found)
    graph = model.graph
    if len(graph.node) > NODES or len(graph.initializer) > TENSORS:
        text = f"has {len(graph.node):,} nodes and {len(graph.initializer):,} tensors; at most {NODES:,} of each"
        found.note("too_many_nodes", f"{text} are run.")
    elif not found:
        _nodes(graph, found)
        _tensors(graph, found)
    if not found and parameters(model) == 0:
        found.note("no_weights", "holds no weights (numbers of floating type or 8 bits); export the trained network.")
    if shape is not None:
        _signature(graph, *shape, found)
    if not found:
        try:
            onnx.checker.check_model(model)
        except Exception as error:  # its own kind of error, and others from C++
            found.note("invalid_onnx", f"is not valid ONNX ({' '.join(str(error).split())[:200]}); export it again.")
    return found


def parameters(model: ModelProto) -> int:
    """Numbers of floating type or 8 bits that the file holds, as initialisers or inside Constant nodes."""
    held = sum(math.prod(tensor.dims) for tensor in _all_tensors(model.graph) if tensor.data_type in WEIGHTS)
    lists = (attribute for node in model.graph.node if node.op_type == "Constant" for attribute in node.attribute)
    return held + sum(len(attribute.floats) + (attribute.name == "value_float") for attribute in lists)


def _header(model: ModelProto, found: Findings) -> None:
    if not 4 <= model.ir_version <= onnx.IR_VERSION:
        found.note("ir_version", f"has IR version {model.ir_version}; versions 4 to {onnx.IR_VERSION} are run.")
    if model.functions:
        found.note("functions", "defines functions of its own; export it with them inlined.")
    if model.training_info:
        found.note("training_info", "carries training graphs; export it for inference.")
    versions = [opset.version for opset in model.opset_import if opset.domain in OWN]
    # Other domains stand in the files of many exporters without any use; where a node is of one, `_nodes` says so.
    for version in versions:
        if not OPSETS[0] <= version <= OPSETS[1]:
            text = f"uses opset {version}; opsets {OPSETS[0]} to {OPSETS[1]} are run. Export it with one of them."
            found.note("opset", text)
    if not versions:
        found.note("opset", f"names no opset; export it with opset {OPSETS[0]} to {OPSETS[1]}.")


def _nodes(graph: GraphProto, found: Findings) -> None:
    for node in graph.node:
        kind = node.op_type[:60]
        if isinstance(kind, bytes):  # what protobuf gives for a string that is none
            found.note("operator", f"uses {kind!r}, which is no text and no operator of ONNX; export it again.")
        elif node.domain not in OWN:
            found.note("custom_domain", f"uses the operator {node.domain[:60]}.{kind}; only ONNX's own are run.")
        elif kind in CONTROL_FLOW:
            found.note("control_flow", f"uses {kind}, which need not end; export it without control flow.")
        elif kind in RANDOM:
            found.note("random", f"uses {kind}, which draws random numbers; the same face must give the same answer.")
        elif kind in NOT_NUMBERS or kind.startswith(("Sequence", "SplitToSequence", "String", "TfIdf")):
            found.note("operator", f"uses {kind}, which is not about numbers; only operators on tensors are run.")
        elif not onnx.defs.has(kind):
            found.note("operator", f"uses {kind!r}, which is no operator of ONNX; export it again.")
        for attribute in node.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or attribute.HasField("g"):
                found.note("control_flow", f"has a graph inside {kind}; export it without control flow.")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors or attribute.ref_attr_name:
                found.note("sparse", f"has a sparse tensor or a reference inside {kind}; only dense tensors are read.")


def _all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _tensors(graph: GraphProto, found: Findings) -> None:
    total = 0
    if graph.sparse_initializer:
        found.note("sparse", "has sparse tensors; only dense ones are read.")
    for tensor in _all_tensors(graph):
        name = tensor.name[:60] or "a constant"
        if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
            where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")[:80]
            text = f"keeps {name!r} in another file ({where!r}); save all in model.onnx (external_data=False)."
            found.note("external_data", text)
            continue
        if tensor.data_type not in ITEMSIZE:
            found.note("tensor_type", f"has {name!r} of a type that is not read (strings, say); use numbers.")
            continue
        if any(size < 0 for size in tensor.dims) or len(tensor.dims) > 8:
            found.note("tensor_size", f"has {name!r} with impossible dimensions {list(tensor.dims)[:8]}.")
            continue
        items = math.prod(tensor.dims)
        needed = items * ITEMSIZE[tensor.data_type]
        total += needed
        if total > TENSOR_BYTES:
            text = f"declares {needed:,} bytes for {name!r}; at most {TENSOR_BYTES:,} are read in all."
            found.note("declared_size", text)
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != needed:
            text = f"declares {needed:,} bytes for {name!r} but holds {len(tensor.raw_data):,}; export it again."
            found.note("declared_size", text)
        elif not tensor.HasField("raw_data"):
            fields = "float_data", "double_data", "int32_data", "int64_data", "uint64_data"
            held = max(len(getattr(tensor, field)) for field in fields)
            if held != items:
                text = f"declares {items:,} numbers for {name!r} but holds {held:,}; export it again."
                found.note("declared_size", text)


def _signature(graph: GraphProto, channels: int, size: int, outputs: int, found: Findings) -> None:
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or len(graph.output) != 1:
        text = f"has {len(inputs)} inputs and {len(graph.output)} outputs; it must have one of each."
        found.note("signature", text)
        return
    wanted = {"input": (inputs[0], (channels, size, size)), "output": (graph.output[0], (outputs,))}
    for side, (value, rest) in wanted.items():
        shape = ", ".join(map(str, ("N", *rest)))
        if value.type.WhichOneof("value") != "tensor_type":
            found.note(f"{side}_type", f"has an {side} that is no tensor; it must be a float32 tensor ({shape}).")
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in ITEMSIZE else "another type"
            found.note(f"{side}_type", f"has an {side} of {kind}; it must be float32 ({shape}).")
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        shown = ", ".join("N" if dim is None else str(dim) for dim in dims)
        if not dims:
            text = f"has an {side} whose shape is not declared; it must be ({shape}), so export it with its shapes."
            found.note(f"{side}_shape", text)
        elif dims[1:] != list(rest):
            reason = "the manifest's emotions" if side == "output" else "the manifest's input"
            found.note(f"{side}_shape", f"has an {side} of shape ({shown}); by {reason} it must be ({shape}).")
        elif dims[0] is not None:
            batch = f"fixed batch of {dims[0]}" if dims[0] >= 0 else f"batch of {dims[0]}, which is no free one to ONNX"
            text = f"has an {side} with a {batch}; export it with a free one (dynamic_shapes)."
            found.note(f"{side}_batch", text)
