"""The digits as files that an owner would have: who wrote it, the image, the label.

The images are real (UCI's "Optical Recognition of Handwritten Digits", bundled with scikit-learn), but they come
without writers' ids. So people are assigned: 1,500 images are dealt out at random to 300 made-up people, five to each.
The other 297 images stay apart as a public hold-out, which belongs to nobody in the population.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

PEOPLE = 300
IMAGES_EACH = 5
SHAPE = (8, 8, 1)
ASSETS = [
    {
        "name": "images",
        "dtype": "float32",
        "shape": list(SHAPE),
        "description": "8 × 8 grey levels, 0 is white and 1 is black",
        "minimum": 0,
        "maximum": 1,
    },
    {"name": "labels", "dtype": "int64", "shape": [], "description": "the digit", "minimum": 0, "maximum": 9},
]


def write(folder: Path) -> tuple[Path, Path, Path]:
    """Writes (training data, public hold-out, description of the assets) into ``folder``; the same at every call."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, *SHAPE)
    labels = labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    training, holdout = order[: PEOPLE * IMAGES_EACH], order[PEOPLE * IMAGES_EACH :]
    writers = np.repeat([f"person-{number:03d}" for number in range(PEOPLE)], IMAGES_EACH)
    files = folder / "digits.npz", folder / "holdout.npz", folder / "assets.json"
    np.savez(files[0], writer=writers, images=images[training], labels=labels[training])
    np.savez(files[1], images=images[holdout], labels=labels[holdout])
    files[2].write_text(json.dumps(ASSETS))
    return files
