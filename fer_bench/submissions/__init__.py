"""Submissions: a folder with submission.yaml and a model as ONNX or safetensors, checked and run without being trusted.

    python -m fer_bench.submissions template > submission.yaml
    python -m fer_bench.submissions check DIR          (or hub:NAMESPACE/NAME@REVISION)
    python -m fer_bench.submissions evaluate DIR --track rendered
    python -m fer_bench.submissions export METHOD -o DIR          (or --transformers NAMESPACE/NAME@REVISION)

Importing this package is cheap; torch and onnx load where they are used.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "CHECKS": "checks",
    "Limits": "problems",
    "Manifest": "manifest",
    "Problem": "problems",
    "Report": "problems",
    "Waiting": "checks",
    "check": "checks",
    "check_queue": "remote",
    "evaluate_submission": "judging",
    "export_method": "exporting",
    "export_model": "exporting",
    "located": "remote",
    "main": "__main__",
    "queue": "checks",
    "read_manifest": "manifest",
    "template": "manifest",
    "unpack": "folder",
    "validate": "checks",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"fer_bench.submissions.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fer_bench.submissions' has no attribute {name!r}")
