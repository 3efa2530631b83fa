"""Reads the Hub's `config.json` into the fields of `ModelConfig`.

Follows `T5Gemma2Config` of transformers 5.x: the same defaults for keys that a file leaves out, the same precedence
between top-level and nested keys, and both generations of RoPE keys. What the model code cannot compute is refused
here; whether the values fit each other is checked by `ModelConfig`.
"""

from t5g2.export.config import FULL, SLIDING, TextConfig, VisionConfig, positive_int, unsupported
from t5g2.runtime.errors import T5g2Error

ACTIVATION = "gelu_pytorch_tanh"


def fields_from_hub(data: dict) -> dict:
    """Keyword arguments of `ModelConfig`. Raises T5g2Error for a model or feature that is not supported."""
    if not isinstance(data, dict):
        raise T5g2Error("config is not a JSON object; supported: a T5Gemma 2 config.json")
    _check_model(data)
    encoder, decoder = _section(data, "encoder"), _section(data, "decoder")
    text = _text_config(_section(encoder, "text_config", "encoder."), "encoder.text_config")
    vision = None
    if encoder.get("vision_config") is not None:
        vision = _vision_config(_section(encoder, "vision_config", "encoder."))

    def in_vocabulary(token_id):
        # A wrong type is kept, for the check behind this to name it.
        outside = type(token_id) is int and type(text.vocab_size) is int and token_id >= text.vocab_size
        return None if outside else token_id

    eos = _first((data, decoder), "eos_token_id", 1)
    return {
        "encoder": text,
        "decoder": _text_config(decoder, "decoder"),
        "vision": vision,
        "mm_tokens_per_image": _first((encoder,), "mm_tokens_per_image", 256),
        "pad_token_id": _first((data, decoder), "pad_token_id", 0),
        "bos_token_id": _first((data, decoder), "bos_token_id", 2),
        "eos_token_ids": tuple(eos) if isinstance(eos, list) else (eos,),
        # transformers overwrites the encoder's image id with the top-level one, and the top-level eoi id with the
        # encoder's. The encoder's own default for the image id (262144) is no token of any released vocabulary.
        "image_token_id": in_vocabulary(_first((data,), ("image_token_index", "image_token_id"), 256_001)),
        "eoi_token_id": in_vocabulary(_first((encoder, data), ("eoi_token_index", "eoi_token_id"), 256_000)),
        "boi_token_id": in_vocabulary(_first((encoder, data), ("boi_token_index", "boi_token_id"), 255_999)),
        "dtype": _first((data,), ("dtype", "torch_dtype"), None),
    }


def _check_model(data: dict) -> None:
    kind = data.get("model_type")
    if kind == "t5gemma":
        raise unsupported("model_type", kind, '"t5gemma2"; this is T5Gemma 1, which is a different architecture')
    if kind in ("t5gemma2_encoder", "t5gemma2_text", "t5gemma2_decoder"):
        raise unsupported("model_type", kind, '"t5gemma2", the whole model; this is only a part of one')
    if kind != "t5gemma2":
        raise unsupported("model_type", kind, '"t5gemma2"')
    if data.get("quantization_config") is not None:
        raise T5g2Error("quantization_config is set; supported: unquantized weights (bfloat16, float16, float32)")
    if data.get("tie_word_embeddings", True) is not True:
        raise unsupported("tie_word_embeddings", data["tie_word_embeddings"], "true; the embedding must be shared")


def _text_config(section: dict, path: str) -> TextConfig:
    _refuse_options(section, path)
    num_layers = positive_int(f"{path}.num_hidden_layers", section.get("num_hidden_layers", 26))
    theta_full, factor_full = _rope(section, path, FULL)
    theta_sliding, factor_sliding = _rope(section, path, SLIDING)
    return TextConfig(
        # No released model has the class default of these two, so a file without them is no T5Gemma 2 config.
        hidden_size=section.get("hidden_size"),
        vocab_size=section.get("vocab_size"),
        intermediate_size=section.get("intermediate_size", 9216),
        num_layers=num_layers,
        num_heads=section.get("num_attention_heads", 8),
        num_kv_heads=section.get("num_key_value_heads", 4),
        head_dim=section.get("head_dim", 256),
        sliding_window=section.get("sliding_window", 4096),
        layer_types=_layer_types(section, path, num_layers),
        rope_theta_sliding=theta_sliding,
        rope_theta_full=theta_full,
        rope_factor_sliding=factor_sliding,
        rope_factor_full=factor_full,
        query_pre_attn_scalar=_as_float(section.get("query_pre_attn_scalar", 256)),
        rms_norm_eps=_as_float(section.get("rms_norm_eps", 1e-6)),
        max_position_embeddings=section.get("max_position_embeddings", 131_072),
    )


def _refuse_options(section: dict, path: str) -> None:
    if section.get("attention_bias") not in (None, False):
        raise unsupported(f"{path}.attention_bias", section["attention_bias"], "false")
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if section.get(name) is not None:
            raise unsupported(f"{path}.{name}", section[name], "null")
    activation = _first((section,), ("hidden_activation", "hidden_act"), ACTIVATION)
    if activation != ACTIVATION:
        raise unsupported(f"{path}.hidden_activation", activation, f'"{ACTIVATION}"')


def _layer_types(section: dict, path: str, num_layers: int) -> tuple[str, ...]:
    types = section.get("layer_types")
    if types is None:
        name = "sliding_window_pattern"
        pattern = positive_int(f"{path}.{name}", _first((section,), (name, "_" + name), 6))
        return tuple(SLIDING if (i + 1) % pattern else FULL for i in range(num_layers))
    if not isinstance(types, list):
        raise unsupported(f"{path}.layer_types", types, "a list with one entry for each layer")
    return tuple(types)


def _rope(section: dict, path: str, kind: str) -> tuple[float, float]:
    """(theta, factor) of one kind of layer; the factor divides positions and is 1.0 for the default type."""
    old_theta, default_theta = ("rope_theta", 1e6) if kind == FULL else ("rope_local_base_freq", 1e4)
    every, scaling = section.get("rope_parameters") or {}, section.get("rope_scaling") or {}
    if not isinstance(every, dict) or (every and not {FULL, SLIDING} & every.keys()):
        raise unsupported(f"{path}.rope_parameters", every, f'an object with "{SLIDING}" and "{FULL}"')
    if not isinstance(scaling, dict) or (scaling and "rope_type" not in scaling):
        # transformers reads a scaling without rope_type as no scaling at all; that was hardly meant.
        raise unsupported(f"{path}.rope_scaling", scaling, 'an object with "rope_type"')
    rope, path = every.get(kind) or {}, f"{path}.rope_parameters.{kind}"
    if not isinstance(rope, dict):
        raise unsupported(path, rope, "an object")
    if kind == FULL:
        rope = rope | scaling  # the older name; it never spoke of sliding layers
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise unsupported(f"{path}.partial_rotary_factor", rope["partial_rotary_factor"], "1.0")
    theta = _as_float(_first((rope,), "rope_theta", _first((section,), old_theta, default_theta)))
    rope_type = _first((rope,), ("rope_type", "type"), "default")
    if rope_type == "default":
        return theta, 1.0
    if rope_type == "linear":
        return theta, _as_float(rope.get("factor"))
    raise unsupported(f"{path}.rope_type", rope_type, '"default" or "linear"')


def _vision_config(section: dict) -> VisionConfig:
    """The defaults are `SiglipVisionConfig`'s."""
    path = "encoder.vision_config"
    kind = section.get("model_type", "siglip_vision_model")
    if kind != "siglip_vision_model":
        raise unsupported(f"{path}.model_type", kind, '"siglip_vision_model"')
    activation = _first((section,), "hidden_act", ACTIVATION)
    if activation != ACTIVATION:
        raise unsupported(f"{path}.hidden_act", activation, f'"{ACTIVATION}"')
    return VisionConfig(
        image_size=section.get("image_size", 224),
        patch_size=section.get("patch_size", 16),
        num_channels=section.get("num_channels", 3),
        hidden_size=section.get("hidden_size", 768),
        intermediate_size=section.get("intermediate_size", 3072),
        num_layers=section.get("num_hidden_layers", 12),
        num_heads=section.get("num_attention_heads", 12),
        layer_norm_eps=_as_float(section.get("layer_norm_eps", 1e-6)),
    )


def _section(data: dict, name: str, prefix: str = "") -> dict:
    section = data.get(name)
    if not isinstance(section, dict):
        raise unsupported(prefix + name, section, "an object")
    return section


def _first(sections: tuple[dict, ...], names: str | tuple[str, ...], default):
    """The first value that is neither absent nor null."""
    for section in sections:
        for name in (names,) if isinstance(names, str) else names:
            if section.get(name) is not None:
                return section[name]
    return default


def _as_float(value):
    # Anything but a number passes through, for ModelConfig to name it.
    return float(value) if type(value) is int else value
