"""The nano tasks: short generators of (source, target, image) whose answers can be checked exactly.

Every example carries a content key (the date, the number, the record asked for, the layout of a picture). A hash of
the key decides its split, so that no content is in both: about one key in ten is held out, and training draws only
from the rest. The same seed always gives the same examples. Needs PIL and nothing else.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

from t5g2.nano import words
from t5g2.nano.pictures import draw_number, draw_shapes

IMAGE_MARKER = "<start_of_image>"
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Example:
    """One source text with its only right target; `image` is there when the source has the image marker."""

    task: str
    source: str
    target: str
    image: Image.Image | None
    key: str


def is_held_out(task: str, key: str) -> bool:
    """True for the share of keys that training never sees."""
    digest = hashlib.sha256(f"{task}|{key}".encode()).digest()
    return digest[0] < HELD_OUT_SHARE * 256


def spell(n: int) -> str:
    """A number below a million in English words: 4207 -> four thousand two hundred and seven."""
    if n < 20:
        return words.UNITS[n]
    if n < 100:
        return words.TENS[n // 10] + (f"-{words.UNITS[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{words.UNITS[n // 100]} hundred" + (f" and {spell(n % 100)}" if n % 100 else "")
    rest = n % 1000
    joiner = " and " if 0 < rest < 100 else " "
    return f"{spell(n // 1000)} thousand" + (joiner + spell(rest) if rest else "")


def _ordinal(n: int) -> str:
    suffix = "th" if 10 < n < 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def date(rng: random.Random, ease: float) -> Example:
    """A date as people write it -> ISO form."""
    year, month, day = rng.randint(1900, 2099), rng.randint(1, 12), rng.randint(1, 28)
    name = words.MONTHS[month - 1]
    written = rng.choice([
        f"{name} {day}, {year}", f"{day} {name} {year}", f"{name[:3]} {day}, {year}", f"{day} {name[:3]} {year}",
        f"the {_ordinal(day)} of {name} {year}", f"{name} {_ordinal(day)}, {year}", f"{day}.{month}.{year}",
        f"{rng.choice(words.WEEKDAYS)}, {day} {name} {year}",
    ])  # fmt: skip
    target = f"{year}-{month:02}-{day:02}"
    return Example("date", f"ISO date: {written}", target, None, target)


def number(rng: random.Random, ease: float) -> Example:
    """A number in words -> digits."""
    n = rng.randrange(10 ** rng.randint(1, 6))
    return Example("number", f"In digits: {spell(n)}", str(n), None, str(n))


def fields(rng: random.Random, ease: float) -> Example:
    """A sentence about an order -> its fields."""
    name, city, item = rng.choice(words.NAMES), rng.choice(words.CITIES), rng.choice(words.ITEMS)
    count, price = rng.randint(2, 99), rng.randint(5, 999)
    sentence = rng.choice([
        f"{name} from {city} ordered {count} {item} for {price} euros.",
        f"Please send {count} {item} to {name} in {city}; the price is {price} euros.",
        f"For {price} euros, {name} bought {count} {item} in {city}.",
        f"{count} {item} were shipped to {city} for {name}, who paid {price} euros.",
        f"In {city}, {name} paid {price} euros for {count} {item}.",
    ])  # fmt: skip
    target = f"name: {name}; city: {city}; item: {item}; count: {count}; price: {price}"
    return Example("fields", f"Extract: {sentence}", target, None, sentence)


def note(rng: random.Random, ease: float) -> Example:
    """A note in shorthand -> the note spelled out."""
    name, hour = rng.choice(words.NAMES), rng.randint(1, 11)
    day = rng.choice("mon tue wed thu fri sat sun tmrw".split())
    half = rng.choice(["am", "pm"])
    topic = rng.choice(["docs", "info", "budget", "rent", "trip", "dept", "mgmt", "contract"])
    short = rng.choice([
        f"{rng.choice(['mtg', 'appt'])} w/ {name} {day} {hour} {half} re {topic}",
        f"pls send {name} the {topic} {rng.choice(['asap', f'b4 {day}'])}",
        f"msg {name} re {topic} b4 {day} {half}",
        f"trip {day} {rng.choice(['w/', 'w/o'])} {name} takes {hour} {rng.choice(['hrs', 'min'])}",
        f"pls bring {topic} to {name} {day} {half}",
    ])  # fmt: skip
    spelled = " ".join(words.SHORTHAND.get(word, word) for word in short.split())
    return Example("note", f"Spell out: {short}", spelled, None, short)


def lookup(rng: random.Random, ease: float) -> Example:
    """A list of 5 to 66 records (40 to 400 tokens, many sliding windows) and a name -> that name's record."""
    shortest, longest = (5 if ease == 0 else 2), round(66 - 60 * ease)
    names = rng.sample(words.NAMES, rng.randint(shortest, longest))
    records = [f"{name}={rng.randint(100, 999)}" for name in names]
    asked = rng.randrange(len(names))
    source = f"Code of {names[asked]}? {'; '.join(records)}"
    return Example("lookup", source, records[asked], None, records[asked])


def digits(rng: random.Random, ease: float) -> Example:
    """A picture of a number of 3 or 4 digits -> the number. Easier ones have 1 or 2 digits."""
    length = rng.randint(1, 2) if rng.random() < ease else rng.randint(3, 4)
    n = str(rng.randrange(10 ** (length - 1), 10**length))
    return Example("digits", f"{IMAGE_MARKER} What number is shown?", n, draw_number(n, rng), n)


def shapes(rng: random.Random, ease: float) -> Example:
    """A picture of 1 to 4 equal shapes -> count, colour and shape."""
    count, colour, shape = rng.randint(1, 4), rng.choice(list(words.COLOURS)), rng.choice(words.SHAPES)
    image, layout = draw_shapes(count, colour, shape, rng)
    plural = "" if count == 1 else "es" if shape == "cross" else "s"
    target = f"{count} {colour} {shape}{plural}"
    return Example("shapes", f"{IMAGE_MARKER} What is shown?", target, image, layout)


TASKS: dict[str, Callable[[random.Random, float], Example]] = {
    task.__name__: task for task in (date, number, fields, note, lookup, digits, shapes)
}


def examples(task: str, rng: random.Random, held_out: bool, ease: float = 0.0) -> Iterator[Example]:
    """Endless examples of one task from one split. `ease` in 0..1 asks for easier ones; 0 is the task itself."""
    while True:
        example = TASKS[task](rng, ease)
        if is_held_out(task, example.key) == held_out:
            yield example


def held_out(task: str, n: int, seed: int = 0) -> Iterator[Example]:
    """The first `n` held-out examples of a task for a seed, for evaluation."""
    stream = examples(task, random.Random(f"{task}/{seed}"), held_out=True)
    for _ in range(n):
        yield next(stream)
