"""ViLT (Kim et al. 2021): one transformer reads the question and raw patches, and chooses among answers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import PreparedImage, TracedPreprocess
from mmgradcam.methods import hirescam
from mmgradcam.task import Target, Task, TextSpan, at_least_one
from mmgradcam.tasks.fetching import Source
from mmgradcam.tasks.hub.text import padded, words_read


def supports(architecture: str) -> bool:
    return architecture == "ViltForQuestionAnswering"


def build(source: Source) -> Vilt:
    import transformers

    return Vilt(source.model(transformers.ViltForQuestionAnswering), source.fetch(transformers.AutoProcessor))


@dataclass(frozen=True)
class AnswerTarget:
    """A question's tokens, the answer meant, and the one it is held against (or None)."""

    question: tuple[int, ...]
    answer: int
    contrast: int | None = None


class Vilt(Task):
    """Features are the embedded patches, put in order again: the model shuffles them on every call.

    They are the only place for a map: what its last layer makes of the patches is read by nothing.

    Query: `question="..."`, with `answer=`, `top=` and `contrast=` as for VQA; scores are logits.
    """

    unit = "logit"
    feature_layer = "patch embeddings"
    method = staticmethod(hirescam)

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.tokenizer = model, processor.tokenizer
        self.labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        self._prepare = TracedPreprocess(lambda image: processor.image_processor(image, return_tensors="pt")["pixel_values"][0])

    def prepare(self, image: Image.Image) -> PreparedImage:
        return self._prepare(image)

    def encode(self, images: Tensor) -> Tensor:
        embeddings = self.model.vilt.embeddings
        images = images.to(self.model.dtype)
        seen = images.new_ones(len(images), *images.shape[2:])
        made, _, (index, (rows, columns)) = embeddings.visual_embed(images, seen, max_image_length=-1)
        place = (index[..., 0] * columns + index[..., 1])[..., None].expand(-1, -1, made.shape[2])
        ordered = torch.zeros_like(made[:, 1:]).scatter(1, place, made[:, 1:])
        return torch.unflatten(ordered.transpose(1, 2), 2, (rows, columns))

    def words(self) -> nn.Module:
        found: nn.Module = self.model.get_input_embeddings()
        return found

    def targets(
        self,
        features: Tensor,
        question: str,
        answer: str | Sequence[str] | None = None,
        top: int | None = None,
        contrast: str | None = None,
    ) -> Sequence[Target]:
        if not isinstance(question, str) or not question.strip():
            raise InputError(f"question: expected a sentence, got {question!r:.60}")
        tokens = tuple(self.tokenizer(question.strip())["input_ids"])
        longest = self.model.config.max_position_embeddings
        if len(tokens) > longest:
            raise InputError(f"question: expected at most {longest} tokens, got {len(tokens)}; shorten it")
        input_tokens: tuple[TextSpan, ...] = words_read(self.tokenizer, tokens, question.strip())
        with torch.no_grad():
            probabilities = self._logits(features, [tokens])[0].float().sigmoid()
        if answer is None:
            shown = at_least_one({"top": top}, "top", 1)
            if shown > len(self.labels):
                raise InputError(f"top: expected 1 to {len(self.labels)} answers, got {top}")
            chosen = probabilities.topk(shown).indices.tolist()
        else:
            chosen = [self._answer(a, "answer") for a in ([answer] if isinstance(answer, str) else answer)]
        made = [
            Target(
                self.labels[i],
                AnswerTarget(tokens, i),
                probability=float(probabilities[i]),
                input_tokens=input_tokens,
                asserted=answer is not None or n == 0,
            )
            for n, i in enumerate(chosen)
        ]
        if contrast is not None:
            other = self._answer(contrast, "contrast")
            if other == chosen[0]:
                raise InputError(f"against: {contrast!r} is the answer itself; name another one")
            label = f"{self.labels[chosen[0]]} rather than {self.labels[other]}"
            made.insert(1, Target(label, AnswerTarget(tokens, chosen[0], other), input_tokens=input_tokens, asserted=False))
        return made

    def _answer(self, text: Any, what: str) -> int:
        if text not in self.labels:
            near = difflib.get_close_matches(str(text), self.labels, n=5, cutoff=0.5) or self.labels[:20]
            raise InputError(f"{what}: {self.name} cannot answer {text!r}; it can {', '.join(near)}, ...")
        return self.labels.index(text)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        asked: list[AnswerTarget] = [target.value for target in targets]
        return _pick(self._logits(features, [a.question for a in asked]), asked)

    def scores(self, features: Tensor, targets: Sequence[Sequence[Target]]) -> Sequence[Tensor] | None:
        if any(target.value.question != row[0].value.question for row in targets for target in row):
            return None
        logits = self._logits(features, [row[0].value.question for row in targets])
        rounds = range(max(map(len, targets)))
        return [torch.stack([_pick(logits, [row[min(t, len(row) - 1)].value for row in targets]) for t in rounds])]

    def _logits(self, features: Tensor, questions: Sequence[Sequence[int]]) -> Tensor:
        embeddings = self.model.vilt.embeddings
        ids, mask = padded(questions, self.tokenizer.pad_token_id, features.device)
        first = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(len(features), -1, -1)
        seen = torch.cat([first, features.flatten(2).transpose(1, 2)], 1)
        there = mask.new_ones(seen.shape[:2])
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask, image_embeds=seen, pixel_mask=there).logits
        return logits


def _pick(logits: Tensor, asked: Sequence[AnswerTarget]) -> Tensor:
    """(R,) of (R, answers): the answer's, less that of the one it is held against."""
    rows = torch.arange(len(asked), device=logits.device)
    scores = logits[rows, torch.tensor([a.answer for a in asked], device=logits.device)]
    others = torch.tensor([-1 if a.contrast is None else a.contrast for a in asked], device=logits.device)
    return torch.where(others >= 0, scores - logits[rows, others.clamp(min=0)], scores)
