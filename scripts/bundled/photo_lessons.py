"""What the heads for photos are taught: to say captions, or to answer questions; and how well they do on held photos."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from photo_data import Words, said_of, sentences, tokens_of, words_of
from torch import Tensor, nn

from mmgradcam.datasets.answer_words import words_for
from mmgradcam.datasets.photos import Photos, read_answers, read_captions
from mmgradcam.datasets.question_generation import askable, balanced, questions_about
from mmgradcam.metrics import CiderD, bleu4
from mmgradcam.tasks.captioning import Captioning
from mmgradcam.tasks.nets.evidence import Detectors, EvidenceAnswerer, EvidenceCaptioner
from mmgradcam.tasks.vocabulary import END, PAD, START, UNKNOWN, Vocabulary, tokenize

HEADS: dict[str, dict[str, Any]] = {
    "photo-captioner": {"kind": "lstm", "width": 320, "around": 1},
    "photo-captioner-transformer": {"kind": "transformer", "width": 256, "around": 1, "settings": {"layers": 2, "heads": 4}},
    "photo-captioner-small": {"kind": "lstm", "width": 192},
    "photo-vqa": {"width": 320, "around": 1, "glimpses": 3},
}


UNSEEN = 0.3
"""Share of the captions that are learned without evidence, so that the language model learns to look for itself."""


BLEU = 1.0
"""What BLEU-4 counts in a caption's score, beside CIDEr-D."""


OFTEN = 20
"""Photos, as the share of their captions adds up, in which a word must be said for its detector to be trusted."""


class Lesson:
    """What both lessons share: the heads of other runs, and what they think."""

    made: type[EvidenceCaptioner] | type[EvidenceAnswerer]
    """Of which class its heads are."""
    teachers: Sequence[nn.Module] = ()

    def learn_from(self, runs: Sequence[Path], device: torch.device) -> None:
        """Takes the heads of finished runs of the same lesson for teachers."""
        self.teachers = []
        for run in runs:
            head = self.made(**json.loads((run / "about.json").read_text())["head"])
            head.load_state_dict(torch.load(run / "best.pt", map_location=device, weights_only=True)["head"])
            self.teachers = [*self.teachers, head.to(device).eval()]


class Captions(Lesson):
    """Captions are learned word by word, with the words before given, some of them hidden."""

    score, made = "bleu4", EvidenceCaptioner
    each = 5
    """Captions of a photo in a step."""

    def __init__(self, data: Path, images: Path | None, held: int, hide: float = 0.05, smooth: float = 0.0) -> None:
        read = read_captions(data, images)
        self.images, self.count, self.hide, self.smooth = read.images, len(read.captions) - held, hide, smooth
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
        trusted = torch.from_numpy(rng.random((len(said), 1, 1)) > UNSEEN).float().to(x.device)
        seen, evidence = head.detectors(head.per_picture(x))
        logits = self._logits(head, seen, evidence, said, said.masked_fill(hidden, UNKNOWN), trusted)
        spoken = F.cross_entropy(logits.flatten(0, 1), said[:, 1:].flatten(), ignore_index=PAD, label_smoothing=self.smooth)
        if self.teachers:
            spoken = (spoken + self._taught(logits, x, said)) / 2
        return [spoken, self._found(evidence, rows)]

    def _taught(self, logits: Tensor, x: Tensor, said: Tensor) -> Tensor:
        """Cross-entropy to the mean of what the teachers, who read all words, expect next (Hinton et al. 2015)."""
        every = torch.ones(len(said), 1, 1, device=x.device)
        with torch.no_grad():
            thought = [
                self._logits(head, *head.detectors(head.per_picture(x)), said, said, every).softmax(-1)
                for head in self.teachers
            ]
            expected = torch.stack(thought).mean(0)
        each = -(expected * logits.log_softmax(-1)).sum(-1)
        return each[said[:, 1:] != PAD].mean()

    def rewarded(
        self, head: EvidenceCaptioner, x: Tensor, rows: np.ndarray[Any, Any], rng: np.random.Generator
    ) -> list[Tensor]:
        """Captions the head makes up itself are made likelier or not, as they score against people's.

        Self-critical training (Rennie et al. 2017); what a caption must beat is the mean of the photo's others (Luo 2020).
        The score is CIDEr-D, and BLEU-4 of the single caption (Chen and Cherry 2014, smoothing 2), which papers report. The
        detectors stay as they are: where words are found is not what is scored.
        """
        head.eval()  # what is scored is what was drawn, so that no dropout may come between
        torch.manual_seed(int(rng.integers(2**31)))
        with torch.no_grad():
            seen, evidence = head.detectors(head.per_picture(x))
            said = self.sample(head, seen, evidence, self.each)
        texts = [self.words.vocabulary.decode(row) for row in said.tolist()]
        owner = np.repeat(rows, self.each)
        score = torch.tensor([self.rate(int(i), text) for i, text in zip(owner, texts, strict=True)], device=x.device)
        score = score.view(len(x), self.each)
        others = (score.sum(1, keepdim=True) - score) / (self.each - 1)
        better = (score - others).flatten()
        logits = self._logits(head, seen, evidence, said, said, torch.ones(len(said), 1, 1, device=x.device))
        logp = logits.log_softmax(-1).gather(2, said[:, 1:, None])[..., 0]
        kept = (said[:, 1:] != PAD).float()
        return [-(better[:, None] * logp * kept).sum() / kept.sum(), score.mean()]

    def _logits(
        self, head: EvidenceCaptioner, seen: Tensor, evidence: Tensor, said: Tensor, read: Tensor, trusted: Tensor
    ) -> Tensor:
        """What follows each token but the last of `said`, of which the language model reads `read`."""
        state, spread = head.language(seen, read[:, :-1]), head.detectors.spread(evidence)
        left = torch.stack(head.fresh(said[:, :-1], spread.shape[1]), 1)
        logits: Tensor = head.out.words(state).float() + head.weigh(state.float(), spread) * left * trusted
        return logits

    def _found(self, evidence: Tensor, rows: np.ndarray[Any, Any]) -> Tensor:
        held = self.held[rows].to(evidence.device)
        return F.binary_cross_entropy_with_logits(evidence, held, reduction="none").sum(1).mean()

    @torch.no_grad()
    def sample(self, head: EvidenceCaptioner, seen: Tensor, evidence: Tensor, each: int, longest: int = 18) -> Tensor:
        """(B * each, L) tokens of captions drawn as the head thinks them likely, from start to end and filled up."""
        count = len(seen) * each
        said = torch.full((count, 1), START, device=seen.device)
        state = (said[:, :0], head.detectors.spread(evidence), *head.language.start(seen, count))
        ended = torch.zeros(count, dtype=torch.bool, device=seen.device)
        for _ in range(longest):
            hidden, state = head.step(state, said[:, -1])
            logits = head.out(hidden).float()
            logits[:, [PAD, START, UNKNOWN]] = float("-inf")
            token = logits.softmax(-1).multinomial(1)[:, 0].masked_fill(ended, PAD)
            said, ended = torch.cat([said, token[:, None]], 1), ended | (token == END)
            if bool(ended.all()):
                break
        return said

    def rate(self, photo: int, caption: list[str]) -> float:
        """How well a caption of a photo does against people's: CIDEr-D and, at its usual size, BLEU-4."""
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

        bleu = sentence_bleu(self.texts[photo], caption, smoothing_function=SmoothingFunction().method2) if caption else 0.0
        return self.cider.of(photo, caption) / 10 + BLEU * float(bleu)

    @cached_property
    def cider(self) -> CiderD:
        return CiderD(self.texts[: self.count])

    @torch.no_grad()
    def validate(self, head: EvidenceCaptioner, x: np.ndarray[Any, Any]) -> float:
        """BLEU-4 in percent of captions of the held photos, by beam search, (N, C, *grid) features."""
        task = Captioning(nn.Identity(), head, self.words.vocabulary, None, longest=20, beam=3)  # type: ignore[arg-type]
        device = next(head.parameters()).device
        made: list[list[str]] = []
        for at in range(0, len(x), 50):
            part = torch.from_numpy(np.array(x[at : at + 50])).float().to(device)
            made += [self.words.vocabulary.decode(row) for row in task.generate(task.encode(part))]
        return 100 * bleu4(made, self.texts[self.count :])


class Answers(Lesson):
    """Questions made of captions and phrases, or VQA v2's own; an answer is drawn from those that are right."""

    score, made = "accuracy", EvidenceAnswerer
    each = 8
    """Questions about a photo in a step."""
    often = 10
    """How often an answer must be right to be one."""

    def __init__(self, data: Path, images: Path | None, held: int, hide: float = 0.0, smooth: float = 0.0) -> None:
        if data.suffix == ".json":
            read = read_answers(data, images)
            self.images, captions, asked = read.images, read.captions, read.asked
        else:
            photos = Photos(data)
            texts = photos.texts()
            objects = askable(texts[: len(texts) - held])
            asked = balanced([questions_about(captions, phrases, objects) for captions, phrases in texts])
            self.images, captions = read_captions(data).images, [[list(c) for c in cs] for cs, _ in texts]
        self.count, self.hide, self.smooth = len(captions) - held, hide, smooth
        self.words = words_of([sentences(each) for each in captions][: self.count])
        self.held = said_of(self.words, [sentences(each) for each in captions])
        counts = Counter(answer for some in asked[: self.count] for one in some for answer in one.answers)
        self.answers = sorted(answer for answer, n in counts.items() if n >= self.often)
        self.vocabulary = Vocabulary(
            tuple(sorted({w for some in asked[: self.count] for one in some for w in tokenize(one.text)}))
        )
        known = set(self.answers)
        self.asked = [[one for one in some if known & set(one.answers)] for some in asked]

    def head(self, name: str, channels: int) -> tuple[EvidenceAnswerer, dict[str, Any]]:
        made = {**HEADS[name], **_sizes(self.words), "vocabulary": len(self.vocabulary), "channels": channels}
        made["answers"] = len(self.answers)
        head = EvidenceAnswerer(**made)
        detector = {self.words.vocabulary.words[token - 4]: i for i, token in enumerate(self.words.looked_for)}
        head.asks[4:] = torch.tensor([detector.get(word, -1) for word in self.vocabulary.words])
        usual, synonyms = self.held[: self.count].sum(0).tolist(), words_for()
        head.tells.copy_(torch.tensor([_detector(answer, synonyms, detector, usual) for answer in self.answers]))
        return head, made

    def describe(self) -> dict[str, Any]:
        return {"words": self.vocabulary.words, "answers": self.answers}

    def losses(self, head: EvidenceAnswerer, x: Tensor, rows: np.ndarray[Any, Any], rng: np.random.Generator) -> list[Tensor]:
        """Of the answers, and of which words the photos' captions hold; x (B, C, *grid) features of the photos `rows`."""
        chosen = [[self.asked[i][k] for k in rng.permutation(len(self.asked[i]))[: self.each]] for i in rows]
        questions, right, asked = (part.to(x.device) for part in self._batch(chosen))
        hidden = torch.from_numpy(rng.random(tuple(questions.shape)) < self.hide).to(x.device) & (questions > UNKNOWN)
        seen, evidence, where = head.detectors.found(head.per_picture(x))
        logits = head.answer(seen, evidence, where, questions.masked_fill(hidden, UNKNOWN)).log_softmax(-1)
        share = right / right.sum(1, keepdim=True).clamp(min=1) * (1 - self.smooth) + self.smooth / right.shape[1]
        if self.teachers:
            with torch.no_grad():
                thought = torch.stack([teacher(teacher.per_picture(x), questions).softmax(-1) for teacher in self.teachers])
            share = (share + thought.mean(0)) / 2
        spoken = -(logits * share).sum(1)[asked].mean()
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
        device, hits = next(head.parameters()).device, defaultdict(list)
        for at in range(0, len(x), 25):
            chosen = self.asked[self.count :][at : at + 25]
            questions, right, asked = self._batch(chosen)
            part = torch.from_numpy(np.array(x[at : at + 25])).float().to(device)
            best = head(head.per_picture(part), questions.to(device)).argmax(1).cpu()
            found = right.gather(1, best[:, None])[asked, 0].tolist()
            for one, hit in zip(chain(*chosen), found, strict=True):
                hits[one.kind].append(hit)
        print({kind: round(100 * float(np.mean(each)), 1) for kind, each in sorted(hits.items())}, flush=True)
        return 100 * float(np.mean(list(chain(*hits.values()))))


def _detector(answer: str, synonyms: dict[str, set[str]], detector: dict[str, int], usual: Sequence[float]) -> int:
    """The detector of an answer: of its own word, or, where captions seldom use it, of the synonym they use most; -1 for none."""
    own = detector.get(answer, -1)
    if own >= 0 and usual[own] >= OFTEN:
        return own
    others = [detector[word] for word in synonyms.get(answer, ()) if word in detector]
    return max(others, key=lambda i: usual[i], default=own)


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
