"""Logits of the exported float32 programs against transformers in float32.

Windows are 16 tokens, so the longer sources and all targets are several windows long. The measured difference is about
1e-6 of the largest logit, on XNNPACK 5e-7; the bound is the product's promise.
"""

import numpy as np
import pytest
import torch
from tiny import BOI, EOI, IMAGE, MM_TOKENS

TOLERANCE = 1e-3
TARGET_LENGTH = 60


def random_ids(length: int, seed: int) -> torch.Tensor:
    """BOS, then ids that are neither special nor image tokens."""
    ids = torch.randint(5, 289, (length,), generator=torch.Generator().manual_seed(seed))
    ids[0] = 2
    return ids


def with_images(ids: torch.Tensor, starts: list[int]) -> torch.Tensor:
    """Writes an image block (begin, soft tokens, end) at each start."""
    for start in starts:
        ids[start] = BOI
        ids[start + 1 : start + 1 + MM_TOKENS] = IMAGE
        ids[start + 1 + MM_TOKENS] = EOI
    return ids


def relative_difference(tiny, source: torch.Tensor, target: torch.Tensor, pixels: torch.Tensor | None = None) -> float:
    with torch.no_grad():
        expected = tiny.reference(
            input_ids=source[None], pixel_values=pixels, decoder_input_ids=target[None], use_cache=False
        ).logits[0].numpy()
    found = tiny.model.logits(source.tolist(), target.tolist(), None if pixels is None else pixels.numpy())
    assert found.shape == expected.shape and found.dtype == np.float32
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("source_length", [1, 2, 5, 16, 17, 100, 300])
def test_text(tiny, source_length):
    target = random_ids(TARGET_LENGTH, seed=1)
    target[9] = EOI  # its own unscaled row, in the decoder too
    assert relative_difference(tiny, random_ids(source_length, seed=0), target) < TOLERANCE


@pytest.mark.parametrize("starts", [[3], [94], [1, 40], [20, 26, 90]])
def test_images(tiny, starts):
    source = with_images(random_ids(100, seed=2), starts)
    pixels = torch.randn(len(starts), 3, 56, 56, generator=torch.Generator().manual_seed(3))
    assert relative_difference(tiny, source, random_ids(TARGET_LENGTH, seed=4), pixels) < TOLERANCE


def test_end_of_image_without_an_image(tiny):
    source = random_ids(40, seed=5)
    source[[7, 39]] = EOI
    assert relative_difference(tiny, source, random_ids(TARGET_LENGTH, seed=6)) < TOLERANCE


@pytest.mark.parametrize("target_length", [1, 7, 8, 9, 16, 17, 64])
def test_target_lengths_around_blocks_and_windows(tiny, target_length):
    assert relative_difference(tiny, random_ids(33, seed=7), random_ids(target_length, seed=8)) < TOLERANCE


def test_one_row_at_a_time_equals_blocks(tiny):
    """Generation feeds one row a step, `logits` blocks of max_rows: the cache must make them the same."""
    source, target = random_ids(50, seed=9).tolist(), random_ids(TARGET_LENGTH, seed=10).tolist()
    blocks = tiny.model.logits(source, target)
    encoded, cache = tiny.oracle.encode(source), tiny.oracle._new_cache()
    rows = [tiny.oracle._decoder_step(encoded, cache, [token], at)[0] for at, token in enumerate(target)]
    np.testing.assert_allclose(np.stack(rows), blocks, atol=1e-5 * np.abs(blocks).max())


def test_encoder_states(tiny):
    source = random_ids(100, seed=11)
    with torch.no_grad():
        expected = tiny.reference.get_encoder()(input_ids=source[None]).last_hidden_state[0].numpy()
    found = tiny.model.session(source.tolist()).states()
    assert np.abs(found - expected).max() / np.abs(expected).max() < TOLERANCE


def test_the_comparison_sees_small_changes(tiny):
    """One wrong token at the far end of the source moves the logits past the tolerance."""
    source, target = random_ids(300, seed=0), random_ids(TARGET_LENGTH, seed=1)
    changed = source.clone()
    changed[299] = (int(changed[299]) + 1) % 280 + 5
    with torch.no_grad():
        expected = tiny.reference(input_ids=source[None], decoder_input_ids=target[None]).logits[0].numpy()
    found = tiny.model.logits(changed.tolist(), target.tolist())
    assert np.abs(found - expected).max() / np.abs(expected).max() > TOLERANCE
