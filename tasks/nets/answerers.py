"""Answer heads: an LSTM that reads the grid in several glimpses, and a transformer, over any (B, C, *grid) features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmgradcam.tasks.nets.attention import Attention, Cell, GridTokens, Layer, layers_of

PAD = 0
"""The token that fills short questions up; no head looks at it."""


class LSTMAnswerer(nn.Module):
    """An LSTM reads the question; from what it ends with, glimpses look at the question and the grid in turn.

    Stacked attention (Yang et al. 2016): each glimpse asks the question what to look for (a control, as in Hudson and
    Manning 2018), looks for it in the grid, and adds what it saw to what is known; the last state gives the answer.

    Args:
        vocabulary: number of tokens.
        answers: number of answers.
        channels: C of the features.
        width: size of embeddings and states.
        glimpses: looks at the grid.
        heads: attention heads.
        patch: side of the square of grid cells that make one token of the grid.
    """

    def __init__(
        self,
        vocabulary: int,
        answers: int,
        channels: int,
        width: int = 128,
        glimpses: int = 4,
        heads: int = 4,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.tell, self.cell = nn.Linear(width, 4 * width), Cell(width)
        self.tokens = GridTokens(channels, width, patch)
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.glimpses = nn.ModuleList(Glimpse(width, heads) for _ in range(glimpses))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, answers))

    def forward(self, features: Tensor, questions: Tensor) -> Tensor:
        """(B, C, *grid), (R, L) questions filled up with `PAD`, R a multiple of B -> answer logits (R, answers)."""
        logits: Tensor = self.out(self.know(features, questions))
        return logits

    def know(self, features: Tensor, questions: Tensor) -> Tensor:
        """What the answer is read from, (R, width)."""
        words = self.words(questions)
        asked = questions != PAD
        h = c = words.new_zeros(len(words), words.shape[-1])
        states = []
        for told in self.tell(words).unbind(1):
            h, c = self.cell(told, h, c)
            states.append(h)
        read = torch.stack(states, 1) + words
        last = asked.sum(1).clamp(min=1) - 1
        x = read.gather(1, last[:, None, None].expand(-1, 1, read.shape[-1]))
        grid = with_nothing(self.tokens(features), self.nothing)
        for glimpse in self.glimpses:
            x = glimpse(x, read, grid, asked[:, None, None])
        known: Tensor = self.norm(x[:, 0])
        return known


class Glimpse(nn.Module):
    """One look at the question, one at the grid, and a thought about them, each added to what is known."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.question, self.grid = Attention(width, heads), Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, read: Tensor, grid: Tensor, asked: Tensor) -> Tensor:
        """(R, 1, width) known, (R, L, width) question, (B, cells, width) grid, mask over L -> (R, 1, width)."""
        x = x + self.question.read(self.norm1(x), self.question.remember(read), asked)
        looking = torch.unflatten(self.norm2(x), 0, (len(grid), -1)).flatten(1, 2)
        x = x + self.grid.read(looking, self.grid.remember(grid)).reshape(x.shape)
        thought: Tensor = self.feed(self.norm3(x))
        return x + thought


def with_nothing(grid: Tensor, nothing: Tensor) -> Tensor:
    """(B, cells, width) with a token before it that stands for nothing: attention to things can then tell how many they are."""
    return torch.cat([nothing.expand(len(grid), 1, -1), grid], 1)


class TransformerAnswerer(nn.Module):
    """Question words and an answer token look at one another and at the grid; the answer token gives the answer.

    Args:
        vocabulary: number of tokens.
        answers: number of answers.
        channels: C of the features.
        width: size of embeddings and layers.
        layers: number of layers.
        heads: attention heads.
        longest: most tokens of a question.
        patch: side of the square of grid cells that make one token of the grid.
    """

    def __init__(
        self,
        vocabulary: int,
        answers: int,
        channels: int,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        longest: int = 64,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.order = nn.Embedding(longest, width)
        self.answer = nn.Parameter(torch.randn(width) * 0.02)
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.tokens = GridTokens(channels, width, patch)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, answers))

    def forward(self, features: Tensor, questions: Tensor) -> Tensor:
        """(B, C, *grid), (R, L) questions filled up with `PAD`, R a multiple of B -> answer logits (R, answers)."""
        logits: Tensor = self.out(self.know(features, questions))
        return logits

    def know(self, features: Tensor, questions: Tensor) -> Tensor:
        """What the answer is read from, (R, width)."""
        grid = with_nothing(self.tokens(features), self.nothing)
        words = self.words(questions) + self.order.weight[: questions.shape[1]]
        x = torch.cat([self.answer.expand(len(words), 1, -1), words], 1)
        asked = torch.cat([questions.new_ones(len(questions), 1), questions], 1) != PAD
        for layer in layers_of(self.layers):
            x = layer(x, layer.grid.remember(grid), asked[:, None, None])
        known: Tensor = self.norm(x[:, 0])
        return known
