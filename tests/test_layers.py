"""The layers of the design: imports point down only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fer_bench

PACKAGE = Path(fer_bench.__file__).parent
LAYERS = (
    {"errors", "command"},
    {"emotions", "registry", "torchvision_repair", "figures", "files", "pixels", "progress", "receptive", "cams"},
    {"clip_length", "zips"},
    {"how_to_read"},
    {"cards", "metrics", "scores"},
    {"statistics", "weights", "card_files", "networks", "modes", "selective"},
    {"records", "history", "sampling", "faces", "video", "transforms", "optimizers", "distributed", "pretrained"},
    {"results", "cells", "checkpoints", "inputs"},
    {"answers", "children"},
    {"seeds"},
    {"datasets", "methods", "protocols", "comparison", "charts", "beyond_accuracy", "withdrawn"},
    {"board_data"},
    {"infer", "leaderboard", "grid", "stages", "options", "start", "terms", "label_noise"},
    {"saved", "evaluate_options", "missing", "one_by_one", "side_by_side", "judged", "teachers"},
    {"train", "explain", "robustness", "hub"},
    {"classifiers", "faithfulness", "sweep", "costs", "resuming", "standing"},
    {"evaluate", "scoring"},
    {"submissions"},
    {"runtime"},
    {"predict"},
    {"ui"},
    {"__main__"},
)
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}


def imports_of(path: Path) -> set[str]:
    """The modules and packages of fer_bench that a file imports, by their first name below fer_bench."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), f"{path}: imports are written in full, so that this test sees them"
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fer_bench.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "fer_bench":
            found |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fer_bench."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize(
    "path", sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"}), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_down(path: Path) -> None:
    """A module imports from lower layers or from its own package, never from a neighbour or from above."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in LEVEL, f"{own} has no layer: enter it in LAYERS"
    for other in imports_of(path) - {own}:
        assert LEVEL[other] < LEVEL[own], f"{own} must not import {other}"


def test_type_checkers_see_the_public_names_that_load_lazily() -> None:
    """What `__getattr__` gives at run time stands in the package for type checkers too, from the same modules."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.asname: line.module for line in block.body for alias in line.names}
    assert seen == fer_bench._HOMES
    assert set(seen) | {"__version__"} == set(fer_bench.__all__)
