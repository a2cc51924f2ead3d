"""Word detectors: what each cell of the grid says for each word, and a caption head whose words rest on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmgradcam.tasks.nets.attention import Attention, Cell, GridTokens
from mmgradcam.tasks.nets.captioners import LSTMCaptioner, TransformerCaptioner

Steps = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""(B, C, *grid) features, (R, L) tokens -> what predicts each next token."""
PAD = 0
"""The token that fills short questions up; no head looks at it."""


class Detectors(nn.Module):
    """A linear detector for each of some words at each cell; a word's evidence is the soft maximum over the cells.

    Multiple-instance learning (Fang et al. 2015, with the log-sum-exp pooling of Pinheiro and Collobert 2015): the captions
    tell that a word is in the photo, not where, so some cell must say it, and in photos without it none may.

    Args:
        channels: C of the features.
        width: channels of what the detectors look at.
        vocabulary: number of tokens.
        looked_for: how many of them have a detector; which ones is a buffer, `tokens`.
        sharpness: of the soft maximum; 0 is the mean, infinity the maximum.
        around: how many times each cell looks at the cells around it before the detectors do.
    """

    tokens: Tensor

    def __init__(
        self, channels: int, width: int, vocabulary: int, looked_for: int, sharpness: float = 4.0, around: int = 0
    ) -> None:
        super().__init__()
        self.vocabulary, self.sharpness = vocabulary, sharpness
        self.neck = nn.Sequential(
            nn.BatchNorm2d(channels, affine=False),
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(Around(width) for _ in range(around)),
        )
        self.dropout = nn.Dropout2d(0.1)
        self.look = nn.Conv2d(width, looked_for, 1)
        self.usual = nn.Parameter(torch.zeros(looked_for))
        self.tell = nn.Linear(looked_for, width)
        self.register_buffer("tokens", torch.arange(looked_for))

    def forward(self, grid: Tensor, once: bool = False) -> tuple[Tensor, Tensor]:
        """What a language model reads, (B, width, *grid), and the evidence, (B, looked_for) logits.

        What it reads is what the detectors look at, and in every cell which words they found.

        Args:
            grid: (B, width, *grid), what `neck` makes of features.
            once: with a cheaper backward to the grid, which cannot be differentiated and does not reach the weights.
        """
        if once:
            seen = self.dropout(grid)
            evidence = _Evidence.apply(seen, self.look.weight.flatten(1), self.look.bias, self.sharpness)
            return self._told(seen, evidence), evidence
        seen, evidence, _ = self.found(grid)
        return seen, evidence

    def found(self, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and what each cell says for each word, (B, looked_for, cells) logits."""
        seen = self.dropout(grid)
        said = self.look(seen).flatten(2).float()
        evidence = (torch.logsumexp(self.sharpness * said, 2) - math.log(said.shape[2])) / self.sharpness
        return self._told(seen, evidence), evidence, said

    def _told(self, seen: Tensor, evidence: Tensor) -> Tensor:
        told: Tensor = seen + self.tell(evidence.sigmoid())[..., None, None]
        return told

    def spread(self, evidence: Tensor) -> Tensor:
        """(B, looked_for) evidence -> (B, vocabulary), less what is usual; 0 for words without a detector."""
        return evidence.new_zeros(len(evidence), self.vocabulary).index_copy(1, self.tokens, evidence - self.usual)


class _Evidence(torch.autograd.Function):
    """The evidence (B, N) of N detectors, (N, width) and (N,), in a grid (B, width, *grid), and its gradient at the grid.

    By a cell's logit the soft maximum has the softmax over the cells as its slope, which is worked out once for all backwards.
    """

    @staticmethod
    def forward(ctx: Any, seen: Tensor, weight: Tensor, bias: Tensor, sharpness: float) -> Tensor:
        said = (weight @ seen.flatten(2) + bias[:, None]).float()
        ctx.save_for_backward(weight, torch.softmax(sharpness * said, 2).to(seen.dtype))
        ctx.grid = seen.shape[2:]
        return (torch.logsumexp(sharpness * said, 2) - math.log(said.shape[2])) / sharpness

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, evidence: Tensor) -> tuple[Tensor | None, ...]:
        weight, shares = ctx.saved_tensors
        looking = weight.t().expand(len(shares), *weight.t().shape)
        seen = torch.bmm(looking, evidence.to(shares.dtype)[..., None] * shares)
        return seen.reshape(*seen.shape[:2], *ctx.grid), None, None, None


class Around(nn.Module):
    """What a cell is like, with what the cells around it are like: a residual block of a depthwise convolution and two more."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, 2 * width, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y


class Say(nn.Module):
    """(..., width + vocabulary): a state, and the evidence by as much as it counts now -> (..., vocabulary) logits."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.words = nn.Linear(width, vocabulary)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.words(hidden[..., : self.words.in_features]) + hidden[..., self.words.in_features :]
        return logits

    def of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """The logit of one token for each of R rows: (R, width + vocabulary), (R,) -> (R,)."""
        said = (hidden[:, : self.words.in_features] * self.words.weight[tokens]).sum(-1) + self.words.bias[tokens]
        evidence = hidden[:, self.words.in_features :].gather(1, tokens[:, None])
        return said + evidence[:, 0]


class EvidenceCaptioner(nn.Module):
    """A caption head whose words rest on the evidence that detectors find for them in the grid.

    All methods take what `per_picture` makes of the encoder's features, (B, width, *grid): it is the same for every word, so
    that a task computes it once per picture and takes its maps there.

    At each step a language model that attends to the grid says which words fit, and how much the picture counts now; the next
    word's logit is its own plus that much of the word's evidence, of which little is left once the word was said. The language
    model is told which words were detected.

    Args:
        kind: the language model, "lstm" or "transformer".
        vocabulary: number of tokens.
        channels: C of the features.
        width: size of its embeddings and states.
        looked_for: see `Detectors`.
        sharpness: see `Detectors`.
        around: see `Detectors`.
        settings: more of the language model's own arguments.
    """

    def __init__(
        self,
        kind: str,
        vocabulary: int,
        channels: int,
        width: int,
        looked_for: int,
        sharpness: float = 4.0,
        around: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.detectors = Detectors(channels, width, vocabulary, looked_for, sharpness, around)
        kinds = {"lstm": LSTMCaptioner, "transformer": TransformerCaptioner}
        self.language = kinds[kind](vocabulary, width, width, **settings or {})
        self.counts = nn.Linear(width, 1)
        self.left = nn.Parameter(torch.zeros(()))
        self.out = Say(width, vocabulary)
        self.language.out = nn.Identity()  # said by `out`, with the evidence
        self.together = self.language.together

    @property
    def per_picture(self) -> nn.Module:
        """(B, C, *grid) features of the encoder -> (B, width, *grid), what all words have in common."""
        return self.detectors.neck

    def start(self, features: Tensor, rows: int) -> tuple[Tensor, ...]:
        """The state before the first token, for `rows` captions, a multiple of the B pictures."""
        seen, evidence = self.detectors(features)
        said = torch.empty(rows, 0, dtype=torch.long, device=features.device)
        return said, self.detectors.spread(evidence), *self.language.start(seen, rows)

    def step(self, state: tuple[Tensor, ...], token: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(R,) tokens -> what predicts the next, (R, width + vocabulary), and the state after."""
        said, evidence, *rest = state
        said = torch.cat([said, token[:, None]], 1)
        hidden, after = self.language.step(tuple(rest), token)
        left = self.fresh(said, evidence.shape[1])[-1]
        return torch.cat([hidden, self.weigh(hidden, evidence) * left], 1), (said, evidence, *after)

    def reorder(self, state: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
        """The state with other of the R rows in their places; each row stays with its picture."""
        return state[0][rows], state[1], *self.language.reorder(state[2:], rows)

    def steps(self, features: Tensor, tokens: Tensor) -> Sequence[Tensor]:
        """(B, width, *grid), (R, L) tokens, R a multiple of B -> what predicts each next, L times (R, width + vocabulary)."""
        return self._said(self.language.steps, self.detectors(features), tokens)

    def steps_once(self, features: Tensor, tokens: Tensor) -> Sequence[Tensor]:
        """The same, for many words' backwards at once; see the language model's."""
        steps = getattr(self.language, "steps_once", self.language.steps)
        return self._said(steps, self.detectors(features, once=True), tokens)

    def _said(self, steps: Steps, found: tuple[Tensor, Tensor], tokens: Tensor) -> Sequence[Tensor]:
        seen, evidence = found
        spread = self.detectors.spread(evidence)
        hidden = []
        for state, left in zip(steps(seen, tokens), self.fresh(tokens, spread.shape[1]), strict=True):
            hidden.append(torch.cat([state, self.weigh(state, spread) * left], -1))
        return hidden

    def weigh(self, said: Tensor, evidence: Tensor) -> Tensor:
        """(R, ..., width) states, (B, vocabulary) evidence -> (R, ..., vocabulary), by as much as the state lets it count."""
        counts = torch.unflatten(F.softplus(self.counts(said)), 0, (len(evidence), -1))
        between = [None] * (counts.dim() - 2)
        return (counts * evidence[(slice(None), *between)]).flatten(0, 1).to(said.dtype)

    def fresh(self, tokens: Tensor, vocabulary: int) -> list[Tensor]:
        """(R, L) tokens -> what is left of each word's evidence after each of them, L times (R, vocabulary)."""
        said = torch.zeros(len(tokens), vocabulary, dtype=torch.bool, device=tokens.device)
        left = []
        for token in tokens.unbind(1):
            said = said.scatter(1, token[:, None], True)
            left.append(torch.where(said, self.left.sigmoid(), 1.0))
        return left


class EvidenceAnswerer(nn.Module):
    """An answer head that looks where the detectors find what the question names, and answers with what they find there.

    An LSTM reads the question. Each glimpse (see `Glimpse`) asks it what to look for; where it looks is led by the detectors
    of the question's words. After the first, the words of the question are told how much there is of them, in the whole
    picture and where the glimpse looked. An answer that is itself a word with a detector gets as much of that word's evidence,
    of the whole picture and of where the last glimpse looked, as the question lets count.

    Args:
        vocabulary: number of tokens of questions.
        answers: number of answers.
        channels: C of the features.
        width: size of embeddings and states.
        looked_for: see `Detectors`.
        sharpness: see `Detectors`.
        around: see `Detectors`.
        glimpses: looks at the grid, which share their weights.

    Attributes:
        asks: the detector of each token of a question, (vocabulary,), -1 where it has none.
        tells: the detector of each answer, (answers,), -1 where it has none.
    """

    asks: Tensor
    tells: Tensor

    def __init__(
        self,
        vocabulary: int,
        answers: int,
        channels: int,
        width: int,
        looked_for: int,
        sharpness: float = 4.0,
        around: int = 0,
        glimpses: int = 3,
    ) -> None:
        super().__init__()
        self.detectors = Detectors(channels, width, looked_for, looked_for, sharpness, around)
        self.register_buffer("asks", torch.full((vocabulary,), -1))
        self.register_buffer("tells", torch.full((answers,), -1))
        self.words = nn.Embedding(vocabulary, width)
        self.tell, self.cell = nn.Linear(width, 4 * width), Cell(width)
        self.tokens = GridTokens(width, width)
        self.names = nn.Linear(width, 1)
        self.there, self.here = (nn.Parameter(torch.randn(width) * 0.02) for _ in range(2))
        self.glimpses, self.glimpse = glimpses, Glimpse(width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(0.1)
        self.counts = nn.Linear(width, 2)
        self.out = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, answers))

    @property
    def per_picture(self) -> nn.Module:
        """(B, C, *grid) features of the encoder -> (B, width, *grid), what all questions have in common."""
        return self.detectors.neck

    def forward(self, features: Tensor, questions: Tensor) -> Tensor:
        """(B, width, *grid) that `per_picture` made, (R, L) questions, R a multiple of B -> answer logits (R, answers)."""
        return self.answer(*self.detectors.found(features), questions)

    def answer(self, seen: Tensor, evidence: Tensor, said: Tensor, questions: Tensor) -> Tensor:
        """The answer logits, of what the detectors found: see `Detectors.found`."""
        asked, each = questions != PAD, len(questions) // len(seen)
        read = self.read(questions)
        last = asked.sum(1).clamp(min=1) - 1
        x = read.gather(1, last[:, None, None].expand(-1, 1, read.shape[-1]))
        usual = self.detectors.usual
        beyond, local = (evidence - usual).repeat_interleave(each, 0), said - usual[:, None]  # (R, K), (B, K, cells)
        at = self.asks[questions]  # (R, L)
        named = at >= 0
        of_words = at.clamp(min=0)
        rows = torch.unflatten(of_words, 0, (len(seen), each)).flatten(1)
        where = torch.unflatten(local.gather(1, rows[..., None].expand(-1, -1, local.shape[2])), 1, (each, -1)).flatten(0, 1)
        leads = (self.names(read).sigmoid() * named[..., None]).to(where.dtype)  # (R, L, 1)
        lead = (where * leads).sum(1)  # (R, cells)
        grid = self.glimpse.grid.remember(self.tokens(seen))  # the same for every glimpse
        looked = lead
        for i in range(self.glimpses):
            x, looked = self.glimpse(x, read, grid, lead, asked)
            if i == 0:
                there = beyond.gather(1, of_words).masked_fill(~named, 0.0).sigmoid() - 0.5
                here = (where @ looked[..., None].to(where.dtype))[..., 0].masked_fill(~named, 0.0).sigmoid() - 0.5
                read = read + there[..., None].to(read.dtype) * self.there + here[..., None].to(read.dtype) * self.here
        known = self.dropout(self.norm(x[:, 0]))
        here = torch.unflatten(looked.to(local.dtype), 0, (len(seen), each)) @ local.transpose(1, 2)  # (B, each, K)
        found = torch.stack([beyond, here.flatten(0, 1)], -1)[:, self.tells.clamp(min=0)]  # (R, answers, 2)
        counted = (found * F.softplus(self.counts(known).float())[:, None]).sum(-1)
        logits: Tensor = self.out(known).float() + counted.masked_fill(self.tells < 0, 0.0)
        return logits

    def read(self, questions: Tensor) -> Tensor:
        """(R, L) tokens -> what each is in its question, (R, L, width)."""
        words = self.words(questions)
        h = c = words.new_zeros(len(words), words.shape[-1])
        states = []
        for told in self.tell(words).unbind(1):
            h, c = self.cell(told, h, c)
            states.append(h)
        told_of: Tensor = torch.stack(states, 1) + words
        return told_of


class Glimpse(nn.Module):
    """One look at the question and one at the grid, led by what detectors say of its cells, each added to what is known."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.question, self.grid = Attention(width, heads), Attention(width, 1)
        self.follow = nn.Linear(width, 1)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))

    def forward(
        self, x: Tensor, read: Tensor, grid: tuple[Tensor, Tensor], lead: Tensor, asked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is known after, (R, 1, width), and where it looked, weights of the cells, (R, cells), that sum to one.

        Args:
            x: what is known, (R, 1, width).
            read: the question's words, (R, L, width).
            grid: keys and values of its cells, (B, 1, cells, width), R a multiple of B.
            lead: what the detectors say of the cells, (R, cells).
            asked: which tokens are words, (R, L).
        """
        x = x + self.question.read(self.norm1(x), self.question.remember(read), asked[:, None, None])
        keys, values = grid
        asking = torch.unflatten(self.norm2(x), 0, (len(keys), -1)).flatten(1, 2)  # (B, R / B, width)
        fit = self.grid.match(asking, keys)[:, 0].flatten(0, 1).float()  # (R, cells)
        looked = (fit + F.softplus(self.follow(x[:, 0]).float()) * lead.float()).softmax(-1)
        weights = torch.unflatten(looked.to(values.dtype), 0, (len(keys), -1))[:, None]  # (B, 1, R / B, cells)
        x = x + self.grid.gather(weights, values).reshape(x.shape)
        thought: Tensor = self.feed(self.norm3(x))
        return x + thought, looked
