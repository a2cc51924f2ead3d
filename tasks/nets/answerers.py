"""Answer heads: an LSTM that reads the grid in several glimpses, and a transformer, over any (B, C, *grid) features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmgradcam.tasks.nets.attention import Attention, Cell, GridTokens, Layer, layers_of

PAD = 0
"""The token that fills short questions up; no head looks at it."""


class LSTMAnswerer(nn.Module):
    """An LSTM reads the question; a second one looks at question and grid in turn, and what it gathered gives the answer.

    Stacked attention (Yang et al. 2016) with a control signal for each glimpse (Hudson and Manning 2018). Besides the
    attended mean, a glimpse tallies how much of the grid answers to it (a sum of sigmoids), which counting needs.

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
        self, vocabulary: int, answers: int, channels: int, width: int = 160, glimpses: int = 4, heads: int = 4, patch: int = 1
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.tell, self.reader = nn.Linear(width, 4 * width), Cell(width)
        self.tokens = GridTokens(channels, width, patch)
        self.control = Attention(width, heads)
        self.steer = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(glimpses))
        self.aim = nn.Linear(2 * width, width)
        self.look = Attention(width, heads)
        self.tally = nn.Linear(heads, width)
        self.gathered, self.cell = nn.Linear(3 * width, 4 * width), Cell(width)
        self.out = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, answers))

    def forward(self, features: Tensor, questions: Tensor) -> Tensor:
        """(B, C, *grid), (R, L) questions filled up with `PAD`, R a multiple of B -> answer logits (R, answers)."""
        words = self.words(questions)
        asked = questions != PAD
        h = c = words.new_zeros(len(words), words.shape[-1])
        states = []
        for told in self.tell(words).unbind(1):
            h, c = self.reader(told, h, c)
            states.append(h)
        last = asked.sum(1).clamp(min=1) - 1
        read = torch.stack(states, 1)
        question = read.gather(1, last[:, None, None].expand(-1, 1, read.shape[-1])).squeeze(1)
        spoken = self.control.remember(read + words)
        keys, values = self.look.remember(self.tokens(features))
        h = c = torch.zeros_like(question)
        for steer in self.steer:
            control = self.control.read(steer(torch.cat([question, h], -1))[:, None], spoken, asked[:, None, None])
            aim = torch.unflatten(self.aim(torch.cat([control.squeeze(1), h], -1)), 0, (len(keys), -1))
            match = self.look.match(aim, keys)  # (B, heads, R / B, cells)
            seen = self.look.gather(match.softmax(-1), values).flatten(0, 1)
            amount = (match - 2).sigmoid().sum(-1).log1p().transpose(1, 2).flatten(0, 1)
            h, c = self.cell(self.gathered(torch.cat([seen, control.squeeze(1), self.tally(amount)], -1)), h, c)
        logits: Tensor = self.out(torch.cat([h, question], -1))
        return logits


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
        grid = self.tokens(features)
        grid = torch.cat([self.nothing.expand(len(grid), 1, -1), grid], 1)
        words = self.words(questions) + self.order.weight[: questions.shape[1]]
        x = torch.cat([self.answer.expand(len(words), 1, -1), words], 1)
        asked = torch.cat([questions.new_ones(len(questions), 1), questions], 1) != PAD
        for layer in layers_of(self.layers):
            x = layer(x, layer.grid.remember(grid), asked[:, None, None])
        logits: Tensor = self.out(self.norm(x[:, 0]))
        return logits
