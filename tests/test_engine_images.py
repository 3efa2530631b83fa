"""The engine's pictures against Pillow's: pixels bit for bit, files byte for byte; damaged files never crash it."""

import itertools
import struct
import subprocess
import zlib

import numpy as np
import pytest
from native_programs import program
from PIL import Image
from test_images import CASES, FILES, picture, saved, sixteen_bit_rgb_png, with_orientation

from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.images import MAX_PIXELS, load_image, to_pixels

HALF = (0.5,) * 3
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def run(*arguments, stdin: bytes = b"") -> bytes:
    """What the program prints; T5g2Error with its one line where it says no."""
    done = subprocess.run([program("image_cases"), *map(str, arguments)], input=stdin, capture_output=True, timeout=60)
    if done.returncode == 0:
        assert done.stderr == b""
        return done.stdout
    assert done.returncode == 1 and done.stdout == b"", done
    message = done.stderr.decode()
    assert message.endswith("\n") and message.count("\n") == 1 and ";" in message
    raise T5g2Error(message[:-1])


def pixels(image, side, mean=HALF, std=HALF, header=None, pad=0) -> np.ndarray:
    """The engine's to_pixels. pad: bytes between rows; header: a lie about (width, height, channels, stride)."""
    array = np.asarray(image)
    height, width, channels = array.shape
    stride = width * channels + pad
    rows = np.pad(array.reshape(height, -1), ((0, 0), (0, pad)), constant_values=77).tobytes()
    stdin = struct.pack("<4q", *(header or (width, height, channels, stride))) + rows[: len(rows) - pad]
    return np.frombuffer(run("pixels", side, *mean, *std, stdin=stdin), np.float32).reshape(3, side, side)


def read(path) -> np.ndarray:
    """The engine's read_image."""
    out = run("file", path)
    width, height = struct.unpack("<2q", out[:16])
    return np.frombuffer(out[16:], np.uint8).reshape(height, width, 3)


def random_image(width, height, channels=3, seed=0):
    return Image.fromarray(picture(width, height, channels, seed))


def gradient(width, height):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))


# --- pixels ---

SIZES = [(1, 1), (1, 2), (2, 1), (1, 500), (500, 1), (3, 3), (55, 57), (56, 56), (56, 99), (200, 56), (67, 41), (1500, 900)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [3, 4])
def test_pixels_equal_pillows(size, channels):
    image = random_image(*size, channels)
    for side in (1, 2, 56, 61):
        np.testing.assert_array_equal(pixels(image, side), to_pixels(image, side))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (896, 896), (897, 895), (1200, 777), (301, 1999)], ids=str)
def test_pixels_equal_pillows_at_full_size(size):
    for image in (random_image(*size), gradient(*size)):
        np.testing.assert_array_equal(pixels(image, 896), to_pixels(image, 896))


def test_pixels_equal_pillows_at_random_sizes():
    rng = np.random.default_rng(1)
    for seed in range(100):
        width, height, side = (int(n) for n in np.exp(rng.uniform(0, np.log(400), 3)) + 0.5)
        image = random_image(width, height, seed=seed)
        np.testing.assert_array_equal(pixels(image, side), to_pixels(image, side), f"{width} x {height} to {side}")


@pytest.mark.parametrize("width", [5, 30, 55, 56, 57, 60, 80, 150])
def test_the_direction_that_comes_first_is_pillows(width):
    """Columns where they lose more than twice as many pixels as rows do; rounding between the two shows which it was."""
    for height in sorted({40, 55, 57, *(56 + 2 * max(0, width - 56) + step for step in (-1, 0, 1, 2)), 400}):
        for channels in (3, 4):
            image = random_image(width, height, channels)
            np.testing.assert_array_equal(pixels(image, 56), to_pixels(image, 56), str(height))


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1), (30_000, 2), (2, 30_000), (1 << 20, 1)], ids=str)
def test_very_long_pictures(size):
    image = random_image(*size)
    for side in (1, 56):
        np.testing.assert_array_equal(pixels(image, side), to_pixels(image, side))


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_flat_pictures_stay_flat(level):
    image = Image.new("RGB", (333, 77), (level, 255 - level, level))
    np.testing.assert_array_equal(pixels(image, 56), to_pixels(image, 56))


def test_every_colour_over_every_transparency():
    colours, alphas = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    image = Image.fromarray(np.stack([colours, colours[::-1], 255 - colours, alphas], -1))
    np.testing.assert_array_equal(pixels(image, 256), to_pixels(image, 256))


def test_statistics_and_stride():
    image = random_image(67, 41)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    np.testing.assert_array_equal(pixels(image, 56, mean, std), to_pixels(image, 56, mean, std))
    np.testing.assert_array_equal(pixels(image, 56, pad=13), to_pixels(image, 56))
    clear = random_image(67, 41, 4)
    np.testing.assert_array_equal(pixels(clear, 56, pad=1), to_pixels(clear, 56))


LIES = {
    (0, 5, 3, 0): "0 x 5 pixels; give one with",
    (5, 0, 3, 15): "5 x 0 pixels; give one with",
    (-1, 5, 3, 15): "-1 x 5 pixels; give one with",
    (1 << 62, 1 << 62, 3, 1 << 63 - 1): "more than the limit",
    (1 << 20, 1025, 3, 3 << 20): "more than the limit",
    ((1 << 20) + 1, 1, 3, 4 << 20): "more than the limit",
    (1, 1 << 40, 3, 3): "more than the limit",
    (5, 5, 2, 20): "channels: 2",
    (5, 5, 3, 14): "stride: 14",
    (5, 5, 4, 19): "stride: 19",
    (5, 5, 3, 0): "stride: 0",
}


@pytest.mark.parametrize("header", LIES, ids=str)
def test_views_that_make_no_sense(header):
    with pytest.raises(T5g2Error, match=LIES[header]):
        pixels(random_image(5, 5), 4, header=header)


@pytest.mark.parametrize(
    ("name", "options"),
    [("side", {"side": 0}), ("side", {"side": -5}), ("std", {"std": (0.5, 0, 0.5)}), ("std", {"std": ("nan",) * 3}),
     ("mean", {"mean": ("inf",) * 3})],
)  # fmt: skip
def test_settings_out_of_range(name, options):
    with pytest.raises(T5g2Error, match=f"^{name}: "):
        pixels(random_image(5, 5), **{"side": 4, **options})


# --- JPEG files ---

OTHER_FORMATS = ("webp", "bmp", "tiff", "float tiff", "animated gif", "transparent gif")


@pytest.mark.parametrize("case", [case for case in FILES if case not in OTHER_FORMATS])
def test_file_equals_pillows(tmp_path, case):
    check(FILES[case](tmp_path))


def check(path, label="") -> np.ndarray:
    """Asserts that the engine reads what Pillow reads."""
    expected = np.asarray(load_image(path))
    got = read(path)
    assert got.shape == expected.shape, label
    np.testing.assert_array_equal(got, expected, str(label))
    return got


JPEG_OPTIONS = {
    "4:4:4": {"subsampling": 0, "quality": 95},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
    "restart by block": {"restart_marker_blocks": 1},
    "restart by row": {"restart_marker_rows": 1, "progressive": True},
    "coarse": {"quality": 1},
    "fine": {"quality": 100},
    "optimized": {"optimize": True},
    "RGB": {"keep_rgb": True},
}


@pytest.mark.parametrize("options", JPEG_OPTIONS)
def test_jpeg(tmp_path, options):
    sizes = [(1, 1), (1, 50), (50, 1), (7, 5), (8, 8), (16, 16), (17, 33), (67, 41), (250, 131)]
    for size, make in itertools.product(sizes, (random_image, gradient)):
        check(saved(tmp_path, make(*size), "a.jpg", **JPEG_OPTIONS[options]), size)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpeg_of_other_modes(tmp_path, mode):
    for size, progressive in itertools.product([(1, 1), (17, 33), (67, 41)], (False, True)):
        image = random_image(*size, {"L": 1, "CMYK": 4}[mode])
        check(saved(tmp_path, Image.frombytes(mode, size, image.tobytes()), "a.jpg", progressive=progressive), size)


@pytest.mark.parametrize("sampling", ["11", "12", "21", "22", "41", "14", "31", "42"])
def test_jpeg_samplings_that_pillow_does_not_write(tmp_path, sampling):
    """The first channel's sampling factors are changed in the header: other colours, and an end too early or too late."""
    path = saved(tmp_path, gradient(96, 80), "a.jpg", subsampling=0)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 11] = int(sampling, 16)
    path.write_bytes(data)
    check(path)


@pytest.mark.parametrize("transform", [0, 1, 2])
@pytest.mark.parametrize("case", ["RGB", "CMYK"])
def test_jpeg_adobe_transforms(tmp_path, case, transform):
    """Adobe's marker says whether the channels are RGB or YCbCr, CMYK or YCCK."""
    options = {"keep_rgb": True} if case == "RGB" else {}
    path = saved(tmp_path, CASES[case](), "a.jpg", **options)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xee") + 4
    assert data[at : at + 5] == b"Adobe"
    data[at + 11] = transform
    path.write_bytes(data)
    check(path)
    path.write_bytes(data[: at - 4] + data[at + 12 :])  # without the marker
    check(path)


def test_large_photograph(tmp_path):
    image = gradient(2000, 1500)
    noise = np.random.default_rng(0).integers(-20, 20, (1500, 2000, 3))
    image = Image.fromarray(np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8))
    check(saved(tmp_path, image, "a.jpg", quality=85, exif=exif_bytes(6)))
    check(saved(tmp_path, image, "a.png"))


def test_jpeg_of_too_many_scans(tmp_path):
    """Each costs a pass over the whole picture and a few bytes of file."""
    path = saved(tmp_path, random_image(67, 41), "a.jpg", progressive=True)
    data = path.read_bytes()
    first = data.index(b"\xff\xda")
    length = data.index(b"\xff", first + 2 + int.from_bytes(data[first + 2 : first + 4], "big")) - first
    path.write_bytes(data[:first] + data[first : first + length] * 200 + data[first:])
    with pytest.raises(T5g2Error, match="a.jpg: damaged image file .too many scans.; open it"):
        read(path)


# --- PNG files ---

PNG_KINDS = {0: (1, (1, 2, 4, 8, 16)), 2: (3, (8, 16)), 3: (1, (1, 2, 4, 8)), 4: (2, (8, 16)), 6: (4, (8, 16))}
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, kind, depth, interlaced=False, palette=200, before=b"", after=b"", rows=None, seed=0):
    """A PNG of random bytes under random filters. palette: how many colours it has; before, after: chunks around the pixels."""
    rng = np.random.default_rng(seed)
    data = b""
    for x, y, right, down in PASSES if interlaced else [(0, 0, 1, 1)]:
        across, rows_here = -(-(width - x) // right), -(-(height - y) // down)
        size = (across * PNG_KINDS[kind][0] * depth + 7) // 8
        for _ in range(rows_here if across > 0 else 0):
            data += rng.integers(0, 5, dtype=np.uint8).tobytes() + rng.bytes(size)
    colours = chunk(b"PLTE", rng.bytes(3 * min(palette, 1 << depth))) if kind == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))
    return PNG_SIGNATURE + header + colours + before + chunk(b"IDAT", zlib.compress(data)) + after + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), [(kind, depth) for kind, (_, depths) in PNG_KINDS.items() for depth in depths])
def test_png(tmp_path, kind, depth, interlaced):
    for size in [(1, 1), (1, 9), (9, 1), (4, 4), (5, 3), (8, 8), (67, 41)]:
        path = tmp_path / "a.png"
        path.write_bytes(png(*size, kind, depth, interlaced))
        check(path, size)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth", "transparent"), [
    (0, 1, b"\0\1"), (0, 8, b"\0\7"), (0, 16, b"\1\7"), (2, 8, b"\0\1\0\2\0\3"), (2, 16, b"\0\1\0\2\0\3"), (3, 1, b"\0"),
    (3, 4, b"\0\x80\xff"), (3, 8, bytes(range(200))),
])  # fmt: skip
def test_png_transparency_is_dropped(tmp_path, kind, depth, transparent, interlaced):
    path = tmp_path / "a.png"
    path.write_bytes(png(67, 41, kind, depth, interlaced, before=chunk(b"tRNS", transparent)))
    check(path)


def test_png_other_chunks_change_nothing(tmp_path):
    path = tmp_path / "a.png"
    plain = png(67, 41, 2, 8)
    path.write_bytes(plain)
    expected = check(path)
    others = [
        (b"gAMA", struct.pack(">I", 10000)), (b"sRGB", b"\0"), (b"bKGD", bytes(6)), (b"pHYs", bytes(9)), (b"tIME", bytes(7)),
        (b"iCCP", b"x\0\0" + zlib.compress(bytes(200))), (b"cHRM", bytes(32)), (b"sBIT", b"\1\1\1"), (b"prVt", b"mine"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000))),
    ]  # fmt: skip
    path.write_bytes(png(67, 41, 2, 8, before=b"".join(chunk(*other) for other in others)))
    np.testing.assert_array_equal(check(path), expected)


@pytest.mark.parametrize("at", ["IHDR", "PLTE", "tEXt", "IDAT"])
def test_png_checksums_are_checked(tmp_path, at):
    path = tmp_path / "a.png"
    data = bytearray(png(67, 41, 3, 8, before=chunk(b"tEXt", b"Comment\0hello")))
    start = data.index(at.encode())
    size = int.from_bytes(data[start - 4 : start], "big")
    data[start + 4 + size] ^= 1
    path.write_bytes(data)
    with pytest.raises(T5g2Error, match="a.png: damaged image file .*CRC.*; open it in an image viewer"):
        read(path)


def test_png_bombs(tmp_path):
    """A header that promises what the file cannot hold, and text that inflates, cost no memory."""
    path = tmp_path / "a.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 16, 6, 0, 0, 0))
    path.write_bytes(PNG_SIGNATURE + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    with pytest.raises(T5g2Error, match="a.png: damaged image file .it is truncated."):
        read(path)
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(100 << 20)))
    path.write_bytes(png(67, 41, 2, 8, after=text))
    assert read(path).shape == (41, 67, 3)


# --- orientation ---


def exif_bytes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_orientation(tmp_path, name, orientation):
    for size in [(67, 41), (1, 1), (1, 7), (5, 1)]:
        got = check(saved(tmp_path, random_image(*size), name, exif=exif_bytes(orientation)))
        assert got.shape[:2] == (size if orientation > 4 else size[::-1])


def tiff(order, *fields, head=None, offset=8, outside=b""):
    """A TIFF structure of one directory of (tag, type, count, value as 4 bytes or a number)."""
    directory = struct.pack(order + "H", len(fields))
    for tag, kind, count, value in fields:
        value = value if isinstance(value, bytes) else struct.pack(order + "L", value)
        directory += struct.pack(order + "HHL", tag, kind, count) + value
    head = head or {"<": b"II*\0", ">": b"MM\0*"}[order]
    return head + struct.pack(order + "L", offset) + directory + bytes(4) + outside


def short(order, value):
    return struct.pack(order + "HH", value, 0)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
EXIFS = {
    "little": tiff("<", (0x0112, 3, 1, short("<", 6))),
    "big": tiff(">", (0x0112, 3, 1, short(">", 6))),
    "odd little": tiff("<", (0x0112, 3, 1, short("<", 6)), head=b"II\0*"),
    "odd big": tiff(">", (0x0112, 3, 1, short(">", 6)), head=b"MM*\0"),
    "no TIFF": b"garbage that is no TIFF header",
    "BigTIFF": tiff("<", (0x0112, 3, 1, short("<", 6)), head=b"II+\0"),
    "headed twice": b"Exif\0\0" + tiff("<", (0x0112, 3, 1, short("<", 6))),
    "as long": tiff("<", (0x0112, 4, 1, 6)),
    "as signed long": tiff(">", (0x0112, 9, 1, 6)),
    "as signed short": tiff(">", (0x0112, 8, 1, short(">", 6))),
    "as signed byte": tiff("<", (0x0112, 6, 1, b"\6\0\0\0")),
    "as byte": tiff("<", (0x0112, 1, 1, b"\6\0\0\0")),
    "as text": tiff("<", (0x0112, 2, 1, b"6\0\0\0")),
    "as directory": tiff("<", (0x0112, 13, 1, 6)),
    "as float": tiff("<", (0x0112, 11, 1, struct.pack("<f", 2.5))),
    "unknown type": tiff("<", (0x0112, 99, 1, 6)),
    "no value": tiff("<", (0x0112, 3, 0, 6)),
    "two values": tiff("<", (0x0112, 3, 2, struct.pack("<HH", 6, 3))),
    "three values, outside": tiff("<", (0x0112, 3, 3, 26), outside=struct.pack("<HHH", 6, 3, 1)),
    "out of range": tiff("<", (0x0112, 3, 1, short("<", 600))),
    "zero": tiff("<", (0x0112, 3, 1, short("<", 0))),
    "twice": tiff("<", (0x0112, 3, 1, short("<", 6)), (0x0112, 3, 1, short("<", 3))),
    "after others": tiff("<", (0x010F, 2, 4, b"me\0\0"), (0x011A, 5, 1, 50), (0x0112, 3, 1, short("<", 6)), outside=bytes(20)),
    "after one that is too long": tiff("<", (0x010F, 2, 1 << 31, 8), (0x0112, 3, 1, short("<", 6))),
    "after one that lies outside": tiff("<", (0x010F, 2, 9, 900), (0x0112, 3, 1, short("<", 6)), outside=bytes(20)),
    "cut": tiff("<", (0x0112, 3, 1, short("<", 6)))[:17],
    "cut after it": tiff("<", (0x0112, 3, 1, short("<", 6)))[:22],
    "directory outside": tiff("<", (0x0112, 3, 1, short("<", 6)), offset=5000),
    "directory elsewhere": b"II*\0\x0c\0\0\0abcd" + tiff("<", (0x0112, 3, 1, short("<", 6)))[8:],
    "more fields than there are": tiff("<", (0x0112, 3, 1, short("<", 6)))[:8] + b"\xff\xff"
    + tiff("<", (0x0112, 3, 1, short("<", 6)))[10:],
    "empty": b"",
    "short": b"II*\0",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged tags
@pytest.mark.parametrize("case", EXIFS)
def test_unusual_exif(tmp_path, case):
    """Alone, and beside XMP that says something else."""
    plain = saved(tmp_path, random_image(67, 41), "a.jpg").read_bytes()

    def with_segments(*contents):
        return plain[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(c) + 2) + c for c in contents) + plain[2:]

    exif, xmp = b"Exif\0\0" + EXIFS[case], b"http://ns.adobe.com/xap/1.0/\0" + XMP % 8
    half = len(exif) // 2
    path = tmp_path / "b.jpg"
    for contents in [(exif,), (exif, xmp), (xmp, exif), (exif[:half], b"Exif\0\0" + exif[half:], xmp)]:
        path.write_bytes(with_segments(*contents))
        check(path)
    path = tmp_path / "b.png"
    for chunks in (chunk(b"eXIf", EXIFS[case]), chunk(b"eXIf", EXIFS[case]) + xmp_chunk(XMP % 8)):
        path.write_bytes(png(67, 41, 2, 8, before=chunks))
        check(path)
        path.write_bytes(png(67, 41, 2, 8, after=chunks))
        check(path)


def xmp_chunk(xmp, compressed=False):
    text = zlib.compress(xmp) if compressed else xmp
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes([compressed, 0]) + b"en\0\0" + text)


XMPS = {
    "attribute": XMP % 6,
    "element": b"<tiff:Orientation>6</tiff:Orientation>",
    "second": b'<tiff:Orientation x="3"> tiff:Orientation="6"',
    "out of range": XMP % 9,
    "none": b"<x:xmpmeta/>",
    "cut": b'tiff:Orientation="',
}


@pytest.mark.parametrize("case", XMPS)
def test_orientation_in_xmp(tmp_path, case):
    plain = saved(tmp_path, random_image(67, 41), "a.jpg").read_bytes()
    content = b"http://ns.adobe.com/xap/1.0/\0" + XMPS[case]
    path = tmp_path / "b.jpg"
    path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + plain[2:])
    check(path)
    path = tmp_path / "b.png"
    for compressed in (False, True):
        path.write_bytes(png(67, 41, 2, 8, before=xmp_chunk(XMPS[case], compressed)))
        check(path)


def test_orientation_in_a_text_profile(tmp_path):
    """As ImageMagick writes it."""
    digits = (b"Exif\0\0" + EXIFS["big"]).hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    text = f"\nexif\n{len(digits) // 2:8}\n{lines}\n".encode()
    path = tmp_path / "a.png"
    for key, content in {b"tEXt": text, b"zTXt": b"\0" + zlib.compress(text)}.items():
        path.write_bytes(png(67, 41, 2, 8, before=chunk(key, b"Raw profile type exif\0" + content)))
        assert check(path).shape == (67, 41, 3)
        upright = chunk(b"eXIf", tiff("<", (0x0112, 3, 1, short("<", 1))))
        path.write_bytes(png(67, 41, 2, 8, before=upright + chunk(key, b"Raw profile type exif\0" + content)))
        assert check(path).shape == (41, 67, 3)


# --- what is not a picture ---


def outcome(read_file, path):
    """The picture, or None where the file is refused with its name."""
    try:
        return np.asarray(read_file(path))
    except T5g2Error as error:
        assert str(path) in str(error)
        return None


def whole_files(folder):
    image = random_image(67, 41)
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1, "exif": exif_bytes(6)}):
        yield saved(folder, image, "a.jpg", **options)
    yield saved(folder, image, "a.png", exif=exif_bytes(3))
    yield saved(folder, image.quantize(16), "p.png")
    yield sixteen_bit_rgb_png(folder)
    path = folder / "interlaced.png"
    path.write_bytes(png(67, 41, 6, 8, interlaced=True, after=chunk(b"tEXt", b"Comment\0hello")))
    yield path


def test_truncated_files_are_refused_where_pillow_refuses(tmp_path):
    for path in whole_files(tmp_path):
        whole = path.read_bytes()
        ends = {*range(0, len(whole), max(1, len(whole) // 60)), *range(len(whole) - 40, len(whole))}
        for end in sorted(ends):
            path.write_bytes(whole[:end])
            ours, pillows = outcome(read, path), outcome(load_image, path)
            assert pillows is not None or ours is None, (path.name, end, len(whole))
            if ours is not None:
                np.testing.assert_array_equal(ours, pillows)
            assert (ours is None) or end > len(whole) - 40  # what is left out comes after the pixels


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_never_crash(tmp_path):
    """And those that both take give the same picture: all PNGs, and JPEGs whose damage is not in the entropy-coded data."""
    rng = np.random.default_rng(0)
    refused = 0
    for path in whole_files(tmp_path):
        whole = path.read_bytes()
        header = whole.index(b"\xff\xda") if path.suffix == ".jpg" else len(whole)
        for count in range(60):
            damaged = bytearray(whole)
            for at in rng.integers(0, header if count % 2 else len(whole), 1 + count % 3):
                damaged[at] = rng.integers(256)
            path.write_bytes(damaged)
            ours, pillows = outcome(read, path), outcome(load_image, path)
            refused += ours is None
            if ours is not None and pillows is not None and (path.suffix == ".png" or count % 2):
                np.testing.assert_array_equal(ours, pillows)
    assert refused > 50


def test_too_many_pixels(tmp_path):
    """Refused by what the header says, however little there is."""
    path = tmp_path / "a.png"
    for width, height in [(MAX_PIXELS + 1, 1), (9460, 9460), ((1 << 31) - 1, (1 << 31) - 1)]:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        path.write_bytes(PNG_SIGNATURE + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
        with pytest.raises(T5g2Error, match=f"a.png: {width} x {height} pixels, more than the limit of {MAX_PIXELS}; scale"):
            read(path)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", (1 << 20) + 1, 1, 8, 2, 0, 0, 0))
    path.write_bytes(PNG_SIGNATURE + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(T5g2Error, match=f"more than the limit of {1 << 20} a side; scale"):
        read(path)
    path = saved(tmp_path, random_image(67, 41), "a.jpg")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 40000, 40000)
    path.write_bytes(data)
    with pytest.raises(T5g2Error, match=f"a.jpg: 40000 x 40000 pixels, more than the limit of {MAX_PIXELS}; scale"):
        read(path)


@pytest.mark.parametrize("name", ["webp", "gif", "bmp", "tiff"])
def test_other_formats_are_named(tmp_path, name):
    path = saved(tmp_path, random_image(67, 41), f"a.{name}")
    with pytest.raises(T5g2Error, match=f"(?i)a.{name}: a {name} file, not a JPEG or PNG; convert it"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"<svg xmlns='x'/>", b"%PDF-1.7", b"\xff\xd8", b"\x89PNG\r\n"])
def test_not_a_picture(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(T5g2Error, match="a.png: not a JPEG or PNG; check"):
        read(path)


@pytest.mark.parametrize("content", [PNG_SIGNATURE, b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", PNG_SIGNATURE + bytes(100)])
def test_nothing_but_a_signature(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(T5g2Error, match="a.png: damaged image file .*; open it in an image viewer and save it again"):
        read(path)


def test_two_channels(tmp_path):
    path = saved(tmp_path, random_image(67, 41), "a.jpg")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 2 : at + 4], data[at + 9] = struct.pack(">H", 14), 2
    del data[at + 16 : at + 19]
    at = data.index(b"\xff\xda")
    data[at + 2 : at + 4], data[at + 4] = struct.pack(">H", 10), 2
    del data[at + 9 : at + 11]
    path.write_bytes(data)
    assert outcome(load_image, path) is None
    with pytest.raises(T5g2Error, match="a.jpg: damaged image file .2 channels."):
        read(path)


def test_absent_and_directory(tmp_path):
    with pytest.raises(T5g2Error, match="no.png: .*No such file.*; check the path"):
        read(tmp_path / "no.png")
    with pytest.raises(T5g2Error, match="not a regular file; check the path"):
        read(tmp_path)


def test_orientation_of_a_photograph_reaches_the_pixels(tmp_path):
    path = with_orientation(tmp_path, 6)
    np.testing.assert_array_equal(pixels(read(path), 56), to_pixels(load_image(path), 56))
    with Image.open(path) as stored:
        np.testing.assert_array_equal(read(path), np.asarray(stored.transpose(Image.Transpose.ROTATE_270)))
