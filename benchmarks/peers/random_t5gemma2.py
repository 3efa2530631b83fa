"""T5Gemma 2 as transformers computes it, at the peers' shape, with random weights; its vision tower is a token one."""

import common
import torch
from transformers import T5Gemma2Config, T5Gemma2ForConditionalGeneration

ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}
TEXT = {
    "vocab_size": common.VOCAB,
    "hidden_size": common.HIDDEN,
    "intermediate_size": common.INTERMEDIATE,
    "num_hidden_layers": common.LAYERS,
    "num_attention_heads": common.HEADS,
    "num_key_value_heads": 1,
    "head_dim": common.HEAD_DIM,
    "query_pre_attn_scalar": common.HEAD_DIM,
    "sliding_window": common.WINDOW,
    "max_position_embeddings": 32768,
    "rope_parameters": ROPE,
}
TOWER = {
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vision_use_head": False,
}


def config() -> T5Gemma2Config:
    encoder = {"text_config": dict(TEXT), "vision_config": TOWER, "mm_tokens_per_image": 1}
    return T5Gemma2Config(encoder=encoder, decoder=dict(TEXT), image_token_index=256001)


def build(dtype: torch.dtype) -> T5Gemma2ForConditionalGeneration:
    """The model in eval mode with eager attention; the token table is shared by both stacks and the head."""
    torch.manual_seed(0)
    model = T5Gemma2ForConditionalGeneration._from_config(config(), dtype=dtype, attn_implementation="eager")
    model.tie_weights()
    return model.eval()
