"""what-the-face-classification on given crops: `python what_the_face.py PICTURES.npy ANSWERS.npy`, in its environment.

The package's own transform (48 x 48, grey, [0, 1]) and its own network; only its face detection is left out.
"""

import importlib.metadata
import json
import sys
import time

import numpy as np
import torch
from PIL import Image
from what_the_face_classification import inference


def main() -> None:
    pictures, answers = sys.argv[1:3]
    faces = np.load(pictures, allow_pickle=False)
    peer = inference.Image_classifier()
    peer.net.eval()
    begun, found = time.perf_counter(), []
    with torch.inference_mode():
        for start in range(0, len(faces), 64):
            batch = [peer.transform(Image.fromarray(face)) for face in faces[start : start + 64]]
            found.append(peer.net(torch.stack(batch).float()).numpy())
    seconds = time.perf_counter() - begun
    np.save(answers, np.concatenate(found).astype(np.float32))
    about = {
        "labels": list(peer.classes), "parameters": sum(p.numel() for p in peer.net.parameters()), "seconds": seconds,
        "weights": inference.inp_file, "version": importlib.metadata.version("what-the-face-classification"),
    }  # fmt: skip
    with open(answers + ".json", "w", encoding="utf-8") as file:
        json.dump(about, file)


if __name__ == "__main__":
    main()
