#!/usr/bin/env python3
"""torchvision's Faster R-CNN from a backbone of `mochi export --format torchvision`, beside
one from the same tensors, read from the checkpoint and saved by PyTorch: the losses of some
training steps.

    python3 tools/compare/detector.py --checkpoint FILE --photos DIR [--steps 3] [--size 256]

Each image is a grey canvas with photos of DIR/<class>/* pasted on it, whose edges are the
boxes. Both runs draw the same numbers, so any difference is one of the files. FILE is of a
ResNet-50. Needs `make build`, torch, torchvision and numpy.
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile

import torch
from torch import nn
from torchvision.io import ImageReadMode, read_image
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.transforms.functional import resize

from linear import ROOT, checkpoint


def boxed(photos, size, generator):
    """A canvas with two photos, and their boxes and classes."""
    canvas = torch.full((3, size, size), 0.5)
    boxes, labels = [], []
    for half in range(2):
        path, label = photos[int(torch.randint(len(photos), (1,), generator=generator))]
        side = size // 4 + int(torch.randint(size // 4, (1,), generator=generator))
        photo = resize(read_image(path, ImageReadMode.RGB), [side, side], antialias=True) / 255
        x = half * size // 2
        y = int(torch.randint(size - side, (1,), generator=generator))
        side = min(side, size - x)
        canvas[:, y:y + side, x:x + side] = photo[:, :side, :side]
        boxes.append([x, y, x + side, y + side])
        labels.append(label)
    return canvas, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)}


def losses(weights, batches, classes, seed):
    torch.manual_seed(seed)
    body = resnet50(norm_layer=nn.BatchNorm2d)
    missing, unexpected = body.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    missing = [m for m in missing if not m.endswith("num_batches_tracked")]
    if set(missing) - {"fc.weight", "fc.bias"} or unexpected:
        sys.exit(f"{weights}: lacks {missing}, has {unexpected} besides")
    size = batches[0][0][0].shape[-1]
    model = FasterRCNN(_resnet_fpn_extractor(body, trainable_layers=5), num_classes=classes + 1, min_size=size, max_size=size)
    model.train()
    sgd = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    found = []
    for images, targets in batches:
        parts = model(images, targets)
        total = sum(parts.values())
        sgd.zero_grad()
        total.backward()
        sgd.step()
        found.append({name: value.item() for name, value in parts.items()})
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoint", required=True)
    p.add_argument("--photos", required=True)
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--size", type=int, default=256)
    o = p.parse_args()
    classes = sorted(d for d in os.listdir(o.photos) if os.path.isdir(os.path.join(o.photos, d)))
    photos = [(f, i + 1) for i, c in enumerate(classes) for f in sorted(glob.glob(os.path.join(o.photos, c, "*.jpg")))]
    if not photos:
        sys.exit(f"{o.photos}: no DIR/<class>/*.jpg")
    generator = torch.Generator().manual_seed(1)
    batches = [tuple(zip(*(boxed(photos, o.size, generator) for _ in range(o.batch)))) for _ in range(o.steps)]
    batches = [(list(images), list(targets)) for images, targets in batches]
    with tempfile.TemporaryDirectory() as tmp:
        exported, saved = os.path.join(tmp, "mochi.pth"), os.path.join(tmp, "pytorch.pth")
        subprocess.run([os.path.join(ROOT, "bin", "mochi"), "export", o.checkpoint, "--format", "torchvision", "--out", exported],
                       check=True, stdout=subprocess.DEVNULL)
        tensors, _ = checkpoint(o.checkpoint)
        names = {k: k.removeprefix("encoder_q.") for k in tensors if k.startswith("encoder_q.") and not k.startswith("encoder_q.fc.")}
        torch.save({name: torch.from_numpy(tensors[k].copy()) for k, name in names.items()}, saved)
        ours, theirs = (losses(w, batches, len(classes), 1) for w in (exported, saved))
    for step, (a, b) in enumerate(zip(ours, theirs), 1):
        print(f"step {step}: " + ", ".join(f"{name} {a[name]:.6f} and {b[name]:.6f}" for name in a))
    print("the same losses" if ours == theirs else "the losses differ")
    sys.exit(0 if ours == theirs else 1)


if __name__ == "__main__":
    main()
