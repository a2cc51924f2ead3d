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

    Blocks that the instruction steers pass on from cell to cell which way the goal lies, until every cell tells what to do for
    an agent that stands there and looks into each of four directions. The head looks for the agent and does what is told there.

    Args:
        vocabulary: number of tokens; 0 fills up.
        channels: C.
        actions: how many.
        blocks: how far news travel: two cells a block.
        told: size of the instruction's embedding.
    """

    def __init__(self, vocabulary: int, channels: int = 64, actions: int = 7, blocks: int = 5, told: int = 32) -> None:
        super().__init__()
        self.actions = actions
        self.words = nn.Embedding(vocabulary, told, padding_idx=0)
        self.blocks = nn.ModuleList([Steered(channels, told) for _ in range(blocks)])
        self.look = nn.Conv2d(channels, 4, 1)
        self.advise = nn.Conv2d(channels, 4 * actions, 1)

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        where, advice = self.everywhere(features, words)
        logits: Tensor = (where.softmax(-1)[:, None] @ advice)[:, 0]
        return logits

    def everywhere(self, features: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of where the agent is and looks, (B, rows * columns * 4), and what to do there, (B, the same, actions)."""
        told = self.words(words).sum(1)
        x = features
        for block in self.blocks:
            x = block(x, told)
        where = self.look(features).flatten(2).transpose(1, 2).flatten(1)
        advice = torch.unflatten(self.advise(x), 1, (4, self.actions)).flatten(3)  # (B, 4, actions, cells)
        return where, advice.permute(0, 3, 1, 2).flatten(1, 2)


class GoToNet(nn.Module):
    """Both together, over an observation's "image", (B, 3, h, w) in 0..1, and "mission", (B, L) tokens."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self.head(self.encoder(observation["image"]), observation["mission"])
        return logits
