"""A policy that is told where to go: a CNN looks from above, the instruction steers what the rest of the net makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class GridEncoder(nn.Module):
    """(B, 3, h, w) -> (B, channels, h / 8, w / 8): a cell of the world to a cell of the features."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 2, 1),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


class Steered(nn.Module):
    """A residual block whose channels the instruction scales and shifts (FiLM; Perez et al. 2018)."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.steer = nn.Linear(told, 2 * channels)
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm = nn.GroupNorm(8, channels)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.steer(told)[..., None, None].chunk(2, 1)
        y = self.norm(self.first(x)) * (1 + scale) + shift
        return x + torch.relu(self.second(torch.relu(y)))


class GoToHead(nn.Module):
    """(B, C, rows, columns) features and (B, L) words of the instruction -> (B, actions) logits.

    Blocks that the instruction steers pass on from cell to cell which way the goal lies; then one cell, that where the head
    looks, says what to do.

    Args:
        vocabulary: number of tokens; 0 fills up.
        channels: C.
        actions: how many.
        blocks: how far news travel: two cells a block.
    """

    def __init__(self, vocabulary: int, channels: int = 64, actions: int = 7, blocks: int = 5, told: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, told, padding_idx=0)
        self.blocks = nn.ModuleList([Steered(channels, told) for _ in range(blocks)])
        self.look = nn.Conv2d(channels, 1, 1)
        self.out = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, actions))

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        told = self.words(words).sum(1)
        x = features
        for block in self.blocks:
            x = block(x, told)
        looked = self.look(x).flatten(2).softmax(-1)
        seen = (x.flatten(2) * looked).sum(-1)
        logits: Tensor = self.out(seen)
        return logits


class GoToNet(nn.Module):
    """Both together, over an observation's "image", (B, 3, h, w) in 0..1, and "mission", (B, L) tokens."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self.head(self.encoder(observation["image"]), observation["mission"])
        return logits
