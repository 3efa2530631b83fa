"""Reads a checkpoint folder: memory-mapped safetensors under one set of names, checked against the config.

Published checkpoints differ in how they name the same tensor (`model.` in front or not, `encoder.text_model.layers`
or `encoder.layers`, `vision_tower.vision_model.` or `vision_tower.`) and in whether they repeat tied tensors. Behind
`Checkpoint` there is one set of names, that of `expected_shapes`, and each weight once.
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from t5g2.export.config import ModelConfig, TextConfig
from t5g2.runtime.errors import T5g2Error

EMBEDDING = "encoder.embed_tokens.weight"
EOI_EMBEDDING = "encoder.embed_tokens.eoi_embedding"

# Copies that a file may repeat, and what each must equal.
_TIED = {
    "decoder.embed_tokens.weight": EMBEDDING,
    "decoder.embed_tokens.eoi_embedding": EOI_EMBEDDING,
    "lm_head.out_proj.weight": EMBEDDING,
    "lm_head.weight": EMBEDDING,
}
# No part of the computation: SigLIP's pooling head, and buffers that older releases stored.
_IGNORED = re.compile(r"vision_tower\.head\.|.*(\.position_ids|inv_freq|\.embed_scale)$")
_VISION = ("vision_tower.", "multi_modal_projector.")
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_LISTED = 8  # tensors named in one message, of each kind
_COMPARED_ROWS = 16_384
_REMAP_BYTES = 256 * 2**20


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every tensor of the model, tied ones once; no vision names if `config.vision` is
    None. Matrices are [out, in], except `mm_input_projection_weight`, which is [in, out]."""
    shapes = {
        EMBEDDING: (config.encoder.vocab_size, config.encoder.hidden_size),
        EOI_EMBEDDING: (config.encoder.hidden_size,),
    }
    shapes |= _text_shapes("encoder", config.encoder) | _text_shapes("decoder", config.decoder)
    return shapes | _vision_shapes(config)


def _text_shapes(stack: str, text: TextConfig) -> dict[str, tuple[int, ...]]:
    hidden, ff, q, kv = text.hidden_size, text.intermediate_size, text.num_heads, text.num_kv_heads
    layer = {
        "self_attn.q_proj": (q * text.head_dim, hidden),
        "self_attn.k_proj": (kv * text.head_dim, hidden),
        "self_attn.v_proj": (kv * text.head_dim, hidden),
        "self_attn.o_proj": (hidden, q * text.head_dim),
        "self_attn.q_norm": (text.head_dim,),
        "self_attn.k_norm": (text.head_dim,),
        "mlp.gate_proj": (ff, hidden),
        "mlp.up_proj": (ff, hidden),
        "mlp.down_proj": (hidden, ff),
        "pre_self_attn_layernorm": (hidden,),
        "post_self_attn_layernorm": (hidden,),
        "pre_feedforward_layernorm": (hidden,),
        "post_feedforward_layernorm": (hidden,),
    }
    shapes = {
        f"{stack}.layers.{i}.{name}.weight": shape for i in range(text.num_layers) for name, shape in layer.items()
    }
    return shapes | {f"{stack}.norm.weight": (hidden,)}


def _vision_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    if config.vision is None:
        return {}
    vision = config.vision
    width, ff, patch = vision.hidden_size, vision.intermediate_size, vision.patch_size
    layer = {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
    layer |= {"layer_norm1": (width,), "layer_norm2": (width,), "mlp.fc1": (ff, width), "mlp.fc2": (width, ff)}
    modules = {f"encoder.layers.{i}.{name}": shape for i in range(vision.num_layers) for name, shape in layer.items()}
    modules |= {"embeddings.patch_embedding": (width, vision.num_channels, patch, patch), "post_layernorm": (width,)}
    shapes = {}
    for name, shape in modules.items():
        shapes[f"vision_tower.{name}.weight"] = shape
        shapes[f"vision_tower.{name}.bias"] = shape[:1]
    shapes["vision_tower.embeddings.position_embedding.weight"] = (vision.patches_per_side**2, width)
    shapes["multi_modal_projector.mm_soft_emb_norm.weight"] = (width,)
    shapes["multi_modal_projector.mm_input_projection_weight"] = (width, config.encoder.hidden_size)
    return shapes


def canonical_name(stored: str) -> str:
    """The name that `expected_shapes` uses for a tensor called `stored` in any published naming."""
    name = stored.removeprefix("model.").replace("encoder.text_model.", "encoder.", 1)
    for part in _VISION:
        name = name.removeprefix("encoder.") if name.startswith("encoder." + part) else name
    return name.replace("vision_tower.vision_model.", "vision_tower.", 1)


class Checkpoint:
    """A checkpoint folder, opened and checked; weights are read when asked for.

    Attributes: `path` the folder; `config`, whose `vision` is None if the folder holds no vision tensors, and whose
    `dtype` is filled in from the tensors if the file does not say; `tokenizer` the folder's tokenizer.json or None;
    `bytes` the size of the weight files.
    """

    def __init__(self, path: Path, config: ModelConfig, files: list[Path]):
        """Use `open`."""
        self.path = path
        self.config = config
        self.bytes = sum(file.stat().st_size for file in files)
        self._files = files
        self._sha256: str | None = None
        self._tensors, tied = _index(files)
        if config.dtype is None and EMBEDDING in self._tensors:
            file, stored = self._tensors[EMBEDDING]
            self.config = dataclasses.replace(self.config, dtype=_DTYPES[file.dtype(stored)])
        if not any(name.startswith(_VISION) for name in self._tensors):
            self.config = dataclasses.replace(self.config, vision=None)
        self._check_shapes()
        for name, source in tied.items():
            self._check_tied(name, source)

    @classmethod
    def open(cls, path: Path | str) -> "Checkpoint":
        """Opens a folder with config.json and model.safetensors (or its shards and model.safetensors.index.json).

        Reads headers only, and tied copies if the files repeat them. Raises T5g2Error if the folder is no T5Gemma 2
        checkpoint, a file is damaged, or the tensors are not those that the config describes (all named at once).
        """
        path = Path(path)
        files = _weight_files(path)
        return cls(path, ModelConfig.from_file(path / "config.json"), files)

    @property
    def has_vision(self) -> bool:
        return self.config.vision is not None

    @property
    def tokenizer(self) -> Path | None:
        file = self.path / "tokenizer.json"
        return file if file.is_file() else None

    def names(self) -> tuple[str, ...]:
        """All canonical names, in the order of `expected_shapes`."""
        return tuple(expected_shapes(self.config))

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor by canonical name, in its stored dtype (bfloat16, float16 or float32).

        The result is a view of the mapped file: do not write to it. Raises T5g2Error if a value is not finite,
        KeyError for a name that is not in `names()`.
        """
        handle, stored = self._tensors[name]
        tensor = handle.tensor(stored)
        # Both ends of the range carry a NaN on, and this is the one reduction that reads 16-bit floats at full speed.
        if not all(torch.isfinite(end) for end in torch.aminmax(tensor)):
            raise T5g2Error(f"{handle.path}: {stored} holds values that are not finite; the weights are damaged")
        return tensor

    def sha256(self) -> str:
        """Identity of the weights: the SHA-256 of the one weight file, or of what `sha256sum` prints for all shards in
        the order of their names. Reads everything, once."""
        if self._sha256 is None:
            sums = [(_file_sha256(file), file.name) for file in sorted(self._files)]
            lines = "".join(f"{digest}  {name}\n" for digest, name in sums)
            self._sha256 = sums[0][0] if len(sums) == 1 else hashlib.sha256(lines.encode()).hexdigest()
        return self._sha256

    def _check_shapes(self) -> None:
        expected = expected_shapes(self.config)
        shapes = {name: handle.shape(stored) for name, (handle, stored) in self._tensors.items()}
        found = {
            "missing": [name for name in expected if name not in shapes],
            "unexpected": [name for name in shapes if name not in expected],
            "wrong shape": [
                f"{name} {list(shapes[name])}, not {list(shape)}"
                for name, shape in expected.items()
                if name in shapes and shapes[name] != shape
            ],
        }
        if any(found.values()):
            problems = "; ".join(f"{kind}: {_some(names)}" for kind, names in found.items() if names)
            raise T5g2Error(f"{self.path}: the tensors are not those that config.json describes; {problems}")

    def _check_tied(self, name: str, copy: tuple["_File", str]) -> None:
        handle, stored = copy
        original = self._tensors[_TIED[name]][0].tensor(self._tensors[_TIED[name]][1])
        repeated = handle.tensor(stored)
        same = repeated.shape == original.shape and all(
            torch.equal(a.float(), b.float())
            for a, b in zip(original.split(_COMPARED_ROWS), repeated.split(_COMPARED_ROWS))
        )
        if not same:
            raise T5g2Error(
                f"{handle.path}: {stored} differs from {_TIED[name]}; untied checkpoints are unsupported, "
                "encoder, decoder and LM head must share one embedding"
            )


class _File:
    """One mapped safetensors file."""

    def __init__(self, path: Path):
        self.path = path
        self._map = _mapped(path)
        self._read_bytes = 0  # since it was mapped
        self.names = sorted(self._map.keys())

    def dtype(self, name: str) -> str:
        return self._map.get_slice(name).get_dtype()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._map.get_slice(name).get_shape())

    def tensor(self, name: str) -> torch.Tensor:
        if self._read_bytes > _REMAP_BYTES:  # so that pages read long ago do not count as this process's memory
            self._map = _mapped(self.path)
            self._read_bytes = 0
        tensor = self._map.get_tensor(name)
        self._read_bytes += tensor.nbytes
        return tensor


def _mapped(path: Path):
    try:
        with path.open("rb") as file:
            start = file.read(40)
        if start.startswith(b"version https://git-lfs"):
            raise T5g2Error(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its repository")
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise T5g2Error(f"{path}: missing; download it again") from None
    except SafetensorError as error:
        raise T5g2Error(f"{path}: truncated or damaged ({error}); download it again") from None
    except OSError as error:
        raise T5g2Error(f"{path}: cannot be read ({error})") from None


def _index(files: list[Path]) -> tuple[dict[str, tuple[_File, str]], dict[str, tuple[_File, str]]]:
    """Canonical name -> (file, stored name): first the weights, then the tied copies that the files repeat."""
    weights, tied = {}, {}
    for file in map(_File, files):
        for stored in file.names:
            name = canonical_name(stored)
            if _IGNORED.match(name):
                continue
            if file.dtype(stored) not in _DTYPES:
                raise T5g2Error(
                    f"{file.path}: {stored} is {file.dtype(stored)}; supported: {', '.join(_DTYPES)}; "
                    "save the checkpoint unquantized"
                )
            group = tied if name in _TIED else weights
            if name in group:
                raise T5g2Error(f"{file.path}: {stored} is stored twice, the other time as {group[name][1]}")
            group[name] = (file, stored)
    if EMBEDDING not in weights and "decoder.embed_tokens.weight" in tied:
        # Which of the tied names a file carries is its writer's choice.
        weights[EMBEDDING] = tied.pop("decoder.embed_tokens.weight")
    if EOI_EMBEDDING not in weights and "decoder.embed_tokens.eoi_embedding" in tied:
        weights[EOI_EMBEDDING] = tied.pop("decoder.embed_tokens.eoi_embedding")
    return weights, tied


def _weight_files(path: Path) -> list[Path]:
    """The weight files of a folder, or T5g2Error that says what the folder is instead of a checkpoint."""
    if not path.is_dir():
        what = "a file" if path.exists() else "not there"
        raise T5g2Error(f"{path}: {what}; expected a folder with config.json, model.safetensors and tokenizer.json")
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if not single.is_file() and not index.is_file():
        raise T5g2Error(f"{path}: {_not_a_checkpoint(path)}")
    if not (path / "config.json").is_file():
        raise T5g2Error(f"{path}: config.json is missing; it is saved and published beside the weights")
    if single.is_file():
        return [single]
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [path / name for name in shards]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise T5g2Error(f"{index}: not an index of safetensors shards; download it again") from None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise T5g2Error(f"{path}: shards are missing: {_some(missing)}; download them again")
    return files


def _not_a_checkpoint(path: Path) -> str:
    names = {file.name for file in path.iterdir()}
    if "adapter_config.json" in names:
        return "a LoRA adapter without its base model; merge it first (peft: merge_and_unload, then save_pretrained)"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        return "PyTorch .bin weights; load and save them again with save_pretrained, which writes safetensors"
    if any(name.endswith(".safetensors") for name in names):
        return "safetensors, but neither model.safetensors nor model.safetensors.index.json; download it again"
    return "no checkpoint; expected config.json, model.safetensors and tokenizer.json"


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", … and {more} more" if more > 0 else "")
