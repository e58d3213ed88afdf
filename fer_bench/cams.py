"""The class activation maps that `explain` can draw: their names, and what is said of them."""

from __future__ import annotations

import difflib

from fer_bench.errors import UserError

CAMS: dict[str, str] = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}
"""Name -> title. EigenCAM shows what stands out in the maps, whatever the target; the others depend on the target."""

WHAT_A_CAM_SHOWS = (
    "The warm areas are where the network's last picture-like layers held what raised the score of this emotion "
    "(EigenCAM's alone are what stands out in those layers, the same for every emotion). Yellow is strongest, and "
    "each map is scaled to its own strongest spot, so that a faint reason looks as vivid as a good one. The map is "
    "coarse, a few cells across the whole face, and it does not say why: warmth on the mouth does not mean that the "
    "network understands smiles. It is a hint at where to look, not a proof, and it is drawn just as confidently when"
    " the answer is wrong."
)


def for_emotion(cam: str, emotion: str) -> str:
    """ " for fear", as a caption goes on after the CAM's title; nothing for EigenCAM, which is of no emotion."""
    return "" if cam == "eigencam" else f" for {emotion}"


def check_cam(name: str) -> str:
    """The name, if it is one of `CAMS`; raises UserError with the nearest one."""
    if name not in CAMS:
        near = difflib.get_close_matches(name.lower(), CAMS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"there is no CAM {name!r}.{hint} The names are: {', '.join(CAMS)}.")
    return name
