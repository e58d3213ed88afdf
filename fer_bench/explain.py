"""python -m fer_bench.explain: class activation maps (CAMs) and overlays of them. `faithfulness` judges them.

The maps are pytorch-grad-cam's, of the layer that the caller or a method's card names (a transformer's tokens are those
of their patches), drawn where that layer's cells look (see `receptive`); the library draws them edge to edge, which
puts small_cnn's a whole cell away. A network that turns or moves the picture before it looks says itself where its maps
lie, in a method `in_picture(x, maps)`: x its input float32 (N, C, S, S), maps float32 (N, S, S) as they lie over what
it looks at, which it returns as they lie over x (see `methods.deep_emotion`).

Each call works on a copy of the network's structure that shares its weights: hooks, gradients and modes never touch the
network that others may be using at the same moment.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import difflib
import functools
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fer_bench.cams import CAMS, WHAT_A_CAM_SHOWS, check_cam
from fer_bench.emotions import canonical
from fer_bench.errors import UserError
from fer_bench.faces import UnreadablePictureError, crop, detect_faces, open_picture, square, stack
from fer_bench.files import OutputError, atomic_write, label, make_folder
from fer_bench.infer import Model, best_device, full_precision, load
from fer_bench.inputs import find_inputs, left_out, weights_options
from fer_bench.methods import METHODS
from fer_bench.networks import answering
from fer_bench.receptive import Located, spread
from fer_bench.registry import UnknownNameError
from fer_bench.transforms import to_input

_CLASSES = dict(zip(CAMS, ("GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "EigenCAM"), strict=True))


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `explain` found for N pictures.

    maps: float32 (N, S, S) at the network's input side S, each stretched to 0..1; a flat one is all 0. They lie where
    the cells of the layer look, as their receptive fields' centres say; where a network turns or moves the picture
    first, that is undone, and what of the picture it then never sees is 0.
    logits: float32 (N, K), as `infer.logits` gives them.   targets: N emotions, the ones that the maps are of.
    """

    maps: np.ndarray
    logits: np.ndarray
    targets: tuple[str, ...]


def explain(
    model: Model,
    images: np.ndarray,
    method: str = "gradcam",
    target: str | Sequence[str] | None = None,
    batch_size: int = 32,
    cam_layer: str | None = None,
) -> Explanation:
    """Where the evidence for an emotion lies, by one forward pass and the backward pass of the last layers.

    images: uint8 (N, H, W) or (N, H, W, 3), square faces of any side. method: a name of `CAMS`. target: an emotion,
    one per picture, or None for what the model predicts of each. cam_layer: the dotted name of the module whose maps
    (N, C, H, W) or (N, H, W, C), or tokens (N, T, C), the CAM is drawn over ("layer4.1"); None is the one of a method's
    card or of `from_transformers`, and another network needs it. May be called from several threads at once. Raises
    UserError for an unknown CAM, emotion or layer, no maps, a model without parameters in torch, a network that fails
    on its input.
    """
    explainer_class = _explainer_class(check_cam(method))
    wanted = _target_indices(model, target, len(images))
    if not any(True for _ in model.network.parameters()):
        lacking = f"{model.name} has no parameters in torch, so a CAM cannot be drawn"
        raise UserError(f"{lacking}; explain the torch model of load().")
    layer_name, side = cam_layer_of(model, cam_layer), model.input_spec.size
    maps, answers = [np.zeros((0, side, side), np.float32)], [np.zeros((0, len(model.emotions)), np.float32)]
    # Callers may stand inside inference_mode, where nothing has gradients.
    with torch.inference_mode(False), torch.enable_grad(), full_precision(model.device):
        network = _replica(model.network)
        layer = network.get_submodule(layer_name)
        with _hooked(explainer_class, network, layer, f"the layer {layer_name!r} of {model.name}") as explainer:
            for start in range(0, len(images), batch_size):
                batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).to(model.device)
                inputs = to_input(batch, model.input_spec).contiguous(memory_format=torch.channels_last)
                targets = None if wanted is None else _class_targets(wanted[start : start + batch_size])
                with answering(model.name, model.input_spec, len(batch), start > 0), Located(inputs) as located:
                    coarse = explainer(inputs, targets)
                maps.append(_in_picture(network, inputs, spread(coarse, side, located.of(explainer.at_layer))))
                answers.append(explainer.outputs.detach().float().cpu().numpy())
    cams, scores = np.concatenate(maps).astype(np.float32), np.concatenate(answers)
    cams -= cams.min((1, 2), keepdims=True)
    peaks = cams.max((1, 2), keepdims=True)
    cams = np.divide(cams, peaks, out=np.zeros_like(cams), where=peaks > 0)
    chosen = scores.argmax(1) if wanted is None else wanted
    return Explanation(cams, scores, tuple(model.emotions[index] for index in chosen))


def _in_picture(network: nn.Module, inputs: Tensor, maps: np.ndarray) -> np.ndarray:
    """The maps (N, S, S) where they lie over the inputs, for a network that looks at them through a warp of its own."""
    if not hasattr(network, "in_picture"):
        return maps
    with torch.no_grad():
        return network.in_picture(inputs, torch.from_numpy(maps).to(inputs.device)).cpu().numpy()


LISTED = 16
"""Names of layers that a message lists at most."""


def cam_layer_of(model: Model, name: str | None = None) -> str:
    """The name of the layer that a CAM of a model is drawn over: `name`, else the one that its method's card names.

    Raises UserError, naming the nearest and the outermost of the network's layers, where there is none of that name.
    """
    names = sorted((name for name, _ in model.network.named_modules(remove_duplicate=False) if name), key=_depth)
    listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")
    name = name or model.record.get("cam_layer")
    if name is None and model.name not in METHODS:
        raise UserError(
            f"give cam_layer=, the name of a layer ({listed or 'this network has none'}): {model.name} is not a "
            "registered method, so no card names the layer to draw a CAM over."
        )
    wanted = METHODS[model.name].card.cam_layer if name is None else name
    if wanted not in names:
        near = difflib.get_close_matches(wanted, names, n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UserError(f"{model.name} has no layer {wanted!r}.{hint} Its layers are: {listed or 'none'}.")
    return wanted


def _depth(name: str) -> int:
    return name.count(".")


def _explainer_class(method: str) -> Callable[..., object]:
    from fer_bench.torchvision_repair import torchvision

    assert torchvision  # pytorch-grad-cam imports it too, so it is mended first
    import pytorch_grad_cam  # here, since it takes seconds

    if method != "eigencam":
        return getattr(pytorch_grad_cam, _CLASSES[method])

    class SignedEigenCAM(pytorch_grad_cam.EigenCAM):
        def get_cam_image(self, _input, _layer, _target, activations: np.ndarray, *_rest: object) -> np.ndarray:
            return principal_maps(activations)

    return SignedEigenCAM


def principal_maps(activations: np.ndarray) -> np.ndarray:
    """float32 (N, C, H, W) -> (N, H, W): the projection on the first principal component of each picture's channels.

    As pytorch-grad-cam's EigenCAM, but with a sign, since that of a component is arbitrary and the library lights the
    background as often as the face: the end of larger magnitude is made the positive one, as in its
    `get_2d_projection_with_sign_correction`. The economical decomposition saves a second on 2048 channels.
    """
    count, channels, height, width = activations.shape
    points = activations.reshape(count, channels, -1).transpose(0, 2, 1)
    left, sizes, _ = np.linalg.svd(points - points.mean(1, keepdims=True), full_matrices=False)
    maps = (left[:, :, 0] * sizes[:, :1]).reshape(count, height, width)
    lower, upper = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return np.where(-lower > upper, -maps, maps)


def _target_indices(model: Model, target: str | Sequence[str] | None, count: int) -> np.ndarray | None:
    """int64 (count,), places in model.emotions; None for the predicted ones."""
    if target is None:
        return None
    names = [target] * count if isinstance(target, str) else list(target)
    if len(names) != count:
        raise UserError(f"{len(names)} target emotions were given for {count} pictures; give one, or one per picture.")
    try:
        return np.array([model.emotions.index(canonical(name)) for name in names], dtype=np.int64)
    except ValueError:
        given, known = ", ".join(dict.fromkeys(names)), ", ".join(model.emotions)
        raise UserError(f"the target must be an emotion that {model.name} tells ({known}), not {given}.") from None


def _class_targets(indices: np.ndarray) -> list:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    return [ClassifierOutputTarget(int(index)) for index in indices]


def _replica(network: nn.Module) -> nn.Module:
    """The same modules anew, in eval mode, over the same weights, none of which asks for a gradient.

    None works in place, which would change the maps that a CAM is drawn over.
    """

    def shared(tensor: Tensor) -> Tensor:
        # A tensor made under inference_mode cannot take part in a backward pass; its copy can.
        return tensor.detach().clone() if tensor.is_inference() else tensor.detach()

    memo: dict[int, object] = {id(p): nn.Parameter(shared(p), requires_grad=False) for p in network.parameters()}
    memo |= {id(buffer): shared(buffer) for buffer in network.buffers()}
    replica = copy.deepcopy(network, memo).eval()
    for module in replica.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return replica


def maps_of(output: Tensor) -> Tensor | None:
    """A layer's output as maps (N, C, h, w): square ones as they are or, where it has the channels last (torchvision's
    Swin), moved to their place; tokens (N, T, C) as the square of the patches' own.

    None where it is neither. Before those of the patches there may be none (Swin), the class's (ViT), or distillation's
    as well (DeiT).
    """
    if output.ndim == 4 and output.shape[2] == output.shape[3]:
        return output
    if output.ndim == 4 and output.shape[1] == output.shape[2]:
        return output.permute(0, 3, 1, 2)
    for before in (0, 1, 2) if output.ndim == 3 else ():
        side = math.isqrt(max(0, output.shape[1] - before))
        if side and side * side == output.shape[1] - before:
            return output[:, before:].transpose(1, 2).unflatten(2, (side, side))
    return None


@contextlib.contextmanager
def _hooked(
    explainer_class: Callable[..., object], network: nn.Module, layer: nn.Module, called: str = "the layer"
) -> Iterator:
    """A pytorch-grad-cam explainer whose hooks are released at the end. Its maps keep the layer's own size.

    The graph starts at the layer's output, `at_layer`, so that the backward pass ends there and costs next to nothing.
    called: what messages call the layer. Raises UserError where it gives no maps.
    """
    with contextlib.ExitStack() as stack_of_hooks:

        def begin(_layer: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            if not isinstance(output, Tensor) or maps_of(output) is None:
                told = "gives no square maps (N, C, H, W) and no tokens (N, T, C) of patches in a square"
                raise UserError(f"{called} {told}; choose one that does, such as a convolution.")
            explainer.at_layer = output.detach().requires_grad_()
            return explainer.at_layer

        stack_of_hooks.callback(layer.register_forward_hook(begin).remove)
        explainer = explainer_class(model=network, target_layers=[layer], reshape_transform=maps_of)
        explainer.get_target_width_height = lambda _inputs: None  # no size to stretch the maps to
        # Not `with explainer`: its exit swallows an IndexError.
        stack_of_hooks.callback(explainer.activations_and_grads.release)
        yield explainer


# ---- overlays


def overlay(picture: Image.Image, cam: np.ndarray, opacity: float = 0.5, side: int | None = None) -> Image.Image:
    """The picture, RGB, with a map (H, W) of values in 0..1 laid over the whole of it.

    opacity: 0 (the bare picture) to 1. Both colour and cover grow with the map's value, so that the face stays visible
    where the map is cold. side: resize the result to (side, side). Raises ValueError for an opacity out of range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in 0..1, not {opacity}")
    base = picture.convert("RGB")
    if side is not None and base.size != (side, side):
        base = base.resize((side, side), Image.Resampling.BICUBIC)
    if opacity == 0:
        return base.copy()
    heat = Image.fromarray(np.asarray(cam, dtype=np.float32)).resize(base.size, Image.Resampling.BICUBIC)
    values = np.asarray(heat).clip(0, 1)
    alpha = (opacity * _cover(values))[:, :, None]
    colours = _colours()[(values * 255).round().astype(np.uint8)]
    return Image.fromarray((np.asarray(base) * (1 - alpha) + colours * alpha).round().astype(np.uint8))


def _cover(values: np.ndarray) -> np.ndarray:
    """How much of the picture a map's value covers, 0..1: rises smoothly from 0 and is full from .7 on."""
    x = (values / 0.7).clip(0, 1)
    return x * x * (3 - 2 * x)


@functools.cache
def _colours() -> np.ndarray:
    """float64 (256, 3), 0..255: inferno, which grows steadily lighter, without its ends, which are lost on a face."""
    from matplotlib import colormaps  # here, since it takes a while to import

    return colormaps["inferno"](np.linspace(0.15, 0.9, 256))[:, :3] * 255


# ---- the command

SIDE = 384
"""Pixels a side of the overlays that the command writes."""


def main(argv: list[str] | None = None) -> int:
    """Write an overlay of a CAM for each picture and method. Exit codes: 0 done, 1 a file could not be read or written,
    2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_bench.explain", description=main.__doc__, epilog=WHAT_A_CAM_SHOWS
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, folder (with all below it) or glob")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the overlays")
    parser.add_argument("--method", nargs="+", default=["small_cnn"], metavar="NAME", help="default: small_cnn")
    parser.add_argument("--cam", default="gradcam", metavar="NAME", help=f"{', '.join(CAMS)}; default: gradcam")
    parser.add_argument("--cam-layer", metavar="NAME", help="of the network; default: the one on each method's card")
    parser.add_argument("--target", metavar="EMOTION", help="default: the emotion that the method predicts")
    parser.add_argument("--opacity", type=float, default=0.5, help="0 (the bare face) to 1; default: 0.5")
    parser.add_argument(
        "--no-detect", action="store_true", help="the pictures are faces already: use each (its middle square)"
    )
    weights_options(parser)
    arguments = parser.parse_args(argv)
    try:
        check_cam(arguments.cam)
        if not 0 <= arguments.opacity <= 1:
            raise UserError(f"--opacity must lie in 0..1, not {arguments.opacity}.")
        for name in arguments.method:
            METHODS[name]
        others: Counter[str] = Counter()
        paths = find_inputs(arguments.inputs, others, clips=False)
        if others:
            print(left_out(others, "pictures"), file=sys.stderr)
        if not paths:
            raise UserError(f"there are no pictures in {', '.join(arguments.inputs)}.")
        if not any(map(os.path.lexists, paths)):
            raise UserError(f"there is no file, folder or match of {', '.join(arguments.inputs)}.")
        chosen = (arguments.track, arguments.recipe, arguments.seed, str(best_device(arguments.device)), arguments.runs)
        models = [load(name, *chosen) for name in dict.fromkeys(arguments.method)]
        for model in models:
            cam_layer_of(model, arguments.cam_layer)
            _target_indices(model, arguments.target, 1)
        if arguments.out.exists() and not arguments.out.is_dir():
            raise UserError(f"{arguments.out}: this is a file; give a folder to -o.")
        make_folder(arguments.out)
        unreadable = _explain_files(paths, arguments.out, models, arguments)
    except (UserError, UnknownNameError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, OutputError) else 2
    for line in unreadable:
        print(f"unreadable {line}", file=sys.stderr)
    return 1 if unreadable else 0


def _explain_files(paths: list[Path], out: Path, models: list[Model], options: argparse.Namespace) -> list[str]:
    """Write the overlays of every face of every picture; returns a line for each file that could not be read."""
    unreadable, taken, faceless = [], set(), 0
    for path in paths:
        try:
            picture = open_picture(path)
        except UnreadablePictureError as error:
            unreadable.append(str(error))
            continue
        faces = [] if options.no_detect else detect_faces(picture)
        faceless += not faces
        for number, box in enumerate([face.box for face in faces] or [None], 1):  # no face found: its middle square
            stem = _free(path.stem, taken)
            for model in models:
                face = picture if box is None else crop(picture, box, model.input_spec.margin)
                pictures = stack([face], model.input_spec.size)
                found = explain(model, pictures, options.cam, options.target, cam_layer=options.cam_layer)
                drawn = overlay(square(face, min(face.size)), found.maps[0], options.opacity, SIDE)
                target = out / f"{stem}-{model.name}-{options.cam}.png"
                atomic_write(target, functools.partial(drawn.save, format="PNG"))
                print(f"{label(target)}: {found.targets[0]} (face {number if faces else 0} of {label(path)})")
    if faceless and not options.no_detect:
        told = "the middle square was explained, which says little unless it is one"
        print(f"no face was found in {faceless:,} of {len(paths):,} pictures (face 0): {told}.", file=sys.stderr)
    return unreadable


def _free(stem: str, taken: set[str]) -> str:
    """The stem, or stem-2, stem-3 ... where a picture or face before it has that name; it is taken from then on."""
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


if __name__ == "__main__":
    sys.exit(main())
