"""Attention and recurrence in plain tensor operations, so that one batched backward (vmap) runs through them anywhere."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
        if isinstance(self.content, nn.Conv2d):
            patches, grid = _patches(features, self.content.kernel_size[0])
            content = nn.functional.linear(patches, self.content.weight.flatten(1), self.content.bias)
        else:
            content, grid = features.flatten(2).transpose(1, 2), tuple(features.shape[2:])
        tokens: Tensor = self.norm(content + self.place(positions(grid, content)))
        return tokens


def _patches(features: Tensor, side: int) -> tuple[Tensor, tuple[int, ...]]:
    """(B, C, h, w) -> what a convolution of that side and stride sees, (B, rows * columns, C * side * side); rows and columns.

    A product of matrices reads it as the convolution would, and has a vmapped backward, where a convolution runs row by row.
    """
    rows, columns = features.shape[2] // side, features.shape[3] // side
    if features.shape[2:] != (rows * side, columns * side):
        features = features[:, :, : rows * side, : columns * side]
    cells = torch.unflatten(torch.unflatten(features, 3, (columns, side)), 2, (rows, side))
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), (rows, columns)


class Readings:
    """One-headed attention to a grid in several turns, each by the keys and values that the tokens themselves are.

    A turn's gradient at the tokens is of rank one for each row: it is kept as what it is the product of, and those of all turns
    reach the tokens as one product, where autograd would add up a (B, cells, width) for every turn. It can be differentiated
    once.

    Args:
        tokens: (B, cells, width) of B images.
        turns: how many there are.
        rows: R queries in each, a multiple of B.
    """

    def __init__(self, tokens: Tensor, turns: int, rows: int) -> None:
        self.images, self._tokens, self._scale = len(tokens), tokens.detach(), 1 / math.sqrt(tokens.shape[-1])
        self._queries: list[Tensor] = []
        self._weights: list[Tensor] = []
        fits, seen = _Deferred.apply(tokens, self._scale, turns, rows // len(tokens), self._queries, self._weights)
        self._fits, self._seen = fits.unbind(1), seen.unbind(1)

    def __call__(self, query: Tensor) -> Tensor:
        """The next turn's (B, R / B, width) queries -> what they read, the same shape."""
        turn = len(self._queries)
        weights = torch.softmax(query @ self._tokens.transpose(1, 2) * self._scale + self._fits[turn], -1)
        self._queries.append(query.detach())
        self._weights.append(weights.detach())
        read: Tensor = weights @ self._tokens + self._seen[turn]
        return read


class _Deferred(torch.autograd.Function):
    """Zeros to add to each turn's fits, (B, turns, R / B, cells), and readings; their gradients make that of the tokens."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, scale: float, turns: int, rows: int, queries: list[Tensor], weights: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        ctx.scale, ctx.queries, ctx.weights = scale, queries, weights
        images, cells, width = tokens.shape
        return tokens.new_zeros(images, turns, rows, cells), tokens.new_zeros(images, turns, rows, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, fits: Tensor, seen: Tensor) -> tuple[Tensor | None, ...]:
        queries, weights = (torch.stack(turns, 1).flatten(1, 2) for turns in (ctx.queries, ctx.weights))
        fits, seen = fits.reshape(*weights.shape), seen.reshape(*queries.shape)
        tokens = torch.bmm(fits.transpose(1, 2), queries * ctx.scale) + torch.bmm(weights.transpose(1, 2), seen)
        return tokens, None, None, None, None, None


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
