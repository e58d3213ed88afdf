"""Peers on the board: the adapters' contract, with a stand-in peer, and the peers' cards."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fer_bench import files
from fer_bench import results as r
from fer_bench.card_files import read_cards
from fer_bench.cards import InputSpec, Reported
from fer_bench.datasets import FaceSet
from fer_bench.emotions import SEVEN, canonical
from fer_bench.errors import UserError
from fer_bench.leaderboard import markdown, table
from fer_bench.methods import METHODS

BOARD = Path(__file__).resolve().parents[1] / "leaderboard"
PEERS = json.loads((BOARD / "peers.json").read_text(encoding="utf-8"))
LABELS = ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised"]
"""face-api's order, which is nobody else's."""
STAND_IN = """
import json, os, sys
import numpy as np
faces = np.load(sys.argv[1])
assert faces.dtype == np.uint8 and faces.shape[1:] == (48, 48), faces.shape
labels = {labels!r}
scores = np.full((len(faces), len(labels)), -5, np.float32)
scores[np.arange(len(faces)), faces[:, 0, 0] % len(labels)] = 2  # the first pixel tells the answer
np.save(sys.argv[2], {answers})
open("weights.bin", "wb").write(b"weights")
about = dict(labels=labels, parameters=5, seconds=0.5, version="1.0", weights=os.path.abspath("weights.bin"))
about["secret"] = os.environ.get("A_SECRET")
json.dump(about, open(sys.argv[2] + ".json", "w"))
{last}
"""


@pytest.fixture(scope="module")
def run():
    """leaderboard/peers/run.py as a module; it is a script and belongs to no package."""
    spec = importlib.util.spec_from_file_location("peers_run", BOARD / "peers" / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers_run"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stand_in(tmp_path):
    """A function that makes an environment and an adapter in it; returns (adapter, environment)."""
    home = tmp_path / "venvs" / "stand_in"
    (home / "bin").mkdir(parents=True)
    python = home / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    def make(labels=LABELS, answers="scores", last=""):
        adapter = tmp_path / "stand_in.py"
        adapter.write_text(STAND_IN.format(labels=labels, answers=answers, last=last))
        return adapter, home

    return make


def pictures(*firsts: int) -> np.ndarray:
    """uint8 (N, 48, 48), the first pixel of each given."""
    images = np.full((len(firsts), 48, 48), 9, np.uint8)
    images[:, 0, 0] = firsts
    return images


def test_a_peers_columns_are_put_into_our_order(run, stand_in):
    """Whatever order and spelling a peer has, its answer for "happy" lands in the column of happiness."""
    said = run.ask(*stand_in(), pictures(0, 1, 2, 3, 4, 5, 6))
    assert said.emotions == SEVEN
    assert [said.emotions[column] for column in said.logits.argmax(axis=1)] == [canonical(name) for name in LABELS]
    assert (said.parameters, said.version, said.seconds) == (5, "1.0", 0.5)


def test_a_peers_process_gets_no_secrets(run, stand_in, monkeypatch, tmp_path):
    """The child sees none of our environment variables but the few that a process needs."""
    monkeypatch.setenv("A_SECRET", "token")
    adapter, home = stand_in(last="assert about['secret'] is None, 'a secret was passed on'")
    assert run.ask(adapter, home, pictures(1)).logits.shape == (1, 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answers": "scores[:-1]"}, "2 pictures and 7 labels, but float32 (1, 7)"),
        ({"answers": "scores.astype(np.float64)"}, "float64"),
        ({"answers": "scores * np.nan"}, "not finite"),
        ({"answers": "np.array([{}], object)"}, "did not answer as agreed"),
        ({"labels": ["happy", "joy"]}, "names an emotion twice"),
        ({"labels": ["happy", "bored"]}, "unknown emotion 'bored'"),
        ({"last": "raise SystemExit('no such weights')"}, "no such weights"),
        ({"last": "os.remove(sys.argv[2])"}, "did not answer as agreed"),
    ],
)  # fmt: skip
def test_a_peer_that_breaks_the_contract_is_refused(run, stand_in, change, words):
    """Missing, misshapen, mistyped or unreadable answers and unknown labels stop the run and say why."""
    with pytest.raises(UserError) as caught:
        run.ask(*stand_in(**change), pictures(0, 1))
    assert words in str(caught.value)


def test_a_missing_environment_says_how_to_make_it(run, tmp_path):
    """Without the peer's environment the message names the folder and the README."""
    with pytest.raises(UserError, match=r"nowhere: there is no such environment.*README\.md"):
        run.ask(tmp_path / "x.py", tmp_path / "nowhere", pictures(1))


def test_a_peers_result_is_an_external_row(run, stand_in, tmp_path):
    """What is written passes `read_result`, is external, and shows the claimed figure beside the measured one."""
    labels = np.arange(70) % 7
    known = np.array([LABELS.index(_spelled(label)) for label in labels])
    images = pictures(*np.where(np.arange(70) % 10 < 7, known, (known + 1) % 7))  # seven of ten are right
    faces = FaceSet("rendered", "test", SEVEN, images, labels, tuple(map(str, range(70))))
    card = {**PEERS["fer"], "package": "stand-in==1.0", "storage": "float32", "trained_on": "unknown",
            "reported": [{"track": "rendered", "accuracy": 0.9, "source": "its README"}],
            "notes": {"rendered": ["has seen them."]}}  # fmt: skip
    adapter, home = stand_in()
    answers = run.judge("stand_in", card, run.ask(adapter, home, images), faces, "rendered")
    path = r.write_result(answers.result, tmp_path)
    r.write_logits(answers.result, tmp_path, answers.ids, answers.targets, answers.logits)
    found = r.read_result(path)
    assert found.external
    assert not found.verified
    assert found.metrics["accuracy"].value == pytest.approx(0.7)
    assert (found.recipe, found.cost.parameters, found.weights.bytes) == ("as-published", 5, 7)
    assert found.trained.epochs is None
    assert "`stand_in`: has seen them." in found.data.notes
    assert r.read_logits(path).logits.shape == (70, 7)
    row = table([found], {"stand_in": card}, "rendered").iloc[0]
    assert row["reported"] == 0.9
    assert row["difference"] == pytest.approx(-0.2)
    assert "(as-published; external: a package's own weights, not verified)" in markdown([found], {"stand_in": card})


def _spelled(label: int) -> str:
    """The stand-in's spelling of one of the seven."""
    return next(name for name in LABELS if canonical(name) == SEVEN[label])


def test_an_unknown_peer_is_wrong_use(run, capsys, tmp_path):
    """A name that is not in peers.json stops with exit code 2 and the names there are."""
    assert run.main(["nobody", "--out", str(tmp_path)]) == 2
    assert "the peers are fer, what_the_face, facial_emotion_recognition, face_api" in capsys.readouterr().err


def test_what_no_commit_holds_is_not_verified(run, capsys, tmp_path, monkeypatch):
    """As of our own methods: refused before any environment is looked for."""
    monkeypatch.setattr(files, "commit", lambda: "0" * 40 + files.DIRTY)
    assert run.main(["all", "--out", str(tmp_path), "--verified"]) == 2
    assert "leave --verified out" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(PEERS))
def test_a_peers_card_is_whole(name):
    """A card names its package and version, its adapter, a valid input, and where each claimed figure stands."""
    card = PEERS[name]
    assert card["package"].rpartition("==")[2][0].isdigit()
    assert (BOARD / "peers" / card["adapter"]).is_file()
    assert InputSpec.from_dict(card["input"]).size >= 48
    assert all(len(Reported(**stated).source) > 20 for stated in card["reported"])
    assert card["licence"]
    assert not card["shipped"]
    assert name not in METHODS, "a peer's row would stand under a method's name"


@pytest.mark.parametrize("name", sorted(PEERS))
def test_a_peers_rows_agree_with_its_card(name):
    """Each result of a peer is external and of its card's size, and its claimed figure stands in the table."""
    cards, found = read_cards(BOARD), [x for x in r.read_results(BOARD) if x.method == name]
    assert {result.track for result in found} >= {"fer2013", "rendered"}
    for result in found:
        assert result.external
        assert result.recipe == "as-published"
        assert result.cost.parameters == cards[name]["parameters"]["7"]
        claimed = next((c["accuracy"] for c in cards[name]["reported"] if c["track"] == result.track), None)
        shown = table([result], cards, result.track)["reported"].iloc[0]
        assert shown == claimed or (claimed is None and np.isnan(shown))


def test_face_apis_adapter_is_a_module():
    """The one adapter that is not Python can be parsed by Node."""
    try:
        done = subprocess.run(["node", "--check", BOARD / "peers" / "face_api.mjs"], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("node is not installed")
    assert done.returncode == 0, done.stderr.decode()


def test_fer_bench_depends_on_no_peer():
    """No peer is among the package's dependencies, and nothing under fer_bench imports one."""
    project = tomllib.loads((BOARD.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    needed = {re.match(r"[\w.-]+", requirement)[0] for requirement in listed}
    assert "torch" in needed
    assert not needed & {card["package"].partition("==")[0] for card in PEERS.values()}
    imported = ("import fer\n", "from fer.", "what_the_face", "facial_emotion_recognition", "face_api")
    sources = [path.read_text(encoding="utf-8") for path in (BOARD.parent / "fer_bench").rglob("*.py")]
    assert not [name for name in imported for source in sources if name in source]
