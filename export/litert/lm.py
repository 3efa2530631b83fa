"""A `.litertlm` package: the model in the place of a decoder-only one, for the stock LiteRT-LM engine. Experimental.

The engine prefills a prompt, all but its last token, decodes from that last one, and keeps one cache by position. So the
prompt is the source and then BOS: `prefill` encodes the source's n tokens and leaves their cross keys and values in slots 0 to
n - 1; `decode` finds BOS at position n, which is target position 0, and writes self keys and values from slot n on.

Cross keys have no position: every target position t scores them with its query rotated by t, as if they stood at position 0.
Here queries are rotated by n + t and cross keys by n. Rotary scores depend on the difference alone, so they are the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import tokenizers
import torch
from torch import nn

from t5g2.export.checkpoint import EMBEDDING, EOI_EMBEDDING
from t5g2.export.litert import programs
from t5g2.export.litert.convert import Signature
from t5g2.export.litert.encoder import Encoder
from t5g2.export.litert.layers import Linear, QueryKeyValue, TokenTable
from t5g2.export.litert.operators import matmul_transposed, rotate, write_rows
from t5g2.export.litert.weights import LiteRtWeights
from t5g2.export.processor import stop_ids
from t5g2.export.xnnpack import decoder as stock
from t5g2.export.xnnpack.layers import MASKED, Embedding
from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.bundle import Limits, check_file
from t5g2.runtime.errors import T5g2Error, UsageError
from t5g2.runtime.tokenizer import Tokenizer

_CERTAIN = 1e9  # added to a logit that must win
# What the engine renders a conversation with; it puts BOS in front of the whole.
_TEMPLATE = """
{%- if messages | length != 1 or messages[0].role != 'user' -%}
  {{ raise_exception('this model answers one user message: start a conversation for each, without a system prompt') }}
{%- endif -%}
{%- if messages[0].content is string -%}
  {{ messages[0].content }}
{%- else -%}
  {%- for part in messages[0].content -%}
    {%- if part.type != 'text' -%}{{ raise_exception('this package reads text only') }}{%- endif -%}
    {{ part.text }}
  {%- endfor -%}
{%- endif -%}
""".strip()


class CachedAttention(QueryKeyValue):
    """Merged attention over one cache, in which cross keys and values lie before those of the target."""

    def forward(self, x, rotary, slot, mask, cached_k, cached_v):
        """x: [1, hidden]; slot: int32 scalar, where the new key and value go; mask: [C], to add to the scores;
        cached_k: [1, kv heads, C, head_dim]; cached_v: [1, kv heads, head_dim, C].

        Returns [1, hidden] and the caches with the new row.
        """
        q = self.queries(x, rotary).reshape(self.num_kv_heads, -1, self.head_dim)  # [kv heads, group, head_dim]
        new_k = self.rotate(self.keys(x), rotary).permute(1, 0, 2)  # [kv heads, 1, head_dim]
        new_v = self.values(x).permute(1, 2, 0)  # [kv heads, head_dim, 1]
        cached_k, cached_v = _with_rows(cached_k, cached_v, new_k, new_v, slot)
        weights = torch.softmax(matmul_transposed(q, cached_k[0]) + mask, dim=-1)  # [kv heads, group, C]
        mixed = matmul_transposed(weights, cached_v[0])  # [kv heads, group, head_dim]
        return self.o_proj(mixed.reshape(1, self.num_heads * self.head_dim)), cached_k, cached_v


class CachedLayer(stock.DecoderLayer):
    attention_class = CachedAttention


class Decode(stock.DecoderStep):
    """The `decode` signature: one id at a position -> logits.

    stop_id: what it answers where there is no whole source to answer from, or no slot left: an app may set the engine's own
    limit, `max_num_tokens`, higher than the package does.
    """

    layer_class = CachedLayer

    def __init__(self, weights, text, embedding: Embedding, head: nn.Module, stop_id: int) -> None:
        super().__init__(weights, text, embedding, head)
        self.stop_id = stop_id

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, **caches: torch.Tensor) -> dict:
        """tokens: int32 [1, 1]; input_pos: int32 [1], n + t; caches: by the names of `cache_shapes`.

        Returns by name `logits`, float32 [1, 1, vocab], and the caches with the new row.
        """
        length_name = _length_name(len(self.layers))
        length = caches[length_name].reshape(1)
        slots = torch.arange(caches["kv_cache_k_0"].shape[2])  # [C]
        visible = slots <= input_pos
        in_window = torch.logical_or(slots < length, slots > input_pos - self.window)  # the source is in every window
        masks = {
            "full_attention": torch.where(visible, 0.0, MASKED),
            "sliding_attention": torch.where(torch.logical_and(visible, in_window), 0.0, MASKED),
        }
        rotary = {kind: table(input_pos) for kind, table in self.rotary.items()}
        x = self.embedding(tokens[0])  # [1, hidden]
        # An output may not be one of the inputs as it is. No length is negative, so this changes nothing.
        updated = {length_name: caches[length_name].clamp(min=0)}
        for i, layer in enumerate(self.layers):
            kind, k, v = layer.layer_type, f"kv_cache_k_{i}", f"kv_cache_v_{i}"
            x, updated[k], updated[v] = layer(x, rotary[kind], input_pos.reshape(()), masks[kind], caches[k], caches[v])
        logits = self.head(self.norm(x))  # [1, vocab]
        answerable = torch.logical_and(torch.logical_and(length > 0, length <= input_pos), input_pos < slots.shape[0])
        before, stop, after = logits.split((self.stop_id, 1, logits.shape[1] - self.stop_id - 1), dim=1)
        logits = torch.cat((before, stop + torch.where(answerable, 0.0, _CERTAIN), after), dim=1)
        return updated | {"logits": logits.unsqueeze(0)}


class Prefill(nn.Module):
    """The `prefill_<P>` signature: a source -> its cross keys and values in the cache, and its length.

    It must come in one call, because its tokens see each other in both directions. Where the engine makes another call, for
    a second turn or a prompt in parts, the length becomes 0, and `decode` ends the answer at once.
    """

    def __init__(self, encoder: Encoder, decoder: Decode) -> None:
        super().__init__()
        self.encoder = encoder
        self.rotary = decoder.rotary
        self.layer_types = [layer.layer_type for layer in decoder.layers]

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, **caches: torch.Tensor) -> dict:
        """tokens: int32 [1, P], the source and then zeros; input_pos: int32 [P], positions and then zeros; caches: by the
        names of `cache_shapes`. Returns the caches by name.
        """
        start = input_pos[0]
        length = input_pos.amax().reshape(1) + 1
        cross = self.encoder(tokens[0], length)
        rotary = {kind: table(length) for kind, table in self.rotary.items()}
        updated = {}
        for i, kind in enumerate(self.layer_types):
            k, v = f"kv_cache_k_{i}", f"kv_cache_v_{i}"
            cross_k = rotate(cross[f"cross_k_{i}"], rotary[kind])  # [kv heads, P, head_dim]
            updated[k], updated[v] = _with_rows(caches[k], caches[v], cross_k, cross[f"cross_v_{i}"], start)
        whole = torch.where(start == 0, length.float(), 0.0)
        return updated | {_length_name(len(self.layer_types)): whole.reshape(1, 1, 1, 1)}


def _with_rows(cached_k, cached_v, k, v, slot):
    """The caches with rows from `slot` on. k: [kv heads, rows, head_dim]; v: [kv heads, head_dim, rows]."""
    zero = torch.zeros_like(slot)
    cached_k = write_rows(cached_k, k.unsqueeze(0), [zero, zero, slot, zero])
    return cached_k, write_rows(cached_v, v.unsqueeze(0), [zero, zero, zero, slot])


def _length_name(layers: int) -> str:
    """The engine carries whatever is named like a layer's keys from call to call, so the source's length passes for the keys
    of one layer more."""
    return f"kv_cache_k_{layers}"


def cache_shapes(text, slots: int) -> dict[str, tuple[int, ...]]:
    """What the engine carries from call to call, float32, by name."""
    shapes = {}
    for i in range(text.num_layers):
        shapes[f"kv_cache_k_{i}"] = 1, text.num_kv_heads, slots, text.head_dim
        shapes[f"kv_cache_v_{i}"] = 1, text.num_kv_heads, text.head_dim, slots
    return shapes | {_length_name(text.num_layers): (1, 1, 1, 1)}


def lm_modules(checkpoint, scheme: QuantScheme, table_scheme: QuantScheme, stop_id: int):
    """The text half of a checkpoint: `Prefill` and `Decode`, which share the token table and the decoder's projections."""
    config = checkpoint.config
    weights = LiteRtWeights(checkpoint, scheme)
    table = TokenTable(weights.matrix(EMBEDDING, table_scheme))
    embedding = Embedding(table, config.encoder.hidden_size, weights.tensor(EOI_EMBEDDING), config.eoi_token_id)
    decoder = Decode(weights.scope("decoder"), config.decoder, embedding, Linear(table.matrix), stop_id)
    attention = [layer.self_attn for layer in decoder.layers]
    encoder = Encoder(weights.scope("encoder"), config.encoder, embedding, attention, image_token_id=None)
    return Prefill(encoder, decoder), decoder


def signatures(prefill: Prefill, decoder: Decode, text, limits: Limits) -> list[Signature]:
    """One prefill only: with several, the engine rather runs short ones in turn than a long one that has room to spare."""
    shapes = cache_shapes(text, context_length(limits))

    def inputs(rows: int) -> dict[str, torch.Tensor]:
        tokens, positions = torch.zeros(1, rows, dtype=torch.int32), torch.zeros(rows, dtype=torch.int32)
        return {"tokens": tokens, "input_pos": positions} | {name: torch.zeros(shape) for name, shape in shapes.items()}

    length = prefill_length(limits)
    return [Signature(f"prefill_{length}", prefill, inputs(length)), Signature("decode", decoder, inputs(1))]


def prefill_length(limits: Limits) -> int:
    """The longest prompt, in tokens: a source and the BOS behind it.

    Rounded up to a multiple of 8, because the engine takes a prime for a length that it may put another in the place of.
    """
    return -(-(limits.max_source + 1) // 8) * 8


def context_length(limits: Limits) -> int:
    """Slots of the cache: for the longest prompt and max_target - 1 tokens of its answer. A shorter prompt leaves more."""
    return prefill_length(limits) + limits.max_target - 1


def write_package(
    checkpoint,
    path: Path,
    scheme: QuantScheme,
    table_scheme: QuantScheme,
    *,
    limits: Limits,
    with_vision: bool = False,
    overwrite: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> None:
    """Writes the text half of a checkpoint as a package at `path`.

    checkpoint: a `Checkpoint`. table_scheme: how the token table is stored, which may differ from the rest. limits: every
    prefill costs what max_source tokens do, however short the source. with_vision: refused, where there is a tower.
    on_stage: called with a few words as each stage begins.
    Raises T5g2Error before any work where the output is taken or the checkpoint has no tokenizer.
    """
    config = checkpoint.config
    programs.check(config, scheme)
    if with_vision and checkpoint.has_vision:
        raise UsageError("--package litertlm: reads text only; add --no-vision")
    if checkpoint.tokenizer is None:
        raise T5g2Error(
            f"{checkpoint.path or 'random weights'}: no tokenizer.json, and a .litertlm package needs one; "
            "copy it beside the weights, or export a bundle"
        )
    check_file(path, overwrite)
    stops = stop_ids(checkpoint.path, config)
    roles = {"bos_id": config.bos_token_id, "eos_id": stops[0], "pad_id": config.pad_token_id}
    images = {"boi_id": config.boi_token_id, "eoi_id": config.eoi_token_id, "image_id": config.image_token_id}
    tokenizer = Tokenizer.from_file(checkpoint.tokenizer, **roles, **images)  # fits the config, or says why not
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
        model, package = Path(folder) / "model.tflite", Path(folder) / "package"
        prefill, decoder = lm_modules(checkpoint, scheme, table_scheme, stops[0])
        programs.write_model(signatures(prefill, decoder, config.decoder, limits), model, "text", on_stage)
        on_stage("packing")
        _pack(package, model, checkpoint.tokenizer, _metadata(tokenizer, stops, limits))
        check_file(path, overwrite)  # an export takes minutes, in which somebody may have put something there
        package.replace(path)


def _metadata(tokenizer: Tokenizer, stops: tuple[int, ...], limits: Limits) -> bytes:
    """What the engine has to know beside the model, a serialized LlmMetadata."""
    from litert_lm_builder.runtime.proto import llm_metadata_pb2, sampler_params_pb2

    metadata = llm_metadata_pb2.LlmMetadata(max_num_tokens=context_length(limits))
    metadata.start_token.token_ids.ids.append(tokenizer.bos_id)
    for stop in stops:
        metadata.stop_tokens.add().token_ids.ids.append(stop)
    bos = tokenizer.token(tokenizer.bos_id)
    metadata.jinja_prompt_template = _TEMPLATE + bos
    # For sessions without a template of their own. The engine prefills it in a second call, so that there is no answer then
    # instead of a wrong one.
    metadata.prompt_templates.user.suffix = bos
    metadata.suppress_tokens.ids.extend(sorted(set(tokenizer.suppressed_ids()) - set(stops)))
    # Greedy, unless an app asks for more: the engine has no sampler for GREEDY on a CPU.
    metadata.sampler_params.type = sampler_params_pb2.SamplerParameters.TOP_P
    metadata.sampler_params.k, metadata.sampler_params.p, metadata.sampler_params.temperature = 1, 1.0, 1.0
    metadata.llm_model_type.generic_model.SetInParent()
    return metadata.SerializeToString()


def _pack(package: Path, model: Path, tokenizer_json: Path, metadata: bytes) -> None:
    from litert_lm_builder import DType, LitertLmFileBuilder, Metadata, TfLiteModelType

    side_files = package.with_name("metadata.pb"), package.with_name("tokenizer.json")
    side_files[0].write_bytes(metadata)
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    tokenizer.no_truncation()  # what a fine-tune left there would cut sources without a word
    tokenizer.no_padding()
    tokenizer.save(str(side_files[1]), pretty=False)
    builder = LitertLmFileBuilder()
    builder.add_system_metadata(Metadata("Authors", f"t5g2 {version('t5g2')}", DType.STRING))
    builder.add_llm_metadata(str(side_files[0]))
    builder.add_hf_tokenizer(str(side_files[1]))
    # Activations overflow in 16 bit, and only a CPU was tried.
    precision = Metadata("prefer_activation_type", "fp32", DType.STRING)
    kind = TfLiteModelType.PREFILL_DECODE
    builder.add_tflite_model(str(model), kind, backend_constraint="cpu", additional_metadata=[precision])
    with open(package, "wb") as file:
        builder.build(file)
