"""Sweeps: every cell of a grid in a worker of its own: `python -m fer_bench.sweep sweep.yaml --track fer2013`.

The file, the cells and the table are those of `fer_bench.grid`: lists, ranges to draw from, seeds. What differs is who
trains a cell (`engines`): Ray Tune where it is installed, Slurm or local jobs through submitit, else one child process
after the other. A worker that is killed is started anew, twice at most, and resumes at the cell's last checkpoint;
finished cells are never run again, whichever engine finished them; the table fills as cells end.
"""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """`python -m fer_bench.sweep`: see `__main__`."""
    from fer_bench.sweep.__main__ import main as run

    return run(argv)
