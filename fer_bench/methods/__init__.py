"""The methods, one file per paper, imported in the order of the papers (P4, P3, P2, P1, P0), then the baselines
and the project's own reference networks.

Last comes what installed packages add through the entry-point group `fer_bench.methods`.
"""

# isort: skip_file
# ruff: noqa: F401
from fer_bench.methods.base import METHODS, Method, Stage, add_installed, build, count_parameters, list_methods
from fer_bench.methods import small_cnn
from fer_bench.methods import deep_emotion
from fer_bench.methods import sep
from fer_bench.methods import awei
from fer_bench.methods import patch_cam
from fer_bench.methods import baselines
from fer_bench.methods import reference

add_installed()

__all__ = ["METHODS", "Method", "Stage", "build", "count_parameters", "list_methods"]
