"""Images: pixels equal to the Hub's Gemma3 image processor (Pillow backend), and files that are not images."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from t5g2.runtime import images
from t5g2.runtime.errors import T5g2Error, UsageError
from t5g2.runtime.images import load_image, to_pixels

SIDE = 56


@pytest.fixture(scope="module")
def processor():
    module = pytest.importorskip("transformers.models.gemma3.image_processing_pil_gemma3")
    return module.Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_pan_and_scan=False)


def picture(width=67, height=41, channels=3, seed=0, dtype=np.uint8, top=256):
    values = np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype=dtype)
    return values[..., 0] if channels == 1 else values


def rgb(*size, seed=0):
    return Image.fromarray(picture(*size, seed=seed))


def transparent_palette():
    image = rgb().quantize(16)
    image.info["transparency"] = 3
    return image


def colour_key():
    image = Image.new("RGB", (20, 10), (1, 2, 3))
    image.paste((200, 100, 50), (5, 2, 12, 8))
    image.info["transparency"] = (1, 2, 3)
    return image


CASES = {
    "RGB": rgb,
    "smooth": lambda: Image.radial_gradient("L").convert("RGB").resize((300, 500)),
    "same size": lambda: rgb(SIDE, SIDE),
    "large": lambda: rgb(1500, 900),
    "1 pixel": lambda: rgb(1, 1),
    "1 pixel high": lambda: rgb(500, 1),
    "1 pixel wide": lambda: rgb(1, 500),
    "very wide": lambda: rgb(4000, 3),
    "very high": lambda: rgb(3, 4000),
    "2 x 1": lambda: rgb(2, 1),
    "3 x 3": lambda: rgb(3, 3),
    "RGBA": lambda: Image.fromarray(picture(channels=4), "RGBA"),
    "RGBa": lambda: Image.fromarray(picture(channels=4), "RGBA").convert("RGBa"),
    "LA": lambda: Image.fromarray(picture(channels=2), "LA"),
    "PA": lambda: Image.fromarray(picture(channels=4), "RGBA").quantize(16).convert("PA"),
    "L": lambda: Image.fromarray(picture(channels=1)),
    "1": lambda: Image.fromarray(picture(channels=1)).convert("1"),
    "P": lambda: rgb().quantize(16),
    "P, transparent": transparent_palette,
    "RGB, transparent colour": colour_key,
    "I;16": lambda: Image.fromarray(picture(channels=1, dtype=np.uint16, top=65536)),
    "I": lambda: Image.fromarray(picture(channels=1, dtype=np.int32, top=70000)),
    "F": lambda: Image.fromarray((picture(channels=1) * 1.7).astype(np.float32)),
    "CMYK": lambda: Image.fromarray(picture(channels=4), "CMYK"),
    "YCbCr": lambda: rgb().convert("YCbCr"),
    "HSV": lambda: rgb().convert("HSV"),
    "LAB": lambda: Image.frombytes("LAB", (67, 41), picture().tobytes()),
}


@pytest.mark.parametrize("case", CASES)
def test_pixels_equal_the_processor(processor, case):
    image = CASES[case]()
    expected = theirs(processor, image)
    got = to_pixels(image, SIDE)
    assert got.shape == expected.shape == (3, SIDE, SIDE) and got.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


def theirs(processor, image, **options):
    """The processor's pixels, float32 [3, SIDE, SIDE]; it takes a PIL image or a path as str."""
    return processor(image, return_tensors="np", **options)["pixel_values"][0]


def test_pixels_equal_the_processor_at_full_size(processor):
    image = rgb(1200, 777)
    expected = theirs(processor, image, size={"height": 896, "width": 896})
    np.testing.assert_array_equal(to_pixels(image, 896), expected)


def test_pixels_equal_the_processor_with_other_statistics(processor):
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = theirs(processor, rgb(), image_mean=list(mean), image_std=list(std))
    np.testing.assert_array_equal(to_pixels(rgb(), SIDE, mean, std), expected)


def test_known_values():
    image = Image.new("RGB", (7, 9), (0, 255, 51))
    pixels = to_pixels(image, 4)
    np.testing.assert_allclose(pixels[:, 2, 2], [-1, 1, 51 / 255 * 2 - 1], atol=1e-6)
    half_clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    np.testing.assert_array_equal(to_pixels(half_clear, 2), np.ones((3, 2, 2), np.float32))


def test_image_is_left_alone():
    image = CASES["P, transparent"]()
    before = image.tobytes(), image.mode, image.size
    to_pixels(image, 8)
    assert (image.tobytes(), image.mode, image.size) == before


# --- files ---


def saved(tmp_path, image, name, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def animated(tmp_path):
    frames = [rgb(seed=s) for s in range(3)]
    return saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:], duration=50)


def with_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(tmp_path, rgb(), f"{orientation}.jpg", exif=exif, quality=95)


def sixteen_bit_rgb_png(tmp_path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in picture(dtype=np.uint16, top=65536))
    header = struct.pack(">IIBBBBB", 67, 41, 16, 2, 0, 0, 0)
    path = tmp_path / "rgb16.png"
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


FILES = {
    "png": lambda d: saved(d, rgb(), "a.png"),
    "jpeg": lambda d: saved(d, rgb(), "a.jpg"),
    "progressive jpeg": lambda d: saved(d, rgb(), "p.jpg", progressive=True),
    "cmyk jpeg": lambda d: saved(d, CASES["CMYK"](), "c.jpg"),
    "grey jpeg": lambda d: saved(d, CASES["L"](), "g.jpg"),
    "webp": lambda d: saved(d, rgb(), "a.webp"),
    "bmp": lambda d: saved(d, rgb(), "a.bmp"),
    "tiff": lambda d: saved(d, rgb(), "a.tiff"),
    "16-bit png": lambda d: saved(d, CASES["I;16"](), "i16.png"),
    "16-bit rgb png": sixteen_bit_rgb_png,
    "float tiff": lambda d: saved(d, CASES["F"](), "f.tiff"),
    "animated gif": animated,
    "transparent gif": lambda d: saved(d, CASES["P, transparent"](), "t.gif", transparency=3),
    "rgba png": lambda d: saved(d, CASES["RGBA"](), "rgba.png"),
    "grey alpha png": lambda d: saved(d, CASES["LA"](), "la.png"),
    "palette png": lambda d: saved(d, CASES["P"](), "p.png"),
    "transparent palette png": lambda d: saved(d, CASES["P, transparent"](), "pt.png", transparency=3),
    "two-colour png": lambda d: saved(d, CASES["1"](), "1.png"),
    **{f"orientation {n}": lambda d, n=n: with_orientation(d, n) for n in range(1, 10)},
}


@pytest.mark.parametrize("case", FILES)
def test_file_equals_the_processor_given_the_path(processor, tmp_path, case):
    path = FILES[case](tmp_path)
    expected = theirs(processor, str(path))
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        image = load_image(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(to_pixels(image, SIDE), expected)


def test_nano_equals_its_own_processor(tmp_path):
    transformers = pytest.importorskip("transformers")
    from t5g2 import nano
    from t5g2.runtime.tokenizer import Tokenizer

    if not (nano.CHECKPOINT_DIR / "processor_config.json").exists():
        pytest.skip("nano has no processor_config.json")
    theirs = transformers.AutoProcessor.from_pretrained(nano.CHECKPOINT_DIR)
    ids = {f"{r}_id": getattr(theirs.tokenizer, f"{r}_token_id") for r in ("bos", "eos", "pad", "boi", "eoi", "image")}
    count = theirs.image_seq_length
    ours = Tokenizer.from_file(nano.CHECKPOINT_DIR / "tokenizer.json", **ids, mm_tokens_per_image=count)
    text, path = "what is in <start_of_image>?", with_orientation(tmp_path, 6)
    expected = theirs(text=text, images=[str(path)], return_tensors="np")
    assert ours.encode_source(text, 1) == expected["input_ids"][0].tolist()
    side = theirs.image_processor.size["height"]
    np.testing.assert_array_equal(to_pixels(load_image(path), side), expected["pixel_values"][0])


def test_orientation_is_applied(tmp_path):
    assert load_image(with_orientation(tmp_path, 6)).size == (41, 67)
    assert load_image(with_orientation(tmp_path, 1)).size == (67, 41)


def test_animation_gives_its_first_frame(tmp_path):
    with Image.open(animated(tmp_path)) as image:
        assert image.n_frames == 3
        first = np.asarray(image.convert("RGB"))
        image.seek(1)
        assert (first != np.asarray(image.convert("RGB"))).any()
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.gif")), first)


def test_file_is_closed_and_an_open_one_is_not(tmp_path):
    path = saved(tmp_path, rgb(), "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(path)
    with open(path, "rb") as file:
        load_image(file)
        assert not file.closed


# --- what is not an image ---


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.tiff", "a.bmp"])
def test_truncated_file(tmp_path, name):
    path = saved(tmp_path, rgb(), name)
    whole = path.read_bytes()
    for part in (0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(T5g2Error) as caught:
            load_image(path)
        assert str(path) in str(caught.value) and ";" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged TIFF tags
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.tiff", "a.bmp"])
def test_damaged_file_is_an_error_or_an_image(tmp_path, name):
    path = saved(tmp_path, rgb(), name)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 400), 4):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_image(path)
        except T5g2Error as error:
            failed += 1
            assert str(path) in str(error)
    assert failed


@pytest.mark.parametrize("content", [b"", b"not an image", b"<svg xmlns='x'/>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n"])
def test_not_an_image(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(T5g2Error, match="a.png: .*use PNG, JPEG|a.png: damaged"):
        load_image(path)


def test_absent_directory_and_unnamed(tmp_path):
    with pytest.raises(T5g2Error, match="no.png: no such image file; check the path"):
        load_image(tmp_path / "no.png")
    with pytest.raises(T5g2Error, match="directory"):
        load_image(tmp_path)
    with pytest.raises(T5g2Error, match="the image data"):
        load_image(io.BytesIO(b"nothing"))
    with pytest.raises(T5g2Error, match="example.org.*not downloaded"):
        load_image("https://example.org/bee.jpg")


def test_damaged_orientation_does_not_cost_the_image(tmp_path):
    path = saved(tmp_path, rgb(), "a.jpg", exif=b"Exif\0\0garbage that is no TIFF header")
    assert load_image(path).size == (67, 41)


@pytest.mark.parametrize("lifted", [False, True])
@pytest.mark.parametrize(("pixels", "size"), [(67 * 41 - 1, True), (67 * 41 // 2 - 1, False)])
def test_too_many_pixels(tmp_path, monkeypatch, pixels, size, lifted):
    path = saved(tmp_path, rgb(), "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None if lifted else pixels)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(T5g2Error, match=rf"a.png: .* more than the limit of {pixels}; scale"):
            load_image(path)
    assert not caught
    monkeypatch.setattr(images, "MAX_PIXELS", 67 * 41)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 67 * 41)
    load_image(path)


def test_limit_is_pillows():
    assert images.MAX_PIXELS == int(1024 * 1024 * 1024 // 4 // 3)


@pytest.mark.parametrize(
    ("argument", "options"),
    [("side", {"side": 0}), ("mean", {"mean": (0.5, 0.5)}), ("std", {"std": 0}), ("std", {"std": float("nan")}),
     ("mean", {"mean": "dark"})],
)  # fmt: skip
def test_arguments_out_of_range(argument, options):
    with pytest.raises(UsageError, match=f"^{argument}:"):
        to_pixels(rgb(), **{"side": 4, **options})


def test_empty_and_truncated_pil_image(tmp_path):
    with pytest.raises(T5g2Error, match="0 x 5"):
        to_pixels(Image.new("RGB", (0, 5)), 4)
    path = saved(tmp_path, rgb(), "a.png")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(T5g2Error, match="a.png: damaged"):
        to_pixels(Image.open(path), 4)
