"""RAF-DB, the basic set of seven emotions (Li, Deng and Du, CVPR 2017), from its official folders or sorted by label.

    basic/EmoLabel/list_patition_label.txt      "train_00001.jpg 5", labels 1..7 in RAF's own order
    basic/Image/aligned/train_00001_aligned.jpg 100 x 100 pixels

    DATASET/train/5/train_00001_aligned.jpg     the same pictures as they go round on Kaggle, 5 being the label

Train and test are official. There is no official validation split: it is the tenth of train that `splits.a_tenth`
chooses by the sample's name (train_00001), 1,255 of the 12,271 pictures, the same ones in every copy. Training uses
the other 11,016.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from fer_bench.cards import DatasetCard
from fer_bench.datasets import lists
from fer_bench.datasets.base import DATASETS, Dataset, FaceSet, check_allowed
from fer_bench.datasets.splits import a_tenth
from fer_bench.emotions import SEVEN
from fer_bench.errors import DataError

LABELS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""RAF's 1, 2, ... 7."""
OFFICIAL = {"train": 12_271, "test": 3_068}
SIDE = 100
LIST = "EmoLabel/list_patition_label.txt"
LAYOUT = f"basic/{LIST} and basic/Image/aligned/*.jpg, or DATASET/train/1 to 7 and DATASET/test/1 to 7"
_SORTED = re.compile(r"(train|test)_\d+(?=_aligned$|$)", re.IGNORECASE)

CARD = DatasetCard(
    name="rafdb",
    title="RAF-DB (basic)",
    emotions=SEVEN,
    counts=(("train", 11_016), ("validation", 1_255), ("test", 3_068)),
    licence="non-commercial research only; the authors must agree to your request",
    source="by e-mail to its authors, as http://www.whdeng.cn/raf/model1.html says",
    paper="Li, Deng, Du, Reliable Crowdsourcing and Deep Locality-Preserving Learning, CVPR 2017",
)


def load_rafdb(root: Path | None, split: str) -> FaceSet:
    """One split of RAF-DB's basic set: uint8 (N, 100, 100, 3), seven emotions.

    root: the folder that holds `basic` (DATASET), or that folder itself. Raises DataError where it is missing, where a
    line of its list or a picture's name is wrong, and where more than one in a hundred of its pictures is missing;
    fewer are named in `skipped`.
    """
    check_allowed(split)
    labels = lists.inside(root, f"basic/{LIST}", LIST)
    aligned = lists.inside(root, "basic/Image/aligned", "Image/aligned")
    by_label = lists.inside(root, "DATASET/train", "train")
    if labels is not None and aligned is not None:
        source, every = labels, _listed(labels, aligned)
    elif by_label is not None and lists.inside(by_label, "1"):
        source, every = by_label.parent, _sorted(by_label.parent)
    else:
        raise lists.not_here(CARD, root, LAYOUT)
    part = "test" if split == "test" else "train"
    samples = [sample for sample in every if sample.id.startswith(part)]
    notes = lists.check_listed(CARD, source, f"{part} pictures", len(samples), OFFICIAL[part])
    if part == "train":
        held = a_tenth([sample.id for sample in samples])
        wanted = split == "validation"
        samples = [sample for sample, is_held in zip(samples, held, strict=True) if is_held == wanted]
    faces = lists.decode("rafdb", split, samples, SEVEN, SIDE, needed=lists.least())
    return replace(faces, notes=notes)


def _listed(labels: Path, aligned: Path) -> list[lists.Sample]:
    """Every picture of the list; DataError, naming the line, for one that is no entry of RAF-DB's."""
    samples: dict[str, lists.Sample] = {}
    for number, line in lists.read_lines(labels):
        where = f"{labels}, line {number}"
        name, _, label = line.partition(" ")
        stem, _, suffix = name.lower().partition(".")
        part, _, digits = stem.partition("_")
        if part not in OFFICIAL or not digits.isdecimal() or not suffix or not label.strip():
            raise DataError(f"{where}: an entry reads like 'train_00001.jpg 5', not {line[:60]!r}; get the list again.")
        if label.strip() not in set("1234567"):
            raise DataError(f"{where}: the label must be 1 to 7, not {label.strip()[:20]!r}; get the list again.")
        if stem in samples:
            raise DataError(f"{where}: {stem} stands in the list twice (also {samples[stem].listed}); get it again.")
        path = aligned / f"{stem}_aligned.{suffix}"
        samples[stem] = lists.Sample(stem, LABELS[int(label) - 1], path, where)
    return list(samples.values())


def _sorted(root: Path) -> list[lists.Sample]:
    """Every picture of the folders train/1 to test/7, in the official list's order; DataError for a name or a folder
    that is none of RAF-DB's, and for a picture under two labels."""
    samples: dict[str, lists.Sample] = {}
    for part in OFFICIAL:
        for folder in lists.folders_in(lists.inside(root, part) or root / part):
            if folder.name not in set("1234567"):
                raise DataError(f"{folder}: the folders must be 1 to 7, RAF-DB's labels; take this one away.")
            for picture in lists.pictures_in(folder):
                match = _SORTED.match(picture.stem)
                if match is None or match[1].lower() != part:
                    raise DataError(f"{picture}: its name must read like {part}_00001_aligned.jpg; get RAF-DB again.")
                name = match[0].lower()
                if name in samples:
                    raise DataError(f"{picture}: the same picture is also {samples[name].path}; get RAF-DB again.")
                samples[name] = lists.Sample(name, LABELS[int(folder.name) - 1], picture)
    return [samples[name] for name in sorted(samples, key=lambda one: (one.startswith("test"), one))]


DATASETS.add("rafdb", Dataset(CARD, load_rafdb))
