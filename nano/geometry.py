"""The shape of the nano checkpoint: a T5Gemma 2 config with small numbers and every part of the real one."""

from transformers import T5Gemma2Config

LAYERS = 6
SLIDING_WINDOW = 32
IMAGE_SIDE = 112
IMAGE_TOKENS = 16

TEXT = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 64,  # 4 heads * 64 = 256 wide queries, not 128: as in the real one, the two differ
    "query_pre_attn_scalar": 64,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "sliding_window": SLIDING_WINDOW,
    "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(LAYERS)],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    },
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "dtype": "bfloat16",
}

VISION = {
    "model_type": "siglip_vision_model",
    "image_size": IMAGE_SIDE,
    "patch_size": 14,  # 8 x 8 patches, average-pooled 2 x 2 to 16 image tokens
    "num_channels": 3,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "vision_use_head": False,
    "dtype": "bfloat16",
}


def nano_config(vocab_size: int, boi_id: int, eoi_id: int, image_id: int) -> T5Gemma2Config:
    """The nano T5Gemma2Config for a vocabulary of `vocab_size` and the ids of its three image tokens."""
    text = {**TEXT, "vocab_size": vocab_size}
    encoder = {
        "text_config": {**text, "model_type": "t5gemma2_text"},
        "vision_config": VISION,
        "mm_tokens_per_image": IMAGE_TOKENS,
        "boi_token_index": boi_id,
        "eoi_token_index": eoi_id,
        "image_token_index": image_id,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
    return T5Gemma2Config(
        encoder=encoder,
        decoder={**text, "model_type": "t5gemma2_decoder"},
        image_token_index=image_id,
        eoi_token_index=eoi_id,
        initializer_range=0.02,
        tie_word_embeddings=True,
        architectures=["T5Gemma2ForConditionalGeneration"],
        dtype="bfloat16",
    )
