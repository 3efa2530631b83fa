"""Tiny T5Gemma 2 models made with transformers, for tests. Every part is there, and no part is at its neutral value.

Traps that the defaults set: transformers starts norm weights, the eoi vector and the projector at zero, and its special
token ids lie outside a tiny vocabulary. The top-level eoi id is overwritten by the encoder's, the encoder's image id by
the top-level one; `tiny_config` therefore sets each where it counts.
"""

import copy

import torch
from transformers import T5Gemma2Config, T5Gemma2ForConditionalGeneration

BOI, EOI, IMAGE = 290, 291, 292
MM_TOKENS = 4
ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}


def tiny_config(vision: dict | None = None, decoder: dict | None = None, **overrides) -> T5Gemma2Config:
    """hidden 64, q width 128, 6 layers of which the last is full, window 16, 300 tokens; 56 x 56 images as 4 tokens.

    `overrides` are keys of both text stacks (`num_key_value_heads=2`); `decoder` of the decoder only; `vision` of the
    tower.
    """
    text = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 16,
        "max_position_embeddings": 512,
        "rope_parameters": ROPE,
    }
    text |= overrides
    tower = {
        "image_size": 56,
        "patch_size": 14,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vision_use_head": False,
    }
    encoder = {
        "text_config": copy.deepcopy(text),
        "vision_config": tower | (vision or {}),
        "mm_tokens_per_image": MM_TOKENS,
        "boi_token_index": BOI,
        "eoi_token_index": EOI,
    }
    return T5Gemma2Config(encoder=encoder, decoder=copy.deepcopy(text | (decoder or {})), image_token_index=IMAGE)


def tiny_model(seed: int = 0, **overrides) -> T5Gemma2ForConditionalGeneration:
    """A float32 model in eval mode with eager attention. Weights are large enough for logits to vary by position and
    input, and depend on the seed only."""
    model = T5Gemma2ForConditionalGeneration(tiny_config(**overrides)).eval()
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # tied ones come once
            mean, std = _distribution(name, parameter)
            parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))
    return model


def _distribution(name: str, parameter: torch.Tensor) -> tuple[float, float]:
    if name.endswith("eoi_embedding"):
        return 0.0, 1.0
    if "vision_tower" in name and parameter.dim() == 1:
        return (1.0 if "norm" in name and name.endswith("weight") else 0.0), 0.2
    if parameter.dim() == 1:
        return 0.0, 0.3  # RMSNorm weights, around 0 because 1 is added
    if name.endswith("embed_tokens.weight"):
        return 0.0, parameter.shape[1] ** -0.5
    if name.endswith("mm_input_projection_weight"):
        return 0.0, parameter.shape[0] ** -0.5
    if name.endswith("position_embedding.weight"):
        return 0.0, 0.5
    return 0.0, parameter[0].numel() ** -0.5
