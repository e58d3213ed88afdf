"""Hostile submissions that must be refused before a model is read: files, zips, YAML and safetensors headers."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from fer_bench.submissions import check, unpack
from fer_bench.submissions.folder import scan
from fer_bench.submissions.problems import SIZES
from tests.submissions.models import MANIFEST, Builder, declared, listing, model, submission

HONEST_BYTES = model().SerializeToString()


def changed(old: str, new: str) -> Builder:
    """The valid manifest with one text replaced; no model, so that only the manifest is read."""
    assert old in MANIFEST, old
    return lambda folder: submission(folder, manifest=MANIFEST.replace(old, new, 1))


def written(text: str | bytes) -> Builder:
    return lambda folder: submission(folder, manifest=text)


def billion_laughs() -> str:
    lines = ["a0: &a0 [lol, lol]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    return "\n".join(lines)


MANIFESTS: dict[str, tuple[Builder, str]] = {
    "billion laughs": (written(billion_laughs()), "anchors and aliases"),
    "a python object tag": (written(MANIFEST + '\nx: !!python/object/apply:os.system ["touch /tmp/owned"]'), "tags"),
    "a list instead of a mapping": (written("- name\n- title\n"), "must be a mapping"),
    "a megabyte of YAML": (written("#" * 2**20), "at most 65,536"),
    "nesting without end": (written("x: " + "[" * 20_000), "nests deeper"),
    "no YAML at all": (written("name: [unclosed\n\t: :"), "not valid YAML"),
    "a number of a thousand digits": (written(f"name: {'9' * 5000}"), "has 5,000 characters"),
    "a hexadecimal number that Python does not print": (changed("size: 48 ", f"size: 0x{'f' * 5000} "), "5,002 char"),
    "a number in base sixty": (changed("name: my_model", f"name: 1{':00' * 9000}"), "has 27,001 characters"),
    "a number for a key": (written(f"{MANIFEST}\n? 0x{'f' * 5000}\n: 1"), "has 5,002 characters"),
    "a mean beyond every float": (changed("mean: [0.0]", f"mean: [1{'0' * 400}]"), "has 401 characters"),
    "thousands of keys": (written(MANIFEST + "".join(f"\nk{n}: 1" for n in range(6000))), "more than 2,000 parts"),
    "a list of thousands": (written(f"{MANIFEST}\nx: [{'[],' * 20_000}]"), "more than 2,000 parts"),
    "bytes that are no text": (written(b"\xff\xfe\x00name"), "not UTF-8"),
    "a key twice": (written(MANIFEST + "\nlicence: none"), "'licence' stands twice"),
    "an unknown key": (written(MANIFEST + "\nlicense: MIT"), "did you mean 'licence'?"),
    "a name that is a path": (changed("name: my_model", "name: ../../x"), "name must be 2 to 40 lower case"),
    "no licence": (changed("licence: MIT", ""), "licence is missing"),
    "no training data": (changed("training_data: [FER2013 training split]", ""), "training_data is missing"),
    "an emotion twice": (changed("[anger, disgust,", "[anger, angry,"), "anger stands twice"),
    "an unknown emotion": (changed("[anger, disgust,", "[anger, hunger,"), "unknown emotion 'hunger'"),
    "an unknown track": (changed("[fer2013, rendered]", "[ferpluss]"), "did you mean 'ferplus'?"),
    "a deviation of zero": (changed("std: [1.0]", "std: [0.0]"), "input.std must be"),
    "a mean that is not a number": (changed("mean: [0.0]", "mean: [.nan]"), "input.mean must be"),
    "a size of 100000": (changed("size: 48 ", "size: 100000 "), "input.size must be a whole number"),
    "two channels": (changed("channels: 1", "channels: 2"), "must be 1 (grey) or 3 (RGB)"),
    "an empty range": (changed("range: [0, 1]", "range: [1, 1]"), "input.range must be"),
    "a range that is nearly empty": (changed("range: [0, 1]", "range: [0, 1.0e-300]"), "input.range must be"),
    "a link to a file": (changed("https://example.org/paper", "file:///etc/passwd"), "paper must be an https link"),
    "a branch for a revision": (written(MANIFEST + "\nhub: me/mine@main"), "hub must be"),
}


def in_zip(**options: object) -> Builder:
    """A zip with the valid manifest and one more entry: its name, content and external attributes."""

    def build(folder: Path) -> None:
        info = zipfile.ZipInfo(options["name"])
        info.external_attr = options.get("attributes", 0)
        info.compress_type = zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(folder / "upload.zip", "w") as archive:
            archive.writestr("submission.yaml", MANIFEST)
            archive.writestr(info, options.get("content", b"x"))

    return build


def hundreds(folder: Path) -> None:
    with zipfile.ZipFile(folder / "upload.zip", "w") as archive:
        for number in range(400):
            archive.writestr(f"{number}", b"")


def a_few_too_many(folder: Path) -> None:
    with zipfile.ZipFile(folder / "upload.zip", "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}", b"")


def lying(folder: Path) -> None:
    """An entry that declares 100 bytes and holds 100,000: the table of contents is patched."""
    path = folder / "upload.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("submission.yaml", os.urandom(100_000))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", 100_000), struct.pack("<I", 100)))


def encrypted(folder: Path) -> None:
    in_zip(name="README.md")(folder)
    path = folder / "upload.zip"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


def twice(folder: Path) -> None:
    with zipfile.ZipFile(folder / "upload.zip", "w") as archive:
        archive.writestr("submission.yaml", MANIFEST)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("submission.yaml", MANIFEST)


ZIPS: dict[str, tuple[Builder, str]] = {
    "a zip bomb": (in_zip(name="model.onnx", content=bytes(50_000_000)), "as a zip bomb does"),
    "a zip that leaves its folder": (in_zip(name="../../evil.txt"), "leaves its folder"),
    "an absolute path in a zip": (in_zip(name="/tmp/evil.txt"), "absolute path"),
    "a drive in a zip": (in_zip(name="C:/evil.txt"), "absolute path"),
    "a backslash path in a zip": (in_zip(name="..\\evil.txt"), "backslash"),
    "a symbolic link in a zip": (in_zip(name="model.onnx", attributes=0o120777 << 16), "symbolic link"),
    "a device in a zip": (in_zip(name="model.onnx", attributes=0o020666 << 16), "no plain file"),
    "a script in a zip": (in_zip(name="setup.py", content=b"import os"), "does not belong"),
    "a folder in a folder in a zip": (in_zip(name="a/b/model.onnx"), "does not belong"),
    "two folders in a zip": (in_zip(name="a/model.onnx"), "different folders"),
    "a zip with hundreds of entries": (hundreds, "too many files"),
    "a zip with twenty entries": (a_few_too_many, "20 entries"),
    "a zip that lies about sizes": (lying, "not a readable zip"),
    "an encrypted zip": (encrypted, "encrypted"),
    "a file twice in a zip": (twice, "twice"),
    "a zip that is text": (lambda folder: (folder / "upload.zip").write_text("hello " * 99), "no plain zip"),
    "a zip with a long note": (
        lambda folder: (folder / "upload.zip").write_bytes(b"PK\x05\x06" + bytes(16) + b"\x05\x00evil!"), "no plain zip"
    ),
}  # fmt: skip


def link(folder: Path) -> None:
    submission(folder)
    (folder / "model.onnx").symlink_to("/etc/passwd")


def linked_folder(folder: Path) -> None:
    submission(folder)
    (folder / "data").symlink_to("/etc")


def pipe(folder: Path) -> None:
    submission(folder)
    os.mkfifo(folder / "model.onnx")


def device(folder: Path) -> None:
    submission(folder)
    try:
        os.mknod(folder / "model.onnx", 0o020666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root may make devices")


def huge(folder: Path) -> None:
    submission(folder)
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(SIZES["model.onnx"] + 1)  # a hole: it takes no room


def beside(name: str) -> Builder:
    return lambda folder: (submission(folder, HONEST_BYTES) / name).write_bytes(b"x")


def safetensors(content: bytes, architecture: str = "small_cnn") -> Builder:
    def build(folder: Path) -> None:
        submission(folder, manifest=MANIFEST + f"\narchitecture: {architecture}\n")
        (folder / "model.safetensors").write_bytes(content)

    return build


FILES: dict[str, tuple[Builder, str]] = {
    "a link for a model": (link, "symbolic link"),
    "a link to a folder": (linked_folder, "symbolic link"),
    "a pipe for a model": (pipe, "device, pipe or socket"),
    "a device for a model": (device, "device, pipe or socket"),
    "a model of 600 MB and a byte": (huge, "at most 600,000,000"),
    "a script beside the model": (beside("run.py"), "does not belong"),
    "a pickle beside the model": (beside("model.pt"), "does not belong"),
    "two models": (beside("model.safetensors"), "keep one"),
    "a folder in the folder": (lambda folder: (submission(folder) / "code").mkdir(), "is a folder"),
    "no manifest": (lambda folder: (folder / "model.onnx").write_bytes(HONEST_BYTES), "submission.yaml is missing"),
    "no model": (lambda folder: submission(folder), "there is no model"),
    "a pickle called safetensors": (safetensors(pickle.dumps({"weight": np.zeros(3)})), "pickle"),
    "a checkpoint called safetensors": (safetensors(b"PK\x03\x04" + bytes(99)), "PyTorch checkpoint"),
    "a header of many terabytes": (safetensors(struct.pack("<Q", 2**45) + b"{}"), "announces a header of"),
    "a header longer than its file": (safetensors(struct.pack("<Q", 5000) + b"{}"), "announces a header of"),
    "git's pointer to a large file": (safetensors(b"version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "a header that is no JSON": (safetensors(struct.pack("<Q", 4) + b"{{{{"), "not valid JSON"),
    "a header that nests without end": (safetensors(struct.pack("<Q", 9000) + b"[" * 9000), "not valid JSON"),
    "an unknown architecture": (safetensors(struct.pack("<Q", 2) + b"{}", "smal_cnn"), "Did you mean 'small_cnn'?"),
    "a name that is taken": (
        lambda folder: submission(folder, HONEST_BYTES, MANIFEST.replace("name: my_model", "name: small_cnn")),
        "stands on the board already",
    ),
    "the name of a peer": (
        lambda folder: submission(folder, HONEST_BYTES, MANIFEST.replace("name: my_model", "name: face_api")),
        "stands on the board already",
    ),
}  # fmt: skip


UPLOADS = {**MANIFESTS, **FILES}


@pytest.mark.parametrize(("build", "reason"), UPLOADS.values(), ids=UPLOADS)
@pytest.mark.usefixtures("inspected_here")
def test_a_hostile_folder_is_refused_with_its_reason(build: Builder, reason: str, canary: Path) -> None:
    """The reason is given in words, nothing is written anywhere near, and nothing was run."""
    folder = canary / "submission"
    folder.mkdir()
    build(folder)
    before = listing(canary)
    problems = check(folder, run=False)
    assert reason in " ".join(problem.text for problem in problems), problems
    assert listing(canary) == before
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize(("build", "reason"), ZIPS.values(), ids=ZIPS)
def test_a_hostile_zip_is_refused_before_it_writes(build: Builder, reason: str, canary: Path) -> None:
    """The reason is given in words; neither the target nor anything around it holds a new file."""
    build(canary)
    target = canary / "target"
    target.mkdir()
    before = listing(canary)
    problems = unpack(canary / "upload.zip", target)
    assert reason in " ".join(problem.text for problem in problems), problems
    assert listing(canary).keys() == before.keys()
    assert not list(target.iterdir())


def test_what_macos_adds_is_passed_over(tmp_path: Path) -> None:
    """Its files are neither a reason nor unpacked, whatever they hold; a folder or link of that name still is one."""
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as file:
        for name in ("s/submission.yaml", "s/.DS_Store", "__MACOSX/s/._submission.yaml", "__MACOSX/../../out"):
            file.writestr(name, MANIFEST)
    (tmp_path / "s").mkdir()
    assert unpack(tmp_path / "upload.zip", tmp_path / "s") == []
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["submission.yaml"]
    assert not (tmp_path / "out").exists()
    before = [problem.code for problem in scan(tmp_path / "s")]
    (tmp_path / "s" / ".DS_Store").write_text("")
    assert [problem.code for problem in scan(tmp_path / "s")] == before
    (tmp_path / "s" / ".DS_Store").unlink()
    (tmp_path / "s" / ".DS_Store").symlink_to("submission.yaml")
    assert [problem.code for problem in scan(tmp_path / "s")] == ["link", *before]


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """Faults of the folder, the manifest and the model are reported together, each once."""
    manifest = MANIFEST.replace("licence: MIT", "").replace("size: 48 ", "size: big ")
    folder = submission(tmp_path / "s", model(tensors=[declared(2_500_000_000)]), manifest)
    (folder / "run.py").write_text("")
    codes = [problem.code for problem in check(folder)]
    assert sorted(codes) == ["declared_size", "extra_file", "manifest_licence", "manifest_size"]


def test_every_reason_is_one_sentence_with_a_code() -> None:
    """The manifest's reasons name the file, end in a full stop and are not repeated."""
    from fer_bench.submissions import read_manifest

    _, problems = read_manifest(yaml.safe_dump({"nam": "x", "input": {"size": 3}}).encode())
    assert all(problem.text.startswith("submission.yaml: ") for problem in problems)
    assert len({problem.text for problem in problems}) == len(problems) >= 8
    assert json.dumps([problem.code for problem in problems])
