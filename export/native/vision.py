"""The native vision program: pixels -> image features in the text stack's width."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.native.layers import Linear, norm_weight
from t5g2.quant.packed import pack_weight
from t5g2.quant.schemes import FLOAT32

_ops = torch.ops.t5g2


class VisionLayer(nn.Module):
    """Takes the residual stream and its normed value, returns both for the next layer; see `layers.Layer`."""

    def __init__(self, weights, vision, exact: bool) -> None:
        super().__init__()
        self.num_heads, self.eps, self.exact = vision.num_heads, vision.layer_norm_eps, exact
        self.scale = (vision.hidden_size // vision.num_heads) ** -0.5
        attention = weights.scope("self_attn")
        qkv = torch.cat([attention.stored(f"{part}_proj.weight") for part in "qkv"])  # [3 * hidden, hidden]
        bias = torch.cat([attention.tensor(f"{part}_proj.bias") for part in "qkv"])
        self.qkv_proj = Linear(pack_weight(qkv, weights.scheme, attention.prefix + "q_proj"), bias)
        self.out_proj = Linear(attention.packed("out_proj.weight"), attention.tensor("out_proj.bias"))
        self.fc1 = Linear(weights.packed("mlp.fc1.weight"), weights.tensor("mlp.fc1.bias"), gelu=True)
        self.fc2 = Linear(weights.packed("mlp.fc2.weight"), weights.tensor("mlp.fc2.bias"))
        self.norm1 = LayerNorm(weights, "layer_norm1")
        self.norm2 = LayerNorm(weights, "layer_norm2")

    def forward(self, x: torch.Tensor, normed: torch.Tensor, next_norm: LayerNorm):
        heads = (self.num_heads, self.num_heads)
        mixed = _ops.attention(
            self.qkv_proj(normed), None, None, None, None, *heads, 0, self.scale, self.eps, self.exact
        )  # [patches, hidden]
        x, normed = _ops.add_layer_norm(x, self.out_proj(mixed), self.norm2.weight, self.norm2.bias, self.eps)
        return _ops.add_layer_norm(x, self.fc2(self.fc1(normed)), next_norm.weight, next_norm.bias, self.eps)


class LayerNorm(nn.Module):
    """Holds the weights; the operators that use them also do the sum before."""

    def __init__(self, weights, name: str) -> None:
        super().__init__()
        self.register_buffer("weight", weights.tensor(f"{name}.weight"))
        self.register_buffer("bias", weights.tensor(f"{name}.bias"))


class Vision(nn.Module):
    """Tower, pooling and projector. weights: the view of the whole checkpoint.

    Patch embedding and projection stay in float32: they are small, and everything an image says passes through them.
    """

    def __init__(self, weights, config) -> None:
        super().__init__()
        vision = config.vision
        exact = not weights.scheme.quantized
        tower, projector = weights.scope("vision_tower"), weights.scope("multi_modal_projector")
        self.side, self.patch_size, self.eps = vision.patches_per_side, vision.patch_size, vision.layer_norm_eps
        patch_weight = tower.tensor("embeddings.patch_embedding.weight").flatten(1)  # [hidden, channels * patch * patch]
        bias = tower.tensor("embeddings.patch_embedding.bias")
        self.patch_embedding = Linear(pack_weight(patch_weight, FLOAT32, "patch_embedding"), bias)
        self.register_buffer("position_embedding", tower.tensor("embeddings.position_embedding.weight"))
        self.layers = nn.ModuleList(
            VisionLayer(tower.scope(f"encoder.layers.{i}"), vision, exact) for i in range(vision.num_layers)
        )
        self.post_layernorm = LayerNorm(tower, "post_layernorm")
        self.register_buffer("soft_emb_norm", norm_weight(projector, "mm_soft_emb_norm"))
        projection = projector.tensor("mm_input_projection_weight").t()  # [text hidden, vision hidden]
        self.projection = Linear(pack_weight(projection, FLOAT32, "projection"))
        self.pool = vision.patches_per_side // round(config.mm_tokens_per_image**0.5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: float32 [1, channels, side, side], normalised -> image features float32 [tokens, text hidden]."""
        patches = self.patch_embedding(_ops.patches(pixels, self.patch_size))  # [patches, hidden]
        first = self.layers[0].norm1
        x, normed = _ops.add_layer_norm(self.position_embedding, patches, first.weight, first.bias, self.eps)
        following = [layer.norm1 for layer in self.layers[1:]] + [self.post_layernorm]
        for layer, next_norm in zip(self.layers, following):
            x, normed = layer(x, normed, next_norm)
        pooled = _ops.average_pool(normed, self.side, self.pool)
        return self.projection(_ops.rms_norm(pooled, self.soft_emb_norm, self.eps))
