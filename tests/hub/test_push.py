"""Push: what arrives on a server shaped like the Hub, over the real client and HTTP. Nothing reaches the real one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from packaging.requirements import Requirement

import fer_bench
from fer_bench.hub import contents, main, readmes
from fer_bench.results import read_result, read_results, write_result
from fer_bench.weights import (
    add,
    cached,
    read_tensors,
    run_folder,
    sha256,
    weights_folder,
    write_index,
    write_tensors,
)
from tests.hub.row import KEY, PULL, PUSH, REPO, entry, forget_weights, pin
from tests.hub_server import Hub


def test_push_makes_the_repository_and_pins_its_commit(checkout: Path, hub: Hub) -> None:
    """Weights, card, licence, evaluation and public results arrive; the index names repository and commit."""
    assert main(PUSH) == 0
    files = hub.files(REPO)
    assert sorted(files) == [
        ".eval_results/fer2013.yaml", "LICENSE", "README.md", "model.safetensors",
        "results/fer2013/deep_emotion/common-v1-s0.json", "results/rendered/deep_emotion/common-v1-s0.json",
    ]  # fmt: skip
    assert files["model.safetensors"] == (weights_folder() / entry()["file"]).read_bytes()
    assert (entry()["hub"], entry()["revision"]) == (REPO, hub.repo(REPO).head)
    assert entry()["sha256"] in hub.large


def test_the_card_states_figures_training_and_limits(checkout: Path, hub: Hub) -> None:
    """The card's model-index holds the records' own numbers; the text says how far it was trained, and the limits."""
    main(PUSH)
    result = read_result(checkout / "leaderboard/results/fer2013/deep_emotion/common-v1-s0.json")
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    figures = {(e.dataset_name, e.metric_name): e.metric_value for e in card.data.eval_results}
    track = "FER2013, 7 emotions, PrivateTest"
    assert figures[track, "accuracy"] == result.metrics["accuracy"].value
    assert figures[track, "macro f1"] == result.metrics["macro_f1"].value
    assert ("Rendered faces, 7 emotions, transfer from FER2013", "accuracy") in figures
    assert f"{result.trained.epochs} of {result.trained.budget_epochs} epochs" in card.text
    assert f"{result.trained.pictures_seen:,} pictures" in card.text
    assert "Do not use it to" in card.text
    assert "research use" in card.text
    assert "It started from random weights." in card.text
    assert "/home/ada" not in card.content


def test_the_card_s_way_to_load_gives_what_was_pushed(
    checkout: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the reader's own copy of the project has other weights for the row."""
    main(PUSH)
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    (folder,) = re.findall(rf"hf download {REPO} model.safetensors --local-dir (\S+)\n", card.text)
    (call,) = re.findall(r"model = (fer_bench\.load\(.*\))\n", card.text)
    pushed = hub.files(REPO)["model.safetensors"]
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "model.safetensors").write_bytes(pushed)
    monkeypatch.chdir(tmp_path)
    tensors, record = read_tensors(tmp_path / folder / "model.safetensors")
    mine = run_folder(tmp_path / "mine", "deep_emotion", "fer2013", "common-v1", 0)
    mine.mkdir(parents=True)
    write_tensors(mine / "model.safetensors", {key: tensor * 2 for key, tensor in tensors.items()}, record)
    add(mine / "model.safetensors", replace=True)
    assert eval(call, {"fer_bench": fer_bench}).record["sha256"] == hashlib.sha256(pushed).hexdigest()
    assert fer_bench.load("deep_emotion").record["sha256"] != hashlib.sha256(pushed).hexdigest()
    assert hashlib.sha256(pushed).hexdigest() in card.text


def test_a_repository_of_something_else_is_not_replaced(
    checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped --repo costs nobody their files; --replace is for who means it, and what is fer_bench's needs none."""
    main(PUSH)
    repo = hub.repo(REPO)
    theirs = {"README.md": (b"# A detector", False), "config.json": (b"{}", False), "model.safetensors": (b"x", False)}
    repo.commit(theirs)
    before = entry()
    capsys.readouterr()
    assert main(PUSH) == 2
    told = "the model ada/fer-deep-emotion holds what fer_bench did not put there (config.json, model.safetensors)"
    assert told in capsys.readouterr().err
    assert hub.files(REPO)["config.json"] == b"{}"
    assert hub.files(REPO)["README.md"] == b"# A detector"
    assert entry() == before
    assert main([*PUSH, "--replace"]) == 0
    assert b"fer_bench" in hub.files(REPO)["README.md"]
    assert main(PUSH) == 0


def test_a_listing_tells_what_may_be_deleted(checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a question to the Hub, by the folders that a push keeps equal."""
    assert main([*PUSH, "--dry-run"]) == 0
    told = "; what is only there would be deleted from results/, .eval_results/; nothing was sent."
    assert capsys.readouterr().out.splitlines()[-1].endswith(told)


def test_the_card_s_figures_are_those_without_augmentation(checkout: Path, hub: Hub) -> None:
    """A row with test-time augmentation has a line in the text that says so, and no part in the model-index."""
    path = checkout / "leaderboard/results/fer2013/deep_emotion/common-v1-s0.json"
    result = read_result(path)
    other = replace(result.metrics["ece"], value=0.5, high=0.51)
    write_result(replace(result, tta="flip", metrics=result.metrics | {"ece": other}), checkout / "leaderboard")
    path.with_name("common-v1-s0-flip.npz").write_bytes(path.with_suffix(".npz").read_bytes())
    main(PUSH)
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    track = "FER2013, 7 emotions, PrivateTest"
    plain = [e for e in card.data.eval_results if (e.dataset_name, e.metric_name) == (track, "accuracy")]
    assert [e.metric_value for e in plain] == [result.metrics["accuracy"].value]
    (line,) = (line for line in card.text.splitlines() if "test-time augmentation flip |" in line)
    assert line.endswith("| 50.0 |")
    assert card.text.count("Recall per emotion, FER2013, 7 emotions") == 1


def test_the_card_tells_the_runs_before(checkout: Path, hub: Hub) -> None:
    """Weights that went on from others say from which, newest first, and how long those were trained."""
    path = weights_folder() / entry()["file"]
    tensors, record = read_tensors(path)
    weights = ["deep_emotion/ferplus/x-s0 (2)", "deep_emotion/fer2013/x-s0 (1)"]
    record["trained"] |= {"train_pictures": 28_678}
    shutil.rmtree(checkout / "leaderboard/results")  # they are of other weights now
    went = f"It went on from {weights[0]}, which went on from {weights[1]}: "
    for track, seen, told in [
        ("ferplus", 9999, "91 epochs (9,999 pictures) before."),
        ("fer2013", 91 * 28_678, "91 epochs (2,609,698 pictures) before."),
        ("fer2013", 89 * 28_678 + 40, "89 epochs (2,552,382 pictures) before."),  # and two that were cut short
        ("fer2013", 9999, "9,999 pictures before."),
    ]:
        record["trained"]["earlier"] = {"weights": weights, "track": track, "epochs": 91, "pictures_seen": seen}
        write_tensors(path, tensors, record)
        pin(sha256=sha256(path))
        assert main(PUSH) == 0
        text = ModelCard(hub.files(REPO)["README.md"].decode()).text
        assert went + told in text
    assert "The first of these runs started from random weights." in text
    assert "Part of its target" not in text
    record["trained"]["teachers"] = ["a/fer2013/x-s0 (3)", "b/fer2013/x-s0 (4)"]
    write_tensors(path, tensors, record)
    pin(sha256=sha256(path))
    assert main(PUSH) == 0
    text = ModelCard(hub.files(REPO)["README.md"].decode()).text
    assert " Part of its target was the mean answer of a/fer2013/x-s0 (3), b/fer2013/x-s0 (4)." in text


def test_eval_results_are_readable_by_the_library(checkout: Path, hub: Hub) -> None:
    """`.eval_results` parses with huggingface_hub and names the data set on the Hub; rendered faces have none."""
    main(PUSH)
    (found,) = parse_eval_result_entries(yaml.safe_load(hub.files(REPO)[".eval_results/fer2013.yaml"]))
    result = read_result(checkout / "leaderboard/results/fer2013/deep_emotion/common-v1-s0.json")
    assert (found.dataset_id, found.value) == (
        "Aaryan333/fer2013_train_publicTest_privateTest",
        result.metrics["accuracy"].value,
    )


def test_a_transfer_track_means_its_home_s_weights(checkout: Path, hub: Hub) -> None:
    """As `load` does, push and pull take for rendered the weights of fer2013."""
    assert main([*PUSH, "--track", "rendered"]) == 0
    assert entry()["revision"] == hub.repo(REPO).head
    forget_weights()
    assert main([*PULL, "--track", "rendered"]) == 0
    assert sha256(cached(entry())) == entry()["sha256"]


def test_a_result_of_other_weights_is_not_pushed(checkout: Path, hub: Hub) -> None:
    """A record whose weights' hash is not that of the file stays here."""
    path = checkout / "leaderboard/results/rendered/deep_emotion/common-v1-s0.json"
    record = json.loads(path.read_text())
    record["weights"]["sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    main(PUSH)
    assert [name for name in hub.files(REPO) if name.startswith("results/")] == [
        "results/fer2013/deep_emotion/common-v1-s0.json"
    ]


def test_a_second_push_does_nothing(checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """The same content is neither uploaded nor committed again; the index names the newest commit that holds it."""
    main(PUSH)
    before, asked, repo = entry(), len(hub.requests), hub.repo(REPO)
    assert main(PUSH) == 0
    assert entry() == before
    repo.commit(repo.commits[repo.head] | {"notes.txt": (b"someone's", False)})
    assert main(PUSH) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert len(repo.commits) == 3
    assert entry() == before | {"revision": repo.head}
    assert not [path for method, path, _ in hub.requests[asked:] if method == "PUT" or "commit" in path]


def test_a_push_mends_a_dead_pin(checkout: Path, hub: Hub) -> None:
    """Where the history was rewritten and the pinned commit is gone, a push of the same files pins the one that is."""
    main(PUSH)
    repo = hub.repo(REPO)
    files = repo.commits[repo.head]
    repo.commits.clear()
    repo.commit(files | {"notes.txt": (b"squashed", False)})
    assert entry()["revision"] not in repo.commits
    assert main(PUSH) == 0
    assert entry()["revision"] == repo.head
    forget_weights()
    assert main(PULL) == 0


def test_only_what_changed_is_sent_and_what_vanished_is_deleted(checkout: Path, hub: Hub) -> None:
    """After a change here, weights are not uploaded again; a withdrawn result goes, a stranger's file stays."""
    main(PUSH)
    repo = hub.repo(REPO)
    repo.commit(repo.commits[repo.head] | {"notes.txt": (b"someone's", False)})
    shutil.rmtree(checkout / "leaderboard/results/rendered/deep_emotion")
    uploads = len(hub.asked("PUT"))
    assert main(PUSH) == 0
    assert "results/rendered/deep_emotion/common-v1-s0.json" not in hub.files(REPO)
    assert hub.files(REPO)["notes.txt"] == b"someone's"
    assert len(hub.asked("PUT")) == uploads
    assert entry()["revision"] == hub.repo(REPO).head


@pytest.mark.parametrize("command", [PUSH, ["push-space", "--repo", "ada/fer"]], ids=lambda c: c[0])
def test_weights_that_are_not_the_index_s_are_not_pushed(
    command: list[str], checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose hash differs from the index is refused as wrong use, before any request; by the demo too."""
    pin(sha256="0" * 64)
    assert main(command) == 2
    assert "not the file of weights/index.json" in capsys.readouterr().err
    assert not hub.requests


def test_results_become_a_data_set_that_datasets_loads(checkout: Path, hub: Hub, tmp_path: Path) -> None:
    """Every public record is a row of the parquet file, which the card's configuration loads; own pictures stay out."""
    import datasets

    assert main(["push-results", "--repo", "ada/fer-results"]) == 0
    files = hub.files("ada/fer-results", "datasets")
    assert "results/fer2013/deep_emotion/common-v1-s0.npz" in files
    assert not [name for name, data in files.items() if "folder" in name or b"/home/ada" in data]
    for name, data in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    rows = datasets.load_dataset(str(tmp_path / "copy"), split="results", cache_dir=str(tmp_path / "datasets"))
    expected = {r.track: r for r in read_results(checkout / "leaderboard") if ":" not in r.track}
    assert {row["track"] for row in rows} == set(expected)
    for row in rows:
        result = expected[row["track"]]
        assert row["accuracy"] == result.metrics["accuracy"].value
        assert row["ece_high"] == result.metrics["ece"].high
        assert row["recall_anger"] == result.per_class_recall["anger"].value
        assert (row["method"], row["rank"], row["epochs"]) == ("deep_emotion", 1, result.trained.epochs)


def test_the_card_tells_the_stages() -> None:
    """A method of several stages says how many full epochs each had: so it is known which guide awei has."""
    row = {"track": "fer2013", "recipe": "common-v1", "seed": 0}
    text = readmes._training(readmes.data_card("fer2013"), row, {"stages": {"guide": 15, "main": 45}})
    assert "Full epochs of its stages: guide 15, main 45. " in text
    assert "stages" not in readmes._training(readmes.data_card("fer2013"), row, {"stages": {"main": 60}})


@pytest.mark.parametrize(
    ("track", "said"), [("fer2013", "training split, recipe"), ("fer2013-6", "pictures of anger, disgust, fear,")]
)
def test_the_card_tells_which_pictures_were_trained_on(track: str, said: str) -> None:
    """Weights of a part of the emotions saw pictures of these alone."""
    row = {"track": track, "recipe": "common-v1", "seed": 0}
    assert said in readmes._training(readmes.data_card(track), row, {})


def test_results_are_the_same_bytes_each_time(checkout: Path) -> None:
    """Nothing in the tree depends on when it was made, or a second push could not be empty."""
    first, second = (contents.listing(contents.results_tree("ada/r", checkout)) for _ in range(2))
    assert first == second


def test_the_space_is_complete(checkout: Path, hub: Hub) -> None:
    """App, package, leaderboard and weights arrive with front matter and requirements; nothing private or compiled,
    neither results of someone's own pictures nor weights that were trained on them.
    """
    for name in (
        "README.md",
        "mine/submission.yaml",
        "mine/model.onnx",
        "mine/run.sh",
        "mine/code/model.onnx",
        "x.zip",
    ):
        path = checkout / "leaderboard" / "submissions" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    private = entry() | {"track": "folder:/home/ada/friends", "file": "friends.safetensors"}
    write_index({KEY: entry(), "deep_emotion/folder:/home/ada/friends/common-v1-s0": private})
    (weights_folder() / "friends.safetensors").write_bytes(b"/home/ada")
    assert main(["push-space", "--repo", "ada/fer"]) == 0
    files = hub.files("ada/fer", "spaces")
    assert {"app.py", "fer_bench/__init__.py", "fer_bench/ui/tab.py", "leaderboard/figures/fer2013.png"} <= set(files)
    assert {"leaderboard/results/rendered/deep_emotion/common-v1-s0.npz", f"weights/{entry()['file']}"} <= set(files)
    assert not [name for name in files if "pycache" in name or "hidden" in name or "folder-" in name]
    sent = {name for name in files if name.startswith("leaderboard/submissions/")}
    assert sent == {
        f"leaderboard/submissions/{name}" for name in ("README.md", "mine/submission.yaml", "mine/model.onnx")
    }
    assert not [name for name, data in files.items() if b"/home/ada" in data]
    readme = files["README.md"].decode()
    front = yaml.safe_load(readme.split("---\n")[1])
    assert readme.endswith(f"---\n\n{readmes.SPACE_LACKS}\n\n# fer_bench\n\nWhat it is.\n")
    assert files["pyproject.toml"] == (checkout / "pyproject.toml").read_bytes()
    assert (front["sdk"], front["app_file"], front["python_version"]) == ("gradio", "app.py", "3.12.12")
    assert "leaderboard" in front["tags"]
    assert f"gradio=={front['sdk_version']}" in files["requirements.txt"].decode().splitlines()


def test_requirements_are_those_of_the_project_without_the_tests(checkout: Path) -> None:
    """Each dependency of pyproject.toml is a line that pip reads, torch as pinned; test tools are not among them."""
    text = contents.requirements(checkout / "pyproject.toml", "6.31.0")
    wanted = {Requirement(line).name: line for line in text.splitlines() if not line.startswith("#")}
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        name = Requirement(line).name
        assert wanted[name] == ("gradio==6.31.0" if name == "gradio" else line)
    assert wanted["torch"].startswith("torch==")
    assert "spaces" in wanted
    assert not {"pytest", "ruff", "playwright", "scikit-image"} & set(wanted)


def test_front_matter_of_the_repository_is_kept(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A README that starts with a Space's metadata keeps it, and says what a Space lacks; without an app file it is
    refused."""
    front = "---\nsdk: gradio\nsdk_version: 6.30.0\napp_file: app.py\n---\n# Ours\n"
    (checkout / "README.md").write_text(front)
    tree = contents.space_tree(checkout)
    head = "---\nsdk: gradio\nsdk_version: 6.30.0\napp_file: app.py\n---\n"
    assert tree["README.md"].decode() == f"{head}\n{readmes.SPACE_LACKS}\n\n# Ours\n"
    assert b"gradio==6.30.0\n" in tree["requirements.txt"]
    (checkout / "README.md").write_text("---\nsdk: gradio\nsdk_version: 6.30.0\n---\n# Ours\n")
    assert main(["push-space", "--repo", "ada/fer", "--dry-run"]) == 2
    assert "app_file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [PUSH, ["push-results", "--repo", "ada/fer-results"], ["push-space", "--repo", "ada/fer"]],
    ids=lambda c: c[0],
)
def test_dry_run_and_folder_agree(
    command: list[str], checkout: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry-run lists exactly the files, sizes and hashes that --to dir: writes; neither asks the Hub anything."""
    target = tmp_path / "out"
    assert main([*command, "--dry-run"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[:-1]]
    for _ in range(2):  # and again, over what is there
        assert main([*command, "--to", f"dir:{target}"]) == 0
    written = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    assert {path: (size.replace(",", ""), sha) for sha, size, path in rows} == {
        name: (str(path.stat().st_size), sha256(path)) for name, path in written.items()
    }
    assert not hub.requests
    (target / "diary.txt").write_text("mine")
    assert main([*command, "--to", f"dir:{target}"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["push", "--method", "deep_emotion"], "--repo NAMESPACE/NAME is missing"),
        (["push", "--method", "deep_emotion", "--repo", "nameonly"], "must be NAMESPACE/NAME"),
        (["push", "--method", "deep_emotion", "--repo", "a/../b"], "no repository name"),
        (["push", "--method", "deep_emotion", "--to", "/tmp/x"], "must be dir:PATH"),
        (["push", "--method", "deep-emotion", "--repo", REPO], "Did you mean 'deep_emotion'"),
        (["push", "--method", "deep_emotion", "--seed", "7", "--repo", REPO], "weights add RUN"),
        (["push", "--method", "deep_emotion", "--recipe", "comon", "--repo", REPO], "Did you mean 'common-v1'?"),
        (
            ["push", "--method", "deep_emotion", "--track", "folder:mine", "--repo", REPO],
            "your own pictures are not sent",
        ),
        (["pull", "--method", "deep_emotion", "--track", "csv:mine.csv"], "your own pictures are not sent or fetched"),
        (["pull", "--method", "small-cnn"], "Did you mean 'small_cnn'"),
        (["push", "--method", "deep_emotion", "--track", "ferpluss", "--repo", REPO], "Did you mean 'ferplus'"),
        (["pull", "--method", "deep_emotion", "--track", "ferplus"], f"its rows of it are {KEY}."),
        (["pull", "--method", "small_cnn"], "no such row of small_cnn; python -m fer_bench.train makes them"),
        (["pull", "--all", "--track", "ferpluss"], "Did you mean 'ferplus'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[3:]),
)
def test_wrong_use_is_said_in_a_sentence(
    arguments: list[str], said: str, checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one sentence, no request."""
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert not hub.requests
