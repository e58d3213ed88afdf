"""What others packed is unpacked within bounds: the arrays beside a record, and FER2013's .zip."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fer_bench import results, zips
from fer_bench.datasets import fer2013_copies, fer2013_files
from fer_bench.errors import DataError
from tests.datasets.fer2013_tiny import CLASSES, LABELS, zip_writer

NAME = f"train/{CLASSES[LABELS[4]]}/Training_4.png"


def packed(path: Path, content: bytes, how: int = zipfile.ZIP_DEFLATED, stated: int | None = None) -> Path:
    """A .zip of one member; stated: the size that its header and the directory give for it."""
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("a.bin", content)
    if stated is not None:
        path.write_bytes(path.read_bytes().replace(len(content).to_bytes(4, "little"), stated.to_bytes(4, "little")))
    return path


def test_contents_within_a_bound(tmp_path: Path) -> None:
    """A member of just the bound is read; a larger one, or one packed in a way that nothing bounds, is refused."""
    with zipfile.ZipFile(packed(tmp_path / "a.zip", bytes(5_000_000))) as archive:
        (info,) = archive.infolist()
        assert zips.contents(archive, info, 5_000_000) == bytes(5_000_000)
        with pytest.raises(zipfile.BadZipFile, match=r"File 'a\.bin' unpacks to 5 MB, more than the 4 MB that"):
            zips.contents(archive, info, 4_000_000)
    with zipfile.ZipFile(packed(tmp_path / "b.zip", bytes(50), zipfile.ZIP_BZIP2)) as archive:
        (info,) = archive.infolist()
        with pytest.raises(zipfile.BadZipFile, match=r"'a\.bin' is not packed by deflate"):
            zips.contents(archive, info, 4_000_000)


def test_a_stated_size_that_is_a_lie(tmp_path: Path) -> None:
    """A member that says it is small and is not does not unfold in memory."""
    with zipfile.ZipFile(packed(tmp_path / "a.zip", bytes(60_000_000), stated=1000)) as archive:
        (info,) = archive.infolist()
        assert info.file_size == 1000
        tracemalloc.start()
        with pytest.raises(zipfile.BadZipFile, match="CRC"):
            zips.contents(archive, info, 4_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()


def test_arrays_too_large_beside_a_record(tmp_path: Path) -> None:
    """They are refused as a broken file is, before any is unpacked."""
    path = tmp_path / "a.npz"
    ids = np.zeros(70_000_000 // 400, "<U100")
    np.savez_compressed(path, ids=ids, targets=np.zeros(len(ids), np.int8), logits=np.zeros((len(ids), 4), np.float16))
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(results.ResultError) as caught:
        results.read_logits(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    text = f"{path} cannot be read as logits: File 'ids.npy' unpacks to 70 MB, more than the 64 MB that are read; "
    assert str(caught.value) == f"{text}evaluate the method again."


def test_a_picture_too_large_in_a_zip(tmp_path: Path) -> None:
    """It is skipped and named as a broken one is; the rest is loaded."""
    zip_writer("")(tmp_path)
    path, old = tmp_path / "archive.zip", tmp_path / "old"
    path.rename(old)
    with zipfile.ZipFile(old) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in whole.namelist():
            new.writestr(name, whole.read(name) + (bytes(9_000_000) if name == NAME else b""))
    faces = fer2013_copies.read(tmp_path, "train")
    assert len(faces.images) == 109
    assert faces.skipped == (
        f"{path}/{NAME}: this cannot be read (File '{NAME}' unpacks to 9 MB, more than the 8 MB that are read).",
    )


@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013new.csv"])
def test_a_list_too_large_in_a_zip(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CSV and FER+'s votes are refused by name where they unpack to more than their bounds."""
    monkeypatch.setattr(fer2013_files, "MOST_TABLE", 8_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(9_000_000))
    with pytest.raises(DataError, match=rf"a\.zip.*File '{name}' unpacks to 9 MB, more than the 8 MB that are read"):
        fer2013_copies.read(tmp_path, "train")


def test_a_line_without_an_end_is_not_held(tmp_path: Path) -> None:
    """What follows the columns of a CSV without any end of line is refused after its first part."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fer2013.csv", b"emotion,pixels,Usage\n" + b"0," * 15_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"fer2013\.csv, line 2: this is no row of FER2013"):
        fer2013_copies.read(tmp_path, "train")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
