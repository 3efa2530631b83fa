"""Stop strings over text that comes in pieces."""

import itertools

import pytest

from t5g2.runtime.text_stop import TextStop


def shown(strings: list[str], pieces) -> tuple[str, bool]:
    stop = TextStop(strings)
    text = "".join(stop.push(piece) for piece in pieces)
    stopped = stop.stopped
    return text + stop.flush(), stopped


def by_definition(strings: list[str], text: str) -> tuple[str, bool]:
    """Reads one character at a time and cuts at the first stop string that is complete."""
    for end in range(len(text) + 1):
        starts = [end - len(s) for s in strings if s and text[:end].endswith(s)]
        if starts:
            return text[: min(starts)], True
    return text, False


STRINGS = [[], ["ab"], ["aab"], ["aba", "bb"], ["ba", "abab"], ["bc", "abcd"], ["abc", "bc"]]


@pytest.mark.parametrize("strings", STRINGS, ids=str)
def test_any_pieces_give_what_the_definition_says(strings):
    for text in map("".join, itertools.product("abc" if "c" in str(strings) else "ab", repeat=5)):
        text += "d"
        for cuts in itertools.product([False, True], repeat=len(text) - 1):
            ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [len(text)]
            pieces = [text[a:b] for a, b in zip([0, *ends], ends)]
            assert shown(strings, pieces) == by_definition(strings, text), (text, pieces)


def test_shows_everything_that_cannot_belong_to_a_stop_string():
    stop = TextStop(["END"])
    assert [stop.push(piece) for piece in ["one E", "N", "t", "wo", "E"]] == ["one ", "", "ENt", "wo", ""]
    assert stop.flush() == "E" and not stop.stopped and stop.flush() == ""


def test_nothing_comes_after_the_stop():
    stop = TextStop(["END"])
    assert stop.push("one END two") == "one " and stop.stopped
    assert stop.push("three") == "" and stop.flush() == ""


def test_an_empty_string_stops_nothing():
    assert shown([""], ["a", "b"]) == ("ab", False)
