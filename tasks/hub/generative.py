"""Models that write about a picture token by token: captions, replies to a prompt, answers to a question.

What they have in common, whatever their feature layer: words are whole words although tokens are pieces, a target is the
log-probability of its tokens given all before them, and one forward of the language model scores all words of a sentence.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.explaining.arguments import refuse_unknown
from mmgradcam.images.pictures import PreparedImage
from mmgradcam.layers import TargetLayer
from mmgradcam.methods import hirescam
from mmgradcam.task import Query, Target, Task, TextSpan, at_least_one, spelled
from mmgradcam.tasks.hub.text import text_of, words_among, words_of, words_read
from mmgradcam.tasks.hub.writing import Written, overruled
from mmgradcam.utils.probability import log_prob


@dataclass(frozen=True)
class Prompt:
    """Tokens before the model's own text, and the picture's size (width, height) where the model has to know it."""

    tokens: tuple[int, ...]
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class ReplySpan:
    """A prompt, the tokens of the text after it, which of them are meant, and a text they are held against.

    `cut` is the most tokens that were allowed, where the model wrote them all before its text came to an end, else 0.
    """

    prompt: Prompt
    text: tuple[int, ...]
    positions: tuple[int, ...]
    contrast: tuple[int, ...] | None = None
    cut: int = 0


class ModelAdapter(Protocol):
    """What sets one family of talking models apart from another; one small class each.

    Attributes:
        model: the whole model.
        generator: the part of it that has `generate`.
        tokenizer: its own.
        query_types: which of caption=, prompt= and question= it can be asked with.
        feature_layer: where the features are taken, in words.
        target_layers: layers at which maps are taken, if not at the features.
    """

    model: Any
    generator: Any
    tokenizer: Any
    query_types: frozenset[str]
    feature_layer: str

    @property
    def target_layers(self) -> Sequence[TargetLayer]: ...

    def prepare(self, image: Image.Image) -> PreparedImage: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def prompt(self, text: str | None, question: bool, features: Tensor, size: tuple[int, int] | None) -> list[int]:
        """Tokens before the model's own text: of a prompt or a question of the user's, or of neither.

        `size` is the picture's width and height, if `prepare` gives it.
        """

    def write(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[Written]:
        """The `beams` likeliest texts, without special tokens, that the model writes about one picture after the prompt."""

    def read(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        """Features of R rows, their prompts and texts -> logits (R, longest text, tokens) of each of the text's tokens."""

    def words(self) -> nn.Module:
        """The layer that embeds the tokens of the prompts."""


class GenerativeVLM(Task):
    """A model that writes about a picture.

    Query: `caption="..."` explains that sentence instead of the one the model writes; `prompt="..."` is what it is to go on
    from or reply to; `question="..."` with `answer=`, `top=` and `contrast=` as for VQA. A family says which it takes.
    `max_new_tokens=N` lets a text be that long.

    Args:
        adapter: what is the family's own.
        longest: most tokens written, unless a query says otherwise.
    """

    unit = "log-probability"
    method = staticmethod(hirescam)

    def __init__(self, adapter: ModelAdapter, longest: int = 40) -> None:
        self.adapter, self.longest = adapter, longest
        if replaced := overruled(adapter.generator):
            settings = ", ".join(replaced)
            warnings.warn(f"generation: the model's own {settings} is not used; its likeliest text is explained", stacklevel=3)
        self.model: nn.Module = adapter.model
        self.tokenizer, self.feature_layer, self.target_layers = adapter.tokenizer, adapter.feature_layer, adapter.target_layers
        of_questions = {"answer", "contrast", "top"} if "question" in adapter.query_types else set()
        self.query_types = adapter.query_types | {"max_new_tokens"} | of_questions

    def prepare(self, image: Image.Image) -> PreparedImage:
        return self.adapter.prepare(image)

    def encode(self, images: Tensor) -> Tensor:
        return self.adapter.encode(images)

    def words(self) -> nn.Module:
        return self.adapter.words()

    def targets(self, features: Tensor, **query: Any) -> Sequence[Target]:
        return self.targets_of_each(features, [query])[0]

    def targets_of_each(self, features: Tensor, queries: Sequence[Query]) -> list[Sequence[Target]]:
        return [self._targets(features[b : b + 1], query) for b, query in enumerate(queries)]

    def _targets(self, features: Tensor, query: Query) -> list[Target]:
        question = query.get("question")
        own = self.adapter.query_types
        allowed = own | {"size", "max_new_tokens"} | ({"answer", "contrast", "top"} if question is not None else set())
        how = f"with {', '.join(f'{t}=' for t in sorted(own))}"
        refuse_unknown(self, [name for name, value in query.items() if value is not None], sorted(allowed), how)
        if own == {"question"} and question is None:
            raise InputError(f"{self.name} is asked {how}; got none")
        asked = question if question is not None else query.get("prompt")
        if asked is not None and not (isinstance(asked, str) and asked.strip()):
            raise InputError(f"{'question' if question is not None else 'prompt'}: expected a sentence, got {asked!r}")
        most, size = at_least_one(query, "max_new_tokens", self.longest), query.get("size")
        prompt = Prompt(tuple(self.adapter.prompt(asked, question is not None, features, size)), size)
        if question is not None:
            return self._answers(features, prompt, query, most, words_read(self.tokenizer, prompt.tokens, question))
        input_tokens = words_among(self.tokenizer, prompt.tokens, asked) if asked else ()
        said = query.get("caption")
        if said is None:
            told = self._written(features, prompt, most, 1)[0]
        else:
            told = ReplySpan(prompt, tuple(self.tokens(said, "caption", most)), ())
        words = words_of(self.tokenizer, told.text, None if said is None else said.strip())
        return [Target(w.label, replace(told, positions=w.tokens), text=w.text, input_tokens=input_tokens) for w in words]

    def _written(self, features: Tensor, prompt: Prompt, most: int, beams: int) -> list[ReplySpan]:
        """The likeliest texts, none of their tokens meant."""
        return [ReplySpan(prompt, w.tokens, (), cut=most * w.cut) for w in self.adapter.write(features, prompt, most, beams)]

    def _answers(
        self, features: Tensor, prompt: Prompt, query: Query, most: int, input_tokens: tuple[TextSpan, ...]
    ) -> list[Target]:
        asked, top = query.get("answer"), at_least_one(query, "top", 1)
        texts = (
            self._written(features, prompt, most, top)
            if asked is None
            else [
                ReplySpan(prompt, tuple(self.tokens(a, "answer", most)), ())
                for a in ([asked] if isinstance(asked, str) else asked)
            ]
        )
        said = {self.text(one.text): one for one in reversed(texts)}  # of several that read the same, the likeliest
        told = [replace(t, positions=tuple(range(len(t.text)))) for label, t in reversed(said.items()) if label]
        if not told:
            raise InputError(f"{self.name} answered nothing; give an answer of your own")
        with torch.no_grad():
            found = self.score(features.expand(len(told), *features.shape[1:]), [Target("", t) for t in told]).exp().tolist()
        made = [
            Target(self.text(t.text), t, probability=p, input_tokens=input_tokens, asserted=asked is not None or n == 0)
            for n, (t, p) in enumerate(zip(told, found, strict=True))
        ]
        if query.get("contrast") is not None:
            other = self.tokens(query["contrast"], "contrast", most)
            if tuple(other) == told[0].text:
                raise InputError(f"against: {query['contrast']!r} is the answer itself; name another one")
            label = f"{made[0].label} rather than {self.text(other)}"
            made.insert(1, Target(label, replace(told[0], contrast=tuple(other)), input_tokens=input_tokens, asserted=False))
        return made

    def remarks(self, targets: Sequence[Target]) -> Sequence[str]:
        cut = max((target.value.cut for target in targets), default=0)
        return (f"the text was cut after {cut} tokens, before its end; max_new_tokens lets it be longer",) if cut else ()

    def tokens(self, text: Any, what: str, most: int) -> list[int]:
        """Tokens of a text the user gave, which may be four times as long as one that is written."""
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{what}: expected a sentence, got {text!r}")
        found: list[int] = self.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        if len(found) > 4 * most:
            raise InputError(
                f"{what}: expected at most {4 * most} tokens, got {len(found)}; shorten it or raise max_new_tokens"
            )
        return found

    def text(self, tokens: Sequence[int]) -> str:
        return text_of(self.tokenizer, tokens).strip()

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        told = [target.value for target in targets]
        others = [k for k, t in enumerate(told) if t.contrast is not None]
        rows = [*range(len(told)), *others]
        texts = [list(t.text) for t in told] + [list(told[k].contrast) for k in others]
        logp = self._logp(features[rows], [told[k].prompt for k in rows], texts)
        # What both texts begin with cancels, and only its rounding would be left.
        alike = [
            len(list(takewhile(lambda pair: pair[0] == pair[1], zip(t.text, t.contrast or (), strict=False)))) for t in told
        ]
        meant = [tuple(p for p in t.positions if p >= first) for t, first in zip(told, alike, strict=True)]
        meant += [tuple(range(alike[k], len(told[k].contrast))) for k in others]
        sums = torch.stack([row[list(at)].sum() for row, at in zip(logp, meant, strict=True)])
        found = sums[: len(told)]
        return found.index_add(0, torch.tensor(others, device=found.device, dtype=torch.long), -sums[len(told) :])

    def scores(self, features: Tensor, targets: Sequence[Sequence[Target]]) -> Sequence[Tensor] | None:
        first = [row[0].value for row in targets]
        for told, row in zip(first, targets, strict=True):
            if any((t.value.prompt, t.value.text) != (told.prompt, told.text) or t.value.contrast for t in row):
                return None
        logp = self._logp(features, [t.prompt for t in first], [list(t.text) for t in first])
        return [
            torch.stack([logp[b, list(row[min(t, len(row) - 1)].value.positions)].sum() for b, row in enumerate(targets)])[None]
            for t in range(max(map(len, targets)))
        ]

    def _logp(self, features: Tensor, prompts: list[Prompt], texts: list[list[int]]) -> Tensor:
        """Log-probabilities (R, longest text) of the texts' tokens; 0 beyond a text's end."""
        logits = self.adapter.read(features, prompts, texts)
        longest = max(map(len, texts))
        said = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=logits.device)
        there = torch.tensor([[i < len(text) for i in range(longest)] for text in texts], device=logits.device)
        return torch.where(there, log_prob(logits, said), 0.0)

    def join(self, targets: Sequence[Target]) -> Target:
        told = {(t.value.prompt, t.value.text) for t in targets}
        if len(told) != 1 or any(t.value.contrast for t in targets):
            raise InputError("only words of one text can be joined")
        positions = sorted({p for t in targets for p in t.value.positions})
        whole = replace(targets[0].value, positions=tuple(positions))
        parts = [t.text for t in targets if t.text is not None]
        text = "".join(parts) if len(parts) == len(targets) else None
        return Target(spelled(targets), whole, text=text, input_tokens=targets[0].input_tokens)


def after(logits: Tensor, prompts: Sequence[Prompt], texts: Sequence[Sequence[int]]) -> Tensor:
    """Logits (R, prompt and text, tokens) -> (R, longest text, tokens): what predicts each token of the text."""
    longest = max(map(len, texts))
    at = torch.tensor([[min(len(p.tokens) - 1 + i, logits.shape[1] - 1) for i in range(longest)] for p in prompts])
    return logits[torch.arange(len(prompts))[:, None], at]


def rows_of(prompts: Sequence[Prompt], texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Prompt and text of each row, but for the text's last token, which predicts nothing that is asked about."""
    return [[*prompt.tokens, *text[:-1]] for prompt, text in zip(prompts, texts, strict=True)]


def scattered(words: Tensor, places: Tensor, seen: Tensor) -> Tensor:
    """(R, L, width) embedded tokens with what was seen (R, M, width) put where `places` (R, L) is true, M times a row."""
    return words.masked_scatter(places[..., None], seen.to(words.dtype))
