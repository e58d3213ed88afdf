"""Records of submissions on a board, made from one of the repository's own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fer_bench.card_files import write_submitted
from fer_bench.submissions.manifest import card_of, read_manifest
from tests.submissions.models import MANIFEST

RECORD = Path(__file__).resolve().parents[2] / "leaderboard/results/rendered/deep_emotion/common-v1-s0.json"


def record(board: Path, name: str, model: bytes, external: bool = True, pretrained: str = "declared: x") -> Path:
    """Write the record of a model's bytes, measured on rendered faces under a name; returns its path."""
    values = json.loads(RECORD.read_bytes())
    values |= {"method": name, "recipe": "submitted", "seed": 0, "external": external, "explanation": None}
    values["weights"]["sha256"] = hashlib.sha256(model).hexdigest()
    values["trained"] |= {"track": "submitted", "pretrained": pretrained}
    path = board / "results" / "rendered" / name / "submitted-s0.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(values))
    write_submitted(board, {name: card_of(read_manifest(MANIFEST.encode())[0])})
    return path
