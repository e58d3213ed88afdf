"""A checked submission through the same inference and metrics as everyone; its result is marked `external`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from fer_bench.card_files import SUBMITTED, read_cards, write_submitted
from fer_bench.datasets import FaceSet, load_dataset
from fer_bench.emotions import in_order
from fer_bench.errors import DataError
from fer_bench.evaluate import Answers, duplicates_in_train, judge
from fer_bench.infer import REFERENCE, Model, macs
from fer_bench.leaderboard import write_leaderboard
from fer_bench.methods import METHODS, build
from fer_bench.metrics import restrict_logits
from fer_bench.protocols import track_named
from fer_bench.results import Result, write_logits, write_result
from fer_bench.submissions.behaviour import MANY, NOT_FINITE, Ask, asker, behaves, changed_answers
from fer_bench.submissions.checks import check, manifest_of, model_of, open_model
from fer_bench.submissions.exporting import write_onnx
from fer_bench.submissions.folder import can_write
from fer_bench.submissions.manifest import Manifest, card_of
from fer_bench.submissions.problems import Limits, Problem
from fer_bench.submissions.remote import located
from fer_bench.submissions.sandbox import Child, RefusedError
from fer_bench.weights import sha256

RECIPE = "submitted"
"""What stands for the recipe of a model that was trained elsewhere."""
SAMPLE = 1000
"""Test pictures, drawn anew each time, that the rules about behaviour are tried on before a track is measured: those
of a known sample a model could answer honestly, and the others from memory."""


class Sandboxed(nn.Module):
    """A submitted model as a network: (N, C, S, S) -> finite logits (N, K), its columns in the canonical order.

    RefusedError where its process fails or an answer is not finite.
    """

    def __init__(self, child: Child, columns: Sequence[int]) -> None:
        super().__init__()
        self.child, self.columns = child, list(columns)
        self.anchor = nn.Parameter(torch.zeros(1))  # a network's device is that of its parameters

    def forward(self, x: Tensor) -> Tensor:
        logits = self.child(x.detach().cpu().numpy())
        if not np.isfinite(logits).all():
            raise RefusedError((NOT_FINITE,))
        return torch.from_numpy(logits[:, self.columns])


def as_model(child: Child, manifest: Manifest, path: Path) -> Model:
    """A running submission as a loaded model, with the record that `evaluate.judge` reads."""
    emotions = in_order(manifest.emotions)
    record = {
        "track": RECIPE, "recipe": RECIPE, "seed": 0, "sha256": sha256(path), "bytes": path.stat().st_size,
        "packing": {"storage": path.suffix[1:]}, "accuracy_loss": None,
        # What the authors hand in is what they call finished; how long it was trained is not known.
        "trained": {"track": RECIPE, "complete": True, "selection": "by its authors",
                    "pretrained": declared(manifest)},
    }  # fmt: skip
    columns = [manifest.emotions.index(emotion) for emotion in emotions]
    return Model(manifest.name, Sandboxed(child, columns).eval(), manifest.input, emotions, record, path)


def measure_on(child: Child, manifest: Manifest, path: Path, faces: FaceSet, track_name: str, **options) -> Answers:
    """Judge a running submission on a split, as `evaluate.judge` does (`options` are passed to it).

    Parameters are counted in its file, latency is taken in a process of its own; MACs are known for registered
    networks only.
    """
    answers = judge(as_model(child, manifest, path), faces, track_named(track_name), **options)
    cost, network = answers.result.cost, None
    own, reference = latencies(path, manifest, child.limits)
    if manifest.architecture is not None:
        network = build(manifest.architecture, len(manifest.emotions))
    cost = replace(
        cost, parameters=child.parameters, macs=macs(network, METHODS[manifest.architecture].card.input) if network
        else None, latency_ms=own * 1000, latency_ratio=own / reference,
    )  # fmt: skip
    return replace(answers, result=replace(answers.result, external=True, cost=cost))


def declared(manifest: Manifest) -> str:
    """What a record says of the training data, without semicolons: behind one stands only what `from_place` knows."""
    return "declared: " + ", ".join(manifest.training_data).replace(";", ",")


def from_place(result: Result, pin: str | None) -> Result:
    """The record with the repository and revision that its model was fetched from; unchanged where it was not."""
    if pin is None:
        return result
    return replace(result, trained=replace(result.trained, pretrained=f"{result.trained.pretrained}; model {pin}"))


def latencies(path: Path, manifest: Manifest, limits: Limits, rounds: int = 20) -> tuple[float, float]:
    """Seconds for one face inside a process of the submission and in one of the reference network, in turn.

    Each has one thread and its quickest answer counts, as in `infer.latency_pair`. The reference runs in a sandbox of
    its own and in the same form, ONNX or safetensors, because onnxruntime is quicker than torch: the ratio is to
    compare networks.
    """
    card = METHODS[REFERENCE].card
    network, limits = build(REFERENCE).eval(), replace(limits, threads=1)
    with tempfile.TemporaryDirectory(prefix="fer_bench-") as folder:
        if manifest.architecture is None:
            file = write_onnx(network, card.input.channels, card.input.size, Path(folder) / "model.onnx")
        else:
            file = Path(folder) / "model.safetensors"
            save_file(network.state_dict(), file)
        architecture = None if manifest.architecture is None else REFERENCE
        theirs = Child(file, card.input, 7, architecture, limits)
        with open_model(path, manifest, limits) as own, theirs as reference:
            pairs = [(c, np.zeros((1, s.channels, s.size, s.size), np.float32))
                     for c, s in ((own, manifest.input), (reference, card.input))]  # fmt: skip
            for _ in range(rounds):
                for process, face in pairs:
                    process(face)
            times = [[seconds for _, seconds in process.seconds[2 - rounds :]] for process, _ in pairs]
    return min(times[0]), min(times[1])  # the first two rounds warm up


def as_before(ask: Ask, emotions: Sequence[str], sample: FaceSet, answers: Answers) -> list[Problem]:
    """Whether pictures that were just measured get the same answers in another order and in batches of another size.

    Otherwise a model could behave while it is tried, and know by its batches when it is measured.
    """
    rows = {name: row for row, name in enumerate(answers.ids)}
    kept = [place for place, name in enumerate(sample.ids) if name in rows]
    if not kept:
        return []
    again = restrict_logits(ask(sample.images[kept]), emotions, answers.result.emotions)
    measured = answers.logits[[rows[sample.ids[place]] for place in kept]]
    other = changed_answers(measured, again)
    if not other:
        return []
    text = f"the model answered {other} of {len(kept)} faces differently when they were measured than when it was tried"
    return [Problem("batch_dependent", f"{text}; each face must be judged alone, whatever the batch.")]


def evaluate_submission(
    folder: Path | str,
    tracks: Sequence[str] | None = None,
    out: Path = Path("leaderboard"),
    verified: bool = False,
    limits: Limits = Limits(seconds=3600),  # noqa: B008 (frozen)
    replace_rows: bool = False,
) -> list[Path]:
    """Check a submission, measure it on its tracks (or the given ones) and write results and table under `out`.

    Nothing is written before every track has passed; title, authors, licence and links go into `submitted.json`, for
    the table and the app. replace_rows: rows of another model under this name may go.

    folder: a submission's folder, hub:NAMESPACE/NAME@REVISION, or the folder of a submission.yaml that names such a
    place (`remote.located`); the record then keeps repository and revision in `trained.pretrained`.
    Tracks of its own whose data is not here are skipped with a line on standard error; a given one raises DataError.
    Raises RefusedError, with all reasons, where a check fails, on the track's own pictures too; UserError where what is
    on the Hub cannot be fetched or `out` cannot be written. verified: run by the maintainers.
    """
    can_write(out)
    read_cards(out, SUBMITTED)  # said now where it is broken, not after the measuring
    place = located(folder)
    folder = place.folder
    problems = [*place.problems, *check(folder, limits=limits, board=out, replace=replace_rows)]
    if problems:
        raise RefusedError(tuple(problems))
    manifest, _ = manifest_of(folder)
    path, passed = folder / model_of(folder), []
    limits = replace(limits, threads=torch.get_num_threads())  # as many as the reference network has
    for name in tracks or manifest.tracks:
        track = track_named(name)
        try:
            faces = load_dataset(track.dataset, track.test).restrict(track.emotions)
        except DataError as error:
            if tracks:
                raise
            print(f"skipped {name}: {error}", file=sys.stderr)
            continue
        duplicates, unknown = duplicates_in_train(faces, track)
        if unknown:
            print(f"skipped {unknown}", file=sys.stderr)
        with open_model(path, manifest, limits) as child:
            ask = asker(child, manifest.input)
            sample = faces.take(np.random.default_rng().permutation(len(faces))[:SAMPLE])
            problems = behaves(ask, manifest.emotions, sample)
            if problems:
                raise RefusedError(tuple(problems))
            answers = measure_on(
                child, manifest, path, faces, name, duplicates=duplicates, batch_size=64, verified=verified,
                progress=lambda batches: tqdm(batches, desc=manifest.name, unit="batch", leave=False, disable=None),
            )  # fmt: skip
            problems = as_before(ask, manifest.emotions, sample.limit(MANY), answers)
            if problems:
                raise RefusedError(tuple(problems))
        passed.append(replace(answers, result=from_place(answers.result, place.pin)))
    written = []
    if passed:
        write_submitted(out, {manifest.name: card_of(manifest)})
    for answers in passed:
        write_logits(answers.result, out, answers.ids, answers.targets, answers.logits, answers.subjects)
        written.append(write_result(answers.result, out))
    if written:
        write_leaderboard(out)
    return written
