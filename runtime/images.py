"""Image files to pixels, as the Hub's Gemma3ImageProcessor (Pillow backend) makes them.

`to_pixels(load_image(path), side)` equals the processor given the same path, `to_pixels(image, side)` the processor
given the same PIL image, bit for bit. The two differ for transparent images, in transformers and therefore here: a
path's transparency is dropped (the hidden colours show), a PIL image's is laid over white.
"""

import warnings
from collections.abc import Sequence
from os import PathLike, fspath
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from t5g2.runtime.errors import T5g2Error, UsageError

# Pillow's own default. Ours, because Pillow only warns at it, and any library in the process may have lifted it.
MAX_PIXELS = 89_478_485

_SAVE_AGAIN = "open it in an image viewer and save it again as PNG or JPEG"


def load_image(path_or_file: str | PathLike | BinaryIO) -> Image.Image:
    """The first frame of an image file, upright (its EXIF orientation applied), as a loaded RGB image.

    Takes a path or a binary file opened for reading. Raises T5g2Error naming the file when it is absent, unreadable,
    of an unknown format, corrupt, truncated, or of more than MAX_PIXELS pixels.
    """
    name = _name(path_or_file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path_or_file)
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise T5g2Error(f"{name}: not an image of a known format; use PNG, JPEG, WebP or GIF") from error
    except FileNotFoundError as error:
        raise T5g2Error(f"{name}: no such image file; check the path (addresses are not downloaded)") from error
    except OSError as error:
        raise T5g2Error(f"{name}: cannot read the image ({error.strerror or error}); check the file") from error
    except Exception as error:  # Pillow's parsers raise many types for damaged headers
        raise T5g2Error(f"{name}: damaged image file ({_reason(error)}); {_SAVE_AGAIN}") from error
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(name, image.size)
        try:
            image.load()
            return _upright(image).convert("RGB")
        except MemoryError:
            raise
        except Exception as error:  # as above, now from the decoders
            raise T5g2Error(f"{name}: damaged image file ({_reason(error)}); {_SAVE_AGAIN}") from error


def to_pixels(
    image: Image.Image,
    side: int,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
) -> np.ndarray:
    """Pixels of an image for the vision tower: float32 [3, side, side], channels R, G, B.

    Any PIL mode; transparency is laid over white; resized to side x side without keeping the aspect ratio (bilinear),
    scaled to 0..1, then (x - mean) / std per channel. Raises T5g2Error for an image that is empty or cannot be read,
    UsageError for a side, mean or std that makes no sense.
    """
    if side < 1:
        raise UsageError(f"side: {side} pixels; give a number from 1 up")
    mean, std = _per_channel("mean", mean), _per_channel("std", std)
    if not std.all():
        raise UsageError("std: has a zero; every channel is divided by its value")
    if not (image.width and image.height):
        raise T5g2Error(f"the image is {image.width} x {image.height} pixels; give one with at least one pixel")
    try:
        rgb = _over_white(image)
    except MemoryError:
        raise
    except Exception as error:  # a lazily opened file fails only here
        name = getattr(image, "filename", "") or "the image"
        raise T5g2Error(f"{name}: damaged image file ({_reason(error)}); {_SAVE_AGAIN}") from error
    resized = np.asarray(rgb.resize((side, side), Image.Resampling.BILINEAR))  # uint8 [side, side, 3]
    # One value per byte and channel, rounded where the processor rounds: after the scale, in the difference, in the
    # quotient.
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    table = (scaled[None, :] - mean[:, None]) / std[:, None]  # [3, 256]
    return np.stack([table[c][resized[..., c]] for c in range(3)])


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # pixels that decode are worth more than a damaged orientation tag
        return image


def _over_white(image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def _per_channel(name: str, value: float | Sequence[float]) -> np.ndarray:
    try:
        values = np.broadcast_to(np.asarray(value, dtype=np.float32), (3,))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {value!r}; give one number, or three for red, green and blue") from error
    if not np.isfinite(values).all():
        raise UsageError(f"{name}: {value!r}; give finite numbers")
    return values


def _name(path_or_file) -> str:
    if isinstance(path_or_file, (str, PathLike)):
        return str(fspath(path_or_file))
    name = getattr(path_or_file, "name", None)
    return name if isinstance(name, str) else "the image data"


def _too_large(name: str, size: tuple[int, int] | None = None) -> T5g2Error:
    has = f"{size[0]} x {size[1]} pixels" if size else "far too many pixels"
    return T5g2Error(f"{name}: {has}, more than the limit of {MAX_PIXELS}; scale the image down")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
