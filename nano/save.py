"""Write a nano model as a checkpoint folder that looks like one from the Hub."""

import json
import os
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import T5Gemma2ForConditionalGeneration

TIED = ("model.decoder.embed_tokens.", "lm_head.")  # stored once, under the encoder


def hub_name(name: str) -> str:
    """A tensor's name in the Hub's files: no `text_model` level, but a `vision_model` level."""
    name = name.replace("model.encoder.text_model.", "model.encoder.")
    return re.sub(r"vision_tower\.(?!vision_model)", "vision_tower.vision_model.", name)


def hub_tensors(model: T5Gemma2ForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The model's weights in bfloat16 under the Hub's names, without the tied ones."""
    return {
        hub_name(name): tensor.detach().to(torch.bfloat16).contiguous().clone()
        for name, tensor in model.state_dict().items()
        if not name.startswith(TIED)
    }


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _config(model: T5Gemma2ForConditionalGeneration) -> dict:
    config = model.config.to_dict()
    config["architectures"] = ["T5Gemma2ForConditionalGeneration"]
    inner = [config["encoder"]["text_config"], config["encoder"]["vision_config"]]
    for part in [config, config["encoder"], config["decoder"], *inner]:
        part["dtype"] = "bfloat16"
        part.pop("_name_or_path", None)
    for part in inner:  # transformers would let these win over the dtype that the caller of from_pretrained asks for
        del part["dtype"]
    return config


def save_checkpoint(model: T5Gemma2ForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    """Write every file of a checkpoint next to `folder`, then put the new folder in its place."""
    staging = folder.with_name(folder.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    config = _config(model)
    side, image_tokens = config["encoder"]["vision_config"]["image_size"], config["encoder"]["mm_tokens_per_image"]

    save_file(hub_tensors(model), staging / "model.safetensors", metadata={"format": "pt"})
    (staging / "model.safetensors").chmod(0o644)
    tokenizer.save(str(staging / "tokenizer.json"))
    _write_json(staging / "config.json", config)
    _write_json(staging / "generation_config.json", {
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "do_sample": False, "max_new_tokens": 64,
    })  # fmt: skip
    _write_json(staging / "tokenizer_config.json", {
        "tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False,
        "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
        "mask_token": "<mask>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>", "clean_up_tokenization_spaces": False, "padding_side": "left",
        "model_max_length": config["decoder"]["max_position_embeddings"], "processor_class": "Gemma3Processor",
    })  # fmt: skip
    image_processor = {
        "image_processor_type": "Gemma3ImageProcessor", "do_convert_rgb": True, "do_resize": True,
        "size": {"height": side, "width": side}, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_pan_and_scan": False,
        "image_seq_length": image_tokens,
    }  # fmt: skip
    _write_json(staging / "preprocessor_config.json", {**image_processor, "processor_class": "Gemma3Processor"})
    _write_json(staging / "processor_config.json", {
        "processor_class": "Gemma3Processor", "image_seq_length": image_tokens, "image_processor": image_processor,
    })  # fmt: skip

    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(staging, folder)
    shutil.rmtree(old, ignore_errors=True)
