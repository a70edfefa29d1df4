#!/usr/bin/python3
"""Sets mochi's augmentation beside torchvision's on PIL images:

    go run -tags 'turbojpeg simd' ./tools/augment-fidelity PHOTOS OUT 200
    python3 tools/augment-fidelity/compare.py OUT

prints each transform's mean and largest absolute difference in 8-bit steps
(decoding included), and Kolmogorov-Smirnov tests of what is drawn. Exit 1
when a mean is above 1, a largest difference above 8, or a test fails at 1 %."""
import json, math, random, sys
from collections import defaultdict

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms as T
from torchvision.transforms import functional as F

SIZE = 224


def view(image, p):
    c = p["Crop"]
    im = F.resized_crop(image, c["Top"], c["Left"], c["Height"], c["Width"], [SIZE, SIZE], T.InterpolationMode.BILINEAR)
    if p["Jitter"]:
        for part in p["Order"]:
            if part < 3:
                im = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation][part](im, p["Factor"][part])
            elif part == 3:
                im = F.adjust_hue(im, p["HueShift"])
    if p["Grayscale"]:
        im = F.to_grayscale(im, 3)
    if p["BlurRadius"] > 0:
        im = im.filter(ImageFilter.GaussianBlur(p["BlurRadius"]))
    if p["Flip"]:
        im = F.hflip(im)
    return np.asarray(im).transpose(2, 0, 1).astype(np.float32)


def ks(name, a, b):
    """The two-sample test; the asymptotic critical value at 1 % is 1.628."""
    a, b = np.sort(a), np.sort(b)
    x = np.concatenate([a, b])
    d = np.abs(np.searchsorted(a, x, "right") / len(a) - np.searchsorted(b, x, "right") / len(b)).max()
    critical = 1.628 * math.sqrt((len(a) + len(b)) / (len(a) * len(b)))
    print(f"{name:15} D {d:.4f}, critical at 1 % {critical:.4f}")
    return d < critical


def main():
    out = sys.argv[1]
    mean = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
    std = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
    views = json.load(open(f"{out}/views.json"))
    pixels = np.memmap(f"{out}/pixels.f32", np.float32, "r", shape=(len(views), 3, SIZE, SIZE))
    differences, worst, last, ok = defaultdict(list), defaultdict(float), None, True
    for v in views:
        if v["Photo"] != last:
            last, image = v["Photo"], Image.open(v["Photo"]).convert("RGB")
        ours = np.rint((pixels[v["Index"]] * std + mean) * 255)
        d = np.abs(ours - view(image, v["Params"]))
        differences[v["Name"]].append(d.mean())
        worst[v["Name"]] = max(worst[v["Name"]], d.max())
    for name, d in differences.items():
        print(f"{name:15} mean {np.mean(d):.4f}, max {worst[name]:.0f} of 255, on {len(d)} photos")
        ok &= np.mean(d) <= 1 and worst[name] <= 8

    d = json.load(open(f"{out}/draws.json"))
    torch.manual_seed(1)
    random.seed(1)
    image = Image.new("RGB", (d["W"], d["H"]))
    theirs = np.array([T.RandomResizedCrop.get_params(image, (0.2, 1), (3 / 4, 4 / 3)) for _ in range(20000)])
    ours = np.array(d["Crop"])
    for i, name in enumerate(["top", "left", "height", "width"]):
        ok &= ks("crop's " + name, ours[:, i], theirs[:, i])
    params = [T.ColorJitter.get_params((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)) for _ in range(20000)]
    ok &= ks("brightness", np.array(d["Jitter"]), np.array([p[1] for p in params]))
    ok &= ks("hue", np.array(d["Hue"]), np.array([p[4] for p in params]))
    ok &= ks("blur's sigma", np.array(d["Sigma"]), np.array([random.uniform(0.1, 2) for _ in range(20000)]))
    sys.exit(0 if ok else 1)


main()
