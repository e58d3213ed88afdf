"""submission.yaml: read without trust, everything that is wrong with it said at once."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import yaml

from fer_bench.cards import InputSpec
from fer_bench.emotions import EMOTIONS, canonical
from fer_bench.protocols import TRACKS
from fer_bench.submissions.problems import MANIFEST_BYTES, Problem

NAME = re.compile(r"[a-z][a-z0-9_]{1,39}")
FILLERS = "\u115f\u1160\u3164\uffa0"
"""Hangul letters that show nothing."""
PINNED = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}@[0-9a-f]{40}", re.ASCII)
"""A Hub repository at a commit; a branch, a tag or a short hash can come to mean another one."""
LARGEST, SMALLEST = 512, 16
"""Sides of the input, in pixels."""
DEPTH, TOKENS, DIGITS = 6, 2000, 30
"""How deep the YAML may nest (a manifest needs two levels), its tokens (a hundred), and the characters of a number:
Python turns thousands of hexadecimal digits into a number that it then refuses to print."""


@dataclass(frozen=True)
class Manifest:
    """A submission's own account of itself. Made by `read_manifest` alone, so that every field has been checked."""

    name: str
    """Lower case letters, digits and underscores; the row's name."""
    title: str
    authors: tuple[str, ...]
    licence: str
    """Of the weights, preferably an SPDX name."""
    training_data: tuple[str, ...]
    """Everything the model was trained on, pre-training included, declared by its authors."""
    emotions: tuple[str, ...]
    """Canonical names in the order of the model's outputs."""
    input: InputSpec
    """`range`, `mean` and `std` of the file folded into the mean and std of pixels in [0, 1]."""
    tracks: tuple[str, ...]
    """The tracks it asks to be measured on."""
    architecture: str | None = None
    """The registered method whose network model.safetensors fits; None for model.onnx."""
    paper: str | None = None
    code: str | None = None
    hub: str | None = None
    """"NAMESPACE/NAME@REVISION" where the model's file is too large for a pull request; REVISION is 40 hex digits."""


def card_of(manifest: Manifest) -> dict[str, object]:
    """What the board tells of a submission beside its figures: what its authors say of it, as they say it."""
    links = {what: url for what, url in (("paper", manifest.paper), ("code", manifest.code)) if url}
    return {
        "title": manifest.title, "authors": list(manifest.authors), "url": next(iter(links.values()), ""),
        "links": links, "licence": manifest.licence, "training_data": list(manifest.training_data),
        "emotions": list(manifest.emotions), "input": manifest.input.to_dict(),
    }  # fmt: skip


class _Reader:
    """Takes fields out of a mapping one by one and writes down what is wrong with each."""

    def __init__(self, values: dict, where: str, problems: list[Problem]) -> None:
        self.values, self.where, self.problems = values, where, problems

    def wrong(self, name: str, text: str) -> None:
        self.problems.append(Problem(f"manifest_{name}", f"submission.yaml: {self.where}{name} {text}."))

    def names(self, known: tuple[str, ...]) -> None:
        for name in self.values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}."
                text = f"submission.yaml: there is no key {self.where}{str(name)[:60]!r}; {hint}"
                self.problems.append(Problem("manifest_unknown_key", text))

    def take(self, name: str, accept: Callable[[object], object], expected: str, optional: bool = False) -> object:
        """The field as `accept` returns it; None, with a problem noted, where accept raises or it is missing."""
        if name not in self.values or self.values[name] is None:
            if not optional:
                self.wrong(name, f"is missing; it must be {expected}")
            return None
        try:
            return accept(self.values[name])
        except (TypeError, ValueError, OverflowError) as error:
            reason = f" ({error})" if str(error) else ""
            self.wrong(name, f"must be {expected}, not {self.values[name]!r:.60}{reason}")
            return None


def _text(limit: int) -> Callable[[object], str]:
    def accept(value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise TypeError
        if len(value.strip()) > limit:
            raise ValueError(f"it has {len(value.strip()):,} characters; at most {limit} are read")
        if not value.isprintable():
            raise ValueError("it holds a line break, or a character that cannot be shown")
        if not any(character.isalnum() and character not in FILLERS for character in value):
            raise ValueError("it has no letter and no digit")
        return value.strip()

    return accept


def _name(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise TypeError
    return value


def _url(value: object) -> str:
    text = _text(300)(value)
    if not re.fullmatch(r"https://[\w.-]+(:\d+)?([/?#]\S*)?", text):
        raise ValueError
    return text


def _hub(value: object) -> str:
    if not isinstance(value, str) or not PINNED.fullmatch(value):
        raise TypeError
    return value


def _texts(most: int) -> Callable[[object], tuple[str, ...]]:
    def accept(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise TypeError
        if len(value) > most:
            raise ValueError(f"it has {len(value):,} entries; at most {most} are read")
        return tuple(map(_text(200), value))

    return accept


def _emotions(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= len(EMOTIONS):
        raise TypeError
    found = tuple(canonical(item) if isinstance(item, str) else canonical(repr(item)) for item in value)
    twice = sorted({emotion for emotion in found if found.count(emotion) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands twice")
    return found


def _tracks(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError
    for name in value:
        if not isinstance(name, str) or name not in TRACKS:
            near = difflib.get_close_matches(str(name).lower(), TRACKS, n=1)
            raise ValueError(f"there is no track {str(name)[:40]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return tuple(dict.fromkeys(value))


def _whole(low: int, high: int) -> Callable[[object], int]:
    def accept(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise TypeError
        return value

    return accept


def _number(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value, re.ASCII | re.IGNORECASE):
        raise ValueError(f"{value!r:.40} is text to YAML; write the number out, as in 0.001, and without quotes")
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 1e6:
        raise TypeError
    return float(value)


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) not in (1, 3):
        raise TypeError
    return tuple(map(_number, value))


def _deviations(value: object) -> tuple[float, ...]:
    found = _numbers(value)
    if min(found) <= 1e-6:
        raise ValueError("each is divided by")
    return found


def _range(value: object) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not _number(value[0]) + 1e-3 <= _number(value[1]):
        raise TypeError
    return _number(value[0]), _number(value[1])


def _margin(value: object) -> float:
    if not 0 <= _number(value) <= 2:
        raise ValueError
    return _number(value)


FIELDS: dict[str, tuple[Callable[[object], object], str, bool]] = {
    "name": (_name, "2 to 40 lower case letters, digits and underscores that begin with a letter", False),
    "title": (_text(120), "a line of text", False),
    "authors": (_texts(100), "a list of names", False),
    "licence": (_text(120), "the licence of the weights, such as MIT", False),
    "training_data": (_texts(50), "a list of everything the model was trained on", False),
    "emotions": (_emotions, "a list of distinct emotions in the order of the outputs", False),
    "tracks": (_tracks, f"a list of tracks ({', '.join(TRACKS)})", False),
    "architecture": (_name, "the name of a registered method", True),
    "paper": (_url, "an https link", True),
    "code": (_url, "an https link", True),
    "hub": (
        _hub,
        "NAMESPACE/NAME@REVISION with all 40 hex digits, as `git ls-remote https://huggingface.co/NAMESPACE/NAME HEAD` "
        "prints them",
        True,
    ),
}
INPUT_FIELDS: dict[str, tuple[Callable[[object], object], str, bool]] = {
    "size": (_whole(SMALLEST, LARGEST), f"a whole number of pixels in {SMALLEST}..{LARGEST}", False),
    "channels": (_whole(1, 3), "1 (grey) or 3 (RGB)", False),
    "range": (_range, "[low, high] of the pixels before mean and std, such as [0, 1] or [0, 255]", False),
    "mean": (_numbers, "a list of one number per channel", False),
    "std": (_deviations, "a list of one positive number per channel", False),
    "margin": (_margin, "a fraction in 0..2 of the face's side", True),
}


def read_manifest(content: bytes) -> tuple[Manifest | None, list[Problem]]:
    """The manifest in these bytes, or None with everything that is wrong with it. Never raises, never runs a tag."""
    values, problem = _parse(content)
    if problem is not None:
        return None, [problem]
    problems: list[Problem] = []
    top = _Reader(values, "", problems)
    top.names((*FIELDS, "input"))
    found = {name: top.take(name, *rule) for name, rule in FIELDS.items()}
    spec = top.take("input", _mapping, "a mapping with size, channels, range, mean, std and margin")
    found["input"] = _input_spec(spec, problems) if spec is not None else None
    return (None, problems) if problems else (Manifest(**found), [])


def _mapping(value: object) -> dict:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _input_spec(values: dict, problems: list[Problem]) -> InputSpec | None:
    reader, before = _Reader(values, "input.", problems), len(problems)
    reader.names(tuple(INPUT_FIELDS))
    size, channels, span, mean, std, margin = (reader.take(name, *rule) for name, rule in INPUT_FIELDS.items())
    if channels == 2:
        reader.wrong("channels", "must be 1 (grey) or 3 (RGB), not 2")
    for name, given in (("mean", mean), ("std", std)):
        if given is not None and channels in (1, 3) and len(given) != channels:
            reader.wrong(name, f"must have {channels} value(s), one per channel, not {len(given)}")
    if len(problems) > before:
        return None
    low, width = span[0], span[1] - span[0]
    mean, std = tuple((m - low) / width for m in mean), tuple(s / width for s in std)
    return InputSpec(size, channels, mean, std, margin or 0.0)


def _parse(content: bytes) -> tuple[dict, Problem | None]:
    """The YAML mapping, or why not. Tokens are looked at first: anchors, aliases and tags never reach the loader."""

    def refuse(code: str, text: str) -> tuple[dict, Problem]:
        return {}, Problem(code, f"submission.yaml: {text}")

    if len(content) > MANIFEST_BYTES:
        return refuse("manifest_too_large", f"it has more than {MANIFEST_BYTES // 1024} KB; a manifest needs one.")
    try:
        text, depth = content.decode(), 0
        for count, token in enumerate(yaml.scan(text, yaml.SafeLoader)):
            if count > TOKENS:
                return refuse("manifest_too_long", f"it has more than {TOKENS:,} parts; a manifest needs a hundred.")
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
                return refuse("manifest_alias", "anchors and aliases (& and *) are not accepted; write the values out.")
            if isinstance(token, yaml.TagToken):
                return refuse("manifest_tag", "tags (such as !!python/object) are not accepted; write plain values.")
            opens = yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken
            opens += yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken
            closes = yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken
            depth += isinstance(token, opens) - isinstance(token, closes)
            if depth > DEPTH:
                return refuse("manifest_too_deep", f"it nests deeper than {DEPTH} levels; a manifest needs two.")
        tree = yaml.compose(text, yaml.SafeLoader)
        long = next((n.value for n in _numbers_in(tree) if len(n.value) > DIGITS), None)
        if long is not None:
            text = f"the number {long[:DIGITS]}... has {len(long):,} characters; at most {DIGITS} are read."
            return refuse("manifest_number", text)
        twice = _repeated_keys(tree)
        values = yaml.safe_load(text)
    except UnicodeDecodeError:
        return refuse("manifest_unreadable", "it is not UTF-8 text; save it as UTF-8.")
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        return refuse("manifest_unreadable", f"it is not valid YAML ({reason}).")
    if twice:
        return refuse("manifest_repeated_key", f"the key {twice[0]!r:.60} stands twice; keep one.")
    if not isinstance(values, dict):
        return refuse("manifest_not_mapping", "it must be a mapping of keys to values; start from the template.")
    return values, None


def _numbers_in(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Every scalar that YAML takes for a number, keys included. `node` holds no aliases, so this ends."""
    if isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] in ("int", "float"):
        yield node
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in child if isinstance(child, tuple) else (child,):
            yield from _numbers_in(part)


def _repeated_keys(node: yaml.Node | None) -> list[str]:
    """Keys that a mapping, or a mapping directly inside it, gives more than once (YAML would keep the last)."""
    if not isinstance(node, yaml.MappingNode):
        return []
    keys = [str(key.value) for key, _ in node.value]
    inner = [key for _, value in node.value for key in _repeated_keys(value)]
    return [key for key in dict.fromkeys(keys) if keys.count(key) > 1] + inner


def template() -> str:
    """An annotated submission.yaml. `read_manifest` takes it once authors, licence and training data are filled in."""
    return f"""\
# What the model is called on the board: lower case letters, digits, underscores.
name: my_model
title: My model
# A list of names, between brackets and with commas between.
authors:
# The licence of the weights, such as MIT.
licence:
# Everything it was trained on, pre-training too: [FER2013 training split]. Say so where test pictures may be in it.
training_data:
# The emotions in the order of the model's outputs ({", ".join(EMOTIONS)}).
# The outputs are logits: a model that ends in Softmax is refused, one that ends in LogSoftmax is not.
emotions: [anger, disgust, fear, happiness, sadness, surprise, neutral]
# How a face becomes the model's input: float32 (N, channels, size, size), (pixel - mean) / std.
input:
  size: 48          # {SMALLEST}..{LARGEST} pixels
  channels: 1       # 1 is grey, 3 is RGB
  range: [0, 1]     # of the pixels before mean and std; [0, 255] and [-1, 1] are usual too
  mean: [0.5]       # one value per channel
  std: [0.25]
  margin: 0.0       # fraction of the detected face's side that is added around it
# Where to measure: {", ".join(TRACKS)}.
tracks: [fer2013, rendered]
# Links, if there are any.
# paper: https://...
# code: https://...
# Only with model.safetensors: the registered method whose network the weights fit. Without it the model is model.onnx.
# architecture: small_cnn
# Only where the model is too large for a pull request: the Hub repository of these files, and its full revision.
# hub: namespace/name@0123456789abcdef0123456789abcdef01234567
"""
