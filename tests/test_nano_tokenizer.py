"""The nano tokenizer.json: Gemma 3's structure and roles."""

import pytest
from tokenizers import Tokenizer

from t5g2.nano import CHECKPOINT_DIR
from t5g2.nano.tokenizer import BYTES, CONTROL, IMAGE, build


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))


def test_special_ids(tokenizer):
    assert [tokenizer.token_to_id(token) for token in CONTROL] == [0, 1, 2, 3, 4]
    boi, eoi, image = (tokenizer.token_to_id(token) for token in IMAGE)
    assert (boi + 1, boi + 2) == (eoi, image)
    assert all(tokenizer.token_to_id(token) is not None for token in [*BYTES, "<unused0>", "<start_of_turn>"])


def test_bos_and_no_eos(tokenizer):
    ids = tokenizer.encode("ISO date: 5 March 2024").ids
    assert ids[0] == 2 and 1 not in ids and 3 not in ids


@pytest.mark.parametrize("text", [" two  spaces ", "naïve 日本語 🙂", "a\n\nb\nc", "tab\tand 1234567890", "~`|\\"])
def test_round_trip(tokenizer, text):
    encoding = tokenizer.encode(text, add_special_tokens=False)
    assert 3 not in encoding.ids
    assert tokenizer.decode(encoding.ids) == text


def test_digits_are_single_tokens(tokenizer):
    assert tokenizer.encode("2024", add_special_tokens=False).tokens == list("2024")


def test_build_gives_the_shipped_file(tokenizer):
    assert build().to_str() == tokenizer.to_str()
