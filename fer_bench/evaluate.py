"""python -m fer_bench.evaluate: judge methods on tracks; writes results, logits and the table.

The test split of a track is read once and every method is run over it through `infer.logits`. Nothing here selects
anything: weights come finished, and each figure is computed once, without test-time augmentation.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fer_bench import __version__
from fer_bench.card_files import write_cards
from fer_bench.cards import Track
from fer_bench.classifiers import published
from fer_bench.comparison import tracks_in
from fer_bench.costs import cost, for_passes, measure_costs
from fer_bench.datasets import DATASETS, FaceSet, data_folder, load_dataset
from fer_bench.emotions import in_order, shared
from fer_bench.errors import DataError, Failure, Lacking, UserError
from fer_bench.evaluate_options import parser, refuse_contradictions
from fer_bench.faithfulness import measure_faithfulness
from fer_bench.files import OutputError, atomic_write, check_committed, commit
from fer_bench.infer import Model, best_device, load, logits, pinned, run_for, weights_for
from fer_bench.judged import (
    OWN,
    as_trained,
    check_recipe,
    check_runs,
    duplicates_in_train,
    failure,
    judgeable,
    no_weights,
    overlapping,
    recipes_here,
    recorded,
    scorable,
    widened,
)  # fmt: skip
from fer_bench.leaderboard import write_leaderboard
from fer_bench.methods import METHODS, list_methods
from fer_bench.protocols import TRACKS, seen_test, track_named
from fer_bench.registry import UnknownNameError
from fer_bench.results import (
    Data,
    Result,
    Trained,
    Versions,
    Weights,
    as_saved,
    decode,
    headline,
    measure,
    write_logits,
    write_result,
)  # fmt: skip
from fer_bench.resuming import stands
from fer_bench.robustness import SUITE, measure_robustness
from fer_bench.standing import guard, recompute, standing
from fer_bench.transforms import PASSES
from fer_bench.weights import same_track


@dataclass(frozen=True)
class Answers:
    """What a model answered on a test split: float32 logits (N, K) over the result's emotions, targets (N,), ids.

    subjects: as `FaceSet` has them.
    """

    result: Result
    ids: tuple[str, ...]
    targets: np.ndarray
    logits: np.ndarray
    subjects: np.ndarray | None = None


def benchmark(model: Model, dataset: FaceSet | str, batch_size: int | None = None) -> Result:
    """Judge a loaded model on a test split: every metric with its 95 % bootstrap interval, and its cost.

    model: of `load`, or one's own network as `Model(name, network, input_spec, emotions)`.
    dataset: a FaceSet of a test split, whole or limited, or the name of a track ("rendered", "fer2013", "folder:PATH").
    Where label sets differ, the shared emotions are scored and the logits renormalised over them. By name it is judged
    as `evaluate` does: weights of the track itself over all of their emotions, and also without the test pictures that
    stand in train, where these are here. Raises UserError as `judge` does, for a bare network and bare arrays.
    """
    model, dataset, duplicates = recorded(model), judgeable(dataset), None
    if isinstance(dataset, str):
        track, trained_on = track_named(dataset), model.record["track"]
        dataset = widened(load_dataset(track.dataset, track.test).restrict(track.emotions), model, track)
        if trained_on == OWN or same_track(trained_on, track.name):
            duplicates, _ = duplicates_in_train(dataset, track, None if trained_on == OWN else track.name)
    else:
        track = Track(dataset.name, dataset.name, dataset.name, dataset.emotions, trained_on=model.record["track"])
        known = track_named(track.name) if track.name in TRACKS else track
        if (known.dataset, known.emotions, known.trained_on) == (track.dataset, track.emotions, track.trained_on):
            track = known  # the very task: its protocol is known by its title, too
    return judge(model, dataset, track, duplicates, batch_size).result


def judge(
    model: Model,
    faces: FaceSet,
    track: Track,
    duplicates: np.ndarray | None = None,
    batch_size: int | None = None,
    verified: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
    tta: str = "none",
) -> Answers:
    """Run a model over a split and measure everything. duplicates: bool (N,), pictures that also stand in train.

    tta: test-time augmentation, as `infer.logits` has it; the result is then another row than the one without.
    Raises UserError where the pictures are not of the track's test split, where the weights were trained or selected on
    pictures of it, where fewer than two emotions are shared and where answers are not finite, or are probabilities.
    """
    model = recorded(model)
    if faces.split != track.test:
        known = faces.name in DATASETS or faces.name.startswith(("folder:", "csv:"))
        mend = f"give load_dataset({faces.name!r}, {track.test!r})" if known else f"make it with split={track.test!r}"
        text = f"these are pictures of its {faces.split} split, and only its {track.test} split is judged on"
        raise UserError(f"{faces.name}: {text}; {mend}.")
    seen = seen_test(model.record, track)
    if seen:
        raise UserError(f"{model.name} cannot be judged on {track.name}: {seen}.")
    emotions = shared(model.emotions, faces.emotions)
    if len(emotions) < 2:
        raise UserError(f"{model.name} and {faces.name} share {len(emotions)} emotion(s); at least two are needed.")
    kept = np.isin(faces.labels, [faces.emotions.index(emotion) for emotion in emotions])
    scored = faces.noted(emotions, f"{model.name} does not know").restrict(emotions)
    duplicates = duplicates[kept] if duplicates is not None else None
    answers = logits(model, scored.images, batch_size, progress, tta)
    answers = as_saved(scorable(answers, model, emotions, track))
    folder = data_folder(faces.name)  # records are published: no path of this machine
    skipped = [line if folder is None else line.replace(f"{folder}{os.sep}", "") for line in faces.skipped]
    record = model.record
    known = {field.name for field in fields(Trained)}
    trained = {name: value for name, value in record["trained"].items() if name in known}
    result = Result(
        method=model.name, track=track.name, recipe=record["recipe"], seed=record["seed"], tta=tta, emotions=emotions,
        trained=decode(Trained, trained, f"what {model.name}'s weights say of their training"),
        weights=Weights(
            sha256=record["sha256"], bytes=record["bytes"], storage=record["packing"]["storage"],
            accuracy_loss=record["accuracy_loss"],
        ),
        data=Data(
            hash=scored.content_hash(), counts={track.test: len(faces) + len(faces.skipped)}, test_pictures=len(scored),
            skipped=skipped, notes=list(scored.notes),
            duplicates_in_train=int(duplicates.sum()) if duplicates is not None else None,
        ),
        protocol=track.hash(), **measure(scored.labels, answers, emotions, duplicates, subjects=scored.subjects),
        cost=for_passes(cost(model), PASSES[tta]),
        shared_emotions_only=emotions != in_order(model.emotions), verified=verified,
        external=record.get("external", False), commit=commit(),
        versions=Versions(
            python=platform.python_version(), torch=torch.__version__, numpy=np.__version__, fer_bench=__version__
        ),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Answers(result, scored.ids, scored.labels, answers, scored.subjects)


def evaluate(
    methods: Sequence[str | Model],
    tracks: list[str],
    out: Path,
    recipe: str | None = None,
    seed: int = 0,
    runs: Path | None = None,
    device: str = "cpu",
    verified: bool = False,
    strict: bool = False,
    robustness: bool = False,
    explanation: bool = False,
    tta: str = "none",
    resume: bool = False,
) -> tuple[int, list[str]]:
    """Judge every method on every track; results are written as they come.

    Returns how many of them are there now, and a line for each thing skipped: a `Failure` where it went wrong, as with
    a broken weight file or a network that raises, which costs its own row only. methods: a `Model` stands for itself,
    and no weights are looked for. strict: missing data is a `Lacking`. recipe: None is as for `weights_for`.
    runs: a training output folder whose weights come first; a line on standard error says where others are judged.
    robustness, explanation: measure these too (`completed`), of one picture at a time and so not with a `tta`
    (`infer.logits`), whose result is another row. resume: pass over the rows that an earlier call has finished
    (`resuming.stands`), each with a line on standard error. Raises UserError, before anything is measured, where `runs`
    is no folder, OutputError where `out` cannot be written to.
    """
    written, skipped = 0, []
    for name in tracks:
        ours = [method for method in methods if isinstance(method, str)]
        track = as_trained(track_named(name), ours, recipe, seed, runs)
        ready, missing, untrained = [], [], []
        for method in methods:
            asked = method, track, recipe, seed
            here = isinstance(method, Model) or weights_for(*asked, runs) or pinned(*asked)
            (ready if here else missing).append(method)
        if missing:
            untrained = [no_weights(missing, track, recipe, seed, runs)]
        if not ready:
            skipped += untrained
            continue
        try:
            faces = load_dataset(track.dataset, track.test).restrict(track.emotions)
        except DataError as error:
            skipped.append((Lacking if strict else str)(f"{name}: {error}"))
            continue
        except Exception as error:  # of a data set that somebody's package adds: the other tracks go on
            skipped.append(failure(name, error))
            continue
        skipped += untrained  # where the data is not here, that is all there is to say
        # That nothing can be written is said before the minutes of inference, not after them.
        atomic_write(out / ".writable", b"").unlink(missing_ok=True)
        in_train: tuple[np.ndarray | None, str] | None = None
        for one in ready:
            method, given = (one.name, one) if isinstance(one, Model) else (one, None)

            def bar(batches: Iterable, label: str = f"{name} {method}") -> Iterable:
                return tqdm(batches, desc=f"{label:32}", unit="batch", leave=False, disable=None)

            try:
                found = not given and run_for(method, track, recipe, seed, runs) is not None
                model = recorded(given or load(method, track.name, recipe, seed, device, runs if found else None))
                if runs is not None and not found:
                    line = f"{name} {method}: {runs} holds no such run, so {model.path} is judged."
                    tqdm.write(line, file=sys.stderr)
                guard(model, track, out, tta, found and not verified, given is not None)
                scored = widened(overlapping(faces, model), model, track)
                if resume and stands(model, scored, track, out, tta, verified, robustness, explanation):
                    tqdm.write(f"{name} {method}: its result stands", file=sys.stderr)
                    written += 1
                    continue
                # Else its training pictures are another track's; where they are not known, they may be these.
                own = model.record["track"] == OWN or same_track(model.record["track"], track.name)
                if own and in_train is None:
                    in_train = duplicates_in_train(faces, track, track.name)
                    skipped += filter(None, in_train[1:])
                answers = judge(model, scored, track, in_train[0] if own else None, 64, verified, bar, tta)
                for more in dict.fromkeys([(False, False), (robustness, explanation)]):
                    result = completed(answers.result, model, scored, out, *more, bar)
                    write_logits(result, out, answers.ids, answers.targets, answers.logits, answers.subjects)
                    write_result(result, out)
                    if more == (False, False):  # written now, so that no block that fails loses the accuracy
                        tqdm.write(headline(result))
                        written += 1
            except Exception as error:  # costs this row alone
                skipped.append(failure(f"{name} {method}", error))
    return written, skipped


def completed(
    result: Result,
    model: Model,
    faces: FaceSet,
    out: Path,
    robustness: bool = False,
    explanation: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Result:
    """The result with its robustness and explanation: measured where asked for, else carried over.

    robustness: on at most `robustness.PICTURES` pictures, once for each corruption and severity. explanation: Grad-CAM
    on at most `faithfulness.PICTURES` pictures, 66 passes each. What is not asked for is taken from the record that
    stands in `out`, if it is of the same weights, data and emotions, so that judging again loses nothing.
    """
    scored = faces.restrict(result.emotions)
    blocks = {}
    if robustness:
        blocks["robustness"] = measure_robustness(model, scored, progress=progress)
    if explanation:
        blocks["explanation"] = measure_faithfulness(model, scored, progress=progress)
    before = standing(result, out)  # read now: another evaluation may have written a block during the measuring
    kept = {} if before is None else {"robustness": before.robustness, "explanation": before.explanation}
    if before is not None and before.subjects != result.subjects:  # their intervals are over pictures, or over people
        kept = {}
    if "robustness" in kept and kept["robustness"] is not None and kept["robustness"].suite != SUITE:
        del kept["robustness"]
    return replace(result, **(kept | blocks))


def write_table(out: Path) -> int:
    """Write methods.json and the table with its figures. Exit code: 0, or 1 where a file in `out` is broken."""
    cards = [METHODS[name].card for name in METHODS]
    try:
        write_cards(out, cards, {card.name: recipes_here(card.name) for card in cards})
        for path in write_leaderboard(out):
            print(path)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _told(written: int, skipped: list[str], out: Path) -> int:
    """Say what was skipped and write the table where anything was written; returns the exit code."""
    for line in skipped:
        print("failed" if isinstance(line, Failure) else "skipped", line, file=sys.stderr)
    code = max((line.code for line in skipped if isinstance(line, Failure)), default=0)
    if not written:
        print("nothing was evaluated.", file=sys.stderr)
        return code or 2
    return max(code, write_table(out))


def main(argv: list[str] | None = None) -> int:
    """Judge methods and write results and the table. Exit codes: 0 done, 1 failed, 2 wrong use."""
    arguments = parser(main.__doc__).parse_args(argv)
    try:
        seed = arguments.seed or 0
        methods = list(dict.fromkeys(list_methods() if arguments.all else arguments.method or []))
        for name in methods:
            METHODS[name]
        tracks = list(dict.fromkeys(track_named(name).name for name in arguments.track or TRACKS))
        if arguments.costs or arguments.figures:
            tracks = tracks_in(arguments.out, arguments.track and tracks)
        if arguments.out.exists() and not arguments.out.is_dir():
            raise UserError(f"{arguments.out}: this is a file; give a folder to --out.")
        refuse_contradictions(arguments)
        if arguments.verified:
            check_committed()
        if arguments.figures:
            every = None if arguments.all else methods
            written, skipped = recompute(every, tracks, arguments.out, arguments.recipe, arguments.seed)
            return _told(written, skipped, arguments.out)
        if arguments.runs is not None and methods and not arguments.all:
            check_runs(methods, tracks, arguments.recipe, seed, arguments.runs)
        if arguments.recipe is not None and not (arguments.all and arguments.recipe == "paper"):  # some have none
            check_recipe(methods, tracks, arguments.recipe, seed, arguments.runs)
        device = str(best_device(arguments.device))
        if arguments.transformers or arguments.emotions:
            methods = [model.to(device) for model in published(arguments.transformers or (), arguments.emotions)]
        row = (arguments.recipe, arguments.seed if arguments.costs else seed, arguments.runs, device)
        if arguments.costs:
            written, skipped = measure_costs(methods, tracks, arguments.out, *row)
        else:
            written, skipped = evaluate(
                methods, tracks, arguments.out, *row, arguments.verified, arguments.track is not None,
                robustness=arguments.robustness, explanation=arguments.explanation, tta=arguments.tta,
                resume=arguments.resume,
            )  # fmt: skip
        return _told(written, skipped, arguments.out)
    except (UserError, UnknownNameError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, OutputError) else 2
    except KeyboardInterrupt:
        again = "" if arguments.costs or arguments.figures else " Go on with --resume."
        print(f"interrupted; the results that were finished are kept.{again}", file=sys.stderr)
        if (arguments.out / "results").is_dir():
            write_table(arguments.out)
        return 1


if __name__ == "__main__":
    sys.exit(main())
