"""Attention and recurrence in plain tensor operations, so that one batched backward (vmap) runs through them anywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def positions(grid: tuple[int, ...], like: Tensor) -> Tensor:
    """Where each cell lies: x, y and sines and cosines of both, (cells, 18), for a 2-D grid of any size."""
    axes = [(torch.arange(n, device=like.device, dtype=torch.float32) + 0.5) / n for n in grid]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    turns = [math.pi * 2**k for k in range(4)]
    waves = [wave(at * turn) for turn in turns for wave in (torch.sin, torch.cos)]
    return torch.cat([at * 2 - 1, *waves], -1).to(like.dtype)


class GridTokens(nn.Module):
    """(B, C, *grid) features to (B, cells, width) tokens that know their place; `patch` x `patch` cells make one token.

    Features that have `width` channels already are taken as they are, cell by cell.
    """

    def __init__(self, channels: int, width: int, patch: int = 1) -> None:
        super().__init__()
        self.content = nn.Identity() if (channels, patch) == (width, 1) else nn.Conv2d(channels, width, patch, patch)
        self.place = nn.Linear(18, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        content = self.content(features)  # (B, width, h, w)
        place = self.place(positions(tuple(content.shape[2:]), content))
        tokens: Tensor = self.norm(content.flatten(2).transpose(1, 2) + place)
        return tokens


class Attention(nn.Module):
    """Multi-head dot-product attention (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.keys, self.values, self.out = (nn.Linear(width, width) for _ in range(4))

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, width) -> keys and values (B, heads, M, width / heads)."""
        return self._split(self.keys(memory)), self._split(self.values(memory))

    def read(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """(B, N, width) queries -> (B, N, width); `mask` is True where a query may look, (..., N, M)."""
        weights = self.match(x, memory[0])
        if mask is not None:
            weights = weights.masked_fill(~mask, float("-inf"))
        return self.gather(weights.softmax(-1), memory[1])

    def match(self, x: Tensor, keys: Tensor) -> Tensor:
        """(B, N, width) queries -> their fit to each key, (B, heads, N, M)."""
        query = self._split(self.query(x))
        return query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])

    def gather(self, weights: Tensor, values: Tensor) -> Tensor:
        """(B, heads, N, M) weights -> what they select, (B, N, width)."""
        read: Tensor = self.out((weights @ values).transpose(1, 2).flatten(2))
        return read

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1)).transpose(1, 2)


class Cell(nn.Module):
    """One LSTM step (Hochreiter and Schmidhuber 1997); gates in the order input, forget, cell, output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.recur = nn.Linear(width, 4 * width, bias=False)

    def forward(self, inputs: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """What the inputs say to the gates, (R, 4 * width), h and c (R, width) -> new h and c."""
        i, f, g, o = (inputs + self.recur(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Layer(nn.Module):
    """A pre-norm transformer layer: words look at words, then at the grid."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.among, self.grid = Attention(width, heads), Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """(R, L, width) words, keys and values of B grids (R a multiple of B), mask (..., L, L) -> (R, L, width)."""
        y = self.norm1(x)
        x = x + self.dropout(self.among.read(y, self.among.remember(y), mask))
        y = self.norm2(x)
        seen = self.grid.read(torch.unflatten(y, 0, (memory[0].shape[0], -1)).flatten(1, 2), memory)
        x = x + self.dropout(seen.reshape(x.shape))
        fed: Tensor = self.dropout(self.feed(self.norm3(x)))
        return x + fed


def layers_of(modules: nn.ModuleList) -> list[Layer]:
    """The layers of a transformer."""
    return [module for module in modules if isinstance(module, Layer)]
