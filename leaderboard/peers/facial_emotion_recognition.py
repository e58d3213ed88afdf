"""facial-emotion-recognition on given crops: `python facial_emotion_recognition.py PICTURES.npy ANSWERS.npy`.

Runs in the package's own environment. Its weights are a pickle, which the package itself opens there; fer_bench never
does. Its transform (48 x 48, mean and deviation .5) and its network are used; only its face detection is left out. The
network ends in a sigmoid and the package reads `exp` of that as the score, so the sigmoids are its log-scores.
"""

import functools
import importlib.metadata
import json
import os
import sys
import time

# A script's own folder comes first on the path, and this script is called like the package it runs.
sys.path = [entry for entry in sys.path if os.path.abspath(entry) != os.path.dirname(os.path.abspath(__file__))]

import facial_emotion_recognition as package  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402


def main() -> None:
    pictures, answers = sys.argv[1:3]
    faces = np.load(pictures, allow_pickle=False)
    # The file was saved on a GPU and the package opens it as it stands, which fails on a machine without one.
    torch.load = functools.partial(torch.load, map_location="cpu")
    peer = package.EmotionRecognition(device="cpu")
    begun, found = time.perf_counter(), []
    with torch.inference_mode():
        for start in range(0, len(faces), 64):
            batch = [peer.transform(face) for face in faces[start : start + 64]]
            found.append(peer.network(torch.stack(batch)).numpy())
    seconds = time.perf_counter() - begun
    np.save(answers, np.concatenate(found).astype(np.float32))
    about = {
        "labels": [peer.emotions[index] for index in range(len(peer.emotions))],
        "parameters": sum(p.numel() for p in peer.network.parameters()), "seconds": seconds,
        "weights": os.path.join(os.path.dirname(package.__file__), "model", "model.pkl"),
        "version": importlib.metadata.version("facial-emotion-recognition"),
    }  # fmt: skip
    with open(answers + ".json", "w", encoding="utf-8") as file:
        json.dump(about, file)


if __name__ == "__main__":
    main()
