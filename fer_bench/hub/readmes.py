"""The README of each repository: model card, dataset card, and the Space's front matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import (
    DatasetCardData,
    EvalResult,
    EvalResultEntry,
    ModelCardData,
    SpaceCardData,
    eval_result_entries_to_yaml,
)

from fer_bench.cards import DatasetCard, MethodCard
from fer_bench.datasets import DATASETS
from fer_bench.datasets.fer2013_copies import HUB_REPO, HUB_SPLITS
from fer_bench.errors import UserError
from fer_bench.how_to_read import HOW_TO_READ
from fer_bench.hub.client import WEIGHTS_FILE
from fer_bench.protocols import track_named
from fer_bench.records import epochs_before, full_epochs
from fer_bench.results import Result
from fer_bench.terms import metadata as licensing
from fer_bench.terms import terms
from fer_bench.weights import run_folder

SPACE_LACKS = (
    "> A Space holds what its demo needs. Tests and CI, through which submitted models come to the board, are in the "
    "project's own repository."
)
ON_THE_HUB = {"fer2013": HUB_REPO}
"""Data set -> its copy on the Hub whose splits are ours, as `HUB_SPLITS` names them."""
TASK = "image-classification"
METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "balanced_accuracy": "balanced_accuracy", "ece": "ece"}
"""Our metric -> the Hub's name of it."""
PYTHON = "3.12.12"
"""One of the two versions that a Space with shared GPUs offers."""

LIMITS = """\
For research and teaching on facial expressions. The labels say what expression people saw in a picture, not what the
person felt: the same face is read differently across people, cultures and situations. The training pictures do not
represent all ages, skin tones, occlusions and lights, and the per-class figures above differ widely. Do not use it to
make or support decisions about people (hiring, policing, education, health, insurance), and do not use it to watch
people who have not agreed. In the European Union, inferring emotions at work or in education is prohibited, but for
medical or safety reasons."""


def data_card(track: str) -> DatasetCard:
    """The card of the data set that a track is made of."""
    return DATASETS[track_named(track).dataset].card


def model_card(card: MethodCard, entry: dict, record: dict, results: Sequence[Result], repo: str) -> str:
    """The README.md of the model repository `repo`.

    entry: of weights/index.json.   record: what the weight file says of itself.   results: of these very weights.
    """
    home, also = data_card(entry["track"]), terms([(entry, record)])
    metadata = ModelCardData(
        **licensing(also),
        library_name="fer_bench",
        pipeline_tag=TASK,
        tags=["facial-emotion-recognition", "emotion", "fer_bench", card.name],
        datasets=[ON_THE_HUB[home.name]] if home.name in ON_THE_HUB else None,
        metrics=["accuracy", "f1"],
        model_name=f"{card.title} ({entry['recipe']}, seed {entry['seed']})",
        eval_results=[evaluation for result in results for evaluation in _evaluations(result)] or None,
    )
    trained, spec = record["trained"], record["input"]
    paper = f"[{card.paper}]({card.url})" if card.url else card.paper
    own = "This is fer_bench's own implementation, trained by its own code."
    if "this implementation" not in card.licence:  # torchvision's networks
        own = "It was trained by fer_bench's own code."
    arguments = f'"{card.name}", track="{entry["track"]}", runs="runs"'
    folder = run_folder(Path("runs"), card.name, entry["track"], entry["recipe"], entry["seed"]).as_posix()
    if (entry["recipe"], entry["seed"]) != (card.recipe, 0):
        arguments += f', recipe="{entry["recipe"]}", seed={entry["seed"]}'
    chosen = f"--method {card.name} --track {entry['track']} --recipe {entry['recipe']} --seed {entry['seed']}"
    parts = [
        f"# {card.title}",
        f"{card.summary}\n\nPaper: {paper}. {own}",
        "## How to load",
        f"```bash\nhf download {repo} {WEIGHTS_FILE} --local-dir {folder}\n```",
        f'```python\nimport fer_bench\n\nmodel = fer_bench.load({arguments})\nprint(model.predict("face.png"))\n```',
        f"The file's SHA-256 is `{entry['sha256']}`. Where `weights/index.json` of a copy of fer_bench names the same "
        f"one, `fer_bench.load` gives these weights without `runs` too, and `python -m fer_bench.hub pull {chosen}` "
        f"fetches them by the commit that is pinned there. It is safetensors, stored as "
        f"{record['packing']['storage'] if 'packing' in record else 'float32'}; nothing is ever unpickled.",
        "## Input and output",
        f"A face, cropped {_margin(spec['margin'])}, resized to {spec['size']} × {spec['size']}, "
        f"{'grey' if spec['channels'] == 1 else 'RGB'}, scaled to 0..1, minus {spec['mean']}, divided by "
        f"{spec['std']}. Output: {len(record['emotions'])} logits, in this order: {', '.join(record['emotions'])}.",
        "## What it was trained on, and how far",
        _training(home, entry, trained),
        "## Figures",
        _figures(results),
        *([f"What the paper leaves open and fer_bench chose: {card.ours}"] if card.ours else []),
        "## Intended use and limits",
        LIMITS,
        "## Licence",
        _licence(card, also),
    ]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _licence(card: MethodCard, also: Sequence[str]) -> str:
    """also: what `terms` gives for the weights."""
    if not also:
        return f"Code: {card.licence}. The weights are under the MIT License as well."
    listed = "\n".join(f"- {line}" for line in also)
    return (
        f"Code: {card.licence}. The weights were made from the following, whose terms hold for them, and may be used "
        f"only as these allow (see LICENSE):\n\n{listed}"
    )


def _margin(margin: float) -> str:
    return f"with a margin of {margin:g} of its side" if margin else "without a margin"


def _training(home: DatasetCard, entry: dict, trained: dict) -> str:
    """Data, recipe, epochs of the budget and pictures seen, in sentences."""
    epochs, budget = trained.get("epochs"), trained.get("budget_epochs")
    if epochs is not None:
        epochs = full_epochs(epochs, trained.get("pictures_seen"), trained.get("train_pictures"))
    emotions = track_named(entry["track"]).emotions
    text = f"{home.title} ({home.paper or home.source}), training split, "
    text += f"pictures of {', '.join(emotions)}, " if emotions not in ((), home.emotions) else ""
    text += f"recipe `{entry['recipe']}`"
    text += f", seed {entry['seed']}. "
    if epochs is not None and budget is not None:
        text += f"It ran **{epochs} of {budget} epochs**"
        text += f" and saw {trained['pictures_seen']:,} pictures" if trained.get("pictures_seen") is not None else ""
        text += f" on {trained['device']}. " if trained.get("device") else ". "
        if not trained.get("complete", True) and not _made_up_for(trained):
            text += "The budget was not used up: the figures say what this run reached, not what the method can. "
    text += f"The checkpoint was selected by {trained.get('selection', 'validation accuracy')}"
    text += f" ({trained['selected_value']:.4f})" if trained.get("selected_value") is not None else ""
    again = "nothing was chosen by the test split, on which the run before may have been measured too"
    text += f"; {again if trained.get('earlier') else 'the test split was touched once, at the end'}. "
    stages = trained.get("stages") or {}
    if len(stages) > 1:  # of awei they say which guide it has
        text += f"Full epochs of its stages: {', '.join(f'{name} {count}' for name, count in stages.items())}. "
    earlier, start = trained.get("earlier"), trained.get("pretrained")
    if earlier:
        size = trained.get("train_pictures") if earlier["track"] == entry["track"] else None
        before = epochs_before(earlier["epochs"], earlier["pictures_seen"], size)
        text += f"It went on from {', which went on from '.join(earlier['weights'])}: {before} before. "
    first = "The first of these runs" if earlier else "It"
    text += f"{first} started from " + (f"pretrained weights: {start}." if start else "random weights.")
    teachers = trained.get("teachers")
    return text + (f" Part of its target was the mean answer of {', '.join(teachers)}." if teachers else "")


def _made_up_for(trained: Mapping) -> bool:
    """Whether the runs before saw the pictures that the last one lacks of its recipe's."""
    before, size = trained.get("earlier"), trained.get("train_pictures")
    if not before or not size or trained.get("pictures_seen") is None or not trained.get("budget_epochs"):
        return False
    return trained["pictures_seen"] + before["pictures_seen"] >= trained["budget_epochs"] * size


def _figures(results: Sequence[Result]) -> str:
    """A markdown table, one row per result."""
    if not results:
        return "These weights have not been evaluated yet."
    lines = [
        "| Test pictures | Accuracy, % | 95 % interval | Balanced accuracy, % | Macro F1, % | ECE, % |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        value = {name: 100 * interval.value for name, interval in result.metrics.items()}
        accuracy = result.metrics["accuracy"]
        how = ", over the emotions that it shares" if result.shared_emotions_only else ""
        how += "" if result.tta == "none" else f", test-time augmentation {result.tta}"
        people = f" (over {result.subjects} people)" if result.subjects else ""
        lines.append(
            f"| {track_named(result.track).title} ({result.data.test_pictures:,}){how} | {value['accuracy']:.1f} "
            f"| {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}{people} | {value['balanced_accuracy']:.1f} "
            f"| {value['macro_f1']:.1f} | {value['ece']:.1f} |"
        )
    recalls = [
        f"Recall per emotion, {track_named(result.track).title}: "
        + ", ".join(f"{emotion} {100 * recall.value:.0f} %" for emotion, recall in result.per_class_recall.items())
        + "."
        for result in results
        if result.tta == "none"
    ]
    return "\n\n".join(["\n".join(lines), *recalls])


def _on_the_hub(result: Result) -> str | None:
    """The data set on the Hub that a result's accuracy is one of; None for a part of its emotions, or other data."""
    home = data_card(result.track)
    return ON_THE_HUB.get(home.name) if tuple(result.emotions) == home.emotions else None


def _evaluations(result: Result) -> list[EvalResult]:
    """The figures of one result for the card's `model-index`, as fractions; none of one with test-time augmentation.

    The Hub would take such figures for others of the same data set and split.
    """
    if result.tta != "none":
        return []
    track, hub_name = track_named(result.track), _on_the_hub(result)
    about = {
        "task_type": TASK,
        "task_name": "Facial emotion recognition",
        "dataset_type": hub_name or track.name,
        "dataset_name": track.title,
        "dataset_split": HUB_SPLITS[track.test] if hub_name else track.test,
    }
    figures = {name: interval.value for name, interval in result.metrics.items()}
    return [
        EvalResult(**about, metric_type=hub, metric_name=ours.replace("_", " "), metric_value=figures[ours])
        for ours, hub in METRICS.items()
    ]


def eval_results(results: Sequence[Result]) -> dict[str, bytes]:
    """`.eval_results/<track>.yaml` -> content, for each plain result on all of a data set that is on the Hub.

    The format takes a data set of the Hub's alone, and no emotions: a figure on some of them would pass for one on all.
    """
    files = {}
    for result in results:
        hub_name = _on_the_hub(result)
        if hub_name is None or result.tta != "none":
            continue
        accuracy, trained = result.metrics["accuracy"], result.trained
        budget = ""
        if trained.epochs is not None:
            epochs = full_epochs(trained.epochs, trained.pictures_seen, trained.train_pictures)
            budget = f", {epochs} of {trained.budget_epochs} epochs"
        if trained.earlier:
            budget += f" after {trained.earlier.pictures_seen:,} pictures of the run before"
        note = (
            f"accuracy on {result.data.test_pictures} test pictures ({HUB_SPLITS[track_named(result.track).test]}) of "
            f"{', '.join(result.emotions)}, 95 % interval {accuracy.low:.4f} to {accuracy.high:.4f}, "
            f"recipe {result.recipe}, seed {result.seed}{budget}, no test-time augmentation"
        )
        entry = EvalResultEntry(hub_name, result.track, accuracy.value, date=result.date, notes=note)
        text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
        files[f".eval_results/{result.track}.yaml"] = text.encode()
    return files


def results_card(rows: int, tracks: Sequence[str], repo: str) -> str:
    """The README.md of the dataset repository that holds the results."""
    metadata = DatasetCardData(
        license="mit",
        pretty_name="fer_bench results",
        task_categories=[TASK],
        tags=["facial-emotion-recognition", "emotion", "fer_bench", "leaderboard"],
        size_categories=["n<1K" if rows < 1000 else "1K<n<10K"],
        configs=[{"config_name": "default", "data_files": [{"split": "results", "path": "results.parquet"}]}],
    )
    body = f"""\
# fer_bench: results

Facial-emotion methods judged under one protocol: trained on train, selected on validation, tested on test. {rows} rows
on {", ".join(tracks)}. Where `external` is true the weights were made elsewhere, and what their training saw is theirs
to say.

{HOW_TO_READ}

In `results.parquet` numbers are fractions. `accuracy_low` and `accuracy_high`, and so on for each metric, are the ends
of its interval; `subjects` is the number of people that it is over, empty where it is over pictures. `rank` counts
within `track` and `group`. What the board marks ◔ has `short` true. `budget_fraction` is the share of the recipe's
pictures that was seen in all runs together, below 1 also where the recipe itself stopped early and the training is
complete; `complete` is about the last run alone.

```python
from datasets import load_dataset

rows = load_dataset("{repo}", split="results")
```

`results.parquet` holds every row; `results/<track>/<method>/<recipe>-s<seed>.json` (`-flip.json` or
`-tencrop.json` with test-time augmentation) is the full record of one (confusion
matrix, calibration, cost, versions), and the `.npz` beside it holds the logits of every test picture by its name, so
that any metric can be computed again. No picture of anyone is in this repository."""
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}\n"


def space_readme(readme: str, sdk_version: str, models: Sequence[str], also: Sequence[str]) -> str:
    """The repository's README with the Space's front matter (one that is there already is kept) and what a Space lacks.

    models: repositories of weights.   also: what `terms` gives for the weights that the Space holds. Raises UserError
    for front matter that does not make a Gradio Space.
    """
    if readme.startswith("---\n"):
        front_matter(readme)
        front, text = readme[4:].split("\n---\n", 1)
        return f"---\n{front}\n---\n\n{SPACE_LACKS}\n\n{text.lstrip()}"
    metadata = SpaceCardData(
        title="fer_bench",
        emoji="🎭",
        colorFrom="blue",
        colorTo="yellow",
        sdk="gradio",
        sdk_version=sdk_version,
        python_version=PYTHON,
        app_file="app.py",
        suggested_hardware="zero-a10g",
        pinned=False,
        **licensing(also),
        models=list(models) or None,
        short_description="Facial-emotion methods side by side, judged fairly",
        tags=["leaderboard", "facial-emotion-recognition"],
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{SPACE_LACKS}\n\n{readme}"


def front_matter(readme: str) -> dict:
    """The metadata at the head of a Space's README. Raises UserError where it is missing or no Gradio Space's."""
    head = readme.removeprefix("---\n").partition("\n---\n")
    try:
        found = yaml.safe_load(head[0]) if head[1] else None
    except yaml.YAMLError as error:
        raise UserError(f"README.md: its front matter is not valid YAML ({' '.join(str(error).split())}).") from None
    lacking = [key for key in ("sdk_version", "app_file") if not isinstance(found, dict) or not found.get(key)]
    if lacking or found.get("sdk") != "gradio":
        raise UserError("README.md: its front matter must hold `sdk: gradio`, `sdk_version` and `app_file`.")
    return found
