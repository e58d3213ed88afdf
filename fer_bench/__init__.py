"""fer_bench: the place where a facial-emotion-recognition method is judged.

The public names load lazily, so that importing the package (the leaderboard, say) does not import torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOMES = {
    "list_methods": "fer_bench.methods",
    "build": "fer_bench.methods",
    "load": "fer_bench.infer",
    "Model": "fer_bench.infer",
    "load_dataset": "fer_bench.datasets",
    "FaceSet": "fer_bench.datasets",
    "benchmark": "fer_bench.evaluate",
    "Result": "fer_bench.results",
}

__all__ = ["FaceSet", "Model", "Result", "__version__", "benchmark", "build", "list_methods", "load", "load_dataset"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fer_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
