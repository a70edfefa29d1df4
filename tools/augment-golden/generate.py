#!/usr/bin/env python3
"""Writes replica/augment/testdata/golden.json: what torchvision and PIL make
of a few small images under fixed augmentation parameters.

Run from the repository's root: python3 tools/augment-golden/generate.py
Needs torch, torchvision and Pillow (made with 1.13, 0.14 and 9.4).

Views up to 32 pixels a side are stored whole (base64, height x width x RGB);
of larger ones the SHA-256 of those bytes. The output is a pure function of
this file.
"""
import base64
import hashlib
import json
import math
import random

import numpy as np
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F

OUT = "replica/augment/testdata/golden.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(w, h, seed):
    """Smooth colours, edges and noise, so that every operator shows."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    planes = []
    for c in range(3):
        a, b, p = rng.uniform(1, 4, 3)
        v = 127 + 90 * np.sin(a * x / w * math.pi + p) * np.cos(b * y / h * math.pi)
        v += 60 * ((x // max(1, w // 4) + y // max(1, h // 3)) % 2) * (c != seed % 3)
        v += rng.normal(0, 12, (h, w))
        planes.append(v)
    return Image.fromarray(np.clip(np.stack(planes, 2), 0, 255).astype(np.uint8), "RGB")


def every_colour():
    """Colours in steps of 5 (52 levels a channel): 140,608 pixels, 416x338."""
    level = np.arange(0, 256, 5)
    rgb = np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(-1, 3)
    return Image.fromarray(rgb.reshape(338, 416, 3).astype(np.uint8), "RGB")


def grey_picture(w, h):
    return picture(w, h, 9).convert("L").convert("RGB")


def apply(img, p):
    """torchvision's MoCo v2 pipeline with its parameters fixed."""
    top, left, height, width = p["crop"]
    img = F.resized_crop(img, top, left, height, width, [p["size"], p["size"]])
    if p["order"]:
        for part in p["order"]:
            if part == 0:
                img = F.adjust_brightness(img, p["factor"][0])
            elif part == 1:
                img = F.adjust_contrast(img, p["factor"][1])
            elif part == 2:
                img = F.adjust_saturation(img, p["factor"][2])
            else:
                img = F.adjust_hue(img, p["hue"])
    if p["gray"]:
        img = F.rgb_to_grayscale(img, num_output_channels=3)
    if p["sigma"]:
        img = img.filter(ImageFilter.GaussianBlur(radius=p["sigma"]))
    if p["flip"]:
        img = F.hflip(img)
    return img


def centre(img, size):
    if img.size == (size, size):
        return img
    short = 256 * size // 224 if size >= 112 else size
    return F.center_crop(F.resize(img, short), size)


def raw(img):
    return np.asarray(img).tobytes()


def stored(img):
    if img.size[0] <= 32:
        return {"pix": base64.b64encode(raw(img)).decode()}
    return {"sha256": hashlib.sha256(raw(img)).hexdigest()}


def main():
    rng = random.Random(1)
    images = {
        "square32": picture(32, 32, 1),
        "wide": picture(61, 37, 2),
        "tall": picture(19, 83, 3),
        "grey28": grey_picture(28, 28),
        "dot": picture(1, 1, 4),
    }
    views = []

    def view(name, image, size, crop=None, order=(), factor=(1, 1, 1), hue=0.0, gray=False, sigma=0.0, flip=False):
        img = images[image]
        p = {
            "name": name, "image": image, "size": size,
            "crop": crop or [0, 0, img.size[1], img.size[0]], "order": list(order),
            "factor": list(factor), "hue": hue, "gray": gray, "sigma": sigma, "flip": flip,
        }
        p.update(stored(apply(img, p)))
        views.append(p)

    for image in images:
        view("resize", image, 24)
    view("identity", "square32", 32)
    view("enlarge", "square32", 32, [5, 9, 11, 14])
    view("one axis", "square32", 32, [3, 0, 17, 32])
    view("other axis", "square32", 32, [0, 3, 32, 17])
    view("shrink", "wide", 16, [2, 1, 33, 58])
    view("shrink a lot", "tall", 5, [1, 2, 80, 16])
    view("one pixel", "wide", 8, [4, 7, 1, 1])
    for factor in (0.6, 0.85, 1.0, 1.17, 1.4):
        view("brightness", "square32", 32, None, [0], (factor, 1, 1))
        view("contrast", "square32", 32, None, [1], (1, factor, 1))
        view("saturation", "square32", 32, None, [2], (1, 1, factor))
    for hue in (-0.5, -0.1, -0.033, 0.0, 0.004, 0.07, 0.1, 0.5):
        view("hue", "square32", 32, None, [3], (1, 1, 1), hue)
    view("hue of grey", "grey28", 28, None, [3], (1, 1, 1), 0.1)
    view("grayscale", "square32", 32, gray=True)
    view("flip", "wide", 24, flip=True)
    for sigma in (0.1, 0.37, 0.8, 1.0, 1.5, 2.0):
        view("blur", "square32", 32, sigma=sigma)
    view("blur wider than the image", "square32", 4, sigma=2.0)
    for i in range(16):
        image = rng.choice(["square32", "wide", "tall", "grey28"])
        w, h = images[image].size
        cw, ch = rng.randint(1, w), rng.randint(1, h)
        order = rng.sample(range(4), 4) if i % 4 else []
        size = 224 if i % 8 == 7 else 32
        # Factors are rounded to float32, as PIL takes them.
        factor = [float(np.float32(rng.uniform(0.6, 1.4))) for _ in range(3)]
        view(
            "all", image, size, [rng.randint(0, h - ch), rng.randint(0, w - cw), ch, cw], order, factor,
            rng.uniform(-0.1, 0.1), i % 5 == 0, float(np.float32(rng.uniform(0.1, 2))) if i % 2 else 0.0, i % 3 == 0,
        )

    centres = []
    for image in images:
        for size in (7, 28, 32, 112, 224):
            p = {"image": image, "size": size}
            p.update(stored(centre(images[image], size)))
            centres.append(p)

    tensor = F.normalize(F.to_tensor(images["wide"].resize((24, 24), Image.BILINEAR)), MEAN, STD)
    palette = every_colour()
    golden = {
        "images": {n: {"w": i.size[0], "h": i.size[1], "pix": base64.b64encode(raw(i)).decode()} for n, i in images.items()},
        "views": views,
        "centres": centres,
        "tensor": {"image": "wide", "size": 24, "values": base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode()},
        "palette": {
            "hue": hashlib.sha256(raw(F.adjust_hue(palette, 0.083))).hexdigest(),
            "saturation": hashlib.sha256(raw(F.adjust_saturation(palette, 1.31))).hexdigest(),
            "gray": hashlib.sha256(raw(F.rgb_to_grayscale(palette, 3))).hexdigest(),
        },
    }
    with open(OUT, "w") as f:
        json.dump(golden, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
