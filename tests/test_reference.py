"""The reference runner's loop where the logits are forced. tests/test_model.py has what it shares with the engine."""

import pytest
from test_model import BOS, EOS, TEXT, UNUSED, picture
from tiny import BOI, EOI, IMAGE


@pytest.fixture
def model(tiny_gqa):
    return tiny_gqa.oracle


@pytest.fixture
def favour(monkeypatch):
    """`favour(model, id, ...)`: those ids get by far the highest logits, the first the very highest."""

    def favour(model, *ids):
        step = model._decoder_step

        def biased(*arguments):
            logits = step(*arguments).copy()
            for rank, token in enumerate(ids):
                logits[:, token] = 1e6 - rank
            return logits

        monkeypatch.setattr(model, "_decoder_step", biased)

    return favour


def test_eos_ends_the_target(model, favour):
    favour(model, EOS)
    result = model.generate(TEXT)
    assert result.ids == [] and result.text == "" and result.finish_reason == "stop"


def test_min_new_tokens(model, favour):
    favour(model, EOS, 77)
    result = model.generate(TEXT, min_new_tokens=3)
    assert result.ids == [77] * 3 and result.text == model.tokenizer.decode([77] * 3) and result.finish_reason == "stop"


def test_unused_tokens_are_suppressed(model, favour):
    assert model.unused_ids == [BOI, EOI, IMAGE, UNUSED]
    favour(model, UNUSED, IMAGE, BOI, EOI, 77)
    assert model.generate(TEXT, max_new_tokens=2).ids == [77, 77]
    assert model.generate(TEXT, max_new_tokens=2, suppress_unused=False).ids == [UNUSED, UNUSED]


def test_a_stop_id_is_not_suppressed(model, favour):
    favour(model, UNUSED)
    assert model.generate(TEXT, stop=[UNUSED]).finish_reason == "stop"


def test_images_are_prepared_in_their_order(model):
    a, b = picture(0), picture(1)
    ids, pixels = model._prepare("<start_of_image> w5 <start_of_image> w6", [a, b])
    assert ids[0] == BOS and (pixels[::-1] == model._prepare(ids, [b, a])[1]).all()
