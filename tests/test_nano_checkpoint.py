"""The shipped nano checkpoint: size, Hub shape, loading in transformers, quality."""

import json

import pytest
from safetensors import safe_open

from t5g2.nano import CHECKPOINT_DIR
from t5g2.nano.data import held_out

transformers = pytest.importorskip("transformers")


def test_size():
    assert sum(file.stat().st_size for file in CHECKPOINT_DIR.iterdir()) <= 12_000_000


def test_hub_names_and_dtype():
    with safe_open(CHECKPOINT_DIR / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"BF16"}
    assert "model.encoder.embed_tokens.eoi_embedding" in names
    assert "model.encoder.vision_tower.vision_model.embeddings.patch_embedding.weight" in names
    assert "model.encoder.multi_modal_projector.mm_input_projection_weight" in names
    assert not [name for name in names if "decoder.embed_tokens" in name or "lm_head" in name or "text_model" in name]


def test_int4_groups_fit():
    config = json.loads((CHECKPOINT_DIR / "config.json").read_text())
    decoder, vision = config["decoder"], config["encoder"]["vision_config"]
    widths = [part[key] for part in (decoder, vision) for key in ("hidden_size", "intermediate_size")]
    widths.append(decoder["num_attention_heads"] * decoder["head_dim"])
    assert all(width % 32 == 0 for width in widths)


def test_loads_with_nothing_missing():
    from transformers import T5Gemma2ForConditionalGeneration

    _, info = T5Gemma2ForConditionalGeneration.from_pretrained(CHECKPOINT_DIR, output_loading_info=True)
    assert not any(info.values())


def test_processor_agrees_with_training_batches():
    import numpy as np
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoProcessor

    from t5g2.nano.batches import collate

    processor = AutoProcessor.from_pretrained(CHECKPOINT_DIR)
    tokenizer = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))
    for task in ("digits", "shapes"):
        example = next(held_out(task, 1))
        wanted = processor(text=example.source, images=example.image, return_tensors="np")
        batch = collate(tokenizer, AutoConfig.from_pretrained(CHECKPOINT_DIR), [example])
        assert wanted["input_ids"].tolist() == batch.input_ids.tolist()
        np.testing.assert_allclose(wanted["pixel_values"], batch.pixel_values.numpy(), atol=1e-5)


def test_quality_on_a_few_examples():
    from t5g2.nano.evaluate import evaluate

    assert min(evaluate(CHECKPOINT_DIR, examples=16).values()) >= 0.87
