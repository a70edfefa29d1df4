#!/usr/bin/env python3
"""Writes the golden files of package model/exchange/torch: what torch.save makes of
a few small tensors, in its forms, types and protocols, and their values as JSON.

    golden.py model/exchange/torch/testdata
"""

import argparse
import collections
import datetime
import json
import pathlib
import sys

import numpy as np
import torch


def contents():
    base = torch.arange(24, dtype=torch.float32)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.arange(p.numel()).reshape(p.shape) / 4 + i)
    return {
        "epoch": 7,
        "arch": "resnet50",
        "lr": 0.015,
        "large": 1 << 40,
        "state_dict": net.state_dict(),  # with _metadata
        "views": collections.OrderedDict(
            whole=base,
            rows=base.view(4, 6)[1:3],
            columns=base.view(4, 6)[:, 2:4],
            transposed=base.view(4, 6).t(),
            expanded=base[5].expand(2, 2),
            scalar=torch.tensor(42),
            empty=torch.zeros(0, 3),
            parameter=torch.nn.Parameter(base[2:4].clone()),
        ),
        "types": {
            "half": torch.tensor([1.5, -2, 65504, 6e-8], dtype=torch.float16),
            "bfloat16": torch.tensor([1.5, -2, 3e38, 1e-40], dtype=torch.bfloat16),
            "double": torch.tensor([0.1, -1e-300], dtype=torch.float64),
            "int": torch.tensor([1, -2], dtype=torch.int32),
            "short": torch.tensor([1, -2], dtype=torch.int16),
            "char": torch.tensor([1, -2], dtype=torch.int8),
            "byte": torch.tensor([1, 254], dtype=torch.uint8),
        },
    }


def hyper_parameters():
    """What Lightning and training scripts save beside weights: objects of classes."""
    return {
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/data"), when=datetime.date(2020, 1, 2)),
        "numpy": np.float64(3.5),
        "array": np.arange(3),
        "set": {1},
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[1]),
        "complex": 1 + 2j,
    }


def values(v):
    if isinstance(v, torch.Tensor):
        return {"shape": list(v.shape), "values": v.detach().to(torch.float32).reshape(-1).tolist()}
    if isinstance(v, dict):
        return {k: values(x) for k, x in v.items()}
    return v


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    plain = contents()
    (folder / "values.json").write_text(json.dumps(values(plain), indent=1) + "\n")
    version = torch.__version__.split("+")[0].replace(".", "")
    torch.save(plain, folder / f"zip-{version}.pt")
    torch.save(plain, folder / f"legacy-{version}.pt", _use_new_zipfile_serialization=False)
    full = dict(plain, hyper_parameters=hyper_parameters())
    torch.save(full, folder / f"objects-{version}.pt")
    for protocol in (3, 4, 5):
        torch.save(full, folder / f"protocol{protocol}-{version}.pt", pickle_protocol=protocol)


if __name__ == "__main__":
    main()
