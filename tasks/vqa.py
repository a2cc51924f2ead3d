"""Visual question answering: one target per answer, scored by its logit before the softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.explaining.arguments import refuse_unknown
from mmgradcam.images.pictures import PreparedImage, Preprocess
from mmgradcam.task import Query, Target, Task, at_least_one
from mmgradcam.tasks.nets.encoder import encoded
from mmgradcam.tasks.vocabulary import PAD, Spoken, Vocabulary, spoken, tokenize
from mmgradcam.utils.probability import log_prob


@dataclass(frozen=True)
class AnswerTarget:
    """A question's tokens, the answer meant, and the one it is held against (or None)."""

    question: tuple[int, ...]
    answer: int
    contrast: int | None = None


class VQA(Task):
    """An encoder and an answer head.

    Query: `question="..."`; `answer="..."` (or a list) explains these instead of the likeliest; `top=K` the K likeliest;
    `contrast="..."` explains why this answer and not that one, by the difference of their logits. `questions=[...]` instead
    explains the likeliest answer to each of several questions, or of `answers=[...]` those that are not None.

    Args:
        encoder: (B, 3, h, w) -> (B, C, *grid).
        head: (B, C, *grid), (R, L) question tokens, R a multiple of B -> (R, answers) logits; its `words` embeds the tokens. A
            `per_picture` it may have is part of the encode, as of a `CaptionHead`.
        vocabulary: the words the head knows.
        answers: the answers it chooses among.
        fit: resizing and normalising.
        longest: most words of a question.
    """

    unit = "logit"
    query_types = frozenset({"question", "answer", "contrast", "top", "questions", "answers"})

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        vocabulary: Vocabulary,
        answers: Sequence[str],
        fit: Preprocess,
        longest: int = 40,
    ) -> None:
        if not hasattr(head, "words") or type(head).forward is nn.Module.forward:
            raise InputError(f"VQA: expected a head that embeds words and answers, got {type(head).__name__}")
        self.encoder, self.head, self.vocabulary, self.fit = encoder, head, vocabulary, fit
        self.labels, self.longest = list(answers), longest

    def prepare(self, image: Image.Image) -> PreparedImage:
        return self.fit(image)

    def encode(self, images: Tensor) -> Tensor:
        return encoded(self.encoder, self.head, images)

    def can_read(self, text: str) -> bool:
        return all(word in self.vocabulary for word in tokenize(text))

    def words(self) -> nn.Module:
        embedding = self.head.words
        assert isinstance(embedding, nn.Module)
        return embedding

    def targets(self, features: Tensor, **query: Any) -> Sequence[Target]:
        return self.targets_of_each(features, [query])[0]

    def targets_of_each(self, features: Tensor, queries: Sequence[Query]) -> list[Sequence[Target]]:
        if any("questions" in query for query in queries):
            return [
                self._several(features[b : b + 1], query)
                if "questions" in query
                else self.targets(features[b : b + 1], **query)
                for b, query in enumerate(queries)
            ]
        for query in queries:
            asked = "with question=..., and answer=, against= or top= if wanted"
            refuse_unknown(self, query, sorted(self.query_types), asked)
            if query.get("question") is None:
                raise InputError(f"{self.name} is asked {asked}; got no question")
        read = [self._read(query["question"]) for query in queries]
        tokens = self._pad([self.vocabulary.encode(one.words) for one in read], features.device)
        probabilities = self.head(features, tokens).float().softmax(-1).cpu()
        return [self._targets(p, one, query) for p, one, query in zip(probabilities, read, queries, strict=True)]

    def _several(self, features: Tensor, query: Query) -> list[Target]:
        refuse_unknown(self, query, ("questions", "answers"), "several questions with questions=[...] and answers=[...] alone")
        if isinstance(query["questions"], str) or not isinstance(query["questions"], Sequence):
            raise InputError(f"questions: expected a list of questions, got {query['questions']!r:.60}")
        read = [self._read(question) for question in query["questions"]]
        answers = query.get("answers") or [None] * len(read)
        if len(answers) != len(read):
            raise InputError(f"answers: expected one, or None, for each of {len(read)} questions; got {len(answers)}")
        tokens = self._pad([self.vocabulary.encode(one.words) for one in read], features.device)
        probabilities = self.head(features, tokens).float().softmax(-1).cpu()
        asked = zip(probabilities, read, answers, strict=True)
        return [target for p, one, answer in asked for target in self._targets(p, one, {"answer": answer})]

    def _targets(self, probabilities: Tensor, read: Spoken, query: Query) -> list[Target]:
        asked = query.get("answer")
        if asked is None:
            top = at_least_one(query, "top", 1)
            if top > len(self.labels):
                raise InputError(f"top: expected 1 to {len(self.labels)} answers, got {top}")
            chosen = probabilities.topk(top).indices.tolist()
        else:
            chosen = [self._answer(a, "answer") for a in ([asked] if isinstance(asked, str) else asked)]
        question, input_tokens = tuple(self.vocabulary.encode(read.words)), read.spans
        made = [
            Target(
                self.labels[i],
                AnswerTarget(question, i),
                probability=float(probabilities[i]),
                input_tokens=input_tokens,
                asserted=asked is not None or n == 0,
            )
            for n, i in enumerate(chosen)
        ]
        if query.get("contrast") is not None:
            other = self._answer(query["contrast"], "contrast")
            if other == chosen[0]:
                raise InputError(f"against: {self.labels[other]!r} is the answer itself; name another one")
            label = f"{self.labels[chosen[0]]} rather than {self.labels[other]}"
            made.insert(1, Target(label, replace(made[0].value, contrast=other), input_tokens=input_tokens, asserted=False))
        return made

    def _read(self, question: Any) -> Spoken:
        read = spoken(question, self.vocabulary) if isinstance(question, str) else None
        if read is None or not read.words:
            raise InputError(f"question: expected a sentence, got {question!r}")
        words = read.words
        if len(words) > self.longest:
            raise InputError(f"question: expected at most {self.longest} words, got {len(words)}; shorten it")
        unknown = [word for word in dict.fromkeys(words) if word not in self.vocabulary]
        if unknown:
            raise InputError(
                f"question: {self.name} does not know {', '.join(map(repr, unknown))}; "
                f"it knows {', '.join(self.vocabulary.words[:200])}"
            )
        return read

    def _answer(self, text: Any, what: str) -> int:
        answer = " ".join(tokenize(text)) if isinstance(text, str) else ""
        if answer not in self.labels:
            raise InputError(f"{what}: {self.name} cannot answer {text!r}; it can {', '.join(self.labels[:200])}")
        return self.labels.index(answer)

    def _pad(self, questions: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        tokens = torch.full((len(questions), max(map(len, questions))), PAD)
        for row, question in zip(tokens, questions, strict=True):
            row[: len(question)] = torch.tensor(question)
        return tokens.to(device)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        logits = self.head(features, self._pad([t.value.question for t in targets], features.device))
        return self._pick(logits, [t.value for t in targets])

    def log_prob(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        tokens = self._pad([t.value.question for t in targets], features.device)
        logits = self.head(features, tokens)
        return log_prob(logits, *_indices([t.value for t in targets], logits.device))

    def scores(self, features: Tensor, targets: Sequence[Sequence[Target]]) -> Sequence[Tensor] | None:
        if any(target.value.question != row[0].value.question for row in targets for target in row):
            return None
        logits = self.head(features, self._pad([row[0].value.question for row in targets], features.device))
        rounds = range(max(map(len, targets)))
        return [torch.stack([self._pick(logits, [row[min(t, len(row) - 1)].value for row in targets]) for t in rounds])]

    def _pick(self, logits: Tensor, asked: Sequence[AnswerTarget]) -> Tensor:
        answers, others = _indices(asked, logits.device)
        rows = torch.arange(len(asked), device=logits.device)
        scores = logits[rows, answers]
        return torch.where(others >= 0, scores - logits[rows, others.clamp(min=0)], scores)


def _indices(asked: Sequence[AnswerTarget], device: torch.device) -> tuple[Tensor, Tensor]:
    """(K,) answers, and (K,) those they are held against, -1 where there is none."""
    others = [-1 if a.contrast is None else a.contrast for a in asked]
    return torch.tensor([a.answer for a in asked], device=device), torch.tensor(others, device=device)
