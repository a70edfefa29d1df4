"""Views replayed from their parameters, what is drawn, and decoding."""

import itertools
import math
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images
from torchvision import transforms as T
from torchvision.transforms import functional as F

import stats

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def photos():
    """Two photographs that come with scikit-learn, 640×427."""
    return [Image.fromarray(a) for a in load_sample_images().images]


def pictures(folder, kinds):
    """Writes PNG files of parts of the photographs, of so many of each size (w, h)."""
    folder.mkdir(parents=True)
    rng, sources = random.Random(3), photos()
    for (w, h), count in kinds.items():
        for i in range(count):
            photo = sources[i % 2]
            scale = rng.uniform(1, min(photo.width / w, photo.height / h)) if w <= photo.width and h <= photo.height else 1
            cw, ch = min(int(w * scale), photo.width), min(int(h * scale), photo.height)
            left, top = rng.randint(0, photo.width - cw), rng.randint(0, photo.height - ch)
            part = photo.crop((left, top, left + cw, top + ch)).resize((w, h), Image.BICUBIC)
            if i % 5 == 4:
                part = part.convert("L").convert("RGB")
            part.save(folder / f"{w:04d}x{h:04d}-{i:03d}.png")


def replay(image, at, p):
    """One view by torchvision and Pillow, from the parameters of row at."""
    top, left, height, width = (int(v) for v in p["crop"][at])
    rw, rh, wx, wy = (int(v) for v in p["resized"][at])
    size = p["views"].shape[-1]
    jitter, grey, blur, flip = p["flags"][at]
    factor = [float(v) for v in p["factor"][at]]
    view = F.resize(F.crop(image, top, left, height, width), [rh, rw], T.InterpolationMode.BILINEAR)
    if (rw, rh) != (size, size):
        view = F.crop(view, wy, wx, size, size)
    if jitter:
        for part in p["order"][at]:
            if part == BRIGHTNESS:
                view = F.adjust_brightness(view, factor[0])
            elif part == CONTRAST:
                view = F.adjust_contrast(view, factor[1])
            elif part == SATURATION:
                view = F.adjust_saturation(view, factor[2])
            else:
                view = F.adjust_hue(view, factor[3])
    if grey:
        view = F.to_grayscale(view, 3)
    if blur:
        view = view.filter(ImageFilter.GaussianBlur(radius=factor[4]))
    if flip:
        view = F.hflip(view)
    return F.normalize(F.to_tensor(view), MEAN, STD).numpy()


SIZES = {
    224: {(500, 375): 12, (375, 500): 4, (640, 427): 2, (120, 90): 2},
    96: {(96, 96): 20, (160, 120): 10, (333, 222): 6, (20, 300): 2, (300, 20): 2},
    32: {(32, 32): 60, (28, 28): 10, (40, 64): 10, (7, 90): 4, (3, 3): 2, (1, 1): 1},
}
EPOCHS = {224: 8, 96: 10, 32: 20}


def replayed(mochi, report):
    report.begin("Views, replayed from their parameters by torchvision on Pillow")
    for size, kinds in SIZES.items():
        folder = mochi.work / f"pictures-{size}"
        pictures(folder, kinds)
        paths = sorted(folder.iterdir())
        for recipe, epochs in (("moco-v2", EPOCHS[size]), ("cifar", EPOCHS[size] // 2), ("none", 1)):
            shown = mochi.show("views", Images=str(folder), Recipe=recipe, Size=size, Seed=7, Epochs=epochs)
            each = 2 * epochs
            differing, worst = 0, 0.0
            for i, path in enumerate(paths):
                image = Image.open(path).convert("RGB")
                for at in range(i * each, (i + 1) * each):
                    want, got = replay(image, at, shown), shown["views"][at]
                    if not np.array_equal(want.view(np.int32), got.view(np.int32)):
                        differing += 1
                        worst = max(worst, float(np.abs(want - got).max()))
            note = f", by up to {worst:.3g}" if differing else ""
            report.none(f"views of {size}×{size}, recipe {recipe}: that differ in a bit{note}", differing, len(paths) * each)


def drawn(mochi, report):
    report.begin("What is drawn for a view")
    n = 20000
    for recipe, low, blurred in (("moco-v2", 0.2, 0.5), ("cifar", 0.08, 0.0)):
        for w, h in ((500, 375), (32, 32), (300, 20)):
            p = mochi.show("draws", Recipe=recipe, Size=96, Width=w, Height=h, Seed=11, Samples=n, Epoch=3)
            torch.manual_seed(1)
            image = Image.new("RGB", (w, h))
            theirs = np.array([T.RandomResizedCrop.get_params(image, (low, 1), (3 / 4, 4 / 3)) for _ in range(n)], float)
            ours = p["query.crop"].astype(float)
            columns = {"top": 0, "left": 1, "height": 2, "width": 3}
            worst = min(stats.same_law(ours[:, c], theirs[:, c]) for c in columns.values())
            worst = min(worst, stats.same_law(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]))
            worst = min(worst, stats.same_law(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]))
            report.above(
                f"{recipe}, images of {w}×{h}: crop's place, sides, area and shape as torchvision draws them, smallest p", worst, 1e-4
            )
        p = mochi.show("draws", Recipe=recipe, Size=96, Width=500, Height=375, Seed=11, Samples=n, Epoch=3)
        laws(report, recipe, p, blurred)


def laws(report, recipe, p, blurred):
    """What is drawn besides the crop, of query views and key views."""
    flags = np.concatenate([p["query.flags"], p["key.flags"]])
    order, factor = np.concatenate([p["query.order"], p["key.order"]]), np.concatenate([p["query.factor"], p["key.factor"]])
    jitter, blur = flags[:, 0] == 1, flags[:, 2] == 1
    off = max(stats.share(flags[:, c].sum(), len(flags), share) for c, share in ((0, 0.8), (1, 0.2), (3, 0.5)))
    report.below(f"{recipe}: jitter in 0.8, grey in 0.2, flip in 0.5 of all views, standard errors off at most", off, 4)
    if blurred:
        report.below(f"{recipe}: blur in 0.5 of all views, standard errors off", stats.share(blur.sum(), len(blur), 0.5), 4)
        report.above(f"{recipe}: blur's σ uniform in 0.1 … 2, p", stats.uniform(factor[blur, 4], 0.1, 2.0), 1e-4)
    else:
        report.none(f"{recipe}: views with a blur", int(blur.sum()), len(blur))
    each = min(stats.uniform(factor[jitter, c], 0.6, 1.4) for c in range(3))
    report.above(f"{recipe}: brightness, contrast, saturation uniform in 0.6 … 1.4, smallest p", each, 1e-4)
    report.above(f"{recipe}: hue uniform in −0.1 … 0.1, p", stats.uniform(factor[jitter, 3], -0.1, 0.1), 1e-4)
    orders = list(itertools.permutations(range(4)))
    counts = [int((order[jitter] == o).all(1).sum()) for o in orders]
    report.above(f"{recipe}: the 24 orders of the jitter's parts equally often, p", stats.equally_often(counts), 1e-4)

    def always(view, shape):
        """What every view has. A crop's shape and its area are not independent: what does not fit is drawn again."""
        crop = p[view + ".crop"].astype(float)
        place = [crop[:, 0] / np.maximum(375 - crop[:, 2], 1), crop[:, 1] / np.maximum(500 - crop[:, 3], 1)]
        extent = crop[:, 3] / crop[:, 2] if shape else crop[:, 2] * crop[:, 3]
        blur = p[view + ".factor"][:, 4:] if blurred else np.empty((len(crop), 0))
        return np.concatenate([np.stack([*place, extent, *p[view + ".flags"].T[[1, 3]]], 1), blur], 1)

    def jittered(view):
        return np.concatenate([p[view + ".factor"][:, :4], p[view + ".order"][:, :1]], 1)

    query, key = always("query", False), always("key", False)
    both = (p["query.flags"][:, 0] == 1) & (p["key.flags"][:, 0] == 1)
    one, other = jittered("query")[both], jittered("key")[both]
    flag = p["query.flags"][:, :1]
    alike = max(stats.largest_correlation(np.concatenate([columns, flag], 1)) for columns in (query[:, 2:], always("query", True)[:, 2:]))
    alike = max(alike, stats.largest_correlation(np.concatenate([query[both][:, 2:], one], 1)), stats.largest_correlation(query[:, :2]))
    report.below(f"{recipe}: parameters of one view are independent, largest rank correlation × √n", alike, 5)
    across = max(stats.largest_correlation(query, key), stats.largest_correlation(one, other))
    report.below(f"{recipe}: query view and key view are independent, likewise", across, 5)
    following = max(stats.largest_correlation(query[:-1], query[1:]), stats.largest_correlation(one[:-1], one[1:]))
    report.below(f"{recipe}: views of following samples are independent, likewise", following, 5)


def image_files(folder):
    """Writes image files of many kinds; which mochi reads otherwise than Pillow by its own rule is in the second list."""
    folder.mkdir(parents=True)
    a, b = photos()
    rng = random.Random(5)
    for i, (quality, sampling) in enumerate(itertools.product((30, 75, 95), (0, 1, 2))):
        for w, h in ((320, 213), (161, 107), (33, 47)):
            part = (a, b)[i % 2].resize((w, h), Image.BICUBIC)
            part.save(folder / f"q{quality}-s{sampling}-{w}x{h}.jpg", quality=quality, subsampling=sampling)
    small = a.resize((200, 133), Image.BICUBIC)
    small.save(folder / "progressive.jpg", progressive=True, subsampling=2)
    small.save(folder / "optimised.jpg", optimize=True)
    small.save(folder / "restart.jpg", restart_marker_blocks=3)
    small.convert("L").save(folder / "grey.jpg")
    small.convert("CMYK").save(folder / "cmyk.jpg")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        small.save(folder / f"orientation-{orientation}.jpg", exif=exif)
    for mode in ("RGB", "L", "P", "1", "RGBA", "LA"):
        image = small.convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.effect_noise(image.size, 90))
        image.save(folder / f"mode-{mode}.png")
    deep = np.array([[rng.randrange(65536) for _ in range(50)] for _ in range(40)], np.uint16)
    Image.fromarray(deep).save(folder / "grey-16.png")
    return deep


def decoded(mochi, report):
    turbo = "libjpeg-turbo" in mochi.run("version")
    report.begin("Decoding, beside Pillow" + ("" if turbo else " (this build decodes JPEG by Go's image/jpeg)"))
    folder = mochi.work / "files"
    deep = image_files(folder)
    shown = mochi.show("decoded", Images=str(folder))
    kinds = {"JPEG files": [], "PNG files": [], "EXIF orientations (turned upright, as Pillow's exif_transpose)": []}
    for path in sorted(folder.iterdir()):
        image = ImageOps.exif_transpose(Image.open(path))
        want = np.asarray(image.convert("RGB"))
        if path.name == "grey-16.png":
            want = np.repeat((deep >> 8).astype(np.uint8)[:, :, None], 3, 2)
        got = shown[path.name]
        kind = list(kinds)[2 if path.name.startswith("orientation") else path.suffix == ".png"]
        same = got.shape == want.shape
        kinds[kind].append(float(np.abs(got.astype(int) - want).mean()) if same else math.inf)
    for kind, off in kinds.items():
        if turbo or kind == "PNG files":
            report.none(f"{kind}: whose pixels differ", sum(d > 0 for d in off), len(off))
        else:
            report.below(f"{kind}: largest mean difference, of 255", max(off), 8)


def data_folder(folder: Path, train, test):
    """Writes an image folder train/<class>, test/<class> from (image, class) pairs."""
    for split, items in (("train", train), ("test", test)):
        for i, (image, label) in enumerate(items):
            at = folder / split / f"class-{label}"
            at.mkdir(parents=True, exist_ok=True)
            image.save(at / f"{i:05d}.png")
    return folder
