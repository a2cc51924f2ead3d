"""Caption heads: an LSTM (Show and Tell, or with attention) and a transformer, over any (B, C, *grid) features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmgradcam.tasks.nets.attention import Cell, GridTokens, Layer, Readings, layers_of

WIDE = 512
"""Width of a state from which on a step takes its time for arithmetic: vmapped, early words' backwards add up zeros there."""


class LSTMCaptioner(nn.Module):
    """Predicts the next word from the words before and the picture.

    With attention, each step reads the grid before the word is chosen (Xu et al. 2015); without, the mean of the features
    starts the state (Vinyals et al. 2015).

    Built so that the backward of each word is cheap. Attention has one head, and keys and values are the grid's tokens
    themselves: a linear map of them can as well stand in the query and after the reading, where it costs nothing per cell.
    The state is told what was read through a bottleneck, since a word's gradient runs back through all steps before it. What
    the words say to the gates and to the output has linear layers of its own, through which no gradient need run.

    Args:
        vocabulary: number of tokens.
        channels: C of the features.
        width: size of embeddings and state.
        attention: read the grid at every step.
        memory: size of what the state is told of each reading.
        patch: side of the square of grid cells that make one token of the grid.
    """

    def __init__(
        self, vocabulary: int, channels: int, width: int = 192, attention: bool = True, memory: int = 64, patch: int = 1
    ) -> None:
        super().__init__()
        self.together = (None if width < WIDE else 1) if attention else 3
        self.words = nn.Embedding(vocabulary, width)
        self.begin = nn.Linear(channels, 2 * width)
        self.cell = Cell(width)
        self.tell_word, self.say_word, self.say_state = (
            nn.Linear(width, 4 * width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.tokens = GridTokens(channels, width, patch) if attention else None
        if attention:
            self.query, self.say_seen = nn.Linear(width, width), nn.Linear(width, width)
            self.keep, self.tell_seen = nn.Linear(width, memory), nn.Linear(memory, 4 * width)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(width, vocabulary)

    def start(self, features: Tensor, rows: int) -> tuple[Tensor, ...]:
        """The state before the first token, for `rows` captions, a multiple of the B pictures."""
        h, c = self.begin(features.flatten(2).mean(-1)).tanh().repeat_interleave(rows // len(features), 0).chunk(2, -1)
        return (h, c) if self.tokens is None else (h, c, self.tokens(features))

    def step(self, state: tuple[Any, ...], token: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """(R,) tokens -> what predicts the next, (R, width), and the state after."""
        h, c, *grid = state
        word = self.words(token)
        told, said = self.tell_word(word), self.say_word(word)
        for tokens in grid:
            seen = self._look(h + word, tokens)
            told, said = told + self.tell_seen(self.keep(seen)), said + self.say_seen(seen)
        h, c = self.cell(told, h, c)
        return self.dropout((said + self.say_state(h)).tanh()), (h, c, *grid)

    def reorder(self, state: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
        """The state with other of the R rows in their places; each row stays with its picture."""
        return state[0][rows], state[1][rows], *state[2:]

    def _look(self, asking: Tensor, grid: Tensor | Readings) -> Tensor:
        """(R, width) states -> what they read in the (B, cells, width) tokens of the grid, (R, width)."""
        images = grid.images if isinstance(grid, Readings) else len(grid)
        query = torch.unflatten(self.query(asking), 0, (images, -1))  # (B, R / B, width)
        if isinstance(grid, Readings):
            return grid(query).flatten(0, 1)
        weights = (query @ grid.transpose(1, 2) / math.sqrt(query.shape[-1])).softmax(-1)
        return (weights @ grid).flatten(0, 1)

    def steps(self, features: Tensor, tokens: Tensor) -> Sequence[Tensor]:
        """(B, C, *grid), (R, L) tokens, R a multiple of B -> what predicts each next token, L times (R, width).

        The steps are apart, so that the backward of an early word does not run through the later ones.
        """
        return self._said(self.start(features, len(tokens)), tokens)

    def steps_once(self, features: Tensor, tokens: Tensor) -> Sequence[Tensor]:
        """The same, for many words' backwards at once: each brings what all steps read to the grid in one product."""
        h, c, *grid = self.start(features, len(tokens))
        return self._said((h, c, *(Readings(each, tokens.shape[1], len(tokens)) for each in grid)), tokens)

    def _said(self, state: tuple[Any, ...], tokens: Tensor) -> list[Tensor]:
        said = []
        for token in tokens.unbind(1):
            one, state = self.step(state, token)
            said.append(one)
        return said

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """The same as `steps`, stacked: (R, L, width)."""
        return torch.stack(list(self.steps(features, tokens)), 1)


class TransformerCaptioner(nn.Module):
    """Predicts the next word: causal attention among the words, then attention to the grid, in `layers` layers.

    Args:
        vocabulary: number of tokens.
        channels: C of the features.
        width: size of embeddings and layers.
        layers: number of layers.
        heads: attention heads.
        longest: most tokens of a caption.
        patch: side of the square of grid cells that make one token of the grid.
    """

    together = None

    def __init__(
        self,
        vocabulary: int,
        channels: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        longest: int = 64,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.order = nn.Embedding(longest, width)
        self.tokens = GridTokens(channels, width, patch)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, vocabulary)

    def start(self, features: Tensor, rows: int) -> tuple[Tensor, ...]:
        """The state before the first token: keys and values of each layer, and the `rows` captions so far."""
        grid = self.tokens(features)
        memory = [part for layer in layers_of(self.layers) for part in layer.grid.remember(grid)]
        return torch.empty(rows, 0, dtype=torch.long, device=features.device), *memory

    def step(self, state: tuple[Tensor, ...], token: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(R,) tokens -> what predicts the next, (R, width), and the state after."""
        so_far, *memory = state
        tokens = torch.cat([so_far, token[:, None]], 1)
        return self._run(memory, tokens)[:, -1], (tokens, *memory)

    def reorder(self, state: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
        """The state with other of the R rows in their places; each row stays with its picture."""
        return state[0][rows], *state[1:]

    def steps(self, features: Tensor, tokens: Tensor) -> Sequence[Tensor]:
        """(B, C, *grid), (R, L) tokens, R a multiple of B -> what predicts each next token, L times (R, width)."""
        hidden: Tensor = self(features, tokens)
        return hidden.unbind(1)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """The same, stacked: (R, L, width)."""
        _, *memory = self.start(features, len(tokens))
        return self._run(memory, tokens)

    def _run(self, memory: list[Tensor], tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        x = self.words(tokens) + self.order.weight[:length]
        for layer, keys, values in zip(layers_of(self.layers), memory[::2], memory[1::2], strict=True):
            x = layer(x, (keys, values), mask)
        normed: Tensor = self.norm(x)
        return normed
