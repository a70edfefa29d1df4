#!/usr/bin/env python3
"""Reads a mochi checkpoint with nothing but Python's standard library.

An independent reader of the safetensors layout: it prints what
`mochi inspect FILE --json` prints, so that the two can be compared.

    read_checkpoint.py FILE             digests left out (pure Python is slow)
    read_checkpoint.py --digest FILE    all of it, and the file's own digest verified
"""

import argparse
import json
import math
import struct
import sys
from array import array

MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def rotate(x, bits):
    return ((x << bits) | (x >> (64 - bits))) & MASK


def lane(acc, word):
    return rotate((acc + word * P2) & MASK, 31) * P1 & MASK


def xxh64(data):
    """XXH64 with seed 0, after the specification of Yann Collet."""
    size, at = len(data), 0
    if size >= 32:
        accs = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        stripes = size // 32
        for words in struct.iter_unpack("<4Q", memoryview(data)[: stripes * 32]):
            accs = [lane(a, w) for a, w in zip(accs, words)]
        at = stripes * 32
        h = sum(rotate(a, r) for a, r in zip(accs, (1, 7, 12, 18))) & MASK
        for a in accs:
            h = ((h ^ lane(0, a)) * P1 + P4) & MASK
    else:
        h = P5
    h = (h + size) & MASK
    while size - at >= 8:
        (word,) = struct.unpack_from("<Q", data, at)
        h = (rotate(h ^ lane(0, word), 27) * P1 + P4) & MASK
        at += 8
    if size - at >= 4:
        (word,) = struct.unpack_from("<I", data, at)
        h = (rotate(h ^ (word * P1 & MASK), 23) * P2 + P3) & MASK
        at += 4
    for byte in data[at:]:
        h = rotate(h ^ (byte * P5 & MASK), 11) * P1 & MASK
    h = (h ^ (h >> 33)) * P2 & MASK
    h = (h ^ (h >> 29)) * P3 & MASK
    return h ^ (h >> 32)


def read(path):
    """The raw file, its metadata, and its tensors: name → (dtype, shape, bytes)."""
    with open(path, "rb") as f:
        raw = f.read()
    if len(raw) < 8:
        sys.exit(f"{path}: shorter than a safetensors header")
    (length,) = struct.unpack_from("<Q", raw)
    if length > len(raw) - 8:
        sys.exit(f"{path}: cut short, or not a safetensors file")
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    data = memoryview(raw)[8 + length :]
    tensors, end = {}, 0
    for name, t in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = t["data_offsets"]
        width = {"F32": 4, "I32": 4, "I64": 8}[t["dtype"]]
        if begin != end or stop - begin != width * math.prod(t["shape"]):
            sys.exit(f"{path}: {name}: offsets {begin}, {stop} do not fit")
        end = stop
        tensors[name] = (t["dtype"], t["shape"], data[begin:stop])
    if end != len(data):
        sys.exit(f"{path}: {len(data)} bytes of data, the tensors take {end}")
    return raw, length, metadata, tensors


def digests(tensors):
    momentum = "optimizer.momentum."
    names = [n[len(momentum) :] for n in tensors if n.startswith(momentum)]

    def over(selected):
        return f"{xxh64(b''.join(tensors[n][2] for n in selected)):016x}"

    buffers = [
        n
        for prefix in ("encoder_q.", "encoder_k.")
        for n in tensors
        if n.startswith(prefix) and n[len(prefix) :] not in names
    ]
    _, (dim, slots), keys = tensors["queue"]
    columns, labels = array("I", bytes(keys)), array("i", bytes(tensors["queue_labels"][2]))
    (total,) = struct.unpack("<q", tensors["queue_ptr"][2])
    for slot in range(slots):
        key = [columns[i * slots + slot] for i in range(dim)]
        total += xxh64(struct.pack(f"<Ii{dim}I", slot, labels[slot], *key))
    return {
        "encoder_q": over("encoder_q." + n for n in names),
        "encoder_k": over("encoder_k." + n for n in names),
        "optimizer": over(momentum + n for n in names),
        "buffers": over(buffers),
        "queue": f"{total & MASK:016x}",
    }


def main():
    parser = argparse.ArgumentParser(description="Read a mochi checkpoint.")
    parser.add_argument("--digest", action="store_true", help="compute the digests too (slow)")
    parser.add_argument("file")
    args = parser.parse_args()

    raw, length, metadata, tensors = read(args.file)
    dim, slots = tensors["queue"][1]
    info = {
        "file": args.file,
        "format": metadata.get("mochi_format", metadata["format"]),
        "step": int(metadata["step"]),
        "epoch": int(metadata["epoch"]),
        "arch": metadata["arch"],
        "seed": int(metadata["seed"]),
        "samples": json.loads(metadata["sampler"])["cursor"],
        "parameters": sum(
            math.prod(shape)
            for name, (_, shape, _) in tensors.items()
            if name.startswith("optimizer.momentum.")
        ),
        "queue": {
            "length": slots,
            "dim": dim,
            "filled": min(int(metadata["queue_filled"]), slots),
        },
    }
    if args.digest:
        said = metadata["digest"]
        key = b'"digest":"'
        at = raw.index(key, 8, 8 + length) + len(key)
        found = f"{xxh64(raw[:at] + b'0' * 16 + raw[at + 16 :]):016x}"
        if found != said:
            sys.exit(f"{args.file}: digest mismatch: it says {said}, its contents give {found}")
        info["digest"] = digests(tensors)
    print(json.dumps(info, separators=(",", ":")))


if __name__ == "__main__":
    main()
