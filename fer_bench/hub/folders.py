"""The files of someone else's repository at one commit; what may be among them is settled before any is fetched."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path

from huggingface_hub import HfApi, RepoFile

from fer_bench.errors import UserError
from fer_bench.files import make_folder
from fer_bench.hub.client import COMMIT, HubError, checked_repo, connect, patiently, same

IGNORED = {".gitattributes", ".DS_Store"}
"""What the Hub puts into every repository, and macOS into every folder; never fetched."""
LISTED = 50
"""Entries of a repository that are looked at; one with more is refused for those it should not have."""
NAMED = 3
"""Entries that a refusal names."""


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
            get = partial(api.hf_hub_download, repo, file.path, revision=revision, local_dir=arriving)
            path = Path(patiently(get, f"fetching {file.path} of {name}"))
            if not stat.S_ISREG(path.lstat().st_mode) or not same(file, path):
                raise HubError(f"{file.path} of {name} was refused and deleted: it is not the file that the Hub lists.")
            path.rename(clean / file.path)
        try:
            os.rename(clean, target)
        except OSError:  # another process was quicker
            if not target.is_dir():
                raise
    return target


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
