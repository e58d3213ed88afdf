"""What a check finds, and the bounds that every submission is held to."""

from __future__ import annotations

from dataclasses import dataclass

MANIFEST_BYTES = 64 * 1024
MODEL_BYTES = 600_000_000
"""Room for the largest network of the papers (vgg16, 537 MB in float32)."""
NOTE_BYTES = 1_000_000
"""README.md and LICENSE, which are for people and never parsed."""
SIZES = {
    "submission.yaml": MANIFEST_BYTES,
    "model.onnx": MODEL_BYTES,
    "model.safetensors": MODEL_BYTES,
    "README.md": NOTE_BYTES,
    "LICENSE": NOTE_BYTES,
}
"""Every file that a submission may hold, with its greatest size in bytes."""
LFS = b"version https://git-lfs"
"""How the few lines begin that git leaves in the place of a large file."""
POINTER = "is only git's pointer to the model, not the model; fetch it with `git lfs pull`, then check again."


@dataclass(frozen=True)
class Problem:
    """One reason to refuse a submission."""

    code: str
    """A short stable name, such as "external_data"."""
    text: str
    """One plain sentence: what is wrong and what to do."""

    def __str__(self) -> str:
        return f"{self.text} [{self.code}]"


@dataclass(frozen=True)
class Report:
    """What a whole check came to. Empty problems mean that the submission may be evaluated."""

    ok: bool
    problems: tuple[Problem, ...]
    summary: str
    """One sentence for a visitor."""


@dataclass(frozen=True)
class Limits:
    """What a submitted model may use while it runs."""

    memory: int = 6 * 2**30
    """Bytes of address space."""
    seconds: float = 300.0
    """Wall-clock seconds from the start of the child process to its end; the same again is its processor time."""
    threads: int = 1
    """Threads that compute."""
