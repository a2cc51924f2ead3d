"""Captioning: one target per word, scored by its log-probability given the words before it and the picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmgradcam.errors import InputError
from mmgradcam.explaining.arguments import refuse_unknown
from mmgradcam.images.pictures import PreparedImage, Preprocess
from mmgradcam.task import Query, Target, Task, TextSpan
from mmgradcam.tasks.nets.encoder import encoded
from mmgradcam.tasks.vocabulary import END, PAD, START, UNKNOWN, Vocabulary, spoken, tokenize
from mmgradcam.utils.probability import full, log_prob, others

Choose = Callable[[nn.Module, list[Tensor], list[Tensor]], list[Tensor]]
"""What predicts each word, and the words, to their scores."""


class CaptionHead(Protocol):
    """What a caption head offers; see `mmgradcam.tasks.nets.captioners`.

    It may have a module or method `per_picture`, what all words have in common: features (B, C, *grid) go through it in the
    encode, once per picture, and maps are taken at what it puts out.

    It may have `steps_once`: what `steps` gives, with gradients that can be taken once and are cheaper for many words.
    """

    out: nn.Module
    together: int | None
    """How many steps' backwards are best run as one, by measurement; None for all of them."""

    def start(self, features: Tensor, rows: int) -> tuple[Tensor, ...]: ...

    def step(self, state: tuple[Tensor, ...], token: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]: ...

    def reorder(self, state: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]: ...

    def steps(self, features: Tensor, tokens: Tensor) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class CaptionSpan:
    """Words of a caption: the tokens of the whole caption, start and end included, and which of them are meant."""

    tokens: tuple[int, ...]
    positions: tuple[int, ...]


class Captioning(Task):
    """An encoder and a caption head.

    Query: `caption="..."` explains that sentence instead of the one the model generates; `phrases=[(words, first, last), ...]`
    explains phrases, one target each: the words of a caption, and which of them are meant, both ends inclusive. Words of it
    that the model does not know are read as unknown ones.

    Args:
        encoder: (B, 3, h, w) -> (B, C, *grid).
        head: predicts the next word; see `CaptionHead`.
        vocabulary: the words the head knows.
        fit: resizing and normalising.
        longest: most words generated.
        beam: how many captions are kept while one is searched for; 1 is greedy.
        unit: what a word's score is: its "log-probability", or "word logit", which does not fall where another word that would
            fit as well (a man, a boy) rises.
        no_repeat: length of runs of words that a generated caption may hold only once; 0 lets it repeat what it will.
        length_penalty: captions are ranked by their log-probability over the number of their words to this power, as
            transformers does it; 0 favours short ones, 1 is the mean per word.

    Raises:
        InputError: the unit is neither, or the head no `CaptionHead`.
    """

    query_types = frozenset({"caption", "phrases"})

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        vocabulary: Vocabulary,
        fit: Preprocess,
        longest: int = 30,
        beam: int = 1,
        unit: str = "log-probability",
        no_repeat: int = 0,
        length_penalty: float = 1.0,
    ) -> None:
        if unit not in ("log-probability", "word logit"):
            raise InputError(f'captioning: expected unit "log-probability" or "word logit", got {unit!r}')
        if missing := [name for name in ("out", "together", "start", "step", "steps", "reorder") if not hasattr(head, name)]:
            raise InputError(f"captioning: expected a head as CaptionHead is, got {type(head).__name__} without {missing[0]}")
        self.unit = unit
        self.encoder, self.vocabulary, self.fit, self.longest, self.beam = encoder, vocabulary, fit, longest, beam
        self.head: Any = head
        self.no_repeat, self.length_penalty = no_repeat, length_penalty

    def prepare(self, image: Image.Image) -> PreparedImage:
        return self.fit(image)

    def encode(self, images: Tensor) -> Tensor:
        return encoded(self.encoder, self.head, images)

    def targets(self, features: Tensor, **query: Any) -> Sequence[Target]:
        return self.targets_of_each(features, [query])[0]

    def targets_of_each(self, features: Tensor, queries: Sequence[Query]) -> list[Sequence[Target]]:
        given: dict[int, list[int]] = {}
        spans: dict[int, tuple[TextSpan, ...]] = {}
        for b, query in enumerate(queries):
            refuse_unknown(self, query, sorted(self.query_types))
            if query.get("caption") is not None:
                given[b], spans[b] = self._read(query["caption"])
        silent = [b for b in range(len(queries)) if b not in given and "phrases" not in queries[b]]
        if silent:
            given.update(zip(silent, self.generate(features[silent]), strict=True))
        return [
            self._words(given[b], features[b : b + 1], spans.get(b)) if b in given else self._phrases(queries[b]["phrases"])
            for b in range(len(queries))
        ]

    def can_read(self, text: str) -> bool:
        return all(word in self.vocabulary for word in tokenize(text))

    def _read(self, caption: Any) -> tuple[list[int], tuple[TextSpan, ...]]:
        read = spoken(caption, self.vocabulary) if isinstance(caption, str) else None
        if read is None or not read.words:
            raise InputError(f"caption: expected a sentence, got {caption!r}")
        words = read.words
        unknown = [word for word in dict.fromkeys(words) if word not in self.vocabulary]
        if unknown:
            raise InputError(
                f"caption: {self.name} does not know {', '.join(map(repr, unknown))}; "
                f"it knows {', '.join(self.vocabulary.words[:200])}"
            )
        if len(words) > self.longest:
            raise InputError(f"caption: expected at most {self.longest} words, got {len(words)}; split it")
        return [START, *self.vocabulary.encode(words), END], read.spans

    def _words(self, tokens: Sequence[int], features: Tensor, spans: Sequence[TextSpan] | None) -> list[Target]:
        said = CaptionSpan(tuple(tokens), ())
        words = self.vocabulary.decode(tokens)
        spans = [TextSpan(word, i, i) for i, word in enumerate(words)] if spans is None else spans
        likely: list[float] = []
        if self.unit == "word logit" and words:  # else the score itself tells it
            told = torch.tensor([tokens[: len(words) + 1]], device=features.device)
            with torch.no_grad():
                steps = list(self.head.steps(features, told[:, :-1]))
                chosen = _each_alone(self.head.out, steps, list(told[:, 1:].unbind(1)))
            likely = [float(one.exp()) for one in chosen]
        return [
            Target(
                span.text,
                replace(said, positions=tuple(range(span.first + 1, span.last + 2))),
                probability=math.prod(likely[span.first : span.last + 1]) if likely else None,
            )
            for span in spans
        ]

    def _phrases(self, phrases: Any) -> list[Target]:
        made = []
        for words, first, last in phrases:
            if not 0 <= first <= last < len(words):
                raise InputError(f"phrases: expected words {first} to {last} to lie in a caption of {len(words)} words")
            tokens = (START, *self.vocabulary.encode(words), END)
            made.append(Target(" ".join(words[first : last + 1]), CaptionSpan(tokens, tuple(range(first + 1, last + 2)))))
        return made

    @torch.no_grad()
    def generate(self, features: Tensor, beam: int | None = None) -> list[list[int]]:
        """Captions of (B, C, *grid) features, as tokens from start to end: the best found by beam search.

        Args:
            features: of B images.
            beam: how many captions are kept at each step, the model's own number by default; 1 is greedy.
        """
        width, pictures = beam or self.beam, len(features)
        state = self.head.start(features, pictures * width)
        first = torch.arange(pictures, device=features.device)[:, None] * width  # (B, 1)
        said = torch.full((pictures * width, 1), START, device=features.device)
        total = torch.full((pictures, width), float("-inf"), device=features.device)
        total[:, 0] = 0
        ended = torch.zeros_like(total, dtype=torch.bool)
        patience = 8 if features.is_cuda else 1  # asking whether all have ended waits for the GPU
        for length in range(1, self.longest + 1):
            hidden, state = self.head.step(state, said[:, -1])
            logp = self.head.out(hidden).float().log_softmax(-1)
            logp[:, [PAD, START, UNKNOWN]] = float("-inf")
            forbid_repeats(logp, said, self.no_repeat)
            logp = logp.view(pictures, width, -1)
            logp[ended] = float("-inf")
            logp[..., PAD] = logp[..., PAD].where(~ended, 0.0)
            total, best = (total[..., None] + logp).flatten(1).topk(width)  # (B, width)
            rows, token = best // logp.shape[-1], best % logp.shape[-1]
            ended = ended.gather(1, rows) | (token == END)
            at = (first + rows).flatten()
            said, state = torch.cat([said[at], token.view(-1, 1)], 1), self.head.reorder(state, at)
            if length % patience == 0 and bool(ended.all()):
                break
        words = (said.view(pictures, width, -1) != PAD).sum(-1) - 1
        likeliest = (total / words**self.length_penalty).argmax(1)
        rows_of = said.view(pictures, width, -1)[first[:, 0] // width, likeliest].tolist()
        return [[t for t in row if t not in (PAD, END)] + [END] for row in rows_of]

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return self._rounds(features, [[target] for target in targets], self._chooser(_each_alone))[0]

    def log_prob(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        if len(features) == 1:
            return torch.cat(self._rounds(features, [targets], _each_alone)).float()
        return self._rounds(features, [[target] for target in targets], _each_alone)[0].float()

    def scores(self, features: Tensor, targets: Sequence[Sequence[Target]]) -> Sequence[Tensor]:
        rounds = self._rounds(features, targets, self._chooser(_all_at_once), getattr(self.head, "steps_once", self.head.steps))
        size = self.head.together or len(rounds)
        return [torch.stack(rounds[at : at + size]) for at in range(0, len(rounds), size)]

    def _chooser(self, of_probabilities: Choose) -> Choose:
        return of_probabilities if self.unit == "log-probability" else _logits

    def _rounds(
        self,
        features: Tensor,
        targets: Sequence[Sequence[Target]],
        choose: Choose,
        predict: Callable[[Tensor, Tensor], Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        captions = [list(dict.fromkeys(t.value.tokens for t in row)) for row in targets]
        each = max(1, *map(len, captions))  # of every picture as many, so that they share what its head makes of the grid
        row_of = {(b, said): b * each + i for b, some in enumerate(captions) for i, said in enumerate(some)}
        longest = max(p for row in targets for t in row for p in t.value.positions)
        tokens = torch.full((each * len(captions), longest + 1), PAD)
        for (_, said), row in row_of.items():
            part = said[: longest + 1]
            tokens[row, : len(part)] = torch.tensor(part)
        tokens = tokens.to(features.device)
        steps = (predict or self.head.steps)(features, tokens[:, :-1])
        needed = sorted({p for row in targets for t in row for p in t.value.positions})
        chosen = choose(self.head.out, [steps[p - 1] for p in needed], [tokens[:, p] for p in needed])
        logp = dict(zip(needed, chosen, strict=True))
        rounds = []
        for t in range(max(map(len, targets))):
            total = chosen[0].new_zeros(len(targets))
            asked = [(b, row[t]) for b, row in enumerate(targets) if t < len(row)]
            for p in sorted({p for _, target in asked for p in target.value.positions}):
                at = [(b, row_of[b, target.value.tokens]) for b, target in asked if p in target.value.positions]
                index = torch.tensor(at, device=features.device)
                total = total.index_add(0, index[:, 0], logp[p][index[:, 1]])
            rounds.append(total)
        return rounds

    def join(self, targets: Sequence[Target]) -> Target:
        said = {target.value.tokens for target in targets}
        if len(said) != 1:
            raise InputError("only words of one caption can be joined")
        positions = sorted({p for target in targets for p in target.value.positions})
        return Target(" ".join(target.label for target in targets), CaptionSpan(said.pop(), tuple(positions)))


def forbid_repeats(log_probs: Tensor, said: Tensor, length: int) -> None:
    """Takes the probability from tokens that would repeat an n-gram of so many tokens, in place (Paulus et al. 2018).

    Args:
        log_probs: (R, vocabulary) of the next token.
        said: (R, L) tokens so far.
        length: of the n-grams; 0 lets all repeat.
    """
    if not 0 < length <= said.shape[1]:
        return
    grams = said.unfold(1, length, 1)  # (R, L - length + 1, length)
    repeated = (grams[..., :-1] == said[:, None, said.shape[1] - length + 1 :]).all(-1)
    rows, at = repeated.nonzero(as_tuple=True)
    log_probs[rows, grams[rows, at, -1]] = float("-inf")


def _each_alone(out: nn.Module, steps: list[Tensor], tokens: list[Tensor]) -> list[Tensor]:
    """Log-probabilities (R,) of a token after each step (R, width), by plain autograd."""
    return [log_prob(out(step), token) for step, token in zip(steps, tokens, strict=True)]


def _logits(out: nn.Module, steps: list[Tensor], tokens: list[Tensor]) -> list[Tensor]:
    """Logits (R,) of a token after each step (R, width)."""
    of = getattr(out, "of", lambda step, token: out(step).gather(1, token[:, None])[:, 0])
    return [of(step, token) for step, token in zip(steps, tokens, strict=True)]


def _all_at_once(out: nn.Module, steps: list[Tensor], tokens: list[Tensor]) -> list[Tensor]:
    """The same, reading the vocabulary's large matrix twice and not twice per step.

    The gradient of log p_t by what predicts it is closed: (1 - p_t) W_t - sum_{j != t} p_j W_j, which is 1 - p_t times
    W_t - sum_{j != t} q_j W_j, with q the probabilities of the other tokens among themselves. It is worked out for all steps
    together, and stands ready for the backward of each. Only a linear layer has it.
    """
    if not isinstance(out, nn.Linear):
        return _each_alone(out, steps, tokens)
    with torch.no_grad():
        said, token = torch.stack(steps).detach(), torch.stack(tokens)
        logits = full(out(said))
        chosen = log_prob(logits, token)
        if not any(step.requires_grad for step in steps):
            return list(chosen)
        among = others(logits, token[..., None]).softmax(-1).to(out.weight.dtype)
        directions, rest = out.weight[token] - among @ out.weight, -torch.expm1(chosen)
    return [_Ready.apply(*each) for each in zip(steps, chosen, rest, directions, strict=True)]


class _Ready(torch.autograd.Function):
    """A value (R,) of a step (R, width) whose gradient is known: a size (R,) and a direction (R, width).

    The direction may be in half precision, whose range the gradient itself might leave.
    """

    @staticmethod
    def forward(ctx: Any, step: Tensor, value: Tensor, size: Tensor, direction: Tensor) -> Tensor:
        ctx.save_for_backward(size, direction)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        size, direction = ctx.saved_tensors
        return (gradient * size).to(direction.dtype)[:, None] * direction, None, None, None
