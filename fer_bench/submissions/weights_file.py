"""model.safetensors of a registered architecture: the header by arithmetic first, then the tensors, strictly.

Accepted are a plain state_dict in floating point and the compact form that `fer_bench.train` writes (`weights.pack`).
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING

from fer_bench.submissions.problems import LFS, POINTER, Problem

if TYPE_CHECKING:
    from torch import Tensor

HEADER_BYTES = 1_000_000
TENSORS = 5000
FLOATS = {"F64", "F32", "F16", "BF16"}
INTEGERS = {"I64", "I32", "I8", "U8", "BOOL"}


class WeightsRefusedError(Exception):
    """Why the file is refused: a code and the rest of a sentence that begins with the file's name."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def read_header(content: bytes, size: int) -> dict:
    """The JSON header at the start of a file of `size` bytes, bounded before it is parsed."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    # A header's length can begin with the bytes of a pickle or a zip; then it is short, and its JSON follows.
    pickled = content[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    if pickled and (length > HEADER_BYTES or content[8:9] != b"{"):
        text = "is a pickle or a PyTorch checkpoint and is never loaded; save the state_dict with safetensors."
        raise WeightsRefusedError("not_safetensors", text)
    if content.startswith(LFS):
        raise WeightsRefusedError("not_safetensors", POINTER)
    if not 2 <= length <= min(HEADER_BYTES, size - 8):
        text = f"announces a header of {length:,} bytes; at most {HEADER_BYTES:,} that are really there are read."
        raise WeightsRefusedError("safetensors_header", text)
    try:
        header = json.loads(content[8 : 8 + length])
        if not isinstance(header, dict) or len(header) > TENSORS:
            raise ValueError("no mapping of tensors, or too many")
    except (ValueError, RecursionError) as error:
        text = f"has a header that is not valid JSON ({str(error)[:80]}); save it with safetensors."
        raise WeightsRefusedError("safetensors_header", text) from None
    return header


def static_problems(start: bytes, size: int) -> list[Problem]:
    """What the first bytes of a file already tell. start: at least its header, or all that there is."""
    try:
        read_header(start, size)
    except WeightsRefusedError as error:
        return [Problem(error.code, f"model.safetensors {error}")]
    return []


def read_state(content: bytes, wanted: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The float32 state_dict in a file, fitting `wanted` (name -> shape) exactly, all of it finite.

    Called in the sandboxed child. Raises WeightsRefusedError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from fer_bench.weights import unpack

    header = read_header(content, len(content))
    try:
        note = json.loads(header.pop("__metadata__", {}).get("fer_bench", "{}")).get("packing", {"streams": {}})
        shapes = _unpacked_shapes({name: (str(e["dtype"]), tuple(map(int, e["shape"]))) for name, e in header.items()})
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise WeightsRefusedError("safetensors_header", f"has a header that makes no sense ({error!s:.80}).") from None
    _fit(shapes, wanted)
    try:
        state = unpack(load(content), note)
    except (SafetensorError, LookupError, TypeError, RuntimeError, ValueError) as error:
        raise WeightsRefusedError("not_safetensors", f"is not a readable safetensors file ({error!s:.120}).") from None
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise WeightsRefusedError("not_finite", f"holds NaN or infinity in {name!r}; train it again.")
    return state


def _unpacked_shapes(stored: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """The shapes that `weights.unpack` would give, by arithmetic alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (kind, shape) in stored.items():
        if kind not in FLOATS | INTEGERS or any(side < 0 for side in shape) or math.prod(shape) > 2**31:
            raise ValueError(f"{name[:60]!r} has the type {kind} or an impossible shape")
        base, _, part = name.partition(":")
        if part == "left":
            shapes[base] = (shape[1], stored[f"{base}:right"][1][1])
        elif part in ("", "int8"):
            shapes[base] = shape
    return shapes


def _fit(shapes: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    missing, extra = sorted(wanted.keys() - shapes.keys()), sorted(shapes.keys() - wanted.keys())
    first = min(wanted)
    for prefix in sorted(name.removesuffix(first) for name in extra if name.endswith(f".{first}")):
        if {name.removeprefix(prefix) for name in shapes if name.startswith(prefix)} >= wanted.keys():
            text = f"has the architecture's names with {prefix[:40]!r} before them, as a wrapper saves; leave that out."
            raise WeightsRefusedError("architecture_keys", text)
    if missing or extra:
        parts = [f"lacks {', '.join(missing[:3])}"] if missing else []
        parts += [f"has {', '.join(extra[:3])[:120]} too much"] if extra else []
        text = f"does not fit the architecture: it {' and '.join(parts)}; name the right architecture."
        raise WeightsRefusedError("architecture_keys", text)
    for name, shape in wanted.items():
        if shapes[name] != shape:
            text = f"has {name!r} of shape {list(shapes[name])}; the architecture has {list(shape)}."
            raise WeightsRefusedError("architecture_shape", text)
