"""The files of a submission: which may be there, how large, and how a zip of them is unpacked without being trusted."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from itertools import islice
from pathlib import Path

from fer_bench.errors import UserError
from fer_bench.submissions.problems import SIZES, Problem

ENTRIES = 16
"""Of a folder or zip; a submission has four files at most, and a zip may hold their folder too."""
RATIO = 100
"""Largest unpacked size of a file by its packed size. Weights hardly shrink; a bomb shrinks a thousandfold."""
DIRECTORY_BYTES = 16 * 1024
"""Of a zip's table of contents, which is read whole before anything can be counted."""
BROKEN = zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError
"""What reading a zip may raise."""
ADDED, FINDER = (".DS_Store", ".gitattributes"), "__MACOSX"
"""Files that macOS and the Hub add by themselves and, in a zip, macOS' folder: passed over, and never unpacked."""
MODELS = ("model.onnx", "model.safetensors")


def scan(folder: Path) -> list[Problem]:
    """What is wrong with the files of a folder, by name, kind and size alone: nothing is opened, no link followed."""
    problems: list[Problem] = []
    try:
        if folder.is_symlink() or not folder.is_dir():
            return [Problem("no_folder", f"{folder}: this is no folder; give the submission's own folder.")]
        with os.scandir(folder) as listing:
            entries = sorted(islice(listing, ENTRIES + 1), key=lambda entry: entry.name)
        infos = [entry.stat(follow_symlinks=False) for entry in entries]
    except OSError as error:
        return [Problem("no_folder", f"{folder}: the folder cannot be read ({error.strerror}).")]
    if len(entries) > ENTRIES:  # what lies beyond is not looked at, so nothing here may be opened
        text = f"there are more than {ENTRIES} entries; the files are {', '.join(SIZES)}."
        return [Problem("too_many_files", text)]
    for entry, info in zip(entries, infos, strict=True):
        name = ascii(entry.name)[1:81].rstrip("'")
        if stat.S_ISLNK(info.st_mode):
            problems.append(Problem("link", f"{name} is a symbolic link; put the file itself there."))
        elif stat.S_ISDIR(info.st_mode):
            problems.append(Problem("subfolder", f"{name} is a folder; a submission has files only."))
        elif not stat.S_ISREG(info.st_mode):
            problems.append(Problem("special_file", f"{name} is a device, pipe or socket; only plain files are read."))
        elif entry.name in ADDED:
            continue
        elif entry.name not in SIZES:
            problems.append(Problem("extra_file", f"{name} does not belong; the files are {', '.join(SIZES)}."))
        elif info.st_size > SIZES[entry.name]:
            text = f"{name} has {info.st_size:,} bytes; at most {SIZES[entry.name]:,} are read."
            problems.append(Problem("too_large", text))
    names = {entry.name for entry in entries}
    if "submission.yaml" not in names:
        problems.append(Problem("no_manifest", "submission.yaml is missing; start from the template."))
    if names >= set(MODELS):
        problems.append(Problem("two_models", "there are a model.onnx and a model.safetensors; keep one of them."))
    return problems


def open_plain(path: Path) -> int:
    """A read-only descriptor of a plain file that is no link, whatever happened since `scan`. OSError otherwise."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is no plain file")
    return descriptor


def read_plain(path: Path, limit: int) -> bytes:
    """The first limit + 1 bytes of a plain file that is no link. OSError where it is none."""
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read(limit + 1)


def can_write(folder: Path) -> None:
    """Raise UserError where nothing can be written into a folder; one that is not there is made and removed again."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: nothing can be written there ({error.strerror}); give another folder.") from None
    finally:
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()


def unpack(archive: Path, into: Path) -> list[Problem]:
    """Unpack a zip of a submission into the existing empty folder `into`; nothing is written unless all is well.

    Accepted are the files of a submission, bare or inside one folder. Every entry's name, kind, size and ratio are
    looked at before the first byte is written, and each is read for no more than the size it declares.
    """
    if archive.is_symlink():
        return [Problem("link", f"{archive.name} is a symbolic link; give the zip itself.")]
    try:
        problem = _contents_bounded(archive)
        if problem is not None:
            return [problem]
        with zipfile.ZipFile(archive) as file:
            if len(file.infolist()) > ENTRIES:
                text = f"the zip has {len(file.infolist())} entries; a submission has four files."
                return [Problem("zip_entries", text)]
            infos = [info for info in file.infolist() if not _is_added(info)]
            problems = _entries(infos, archive.stat().st_size)
            if problems:
                return problems
            for info in infos:
                if not _is_folder(info):
                    _write(file, info, into / info.filename.rsplit("/", 1)[-1])
    except BROKEN as error:
        for name in SIZES:
            (into / name).unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:120]
        return [Problem("zip_broken", f"{archive.name}: this is not a readable zip file ({reason}); pack it again.")]
    return []


def _contents_bounded(archive: Path) -> Problem | None:
    """Refuse a zip whose table of contents is large or ambiguous: Python would read it whole into memory."""
    with os.fdopen(open_plain(archive), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > sum(SIZES.values()):
            return Problem("too_large", f"{archive.name} has {size:,} bytes; at most {sum(SIZES.values()):,} are read.")
        file.seek(max(0, size - 42))
        tail = file.read()
    if tail[-22:-18] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        return Problem("zip_broken", f"{archive.name}: this is no plain zip file; pack it again, without a comment.")
    if tail[:4] == b"PK\x06\x07":
        return Problem("zip_broken", f"{archive.name}: the zip64 form is not accepted; pack it again as a plain zip.")
    if struct.unpack("<I", tail[-10:-6])[0] > DIRECTORY_BYTES:
        return Problem("zip_entries", f"{archive.name} lists too many files; a submission has four at most.")
    return None


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/") and info.file_size == 0


def _is_added(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.split("/")
    return parts[0] == FINDER or parts[-1] in ADDED


def _entries(infos: list[zipfile.ZipInfo], packed: int) -> list[Problem]:
    problems: list[Problem] = []

    def refuse(code: str, info: zipfile.ZipInfo, text: str) -> None:
        problems.append(Problem(code, f"the zip's entry {ascii(info.filename)[:80]} {text}"))

    parents, seen = set(), set()
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        parts = info.filename.rstrip("/").split("/")
        if info.orig_filename != info.filename or "\\" in info.filename or "\0" in info.orig_filename:
            refuse("zip_path", info, "has a backslash or a zero byte in its name; use plain names.")
        elif info.filename.startswith("/") or ":" in parts[0]:
            refuse("zip_path", info, "has an absolute path; pack the folder itself.")
        elif any(part in ("", ".", "..") for part in parts):
            refuse("zip_path", info, "leaves its folder; pack the folder itself.")
        elif kind == stat.S_IFLNK:
            refuse("link", info, "is a symbolic link; pack the file itself.")
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR and not _is_folder(info)):
            refuse("special_file", info, "is no plain file; pack plain files only.")
        elif _is_folder(info):
            if len(parts) > 1:
                refuse("subfolder", info, "is a folder inside the folder; a submission has files only.")
        elif len(parts) > 2 or parts[-1] not in SIZES:
            refuse("extra_file", info, f"does not belong; the files are {', '.join(SIZES)}.")
        elif parts[-1] in seen:
            refuse("zip_twice", info, "stands there twice; keep one.")
        elif info.flag_bits & 1:
            refuse("zip_encrypted", info, "is encrypted; pack it without a password.")
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            refuse("zip_method", info, "is compressed in an unusual way; use stored or deflated.")
        elif info.file_size > SIZES[parts[-1]]:
            refuse("zip_bomb", info, f"unpacks to {info.file_size:,} bytes; at most {SIZES[parts[-1]]:,} are read.")
        elif info.file_size > 4096 and info.file_size > RATIO * min(info.compress_size, packed):
            refuse("zip_bomb", info, f"unpacks to more than {RATIO} times its packed size, as a zip bomb does.")
        else:
            seen.add(parts[-1])
            parents.add(parts[0] if len(parts) == 2 else "")
    if not problems and len(parents) > 1:
        problems.append(Problem("zip_path", "the zip's files lie in different folders; pack one folder."))
    return problems


def _write(file: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Write one entry, of exactly its declared size, to a new file. ValueError where it holds more or less."""
    written = 0
    with file.open(info) as source, open(target, "xb") as out:
        while block := source.read(2**20):
            written += len(block)
            if written > info.file_size:
                break
            out.write(block)
    if written != info.file_size:
        raise ValueError(f"{target.name} does not have the size that the zip declares")
