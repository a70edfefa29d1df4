"""Runs mochi and its companion program, and reads what they write."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np

DTYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64, "U8": np.uint8}


def read(path):
    """The tensors of a safetensors file, and its metadata."""
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        flat = np.frombuffer(raw, DTYPES[t["dtype"]], offset=8 + length + begin, count=(end - begin) // DTYPES[t["dtype"]]().itemsize)
        tensors[name] = flat.reshape(t["shape"])
    return tensors, metadata


class Mochi:
    """Where the two programs are, and a folder to work in."""

    def __init__(self, binary, shower, work, quick=False):
        self.binary, self.shower, self.work, self.quick = Path(binary), Path(shower), Path(work), quick
        self.work.mkdir(parents=True, exist_ok=True)
        self.runs = 0

    def run(self, *args):
        """Runs mochi and returns what it prints on standard output."""
        done = subprocess.run([self.binary, *map(str, args)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"mochi {' '.join(map(str, args))} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def json(self, *args):
        return json.loads(self.run(*args, "--json").strip().splitlines()[-1])

    def show(self, part, **spec):
        """What the companion shows of a part: tensors by name."""
        self.runs += 1
        out = self.work / f"shown-{self.runs}.safetensors"
        done = subprocess.run([self.shower, part, json.dumps(spec), out], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{part} {spec}: {done.stderr[-2000:]}")
        try:
            return read(out)[0]
        finally:
            os.remove(out)

    def train(self, name, data, **settings):
        """Trains in a folder of that name, and returns it. A setting that is True is a switch."""
        out = self.work / "runs" / name
        args = ["train", "--data", data, "--out", out]
        for key, value in settings.items():
            flag = "--" + key.replace("_", "-")
            args += [flag] if value is True else [flag, value]
        self.run(*args)
        return Run(out)


class Run:
    """The folder of a run."""

    def __init__(self, path):
        self.path = Path(path)

    def checkpoint_path(self, step):
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def checkpoint(self, step):
        return read(self.checkpoint_path(step))

    def log(self):
        with open(self.path / "log.jsonl") as f:
            return [json.loads(line) for line in f]

    def steps(self):
        """The lines of steps, by step."""
        return {line["step"]: line for line in self.log() if "loss" in line and "event" not in line}
