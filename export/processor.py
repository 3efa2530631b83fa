"""What a checkpoint's side files say about its inputs and outputs: picture normalisation, stop ids."""

from __future__ import annotations

import json
from pathlib import Path

from t5g2.export.config import ModelConfig
from t5g2.runtime.errors import T5g2Error

_BILINEAR = 2  # Pillow's number


def image_settings(folder: Path | None, config: ModelConfig) -> dict | None:
    """How pictures become pixels: side, channels, mean and std per channel; None for a model without vision.

    Reads preprocessor_config.json, or processor_config.json as newer releases write it; without either, the released
    checkpoints' mean 0.5 and std 0.5. Raises T5g2Error for settings that the runtime does not follow.
    """
    if config.vision is None:
        return None
    channels, side = config.vision.num_channels, config.vision.image_size
    file, settings = _image_processor(folder)
    supported = {
        "size": {"height": side, "width": side},
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_pan_and_scan": False,
        "resample": _BILINEAR,
        "rescale_factor": 1 / 255,
    }
    for name, value in supported.items():
        if settings.get(name) not in (None, value):
            raise T5g2Error(f"{file}: {name} is {settings[name]}, and only {value} is supported; change it there")
    return {
        "side": side,
        "channels": channels,
        "mean": settings.get("image_mean", [0.5] * channels),
        "std": settings.get("image_std", [0.5] * channels),
    }


def stop_ids(folder: Path | None, config: ModelConfig) -> tuple[int, ...]:
    """The ids that end a target: those of generation_config.json, where a chat fine-tune adds its own, else config.json's."""
    eos = _read_json(folder, "generation_config.json").get("eos_token_id")
    if eos is None:
        return config.eos_token_ids
    ids = tuple(eos) if isinstance(eos, list) else (eos,)
    vocab = config.decoder.vocab_size
    if not ids or not all(type(i) is int and 0 <= i < vocab for i in ids):
        raise T5g2Error(f"{folder / 'generation_config.json'}: eos_token_id is {eos}; give ids below vocab_size {vocab}")
    return ids


def _image_processor(folder: Path | None) -> tuple[str, dict]:
    settings = _read_json(folder, "preprocessor_config.json")
    if settings:
        return "preprocessor_config.json", settings
    return "processor_config.json", _read_json(folder, "processor_config.json").get("image_processor", {})


def _read_json(folder: Path | None, name: str) -> dict:
    if folder is None or not (folder / name).is_file():
        return {}
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise T5g2Error(f"{folder / name}: not valid JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise T5g2Error(f"{folder / name}: not a JSON object; download it again")
    return content
