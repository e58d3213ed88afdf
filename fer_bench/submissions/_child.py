"""The process that a submitted model runs in. Started by `sandbox.Child` alone, never imported by anything else.

It locks itself in before it reads the first byte of the submission: limits on memory, processor time, open files and
file size (0: it cannot write), no core dump; a network namespace of its own without interfaces and a Landlock domain
without rights (no file made, changed or removed, nothing executed, no TCP, no signal to others) where the system has
them; and an audit hook that lets no Python socket connect in any case. It reads the model from a descriptor that it was
handed, answers on another, and its own standard output and error lead nowhere.

The talk: 4 bytes of length, a JSON header, then the raw float32 values that the header's shape announces. Nothing is
ever pickled.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
import tempfile
import time

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 38, 4
LANDLOCK_CREATE, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT = 444, 445, 446
"""Numbers of the system calls, the same on every architecture."""


def lock_in(memory: int, seconds: float) -> dict[str, bool]:
    """Give up what a model does not need, for good.

    Returns what the kernel grants beyond its limits: `cut_off`, no network; `walled`, no change to any file.
    """
    cut_off = walled = False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        cut_off = libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        walled = _wall(libc)
    except (OSError, AttributeError):  # not Linux
        pass
    whole = int(seconds) + 1
    for name, limit in (("RLIMIT_AS", memory), ("RLIMIT_CPU", whole), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0),
                        ("RLIMIT_NOFILE", 64)):  # fmt: skip
        _limit(name, limit)
    sys.addaudithook(_refuse_network)  # hooks cannot be removed again
    return {"cut_off": cut_off, "walled": walled}


def _wall(libc: ctypes.CDLL) -> bool:
    """Enter a Landlock domain that denies every right which this kernel's version of it knows (`man 7 landlock`)."""
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    bits = {0, 1, *range(4, 13)}  # execute, write, remove, make; 2 and 3 are reading, which imports need
    bits |= {bit for bit, since in ((13, 2), (14, 3)) if version >= since}  # move between folders, truncate
    rights = [sum(1 << bit for bit in bits), *([3] if version >= 4 else []), *([3] if version >= 6 else [])]
    domain = libc.syscall(LANDLOCK_CREATE, (ctypes.c_uint64 * len(rights))(*rights), 8 * len(rights), 0)
    nowhere = os.open(os.devnull, os.O_PATH)  # torch opens it for writing
    rule = struct.pack("=Qi", rights[0] & (1 << 1 | 1 << 14), nowhere)
    libc.syscall(LANDLOCK_ADD_RULE, domain, 1, rule, 0)
    os.close(nowhere)
    entered = domain >= 0 and libc.syscall(LANDLOCK_RESTRICT, domain, 0) == 0
    if domain >= 0:
        os.close(domain)
    return entered


def _refuse_network(event: str, _: tuple) -> None:
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"):
        raise OSError("a submitted model has no network")


def _limit(name: str, limit: int) -> None:
    try:
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    except (AttributeError, OSError, ValueError):  # not known to this system; the parent's clock still holds
        pass


class RefusedError(Exception):
    """The submission is at fault; (code, sentence)."""


class OnnxModel:
    """A model.onnx, inspected and then run by onnxruntime."""

    def __init__(self, content: bytes, order: dict) -> None:
        from fer_bench.submissions import inspection

        spec = order["input"]
        model, found = inspection.parse(content)
        if model is not None:
            shape = (spec["channels"], spec["size"], order["outputs"]) if spec else None
            found = inspection.inspect(model, shape)
        if found:
            raise RefusedError(*found)
        self.parameters = inspection.parameters(model)
        if not order["run"]:
            return
        del model
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = order["threads"], 1
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False  # what one batch used is given back before the next
        options.use_deterministic_compute = True
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises kinds of its own
            raise RefusedError(_failure("load", error)) from None
        self.name = self.session.get_inputs()[0].name

    def __call__(self, inputs: object) -> object:
        try:
            return self.session.run(None, {self.name: inputs})[0]
        except Exception as error:
            raise RefusedError(_failure("run", error)) from None


class RegisteredModel:
    """The weights of a registered architecture, from safetensors: the network is this project's code."""

    def __init__(self, content: bytes, order: dict) -> None:
        import torch

        from fer_bench.methods import build
        from fer_bench.submissions.weights_file import WeightsRefusedError, read_state

        torch.set_num_threads(order["threads"])
        network = build(order["architecture"], order["outputs"])
        try:
            state = read_state(content, {name: tuple(t.shape) for name, t in network.state_dict().items()})
        except WeightsRefusedError as error:
            raise RefusedError((error.code, f"model.safetensors {error}")) from None
        network.load_state_dict(state, strict=True)
        self.network = network.eval()
        self.parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        self.torch = torch

    def __call__(self, inputs: object) -> object:
        with self.torch.inference_mode():
            x = self.torch.from_numpy(inputs).contiguous(memory_format=self.torch.channels_last)
            return self.network(x).numpy()


def _failure(doing: str, error: Exception) -> tuple[str, str]:
    reason = " ".join(str(error).split())[:240]
    if isinstance(error, MemoryError) or "bad_alloc" in reason or "Failed to allocate" in reason:
        return "memory", f"model.onnx asked for more memory than a submission may use ({reason})."
    return f"cannot_{doing}", f"model.onnx cannot be {'loaded' if doing == 'load' else 'run'}: {reason}"


def main() -> None:
    """Serve one parent until it closes the pipe: load once, then answer batches."""
    orders, answers, model_file = (int(text) for text in sys.argv[1:4])
    tempfile.tempdir = os.getcwd()  # torch asks for it, and looking for one would mean writing
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    with os.fdopen(orders, "rb") as source, os.fdopen(answers, "wb") as sink:
        order = _read(source)
        granted = lock_in(order["memory"], order["seconds"])
        try:
            _serve(source, sink, order, granted, model_file)
        except RefusedError as error:
            _write(sink, {"refused": error.args})
        except MemoryError:
            _write(sink, {"refused": [("memory", "the model needs more memory than a submission may use.")]})
        except Exception as error:  # whatever it is, the parent is told
            text = f"the model's process failed ({type(error).__name__}: {error!s:.300})."
            _write(sink, {"refused": [("child", text)]})


def _serve(source, sink, order: dict, granted: dict, model_file: int) -> None:
    import numpy as np

    with os.fdopen(model_file, "rb") as file:
        content = file.read(order["bytes"] + 1)
    kind = RegisteredModel if order["architecture"] else OnnxModel
    model = kind(content, order)
    del content
    if not order["architecture"]:  # torch starts its threads when it first computes; its networks are our own code
        _limit("RLIMIT_NPROC", 0)
    _write(sink, {"loaded": True, "parameters": model.parameters, **granted})
    while header := _read(source):
        count = int(np.prod(header["shape"]))
        inputs = np.frombuffer(source.read(4 * count), np.float32).reshape(header["shape"]).copy()
        begun = time.perf_counter()
        logits = model(inputs)
        taken = time.perf_counter() - begun
        wanted = (len(inputs), order["outputs"])
        if not isinstance(logits, np.ndarray) or logits.dtype != np.float32 or logits.shape != wanted:
            shape = getattr(logits, "shape", type(logits).__name__)
            raise RefusedError(("output_shape", f"the model answered {shape} where {wanted} in float32 is wanted."))
        _write(sink, {"shape": list(wanted), "seconds": taken}, np.ascontiguousarray(logits).tobytes())


def _read(source) -> dict:
    length = source.read(4)
    return json.loads(source.read(struct.unpack(">I", length)[0])) if len(length) == 4 else {}


def _write(sink, header: dict, payload: bytes = b"") -> None:
    text = json.dumps(header).encode()
    sink.write(struct.pack(">I", len(text)) + text + payload)
    sink.flush()
