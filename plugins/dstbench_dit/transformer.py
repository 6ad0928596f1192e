"""The denoiser: a transformer over patches, each block modulated by time and label."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import (
    TimestepEmbedding,
    Timesteps,
    get_2d_sincos_pos_embed_from_grid,
)
from torch import Tensor, nn
from torch.nn import functional as F

from dstbench_dit.settings import DiffusionTransformerSettings

FREQUENCIES = 256
"""Sines and cosines of a time."""


class Block(nn.Module):
    """Self-attention and an MLP, both scaled, shifted and gated by what modulates them (adaLN)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.widen = nn.Linear(width, mlp_ratio * width)
        self.narrow = nn.Linear(mlp_ratio * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens (N, T, D) and what modulates them (N, 1, D) to tokens (N, T, D)."""
        of_attention, of_mlp = self.modulation(condition).chunk(2, dim=-1)
        shift, scale, gate = of_attention.chunk(3, dim=-1)
        tokens = tokens + gate * self._attend(self.norm1(tokens) * (1 + scale) + shift)
        shift, scale, gate = of_mlp.chunk(3, dim=-1)
        hidden = self.widen(self.norm2(tokens) * (1 + scale) + shift)
        update: Tensor = gate * self.narrow(F.gelu(hidden, approximate="tanh"))
        return tokens + update

    def _attend(self, tokens: Tensor) -> Tensor:
        count, length, width = tokens.shape
        split = self.qkv(tokens).view(count, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        attended = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.project(attended.transpose(1, 2).flatten(2))
        return projected


class Transformer(nn.Module):
    """DiT: patches of an example become tokens, and tokens patches again."""

    places: Tensor

    def __init__(
        self, settings: DiffusionTransformerSettings, shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__()
        self.channels, height, width = shape
        self.patch = settings.patch_size
        self.grid = height // self.patch, width // self.patch
        values = self.channels * self.patch**2
        dim = settings.width
        self.embed = nn.Linear(values, dim)
        self.register_buffer("places", _places(*self.grid, dim), persistent=False)
        self.waves = Timesteps(FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(FREQUENCIES, dim)
        # One more for labels that are hidden.
        self.label = nn.Embedding(classes + 1, dim) if classes else None
        blocks = [Block(dim, settings.heads, settings.mlp_ratio) for _ in range(settings.layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(dim, 2 * dim)
        self.last = nn.Linear(dim, values)
        _initialize(self)
        if settings.zero_init:
            for layer in (*(block.modulation for block in blocks), self.modulation, self.last):
                nn.init.zeros_(layer.weight)

    def forward(self, examples: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the objective asks for of ``examples`` (N, C, h, w) at ``times`` (N,), 0 ≤ t ≤ 1000;
        with the indices of labels (N,), where they are told."""
        condition = self.time(self.waves(times).to(examples.dtype))
        if self.label is not None:
            condition = condition + self.label(labels)
        condition = F.silu(condition).unsqueeze(1)
        tokens = self.embed(self._patches(examples)) + self.places
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        return self._whole(self.last(self.norm(tokens) * (1 + scale) + shift))

    def _patches(self, examples: Tensor) -> Tensor:
        """(N, C, h, w) to (N, tokens, C · p · p)."""
        rows, columns = self.grid
        parts = examples.reshape(-1, self.channels, rows, self.patch, columns, self.patch)
        return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def _whole(self, patches: Tensor) -> Tensor:
        """(N, tokens, C · p · p) to (N, C, h, w)."""
        parts = patches.reshape(-1, *self.grid, self.channels, self.patch, self.patch)
        return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def _initialize(network: Transformer) -> None:
    """Draw weights as the published code does."""
    of_time = set(network.time.modules())
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
            if module in of_time:
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


def _places(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of each token's column and row: (tokens, D)."""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    grid = torch.stack([across, down]).float()
    places: Tensor = get_2d_sincos_pos_embed_from_grid(dim, grid, output_type="pt")
    return places.float()
