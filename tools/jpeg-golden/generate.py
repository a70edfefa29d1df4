#!/usr/bin/python3
"""Writes replica/data/turbojpeg/testdata/golden.json: small JPEG files of every
kind and the RGB pixels that PIL decodes them to.

    python3 tools/jpeg-golden/generate.py > replica/data/turbojpeg/testdata/golden.json

Needs Pillow (9.4 on libjpeg-turbo 2.1.5 made the file in the tree)."""
import base64, hashlib, io, json, math

from PIL import Image


def picture(w, h):
    """Smooth colours with a few hard, coloured edges."""
    im = Image.new("RGB", (w, h))
    for y in range(h):
        for x in range(w):
            edge = 90 if (x // 7 + y // 5) % 3 == 0 else 0
            im.putpixel((x, y), (
                int(127 + 120 * math.sin(x / 9 + y / 17)),
                int(127 + 120 * math.cos(x / 13 - y / 7)),
                (int(40 + 1.3 * x + 0.7 * y) + edge) % 256))
    return im


def adobe(content, transform):
    """Puts an Adobe marker in place of JFIF's."""
    assert content[2:4] == b"\xff\xe0"
    length = int.from_bytes(content[4:6], "big")
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return content[:2] + marker + content[4 + length:]


def files():
    for w, h in (61, 47), (64, 48), (150, 100):
        for name, sampling in ("444", 0), ("422", 1), ("420", 2):
            for progressive in False, True:
                out = io.BytesIO()
                picture(w, h).save(out, "JPEG", quality=85, subsampling=sampling, progressive=progressive)
                yield f"{w}x{h} {name}{' progressive' if progressive else ''}", out.getvalue()
    w, h = 61, 47
    out = io.BytesIO()
    picture(w, h).convert("L").save(out, "JPEG")
    yield "grey", out.getvalue()
    out = io.BytesIO()
    picture(w, h).save(out, "JPEG", quality=95, subsampling=0)
    yield "RGB, Adobe", adobe(out.getvalue(), 0)
    out = io.BytesIO()
    picture(w, h).convert("CMYK").save(out, "JPEG", quality=90)
    yield "CMYK, Adobe", out.getvalue()
    # The same coefficients, said to be YCCK.
    yield "YCCK, Adobe", out.getvalue().replace(b"Adobe\x00\x64\x00\x00\x00\x00\x00", b"Adobe\x00\x64\x00\x00\x00\x00\x02")
    at = out.getvalue().index(b"\xff\xee")
    yield "CMYK, no Adobe", out.getvalue()[:at] + out.getvalue()[at + 16:]


def main():
    golden = []
    for name, content in files():
        im = Image.open(io.BytesIO(content))
        w, h = im.size
        pix = im.convert("RGB").tobytes()
        golden.append({"name": name, "w": w, "h": h, "content": base64.b64encode(content).decode(),
                       "sha256": hashlib.sha256(pix).hexdigest()})
    print("[\n" + ",\n".join(json.dumps(g) for g in golden) + "\n]")


main()
