"""The whole check of a submission: files, manifest, model, behaviour; everything that is wrong is said at once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fer_bench.errors import UserError
from fer_bench.submissions import weights_file
from fer_bench.submissions.folder import MODELS, open_plain, read_plain, scan, unpack
from fer_bench.submissions.manifest import Manifest, card_of, read_manifest
from fer_bench.submissions.problems import MANIFEST_BYTES, Limits, Problem, Report
from fer_bench.submissions.sandbox import Child, RefusedError

if TYPE_CHECKING:
    from fer_bench.datasets import FaceSet

BOARD = Path(__file__).resolve().parents[2] / "leaderboard"
"""Of the checkout: its rows' names are taken, beside those of the registered methods."""
UNSAFE = {"no_folder", "too_many_files", "link", "special_file", "too_large", "two_models", "no_manifest"}
"""Problems of the files after which none of them is opened."""

ON_THE_BOARD = "on the board"
STRAY = "this is a file or a link; put a submission's own files into a folder called as its submission.yaml says."
"""Of what lies beside the queue's folders: passed over in silence, it would wait for ever."""

CHECKS: tuple[tuple[str, str], ...] = (
    ("Files", "Plain files of known names and bounded sizes only: no links, folders, devices, zip bombs or paths that "
     "lead out of the submission."),
    ("submission.yaml", "Plain values only, all of them checked: no tags, anchors or aliases, so that reading it "
     "cannot run code or fill the memory. Licence and training data must be declared."),
    ("No code", "ONNX or safetensors of a registered architecture. Pickles, TorchScript, custom operators, functions "
     "and external data are never loaded, because loading them can run someone else's code."),
    ("Bounded model", "Opset, nodes, declared tensor sizes, input and output are bounded by arithmetic before anything "
     "runs; loops and other control flow are refused, because they need not end."),
    ("Sandbox", "The model runs in its own process with limits on memory and time, without write access and, where the "
     "system allows it, without network, so that it can harm neither the server nor another row."),
    ("Finite and repeatable", "Every answer is a finite number and the same face gets the same answer twice, so that a "
     "figure can be measured again."),
    ("Face by face", "A face gets the same answer alone and among others: reading the other test faces is no part of "
     "the task."),
    ("Order of the emotions", "If another order of the outputs fits far better, the declared one is wrong, and the row "
     "would be worth nothing."),
    ("Logits", "Scores are made from logits; of a model that answers with probabilities they would be false."),
    ("Not from memory", "Answers must survive a change of one grey level, a shift of one pixel, and a mirrored, "
     "slightly turned and enlarged picture; those of a table of the test pictures' pixels do not. A table over what a "
     "trained network makes of them, or a network trained on them, is not caught."),
)  # fmt: skip


def check(
    folder: Path,
    run: bool = True,
    faces: FaceSet | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    board: Path | None = None,
    replace: bool = False,
) -> list[Problem]:
    """Everything that is wrong with the submission in `folder`; an empty list where nothing is.

    run: False leaves out what needs the model to run. faces: the pictures to try it on; default: rendered faces.
    board: the leaderboard's folder where another model may have the name too, beside BOARD. replace: it may have it.
    Raises UserError where this machine cannot check (no onnx installed, say), never because of the submission.
    """
    folder = Path(folder)
    problems = scan(folder)
    if {problem.code for problem in problems} & UNSAFE:
        return problems
    manifest, wrong = manifest_of(folder)
    problems += wrong
    model = model_of(folder)
    if model is None:
        return [*problems, _no_model(manifest)]
    try:
        if manifest is not None:
            problems += taken_name(manifest, folder / model, board, replace) + _agrees(manifest, model)
        return problems + _model_problems(folder / model, manifest, run and not problems, faces, limits)
    except OSError as error:  # exchanged since it was scanned
        return [*problems, Problem("unreadable", f"{model} cannot be read ({error.strerror or error}).")]


def manifest_of(folder: Path) -> tuple[Manifest | None, list[Problem]]:
    """The manifest of a folder, or what is wrong with it."""
    try:
        return read_manifest(read_plain(folder / "submission.yaml", MANIFEST_BYTES))
    except OSError as error:
        return None, [Problem("no_manifest", f"submission.yaml cannot be read ({error.strerror or error}).")]


def model_of(folder: Path) -> str | None:
    """The name of the folder's model file; None where there is none."""
    return next((name for name in MODELS if (folder / name).is_file()), None)


def _no_model(manifest: Manifest | None) -> Problem:
    if manifest is not None and manifest.hub:
        command = f"python -m fer_bench.submissions check hub:{manifest.hub}"
        return Problem("model_elsewhere", f"the model is on the Hub; `{command}` fetches and checks it.")
    return Problem("no_model", f"there is no model; put {' or '.join(MODELS)} beside submission.yaml.")


def rows_of(manifest: Manifest, model: Path | None, boards: set[Path]) -> tuple[list[Path], list[Path]]:
    """The records under a submission's name: those of its very model, then all others.

    model: its file; None where it lies on the Hub, in the place that the manifest names.
    """
    from fer_bench.results import ResultError, read_result

    own, others = [], []
    digest = ""
    for path in (path for board in sorted(boards) for path in sorted(board.glob(f"results/*/{manifest.name}/*.json"))):
        if model is not None and not digest:
            found = model.lstat()
            digest = _digest(model.absolute(), (found.st_mtime_ns, found.st_ctime_ns, found.st_size))
        try:
            result = read_result(path)
        except ResultError:
            others.append(path)
            continue
        fetched = manifest.hub and (result.trained.pretrained or "").endswith(f"; model hub:{manifest.hub}")
        mine = result.external and (result.weights.sha256 == digest if model is not None else fetched)
        (own if mine else others).append(path)
    return own, others


@lru_cache(maxsize=1000)
def _digest(path: Path, changed: tuple[int, ...]) -> str:
    """A file's SHA-256. changed: its own times of change and its size, so that a rewritten one is read again."""
    with os.fdopen(open_plain(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def taken_name(
    manifest: Manifest, model: Path | None, board: Path | None = None, replace: bool = False
) -> list[Problem]:
    """Whether the name is a method's, or another model's on a board; `check` says what the arguments are."""
    from fer_bench.card_files import OURS, PEERS, read_cards
    from fer_bench.methods import METHODS

    text = f"submission.yaml: the name {manifest.name!r} stands on the board already"
    if manifest.name in METHODS or manifest.name in read_cards(BOARD, OURS, PEERS):
        return [Problem("name_taken", f"{text}; choose another.")]
    others = [] if replace else rows_of(manifest, model, {BOARD, board or BOARD})[1]
    if not others:
        return []
    where = "/".join(others[0].parts[-4:])
    return [Problem("name_taken", f"{text}, for another model ({where}); choose another, or evaluate with --replace.")]


def _agrees(manifest: Manifest, model: str) -> list[Problem]:
    """Whether architecture and file go together with each other and with the registered methods."""
    from fer_bench.methods import METHODS
    from fer_bench.registry import UnknownNameError

    problems = []
    if model == "model.safetensors":
        if manifest.architecture is None:
            text = "submission.yaml: architecture is missing; model.safetensors needs the name of a registered method."
            problems.append(Problem("architecture", text))
        else:
            try:
                needed = METHODS[manifest.architecture].card.input
            except UnknownNameError as error:
                problems.append(Problem("architecture", f"submission.yaml: architecture: {error}"))
            else:
                if (manifest.input.size, manifest.input.channels) != (needed.size, needed.channels):
                    shape = f"{needed.channels} x {needed.size} x {needed.size}"
                    text = f"submission.yaml: {manifest.architecture} reads {shape}; mend size and channels of input."
                    problems.append(Problem("architecture_input", text))
    elif manifest.architecture is not None:
        text = "submission.yaml: architecture belongs to model.safetensors; remove it, model.onnx says it all."
        problems.append(Problem("architecture", text))
    return problems


def need_onnx() -> None:
    """Raise UserError where the optional packages are missing."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} is not installed; run: pip install 'fer_bench[onnx]'")


def open_model(model: Path, manifest: Manifest, limits: Limits) -> Child:
    """The model of a checked submission, loaded in its sandbox. Raises RefusedError."""
    if model.name == "model.onnx":
        need_onnx()
    return Child(model, manifest.input, len(manifest.emotions), manifest.architecture, limits)


def _model_problems(
    model: Path, manifest: Manifest | None, run: bool, faces: FaceSet | None, limits: Limits
) -> list[Problem]:
    if model.name == "model.safetensors":
        start = read_plain(model, weights_file.HEADER_BYTES + 8)
        problems = weights_file.static_problems(start, model.stat().st_size)
        if problems or not run:
            return problems
    else:
        need_onnx()
    try:
        if not run or manifest is None:
            spec, outputs = (manifest.input, len(manifest.emotions)) if manifest else (None, 0)
            Child(model, spec, outputs, None, limits, run=False).close()
            return []
        from fer_bench.submissions.behaviour import asker, behaves, rendered_faces

        with open_model(model, manifest, limits) as child:
            faces = faces if faces is not None else rendered_faces()
            return behaves(asker(child, manifest.input), manifest.emotions, faces)
    except RefusedError as error:
        return list(error.problems)


def validate(path: Path, limits: Limits = Limits(), faces: FaceSet | None = None) -> Report:  # noqa: B008 (frozen)
    """Check a submission's folder, or an uploaded .zip of one. Never raises because of what is uploaded."""
    path = Path(path)
    if path.is_dir():
        return report(check(path, faces=faces, limits=limits))
    if not path.is_file() or path.suffix.lower() != ".zip":
        return report([Problem("no_folder", f"{path.name}: give a submission's folder or a .zip of it.")])
    with tempfile.TemporaryDirectory(prefix="fer_bench-") as folder:
        problems = unpack(path, Path(folder))
        return report(problems or check(Path(folder), faces=faces, limits=limits))


def report(problems: list[Problem]) -> Report:
    """The problems with a sentence over them."""
    if not problems:
        return Report(True, (), "All checks passed: the submission can be evaluated.")
    many = "1 problem was" if len(problems) == 1 else f"{len(problems)} problems were"
    return Report(False, tuple(problems), f"{many} found; nothing was evaluated.")


@dataclass(frozen=True)
class Waiting:
    """A submission in the queue."""

    name: str
    """Its folder's name."""
    title: str
    tracks: tuple[str, ...]
    state: str
    """"waiting", with what for where it has been measured, ON_THE_BOARD, or "broken: ..." with the first reason."""


def queue(root: Path | str = Path("leaderboard/submissions")) -> list[Waiting]:
    """The submissions that lie under `root`, by name. Reads their manifests, and the models that have a row."""
    root = Path(root)
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if stray(folder):
            if folder.name != "README.md" and not folder.name.startswith("."):
                found.append(Waiting(folder.name, folder.name, (), f"broken: {STRAY}"))
            continue
        try:
            found.append(_waiting(folder, root.parent))
        except OSError as error:
            text = f"broken: it cannot be read ({error.strerror or error})."
            found.append(Waiting(folder.name, folder.name, (), text))
    return found


def stray(path: Path) -> bool:
    """Whether what lies in the queue is no folder of its own."""
    return path.is_symlink() or not path.is_dir()


def _waiting(folder: Path, board: Path) -> Waiting:
    """One entry of the queue. Only records of this very model under the folder's name count."""
    manifest, problems = manifest_of(folder)
    if manifest is None:
        return Waiting(folder.name, folder.name, (), f"broken: {problems[0].text}")
    name = model_of(folder)
    own, _ = rows_of(manifest, folder / name if name else None, {board})
    measured = [path for path in own if path.name.startswith("submitted-s")] if folder.name == manifest.name else []
    where = " (model on the Hub)" if manifest.hub and name is None else ""
    left = _left(manifest, measured, board)
    state = f"waiting{where}{left}" if left is not None else ON_THE_BOARD
    return Waiting(folder.name, manifest.title, manifest.tracks, state)


def _left(manifest: Manifest, measured: list[Path], board: Path) -> str | None:
    """What a submission with these records still waits for; None where it is on the board.

    That is where maintainers have measured it on each of its tracks that the board has rows of, as what it is now.
    """
    from fer_bench.card_files import SUBMITTED, readable_cards
    from fer_bench.results import read_result

    verified = {result.track for result in map(read_result, measured) if result.verified}
    if not verified:
        return ": measured, not verified" if measured else ""
    told = readable_cards(board, SUBMITTED)[0].get(manifest.name)
    if told != json.loads(json.dumps(card_of(manifest))):
        return ": its submission.yaml is not the one that was measured"
    missing = [name for name in manifest.tracks if name not in verified and (board / "results" / name).is_dir()]
    return f": to be measured on {', '.join(missing)}" if missing else None
