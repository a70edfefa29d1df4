"""A small labelled data set that comes with scikit-learn: handwritten digits, 8×8, here doubled."""

import struct

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE, TEST = 16, 360


def images():
    """Grey images uint8 [n, 16, 16] and labels, training then test."""
    d = load_digits()
    order = np.random.default_rng(0).permutation(len(d.target))
    large = [np.asarray(Image.fromarray((i * 255 / 16).astype(np.uint8)).resize((SIDE, SIDE), Image.BILINEAR)) for i in d.images[order]]
    pixels, labels = np.stack(large), d.target[order]
    return (pixels[TEST:], labels[TEST:]), (pixels[:TEST], labels[:TEST])


def write(folder):
    """Writes them as IDX files, as MNIST's are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pixels, labels) in zip(("train", "t10k"), images(), strict=True):
        n, h, w = pixels.shape
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, n, h, w) + pixels.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, n) + labels.astype(np.uint8).tobytes())
    return folder
