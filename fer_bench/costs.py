"""What a face costs: parameters, multiply-accumulates, bytes and latency; `evaluate --costs` measures them anew."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product
from pathlib import Path

from tqdm import tqdm

from fer_bench.infer import REFERENCE, Model, evaluating, latency_pair, load, macs, run_for, weights_for
from fer_bench.judged import as_trained, failure
from fer_bench.methods import count_parameters
from fer_bench.protocols import track_named
from fer_bench.results import Cost, read_result, track_folder, write_result
from fer_bench.transforms import PASSES


def cost(model: Model) -> Cost:
    """Parameters, and for one pass of one face, multiply-accumulates and latency on a CPU beside the reference's.

    On a CPU whatever judges: where a GPU does, small networks wait for its launches, and the two cannot be compared.
    What computes in another process, as a submission does, counts none: they are not known then.
    """
    if model.device.type != "cpu":
        model = replace(model, network=copy.deepcopy(model.network).cpu())
    with evaluating(model.network):
        own, ratio = latency_pair(model)
        counted = macs(model.network, model.input_spec)
    parameters = count_parameters(model.network) or sum(p.numel() for p in model.network.parameters())  # all are frozen
    return Cost(
        parameters=parameters, macs=counted or None, latency_ms=own * 1000, latency_ratio=ratio,
        checkpoint_bytes=model.record["bytes"],
    )  # fmt: skip


def for_passes(once: Cost, passes: int) -> Cost:
    """The cost of a face that is answered so many times."""
    return replace(
        once, macs=once.macs and passes * once.macs, latency_ms=passes * once.latency_ms,
        latency_ratio=passes * once.latency_ratio,
    )  # fmt: skip


def measure_costs(
    methods: list[str], tracks: list[str], out: Path, recipe: str | None = None, seed: int | None = None,
    runs: Path | None = None, device: str = "cpu",
) -> tuple[int, list[str]]:  # fmt: skip
    """Measure the costs of standing rows anew, all in one run, so that their latencies can be compared.

    A row is left alone where its record in `out` is not of the weights that are here. All else in a record stays,
    its commit, versions and date too: they are those of the answers, from which its figures can be recomputed, while
    costs are to be compared with each other alone. recipe, seed: None is any. Returns as `evaluate` does.
    """
    measured: dict[Path, Cost] = {}  # of one pass, so that rows of the same weights agree
    written, skipped = 0, []
    names = [as_trained(track_named(name), methods, recipe, seed or 0, runs).name for name in tracks]
    places = [
        (name, method, place)
        for name, method in product(names, methods)
        for place in sorted((out / "results" / track_folder(name) / method).glob(f"{recipe or '*'}-s*.json"))
    ]
    if not places:
        skipped.append(f"{out} holds no such record; --out takes the folder that evaluate wrote, --track its tracks.")
    for name, method, place in places:
        try:
            before = read_result(place)
            row = (method, track_named(name), before.recipe, before.seed, runs)
            if seed not in (None, before.seed) or (path := weights_for(*row)) is None:
                continue
            found = run_for(*row) is not None
            model = load(method, name, before.recipe, before.seed, device, runs if found else None)
            if before.weights.sha256 != model.record["sha256"]:
                skipped.append(f"{name} {method}: {place} is of other weights than {path}; evaluate it again.")
                continue
            if path not in measured:
                measured[path] = cost(model)
            write_result(replace(before, cost=for_passes(measured[path], PASSES[before.tta])), out)
        except Exception as error:
            skipped.append(failure(f"{name} {method}", error))
            continue
        told = f"{name:12} {method:24}" + ("" if before.tta == "none" else f" {before.tta}")
        told += f" seed {before.seed}" if before.seed else ""
        tqdm.write(f"{told} latency {PASSES[before.tta] * measured[path].latency_ratio:.3f} x {REFERENCE}")
        written += 1
    return written, skipped
