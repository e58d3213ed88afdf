"""What is sent: each function gives a whole repository as path -> content, so that it can be shown, written or pushed.

The same inputs give the same bytes. Results on a user's own pictures (`folder:`, `csv:`) are never sent: their names
tell of the machine they lie on.
"""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from fer_bench.card_files import read_cards
from fer_bench.errors import UserError
from fer_bench.files import atomic_write
from fer_bench.hub.client import WEIGHTS_FILE, Tree
from fer_bench.hub.readmes import eval_results, front_matter, model_card, results_card, space_readme
from fer_bench.methods import METHODS
from fer_bench.results import Result, read_results, result_path
from fer_bench.terms import licence, terms
from fer_bench.weights import check_hash, find, read_index, read_tensors, record_of, sha256, weights_folder
from fer_bench.withdrawn import withdrawn_list

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
PARQUET = "results.parquet"
SPACE_EXTRAS = ("onnx",)
"""What the Submit tab checks models with."""
SPACE_PACKAGES = ("spaces>=0.51,<1",)
"""What only a Space has a use for: shared GPUs."""
SUBMITTED = ("submission.yaml", "model.onnx", "model.safetensors", "README.md", "LICENSE")
"""The files that a submission may hold (`submissions.problems.SIZES`); whatever else lies there stays here."""
_SKIPPED = ("__pycache__", ".tmp", ".part")


def public(result: Result) -> bool:
    """Whether it may be shown: it is on no one's own pictures."""
    return ":" not in result.track


def public_results(leaderboard: Path) -> list[Result]:
    """Every result but those on a user's own pictures."""
    return [result for result in read_results(leaderboard) if public(result)]


def model_tree(entry: dict, root: Path, repo: str) -> dict[str, bytes | Path]:
    """The repository of one row of weights/index.json, of the name `repo`: weights, card, evaluation, results.

    Raises UserError where the file is missing or is not the one of the index.
    """
    card = METHODS[entry["method"]].card
    path = find(entry["method"], entry["track"], entry["recipe"], entry["seed"])
    if path is None:
        raise UserError(f"{weights_folder() / entry['file']}: this file of weights/index.json is not here.")
    _, record = read_tensors(_checked(path, entry))
    results = [
        result
        for result in public_results(root / "leaderboard")
        if result.method == entry["method"] and result.weights.sha256 == entry["sha256"]
    ]
    return {
        "README.md": model_card(card, entry, record, results, repo).encode(),
        "LICENSE": _licence(root, f"The weights ({WEIGHTS_FILE})", terms([(entry, record)])),
        WEIGHTS_FILE: path,
        **eval_results(results),
        **_records(results, root / "leaderboard", logits=False),
    }


def results_tree(repo: str, root: Path, others: Sequence[Result] = ()) -> dict[str, bytes | Path]:
    """The dataset repository: every record with its logits, all rows as one parquet file, and the card.

    others: results whose records are in the repository already and not here. They are counted and are rows, in the
    order that they would have here; those on someone's own pictures are not. Raises UserError where none are here.
    """
    leaderboard = root / "leaderboard"
    results = public_results(leaderboard)
    if not results:
        raise UserError(f"{leaderboard / 'results'}: there are no results here; python -m fer_bench.evaluate --all.")
    rows = sorted([*results, *filter(public, others)], key=lambda result: _path(result, leaderboard))
    tracks = list(dict.fromkeys(row.track for row in rows))
    return {
        "README.md": results_card(len(rows), tracks, repo).encode(),
        PARQUET: parquet(rows, leaderboard),
        **_records(results, leaderboard, logits=True),
    }


def parquet(results: Sequence[Result], leaderboard: Path) -> bytes:
    """All rows of all tracks, one per result: the table's columns, each metric and recall with its interval."""
    import pandas as pd  # heavy, and pulling weights does without it

    from fer_bench.leaderboard import table

    keys = ["track", "method", "recipe", "seed", "tta"]
    cards = read_cards(leaderboard)
    tables = [table(results, cards, track).assign(track=track) for track in dict.fromkeys(r.track for r in results)]
    measured = pd.DataFrame([{key: getattr(r, key) for key in keys} | _measured(r) for r in results])
    measured["subjects"] = measured["subjects"].astype("Int64")  # whole numbers, of which all may be missing
    rows = pd.concat(tables, ignore_index=True).drop(columns=["low", "high"])
    rows = rows.drop(columns=[name for name in rows if name in measured and name not in keys])
    rows = rows.merge(measured, on=keys, how="left", validate="one_to_one")
    rows = rows[["track", *rows.columns.drop("track")]]
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _measured(result: Result) -> dict[str, object]:
    """Each metric as NAME, NAME_low, NAME_high and each emotion's recall; the rest that makes a row traceable."""
    intervals = {**result.metrics, **{f"recall_{name}": recall for name, recall in result.per_class_recall.items()}}
    figures: dict[str, object] = {}
    for name, interval in intervals.items():
        figures |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    figures |= {"subjects": result.subjects}
    return figures | {"weights_sha256": result.weights.sha256, "commit": result.commit, "date": result.date}


def space_tree(root: Path) -> dict[str, bytes | Path]:
    """The demo's repository: app, package, leaderboard, weights, README with front matter, what it needs installed.

    Raises UserError for what is missing, for a weight file that is not the index's and for a README that is no Space's.
    """
    from fer_bench.leaderboard import markdown

    # Weights of someone's own pictures stay here, as their results do: their names tell of the machine.
    index = {key: entry for key, entry in read_index().items() if ":" not in entry["track"]}
    # What has a copy on the Hub need not be bundled; what has none and is missing is an error.
    bundled = [e for e in index.values() if not e.get("hub") or (weights_folder() / e["file"]).is_file()]
    models = sorted({entry["hub"] for entry in index.values() if entry.get("hub")})
    files = {f"weights/{e['file']}": _checked(_needed(weights_folder() / e["file"]), e) for e in bundled}
    also = terms(zip(bundled, map(record_of, files.values()), strict=True))
    readme = space_readme(_needed(root / "README.md").read_text(encoding="utf-8"), version("gradio"), models, also)
    front = front_matter(readme)
    results = public_results(root / "leaderboard")
    leaderboard = _folder(root / "leaderboard", "leaderboard")
    own = [path for path in leaderboard if Path(path).name.startswith(("folder-", "csv-")) or "/results/" in path]
    for path in leaderboard:
        _, folder, *rest = path.split("/")
        if folder == "submissions" and rest != ["README.md"] and (len(rest) != 2 or rest[1] not in SUBMITTED):
            own.append(path)
    for path in dict.fromkeys(own):
        del leaderboard[path]
    board = markdown(results, read_cards(root / "leaderboard"), end=withdrawn_list(root / "leaderboard"))
    return {
        "README.md": readme.encode(),
        "requirements.txt": requirements(_needed(root / "pyproject.toml"), front["sdk_version"]).encode(),
        "pyproject.toml": root / "pyproject.toml",  # so that a clone can be installed as the README says
        front["app_file"]: _needed(root / front["app_file"]),
        "LICENSE": _licence(root, "The weights in weights/", also),
        **_folder(root / "fer_bench", "fer_bench"),
        **leaderboard,
        **{f"leaderboard/{path}": file for path, file in _records(results, root / "leaderboard", logits=True).items()},
        "leaderboard/LEADERBOARD.md": board.encode(),
        "weights/index.json": (json.dumps(index, indent=1) + "\n").encode(),
        **files,
    }


def requirements(pyproject: Path, gradio: str) -> str:
    """requirements.txt of the Space, from pyproject.toml: the dependencies and the extras the app uses, never tests'.

    torch and torchvision keep the exact versions of pyproject.toml; gradio gets the front matter's.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in SPACE_EXTRAS:
        wanted += project["optional-dependencies"][extra]
    lines = [f"gradio=={gradio}" if _name(line) == "gradio" else line for line in (*wanted, *SPACE_PACKAGES)]
    return "# Generated from pyproject.toml by fer_bench.hub; do not edit.\n" + "\n".join(lines) + "\n"


def _name(requirement: str) -> str:
    return requirement.replace("=", ">").replace("<", ">").replace("[", ">").split(">")[0].strip().lower()


def _records(results: Sequence[Result], leaderboard: Path, logits: bool) -> dict[str, bytes | Path]:
    """`results/<track>/<method>/<recipe>-s<seed>.json`, with the logits beside it where they are wanted and there."""
    tree: dict[str, bytes | Path] = {}
    for result in results:
        path = _path(result, leaderboard)
        for file in (path, path.with_suffix(".npz")) if logits else (path,):
            if file.is_file():
                tree[file.relative_to(leaderboard).as_posix()] = file
    return tree


def _checked(path: Path, entry: dict) -> Path:
    """The same path; UserError where the file there is not the one of the index."""
    check_hash(path, sha256(path), entry)
    return path


def _path(result: Result, leaderboard: Path) -> Path:
    return result_path(leaderboard, result.track, result.method, result.recipe, result.seed, result.tta)


def _licence(root: Path, weights: str, also: Sequence[str]) -> bytes:
    """LICENSE for weights with these `terms`; weights: how it calls them."""
    return licence(_needed(root / "LICENSE").read_text(encoding="utf-8"), weights, also).encode()


def _folder(folder: Path, name: str) -> dict[str, bytes | Path]:
    """All files of a folder but hidden, compiled and half-written ones."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    parts = {f"{name}/{path.relative_to(folder).as_posix()}": path for path in files}
    return {k: v for k, v in parts.items() if "/." not in k and not any(s in k for s in _SKIPPED)}


def _needed(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: this file is not here, but it belongs to what is pushed; push from a checkout.")
    return path


def listing(tree: Tree) -> list[tuple[str, int, str]]:
    """(path, bytes, sha256) of every file, sorted by path."""
    rows = []
    for path, content in sorted(tree.items()):
        data = content if isinstance(content, bytes) else content.read_bytes()
        rows.append((path, len(data), hashlib.sha256(data).hexdigest()))
    return rows


def write_tree(tree: Tree, folder: Path) -> None:
    """Write the tree into a folder, each file whole or not at all; again, over an earlier copy of it.

    Raises UserError where the folder holds files that are not of the tree.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: this is a file, not a folder.")
    foreign = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).as_posix() not in tree]
    if foreign:
        raise UserError(f"{folder}: the folder holds other files ({foreign[0].name}, say); name an empty one.")
    for path, content in tree.items():
        atomic_write(folder / path, content if isinstance(content, bytes) else content.read_bytes())
