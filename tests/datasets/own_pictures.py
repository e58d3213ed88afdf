"""Pictures, folders and CSV files of one's own, made on the spot."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from fer_bench.datasets import load_dataset
from fer_bench.errors import DataError


def draw(path: Path, value: int = 100, size: tuple[int, int] = (48, 48), mode: str = "L") -> Path:
    """A picture of one brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)
    return path


def refusal(name: str, split: str = "test") -> str:
    """The text with which a data set is refused; one line."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, split)
    text = str(caught.value)
    assert "\n" not in text
    return text


def table(path: Path, *lines: str, end: str = "\n", encoding: str = "utf-8") -> str:
    """A CSV file's name as a data set."""
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return f"csv:{path}"


def close(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder one that may not be listed; its mode would not keep the superuser, whom tests may run as, out."""

    def refusing(real: Callable, path: str | os.PathLike[str] = ".") -> object:
        if os.fspath(path) == str(folder):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return real(path)

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, partial(refusing, getattr(os, name)))
