"""The tab that takes a submission: what is checked and why, the check itself, the exact command, and the queue."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from fer_bench.errors import UserError
from fer_bench.ui import engine, look
from fer_bench.ui.try_it import AS_IT_IS, path_of

if TYPE_CHECKING:
    import gradio as gr

HEADERS = ["Submission", "Tracks", "State"]
"""Of the queue."""

COMMANDS = """
The same check on your own machine, in a clone of this project, and what comes after it:

```bash
pip install -e '.[onnx]'
python -m fer_bench.submissions check my_submission
python -m fer_bench.submissions evaluate my_submission --track fer2013
```

Then open a pull request that adds the folder as `leaderboard/submissions/<name>/`. A model that is too large for git
may lie in a model repository on the Hub; check it there by its full revision, which `git ls-remote` prints:

```bash
git ls-remote https://huggingface.co/NAMESPACE/NAME HEAD
python -m fer_bench.submissions check hub:NAMESPACE/NAME@REVISION
```

The pull request then adds `submission.yaml` alone, with the line `hub: NAMESPACE/NAME@REVISION`. CI runs the same
check, a maintainer runs the evaluation, and the row appears, marked as submitted.
"""


def assemble(manifest: str, model: str | None, folder: Path) -> Path:
    """A submission's .zip in `folder`, from the text of its submission.yaml and the path of its model file.

    Raises UserError where there is no model or its name ends otherwise than .onnx or .safetensors.
    """
    if not model:
        raise UserError("Choose the model file too, or the .zip of the whole submission.")
    suffix = Path(model).suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        raise UserError(f"{Path(model).name}: the model must be an .onnx or a .safetensors file.")
    path = folder / "submission.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("submission.yaml", manifest)
        archive.write(model, f"model{suffix}")
    return path


def waiting(root: Path) -> list[gr.Dataframe | gr.Markdown]:
    """The queue as it is now, and what stands there where it is empty; one of the two is seen."""
    import gradio as gr

    from fer_bench.submissions import queue

    rows = [[entry.name, ", ".join(entry.tracks), entry.state] for entry in queue(root / "submissions")]
    return [
        gr.Dataframe(
            rows, headers=HEADERS, interactive=False, label="The queue", elem_id="queue", visible=bool(rows)
        ),
        gr.Markdown("No submission is waiting.", elem_id="queue-empty", visible=not rows),
    ]  # fmt: skip


def build(root: Path) -> list[gr.Dataframe | gr.Markdown]:
    """The tab's components; called inside a `gr.Tab`. root: the leaderboard's folder. Returns those of `waiting`."""
    import gradio as gr

    from fer_bench.submissions import CHECKS, Limits, template, validate

    bounds = Limits(memory=3 * 2**30, seconds=60)  # less than the command allows: other visitors wait meanwhile

    def check(manifest: str, model: dict | None, archive: dict | None) -> tuple[str, dict]:
        """What was given -> (what is wrong with it, all at once, as HTML; the .zip to hand in where nothing is)."""
        try:
            with engine.folder_for() as folder:
                whole = path_of(archive)
                path = Path(whole) if whole else assemble(str(manifest or ""), path_of(model), folder)
                report = validate(path, bounds)
        except UserError as error:
            return look.note(str(error), bad=True), gr.update(value=None, visible=False)
        notes = [look.note(report.summary, bad=not report.ok)]
        notes += [look.note(str(problem), bad=True) for problem in report.problems]
        ready = gr.update(value=str(path), visible=True) if report.ok else gr.update(value=None, visible=False)
        return "".join(notes), ready

    gr.Markdown(
        "## Submit a model\nA submission is a `submission.yaml` and the model as **ONNX** or as **safetensors of a "
        "registered architecture**. Nothing else is ever loaded: no pickle, no remote code. What you upload here is "
        "checked and deleted; handing it in is the last step below."
    )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            manifest = gr.Textbox(
                template(), label="submission.yaml", lines=16, max_lines=30, elem_id="manifest",
                info="Fill in what is empty, and replace the rest by your own.",
            )  # fmt: skip
        with gr.Column(min_width=300):
            model = gr.File(
                label="The model (.onnx or .safetensors)", file_types=[".onnx", ".safetensors"], type="filepath",
                height=150, elem_id="model",
            )  # fmt: skip
            archive = gr.File(
                label="Or everything as one .zip",
                file_types=[".zip"],
                type="filepath",
                height=150,
                elem_id="submission",
            )
            button = gr.Button("Check it", variant="primary", elem_id="check")
            report = gr.HTML(elem_id="report")
            ready = gr.File(label="Ready to hand in", interactive=False, visible=False, elem_id="ready")
    gr.Markdown(COMMANDS)
    with gr.Accordion("What is checked, and why", open=False):
        gr.Markdown("\n".join(f"- **{title}.** {why}" for title, why in CHECKS))
    gr.Markdown("### The queue")
    shown = waiting(root)
    button.click(
        check, [manifest, model, archive], [report, ready], api_visibility="private", concurrency_limit=1,
        concurrency_id="networks", **AS_IT_IS,
    )  # fmt: skip
    return shown
