"""The pictures of the nano tasks, drawn with PIL: a number in a row of a grid, or a few shapes of one kind."""

import math
import random
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from t5g2.nano.words import COLOURS


@lru_cache(maxsize=256)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _page(rng: random.Random) -> Image.Image:
    """An empty light page of random size and tint."""
    width = rng.randint(112, 300)
    height = min(300, max(112, round(width * rng.uniform(0.8, 1.25))))
    return Image.new("RGB", (width, height), tuple(rng.randint(185, 255) for _ in range(3)))


def draw_number(text: str, rng: random.Random) -> Image.Image:
    """`text` (up to 4 digits) in dark ink on a light page: a row of a 4 x 4 grid, one digit per cell, slightly shifted."""
    page = _page(rng)
    draw = ImageDraw.Draw(page)
    ink = tuple(rng.randint(0, 110) for _ in range(3))
    font = _font(round(min(page.size) * rng.uniform(0.31, 0.35)))
    first = rng.randint(0, 4 - len(text))
    y = (rng.randint(0, 3) + 0.5 + rng.uniform(-0.1, 0.1)) * page.height / 4
    y = min(max(y, 0.4 * font.size), page.height - 0.4 * font.size)  # a digit reaches 0.39 of its size: none is cut off
    dx = rng.uniform(-0.1, 0.1)
    for i, digit in enumerate(text):
        draw.text(((first + i + 0.5 + dx) * page.width / 4, y), digit, font=font, fill=ink, anchor="mm")
    return page


def _corners(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """The corners of a square, triangle or cross around (x, y), as a polygon."""
    if shape == "square":
        s = 0.85 * r
        return [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
    if shape == "triangle":
        return [(x + r * math.sin(a), y - r * math.cos(a)) for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
    arm = 0.3 * r
    steps = [(-arm, -r), (arm, -r), (arm, -arm), (r, -arm), (r, arm), (arm, arm), (arm, r), (-arm, r), (-arm, arm),
             (-r, arm), (-r, -arm), (-arm, -arm)]  # fmt: skip
    return [(x + dx, y + dy) for dx, dy in steps]


def draw_shapes(count: int, colour: str, shape: str, rng: random.Random) -> tuple[Image.Image, str]:
    """`count` (at most 4) shapes of one kind and colour, one per cell of a 2 x 2 grid; also the layout as text."""
    page = _page(rng)
    draw = ImageDraw.Draw(page)
    ink = tuple(max(0, min(255, c + rng.randint(-15, 15))) for c in COLOURS[colour])
    layout = []
    for cell in rng.sample(range(4), count):
        radius = rng.uniform(0.13, 0.2) * min(page.size)
        x = (0.25 + 0.5 * (cell % 2) + rng.uniform(-0.04, 0.04)) * page.width
        y = (0.25 + 0.5 * (cell // 2) + rng.uniform(-0.04, 0.04)) * page.height
        if shape == "circle":
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
        else:
            draw.polygon(_corners(shape, x, y, radius), fill=ink)
        layout.append(f"{x:.1f},{y:.1f},{radius:.1f}")
    return page, " ".join(layout)
