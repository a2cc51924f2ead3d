"""What the heads for photos are taught: to say captions, or to answer questions; and how well they do on held photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from photo_data import Words, said_of, sentences, tokens_of, words_of
from torch import Tensor, nn

from mmgradcam.data.asking import askable, balanced, questions_about
from mmgradcam.data.photos import Photos, read_answers, read_captions
from mmgradcam.metrics import bleu4
from mmgradcam.tasks.captioning import Captioning
from mmgradcam.tasks.nets.evidence import Detectors, EvidenceAnswerer, EvidenceCaptioner
from mmgradcam.tasks.vocabulary import PAD, UNKNOWN, Vocabulary, tokenize

HEADS: dict[str, dict[str, Any]] = {
    "photo-captioner": {"kind": "lstm", "width": 320},
    "photo-captioner-transformer": {"kind": "transformer", "width": 224, "settings": {"layers": 2, "heads": 4}},
    "photo-captioner-small": {"kind": "lstm", "width": 192},
    "photo-vqa": {"width": 192, "settings": {"glimpses": 3, "heads": 4}},
}


UNSEEN = 0.3
"""Share of the captions that are learned without evidence, so that the language model learns to look for itself."""


class Captions:
    """Captions are learned word by word, with the words before given, some of them hidden."""

    score = "bleu4"

    def __init__(self, data: Path, images: Path | None, held: int, captions: int = 5, hide: float = 0.05) -> None:
        read = read_captions(data, images)
        self.images, self.count, self.each, self.hide = read.images, len(read.captions) - held, captions, hide
        self.texts = [sentences(each) for each in read.captions]
        self.words = words_of(self.texts[: self.count])
        self.tokens, self.held = tokens_of(self.words.vocabulary, self.texts), said_of(self.words, self.texts)

    def head(self, name: str, channels: int) -> tuple[EvidenceCaptioner, dict[str, Any]]:
        made = {**HEADS[name], **_sizes(self.words), "channels": channels}
        return EvidenceCaptioner(**made), made

    def describe(self) -> dict[str, Any]:
        return {"words": self.words.vocabulary.words}

    def losses(self, head: EvidenceCaptioner, x: Tensor, rows: np.ndarray[Any, Any], rng: np.random.Generator) -> list[Tensor]:
        """Of the next word, and of which words the photos' captions hold; x (B, C, *grid) features of the photos `rows`."""
        which = rng.permutation(self.tokens.shape[1])[: self.each]
        said = torch.from_numpy(self.tokens[rows][:, which]).long().to(x.device).flatten(0, 1)
        said = said[:, : int((said != PAD).sum(1).max())]
        hidden = torch.from_numpy(rng.random(tuple(said.shape)) < self.hide).to(x.device) & (said > UNKNOWN)
        read = said.masked_fill(hidden, UNKNOWN)[:, :-1]
        seen, evidence = head.detectors(x)
        state, spread = head.language(seen, read), head.detectors.spread(evidence)
        left = torch.stack(head.fresh(said[:, :-1], spread.shape[1]), 1)
        trusted = torch.from_numpy(rng.random((len(said), 1, 1)) > UNSEEN).float().to(x.device)
        logits = head.out.words(state).float() + head.weigh(state.float(), spread) * left * trusted
        return [
            F.cross_entropy(logits.flatten(0, 1), said[:, 1:].flatten(), ignore_index=PAD),
            F.binary_cross_entropy_with_logits(evidence, self.held[rows].to(x.device), reduction="none").sum(1).mean(),
        ]

    @torch.no_grad()
    def validate(self, head: EvidenceCaptioner, x: np.ndarray[Any, Any]) -> float:
        """BLEU-4 of greedy captions of the held photos, (N, C, *grid) features."""
        task = Captioning(nn.Identity(), head, self.words.vocabulary, None, longest=20)  # type: ignore[arg-type]
        device = next(head.parameters()).device
        made: list[list[str]] = []
        for at in range(0, len(x), 50):
            part = torch.from_numpy(np.array(x[at : at + 50])).float().to(device)
            made += [self.words.vocabulary.decode(row) for row in task.generate(part)]
        return bleu4(made, self.texts[self.count :])


class Answers:
    """Questions made of captions and phrases, or VQA v2's own; an answer is drawn from those that are right."""

    score = "accuracy"

    def __init__(self, data: Path, images: Path | None, held: int, each: int = 8, often: int = 20) -> None:
        if data.suffix == ".json":
            read = read_answers(data, images)
            self.images, captions, asked = read.images, read.captions, read.asked
        else:
            photos = Photos(data)
            texts = photos.texts()
            things = askable(texts[: len(texts) - held])
            asked = balanced([questions_about(captions, phrases, things) for captions, phrases in texts])
            self.images, captions = read_captions(data).images, [[list(c) for c in cs] for cs, _ in texts]
        self.count, self.each = len(captions) - held, each
        self.words = words_of([sentences(each) for each in captions][: self.count])
        self.held = said_of(self.words, [sentences(each) for each in captions])
        counts = Counter(answer for some in asked[: self.count] for one in some for answer in one.answers)
        self.answers = sorted(answer for answer, n in counts.items() if n >= often)
        self.vocabulary = Vocabulary(
            tuple(sorted({w for some in asked[: self.count] for one in some for w in tokenize(one.text)}))
        )
        known = set(self.answers)
        self.asked = [[one for one in some if known & set(one.answers)] for some in asked]

    def head(self, name: str, channels: int) -> tuple[EvidenceAnswerer, dict[str, Any]]:
        made = {**HEADS[name], **_sizes(self.words), "vocabulary": len(self.vocabulary), "channels": channels}
        made["answers"] = len(self.answers)
        return EvidenceAnswerer(**made), made

    def describe(self) -> dict[str, Any]:
        return {"words": self.vocabulary.words, "answers": self.answers}

    def losses(self, head: EvidenceAnswerer, x: Tensor, rows: np.ndarray[Any, Any], rng: np.random.Generator) -> list[Tensor]:
        """Of the answers, and of which words the photos' captions hold; x (B, C, *grid) features of the photos `rows`."""
        chosen = [[self.asked[i][k] for k in rng.permutation(len(self.asked[i]))[: self.each]] for i in rows]
        questions, right, asked = self._batch(chosen)
        seen, evidence = head.detectors(x)
        logits = head.language(seen, questions.to(x.device)).float().log_softmax(-1)
        share = right / right.sum(1, keepdim=True).clamp(min=1)
        spoken = -(logits * share.to(x.device)).sum(1)[asked].mean()
        found = F.binary_cross_entropy_with_logits(evidence, self.held[rows].to(x.device), reduction="none").sum(1).mean()
        return [spoken, found]

    def _batch(self, chosen: Sequence[Sequence[Any]]) -> tuple[Tensor, Tensor, Tensor]:
        """Questions (B * n, L), which answers are right (B * n, answers), and which rows are questions at all."""
        most = max(1, max(map(len, chosen)))
        index = {answer: i for i, answer in enumerate(self.answers)}
        right = torch.zeros(len(chosen) * most, len(self.answers))
        texts = [[self.vocabulary.encode(tokenize(one.text)) for one in some] for some in chosen]
        questions = torch.zeros(len(right), max([1, *(len(t) for some in texts for t in some)]), dtype=torch.long)
        questions[:, 0] = UNKNOWN  # a row of no question at all would leave attention nothing to look at
        for b, some in enumerate(chosen):
            for k, one in enumerate(some):
                row = b * most + k
                questions[row, : len(texts[b][k])] = torch.tensor(texts[b][k])
                for answer in set(one.answers) & index.keys():
                    right[row, index[answer]] = 1
        return questions, right, right.sum(1) > 0

    @torch.no_grad()
    def validate(self, head: EvidenceAnswerer, x: np.ndarray[Any, Any]) -> float:
        """Percent of the held photos' questions that get an answer the captions give, (N, C, *grid) features."""
        device, hit = next(head.parameters()).device, []
        for at in range(0, len(x), 25):
            questions, right, asked = self._batch(self.asked[self.count :][at : at + 25])
            part = torch.from_numpy(np.array(x[at : at + 25])).float().to(device)
            best = head(part, questions.to(device)).argmax(1).cpu()
            hit.append(right.gather(1, best[:, None])[asked, 0])
        return 100 * float(torch.cat(hit).mean())


def _sizes(words: Words) -> dict[str, int]:
    return {"vocabulary": len(words.vocabulary), "looked_for": len(words.looked_for)}


def prime(detectors: Detectors, words: Words, held: Tensor) -> None:
    """Sets what detectors look for, and lets them begin with how usual each word is, by the shares `held`."""
    usual = torch.logit(held.mean(0).clamp(1e-4, 0.5))
    with torch.no_grad():
        detectors.usual.copy_(usual)
        if detectors.look.bias is not None:
            detectors.look.bias.copy_(usual)
        if detectors.vocabulary > len(words.looked_for):
            detectors.tokens.copy_(torch.tensor(words.looked_for))
