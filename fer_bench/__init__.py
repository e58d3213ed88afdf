"""fer_bench: the place where a facial-emotion-recognition method is judged.

The public names load lazily, so that importing the package (the leaderboard, say) does not import torch.
"""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for the type checkers of those who import these names
    from fer_bench.cards import InputSpec as InputSpec
    from fer_bench.classifiers import from_transformers as from_transformers
    from fer_bench.datasets import FaceSet as FaceSet
    from fer_bench.datasets import load_dataset as load_dataset
    from fer_bench.evaluate import benchmark as benchmark
    from fer_bench.infer import Model as Model
    from fer_bench.infer import load as load
    from fer_bench.methods import build as build
    from fer_bench.methods import list_methods as list_methods
    from fer_bench.results import Result as Result

__version__ = "0.1.0"


def _is_command() -> bool:
    """Whether this process is `python -m fer_bench.…` or `fer-bench …`, and not a program that imports the package."""
    given = sys.orig_argv
    asked = given[given.index("-m") + 1] if "-m" in given[:-1] else ""
    return asked.partition(".")[0] == __name__ or any(PurePath(program).name == "fer-bench" for program in sys.argv[:1])


if _is_command():  # nothing of what is imported is garbage, and looking for some took a sixth of a command's start
    gc.set_threshold(50_000, 20, 100)

_HOMES = {
    "list_methods": "fer_bench.methods",
    "build": "fer_bench.methods",
    "load": "fer_bench.infer",
    "Model": "fer_bench.infer",
    "InputSpec": "fer_bench.cards",
    "load_dataset": "fer_bench.datasets",
    "FaceSet": "fer_bench.datasets",
    "benchmark": "fer_bench.evaluate",
    "from_transformers": "fer_bench.classifiers",
    "Result": "fer_bench.results",
}

__all__ = [
    "FaceSet", "InputSpec", "Model", "Result", "__version__", "benchmark", "build", "from_transformers",
    "list_methods", "load", "load_dataset",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fer_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
