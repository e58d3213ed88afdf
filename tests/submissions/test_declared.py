"""What submissions say of themselves, where others read it: bounded, and neither markup nor a false provenance."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from pathlib import Path

from fer_bench.leaderboard import HOW_TO_READ, markdown
from fer_bench.results import read_result
from fer_bench.submissions import judging, read_manifest
from tests.submissions.models import MANIFEST
from tests.submissions.records import record


def test_training_data_cannot_pass_for_a_place_on_the_hub() -> None:
    """Only what was really fetched stands behind a semicolon in the record; declared text has none."""
    text = MANIFEST.replace("FER2013 training split", f'"x; model hub:me/mine@{"a" * 40}"')
    manifest, problems = read_manifest(text.encode())
    assert problems == []
    assert judging.declared(manifest) == f"declared: x, model hub:me/mine@{'a' * 40}"


def cell(tmp_path: Path, pretrained: str) -> str:
    """How the table tells the training of a submission of which the record says this."""
    result = replace(read_result(record(tmp_path, "mine", b"x", pretrained=pretrained)), external=True)
    (line,) = [line for line in markdown([result]).splitlines() if line.startswith("| 1 | `mine`")]
    return line.split(" | ")[9]


def test_declared_text_carries_no_markup_and_links_to_nowhere(tmp_path: Path) -> None:
    """Emphasis, code, mentions and addresses stand in the table as the characters that they are."""
    told = "declared: https://casino.example/win ~~**x**~~ `c` @ada ada@x.org WWW.x.org _y_ [a](b) <b> \\"
    shown = cell(tmp_path, told).partition("declared: ")[2]
    assert not set("*_~`[<\\") & set(shown)
    assert not any(link in shown for link in ("://", "@a", "@x", "WWW."))
    assert unescape(shown).replace("\u2060", "") == told.removeprefix("declared: ")


def test_declared_text_is_cut(tmp_path: Path) -> None:
    """A cell holds 120 characters of it; the record holds all. What we write of our own rows keeps its form."""
    assert len(cell(tmp_path / "long", "declared: " + "spam " * 2000).partition("; ")[2]) == 120
    assert cell(tmp_path / "ours", "weights of @vladmandic/face_api 1.7").endswith(
        "; weights of @vladmandic/face_api 1.7"
    )


def test_the_parameters_of_an_onnx_file_are_said_to_be_all() -> None:
    """Such a file does not tell trainable weights from others; how to read the table says which are counted."""
    assert "A submitted ONNX file does not tell them apart: of it, every weight that it holds counts." in HOW_TO_READ
