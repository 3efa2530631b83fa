"""The one description of a model: `ModelConfig`, read from a Hub `config.json` or from our manifest.

Everything is checked in one place, `ModelConfig.__post_init__`, so that the code behind it may assume that sizes are
positive, heads divide, and both stacks fit each other. Reading a Hub file follows transformers: a key that the file
leaves out has the default that `T5Gemma2Config` gives it. Messages name fields as the Hub file does.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from t5g2.runtime.errors import T5g2Error

SLIDING = "sliding_attention"
FULL = "full_attention"
DTYPES = ("bfloat16", "float16", "float32")

# Where a field of ours sits in the Hub file, if it is not called the same there.
_HUB_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "rope_theta_sliding": "rope_parameters.sliding_attention.rope_theta",
    "rope_theta_full": "rope_parameters.full_attention.rope_theta",
    "rope_factor_sliding": "rope_parameters.sliding_attention.factor",
    "rope_factor_full": "rope_parameters.full_attention.factor",
}


@dataclass(frozen=True)
class TextConfig:
    """One text stack, encoder or decoder. The width of q is `num_heads * head_dim`, not `hidden_size`."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    sliding_window: int
    layer_types: tuple[str, ...]
    rope_theta_sliding: float
    rope_theta_full: float
    rope_factor_sliding: float  # positions are divided by this
    rope_factor_full: float
    query_pre_attn_scalar: float  # attention scores are multiplied by this ** -0.5
    rms_norm_eps: float
    vocab_size: int
    max_position_embeddings: int

    def layer_parameter_count(self) -> int:
        """Weights of one layer; encoder and decoder layers hold the same 13 tensors."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads)
        norms = 4 * self.hidden_size + 2 * self.head_dim
        return attention + 3 * self.hidden_size * self.intermediate_size + norms

    def parameter_count(self) -> int:
        """Weights of all layers and the final norm, without the embedding."""
        return self.num_layers * self.layer_parameter_count() + self.hidden_size

    def embedding_parameter_count(self) -> int:
        """Weights of the token table, which encoder, decoder and LM head share."""
        return self.vocab_size * self.hidden_size


@dataclass(frozen=True)
class VisionConfig:
    """The SigLIP tower: square images, square patches, no pooling head."""

    image_size: int
    patch_size: int
    num_channels: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    layer_norm_eps: float  # also the eps of the projector's RMSNorm

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size

    def parameter_count(self) -> int:
        """Weights of the tower, without the projector."""
        width, ff = self.hidden_size, self.intermediate_size
        embeddings = width * (self.num_channels * self.patch_size**2 + 1 + self.patches_per_side**2)
        layer = 4 * (width * width + width) + 2 * width * ff + ff + width + 4 * width
        return embeddings + self.num_layers * layer + 2 * width


@dataclass(frozen=True)
class ModelConfig:
    """A whole model.

    The image token ids are None where the file's id lies outside the vocabulary (a pruned vocabulary keeps the
    defaults): no input can hold such an id. `boi_token_id` is not used by the model, only to write prompts.
    `dtype` is None where the file does not say; the stored tensors then decide.

    Raises T5g2Error, from any way of building one, that names the first bad field, its value, and what is supported.
    """

    encoder: TextConfig
    decoder: TextConfig
    vision: VisionConfig | None
    mm_tokens_per_image: int
    pad_token_id: int | None
    bos_token_id: int
    eos_token_ids: tuple[int, ...]
    image_token_id: int | None
    boi_token_id: int | None
    eoi_token_id: int | None
    dtype: str | None

    def __post_init__(self):
        _validate(self)

    @classmethod
    def from_hub(cls, data: dict) -> "ModelConfig":
        """Reads the parsed `config.json` of a T5Gemma 2 checkpoint, as any transformers 5.x writes it."""
        from t5g2.export.hub_config import fields_from_hub  # here, because it builds the classes of this module

        return cls(**fields_from_hub(data))

    @classmethod
    def from_file(cls, path: Path | str) -> "ModelConfig":
        """Reads a `config.json`; errors name the file."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise T5g2Error(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise T5g2Error(f"{path}: not valid JSON ({error}); download it again") from None
        try:
            return cls.from_hub(data)
        except T5g2Error as error:
            raise T5g2Error(f"{path}: {error}") from None

    def to_dict(self) -> dict:
        """A JSON-able dict; `from_dict` inverts it, also after a trip through JSON."""
        data = dataclasses.asdict(self)
        for section in (data["encoder"], data["decoder"]):
            section["layer_types"] = list(section["layer_types"])
        return data | {"eos_token_ids": list(self.eos_token_ids)}

    @classmethod
    def from_dict(cls, data: dict) -> "ModelConfig":
        """Reads what `to_dict` wrote."""
        try:
            data = dict(data)
            for name in ("encoder", "decoder"):
                section = dict(data[name])
                data[name] = TextConfig(**section | {"layer_types": tuple(section["layer_types"])})
            data["vision"] = data["vision"] and VisionConfig(**data["vision"])
            data["eos_token_ids"] = tuple(data["eos_token_ids"])
            return cls(**data)
        except KeyError as error:
            raise T5g2Error(f"model config: {error.args[0]} is missing") from None
        except (TypeError, ValueError) as error:
            raise T5g2Error(f"model config: {error}") from None

    def projector_parameter_count(self) -> int:
        """Weights between vision tower and encoder; 0 without a vision tower."""
        return self.vision.hidden_size * (self.encoder.hidden_size + 1) if self.vision else 0

    def parameter_count(self, vision: bool = True) -> int:
        """All weights, tied ones once; `vision=False` leaves out the vision tower and the projector."""
        text = self.encoder.embedding_parameter_count() + self.encoder.hidden_size  # with the eoi vector
        text += self.encoder.parameter_count() + self.decoder.parameter_count()
        if vision and self.vision:
            text += self.vision.parameter_count() + self.projector_parameter_count()
        return text


def unsupported(path: str, value, supported: str) -> T5g2Error:
    """The one wording of a refusal: field, value, what is supported."""
    text = "missing or null" if value is None else json.dumps(value, default=str)
    text = text if len(text) <= 80 else text[:77] + "..."
    return T5g2Error(f"{path} is {text}; supported: {supported}")


def positive_int(path: str, value) -> int:
    """`value`, or T5g2Error unless it is an integer above 0. A bool is no integer here."""
    if type(value) is not int or value <= 0:
        raise unsupported(path, value, "a positive integer")
    return value


def _validate(config: ModelConfig) -> None:
    sections = {"encoder.text_config": config.encoder, "decoder": config.decoder}
    if config.vision is not None:
        sections["encoder.vision_config"] = config.vision
    for path, section in sections.items():
        _check_numbers(path, section)
    _check_text("encoder.text_config", config.encoder)
    _check_text("decoder", config.decoder)
    # Decoder layers project the encoder's states with their own k and v, and both stacks share one token table.
    for field in ("hidden_size", "num_kv_heads", "head_dim", "vocab_size"):
        ours, theirs = getattr(config.decoder, field), getattr(config.encoder, field)
        if ours != theirs:
            name = _HUB_NAMES.get(field, field)
            raise unsupported(f"decoder.{name}", ours, f"the encoder's value, {theirs}")
    positive_int("encoder.mm_tokens_per_image", config.mm_tokens_per_image)
    if config.vision is not None:
        _check_vision(config.vision, config.mm_tokens_per_image)
    _check_token_ids(config)
    if config.dtype is not None and config.dtype not in DTYPES:
        raise unsupported("dtype", config.dtype, ", ".join(DTYPES))


def _check_numbers(path: str, section: TextConfig | VisionConfig) -> None:
    for field in dataclasses.fields(section):
        name, value = f"{path}.{_HUB_NAMES.get(field.name, field.name)}", getattr(section, field.name)
        if field.type is int:
            positive_int(name, value)
        elif field.type is float and not (type(value) in (int, float) and math.isfinite(value) and value > 0):
            raise unsupported(name, value, "a positive number")


def _check_text(path: str, text: TextConfig) -> None:
    if text.num_heads % text.num_kv_heads:
        raise unsupported(f"{path}.num_key_value_heads", text.num_kv_heads, f"a divisor of {text.num_heads} heads")
    if text.head_dim % 2:
        raise unsupported(f"{path}.head_dim", text.head_dim, "an even number")
    if len(text.layer_types) != text.num_layers:
        raise T5g2Error(
            f"{path}.layer_types has {len(text.layer_types)} entries; supported: one for each of the "
            f"{text.num_layers} layers that num_hidden_layers names"
        )
    for i, kind in enumerate(text.layer_types):
        if kind not in (SLIDING, FULL):
            raise unsupported(f"{path}.layer_types[{i}]", kind, f'"{SLIDING}" or "{FULL}"')


def _check_vision(vision: VisionConfig, mm_tokens: int) -> None:
    path = "encoder.vision_config"
    if vision.image_size % vision.patch_size:
        raise unsupported(f"{path}.image_size", vision.image_size, f"a multiple of patch_size {vision.patch_size}")
    if vision.hidden_size % vision.num_heads:
        raise unsupported(f"{path}.num_attention_heads", vision.num_heads, f"a divisor of {vision.hidden_size}")
    side = math.isqrt(mm_tokens)
    if side * side != mm_tokens or vision.patches_per_side % side:
        grid = vision.patches_per_side
        raise unsupported(
            "encoder.mm_tokens_per_image", mm_tokens, f"a square whose side divides the {grid} x {grid} patch grid"
        )


def _check_token_ids(config: ModelConfig) -> None:
    ids = {"bos_token_id": config.bos_token_id}
    for name in ("pad_token_id", "image_token_id", "boi_token_id", "eoi_token_id"):
        if getattr(config, name) is not None:
            ids[name] = getattr(config, name)
    if not config.eos_token_ids:
        raise unsupported("eos_token_id", [], "an id or a list of ids: without one no answer would end")
    ids |= {f"eos_token_id[{i}]": value for i, value in enumerate(config.eos_token_ids)}
    for name, value in ids.items():
        if type(value) is not int or not 0 <= value < config.encoder.vocab_size:
            raise unsupported(name, value, f"a token id below vocab_size {config.encoder.vocab_size}")


def _release(hidden, ff, layers, heads, kv_heads, window, positions) -> ModelConfig:
    text = TextConfig(
        hidden_size=hidden,
        intermediate_size=ff,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=256,
        sliding_window=window,
        layer_types=tuple(FULL if (i + 1) % 6 == 0 else SLIDING for i in range(layers)),
        rope_theta_sliding=10_000.0,
        rope_theta_full=1_000_000.0,
        rope_factor_sliding=1.0,
        rope_factor_full=8.0,
        query_pre_attn_scalar=256.0,
        rms_norm_eps=1e-6,
        vocab_size=262_144,
        max_position_embeddings=positions,
    )
    vision = VisionConfig(
        image_size=896,
        patch_size=14,
        num_channels=3,
        hidden_size=1152,
        intermediate_size=4304,
        num_layers=27,
        num_heads=16,
        layer_norm_eps=1e-6,
    )
    return ModelConfig(
        encoder=text,
        decoder=text,
        vision=vision,
        mm_tokens_per_image=256,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_ids=(1,),
        image_token_id=256_001,
        boi_token_id=255_999,
        eoi_token_id=256_000,
        dtype="bfloat16",
    )


# The released sizes, for work with random weights; a real checkpoint's own config.json always wins.
# max_position_embeddings is published for the 270M size only; the others carry their Gemma 3 parent's.
SIZES = {
    "270m": _release(640, 2048, 18, 4, 1, window=512, positions=32_768),
    "1b": _release(1152, 6912, 26, 4, 1, window=512, positions=32_768),
    "4b": _release(2560, 10_240, 34, 8, 4, window=1024, positions=131_072),
}

HUB_IDS = {size: f"google/t5gemma-2-{size}-{size}" for size in SIZES}
