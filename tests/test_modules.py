"""The exported modules' own arithmetic in eager mode: what they spell out for the export, against torch and transformers."""

import pytest
import torch
from tiny import tiny_model
from torch import nn
from transformers.models.t5gemma2 import modeling_t5gemma2 as reference

from t5g2.export.checkpoint import Checkpoint
from t5g2.export.xnnpack import vision as vision_module
from t5g2.export.xnnpack.decoder import cached_positions, visibility_mask
from t5g2.export.xnnpack.encoder import sliding_window_mask
from t5g2.export.xnnpack.layers import MASKED, LayerNorm, RMSNorm, gelu_tanh, rotary_tables, rotate
from t5g2.export.xnnpack.vision import Vision, patches_of, pooling_matrix
from t5g2.export.xnnpack.weights import StockWeights
from t5g2.quant.schemes import FLOAT32


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


# --- vision ---


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tower(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    checkpoint = Checkpoint.open(folder)
    return Vision(StockWeights(checkpoint, FLOAT32), checkpoint.config).eval()


@pytest.mark.parametrize("block", [1, 7, 15, 16, 1024])
def test_vision_equals_transformers_in_any_query_blocks(model, tower, block, monkeypatch):
    """16 patches: blocks of 7 leave a short one."""
    monkeypatch.setattr(vision_module, "_QUERY_BLOCK", block)
    pixels = random(1, 3, 56, 56)
    with torch.no_grad():
        expected = model.get_image_features(pixels).pooler_output[0]
        found = tower(pixels)
        close(found, expected)
        assert (tower(pixels.flip(3)) - found).abs().max() > 0.01 * found.abs().max()  # pixels count


@pytest.mark.parametrize(("patches", "tokens"), [(4, 2), (6, 3), (8, 4), (64, 16), (5, 5), (6, 1)])
def test_pooling_is_average_pooling(patches, tokens):
    x = random(patches * patches, 3)
    grid = x.t().reshape(1, 3, patches, patches)
    expected = nn.functional.avg_pool2d(grid, patches // tokens)[0].flatten(1).t()
    close(pooling_matrix(patches, tokens) @ x, expected)


def test_patch_linear_is_the_convolution(model, tower):
    convolution = model.model.encoder.vision_tower.embeddings.patch_embedding
    pixels = random(1, 3, 56, 56)
    with torch.no_grad():
        expected = convolution(pixels)[0].flatten(1).t()
        close(tower.patch_embedding(patches_of(pixels, tower.side, tower.patch_size)), expected)


# --- layers ---


def test_gelu_tanh():
    x = torch.cat((torch.linspace(-30, 30, 10_001), torch.tensor([0.0, -0.0, 1e-20, 1e4, -1e4])))
    torch.testing.assert_close(gelu_tanh(x), nn.functional.gelu(x, approximate="tanh"), rtol=2e-6, atol=1e-6)
    assert (gelu_tanh(x) - nn.functional.gelu(x)).abs().max() > 1e-4  # not the exact one


@pytest.mark.parametrize("shape", [(5, 64), (5, 4, 64)])
def test_norms(shape):
    weight, bias, x = 0.3 * random(64), random(64, seed=1), 3 * random(*shape, seed=2) + 1
    theirs = reference.T5Gemma2RMSNorm(64, eps=1e-2)
    theirs.weight.data = weight
    close(RMSNorm(weight, 1e-2)(x), theirs(x).detach())
    close(LayerNorm(weight, bias, 1e-2)(x), nn.functional.layer_norm(x, (64,), weight, bias, 1e-2))


@pytest.mark.parametrize("kind", ["sliding_attention", "full_attention"])
def test_rotary_equals_transformers(model, tower, kind):
    text = model.config.encoder.text_config
    positions = torch.tensor([0, 1, 2, 17, 300, 511])
    cos, sin = reference.T5Gemma2RotaryEmbedding(text)(torch.zeros(1), positions[None], kind)
    q, k = random(1, 4, 6, 32), random(1, 1, 6, 32, seed=1)  # [1, heads, rows, head_dim]
    expected_q, expected_k = reference.apply_rotary_pos_emb(q, k, cos, sin)
    table = rotary_tables(_TextConfig)[kind](positions)
    for x, expected in ((q, expected_q), (k, expected_k)):
        close(rotate(x[0].transpose(0, 1), table), expected[0].transpose(0, 1))


class _TextConfig:
    """The fields of tiny's config that the tables are made from."""

    head_dim = 32
    rope_theta_sliding, rope_factor_sliding = 10_000.0, 1.0
    rope_theta_full, rope_factor_full = 1_000_000.0, 8.0


# --- masks and the ring ---


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7, 8, 16])
def test_sliding_window_equals_transformers(window):
    visible = reference.sliding_window_mask_function(window, is_causal=False)
    position = torch.arange(30)
    expected = visible(0, 0, position[:, None], position[None, :])
    mask = sliding_window_mask(position, window)
    assert torch.equal(mask == 0, expected) and torch.equal(mask == MASKED, ~expected)
    assert expected[15].sum() == window


def test_visibility_is_repeated_for_every_head_of_a_group():
    visible = torch.tensor([[True, False], [True, True], [False, False]])
    mask = visibility_mask(visible, 4).view(4, 3, 2)
    assert all(torch.equal(head == 0, visible) for head in mask)
    assert torch.softmax(mask[0, 0], dim=0).tolist() == [1, 0]


@pytest.mark.parametrize(("slots", "block"), [(1, 1), (2, 1), (5, 1), (18, 1), (64, 1), (5, 3), (18, 3), (64, 3)])
def test_cached_positions_are_those_of_a_ring(slots, block):
    ring = [None] * slots
    for position in range(0, 3 * slots + 7, block):
        found = cached_positions(torch.tensor([position]), slots).tolist()
        assert [p if p >= 0 else None for p in found] == ring, position
        for p in range(position, position + block):
            ring[p % slots] = p
