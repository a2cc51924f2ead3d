"""Word detectors: what each cell of the grid says for each word, and a caption head whose words rest on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgradcam.tasks.nets.answerers import LSTMAnswerer
from mmgradcam.tasks.nets.captioners import LSTMCaptioner, TransformerCaptioner


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
    """

    tokens: Tensor

    def __init__(self, channels: int, width: int, vocabulary: int, looked_for: int, sharpness: float = 4.0) -> None:
        super().__init__()
        self.vocabulary, self.sharpness = vocabulary, sharpness
        self.neck = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.dropout = nn.Dropout2d(0.1)
        self.look = nn.Conv2d(width, looked_for, 1)
        self.usual = nn.Parameter(torch.zeros(looked_for))
        self.tell = nn.Linear(looked_for, width)
        self.register_buffer("tokens", torch.arange(looked_for))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, *grid) -> what a language model reads, (B, width, *grid), and the evidence, (B, looked_for) logits.

        What it reads is what the detectors look at, and in every cell which words they found.
        """
        seen = self.dropout(self.neck(features))
        said = self.look(seen).flatten(2).float()
        evidence = (torch.logsumexp(self.sharpness * said, 2) - math.log(said.shape[2])) / self.sharpness
        return seen + self.tell(evidence.sigmoid())[..., None, None], evidence

    def spread(self, evidence: Tensor) -> Tensor:
        """(B, looked_for) evidence -> (B, vocabulary), less what is usual; 0 for words without a detector."""
        return evidence.new_zeros(len(evidence), self.vocabulary).index_copy(1, self.tokens, evidence - self.usual)


class Say(nn.Module):
    """(..., width + vocabulary): a state, and the evidence by as much as it counts now -> (..., vocabulary) logits."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.words = nn.Linear(width, vocabulary)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.words(hidden[..., : self.words.in_features]) + hidden[..., self.words.in_features :]
        return logits


class EvidenceCaptioner(nn.Module):
    """A caption head whose words rest on the evidence that detectors find for them in the grid.

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
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.detectors = Detectors(channels, width, vocabulary, looked_for, sharpness)
        kinds = {"lstm": LSTMCaptioner, "transformer": TransformerCaptioner}
        self.language = kinds[kind](vocabulary, width, width, **settings or {})
        self.counts = nn.Linear(width, 1)
        self.left = nn.Parameter(torch.zeros(()))
        self.out = Say(width, vocabulary)
        self.language.out = nn.Identity()  # said by `out`, with the evidence
        self.together = self.language.together

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
        """(B, C, *grid), (R, L) tokens, R a multiple of B -> what predicts each next token, L times (R, width + vocabulary)."""
        seen, evidence = self.detectors(features)
        spread = self.detectors.spread(evidence)
        hidden = []
        for state, left in zip(self.language.steps(seen, tokens), self.fresh(tokens, spread.shape[1]), strict=True):
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
    """An answer head that reads what detectors of words look at, and is told which words they found.

    Args:
        vocabulary: number of tokens of questions.
        answers: number of answers.
        channels: C of the features.
        width: size of embeddings and states.
        looked_for: see `Detectors`.
        sharpness: see `Detectors`.
        settings: more arguments of the head that answers, an `LSTMAnswerer`.
    """

    def __init__(
        self,
        vocabulary: int,
        answers: int,
        channels: int,
        width: int,
        looked_for: int,
        sharpness: float = 4.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.detectors = Detectors(channels, width, looked_for, looked_for, sharpness)
        self.language = LSTMAnswerer(vocabulary, answers, width, width, **settings or {})

    @property
    def words(self) -> nn.Embedding:
        """What embeds the tokens of a question."""
        return self.language.words

    def forward(self, features: Tensor, questions: Tensor) -> Tensor:
        """(B, C, *grid), (R, L) questions, R a multiple of B -> answer logits (R, answers)."""
        logits: Tensor = self.language(self.detectors(features)[0], questions)
        return logits
