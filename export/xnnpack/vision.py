"""The vision program: pixels -> image features in the text stack's width. A SigLIP tower, average pooling, a projection."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.shared import patches_of
from t5g2.export.xnnpack.layers import Linear, joined

_QUERY_BLOCK = 1024  # queries scored at a time: 4096 patches at once would need 1 GB of scores a layer


def blocks(q: torch.Tensor, size: int) -> list[torch.Tensor]:
    """[heads, patches, head_dim], `size` patches at a time."""
    return [q[:, start : start + size] for start in range(0, q.shape[1], size)]


class VisionAttention(nn.Module):
    def __init__(self, weights, vision) -> None:
        super().__init__()
        self.num_heads = vision.num_heads
        self.head_dim = vision.hidden_size // vision.num_heads
        self.q_proj = weights.linear("q_proj", bias=True)
        self.k_proj = weights.linear("k_proj", bias=True)
        self.v_proj = weights.linear("v_proj", bias=True)
        self.out_proj = weights.linear("out_proj", bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [patches, hidden] -> [patches, hidden]."""
        q = self._heads(self.q_proj(x) * self.head_dim**-0.5)
        k, v = self._heads(self.k_proj(x)), self._heads(self.v_proj(x))
        return self.out_proj(self.attend(q, k, v).reshape(-1, self.num_heads * self.head_dim))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """All of them, and what it returns, [patches, heads, head_dim]."""
        q = q.permute(1, 0, 2)  # [heads, patches, head_dim]
        k = k.permute(1, 2, 0)  # [heads, head_dim, patches]
        v = v.permute(1, 0, 2)  # [heads, patches, head_dim]
        mixed = [torch.bmm(torch.softmax(torch.bmm(block, k), dim=-1), v) for block in blocks(q, _QUERY_BLOCK)]
        return joined(mixed).permute(1, 0, 2)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, self.num_heads, self.head_dim)


class VisionLayer(nn.Module):
    attention_class = VisionAttention

    def __init__(self, weights, vision) -> None:
        super().__init__()
        self.layer_norm1 = weights.layer_norm("layer_norm1", vision.layer_norm_eps)
        self.self_attn = self.attention_class(weights.scope("self_attn"), vision)
        self.layer_norm2 = weights.layer_norm("layer_norm2", vision.layer_norm_eps)
        self.gelu = weights.gelu()
        self.fc1 = weights.linear("mlp.fc1", bias=True)
        self.fc2 = weights.linear("mlp.fc2", bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.fc2(self.gelu(self.fc1(self.layer_norm2(x))))


class Vision(nn.Module):
    """Tower, pooling and projector. weights: the view of the whole checkpoint."""

    layer_class = VisionLayer

    def __init__(self, weights, config) -> None:
        super().__init__()
        vision = config.vision
        tower = weights.scope("vision_tower")
        projector = weights.scope("multi_modal_projector")
        self.side, self.patch_size = vision.patches_per_side, vision.patch_size
        patch_weight = tower.tensor("embeddings.patch_embedding.weight")  # [hidden, channels, patch, patch]
        self.patch_embedding = Linear(patch_weight.flatten(1), tower.tensor("embeddings.patch_embedding.bias"))
        self.register_buffer("position_embedding", tower.tensor("embeddings.position_embedding.weight"))
        self.layers = nn.ModuleList(
            self.layer_class(tower.scope(f"encoder.layers.{i}"), vision) for i in range(vision.num_layers)
        )
        self.post_layernorm = tower.layer_norm("post_layernorm", vision.layer_norm_eps)
        self.soft_emb_norm = projector.norm("mm_soft_emb_norm", vision.layer_norm_eps)
        # Stored [vision hidden, text hidden]; kept in float32, it is small and everything an image says passes through it.
        self.projection = Linear(projector.tensor("mm_input_projection_weight").t().contiguous())
        self.register_buffer("pooling", pooling_matrix(self.side, round(config.mm_tokens_per_image**0.5)))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: float32 [1, channels, side, side], normalised -> image features float32 [tokens, text hidden]."""
        x = self.patch_embedding(patches_of(pixels, self.side, self.patch_size)) + self.position_embedding  # [patches, hidden]
        for layer in self.layers:
            x = layer(x)
        return self.projection(self.soft_emb_norm(torch.mm(self.pooling, self.post_layernorm(x))))


def pooling_matrix(patches_a_side: int, tokens_a_side: int) -> torch.Tensor:
    """Average pooling of a row-major grid of patches as a matrix: float32 [tokens, patches]."""
    pool = patches_a_side // tokens_a_side
    to_token = torch.arange(patches_a_side) // pool  # along one side
    token = (to_token.unsqueeze(1) * tokens_a_side + to_token).flatten()  # [patches]
    return torch.nn.functional.one_hot(token, tokens_a_side**2).t().float() / pool**2
