"""Members of a .zip that others made, with a bound on what they unpack to: one of 1 MB may unfold to gigabytes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable


def check_sizes(members: Iterable[zipfile.ZipInfo], most: int) -> None:
    """BadZipFile, naming the member, where one unpacks to more than `most` bytes.

    And where one is packed in another way than zipfile's usual one, which can be unpacked piece by piece: of the others
    a few bytes may unfold to any number, whatever size is stated for them.
    """
    for one in members:
        if one.file_size > most:
            size = f"{one.file_size / 1e6:,.0f} MB, more than the {most / 1e6:,.0f} MB"
            raise zipfile.BadZipFile(f"File {one.filename!r} unpacks to {size} that are read")
        if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"File {one.filename!r} is not packed by deflate; pack it again so")


def contents(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """A member of at most `most` bytes, also where its stated size is a lie. Raises as `check_sizes` does."""
    check_sizes([member], most)
    with archive.open(member) as file:
        return file.read(most)  # never without a number, which unfolds it whole before its size is looked at
