"""Image classifiers of others in the form of Hugging Face's transformers, judged as they are published.

    model = from_transformers("NAMESPACE/NAME", revision="40 hex digits")
    fer_bench.benchmark(model, "fer2013")

and `python -m fer_bench.evaluate --transformers NAMESPACE/NAME@REVISION`. Weights are read from safetensors alone, and
no code that comes with a model is run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from fer_bench.cards import InputSpec
from fer_bench.emotions import canonical
from fer_bench.errors import UserError
from fer_bench.explain import maps_of
from fer_bench.infer import Model
from fer_bench.judged import OWN
from fer_bench.methods import METHODS
from fer_bench.transforms import to_input

RECIPE = "as-published"
"""What stands for the recipe of weights that their authors give away."""


class Classifier(nn.Module):
    """A classifier of transformers as a network: float32 (N, C, S, S) -> logits (N, K) of the chosen outputs.

    crop: the side of the middle that it looks at, where its image processor cuts one out; None takes the whole.
    """

    def __init__(self, model: nn.Module, outputs: Sequence[int], crop: int | None) -> None:
        super().__init__()
        self.model, self.outputs, self.crop = model, list(outputs), crop

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=middle(x, self.crop)).logits[:, self.outputs]

    def in_picture(self, x: Tensor, maps: Tensor) -> Tensor:
        """Maps (N, S, S) over the middle as they lie over the input x (N, C, S, S): 0 around it (see `explain`)."""
        if self.crop is None:
            return maps
        first = int((x.shape[-1] - self.crop) / 2)
        last = x.shape[-1] - self.crop - first
        inside = F.interpolate(maps[:, None], (self.crop, self.crop), mode="bilinear", antialias=True)[:, 0]
        return F.pad(inside, (first, last, first, last))


def middle(x: Tensor, side: int | None) -> Tensor:
    """The middle (N, C, side, side) of (N, C, S, S), as image processors cut it; None is the whole."""
    if side is None:
        return x
    first = int((x.shape[-1] - side) / 2)
    return x[..., first : first + side, first : first + side]


def from_transformers(
    source: str | Path,
    revision: str | None = None,
    emotions: Sequence[str | None] | None = None,
    name: str | None = None,
    margin: float = 0.0,
) -> Model:
    """An image classifier of the Hugging Face Hub, or of a folder that `save_pretrained` wrote, to be judged.

    source: NAMESPACE/NAME or the folder. revision: a commit of the repository; without one it is the newest, and the
    record names its commit. emotions: the meaning of each output in its order, None for one that is no emotion, which
    is then left out; by default the names of its own configuration. name: letters, digits and _, under which it stands
    in tables; by default made from the source's. margin: as `InputSpec` has it, for photographs.

    Its image processor says the size, the part in the middle, the mean and the standard deviation; pictures are resized
    bilinearly, whatever filter it names. Raises UserError where transformers is not installed, the model cannot be had
    or has no safetensors, its head was never trained, its processor does more than this or makes pictures that it does
    not take, or an output's name is no emotion.
    """
    shown = str(source)
    model, commit = _loaded(shown, revision)
    labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
    outputs, told = _meanings(shown, labels, emotions)
    spec, crop = _input(shown, model, commit, margin)
    place = Path(shown).resolve().name if commit is None else f"{shown}@{commit}"
    record = {
        "recipe": RECIPE, "external": True,
        "trained": {"track": OWN, "complete": True, "selection": "by its authors",
                    "pretrained": f"weights of {place} (transformers)"},
    }  # fmt: skip
    network = Classifier(model, outputs, crop).eval()
    try:
        layer = last_maps(network, spec)
    except (ValueError, RuntimeError) as error:
        text = "it does not take the pictures that its own image processor makes"
        raise UserError(f"{shown}: {text} ({_first(error)}).") from None
    return Model(name or _name(shown), network, spec, told, record | {"cam_layer": layer})


def last_maps(network: nn.Module, spec: InputSpec) -> str | None:
    """The name of the last layer that a CAM can be drawn over: its answer rests on the layer's maps or patches.

    The last in the order of their work that gives maps of more than one cell, or the last normalisation that gives
    tokens of patches, whose cells the answer depends on: what a transformer's last block makes of them is not looked
    at where its class token alone is classified. None where there is no such layer.
    """
    given: list[tuple[str, Tensor]] = []

    def keep(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad and maps_of(output) is not None:
            given.append((name, output))

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: keep(name, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        with torch.enable_grad():
            x = torch.rand(1, spec.channels, spec.size, spec.size, generator=torch.Generator().manual_seed(0))
            score = network(x.requires_grad_()).max()
    finally:
        for hook in hooks:
            hook.remove()
    for name, output in reversed(given):
        if output.ndim == 3 and "norm" not in type(network.get_submodule(name)).__name__.lower():
            continue
        (gradient,) = torch.autograd.grad(score, output, retain_graph=True, allow_unused=True)
        if gradient is not None and maps_of(gradient).abs().amax((0, 1)).count_nonzero() > 1:
            return name
    return None


def named(text: str) -> tuple[str, str | None]:
    """(source, revision) of "NAMESPACE/NAME@REVISION", "NAMESPACE/NAME" or the path of a folder."""
    if Path(text).exists():
        return text, None
    source, _, revision = text.partition("@")
    return source, revision or None


def published(sources: Sequence[str], emotions: str | None = None) -> list[Model]:
    """`from_transformers` of a command's arguments: sources as `named` reads them, or NAME=SOURCE.

    emotions: what the outputs of the one source mean, in their order, as "anger, -, happy"; a dash is none. Raises
    UserError as `from_transformers`, for a name that is none, and where two models would have the same.
    """
    if emotions and len(sources) != 1:
        raise UserError("--emotions says what the outputs of one model mean; give it with one --transformers.")
    meanings = [None if one.strip() in ("", "-") else one.strip() for one in emotions.split(",")] if emotions else None
    models: dict[str, Model] = {}
    for text in dict.fromkeys(sources):
        name, is_named, rest = text.partition("=")
        if not is_named or Path(text).exists():
            name, rest = None, text
        elif not re.fullmatch("[a-z0-9_]+", name) or name in METHODS:
            raise UserError(f"{name}: a row's name is of small letters, digits and _, and not that of a method here.")
        model = from_transformers(*named(rest), meanings, name)
        if model.name in models:
            raise UserError(f"{text}: another of the models is called {model.name} too; name it: NAME=MODEL.")
        models[model.name] = model
    return list(models.values())


def _loaded(source: str, revision: str | None) -> tuple[nn.Module, str | None]:
    """The classifier in float32, and the commit that it is of; None for a folder."""
    from fer_bench.torchvision_repair import torchvision

    assert torchvision  # transformers imports it too, so it is mended first

    try:
        from transformers import AutoModelForImageClassification
    except ImportError:
        raise UserError("transformers is not installed; run: pip install 'fer_bench[transformers]'") from None
    there = Path(source).exists()
    if there:
        if revision is not None:
            raise UserError(f"{source}: a folder has no revisions; leave the revision out.")
        if not (Path(source) / "config.json").is_file():
            raise UserError(f"{source}: there is no config.json here; give a folder that save_pretrained wrote.")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise UserError(f"{source}: this is no folder, and no model of the Hub; give NAMESPACE/NAME.")
    try:
        commit = None if there else Path(hf_hub_download(source, "config.json", revision=revision)).parent.name
        model, info = AutoModelForImageClassification.from_pretrained(
            source, revision=commit or "main", use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # each part of it (the Hub's client, safetensors, the configuration) raises its own
        reason = "its weights are not those of its config.json" if "mismatch" in str(error).lower() else _first(error)
        text = "it cannot be loaded as an image classifier of transformers with weights in safetensors"
        raise UserError(f"{source}: {text} ({reason}).") from None
    if lacking := sorted(info["missing_keys"]):
        text = f"its file has no weights for {', '.join(lacking[:3])}, which would be random"
        raise UserError(f"{source}: {text}; it was not trained to classify.")
    return model, commit


def _first(error: Exception) -> str:
    """The first sentence of what a library says, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0].rstrip(".:")[:200] if lines else type(error).__name__


def _meanings(
    source: str, labels: Sequence[str], given: Sequence[str | None] | None
) -> tuple[list[int], tuple[str, ...]]:
    """The outputs that are emotions, and which. UserError where a name is no emotion, or several are the same."""
    if given is not None and len(given) != len(labels):
        raise UserError(f"{source}: {len(given)} emotions were given for its {len(labels)} outputs.")
    outputs, told = [], []
    for number, label in enumerate(labels if given is None else given):
        if label is None:
            continue
        try:
            told.append(canonical(label))
        except ValueError as error:
            mend = "say what each output means with --emotions, in Python with emotions="
            raise UserError(f"{source}: its outputs are {', '.join(map(str, labels))}: {error}; {mend}.") from None
        outputs.append(number)
    if len(set(told)) < len(told) or len(told) < 2:
        what = ", ".join(told) or "no emotion"
        raise UserError(f"{source}: its outputs mean {what}; there must be two at least, each of them once.")
    return outputs, tuple(told)


def _name(source: str) -> str:
    """The last part of the source as a table's name; one that a method has gets "_published" behind it."""
    last = Path(source).resolve().name if Path(source).exists() else source.rsplit("/", 1)[-1]
    name = re.sub("[^a-z0-9]+", "_", last.lower()).strip("_") or "classifier"
    return f"{name}_published" if name in METHODS else name


def _input(source: str, model: nn.Module, commit: str | None, margin: float) -> tuple[InputSpec, int | None]:
    """What the model reads, and the side of the middle that it looks at, from its image processor.

    UserError where there is none, or where a picture comes out of it otherwise than these figures say.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(source, revision=commit or "main", trust_remote_code=False)
    except Exception as error:
        raise UserError(f"{source}: it has no image processor that can be loaded ({_first(error)}).") from None
    kind = type(processor).__name__
    side, crop = _sides(processor)
    channels = getattr(model.config, "num_channels", 3)
    mean, std = ((getattr(processor, name, None) if getattr(processor, "do_normalize", False) else None)
                 for name in ("image_mean", "image_std"))  # fmt: skip
    try:
        spec = InputSpec(side or 0, channels, tuple(mean or (0.0,) * channels), tuple(std or (1.0,) * channels), margin)
        same = _agrees(processor, spec, crop)
    except (ValueError, TypeError, KeyError, AttributeError):
        same = False
    if not same:
        raise UserError(
            f"{source}: its {kind} does more to a picture than to resize it, to take the middle and to normalise it; "
            "wrap the network yourself: fer_bench.Model(name, network, input_spec, emotions)."
        )
    return spec, crop


def _sides(processor: Any) -> tuple[int | None, int | None]:
    """The side that a square picture is resized to, and that of the middle which is taken of it where it is smaller."""
    size, crop = dict(processor.size or {}), None
    side = size.get("shortest_edge") or (size.get("height") if size.get("height") == size.get("width") else None)
    if getattr(processor, "do_center_crop", False):
        crop = dict(processor.crop_size or {}).get("height")
    share = getattr(processor, "crop_pct", None)  # ConvNeXt's: its size is the middle's, not the picture's
    if share and side and side < 384 and "shortest_edge" in size:
        side, crop = int(side / share), side
    return side, None if crop == side else crop


def _agrees(processor: Any, spec: InputSpec, crop: int | None) -> bool:
    """Whether the processor makes of a picture of the very size what `to_input` and `middle` do."""
    picture = np.random.default_rng(0).integers(0, 256, (spec.size, spec.size, spec.channels), dtype=np.uint8)
    theirs = processor(images=picture, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    shown = picture if spec.channels == 3 else picture[..., 0]
    ours = middle(to_input(torch.from_numpy(shown)[None], spec), crop)
    return theirs.shape == ours.shape and bool((theirs - ours).abs().max() < 1e-3)
