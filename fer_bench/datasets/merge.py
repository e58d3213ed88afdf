"""One data set out of several, at one size, each picture once, with where it comes from (as P2 merged its own)."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_bench.datasets import own
from fer_bench.datasets.base import DATASETS, FaceSet
from fer_bench.datasets.own_csv import read_rows
from fer_bench.emotions import canonical, in_order
from fer_bench.errors import DataError, UserError
from fer_bench.faces import square
from fer_bench.files import filled_folder, unlistable

ORDER = ("test", "validation", "train")
"""Where a picture stands in several splits, it stays in the first of these: nothing of test is trained on."""
ROWS = 1000
"""Pictures per row group of a parquet file."""


@dataclass(frozen=True)
class Source:
    """One of the sets that are merged. spec: as given.   name: what provenance calls it (no path of this machine).

    emotions: its label set, in its own order.   splits: those that it has.
    """

    spec: str
    name: str
    title: str
    licence: str
    emotions: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """One picture of the merged set, encoded as PNG. label: index into the merged emotions."""

    png: bytes
    label: int
    source: str
    source_id: str
    source_split: str
    file: str
    subject: str
    """Whom it shows, "" where the source does not tell; no two sources share a person."""


@dataclass
class Tally:
    """What was kept and left out, by (source, split)."""

    kept: Counter = field(default_factory=Counter)
    """(source, split, emotion) -> pictures."""
    removed: Counter = field(default_factory=Counter)
    """(source, split, split in which the picture stays) -> pictures."""
    disagreeing: int = 0
    """Removed pictures whose label is not that of the one that stays."""
    skipped: Counter = field(default_factory=Counter)
    """(source, split) -> unreadable pictures."""
    notes: dict[str, dict[str, None]] = field(default_factory=dict)
    """source -> what its loader says of this copy, each once."""


def write_merged(
    specs: Sequence[str],
    size: int,
    out: Path,
    load: Callable[[str, str], FaceSet],
    form: str = "parquet",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write the merged set to `out`, whole or not at all, and return what its merge.json says.

    specs: data sets' names, `folder:PATH` or `csv:PATH`.   size: side of every picture, pixels.   load: the package's
    `load_dataset`.   form: "parquet" (one file per split, with the features of Hugging Face's `datasets`) or "folder"
    (split/emotion/*.png, and metadata.csv per split).   say: gets one line per split of a source.
    A picture that stands several times, pixel for pixel at this size (grey like the RGB of it), is kept once: in test
    rather than validation rather than train, then from the source named first.
    Raises UserError for a folder that is not empty or a source named twice, DataError and UnknownNameError as `load`.
    """
    if form not in WRITERS:
        raise ValueError(f"the forms are {', '.join(WRITERS)}, not {form!r}")
    sources = sources_of(specs)
    emotions = in_order(emotion for source in sources for emotion in source.emotions)
    with filled_folder(out) as staging:
        seen: dict[bytes, tuple[str, int, bool]] = {}
        tally = Tally()
        for split in ORDER:
            pictures = _pictures(sources, split, size, emotions, load, seen, tally, say)
            WRITERS[form](staging, split, pictures, emotions)
        summary = _summary(sources, emotions, size, form, tally)
        if not sum(summary["pictures"].values()):
            raise DataError(f"none of {', '.join(specs)} has a picture to merge.")
        (staging / "merge.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        (staging / "README.md").write_text(readme(summary), encoding="utf-8")
    return summary


def sources_of(specs: Sequence[str]) -> list[Source]:
    """What is merged. Raises UserError for a set named twice, UnknownNameError and DataError for what is not there."""
    sources: list[Source] = []
    for spec in specs:
        kind, _, path = spec.partition(":")
        if kind in ("folder", "csv") and path:
            place = Path(path).expanduser()
            parts = (_folder_parts if kind == "folder" else _csv_parts)(place)
            name = f"{kind}:{place.resolve().name}"
            same = sum(source.name.split("#")[0] == name for source in sources)
            name += f"#{same + 1}" if same else ""
            emotions = in_order(emotion for found in parts.values() for emotion in found)
            sources.append(Source(spec, name, "your own pictures", "yours to know", emotions, tuple(parts)))
        else:
            card = DATASETS[spec].card
            sources.append(Source(spec, spec, card.title, card.licence, card.emotions, ORDER))
    twice = [spec for spec, count in Counter(source.spec for source in sources).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice; name every source once.")
    return sources


def _folder_parts(path: Path) -> dict[str, set[str]]:
    """split -> the emotions that its sub-folders are named after; without split folders all is test."""
    if not path.is_dir():
        raise own.no_folder(path)
    parts: dict[str, set[str]] = {}
    try:
        for split, base in (own.split_folders(path)[0] or {"test": path}).items():
            parts[split] = set()
            for folder in base.iterdir():
                with contextlib.suppress(ValueError):
                    parts[split] |= {canonical(folder.name)} if folder.is_dir() else set()
    except OSError as error:
        raise unlistable(error) from None
    return parts


def _csv_parts(path: Path) -> dict[str, set[str]]:
    """split -> the emotions in its rows. Raises DataError as `own_csv.load_csv`."""
    parts: dict[str, set[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in read_rows(file, path):
                parts.setdefault(row.split, set()).add(row.emotion)
    except (FileNotFoundError, IsADirectoryError):
        raise own.no_table(path) from None
    except OSError as error:
        raise DataError(f"{path}: this file cannot be read ({error.strerror}); make it readable.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: this is not a readable UTF-8 CSV file ({error}); save it as one.") from None
    return parts


def _pictures(
    sources: Sequence[Source],
    split: str,
    size: int,
    emotions: tuple[str, ...],
    load: Callable[[str, str], FaceSet],
    seen: dict[bytes, tuple[str, int, bool]],
    tally: Tally,
    say: Callable[[str], None],
) -> Iterator[Picture]:
    """The pictures of one split that stand nowhere yet. One source's split is in memory at a time."""
    for number, source in enumerate(sources):
        if split not in source.splits:
            continue
        faces = load(source.spec, split)
        label_of = [emotions.index(emotion) for emotion in faces.emotions]
        prefix = f"{number}-{re.sub('[^A-Za-z0-9]+', '-', source.name)}"
        kept = removed = lost = 0
        people = [""] * len(faces) if faces.subjects is None else [f"{prefix}/{who}" for who in faces.subjects]
        for index, (pixels, label, name) in enumerate(zip(faces.images, faces.labels, faces.ids, strict=True)):
            image = square(Image.fromarray(pixels), size)
            digest = hashlib.blake2b(np.asarray(image.convert("RGB")).tobytes(), digest_size=16).digest()
            merged = label_of[int(label)]
            if digest in seen:
                where, other, known = seen[digest]
                tally.removed[source.name, split, where] += 1
                tally.disagreeing += other != merged
                removed += 1
                lost += bool(people[index]) and not known
                continue
            seen[digest] = (split, merged, bool(people[index]))
            tally.kept[source.name, split, emotions[merged]] += 1
            kept += 1
            encoded = io.BytesIO()
            image.save(encoded, "PNG", compress_level=3)  # twice as fast as 6, a twentieth larger
            file = f"{prefix}-{index:06d}.png"
            yield Picture(encoded.getvalue(), merged, source.name, name, faces.split, file, people[index])
        tally.skipped[source.name, split] = len(faces.skipped)
        notes = list(faces.notes)
        if lost:
            notes.append(
                f"whom {lost:,} pictures of {split} show is known here, but not of the same pictures in the sources "
                "named before, which were kept; name this source first"
            )
            say(f"{source.name}: {notes[-1]}.")
        tally.notes.setdefault(source.name, {}).update(dict.fromkeys(notes))
        say(f"{source.name} {split}: {kept:,} pictures, {removed:,} removed that stand elsewhere already")


# Writing ------------------------------------------------------------------------------------------------------------


def _write_parquet(folder: Path, split: str, pictures: Iterator[Picture], emotions: tuple[str, ...]) -> None:
    """folder/split.parquet with image, label, source, source_id, source_split and subject; nothing for no pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features, Value
    from datasets import Image as ImageFeature

    text = Value("string")
    features = Features(
        image=ImageFeature(), label=ClassLabel(names=list(emotions)), source=text, source_id=text, source_split=text,
        subject=text,
    )  # fmt: skip
    schema = features.arrow_schema
    with contextlib.ExitStack() as stack:
        writer = None
        for batch in _batches(pictures):
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(folder / f"{split}.parquet", schema))
            columns = {
                "image": [{"bytes": one.png, "path": one.file} for one in batch],
                "label": [one.label for one in batch],
                "source": [one.source for one in batch],
                "source_id": [one.source_id for one in batch],
                "source_split": [one.source_split for one in batch],
                "subject": [one.subject for one in batch],
            }
            writer.write_table(pa.table(columns, schema=schema))


def _batches(pictures: Iterator[Picture]) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_folder(folder: Path, split: str, pictures: Iterator[Picture], emotions: tuple[str, ...]) -> None:
    """folder/split/emotion/*.png and folder/split/metadata.csv; nothing for no pictures."""
    rows = []
    for one in pictures:
        path = folder / split / emotions[one.label] / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.png)
        name = path.relative_to(folder / split).as_posix()
        rows.append([name, emotions[one.label], one.source, one.source_id, one.source_split, one.subject])
    if rows:
        with (folder / split / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            header = ["file_name", "emotion", "source", "source_id", "source_split", "subject"]
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


WRITERS = {"parquet": _write_parquet, "folder": _write_folder}


# Telling ------------------------------------------------------------------------------------------------------------


def _summary(sources: list[Source], emotions: tuple[str, ...], size: int, form: str, tally: Tally) -> dict[str, Any]:
    def count(split: str, source: str | None = None, emotion: str | None = None) -> int:
        wanted = (source, split, emotion)
        return sum(n for key, n in tally.kept.items() if all(w in (None, k) for w, k in zip(wanted, key, strict=True)))

    splits = [split for split in reversed(ORDER) if count(split)]
    return {
        "size": size, "form": form, "emotions": list(emotions),
        "pictures": {split: count(split) for split in splits},
        "counts": {split: {emotion: count(split, None, emotion) for emotion in emotions} for split in splits},
        "sources": [
            {
                "name": source.name, "title": source.title, "licence": source.licence,
                "label_map": {emotion: emotions.index(emotion) for emotion in source.emotions},
                "pictures": {split: count(split, source.name) for split in splits},
                "unreadable": sum(n for (name, _), n in tally.skipped.items() if name == source.name),
                "notes": list(tally.notes.get(source.name, ())),
            }
            for source in sources
        ],
        "duplicates": {
            "removed": [
                {"source": source, "split": split, "stays_in": where, "pictures": n}
                for (source, split, where), n in sorted(tally.removed.items())
            ],
            "total": sum(tally.removed.values()), "with_another_label": tally.disagreeing,
        },
    }  # fmt: skip


def readme(summary: dict[str, Any]) -> str:
    """README.md of a merged set, from its merge.json."""
    splits, size = list(summary["pictures"]), summary["size"]

    def table(header: list[str], rows: list[list[Any]]) -> str:
        lines = [header, ["---"] * len(header), *rows]
        return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"

    emotions = [[i, e, *(summary["counts"][s][e] for s in splits)] for i, e in enumerate(summary["emotions"])]
    sources = [
        [one["name"], one["title"], one["licence"], *(one["pictures"][s] for s in splits), one["unreadable"]]
        for one in summary["sources"]
    ]
    notes = "".join(f"\n- {one['name']}: {note}" for one in summary["sources"] for note in one["notes"])
    duplicates = [[d["pictures"], d["source"], d["split"], d["stays_in"]] for d in summary["duplicates"]["removed"]]
    total, other = summary["duplicates"]["total"], summary["duplicates"]["with_another_label"]
    files = "\n".join(f"  - split: {split}\n    path: {split}.parquet" for split in splits)
    if summary["form"] == "parquet":
        head = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n"
        given = ", ".join(f'"{split}": "{split}.parquet"' for split in splits)
        use = f'```python\ndatasets.load_dataset("parquet", data_files={{{given}}})\n```\n'
    else:
        head = ""
        use = (
            "As `folder:PATH` wherever fer_bench takes a data set; each split's metadata.csv says where its pictures "
            "are from and, where the source tells, whom they show. `csv:PATH/test/metadata.csv` is the test split with "
            "its people, over which intervals are then drawn.\n"
        )
    return (
        f"{head}# A merged set of faces with emotions, {size} x {size} pixels\n\n"
        f"Written by `python -m fer_bench.datasets merge`. It is under all the licences below at once.\n\n{use}\n"
        f"## Labels\n\nEvery source's labels are mapped by their names.\n\n"
        f"{table(['label', 'emotion', *splits], emotions)}\n"
        f"## Sources\n\n{table(['source', 'title', 'licence', *splits, 'unreadable'], sources)}"
        f"{notes and notes + chr(10)}\n"
        f"## Duplicates\n\nEach picture stands once, compared pixel for pixel at this size; test is kept before "
        f"validation before train. {total:,} were removed, {other:,} of them with another label than the one that "
        f"stays.\n" + (f"\n{table(['pictures', 'of', 'in', 'stay in'], duplicates)}" if duplicates else "")
    )
