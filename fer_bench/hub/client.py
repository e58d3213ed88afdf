"""Every request to the Hub: send a tree of files, fetch one pinned file, with patience and one sentence on failure.

huggingface_hub retries by itself where it looks up and transfers files, but not where it makes a repository, reads its
tree or commits. `patiently` covers those: an attempt that failed is planned anew, so that what has arrived meanwhile
is not sent again and a commit whose answer was lost is not made twice.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.utils import parse_ratelimit_headers, validate_repo_id

from fer_bench import __version__
from fer_bench.errors import UserError
from fer_bench.files import OutputError, label, make_folder, replace_with
from fer_bench.weights import cache_folder, cached, sha256

TRIES = 4
LONGEST_WAIT = 300
"""Seconds; where the Hub asks for more, the command ends and says so."""
DAY = 24 * 3600
FRESH = {".gitattributes", "README.md"}
"""What the Hub itself may put into a new repository."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A full commit, the only form of a revision that cannot move."""
WEIGHTS_FILE = "model.safetensors"
"""The name of the weights in every model repository."""
# The base class of the HTTP library's errors, taken from here because that library is huggingface_hub's own choice.
HTTPError: type[Exception] = HfHubHTTPError.__mro__[1]
T = TypeVar("T")
Tree = Mapping[str, bytes | Path]
"""Path in the repository -> its content, or the file that holds it."""


class HubError(UserError):
    """The Hub could not be reached, refused, or sent something else than was asked for. Exit code 1."""


class There(NamedTuple):
    """What a repository holds at one commit."""

    revision: str
    """40 hex digits."""
    files: Mapping[str, RepoFile]
    """By path."""


class Sent(NamedTuple):
    """What a push did."""

    revision: str
    """40 hex digits: the commit that holds the tree."""
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    left: tuple[str, ...] = ()
    """Remote files in folders of the tree that it does not hold, and which were not to be deleted."""


def checked_repo(repo: str, where: str = "--repo") -> str:
    """The same "NAMESPACE/NAME"; UserError where it is none. where: what it was given as, for that sentence."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{where} {repo!r} is no repository name: {_line(error)}") from None
    if repo.count("/") != 1:
        raise UserError(f"{where} {repo!r} must be NAMESPACE/NAME, such as your-name/fer-small-cnn.")
    return repo


def pinned(entry: Mapping) -> tuple[str, str]:
    """(repository, commit) of an entry of weights/index.json.

    Raises UserError where it has none, or where the revision is no 40-hex commit: a branch or a tag can move.
    """
    repo, revision = entry.get("hub"), entry.get("revision")
    row = f"{entry['method']} ({entry['track']}, {entry['recipe']}, seed {entry['seed']})"
    if not repo:
        raise UserError(f"{row} has no copy on the Hub: weights/index.json names no repository for it.")
    if not COMMIT.fullmatch(revision or ""):
        raise UserError(
            f"{row}: weights/index.json pins {repo} to {revision!r}, which is no commit of 40 hex digits; "
            "a branch or tag can move, so it is refused."
        )
    return checked_repo(repo), revision


def fetch(entry: Mapping) -> Path:
    """The weight file of an index entry from the Hub, into the cache; returns its path there.

    It appears in the cache whole and with the SHA-256 of the entry, or not at all. Raises UserError for an entry that
    pins no commit, OutputError where the cache cannot be written, HubError where the Hub fails or what it sends is
    something else.
    """
    repo, revision = pinned(entry)
    target = cached(entry)
    if target.is_file() and sha256(target) == entry["sha256"]:
        return target
    make_folder(cache_folder())
    api = connect()
    try:
        return _fetched(api, entry, repo, revision, target)
    except OSError as error:
        raise OutputError(
            f"{cache_folder()} cannot be written to ({error.strerror or error}); set $FER_BENCH_CACHE."
        ) from None


def _fetched(api: HfApi, entry: Mapping, repo: str, revision: str, target: Path) -> Path:
    for left in cache_folder().glob(".fetch-*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > DAY:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_folder()) as folder:

        def attempt() -> Path:
            # The short look-up first: alone, hf_hub_download waits 23 seconds where there is no network at all.
            url = hf_hub_url(repo, WEIGHTS_FILE, revision=revision, endpoint=api.endpoint)
            about = api.get_hf_file_metadata(url=url)
            if about.commit_hash != revision:
                raise HubError(f"{repo} answered with commit {about.commit_hash}, not with the pinned {revision}.")
            return Path(api.hf_hub_download(repo, WEIGHTS_FILE, revision=revision, local_dir=folder))

        path = patiently(attempt, f"fetching {WEIGHTS_FILE} of {repo}")
        found = sha256(path)
        if found != entry["sha256"]:
            raise HubError(
                f"{WEIGHTS_FILE} of {repo} at {revision[:12]} was refused and deleted: its SHA-256 is {found}, "
                f"but weights/index.json says {entry['sha256']}."
            )
        target.parent.mkdir(exist_ok=True)
        replace_with(path, target)
    return target


def send(
    repo: str,
    kind: str,
    tree: Tree | Callable[[There], Tree],
    message: str,
    owned: tuple[str, ...] = (),
    kept: tuple[str, ...] = (),
    replace: bool = False,
) -> Sent:
    """Make the repository if need be, then bring it to `tree` in one commit; unchanged files are not sent.

    kind: "model", "dataset" or "space". tree: or what makes it of the commit that is built upon, asked again where that
    is another by then. owned: folders, such as "results/", in which remote files that are not in the tree are deleted;
    all others are left alone, and those in the folders `kept` are told of. Where nothing differs there is no commit.
    Raises UserError, unless `replace`, for a repository that holds something else than this package puts into one;
    HubError, and what `tree` raises.
    """
    api = connect()
    sdk = "gradio" if kind == "space" else None
    patiently(lambda: api.create_repo(repo, repo_type=kind, space_sdk=sdk, exist_ok=True), f"making {repo}")

    def attempt() -> Sent:
        head = api.repo_info(repo, repo_type=kind).sha
        files = api.list_repo_tree(repo, recursive=True, revision=head, repo_type=kind)
        remote = {file.path: file for file in files if isinstance(file, RepoFile)}
        nonlocal replace
        if not replace and _foreign(api, repo, kind, head, remote):
            others = sorted(set(remote) - FRESH)
            shown = ", ".join(map(label, others[:3])) + (" and others" if len(others) > 3 else "")
            raise UserError(
                f"the {kind} {repo} holds what fer_bench did not put there ({shown}), and its README does not name it; "
                "give another --repo, or --replace to have its files replaced."
            )
        replace = True  # what comes meanwhile is built upon
        wanted = tree(There(head, remote)) if callable(tree) else tree
        changed = tuple(path for path, content in wanted.items() if not same(remote.get(path), content))
        removed, left = (
            tuple(path for path in sorted(remote) if path not in wanted and path.startswith(folders))
            for folders in (owned, kept)
        )
        if not changed and not removed:
            return Sent(head, (), (), left)
        operations = [CommitOperationAdd(path, wanted[path]) for path in changed]
        operations += [CommitOperationDelete(path, is_folder=False) for path in removed]
        # With parent_commit, someone else's commit in between is an error, and the next attempt starts from it.
        done = api.create_commit(repo, operations, commit_message=message, repo_type=kind, parent_commit=head)
        return Sent(done.oid, changed, removed, left)

    return patiently(attempt, f"pushing to {repo}")


def _foreign(api: HfApi, repo: str, kind: str, head: str, remote: Mapping[str, RepoFile]) -> bool:
    """Whether a repository holds files, and no README that tells of fer_bench."""
    if set(remote) <= FRESH:
        return False
    if "README.md" not in remote:
        return True
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repo, "README.md", revision=head, repo_type=kind, local_dir=folder)
        return b"fer_bench" not in Path(path).read_bytes()


def connect() -> HfApi:
    """The client. The token comes from its usual places: $HF_TOKEN, else what `hf auth login` stored.

    Raises UserError for an address ($HF_ENDPOINT) or a token that no request can be made with.
    """
    api = HfApi(library_name="fer_bench", library_version=__version__)
    try:
        parts = urlsplit(api.endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise UserError(f"$HF_ENDPOINT is {api.endpoint!r}, which is no address; begin it with https://, or unset it.")
    if not (get_token() or "").isascii():
        raise UserError("$HF_TOKEN, or what `hf auth login` stored, is no token: it has other letters; set it anew.")
    return api


def same(remote: RepoFile | None, content: bytes | Path) -> bool:
    """Whether the Hub's file has this content, by its SHA-256 where it is a large file, else by git's own hash."""
    if remote is None or remote.size != (len(content) if isinstance(content, bytes) else content.stat().st_size):
        return False
    if remote.lfs is not None:
        found = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256(content)
        return remote.lfs.sha256 == found
    data = content if isinstance(content, bytes) else content.read_bytes()
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def patiently(call: Callable[[], T], doing: str) -> T:
    """`call()`, again after a pause where trying again can help. Raises HubError with one sentence where it cannot."""
    for tried in range(1, TRIES + 1):
        try:
            return call()
        except (HTTPError, OSError, RuntimeError, ValueError, XetDownloadError) as error:
            cause = _cause(error)
            wait = _wait(cause, tried)
            if wait is None or tried == TRIES:
                raise HubError(f"{doing} failed: {_sentence(cause, wait)}") from error
            print(f"{doing}: {_reason(cause)}; trying again in {wait:.0f} s", file=sys.stderr)
            time.sleep(wait)
    raise AssertionError("unreachable: the last try returns or raises")


def _cause(error: BaseException) -> BaseException:
    """The error of the request itself: huggingface_hub wraps those of uploads and look-ups into general ones."""
    seen = error
    while seen is not None:
        if isinstance(seen, HTTPError | OfflineModeIsEnabled):
            return seen
        seen = seen.__cause__
    return error


def _status(error: BaseException) -> int | None:
    """The HTTP status, None where there was no answer."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _wait(error: BaseException, tried: int) -> float | None:
    """Seconds to wait before the next try; None where trying again cannot help."""
    status = _status(error)
    if status is None:
        return 2.0 ** (tried - 1) if isinstance(error, HTTPError) else None
    if status in (409, 412):  # someone else pushed in between; the next attempt starts from their commit
        return 1.0
    if status not in (408, 429) and status < 500:
        return None
    asked = _asked(error)
    return None if asked is not None and asked > LONGEST_WAIT else max(asked or 0.0, 2.0 ** (tried - 1))


def _asked(error: HfHubHTTPError) -> float | None:
    """Seconds the Hub asks to wait, from its rate-limit headers or Retry-After; None where it does not say."""
    limit = parse_ratelimit_headers(error.response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    text = error.response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None


def _reason(error: BaseException) -> str:
    status = _status(error)
    return f"no answer ({_line(error)})" if status is None else f"the Hub answered {status}"


def _sentence(error: BaseException, wait: float | None) -> str:
    """What went wrong and what to do about it."""
    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is switched on; unset HF_HUB_OFFLINE to reach the Hub."
    if isinstance(error, GatedRepoError):
        return (
            "the repository is gated; ask for access on its page on the Hub, then log in with the account that has "
            "it: `hf auth login`."
        )
    if status == 401:
        return (
            "the Hub does not know who is asking, or the repository does not exist; log in with `hf auth login` "
            "(or set HF_TOKEN), for a push with a token that may write."
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            "the repository has no such commit (any more): its history may have been rewritten, or the revision is "
            "another repository's; ask its owner for the commit that is meant."
        )
    if status == 403 and error.response.request.method in ("GET", "HEAD"):
        return (
            "the token that is used may not read this repository, or access to it is switched off; log in with one "
            "that may: `hf auth login`."
        )
    if status == 403:
        return (
            "the token that is used may not do this; make one with the role write for that namespace in the Hub's "
            "settings under Access Tokens and log in with it: `hf auth login`."
        )
    if status == 404:
        return "there is no such repository, commit or file, or it is private and the token may not read it."
    if status == 429:
        asked = _asked(error)
        after = f" in {asked:.0f} seconds" if asked is not None else " later"
        return f"the Hub's rate limit is reached; repeat the command{after}, and what has arrived is not sent again."
    if status is not None and status >= 500:
        return f"the Hub answered {status} {TRIES} times; repeat the command later, and only what is missing is sent."
    if status is None and isinstance(error, HTTPError):
        return f"the Hub could not be reached ({_line(error)}); check the network and repeat the command."
    return _line(error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
