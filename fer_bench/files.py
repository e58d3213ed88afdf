"""Files: found below a folder, named in output, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from fer_bench.errors import DataError, UserError


class OutputError(UserError, OSError):
    """A file or folder that cannot be written; the text names it."""


def label(path: str | os.PathLike[str]) -> str:
    """The text of a path in output, on one line: what is no valid UTF-8 and control characters become escapes."""
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: match[0].encode("unicode_escape").decode(), text)


def track_folder(track: str) -> str:
    """A track's folder name: its own, or `folder-<basename>-<8 hex of the path>` for a user's own pictures."""
    kind, _, path = track.partition(":")
    if kind not in ("folder", "csv") or not path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", track):
            raise UserError(f"track {track!r} must be a track's name, folder:PATH or csv:PATH.")
        return track
    base = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(path).name).strip("._")[:60] or "pictures"
    return f"{kind}-{base}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """The files in a folder, by name, then those of its sub-folders; what is called ".name" is left out.

    Links are followed, but each folder is entered once, and none that the first one lies in, so that links may lead in
    circles. A link that leads nowhere is given like a file, for its reader to name it. Raises DataError, naming it, for
    a folder that cannot be listed: its files would vanish without a word.
    """
    entered = {str(parent) for parent in Path(os.path.realpath(folder)).parents}
    for here, folders, files in os.walk(folder, onerror=_unlisted, followlinks=True):
        real = os.path.realpath(here)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(here, name) for name in sorted(files) if not name.startswith("."))


def unlistable(error: OSError) -> DataError:
    """The error for a folder that cannot be listed, which the system's own error names."""
    folder = label(error.filename or "a folder")
    return DataError(f"{folder}: this cannot be listed ({error.strerror}); make it readable or take it away.")


def _unlisted(error: OSError) -> None:
    """What is not there, or is no folder, has no files; that is for whoever named it to say."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise unlistable(error)


def make_folder(path: Path) -> Path:
    """The folder, made with those that it lies in where it is not there. Raises OutputError, naming it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: no folder can be made here ({error.strerror}); give another.") from None
    return path


@contextlib.contextmanager
def naming(path: Path, mend: str = "") -> Iterator[None]:
    """What the system raises in here, where `path` is written, becomes an OutputError that names it. mend: behind it.

    An OutputError, which names another file, stays what it is.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}{mend}.") from None


@contextlib.contextmanager
def alone_in(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Other processes that enter this wait until it is left. Raises OutputError where nothing can be written there."""
    from filelock import FileLock

    try:
        lock = FileLock(make_folder(folder) / name).acquire()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to ({error.strerror or error}).") from None
    with lock:
        yield


@contextlib.contextmanager
def filled_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, whose content becomes that of `out` at the end; nothing of it where anything is raised.

    A folder that is there may be a mount point, which nothing can take the place of: it is filled from inside. Raises
    UserError for an `out` that holds something, at the beginning or since; what a killed run left does not count.
    """
    real = Path(os.path.realpath(out))
    there = real.is_dir()

    def refuse_filled() -> None:
        names = [path.name for path in real.iterdir()] if real.is_dir() else [""] * os.path.lexists(real)
        if not all(name.startswith(_UNFINISHED) for name in names):
            raise UserError(f"{out}: there is something in this place already; name a new or an empty folder.")

    refuse_filled()
    made = [] if there else [parent for parent in real.parents if not parent.exists()]
    staging = (real if there else real.parent) / f"{_UNFINISHED}{secrets.token_hex(8)}"
    staging.mkdir(parents=True)
    try:
        yield staging
        refuse_filled()
        for path in sorted(staging.iterdir()) if there else ():
            os.replace(path, real / path.name)
        if not there:
            os.replace(staging, real)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # another run's by now
                parent.rmdir()
        raise
    shutil.rmtree(staging, ignore_errors=True)


_UNFINISHED = ".unfinished-"


def replace_with(written: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Put a finished file in another's place. It is on the disk before, so that a power cut leaves no empty one."""
    with open(written, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(written, path)


@contextlib.contextmanager
def written_whole(path: Path, mend: str = "") -> Iterator[Path]:
    """A place beside `path`, with its suffix, to write to, which takes its place at the end; it is gone after an error.

    For what has to be given a path; what writes to an open file takes `atomic_write`. A link stays one, and what it
    leads to is written. Raises OutputError, naming `path`, as `naming` does.
    """
    real = Path(os.path.realpath(path))
    temporary = real.with_name(f".{real.stem[:50]}.{secrets.token_hex(8)}.tmp{real.suffix}")
    try:
        with naming(path, mend):
            real.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            replace_with(temporary, real)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes | Callable[[BinaryIO], object]) -> Path:
    """Write bytes, or whatever the function writes, so that `path` holds either all of it or what it held before.

    A link stays one, and what it leads to is written; a pipe or a device is written to. Raises OutputError, naming the
    path, where that fails: a folder in it is a file, say, or the disk is full.
    """
    plain = os.path.isfile(path) or os.path.isdir(path) or not os.path.exists(path)
    real = Path(os.path.realpath(path)) if plain else path
    temporary = real.with_name(f".{real.name[:50]}.{secrets.token_hex(8)}.tmp") if plain else real
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb" if plain else "wb") as file:
            content(file) if callable(content) else file.write(content)
        if plain:
            replace_with(temporary, real)
    except OSError as error:
        file = next((folder for folder in real.parents if folder.exists() and not folder.is_dir()), None)
        reason = f"{file} is a file, not a folder" if file else error.strerror or error
        raise OutputError(f"{path} cannot be written: {reason}.") from None
    finally:
        if plain:
            with contextlib.suppress(OSError):  # its folder may be a file
                temporary.unlink(missing_ok=True)
    return path


DIRTY = "-dirty"
"""Behind the commit of a checkout whose package is not what the commit holds."""


def board_folder() -> Path:
    """leaderboard/ of the checkout, else of the working directory."""
    checkout = Path(__file__).resolve().parents[1] / "leaderboard"
    return checkout if checkout.is_dir() else Path("leaderboard")


def commit() -> str:
    """The checkout's commit, 40 hex digits, with `DIRTY` behind it where fer_bench/ differs from what it holds.

    "unknown" outside a checkout: an installed package may lie in another's.
    """
    folder = Path(__file__).resolve().parents[1]
    if not (folder / "pyproject.toml").is_file():
        return "unknown"
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return "unknown"
    return head if _git(folder, "status", "--porcelain", "--", "fer_bench") == "" else head + DIRTY


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints about the checkout; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def check_committed() -> None:
    """Raise UserError where the package differs from its commit: nobody could repeat what is marked as verified."""
    if commit().endswith(DIRTY):
        told = "--verified results are those of a commit, and fer_bench/ differs from its own (git status fer_bench)"
        raise UserError(f"{told}; commit or stash that first, or leave --verified out.")
