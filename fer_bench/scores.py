"""Files of scores, one row per face and method, that grow in flat memory and can be resumed: .csv, .jsonl, .parquet.

A resumed run gives the very file of an uninterrupted one. So a run works in groups of inputs that depend on nothing but
the list of inputs, and a resumed one goes on at the start of the last group that has rows, whose rows may not all be
there. What made the rows lies beside an unfinished file, and a run that would make others does not go on with it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

from fer_bench.errors import UserError
from fer_bench.files import atomic_write, naming

Row: TypeAlias = dict[str, str | int | float | None]
BEFORE, AFTER = ("filepath", "face", "time", "method", "emotion"), ("left", "top", "right", "bottom")
FORMATS = (".csv", ".jsonl", ".parquet")


def columns(emotions: Sequence[str]) -> list[str]:
    """The columns of a file of scores with these emotions, in order."""
    return [*BEFORE, *emotions, *AFTER]


class ScoreFile:
    """A file of scores that is being written, as a context manager.

    .csv and .jsonl grow in place; a .parquet cannot, so its rows wait in a .jsonl beside it until the run is finished.
    An interrupted run leaves what it has for `resume`; without it, what stands at `path` is replaced.
    done: the inputs whose rows are all there and that need not be scored again.   unsure: whether `resume` goes on with
    rows of which only the methods and the columns are known: of a finished file, or of one that an older version began.
    """

    def __init__(
        self, path: Path, emotions: Sequence[str], methods: Sequence[str], resume: bool = False, run: dict | None = None
    ) -> None:
        """path: ends in one of FORMATS. methods: the names that each input's rows have. run: all that the rows depend
        on, by the names that an error calls it by, as JSON has it; kept beside the file until that is finished.
        """
        self.path, self.names, self.methods, self.resume = path, columns(emotions), set(methods), resume
        self.run, self.beside = run, path.with_name(f"{path.name}.unfinished.json")
        self.growing = path.with_name(f"{path.name}.unfinished.jsonl") if path.suffix == ".parquet" else path
        self.unsure = False
        self.csv = self.growing.suffix == ".csv"
        self.done: set[str] = set()
        self.groups: dict[str, int] = {}

    def start(self, groups: Sequence[Sequence[str]]) -> ScoreFile:
        """Open the file. groups: the inputs, as the rows name them, in the groups in which they will be written.

        Raises UserError where resume is asked for and the file is of another run or broken before its end.
        """
        self.groups = {name: number for number, group in enumerate(groups) for name in group}
        kept: Iterator[str] = iter(())
        if self.resume and self.path != self.growing and self.path.is_file() and not self.growing.is_file():
            atomic_write(self.growing, lambda file: file.writelines(line.encode() for line in self._from_parquet()))
        if self.resume and self.growing.is_file():
            if self.run is not None:
                self._check_run()
            last = self._last_group()
            kept = (text for row, text in self._rows() if row["filepath"] not in last)
        header = _csv_text([self.names]) if self.csv else ""
        atomic_write(self.growing, lambda file: file.writelines(text.encode() for text in chain([header], kept)))
        if self.run is not None:  # after the rows of another run are gone: if this is cut off here, none are mistaken
            atomic_write(self.beside, json.dumps(self.run, indent=1).encode())
        with self._writing():
            self._file = open(self.growing, "a", encoding="utf-8", newline="")  # noqa: SIM115 (closed by __exit__)
        return self

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows of one group. Raises OutputError where the disk is full, say; `resume` can go on from there."""
        if self.csv:
            text = _csv_text(["" if row[name] is None else row[name] for name in self.names] for row in rows)
        else:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self._writing():
            self._file.write(text)
            self._file.flush()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return naming(self.growing, "; once it can be, the same command with --resume goes on from what is there")

    def __enter__(self) -> ScoreFile:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        with self._writing() if kind is None else contextlib.suppress(OSError):  # a full disk has been said by then
            self._file.close()
        if kind is None and self.path != self.growing:
            self._to_parquet()
            self.growing.unlink()
        if kind is None:
            self.beside.unlink(missing_ok=True)

    def _check_run(self) -> None:
        """UserError, naming what differs, where the file was left unfinished by a run that makes other rows."""
        try:
            before = json.loads(self.beside.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.unsure = any(True for _ in self._rows())
            return
        except ValueError:
            before = None
        if not isinstance(before, dict):
            raise UserError(f"{self.beside}: this is not readable as JSON; leave out --resume to begin anew.")
        others = [name for name in {**self.run, **before} if not _goes_on(before.get(name), self.run.get(name), name)]
        if others:
            raise UserError(
                f"{self.path}: the run that began it differs from this one in {', '.join(others)} (see "
                f"{self.beside.name} beside it); give the same, or leave out --resume to begin anew."
            )

    def _last_group(self) -> set[str]:
        """The inputs that are to be scored again; fills `done` with the others.

        Those whose rows stand last, whatever place these inputs now have among all, with the rest of their group, and
        those that a method has no row of.
        """
        found: dict[str, set[str]] = {}
        name = ""
        for row, _ in self._rows():
            name = row["filepath"]
            found.setdefault(name, set()).add(row["method"])
        names, methods = set(found), set().union(*found.values())
        first_rows_only = methods < self.methods and len(names) == 1
        if methods and methods != self.methods and not first_rows_only:
            raise UserError(self._other_run())
        latest = self.groups.get(name, -1)
        last = {one for one in names if self.groups.get(one) == latest or one == name or found[one] != methods}
        self.done = names - last
        return last

    def _rows(self) -> Iterator[tuple[dict, str]]:
        """Each whole row of the growing file, and its text. A last row that is not whole is left out."""
        with open(self.growing, encoding="utf-8", newline="", errors="replace") as file:
            yield from self._csv_rows(file) if self.csv else self._json_rows(file)

    def _csv_rows(self, file: io.TextIOBase) -> Iterator[tuple[dict, str]]:
        reader = csv.reader(file)
        header = next(reader, self.names)
        waiting: list[str] | None = None
        for cells in reader:
            if header != self.names or (waiting is not None and len(waiting) != len(self.names)):
                raise UserError(self._other_run())
            if waiting is not None:
                yield dict(zip(self.names, waiting, strict=True)), _csv_text([waiting])
            waiting = cells
        if waiting is not None and len(waiting) == len(self.names) and _ends_line(self.growing):
            yield dict(zip(self.names, waiting, strict=True)), _csv_text([waiting])

    def _json_rows(self, file: io.TextIOBase) -> Iterator[tuple[dict, str]]:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
            except ValueError:
                raise UserError(f"{self.growing}: line {number} is not JSON; leave out --resume.") from None
            if not isinstance(row, dict) or list(row) != self.names:
                raise UserError(self._other_run())
            yield row, line

    def _other_run(self) -> str:
        return f"{self.path}: this was written by another kind of run; repeat its --method, or leave out --resume."

    def _to_parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = dict.fromkeys(("filepath", "method", "emotion"), pa.string())
        kinds |= dict.fromkeys(("face", *AFTER), pa.int32())
        schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in self.names])

        def convert(file: io.BufferedWriter) -> None:
            rows = (row for row, _ in self._rows())
            with pq.ParquetWriter(file, schema) as writer:
                while some := list(islice(rows, 10_000)):
                    writer.write_table(pa.Table.from_pylist(some, schema=schema))

        atomic_write(self.path, convert)

    def _from_parquet(self) -> Iterator[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            for batch in pq.ParquetFile(self.path).iter_batches(10_000):
                yield from (json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())
        except pa.ArrowException:
            raise UserError(f"{self.path}: this is no readable parquet file; leave out --resume.") from None


def _csv_text(lines: Iterable[Sequence]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _goes_on(before: object, now: object, name: str) -> bool:
    """Whether a run with this value makes the rows of one with that: the same or, of inputs, more."""
    more = name == "inputs" and isinstance(before, list) and isinstance(now, list)
    return set(before) <= set(now) if more else before == now
