"""Pictures that nobody should send: broken, lying, enormous, animated, and several formats at once."""

import io
import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image as Pillow
from PIL import PngImagePlugin

Random = random.Random
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK")


def encoded(picture: Pillow.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    try:
        picture.save(buffer, form, **options)
    except (OSError, ValueError):  # not every mode goes into every format
        picture.convert("RGB").save(buffer, form, **options)
    return buffer.getvalue()


def good(chance: Random) -> bytes:
    """Any mode, any format, any small size; nothing is wrong with it."""
    size = (chance.choice((1, 2, 3, 40, 97, 200)), chance.choice((1, 2, 3, 40, 97, 200)))
    picture = Pillow.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1]))
    mode = chance.choice(MODES)
    picture = Pillow.new("I;16", size, 40_000) if mode == "I;16" else picture.convert(mode)
    return encoded(picture, chance.choice(FORMATS))


def truncated(chance: Random) -> bytes:
    data = good(chance)
    return data[: chance.randrange(len(data))]


def corrupt(chance: Random) -> bytes:
    data = bytearray(good(chance))
    for _ in range(chance.choice((1, 3, 30, 300))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def enormous(chance: Random) -> bytes:
    """A small file whose header promises more pixels than any machine holds."""
    width, height = chance.choice(((60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (0, 9), (8_000, 8_000)))
    kind = chance.randrange(3)
    if kind == 0:
        return png(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), idat(b"\0" * 1000))
    if kind == 1:
        return b"GIF89a" + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF) + b"\x80\0\0" + b"\0" * 6 + b";"
    header = struct.pack("<IiiHHIIiiII", 40, width & 0x7FFFFFFF, height & 0x7FFFFFFF, 1, 24, 0, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def bomb(chance: Random) -> bytes:
    """Honest, small as a file, as large as is allowed as a picture, or just larger."""
    side = chance.choice((1000, 1400, 2000, 3000))
    return encoded(Pillow.new(chance.choice(("L", "RGB", "RGBA", "1")), (side, side), 0))


def text_bomb(chance: Random) -> bytes:
    """Compressed texts and profiles that unpack to megabytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "A" * chance.choice((10**4, 10**6, 5 * 10**6)), zip=True)
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 3 * 10**6))
    data = encoded(Pillow.new("RGB", (9, 9)), pnginfo=info)
    return data[:33] + profile + data[33:] if chance.random() < 0.5 else data


def animated(chance: Random) -> bytes:
    frames = [Pillow.new("RGB", (40, 40), (n % 256, 0, 0)) for n in range(chance.choice((2, 50, 300)))]
    form = chance.choice(("GIF", "WEBP", "PNG", "TIFF"))
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def polyglot(chance: Random) -> bytes:
    """A picture that is also something else, or something else that begins like a picture."""
    page = b"<html><script src='http://127.0.0.1/x.js'></script></html>"
    archive = b"PK\x03\x04" + b"\0" * 26 + b"../../etc/passwd" + page
    document = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"
    vector = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd' width='9' height='9'/></svg>"
    before = (b"", b"GIF89a/*", b"%PDF-1.7\n", document, vector, b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WEBPVP8X")
    return (
        chance.choice(before) + (good(chance) if chance.random() < 0.6 else b"") + chance.choice((page, archive, b""))
    )


def wild_exif(chance: Random) -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = chance.choice((0, 3, 6, 9, 65_535))
    exif[0x010E] = "/etc/passwd" * 50
    raw = exif.tobytes()
    if chance.random() < 0.5:
        at = chance.randrange(6, len(raw))
        raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
    return encoded(Pillow.new("RGB", (30, 20), "red"), chance.choice(("JPEG", "PNG", "WEBP", "TIFF")), exif=raw)


def nothing_of_the_kind(chance: Random) -> bytes:
    choices = (b"", b"\0", b"not a picture", bytes(chance.randrange(256) for _ in range(200)), b"\x89PNG\r\n\x1a\n")
    return chance.choice(choices)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def idat(data: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(data))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


PICTURES: tuple[Callable[[Random], bytes], ...] = (
    *(good, good, good, truncated, corrupt, corrupt, enormous, bomb, text_bomb, animated, polyglot, wild_exif),
    nothing_of_the_kind,
)


def hostile_picture(chance: Random) -> bytes:
    return chance.choice(PICTURES)(chance)
