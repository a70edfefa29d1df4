#!/usr/bin/python3
"""Writes replica/data/testdata/golden.json: small image files of every format but
JPEG, and the RGB pixels that PIL decodes them to, turned by ImageOps.exif_transpose.

    python3 tools/image-golden/generate.py > replica/data/testdata/golden.json

Needs Pillow (13.0 made the file in the tree)."""
import base64, hashlib, io, json, math

from PIL import Image, ImageOps, PngImagePlugin


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


def exif(orientation):
    e = Image.Exif()
    e[0x0112] = orientation
    return e.tobytes()


def files():
    im = picture(31, 18)
    alpha = im.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(im.size))

    def save(image, fmt, **options):
        out = io.BytesIO()
        image.save(out, fmt, **options)
        return out.getvalue()

    yield "WebP, lossy", save(im, "WEBP", quality=80)
    yield "WebP, lossy, even", save(picture(24, 16), "WEBP", quality=60)
    yield "WebP, lossless", save(im, "WEBP", lossless=True)
    yield "WebP, turned", save(im, "WEBP", quality=80, exif=exif(6))
    yield "WebP, lossy with alpha", save(alpha, "WEBP", quality=80, exact=True)
    yield "WebP, lossless with alpha", save(alpha, "WEBP", lossless=True, exact=True)
    yield "BMP", save(im, "BMP")
    yield "BMP, palette", save(im.quantize(16), "BMP")
    yield "BMP, grey", save(im.convert("L"), "BMP")
    yield "GIF", save(im.quantize(64), "GIF")
    yield "GIF, animated", save(im.quantize(64), "GIF", save_all=True, append_images=[picture(31, 18).rotate(180).quantize(64)])
    for compression in None, "tiff_lzw", "tiff_adobe_deflate", "packbits":
        yield f"TIFF, {compression}", save(im, "TIFF", compression=compression)
    yield "TIFF, grey", save(im.convert("L"), "TIFF")
    yield "TIFF, palette", save(im.quantize(16), "TIFF")
    yield "TIFF, turned", save(im, "TIFF", tiffinfo={0x0112: 8})
    yield "PNG, turned", save(im, "PNG", exif=exif(6))
    yield "PNG, turned, behind the pixels", behind(save(im, "PNG", exif=exif(3)))
    yield "PNG, turned, raw profile", save(im, "PNG", pnginfo=raw_profile(exif(8)))
    yield "PNG, turned, XMP", save(im, "PNG", pnginfo=xmp(5))
    yield "PNG, palette", save(im.quantize(16), "PNG")


def behind(content):
    """Moves eXIf behind the pixels."""
    at = content.index(b"eXIf") - 4
    length = int.from_bytes(content[at:at + 4], "big") + 12
    chunk = content[at:at + length]
    rest = content[:at] + content[at + length:]
    end = rest.index(b"IEND") - 4
    return rest[:end] + chunk + rest[end:]


def raw_profile(block):
    """As ImageMagick keeps EXIF in PNG files of before 2017."""
    digits = block.hex()
    lines = "\n".join(digits[i:i + 72] for i in range(0, len(digits), 72))
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{lines}\n", zip=True)
    return info


def xmp(orientation):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
                  f'<rdf:Description tiff:Orientation="{orientation}" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></rdf:RDF></x:xmpmeta>')
    return info


def main():
    golden = []
    for name, content in files():
        im = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        w, h = im.size
        golden.append({"name": name, "w": w, "h": h, "content": base64.b64encode(content).decode(),
                       "sha256": hashlib.sha256(im.convert("RGB").tobytes()).hexdigest()})
    print("[\n" + ",\n".join(json.dumps(g) for g in golden) + "\n]")


main()
