"""Files: found below a folder, named in output, written whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fer_bench.errors import UserError
from fer_bench.files import atomic_write, files_below, label


def touch(path: Path) -> Path:
    """An empty file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("é, 1.png", "é, 1.png"),
        (os.fsdecode(b"caf\xe9.png"), "caf\\udce9.png"),
        ("c\rd\ne.png", "c\\rd\\ne.png"),
        ("\x1b[31m\x85\u2028.png", "\\x1b[31m\\x85\\u2028.png"),
        (Path("a") / "b\\c.png", "a/b\\c.png"),
    ],
)
def test_a_name_in_output_is_one_line_of_valid_text(name: str | Path, text: str) -> None:
    """Control characters and what is no UTF-8 become escapes; all else stays."""
    assert label(name) == text
    assert label(name).encode()


def test_files_come_by_name_and_hidden_ones_do_not(tmp_path: Path) -> None:
    """A folder's own files come first, then each sub-folder's; names that begin with a dot are left out."""
    for name in ("b/1.png", "z.txt", "a.png", "b/c/2.png", "._a.png", "b/.ipynb_checkpoints/1-checkpoint.png"):
        touch(tmp_path / name)
    found = [os.path.relpath(file, tmp_path) for file in files_below(tmp_path)]
    assert found == ["a.png", "z.txt", "b/1.png", "b/c/2.png"]
    assert list(files_below(tmp_path / "nowhere")) == []


def test_links_are_followed_and_may_lead_in_circles(tmp_path: Path) -> None:
    """A linked folder is entered once; one that leads up, round or nowhere ends nothing; a dead link is named."""
    touch(tmp_path / "elsewhere" / "1.png")
    touch(tmp_path / "all" / "happy" / "2.png")
    touch(tmp_path / "all" / "sad" / "3.png")
    happy = tmp_path / "all" / "happy"
    for name, target in (("more", "../../elsewhere"), ("up", ".."), ("itself", "itself"), ("gone.png", "/gone.png")):
        (happy / name).symlink_to(target)
    (tmp_path / "elsewhere" / "again").symlink_to(happy)
    found = [os.path.relpath(file, happy) for file in files_below(happy)]
    assert found == ["2.png", "gone.png", "itself", "more/1.png"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails half-way leaves the file as it was, and nothing beside it."""
    path = atomic_write(tmp_path / "new" / "a.txt", b"before")

    def breaking(file) -> None:
        file.write(b"half")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="full"):
        atomic_write(path, breaking)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_what_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    """A folder that is a file ends in an error that names the path, for callers of both kinds, and leaves nothing."""
    (tmp_path / "file").write_text("whole")
    for error in (UserError, OSError):
        with pytest.raises(error, match=re.escape(f"{tmp_path / 'file' / 'x' / 'y.json'} cannot be written: ")):
            atomic_write(tmp_path / "file" / "x" / "y.json", b"1")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="folder cannot be written"):
        atomic_write(tmp_path / "folder", b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_is_on_the_disk_before_it_takes_anothers_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut between the two leaves the old file, never an empty new one: the content is synced first."""
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_size), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replaced"), replace(*paths)))
    atomic_write(tmp_path / "a", b"12345")
    assert done == [5, "replaced"]
