"""Files: found below a folder, named in output, written whole or not at all."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fer_bench import files
from fer_bench.errors import UserError
from fer_bench.files import atomic_write, files_below, filled_folder, label, track_folder
from tests.datasets.own_pictures import close


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


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files do not vanish with a folder that may not be read: whoever walks hears of it."""
    touch(tmp_path / "1.png")
    touch(tmp_path / "deep" / "2.png")
    close(tmp_path / "deep", monkeypatch)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'deep'}: this cannot be listed (Permission denied); ")):
        list(files_below(tmp_path))


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
        for place in (tmp_path / "file" / "x" / "y.json", tmp_path / "file" / "y.json"):
            told = f"{place} cannot be written: {tmp_path / 'file'} is a file, not a folder."
            with pytest.raises(error, match=re.escape(told)):
                atomic_write(place, b"1")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="folder cannot be written"):
        atomic_write(tmp_path / "folder", b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_links_pipes_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    """Through a link its target is written, also one that is not there yet; a pipe's reader gets the bytes."""
    (tmp_path / "target").write_text("before")
    for name, target in (("link", "target"), ("dangling", "new")):
        (tmp_path / name).symlink_to(target)
        atomic_write(tmp_path / name, b"after")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == "after"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        atomic_write(tmp_path / "pipe", b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "link", "new", "pipe", "target"]


def test_threads_may_write_the_same_file(tmp_path: Path) -> None:
    """Each writes a file of its own first, so that none takes another's away half-written."""
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda number: atomic_write(tmp_path / "a", b"%03d" % number), range(200)))
    assert len(written) == 200
    assert len((tmp_path / "a").read_bytes()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_runs_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    """The one that ends first fills it; the other is refused and leaves nothing, not even the folders it made."""
    for out in (tmp_path / "there", tmp_path / "new" / "deep"):
        if out.name == "there":
            out.mkdir()
        late = filled_folder(out)
        (late.__enter__() / "late.txt").write_text("")
        with filled_folder(out) as first:
            (first / "first.txt").write_text("")
        with pytest.raises(UserError, match="there is something in this place"):
            late.__exit__(None, None, None)
        assert [path.name for path in out.iterdir()] == ["first.txt"]
        assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]
    with pytest.raises(KeyError), filled_folder(tmp_path / "a" / "b" / "c"):
        raise KeyError
    assert not (tmp_path / "a").exists()


def test_a_track_s_folder_is_its_own() -> None:
    """No two tracks share one, and a name that would leave the folder is refused."""
    tracks = ("fer2013", "folder:a/b", "folder:a_b", "csv:a/b", "folder:/")
    assert len({track_folder(track) for track in tracks}) == len(tracks)
    assert not any("/" in track_folder(track) for track in tracks)
    for name in ("..", "a/b", "folder:", "Fer2013"):
        with pytest.raises(UserError, match="must be a track's name"):
            track_folder(name)


def test_a_changed_package_is_said_behind_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed, staged, deleted or new files in fer_bench/ count; what lies beside it, as results do, does not."""
    place = touch(tmp_path / "fer_bench" / "files.py")
    for name in ("pyproject.toml", "fer_bench/other.py", "leaderboard/table.md"):
        touch(tmp_path / name)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.hooksPath=/", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    monkeypatch.setattr(files, "__file__", str(place))
    git("init", "-q")
    assert files.commit() == "unknown", "nothing is committed"
    git("add", "-A")
    git("commit", "-qm", "made")
    head = git("rev-parse", "HEAD")
    assert len(head) == 40
    assert files.commit() == head
    files.check_committed()
    (tmp_path / "leaderboard" / "table.md").write_text("new")
    touch(tmp_path / "leaderboard" / "new.json")
    assert files.commit() == head
    place.write_text("changed = True")
    assert files.commit() == f"{head}-dirty"
    git("add", "-A")
    assert files.commit() == f"{head}-dirty"
    with pytest.raises(UserError, match="differs from its own"):
        files.check_committed()
    git("reset", "-q", "--hard")
    assert files.commit() == head
    touch(tmp_path / "fer_bench" / "new.py")
    assert files.commit() == f"{head}-dirty"
    git("clean", "-qfd")
    (tmp_path / "fer_bench" / "other.py").unlink()
    assert files.commit() == f"{head}-dirty"


def test_a_file_is_on_the_disk_before_it_takes_anothers_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut between the two leaves the old file, never an empty new one: the content is synced first."""
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_size), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replaced"), replace(*paths)))
    atomic_write(tmp_path / "a", b"12345")
    assert done == [5, "replaced"]
