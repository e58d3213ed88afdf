"""Hostile ONNX models: some are refused by what they declare, the others when they run in their sandbox."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from fer_bench.datasets import FaceSet
from fer_bench.submissions import Limits, check, inspection
from fer_bench.submissions.behaviour import by_a_pixel, changed_answers
from tests.submissions.models import (
    MANIFEST,
    SIDE,
    Builder,
    after,
    children,
    declared,
    faces,
    listing,
    memory,
    model,
    node,
    submission,
    tensor,
    value,
    where_many,
)  # fmt: skip

HONEST_BYTES = model().SerializeToString()


def onnx_of(*arguments: object, **options: object) -> Builder:
    return lambda folder: submission(folder, model(*arguments, **options))


def torchscript() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(1))
    return buffer.getvalue()


def external(location: str) -> Builder:
    def build(folder: Path) -> None:
        outside = tensor("outside", np.zeros(4))
        outside.ClearField("raw_data")
        outside.data_location = TensorProto.EXTERNAL
        outside.external_data.add(key="location", value=location)
        submission(folder, model(tensors=[outside]))

    return build


def body(*nodes: onnx.NodeProto, inputs: tuple = (), outputs: tuple = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", list(inputs), list(outputs))


def forever() -> onnx.NodeProto:
    """A Loop of 2**62 rounds that hands the answer on."""
    rounds = body(
        node("Identity", "more_in", "more"), node("Identity", "answer_in", "answer_out"),
        inputs=(value("round", [], TensorProto.INT64), value("more_in", [], TensorProto.BOOL),
                value("answer_in", ["N", 7])),
        outputs=(value("more", [], TensorProto.BOOL), value("answer_out", ["N", 7])),
    )  # fmt: skip
    return node("Loop", "rounds yes answer", "logits", body=rounds)


def recursion(folder: Path) -> None:
    """Two functions of the model that call each other."""
    nested = model(after(node("Again", "answer", "logits", domain="local")), opsets=[helper.make_opsetid("local", 1)])
    for name, other in (("Again", "AndAgain"), ("AndAgain", "Again")):
        inner = [node(other, "x", "y", domain="local")]
        opsets = [helper.make_opsetid("local", 1)]
        nested.functions.append(helper.make_function("local", name, ["x"], ["y"], inner, opsets))
    submission(folder, nested)


def choice() -> onnx.NodeProto:
    branch = body(node("Identity", "answer", "out"), outputs=(value("out", ["N", 7]),))
    return node("If", "yes", "logits", then_branch=branch, else_branch=branch)


def no_weights(folder: Path) -> None:
    """The honest model without its numbers: the first row of the picture stands for the answer."""
    empty = model([node("Slice", "input start end axes", "cut"), node("Reshape", "cut flat", "logits")],
                  [tensor("start", [0, 0], np.int64), tensor("end", [1, 7], np.int64),
                   tensor("axes", [2, 3], np.int64), tensor("flat", [-1, 7], np.int64)])  # fmt: skip
    del empty.graph.initializer[0]
    submission(folder, empty)


def test_weights_are_counted_wherever_they_stand() -> None:
    """As an initialiser, in a Constant node, as a list of floats or as uint8, the same numbers count the same."""
    weights = tensor("w", np.ones(12))
    bare = inspection.parameters(model())
    inside = node("Constant", "", "w", value=weights)
    listed = node("Constant", "", "w", value_floats=[1.0] * 12)
    for nodes, tensors in (((), [weights]), ([inside], []), ([listed], []), ((), [tensor("w", np.ones(12), np.uint8)])):
        assert inspection.parameters(model([*nodes, *after()], tensors)) == bare + 12


YES = tensor("yes", True, np.bool_)
CHAIN = [node("Identity", f"n{i}", f"n{i + 1}") for i in range(6000)]

STATIC: dict[str, tuple[Builder, str]] = {
    "git's pointer to a large file": (lambda f: submission(f, b"version https://git-lfs.github.com"), "git lfs"),
    "a pickle called ONNX": (lambda f: submission(f, pickle.dumps({"a": 1})), "pickle"),
    "TorchScript called ONNX": (lambda f: submission(f, torchscript()), "TorchScript"),
    "half an ONNX file": (lambda f: submission(f, HONEST_BYTES[: len(HONEST_BYTES) // 2]), "not a readable ONNX"),
    "random bytes": (lambda f: submission(f, np.random.default_rng(0).bytes(5000)), "not a readable ONNX"),
    "an empty model": (lambda f: submission(f, b""), "no graph"),
    "external data that leaves the folder": (external("../../../etc/passwd"), "another file ('../../../etc/passwd')"),
    "external data in the folder": (external("README.md"), "another file"),
    "a custom operator": (
        onnx_of(after(node("Run", "answer", "logits", domain="com.evil")), opsets=[helper.make_opsetid("com.evil", 1)]),
        "uses the operator com.evil.Run",
    ),
    "functions that call each other": (recursion, "functions of its own"),
    "a loop that never ends": (
        onnx_of(after(forever()), [tensor("rounds", 2**62, np.int64), YES]), "Loop, which need not end"
    ),
    "a branch": (onnx_of(after(choice()), [YES]), "uses If"),
    "random answers": (
        onnx_of(after(node("RandomNormalLike", "answer", "noise"), node("Add", "answer noise", "logits"))),
        "draws random numbers",
    ),
    "six thousand nodes": (
        onnx_of([*after(node("Identity", "answer", "n0")), *CHAIN, node("Identity", "n6000", "logits")]), "6,004 nodes"
    ),
    "ten thousand unused tensors": (onnx_of(tensors=[tensor(f"t{i}", [0.0]) for i in range(10_000)]), "10,001 tensors"),
    "a tensor that declares 10 GB": (onnx_of(tensors=[declared(2_500_000_000)]), "declares 10,000,000,000 bytes"),
    "dimensions that overflow": (onnx_of(tensors=[declared(2**33, 2**33)]), "at most 600,000,000"),
    "negative dimensions": (onnx_of(tensors=[declared(-4, 4)]), "impossible dimensions"),
    "a tensor shorter than it says": (onnx_of(tensors=[declared(100)]), "but holds 4"),
    "a constant that declares 10 GB": (
        onnx_of(after(node("Constant", "", "c", value=declared(50_000, 50_000)), node("Add", "answer c", "logits"))),
        "declares 10,000,000,000 bytes",
    ),
    "a tensor of strings": (
        onnx_of(tensors=[helper.make_tensor("words", TensorProto.STRING, [1], [b"x"])]), "of a type that is not read"
    ),
    "no weights at all": (no_weights, "holds no weights"),
    "an opset of the future": (onnx_of(opset=99), "uses opset 99"),
    "an opset of the past": (onnx_of(opset=6), "uses opset 6"),
    "an operator that does not exist": (onnx_of(after(node("Exec", "answer", "logits"))), "no operator of ONNX"),
    "an operator's name that is no text": (
        lambda f: submission(f, HONEST_BYTES.replace(b"MatMul", b"Mat\xfful")), "which is no text"
    ),
    "a terminal's commands for a name": (onnx_of(after(node("\x1b[2J\nok", "answer", "logits"))), "no operator"),
    "eight classes for seven emotions": (
        onnx_of(after(node("Concat", "answer one", "logits", axis=1)), [tensor("one", [[1.0]])],
                outputs=[value("logits", ["N", 8])]),
        "shape (N, 8)",
    ),
    "an output of the wrong rank": (onnx_of(outputs=[value("logits", ["N", 7, 1])]), "shape (N, 7, 1)"),
    "a fixed batch": (onnx_of(inputs=[value("input", [4, 1, SIDE, SIDE])]), "fixed batch of 4"),
    "three channels for one": (onnx_of(inputs=[value("input", ["N", 3, SIDE, SIDE])]), "shape (N, 3, 48, 48)"),
    "text for input": (onnx_of(inputs=[value("input", ["N"], TensorProto.STRING)]), "must be float32"),
    "two inputs": (
        onnx_of(inputs=[value("input", ["N", 1, SIDE, SIDE]), value("more", ["N"])]), "has 2 inputs and 1 outputs"
    ),
    "a sequence for output": (
        onnx_of(after(node("SequenceConstruct", "answer", "logits")),
                outputs=[helper.make_tensor_sequence_value_info("logits", TensorProto.FLOAT, None)]),
        "not about numbers",
    ),
    "an input that nobody defines": (onnx_of(after(node("Add", "answer ghost", "logits"))), "is not valid ONNX"),
}  # fmt: skip

FACES = faces()


def bomb() -> list[onnx.NodeProto]:
    """4 TB of zeros, built from eight bytes."""
    return after(node("ConstantOfShape", "trillion", "zeros"), node("ReduceSum", "zeros", "sum", keepdims=0),
                 node("Add", "answer sum", "logits"))  # fmt: skip


def endless() -> list[onnx.NodeProto]:
    """No loop, but hours of matrix products of 3000 x 3000, which depend on the input."""
    nodes = [node("ReduceMean", "input", "mean", keepdims=0), node("Expand", "mean square", "m0")]
    nodes += [node("MatMul", f"m{i} m{i}", f"m{i + 1}") for i in range(900)]
    return after(*nodes, node("ReduceMean", "m900", "end", keepdims=0), node("Add", "answer end", "logits"))


def known_changes() -> FaceSet:
    """The pictures, and what they once became in every check: noise of one known seed, and a shift."""
    noise = np.random.default_rng(20).integers(-1, 2, FACES.images.shape, dtype=np.int16)
    noisy = (FACES.images + noise).clip(0, 255).astype(np.uint8)
    images = np.concatenate([FACES.images, noisy, by_a_pixel(FACES.images)])
    labels, ids = np.tile(FACES.labels, 3), tuple(map(str, range(len(images))))
    return FaceSet("known", "test", FACES.emotions, images, labels, ids)


MANY = where_many(30)
WHEN_IT_RUNS = {
    "memory", "time", "not_finite", "wrong_order", "from_memory", "batch_dependent", "constant", "output_shape",
    "cannot_run", "not_deterministic",
}  # fmt: skip
EIGHT = MANIFEST.replace("surprise, neutral]", "surprise, neutral, contempt]")
SWAPPED = MANIFEST.replace("[anger, disgust, fear,", "[fear, anger, disgust,")
RUNNING: dict[str, tuple[Builder, str]] = {
    "a terabyte from nothing": (onnx_of(bomb(), [tensor("trillion", [10**12], np.int64)]), "memory"),
    "hours of work": (onnx_of(endless(), [tensor("square", [3000, 3000], np.int64)]), "did not finish within"),
    "NaN for every face": (onnx_of(after(node("Log", "minus", "nan"), node("Add", "answer nan", "logits")),
                                   [tensor("minus", [-1.0])]), "NaN or infinity"),
    "infinity for black pictures": (
        onnx_of(after(node("ReduceMax", "input", "top", axes=[1, 2, 3], keepdims=0),
                      node("Reciprocal", "top", "inf"), node("Unsqueeze", "inf one", "column"),
                      node("Add", "answer column", "logits")), [tensor("one", [1], np.int64)]),
        "NaN or infinity",
    ),
    "another order of the emotions": (
        lambda folder: submission(folder, model(), SWAPPED), "[anger, disgust, fear, happiness, sadness, surprise"
    ),
    "answers from memory": (lambda folder: submission(folder, memory(FACES)), "answers from memory"),
    "answers from memory that know a check's changes": (
        lambda folder: submission(folder, memory(known_changes())), "once the pictures change by one grey level"
    ),
    "answers that look at the other faces": (
        onnx_of(after(node("ReduceMean", "answer", "others", axes=[0], keepdims=1),
                      node("Sub", "answer others", "logits"))),
        "when other faces are in the batch",
    ),
    "answers that look at the other faces where there are many": (
        onnx_of(after(*MANY[0], node("Gather", "answer first", "others", axis=0),
                      node("Mul", "others many", "taken"), node("Sub", "answer taken", "logits")), MANY[1]),
        "when other faces are in the batch",
    ),
    "answers that look at the other faces behind a large constant": (
        onnx_of(after(node("ReduceMean", "answer", "others", axes=[0], keepdims=1),
                      node("Sub", "answer others", "alone"), node("Add", "alone large", "logits")),
                [tensor("large", 1e6)]),
        "when other faces are in the batch",
    ),
    "answers that look at the other faces behind one large column": (
        onnx_of(after(node("ReduceMean", "answer", "others", axes=[0], keepdims=1),
                      node("Sub", "answer others", "alone"), node("Add", "alone large", "logits")),
                [tensor("large", [0, -1e6, 0, 0, 0, 0, 0])]),
        "when other faces are in the batch",
    ),
    "tiny answers that look at the other faces": (
        onnx_of(after(node("Gather", "answer first", "others", axis=0), node("Sub", "answer others", "other"),
                      node("Mul", "other tiny", "logits")),
                [tensor("first", 0, np.int64), tensor("tiny", 1e-6)]),
        "when other faces are in the batch",
    ),
    "answers that look at the other faces behind an emotion that is not asked for": (
        lambda folder: submission(folder, model(
            after(node("Gather", "answer first", "others", axis=0), node("Sub", "answer others", "other"),
                  node("ReduceSum", "other one", "zero_sum", keepdims=1), node("Mul", "zero_sum zero", "zeros"),
                  node("Add", "zeros large", "contempt"), node("Concat", "other contempt", "logits", axis=1)),
            [tensor("first", 0, np.int64), tensor("one", [1], np.int64), tensor("zero", 0.0), tensor("large", 1e6)],
            outputs=[value("logits", ["N", 8])]), EIGHT),
        "when other faces are in the batch",
    ),
    "the same answer for every face, but for what no score sees": (
        onnx_of(after(node("ReduceMean", "answer", "mean", axes=[1], keepdims=1), node("Mul", "answer zero", "none"),
                      node("Add", "none mean", "logits")), [tensor("zero", [0.0])]),
        "the same answer",
    ),
    "the same answer for every face": (
        onnx_of(after(node("Mul", "answer zero", "logits")), [tensor("zero", [0.0])]), "the same answer"
    ),
    "fewer answers than faces": (
        onnx_of(after(node("Slice", "answer start end", "logits")),
                [tensor("start", [0], np.int64), tensor("end", [1], np.int64)]),
        "the model answered (1, 7)",
    ),
    "shapes that do not fit": (
        onnx_of(after(node("Reshape", "answer five", "logits")), [tensor("five", [5, 7], np.int64)]), "cannot be run"
    ),
    "a dropout that draws": (
        onnx_of(after(node("Dropout", "answer half yes", "logits")), [tensor("half", 0.5), YES]), "differently"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("build", "reason"), STATIC.values(), ids=STATIC)
def test_a_hostile_model_is_refused_before_it_runs(
    build: Builder, reason: str, canary: Path, inspected_here: list[Path]
) -> None:
    """What a model declares is enough to refuse it, and harmless to look at even without limits or a wall."""
    folder = canary / "submission"
    folder.mkdir()
    build(folder)
    before = listing(canary)
    problems = check(folder, run=False)
    assert reason in " ".join(problem.text for problem in problems), problems
    assert all(problem.text.isprintable() for problem in problems)
    assert inspected_here == [folder / "model.onnx"]
    assert listing(canary) == before


@pytest.mark.parametrize("name", ["a pickle called ONNX", "functions that call each other",
                                  "a tensor that declares 10 GB", "a terminal's commands for a name"])  # fmt: skip
def test_the_process_that_inspects_gives_the_same_reason(name: str, canary: Path) -> None:
    """Behind the sandbox's pipe a refusal by inspection arrives in the same words."""
    build, reason = STATIC[name]
    build(canary)
    assert reason in " ".join(problem.text for problem in check(canary, run=False))


@pytest.mark.parametrize(("build", "reason"), RUNNING.values(), ids=RUNNING)
def test_a_hostile_model_is_refused_when_it_runs(build: Builder, reason: str, canary: Path) -> None:
    """The sandbox stops it or its answers give it away; this process and the files around it are as before."""
    folder = canary / "submission"
    folder.mkdir()
    build(folder)
    before, running = listing(canary), children()
    seconds = 2 if reason.startswith("did not") else 60
    problems = check(folder, faces=FACES, limits=Limits(seconds=seconds))
    assert reason in " ".join(problem.text for problem in problems), problems
    assert {problem.code for problem in problems} <= WHEN_IT_RUNS  # nothing that it declares is wrong
    assert listing(canary) == before
    assert children() <= running  # no process is left behind


@pytest.mark.parametrize("large", [0.0, 1e4], ids=["as it is", "behind a constant"])
def test_an_honest_model_passes(large: float, tmp_path: Path) -> None:
    """The model that all hostile ones are made from is accepted, so that it is not it that is refused."""
    honest = model(after(node("Add", "answer large", "logits")), [tensor("large", large)])
    assert check(submission(tmp_path / "s", honest), faces=FACES) == []


def test_domains_that_no_node_uses_are_no_reason(tmp_path: Path) -> None:
    """What onnxruntime writes after optimising declares its own domains too, tf2onnx ai.onnx.ml; both are run."""
    options, path = SessionOptions(), tmp_path / "optimised.onnx"
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    InferenceSession(HONEST_BYTES, options, providers=["CPUExecutionProvider"])
    optimised = path.read_bytes()
    assert {"com.microsoft", "ai.onnx.ml"} < {entry.domain for entry in onnx.load_from_string(optimised).opset_import}
    for content in (optimised, model(opsets=[helper.make_opsetid("ai.onnx.ml", 2)])):
        assert check(submission(tmp_path / "s", content), faces=FACES) == []


def test_a_model_without_the_operators_of_onnx_names_no_opset() -> None:
    """Another domain's version does not stand for that of ONNX's own operators."""
    other = model()
    other.opset_import[0].domain = "ai.onnx.ml"
    assert [code for code, _ in inspection.inspect(other, None)] == ["opset"]


def test_rounding_is_no_other_answer() -> None:
    """Noise of float32 in logits of any usual size changes no answer, and one face of many may turn at a near tie."""
    random = np.random.default_rng(0)
    for size in (1e-3, 1.0, 30.0, 300.0):
        logits = (size * random.normal(size=(300, 7))).astype(np.float32)
        assert changed_answers(logits, logits + (1e-6 * size * random.normal(size=(300, 7))).astype(np.float32)) == 0
    tied = np.eye(7, dtype=np.float32)[random.integers(0, 7, 300)]
    tied[0] = 0
    again = tied.copy()
    again[0, 3] = 1e-7
    assert changed_answers(tied, again) == 0
    assert changed_answers(tied[:4], again[:4]) == 1


def test_one_picture_is_no_reason_to_call_a_model_constant(tmp_path: Path) -> None:
    """Where a single face is at hand, nothing is said about answers to different faces."""
    assert check(submission(tmp_path / "s", model()), faces=FACES.take([0])) == []
