#!/usr/bin/env python3
"""Compares features of files that PyTorch wrote with mochi's features of them.

    imports.py FOLDER MOCHI

FOLDER is that of `exchange-check -dir FOLDER`; MOCHI is the program. For each layout
that mochi import knows, a network with random weights and statistics is saved as that
library saves it; `mochi embed` must give PyTorch's features of the images within 1e-5.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys

import numpy as np
import torch
import torchvision
from PIL import Image

failures = []


def network(name="resnet18", pad=None, seed=0):
    """A torchvision network with statistics as after training; pad: a 3×3 stem."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, name)()
    if pad is not None:
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, pad, bias=False)
        model.maxpool = torch.nn.Identity()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model


def state_of(model, prefix="", fc=True):
    return collections.OrderedDict((prefix + n, v) for n, v in model.state_dict().items() if fc or not n.startswith("fc."))


def head(features, dim, prefix):
    """A projection head with hidden layer, as Sequential(Linear, ReLU, Linear) names it."""
    layers = {0: torch.nn.Linear(features, features), 2: torch.nn.Linear(features, dim)}
    return {f"{prefix}{i}.{n}": v for i, layer in layers.items() for n, v in layer.state_dict().items()}


def lightly_names(model):
    """Sequential(*children()[:-1]) of a torchvision model."""
    index = {n: str(i) for i, (n, _) in enumerate(model.named_children())}
    return {index[n.split(".")[0]] + "." + n.split(".", 1)[1]: v for n, v in model.state_dict().items() if not n.startswith("fc.")}


def transformers_names(model):
    out = {}
    for n, v in model.state_dict().items():
        if n.startswith("fc."):
            continue
        n = n.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
        for stage in range(1, 5):
            if n.startswith(f"layer{stage}."):
                _, block, rest = n.split(".", 2)
                for i in range(1, 4):
                    rest = rest.replace(f"conv{i}.", f"layer.{i - 1}.convolution.").replace(f"bn{i}.", f"layer.{i - 1}.normalization.")
                n = f"encoder.stages.{stage - 1}.layers.{block}.{rest}"
        if n.startswith("conv1."):
            n = "embedder.embedder.convolution." + n[6:]
        if n.startswith("bn1."):
            n = "embedder.embedder.normalization." + n[4:]
        out["resnet." + n] = v
    return out


def files(folder):
    """name → (file, network, image size)."""
    small, large, wide = network(pad=1, seed=1), network("resnet50", seed=2), network(pad=2, seed=3)
    other = network("resnet50", seed=4)
    odd = argparse.Namespace(lr=0.1, callbacks=[print.__name__])

    def save(name, value, **options):
        path = folder / name
        torch.save(value, path, **options)
        return path

    dim = 64
    moco = {"epoch": 200, "arch": "resnet50", "optimizer": None}
    moco["state_dict"] = state_of(large, "module.encoder_q.", False) | head(2048, dim, "module.encoder_q.fc.")
    released = dict(moco, state_dict=collections.OrderedDict(moco["state_dict"]))
    moco["state_dict"] |= state_of(other, "module.encoder_k.", False) | head(2048, dim, "module.encoder_k.fc.")
    moco["state_dict"] |= {"module.queue": torch.randn(dim, 96), "module.queue_ptr": torch.tensor([32])}
    lightly = state_of(large, "backbone.", False) | head(2048, dim, "projection_head.layers.")
    lightly |= state_of(other, "key_backbone.", False) | head(2048, dim, "key_projection_head.layers.")
    lightly |= {"online_classifier.weight": torch.zeros(10, 2048)}
    tutorial = {"backbone." + n: v for n, v in lightly_names(network(seed=5)).items()} | head(512, dim, "projection_head.layers.")
    solo = state_of(wide, "backbone.", False) | head(512, dim, "projector.") | state_of(wide, "momentum_backbone.", False)
    solo |= head(512, dim, "momentum_projector.") | {"queue": torch.randn(2, dim, 96), "queue_ptr": torch.zeros(1, dtype=torch.long), "classifier.weight": torch.zeros(10, 512)}
    views = state_of(large)
    flat = torch.cat([v.reshape(-1) for v in views.values() if v.dtype == torch.float32])
    at, shared = 0, collections.OrderedDict()
    for n, v in views.items():  # all in one storage
        if v.dtype == torch.float32:
            shared[n] = flat[at : at + v.numel()].view(v.shape)
            at += v.numel()
    channels_last = network("resnet50", seed=2).to(memory_format=torch.channels_last)
    half = collections.OrderedDict((n, v.half() if v.is_floating_point() else v) for n, v in views.items())
    halved = network("resnet50", seed=2)
    halved.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in half.items()})
    brain = collections.OrderedDict((n, v.bfloat16() if v.is_floating_point() else v) for n, v in views.items())
    brained = network("resnet50", seed=2)
    brained.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in brain.items()})
    old = {"_use_new_zipfile_serialization": False}
    lightning = {"state_dict": lightly, "hyper_parameters": odd, "epoch": 9, "pytorch-lightning_version": "2.0"}
    made = {
        "moco": (save("moco.pth.tar", moco), large, 224),
        "moco, released": (save("released.pth.tar", released), large, 224),
        "torchvision": (save("torchvision.pth", state_of(large)), large, 224),
        "torchvision, legacy": (save("legacy.pth", state_of(large), **old), large, 224),
        "torchvision, resnet18, small stem": (save("small.pth", state_of(small)), small, 32),
        "lightly": (save("lightly.ckpt", lightning), large, 224),
        "lightly, tutorial": (save("tutorial.ckpt", {"state_dict": tutorial}), network(seed=5), 224),
        "solo-learn": (save("solo.ckpt", {"state_dict": solo, "hyper_parameters": odd}), wide, 32),
        "views of one storage": (save("views.pth", shared), large, 224),
        "views, legacy": (save("views-legacy.pth", shared, **old), large, 224),
        "channels last": (save("strides.pth", channels_last.state_dict()), large, 224),
        "fp16": (save("half.pth", half), halved, 224),
        "bf16": (save("brain.pth", brain), brained, 224),
        "protocol 4": (save("protocol4.pth", state_of(large), pickle_protocol=4), large, 224),
        "DDP and compile": (save("ddp.pth", {"model": state_of(large, "module._orig_mod.")}), large, 224),
        "stripped letters": (save("lstrip.pth", {n.lstrip("backbone."): v for n, v in state_of(large, "backbone.", False).items()}), large, 224),
        "MMPreTrain": (save("mm.pth", {"state_dict": state_of(large, "backbone.", False), "meta": odd}), large, 224),
    }
    try:
        from safetensors.torch import save_file

        plain = {n: v.contiguous() for n, v in state_of(large).items()}
        save_file(plain, folder / "timm.safetensors.in")
        save_file({n: v.half() if v.is_floating_point() else v for n, v in plain.items()}, folder / "half.safetensors.in", metadata={"format": "pt"})
        save_file(transformers_names(large), folder / "hf.safetensors.in")
        made |= {
            "timm": (folder / "timm.safetensors.in", large, 224),
            "timm, fp16": (folder / "half.safetensors.in", halved, 224),
            "transformers": (folder / "hf.safetensors.in", large, 224),
        }
    except ImportError:
        print("not installed, left out: safetensors")
    return made


def pictures(folder, size):
    out = []
    for f in sorted((folder / "images").glob("*/*.png")):
        image = Image.open(f).convert("RGB")
        short = size * 8 // 7 if size >= 112 else size
        image = torchvision.transforms.functional.center_crop(torchvision.transforms.functional.resize(image, short), size)
        out.append(np.asarray(image, np.float32) / 255)
    pixels = (np.stack(out) - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def main():
    folder, mochi = pathlib.Path(sys.argv[1]), sys.argv[2]
    work = folder / "foreign"
    work.mkdir(exist_ok=True)
    for name, (path, model, size) in files(work).items():
        model.fc = torch.nn.Identity()
        with torch.no_grad():
            want = model.eval()(pictures(folder, size)).numpy()
        features = work / "features.npy"
        run = subprocess.run([mochi, "embed", "--checkpoint", path, "--data", folder / "images", "--out", features, "--json"], capture_output=True, text=True)
        worst = np.inf
        if run.returncode == 0:
            worst = np.abs(np.load(features) - want).max() / np.abs(want).max()
        ok = worst < 1e-5
        said = subprocess.run([mochi, "import", path, "--out", work / "out.safetensors", "--json"], capture_output=True, text=True)
        report = json.loads(said.stdout) if said.returncode == 0 else {}
        detail = f"{report.get('layout')}, {report.get('arch')}, {len(report.get('loaded', []))} loaded, missing {report.get('missing')}, unexpected {report.get('unexpected')}"
        print(f"{'ok  ' if ok else 'FAIL'} {name}: max_rel {worst:.1e}; {detail} {run.stderr if not ok else ''} {said.stderr}")
        if not ok or said.returncode:
            failures.append(name)
    print(f"{len(failures)} failed: {failures}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
