"""Someone else's files at one commit; what may be among them, and how large, is settled before any is fetched."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Container, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

from huggingface_hub import HfApi, RepoFile

from fer_bench.errors import UserError
from fer_bench.files import label, make_folder
from fer_bench.hub.client import COMMIT, HubError, There, checked_repo, connect, patiently, same
from fer_bench.results import Result, ResultError, read_result

IGNORED = {".gitattributes", ".DS_Store"}
"""What the Hub puts into every repository, and macOS into every folder; never fetched."""
LISTED = 50
"""Entries of a repository that are looked at; one with more is refused for those it should not have."""
NAMED = 3
"""Entries that a refusal names."""
RECORD = re.compile(r"results/[^/]+/[^/]+/[^/]+\.json")
"""What a result's record is called in a repository."""
RECORD_BYTES = 1_000_000
"""The greatest size of someone else's record; ours have a hundredth of it."""


def fetch_folder(repo: str, revision: str, sizes: Mapping[str, int], total: int, target: Path) -> Path:
    """The model repository's files at a commit, in the folder `target`, which appears whole or not at all; returns it.

    sizes: name -> greatest size in bytes of every file that may be there. total: the greatest size of all together.
    Names and sizes are judged by the Hub's listing, before the first download; what then arrives must have the size and
    the hash of that listing. Only plain files are left in `target`, whatever links the client's own cache is made of.
    Where `target` is there already nothing is asked: a commit does not change.

    Raises UserError for a name or size that is refused and for a revision that is no commit, HubError where the Hub
    fails, refuses, does not know the commit or answers with another one.
    """
    name = f"{checked_repo(repo, 'the repository')}@{revision[:12]}"
    if not COMMIT.fullmatch(revision):
        raise UserError(f"{repo}@{revision} is not pinned: a revision is 40 hex digits; a branch or tag can move.")
    if target.is_dir():
        return target
    api = connect()
    files = patiently(lambda: _listing(api, repo, revision, sizes, total), f"looking at {name}")
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as staging:
        # Into a local folder the client puts the files themselves; into its cache it puts links.
        clean, arriving = Path(staging) / "clean", Path(staging) / "arriving"
        clean.mkdir()
        for file in files:
            _fetched(api, repo, "model", file, revision, arriving).rename(clean / file.path)
        try:
            os.rename(clean, target)
        except OSError:  # another process was quicker
            if not target.is_dir():
                raise
    return target


def fetch_results(repo: str, there: There, here: Container[str], known: dict[tuple[str, str], Result]) -> list[Result]:
    """The results whose records a data set repository holds and `here` does not: paths such as "results/a/b/c-s0.json".

    Each is read as ours are, from a file of the size and the hash of the Hub's listing. known: (path, hash) -> what was
    read before, in which what is read now is kept, so that it is fetched once however often a push is tried.

    Raises UserError for one that is too large or no result as this version reads them, HubError where the Hub fails.
    """
    found = []
    name = f"{repo}@{there.revision[:12]}"
    for path, file in sorted(there.files.items()):
        if path in here or not RECORD.fullmatch(path):
            continue
        key = (path, file.lfs.sha256 if file.lfs else file.blob_id)
        if key not in known:
            known[key] = _result(repo, file, there.revision, f"{label(path)} of {name}")
        found.append(known[key])
    return found


def _result(repo: str, file: RepoFile, revision: str, called: str) -> Result:
    """called: the file in a sentence."""
    reason = f"it has {file.size:,} bytes"
    if file.size <= RECORD_BYTES:
        with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
            path = _fetched(connect(), repo, "dataset", file, revision, Path(folder))
            try:
                return read_result(path)
            except ResultError as error:
                reason = label(str(error).replace(str(path), "it").rstrip("."))
    raise UserError(
        f"{called} is not here and is no result that this version of fer_bench can read ({reason}), so its row would "
        "be lost; use the version that wrote it, mend it there, or give --delete, which deletes all that is not here."
    )


def _fetched(api: HfApi, repo: str, kind: str, file: RepoFile, revision: str, folder: Path) -> Path:
    """One file of the listing, in `folder` under its path. HubError where another one arrives."""
    called = f"{label(file.path)} of {repo}@{revision[:12]}"
    get = partial(api.hf_hub_download, repo, file.path, repo_type=kind, revision=revision, local_dir=folder)
    path = Path(patiently(get, f"fetching {called}"))
    if not stat.S_ISREG(path.lstat().st_mode) or not same(file, path):
        raise HubError(f"{called} was refused and deleted: it is not the file that the Hub lists.")
    return path


def _listing(api: HfApi, repo: str, revision: str, sizes: Mapping[str, int], total: int) -> list[RepoFile]:
    """The files to fetch, all of them known by name and within their bounds. UserError or HubError otherwise."""
    name = f"{repo}@{revision[:12]}"
    answered = api.repo_info(repo, revision=revision).sha
    if answered != revision:
        raise HubError(f"{name} has moved: the Hub answered with commit {answered}, not with the pinned {revision}.")
    entries = list(islice(api.list_repo_tree(repo, revision=revision), LISTED))
    entries = [entry for entry in entries if entry.path not in IGNORED]
    strange = [entry.path for entry in entries if not isinstance(entry, RepoFile) or entry.path not in sizes]
    foreign = [ascii(path)[1:-1][:80] for path in strange]
    if foreign:
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        raise UserError(
            f"{name} holds {', '.join(foreign[:NAMED])}{more}, which may not be there, so nothing was fetched; "
            f"the files are {', '.join(sizes)}."
        )
    for entry in entries:
        if entry.size > sizes[entry.path]:
            raise UserError(
                f"{entry.path} of {name} has {entry.size:,} bytes, so nothing was fetched; at most "
                f"{sizes[entry.path]:,} are."
            )
    together = sum(entry.size for entry in entries)
    if together > total:
        raise UserError(f"{name} holds {together:,} bytes, so nothing was fetched; at most {total:,} are.")
    return entries
