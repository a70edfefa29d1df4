#!/usr/bin/env python3
"""Opens what `mochi export` wrote with the programs it is meant for.

    exports.py FOLDER

FOLDER is that of `exchange-check -dir FOLDER`, with exports of NAME.safetensors
beside it: NAME.torchvision, NAME.moco, NAME.timm, NAME.detectron2, NAME.onnx. Each
tensor must be the checkpoint's to the bit, loading is strict, and nothing but data
may be in a file (torch.load(weights_only=True)). What is not installed is said and
left out: torch (also 1.13), torchvision, timm, transformers, onnx, onnxruntime.
"""

import importlib
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import torch

failures = []


def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"not installed, left out: {name}")
        return None


def check(what, ok, detail=""):
    print(f"{'ok  ' if ok else 'FAIL'} {what} {detail}")
    if not ok:
        failures.append(what)


def read_checkpoint(path):
    """A mochi checkpoint, without any library of safetensors."""
    import json
    import struct

    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__")
    types = {"F32": np.float32, "I64": np.int64, "I32": np.int32}
    tensors = {}
    for name, t in header.items():
        begin, end = (8 + length + o for o in t["data_offsets"])
        tensors[name] = np.frombuffer(raw[begin:end], types[t["dtype"]]).reshape(t["shape"])
    return metadata, tensors


def backbone(tensors, encoder="encoder_q."):
    return {
        n[len(encoder) :]: v
        for n, v in tensors.items()
        if n.startswith(encoder) and not n.startswith(encoder + "fc")
    }


def same(what, found, want, prefix=""):
    counters = {n for n in found if n.endswith("num_batches_tracked")}
    names = {prefix + n for n in want}
    wrong = [n for n in want if not np.array_equal(np.asarray(found[prefix + n]), want[n])] if names <= set(found) else sorted(names - set(found))
    check(f"{what}: {len(want)} tensors", not wrong and set(found) - counters == names, str(wrong[:3]))


def cifar_stem(model, width=64):
    """torchvision's ResNet for small images, as in the literature on CIFAR."""
    model.conv1 = torch.nn.Conv2d(3, width, 3, 1, 1, bias=False)
    model.maxpool = torch.nn.Identity()
    return model


class ResNet20(torch.nn.Module):
    """Three stages of BasicBlocks from 16 channels, under torchvision's names."""

    def __init__(self, torchvision):
        super().__init__()
        block = torchvision.models.resnet.BasicBlock
        self.conv1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(16)
        width, self.layers = 16, 3
        for stage in range(3):
            out, blocks = 16 << stage, []
            for i in range(3):
                stride = 2 if stage and not i else 1
                down = None
                if stride != 1 or width != out:
                    down = torch.nn.Sequential(
                        torch.nn.Conv2d(width, out, 1, stride, bias=False),
                        torch.nn.BatchNorm2d(out),
                    )
                blocks.append(block(width, out, stride, down))
                width = out
            setattr(self, f"layer{stage + 1}", torch.nn.Sequential(*blocks))
        self.fc = torch.nn.Identity()

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(3):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


def build(torchvision, arch):
    if arch == "resnet20":
        return ResNet20(torchvision)
    name, _, small = arch.partition("-")
    model = getattr(torchvision.models, name)()
    return cifar_stem(model) if small else model


def reference_layout(torchvision, metadata, tensors, arch):
    """A module with the names of facebookresearch/moco's, in DistributedDataParallel."""
    dim, slots = tensors["queue"].shape
    encoders = []
    for _ in range(2):
        model = build(torchvision, arch)
        features = next(v.shape[1] for n, v in tensors.items() if re.match(r"encoder_q\.fc(\.0)?\.weight", n))
        if "encoder_q.fc.0.weight" in tensors:
            model.fc = torch.nn.Sequential(
                torch.nn.Linear(features, features), torch.nn.ReLU(), torch.nn.Linear(features, dim)
            )
        else:
            model.fc = torch.nn.Linear(features, dim)
        encoders.append(model)

    class MoCo(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder_q, self.encoder_k = encoders
            for p in self.encoder_k.parameters():
                p.requires_grad = False
            self.register_buffer("queue", torch.zeros(dim, slots))
            self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    outer = torch.nn.Module()
    outer.module = MoCo()
    return outer


def check_torchvision(path, arch, tensors, torchvision):
    found = torch.load(path, map_location="cpu", weights_only=True)
    same(path.name, found, backbone(tensors))
    if torchvision:
        model = build(torchvision, arch)
        model.fc = torch.nn.Identity()
        check(f"{path.name}: strict", str(model.load_state_dict(found, strict=True)) == "<All keys matched successfully>")
        check(f"{path.name}: order of keys", list(found) == list(model.state_dict()))


def check_moco(path, arch, metadata, tensors, torchvision):
    # The reader of 1.13 has no numbers with a fraction, which every optimiser has.
    found = torch.load(path, map_location="cpu", weights_only=torch.__version__ >= "2")
    state = {n: v for n, v in found["state_dict"].items()}
    want = {n: v for n, v in tensors.items() if not n.startswith("optimizer.") and n != "queue_labels"}
    same(path.name, state, want, "module.")
    check(f"{path.name}: epoch, arch", found["epoch"] == int(metadata["epoch"]) and found["arch"] == arch)
    if not torchvision:
        return
    model = reference_layout(torchvision, metadata, tensors, arch)
    check(f"{path.name}: strict", str(model.load_state_dict(state, strict=True)) == "<All keys matched successfully>")
    check(f"{path.name}: order of keys", list(state) == list(model.state_dict()))
    sgd = torch.optim.SGD(model.parameters(), 1.0, momentum=0.1, weight_decay=0.1)
    sgd.load_state_dict(found["optimizer"])
    group = sgd.param_groups[0]
    names = [n for n, _ in model.module.encoder_q.named_parameters()]
    buffers = [sgd.state[p]["momentum_buffer"] for p in list(model.parameters())[: len(names)]]
    check(f"{path.name}: momentum", all(np.array_equal(b, tensors["optimizer.momentum." + n]) for n, b in zip(names, buffers)))
    check(f"{path.name}: settings of SGD", group["momentum"] == 0.9 and abs(group["lr"] - 0.03) < 1e-4 and len(sgd.state) == len(names), str(group["lr"]))
    for p in model.parameters():  # it goes on
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    sgd.step()


def check_timm(path, arch, tensors, timm, transformers, safetensors):
    if safetensors:
        with safetensors.safe_open(path / "model.safetensors", "pt") as f:
            check(f"{path.name}: metadata", f.metadata()["format"] == "pt")
            same(path.name, {n: f.get_tensor(n) for n in f.keys()}, backbone(tensors))
    if timm:
        model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        state = {n: v for n, v in model.state_dict().items()}
        same(f"{path.name}: timm", state, backbone(tensors))
        config = timm.data.resolve_model_data_config(model)
        check(f"{path.name}: timm's preprocessing", tuple(config["mean"]) == (0.485, 0.456, 0.406) and tuple(config["input_size"]) == (3, 64, 64), str(config))
        check(f"{path.name}: timm's features", model(torch.zeros(2, 3, 64, 64)).shape == (2, model.num_features))
    if timm and transformers:
        model = transformers.AutoModel.from_pretrained(path)
        state = {n.removeprefix("timm_model."): v for n, v in model.state_dict().items()}
        same(f"{path.name}: transformers", state, backbone(tensors))


def check_detectron2(path, arch, tensors):
    with path.open("rb") as f:
        found = pickle.load(f, encoding="latin1")
    check(f"{path.name}: heuristics", found["matching_heuristics"] is True and "__author__" in found)
    # The names of Detectron2's own model: modeling/backbone/resnet.py, build_resnet_backbone
    # with stem, res2 … res5, each block with conv1 … conv3, shortcut, and their norm.
    want = {}
    for name, value in backbone(tensors).items():
        stage = re.fullmatch(r"layer(\d)\.(\d+)\.(.*)", name)
        rest = stage[3] if stage else name
        where = f"res{int(stage[1]) + 1}.{stage[2]}." if stage else "stem."
        rest = re.sub(r"^bn(\d)\.", r"conv\1.norm.", rest)
        rest = re.sub(r"^downsample\.0\.", "shortcut.", rest)
        rest = re.sub(r"^downsample\.1\.", "shortcut.norm.", rest)
        want[where + rest] = value
    same(path.name, found["model"], want)


def check_onnx(path, tensors, onnx, runtime, features):
    if onnx:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        opset = model.opset_import[0].version
        check(f"{path.name}: checker", opset <= 17, f"opset {opset}")
    if runtime:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for batch in (1, 7):
            got = session.run(["features", "embedding"], {"input": features["images"][:batch]})
            for name, value in zip(("features", "embedding"), got):
                want = features[name][:batch]
                worst = np.abs(value - want).max() / np.abs(want).max()
                check(f"{path.name}: {name} of {batch}", worst < 1e-4, f"max_rel {worst:.1e}")


def reference_features(torchvision, folder, arch, tensors):
    """Features by PyTorch of the images, and the embedding of length 1."""
    from PIL import Image

    files = sorted((folder / "images").glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(f).convert("RGB"), np.float32) for f in files]) / 255
    pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    model = build(torchvision, arch)
    model.fc = torch.nn.Identity()
    model.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in backbone(tensors).items()}, strict=False)
    head = {n.removeprefix("encoder_q."): torch.from_numpy(v.copy()) for n, v in tensors.items() if n.startswith("encoder_q.fc")}
    with torch.no_grad():
        features = model.eval()(images)
        if "fc.0.weight" in head:
            x = torch.relu(features @ head["fc.0.weight"].T + head["fc.0.bias"]) @ head["fc.2.weight"].T + head["fc.2.bias"]
        else:
            x = features @ head["fc.weight"].T + head["fc.bias"]
        embedding = torch.nn.functional.normalize(x)
    return {"images": images.numpy(), "features": features.numpy(), "embedding": embedding.numpy()}


def main():
    folder = Path(sys.argv[1])
    torchvision, timm, transformers, onnx, runtime = map(optional, ("torchvision", "timm", "transformers", "onnx", "onnxruntime"))
    safetensors = optional("safetensors")
    print("torch", torch.__version__)
    for path in sorted(folder.glob("*.safetensors")):
        arch = path.stem
        metadata, tensors = read_checkpoint(path)
        check(f"{path.name}: format", metadata["format"] == "pt")
        if safetensors:
            with safetensors.safe_open(path, "pt") as f:
                check(f"{path.name}: safetensors", set(f.keys()) == set(tensors))
        parts = {p.suffix[1:]: p for p in folder.glob(arch + ".*")}
        if "torchvision" in parts:
            check_torchvision(parts["torchvision"], arch, tensors, torchvision)
        if "moco" in parts:
            check_moco(parts["moco"], arch, metadata, tensors, torchvision)
        if "timm" in parts:
            check_timm(parts["timm"], arch, tensors, timm, transformers, safetensors)
        if "detectron2" in parts:
            check_detectron2(parts["detectron2"], arch, tensors)
        for kind in ("onnx", "folded"):
            if kind in parts and torchvision:
                check_onnx(parts[kind], tensors, onnx, runtime, reference_features(torchvision, folder, arch, tensors))
    print(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
