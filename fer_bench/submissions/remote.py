"""A submission that lies on the Hub: named by repository and commit, fetched into the cache, then a folder like any."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from fer_bench.errors import UserError
from fer_bench.submissions.checks import (
    ON_THE_BOARD,
    STRAY,
    Waiting,
    check,
    manifest_of,
    model_of,
    queue,
    stray,
    taken_name,
)
from fer_bench.submissions.folder import scan
from fer_bench.submissions.manifest import PINNED
from fer_bench.submissions.problems import MANIFEST_BYTES, MODEL_BYTES, NOTE_BYTES, SIZES, Limits, Problem

SCHEME = "hub:"
TOTAL_BYTES = MANIFEST_BYTES + MODEL_BYTES + 2 * NOTE_BYTES
"""Of all files together: there is one model."""


@dataclass(frozen=True)
class Place:
    """Where a submission's files are."""

    folder: Path
    pin: str | None = None
    """"hub:NAMESPACE/NAME@REVISION" where they were fetched from there."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the queue's entry that named the repository."""


def pinned(text: str) -> tuple[str, str]:
    """(repository, commit) of "hub:NAMESPACE/NAME@REVISION". Raises UserError, which says how a revision is found."""
    repo, _, revision = text.removeprefix(SCHEME).partition("@")
    if not PINNED.fullmatch(f"{repo}@{revision}"):
        given = f"{revision!r:.60} can come to mean another commit" if revision else "the revision is missing"
        named = repo if repo.count("/") == 1 else "NAMESPACE/NAME"
        raise UserError(
            f"{text[:200]}: {given}; give all 40 hex digits, {SCHEME}{named}@REVISION, which `git ls-remote "
            f"https://huggingface.co/{named} HEAD` prints (on the page: Files and versions, History)."
        )
    return repo, revision


def meant(text: object) -> str:
    """What a path that is not there seems to mean on the Hub, as a sentence more; "" where it means nothing there."""
    path = str(text).rstrip("/")
    place = path.removeprefix("https://huggingface.co/")
    if PINNED.fullmatch(place):
        return f" For what lies on the Hub give {SCHEME}{place}."
    return f" For what lies on the Hub give {SCHEME}NAMESPACE/NAME@REVISION." if place != path else ""


def fetched(text: str) -> Path:
    """The folder of "hub:NAMESPACE/NAME@REVISION", from the cache or, by its commit, from the Hub.

    Raises UserError where it is not pinned, holds other files than a submission's or larger ones (nothing is fetched
    then), or where the Hub cannot be reached or refuses.
    """
    repo, revision = pinned(text)
    from fer_bench.hub import fetch_folder  # torch and the Hub's client come with it
    from fer_bench.weights import cache_folder

    target = cache_folder().parent / "submissions" / repo.replace("/", "--") / revision
    return fetch_folder(repo, revision, SIZES, TOTAL_BYTES, target)


def located(where: Path | str) -> Place:
    """Where the files of a submission are: in its folder, or behind "hub:..." given here or in its submission.yaml.

    A submission.yaml that names the Hub must say the same as the one there. Raises UserError as `fetched` does.
    """
    if str(where).startswith(SCHEME):
        return Place(fetched(str(where)), str(where))
    folder = Path(where)
    manifest = manifest_of(folder)[0] if folder.is_dir() and not scan(folder) and model_of(folder) is None else None
    if manifest is None or manifest.hub is None:
        return Place(folder)
    pin = SCHEME + manifest.hub
    there = fetched(pin)
    theirs, _ = manifest_of(there)
    if theirs is None:  # the check of that folder says what is wrong
        return Place(there, pin)
    mine, theirs = replace(manifest, hub=None), replace(theirs, hub=None)
    differ = [field.name for field in fields(mine) if getattr(mine, field.name) != getattr(theirs, field.name)]
    if not differ:
        return Place(there, pin)
    text = f"submission.yaml: {', '.join(differ)} not as in {pin}; both files must say the same, but for hub."
    return Place(there, pin, (Problem("manifest_differs", text),))


def check_queue(root: Path, limits: Limits = Limits()) -> dict[str, list[Problem]]:  # noqa: B008 (frozen)
    """Entry -> everything that is wrong with it, for each under `root`; what is on the board stands here for its name.

    Models on the Hub are fetched; what cannot be fetched or read is a problem of its entry, so that the others are
    still checked.
    """
    found: dict[str, list[Problem]] = {}
    for item in queue(root):
        try:
            problems = _entry_problems(item, root, limits)
        except OSError as error:
            problems = [Problem("unreadable", f"the entry cannot be read ({error.strerror or error}).")]
        if problems or item.state != ON_THE_BOARD:
            found[item.name] = problems
    return found


def _entry_problems(item: Waiting, root: Path, limits: Limits) -> list[Problem]:
    """What is wrong with one entry of the queue; the model of one on the board is not run again."""
    folder = root / item.name
    if stray(folder):
        return [Problem("no_folder", STRAY)]
    manifest, _ = manifest_of(folder)
    if item.state == ON_THE_BOARD:
        if model_of(folder) is None:
            return taken_name(manifest, None, root.parent)
        return check(folder, run=False, board=root.parent)
    try:
        place = located(folder)
    except UserError as error:
        return [Problem("not_fetched", str(error))]
    problems = [*place.problems, *check(place.folder, limits=limits, board=root.parent)]
    if manifest is not None and manifest.name != item.name:
        text = f"the folder {item.name} must be called as its submission.yaml says, {manifest.name}."
        problems.append(Problem("folder_name", text))
    return problems
