"""fer_bench: the place where a facial-emotion-recognition method is judged.

The public names load lazily, so that importing the package (the leaderboard, say) does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fer_bench import command

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
    from fer_bench.saved import Answers as Answers
    from fer_bench.saved import load_answers as load_answers
    from fer_bench.saved import load_results as load_results

__version__ = "0.1.0"

if command.is_command():
    command.begin()

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
    "load_results": "fer_bench.saved",
    "load_answers": "fer_bench.saved",
    "Answers": "fer_bench.saved",
}

__all__ = [
    "Answers", "FaceSet", "InputSpec", "Model", "Result", "__version__", "benchmark", "build", "from_transformers",
    "list_methods", "load", "load_answers", "load_dataset", "load_results",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fer_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
