"""Writes gguf files of random weights, the model files of the llama.cpp peers."""

from pathlib import Path

import common
import gguf
import numpy as np

KINDS = {
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


class RandomModel:
    """A file under a temporary name, with what the models have in common; it gets its own when `finish` is called.

    `writer` takes what else the architecture needs, before the first tensor or after.
    """

    def __init__(self, path: Path, architecture: str, quant: str, kv_heads: int) -> None:
        self._path, self._unfinished = path, path.with_suffix(".unfinished")
        self._kind, file_type = KINDS[quant]
        self._random = np.random.default_rng(0)
        self.writer = writer = gguf.GGUFWriter(self._unfinished, architecture)
        writer.add_context_length(32768)
        writer.add_embedding_length(common.HIDDEN)
        writer.add_block_count(common.LAYERS)
        writer.add_feed_forward_length(common.INTERMEDIATE)
        writer.add_head_count(common.HEADS)
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(common.HEAD_DIM)
        writer.add_value_length(common.HEAD_DIM)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_vocab_size(common.VOCAB)
        writer.add_tokenizer_model("none")
        writer.add_file_type(file_type)

    def matrix(self, name: str, rows: int, columns: int) -> None:
        """A quantized [rows, columns] matrix, of variance 1 / columns."""
        values = self._random.standard_normal((rows, columns), np.float32) / columns**0.5
        self.writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, self._kind), raw_dtype=self._kind)

    def plain(self, name: str, values: np.ndarray) -> None:
        """A tensor that stays float32: norms, biases."""
        self.writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def norm(self, name: str, width: int) -> None:
        self.plain(name, np.ones(width))

    def feed_forward(self, block: str) -> None:
        """The three matrices of a gated feed-forward layer."""
        self.matrix(f"{block}.ffn_gate", common.INTERMEDIATE, common.HIDDEN)
        self.matrix(f"{block}.ffn_up", common.INTERMEDIATE, common.HIDDEN)
        self.matrix(f"{block}.ffn_down", common.HIDDEN, common.INTERMEDIATE)

    def finish(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        self._unfinished.rename(self._path)
