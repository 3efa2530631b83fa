"""T5Gemma 2 270M in plain PyTorch with random weights, laid out to suit graph runtimes: few, large, static operations.

Two graphs of float32 tensors without a batch dimension:
    Encoder      x [512, hidden] -> cross keys and values of the 18 decoder layers
    DecoderStep  x [1, hidden], rotary, mask, 36 caches -> logits [1, vocab], new keys and values

What is laid out in the peers' favour: inputs are embeddings, so no table look-up is in file, memory or time; q/k/v and
gate/up are one product each; rotary tables and masks come ready; the caller writes the new key and value into its cache.
A layer's cache holds [cross ; self] keys, 512 + 512 rows, and values, which makes merged attention two products.
"""

import common
import torch
from common import HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, LAYERS, MASKED, SLOTS, SOURCE, VOCAB, WINDOW
from torch import nn


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A product without bias, its weights normal with standard deviation 1 / sqrt(inputs)."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class Products(nn.Module):
    """Several products of one input. joined: computed as one, then split, which is faster for one row and not for many."""

    def __init__(self, inputs: int, outputs: tuple[int, ...], joined: bool) -> None:
        super().__init__()
        self.outputs = outputs
        self.parts = nn.ModuleList(linear(inputs, width) for width in ((sum(outputs),) if joined else outputs))

    def forward(self, x: torch.Tensor):
        found = [part(x) for part in self.parts]
        return found if len(found) > 1 else found[0].split(self.outputs, dim=-1)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions, halves split. x: [rows, heads, head_dim]; cos, sin: [rows, 1, head_dim / 2]."""
    first, second = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Matrix product of two activations, as a batch of one: XNNPACK's delegate takes a batch and refuses a matrix."""
    return torch.bmm(a.unsqueeze(0), b.unsqueeze(0)).squeeze(0)


class Layer(nn.Module):
    """What both stacks' layers hold: four norms, projections, query and key norms, and the MLP. joined: see `Products`."""

    def __init__(self, index: int, joined: bool) -> None:
        super().__init__()
        self.kind = int(common.is_full(index))
        self.norms = nn.ModuleList(RMSNorm(HIDDEN) for _ in range(4))
        self.qkv = Products(HIDDEN, (HEADS * HEAD_DIM, HEAD_DIM, HEAD_DIM), joined)
        self.out = linear(HEADS * HEAD_DIM, HIDDEN)
        self.q_norm, self.k_norm = RMSNorm(HEAD_DIM), RMSNorm(HEAD_DIM)
        self.gate_up = Products(HIDDEN, (INTERMEDIATE, INTERMEDIATE), joined)
        self.down = linear(INTERMEDIATE, HIDDEN)

    def project(self, x: torch.Tensor, rotary: torch.Tensor):
        """x: [rows, hidden]; rotary: [rows, 2, 2, head_dim / 2] -> q [rows, heads, head_dim], k and v [rows, head_dim]."""
        rows = x.shape[0]
        cos, sin = rotary[:, self.kind, 0].unsqueeze(1), rotary[:, self.kind, 1].unsqueeze(1)
        q, k, v = self.qkv(self.norms[0](x))
        q = rotate(self.q_norm(q.reshape(rows, HEADS, HEAD_DIM)), cos, sin) * HEAD_DIM**-0.5
        k = rotate(self.k_norm(k.reshape(rows, 1, HEAD_DIM)), cos, sin).reshape(rows, HEAD_DIM)
        return q, k, v

    def finish(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """x: [rows, hidden], the layer's input; mixed: [rows, heads * head_dim], its attention -> [rows, hidden]."""
        x = x + self.norms[1](self.out(mixed))
        gate, up = self.gate_up(self.norms[2](x))
        return x + self.norms[3](self.down(nn.functional.gelu(gate, approximate="tanh") * up))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Layer(i, joined=False) for i in range(LAYERS))
        self.norm = RMSNorm(HIDDEN)
        self.cross = linear(HIDDEN, LAYERS * 2 * HEAD_DIM)  # the decoder layers' key and value projections, in one product
        self.cross_norms = nn.ModuleList(RMSNorm(HEAD_DIM) for _ in range(LAYERS))
        self.register_buffer("rotary", torch.from_numpy(common.rotary_table(SOURCE)))
        distance = torch.arange(SOURCE).unsqueeze(1) - torch.arange(SOURCE)
        inside = (distance >= -(WINDOW // 2)) & (distance < (WINDOW + 1) // 2)
        self.register_buffer("window", torch.where(inside, 0.0, MASKED).unsqueeze(1))  # [SOURCE, 1, SOURCE]

    def forward(self, x: torch.Tensor):
        """x: [SOURCE, hidden] -> 18 keys [SOURCE, head_dim], then 18 values of the same shape."""
        for layer in self.layers:
            q, k, v = layer.project(x, self.rotary)
            scores = product(q.reshape(SOURCE * HEADS, HEAD_DIM), k.t())
            if not layer.kind:
                scores = (scores.reshape(SOURCE, HEADS, SOURCE) + self.window).reshape(SOURCE * HEADS, SOURCE)
            mixed = product(torch.softmax(scores, dim=-1), v)
            x = layer.finish(x, mixed.reshape(SOURCE, HEADS * HEAD_DIM))
        parts = self.cross(self.norm(x)).split(HEAD_DIM, dim=-1)
        keys = [norm(part) for norm, part in zip(self.cross_norms, parts[:LAYERS])]
        return *keys, *parts[LAYERS:]


class DecoderStep(nn.Module):
    """One target token. outputs_first: how the caches lie, see `common.decoder_inputs`."""

    def __init__(self, outputs_first: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.outputs_first = outputs_first
        self.layers = nn.ModuleList(Layer(i, joined=True) for i in range(LAYERS))
        self.norm = RMSNorm(HIDDEN)
        self.head = linear(HIDDEN, VOCAB)

    def forward(self, x, rotary, mask, *caches):
        """x: [1, hidden]; rotary: [1, 2, 2, head_dim / 2]; mask: [1, SLOTS], 0 or MASKED; caches: of 18 layers'
        keys, then of 18 layers' values -> logits [1, vocab]; new keys and values [2 * 18, head_dim].
        """
        new_keys, new_values = [], []
        for layer, keys, values in zip(self.layers, caches[:LAYERS], caches[LAYERS:]):
            q, k, v = layer.project(x, rotary)
            q = q.reshape(HEADS, HEAD_DIM)
            if self.outputs_first:
                keys, values = keys.t(), values.t()
            scores = torch.cat((product(q, keys) + mask, product(q, k.t())), dim=-1)  # [heads, SLOTS + 1]
            weights = torch.softmax(scores, dim=-1)
            old, new = weights.split((SLOTS, 1), dim=-1)
            mixed = product(old, values) + new * v
            x = layer.finish(x, mixed.reshape(1, HEADS * HEAD_DIM))
            new_keys.append(k)
            new_values.append(v)
        return self.head(self.norm(x)), torch.cat(new_keys + new_values)


def decoder_example(outputs_first: bool) -> tuple[torch.Tensor, ...]:
    """Inputs to trace the decoder step with."""
    return tuple(torch.randn(shape) for _, shape in common.decoder_inputs(outputs_first))
