import copy
import dataclasses
import json
import re

import pytest
from tiny import BOI, EOI, IMAGE, tiny_config

from t5g2.export.config import FULL, HUB_IDS, SIZES, SLIDING, ModelConfig
from t5g2.runtime.errors import T5g2Error

REMOVE = object()


def hub_dict(**overrides) -> dict:
    """The tiny config as save_pretrained writes it."""
    return json.loads(tiny_config(**overrides).to_json_string())


def edited(path: str, value, base: dict | None = None) -> dict:
    """A copy with one dotted key set, or removed."""
    data = copy.deepcopy(base or hub_dict())
    *parents, last = path.split(".")
    section = data
    for parent in parents:
        section = section[parent]
    if value is REMOVE:
        del section[last]
    else:
        section[last] = value
    return data


def test_reads_what_transformers_writes(tmp_path):
    tiny_config(decoder={"num_hidden_layers": 8, "num_attention_heads": 2}).save_pretrained(tmp_path)
    config = ModelConfig.from_file(tmp_path / "config.json")
    text = config.encoder
    assert (text.hidden_size, text.intermediate_size, text.num_layers) == (64, 96, 6)
    assert (text.num_heads, text.num_kv_heads, text.head_dim) == (4, 1, 32)
    assert (text.sliding_window, text.vocab_size, text.max_position_embeddings) == (16, 300, 512)
    assert text.layer_types == (SLIDING,) * 5 + (FULL,)
    assert (text.rope_theta_sliding, text.rope_factor_sliding) == (10_000.0, 1.0)
    assert (text.rope_theta_full, text.rope_factor_full) == (1_000_000.0, 8.0)
    assert (text.query_pre_attn_scalar, text.rms_norm_eps) == (32.0, 1e-6)
    assert (config.decoder.num_layers, config.decoder.num_heads) == (8, 2)
    assert config.decoder.layer_types == (SLIDING,) * 5 + (FULL,) + (SLIDING,) * 2
    vision = config.vision
    assert (vision.image_size, vision.patch_size, vision.num_channels, vision.patches_per_side) == (56, 14, 3, 4)
    assert (vision.hidden_size, vision.intermediate_size, vision.num_layers, vision.num_heads) == (48, 80, 2, 4)
    assert vision.layer_norm_eps == 1e-6
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_ids) == (0, 2, (1,))
    assert (config.image_token_id, config.boi_token_id, config.eoi_token_id) == (IMAGE, BOI, EOI)
    assert config.mm_tokens_per_image == 4


def test_missing_keys_have_the_defaults_of_transformers():
    from transformers import T5Gemma2Config

    data = {
        "model_type": "t5gemma2",
        "encoder": {"text_config": {"hidden_size": 64, "vocab_size": 262_144}, "vision_config": {}},
        "decoder": {"hidden_size": 64, "vocab_size": 262_144},
    }
    config = ModelConfig.from_hub(edited("encoder.vision_config.image_size", 256, data))
    theirs = T5Gemma2Config.from_dict(data)
    for ours, text in ((config.encoder, theirs.encoder.text_config), (config.decoder, theirs.decoder)):
        assert (ours.intermediate_size, ours.num_layers, ours.num_heads, ours.num_kv_heads, ours.head_dim) == (
            text.intermediate_size,
            text.num_hidden_layers,
            text.num_attention_heads,
            text.num_key_value_heads,
            text.head_dim,
        )
        assert (ours.sliding_window, ours.query_pre_attn_scalar) == (text.sliding_window, text.query_pre_attn_scalar)
        assert (ours.rms_norm_eps, ours.max_position_embeddings) == (text.rms_norm_eps, text.max_position_embeddings)
        assert ours.layer_types == tuple(text.layer_types)
        assert ours.rope_theta_full == text.rope_parameters[FULL]["rope_theta"]
        assert ours.rope_theta_sliding == text.rope_parameters[SLIDING]["rope_theta"]
        assert (ours.rope_factor_full, ours.rope_factor_sliding) == (1.0, 1.0)
    vision = theirs.encoder.vision_config
    assert (config.vision.patch_size, config.vision.num_channels) == (vision.patch_size, vision.num_channels)
    assert (config.vision.hidden_size, config.vision.num_layers) == (vision.hidden_size, vision.num_hidden_layers)
    assert (config.vision.intermediate_size, config.vision.num_heads) == (
        vision.intermediate_size,
        vision.num_attention_heads,
    )
    assert config.vision.layer_norm_eps == vision.layer_norm_eps
    assert (config.image_token_id, config.eoi_token_id, config.boi_token_id) == (256_001, 256_000, 255_999)
    assert config.mm_tokens_per_image == theirs.encoder.mm_tokens_per_image
    assert config.dtype is None


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 2e6, "rope_local_base_freq": 3e4},
        {"rope_scaling": {"rope_type": "default", "factor": 4}, "rope_theta": 500_000},
        {"rope_parameters": {FULL: {"type": "linear", "factor": 4}}},
        {"rope_scaling": None, "rope_local_base_freq": 3e4},
        {"rope_parameters": {FULL: {"rope_type": "linear", "factor": 2.0}}, "rope_theta": 7e5},
        {"rope_parameters": {SLIDING: {"rope_type": "linear", "factor": 3.0, "rope_theta": 5e3}, FULL: None}},
    ],
)
def test_rope_generations_agree_with_transformers(keys):
    from transformers import T5Gemma2Config

    data = edited("decoder.rope_parameters", REMOVE)
    data["decoder"] |= keys
    ours = ModelConfig.from_hub(data).decoder
    theirs = T5Gemma2Config.from_dict(copy.deepcopy(data)).decoder.rope_parameters
    assert (ours.rope_theta_full, ours.rope_theta_sliding) == (
        theirs[FULL]["rope_theta"],
        theirs[SLIDING]["rope_theta"],
    )
    factors = [theirs[k]["factor"] if theirs[k]["rope_type"] == "linear" else 1.0 for k in (FULL, SLIDING)]
    assert [ours.rope_factor_full, ours.rope_factor_sliding] == factors


@pytest.mark.parametrize("key", ["sliding_window_pattern", "_sliding_window_pattern"])
def test_layer_pattern(key):
    data = edited("decoder.layer_types", REMOVE)
    data["decoder"][key] = 3
    assert ModelConfig.from_hub(data).decoder.layer_types == (SLIDING, SLIDING, FULL) * 2


def test_image_ids_take_the_precedence_of_transformers():
    from transformers import T5Gemma2Config

    data = hub_dict()
    data["image_token_index"], data["encoder"]["image_token_index"] = 280, 281
    data["eoi_token_index"], data["encoder"]["eoi_token_index"] = 282, 283
    ours, theirs = ModelConfig.from_hub(data), T5Gemma2Config.from_dict(copy.deepcopy(data))
    assert (ours.image_token_id, ours.eoi_token_id) == (280, 283)
    assert (theirs.encoder.image_token_id, theirs.eoi_token_index) == (280, 283)


def test_ids_outside_a_pruned_vocabulary_are_none():
    data = edited("image_token_index", REMOVE)
    for name in ("boi_token_index", "eoi_token_index", "image_token_index"):
        data["encoder"].pop(name, None)
    data.pop("eoi_token_index")
    config = ModelConfig.from_hub(data)
    assert (config.image_token_id, config.boi_token_id, config.eoi_token_id) == (None, None, None)


def test_eos_may_be_a_list():
    assert ModelConfig.from_hub(edited("eos_token_id", [1, 108])).eos_token_ids == (1, 108)


def test_top_level_special_ids_fall_back_to_the_decoder():
    data = edited("decoder.eos_token_id", 7)
    del data["eos_token_id"]
    assert ModelConfig.from_hub(data).eos_token_ids == (7,)


def test_no_vision_config():
    config = ModelConfig.from_hub(edited("encoder.vision_config", None))
    assert config.vision is None
    assert config.parameter_count() == config.parameter_count(vision=False)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype(key):
    data = hub_dict()
    data.pop("dtype", None)
    assert ModelConfig.from_hub(data | {key: "float16"}).dtype == "float16"


TEXT, VISION = "encoder.text_config", "encoder.vision_config"


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("model_type", "t5gemma", 'model_type is "t5gemma"; .*T5Gemma 1'),
        ("model_type", "t5gemma2_encoder", "only a part of one"),
        ("model_type", "gemma3", 'model_type is "gemma3"; supported: "t5gemma2"'),
        ("model_type", REMOVE, "model_type is missing"),
        ("quantization_config", {"load_in_8bit": True}, "quantization_config is set"),
        ("tie_word_embeddings", False, "tie_word_embeddings is false"),
        ("encoder", REMOVE, "^encoder is missing"),
        (TEXT, REMOVE, "encoder.text_config is missing"),
        ("decoder", 3, "decoder is 3; supported: an object"),
        (VISION, [], r"encoder.vision_config is \[\]"),
        (f"{TEXT}.hidden_size", REMOVE, "encoder.text_config.hidden_size is missing or null; supported: a pos"),
        (f"{TEXT}.hidden_size", 0, "encoder.text_config.hidden_size is 0"),
        (f"{TEXT}.hidden_size", True, "encoder.text_config.hidden_size is true"),
        (f"{TEXT}.hidden_size", "64", 'encoder.text_config.hidden_size is "64"'),
        (f"{TEXT}.hidden_size", 64.0, "encoder.text_config.hidden_size is 64.0"),
        (f"{TEXT}.intermediate_size", -1, "encoder.text_config.intermediate_size is -1"),
        (f"{TEXT}.num_hidden_layers", "6", 'encoder.text_config.num_hidden_layers is "6"'),
        (f"{TEXT}.num_attention_heads", 0, "encoder.text_config.num_attention_heads is 0"),
        (f"{TEXT}.num_key_value_heads", 3, "encoder.text_config.num_key_value_heads is 3; supported: a divisor of 4"),
        (f"{TEXT}.head_dim", 33, "encoder.text_config.head_dim is 33; supported: an even"),
        (f"{TEXT}.sliding_window", None, "encoder.text_config.sliding_window is missing or null"),
        (f"{TEXT}.vocab_size", [300], r"encoder.text_config.vocab_size is \[300\]"),
        (f"{TEXT}.max_position_embeddings", 0, "max_position_embeddings is 0"),
        (f"{TEXT}.rms_norm_eps", float("nan"), "encoder.text_config.rms_norm_eps is NaN"),
        (f"{TEXT}.query_pre_attn_scalar", 0, "query_pre_attn_scalar is 0.0; supported: a positive number"),
        (f"{TEXT}.attention_bias", True, "encoder.text_config.attention_bias is true; supported: false"),
        ("decoder.attn_logit_softcapping", 50.0, "decoder.attn_logit_softcapping is 50.0; supported: null"),
        ("decoder.final_logit_softcapping", 30.0, "decoder.final_logit_softcapping is 30.0; supported: null"),
        ("decoder.hidden_activation", "silu", 'decoder.hidden_activation is "silu"; supported: "gelu_pytorch_tanh"'),
        ("decoder.layer_types", [SLIDING], "decoder.layer_types has 1 entries; .*6 layers"),
        ("decoder.layer_types", [SLIDING] * 5 + ["linear"], r'decoder.layer_types\[5\] is "linear"'),
        ("decoder.layer_types", SLIDING, "decoder.layer_types is .*a list"),
        (f"decoder.rope_parameters.{FULL}.rope_type", "yarn", f'decoder.rope_parameters.{FULL}.rope_type is "yarn"'),
        (f"decoder.rope_parameters.{FULL}.factor", 0, f"decoder.rope_parameters.{FULL}.factor is 0"),
        (f"decoder.rope_parameters.{FULL}.factor", REMOVE, f"decoder.rope_parameters.{FULL}.factor is missing"),
        (f"decoder.rope_parameters.{SLIDING}.rope_theta", "x", f'rope_parameters.{SLIDING}.rope_theta is "x"'),
        (f"decoder.rope_parameters.{FULL}.partial_rotary_factor", 0.5, "partial_rotary_factor is 0.5"),
        (f"decoder.rope_parameters.{FULL}", 8, f"decoder.rope_parameters.{FULL} is 8"),
        ("decoder.rope_parameters", {"rope_type": "linear", "factor": 8.0}, "decoder.rope_parameters is .*an object"),
        ("decoder.rope_scaling", "linear", 'decoder.rope_scaling is "linear"; supported: an object'),
        ("decoder.rope_scaling", {"type": "linear", "factor": 8}, 'rope_scaling is .*an object with "rope_type"'),
        ("decoder.hidden_size", 128, "decoder.hidden_size is 128; supported: the encoder's value, 64"),
        ("decoder.num_key_value_heads", 2, "decoder.num_key_value_heads is 2; supported: the encoder's value, 1"),
        ("decoder.head_dim", 16, "decoder.head_dim is 16; supported: the encoder's value, 32"),
        ("decoder.vocab_size", 512, "decoder.vocab_size is 512; supported: the encoder's value, 300"),
        ("encoder.mm_tokens_per_image", 5, "encoder.mm_tokens_per_image is 5; .*4 x 4 patch grid"),
        ("encoder.mm_tokens_per_image", 9, "encoder.mm_tokens_per_image is 9; .*4 x 4 patch grid"),
        ("encoder.mm_tokens_per_image", "4", 'encoder.mm_tokens_per_image is "4"'),
        (f"{VISION}.image_size", 57, "encoder.vision_config.image_size is 57; supported: a multiple of patch_size 14"),
        (f"{VISION}.image_size", [56, 56], "encoder.vision_config.image_size is"),
        (f"{VISION}.num_attention_heads", 5, "encoder.vision_config.num_attention_heads is 5; supported: a divisor"),
        (f"{VISION}.num_hidden_layers", -2, "encoder.vision_config.num_hidden_layers is -2"),
        (f"{VISION}.layer_norm_eps", "tiny", "encoder.vision_config.layer_norm_eps is"),
        (f"{VISION}.hidden_act", "relu", 'encoder.vision_config.hidden_act is "relu"'),
        (f"{VISION}.model_type", "clip_vision_model", "encoder.vision_config.model_type is"),
        ("bos_token_id", 300, "bos_token_id is 300; supported: a token id below vocab_size 300"),
        ("pad_token_id", -1, "pad_token_id is -1"),
        ("eos_token_id", [1, 400], r"eos_token_id\[1\] is 400"),
        ("eos_token_id", [], "eos_token_id is .*no answer would end"),
        ("image_token_index", "292", 'image_token_id is "292"'),
        ("dtype", "int8", 'dtype is "int8"; supported: bfloat16'),
    ],
)
def test_refusals(path, value, message):
    with pytest.raises(T5g2Error, match=message) as caught:
        ModelConfig.from_hub(edited(path, value))
    assert "\n" not in str(caught.value)


def test_not_an_object():
    with pytest.raises(T5g2Error, match="not a JSON object"):
        ModelConfig.from_hub([1])


def test_file_errors_name_the_file(tmp_path):
    file = tmp_path / "config.json"
    with pytest.raises(T5g2Error, match=rf"{re.escape(str(file))}: cannot be read \(No such file"):
        ModelConfig.from_file(file)
    file.write_text("{")
    with pytest.raises(T5g2Error, match=rf"{re.escape(str(file))}: not valid JSON"):
        ModelConfig.from_file(file)
    file.write_text(json.dumps(edited("decoder.head_dim", 1)))
    with pytest.raises(T5g2Error, match=rf"{re.escape(str(file))}: decoder.head_dim is 1"):
        ModelConfig.from_file(file)


@pytest.mark.parametrize("config", [*SIZES.values(), ModelConfig.from_hub(edited("encoder.vision_config", None))])
def test_dict_round_trip(config):
    restored = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert restored == config
    assert hash(restored) == hash(config)


def test_from_dict_checks():
    data = SIZES["270m"].to_dict()
    with pytest.raises(T5g2Error, match="model config: decoder is missing"):
        ModelConfig.from_dict({k: v for k, v in data.items() if k != "decoder"})
    with pytest.raises(T5g2Error, match="model config: .*colour"):
        ModelConfig.from_dict(data | {"colour": 1})
    with pytest.raises(T5g2Error, match="decoder.head_dim is 0"):
        ModelConfig.from_dict(data | {"decoder": data["decoder"] | {"head_dim": 0}})


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SIZES["270m"].encoder.hidden_size = 1


# Published totals: Google's model card and the counts of public ports, which agree to the digit.
@pytest.mark.parametrize(
    "size, embedding, layer, stack, projector, text_only, total",
    [
        ("270m", 167_772_160, 5_573_632, 100_326_016, 738_432, 368_424_832, 786_029_296),
        ("1b", 301_989_888, 26_842_112, 697_896_064, 1_328_256, 1_697_783_168, 2_115_977_456),
        ("4b", 671_088_640, 94_382_592, 3_209_010_688, 2_950_272, 7_089_112_576, 7_508_928_880),
    ],
)
def test_parameter_counts(size, embedding, layer, stack, projector, text_only, total):
    config = SIZES[size]
    assert config.encoder.embedding_parameter_count() == embedding
    assert config.encoder.layer_parameter_count() == config.decoder.layer_parameter_count() == layer
    assert config.encoder.parameter_count() == config.decoder.parameter_count() == stack
    assert config.vision.parameter_count() == 416_866_032
    assert config.projector_parameter_count() == projector
    assert config.parameter_count(vision=False) == text_only
    assert config.parameter_count() == total


def test_released_layer_patterns():
    def full(size):
        return [i for i, kind in enumerate(SIZES[size].encoder.layer_types) if kind == FULL]

    assert full("270m") == [5, 11, 17]
    assert full("1b") == [5, 11, 17, 23]
    assert full("4b") == [5, 11, 17, 23, 29]
    assert HUB_IDS["270m"] == "google/t5gemma-2-270m-270m"
